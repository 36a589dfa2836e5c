/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory of the test itself is filled with pages of an image (mem/fill.c, the ways without a stub).
 */
#include <sys/mman.h>

#include "base/io.h"
#include "base/own.h"
#include "base/test.h"
#include "mem/mem.h"
#include "model/vma.h"

/* A file of pages, page i full of the byte i + 1; and memory that they go to. */
struct filling {
	struct restore r;
	struct restore_task t;
	VmaEntry vma[2], *vmas[2];
	struct page_run run[4];
	struct pagemap pages;
	int fd;
	char *at;
};

static uint64_t addr(const struct filling *f, size_t page)
{
	return (uint64_t)f->at + page * PAGE_SIZE_;
}

static void begin(struct filling *f, size_t pages, uint32_t status)
{
	*f = (struct filling){ .fd = ASSERT_OK(memfd_create("pages", 0)) };
	f->at = mmap(NULL, pages * PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	f->t = (struct restore_task){ .pid = getpid(), .uffd = -1, .uffd_there = -1 };
	f->pages.run = f->run;
	for (size_t i = 0; i < pages; i++) {
		char page[PAGE_SIZE_];

		memset(page, i + 1, sizeof(page));
		ASSERT_OK(write_all(f->fd, page, sizeof(page)));
	}
	for (int i = 0; i < 2; i++) { /* the second half is a mapping of its own */
		f->vmas[i] = &f->vma[i];
		vma_entry__init(&f->vma[i]);
		f->vma[i].status = VMA_REGULAR | status;
		f->vma[i].start = addr(f, i * pages / 2);
		f->vma[i].end = addr(f, (i + 1) * pages / 2);
	}
}

/* Pages [from, to) of the memory get the pages from `source` on. */
static struct page_run run_of(const struct filling *f, size_t from, size_t to, size_t source)
{
	return (struct page_run){ .vaddr = addr(f, from),
				  .pages = to - from,
				  .fd = f->fd,
				  .offset = source * PAGE_SIZE_ };
}

static void fill(struct filling *f)
{
	if (mem_fill(&f->r, &f->t, &f->pages, f->vmas) < 0)
		test_fail(__FILE__, __LINE__, "%s", log_first_error());
}

/* The bytes of all pages, as numbers; -1: whatever. */
static void expect(const struct filling *f, const int *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; bytes[i] >= 0 && k < PAGE_SIZE_; k += PAGE_SIZE_ - 1)
			ASSERT_EQ(f->at[i * PAGE_SIZE_ + k], bytes[i]);
}

TEST(fill, runs_go_to_their_addresses)
{
	static const int bytes[] = { 0, 5, 6, 7, 0, 1, 0, 8 };
	struct filling f;

	begin(&f, 8, VMA_ANON_PRIVATE);
	f.run[f.pages.n++] = run_of(&f, 1, 4, 4);
	f.run[f.pages.n++] = run_of(&f, 5, 6, 0);
	f.run[f.pages.n++] = run_of(&f, 7, 8, 7);
	fill(&f);
	expect(&f, bytes, ARRAY_SIZE(bytes));
	ASSERT_EQ(f.r.stats.pages_restored, 5);
	arena_done(&f.r.arena);
}

TEST(fill, a_run_may_reach_over_mappings)
{
	static const int bytes[] = { 0, 0, 0, 1, 2, 3, 0, 0 };
	struct filling f;

	begin(&f, 8, VMA_ANON_PRIVATE);
	f.run[f.pages.n++] = run_of(&f, 3, 6, 0);
	fill(&f);
	expect(&f, bytes, ARRAY_SIZE(bytes));
	arena_done(&f.r.arena);
}

/* It is the kernel's, or comes from elsewhere. */
TEST(fill, special_memory_is_left_alone)
{
	static const int bytes[] = { 0, 0, 3, 4 };
	static const uint32_t special[] = { VMA_VDSO, VMA_VVAR, VMA_VSYSCALL, VMA_AIO_RING };

	for (size_t i = 0; i < ARRAY_SIZE(special); i++) {
		struct filling f;

		begin(&f, 4, VMA_ANON_PRIVATE);
		f.vma[0].status |= special[i];
		f.run[f.pages.n++] = run_of(&f, 0, 4, 0);
		fill(&f);
		expect(&f, bytes, ARRAY_SIZE(bytes));
		ASSERT_EQ(f.r.stats.pages_restored, 2);
		arena_done(&f.r.arena);
	}
}

