/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages that a task shares with its parent since it was forked, or with an elder sibling, are
 * stored once: with that task, its donor. In the images they are pages of a parent image, as in a
 * dump made after a pre-dump, so every reader knows them:
 *
 *   pagemap-12.img                  of a child of 10: its own pages, others "in the parent"
 *   parent/pagemap-12.img           all that pagemap-10.img lists
 *   parent/pages-1.img              link to ../pages-1.img, the pages of 10
 *   parent/parent/pagemap-12.img    where 10 has pages of its own donor; and so on
 */
#include "mem/cow.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/huge.h"
#include "mem/mem.h"
#include "model/vma.h"

#define WORTH_IT 64 /* pages; fewer are not worth two files */
#define WINDOW	 512

/* ---- which pages are the same ---- */

struct comparison {
	struct dump *d;
	const struct dump_task *t, *donor;
	int fd, donor_fd; /* pagemaps */
	uint64_t start, end;
	uint64_t is_shared[WINDOW / 64]; /* a bit for each page from start to end */
	struct page_run *runs;
	size_t n_runs;
	uint64_t pages;
};

static int read_entries(int fd, uint64_t addr, uint64_t *entries, size_t n)
{
	return pread_all(fd, entries, n * sizeof(*entries), addr / PAGE_SIZE_ * sizeof(*entries));
}

/*
 * Both have a page in the same frame. A frame can move while we look, though nobody runs:
 *  1. the donor's page is in frame A; 2. it moves to B, and the task's page, another one, to A;
 *  3. the task's page is in frame A.
 * So the donor's is looked at before and after. Without CAP_SYS_ADMIN all frames are 0.
 */
static int look(struct comparison *c, uint64_t addr, uint64_t limit)
{
	uint64_t before[WINDOW], entries[WINDOW], after[WINDOW];
	size_t n = min((limit - addr) / PAGE_SIZE_, (uint64_t)WINDOW);

	int rc = read_entries(c->donor_fd, addr, before, n);
	if (rc == 0)
		rc = read_entries(c->fd, addr, entries, n);
	if (rc == 0)
		rc = read_entries(c->donor_fd, addr, after, n);
	if (rc < 0)
		return fail(-rc, "pid %d: compare its memory with that of pid %d",
			    c->t->process->pid, c->donor->process->pid);
	c->start = addr;
	c->end = addr + n * PAGE_SIZE_;
	memset(c->is_shared, 0, sizeof(c->is_shared));
	for (size_t i = 0; i < n; i++) {
		const uint64_t mask = ABI_PM_PRESENT | ABI_PM_EXCLUSIVE | ABI_PM_FRAME;
		uint64_t frame = entries[i] & mask;

		if (frame > ABI_PM_PRESENT && !(frame & ABI_PM_EXCLUSIVE) &&
		    (before[i] & mask) == frame && (after[i] & mask) == frame)
			c->is_shared[i / 64] |= 1ull << i % 64;
	}
	return 0;
}

void mem_add_page(struct arena *a, struct page_run **runs, size_t *n, uint64_t addr)
{
	struct page_run *last = *n ? &(*runs)[*n - 1] : NULL;

	if (last && page_run_end(last) == addr)
		last->pages++;
	else
		*ARENA_PUSH(a, *runs, *n) = (struct page_run){ .vaddr = addr, .pages = 1 };
}

static int compare_pages(struct comparison *c, uint64_t addr, uint64_t end, uint64_t limit)
{
	for (; addr < end; addr += PAGE_SIZE_) {
		int rc = addr < c->end ? 0 : look(c, addr, limit);

		if (rc < 0)
			return rc;
		size_t i = (addr - c->start) / PAGE_SIZE_;

		if (!(c->is_shared[i / 64] >> i % 64 & 1))
			continue;
		mem_add_page(&c->d->arena, &c->runs, &c->n_runs, addr);
		c->pages++;
	}
	return 0;
}

/* Runs and the mappings of both come by address. */
static int compare(struct comparison *c)
{
	const struct saved_pages *p = &c->t->pages;
	const MmEntry *mm = c->t->mm, *other = c->donor->mm;
	size_t v = 0, w = 0;

	for (size_t i = 0; i < p->n_runs; i++) {
		uint64_t pos = p->runs[i].vaddr, end = page_run_end(&p->runs[i]);

		while (pos < end) {
			while (v < mm->n_vmas && mm->vmas[v]->end <= pos)
				v++;
			while (w < other->n_vmas && other->vmas[w]->end <= pos)
				w++;
			if (v == mm->n_vmas || w == other->n_vmas)
				return 0;
			uint64_t limit = min(mm->vmas[v]->end, other->vmas[w]->end);
			uint64_t stop = min(end, limit);

			if (pos < other->vmas[w]->start)
				stop = min(end, other->vmas[w]->start);
			else if (vma_may_share(mm->vmas[v], other->vmas[w])) {
				int rc = compare_pages(c, pos, stop, limit);

				if (rc < 0)
					return rc;
			}
			pos = stop;
		}
	}
	return 0;
}

