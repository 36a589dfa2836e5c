/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loading a checkpoint: parse everything, then check everything that another part of the
 * restore relies on. Nothing behind this file looks at an image with distrust.
 */
#include <asm/ldt.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/own.h"
#include "model/load.h"
#include "model/snapshot.h"
#include "model/vma.h"

#define PID_LIMIT   4194304 /* PID_MAX_LIMIT of 64-bit kernels */
#define TASKS_MAX   100000
#define NAME_MAX_   80	       /* of a mapping: ANON_VMA_NAME_MAX_LEN of the kernel */
#define PTY_INDEXES (1u << 20) /* NR_UNIX98_PTY_MAX */

static int load_inventory(struct snapshot *s, int dirfd)
{
	int rc = image_read_one(dirfd, IMG_INVENTORY, 0, &s->arena, &s->inventory);

	if (rc < 0)
		return rc;
	if (rc == 0)
		return refuse(ENOENT,
			      "image inventory.img is missing: the directory given by --images-dir "
			      "holds no finished dump");
	if (!s->inventory->img_version)
		return refuse(EINVAL,
			      "image inventory.img: these are the images of a pre-dump, which hold "
			      "only memory; restore those of the dump that was made after it");
	if (s->inventory->img_version != 1 && s->inventory->img_version != 2)
		return refuse(EINVAL,
			      "image inventory.img: version %u of the format is not supported",
			      s->inventory->img_version);
	if (!s->inventory->has_fdinfo_per_id || !s->inventory->fdinfo_per_id)
		return refuse(EINVAL,
			      "image inventory.img: the images are of a version that is too old");
	return 0;
}

/*
 * Reads all entries of an image into an array of pointers to them. Returns 1, 0 if there is no such
 * file, or an error that is reported.
 */
static int load_list(struct snapshot *s, int dirfd, enum image_type type, unsigned long id,
		     void *ret_list, size_t *ret_n)
{
	void **list = NULL, *e;
	size_t n = 0;
	struct image_in in;
	int rc = image_open(&in, dirfd, type, id);

	if (rc <= 0)
		return rc;
	while ((rc = image_next(&in, &s->arena, NULL, &e)) > 0)
		*ARENA_PUSH(&s->arena, list, n) = e;
	image_close(&in);
	*(void ***)ret_list = list;
	*ret_n = n;
	return rc < 0 ? rc : 1;
}

static int by_id(const void *a, const void *b)
{
	uint32_t x = (*(FileEntry *const *)a)->id, y = (*(FileEntry *const *)b)->id;

	return (x > y) - (x < y);
}

static int load_files(struct snapshot *s, int dirfd)
{
	int rc = load_list(s, dirfd, IMG_FILES, 0, &s->files, &s->n_files);

	if (rc == 0)
		return refuse(ENOENT, "image files.img is missing");
	if (rc < 0)
		return rc;
	if (s->n_files)
		qsort(s->files, s->n_files, sizeof(*s->files), by_id);
	for (size_t i = 1; i < s->n_files; i++)
		if (s->files[i]->id == s->files[i - 1]->id)
			return refuse(EINVAL, "image files.img: two files have the id %#x",
				      s->files[i]->id);
	return 0;
}

