/* SPDX-License-Identifier: GPL-2.0-only */
/* Signals that wait, for a process or for one of its threads. */
#ifndef TASK_PENDING_H
#define TASK_PENDING_H

#include "model/dump.h"
#include "model/restore.h"

/* Reads the signals that wait for the process and all its threads; all are stopped. */
void pending_collect(struct dump *d, struct dump_task *t);

/*
 * Reads them again after the timers, whose state was asked between asked_us and now: a timer may
 * have expired since they were read first. The leader is in the stub.
 */
int pending_collect_again(struct dump *d, struct dump_task *t, uint64_t asked_us);

/*
 * Adds the calls that queue them again, for the process (tid 0) or a thread. All signals are
 * blocked now, so they stay pending until the task runs.
 */
void pending_add(const struct restore_task *t, const SignalQueueEntry *q, pid_t tid,
		 struct program *p);

#endif
