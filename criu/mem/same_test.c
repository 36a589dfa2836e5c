/* SPDX-License-Identifier: GPL-2.0-only */
/* Equal pages of related tasks become the same pages (mem/same.c). */
#include <sys/mman.h>

#include "base/io.h"
#include "base/own.h"
#include "base/test.h"
#include "mem/cow.h"
#include "model/vma.h"

#define BASE	  0x100000ull
#define MAX_TASKS 4

/* Tasks whose pages are written as letters: equal letters are equal pages. */
struct family {
	struct restore r;
	struct snapshot_task tasks[MAX_TASKS];
};

static struct arena *arena_of(struct family *f)
{
	return &f->r.arena;
}

static void add_run(struct family *f, struct pagemap *map, struct page_run run)
{
	struct page_run *last = map->n ? &map->run[map->n - 1] : NULL;

	if (last && page_run_end(last) == run.vaddr && page_runs_agree(last, &run))
		last->pages++;
	else
		*ARENA_PUSH(arena_of(f), map->run, map->n) = run;
}

static VmaEntry *add_vma(struct family *f, struct snapshot_task *t, uint64_t first, uint64_t pages)
{
	VmaEntry *v = MESSAGE(arena_of(f), VmaEntry, vma_entry);

	v->start = BASE + first * PAGE_SIZE_;
	v->end = v->start + pages * PAGE_SIZE_;
	v->status = VMA_REGULAR | VMA_ANON_PRIVATE;
	v->flags = MAP_PRIVATE | MAP_ANONYMOUS;
	*ARENA_PUSH(arena_of(f), t->mm->vmas, t->mm->n_vmas) = v;
	return v;
}

/* A letter for each page; '.': none. All of them are in one mapping. */
static struct snapshot_task *add_task(struct family *f, int parent, const char *pages)
{
	struct snapshot_task *t = &f->tasks[f->r.n_tasks++];
	int fd = ASSERT_OK(memfd_create("pages", 0));
	uint64_t offset = 0;

	*t = (struct snapshot_task){ .parent = parent,
				     .mm = MESSAGE(arena_of(f), MmEntry, mm_entry) };
	add_vma(f, t, 0, strlen(pages));
	for (size_t i = 0; pages[i]; i++) {
		char page[PAGE_SIZE_];

		if (pages[i] == '.')
			continue;
		memset(page, pages[i], sizeof(page));
		ASSERT_OK(write_all(fd, page, sizeof(page)));
		add_run(f, &t->pages,
			(struct page_run){ .vaddr = BASE + i * PAGE_SIZE_,
					   .pages = 1,
					   .fd = fd,
					   .offset = offset });
		offset += PAGE_SIZE_;
	}
	f->r.snapshot.tasks = f->tasks;
	f->r.snapshot.n_tasks = f->r.n_tasks;
	return t;
}

static const struct page_run *run_of(const struct snapshot_task *t, size_t page)
{
	uint64_t addr = BASE + page * PAGE_SIZE_;
	size_t i = pagemap_first_behind(&t->pages, addr);

	return i < t->pages.n && t->pages.run[i].vaddr <= addr ? &t->pages.run[i] : NULL;
}

/* Its pages are what they were, and those with a '#' are the donor's, others its own. */
static void expect_shared(const struct snapshot_task *t, const char *pages,
			  const struct snapshot_task *donor, const char *shared)
{
	for (size_t i = 0; pages[i]; i++) {
		const struct page_run *run = run_of(t, i);
		char byte;

		ASSERT_EQ(run == NULL, pages[i] == '.');
		if (!run)
			continue;
		ASSERT_OK(pread_all(run->fd, &byte, 1,
				    run->offset + (BASE + i * PAGE_SIZE_ - run->vaddr)));
		ASSERT_EQ(byte, pages[i]);
		ASSERT_EQ(run_of(donor, i) && run->fd == run_of(donor, i)->fd, shared[i] == '#');
	}
}

TEST(same, equal_pages_of_a_child_are_taken_from_its_parent)
{
	struct family f = { 0 };
	struct snapshot_task *parent = add_task(&f, -1, "abcd.fgh");
	struct snapshot_task *child = add_task(&f, 0, "abXdeFgh");

	cow_unify(&f.r);
	expect_shared(parent, "abcd.fgh", parent, "########");
	expect_shared(child, "abXdeFgh", parent, "##_#__##");
	ASSERT_EQ(child->pages.n, 5); /* what goes on is one run */
	arena_done(&f.r.arena);
}

TEST(same, what_the_parent_lacks_is_taken_from_the_eldest_sibling)
{
	struct family f = { 0 };
	struct snapshot_task *parent = add_task(&f, -1, "aPPd");
	struct snapshot_task *eldest = add_task(&f, 0, "abcE");
	struct snapshot_task *child = add_task(&f, 0, "abcd");

	cow_unify(&f.r);
	expect_shared(eldest, "abcE", parent, "#___");
	expect_shared(child, "abcd", parent, "#__#");
	expect_shared(child, "abcd", eldest, "###_"); /* the first is that of the parent */
	arena_done(&f.r.arena);
}

