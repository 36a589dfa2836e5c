/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The vDSO at restore. Its code may have been in the middle of a call, so a task gets exactly
 * the one it had, at the same place. Where kernel and image agree on size, order and content, the
 * pieces of the blank task are moved there. Else the task gets the old code as plain memory, whose
 * functions are led to the vDSO of this kernel, which stays where it waited:
 *
 *   old data   zeroes: who was in the middle of a function finds no clock there that it could
 *              read (VDSO_CLOCKMODE_NONE is 0) and goes on with the system call
 *   old code   jumps at the starts of its functions, and a mark in its header, by which the next
 *              dump knows what it is
 *
 * A 32-bit task has another vDSO, which only the kernel can map. Whether it is the one that the
 * task had is seen when it is there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/vdso.h"
#include "mem/vdsoelf.h"
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

/* Reads the code of the image; pages that it lacks are zero. */
static int read_code(const struct snapshot_task *t, const VmaEntry *v, uint8_t *code)
{
	const struct pagemap *m = &t->pages;

	memset(code, 0, v->end - v->start);
	for (size_t i = 0; i < m->n; i++) {
		const struct page_run *run = &m->run[i];
		uint64_t start = max(run->vaddr, (uint64_t)v->start);
		uint64_t end = min(page_run_end(run), (uint64_t)v->end);
		int rc = start < end ? pread_all(run->fd, code + (start - v->start), end - start,
						 run->offset + (start - run->vaddr))
				     : 0;
		if (rc < 0)
			return fail(-rc, "pid %u: read its vDSO from the image", t->pstree->pid);
	}
	return 0;
}

/* Nobody may be where a jump will be written over instructions. */
static int check_places(const struct restore_task *t, const VmaEntry *v,
			const struct vdso_symbols *s)
{
	for (size_t i = 0; i < t->n_threads; i++) {
		uint64_t ip = t->threads[i].core->thread_info->gpregs->ip;

		for (size_t k = 0; k < s->n; k++) {
			uint64_t at = v->start + s->s[k].offset;

			if (ip > at && ip < at + VDSO_PATCH_SIZE)
				return refuse(
					EOPNOTSUPP,
					"pid %d: it was dumped under another kernel in the "
					"first instructions of %s in the vDSO, where it cannot "
					"go on",
					t->threads[i].tid, s->s[k].name);
		}
	}
	return 0;
}

static int check_foreign(const struct restore_task *t, const VmaEntry *v, const uint8_t *code,
			 const struct mapping *own)
{
	struct vdso_symbols theirs, ours;

	if (!own || vdso_symbols_read(code, v->end - v->start, &theirs) < 0 ||
	    vdso_symbols_read((const uint8_t *)own->start, own->end - own->start, &ours) < 0)
		return refuse(EOPNOTSUPP,
			      "pid %d: it was dumped under another kernel, and functions are not "
			      "found in the vDSO of %s",
			      t->pid, own ? "one of them" : "this one, which has none");
	return check_places(t, v, &theirs);
}

