/* SPDX-License-Identifier: GPL-2.0-only */
/* Holding values in every register the CPU has. */
#ifndef KILL_HOLD_H
#define KILL_HOLD_H

#include <stdint.h>

/* Looks up what the CPU has. Called once, before any thread holds registers. */
void hold_init(void);

/*
 * Loads all registers and the red zone with values made from seed, lets some 10 us pass in a
 * loop that touches none of them, and compares. Returns NULL, or which one was wrong.
 */
const char *hold_registers(uint64_t seed);

/* What a signal handler may do to the registers of the code that it interrupts. */
void hold_clobber(void);

#endif
