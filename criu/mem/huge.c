/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Transparent huge pages at restore. Memory that was huge is made so before it is filled: one page
 * is touched and MADV_COLLAPSE (Linux 6.1) makes a huge page around it, whatever the machine's
 * setting, and without a mark on the mapping. What cannot be had is filled with small pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/huge.h"
#include "mem/mem.h"
#include "model/vma.h"

#define HUGE_SIZE (2ull << 20)
#define AT_ONCE	  512

static uint64_t first_huge(const RangeEntry *e)
{
	return (e->start + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1);
}

/* Goes to the next place of a huge page at or behind *pos in range *i. False: there is none. */
static bool next_place(const MmEntry *mm, size_t *i, uint64_t *pos)
{
	for (; *i < mm->n_huge; ++*i) {
		*pos = max(*pos, first_huge(mm->huge[*i]));
		if (*pos + HUGE_SIZE <= mm->huge[*i]->end)
			return true;
	}
	return false;
}

#define FOR_EACH_PLACE(mm, i, pos)                                                                 \
	for (uint64_t i = 0, pos = 0; next_place(mm, &(i), &(pos)); (pos) += HUGE_SIZE)

/* One call for each range: every call makes all CPUs empty their lists of pages first. */
static void add_collapse(const MmEntry *mm, struct program *p)
{
	for (size_t i = 0; i < mm->n_huge; i++) {
		uint64_t start = first_huge(mm->huge[i]), end = mm->huge[i]->end & ~(HUGE_SIZE - 1);

		if (start < end)
			CALL(p, "make huge pages", SYS_madvise, start, end - start, MADV_COLLAPSE)
				->flags = CALL_MAY_FAIL;
	}
}

static void add_all(const struct restore_task *t, struct program *p)
{
	const MmEntry *mm = t->image->mm;

	FOR_EACH_PLACE(mm, i, pos)
	CALL(p, "touch memory", SYS_madvise, pos, PAGE_SIZE_, MADV_POPULATE_WRITE)->flags =
		CALL_MAY_FAIL;
	add_collapse(mm, p);
}

/* A page that was touched, and is no huge one now, would be in the way of the filling. */
static void add_drop(const struct restore_task *t, struct program *p)
{
	size_t h = 0;

	FOR_EACH_PLACE(t->image->mm, i, pos)
	{
		while (h < t->n_huge && t->huge[h].end <= pos)
			h++;
		if (h == t->n_huge || pos < t->huge[h].start)
			CALL(p, "drop what was touched", SYS_madvise, pos, HUGE_SIZE,
			     MADV_DONTNEED);
	}
}

static int run(struct restore_task *t, void (*add)(const struct restore_task *t, struct program *p))
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), AT_ONCE);

	if (rc < 0)
		return rc;
	program_set_long(&p);
	add(t, &p);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

static void add_huge(struct restore *r, struct restore_task *t, uint64_t start, uint64_t end)
{
	*ARENA_PUSH(&r->arena, t->huge, t->n_huge) = (struct mem_range){ start, end };
}

/* What has become huge: Linux 6.7 tells. Returns 0 or -errno, which is -ENOTTY before. */
static int note_by_ioctl(struct restore *r, struct restore_task *t, int fd)
{
	struct abi_page_region regions[64];
	const MmEntry *mm = t->image->mm;
	struct abi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = mm->huge[0]->start,
		.end = mm->huge[mm->n_huge - 1]->end,
		.vec = (uint64_t)regions,
		.vec_len = ARRAY_SIZE(regions),
		.category_mask = ABI_PAGE_IS_HUGE,
		.return_mask = ABI_PAGE_IS_HUGE,
	};

	while (arg.start < arg.end) {
		int n = ioctl(fd, ABI_PAGEMAP_SCAN, &arg);

		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++)
			add_huge(r, t, regions[i].start, regions[i].end);
		arg.start = arg.walk_end;
	}
	return 0;
}

/* Before, it shows in the last page: only the first one was touched. */
static void note_by_read(struct restore *r, struct restore_task *t, int fd)
{
	FOR_EACH_PLACE(t->image->mm, i, pos)
	{
		uint64_t entry, last = pos + HUGE_SIZE - PAGE_SIZE_;

		if (pread_all(fd, &entry, sizeof(entry), last / PAGE_SIZE_ * sizeof(entry)) == 0 &&
		    entry & ABI_PM_PRESENT)
			add_huge(r, t, pos, pos + HUGE_SIZE);
	}
}

int mem_make_huge(struct restore *r, struct restore_task *t)
{
	uint64_t have = 0, wanted = 0;
	char path[32];

	FOR_EACH_PLACE(t->image->mm, i, pos)
	wanted += HUGE_SIZE;
	if (!wanted)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", t->pid);
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? fail(errno, "open %s", path) : run(t, add_all);
	if (rc < 0)
		return rc;
	if (note_by_ioctl(r, t, fd) < 0) {
		t->n_huge = 0;
		note_by_read(r, t, fd);
	}
	for (size_t i = 0; i < t->n_huge; i++)
		have += t->huge[i].end - t->huge[i].start;
	if (have == wanted)
		return 0;
	info("%lu of %lu KiB of huge pages could be had again", (long)(have >> 10),
	     (long)(wanted >> 10));
	return run(t, add_drop);
}
