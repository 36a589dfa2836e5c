/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Incremental dumps (--prev-images-dir): private pages that are as they were in an earlier dump are
 * not stored again. The link `parent` leads to that dump; pagemaps say what is to be found there.
 */
#ifndef MEM_INCREMENTAL_H
#define MEM_INCREMENTAL_H

#include "model/dump.h"

/* The private pages of a task in the earlier dump. */
struct before {
	struct pagemap_set set;
	struct pagemap pages;
};

/* Opens the earlier dump, if one is given. 0 or an error, reported. */
int incremental_open(struct dump *d);

/* Makes the link to it in the directory of images, where nothing is in its way. */
int incremental_link(struct dump *d);

/*
 * Takes pages that the task has not written to since the earlier dump out of its own. If the kernel
 * does not tell which these are, t->before is left for comparing them when they are read.
 */
int incremental_find(struct dump *d, struct dump_task *t);

/* Is the page, whose bytes these are, as it was? same has a bit for each page of data. */
void incremental_compare(const struct before *b, uint64_t addr, const uint8_t *data, size_t pages,
			 uint64_t *same);

/* When the pages of the task are saved; when the dump is over. */
void incremental_task_done(struct dump_task *t);
void incremental_done(struct dump *d);

#endif
