/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared anonymous memory: MAP_SHARED | MAP_ANONYMOUS, and shared mappings of /dev/zero. Behind
 * both is a file without a name on the kernel's own tmpfs, the segment. Mappings of it carry its
 * inode number (shmid); its pages are in pagemap-shmem-ID.img. Memory of huge pages is such a file
 * of hugetlbfs, even if it is private.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "mem/mem.h"
#include "mem/shared.h"
#include "model/vma.h"
#include "proc/maps.h"
#include "proc/task.h"

#define FILL_CHUNK (256u << 10)

/* A mapping of shared memory. */
struct shared_use {
	VmaEntry *e;
	const struct dump_task *t;
};

struct dump_shared {
	uint64_t id;
	dev_t dev;
	uint64_t size;
	uint64_t mapped;	/* where the last mapping of it ends */
	bool is_private;	/* no mapping of it is shared: the file is empty */
	struct shared_use user; /* through whose mapping we get at it */
	struct saved_pages pages;
};

void shared_note(struct dump *d, const struct dump_task *t, VmaEntry *e)
{
	*ARENA_PUSH(&d->arena, d->shared_uses, d->n_shared_uses) =
		(struct shared_use){ .e = e, .t = t };
}

static int by_segment(const void *a, const void *b)
{
	const struct shared_use *x = a, *y = b;

	return (x->e->shmid > y->e->shmid) - (x->e->shmid < y->e->shmid);
}

/* A description of the segment of our own, for reading. */
static int open_segment(const struct shared_use *u)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", u->t->process->pid,
		 (long)u->e->start, (long)u->e->end);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? fail(errno, "pid %d: shared memory: open %s", u->t->process->pid, path)
		      : fd;
}

/* One segment with all its uses. */
static int add_segment(struct dump *d, const struct shared_use *u, size_t n)
{
	uint64_t mapped = 0;
	struct stat st;
	autoclose int fd = open_segment(u);

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return fail(errno, "pid %d: shared memory: stat", u->t->process->pid);
	bool is_private = true;
	for (size_t i = 0; i < n; i++) {
		mapped = max(mapped, u[i].e->pgoff + (u[i].e->end - u[i].e->start));
		is_private &= !(u[i].e->flags & MAP_SHARED);
	}
	/* A mapping may have grown beyond its segment, or the rest of one was unmapped. */
	for (size_t i = 0; i < n && mapped != (uint64_t)st.st_size; i++) {
		u[i].e->has_segment_size = true;
		u[i].e->segment_size = st.st_size;
	}
	*ARENA_PUSH(&d->arena, d->shared, d->n_shared) =
		(struct dump_shared){ .id = u->e->shmid,
				      .dev = st.st_dev,
				      .size = st.st_size,
				      .mapped = mapped,
				      .is_private = is_private,
				      .user = *u };
	return 0;
}

static const struct dump_shared *segment_of(const struct dump *d, const struct mapping *m)
{
	for (size_t i = 0; m->shared && m->ino && i < d->n_shared; i++)
		if (d->shared[i].id == m->ino &&
		    d->shared[i].dev == makedev(m->dev_major, m->dev_minor))
			return &d->shared[i];
	return NULL;
}

/*
 * Memory that somebody outside of the tree has, too, is two after a restore. Nothing tells who has
 * it, but it comes from a process to its children: the parent of the tree is looked at.
 */
static void warn_of_outside(struct dump *d)
{
	const struct process *root = d->n_shared ? d->shared[0].user.t->process : NULL;
	while (root && root->parent)
		root = root->parent;
	pid_t parent = root ? root->stat.ppid : 0;
	autoclose int proc = parent ? proc_open(parent) : -1;
	struct proc_stat stat;
	struct maps maps;

	if (proc < 0 || proc_stat_read(proc, &stat) < 0 ||
	    maps_read(proc, "maps", &d->arena, &maps) < 0)
		return; /* gone, or not for us to see */
	for (size_t i = 0; i < maps.n; i++) {
		const struct dump_shared *s = segment_of(d, &maps.m[i]);

		if (s)
			warn("pid %d: its shared memory at %#lx is also mapped by pid %d (%s), "
			     "outside of the tree; once restored, each has its own",
			     s->user.t->process->pid, (long)s->user.e->start, parent, stat.comm);
	}
}

