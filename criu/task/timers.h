/* SPDX-License-Identifier: GPL-2.0-only */
/* POSIX timers, timer_create(2), and interval timers, setitimer(2). */
#ifndef TASK_TIMERS_H
#define TASK_TIMERS_H

#include <signal.h>

#include "model/dump.h"
#include "model/restore.h"

/* Reads which POSIX timers the process has; blocks the dump where one cannot be made again. */
int timers_collect(struct dump *d, struct dump_task *t);

/* Asks the task, whose leader is in the stub, how they stand. */
int timers_ask(struct dump_task *t);

/*
 * True if the pending signal came from a timer that expired only after it was asked, so that
 * the image has that expiry still ahead. read_us: when signals were read.
 */
bool timers_is_ahead(const struct dump_task *t, const siginfo_t *si, uint64_t asked_us,
		     uint64_t read_us);

/* Makes POSIX timers with the ids that they had. All threads exist. */
int timers_create(struct restore *r, struct restore_task *t);

/* True if the pending signal comes back by its timer expiring once more. */
bool timers_bring_back(const struct restore_task *t, const SiginfoEntry *e);

/* Adds the calls that start all timers. */
void timers_add_start(const struct restore_task *t, struct program *p);

#endif
