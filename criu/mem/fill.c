/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Filling memory at restore. Few pages: process_vm_writev from a buffer. Many: UFFDIO_COPY, the
 * fastest way there is (it never clears a page that is written over), by two threads. Pages over
 * private files cannot be filled by userfaultfd and always go the first way.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/progress.h"
#include "mem/mem.h"
#include "model/vma.h"

#define BUFFER	     (256u << 10)
#define UFFD_FROM    (256u << 10) /* bytes */
#define THREADS_FROM (16ull << 20)
#define N_WORKERS    2

/* Pages with one source and one method. */
struct piece {
	uint64_t addr, size;
	int fd;
	uint64_t offset;
	bool by_uffd;
};

struct fill {
	struct restore *r;
	struct restore_task *t;
	VmaEntry *const *vmas; /* by address */
	struct piece *pieces;
	size_t n_pieces;
	uint64_t total;
	/* shared by the workers */
	pthread_mutex_t lock;
	size_t next; /* piece, and position in it */
	uint64_t next_pos;
	uint64_t done;
	int error;
	const char *what;
};

static bool is_filled(const VmaEntry *v)
{
	return !(v->status & (VMA_VDSO | VMA_VVAR | VMA_VSYSCALL | VMA_AIO_RING));
}

/* Where pages are there already, as huge ones, they can only be written to. */
static bool is_in_huge(const struct restore_task *t, size_t *cursor, uint64_t pos, uint64_t *stop)
{
	while (*cursor < t->n_huge && t->huge[*cursor].end <= pos)
		++*cursor;
	if (*cursor == t->n_huge)
		return false;
	bool is_in = t->huge[*cursor].start <= pos;
	*stop = min(*stop, is_in ? t->huge[*cursor].end : t->huge[*cursor].start);
	return is_in;
}

/* The same for pages that came along from a task that shares them. */
static const struct page_run *there_at(const struct restore_task *t, size_t *cursor, uint64_t pos,
				       uint64_t *stop)
{
	const struct pagemap *m = &t->there;

	while (*cursor < m->n && page_run_end(&m->run[*cursor]) <= pos)
		++*cursor;
	if (*cursor == m->n)
		return NULL;
	const struct page_run *run = &m->run[*cursor];
	bool is_in = run->vaddr <= pos;
	*stop = min(*stop, is_in ? page_run_end(run) : run->vaddr);
	return is_in ? run : NULL;
}

/* Cuts runs at the borders of mappings, of huge pages, and of what is there already. */
static void cut_pieces(struct fill *f, const struct pagemap *pages)
{
	size_t v = 0, h = 0, k = 0;

	for (size_t i = 0; i < pages->n; i++) {
		const struct page_run *run = &pages->run[i];
		uint64_t pos = run->vaddr, end = page_run_end(run);

		while (pos < end) {
			while (f->vmas[v]->end <= pos)
				v++;
			const VmaEntry *vma = f->vmas[v];
			uint64_t stop = min(end, vma->end);
			const struct page_run *there = there_at(f->t, &k, pos, &stop);
			bool is_huge = is_in_huge(f->t, &h, pos, &stop);
			if (is_filled(vma) && !(there && page_runs_agree(there, run))) {
				*ARENA_PUSH(&f->r->arena, f->pieces, f->n_pieces) = (struct piece){
					.addr = pos,
					.size = stop - pos,
					.fd = run->fd,
					.offset = run->offset + (pos - run->vaddr),
					.by_uffd = !is_huge && !there &&
						   vma->status & VMA_ANON_PRIVATE &&
						   !(vma->flags & MAP_HUGETLB),
				};
				f->total += stop - pos;
			}
			pos = stop;
		}
	}
}

static int write_memory(struct fill *f, const struct piece *p, void *data)
{
	uint64_t pos = 0;

	while (pos < p->size) {
		struct iovec local = { (uint8_t *)data + pos, p->size - pos };
		struct iovec remote = { (void *)(p->addr + pos), p->size - pos };
		ssize_t n = process_vm_writev(f->t->pid, &local, 1, &remote, 1, 0);

		if (n <= 0)
			return n ? -errno : -EFAULT;
		pos += n;
	}
	return 0;
}

/*
 * A page may be there against all expectation: while huge pages are allowed for a moment
 * (mem/huge.c) khugepaged may make one of a place with holes. Such a page is written to.
 */
static int copy_by_uffd(struct fill *f, const struct piece *p, void *data)
{
	uint64_t pos = 0;
	int rc = 0;

	while (pos < p->size && rc == 0) {
		struct uffdio_copy c = {
			.dst = p->addr + pos,
			.src = (uint64_t)data + pos,
			.len = p->size - pos,
			.mode = UFFDIO_COPY_MODE_DONTWAKE,
		};

		if (ioctl(f->t->uffd, UFFDIO_COPY, &c) == 0)
			return 0;
		if (errno == EAGAIN) {
			pos += c.copy > 0 ? c.copy : 0;
		} else if (errno == EEXIST) {
			struct piece page = { .addr = p->addr + pos, .size = PAGE_SIZE_ };

			rc = write_memory(f, &page, (uint8_t *)data + pos);
			pos += PAGE_SIZE_;
		} else {
			rc = -errno;
		}
	}
	return rc;
}