int snapshot_file(const struct snapshot *s, uint32_t id)
{
	size_t lo = 0, hi = s->n_files;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->files[mid]->id == id)
			return mid;
		if (s->files[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return -1;
}

static int find_task(const struct snapshot *s, uint32_t pid)
{
	for (size_t i = 0; i < s->n_tasks; i++)
		if (s->tasks[i].pstree->pid == pid)
			return i;
	return -1;
}

static int check_pstree(struct snapshot *s, struct snapshot_task *t, PstreeEntry *e)
{
	/* What criu 3.17 writes for a zombie's only thread is any number. */
	if (e->n_threads <= 1) {
		e->threads = arena_memdup(&s->arena, &e->pid, sizeof(e->pid));
		e->n_threads = 1;
	}
	if (!e->pid || e->pid > PID_LIMIT || e->threads[0] != e->pid)
		return refuse(EINVAL, "image pstree.img: pid %u: its entry makes no sense", e->pid);
	for (size_t i = 0; i < e->n_threads; i++)
		if (!e->threads[i] || e->threads[i] > PID_LIMIT)
			return refuse(EINVAL, "image pstree.img: pid %u: a thread has the id %u",
				      e->pid, e->threads[i]);
	t->parent = e->ppid ? find_task(s, e->ppid) : -1;
	if (s->n_tasks && t->parent < 0)
		return refuse(EINVAL, "image pstree.img: pid %u: its parent %u is not in the tree",
			      e->pid, e->ppid);
	return 0;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int check_unique_ids(struct snapshot *s)
{
	size_t n = 0, k = 0;

	for (size_t i = 0; i < s->n_tasks; i++)
		n += s->tasks[i].pstree->n_threads;
	uint32_t *ids = arena_array(&s->arena, uint32_t, n);
	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t j = 0; j < s->tasks[i].pstree->n_threads; j++)
			ids[k++] = s->tasks[i].pstree->threads[j];
	qsort(ids, n, sizeof(*ids), by_number);
	for (size_t i = 1; i < n; i++)
		if (ids[i] == ids[i - 1])
			return refuse(EINVAL, "image pstree.img: the id %u is used twice", ids[i]);
	return 0;
}

static int load_pstree(struct snapshot *s, int dirfd)
{
	struct image_in in;
	PstreeEntry *e;
	int rc = image_open(&in, dirfd, IMG_PSTREE, 0);

	if (rc == 0)
		return refuse(ENOENT, "image pstree.img is missing");
	while (rc > 0 && (rc = image_next(&in, &s->arena, NULL, &e)) > 0) {
		struct snapshot_task t = { .pstree = e };

		rc = s->n_tasks < TASKS_MAX ? check_pstree(s, &t, e)
					    : refuse(EINVAL, "image pstree.img: too many tasks");
		if (rc < 0)
			break;
		*ARENA_PUSH(&s->arena, s->tasks, s->n_tasks) = t;
		rc = 1;
	}
	image_close(&in);
	if (rc < 0)
		return rc;
	if (!s->n_tasks)
		return refuse(EINVAL, "image pstree.img: there is no task in it");
	return check_unique_ids(s);
}

static int check_thread_core(const CoreEntry *c, uint32_t tid)
{
	const ThreadCoreEntry *t = c->thread_core;

	if (!t)
		return refuse(EINVAL, "image core-%u.img: what belongs to the thread is missing",
			      tid);
	if (t->creds &&
	    (t->creds->n_cap_inh > 2 || t->creds->n_cap_prm > 2 || t->creds->n_cap_eff > 2 ||
	     t->creds->n_cap_bnd > 2 || t->creds->n_cap_amb > 2 || t->creds->n_groups > 65536))
		return refuse(EINVAL, "image core-%u.img: its credentials make no sense", tid);
	if (t->n_cpu_affinity > 128 || t->n_numa_nodes > 16 ||
	    (t->has_dispatch_selector && !(t->has_dispatch_offset && t->has_dispatch_len)))
		return refuse(EINVAL, "image core-%u.img: its CPUs, nodes or modes make no sense",
			      tid);
	if (t->comm && strlen(t->comm) > 15)
		return refuse(EINVAL, "image core-%u.img: its name is too long", tid);
	return 0;
}

static int check_task_core(const CoreEntry *c, uint32_t pid)
{
	const TaskCoreEntry *t = c->tc;

	if (!t)
		return refuse(EINVAL, "image core-%u.img: what belongs to the process is missing",
			      pid);
	if (strlen(t->comm) > 64)
		return refuse(EINVAL, "image core-%u.img: its name is too long", pid);
	if (t->task_state < 1 || t->task_state > 3)
		return refuse(EINVAL, "image core-%u.img: unknown task state %u", pid,
			      t->task_state);
	if (t->n_sigactions > 64 || (t->rlimits && t->rlimits->n_rlimits > 16) ||
	    (t->has_stop_signo && t->stop_signo > 64))
		return refuse(EINVAL, "image core-%u.img: signal actions or limits make no sense",
			      pid);
	if (t->has_ldt &&
	    (t->ldt.len % LDT_ENTRY_SIZE || t->ldt.len > LDT_ENTRIES * LDT_ENTRY_SIZE))
		return refuse(EINVAL,
			      "image core-%u.img: a local descriptor table of %zu bytes cannot be",
			      pid, t->ldt.len);
	return 0;
}

static bool has_thread(const struct snapshot_task *t, int32_t tid)
{
	for (size_t i = 0; i < t->pstree->n_threads; i++)
		if ((int32_t)t->pstree->threads[i] == tid)
			return true;
	return false;
}

#define TIMER_SECONDS_MAX (INT64_MAX / 1000000000 - 1)
#define TIMER_THREAD_ID	  4

static bool is_good_timer(const struct snapshot_task *t, const PosixTimerEntry *e)
{
	bool is_for_thread = e->it_sigev_notify == TIMER_THREAD_ID;

	return e->it_id <= INT_MAX && e->overrun <= INT_MAX &&
	       (e->it_sigev_notify <= 2 || is_for_thread) &&
	       (e->it_sigev_notify == 1 || (e->si_signo >= 1 && e->si_signo <= 64)) &&
	       e->isec <= TIMER_SECONDS_MAX && e->vsec <= TIMER_SECONDS_MAX &&
	       e->insec < 1000000000 && e->vnsec < 1000000000 &&
	       (!is_for_thread || has_thread(t, e->notify_thread_id)) &&
	       (!e->has_clock_thread_id || has_thread(t, e->clock_thread_id));
}

static int check_timers(struct snapshot *s, const struct snapshot_task *t)
{
	const TaskTimersEntry *timers = t->cores[0]->tc->timers;
	size_t n = timers ? timers->n_posix : 0;
	uint32_t *ids = arena_array(&s->arena, uint32_t, n);

	for (size_t i = 0; i < n; i++) {
		ids[i] = timers->posix[i]->it_id;
		if (!is_good_timer(t, timers->posix[i]))
			return refuse(EINVAL, "image core-%u.img: POSIX timer %u makes no sense",
				      t->pstree->pid, ids[i]);
	}
	if (n)
		qsort(ids, n, sizeof(*ids), by_number);
	for (size_t i = 1; i < n; i++)
		if (ids[i] == ids[i - 1])
			return refuse(EINVAL, "image core-%u.img: there are two POSIX timers %u",
				      t->pstree->pid, ids[i]);
	return 0;
}

static int load_cores(struct snapshot *s, struct snapshot_task *t, int dirfd)
{
	size_t n = t->pstree->n_threads;
	int rc;

	t->cores = arena_array(&s->arena, CoreEntry *, n);
	for (size_t i = 0; i < n; i++) {
		uint32_t tid = t->pstree->threads[i];

		rc = image_need_one(dirfd, IMG_CORE, tid, &s->arena, &t->cores[i]);
		if (rc >= 0 && i == 0)
			rc = check_task_core(t->cores[0], tid);
		if (rc < 0)
			return rc;
		t->is_zombie = t->cores[0]->tc->task_state == 2;
		if (i && (t->cores[i]->tc || t->cores[i]->ids || t->is_zombie))
			return refuse(EINVAL,
				      "image core-%u.img: it is not that of a second thread", tid);
		rc = t->is_zombie ? 0 : check_thread_core(t->cores[i], tid);
		if (rc < 0)
			return rc;
	}
	return check_timers(s, t);
}

static int need_file(const struct snapshot *s, uint32_t pid, uint64_t id, const char *what)
{
	int i = id <= UINT32_MAX ? snapshot_file(s, id) : -1;

	if (i < 0)
		return refuse(EINVAL,
			      "pid %u: its %s refers to the file %#lx, which files.img lacks", pid,
			      what, (long)id);
	if (s->files[i]->type != FD_TYPES__REG)
		return refuse(EINVAL, "pid %u: its %s refers to the file %#lx, which is none", pid,
			      what, (long)id);
	return 0;
}

static int need_memfd(const struct snapshot *s, uint32_t pid, uint64_t id)
{
	int i = id <= UINT32_MAX ? snapshot_file(s, id) : -1;

	if (i < 0 || s->files[i]->type != FD_TYPES__MEMFD)
		return refuse(EINVAL,
			      "pid %u: a mapping refers to the memfd %#lx, which files.img lacks",
			      pid, (long)id);
	return 0;
}

/*
 * A mapped file or memfd. In images of criu 3.17 only the mappings (fdflags) say that it has to be
 * opened for writing, too.
 */
static int note_mapped_file(const struct snapshot *s, uint32_t pid, const VmaEntry *v)
{
	bool is_memfd = v->status & VMA_MEMFD;
	int rc = is_memfd ? need_memfd(s, pid, v->shmid) : need_file(s, pid, v->shmid, "mapping");

	if (rc < 0)
		return rc;
	const FileEntry *e = s->files[snapshot_file(s, v->shmid)];
	uint32_t *flags = is_memfd && e->memfd	? &e->memfd->flags
			  : !is_memfd && e->reg ? &e->reg->flags
						: NULL;
	if (flags && v->has_fdflags && (v->fdflags & O_ACCMODE) == O_RDWR &&
	    (*flags & O_ACCMODE) == O_RDONLY)
		*flags |= O_RDWR;
	return 0;
}

/* What mappings say of the shared memory behind them. */
static int note_shared(struct snapshot *s, uint32_t pid, const VmaEntry *v)
{
	uint64_t end, size = v->has_segment_size ? v->segment_size : 0;

	if ((v->status & VMA_ANON_SHARED && !(v->flags & MAP_SHARED)) ||
	    __builtin_add_overflow(v->pgoff, v->end - v->start, &end) || end > INT64_MAX ||
	    size > INT64_MAX - PAGE_SIZE_)
		return refuse(
			EINVAL,
			"image mm-%u.img: the mapping %#lx-%#lx of shared memory makes no sense",
			pid, (long)v->start, (long)v->end);
	*ARENA_PUSH(&s->arena, s->shared, s->n_shared) = (struct snapshot_shared){
		.id = v->shmid,
		.size = size,
		.mapped = end,
		.has_size = v->has_segment_size,
		.is_reserved = !(v->flags & MAP_NORESERVE),
		.is_private = !(v->status & VMA_ANON_SHARED),
		.huge_flags = v->flags & MAP_HUGE_FLAGS,
	};
	return 0;
}

static int check_vma(struct snapshot *s, uint32_t pid, const VmaEntry *v, uint64_t after)
{
	if (v->start % PAGE_SIZE_ || v->end % PAGE_SIZE_ || v->start >= v->end ||
	    v->start < after || (v->end > ADDRESS_LIMIT && !(v->status & VMA_VSYSCALL)) ||
	    v->pgoff % PAGE_SIZE_)
		return refuse(EINVAL,
			      "image mm-%u.img: the mapping %#lx-%#lx is out of order or range",
			      pid, (long)v->start, (long)v->end);
	if (v->name && strlen(v->name) > NAME_MAX_)
		return refuse(EINVAL, "image mm-%u.img: the name of the mapping %#lx is too long",
			      pid, (long)v->start);
	if (v->has_pkey && (!v->pkey || v->pkey >= KEYS_MAX))
		return refuse(EINVAL,
			      "image mm-%u.img: the mapping %#lx has a protection key %u, which "
			      "there is not",
			      pid, (long)v->start, v->pkey);
	if (v->status & (VMA_MEMFD | VMA_FILE_PRIVATE | VMA_FILE_SHARED))
		return note_mapped_file(s, pid, v);
	if (v->status & VMA_SYSVIPC)
		return check_attachment(s, pid, v);
	return vma_has_segment(v) ? note_shared(s, pid, v) : 0;
}

/* Ranges have to lie in mappings of the task: behind them may be memory of criu's own. */
static int check_ranges(const MmEntry *mm, uint32_t pid, RangeEntry *const *list, size_t n,
			const char *what, bool (*fits)(const VmaEntry *v))
{
	uint64_t after = 0;
	size_t v = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t start = list[i]->start, end = list[i]->end, pos = start;

		if (start % PAGE_SIZE_ || end % PAGE_SIZE_ || start >= end || start < after)
			pos = end + 1;
		while (pos < end && v < mm->n_vmas && mm->vmas[v]->start <= pos) {
			if (mm->vmas[v]->end > pos) {
				if (!fits(mm->vmas[v]))
					break;
				pos = min(end, mm->vmas[v]->end);
			}
			if (pos < end)
				v++;
		}
		if (pos != end)
			return refuse(EINVAL,
				      "image mm-%u.img: the %s %#lx-%#lx is out of order, or not "
				      "in a mapping that can have it",
				      pid, what, (long)start, (long)end);
		after = end;
	}
	return 0;
}

