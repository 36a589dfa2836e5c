/* SPDX-License-Identifier: GPL-2.0-only */
#include <fcntl.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/test.h"
#include "image/messages.h"
#include "image/pagemap.h"

static void put_file(int dir, const char *name, const void *data, size_t size)
{
	autoclose int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ASSERT(fd >= 0);
	ASSERT_OK(write_all(fd, data, size));
}

TEST(image, the_table_has_all_types_and_their_magics)
{
	ASSERT_EQ(IMAGE_TYPES, 85);
	ASSERT_EQ(image_table[IMG_INVENTORY].magic, 0x58313116);
	ASSERT_EQ(image_table[IMG_INVENTORY].framing, SINGLE);
	ASSERT_EQ(image_table[IMG_STATS].framing, SERVICE);
	for (int i = 0; i < IMAGE_TYPES; i++) {
		ASSERT(image_table[i].file[0]);
		ASSERT_EQ(image_table[i].framing == RAW, image_table[i].message == NULL);
	}
}

TEST(image, names_have_decimal_and_hexadecimal_numbers)
{
	char name[IMAGE_NAME_MAX];

	image_name(IMG_CORE, 4711, name);
	ASSERT_STR(name, "core-4711.img");
	image_name(IMG_GHOST_FILE, 0xabc, name);
	ASSERT_STR(name, "ghost-file-abc.img");
	image_name(IMG_SHMEM_PAGEMAP, 18446744073709551615ul, name);
	ASSERT_STR(name, "pagemap-shmem-18446744073709551615.img");
	image_name(IMG_FILES, 3, name);
	ASSERT_STR(name, "files.img");
}

TEST(image, entries_come_back_in_order)
{
	struct image_dir d;
	struct image_out out;
	struct image_in in;
	struct arena a = { 0 };
	PstreeEntry e = PSTREE_ENTRY__INIT, *got;
	int dir = test_dir();

	image_dir_init(&d, dir);
	image_begin(&out, &d, IMG_PSTREE, 0);
	for (e.pid = 1; e.pid <= 3; e.pid++)
		image_add(&out, &e);
	ASSERT_OK(image_commit(&out));
	ASSERT_EQ(image_open(&in, dir, IMG_PSTREE, 0), 1);
	for (uint32_t pid = 1; pid <= 3; pid++) {
		ASSERT_EQ(image_next(&in, &a, NULL, &got), 1);
		ASSERT_EQ(got->pid, pid);
	}
	ASSERT_EQ(image_next(&in, &a, NULL, &got), 0);
	image_close(&in);
	arena_done(&a);
	image_dir_done(&d);
}

TEST(image, without_an_entry_there_is_no_file_and_a_stale_one_goes)
{
	struct image_dir d;
	struct image_out out;
	struct image_in in;
	int dir = test_dir();

	put_file(dir, "files.img", "stale", 5);
	image_dir_init(&d, dir);
	image_begin(&out, &d, IMG_FILES, 0);
	ASSERT_OK(image_commit(&out));
	ASSERT(faccessat(dir, "files.img", F_OK, 0) < 0);
	ASSERT_EQ(image_open(&in, dir, IMG_FILES, 0), 0);
	image_dir_done(&d);
}

TEST(image, a_failed_dump_removes_what_it_wrote)
{
	struct image_dir d;
	PstreeEntry e = PSTREE_ENTRY__INIT;
	int dir = test_dir();

	put_file(dir, "other", "", 0);
	image_dir_init(&d, dir);
	ASSERT_OK(image_write_one(&d, IMG_PSTREE, 0, &e));
	close(ASSERT_OK(image_create_raw(&d, IMG_PAGES, 1)));
	image_dir_discard(&d);
	ASSERT(faccessat(dir, "pstree.img", F_OK, 0) < 0);
	ASSERT(faccessat(dir, "pages-1.img", F_OK, 0) < 0);
	ASSERT_OK(faccessat(dir, "other", F_OK, 0));
	image_dir_done(&d);
}

