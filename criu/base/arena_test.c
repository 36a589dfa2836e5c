/* SPDX-License-Identifier: GPL-2.0-only */
#include <sys/wait.h>

#include "base/arena.h"
#include "base/own.h"
#include "base/test.h"

static bool is_filled(const void *p, int byte, size_t size)
{
	const unsigned char *c = p;

	for (size_t i = 0; i < size; i++)
		if (c[i] != byte)
			return false;
	return true;
}

TEST(arena, memory_is_zeroed_and_aligned)
{
	struct arena a = { 0 };

	for (size_t size = 0; size < 70000; size = size * 5 / 4 + 1) {
		char *p = arena_alloc(&a, size);

		ASSERT(p);
		ASSERT_EQ((uintptr_t)p % 16, 0);
		ASSERT(is_filled(p, 0, size));
		memset(p, 0xa5, size);
	}
	arena_done(&a);
}

TEST(arena, pieces_are_apart)
{
	/* Around the alignment, around the size of a block, and far beyond it. */
	static const size_t sizes[] = { 1,     15,    16,    17,    100,   32751, 32752,
					32753, 32767, 32768, 32769, 65536, 1,	  500000 };
	struct arena a = { 0 };
	char *p[ARRAY_SIZE(sizes) * 8];

	for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
		size_t size = sizes[i % ARRAY_SIZE(sizes)];

		p[i] = arena_alloc(&a, size);
		memset(p[i], i, size);
	}
	for (size_t i = 0; i < ARRAY_SIZE(p); i++)
		ASSERT(is_filled(p[i], i, sizes[i % ARRAY_SIZE(sizes)]));
	arena_done(&a);
}

TEST(arena, block_is_used_to_its_last_byte)
{
	struct arena a = { 0 };
	char *first = arena_alloc(&a, 16);
	struct arena_block *block = a.last;

	for (int i = 1; i < (32768 - 32) / 16; i++) /* 32: what the block knows of itself */
		ASSERT(arena_alloc(&a, 16) == first + i * 16);
	ASSERT(a.last == block);
	ASSERT(arena_alloc(&a, 0)); /* nothing fits, and nothing is what is wanted */
	memset(arena_alloc(&a, 1), 1, 1);
	ASSERT(a.last != block);
	arena_done(&a);
}

TEST(arena, can_be_used_again_when_done)
{
	struct arena a = { 0 };

	arena_done(&a);
	for (int i = 0; i < 3; i++) {
		ASSERT_STR(arena_strdup(&a, "again"), "again");
		arena_done(&a);
		ASSERT(!a.last);
		arena_done(&a);
	}
}

TEST(arena, copies_are_copies)
{
	struct arena a = { 0 };
	char text[] = "text";
	char *s = arena_strdup(&a, text), *m = arena_memdup(&a, text, 2);

	memset(text, 'x', 4);
	ASSERT_STR(s, "text");
	ASSERT(!memcmp(m, "te", 2));
	ASSERT_STR(arena_strdup(&a, ""), "");
	ASSERT(arena_memdup(&a, NULL, 0));
	arena_done(&a);
}

TEST(arena, printf_has_room_for_any_text)
{
	struct arena a = { 0 };

	ASSERT_STR(arena_printf(&a, "%s", ""), "");
	ASSERT_STR(arena_printf(&a, "%s %d %c", "pid", -1, '.'), "pid -1 .");
	for (int len = 1; len < 100000; len = len * 2 + 1) {
		char *text = arena_printf(&a, "%*d", len, 7);

		ASSERT_EQ(strlen(text), len);
		ASSERT_EQ(text[len - 1], '7');
	}
	arena_done(&a);
}

struct odd {
	uint64_t n;
	char tail[80];
};

