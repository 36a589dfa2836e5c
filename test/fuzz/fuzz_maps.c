/* SPDX-License-Identifier: GPL-2.0-only */
/* Any text of maps and smaps: the mappings are in order, are found, and leave holes. */
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "proc/maps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void check_order(const struct maps *maps)
{
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->m[i];

		check(m->start < m->end && (i == 0 || m[-1].end <= m->start));
		check(maps_find(maps, m->start) == m && maps_find(maps, m->end - 1) == m);
		const struct mapping *named = maps_named(maps, m->path);
		check(named && named <= m);
	}
}

static void check_hole(const struct maps *maps, uint64_t size)
{
	uint64_t addr = maps_hole(maps, size);

	if (!addr)
		return;
	check(addr % 4096 == 0 && addr + size >= addr);
	for (size_t i = 0; i < maps->n; i++)
		check(addr >= maps->m[i].end || addr + size <= maps->m[i].start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of the exact size, so that every read beyond the text is seen. */
	autofree char *text = xmalloc(size + 1);
	struct arena a = { 0 };
	struct maps maps = { 0 };
	size_t line = 0;

	memcpy(text, data, size);
	text[size] = '\0';
	int rc = maps_parse(text, &a, &maps, &line);
	memset(text, 'x', size); /* paths do not point into it */
	check(rc == 0 || (line > 0 && !maps.n));
	check_order(&maps);
	check_hole(&maps, 4096);
	check_hole(&maps, 1ull << 44);
	check_hole(&maps, UINT64_MAX - 4096 * size);
	arena_done(&a);
	return 0;
}