static void expect_refused(int dir, const void *data, size_t size, const char *why)
{
	struct arena a = { 0 };
	PstreeEntry *got;

	put_file(dir, "pstree.img", data, size);
	ASSERT_REFUSED(image_read_one(dir, IMG_PSTREE, 0, &a, &got), why);
	ASSERT(strstr(log_first_error(), "pstree.img"));
	arena_done(&a);
}

TEST(image, what_is_no_image_is_refused_by_name)
{
	static const uint32_t common = 0x54564319, pstree = 0x50273030, core = 0x55053847;
	uint32_t foreign[] = { common, core }, cut[] = { common, pstree, 100, 0 };
	uint32_t garbage[] = { common, pstree, 4, 0xffffffff }, empty[] = { common, pstree };
	int dir = test_dir();

	expect_refused(dir, "", 0, "too short");
	expect_refused(dir, "abc", 3, "too short");
	expect_refused(dir, "#!/bin/sh\n", 10, "not an image");
	expect_refused(dir, foreign, sizeof(foreign), "another type");
	expect_refused(dir, cut, sizeof(cut), "truncated");
	expect_refused(dir, garbage, sizeof(garbage), "cannot be parsed");
	expect_refused(dir, empty, sizeof(empty), "empty");
}

#define BASE 0x10000ull

/* Writes a pagemap and a pages file of n pages, page i filled with first + i. */
static void put_pages(int dir, const PagemapEntry *e, size_t n_entries, size_t n_pages, int first)
{
	struct image_dir d;
	struct image_out out;
	PagemapHead head = PAGEMAP_HEAD__INIT;

	image_dir_init(&d, dir);
	head.pages_id = 7;
	image_begin(&out, &d, IMG_PAGEMAP, 1);
	image_add_message(&out, &head.base);
	for (size_t i = 0; i < n_entries; i++)
		image_add(&out, &e[i]);
	ASSERT_OK(image_commit(&out));
	autoclose int fd = ASSERT_OK(image_create_raw(&d, IMG_PAGES, 7));
	for (size_t i = 0; i < n_pages; i++) {
		char page[4096];

		memset(page, first + i, sizeof(page));
		ASSERT_OK(write_all(fd, page, sizeof(page)));
	}
	image_dir_done(&d);
}

static PagemapEntry entry(uint64_t page, uint64_t pages, uint32_t flags)
{
	PagemapEntry e = PAGEMAP_ENTRY__INIT;

	e.vaddr = BASE + page * 4096;
	e.has_nr_pages = e.has_flags = true;
	e.nr_pages = pages;
	e.flags = flags;
	return e;
}

static int first_byte(const struct pagemap *m, uint64_t page)
{
	uint64_t addr = BASE + page * 4096;
	char c;

	for (size_t i = 0; i < m->n; i++) {
		const struct page_run *r = &m->run[i];

		if (addr < r->vaddr || addr >= r->vaddr + r->pages * 4096)
			continue;
		ASSERT_OK(pread_all(r->fd, &c, 1, r->offset + (addr - r->vaddr)));
		return c;
	}
	return -1;
}

TEST(pagemap, parents_are_followed_across_several_entries)
{
	struct arena a = { 0 };
	struct pagemap_set set = { .arena = &a };
	struct pagemap m;
	int dir = test_dir();

	ASSERT_OK(mkdirat(dir, "old", 0700));
	int old = ASSERT_OK(openat(dir, "old", O_RDONLY | O_DIRECTORY));
	PagemapEntry old_entries[] = { entry(0, 2, PAGEMAP_PRESENT), entry(2, 3, PAGEMAP_PRESENT) };
	put_pages(old, old_entries, 2, 5, 10);
	ASSERT_OK(symlinkat("old", dir, "parent"));
	PagemapEntry entries[] = { entry(0, 1, PAGEMAP_PRESENT), entry(1, 3, PAGEMAP_PARENT),
				   entry(9, 1, PAGEMAP_PRESENT) };
	put_pages(dir, entries, 3, 2, 50);

	ASSERT_EQ(pagemap_read(&set, dir, IMG_PAGEMAP, 1, &m), 1);
	ASSERT_EQ(first_byte(&m, 0), 50);
	ASSERT_EQ(first_byte(&m, 1), 11);
	ASSERT_EQ(first_byte(&m, 3), 13);
	ASSERT_EQ(first_byte(&m, 4), -1);
	ASSERT_EQ(first_byte(&m, 9), 51);
	pagemap_set_done(&set);
	arena_done(&a);
}