static const AioRingEntry *ring_at(const MmEntry *mm, const VmaEntry *v)
{
	for (size_t i = 0; i < mm->n_aios; i++)
		if (mm->aios[i]->id == v->start)
			return mm->aios[i];
	return NULL;
}

/* Each in a mapping of its own, and none without. */
static int check_rings(const MmEntry *mm, uint32_t pid)
{
	size_t n = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const VmaEntry *v = mm->vmas[i];
		const AioRingEntry *e = v->status & VMA_AIO_RING ? ring_at(mm, v) : NULL;

		if (!(v->status & VMA_AIO_RING))
			continue;
		if (!e || e->ring_len != v->end - v->start || !e->nr_req ||
		    e->nr_req > e->ring_len / 32)
			return refuse(EINVAL,
				      "image mm-%u.img: the mapping %#lx does not fit to a ring "
				      "of asynchronous I/O",
				      pid, (long)v->start);
		n++;
	}
	if (n != mm->n_aios)
		return refuse(EINVAL,
			      "image mm-%u.img: a ring of asynchronous I/O without a mapping", pid);
	return 0;
}

static bool may_be_guarded(const VmaEntry *v)
{
	(void)v;
	return true;
}

static int load_mm(struct snapshot *s, struct snapshot_task *t, int dirfd)
{
	uint32_t pid = t->pstree->pid;
	uint64_t after = 0;
	int rc = image_need_one(dirfd, IMG_MM, pid, &s->arena, &t->mm);

	if (rc < 0)
		return rc;
	if (t->mm->pkeys >> KEYS_MAX)
		return refuse(EINVAL, "image mm-%u.img: its protection keys (%#x) make no sense",
			      pid, t->mm->pkeys);
	if (!t->mm->n_vmas)
		rc = load_list(s, dirfd, IMG_VMAS, pid, &t->mm->vmas, &t->mm->n_vmas);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < t->mm->n_vmas; i++) {
		rc = check_vma(s, pid, t->mm->vmas[i], after);
		if (rc < 0)
			return rc;
		after = t->mm->vmas[i]->end;
	}
	rc = check_rings(t->mm, pid);
	if (rc < 0)
		return rc;
	rc = check_ranges(t->mm, pid, t->mm->guards, t->mm->n_guards, "guard", may_be_guarded);
	if (rc == 0)
		rc = check_ranges(t->mm, pid, t->mm->huge, t->mm->n_huge, "huge page",
				  vma_may_be_huge);
	if (rc == 0 && t->mm->lock_future & ~(MCL_FUTURE | MCL_ONFAULT))
		return refuse(EINVAL, "image mm-%u.img: it locks memory in an unknown way (%#x)",
			      pid, t->mm->lock_future);
	return rc < 0 ? rc : need_file(s, pid, t->mm->exe_file_id, "executable");
}

