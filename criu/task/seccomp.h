/* SPDX-License-Identifier: GPL-2.0-only */
/* seccomp(2): strict mode and chains of filters. */
#ifndef TASK_SECCOMP_H
#define TASK_SECCOMP_H

#include "model/dump.h"
#include "model/restore.h"

/* For errors: what suspending seccomp takes. */
extern const char seccomp_why_not_suspended[];

/*
 * Reads what a stopped thread may call. Fails where criu's own calls would be subject to that:
 * nothing may run in the process then.
 */
int seccomp_collect(struct dump *d, struct dump_thread *th);

int seccomp_write_image(struct dump *d);

/* Does any task of the snapshot use it? Then blank tasks are traced with it suspended. */
bool seccomp_is_used(const struct snapshot *s);

/* Gives all threads at once the filters that they have in common. */
int seccomp_restore_common(struct restore *r, struct restore_task *t);

/* How many calls seccomp_add makes at most. */
size_t seccomp_calls(const struct restore *r, const struct restore_thread *th);

/* Adds the calls for what the thread has besides. */
void seccomp_add(const struct restore *r, const struct restore_task *t,
		 const struct restore_thread *th, struct program *p);

#endif
