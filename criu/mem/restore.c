/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address spaces at restore. A blank task is a copy of criu: it is stripped to the shared region
 * and the vDSO, then gets its own mappings. Everything but the pages is done by programs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "kernel/abi.h"
#include "mem/cow.h"
#include "mem/huge.h"
#include "mem/keys.h"
#include "mem/mem.h"
#include "mem/runs.h"
#include "mem/shared.h"
#include "mem/sysv.h"
#include "mem/vdso.h"
#include "model/vma.h"

#define TASK_END  0x7ffffffff000ull
#define MAP_FLAGS (MAP_TYPE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_NORESERVE | MAP_HUGE_FLAGS)

/* All mappings that the region may not touch, as one list by address. */
static int by_start(const void *a, const void *b)
{
	const struct mapping *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static void merge(struct maps *maps)
{
	size_t n = 0;

	qsort(maps->m, maps->n, sizeof(*maps->m), by_start);
	for (size_t i = 0; i < maps->n; i++) {
		if (n && maps->m[i].start <= maps->m[n - 1].end)
			maps->m[n - 1].end = max(maps->m[n - 1].end, maps->m[i].end);
		else
			maps->m[n++] = maps->m[i];
	}
	maps->n = n;
}

/* What is in the region has to be at hand for calls of 32-bit tasks. */
static int check_reach(const struct restore *r)
{
	for (size_t i = 0; i < r->n_tasks; i++)
		if (r->tasks[i].is_compat)
			return refuse(ENOMEM,
				      "pid %d: it is a 32-bit program, and there is no hole below "
				      "4 GiB that is free in all address spaces",
				      r->tasks[i].pid);
	return 0;
}

int mem_choose(struct restore *r, uint64_t *ret_region, size_t region_size)
{
	struct maps all = { 0 };
	size_t n = r->own_maps.n;

	for (size_t i = 0; i < r->snapshot.n_tasks; i++)
		n += r->snapshot.tasks[i].mm ? r->snapshot.tasks[i].mm->n_vmas : 0;
	all.m = arena_array(&r->arena, struct mapping, n);
	memcpy(all.m, r->own_maps.m, r->own_maps.n * sizeof(*all.m));
	all.n = r->own_maps.n;
	for (size_t i = 0; i < r->snapshot.n_tasks; i++) {
		const MmEntry *mm = r->snapshot.tasks[i].mm;

		for (size_t j = 0; mm && j < mm->n_vmas; j++)
			all.m[all.n++] = (struct mapping){ .start = mm->vmas[j]->start,
							   .end = mm->vmas[j]->end };
	}
	merge(&all);
	*ret_region = maps_hole(&all, region_size + VDSO_ROOM + sysv_room(r));
	if (!*ret_region)
		return refuse(ENOMEM,
			      "there is no hole of %zu KiB that is free in all address spaces",
			      region_size >> 10);
	r->vdso_tmp = *ret_region + region_size;
	r->attach_tmp = r->vdso_tmp + VDSO_ROOM;
	return *ret_region + region_size > COMPAT_END ? check_reach(r) : 0;
}

static void add_unmap(struct program *p, uint64_t start, uint64_t end)
{
	if (start < end)
		CALL(p, "unmap what criu had", SYS_munmap, start, end - start);
}

void mem_add_strip(struct restore *r, struct program *p)
{
	uint64_t pos = 0;
	/* What stays, by address: the region, and the vDSO in its waiting place behind it. */
	uint64_t start = r->region.raddr, end = r->vdso_tmp + VDSO_ROOM;

	/* All tasks inherit that from the first one. */
	if (r->is_huge_for_all)
		mem_add_forbid_huge(p, true);
	vdso_add_park(r, p);
	add_unmap(p, pos, start);
	add_unmap(p, end, TASK_END);
}

static void add_mm_fields(struct restore *r, struct restore_task *t, struct program *p)
{
	const MmEntry *mm = t->image->mm;
	struct prctl_mm_map map = {
		.start_code = mm->mm_start_code,
		.end_code = mm->mm_end_code,
		.start_data = mm->mm_start_data,
		.end_data = mm->mm_end_data,
		.start_brk = mm->mm_start_brk,
		.brk = mm->mm_brk,
		.start_stack = mm->mm_start_stack,
		.arg_start = mm->mm_arg_start,
		.arg_end = mm->mm_arg_end,
		.env_start = mm->mm_env_start,
		.env_end = mm->mm_env_end,
		.auxv_size = mm->n_mm_saved_auxv * sizeof(uint64_t),
		.exe_fd = files_fd(r, mm->exe_file_id),
	};
	void *auxv = program_data(p, mm->mm_saved_auxv, map.auxv_size);

	if (!auxv)
		return;
	map.auxv = (void *)program_raddr(p, auxv);
	void *room = program_data(p, &map, sizeof(map));
	if (room)
		CALL(p, "set the fields of the mm and the executable (PR_SET_MM_MAP)", SYS_prctl,
		     PR_SET_MM, PR_SET_MM_MAP, program_raddr(p, room), sizeof(map), 0);
}

static bool is_mapped_here(const VmaEntry *v)
{
	return !(v->status & (VMA_VDSO | VMA_VVAR | VMA_VSYSCALL | VMA_AIO_RING));
}

/* By shmat(2), in place of a mapping. */
static bool is_attached(const VmaEntry *v)
{
	return v->status & VMA_SYSVIPC;
}

/* The kernel reserves memory for what can be written to, and keeps that up when it cannot later. */
static bool is_writable_first(const VmaEntry *v, bool is_filled)
{
	return is_filled || (v->has_is_reserved && v->is_reserved);
}

void mem_add_map(struct restore *r, struct program *p, const VmaEntry *v, int prot)
{
	int flags = (v->flags & MAP_FLAGS) | MAP_FIXED_NOREPLACE;
	bool is_file = v->status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED);
	bool has_segment = vma_has_segment(v);
	int fd = is_file ? files_fd(r, v->shmid) : has_segment ? shared_fd(r, v->shmid) : -1;

	if (has_segment)
		flags &= ~(MAP_ANONYMOUS | MAP_HUGE_FLAGS);
	CALL(p, is_file ? "map a file" : "map memory", SYS_mmap, v->start, v->end - v->start, prot,
	     flags, (uint64_t)fd, fd < 0 ? 0 : v->pgoff);
}