static int by_shared_id(const void *a, const void *b)
{
	const struct snapshot_shared *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* One mapping each becomes one segment each. */
static int merge_shared(struct snapshot *s)
{
	size_t n = 0;

	if (s->n_shared)
		qsort(s->shared, s->n_shared, sizeof(*s->shared), by_shared_id);
	for (size_t i = 0; i < s->n_shared; i++) {
		const struct snapshot_shared *use = &s->shared[i];
		struct snapshot_shared *last = n ? &s->shared[n - 1] : NULL;

		if (!last || last->id != use->id) {
			s->shared[n++] = *use;
			continue;
		}
		if (last->has_size != use->has_size || last->size != use->size ||
		    last->huge_flags != use->huge_flags)
			return refuse(EINVAL,
				      "shared memory %lu: its mappings disagree about its size",
				      (long)use->id);
		last->mapped = max(last->mapped, use->mapped);
		last->is_reserved |= use->is_reserved;
		last->is_private &= use->is_private;
	}
	s->n_shared = n;
	return 0;
}

/* Runs of a file in memory have to lie in it, its last page in part. */
static int check_file_pages(const struct pagemap *pages, uint64_t size, unsigned long id)
{
	const struct page_run *last = pages->n ? &pages->run[pages->n - 1] : NULL;

	if (!last || last->vaddr + (last->pages - 1) * PAGE_SIZE_ < size)
		return 0;
	return refuse(EINVAL,
		      "image pagemap-shmem-%lu.img: the pages at %#lx are behind the end (%lu "
		      "bytes)",
		      id, (long)last->vaddr, (long)size);
}

int load_file_pages(struct snapshot *s, int dirfd, unsigned long id, uint64_t size,
		    struct pagemap *ret)
{
	int rc = pagemap_read(&s->pages, dirfd, IMG_SHMEM_PAGEMAP, id, ret);

	if (rc == 0)
		return refuse(ENOENT, "image pagemap-shmem-%lu.img is missing", id);
	return rc < 0 ? rc : check_file_pages(ret, size, id);
}

static int load_shared(struct snapshot *s, int dirfd)
{
	int rc = merge_shared(s);

	for (size_t i = 0; i < s->n_shared && rc >= 0; i++) {
		struct snapshot_shared *m = &s->shared[i];

		if (!m->has_size)
			m->size = m->mapped;
		if (!m->is_private)
			rc = load_file_pages(s, dirfd, m->id, m->size, &m->pages);
	}
	return rc;
}

int snapshot_shared(const struct snapshot *s, uint64_t id)
{
	const struct snapshot_shared key = { .id = id };
	const struct snapshot_shared *m =
		s->n_shared ? bsearch(&key, s->shared, s->n_shared, sizeof(key), by_shared_id)
			    : NULL;

	return m ? m - s->shared : -1;
}

/* Every run of pages has to lie in private mappings of the task. */
static int check_pages(const struct snapshot_task *t)
{
	size_t v = 0;

	for (size_t i = 0; i < t->pages.n; i++) {
		uint64_t pos = t->pages.run[i].vaddr,
			 end = pos + t->pages.run[i].pages * PAGE_SIZE_;

		while (pos < end) {
			while (v < t->mm->n_vmas && t->mm->vmas[v]->end <= pos)
				v++;
			if (v == t->mm->n_vmas || t->mm->vmas[v]->start > pos)
				return refuse(
					EINVAL,
					"image pagemap-%u.img: the page %#lx is in no mapping",
					t->pstree->pid, (long)pos);
			if (!(t->mm->vmas[v]->status &
			      (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE | VMA_AIO_RING)))
				return refuse(
					EINVAL,
					"image pagemap-%u.img: the page %#lx is in a mapping that "
					"is not private",
					t->pstree->pid, (long)pos);
			pos = min(end, t->mm->vmas[v]->end);
		}
	}
	return 0;
}

static int by_fd(const void *a, const void *b)
{
	uint32_t x = (*(FdinfoEntry *const *)a)->fd, y = (*(FdinfoEntry *const *)b)->fd;

	return (x > y) - (x < y);
}

static int load_fds(struct snapshot *s, struct snapshot_task *t, int dirfd)
{
	char name[IMAGE_NAME_MAX];
	int rc = load_list(s, dirfd, IMG_FDINFO, t->ids->files_id, &t->fds, &t->n_fds);

	if (rc <= 0)
		return rc;
	image_name(IMG_FDINFO, t->ids->files_id, name);
	if (t->n_fds)
		qsort(t->fds, t->n_fds, sizeof(*t->fds), by_fd);
	for (size_t i = 0; i < t->n_fds; i++) {
		int f = snapshot_file(s, t->fds[i]->id);

		if (t->fds[i]->fd > INT_MAX || (i && t->fds[i]->fd == t->fds[i - 1]->fd))
			return refuse(EINVAL,
				      "image %s: descriptor %u is there twice or out of range",
				      name, t->fds[i]->fd);
		if (f < 0 || s->files[f]->type != t->fds[i]->type)
			return refuse(
				EINVAL,
				"image %s: descriptor %u refers to the file %#x, which files.img "
				"lacks or has as another type",
				name, t->fds[i]->fd, t->fds[i]->id);
	}
	return 0;
}

static bool is_path(const char *name)
{
	return name[0] == '/';
}

static int add_ghost_chunk(struct snapshot_ghost *g, struct arena *a, uint64_t off, uint64_t len)
{
	const uint8_t *data;
	int rc = image_take_raw(&g->image, len, &data);

	if (rc < 0)
		return rc;
	if (off > g->size || len > g->size - off)
		return refuse(EINVAL, "image %s: content at %#lx is behind the end of the file",
			      g->image.name, (long)off);
	*ARENA_PUSH(a, g->chunks, g->n_chunks) = (typeof(*g->chunks)){ data, off, len };
	return 0;
}

static int load_ghost_chunks(struct snapshot_ghost *g, struct arena *a)
{
	GhostChunkEntry *c;
	int rc;

	while ((rc = image_next(&g->image, a, &ghost_chunk_entry__descriptor, &c)) > 0) {
		rc = add_ghost_chunk(g, a, c->off, c->len);
		if (rc < 0)
			break;
	}
	return rc;
}

static bool is_good_ghost(const GhostFileEntry *e)
{
	mode_t kind = e->mode & S_IFMT;

	if (S_ISLNK(e->mode))
		return e->symlnk_target;
	return kind == S_IFREG || kind == S_IFDIR || kind == S_IFIFO || kind == S_IFSOCK ||
	       ((kind == S_IFCHR || kind == S_IFBLK) && e->has_rdev);
}

static int load_ghost(struct snapshot *s, int dirfd, uint32_t id)
{
	struct snapshot_ghost *g;

	for (size_t i = 0; i < s->n_ghosts; i++)
		if (s->ghosts[i].id == id)
			return 0;
	g = ARENA_PUSH(&s->arena, s->ghosts, s->n_ghosts);
	*g = (struct snapshot_ghost){ .id = id };
	int rc = image_open(&g->image, dirfd, IMG_GHOST_FILE, id);
	if (rc == 0)
		return refuse(ENOENT, "image ghost-file-%x.img is missing", id);
	if (rc > 0)
		rc = image_next(&g->image, &s->arena, NULL, &g->entry);
	if (rc <= 0)
		return rc < 0 ? rc : refuse(EINVAL, "image %s: it is empty", g->image.name);
	if (!is_good_ghost(g->entry))
		return refuse(EINVAL, "image %s: its mode %#o makes no sense", g->image.name,
			      g->entry->mode);
	g->size = g->entry->has_size ? g->entry->size : g->image.len - g->image.pos;
	if (g->size > INT64_MAX)
		return refuse(EINVAL, "image %s: its size makes no sense", g->image.name);
	if (g->entry->chunks)
		return load_ghost_chunks(g, &s->arena);
	size_t left = g->image.len - g->image.pos;
	return left ? add_ghost_chunk(g, &s->arena, 0, left) : 0;
}

/* The process had ended: none that is restored may have its number. */
static int check_process_remap(const struct snapshot *s, const RemapFilePathEntry *e)
{
	if (!e->remap_id || e->remap_id > INT32_MAX)
		return refuse(EINVAL, "image remap-fpath.img: file %#x: %u is no pid", e->orig_id,
			      e->remap_id);
	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t j = 0; j < s->tasks[i].pstree->n_threads; j++)
			if (s->tasks[i].pstree->threads[j] == e->remap_id)
				return refuse(EINVAL,
					      "image remap-fpath.img: file %#x: it is of a process "
					      "that had ended, and %u is in the tree",
					      e->orig_id, e->remap_id);
	return 0;
}

