/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages into their file. A chunk of memory is read through /proc/PID/mem (which, unlike
 * process_vm_readv, leaves copy-on-write pages shared), cleaned of zero pages while it is in the
 * cache, and written. For much memory a second thread writes while this one reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/progress.h"
#include "mem/mem.h"
#include "model/vma.h"

#define CHUNK_SIZE    (512u << 10)
#define CHUNK_PAGES   (CHUNK_SIZE / PAGE_SIZE_)
#define N_CHUNKS      4
#define THREAD_FROM   (8ull << 20) /* bytes; below, a thread costs more than it gains */
#define ALLOCATE_FROM (1ull << 20)
#define HOLD_MAX      (16ull << 20) /* of a dump; copying that much takes some 4 ms */

/* Bytes of the task and the pieces of them that are kept. */
struct chunk {
	uint8_t *data;
	struct iovec keep[CHUNK_PAGES];
	int n_keep;
	size_t bytes; /* kept */
};

struct reader {
	struct dump *d;
	struct dump_task *t;
	int mem;
	size_t run; /* where it stands: run and page in it */
	uint64_t page;
	size_t vma; /* mapping that holds the run */
	struct page_run *kept;
	size_t n_kept;
	uint64_t offset; /* of the next kept page in the file */
};

/* What reader and writer thread share. */
struct pipeline {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct chunk chunks[N_CHUNKS];
	unsigned filled, written; /* counts; filled - written are on the way */
	bool is_over;
	int fd;
	off_t pos;
	int error;
	uint64_t write_us;
};

static bool is_zero_page(const uint8_t *page)
{
	const uint64_t *p = (const uint64_t *)page, *end = p + PAGE_SIZE_ / sizeof(*p);

	if (*p)
		return false;
	for (; p < end; p += 64) {
		uint64_t any = 0;

		for (int i = 0; i < 64; i++)
			any |= p[i];
		if (any)
			return false;
	}
	return true;
}

/* In a private file mapping a page of zeroes hides what the file has there. */
static bool keeps_zero_pages(struct reader *r, uint64_t addr)
{
	const MmEntry *mm = r->t->mm;

	while (r->vma < mm->n_vmas && mm->vmas[r->vma]->end <= addr)
		r->vma++;
	return r->vma < mm->n_vmas && mm->vmas[r->vma]->status & VMA_FILE_PRIVATE;
}

static void keep_page(struct reader *r, struct chunk *c, uint8_t *page, uint64_t addr)
{
	struct iovec *piece = c->n_keep ? &c->keep[c->n_keep - 1] : NULL;
	struct page_run *run = r->n_kept ? &r->kept[r->n_kept - 1] : NULL;

	if (piece && (uint8_t *)piece->iov_base + piece->iov_len == page)
		piece->iov_len += PAGE_SIZE_;
	else
		c->keep[c->n_keep++] = (struct iovec){ page, PAGE_SIZE_ };
	if (run && run->vaddr + run->pages * PAGE_SIZE_ == addr)
		run->pages++;
	else
		*ARENA_PUSH(&r->d->arena, r->kept, r->n_kept) =
			(struct page_run){ .vaddr = addr, .pages = 1, .offset = r->offset };
	r->offset += PAGE_SIZE_;
	c->bytes += PAGE_SIZE_;
}

static void filter(struct reader *r, struct chunk *c, uint8_t *data, uint64_t addr, size_t pages)
{
	bool keeps_zero = keeps_zero_pages(r, addr);

	for (size_t i = 0; i < pages; i++, data += PAGE_SIZE_, addr += PAGE_SIZE_) {
		const uint8_t *saved = inject_saved_page(&r->t->in, addr);

		if (saved)
			memcpy(data, saved, PAGE_SIZE_);
		if (keeps_zero || !is_zero_page(data))
			keep_page(r, c, data, addr);
	}
}