static void expect_bad_pagemap(int dir, const PagemapEntry *e, size_t n, size_t pages,
			       const char *why)
{
	struct arena a = { 0 };
	struct pagemap_set set = { .arena = &a };
	struct pagemap m;

	put_pages(dir, e, n, pages, 1);
	ASSERT_REFUSED(pagemap_read(&set, dir, IMG_PAGEMAP, 1, &m), why);
	pagemap_set_done(&set);
	arena_done(&a);
}

TEST(pagemap, what_cannot_be_is_refused)
{
	PagemapEntry overlap[] = { entry(0, 2, PAGEMAP_PRESENT), entry(1, 1, PAGEMAP_PRESENT) };
	PagemapEntry zero = entry(0, 0, PAGEMAP_PRESENT), many = entry(0, ~0ull, PAGEMAP_PRESENT);
	PagemapEntry odd = entry(0, 1, PAGEMAP_PRESENT), lazy = entry(0, 1, PAGEMAP_LAZY);
	PagemapEntry orphan = entry(0, 1, PAGEMAP_PARENT), more = entry(0, 3, PAGEMAP_PRESENT);
	int dir = test_dir();

	odd.vaddr++;
	expect_bad_pagemap(dir, overlap, 2, 3, "out of order");
	expect_bad_pagemap(dir, &zero, 1, 1, "out of order");
	expect_bad_pagemap(dir, &many, 1, 1, "range");
	expect_bad_pagemap(dir, &odd, 1, 1, "out of order");
	expect_bad_pagemap(dir, &lazy, 1, 0, "--lazy-pages");
	expect_bad_pagemap(dir, &orphan, 1, 0, "parent");
	expect_bad_pagemap(dir, &more, 1, 2, "truncated");
}

TEST(pagemap, a_chain_of_parents_without_end_is_refused)
{
	PagemapEntry e = entry(0, 1, PAGEMAP_PARENT);
	struct arena a = { 0 };
	struct pagemap_set set = { .arena = &a };
	struct pagemap m;
	int dir = test_dir();

	put_pages(dir, &e, 1, 0, 1);
	ASSERT_OK(symlinkat(".", dir, "parent"));
	ASSERT(pagemap_read(&set, dir, IMG_PAGEMAP, 1, &m) < 0);
	pagemap_set_done(&set);
	arena_done(&a);
}

TEST(pagemap, both_page_counts_are_written_and_the_old_one_is_read)
{
	const struct page_run run = { .vaddr = BASE, .pages = 2 };
	struct arena a = { 0 };
	struct image_dir d;
	struct image_in in;
	PagemapHead *head;
	PagemapEntry *e;
	int dir = test_dir();

	image_dir_init(&d, dir);
	ASSERT_OK(pagemap_write(&d, IMG_PAGEMAP, 1, 7, &run, 1));
	ASSERT_EQ(image_open(&in, dir, IMG_PAGEMAP, 1), 1);
	ASSERT_EQ(image_next(&in, &a, &pagemap_head__descriptor, &head), 1);
	ASSERT_EQ(image_next(&in, &a, NULL, &e), 1);
	ASSERT_EQ(e->compat_nr_pages, 2);
	ASSERT_EQ(e->nr_pages, 2);
	ASSERT_EQ(e->flags, PAGEMAP_PRESENT);
	image_close(&in);
	arena_done(&a);
	image_dir_done(&d);
}
