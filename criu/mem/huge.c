/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Transparent huge pages at restore. Memory that was huge is made so before it is filled: one page
 * is touched and MADV_COLLAPSE (Linux 6.1) makes a huge page around it, whatever the machine's
 * setting, and without a mark on the mapping. What cannot be had is filled with small pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/huge.h"
#include "mem/mem.h"
#include "mem/places.h"

#define AT_ONCE 512

/* One call for each range: every call makes all CPUs empty their lists of pages first. */
static void add_all(const struct places *wanted, struct program *p)
{
	for (size_t i = 0; i < wanted->n; i++) {
		const struct mem_range *w = &wanted->range[i];

		for (uint64_t pos = w->start; pos < w->end; pos += HUGE_SIZE)
			CALL(p, "touch memory", SYS_madvise, pos, PAGE_SIZE_, MADV_POPULATE_WRITE)
				->flags = CALL_MAY_FAIL;
		CALL(p, "make huge pages", SYS_madvise, w->start, w->end - w->start, MADV_COLLAPSE)
			->flags = CALL_MAY_FAIL;
	}
}

static int run(struct restore *r, struct restore_task *t, const struct places *places,
	       void (*add)(const struct places *places, struct program *p))
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), AT_ONCE);

	if (rc < 0)
		return rc;
	program_set_long(&p);
	if (r->is_huge_for_all)
		mem_add_forbid_huge(&p, false);
	add(places, &p);
	if (r->is_huge_for_all)
		mem_add_forbid_huge(&p, true);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

/* What has become huge: Linux 6.7 tells. Returns 0 or -errno, which is -ENOTTY before. */
static int ask_for_huge(struct arena *a, int fd, const struct mem_range *in, struct places *ret)
{
	struct abi_page_region regions[64];
	struct abi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = in->start,
		.end = in->end,
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
			for (uint64_t pos = regions[i].start; pos < regions[i].end;
			     pos += HUGE_SIZE)
				places_add(a, ret, pos);
		arg.start = arg.walk_end;
	}
	return 0;
}

/* Before, it shows in the last page: only the first one was touched. */
static void find_huge(struct arena *a, int fd, const struct mem_range *in, struct places *ret)
{
	if (ask_for_huge(a, fd, in, ret) == 0)
		return;
	for (uint64_t pos = in->start; pos < in->end; pos += HUGE_SIZE) {
		uint64_t entry, last = pos + HUGE_SIZE - PAGE_SIZE_;

		if (pread_all(fd, &entry, sizeof(entry), last / PAGE_SIZE_ * sizeof(entry)) == 0 &&
		    entry & ABI_PM_PRESENT)
			places_add(a, ret, pos);
	}
}

/* A page that was touched, and is no huge one now, would be in the way of the filling. */
static void add_drop(const struct places *small, struct program *p)
{
	for (size_t i = 0; i < small->n; i++)
		CALL(p, "drop what was touched", SYS_madvise, small->range[i].start,
		     small->range[i].end - small->range[i].start, MADV_DONTNEED);
}

static int by_start(const void *a, const void *b)
{
	const struct mem_range *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

void mem_add_forbid_huge(struct program *p, bool forbid)
{
	CALL(p, "forbid huge pages, or allow them", SYS_prctl, PR_SET_THP_DISABLE, forbid, 0, 0, 0);
}

bool mem_is_huge_for_all(void)
{
	char text[64];

	return read_small_at(AT_FDCWD, "/sys/kernel/mm/transparent_hugepage/enabled", text,
			     sizeof(text)) > 0 &&
	       strstr(text, "[always]");
}

int mem_make_huge(struct restore *r, struct restore_task *t, const MmEntry *mm,
		  VmaEntry *const *vmas, size_t n_vmas)
{
	const struct places wanted = places_find(&r->arena, mm, vmas, n_vmas, &t->there);
	struct places have = { 0 };
	char path[32];

	if (!wanted.n)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", t->pid);
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? fail(errno, "open %s", path) : run(r, t, &wanted, add_all);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < wanted.n; i++)
		find_huge(&r->arena, fd, &wanted.range[i], &have);
	for (size_t i = 0; i < have.n; i++)
		*ARENA_PUSH(&r->arena, t->huge, t->n_huge) = have.range[i];
	if (t->n_huge)
		qsort(t->huge, t->n_huge, sizeof(*t->huge), by_start);
	struct places small = places_subtract(&r->arena, &wanted, &have);
	if (!small.n)
		return 0;
	info("%lu of %lu KiB of huge pages could be had again", (long)places_kib(&have),
	     (long)places_kib(&wanted));
	return run(r, t, &small, add_drop);
}
