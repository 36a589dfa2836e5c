/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a tree of processes comes to be: from what all of them are at the end (parent, session,
 * process group, order among their siblings) to the calls that lead there. Pure; a dump asks
 * whether there is a way, a restore goes it.
 */
#ifndef TASK_KINPLAN_H
#define TASK_KINPLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

/* Parents come before their children, and siblings in the order of their parent's list. */
struct kin_task {
	uint32_t pid, sid, pgid;
	int parent; /* index, -1: the root */
	bool shares_table;
};

struct kin_tree {
	const struct kin_task *tasks;
	size_t n;
	uint32_t outer_sid, outer_pgid; /* those of criu, where the root is in them; or KIN_NONE */
};

/* Not 0: so a session or group is called whose leader is in another pid namespace. */
#define KIN_NONE UINT32_MAX
/* As a group: that of criu, whatever the number of its leader was. */
#define KIN_JOB	 (UINT32_MAX - 1)

enum kin_call { KIN_FORK, KIN_SETSID, KIN_SETPGID, KIN_SUBREAPER, KIN_END };

#define KIN_CRIU -1

/*
 * who is a task, or a helper: index - n. by: the parent that forks it, or that reaps it at its
 * end. arg: flags of clone(2) (CLONE_PARENT, CLONE_FILES); the group, 0 for a new one; on or off.
 */
struct kin_step {
	enum kin_call call;
	int who, by;
	uint32_t arg;
};

struct kin_plan {
	struct kin_step *steps;
	size_t n_steps;
	uint32_t *helpers; /* pids of the lost leaders that they stand for; 0: any that is free */
	size_t n_helpers;
	int blamed; /* index of the task there is no way for, and why */
	const char *reason;
};

/* A plan never has more helpers than that. */
#define KIN_HELPERS(n) (4 * (n))

/* Returns 0, or -EOPNOTSUPP with blamed and reason set. */
int kin_plan_make(struct arena *a, const struct kin_tree *tree, struct kin_plan *ret_plan);

#endif
