/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * x86-64: what is different in a task that runs 32-bit (i386) code. Its registers are those of a
 * 64-bit task with another code segment; its calls have other numbers and registers, and the
 * signal frames that its own rt_sigreturn reads another form (arch/x86/kernel/signal_32.c).
 */
#ifndef REMOTE_ARCH_X86_64_COMPAT_H
#define REMOTE_ARCH_X86_64_COMPAT_H

#include "remote/arch.h"

#define COMPAT_RESTART_SYSCALL 0

/*
 * Puts a call, by its 64-bit number, into registers. Only calls that the table in compat.c has can
 * be made; their arguments are below 4 GiB.
 */
void compat_set_call(struct regs *regs, long nr, const uint64_t arg[6]);

/* As regs_is_marked. */
bool compat_is_marked(const struct regs *regs);

/* As regs_restarted_time and regs_restarted_number. */
uint64_t compat_restarted_time(const struct regs *regs, long nr);
long compat_restarted_number(long nr, const uint32_t time[3]);

/* By the 32-bit number. */
bool compat_is_never_restarted(long nr);

/* Makes a call that sleeps, and is made again, sleep for the time that is left. */
void compat_sleep_for_the_rest(struct regs *regs, long nr);

/* As frame_build. */
ssize_t compat_frame_build(const struct xstate_layout *l, void *buf, uint64_t at, uint64_t restorer,
			   const struct regs *regs, const struct xstate *x, uint64_t mask);

#endif
