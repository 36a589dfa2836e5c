/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared anonymous memory, as the rest of mem/ sees it. */
#ifndef MEM_SHARED_H
#define MEM_SHARED_H

#include "model/dump.h"
#include "model/restore.h"

/* Notes a mapping of a segment; mem_collect_shared looks at them all. */
void shared_note(struct dump *d, const struct dump_task *t, VmaEntry *e);

/* The descriptor in criu, and so in every blank task, of a segment. */
int shared_fd(const struct restore *r, uint64_t id);

#endif
