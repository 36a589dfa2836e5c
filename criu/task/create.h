/* SPDX-License-Identifier: GPL-2.0-only */
/* What creating tasks (create.c) and their kinship (kinship.c) need of each other. */
#ifndef TASK_CREATE_H
#define TASK_CREATE_H

#include "model/restore.h"

/* Creates a blank task as a child of criu, or as its sibling. 0 or -errno, reported. */
int blank_create_first(struct restore *r, struct restore_task *t, bool sibling);

/* A child of a blank task; flags: those of clone(2) that it needs too. */
struct birth {
	struct restore_task *child;
	uint64_t flags;
};

/* Creates children of another blank task, at most BIRTHS_MAX. 0 or -errno, reported. */
#define BIRTHS_MAX 64
int blank_create(struct restore *r, struct restore_task *creator, const struct birth *births,
		 size_t n);

/* One call in a blank task. label names it in errors. */
int blank_call(struct restore_task *t, const char *label, long nr, uint64_t a, uint64_t b);

/* Is the pid free? Waits for a zombie that is about to be reaped. 0 or -errno, reported. */
int pid_check_free(struct restore *r, uint32_t pid);

/*
 * Decides how the tree is made, and with which helpers. All pids that they take are free, or each
 * that is not is reported. 0 or -errno.
 */
int kin_plan(struct restore *r);

#endif
