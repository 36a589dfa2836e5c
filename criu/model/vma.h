/* SPDX-License-Identifier: GPL-2.0-only */
/* vma_entry.status of mm images. */
#ifndef MODEL_VMA_H
#define MODEL_VMA_H

#include <linux/mman.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "image/messages.h"

enum vma_status {
	VMA_REGULAR = 1 << 0, /* has content to care for */
	VMA_STACK = 1 << 1,
	VMA_VSYSCALL = 1 << 2,
	VMA_VDSO = 1 << 3,
	VMA_HEAP = 1 << 5,
	VMA_FILE_PRIVATE = 1 << 6,
	VMA_FILE_SHARED = 1 << 7,
	VMA_ANON_SHARED = 1 << 8,
	VMA_ANON_PRIVATE = 1 << 9,
	VMA_SYSVIPC = 1 << 10,
	VMA_SOCKET = 1 << 11,
	VMA_VVAR = 1 << 12,
	VMA_AIO_RING = 1 << 13,
	VMA_MEMFD = 1 << 14,
};

/* vma_entry.flags that tell the size of huge pages. */
#define MAP_HUGE_FLAGS (MAP_HUGETLB | (uint32_t)MAP_HUGE_MASK << MAP_HUGE_SHIFT)

#define KEYS_MAX 16 /* protection keys of x86 (pkeys(7)); key 0 is that of all other memory */

/*
 * Mappings of a file that the kernel made for them: shared memory, and private memory of huge
 * pages, whose file holds nothing but keeps parts of one mapping together.
 */
static inline bool vma_has_segment(const VmaEntry *v)
{
	return (v->status & VMA_ANON_SHARED && !(v->status & VMA_SYSVIPC)) ||
	       (v->status & VMA_ANON_PRIVATE && v->flags & MAP_HUGETLB && v->shmid);
}

/*
 * May two tasks have pages of these mappings in common where both are? Private memory of the same
 * kind, of a file the same part of it.
 */
static inline bool vma_may_share(const VmaEntry *a, const VmaEntry *b)
{
	const uint32_t private = VMA_ANON_PRIVATE | VMA_FILE_PRIVATE;
	const uint32_t special = VMA_VDSO | VMA_VVAR | VMA_VSYSCALL;

	if (!(a->status & private) || (a->status ^ b->status) & (private | special) ||
	    a->status & special || (a->flags ^ b->flags) & ~(uint32_t)MAP_LOCKED ||
	    a->flags & MAP_HUGETLB || a->end <= b->start || b->end <= a->start)
		return false;
	return !(a->status & VMA_FILE_PRIVATE) ||
	       (a->shmid == b->shmid && a->start - a->pgoff == b->start - b->pgoff);
}

/* May it have transparent huge pages that belong to it alone? */
static inline bool vma_may_be_huge(const VmaEntry *v)
{
	return v->status & VMA_ANON_PRIVATE && !(v->flags & MAP_HUGETLB);
}

#endif
