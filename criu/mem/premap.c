/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copy-on-write memory comes back shared. Pages that the images of several tasks take from the
 * same place in a file are mapped and filled in the process from which all of them descend by
 * being forked (their head), before it forks; each then keeps what is its own and drops the rest.
 *
 *  1. cow_plan: for each pages file, who uses it and who is their head; the pages that more than
 *     one of them has, and areas to hold them: the union of their mappings there.
 *  2. cow_before_fork: a head maps its areas and fills them. Descendants may do so again, over
 *     what they inherited, with pages that only some of them share.
 *  3. cow_add_layout: a task keeps the areas that its own mappings lie in.
 *  4. mem_fill leaves out what is there already.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "mem/cow.h"
#include "mem/huge.h"
#include "mem/mem.h"
#include "mem/runs.h"
#include "model/vma.h"

#define TASK_CALLS 512 /* of one program */

/* The tasks that use a pages file; one of them has all its pages. */
struct pages_use {
	int head;
	int owner;
	uint64_t owner_pages;
	size_t n_users;
};

struct cow_head {
	int node;
	int owner; /* whose huge pages it makes */
	struct runs runs;
	bool is_done;
};

struct cow {
	struct pages_use *uses; /* by descriptor of the pages file */
	size_t n_uses;
	struct cow_head *heads;
	size_t n_heads;
	struct cow_area **areas;
	size_t n_areas;
	size_t hint; /* where the last area was found */
};

/* ---- 1. the plan ---- */

static bool is_above(const struct restore *r, int node, int above)
{
	while (node >= 0 && node != above)
		node = r->creators[node];
	return node == above;
}

static int common_head(const struct restore *r, int a, int b)
{
	while (a >= 0 && !is_above(r, b, a))
		a = r->creators[a];
	return a;
}

static void note_user(struct restore *r, struct pages_use *u, int task, uint64_t pages)
{
	u->head = u->n_users ? common_head(r, u->head, task) : task;
	u->n_users++;
	if (pages > u->owner_pages) {
		u->owner = task;
		u->owner_pages = pages;
	}
}

static void find_users(struct restore *r, struct cow *c)
{
	autofree uint64_t *pages = calloc(c->n_uses, sizeof(*pages));

	for (size_t i = 0; pages && i < r->n_tasks; i++) {
		const struct pagemap *map = &r->tasks[i].image->pages;

		for (size_t k = 0; k < map->n; k++)
			pages[map->run[k].fd] += map->run[k].pages;
		for (size_t k = 0; k < map->n; k++) {
			if (pages[map->run[k].fd])
				note_user(r, &c->uses[map->run[k].fd], i, pages[map->run[k].fd]);
			pages[map->run[k].fd] = 0;
		}
	}
}

static struct cow_head *find_head(const struct cow *c, int node)
{
	for (size_t i = 0; i < c->n_heads; i++)
		if (c->heads[i].node == node)
			return &c->heads[i];
	return NULL;
}

static struct cow_head *get_head(struct restore *r, struct cow *c, int node, int owner)
{
	struct cow_head *h = find_head(c, node);

	if (!h) {
		h = ARENA_PUSH(&r->arena, c->heads, c->n_heads);
		*h = (struct cow_head){ .node = node, .owner = owner };
	}
	return h;
}

static bool touches(const VmaEntry *a, const VmaEntry *b)
{
	return a->start < b->end && b->start < a->end;
}

static void widen(VmaEntry *v, const VmaEntry *by)
{
	if (by->start < v->start) {
		v->pgoff -= v->start - by->start;
		v->start = by->start;
	}
	v->end = max(v->end, by->end);
}

/* Both are mapped at once in some task. */
static bool is_related(const struct restore *r, const struct cow_area *a, int head)
{
	return !a->is_merged && (is_above(r, a->head, head) || is_above(r, head, a->head));
}

/* Is there anything in the way of an area that wide? Others of its kind that it takes in are not.
 */
static bool has_room(const struct restore *r, const struct cow *c, const VmaEntry *v, int head)
{
	for (size_t i = 0; i < c->n_areas; i++) {
		const struct cow_area *a = c->areas[i];

		if (is_related(r, a, head) && touches(&a->vma, v) && !vma_may_share(&a->vma, v))
			return false;
	}
	return true;
}

static bool is_in(const VmaEntry *v, const VmaEntry *outer)
{
	return v->start >= outer->start && v->end <= outer->end;
}

