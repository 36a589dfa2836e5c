/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef REMOTE_RESTART_H
#define REMOTE_RESTART_H

#include "remote/tree.h"

/* Is the thread in a call that restart_syscall(2) will go on with? */
bool restart_is_needed(const struct thread *t);

/*
 * For such a stopped thread in restart_syscall(2): finds out which call it continues, into
 * t->restarted_call (-1 if that cannot be told), and reads t->regs again. The call goes on
 * for a moment; no instruction of the program is executed. Returns 0 or -errno, reported.
 */
int restart_find_call(struct engine *e, struct thread *t);

#endif