TEST(arena, push_keeps_all_elements)
{
	struct arena a = { 0 };
	struct odd *odd = NULL;
	uint8_t *small = NULL;
	size_t n_odd = 0, n_small = 0;

	for (size_t i = 0; i < 20000; i++) {
		struct odd *o = ARENA_PUSH(&a, odd, n_odd);

		ASSERT(o == odd + i);
		o->n = i;
		memset(o->tail, i, sizeof(o->tail));
		*ARENA_PUSH(&a, small, n_small) = i;
	}
	ASSERT_EQ(n_odd, 20000);
	ASSERT_EQ(n_small, 20000);
	for (size_t i = 0; i < 20000; i++) {
		ASSERT_EQ(odd[i].n, i);
		ASSERT(is_filled(odd[i].tail, (uint8_t)i, sizeof(odd[i].tail)));
		ASSERT_EQ(small[i], (uint8_t)i);
	}
	arena_done(&a);
}

TEST(arena, push_gives_zeroed_elements)
{
	struct arena a = { 0 };
	struct odd *list = NULL;
	size_t n = 0;

	for (int i = 0; i < 1000; i++)
		ASSERT(is_filled(ARENA_PUSH(&a, list, n), 0, sizeof(*list)));
	arena_done(&a);
}

/* Whoever drops elements from the end may go on pushing. */
TEST(arena, push_continues_after_elements_were_dropped)
{
	for (size_t full = 1; full < 70; full++) {
		for (size_t left = 0; left < full; left++) {
			struct arena a = { 0 };
			size_t *list = NULL;
			size_t n = 0;

			for (size_t i = 0; i < full; i++)
				*ARENA_PUSH(&a, list, n) = i;
			n = left;
			for (size_t i = left; i < 2 * full; i++)
				*ARENA_PUSH(&a, list, n) = i;
			for (size_t i = 0; i < n; i++)
				ASSERT_EQ(list[i], i);
			arena_done(&a);
		}
	}
}

TEST(arena, old_copies_take_no_more_than_the_array)
{
	struct arena a = { 0 };
	char *list = NULL;
	size_t n = 0;

	while (n < 8192)
		*ARENA_PUSH(&a, list, n) = 1;
	/* A small array stays in one block, whose data begin behind a header of 32 bytes. */
	char *next = arena_alloc(&a, 0);
	ASSERT(next == list + 8192);
	ASSERT(next - ((char *)a.last + 32) <= 2 * 8192);
	arena_done(&a);
}

/* Allocates in a process of its own, which has to end with an error that says why. */
static void expect_death(void (*allocate)(size_t size), size_t size)
{
	char text[256] = "";
	int status, fds[2];

	ASSERT_OK(pipe(fds));
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0) {
		dup2(fds[1], STDERR_FILENO);
		allocate(size);
		_exit(0);
	}
	close(fds[1]);
	ASSERT(read(fds[0], text, sizeof(text) - 1) > 0);
	close(fds[0]);
	ASSERT_OK(waitpid(pid, &status, 0));
	ASSERT(strstr(text, ": Cannot allocate memory\n"));
	ASSERT_EQ(status, 1 << 8);
}

static void allocate_first(size_t size)
{
	struct arena a = { 0 };

	memset(arena_alloc(&a, size), 1, 4096);
}

static void allocate_second(size_t size)
{
	struct arena a = { 0 };

	arena_alloc(&a, 16);
	memset(arena_alloc(&a, size), 1, 4096);
}

TEST(arena, size_that_does_not_fit_ends_the_process)
{
	/* What overflows is the rounding of the first two, the header of the others. */
	static const size_t sizes[] = { SIZE_MAX,      SIZE_MAX - 14, SIZE_MAX - 15,
					SIZE_MAX - 16, SIZE_MAX - 30, SIZE_MAX - 31 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		expect_death(allocate_first, sizes[i]);
		expect_death(allocate_second, sizes[i]);
	}
}

TEST(arena, xmalloc_of_nothing_is_not_null)
{
	char *p = xmalloc(0);

	ASSERT(p);
	p = xrealloc(p, 100);
	memset(p, 1, 100);
	p = xrealloc(p, 0);
	ASSERT(p);
	p = xrealloc(p, 10);
	memset(p, 1, 10);
	free(p);
	free(xrealloc(NULL, 5));
}