static int check_remap(struct snapshot *s, RemapFilePathEntry *e, int dirfd)
{
	int orig = snapshot_file(s, e->orig_id), link;

	if (orig < 0 || !s->files[orig]->reg || !is_path(s->files[orig]->reg->name))
		return refuse(EINVAL, "image remap-fpath.img: there is no file %#x", e->orig_id);
	if (!e->has_remap_type) { /* before types there was a bit */
		e->remap_type = e->remap_id >> 31 ? REMAP_TYPE__GHOST : REMAP_TYPE__LINKED;
		e->remap_id &= INT32_MAX;
	}
	if (e->remap_type == REMAP_TYPE__GHOST)
		return load_ghost(s, dirfd, e->remap_id);
	if (e->remap_type == REMAP_TYPE__PROCFS)
		return check_process_remap(s, e);
	if (e->remap_type != REMAP_TYPE__LINKED)
		return refuse(EINVAL,
			      "image remap-fpath.img: file %#x: %d is no type of a remap that is "
			      "known here",
			      e->orig_id, (int)e->remap_type);
	link = snapshot_file(s, e->remap_id);
	if (link < 0 || !s->files[link]->reg || !is_path(s->files[link]->reg->name))
		return refuse(EINVAL, "image remap-fpath.img: file %#x: there is no link %#x",
			      e->orig_id, e->remap_id);
	return 0;
}

static int load_remaps(struct snapshot *s, int dirfd)
{
	int rc = load_list(s, dirfd, IMG_REMAP_FPATH, 0, &s->remaps, &s->n_remaps);

	for (size_t i = 0; i < s->n_remaps && rc >= 0; i++)
		rc = check_remap(s, s->remaps[i], dirfd);
	return rc;
}

#define PIPE_MAX (1u << 30) /* bytes; the kernel allows no larger one */

