/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which pages a process has written to since an earlier dump, as the kernel tells: soft-dirty bits,
 * proc_pid_pagemap(5) (CONFIG_MEM_SOFT_DIRTY).
 *
 * Two things are not believed:
 *  - A process has one set of bits, whoever clears them. So a record on this machine tells for
 * which run of criu that was done last: bits that were cleared for another one, by a dump that
 * failed, or for another process of the same pid, are not looked at.
 *  - mremap(2) of whole page tables leaves the bits as they were (seen in Linux 6.1): pages that
 * have moved do not count as written where they are now. So the record has the frame of one page of
 * each table; where it is another one by now, what the bits say of that table does not count.
 */
#ifndef MEM_TRACKING_H
#define MEM_TRACKING_H

#include "model/dump.h"

/* A page, and the frame in which it was. */
struct tracked_frame {
	uint64_t addr;
	uint64_t frame;
};

/* The record of a task. */
struct tracking {
	struct tracked_frame *frames; /* by address */
	size_t n;
	int fd;		       /* pagemap of the task */
	uint64_t table_end;    /* of the table that was asked for last */
	bool table_has_stayed; /* the answer */
};

/*
 * From now on the bits tell what the tasks write: the dump gets a run id, which goes into its
 * inventory. The tree is stopped, its pages have been found. Where the kernel does not keep track,
 * or no record can be made, there is no run id, and the log says so.
 */
void tracking_begin(struct dump *d);

/*
 * Reads the record of the task, if it is of that run and so the bits tell what has been written
 * since. fd is its pagemap. The frames are in the arena.
 */
bool tracking_load(struct arena *a, const struct dump_task *t, const char *run_id, int fd,
		   struct tracking *ret);

/* Is the page table that holds this address the one of then? Asked by address. */
bool tracking_has_stayed(struct tracking *tr, uint64_t addr);

/* The task ends with the dump: its record goes. */
void tracking_forget(const struct dump_task *t);

#endif