int vdso_check(const struct restore *r, struct restore_task *t)
{
	const VmaEntry *vdso = find_vma(t->image, VMA_VDSO), *vvar = find_vma(t->image, VMA_VVAR);
	const struct mapping *own = maps_named(&r->own_maps, "[vdso]");
	uint64_t vvar_size = 0;

	if (!vdso || t->is_compat)
		return 0;
	if (vdso->end - vdso->start > VDSO_ROOM)
		return refuse(EINVAL, "image mm-%d.img: its vDSO has %lu bytes", t->pid,
			      (long)(vdso->end - vdso->start));
	for (size_t i = 0; i < ARRAY_SIZE(pieces) - 1; i++) {
		const struct mapping *m = maps_named(&r->own_maps, pieces[i]);

		vvar_size += m ? m->end - m->start : 0;
	}
	autofree uint8_t *code = xmalloc(vdso->end - vdso->start);
	int rc = read_code(t->image, vdso, code);
	if (rc < 0)
		return rc;
	t->has_foreign_vdso = !own || !vvar || own->end - own->start != vdso->end - vdso->start ||
			      vvar_size != vvar->end - vvar->start ||
			      memcmp(code, (const void *)own->start, own->end - own->start) != 0;
	if (!t->has_foreign_vdso)
		return 0;
	info("pid %d: its vDSO is that of another kernel", t->pid);
	return check_foreign(t, vdso, code, own);
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

static void add_foreign(const struct restore_task *t, struct program *p)
{
	for (size_t i = 0; i < t->image->mm->n_vmas; i++) {
		const VmaEntry *v = t->image->mm->vmas[i];

		if (v->status & (VMA_VDSO | VMA_VVAR))
			CALL(p, "map memory for the vDSO of another kernel", SYS_mmap, v->start,
			     v->end - v->start,
			     v->status & VMA_VDSO ? PROT_READ | PROT_WRITE : PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	}
}

/* A task may have one vDSO only: first the one that it was born with goes. */
static void add_compat(struct restore *r, const struct restore_task *t, struct program *p)
{
	const VmaEntry *data = find_vma(t->image, VMA_VVAR), *code = find_vma(t->image, VMA_VDSO);

	CALL(p, "unmap the vDSO of 64-bit tasks", SYS_munmap, r->vdso_tmp, VDSO_ROOM);
	if (code)
		CALL(p, "map the vDSO of 32-bit tasks", SYS_arch_prctl, ABI_ARCH_MAP_VDSO_32,
		     data && data->start < code->start ? data->start : code->start);
}

int vdso_add_place(struct restore *r, struct restore_task *t, struct program *p)
{
	uint64_t start, end;

	if (t->is_compat) {
		add_compat(r, t, p);
		return 0;
	}
	if (t->has_foreign_vdso) {
		add_foreign(t, p);
		return 0;
	}
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

/* Where the vDSO of this kernel is in the task, once that is restored. */
static uint64_t final_place(const struct restore *r, const struct restore_task *t,
			    const struct mapping *own)
{
	const VmaEntry *v = find_vma(t->image, VMA_VDSO);
	uint64_t start, end;

	if (!t->has_foreign_vdso)
		return v ? v->start : 0;
	own_span(r, &start, &end);
	return r->vdso_tmp + (own->start - start);
}

static int check_compat(struct restore_task *t, const VmaEntry *v)
{
	size_t size = v->end - v->start;
	autofree uint8_t *code = xmalloc(size), *here = xmalloc(size);
	struct iovec local = { here, size }, remote = { (void *)v->start, size };

	int rc = read_code(t->image, v, code);
	if (rc < 0)
		return rc;
	ssize_t at = find_syscall(code, size, true);
	if (process_vm_readv(t->pid, &local, 1, &remote, 1, 0) != (ssize_t)size || at < 0 ||
	    memcmp(code, here, size) != 0)
		return refuse(
			EOPNOTSUPP,
			"pid %d: it is a 32-bit program that was dumped under another kernel; "
			"its vDSO is not that of this one, and cannot be led there",
			t->pid);
	t->compat_call_insn = v->start + at;
	return 0;
}

int vdso_fill(struct restore *r, struct restore_task *t)
{
	const VmaEntry *v = find_vma(t->image, VMA_VDSO), *data = find_vma(t->image, VMA_VVAR);
	const struct mapping *own = maps_named(&r->own_maps, "[vdso]");
	struct vdso_symbols theirs, ours;

	if (t->is_compat)
		return v ? check_compat(t, v) : 0;
	if (!t->has_foreign_vdso)
		return 0;
	size_t size = v->end - v->start;
	autofree uint8_t *code = xmalloc(size);
	int rc = read_code(t->image, v, code);
	if (rc < 0)
		return rc;
	/* Both were read when that was checked. */
	(void)vdso_symbols_read(code, size, &theirs);
	(void)vdso_symbols_read((const uint8_t *)own->start, own->end - own->start, &ours);
	(void)vdso_redirect(code, &theirs, &ours, final_place(r, t, own));
	vdso_mark_put(code, (struct vdso_mark){
				    .data_pages = data ? (data->end - data->start) / PAGE_SIZE_ : 0,
				    .is_data_before = data && data->end == v->start });
	struct iovec local = { code, size }, remote = { (void *)v->start, size };
	if (process_vm_writev(t->pid, &local, 1, &remote, 1, 0) != (ssize_t)size)
		return fail(errno, "pid %d: write the vDSO of another kernel", t->pid);
	return 0;
}

void vdso_add_finish(const struct restore_task *t, struct program *p)
{
	const VmaEntry *v = find_vma(t->image, VMA_VDSO);

	if (t->has_foreign_vdso)
		CALL(p, "protect the vDSO of another kernel", SYS_mprotect, v->start,
		     v->end - v->start, PROT_READ | PROT_EXEC);
}

uint64_t vdso_call_insn(const struct restore *r, const struct restore_task *t)
{
	const struct mapping *own = maps_named(&r->own_maps, "[vdso]");
	uint64_t place = own ? final_place(r, t, own) : 0;

	if (t->is_compat)
		return t->compat_call_insn;
	if (!place)
		return 0;
	ssize_t at = find_syscall((const uint8_t *)own->start, own->end - own->start, false);
	return at < 0 ? 0 : place + at;
}
