/* SPDX-License-Identifier: GPL-2.0-only */
/* The factory regs: its threads (regs.c), and the registers of a CPU (regs64.c, regs32.c). */
#ifndef REGS_H
#define REGS_H

#include <stdint.h>

/* What the assembly looks at, and how it says that the registers are loaded. */
extern volatile int regs_stop;
extern __thread volatile int regs_spinning;

struct registers;

/* For thread i, in that thread. */
struct registers *regs_new(long i);

/* Loads values that no other thread and round has, spins until regs_stop, and compares. */
void regs_round(struct registers *r, long i, long round);

/* Notes a difference of the calling thread. */
#define NO_NUMBER -1
void regs_differ(const char *what, int n, uint64_t expected, uint64_t got);

#endif
