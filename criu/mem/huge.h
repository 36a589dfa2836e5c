/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef MEM_HUGE_H
#define MEM_HUGE_H

#include "model/restore.h"

#define HUGE_SIZE (2ull << 20)

/*
 * Makes huge pages where mm has them, in mappings of the task (by address), as far as they can be
 * had; they are empty then. Nothing is filled but what the task has inherited (t->there), which
 * stays. t->huge tells where all of them are. 0 or -errno, reported.
 */
int mem_make_huge(struct restore *r, struct restore_task *t, const MmEntry *mm,
		  VmaEntry *const *vmas, size_t n_vmas);

#endif
