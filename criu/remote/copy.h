/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A copy of the memory of a stopped process: a process that never runs, which the kernel makes by
 * copy-on-write. The process itself may go on meanwhile.
 */
#ifndef REMOTE_COPY_H
#define REMOTE_COPY_H

#include "remote/inject.h"

struct copy {
	pid_t pid;  /* 0: there is none */
	int mem_fd; /* /proc/PID/mem of it */
};

/* Memory that fork(2) leaves out or empties, and the advice that lets it be forked, or not. */
struct copy_range {
	uint64_t start, end;
	int allow, forbid;
};

#define COPY_RANGES_MAX 128

/*
 * Makes a copy of the process, which is entered and stopped in all threads. The engine is held. No
 * wait(2) call and no `children` file of the process ever shows it; its parent is the next
 * subreaper above. Returns 0; 1 with the reason in *ret_errno if the kernel allows none, and the
 * process is as it was; or an error that is reported.
 */
int copy_make(struct inject *in, const struct copy_range *ranges, size_t n, struct copy *ret,
	      int *ret_errno);

/* Ends the copy, if there is one. */
void copy_end(struct copy *c);

#endif
