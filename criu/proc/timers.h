/* SPDX-License-Identifier: GPL-2.0-only */
/* /proc/PID/timers: the POSIX timers of a process. proc_pid_timers(5). */
#ifndef PROC_TIMERS_H
#define PROC_TIMERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"

/* How the kernel counts kinds of notification: SIGEV_*. */
enum { TIMER_SIGNAL = 0, TIMER_NONE = 1, TIMER_THREAD = 2, TIMER_THREAD_ID = 4 };

struct proc_timer {
	uint32_t id;
	int32_t signal;
	uint64_t value; /* sigev_value */
	int notify;	/* TIMER_* */
	pid_t target;	/* process, or thread with TIMER_THREAD_ID */
	int32_t clock;
};

/*
 * Parses the text (which is changed); unknown lines are ignored. The list is in the arena, in the
 * order of the text. Returns 0, or -EINVAL for a timer that is incomplete or makes no sense.
 */
int proc_timers_parse(char *text, struct arena *a, struct proc_timer **ret, size_t *ret_n);

/* Reads "timers" of the process directory. Returns 0 or -errno. */
int proc_timers_read(int proc_fd, struct arena *a, struct proc_timer **ret, size_t *ret_n);

#endif
