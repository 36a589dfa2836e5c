/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Equal pages of related tasks. An image may hold a page several times though tasks shared it: all
 * of them in images of other tools, and some in ours, which note only what a task shares with one
 * other. Where parents or siblings have the same bytes at the same address, a task's run is made
 * to take them from there, and is as good as shared.
 */
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/own.h"
#include "mem/cow.h"
#include "mem/runs.h"
#include "model/vma.h"

#define BLOCK	   (16 * PAGE_SIZE_)
#define TRIAL	   1024 /* pages; if fewer than one of TRIAL_PART of them is equal, that is it */
#define TRIAL_PART 16

struct sameness {
	const struct snapshot_task *t, *donor;
	struct runs out;      /* what becomes of the runs of t */
	uint64_t seen, equal; /* pages */
	uint8_t *own, *other; /* BLOCK bytes each */
};

static void put(struct sameness *s, const struct page_run *from, uint64_t start, uint64_t size)
{
	runs_append(&s->out, page_run_part(from, start, start + size));
}

static bool is_hopeless(const struct sameness *s)
{
	return s->seen >= TRIAL && s->equal < s->seen / TRIAL_PART;
}

static bool read_block(const struct page_run *run, uint64_t pos, size_t size, uint8_t *to)
{
	return pread_all(run->fd, to, size, run->offset + (pos - run->vaddr)) == 0;
}

/* Both have pages of their own for [pos, end). What cannot be read differs; the filling will say.
 */
static void compare(struct sameness *s, const struct page_run *own, const struct page_run *other,
		    uint64_t pos, uint64_t end)
{
	while (pos < end) {
		size_t size = min(end - pos, (uint64_t)BLOCK);
		bool is_read = !is_hopeless(s) && read_block(own, pos, size, s->own) &&
			       read_block(other, pos, size, s->other);

		for (size_t at = 0; is_read && at < size; at += PAGE_SIZE_) {
			bool is_equal = !memcmp(s->own + at, s->other + at, PAGE_SIZE_);

			s->seen++;
			s->equal += is_equal;
			put(s, is_equal ? other : own, pos + at, PAGE_SIZE_);
		}
		if (!is_read)
			put(s, own, pos, size);
		pos += size;
	}
}

/* Runs and mappings of both come by address. */
static void walk(struct sameness *s)
{
	const struct pagemap *map = &s->t->pages, *others = &s->donor->pages;
	const MmEntry *mm = s->t->mm, *other_mm = s->donor->mm;
	size_t k = 0, v = 0, w = 0;

	for (size_t i = 0; i < map->n; i++) {
		const struct page_run *run = &map->run[i];
		uint64_t pos = run->vaddr, end = page_run_end(run);

		while (pos < end) {
			while (k < others->n && page_run_end(&others->run[k]) <= pos)
				k++;
			const struct page_run *o = k < others->n ? &others->run[k] : NULL;
			if (!o || o->vaddr >= end) {
				put(s, run, pos, end - pos);
				break;
			}
			if (o->vaddr > pos) {
				put(s, run, pos, o->vaddr - pos);
				pos = o->vaddr;
			}
			while (mm->vmas[v]->end <= pos)
				v++;
			while (other_mm->vmas[w]->end <= pos)
				w++;
			uint64_t stop = min(end, page_run_end(o));
			uint64_t mapped = min(mm->vmas[v]->end, other_mm->vmas[w]->end);

			stop = min(stop, mapped);
			if (!page_runs_agree(run, o) &&
			    vma_may_share(mm->vmas[v], other_mm->vmas[w]))
				compare(s, run, o, pos, stop);
			else
				put(s, run, pos, stop - pos);
			pos = stop;
		}
	}
}

static void unify(struct restore *r, struct snapshot_task *t, const struct snapshot_task *donor)
{
	if (donor == t || donor->is_zombie || !t->pages.n || !donor->pages.n)
		return;
	autofree uint8_t *own = xmalloc(BLOCK), *other = xmalloc(BLOCK);
	struct sameness s = { .t = t, .donor = donor, .own = own, .other = other };

	walk(&s);
	if (s.equal)
		t->pages = (struct pagemap){
			.run = arena_memdup(&r->arena, s.out.run, s.out.n * sizeof(*s.out.run)),
			.n = s.out.n,
		};
	free(s.out.run);
}

void cow_unify(struct restore *r)
{
	struct snapshot_task *tasks = r->snapshot.tasks;
	autofree int *eldest = xmalloc(r->n_tasks * sizeof(*eldest));

	for (size_t i = 0; i < r->n_tasks; i++)
		eldest[i] = -1;
	for (size_t i = 0; i < r->n_tasks; i++) {
		int parent = tasks[i].parent;

		if (parent < 0 || tasks[i].is_zombie)
			continue;
		if (eldest[parent] < 0)
			eldest[parent] = i;
		unify(r, &tasks[i], &tasks[parent]);
		unify(r, &tasks[i], &tasks[eldest[parent]]);
	}
}
