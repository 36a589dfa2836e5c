/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Transparent huge pages: in memory that asks for them, in memory that was
 * made huge by hand, partly filled, and beside small pages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "mk.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE	(2UL << 20)
#define NR	4	/* huge pages of each kind */

static const struct kind {
	const char *name;
	int advice;		/* before it is touched; 0: none */
	int then;		/* after */
	size_t filled;		/* of each huge page */
} kinds[] = {
	{ "asked for", MADV_HUGEPAGE, 0, HUGE },
	{ "asked for, partly filled", MADV_HUGEPAGE, 0, 5 * PAGE },
	{ "made by hand", 0, MADV_COLLAPSE, HUGE },
	{ "small pages", MADV_NOHUGEPAGE, 0, HUGE },
};

static struct area {
	char *at;
	long huge_kb;
} areas[ARRAY_SIZE(kinds)];

static long huge_kb(const char *at)
{
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start = 0, end = 0;
	long kb, sum = 0;

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			start = from;
			end = to;
		} else if (sscanf(line, "AnonHugePages: %ld", &kb) == 1 && start < (unsigned long)at + NR * HUGE &&
			   end > (unsigned long)at) {
			sum += kb;
		}
	}
	if (f)
		fclose(f);
	return sum;
}

/* Aligned, and with room around it that keeps its neighbours away. */
static char *map_aligned(void)
{
	char *p = mmap(NULL, (NR + 2) * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at = (char *)(((unsigned long)p + HUGE) & ~(HUGE - 1));

	if (p == MAP_FAILED || mmap(at, NR * HUGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return at;
}

static void make(void)
{
	size_t i, page;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		const struct kind *k = &kinds[i];

		areas[i].at = map_aligned();
		if (k->advice && madvise(areas[i].at, NR * HUGE, k->advice) < 0)
			skip("%s: madvise: %s", k->name, strerror(errno));
		for (page = 0; page < NR; page++)
			fill(areas[i].at + page * HUGE, k->filled, i * NR + page);
		if (k->then && madvise(areas[i].at, NR * HUGE, k->then) < 0)
			skip("%s: madvise: %s", k->name, strerror(errno));
		areas[i].huge_kb = huge_kb(areas[i].at);
	}
	if (areas[0].huge_kb < (long)(NR * HUGE >> 10))
		skip("the kernel gives only %ld KiB of huge pages", areas[0].huge_kb);
}

static void check(void)
{
	size_t i, page;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		const struct kind *k = &kinds[i];

		same_long(k->name, areas[i].huge_kb, huge_kb(areas[i].at));
		for (page = 0; page < NR; page++) {
			char *at = areas[i].at + page * HUGE;

			same_long(k->name, -1, verify(at, k->filled, i * NR + page));
			/* What was never written is zero; reading it makes nothing of a huge page. */
			if (k->filled < HUGE)
				same_long(k->name, 0, at[HUGE - 1]);
		}
	}
}

struct factory thp_factory = {
	.name	= "thp",
	.about	= "transparent huge pages",
	.make	= make,
	.check	= check,
};
