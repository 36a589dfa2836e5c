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

/*
 * Where huge pages are for all ([always] in /sys/kernel/mm/transparent_hugepage/enabled), whoever
 * writes one page gets 512. So no more than those are made: from the first task's birth until the
 * last page is filled the kernel is forbidden to (PR_SET_THP_DISABLE).
 */
bool mem_is_huge_for_all(void);
void mem_add_forbid_huge(struct program *p, bool forbid);

#endif
