/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rings of asynchronous I/O. The kernel makes them, knows them by their address, and keeps its own
 * count of where the next event goes (`tail`), which only events advance. So that many harmless
 * requests are made; then the ring gets the content that it had.
 */
#include "mem/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "mem/mem.h"
#include "model/vma.h"

#define RING_MAGIC   0xa10a10a1
#define REQUESTS_MAX 128 /* in one call */

/* fs/aio.c: struct aio_ring; events follow. */
struct ring {
	uint32_t id; /* the kernel's index of the ring */
	uint32_t nr; /* events */
	uint32_t head, tail;
	uint32_t magic;
	uint32_t compat_features, incompat_features;
	uint32_t header_length;
};

_Static_assert(sizeof(struct ring) == 32 && sizeof(struct io_event) == 32, "aio ring");

static uint64_t events_in(uint64_t size)
{
	return (size - sizeof(struct ring)) / sizeof(struct io_event);
}

/* The fewest requests for which a ring of that size is made: system-wide they are limited. */
static uint32_t requests_for(uint64_t size)
{
	return size > PAGE_SIZE_ ? events_in(size - PAGE_SIZE_) / 2 : 1;
}

/* The size of the ring that io_setup(2) makes; it grows with the CPUs that there could be. */
static uint64_t size_for(uint32_t requests, uint64_t cpus)
{
	uint64_t events = max((uint64_t)requests, 4 * cpus) * 2 + 2;
	uint64_t size = sizeof(struct ring) + events * sizeof(struct io_event);

	return (size + PAGE_SIZE_ - 1) & ~(PAGE_SIZE_ - 1);
}

/* By the kernel's indexes: made in this order they come again, unless some were given back. */
static void sort_in(MmEntry *mm, int mem, uint32_t id)
{
	for (size_t i = mm->n_aios - 1; i > 0; i--) {
		AioRingEntry *before = mm->aios[i - 1];
		struct ring ring;

		if (pread_all(mem, &ring, sizeof(ring), before->id) < 0 || ring.id < id)
			return;
		mm->aios[i - 1] = mm->aios[i];
		mm->aios[i] = before;
	}
}

void aio_collect(struct dump *d, struct dump_task *t, const struct mapping *m)
{
	int mem = process_mem(t->process);
	uint64_t size = m->end - m->start;
	struct ring ring;

	if (mem < 0 || pread_all(mem, &ring, sizeof(ring), m->start) < 0 ||
	    ring.magic != RING_MAGIC || ring.header_length != sizeof(ring) || m->pgoff ||
	    ring.nr != events_in(size) || ring.tail >= ring.nr) {
		dump_block(d,
			   "pid %d: its mapping %#lx-%#lx is a ring of asynchronous I/O (io_setup) "
			   "that has been changed or is not mapped as a whole",
			   t->process->pid, (long)m->start, (long)m->end);
		return;
	}
	warn("pid %d: it has a ring of asynchronous I/O (io_setup) at %#lx: requests of it that "
	     "are not done yet cannot be seen, and would be lost",
	     t->process->pid, (long)m->start);
	AioRingEntry *e = MESSAGE(&d->arena, AioRingEntry, aio_ring_entry);
	e->id = m->start;
	e->nr_req = requests_for(size);
	e->ring_len = size;
	*ARENA_PUSH(&d->arena, t->mm->aios, t->mm->n_aios) = e;
	sort_in(t->mm, mem, ring.id);
}

/* CPUs that the kernel is prepared for: the last number of "0-3,8-11", and one. */
static uint64_t possible_cpus(void)
{
	char text[256], *last = text;

	if (read_small_at(AT_FDCWD, "/sys/devices/system/cpu/possible", text, sizeof(text)) <= 0)
		return 1;
	for (char *p = text; *p; p++)
		if (*p == '-' || *p == ',')
			last = p + 1;
	return strtoul(last, NULL, 10) + 1;
}

/* The content in the images; pages that are not there are zero. */
static int read_content(const struct restore_task *t, const AioRingEntry *e, uint8_t *content)
{
	const struct pagemap *map = &t->image->pages;
	uint64_t end = e->id + e->ring_len;

	for (size_t i = pagemap_first_behind(map, e->id); i < map->n && map->run[i].vaddr < end;
	     i++) {
		const struct page_run *run = &map->run[i];
		uint64_t start = max(run->vaddr, e->id), stop = min(page_run_end(run), end);
		int rc = pread_all(run->fd, content + (start - e->id), stop - start,
				   run->offset + (start - run->vaddr));

		if (rc < 0)
			return fail(-rc, "pid %d: read the ring of asynchronous I/O at %#lx",
				    t->pid, (long)e->id);
	}
	return 0;
}

/* Made somewhere, and moved: the kernel follows. Returns a descriptor of /dev/null in the task. */
static int make_ring(struct restore_task *t, const AioRingEntry *e)
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), 3);

	if (rc < 0)
		return rc;
	uint64_t *context = program_room(&p, sizeof(*context));
	const char *name = program_data(&p, "/dev/null", sizeof("/dev/null"));
	struct call *null = CALL(&p, "open /dev/null", SYS_openat, AT_FDCWD,
				 program_raddr(&p, name), O_WRONLY | O_CLOEXEC);
	CALL(&p, "make a ring of asynchronous I/O", SYS_io_setup, e->nr_req,
	     program_raddr(&p, context));
	struct call *move = CALL(&p, "move the ring of asynchronous I/O", SYS_mremap, 0,
				 e->ring_len, e->ring_len, MREMAP_MAYMOVE | MREMAP_FIXED, e->id);
	call_load(move, 0, program_raddr(&p, context));
	rc = program_run(&p);
	int fd = null->ret;
	program_end(&p);
	return rc < 0 ? rc : fd;
}