static bool has_common_mapping(const MmEntry *a, const MmEntry *b)
{
	for (size_t i = 0, j = 0; i < a->n_vmas && j < b->n_vmas;) {
		if (vma_may_share(a->vmas[i], b->vmas[j]))
			return true;
		if (a->vmas[i]->end <= b->vmas[j]->end)
			i++;
		else
			j++;
	}
	return false;
}

/* Becomes the task's donor if it shares more with that one than with another. */
static int try_donor(struct comparison *best, const struct dump_task *donor)
{
	struct comparison c = { .d = best->d, .t = best->t, .donor = donor };

	if (!donor || !donor->mm || !has_common_mapping(c.t->mm, donor->mm))
		return 0;
	autoclose int fd = openat(c.t->process->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);
	autoclose int donor_fd = openat(donor->process->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || donor_fd < 0)
		return fail(errno, "pid %d: open pagemap", c.t->process->pid);
	c.fd = fd;
	c.donor_fd = donor_fd;
	int rc = compare(&c);
	if (rc == 0 && c.pages > best->pages)
		*best = c;
	return rc;
}

/* The first child of its parent that has memory, if that comes before it. */
static const struct dump_task *find_eldest(const struct dump_task *t)
{
	for (const struct dump_task *s = t->parent + 1; s < t; s++)
		if (s->parent == t->parent && s->mm)
			return s;
	return NULL;
}

void mem_take_out(struct arena *a, struct saved_pages *from, const struct page_run *runs, size_t n)
{
	struct page_run *left = NULL;
	size_t n_left = 0, k = 0;

	for (size_t i = 0; i < from->n_runs; i++) {
		struct page_run r = from->runs[i];
		uint64_t end = page_run_end(&r);

		for (; k < n && runs[k].vaddr < end; k++) {
			uint64_t stop = min(end, page_run_end(&runs[k]));

			r.pages = (max(runs[k].vaddr, r.vaddr) - r.vaddr) / PAGE_SIZE_;
			if (r.pages)
				*ARENA_PUSH(a, left, n_left) = r;
			r.vaddr = stop;
			if (stop == end && page_run_end(&runs[k]) > end)
				break; /* it goes on in the next */
		}
		r.pages = (end - r.vaddr) / PAGE_SIZE_;
		if (r.pages)
			*ARENA_PUSH(a, left, n_left) = r;
	}
	from->runs = left;
	from->n_runs = n_left;
}

/*
 * Huge pages of which all is shared are the donor's to have: made for the task, too, those of
 * zeroes, which are in no image and are not shared again, would be there twice.
 */
static void leave_huge_to_donor(struct arena *a, MmEntry *mm, const struct page_run *runs, size_t n)
{
	RangeEntry **left = NULL;
	size_t n_left = 0, k = 0;

	for (size_t i = 0; i < mm->n_huge; i++) {
		uint64_t end = mm->huge[i]->end;

		for (uint64_t pos = mm->huge[i]->start; pos < end; pos += HUGE_SIZE) {
			while (k < n && page_run_end(&runs[k]) < pos + HUGE_SIZE)
				k++;
			if (k == n || runs[k].vaddr > pos)
				mem_add_range(a, &left, &n_left, pos, min(pos + HUGE_SIZE, end));
		}
	}
	mm->huge = left;
	mm->n_huge = n_left;
}

int cow_find(struct dump *d, struct dump_task *t)
{
	struct comparison best = { .d = d, .t = t };
	uint64_t all = mem_total_pages(&t->pages);

	if (!t->parent)
		return 0;
	if (all < WORTH_IT)
		return 0;
	int rc = try_donor(&best, t->parent);
	/* What the parent has changed since, its children may still share. */
	if (rc == 0 && best.pages < all - all / 8)
		rc = try_donor(&best, find_eldest(t));
	if (rc < 0 || best.pages < WORTH_IT)
		return rc;
	t->donor = best.donor;
	t->shared = best.runs;
	t->n_shared = best.n_runs;
	mem_take_out(&d->arena, &t->pages, t->shared, t->n_shared);
	leave_huge_to_donor(&d->arena, t->mm, t->shared, t->n_shared);
	d->stats.pages_shared += best.pages;
	info("%lu of %lu pages are shared with pid %d", (long)best.pages, (long)all,
	     t->donor->process->pid);
	return 0;
}

/* ---- images ---- */

/* Zero pages are in no image: the donor has only those of its runs. */
static void add_shared(struct arena *a, const struct dump_task *t, struct page_run **runs,
		       size_t *n)
{
	const struct saved_pages *donor = &t->donor->pages;
	size_t k = 0;

	for (size_t i = 0; i < t->n_shared; i++) {
		uint64_t start = t->shared[i].vaddr, end = page_run_end(&t->shared[i]);

		while (k < donor->n_runs && page_run_end(&donor->runs[k]) <= start)
			k++;
		for (size_t j = k; j < donor->n_runs && donor->runs[j].vaddr < end; j++) {
			const struct page_run *r = &donor->runs[j];
			uint64_t first = max(start, r->vaddr);
			uint64_t last = min(end, page_run_end(r));

			*ARENA_PUSH(a, *runs, *n) =
				(struct page_run){ .vaddr = first,
						   .pages = (last - first) / PAGE_SIZE_,
						   .in_parent = true };
		}
	}
}

