/* SPDX-License-Identifier: GPL-2.0-only */
/* Pages that processes share since they were forked are stored once (mem/cow.c). */
#include "mem/cow.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/io.h"
#include "mem/huge.h"
#include "mem/own_test.h"
#include "model/vma.h"

#define PAGES 1300 /* more than are looked at at once */

/*
 * Memory of a parent and its children, who write to some of it. Each page begins with the letter of
 * whoever has written to it last.
 */
struct world_of_pages {
	struct own own;
	struct dump_task tasks[3];
	char *at;
};

struct part {
	size_t from, to; /* pages that it writes to */
	char letter;
};

static const struct part nothing = { 0, 0, 0 };

static void write_part(char *at, const struct part *p)
{
	for (size_t i = p->from; i < p->to; i++)
		at[i * PAGE_SIZE_] = p->letter;
}

static void take_memory(struct world_of_pages *w, struct dump_task *t)
{
	VmaEntry *v = MESSAGE(&w->own.d.arena, VmaEntry, vma_entry);

	v->start = (uint64_t)w->at;
	v->end = v->start + PAGES * PAGE_SIZE_;
	v->status = VMA_REGULAR | VMA_ANON_PRIVATE;
	v->flags = MAP_PRIVATE | MAP_ANONYMOUS;
	*ARENA_PUSH(&w->own.d.arena, t->mm->vmas, t->mm->n_vmas) = v;
}

