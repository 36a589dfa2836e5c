/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/incremental.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/own.h"
#include "base/test.h"

#define START 0x10000ull

static void fill_page(uint8_t *page, int n)
{
	memset(page, 'a' + n, PAGE_SIZE_);
}

/* Pages files: page n of it is filled with n. */
static int make_pages(int n)
{
	int dir = test_dir();
	int fd = ASSERT_OK(openat(dir, "pages", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	uint8_t page[PAGE_SIZE_];

	for (int i = 0; i < n; i++) {
		fill_page(page, i);
		ASSERT_OK(write_all(fd, page, sizeof(page)));
	}
	close(dir);
	return fd;
}

static uint64_t compare(const struct before *b, uint64_t addr, const uint8_t *data, size_t pages)
{
	uint64_t same[2] = { 0 };

	incremental_compare(b, addr, data, pages, same);
	ASSERT_EQ(same[1], 0);
	return same[0];
}

TEST(incremental, pages_that_are_the_same)
{
	int fd = make_pages(40);
	struct page_run runs[] = {
		{ .vaddr = START, .pages = 3, .fd = fd },
		{ .vaddr = START + 4 * PAGE_SIZE_,
		  .pages = 30,
		  .fd = fd,
		  .offset = 3 * PAGE_SIZE_ },
	};
	const struct before b = { .pages = { runs, ARRAY_SIZE(runs) } };
	static uint8_t data[40 * PAGE_SIZE_];

	/* As it was: page 3 and those behind the second run were not there. */
	for (int i = 0; i < 40; i++)
		fill_page(data + i * PAGE_SIZE_, i < 3 ? i : i - 1);
	ASSERT_EQ(compare(&b, START, data, 40), 0x3fffffff7ull);
	/* One byte of a page, at its begin and at its end. */
	data[PAGE_SIZE_] ^= 1;
	data[21 * PAGE_SIZE_ - 1] ^= 1;
	ASSERT_EQ(compare(&b, START, data, 40), 0x3fffffff7ull & ~(1ull << 1 | 1ull << 20));
	/* From the middle of a run to the middle of the next; nothing at all. */
	ASSERT_EQ(compare(&b, START + 2 * PAGE_SIZE_, data + 2 * PAGE_SIZE_, 4), 0xd);
	ASSERT_EQ(compare(&b, START + 50 * PAGE_SIZE_, data, 10), 0);
	ASSERT_EQ(compare(&b, START - 10 * PAGE_SIZE_, data, 10), 0);
	/* Of a file that was cut, what cannot be read counts as different. */
	ASSERT_OK(ftruncate(fd, 3 * PAGE_SIZE_));
	ASSERT_EQ(compare(&b, START, data, 40), 0x5);
	close(fd);
}