TEST(same, equal_pages_elsewhere_are_not_the_same)
{
	struct family f = { 0 };
	struct snapshot_task *parent = add_task(&f, -1, "abc");
	struct snapshot_task *child = add_task(&f, 0, "bca");

	cow_unify(&f.r);
	expect_shared(child, "bca", parent, "___");
	arena_done(&f.r.arena);
}

TEST(same, tasks_that_are_not_related_share_nothing)
{
	struct family f = { 0 };
	struct snapshot_task *root = add_task(&f, -1, "abc");
	struct snapshot_task *zombie = add_task(&f, 0, "XYZ");
	struct snapshot_task *grandchild = add_task(&f, 1, "abc");

	zombie->is_zombie = true;
	cow_unify(&f.r);
	expect_shared(grandchild, "abc", root, "___");
	expect_shared(zombie, "XYZ", root, "___");
	arena_done(&f.r.arena);
}

/* Changes to the mapping of the child, and whether pages can be the same then. */
static void lock(VmaEntry *v)
{
	v->flags |= MAP_LOCKED;
}

static void protect(VmaEntry *v)
{
	v->prot = PROT_READ;
}

static void make_growing(VmaEntry *v)
{
	v->flags |= MAP_GROWSDOWN;
}

static void make_file(VmaEntry *v)
{
	v->status = VMA_REGULAR | VMA_FILE_PRIVATE;
}

static void make_vdso(VmaEntry *v)
{
	v->status |= VMA_VDSO;
}

static const struct {
	void (*change)(VmaEntry *v);
	bool may_share;
} mappings[] = {
	{ lock, true },	      { protect, true },    { make_growing, false },
	{ make_file, false }, { make_vdso, false },
};

TEST(same, mappings_have_to_be_of_the_same_kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(mappings); i++) {
		struct family f = { 0 };
		struct snapshot_task *parent = add_task(&f, -1, "abc");
		struct snapshot_task *child = add_task(&f, 0, "abc");

		mappings[i].change(child->mm->vmas[0]);
		cow_unify(&f.r);
		expect_shared(child, "abc", parent, mappings[i].may_share ? "###" : "___");
		arena_done(&f.r.arena);
	}
}

/* The same part of the same file. */
TEST(same, mappings_of_files_have_to_show_the_same)
{
	static const struct {
		uint32_t shmid;
		uint64_t pgoff;
		const char *shared;
	} children[] = { { 5, 0, "###" }, { 6, 0, "___" }, { 5, 0x1000, "___" } };

	for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
		struct family f = { 0 };
		struct snapshot_task *parent = add_task(&f, -1, "abc");
		struct snapshot_task *child = add_task(&f, 0, "abc");

		make_file(parent->mm->vmas[0]);
		make_file(child->mm->vmas[0]);
		parent->mm->vmas[0]->shmid = 5;
		child->mm->vmas[0]->shmid = children[i].shmid;
		child->mm->vmas[0]->pgoff = children[i].pgoff;
		cow_unify(&f.r);
		expect_shared(child, "abc", parent, children[i].shared);
		arena_done(&f.r.arena);
	}
}

TEST(same, a_run_may_reach_over_several_mappings)
{
	struct family f = { 0 };
	struct snapshot_task *parent = add_task(&f, -1, "abcdef");
	struct snapshot_task *child = add_task(&f, 0, "abcdef");

	/* Of the child [0, 2) is of another kind, [2, 6) is as that of the parent. */
	child->mm->vmas[0]->end = BASE + 2 * PAGE_SIZE_;
	make_growing(child->mm->vmas[0]);
	add_vma(&f, child, 2, 4);
	/* Of the parent [4, 6) is. */
	parent->mm->vmas[0]->end = BASE + 4 * PAGE_SIZE_;
	make_growing(add_vma(&f, parent, 4, 2));
	cow_unify(&f.r);
	expect_shared(child, "abcdef", parent, "__##__");
	arena_done(&f.r.arena);
}

#define TRIAL 1024
#define MANY  (TRIAL + 256)

/* One of every `part` pages is equal; then a lot that all are. */
static void expect_hope(size_t part, bool is_compared)
{
	char own[MANY + 1], other[MANY + 1], shared[MANY + 1];
	struct family f = { 0 };

	for (size_t i = 0; i < MANY; i++) {
		bool is_equal = i >= TRIAL || i % part == 0;

		own[i] = 'a';
		other[i] = is_equal ? 'a' : 'b';
		shared[i] = is_equal && (i < TRIAL || is_compared) ? '#' : '_';
	}
	own[MANY] = other[MANY] = shared[MANY] = '\0';
	struct snapshot_task *parent = add_task(&f, -1, other);
	struct snapshot_task *child = add_task(&f, 0, own);
	cow_unify(&f.r);
	expect_shared(child, own, parent, shared);
	arena_done(&f.r.arena);
}

TEST(same, a_search_without_hope_is_given_up)
{
	expect_hope(20, false);
	expect_hope(10, true);
}

TEST(same, pages_that_cannot_be_read_differ)
{
	struct family f = { 0 };
	struct snapshot_task *parent = add_task(&f, -1, "abc");
	struct snapshot_task *child = add_task(&f, 0, "abc");

	ASSERT_OK(ftruncate(parent->pages.run[0].fd, 0));
	cow_unify(&f.r);
	expect_shared(child, "abc", parent, "___");
	arena_done(&f.r.arena);
}
