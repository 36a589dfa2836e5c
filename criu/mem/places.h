/* SPDX-License-Identifier: GPL-2.0-only */
/* Lists of huge pages by address: where they are wanted, and where they are. Pure. */
#ifndef MEM_PLACES_H
#define MEM_PLACES_H

#include "mem/huge.h"
#include "model/restore.h"

struct places {
	struct mem_range *range;
	size_t n;
};

/* One huge page more, behind the last one. */
void places_add(struct arena *a, struct places *to, uint64_t pos);

/*
 * Where huge pages of mm can be made again: whole ones in one of these mappings (by address), with
 * no page there already, which would be in the way, or be a huge one.
 */
struct places places_find(struct arena *a, const MmEntry *mm, VmaEntry *const *vmas, size_t n_vmas,
			  const struct pagemap *there);

/* Those that are wanted, without those that there are. */
struct places places_subtract(struct arena *a, const struct places *wanted,
			      const struct places *have);

uint64_t places_kib(const struct places *p);

#endif