/* A child that has written to its part, and is stopped. */
static pid_t start_child(char *at, const struct part *p)
{
	int status;
	pid_t pid = ASSERT_OK(fork());

	if (pid == 0) {
		write_part(at, p);
		raise(SIGSTOP);
		_exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
	ASSERT(WIFSTOPPED(status));
	return pid;
}

/*
 * All pages have the letter p, or are as the first part says, when the children are forked; then
 * the parent writes its part.
 */
static void begin(struct world_of_pages *w, const struct part *first, const struct part *parent,
		  const struct part *children, size_t n)
{
	struct dump *d = &w->own.d;

	*w = (struct world_of_pages){ .at = own_pages(PAGES) };
	own_begin(&w->own);
	write_part(w->at, &(struct part){ 0, PAGES, 'p' });
	write_part(w->at, first);
	d->tasks = w->tasks;
	d->n_tasks = 1 + n;
	own_init_task(&w->own, &w->tasks[0], getpid());
	for (size_t i = 0; i < n; i++) {
		own_init_task(&w->own, &w->tasks[1 + i], start_child(w->at, &children[i]));
		w->tasks[1 + i].parent = &w->tasks[0];
	}
	write_part(w->at, parent);
	for (size_t i = 0; i < d->n_tasks; i++) {
		take_memory(w, &w->tasks[i]);
		ASSERT_OK(mem_collect_pages(d, &w->tasks[i]));
		ASSERT_EQ(mem_total_pages(&w->tasks[i].pages), PAGES);
	}
}

static void save(struct world_of_pages *w)
{
	struct dump *d = &w->own.d;

	for (size_t i = 0; i < d->n_tasks; i++)
		ASSERT_OK(mem_save_pages(d, &w->tasks[i]));
	for (size_t i = 0; i < d->n_tasks; i++)
		ASSERT_OK(mem_write_images(d, &w->tasks[i]));
}

static uint64_t shared_pages(const struct dump_task *t)
{
	uint64_t n = 0;

	for (size_t i = 0; i < t->n_shared; i++)
		n += t->shared[i].pages;
	return n;
}

/* What a reader of the images finds, and how many pages files it takes for that. */
static void expect_pages(struct world_of_pages *w, const struct dump_task *t, size_t n_files)
{
	struct arena arena = { 0 };
	struct pagemap_set set = { .arena = &arena };
	struct pagemap map;

	if (pagemap_read(&set, w->own.dir, IMG_PAGEMAP, t->process->pid, &map) != 1)
		test_fail(__FILE__, __LINE__, "%s", log_first_error());
	ASSERT_EQ(set.n_files, n_files);
	for (size_t i = 0; i < PAGES; i++) {
		uint64_t addr = (uint64_t)w->at + i * PAGE_SIZE_;
		const struct page_run *run = &map.run[pagemap_first_behind(&map, addr)];
		char got, is;

		ASSERT(run < map.run + map.n && run->vaddr <= addr);
		ASSERT_OK(pread_all(run->fd, &got, 1, run->offset + (addr - run->vaddr)));
		ASSERT_OK(pread_all(t->process->mem_fd, &is, 1, addr));
		ASSERT_EQ(got, is);
	}
	pagemap_set_done(&set);
	arena_done(&arena);
}

static void end(struct world_of_pages *w)
{
	for (size_t i = 1; i < w->own.d.n_tasks; i++) {
		kill(w->tasks[i].process->pid, SIGKILL);
		ASSERT_EQ(waitpid(w->tasks[i].process->pid, NULL, 0), w->tasks[i].process->pid);
	}
	cow_close_levels(&w->own.d);
	own_end(&w->own);
}

TEST(cow, pages_of_a_child_that_nobody_has_written_to_are_stored_once)
{
	const struct part parent = { 10, 20, 'q' }, child = { 100, 150, 'c' };
	struct world_of_pages w;

	begin(&w, &nothing, &parent, &child, 1);
	save(&w);
	ASSERT(w.tasks[1].donor == &w.tasks[0]);
	ASSERT_EQ(shared_pages(&w.tasks[1]), PAGES - 10 - 50);
	ASSERT_EQ(w.own.d.stats.pages_shared, PAGES - 60);
	ASSERT_EQ(w.own.d.stats.pages_written, PAGES + 60);
	expect_pages(&w, &w.tasks[0], 1);
	expect_pages(&w, &w.tasks[1], 2);
	end(&w);
}

TEST(cow, of_a_large_mapping_every_page_is_looked_at)
{
	const struct part child = { 500, 600, 'c' };
	struct world_of_pages w;

	begin(&w, &nothing, &nothing, &child, 1);
	save(&w);
	ASSERT_EQ(shared_pages(&w.tasks[1]), PAGES - 100);
	expect_pages(&w, &w.tasks[1], 2);
	end(&w);
}

TEST(cow, only_pages_that_are_to_be_stored_are_shared)
{
	struct world_of_pages w;

	begin(&w, &nothing, &nothing, &nothing, 1);
	ASSERT_EQ(w.tasks[1].pages.n_runs, 1);
	w.tasks[1].pages.runs[0].pages = 100;
	ASSERT_OK(cow_find(&w.own.d, &w.tasks[1]));
	ASSERT_EQ(shared_pages(&w.tasks[1]), 100);
	ASSERT_EQ(w.tasks[1].pages.n_runs, 0);
	end(&w);
}

TEST(cow, a_child_that_shares_little_has_all_its_pages_itself)
{
	const struct part parent = { 0, 0, 'q' }, child = { 0, PAGES - 63, 'c' };
	struct world_of_pages w;

	begin(&w, &nothing, &parent, &child, 1);
	save(&w);
	ASSERT(!w.tasks[1].donor);
	ASSERT_EQ(w.own.d.stats.pages_written, 2 * PAGES);
	ASSERT(faccessat(w.own.dir, "parent", F_OK, 0) < 0);
	expect_pages(&w, &w.tasks[1], 1);
	end(&w);
}

/* The parent has changed nearly all since; the children still share it. */
TEST(cow, a_child_takes_from_its_eldest_sibling_what_the_parent_has_changed)
{
	const struct part parent = { 0, PAGES, 'q' };
	const struct part children[] = { { 0, 8, 'c' }, { 4, 16, 'd' } };
	struct world_of_pages w;

	begin(&w, &nothing, &parent, children, 2);
	save(&w);
	ASSERT(!w.tasks[1].donor);
	ASSERT(w.tasks[2].donor == &w.tasks[1]);
	ASSERT_EQ(shared_pages(&w.tasks[2]), PAGES - 16);
	expect_pages(&w, &w.tasks[2], 2);
	end(&w);
}

/* A donor may have a donor: its pages are one directory deeper. */
TEST(cow, pages_may_be_those_of_a_donor_of_the_donor)
{
	const struct part parent = { 0, PAGES / 2, 'q' };
	const struct part children[] = { { 0, 0, 'c' }, { PAGES / 2, PAGES / 2 + 8, 'd' } };
	struct world_of_pages w;

	begin(&w, &nothing, &parent, children, 2);
	save(&w);
	ASSERT(w.tasks[1].donor == &w.tasks[0]);
	ASSERT(w.tasks[2].donor == &w.tasks[1]);
	ASSERT_EQ(w.own.d.n_levels, 2);
	expect_pages(&w, &w.tasks[1], 2);
	expect_pages(&w, &w.tasks[2], 3);
	end(&w);
}

TEST(cow, pages_of_zeroes_are_in_no_image)
{
	const struct part zeroes = { PAGES / 2, PAGES, '\0' };
	struct world_of_pages w;
	struct arena arena = { 0 };
	struct pagemap_set set = { .arena = &arena };
	struct pagemap map;

	begin(&w, &zeroes, &nothing, &nothing, 1);
	save(&w);
	ASSERT_EQ(shared_pages(&w.tasks[1]), PAGES);
	ASSERT_EQ(pagemap_read(&set, w.own.dir, IMG_PAGEMAP, w.tasks[1].process->pid, &map), 1);
	ASSERT_EQ(map.n, 1);
	ASSERT_EQ(map.run[0].pages, PAGES / 2);
	pagemap_set_done(&set);
	arena_done(&arena);
	end(&w);
}

/* ---- directories of levels ---- */

TEST(cow, what_an_older_dump_has_left_is_removed)
{
	const struct part parent = { 0, PAGES / 2, 'q' };
	const struct part children[] = { { 0, 0, 'c' }, { PAGES / 2, PAGES / 2 + 8, 'd' } };
	struct world_of_pages w;

	begin(&w, &nothing, &parent, children, 2);
	save(&w);
	ASSERT_OK(faccessat(w.own.dir, "parent/parent", F_OK, 0));
	ASSERT_OK(cow_remove_old(&w.own.d));
	ASSERT(faccessat(w.own.dir, "parent", F_OK, 0) < 0);
	ASSERT_OK(cow_remove_old(&w.own.d)); /* nothing is fine */
	end(&w);
}

TEST(cow, a_foreign_file_among_old_images_stays)
{
	struct own o;

	own_begin(&o);
	ASSERT_OK(mkdirat(o.dir, "parent", 0700));
	close(ASSERT_OK(openat(o.dir, "parent/pages-1.img", O_CREAT | O_WRONLY, 0600)));
	close(ASSERT_OK(openat(o.dir, "parent/diary", O_CREAT | O_WRONLY, 0600)));
	ASSERT_REFUSED(cow_remove_old(&o.d), "image parent: remove that of an older dump");
	ASSERT_OK(faccessat(o.dir, "parent/diary", F_OK, 0));
	own_end(&o);
}

TEST(cow, the_link_of_an_incremental_dump_is_removed_but_not_followed)
{
	struct own o;

	own_begin(&o);
	ASSERT_OK(mkdirat(o.dir, "before", 0700));
	close(ASSERT_OK(openat(o.dir, "before/pages-1.img", O_CREAT | O_WRONLY, 0600)));
	ASSERT_OK(symlinkat("before", o.dir, "parent"));
	ASSERT_OK(cow_remove_old(&o.d));
	ASSERT(faccessat(o.dir, "parent", F_OK, AT_SYMLINK_NOFOLLOW) < 0);
	ASSERT_OK(faccessat(o.dir, "before/pages-1.img", F_OK, 0));
	own_end(&o);
}

TEST(cow, a_dump_that_fails_takes_its_levels_back)
{
	const struct part parent = { 0, PAGES / 2, 'q' };
	const struct part children[] = { { 0, 0, 'c' }, { PAGES / 2, PAGES / 2 + 8, 'd' } };
	struct world_of_pages w;

	begin(&w, &nothing, &parent, children, 2);
	save(&w);
	cow_discard_levels(&w.own.d);
	ASSERT(faccessat(w.own.dir, "parent", F_OK, 0) < 0);
	end(&w);
}

/* ---- what a task of a restore has inherited ---- */

static const struct {
	uint64_t start, end;
	uint32_t prot;
	bool is_reserved, is_there;
} kept[] = {
	{ 0x10000, 0x12000, PROT_READ | PROT_WRITE, false, true },
	{ 0x10000, 0x14000, PROT_READ | PROT_WRITE, false, true },
	{ 0x13000, 0x15000, PROT_READ | PROT_WRITE, false, false }, /* it goes on behind */
	{ 0xf000, 0x11000, PROT_READ | PROT_WRITE, false, false },
	{ 0x15000, 0x16000, PROT_READ | PROT_WRITE, false, false },
	{ 0x20000, 0x21000, PROT_READ | PROT_WRITE, false, true }, /* in the second area */
	/* Memory is reserved for an area, which cannot be taken back. */
	{ 0x12000, 0x13000, PROT_READ, false, false },
	{ 0x12000, 0x13000, PROT_READ, true, true },
	{ 0x11000, 0x13000, PROT_READ, false, true }, /* there is a page to be written */
};

TEST(cow, a_mapping_is_there_if_an_area_holds_all_of_it)
{
	struct cow_area areas[2] = { 0 }, *list[2] = { &areas[0], &areas[1] };
	struct page_run page = { .vaddr = 0x11000, .pages = 1 };
	const struct snapshot_task image = { .pages = { &page, 1 } };
	const struct restore_task t = { .image = &image, .areas = list, .n_areas = 2 };

	for (int i = 0; i < 2; i++) {
		vma_entry__init(&areas[i].vma);
		areas[i].vma.status = VMA_REGULAR | VMA_ANON_PRIVATE;
		areas[i].vma.start = 0x10000 * (i + 1);
		areas[i].vma.end = areas[i].vma.start + 0x4000;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		VmaEntry v = VMA_ENTRY__INIT;

		v.start = kept[i].start;
		v.end = kept[i].end;
		v.prot = kept[i].prot;
		v.status = VMA_REGULAR | VMA_ANON_PRIVATE;
		v.has_is_reserved = v.is_reserved = kept[i].is_reserved;
		ASSERT_EQ(cow_is_there(&t, &v), kept[i].is_there);
	}
}

/* Two areas; of the mappings of the task one lies in the first, one is half behind the second. */
TEST(cow, what_another_mapping_replaces_is_not_there)
{
	struct cow_area areas[2] = { 0 }, *list[2] = { &areas[0], &areas[1] };
	struct page_run inherited[] = { { .vaddr = 0x10000, .pages = 3, .offset = 0x5000 },
					{ .vaddr = 0x20000, .pages = 2 },
					{ .vaddr = 0x30000, .pages = 1 } };
	struct mem_range huge[] = { { 0x11000, 0x13000 }, { 0x20000, 0x22000 } };
	VmaEntry v[2] = { VMA_ENTRY__INIT, VMA_ENTRY__INIT }, *vmas[2] = { &v[0], &v[1] };
	MmEntry mm = MM_ENTRY__INIT;
	const struct snapshot_task image = { .mm = &mm };
	struct restore_task t = { .image = &image,
				  .areas = list,
				  .n_areas = 2,
				  .there = { inherited, ARRAY_SIZE(inherited) },
				  .huge = huge,
				  .n_huge = ARRAY_SIZE(huge) };
	struct restore r = { 0 };

	for (int i = 0; i < 2; i++) {
		vma_entry__init(&areas[i].vma);
		areas[i].vma.status = v[i].status = VMA_REGULAR | VMA_ANON_PRIVATE;
		v[i].prot = PROT_READ | PROT_WRITE;
		areas[i].vma.start = 0x10000 * (i + 1);
		areas[i].vma.end = areas[i].vma.start + 0x4000;
	}
	v[0].start = 0x11000;
	v[0].end = 0x12000;
	v[1].start = 0x21000;
	v[1].end = 0x26000;
	mm.vmas = vmas;
	mm.n_vmas = 2;
	cow_forget_lost(&r, &t);
	ASSERT_EQ(t.there.n, 1);
	ASSERT_EQ(t.there.run[0].vaddr, 0x11000);
	ASSERT_EQ(t.there.run[0].pages, 1);
	ASSERT_EQ(t.there.run[0].offset, 0x6000);
	ASSERT_EQ(t.n_huge, 1);
	ASSERT_EQ(t.huge[0].start, 0x11000);
	ASSERT_EQ(t.huge[0].end, 0x12000);
	arena_done(&r.arena);
}

TEST(cow, a_huge_page_is_made_by_the_donor_alone_if_all_of_it_is_shared)
{
	const struct part child = { 600, 601, 'c' };
	struct world_of_pages w;
	struct dump_task *t = &w.tasks[1];

	begin(&w, &nothing, &nothing, &child, 1);
	RangeEntry *e = MESSAGE(&w.own.d.arena, RangeEntry, range_entry);
	e->start = (uint64_t)w.at;
	e->end = e->start + 2 * HUGE_SIZE;
	*ARENA_PUSH(&w.own.d.arena, t->mm->huge, t->mm->n_huge) = e;
	ASSERT_OK(cow_find(&w.own.d, t));
	ASSERT_EQ(t->mm->n_huge, 1);
	ASSERT_EQ(t->mm->huge[0]->start, (uint64_t)w.at + HUGE_SIZE);
	ASSERT_EQ(t->mm->huge[0]->end, (uint64_t)w.at + 2 * HUGE_SIZE);
	end(&w);
}