/* Fills a chunk with the next pages. Returns 1, 0 when there are no more, or an error. */
static int fill_chunk(struct reader *r, struct chunk *c)
{
	size_t have = 0;

	c->n_keep = 0;
	c->bytes = 0;
	while (have < CHUNK_PAGES && r->run < r->t->n_runs) {
		const struct page_run *run = &r->t->runs[r->run];
		size_t n = min(run->pages - r->page, CHUNK_PAGES - have);
		uint64_t addr = run->vaddr + r->page * PAGE_SIZE_;
		uint8_t *data = c->data + have * PAGE_SIZE_;
		int rc = pread_all(r->mem, data, n * PAGE_SIZE_, addr);

		if (rc < 0)
			return fail(-rc, "pid %d: read its memory at %#lx", r->t->process->pid,
				    (long)addr);
		filter(r, c, data, addr, n);
		have += n;
		r->page += n;
		if (r->page == run->pages) {
			r->run++;
			r->page = 0;
		}
	}
	return have > 0;
}

/* Writes the kept pieces of a chunk. Returns 0 or -errno. */
static int write_chunk(int fd, struct chunk *c, off_t pos)
{
	struct iovec *v = c->keep;
	int n = c->n_keep;

	while (n) {
		ssize_t done = pwritev(fd, v, n, pos);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		pos += done;
		for (; n && (size_t)done >= v->iov_len; v++, n--)
			done -= v->iov_len;
		if (n) {
			v->iov_base = (uint8_t *)v->iov_base + done;
			v->iov_len -= done;
		}
	}
	return 0;
}

static int write_failed(int err, uint32_t id)
{
	return fail(err, "image pages-%u.img: write pages", id);
}

static int write_in_turn(struct reader *r, int fd, struct chunk *c)
{
	off_t pos = 0;

	for (;;) {
		int rc = fill_chunk(r, c);

		if (rc <= 0)
			return rc;
		uint64_t start = now_us();
		rc = write_chunk(fd, c, pos);
		r->d->stats.memwrite_us += now_us() - start;
		if (rc < 0)
			return write_failed(-rc, r->t->pages_id);
		pos += c->bytes;
		rc = engine_check(&r->d->engine);
		if (rc < 0)
			return rc;
	}
}

