/* SPDX-License-Identifier: GPL-2.0-only */
/* Scheduling of threads: sched(7), ioprio_set(2), CPU affinity, timer slack. */
#ifndef TASK_SCHED_H
#define TASK_SCHED_H

#include "model/dump.h"
#include "model/restore.h"

/* Reads it into the thread's core. Returns 0 or an error that is reported. */
int sched_collect(struct dump *d, struct dump_thread *th);

/* What PR_GET_TIMERSLACK gave the thread; or the low half of it: the rest is in /proc, if we may.
 */
void sched_take_timer_slack(struct dump_thread *th, uint64_t slack_ns);
void sched_take_low_timer_slack(struct dump_thread *th, uint32_t low);

/* Takes from criu itself what images do not tell of. 0, or -1 with errno. */
int sched_reset(void);

/* Sets it from outside; criu has its own rights yet. */
int sched_restore(const struct restore_thread *th);

/* Adds to a program of the thread what only it may set, or whoever has CAP_SYS_NICE. */
void sched_add_thread(const ThreadCoreEntry *e, struct program *p);

#endif