/* PR_SET_MEMORY_MERGE: it changes mappings that are there already, so it comes before them. */
static bool merges_all(const struct restore_task *t)
{
	return t->image->cores[0]->tc->memory_merge;
}

int mem_add_layout(struct restore *r, struct restore_task *t, struct program *p)
{
	/* While nothing maps an executable: the kernel refuses to change it later. */
	add_mm_fields(r, t, p);
	cow_add_layout(t, p);
	cow_forget_lost(r, t);
	if (merges_all(t))
		CALL(p, "merge equal pages (PR_SET_MEMORY_MERGE)", SYS_prctl, PR_SET_MEMORY_MERGE,
		     1, 0, 0, 0);
	int rc = vdso_add_place(r, t, p);
	for (size_t i = 0; rc == 0 && i < t->image->mm->n_vmas; i++) {
		const VmaEntry *v = t->image->mm->vmas[i];

		if (!is_mapped_here(v) || is_attached(v))
			continue;
		bool is_filled = runs_touch(&t->image->pages, v->start, v->end);
		int prot = v->prot | (is_writable_first(v, is_filled) ? PROT_WRITE : 0);
		if (!cow_is_there(t, v))
			mem_add_map(r, p, v, prot);
	}
	if (rc == 0)
		sysv_add_attach(r, t, p);
	return rc;
}

