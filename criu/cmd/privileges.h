/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * With whose rights criu works. What is done for an ordinary user is done by a process that is
 * that user and has one more capability, CAP_CHECKPOINT_RESTORE: so the kernel itself sees to it
 * that nothing is read, written, run or signalled that the user could not.
 */
#ifndef CMD_PRIVILEGES_H
#define CMD_PRIVILEGES_H

#include <sys/types.h>

#include "model/options.h"

/*
 * Becomes that user for good, with CAP_CHECKPOINT_RESTORE only. 0 or -errno, reported: without
 * that capability too.
 */
int privileges_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n);

/* The first thing of all: installed set-uid root, criu becomes its caller. 0 or -errno. */
int privileges_leave_setuid(void);

/* Has criu what a command needs? 0 or -errno, reported. */
int privileges_check(const struct options *o);

#endif
