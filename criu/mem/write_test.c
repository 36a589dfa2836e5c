/* SPDX-License-Identifier: GPL-2.0-only */
/* Pages into images and back: of memory, of files in memory, of segments (mem/write.c, shared.c).
 */
#include <sys/stat.h>

#include "base/io.h"
#include "image/pagemap.h"
#include "mem/own_test.h"
#include "mem/shared.h"
#include "model/vma.h"

static uint64_t state;

static long chance(long n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

/* A page is zeroes, or has one byte somewhere. */
static void fill_by_chance(char *p, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		if (chance(3))
			p[i * PAGE_SIZE_ + chance(PAGE_SIZE_)] = 1 + chance(100);
}

static const char zeroes[PAGE_SIZE_];

static bool is_zero(const char *page)
{
	return !memcmp(page, zeroes, PAGE_SIZE_);
}

struct image {
	struct arena arena;
	struct pagemap_set set;
	struct pagemap map;
};

static void read_image(struct own *o, enum image_type type, unsigned long id, struct image *ret)
{
	*ret = (struct image){ 0 };
	ret->set.arena = &ret->arena;
	if (pagemap_read(&ret->set, o->dir, type, id, &ret->map) != 1)
		test_fail(__FILE__, __LINE__, "%s", log_first_error());
}

static void image_end(struct image *i)
{
	pagemap_set_done(&i->set);
	arena_done(&i->arena);
}

/* The bytes of a page; false if the image has none. */
static bool page_of(const struct image *image, uint64_t addr, char *ret)
{
	size_t i = pagemap_first_behind(&image->map, addr);
	const struct page_run *run = &image->map.run[i];

	if (i == image->map.n || run->vaddr > addr)
		return false;
	ASSERT_OK(pread_all(run->fd, ret, PAGE_SIZE_, run->offset + (addr - run->vaddr)));
	return true;
}

/* All of the runs that is not zero is in the image, and nothing else. */
static void expect_image(const struct image *image, const char *at, size_t pages,
			 const uint8_t *is_in_run, bool has_zeroes)
{
	char page[PAGE_SIZE_];

	for (size_t i = 0; i < pages; i++) {
		const char *p = at + i * PAGE_SIZE_;
		bool expected = is_in_run[i] && (has_zeroes || !is_zero(p));

		ASSERT_EQ(page_of(image, (uint64_t)p, page), expected);
		ASSERT(!expected || !memcmp(page, p, PAGE_SIZE_));
	}
}

/* Runs by chance, of which some follow one upon the other. */
static void choose_runs(struct own *o, struct dump_task *t, const char *at, size_t pages,
			uint8_t *is_in_run)
{
	memset(is_in_run, 0, pages);
	for (size_t i = 0; i < pages;) {
		size_t n = min((size_t)1 + chance(100), pages - i);

		if (chance(3)) {
			*ARENA_PUSH(&o->d.arena, t->pages.runs, t->pages.n_runs) =
				(struct page_run){ .vaddr = (uint64_t)at + i * PAGE_SIZE_,
						   .pages = n };
			memset(is_in_run + i, 1, n);
		}
		i += n;
	}
}

static void give_vma(struct own *o, struct dump_task *t, const char *at, size_t pages,
		     uint32_t status)
{
	VmaEntry *v = MESSAGE(&o->d.arena, VmaEntry, vma_entry);

	v->start = (uint64_t)at;
	v->end = v->start + pages * PAGE_SIZE_;
	v->status = status;
	*ARENA_PUSH(&o->d.arena, t->mm->vmas, t->mm->n_vmas) = v;
}

static const struct {
	size_t pages;
	uint64_t held_before; /* what others hold already */
	uint32_t status;
	bool is_held;
} memories[] = {
	{ 1, 0, VMA_ANON_PRIVATE, true },
	{ 1000, 0, VMA_ANON_PRIVATE, true },
	{ 1000, MEM_HOLD_MAX, VMA_ANON_PRIVATE, false },
	{ 1000, MEM_HOLD_MAX, VMA_FILE_PRIVATE, false },
	{ 1000, 0, VMA_FILE_PRIVATE, true },
	{ 8000, 0, VMA_ANON_PRIVATE, false }, /* by two threads */
	{ 8000, 0, VMA_FILE_PRIVATE, false },
};

static void expect_saved(size_t i)
{
	size_t pages = memories[i].pages;
	autofree uint8_t *is_in_run = xmalloc(pages);
	char *at = own_pages(pages);
	struct dump_task t;
	struct image image;
	struct own o;

	state = i + 1;
	fill_by_chance(at, pages);
	own_begin(&o);
	o.d.held_bytes = memories[i].held_before;
	own_init_task(&o, &t, getpid());
	give_vma(&o, &t, at, pages, memories[i].status);
	choose_runs(&o, &t, at, pages, is_in_run);
	ASSERT_OK(mem_save_pages(&o.d, &t));
	ASSERT_EQ(t.pages.is_held, memories[i].is_held);
	ASSERT_OK(mem_write_images(&o.d, &t));
	read_image(&o, IMG_PAGEMAP, getpid(), &image);
	expect_image(&image, at, pages, is_in_run, memories[i].status == VMA_FILE_PRIVATE);
	ASSERT_EQ(o.d.stats.pages_written, mem_total_pages(&t.pages));
	image_end(&image);
	own_end(&o);
}

TEST(write, pages_are_in_the_image_but_for_those_of_zeroes)
{
	test_time_limit(30);
	for (size_t i = 0; i < ARRAY_SIZE(memories); i++)
		expect_saved(i);
}

TEST(write, what_is_held_does_not_change_with_the_memory)
{
	char *at = own_pages(1), page[PAGE_SIZE_];
	struct dump_task t;
	struct image image;
	struct own o;

	at[0] = 'a';
	own_begin(&o);
	own_init_task(&o, &t, getpid());
	give_vma(&o, &t, at, 1, VMA_ANON_PRIVATE);
	*ARENA_PUSH(&o.d.arena, t.pages.runs, t.pages.n_runs) =
		(struct page_run){ .vaddr = (uint64_t)at, .pages = 1 };
	ASSERT_OK(mem_save_pages(&o.d, &t));
	at[0] = 'b';
	ASSERT_OK(mem_write_images(&o.d, &t));
	read_image(&o, IMG_PAGEMAP, getpid(), &image);
	ASSERT(page_of(&image, (uint64_t)at, page));
	ASSERT_EQ(page[0], 'a');
	image_end(&image);
	own_end(&o);
}

TEST(write, memory_that_cannot_be_read_is_an_error)
{
	static const uint64_t held[] = { 0, MEM_HOLD_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(held); i++)
		for (size_t pages = 1; pages <= 4096; pages += 4095) {
			char *at = own_pages(4096);
			struct dump_task t;
			struct own o;
			char text[64];

			own_begin(&o);
			o.d.held_bytes = held[i];
			own_init_task(&o, &t, getpid());
			*ARENA_PUSH(&o.d.arena, t.pages.runs, t.pages.n_runs) =
				(struct page_run){ .vaddr = (uint64_t)at, .pages = pages };
			memset(at, 1, 4096 * PAGE_SIZE_);
			ASSERT_OK(munmap(at, 4096 * PAGE_SIZE_));
			snprintf(text, sizeof(text), "pid %d: read its memory at %#lx", getpid(),
				 (long)at);
			ASSERT_REFUSED(mem_save_pages(&o.d, &t), text);
			own_end(&o);
		}
}

/* ---- files in memory ---- */

static const uint64_t file_sizes[] = {
	0,
	1,
	PAGE_SIZE_,
	PAGE_SIZE_ + 1,
	100 * PAGE_SIZE_,
	300 * PAGE_SIZE_ + 4095,
	5000 * PAGE_SIZE_ + 17,
};

static int make_file(uint64_t size)
{
	int fd = ASSERT_OK(memfd_create("m", 0));
	uint64_t pages = size / PAGE_SIZE_;

	ASSERT_OK(ftruncate(fd, size));
	for (uint64_t i = 0; i < pages; i++) {
		char byte = 1 + chance(100);

		if (chance(2)) /* zeroes that are written are no hole, but need not be kept */
			ASSERT_OK(pwrite_all(fd, chance(4) ? &byte : "", 1, i * PAGE_SIZE_));
	}
	if (size)
		ASSERT_OK(pwrite_all(fd, "e", 1, size - 1));
	return fd;
}

static void expect_same(int a, int b, uint64_t size)
{
	autofree char *x = xmalloc(size + 1), *y = xmalloc(size + 1);
	struct stat st;

	ASSERT_OK(fstat(b, &st));
	ASSERT_EQ(st.st_size, size);
	ASSERT_EQ(pread(a, x, size + 1, 0), size);
	ASSERT_EQ(pread(b, y, size + 1, 0), size);
	ASSERT(!memcmp(x, y, size));
}

static void expect_file_saved(uint64_t size, uint64_t held_before)
{
	struct saved_pages pages;
	struct image image;
	struct own o;
	int fd = make_file(size), again = ASSERT_OK(memfd_create("again", 0));

	own_begin(&o);
	o.d.held_bytes = held_before;
	ASSERT_OK(mem_save_file(&o.d, fd, size, "file", 5, &pages));
	ASSERT_OK(mem_write_pages(&o.d, &pages));
	read_image(&o, IMG_SHMEM_PAGEMAP, 5, &image);
	ASSERT_OK(ftruncate(again, size));
	ASSERT_OK(mem_fill_file(again, size, &image.map, "file"));
	expect_same(fd, again, size);
	image_end(&image);
	own_end(&o);
	close(fd);
	close(again);
}

TEST(write, files_in_memory_come_back_whatever_their_size)
{
	test_time_limit(30);
	state = 1;
	for (size_t i = 0; i < ARRAY_SIZE(file_sizes); i++) {
		expect_file_saved(file_sizes[i], 0);
		expect_file_saved(file_sizes[i], MEM_HOLD_MAX);
	}
}

/* Only mappings can see it. */
TEST(write, what_was_written_behind_the_end_of_a_file_comes_back)
{
	const uint64_t size = PAGE_SIZE_ + 10;
	struct saved_pages pages;
	struct image image;
	struct own o;
	int fd = make_file(size), again = ASSERT_OK(memfd_create("again", 0));
	char *map = mmap(NULL, 2 * PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	map[size + 5] = 'b';
	own_begin(&o);
	ASSERT_OK(mem_save_file(&o.d, fd, size, "file", 5, &pages));
	ASSERT_OK(mem_write_pages(&o.d, &pages));
	read_image(&o, IMG_SHMEM_PAGEMAP, 5, &image);
	ASSERT_OK(ftruncate(again, size));
	ASSERT_OK(mem_fill_file(again, size, &image.map, "file"));
	expect_same(fd, again, size);
	map = mmap(NULL, 2 * PAGE_SIZE_, PROT_READ, MAP_SHARED, again, 0);
	ASSERT_EQ(map[size + 5], 'b');
	ASSERT_EQ(map[size + 6], 0);
	image_end(&image);
	own_end(&o);
}

/* ---- segments of shared memory ---- */

struct segment {
	struct own own;
	struct dump_task task;
	char *map;
};

#define SEGMENT_PAGES 8
#define HOLE	      5 /* a page that nobody has written to */

static VmaEntry *note(struct segment *s, uint64_t start, uint64_t size, uint64_t pgoff)
{
	VmaEntry *v = MESSAGE(&s->own.d.arena, VmaEntry, vma_entry);

	v->start = start;
	v->end = start + size;
	v->pgoff = pgoff;
	v->shmid = 77;
	v->flags = MAP_SHARED | MAP_ANONYMOUS;
	v->status = VMA_ANON_SHARED;
	shared_note(&s->own.d, &s->task, v);
	return v;
}

static void begin_segment(struct segment *s)
{
	*s = (struct segment){ 0 };
	own_begin(&s->own);
	own_init_task(&s->own, &s->task, getpid());
	s->map = mmap(NULL, SEGMENT_PAGES * PAGE_SIZE_, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < SEGMENT_PAGES; i++)
		if (i != HOLE)
			s->map[i * PAGE_SIZE_] = 'a' + i;
}

static void save_segment(struct segment *s)
{
	struct dump *d = &s->own.d;

	ASSERT_OK(mem_collect_shared(d));
	ASSERT_OK(mem_save_shared(d));
	ASSERT_OK(mem_write_shared(d));
}

static int make_again(struct segment *s, struct restore *r, struct snapshot_shared *m,
		      struct image *image)
{
	read_image(&s->own, IMG_SHMEM_PAGEMAP, 77, image);
	m->pages = image->map;
	r->snapshot.shared = m;
	r->snapshot.n_shared = 1;
	ASSERT_OK(mem_make_shared(r));
	return shared_fd(r, 77);
}

TEST(shared, a_segment_is_as_large_as_it_was_not_as_it_is_mapped)
{
	struct segment s;
	struct restore r = { 0 };
	struct snapshot_shared m = { .id = 77, .size = SEGMENT_PAGES * PAGE_SIZE_ };
	struct image image;
	char got[SEGMENT_PAGES * PAGE_SIZE_ + 1];

	begin_segment(&s);
	ASSERT_OK(munmap(s.map + 2 * PAGE_SIZE_, (SEGMENT_PAGES - 2) * PAGE_SIZE_));
	ASSERT_OK(mprotect(s.map, PAGE_SIZE_, PROT_READ)); /* so that these are two */
	VmaEntry *first = note(&s, (uint64_t)s.map, PAGE_SIZE_, 0);
	VmaEntry *second = note(&s, (uint64_t)s.map + PAGE_SIZE_, PAGE_SIZE_, PAGE_SIZE_);
	save_segment(&s);
	ASSERT_EQ(first->segment_size, SEGMENT_PAGES * PAGE_SIZE_);
	ASSERT_EQ(second->segment_size, SEGMENT_PAGES * PAGE_SIZE_);
	int fd = make_again(&s, &r, &m, &image);
	ASSERT_EQ(pread(fd, got, sizeof(got), 0), SEGMENT_PAGES * PAGE_SIZE_);
	for (int i = 0; i < SEGMENT_PAGES; i++)
		ASSERT_EQ(got[i * PAGE_SIZE_], i == HOLE ? 0 : 'a' + i);
	/* Pages behind the last mapping have an entry of their own, for readers that skip it. */
	static const struct {
		uint64_t first, pages;
	} entries[] = { { 0, 2 }, { 2, HOLE - 2 }, { HOLE + 1, SEGMENT_PAGES - HOLE - 1 } };
	struct image_in in;
	PagemapHead *head;
	PagemapEntry *e;
	ASSERT_EQ(image_open(&in, s.own.dir, IMG_SHMEM_PAGEMAP, 77), 1);
	ASSERT_EQ(image_next(&in, &image.arena, &pagemap_head__descriptor, &head), 1);
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		ASSERT_EQ(image_next(&in, &image.arena, NULL, &e), 1);
		ASSERT_EQ(e->vaddr, entries[i].first * PAGE_SIZE_);
		ASSERT_EQ(e->nr_pages, entries[i].pages);
	}
	ASSERT_EQ(image_next(&in, &image.arena, NULL, &e), 0);
	image_close(&in);
	mem_close_shared(&r);
	image_end(&image);
	arena_done(&r.arena);
	own_end(&s.own);
}

TEST(shared, a_segment_that_is_mapped_as_a_whole_needs_no_size)
{
	struct segment s;

	begin_segment(&s);
	VmaEntry *v = note(&s, (uint64_t)s.map, SEGMENT_PAGES * PAGE_SIZE_, 0);
	save_segment(&s);
	ASSERT(!v->has_segment_size);
	ASSERT_OK(faccessat(s.own.dir, "pagemap-shmem-77.img", F_OK, 0));
	own_end(&s.own);
}

TEST(shared, a_segment_that_is_private_to_all_has_no_image)
{
	struct segment s;

	begin_segment(&s);
	note(&s, (uint64_t)s.map, SEGMENT_PAGES * PAGE_SIZE_, 0)->flags =
		MAP_PRIVATE | MAP_ANONYMOUS;
	save_segment(&s);
	ASSERT(faccessat(s.own.dir, "pagemap-shmem-77.img", F_OK, 0) < 0);
	own_end(&s.own);
}