/* Buffers, of a page at most, have to make up the data, and to fit in. */
static bool has_sound_buffers(const PipeDataEntry *e)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < e->n_buffers; i++) {
		if (!e->buffers[i] || e->buffers[i] > PAGE_SIZE_)
			return false;
		sum += e->buffers[i];
	}
	return !e->n_buffers ||
	       (sum == e->bytes && e->has_size && e->n_buffers <= e->size / PAGE_SIZE_);
}

/* Packets have to make up the data. */
static int check_packets(const struct image_in *in, const PipeDataEntry *e)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < e->n_packets; i++)
		sum += e->packets[i];
	if (e->bytes > PIPE_MAX || (e->has_size && e->size > PIPE_MAX) ||
	    (e->n_packets && sum != e->bytes) || !has_sound_buffers(e))
		return refuse(EINVAL, "image %s: pipe %#x: its sizes make no sense", in->name,
			      e->pipe_id);
	return 0;
}

static int by_pipe_id(const void *a, const void *b)
{
	uint32_t x = ((const struct snapshot_pipe *)a)->entry->pipe_id,
		 y = ((const struct snapshot_pipe *)b)->entry->pipe_id;

	return (x > y) - (x < y);
}

static int load_pipes(struct snapshot *s, int dirfd, bool is_fifo)
{
	struct image_in *in = &s->pipe_images[is_fifo];
	struct snapshot_pipe p;
	int rc = image_open(in, dirfd, is_fifo ? IMG_FIFO_DATA : IMG_PIPES_DATA, 0);

	if (rc <= 0)
		return rc;
	while ((rc = image_next(in, &s->arena, NULL, &p.entry)) > 0) {
		rc = check_packets(in, p.entry);
		if (rc == 0)
			rc = image_take_raw(in, p.entry->bytes, &p.data);
		if (rc < 0)
			return rc;
		*ARENA_PUSH(&s->arena, s->pipes[is_fifo], s->n_pipes[is_fifo]) = p;
	}
	if (s->n_pipes[is_fifo])
		qsort(s->pipes[is_fifo], s->n_pipes[is_fifo], sizeof(p), by_pipe_id);
	return rc;
}

const struct snapshot_pipe *snapshot_pipe(const struct snapshot *s, bool is_fifo, uint32_t id)
{
	PipeDataEntry e = { .pipe_id = id };
	const struct snapshot_pipe key = { .entry = &e };

	return s->n_pipes[is_fifo] ? bsearch(&key, s->pipes[is_fifo], s->n_pipes[is_fifo],
					     sizeof(key), by_pipe_id)
				   : NULL;
}

static int load_bpfmaps(struct snapshot *s, int dirfd)
{
	struct image_in *in = &s->bpfmap_image;
	struct snapshot_bpfmap m;
	int rc = image_open(in, dirfd, IMG_BPFMAP_DATA, 0);

	if (rc <= 0)
		return rc;
	while ((rc = image_next(in, &s->arena, NULL, &m.entry)) > 0) {
		rc = image_take_raw(in, (uint64_t)m.entry->keys_bytes + m.entry->values_bytes,
				    &m.keys);
		if (rc < 0)
			return rc;
		*ARENA_PUSH(&s->arena, s->bpfmaps, s->n_bpfmaps) = m;
	}
	return rc;
}

const struct snapshot_bpfmap *snapshot_bpfmap(const struct snapshot *s, uint32_t map_id)
{
	for (size_t i = 0; i < s->n_bpfmaps; i++)
		if (s->bpfmaps[i].entry->map_id == map_id)
			return &s->bpfmaps[i];
	return NULL;
}

int snapshot_memfd(const struct snapshot *s, uint64_t inode_id)
{
	for (size_t i = 0; i < s->n_memfds; i++)
		if (s->memfds[i]->inode_id == inode_id)
			return i;
	return -1;
}

static int load_memfds(struct snapshot *s, int dirfd)
{
	int rc = load_list(s, dirfd, IMG_MEMFD_INODE, 0, &s->memfds, &s->n_memfds);

	s->memfd_pages = arena_array(&s->arena, struct pagemap, s->n_memfds);
	for (size_t i = 0; i < s->n_memfds && rc >= 0; i++) {
		const MemfdInodeEntry *e = s->memfds[i];

		if (e->size > INT64_MAX)
			return refuse(EINVAL, "image memfd.img: a size makes no sense");
		if (e->size)
			rc = load_file_pages(s, dirfd, e->shmid, e->size, &s->memfd_pages[i]);
	}
	return rc;
}

const TtyInfoEntry *snapshot_tty(const struct snapshot *s, uint32_t id)
{
	for (size_t i = 0; i < s->n_ttys; i++)
		if (s->ttys[i]->id == id)
			return s->ttys[i];
	return NULL;
}

static int check_tty_data(const struct snapshot *s, const TtyDataEntry *e)
{
	uint32_t last = 0;

	if (!snapshot_tty(s, e->tty_id))
		return refuse(EINVAL, "image tty-data.img: there is no terminal %#x", e->tty_id);
	for (size_t i = 0; i < e->n_eof_at; i++) {
		if (e->eof_at[i] < last || e->eof_at[i] > e->data.len)
			return refuse(
				EINVAL,
				"image tty-data.img: terminal %#x: an end of file at %u makes "
				"no sense",
				e->tty_id, e->eof_at[i]);
		last = e->eof_at[i];
	}
	if (e->data.len > TTY_DATA_MAX || e->n_eof_at > TTY_DATA_MAX)
		return refuse(EINVAL, "image tty-data.img: terminal %#x: %zu bytes are too many",
			      e->tty_id, e->data.len);
	return 0;
}

static int load_tty_data(struct snapshot *s, int dirfd)
{
	int rc = load_list(s, dirfd, IMG_TTY_DATA, 0, &s->tty_data, &s->n_tty_data);

	for (size_t i = 0; i < s->n_tty_data && rc >= 0; i++)
		rc = check_tty_data(s, s->tty_data[i]);
	return rc;
}