static int by_address(const void *a, const void *b)
{
	const struct page_run *x = a, *y = b;

	return (x->vaddr > y->vaddr) - (x->vaddr < y->vaddr);
}

void cow_merge(struct dump *d, struct dump_task *t)
{
	struct page_run *runs = NULL;
	size_t n = 0;

	if (!t->n_shared)
		return;
	if (t->donor)
		add_shared(&d->arena, t, &runs, &n);
	for (size_t i = 0; i < t->n_shared && !t->donor; i++) {
		struct page_run *run = ARENA_PUSH(&d->arena, runs, n);

		*run = t->shared[i];
		run->in_parent = true;
	}
	for (size_t i = 0; i < t->pages.n_runs; i++)
		*ARENA_PUSH(&d->arena, runs, n) = t->pages.runs[i];
	if (n)
		qsort(runs, n, sizeof(*runs), by_address);
	t->pages.runs = runs;
	t->pages.n_runs = n;
}

/* The directory in which that of a level is. */
static int above_level(const struct dump *d, size_t depth)
{
	return depth ? d->levels[depth - 1].fd : d->images.fd;
}

static struct image_dir *level(struct dump *d, size_t depth)
{
	if (depth < d->n_levels)
		return &d->levels[depth];
	int above = above_level(d, depth);
	if (mkdirat(above, "parent", 0755) < 0) {
		(void)fail(errno, "image parent: make that directory, for pages that tasks share");
		return NULL;
	}
	struct image_dir *l = ARENA_PUSH(&d->arena, d->levels, d->n_levels);
	image_dir_init(l, openat(above, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
	if (l->fd < 0) {
		(void)fail(errno, "image parent: open that directory");
		return NULL;
	}
	return l;
}

/* A link to the pages file of a donor, for each level one step up. */
static int link_pages(struct dump *d, struct image_dir *l, size_t depth, uint32_t pages_id)
{
	char *target = arena_alloc(&d->arena, (depth + 1) * 3 + IMAGE_NAME_MAX);

	for (size_t i = 0; i <= depth; i++)
		memcpy(target + i * 3, "../", 3);
	image_name(IMG_PAGES, pages_id, target + (depth + 1) * 3);
	return image_link(l, IMG_PAGES, pages_id, target);
}

int cow_write_levels(struct dump *d, const struct dump_task *t)
{
	size_t depth = 0;
	int rc = 0;

	for (const struct dump_task *o = t->donor; o && rc == 0; o = o->donor, depth++) {
		struct image_dir *l = level(d, depth);

		if (!l)
			return -EIO;
		rc = link_pages(d, l, depth, o->pages.pages_id);
		if (rc == 0)
			rc = pagemap_write(l, IMG_PAGEMAP, t->process->pid, o->pages.pages_id,
					   o->pages.runs, o->pages.n_runs);
	}
	return rc;
}

static bool is_ours(const char *name)
{
	return !strncmp(name, "pagemap-", 8) || !strncmp(name, "pages-", 6);
}

/* Returns whether the directory is empty now. */
static bool empty_level(int fd)
{
	autoclosedir DIR *dir = fdopendir(dup(fd));
	bool is_empty = dir;

	for (struct dirent *e; dir && (e = readdir(dir));)
		if (is_ours(e->d_name) ? unlinkat(fd, e->d_name, 0) < 0
				       : strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			is_empty = false;
	return is_empty;
}

static int remove_level(int above, int depth)
{
	autoclose int fd = openat(above, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0) /* the link of an incremental dump */
		return unlinkat(above, "parent", 0) < 0 ? -errno : 0;
	int rc = depth ? remove_level(fd, depth - 1) : -ELOOP;
	if (rc == 0 && !empty_level(fd))
		rc = -ENOTEMPTY;
	if (rc == 0 && unlinkat(above, "parent", AT_REMOVEDIR) < 0)
		rc = -errno;
	return rc;
}

#define LEVELS_MAX 1000

int cow_remove_old(struct dump *d)
{
	int rc = remove_level(d->images.fd, LEVELS_MAX);

	return rc < 0 ? fail(-rc, "image parent: remove that of an older dump") : 0;
}

void cow_discard_levels(struct dump *d)
{
	for (size_t i = d->n_levels; i-- > 0;) {
		image_dir_discard(&d->levels[i]);
		if (unlinkat(above_level(d, i), "parent", AT_REMOVEDIR) < 0)
			warn("directory parent of the failed dump stays behind: %s",
			     strerror(errno));
	}
	cow_close_levels(d);
}

void cow_close_levels(struct dump *d)
{
	for (size_t i = 0; i < d->n_levels; i++) {
		own_close(&d->levels[i].fd);
		image_dir_done(&d->levels[i]);
	}
	d->n_levels = 0;
}