/* Pages that came along from the same place are there; from another one they are written over. */
TEST(fill, what_is_there_already_is_left_out)
{
	static const int bytes[] = { 1, 0, 0, 4, 5, 6, 7, 8 };
	struct filling f;
	struct page_run there[2];

	begin(&f, 8, VMA_ANON_PRIVATE);
	there[0] = run_of(&f, 1, 3, 1);
	there[1] = run_of(&f, 5, 7, 0);
	f.t.there = (struct pagemap){ there, 2 };
	f.run[f.pages.n++] = run_of(&f, 0, 8, 0);
	fill(&f);
	expect(&f, bytes, ARRAY_SIZE(bytes));
	ASSERT_EQ(f.r.stats.pages_restored, 6);
	arena_done(&f.r.arena);
}

TEST(fill, nothing_to_fill_is_fine)
{
	struct filling f;

	begin(&f, 2, VMA_ANON_PRIVATE);
	fill(&f);
	f.vma[0].status |= VMA_VDSO;
	f.run[f.pages.n++] = run_of(&f, 0, 1, 0);
	fill(&f);
	ASSERT_EQ(f.r.stats.pages_restored, 0);
	arena_done(&f.r.arena);
}

/* Over files everything is written, by two threads if it is much. */
TEST(fill, much_memory_is_filled_as_little)
{
	const size_t pages = 5000;
	struct filling f;

	begin(&f, pages, VMA_FILE_PRIVATE);
	f.run[f.pages.n++] = run_of(&f, 0, pages, 0);
	fill(&f);
	for (size_t i = 0; i < pages; i++)
		ASSERT_EQ(f.at[i * PAGE_SIZE_ + 7], (char)(i + 1));
	ASSERT_EQ(f.r.stats.pages_restored, pages);
	arena_done(&f.r.arena);
}

TEST(fill, pages_that_cannot_be_read_or_written_are_an_error)
{
	struct filling f;

	begin(&f, 4, VMA_ANON_PRIVATE);
	f.run[f.pages.n++] = run_of(&f, 0, 4, 1); /* the file ends before */
	ASSERT_REFUSED(mem_fill(&f.r, &f.t, &f.pages, f.vmas), ": read pages");
	f.run[0] = run_of(&f, 0, 4, 0);
	f.pages.n = 1;
	ASSERT_OK(munmap(f.at, PAGE_SIZE_));
	ASSERT_REFUSED(mem_fill(&f.r, &f.t, &f.pages, f.vmas),
		       ": fill memory by process_vm_writev");
	arena_done(&f.r.arena);
}

/* ---- where there is room ---- */

#define TASK_END 0x7ffffffff000ull

static VmaEntry *vma_of(struct arena *a, uint64_t start, uint64_t end)
{
	VmaEntry *v = MESSAGE(a, VmaEntry, vma_entry);

	v->start = start;
	v->end = end;
	return v;
}

TEST(choose, room_is_free_in_criu_and_in_all_tasks)
{
	struct mapping own[] = { { .start = 0x10000, .end = 0x20000 },
				 { .start = 0x7f0000000000, .end = TASK_END } };
	struct restore r = { .own_maps = { own, 2 } };
	MmEntry mm[2];
	VmaEntry *vmas[2][1];
	struct snapshot_task tasks[3] = { { .mm = &mm[0] }, { .mm = NULL }, { .mm = &mm[1] } };
	uint64_t region;

	vmas[0][0] = vma_of(&r.arena, 0x20000, 0x400000000000);
	vmas[1][0] = vma_of(&r.arena, 0x500000000000, 0x7f0000000000);
	for (int i = 0; i < 2; i++) {
		mm_entry__init(&mm[i]);
		mm[i].n_vmas = 1;
		mm[i].vmas = vmas[i];
	}
	r.snapshot.tasks = tasks;
	r.snapshot.n_tasks = 3;
	ASSERT_OK(mem_choose(&r, &region, 1 << 20));
	ASSERT(region >= 0x400000000000);
	ASSERT_EQ(r.vdso_tmp, region + (1 << 20));
	ASSERT(r.vdso_tmp < 0x500000000000);
	/* One task more, and there is none left. */
	vmas[0][0]->end = 0x500000000000;
	vmas[0][0]->start = 0;
	ASSERT_REFUSED(mem_choose(&r, &region, 1 << 20), "there is no hole of 1024 KiB");
	arena_done(&r.arena);
}
