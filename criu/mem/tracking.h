/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which pages a process has written to since an earlier dump, as the kernel tells: soft-dirty bits,
 * proc_pid_pagemap(5) (CONFIG_MEM_SOFT_DIRTY).
 *
 * A process has one set of bits, whoever clears them. So a record on this machine tells for which
 * run of criu that was done last: bits that were cleared for another one, by a dump that failed, or
 * for another process of the same pid, are not trusted.
 */
#ifndef MEM_TRACKING_H
#define MEM_TRACKING_H

#include "model/dump.h"

/*
 * From now on the bits tell what the tasks write: the dump gets a run id, which goes into its
 * inventory. The tree is stopped. Where the kernel does not keep track, or no record can be made,
 * there is no run id, and the log says so.
 */
void tracking_begin(struct dump *d);

/* Do the bits of the task tell what it has written since that run? */
bool tracking_holds(const struct dump_task *t, const char *run_id);

/* The task ends with the dump: its record goes. */
void tracking_forget(const struct dump_task *t);

#endif
