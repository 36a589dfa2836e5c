/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdlib.h>

#include "base/test.h"
#include "mem/runs.h"

#define WORLD 64 /* pages */

/* What a list says of each page: 0 nothing, else the place that its bytes come from. */
struct world {
	uint64_t place[WORLD];
};

static uint64_t state;

static long chance(long n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

static struct runs random_runs(void)
{
	struct runs r = { 0 };

	for (uint64_t page = 0; page < WORLD; page++) {
		uint64_t n = 1 + chance(5);

		if (page + n > WORLD || chance(2))
			continue;
		/* Often from where their address says, so that lists agree. */
		uint64_t offset = chance(3) ? page : page + chance(4);
		runs_append(&r, (struct page_run){ .vaddr = page * PAGE_SIZE_,
						   .pages = n,
						   .fd = 3 + !chance(4),
						   .offset = offset * PAGE_SIZE_ });
		page += n - 1;
	}
	return r;
}

static struct world world_of(const struct runs *r)
{
	struct world w = { 0 };
	uint64_t last = 0;

	for (size_t i = 0; i < r->n; i++) {
		const struct page_run *run = &r->run[i];

		ASSERT(run->pages > 0);
		ASSERT(run->vaddr >= last);
		last = page_run_end(run);
		for (uint64_t k = 0; k < run->pages; k++)
			w.place[run->vaddr / PAGE_SIZE_ + k] =
				run->fd * 1000 + run->offset / PAGE_SIZE_ + k;
	}
	return w;
}

TEST(runs, lists_of_pages_are_as_sets_of_pages)
{
	for (long seed = 1; seed <= 20000; seed++) {
		state = seed;
		struct runs a = random_runs(), b = random_runs(), all = runs_unite(&a, &b);
		struct world x = world_of(&a), y = world_of(&b), z = world_of(&all);

		for (int i = 0; i < WORLD; i++)
			ASSERT_EQ(z.place[i], x.place[i] ? x.place[i] : y.place[i]);
		ASSERT(runs_hold(&all, &a));
		if (runs_hold(&a, &b))
			for (int i = 0; i < WORLD; i++)
				ASSERT(!y.place[i] || y.place[i] == x.place[i]);
		struct pagemap map = { .run = a.run, .n = a.n };
		uint64_t start = chance(WORLD), end = start + 1 + chance(8);
		bool any = false;
		for (uint64_t i = start; i < end && i < WORLD; i++)
			any = any || x.place[i];
		ASSERT_EQ(runs_touch(&map, start * PAGE_SIZE_, end * PAGE_SIZE_), any);
		free(a.run);
		free(b.run);
		free(all.run);
	}
}

TEST(runs, what_goes_on_becomes_one)
{
	struct runs r = { 0 };

	for (uint64_t i = 0; i < 1000; i++)
		runs_append(&r, (struct page_run){ .vaddr = i * PAGE_SIZE_,
						   .pages = 1,
						   .fd = 3,
						   .offset = (i + 7) * PAGE_SIZE_ });
	ASSERT_EQ(r.n, 1);
	ASSERT_EQ(r.run[0].pages, 1000);
	/* Not if the bytes lie elsewhere. */
	runs_append(&r, (struct page_run){ .vaddr = 1000 * PAGE_SIZE_, .pages = 1, .fd = 3 });
	ASSERT_EQ(r.n, 2);
	free(r.run);
}
