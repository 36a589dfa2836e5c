/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory that changes places without being written to: after each check areas of whole page tables
 * are moved in a circle (mremap), and pages of another one are dropped and read again.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include <stddef.h>

#include "fd.h"
#include "mk.h"

#define AREAS_AT	0x610000000UL
#define AREA		(4UL << 20)
#define NR_AREAS	3	/* and one place that is free */
#define NR_DROPPED	64	/* pages */

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

static void make(void)
{
	int i;

	for (i = 0; i < NR_AREAS; i++) {
		seeds[i] = 100 + i;
		fill(map_at(place(i), AREA), AREA, seeds[i]);
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
		if (verify(place(i), AREA, seeds[i]) >= 0)
			bad("area %d is not the one that was moved there", i);
	for (i = 0; i < NR_DROPPED; i++)
		if (is_dropped && memcmp(dropped + i * PAGE, zeroes, PAGE))
			bad("page %d is not empty any more", i);
	if (!is_dropped && verify(dropped, NR_DROPPED * PAGE, 200) >= 0)
		bad("pages that were dropped before are not as they were written");
	go_round();
	drop();
}

struct factory moves_factory = {
	.name	= "moves",
	.about	= "memory that changes places and is not written to",
	.make	= make,
	.check	= check,
};
