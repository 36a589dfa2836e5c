/* SPDX-License-Identifier: GPL-2.0-only */
/* Processes and threads at restore, from blank ones to the point where they run. */
#ifndef TASK_RESTORE_H
#define TASK_RESTORE_H

#include "model/restore.h"

/* Checks what the machine has to offer for all threads, and that all pids are free. */
int task_check(struct restore *r);

/* Creates all processes, blank, the root first; sessions, groups and parents as in the image. */
int task_create_all(struct restore *r);

/* Everything of a process that is not memory or files; what it has to do is added to p. */
int task_add_attributes(struct restore *r, struct restore_task *t, struct program *p);

/* Lets those that are zombies in the image die, and those that are stopped stop. */
int task_bury_zombies(struct restore *r);

/* Creates the other threads; then everything that a thread has. */
int task_create_threads(struct restore *r, struct restore_task *t);
int task_restore_threads(struct restore *r, struct restore_task *t, struct batch *b);

/* Starts timers: the last thing that a task does before it goes on. */
int task_start_timers(struct restore *r, struct restore_task *t);

/* All threads leave the stub: first they are interrupted. */
int task_interrupt(struct restore *r, struct restore_task *t);
/* Waits until they are stopped, takes the region away and sets their registers. */
int task_set_registers(struct restore *r, struct restore_task *t);

/* It is to be stopped, as it was. */
bool task_is_stopped(const struct restore_task *t);

/* Lets all go: from here on nothing can fail. stop: leave them stopped. */
void task_let_go(struct restore *r, bool stop);

/* Kills whatever was created. */
void task_kill_all(struct restore *r);

#endif