/* Makes n requests that are done at once, at most REQUESTS_MAX. Returns how many were taken. */
static int64_t make_requests(struct restore_task *t, const AioRingEntry *e, int null, uint32_t n)
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), 1);

	if (rc < 0)
		return rc;
	struct iocb *request = program_room(&p, sizeof(*request));
	uint64_t *list = program_room(&p, n * sizeof(*list));
	int64_t done = -ENOSPC;

	if (request && list) {
		request->aio_lio_opcode = IOCB_CMD_PWRITE;
		request->aio_fildes = null;
		request->aio_buf = program_raddr(&p, list);
		request->aio_nbytes = 1;
		for (uint32_t i = 0; i < n; i++)
			list[i] = program_raddr(&p, request);
		struct call *c = CALL(&p, "advance the ring of asynchronous I/O", SYS_io_submit,
				      e->id, n, program_raddr(&p, list));
		rc = program_run(&p);
		done = rc < 0 ? rc : c->ret;
	}
	program_end(&p);
	return done;
}

static int write_ring(int mem, const AioRingEntry *e, size_t offset, const void *data, size_t size)
{
	int rc = pwrite_all(mem, data, size, e->id + offset);

	return rc < 0 ? fail(-rc, "write to the ring of asynchronous I/O at %#lx", (long)e->id) : 0;
}

/*
 * As many events as the ring has had since its tail was 0: with those that were not read yet there
 * may be one turn more. Between two calls all are taken out again, by moving the head.
 */
static int advance(struct restore_task *t, const AioRingEntry *e, int mem, int null,
		   const struct ring *was)
{
	uint32_t nr = events_in(e->ring_len), most = min(nr / 2, (uint32_t)REQUESTS_MAX), at = 0;
	uint64_t left = was->tail + (was->head % nr > was->tail ? nr : 0);

	while (left) {
		int64_t done = make_requests(t, e, null, min(left, (uint64_t)most));

		if (done <= 0)
			return done ? done
				    : refuse(EAGAIN,
					     "pid %d: its ring of asynchronous I/O at %#lx "
					     "takes no requests",
					     t->pid, (long)e->id);
		left -= done;
		at = (at + done) % nr;
		int rc = write_ring(mem, e, offsetof(struct ring, head), &at, sizeof(at));
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* All but what is the kernel's: its index, its number of events, its tail. */
static int write_content(int mem, const AioRingEntry *e, const uint8_t *content)
{
	const size_t head = offsetof(struct ring, head);
	int rc = write_ring(mem, e, head, content + head, sizeof(uint32_t));

	return rc < 0 ? rc
		      : write_ring(mem, e, sizeof(struct ring), content + sizeof(struct ring),
				   e->ring_len - sizeof(struct ring));
}

static int close_null(struct restore_task *t, int null)
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), 1);

	if (rc < 0)
		return rc;
	CALL(&p, "close /dev/null", SYS_close, null);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

static int restore_ring(struct restore_task *t, const AioRingEntry *e, int mem)
{
	autofree uint8_t *content = calloc(1, e->ring_len);
	uint64_t cpus = possible_cpus();
	struct ring was;

	if (!content)
		return fail(ENOMEM, "pid %d: a ring of asynchronous I/O", t->pid);
	if (size_for(e->nr_req, cpus) != e->ring_len)
		return refuse(EOPNOTSUPP,
			      "pid %d: its ring of asynchronous I/O at %#lx has %u bytes; this "
			      "machine, which could have %lu CPUs, would make one of %lu",
			      t->pid, (long)e->id, e->ring_len, (long)cpus,
			      (long)size_for(e->nr_req, cpus));
	int rc = read_content(t, e, content);
	if (rc < 0)
		return rc;
	memcpy(&was, content, sizeof(was));
	if (was.nr != events_in(e->ring_len) || was.tail >= was.nr)
		return refuse(
			EINVAL,
			"pid %d: the ring of asynchronous I/O at %#lx in the images is damaged",
			t->pid, (long)e->id);
	int null = make_ring(t, e);
	if (null < 0)
		return null;
	rc = advance(t, e, mem, null, &was);
	if (rc == 0)
		rc = write_content(mem, e, content);
	int closed = close_null(t, null);
	return rc < 0 ? rc : closed;
}

int aio_restore(struct restore *r, struct restore_task *t)
{
	const MmEntry *mm = t->image->mm;
	int rc = 0;

	(void)r;
	if (!mm->n_aios)
		return 0;
	autoclose int mem = tracee_mem(t->pid);
	if (mem < 0)
		return mem;
	for (size_t i = 0; i < mm->n_aios && rc == 0; i++)
		rc = restore_ring(t, mm->aios[i], mem);
	return rc;
}
