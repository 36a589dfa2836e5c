/* SPDX-License-Identifier: GPL-2.0-only */
/* Credentials of threads: credentials(7), capabilities(7). */
#ifndef TASK_CREDS_H
#define TASK_CREDS_H

#include "model/restore.h"
#include "proc/task.h"

int creds_read_own(struct arena *a, struct own_creds *ret);

/* Has criu this capability (CAP_SYS_RESOURCE, ...)? */
static inline bool creds_have(const struct own_creds *own, int cap)
{
	return own->status.cap[CAP_SET_EFF] >> cap & 1;
}

/* Can criu give them to a task? 0 or -errno, reported. */
int creds_check(const struct own_creds *own, const CredsEntry *e, uint32_t tid);

/* Are they other ones than criu's? */
bool creds_differ(const struct own_creds *own, const CredsEntry *e);

/* Adds the calls that give the thread its credentials; none if it has them already. */
void creds_add(const struct own_creds *own, const CredsEntry *e, struct program *p);

#endif