/* What was never written to would lose its reservation when it is protected (anon_vma). */
static void add_touch(struct program *p, const VmaEntry *v)
{
	if (!(v->status & VMA_ANON_PRIVATE) || v->flags & MAP_HUGETLB)
		return;
	CALL(p, "touch memory", SYS_madvise, v->start, PAGE_SIZE_, MADV_POPULATE_WRITE)->flags =
		CALL_MAY_FAIL;
	CALL(p, "drop what was touched", SYS_madvise, v->start, PAGE_SIZE_, MADV_DONTNEED)->flags =
		CALL_MAY_FAIL;
}

static void add_advice(struct program *p, bool merges, const VmaEntry *v)
{
	/* With PR_SET_MEMORY_MERGE all mappings are merged, but for those taken out. */
	if (merges && !(v->madv >> MADV_MERGEABLE & 1))
		CALL(p, "advise about memory", SYS_madvise, v->start, v->end - v->start,
		     MADV_UNMERGEABLE);
	for (unsigned advice = 0; advice < 64; advice++)
		if (v->madv >> advice & 1)
			CALL(p, "advise about memory", SYS_madvise, v->start, v->end - v->start,
			     advice);
}

/* For people only: a kernel without names does without. */
static void add_name(struct program *p, const VmaEntry *v)
{
	void *name = program_data(p, v->name, strlen(v->name) + 1);

	if (name)
		CALL(p, "name memory", SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, v->start,
		     v->end - v->start, program_raddr(p, name))
			->flags = CALL_MAY_FAIL;
}

/* After pages are in place, which they would hide, and before locks, which forbid them. */
static void add_guards(struct program *p, const MmEntry *mm)
{
	for (size_t i = 0; i < mm->n_guards; i++)
		CALL(p, "put up a guard (MADV_GUARD_INSTALL)", SYS_madvise, mm->guards[i]->start,
		     mm->guards[i]->end - mm->guards[i]->start, MADV_GUARD_INSTALL);
}

/*
 * A lock stands even if some of its memory cannot be touched, as behind the end of a file, but the
 * call fails then. So it is made first in the way that touches nothing.
 */
static void add_locks(struct program *p, const MmEntry *mm)
{
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const VmaEntry *v = mm->vmas[i];
		uint64_t size = v->end - v->start;

		if (!is_mapped_here(v) || !(v->flags & MAP_LOCKED))
			continue;
		CALL(p, "lock memory", SYS_mlock2, v->start, size, MLOCK_ONFAULT);
		if (!v->has_lock_onfault || !v->lock_onfault)
			CALL(p, "lock memory", SYS_mlock, v->start, size)->flags = CALL_MAY_FAIL;
	}
	if (mm->has_lock_future && mm->lock_future)
		CALL(p, "lock memory to come", SYS_mlockall, mm->lock_future);
}

void mem_add_finish(struct restore *r, struct restore_task *t, struct program *p)
{
	if (r->is_huge_for_all)
		mem_add_forbid_huge(p, false);
	keys_add_alloc(t->image->mm, p);
	for (size_t i = 0; i < t->image->mm->n_vmas; i++) {
		const VmaEntry *v = t->image->mm->vmas[i];

		if (!is_mapped_here(v))
			continue;
		bool is_filled = runs_touch(&t->image->pages, v->start, v->end);
		bool is_there = cow_is_there(t, v);
		if (!is_filled && !is_there && is_writable_first(v, is_filled))
			add_touch(p, v);
		if (v->has_pkey)
			CALL(p, "protect memory by a key", SYS_pkey_mprotect, v->start,
			     v->end - v->start, v->prot, v->pkey);
		else if (is_there ? v->prot != (PROT_READ | PROT_WRITE)
				  : !(v->prot & PROT_WRITE) && is_writable_first(v, is_filled))
			CALL(p, "protect memory", SYS_mprotect, v->start, v->end - v->start,
			     v->prot);
		if (v->has_madv)
			add_advice(p, merges_all(t), v);
		if (v->name)
			add_name(p, v);
	}
	keys_add_free(t->image->mm, p);
	add_guards(p, t->image->mm);
	add_locks(p, t->image->mm);
}
