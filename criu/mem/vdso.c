/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The vDSO at restore. Its code may have been in the middle of a call, so a task gets exactly
 * the one it had, at the same place: the pieces of the blank task are moved there if kernel and
 * image agree on size, order and content.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "mem/vdso.h"
#include "model/vma.h"

static const char *const pieces[] = { "[vvar]", "[vvar_vclock]", "[vdso]" };

/* The span of all pieces in criu itself. */
static void own_span(const struct restore *r, uint64_t *ret_start, uint64_t *ret_end)
{
	*ret_start = ~0ull;
	*ret_end = 0;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		const struct mapping *m = maps_named(&r->own_maps, pieces[i]);

		if (m) {
			*ret_start = min(*ret_start, m->start);
			*ret_end = max(*ret_end, m->end);
		}
	}
}

static const VmaEntry *find_vma(const struct snapshot_task *t, uint32_t status)
{
	for (size_t i = 0; i < t->mm->n_vmas; i++)
		if (t->mm->vmas[i]->status & status)
			return t->mm->vmas[i];
	return NULL;
}

/* Where a piece of criu's own belongs in the task, or 0. */
static uint64_t place_of(const struct restore *r, const struct snapshot_task *t,
			 const struct mapping *m)
{
	const VmaEntry *vdso = find_vma(t, VMA_VDSO), *vvar = find_vma(t, VMA_VVAR);
	const struct mapping *own_vvar = maps_named(&r->own_maps, "[vvar]");

	if (!strcmp(m->path, "[vdso]"))
		return vdso ? vdso->start : 0;
	return vvar && own_vvar ? vvar->start + (m->start - own_vvar->start) : 0;
}

/* Compares the pages of the image with our own code; pages that it lacks are zero. */
static bool is_same_code(const struct snapshot_task *t, const VmaEntry *v,
			 const struct mapping *own)
{
	static const uint8_t zero[PAGE_SIZE_];
	uint8_t page[PAGE_SIZE_];
	size_t i = 0;

	for (uint64_t pos = v->start; pos < v->end; pos += PAGE_SIZE_) {
		const struct pagemap *m = &t->pages;
		const uint8_t *theirs = zero;

		while (i < m->n && m->run[i].vaddr + m->run[i].pages * PAGE_SIZE_ <= pos)
			i++;
		if (i < m->n && m->run[i].vaddr <= pos) {
			if (pread_all(m->run[i].fd, page, sizeof(page),
				      m->run[i].offset + (pos - m->run[i].vaddr)) < 0)
				return false;
			theirs = page;
		}
		if (memcmp(theirs, (const uint8_t *)own->start + (pos - v->start), PAGE_SIZE_))
			return false;
	}
	return true;
}

int vdso_check(const struct restore *r, const struct snapshot_task *t)
{
	const VmaEntry *vdso = find_vma(t, VMA_VDSO), *vvar = find_vma(t, VMA_VVAR);
	const struct mapping *own = maps_named(&r->own_maps, "[vdso]");
	uint64_t vvar_size = 0;

	if (!vdso)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(pieces) - 1; i++) {
		const struct mapping *m = maps_named(&r->own_maps, pieces[i]);

		vvar_size += m ? m->end - m->start : 0;
	}
	if (!own || !vvar || own->end - own->start != vdso->end - vdso->start ||
	    vvar_size != vvar->end - vvar->start || !is_same_code(t, vdso, own))
		return refuse(
			EOPNOTSUPP,
			"pid %u: it was dumped under another kernel, whose vDSO differs; this "
			"version restores only under the same kernel",
			t->pstree->pid);
	return 0;
}

void vdso_add_park(struct restore *r, struct program *p)
{
	uint64_t start, end;

	own_span(r, &start, &end);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		const struct mapping *m = maps_named(&r->own_maps, pieces[i]);

		if (m)
			CALL(p, "move the vDSO out of the way", SYS_mremap, m->start,
			     m->end - m->start, m->end - m->start, MREMAP_MAYMOVE | MREMAP_FIXED,
			     r->vdso_tmp + (m->start - start));
	}
}

int vdso_add_place(struct restore *r, struct restore_task *t, struct program *p)
{
	uint64_t start, end;

	own_span(r, &start, &end);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		const struct mapping *m = maps_named(&r->own_maps, pieces[i]);

		if (!m)
			continue;
		uint64_t from = r->vdso_tmp + (m->start - start), to = place_of(r, t->image, m);
		if (to)
			CALL(p, "move the vDSO into place", SYS_mremap, from, m->end - m->start,
			     m->end - m->start, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		else
			CALL(p, "unmap the vDSO", SYS_munmap, from, m->end - m->start);
	}
	return 0;
}

uint64_t vdso_call_insn(const struct restore *r, const struct restore_task *t)
{
	const struct mapping *own = maps_named(&r->own_maps, "[vdso]");
	const VmaEntry *v = find_vma(t->image, VMA_VDSO);

	if (!own || !v)
		return 0;
	ssize_t at = find_syscall((const uint8_t *)own->start, own->end - own->start);
	return at < 0 ? 0 : v->start + at;
}