int mem_collect_shared(struct dump *d)
{
	int rc = 0;

	if (d->n_shared_uses)
		qsort(d->shared_uses, d->n_shared_uses, sizeof(*d->shared_uses), by_segment);
	for (size_t i = 0, n; i < d->n_shared_uses && rc == 0; i += n) {
		const struct shared_use *u = &d->shared_uses[i];

		for (n = 1; i + n < d->n_shared_uses && !by_segment(u, u + n); n++)
			;
		rc = add_segment(d, u, n);
	}
	if (rc == 0)
		warn_of_outside(d);
	return rc;
}

int mem_save_shared(struct dump *d)
{
	for (size_t i = 0; i < d->n_shared; i++) {
		struct dump_shared *s = &d->shared[i];
		char who[64];

		if (s->is_private)
			continue;
		autoclose int fd = open_segment(&s->user);

		if (fd < 0)
			return fd;
		snprintf(who, sizeof(who), "shared memory %lu", (long)s->id);
		int rc = mem_save_file(d, fd, s->size, who, s->id, &s->pages);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/*
 * criu 3.17 takes a segment to end where its last mapping does, and leaves out what is in one entry
 * of the pagemap with pages behind that.
 */
static void cut_run(struct arena *a, struct saved_pages *p, uint64_t end)
{
	size_t i = 0;

	end = (end + PAGE_SIZE_ - 1) & ~(PAGE_SIZE_ - 1);
	while (i < p->n_runs && page_run_end(&p->runs[i]) <= end)
		i++;
	if (i == p->n_runs || p->runs[i].vaddr >= end)
		return;
	struct page_run behind = p->runs[i];

	p->runs[i].pages = (end - behind.vaddr) / PAGE_SIZE_;
	behind.vaddr = end;
	behind.pages -= p->runs[i].pages;
	*ARENA_PUSH(a, p->runs, p->n_runs) = behind;
	for (size_t k = p->n_runs - 1; k > i + 1; k--)
		p->runs[k] = p->runs[k - 1];
	p->runs[i + 1] = behind;
}

int mem_write_shared(struct dump *d)
{
	int rc = 0;

	for (size_t i = 0; i < d->n_shared && rc == 0; i++)
		cut_run(&d->arena, &d->shared[i].pages, d->shared[i].mapped);
	for (size_t i = 0; i < d->n_shared && rc == 0; i++)
		if (!d->shared[i].is_private)
			rc = mem_write_pages(d, &d->shared[i].pages);
	return rc;
}

/* ---- restore ---- */

/* Bytes of the last page that lie behind the end of the file, as mappings have written them. */
static int fill_behind_end(int fd, uint64_t size, const struct page_run *run)
{
	uint64_t in_page = size % PAGE_SIZE_;
	struct local_map map = { .size = PAGE_SIZE_ };

	if (!in_page || page_run_end(run) <= size)
		return 0;
	map.addr = mmap(NULL, PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, size - in_page);
	if (map.addr == MAP_FAILED)
		return -errno;
	autounmap struct local_map last = map;
	return pread_all(run->fd, (char *)last.addr + in_page, PAGE_SIZE_ - in_page,
			 run->offset + (size - run->vaddr));
}

static int fill_run(int fd, uint64_t size, const struct page_run *run, void *buf)
{
	/* The last page may reach behind the end. */
	uint64_t bytes = min(run->pages * PAGE_SIZE_, size - run->vaddr);
	int rc = 0;

	for (uint64_t done = 0; done < bytes && rc == 0; done += FILL_CHUNK) {
		size_t len = min(bytes - done, (uint64_t)FILL_CHUNK);

		rc = pread_all(run->fd, buf, len, run->offset + done);
		if (rc == 0)
			rc = pwrite_all(fd, buf, len, run->vaddr + done);
	}
	return rc < 0 ? rc : fill_behind_end(fd, size, run);
}

/* Files of hugetlbfs cannot be written to, only mapped. */
static int fill_huge_run(int fd, uint64_t size, uint64_t page_size, const struct page_run *run)
{
	uint64_t end = min(page_run_end(run), size);

	for (uint64_t pos = run->vaddr; pos < end;) {
		uint64_t start = pos & ~(page_size - 1);
		size_t len = min(end, start + page_size) - pos;
		struct local_map map = { .size = page_size };

		map.addr = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, start);
		if (map.addr == MAP_FAILED)
			return -errno;
		autounmap struct local_map page = map;
		int rc = pread_all(run->fd, (char *)page.addr + (pos - start), len,
				   run->offset + (pos - run->vaddr));
		if (rc < 0)
			return rc;
		pos += len;
	}
	return 0;
}

int mem_fill_file(int fd, uint64_t size, const struct pagemap *pages, const char *who)
{
	autofree void *buf = pages->n ? xmalloc(FILL_CHUNK) : NULL;
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return fail(errno, "%s: look at its file system", who);
	for (size_t i = 0; i < pages->n; i++) {
		int rc = fs.f_type == HUGETLBFS_MAGIC
				 ? fill_huge_run(fd, size, fs.f_bsize, &pages->run[i])
				 : fill_run(fd, size, &pages->run[i], buf);

		if (rc < 0)
			return fail(-rc, "%s: fill it at %#lx", who, (long)pages->run[i].vaddr);
	}
	return 0;
}

/*
 * The kernel makes such a file only together with a mapping; the link in map_files leads to it.
 * A memfd would do, but have another name in /proc/PID/maps.
 */
static int make_segment(const struct snapshot_shared *s)
{
	int reserve = s->is_reserved ? 0 : MAP_NORESERVE;
	unsigned shift = s->huge_flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK;
	struct local_map map = { .size = 1ull << (s->huge_flags ? shift : PAGE_SHIFT_) };
	char path[64];

	map.addr = mmap(NULL, map.size, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | reserve | s->huge_flags, -1, 0);
	if (map.addr == MAP_FAILED)
		return fail(errno, "shared memory %lu: make it", (long)s->id);
	autounmap struct local_map page = map;
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (long)page.addr,
		 (long)page.addr + (long)page.size);
	autoclose int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fail(errno, "shared memory %lu: open %s", (long)s->id, path);
	if (ftruncate(fd, s->size) < 0)
		return fail(errno, "shared memory %lu: give it %lu bytes", (long)s->id,
			    (long)s->size);
	return take_fd(&fd);
}

int mem_make_shared(struct restore *r)
{
	const struct snapshot *snapshot = &r->snapshot;

	r->shared_fds = arena_array(&r->arena, int, snapshot->n_shared);
	memset(r->shared_fds, -1, snapshot->n_shared * sizeof(int));
	for (size_t i = 0; i < snapshot->n_shared; i++) {
		const struct snapshot_shared *s = &snapshot->shared[i];
		char who[64];
		int fd = files_own_number(r, make_segment(s));

		if (fd < 0)
			return fd;
		r->shared_fds[i] = fd;
		snprintf(who, sizeof(who), "shared memory %lu", (long)s->id);
		int rc = mem_fill_file(fd, s->size, &s->pages, who);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int shared_fd(const struct restore *r, uint64_t id)
{
	return r->shared_fds[snapshot_shared(&r->snapshot, id)];
}

void mem_close_shared(struct restore *r)
{
	for (size_t i = 0; r->shared_fds && i < r->snapshot.n_shared; i++)
		own_close(&r->shared_fds[i]);
}
