/* SPDX-License-Identifier: GPL-2.0-only */
/* Numbers of the image format and the kernel that more than one file of task/ needs. */
#ifndef TASK_CONSTANTS_H
#define TASK_CONSTANTS_H

#include "image/messages.h"

#define SIGNALS 64

/* As every process has them that nobody gave others. */
#define DEFAULT_COREDUMP_FILTER 0x33
#define DEFAULT_TIMER_SLACK	50000 /* ns */

/* task_core_entry.task_state */
#define TASK_STATE_ALIVE   1
#define TASK_STATE_DEAD	   2
#define TASK_STATE_STOPPED 3

#ifndef SCHED_DEADLINE
#define SCHED_DEADLINE 6
#endif
#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif

struct arena;

/* The ids that criu itself has in an inventory: a restore makes namespaces that differ new. */
TaskKobjIdsEntry *task_own_ids(struct arena *a);

#endif