static int fill_piece(struct fill *f, const struct piece *p, void *buffer, const char **what)
{
	*what = "read pages";
	int rc = pread_all(p->fd, buffer, p->size, p->offset);
	if (rc < 0)
		return rc;
	*what = p->by_uffd ? "fill memory by UFFDIO_COPY" : "fill memory by process_vm_writev";
	return p->by_uffd ? copy_by_uffd(f, p, buffer) : write_memory(f, p, buffer);
}

/* Takes the next work of at most one buffer. False when there is none or another worker failed. */
static bool take_piece(struct fill *f, struct piece *ret)
{
	bool any = false;

	pthread_mutex_lock(&f->lock);
	if (!f->error && f->next < f->n_pieces) {
		const struct piece *p = &f->pieces[f->next];

		*ret = *p;
		ret->addr += f->next_pos;
		ret->offset += f->next_pos;
		ret->size = min(p->size - f->next_pos, (uint64_t)BUFFER);
		f->next_pos += ret->size;
		f->done += ret->size;
		if (f->next_pos == p->size) {
			f->next++;
			f->next_pos = 0;
		}
		any = true;
	}
	pthread_mutex_unlock(&f->lock);
	return any;
}

static void set_error(struct fill *f, int error, const char *what)
{
	pthread_mutex_lock(&f->lock);
	if (!f->error) {
		f->error = error;
		f->what = what;
	}
	pthread_mutex_unlock(&f->lock);
}

static void work(struct fill *f, struct progress *progress, size_t buffer_size)
{
	autofree void *memory = xmalloc(buffer_size);
	struct piece p;

	while (take_piece(f, &p)) {
		const char *what;
		int rc = fill_piece(f, &p, memory, &what);

		if (rc < 0)
			set_error(f, -rc, what);
		if (progress) {
			progress->done = f->done;
			progress_add(progress, 0);
			if (engine_check(&f->r->engine) < 0)
				set_error(f, EINTR, "go on");
		}
	}
}

static void *worker_main(void *arg)
{
	work(arg, NULL, BUFFER);
	return NULL;
}

static int register_uffd(struct fill *f)
{
	struct uffdio_api api = { .api = UFFD_API };

	if (ioctl(f->t->uffd, UFFDIO_API, &api) < 0)
		return fail(errno, "pid %d: start its userfaultfd", f->t->pid);
	uint64_t watched = 0; /* up to here */
	size_t v = 0;
	for (size_t i = 0; i < f->n_pieces; i++) {
		if (!f->pieces[i].by_uffd || f->pieces[i].addr < watched)
			continue;
		while (f->vmas[v]->end <= f->pieces[i].addr)
			v++;
		struct uffdio_register reg = {
			.range = { f->vmas[v]->start, f->vmas[v]->end - f->vmas[v]->start },
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};
		if (ioctl(f->t->uffd, UFFDIO_REGISTER, &reg) < 0)
			return fail(errno, "pid %d: watch %#lx-%#lx by userfaultfd", f->t->pid,
				    (long)f->vmas[v]->start, (long)f->vmas[v]->end);
		watched = f->vmas[v]->end;
	}
	return 0;
}

/* A kernel without userfaultfd, or without permission: memory is filled the other way. */
static int take_uffd(struct restore_task *t)
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), 1);

	if (rc < 0)
		return rc;
	struct call *c = CALL(&p, "make a userfaultfd", SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	c->flags = CALL_MAY_FAIL;
	rc = program_run(&p);
	int fd = c->ret;
	program_end(&p);
	if (rc < 0 || fd < 0)
		return rc;
	t->uffd_there = fd;
	t->uffd = copy_fd_of(t->pid, fd);
	return 0;
}

static int choose_ways(struct fill *f)
{
	uint64_t total = 0;

	for (size_t i = 0; i < f->n_pieces; i++)
		total += f->pieces[i].by_uffd ? f->pieces[i].size : 0;
	int rc = total >= UFFD_FROM ? take_uffd(f->t) : 0;
	if (rc == 0 && f->t->uffd >= 0)
		return register_uffd(f);
	for (size_t i = 0; i < f->n_pieces; i++)
		f->pieces[i].by_uffd = false;
	return rc;
}

static int fill_pieces(struct fill *f)
{
	struct progress progress;
	pthread_t second;

	progress_begin(&progress, "restore: memory", f->total);
	bool has_second =
		f->total >= THREADS_FROM && pthread_create(&second, NULL, worker_main, f) == 0;
	work(f, &progress, min(f->total, (uint64_t)BUFFER));
	if (has_second)
		pthread_join(second, NULL);
	progress_end(&progress);
	f->r->stats.pages_restored += f->total / PAGE_SIZE_;
	return f->error ? fail(f->error, "pid %d: %s", f->t->pid, f->what) : 0;
}

int mem_fill(struct restore *r, struct restore_task *t, const struct pagemap *pages,
	     VmaEntry *const *vmas)
{
	struct fill f = { .r = r, .t = t, .vmas = vmas, .lock = PTHREAD_MUTEX_INITIALIZER };

	cut_pieces(&f, pages);
	if (!f.n_pieces)
		return 0;
	int rc = choose_ways(&f);
	if (rc == 0)
		rc = fill_pieces(&f);
	own_close(&t->uffd);
	t->uffd = -1;
	return rc;
}

void mem_add_end_fill(struct restore_task *t, struct program *p)
{
	if (t->uffd_there >= 0)
		CALL(p, "close the userfaultfd", SYS_close, t->uffd_there);
	t->uffd_there = -1;
}