static int check_tty(const TtyInfoEntry *e)
{
	switch (e->type) {
	case TTY_TYPE__PTY:
		if (e->pty && e->pty->index < PTY_INDEXES)
			return 0;
		return refuse(EINVAL,
			      "image tty-info.img: terminal %#x has no number, or none that a "
			      "pseudo terminal can have",
			      e->id);
	case TTY_TYPE__CONSOLE:
	case TTY_TYPE__VT:
	case TTY_TYPE__CTTY:
	case TTY_TYPE__EXT_TTY:
	case TTY_TYPE__SERIAL:
		return 0;
	default:
		return refuse(
			EINVAL,
			"image tty-info.img: terminal %#x is of no type that is known here (%d)",
			e->id, (int)e->type);
	}
}

static int load_ttys(struct snapshot *s, int dirfd)
{
	int rc = load_list(s, dirfd, IMG_TTY_INFO, 0, &s->ttys, &s->n_ttys);

	for (size_t i = 0; i < s->n_ttys && rc >= 0; i++)
		rc = check_tty(s->ttys[i]);
	return rc < 0 ? rc : load_tty_data(s, dirfd);
}

static int check_packet(const struct snapshot *s, const SkPacketEntry *e)
{
	int i = snapshot_file(s, e->id_for);

	if (i < 0 || !s->files[i]->usk)
		return refuse(EINVAL, "image sk-queues.img: there is no unix socket %#x",
			      e->id_for);
	for (size_t k = 0; k < e->n_scm; k++) {
		if (e->scm[k]->n_rights > SCM_RIGHTS_MAX)
			return refuse(EINVAL,
				      "image sk-queues.img: socket %#x: a message with %zu "
				      "descriptors",
				      e->id_for, e->scm[k]->n_rights);
		for (size_t j = 0; j < e->scm[k]->n_rights; j++)
			if (snapshot_file(s, e->scm[k]->rights[j]) < 0)
				return refuse(
					EINVAL,
					"image sk-queues.img: socket %#x: there is no file %#x "
					"that is in flight",
					e->id_for, e->scm[k]->rights[j]);
	}
	return 0;
}

static int load_packets(struct snapshot *s, int dirfd)
{
	struct snapshot_packet p;
	int rc = image_open(&s->packet_image, dirfd, IMG_SK_QUEUES, 0);

	if (rc <= 0)
		return rc;
	while ((rc = image_next(&s->packet_image, &s->arena, NULL, &p.entry)) > 0) {
		rc = check_packet(s, p.entry);
		if (rc == 0)
			rc = image_take_raw(&s->packet_image, p.entry->length, &p.data);
		if (rc < 0)
			return rc;
		*ARENA_PUSH(&s->arena, s->packets, s->n_packets) = p;
	}
	return rc;
}

static int load_locks(struct snapshot *s, int dirfd)
{
	int rc = load_list(s, dirfd, IMG_FILE_LOCKS, 0, &s->locks, &s->n_locks);

	for (size_t i = 0; i < s->n_locks && rc >= 0; i++) {
		const FileLockEntry *e = s->locks[i];

		if (e->start < 0 || e->len < 0 || e->len > INT64_MAX - e->start)
			return refuse(EINVAL,
				      "image filelocks.img: the lock of pid %d from %lld, "
				      "%lld bytes, is out of range",
				      e->pid, (long long)e->start, (long long)e->len);
		if (e->flag != 1 && e->flag != 2 && e->flag != 4 && e->flag != 8)
			return refuse(EINVAL,
				      "image filelocks.img: a lock of pid %d is of the unknown "
				      "kind %#x",
				      e->pid, e->flag);
		if (e->has_breaking_to &&
		    (e->flag != 8 || (e->breaking_to != F_RDLCK && e->breaking_to != F_UNLCK)))
			return refuse(
				EINVAL,
				"image filelocks.img: a lock of pid %d is being broken to %u, "
				"which makes no sense",
				e->pid, e->breaking_to);
	}
	return rc;
}

#define FILTER_INSN_SIZE 8
#define FILTER_INSNS_MAX 4096  /* of one filter */
#define CHAIN_INSNS_MAX	 32768 /* of all that a thread has; each filter counts 4 more */

static int load_seccomp(struct snapshot *s, int dirfd)
{
	int rc = image_read_one(dirfd, IMG_SECCOMP, 0, &s->arena, &s->seccomp);

	if (rc < 0)
		return rc;
	for (size_t i = 0; s->seccomp && i < s->seccomp->n_seccomp_filters; i++) {
		const SeccompFilter *f = s->seccomp->seccomp_filters[i];

		if (!f->filter.len || f->filter.len % FILTER_INSN_SIZE ||
		    f->filter.len > FILTER_INSNS_MAX * FILTER_INSN_SIZE ||
		    (f->has_prev && f->prev >= s->seccomp->n_seccomp_filters))
			return refuse(EINVAL, "image seccomp.img: filter %zu makes no sense", i);
	}
	return 0;
}

/* Also that the chain has an end. */
static int check_filters(const struct snapshot *s, const ThreadCoreEntry *e, uint32_t tid)
{
	size_t insns = 0, n = s->seccomp ? s->seccomp->n_seccomp_filters : 0;
	uint32_t i = e->seccomp_filter;

	if (!e->has_seccomp_filter || i >= n)
		return refuse(EINVAL,
			      "image core-%u.img: it refers to a seccomp filter that seccomp.img "
			      "lacks",
			      tid);
	for (;;) {
		const SeccompFilter *f = s->seccomp->seccomp_filters[i];

		insns += f->filter.len / FILTER_INSN_SIZE + 4;
		if (insns > CHAIN_INSNS_MAX)
			return refuse(EINVAL,
				      "image seccomp.img: the filters of thread %u are more than "
				      "one can have",
				      tid);
		if (!f->has_prev)
			return 0;
		i = f->prev;
	}
}

#define PERSONALITY_BITS 0x0ffe00ffu /* PER_MASK and the flags of personality(2) */

/*
 * criu 3.17 writes the digits of /proc/PID/personality, which are hexadecimal, as a decimal number:
 * 40000 for 0x40000. There is no flag for which that could be a personality itself.
 */
