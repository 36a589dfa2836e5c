/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/places.h"

#include "base/own.h"
#include "base/test.h"

static struct arena arena;

/* A list of places from a text: '#' is a huge page. */
static struct places places_of(const char *text)
{
	struct places p = { 0 };

	for (uint64_t i = 0; text[i]; i++)
		if (text[i] == '#')
			places_add(&arena, &p, i * HUGE_SIZE);
	return p;
}

static void expect(const struct places *p, const char *text)
{
	size_t n = 0;

	for (uint64_t i = 0; text[i]; i++) {
		if (text[i] != '#' || (i && text[i - 1] == '#'))
			continue;
		ASSERT(n < p->n);
		ASSERT_EQ(p->range[n].start, i * HUGE_SIZE);
		ASSERT_EQ(p->range[n].end, (i + strspn(text + i, "#")) * HUGE_SIZE);
		n++;
	}
	ASSERT_EQ(p->n, n);
}

TEST(places, neighbours_become_one_range)
{
	const struct places p = places_of("##_#");

	ASSERT_EQ(p.n, 2);
	expect(&p, "##_#");
	ASSERT_EQ(places_kib(&p), 3 * 2048);
	arena_done(&arena);
}

static const struct {
	const char *wanted, *have, *left;
} differences[] = {
	{ "____", "____", "____" },
	{ "####", "____", "####" },
	{ "####", "####", "____" },
	{ "####", "_##_", "#__#" },
	{ "##_##_##", "_#_#__#_", "#___#__#" },
	{ "_##_____", "#__#####", "_##_____" }, /* none of what is there was wanted */
};

TEST(places, what_is_there_is_taken_from_what_is_wanted)
{
	for (size_t i = 0; i < ARRAY_SIZE(differences); i++) {
		const struct places wanted = places_of(differences[i].wanted);
		const struct places have = places_of(differences[i].have);
		const struct places left = places_subtract(&arena, &wanted, &have);

		expect(&left, differences[i].left);
	}
	arena_done(&arena);
}

/* Quarters of huge pages: '#' huge memory, mappings as letters, '#' pages that are there. */
static const struct {
	const char *huge, *mappings, *there, *found;
} searches[] = {
	{ "################", "aaaaaaaaaaaaaaaa", "________________", "####" },
	{ "_###############", "aaaaaaaaaaaaaaaa", "________________", "_###" }, /* a part of one */
	{ "###############_", "aaaaaaaaaaaaaaaa", "________________", "###_" },
	{ "_######_________", "aaaaaaaaaaaaaaaa", "________________", "____" }, /* none is whole */
	{ "################", "aaaaaabbbbbbbbbb", "________________", "#_##" }, /* over a border */
	{ "################", "aaaa____bbbbbbbb", "________________", "#_##" },
	{ "################", "aaaaaaaabbbbbbbb", "________________", "####" },
	{ "################", "_aaaaaaaaaaaaaaa", "________________", "_###" },
	{ "################", "aaaaaaaaaaaaaaa_", "________________", "###_" },
	{ "################", "aaaaaaaaaaaaaaaa", "____#___________", "#_##" }, /* in the way */
	{ "################", "aaaaaaaaaaaaaaaa", "_______##_______", "#__#" },
	{ "################", "aaaaaaaaaaaaaaaa", "####________####", "_##_" },
	{ "####____####____", "aaaaaaaaaaaaaaaa", "________________", "#_#_" },
	{ "####____########", "aaaaaaaabbbbbbbb", "___________#____", "#__#" },
};

#define QUARTER (HUGE_SIZE / 4)

/* Calls back for each stretch of one character. */
static void for_stretches(const char *text, void (*what)(void *arg, uint64_t start, uint64_t end),
			  void *arg)
{
	for (uint64_t i = 0, end; text[i]; i = end) {
		for (end = i + 1; text[end] == text[i]; end++)
			;
		if (text[i] != '_')
			what(arg, i * QUARTER, end * QUARTER);
	}
}

static void add_huge(void *arg, uint64_t start, uint64_t end)
{
	MmEntry *mm = arg;
	RangeEntry *e = MESSAGE(&arena, RangeEntry, range_entry);

	e->start = start;
	e->end = end;
	*ARENA_PUSH(&arena, mm->huge, mm->n_huge) = e;
}

static void add_mapping(void *arg, uint64_t start, uint64_t end)
{
	MmEntry *mm = arg;
	VmaEntry *v = MESSAGE(&arena, VmaEntry, vma_entry);

	v->start = start;
	v->end = end;
	*ARENA_PUSH(&arena, mm->vmas, mm->n_vmas) = v;
}

static void add_run(void *arg, uint64_t start, uint64_t end)
{
	struct pagemap *map = arg;

	*ARENA_PUSH(&arena, map->run, map->n) =
		(struct page_run){ .vaddr = start, .pages = (end - start) / PAGE_SIZE_ };
}

TEST(places, only_whole_ones_in_a_mapping_with_nothing_in_it_are_found)
{
	for (size_t i = 0; i < ARRAY_SIZE(searches); i++) {
		MmEntry mm = MM_ENTRY__INIT;
		struct pagemap there = { 0 };

		for_stretches(searches[i].huge, add_huge, &mm);
		for_stretches(searches[i].mappings, add_mapping, &mm);
		for_stretches(searches[i].there, add_run, &there);
		const struct places found = places_find(&arena, &mm, mm.vmas, mm.n_vmas, &there);
		expect(&found, searches[i].found);
	}
	arena_done(&arena);
}
