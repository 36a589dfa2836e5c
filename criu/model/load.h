/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of loading need of each other. Errors are reported. */
#ifndef MODEL_LOAD_H
#define MODEL_LOAD_H

#include "model/snapshot.h"

#define ADDRESS_LIMIT 0x7ffffffff000ull

/* The pages of a file in memory that has that size: they lie in it. 1 or an error. */
int load_file_pages(struct snapshot *s, int dirfd, unsigned long id, uint64_t size,
		    struct pagemap *ret);

/*
 * The IPC namespace of a task, whose ids are known: that of criu, or one of the tree's own, which
 * is loaded with the root. 0 or an error.
 */
int load_ipc(struct snapshot *s, const struct snapshot_task *t, int dirfd);

/* A mapping of System V shared memory. 0 or an error. */
int check_attachment(const struct snapshot *s, uint32_t pid, const VmaEntry *v);

#endif
