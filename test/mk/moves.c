/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory that changes places without being written to: after each check areas of whole page tables
 * are moved in a circle (mremap), one takes the place of another, and pages are dropped and read again.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include <stddef.h>

#include "fd.h"
#include "mk.h"

#define AREAS_AT	0x610000000UL
#define AREA		(2UL << 20)	/* what a page table maps */
#define NR_AREAS	3	/* and one place that is free */
#define NR_DROPPED	64	/* pages */

#define PAIRS_AT	0x620000000UL
#define NR_USED		64	/* pages of each area */

/* Of two areas the second takes the place of the first each time. The first page is not like others. */
static struct pair {
	bool is_read;		/* it is only read: a page of zeroes; else it comes late */
	uint64_t seeds[2], next;
} pairs[] = { { .is_read = true }, { .is_read = false } };

static uint64_t seeds[NR_AREAS];	/* what is in each place */
static unsigned char *dropped;
static bool is_dropped;

static void *place(int i)
{
	return (void *)(AREAS_AT + i * AREA);
}

static void *map_at(void *at, size_t size)
{
	void *p = mmap(at, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

static unsigned char *half(int pair, int which)
{
	return (unsigned char *)(PAIRS_AT + (pair * 2 + which) * 2 * AREA);
}

static void fill_half(int pair, int which)
{
	struct pair *p = &pairs[pair];
	volatile unsigned char *at = map_at(half(pair, which), AREA);

	p->seeds[which] = 1000 * (pair + 1) + p->next++;
	if (p->is_read)
		(void)at[0];
	fill((unsigned char *)at + PAGE, (NR_USED - 1) * PAGE, p->seeds[which]);
}

/* The frame that the first page of the first area leaves may be where that of the second one comes. */
static void replace(int pair)
{
	struct pair *p = &pairs[pair];

	if (!p->is_read) {
		if (madvise(half(pair, 0), PAGE, MADV_DONTNEED) < 0)
			bad_errno("madvise");
		half(pair, 1)[0] = 5;
	}
	if (mremap(half(pair, 1), AREA, AREA, MREMAP_MAYMOVE | MREMAP_FIXED, half(pair, 0)) == MAP_FAILED)
		bad_errno("mremap");
	p->seeds[0] = p->seeds[1];
	fill_half(pair, 1);
}

static void check_pair(int pair)
{
	int i;

	for (i = 0; i < 2; i++)
		if (verify(half(pair, i) + PAGE, (NR_USED - 1) * PAGE, pairs[pair].seeds[i]) >= 0)
			bad("pair %d, area %d is not as it was", pair, i);
}

static void make(void)
{
	int i;

	for (i = 0; i < NR_AREAS; i++) {
		seeds[i] = 100 + i;
		fill(map_at(place(i), AREA), NR_USED * PAGE, seeds[i]);
	}
	for (i = 0; i < (int)ARRAY_SIZE(pairs); i++) {
		fill_half(i, 0);
		fill_half(i, 1);
		if (!pairs[i].is_read)
			half(i, 0)[0] = 5;
	}
	dropped = map_at(NULL, NR_DROPPED * PAGE);
	fill(dropped, NR_DROPPED * PAGE, 200);
}

static void move(int from, int to)
{
	if (mremap(place(from), AREA, AREA, MREMAP_MAYMOVE | MREMAP_FIXED, place(to)) != place(to))
		bad_errno("mremap");
}

static void go_round(void)
{
	uint64_t first = seeds[0];
	int i;

	move(0, NR_AREAS);
	for (i = 1; i <= NR_AREAS; i++) {
		move(i, i - 1);
		seeds[i - 1] = i < NR_AREAS ? seeds[i] : first;
	}
}

/* Every second time they are written again. */
static void drop(void)
{
	volatile unsigned char *p = dropped;
	size_t i;

	is_dropped = !is_dropped;
	if (!is_dropped)
		fill(dropped, NR_DROPPED * PAGE, 200);
	else if (madvise(dropped, NR_DROPPED * PAGE, MADV_DONTNEED) < 0)
		bad_errno("madvise");
	for (i = 0; i < NR_DROPPED; i++)
		(void)p[i * PAGE];
}

static void check(void)
{
	static const unsigned char zeroes[PAGE];
	int i;

	for (i = 0; i < NR_AREAS; i++)
		if (verify(place(i), NR_USED * PAGE, seeds[i]) >= 0)
			bad("area %d is not the one that was moved there", i);
	for (i = 0; i < NR_DROPPED; i++)
		if (is_dropped && memcmp(dropped + i * PAGE, zeroes, PAGE))
			bad("page %d is not empty any more", i);
	if (!is_dropped && verify(dropped, NR_DROPPED * PAGE, 200) >= 0)
		bad("pages that were dropped before are not as they were written");
	for (i = 0; i < (int)ARRAY_SIZE(pairs); i++) {
		check_pair(i);
		replace(i);
	}
	go_round();
	drop();
}

struct factory moves_factory = {
	.name	= "moves",
	.about	= "memory that changes places and is not written to",
	.make	= make,
	.check	= check,
};
