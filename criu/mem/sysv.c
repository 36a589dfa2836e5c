/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System V shared memory at restore. shmat(2) maps a segment as a whole. What a program has
 * unmapped of it, moved or let grow is made of a whole attachment again: somewhere else, from where
 * its parts are moved to their places. Parts that came from one attachment must do so again, or
 * shmdt(2) would not find them all.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "base/own.h"
#include "mem/sysv.h"
#include "model/vma.h"

/* Mappings of one segment that lie as one attachment would have them. */
struct attachment {
	uint64_t shmid;
	uint64_t base; /* where it would start: perhaps where something else is */
	bool is_read_only;
	uint64_t page;	/* size of its pages, on which it has to lie */
	uint64_t room;	/* of the segment, in whole pages */
	uint64_t reach; /* where its last mapping ends, if that has grown; else as room */
	bool is_whole;	/* neither missing parts nor grown: it comes back by attaching it there */
};

static bool is_sysv(const VmaEntry *v)
{
	return v->status & VMA_SYSVIPC;
}

static bool is_read_only(const VmaEntry *v)
{
	return v->has_fdflags && (v->fdflags & O_ACCMODE) == O_RDONLY;
}

static bool is_of(const VmaEntry *v, const struct attachment *a)
{
	return v->start - v->pgoff == a->base && is_sysv(v) && v->shmid == a->shmid &&
	       is_read_only(v) == a->is_read_only;
}

static struct attachment attachment_of(const struct snapshot *s, const MmEntry *mm,
				       const VmaEntry *v)
{
	const struct snapshot_shm *m = snapshot_shm(s, v->shmid);
	struct attachment a = {
		.shmid = v->shmid,
		.base = v->start - v->pgoff,
		.is_read_only = is_read_only(v),
		.page = snapshot_shm_page(m),
		.room = snapshot_shm_room(m),
		.reach = snapshot_shm_room(m),
	};
	uint64_t mapped = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		if (!is_of(mm->vmas[i], &a))
			continue;
		mapped += mm->vmas[i]->end - mm->vmas[i]->start;
		a.reach = max(a.reach, mm->vmas[i]->end - a.base);
	}
	a.is_whole = mapped == a.room && a.reach == a.room;
	return a;
}

static bool is_first(const MmEntry *mm, size_t i, const struct attachment *a)
{
	for (size_t k = 0; k < i; k++)
		if (is_of(mm->vmas[k], a))
			return false;
	return true;
}

static uint64_t room_of_task(const struct snapshot *s, const MmEntry *mm)
{
	uint64_t room = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		if (!is_sysv(mm->vmas[i]))
			continue;
		struct attachment a = attachment_of(s, mm, mm->vmas[i]);

		room = max(room, a.is_whole ? 0 : a.reach + a.page);
	}
	return room;
}

uint64_t sysv_room(const struct restore *r)
{
	uint64_t room = 0;

	for (size_t i = 0; r->snapshot.ipc && i < r->snapshot.n_tasks; i++)
		if (r->snapshot.tasks[i].mm)
			room = max(room, room_of_task(&r->snapshot, r->snapshot.tasks[i].mm));
	return room;
}

static void add_attach(struct program *p, const struct attachment *a, uint64_t addr)
{
	CALL(p, "attach shared memory (shmat)", SYS_shmat, a->shmid, addr,
	     a->is_read_only ? SHM_RDONLY : 0);
}

static void add_parts(const struct restore *r, struct program *p, const MmEntry *mm,
		      const struct attachment *a)
{
	uint64_t tmp = (r->attach_tmp + a->page - 1) & ~(a->page - 1);

	add_attach(p, a, tmp);
	if (a->reach > a->room)
		CALL(p, "let attached memory grow", SYS_mremap, tmp, a->room, a->reach, 0);
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const VmaEntry *v = mm->vmas[i];

		if (is_of(v, a))
			CALL(p, "move attached memory", SYS_mremap, tmp + v->pgoff,
			     v->end - v->start, v->end - v->start, MREMAP_MAYMOVE | MREMAP_FIXED,
			     v->start);
	}
	CALL(p, "detach what is left", SYS_munmap, tmp, a->reach);
}

/*
 * Neighbours that are alike are one mapping by now, and count as one attachment (shm_nattch). They
 * were two. Advice that nobody has as yet takes one apart, and the kernel does not join them again.
 */
static bool is_joined(const MmEntry *mm, size_t i, const struct attachment *a)
{
	const VmaEntry *v = mm->vmas[i], *before = i ? mm->vmas[i - 1] : NULL;

	return before && before->end == v->start && before->prot == v->prot && is_of(before, a);
}

static void add_advice(struct program *p, const VmaEntry *v, int advice)
{
	CALL(p, "take neighbours apart", SYS_madvise, v->start, v->end - v->start, advice);
}

void sysv_add_attach(const struct restore *r, const struct restore_task *t, struct program *p)
{
	const MmEntry *mm = t->image->mm;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const VmaEntry *v = mm->vmas[i];

		if (!is_sysv(v))
			continue;
		struct attachment a = attachment_of(&r->snapshot, mm, v);
		bool joined = is_joined(mm, i, &a);
		int prot = PROT_READ | (a.is_read_only ? 0 : PROT_WRITE);

		if (is_first(mm, i, &a) && a.is_whole)
			add_attach(p, &a, a.base);
		else if (is_first(mm, i, &a))
			add_parts(r, p, mm, &a);
		if (joined)
			add_advice(p, v, MADV_DONTDUMP);
		if ((int)v->prot != prot)
			CALL(p, "protect attached memory", SYS_mprotect, v->start,
			     v->end - v->start, v->prot);
		if (joined)
			add_advice(p, v, MADV_DODUMP);
	}
}