static void *writer_main(void *arg)
{
	struct pipeline *p = arg;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (p->written == p->filled && !p->is_over)
			pthread_cond_wait(&p->changed, &p->lock);
		if (p->written == p->filled)
			break;
		struct chunk *c = &p->chunks[p->written % N_CHUNKS];
		pthread_mutex_unlock(&p->lock);
		uint64_t start = now_us();
		int rc = p->error ? 0 : write_chunk(p->fd, c, p->pos);
		p->pos += c->bytes;
		p->write_us += now_us() - start;
		pthread_mutex_lock(&p->lock);
		if (rc < 0)
			p->error = -rc;
		p->written++;
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Waits for a free chunk; NULL after a write error. */
static struct chunk *next_chunk(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	while (p->filled - p->written == N_CHUNKS && !p->error)
		pthread_cond_wait(&p->changed, &p->lock);
	struct chunk *c = p->error ? NULL : &p->chunks[p->filled % N_CHUNKS];
	pthread_mutex_unlock(&p->lock);
	return c;
}

static void hand_over(struct pipeline *p, bool is_over)
{
	pthread_mutex_lock(&p->lock);
	if (is_over)
		p->is_over = true;
	else
		p->filled++;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static int read_all_chunks(struct reader *r, struct pipeline *p, uint64_t total)
{
	struct progress progress;
	struct chunk *c;

	progress_begin(&progress, "dump: memory", total);
	while ((c = next_chunk(p))) {
		int rc = fill_chunk(r, c);

		if (rc > 0) {
			hand_over(p, false);
			progress_add(&progress, CHUNK_SIZE);
			rc = engine_check(&r->d->engine);
			if (rc == 0)
				continue;
		}
		progress_end(&progress);
		return rc;
	}
	progress_end(&progress);
	return 0; /* the writer's error is looked at by the caller */
}

static int write_with_thread(struct reader *r, int fd, uint8_t *buffer, uint64_t total)
{
	struct pipeline p = { .lock = PTHREAD_MUTEX_INITIALIZER,
			      .changed = PTHREAD_COND_INITIALIZER,
			      .fd = fd };
	pthread_t writer;

	for (int i = 0; i < N_CHUNKS; i++)
		p.chunks[i].data = buffer + (size_t)i * CHUNK_SIZE;
	int err = pthread_create(&writer, NULL, writer_main, &p);
	if (err)
		return fail(err, "start a thread that writes pages");
	int rc = read_all_chunks(r, &p, total);
	hand_over(&p, true);
	pthread_join(writer, NULL);
	r->d->stats.memwrite_us += p.write_us;
	if (rc < 0)
		return rc;
	return p.error ? write_failed(p.error, r->t->pages_id) : 0;
}

static int write_runs(struct reader *r, int fd, uint64_t total)
{
	size_t size =
		total >= THREAD_FROM ? N_CHUNKS * CHUNK_SIZE : min(total, (uint64_t)CHUNK_SIZE);
	struct local_map map = { .size = size };
	struct chunk single;

	map.addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (map.addr == MAP_FAILED)
		return fail(errno, "allocate a buffer for pages");
	autounmap struct local_map buffer = map;

	if (total >= THREAD_FROM)
		return write_with_thread(r, fd, buffer.addr, total);
	single.data = buffer.addr;
	return write_in_turn(r, fd, &single);
}

static uint64_t total_bytes(const struct dump_task *t)
{
	uint64_t total = 0;

	for (size_t i = 0; i < t->n_runs; i++)
		total += t->runs[i].pages * PAGE_SIZE_;
	return total;
}

/* Copies all pages into the arena. */
static int hold(struct reader *r, uint64_t total)
{
	struct dump_task *t = r->t;
	uint64_t left = total;

	while (left) {
		struct chunk c;
		size_t size = min(left, (uint64_t)CHUNK_SIZE);

		c.data = arena_alloc(&r->d->arena, size);
		int rc = fill_chunk(r, &c);
		if (rc < 0)
			return rc;
		for (int i = 0; i < c.n_keep; i++)
			*ARENA_PUSH(&r->d->arena, t->held, t->n_held) = c.keep[i];
		left -= size;
	}
	r->d->held_bytes += total;
	return 0;
}

static int write_held(struct dump *d, struct dump_task *t)
{
	autoclose int fd = image_create_raw(&d->images, IMG_PAGES, t->pages_id);

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < t->n_held;) {
		size_t n = min(t->n_held - i, (size_t)CHUNK_PAGES);
		struct chunk c = { .n_keep = n };
		off_t pos = lseek(fd, 0, SEEK_END);

		memcpy(c.keep, t->held + i, n * sizeof(*c.keep));
		int rc = write_chunk(fd, &c, pos);
		if (rc < 0)
			return write_failed(-rc, t->pages_id);
		i += n;
	}
	return 0;
}

static int write_at_once(struct reader *r, uint64_t total)
{
	uint32_t id = r->t->pages_id;
	autoclose int fd = image_create_raw(&r->d->images, IMG_PAGES, id);

	if (fd < 0)
		return fd;
	bool reserved =
		total >= ALLOCATE_FROM && image_is_on_disk(fd) && fallocate(fd, 0, 0, total) == 0;
	int rc = write_runs(r, fd, total);
	if (rc == 0 && reserved && r->offset < total && ftruncate(fd, r->offset) < 0)
		rc = fail(errno, "image pages-%u.img: cut to its length", id);
	return rc;
}

int mem_save_pages(struct dump *d, struct dump_task *t)
{
	struct reader r = { .d = d, .t = t, .mem = process_mem(t->process) };
	uint64_t total = total_bytes(t), start = now_us();

	if (r.mem < 0)
		return -EIO;
	bool is_held = total <= HOLD_MAX - min(d->held_bytes, HOLD_MAX);
	t->is_held = is_held;
	int rc = is_held ? hold(&r, total) : write_at_once(&r, total);
	t->runs = r.kept;
	t->n_runs = r.n_kept;
	d->stats.pages_written += r.offset / PAGE_SIZE_;
	d->stats.memdump_us += now_us() - start;
	return rc;
}

int mem_write_images(struct dump *d, struct dump_task *t)
{
	int rc = t->is_held ? write_held(d, t) : 0;

	if (rc == 0)
		rc = image_write_one(&d->images, IMG_MM, t->process->pid, t->mm);
	if (rc < 0)
		return rc;
	return pagemap_write(&d->images, IMG_PAGEMAP, t->process->pid, t->pages_id, t->runs,
			     t->n_runs);
}