/* An area that holds both mappings in all that descend from head; false if that cannot be. */
static bool get_area(struct restore *r, struct cow *c, const VmaEntry *v, const VmaEntry *owner_v,
		     int head)
{
	VmaEntry wide = *v;

	widen(&wide, owner_v);
	/* Mostly it is there, and behind the one before. */
	for (size_t i = 0; i < c->n_areas; i++) {
		size_t k = (c->hint + i) % c->n_areas;
		struct cow_area *a = c->areas[k];

		if (!a->is_merged && is_above(r, head, a->head) && vma_may_share(&a->vma, &wide) &&
		    is_in(&wide, &a->vma)) {
			c->hint = k;
			return true;
		}
	}
	for (size_t i = 0; i < c->n_areas; i++)
		if (is_related(r, c->areas[i], head) && vma_may_share(&c->areas[i]->vma, &wide)) {
			widen(&wide, &c->areas[i]->vma);
			if (is_above(r, head, c->areas[i]->head))
				head = c->areas[i]->head;
		}
	if (!has_room(r, c, &wide, head))
		return false;
	for (size_t i = 0; i < c->n_areas; i++)
		if (is_related(r, c->areas[i], head) && touches(&c->areas[i]->vma, &wide))
			c->areas[i]->is_merged = true;
	struct cow_area *a = arena_new(&r->arena, struct cow_area);
	*a = (struct cow_area){ .vma = wide, .head = head };
	*ARENA_PUSH(&r->arena, c->areas, c->n_areas) = a;
	return true;
}

/* Its file has to be open before there are tasks. */
static bool can_be_mapped(const struct restore *r, const VmaEntry *v)
{
	if (!(v->status & VMA_FILE_PRIVATE))
		return true;
	int i = snapshot_file(&r->snapshot, v->shmid);
	return i >= 0 && r->file_fds[i] >= 0 && !r->file_is_late[i];
}

/* A place in the mappings and runs of a task. */
struct walk {
	const struct snapshot_task *image;
	size_t vma, run;
};

static const VmaEntry *vma_at(struct walk *w, uint64_t addr)
{
	const MmEntry *mm = w->image->mm;

	while (mm->vmas[w->vma]->end <= addr)
		w->vma++;
	return mm->vmas[w->vma];
}

static const struct page_run *run_at(struct walk *w, uint64_t addr)
{
	const struct pagemap *map = &w->image->pages;

	while (w->run < map->n && page_run_end(&map->run[w->run]) <= addr)
		w->run++;
	return w->run < map->n ? &map->run[w->run] : NULL;
}

/* What [run] of a user has in common with the owner of its pages file. */
static void add_common(struct restore *r, struct cow *c, const struct page_run *run,
		       struct walk *user, struct walk *owner, int head, struct runs *to)
{
	uint64_t pos = run->vaddr, end = page_run_end(run);

	while (pos < end) {
		const struct page_run *o = run_at(owner, pos);

		if (!o || o->vaddr >= end)
			return;
		pos = max(pos, o->vaddr);
		const VmaEntry *v = vma_at(user, pos), *w = vma_at(owner, pos);
		uint64_t mapped = min(v->end, w->end), stop = min(end, page_run_end(o));
		stop = min(stop, mapped);

		if (page_runs_agree(o, run) && vma_may_share(v, w) && can_be_mapped(r, v) &&
		    get_area(r, c, v, w, head))
			runs_append(to, page_run_part(run, pos, stop));
		pos = stop;
	}
}

/* The pages that a task has in common with the owner of one file. */
static void plan_user(struct restore *r, struct cow *c, int task, int fd)
{
	const struct pages_use *u = &c->uses[fd];
	struct walk user = { .image = r->tasks[task].image };
	struct walk owner = { .image = r->tasks[u->owner].image };
	const struct pagemap *map = &user.image->pages;
	struct runs common = { 0 };

	for (size_t i = 0; i < map->n; i++)
		if (map->run[i].fd == fd)
			add_common(r, c, &map->run[i], &user, &owner, u->head, &common);
	if (common.n) {
		struct cow_head *h = get_head(r, c, u->head, u->owner);

		if (!runs_hold(&h->runs, &common)) {
			struct runs all = runs_unite(&h->runs, &common);

			free(h->runs.run);
			h->runs = all;
		}
	}
	free(common.run);
}

static void plan_file(struct restore *r, struct cow *c, int fd)
{
	const struct pages_use *u = &c->uses[fd];

	if (u->n_users < 2 || u->head < 0)
		return;
	for (size_t i = 0; i < r->n_tasks; i++)
		if ((int)i != u->owner)
			plan_user(r, c, i, fd);
}

