/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/runs.h"

#include "base/own.h"

void runs_append(struct runs *to, struct page_run run)
{
	struct page_run *last = to->n ? &to->run[to->n - 1] : NULL;

	if (last && page_run_end(last) == run.vaddr && page_runs_agree(last, &run)) {
		last->pages += run.pages;
		return;
	}
	if (to->n == to->room) {
		to->room = max(to->room * 2, (size_t)64);
		to->run = xrealloc(to->run, to->room * sizeof(*to->run));
	}
	to->run[to->n++] = run;
}

bool runs_hold(const struct runs *a, const struct runs *b)
{
	size_t i = 0;

	for (size_t j = 0; j < b->n; j++) {
		uint64_t pos = b->run[j].vaddr, end = page_run_end(&b->run[j]);

		/* Neighbours of a need not be one run, if their places are not. */
		while (i < a->n && page_run_end(&a->run[i]) <= pos)
			i++;
		if (i == a->n || a->run[i].vaddr > pos || page_run_end(&a->run[i]) < end ||
		    !page_runs_agree(&a->run[i], &b->run[j]))
			return false;
	}
	return true;
}

struct runs runs_unite(const struct runs *a, const struct runs *b)
{
	struct runs all = { 0 };
	size_t i = 0;

	for (size_t j = 0; j < b->n; j++) {
		uint64_t pos = b->run[j].vaddr, end = page_run_end(&b->run[j]);

		while (pos < end) {
			while (i < a->n && page_run_end(&a->run[i]) <= pos)
				runs_append(&all, a->run[i++]);
			uint64_t next = i < a->n ? a->run[i].vaddr : UINT64_MAX;

			if (next > pos)
				runs_append(&all, page_run_part(&b->run[j], pos, min(end, next)));
			pos = next >= end ? end : page_run_end(&a->run[i]);
		}
	}
	while (i < a->n)
		runs_append(&all, a->run[i++]);
	return all;
}

bool runs_touch(const struct pagemap *pages, uint64_t start, uint64_t end)
{
	size_t i = pagemap_first_behind(pages, start);

	return i < pages->n && pages->run[i].vaddr < end;
}
