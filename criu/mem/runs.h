/* SPDX-License-Identifier: GPL-2.0-only */
/* Lists of pages by address, with the places that their bytes come from. Pure. */
#ifndef MEM_RUNS_H
#define MEM_RUNS_H

#include "image/pagemap.h"

/* A list of its own, not in an arena: such are made anew all the time. free(run) ends it. */
struct runs {
	struct page_run *run;
	size_t n, room;
};

/* Behind the last one, of which it becomes a part if it goes on there. */
void runs_append(struct runs *to, struct page_run run);

/* Has a all pages of b, from the same places? */
bool runs_hold(const struct runs *a, const struct runs *b);

/* All of a, and of b what a has not: a new list. */
struct runs runs_unite(const struct runs *a, const struct runs *b);

/* Is there any page in [start, end)? */
bool runs_touch(const struct pagemap *pages, uint64_t start, uint64_t end);

#endif
