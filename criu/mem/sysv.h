/* SPDX-License-Identifier: GPL-2.0-only */
/* System V shared memory in an IPC namespace of the tree (ns/ipc.h), as mappings of tasks. */
#ifndef MEM_SYSV_H
#define MEM_SYSV_H

#include "model/restore.h"

/* How much room beside its mappings a task needs to attach what it has. */
uint64_t sysv_room(const struct restore *r);

/* Attaches all segments that the task had, where it had them. */
void sysv_add_attach(const struct restore *r, const struct restore_task *t, struct program *p);

#endif
