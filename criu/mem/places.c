/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/places.h"

void places_add(struct arena *a, struct places *to, uint64_t pos)
{
	struct mem_range *last = to->n ? &to->range[to->n - 1] : NULL;

	if (last && last->end == pos)
		last->end += HUGE_SIZE;
	else
		*ARENA_PUSH(a, to->range, to->n) = (struct mem_range){ pos, pos + HUGE_SIZE };
}

/* A page that is there already is in the way, or huge already. */
static bool is_taken(const struct pagemap *there, size_t *i, uint64_t pos)
{
	while (*i < there->n && page_run_end(&there->run[*i]) <= pos)
		++*i;
	return *i < there->n && there->run[*i].vaddr < pos + HUGE_SIZE;
}

static bool is_mapped(VmaEntry *const *vmas, size_t n, size_t *i, uint64_t pos)
{
	while (*i < n && vmas[*i]->end <= pos)
		++*i;
	return *i < n && vmas[*i]->start <= pos && vmas[*i]->end >= pos + HUGE_SIZE;
}

struct places places_find(struct arena *a, const MmEntry *mm, VmaEntry *const *vmas, size_t n_vmas,
			  const struct pagemap *there)
{
	struct places found = { 0 };
	size_t v = 0, k = 0;

	for (size_t i = 0; i < mm->n_huge; i++) {
		uint64_t pos = (mm->huge[i]->start + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1);

		for (; pos + HUGE_SIZE <= mm->huge[i]->end; pos += HUGE_SIZE)
			if (is_mapped(vmas, n_vmas, &v, pos) && !is_taken(there, &k, pos))
				places_add(a, &found, pos);
	}
	return found;
}

struct places places_subtract(struct arena *a, const struct places *wanted,
			      const struct places *have)
{
	struct places left = { 0 };
	size_t h = 0;

	for (size_t i = 0; i < wanted->n; i++)
		for (uint64_t pos = wanted->range[i].start; pos < wanted->range[i].end;
		     pos += HUGE_SIZE) {
			while (h < have->n && have->range[h].end <= pos)
				h++;
			if (h == have->n || have->range[h].start > pos)
				places_add(a, &left, pos);
		}
	return left;
}

uint64_t places_kib(const struct places *p)
{
	uint64_t n = 0;

	for (size_t i = 0; i < p->n; i++)
		n += p->range[i].end - p->range[i].start;
	return n >> 10;
}