static uint32_t read_personality(uint32_t n)
{
	uint32_t digits = 0;

	if (!(n & ~PERSONALITY_BITS))
		return n;
	for (unsigned shift = 0; n && shift < 32; shift += 4, n /= 10)
		digits |= n % 10 << shift;
	return digits & PERSONALITY_BITS;
}

/* Older versions have for the process what each thread has for itself now. */
static void read_old_fields(const struct snapshot_task *t)
{
	ThreadCoreEntry *leader = t->cores[0]->thread_core;
	TaskCoreEntry *tc = t->cores[0]->tc;

	tc->personality = read_personality(tc->personality);
	if (!leader->has_blk_sigset) {
		leader->has_blk_sigset = true;
		leader->blk_sigset = tc->blk_sigset;
	}
	for (size_t i = 0; tc->has_old_seccomp_mode && i < t->pstree->n_threads; i++) {
		ThreadCoreEntry *e = t->cores[i]->thread_core;

		if (e->has_seccomp_mode)
			continue;
		e->has_seccomp_mode = true;
		e->seccomp_mode = tc->old_seccomp_mode;
		e->has_seccomp_filter = tc->has_old_seccomp_filter;
		e->seccomp_filter = tc->old_seccomp_filter;
	}
}

static int check_seccomp(const struct snapshot *s, const struct snapshot_task *t)
{
	for (size_t i = 0; i < t->pstree->n_threads; i++) {
		ThreadCoreEntry *e = t->cores[i]->thread_core;
		uint32_t tid = t->pstree->threads[i];
		int rc = 0;

		if (e->seccomp_mode == SECCOMP_MODE__filter)
			rc = check_filters(s, e, tid);
		else if ((unsigned)e->seccomp_mode > SECCOMP_MODE__filter)
			rc = refuse(EINVAL, "image core-%u.img: unknown seccomp mode %u", tid,
				    e->seccomp_mode);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int load_task(struct snapshot *s, struct snapshot_task *t, int dirfd)
{
	uint32_t pid = t->pstree->pid;
	int rc = load_cores(s, t, dirfd);

	if (rc < 0 || t->is_zombie)
		return rc;
	read_old_fields(t);
	rc = check_seccomp(s, t);
	if (rc < 0)
		return rc;
	t->ids = t->cores[0]->ids;
	if (!t->ids)
		rc = image_need_one(dirfd, IMG_IDS, pid, &s->arena, &t->ids);
	if (rc >= 0)
		rc = load_ipc(s, t, dirfd);
	if (rc >= 0)
		rc = load_mm(s, t, dirfd);
	if (rc >= 0)
		rc = image_need_one(dirfd, IMG_FS, pid, &s->arena, &t->fs);
	if (rc >= 0)
		rc = need_file(s, pid, t->fs->cwd_id, "working directory");
	if (rc >= 0)
		rc = need_file(s, pid, t->fs->root_id, "root directory");
	if (rc >= 0)
		rc = load_fds(s, t, dirfd);
	if (rc >= 0)
		rc = pagemap_read(&s->pages, dirfd, IMG_PAGEMAP, pid, &t->pages);
	if (rc == 0)
		return refuse(ENOENT, "image pagemap-%u.img is missing", pid);
	return rc < 0 ? rc : check_pages(t);
}

/* A descriptor table is shared by being created with it: by the parent. */
static int check_tables(const struct snapshot *s)
{
	for (size_t i = 1; i < s->n_tasks; i++) {
		const struct snapshot_task *t = &s->tasks[i];

		if (t->is_zombie || snapshot_shares_table(s, t))
			continue;
		for (size_t j = 0; j < i; j++)
			if (s->tasks[j].ids && s->tasks[j].ids->files_id == t->ids->files_id)
				return refuse(EINVAL,
					      "image ids-%u.img: it shares its descriptor table "
					      "with %u, which is not its parent",
					      t->pstree->pid, s->tasks[j].pstree->pid);
	}
	return 0;
}

bool snapshot_shares_table(const struct snapshot *s, const struct snapshot_task *t)
{
	const struct snapshot_task *p = t->parent < 0 ? NULL : &s->tasks[t->parent];

	return p && t->ids && p->ids && t->ids->files_id == p->ids->files_id;
}

int snapshot_load(struct snapshot *s, int dirfd)
{
	*s = (struct snapshot){ 0 };
	s->pages.arena = &s->arena;
	int rc = load_inventory(s, dirfd);

	if (rc >= 0)
		rc = load_pstree(s, dirfd);
	if (rc >= 0)
		rc = load_files(s, dirfd);
	if (rc >= 0)
		rc = load_remaps(s, dirfd);
	if (rc >= 0)
		rc = load_pipes(s, dirfd, false);
	if (rc >= 0)
		rc = load_pipes(s, dirfd, true);
	if (rc >= 0)
		rc = load_bpfmaps(s, dirfd);
	if (rc >= 0)
		rc = load_memfds(s, dirfd);
	if (rc >= 0)
		rc = load_ttys(s, dirfd);
	if (rc >= 0)
		rc = load_packets(s, dirfd);
	if (rc >= 0)
		rc = load_locks(s, dirfd);
	if (rc >= 0)
		rc = load_seccomp(s, dirfd);
	for (size_t i = 0; i < s->n_tasks && rc >= 0; i++)
		rc = load_task(s, &s->tasks[i], dirfd);
	if (rc >= 0)
		rc = load_shared(s, dirfd);
	if (rc >= 0 && s->tasks[0].is_zombie)
		rc = refuse(EINVAL, "image pstree.img: the root %u is dead",
			    s->tasks[0].pstree->pid);
	return rc < 0 ? rc : check_tables(s);
}

void snapshot_done(struct snapshot *s)
{
	for (size_t i = 0; i < s->n_ghosts; i++)
		image_close(&s->ghosts[i].image);
	image_close(&s->packet_image);
	image_close(&s->pipe_images[0]);
	image_close(&s->pipe_images[1]);
	image_close(&s->bpfmap_image);
	if (s->ipc)
		image_close(&s->ipc->msg_image);
	if (s->pages.arena)
		pagemap_set_done(&s->pages);
	arena_done(&s->arena);
}
