/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copy-on-write memory of forked processes. A dump stores a page that two of them still share only
 * once; a restore fills such pages before it forks, so that they are shared again.
 */
#ifndef MEM_COW_H
#define MEM_COW_H

#include "model/dump.h"
#include "model/restore.h"

/*
 * Dump (mem/cow.c). The tree is stopped, tasks before this one have been saved:
 *   cow_find          takes the pages that the task shares with an earlier one out of its own
 *   cow_merge         once those are saved, lists both, as the image will
 *   cow_write_levels  what the image says is in its parent image
 */
int cow_find(struct dump *d, struct dump_task *t);
void cow_merge(struct dump *d, struct dump_task *t);
int cow_write_levels(struct dump *d, const struct dump_task *t);
/* Removes what an older dump has left in the directory of images; what this one has written. */
int cow_remove_old(struct dump *d);
void cow_discard_levels(struct dump *d);
void cow_close_levels(struct dump *d);

/* Memory that several tasks have a part of from birth. */
struct cow_area {
	VmaEntry vma;
	int head;	/* the node that maps it */
	bool is_merged; /* into another one */
};

/* Restore (mem/same.c): finds pages that are equal and lets tasks take them from one place. */
void cow_unify(struct restore *r);

/* Restore (mem/premap.c): finds what is shared, when files are open; frees that. */
void cow_plan(struct restore *r);
void cow_done(struct restore *r);

/* Does the mapping lie in an area that the task has inherited? */
bool cow_is_there(const struct restore_task *t, const VmaEntry *v);

/* Of what it has inherited the task drops all that is not its own. */
void cow_add_layout(const struct restore_task *t, struct program *p);

/* What it has inherited is not there any more where another mapping takes the place. */
void cow_forget_lost(struct restore *r, struct restore_task *t);

#endif
