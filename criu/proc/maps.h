/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * /proc/PID/maps and /proc/PID/smaps: proc_pid_maps(5), proc_pid_smaps(5).
 */
#ifndef PROC_MAPS_H
#define PROC_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

/* VmFlags of smaps; the names are the kernel's two letters. Unknown ones are left out. */
enum vm_flag {
	VMF_LO = 1u << 0,  /* locked */
	VMF_LF = 1u << 1,  /* locked on fault */
	VMF_IO = 1u << 2,  /* memory mapped I/O */
	VMF_PF = 1u << 3,  /* pure PFN range */
	VMF_GD = 1u << 4,  /* grows down */
	VMF_NR = 1u << 5,  /* swap space is not reserved */
	VMF_HT = 1u << 6,  /* huge TLB pages */
	VMF_SR = 1u << 7,  /* sequential read advised */
	VMF_RR = 1u << 8,  /* random read advised */
	VMF_DC = 1u << 9,  /* not copied on fork */
	VMF_DD = 1u << 10, /* not in core dumps */
	VMF_WF = 1u << 11, /* wiped on fork */
	VMF_HG = 1u << 12, /* huge pages advised */
	VMF_NH = 1u << 13, /* no huge pages advised */
	VMF_MG = 1u << 14, /* mergeable */
	VMF_UM = 1u << 15, /* userfaultfd missing */
	VMF_UW = 1u << 16, /* userfaultfd write-protect */
	VMF_UI = 1u << 17, /* userfaultfd minor */
	VMF_SS = 1u << 18, /* shadow stack */
	VMF_SL = 1u << 19, /* sealed */
	VMF_DP = 1u << 20, /* droppable */
	VMF_GU = 1u << 21, /* may have guard regions */
	VMF_AC = 1u << 22, /* accounted: memory is reserved for it */
	VMF_QQ = 1u << 23, /* ??: a flag that the kernel has no letters for */
};

struct mapping {
	uint64_t start, end;
	uint64_t pgoff; /* bytes */
	uint64_t ino;
	uint32_t dev_major, dev_minor;
	uint32_t prot; /* PROT_* */
	bool shared;
	bool has_vm_flags; /* a VmFlags line was seen */
	uint32_t vm_flags;
	uint64_t rss_kib;
	uint64_t pss_kib; /* the same, each page divided by those who map it */
	uint64_t swap_kib;
	uint64_t huge_kib; /* of rss_kib: in transparent huge pages */
	uint32_t page_kib; /* size of its pages, 0 where that is not known */
	uint32_t pkey;	   /* protection key, 0 where there is none */
	const char *path;  /* as written, "" if there is none; in the arena */
};

/*
 * Locked, but only when it is touched. Kernels that have no letters for that (6.1 is one) write ??,
 * and there is no other flag without letters that locked memory can have.
 */
static inline bool is_locked_on_fault(const struct mapping *m)
{
	return m->vm_flags & VMF_LO && m->vm_flags & (VMF_LF | VMF_QQ);
}

struct maps {
	struct mapping *m; /* by address, disjoint */
	size_t n;
};

/*
 * Parses the text of maps or smaps (which is changed). Lines that are neither a mapping nor a
 * known field of one are ignored. Returns 0, or -EINVAL with *ret_line set to the number of
 * a mapping line that cannot be right (backward range, overlap, a number out of range).
 */
int maps_parse(char *text, struct arena *a, struct maps *ret_maps, size_t *ret_line);

/* Reads NAME ("maps" or "smaps") of the process directory. Returns 0 or -errno. */
int maps_read(int proc_fd, const char *name, struct arena *a, struct maps *ret_maps);

/* The mapping that holds addr, or NULL. */
const struct mapping *maps_find(const struct maps *maps, uint64_t addr);

/* The first mapping of that name ("[stack]"), or NULL. */
const struct mapping *maps_named(const struct maps *maps, const char *name);

/* An address where size bytes are free, away from its neighbours if possible; 0 if none. */
uint64_t maps_hole(const struct maps *maps, uint64_t size);

#endif
