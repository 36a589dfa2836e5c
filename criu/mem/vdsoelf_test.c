/* SPDX-License-Identifier: GPL-2.0-only */
/* The vDSO of this process is one of another kernel, as far as the code knows. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>

#include "base/test.h"
#include "mem/vdsoelf.h"

#define SIZE 8192 /* its code and tables end there */

static const uint8_t *own(void)
{
	return (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
}

typedef int clock_fn(clockid_t id, struct timespec *t);

static uint64_t find(const struct vdso_symbols *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->s[i].name, name))
			return s->s[i].offset;
	test_fail(__FILE__, __LINE__, "no symbol %s", name);
	return 0;
}

/* A copy of which nothing works but what was written over functions. */
static uint8_t *redirected(const struct vdso_symbols *there, struct vdso_symbols *ret)
{
	uint8_t *copy =
		mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT(copy != MAP_FAILED);
	memcpy(copy, own(), SIZE);
	ASSERT_OK(vdso_symbols_read(copy, SIZE, ret));
	uint64_t first = SIZE;
	for (size_t i = 0; i < ret->n; i++)
		first = ret->s[i].offset < first ? ret->s[i].offset : first;
	memset(copy + first, 0xcc, 0x500); /* int3 */
	ASSERT(vdso_redirect(copy, ret, there, (uint64_t)own()) >= 4);
	ASSERT_OK(mprotect(copy, SIZE, PROT_READ | PROT_EXEC));
	return copy;
}

static void expect_time(const uint8_t *vdso, const struct vdso_symbols *s)
{
	clock_fn *get = (clock_fn *)(vdso + find(s, "clock_gettime"));
	struct timespec before, now, after;

	ASSERT_OK(clock_gettime(CLOCK_MONOTONIC, &before));
	ASSERT_OK(get(CLOCK_MONOTONIC, &now));
	ASSERT_OK(clock_gettime(CLOCK_MONOTONIC, &after));
	ASSERT(now.tv_sec >= before.tv_sec && now.tv_sec <= after.tv_sec);
	ASSERT(now.tv_sec > before.tv_sec || now.tv_nsec >= before.tv_nsec);
	ASSERT(now.tv_sec < after.tv_sec || now.tv_nsec <= after.tv_nsec);
}

TEST(vdsoelf, functions_jump_to_those_of_the_same_name)
{
	struct vdso_symbols there, s;

	ASSERT_OK(vdso_symbols_read(own(), SIZE, &there));
	expect_time(redirected(&there, &s), &s);
}

TEST(vdsoelf, functions_that_are_gone_become_system_calls)
{
	struct vdso_symbols none = { 0 }, s;

	expect_time(redirected(&none, &s), &s);
}

TEST(vdsoelf, the_mark_is_found_again)
{
	struct vdso_mark mark = { .data_pages = 6, .is_data_before = true }, got;
	uint8_t copy[SIZE];

	memcpy(copy, own(), SIZE);
	ASSERT(!vdso_mark_get(copy, SIZE, &got));
	vdso_mark_put(copy, mark);
	ASSERT(vdso_mark_get(copy, SIZE, &got));
	ASSERT_EQ(got.data_pages, 6);
	ASSERT(got.is_data_before);
	ASSERT(!vdso_mark_get(copy, 16, &got));
}

/* Any bytes may stand in an image: what is found lies inside, and is only written to inside. */
TEST(vdsoelf, nonsense_does_no_harm)
{
	uint64_t state = 1;

	for (int round = 0; round < 20000; round++) {
		struct vdso_symbols s;
		uint8_t *copy = malloc(SIZE); /* for sanitizers */

		ASSERT(copy);
		memcpy(copy, own(), SIZE);
		for (int i = 0; i < 20; i++) {
			state = state * 6364136223846793005ull + 1442695040888963407ull;
			copy[(state >> 33) % (i % 2 ? 64 : SIZE)] = state >> 13;
		}
		size_t size = round % 3 ? SIZE : (state >> 33) % SIZE;
		uint8_t *exact = malloc(size ? size : 1);
		ASSERT(exact);
		memcpy(exact, copy, size);
		if (vdso_symbols_read(exact, size, &s) == 0)
			(void)vdso_redirect(exact, &s, &s, 0);
		free(exact);
		free(copy);
	}
	ASSERT_EQ(vdso_symbols_read((const uint8_t *)"", 0, &(struct vdso_symbols){ 0 }), -EINVAL);
}
