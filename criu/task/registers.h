/* SPDX-License-Identifier: GPL-2.0-only */
/* Registers in image messages and back; one implementation per CPU in task/arch. */
#ifndef TASK_REGISTERS_H
#define TASK_REGISTERS_H

#include "base/arena.h"
#include "image/messages.h"
#include "remote/arch.h"

#define REGISTERS_MACHINE CORE_ENTRY__MARCH__X86_64

/* Adds machine type, registers and extended state to the core; tls may be NULL. */
void registers_to_core(struct arena *a, const struct xstate_layout *l, CoreEntry *core,
		       const struct regs *regs, const struct xstate *x, uint64_t clear_tid_addr,
		       const struct tls *tls);

/*
 * Checks that this machine can load what the core holds: machine type, CPU features. who names
 * the thread in the error. Returns 0 or -errno, reported.
 */
int registers_check(const struct xstate_layout *l, const CoreEntry *core, const char *who);

/* Registers for a core that was checked. */
void registers_from_core(const CoreEntry *core, struct regs *ret);

/* Sets its thread-local storage segments in the stopped thread. 0 or -errno, reported. */
int registers_set_tls(const CoreEntry *core, pid_t tid);

/* Is it that of a 32-bit program? */
bool registers_are_compat(const CoreEntry *core);

/*
 * Puts the core's extended state over x, which holds that of a fresh task (so that size and
 * layout are the kernel's). Returns 0 or -errno.
 */
int registers_xstate_from_core(const struct xstate_layout *l, const CoreEntry *core, uint8_t *x,
			       size_t size);

uint64_t registers_clear_tid_addr(const CoreEntry *core);

#endif