void cow_plan(struct restore *r)
{
	struct cow *c = r->cow = arena_new(&r->arena, struct cow);
	const struct pagemap_set *set = &r->snapshot.pages;

	for (size_t i = 0; i < set->n_files; i++)
		c->n_uses = max(c->n_uses, (size_t)set->files[i].fd + 1);
	c->uses = arena_array(&r->arena, struct pages_use, c->n_uses);
	find_users(r, c);
	for (size_t fd = 0; fd < c->n_uses; fd++)
		plan_file(r, c, fd);
}

void cow_done(struct restore *r)
{
	for (size_t i = 0; r->cow && i < r->cow->n_heads; i++)
		free(r->cow->heads[i].runs.run);
	r->cow = NULL;
}

/* ---- 2. before a head forks ---- */

static int by_address(const void *a, const void *b)
{
	const struct cow_area *x = *(struct cow_area *const *)a, *y = *(struct cow_area *const *)b;

	return (x->vma.start > y->vma.start) - (x->vma.start < y->vma.start);
}

static int map_areas(struct restore *r, struct restore_task *t, int node)
{
	struct cow *c = r->cow;
	struct program p;
	int rc = program_begin(&p, task_worker(t), TASK_CALLS);

	if (rc < 0)
		return rc;
	program_set_long(&p);
	for (size_t i = 0; i < c->n_areas; i++) {
		struct cow_area *a = c->areas[i];

		if (a->head != node || a->is_merged)
			continue;
		mem_add_map(r, &p, &a->vma, PROT_READ | PROT_WRITE);
		*ARENA_PUSH(&r->arena, t->areas, t->n_areas) = a;
	}
	if (t->n_areas)
		qsort(t->areas, t->n_areas, sizeof(*t->areas), by_address);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

/* Children would have it, too. */
static int close_uffd(struct restore_task *t)
{
	struct program p;

	if (t->uffd_there < 0)
		return 0;
	int rc = program_begin(&p, task_worker(t), 1);
	if (rc < 0)
		return rc;
	mem_add_end_fill(t, &p);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

static int fill_head(struct restore *r, struct restore_task *t, const struct cow_head *h)
{
	VmaEntry **vmas = arena_array(&r->arena, VmaEntry *, t->n_areas);
	struct pagemap runs = { .run = h->runs.run, .n = h->runs.n };

	for (size_t i = 0; i < t->n_areas; i++)
		vmas[i] = &t->areas[i]->vma;
	int rc = mem_make_huge(r, t, r->tasks[h->owner].image->mm, vmas, t->n_areas);
	if (rc == 0)
		rc = mem_fill(r, t, &runs, vmas);
	return rc < 0 ? rc : close_uffd(t);
}

/* What is there afterwards: the new pages, and those inherited that they do not replace. */
static void note_there(struct restore *r, struct restore_task *t, const struct runs *new)
{
	const struct runs old = { .run = t->there.run, .n = t->there.n };
	struct runs all = runs_unite(new, &old);

	t->there.run = arena_memdup(&r->arena, all.run, all.n * sizeof(*all.run));
	t->there.n = all.n;
	free(all.run);
}

int cow_before_fork(struct restore *r, int node)
{
	struct restore_task *t = restore_node(r, node);
	struct cow_head *h = find_head(r->cow, node);

	if (!h || h->is_done)
		return 0;
	h->is_done = true;
	int rc = map_areas(r, t, node);
	if (rc == 0)
		rc = fill_head(r, t, h);
	if (rc < 0)
		return rc;
	note_there(r, t, &h->runs);
	info("filled %zu runs of pages that descendants share", h->runs.n);
	return 0;
}

/* Pages that are there are a list that only is replaced; the others are added to. */
void cow_inherit(struct restore *r, struct restore_task *t, const struct restore_task *creator)
{
	for (size_t i = 0; i < creator->n_areas; i++)
		*ARENA_PUSH(&r->arena, t->areas, t->n_areas) = creator->areas[i];
	for (size_t i = 0; i < creator->n_huge; i++)
		*ARENA_PUSH(&r->arena, t->huge, t->n_huge) = creator->huge[i];
	t->there = creator->there;
}

/* ---- 3. what a task keeps ---- */

/* The first area that ends behind addr; areas of one task are disjoint and by address. */
static size_t first_behind(const struct restore_task *t, uint64_t addr)
{
	size_t lo = 0, hi = t->n_areas;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (t->areas[mid]->vma.end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* An area can be written to, so memory is reserved for it. That cannot be taken back. */
static bool is_reserved(const struct restore_task *t, const VmaEntry *v)
{
	return v->prot & PROT_WRITE || (v->has_is_reserved && v->is_reserved) ||
	       runs_touch(&t->image->pages, v->start, v->end);
}

bool cow_is_there(const struct restore_task *t, const VmaEntry *v)
{
	size_t i = first_behind(t, v->start);

	return i < t->n_areas && vma_may_share(&t->areas[i]->vma, v) &&
	       is_in(v, &t->areas[i]->vma) && is_reserved(t, v);
}

static void add_unmap(struct program *p, uint64_t start, uint64_t end)
{
	if (start < end)
		CALL(p, "unmap what others share", SYS_munmap, start, end - start);
}

static void add_drop(struct program *p, uint64_t start, uint64_t end)
{
	if (start < end)
		CALL(p, "drop what others share", SYS_madvise, start, end - start, MADV_DONTNEED);
}

/* All of the areas that is in no mapping of the task. Both come by address. */
static void add_unmaps(const struct restore_task *t, struct program *p)
{
	const MmEntry *mm = t->image->mm;
	size_t k = 0;

	for (size_t i = 0; i < t->n_areas; i++) {
		const VmaEntry *a = &t->areas[i]->vma;
		uint64_t pos = a->start;

		while (k < mm->n_vmas && mm->vmas[k]->end <= a->start)
			k++;
		for (; k < mm->n_vmas && mm->vmas[k]->start < a->end; k++) {
			const VmaEntry *v = mm->vmas[k];

			if (!cow_is_there(t, v)) {
				if (v->end > a->end)
					break; /* the next area may be below it, too */
				continue;
			}
			add_unmap(p, pos, v->start);
			pos = v->end;
		}
		add_unmap(p, pos, a->end);
	}
}

/* Pages that came along in mappings that are kept, and that the task has not. */
static void add_drops(const struct restore_task *t, struct program *p)
{
	const struct pagemap *own = &t->image->pages;
	const MmEntry *mm = t->image->mm;
	size_t k = 0, v = 0;

	for (size_t i = 0; i < t->there.n; i++) {
		uint64_t pos = t->there.run[i].vaddr, end = page_run_end(&t->there.run[i]);

		while (pos < end) {
			while (v < mm->n_vmas && mm->vmas[v]->end <= pos)
				v++;
			if (v == mm->n_vmas)
				return;
			uint64_t stop = min(end, mm->vmas[v]->end);

			if (pos < mm->vmas[v]->start) {
				pos = min(end, mm->vmas[v]->start);
				continue;
			}
			while (k < own->n && page_run_end(&own->run[k]) <= pos)
				k++;
			if (k < own->n && own->run[k].vaddr <= pos) {
				pos = min(stop, page_run_end(&own->run[k]));
				continue;
			}
			stop = k < own->n ? min(stop, own->run[k].vaddr) : stop;
			if (cow_is_there(t, mm->vmas[v]))
				add_drop(p, pos, stop);
			pos = stop;
		}
	}
}

void cow_add_layout(const struct restore_task *t, struct program *p)
{
	if (!t->n_areas)
		return;
	add_unmaps(t, p);
	add_drops(t, p);
}

/*
 * The next part of [*pos, end) that lies in a mapping which is kept; *v is the mapping to begin
 * with. Returns false if there is none.
 */
static bool next_kept(const struct restore_task *t, size_t *v, uint64_t end, uint64_t *pos,
		      uint64_t *ret_stop)
{
	const MmEntry *mm = t->image->mm;

	while (*v < mm->n_vmas && mm->vmas[*v]->start < end &&
	       (mm->vmas[*v]->end <= *pos || !cow_is_there(t, mm->vmas[*v])))
		++*v;
	if (*v == mm->n_vmas || mm->vmas[*v]->start >= end)
		return false;
	*pos = max(*pos, mm->vmas[*v]->start);
	*ret_stop = min(end, mm->vmas[*v]->end);
	return true;
}

void cow_forget_lost(struct restore *r, struct restore_task *t)
{
	struct mem_range *huge = NULL;
	struct page_run *there = NULL;
	size_t n_huge = 0, n_there = 0, v = 0;
	uint64_t stop;

	for (size_t i = 0; i < t->there.n; i++) {
		const struct page_run *run = &t->there.run[i];

		for (uint64_t pos = run->vaddr, end = page_run_end(run);
		     pos < end && next_kept(t, &v, end, &pos, &stop); pos = stop)
			*ARENA_PUSH(&r->arena, there, n_there) = page_run_part(run, pos, stop);
	}
	v = 0;
	for (size_t i = 0; i < t->n_huge; i++)
		for (uint64_t pos = t->huge[i].start, end = t->huge[i].end;
		     pos < end && next_kept(t, &v, end, &pos, &stop); pos = stop)
			*ARENA_PUSH(&r->arena, huge, n_huge) = (struct mem_range){ pos, stop };
	t->there = (struct pagemap){ there, n_there };
	t->huge = huge;
	t->n_huge = n_huge;
}
