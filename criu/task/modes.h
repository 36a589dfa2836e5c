/* SPDX-License-Identifier: GPL-2.0-only */
/* Switches of processes and threads that prctl(2) and its like set, one by one. */
#ifndef TASK_MODES_H
#define TASK_MODES_H

#include "model/dump.h"
#include "model/restore.h"

#define MODES_NUMA_WORDS 16 /* 1,024 nodes, the kernel's most */

/* What a thread has to be asked; answers are written there. */
struct modes_of_thread {
	int32_t tsc;
	int32_t numa_mode;
	uint64_t numa_nodes[MODES_NUMA_WORDS];
};

/* The calls by which the leader is asked for what belongs to the process. */
struct modes_questions {
	struct call *cpuid, *ldt, *mdwe, *memory_merge, *thp_disable;
	struct call *membarrier, *membarrier_probe[3];
	struct call *keyring[2];
};

/*
 * What /proc and ptrace tell of a stopped thread. Fails if calls cannot be made in it; nothing may
 * run in the process then.
 */
int modes_collect(struct dump *d, struct dump_task *t, struct dump_thread *th);

void modes_ask(struct program *p, struct modes_questions *q);
void modes_take(struct dump_task *t, const struct modes_questions *q);
void modes_take_cpuid(struct dump_thread *th, int64_t answer);
void modes_take_thread(struct dump *d, struct dump_thread *th,
		       const struct modes_of_thread *answers);

/* Restore: adds the calls for what belongs to the process, last of its attributes. */
void modes_add(const struct restore_task *t, struct program *p);

/* Adds the calls that a thread makes for itself before its credentials change. */
void modes_add_thread(const struct restore *r, const struct restore_thread *th, struct program *p);

/* Sets what only ptrace can set in a thread that is stopped and makes no more calls of ours. */
int modes_set_stopped(const struct restore_thread *th);

#endif
