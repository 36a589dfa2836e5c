/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages into their file. A chunk of memory is read through /proc/PID/mem (which, unlike
 * process_vm_readv, leaves copy-on-write pages shared), cleaned of zero pages while it is in the
 * cache, and written. Much memory is moved by two threads that do the same with chunk after
 * chunk. Where a chunk goes in the file is known when it is clean:
 *  1. a worker takes the next chunk; 2. it reads and filters; 3. it waits for its turn, gives its
 *  pages their place and lets the next one do so; 4. it writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/progress.h"
#include "mem/cow.h"
#include "mem/incremental.h"
#include "mem/mem.h"
#include "mem/pageclient.h"
#include "model/vma.h"

#define CHUNK_SIZE    (256u << 10)
#define CHUNK_PAGES   (CHUNK_SIZE / PAGE_SIZE_)
#define THREAD_FROM   (8ull << 20) /* bytes; below, a thread costs more than it gains */
#define ALLOCATE_FROM (1ull << 20)

/* Memory of the task that lies together, and is kept in whole if keeps_zero. */
struct segment {
	uint64_t addr;
	size_t pages;
	bool keeps_zero;
};

/* Bytes of the task and the pieces of them that are kept. */
struct chunk {
	uint8_t *data;
	unsigned number;
	struct segment segments[CHUNK_PAGES];
	int n_segments;
	struct iovec keep[CHUNK_PAGES];
	int n_keep;
	struct page_run runs[CHUNK_PAGES]; /* their place is not known yet */
	int n_runs;
	uint64_t same[CHUNK_PAGES / 64]; /* as before: a bit for each page of a segment */
	off_t pos;			 /* in the file */
};

struct reader {
	struct dump *d;
	struct saved_pages *to;
	const struct dump_task *t; /* whose memory it is; NULL: that of a file */
	const char *who;
	int fd;	       /* of the memory */
	uint64_t size; /* its end; behind it is nothing but zeroes */
	bool is_live;  /* the task goes on */
	size_t run;    /* where it stands: run and page in it */
	uint64_t page;
	size_t vma; /* mapping that holds the run */
	struct page_run *kept;
	size_t n_kept;
	uint64_t offset; /* of the next kept page in the file */
	uint64_t n_same; /* pages that are as before */
	size_t known;	 /* runs that a page server has been told it knows */
	uint64_t failed; /* address that could not be read */
};

/* What the workers share. */
struct workers {
	pthread_mutex_t lock;
	pthread_cond_t placed_one;
	struct reader *r;
	unsigned taken, placed; /* chunks */
	int fd;
	int error; /* number; of a read if r->failed says where */
	bool is_cancelled;
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

/*
 * In a private file mapping a page of zeroes hides what the file has there. And a page server is
 * not asked whether it has a page that was not written to since: it gets all of them.
 */
static bool keeps_zero_pages(struct reader *r, uint64_t addr)
{
	if (!r->t)
		return false;
	if (r->d->opts->page_server && r->d->opts->track_mem)
		return true;
	const MmEntry *mm = r->t->mm;

	while (r->vma < mm->n_vmas && mm->vmas[r->vma]->end <= addr)
		r->vma++;
	return r->vma < mm->n_vmas && mm->vmas[r->vma]->status & VMA_FILE_PRIVATE;
}

/* Takes the next pages of the task for a chunk. Returns false if there are no more. */
static bool take_pages(struct reader *r, struct chunk *c)
{
	size_t have = 0;

	c->n_segments = 0;
	while (have < CHUNK_PAGES && r->run < r->to->n_runs) {
		const struct page_run *run = &r->to->runs[r->run];
		size_t n = min(run->pages - r->page, CHUNK_PAGES - have);
		uint64_t addr = run->vaddr + r->page * PAGE_SIZE_;

		c->segments[c->n_segments++] =
			(struct segment){ addr, n, keeps_zero_pages(r, addr) };
		have += n;
		r->page += n;
		if (r->page == run->pages) {
			r->run++;
			r->page = 0;
		}
	}
	return have > 0;
}

static void keep_page(struct chunk *c, uint8_t *page)
{
	struct iovec *piece = c->n_keep ? &c->keep[c->n_keep - 1] : NULL;

	if (piece && (uint8_t *)piece->iov_base + piece->iov_len == page)
		piece->iov_len += PAGE_SIZE_;
	else
		c->keep[c->n_keep++] = (struct iovec){ page, PAGE_SIZE_ };
}

static void list_page(struct chunk *c, uint64_t addr, bool in_parent)
{
	struct page_run *run = c->n_runs ? &c->runs[c->n_runs - 1] : NULL;

	if (run && page_run_end(run) == addr && run->in_parent == in_parent)
		run->pages++;
	else
		c->runs[c->n_runs++] =
			(struct page_run){ .vaddr = addr, .pages = 1, .in_parent = in_parent };
}

static void filter(const struct reader *r, struct chunk *c, uint8_t *data, const struct segment *s)
{
	uint64_t addr = s->addr;

	for (size_t i = 0; r->t && i < s->pages; i++) {
		const uint8_t *saved = inject_saved_page(&r->t->in, addr + i * PAGE_SIZE_);

		if (saved)
			memcpy(data + i * PAGE_SIZE_, saved, PAGE_SIZE_);
	}
	memset(c->same, 0, sizeof(c->same));
	if (r->t && r->t->before)
		incremental_compare(r->t->before, addr, data, s->pages, c->same);
	for (size_t i = 0; i < s->pages; i++, data += PAGE_SIZE_, addr += PAGE_SIZE_) {
		bool is_same = c->same[i / 64] >> i % 64 & 1;

		if (!s->keeps_zero && is_zero_page(data))
			continue;
		list_page(c, addr, is_same);
		if (!is_same)
			keep_page(c, data);
	}
}

/*
 * Bytes of the last page that lie behind the end of the file: mappings can have written there, and
 * only they can see it. Not read by ourselves, in case somebody cuts the file meanwhile.
 */
static int read_behind_end(const struct reader *r, uint8_t *data, uint64_t addr)
{
	uint64_t page = addr & ~(PAGE_SIZE_ - 1);
	size_t size = PAGE_SIZE_ - (addr - page);
	struct local_map map = { .size = PAGE_SIZE_ };

	map.addr = mmap(NULL, PAGE_SIZE_, PROT_READ, MAP_SHARED, r->fd, page);
	if (map.addr == MAP_FAILED)
		return -errno;
	autounmap struct local_map last = map;
	struct iovec to = { data, size }, from = { (uint8_t *)last.addr + (addr - page), size };
	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) < 0 ? -errno : 0;
}

/* The last page of a file may not be whole. */
static int read_bytes(const struct reader *r, uint8_t *data, size_t size, uint64_t addr)
{
	size_t there = addr < r->size ? min((uint64_t)size, r->size - addr) : 0;
	int rc = pread_all(r->fd, data, there, addr);

	memset(data + there, 0, size - there);
	if (rc == 0 && there < size && r->size % PAGE_SIZE_)
		rc = read_behind_end(r, data + there, r->size);
	return rc;
}

/* The task goes on meanwhile: what it has unmapped is left out. */
static void read_what_is_there(const struct reader *r, struct chunk *c, uint8_t *data,
			       const struct segment *s)
{
	for (size_t i = 0; i < s->pages; i++, data += PAGE_SIZE_) {
		const struct segment page = { s->addr + i * PAGE_SIZE_, 1, s->keeps_zero };

		if (read_bytes(r, data, PAGE_SIZE_, page.addr) == 0)
			filter(r, c, data, &page);
	}
}

/* Reads the pages of a chunk and leaves out what needs not be kept. Returns 0 or -errno. */
static int read_chunk(const struct reader *r, struct chunk *c, uint64_t *ret_failed)
{
	uint8_t *data = c->data;

	c->n_keep = c->n_runs = 0;
	for (int i = 0; i < c->n_segments; i++) {
		const struct segment *s = &c->segments[i];
		int rc = read_bytes(r, data, s->pages * PAGE_SIZE_, s->addr);

		if (rc == 0) {
			filter(r, c, data, s);
		} else if (r->is_live) {
			read_what_is_there(r, c, data, s);
		} else {
			*ret_failed = s->addr;
			return rc;
		}
		data += s->pages * PAGE_SIZE_;
	}
	return 0;
}

/* Gives the kept pages of a chunk their place in the file. */
static void place_chunk(struct reader *r, struct chunk *c)
{
	c->pos = r->offset;
	for (int i = 0; i < c->n_runs; i++) {
		const struct page_run *run = &c->runs[i];
		struct page_run *last = r->n_kept ? &r->kept[r->n_kept - 1] : NULL;

		if (last && page_run_end(last) == run->vaddr && last->in_parent == run->in_parent)
			last->pages += run->pages;
		else
			*ARENA_PUSH(&r->d->arena, r->kept, r->n_kept) = *run;
		if (run->in_parent)
			r->n_same += run->pages;
		else
			r->offset += run->pages * PAGE_SIZE_;
	}
}

static int read_failed(const struct reader *r, int err)
{
	return fail(err, "%s: read its memory at %#lx", r->who, (long)r->failed);
}

/* Fills a chunk with the next pages. Returns 1, 0 when there are no more, or an error. */
static int fill_chunk(struct reader *r, struct chunk *c)
{
	if (!take_pages(r, c))
		return 0;
	int rc = read_chunk(r, c, &r->failed);
	if (rc < 0)
		return read_failed(r, -rc);
	place_chunk(r, c);
	return 1;
}

/* Writes the kept pieces of a chunk. Returns 0 or -errno. */
static int write_chunk(int fd, struct chunk *c)
{
	struct iovec *v = c->keep;
	int n = c->n_keep;
	off_t pos = c->pos;

	while (n) {
		ssize_t done = pwritev(fd, v, n, pos);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		pos += done;
		iov_skip(&v, &n, done);
	}
	return 0;
}

/* Runs that are known to the server already and come before that address. */
static int send_known(struct reader *r, uint64_t addr)
{
	int rc = 0;

	for (; r->t && r->known < r->t->n_shared && r->t->shared[r->known].vaddr < addr && rc == 0;
	     r->known++) {
		struct page_run run = r->t->shared[r->known];

		run.in_parent = true;
		rc = page_client_add(r->d, r->to, &run, NULL, 0);
	}
	return rc;
}

/* Moves the pieces that hold the bytes of a run, or parts of them, from *v to out. */
static int take_pieces(struct iovec **v, uint64_t bytes, struct iovec *out)
{
	int n = 0;

	while (bytes) {
		size_t len = min((uint64_t)(*v)->iov_len, bytes);

		out[n++] = (struct iovec){ (*v)->iov_base, len };
		(*v)->iov_base = (uint8_t *)(*v)->iov_base + len;
		(*v)->iov_len -= len;
		*v += !(*v)->iov_len;
		bytes -= len;
	}
	return n;
}

/* Sends a run, of a chunk at most, with its bytes if it is present: they are the next pieces. */
static int send_run(struct reader *r, const struct page_run *run, struct iovec **v)
{
	struct iovec out[CHUNK_PAGES];
	int n = run->in_parent ? 0 : take_pieces(v, run->pages * PAGE_SIZE_, out);
	int rc = send_known(r, run->vaddr);

	return rc < 0 ? rc : page_client_add(r->d, r->to, run, out, n);
}

static int send_chunk(struct reader *r, struct chunk *c)
{
	struct iovec *v = c->keep;
	int rc = 0;

	for (int i = 0; i < c->n_runs && rc == 0; i++)
		rc = send_run(r, &c->runs[i], &v);
	return rc;
}

static int write_failed(int err, uint32_t id)
{
	return fail(err, "image pages-%u.img: write pages", id);
}

/* fd: the pages file; -1: the page server. */
static int put_chunk(struct reader *r, int fd, struct chunk *c)
{
	uint64_t start = now_us();
	int rc = fd < 0 ? send_chunk(r, c) : write_chunk(fd, c);

	r->d->stats.memwrite_us += now_us() - start;
	return rc < 0 && fd >= 0 ? write_failed(-rc, r->to->pages_id) : rc;
}

static int write_alone(struct reader *r, int fd, uint8_t *buffer)
{
	struct chunk c = { .data = buffer };

	for (;;) {
		int rc = fill_chunk(r, &c);

		if (rc <= 0)
			return rc;
		rc = put_chunk(r, fd, &c);
		if (rc == 0)
			rc = engine_check(&r->d->engine);
		if (rc < 0)
			return rc;
	}
}

static bool take_chunk(struct workers *w, struct chunk *c)
{
	pthread_mutex_lock(&w->lock);
	bool has_pages = !w->error && !w->is_cancelled && take_pages(w->r, c);
	if (has_pages)
		c->number = w->taken++;
	pthread_mutex_unlock(&w->lock);
	return has_pages;
}

/* Every chunk that was taken has its turn, or the next would wait for ever. */
static void place_in_turn(struct workers *w, struct chunk *c, int error, uint64_t failed)
{
	pthread_mutex_lock(&w->lock);
	while (w->placed != c->number)
		pthread_cond_wait(&w->placed_one, &w->lock);
	if (error && !w->error) {
		w->error = error;
		w->r->failed = failed;
	}
	if (!error)
		place_chunk(w->r, c);
	w->placed++;
	pthread_cond_broadcast(&w->placed_one);
	pthread_mutex_unlock(&w->lock);
}

static void note_written(struct workers *w, int error, uint64_t us)
{
	pthread_mutex_lock(&w->lock);
	if (error && !w->error)
		w->error = error;
	w->write_us += us;
	pthread_mutex_unlock(&w->lock);
}

/* One chunk from memory to file. Returns false if there was none, or an error. */
static bool move_chunk(struct workers *w, struct chunk *c)
{
	uint64_t failed = 0;

	if (!take_chunk(w, c))
		return false;
	int rc = read_chunk(w->r, c, &failed);
	place_in_turn(w, c, -rc, failed);
	if (rc < 0)
		return false;
	uint64_t start = now_us();
	rc = write_chunk(w->fd, c);
	note_written(w, -rc, now_us() - start);
	return rc == 0;
}

struct helper {
	struct workers *workers;
	struct chunk chunk;
};

static void *helper_main(void *arg)
{
	struct helper *h = arg;

	while (move_chunk(h->workers, &h->chunk))
		;
	return NULL;
}

/* The part of the first thread, which also looks after time, signals and the user. */
static int move_own_chunks(struct workers *w, uint8_t *buffer, uint64_t total)
{
	struct chunk c = { .data = buffer };
	struct progress progress;
	uint64_t seen = 0;
	int rc = 0;

	progress_begin(&progress, "dump: memory", total);
	while (rc == 0 && move_chunk(w, &c)) {
		progress_add(&progress, (c.number + 1) * (uint64_t)CHUNK_SIZE - seen);
		seen = (c.number + 1) * (uint64_t)CHUNK_SIZE;
		rc = engine_check(&w->r->d->engine);
	}
	progress_end(&progress);
	return rc;
}

static int write_with_helper(struct reader *r, int fd, uint8_t *buffer, uint64_t total)
{
	struct workers w = { .lock = PTHREAD_MUTEX_INITIALIZER,
			     .placed_one = PTHREAD_COND_INITIALIZER,
			     .r = r,
			     .fd = fd };
	struct helper helper = { .workers = &w, .chunk.data = buffer + CHUNK_SIZE };
	pthread_t thread;

	int err = pthread_create(&thread, NULL, helper_main, &helper);
	if (err)
		return fail(err, "start a thread that writes pages");
	int rc = move_own_chunks(&w, buffer, total);
	if (rc < 0) {
		pthread_mutex_lock(&w.lock);
		w.is_cancelled = true;
		pthread_mutex_unlock(&w.lock);
	}
	pthread_join(thread, NULL);
	r->d->stats.memwrite_us += w.write_us;
	if (rc < 0 || !w.error)
		return rc;
	return r->failed ? read_failed(r, w.error) : write_failed(w.error, r->to->pages_id);
}

static int write_runs(struct reader *r, int fd, uint64_t total)
{
	size_t size = total >= THREAD_FROM ? 2 * CHUNK_SIZE : min(total, (uint64_t)CHUNK_SIZE);
	struct local_map map = { .size = size };

	map.addr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (map.addr == MAP_FAILED)
		return fail(errno, "allocate a buffer for pages");
	autounmap struct local_map buffer = map;

	return fd >= 0 && total >= THREAD_FROM ? write_with_helper(r, fd, buffer.addr, total)
					       : write_alone(r, fd, buffer.addr);
}

uint64_t mem_total_pages(const struct saved_pages *p)
{
	uint64_t total = 0;

	for (size_t i = 0; i < p->n_runs; i++)
		total += p->runs[i].pages;
	return total;
}

/* Copies all pages into the arena. */
static int hold(struct reader *r, uint64_t total)
{
	struct saved_pages *to = r->to;
	uint64_t left = total;

	while (left) {
		struct chunk c;
		size_t size = min(left, (uint64_t)CHUNK_SIZE);

		c.data = arena_alloc(&r->d->arena, size);
		int rc = fill_chunk(r, &c);
		if (rc < 0)
			return rc;
		for (int i = 0; i < c.n_keep; i++)
			*ARENA_PUSH(&r->d->arena, to->held, to->n_held) = c.keep[i];
		left -= size;
	}
	r->d->held_bytes += total;
	return 0;
}

static int send_held(struct dump *d, struct saved_pages *p)
{
	struct reader r = { .d = d, .to = p };
	struct iovec *v = p->held;
	int rc = page_client_open(d, p);

	for (size_t i = 0; i < p->n_runs && rc == 0; i++) {
		struct page_run run = p->runs[i];

		/* In parts of a chunk: as many pieces as there is room for. */
		for (uint64_t left = run.pages; left && rc == 0; left -= run.pages) {
			run.pages = run.in_parent ? left : min(left, (uint64_t)CHUNK_PAGES);
			rc = send_run(&r, &run, &v);
			run.vaddr = page_run_end(&run);
		}
	}
	return rc;
}

static int write_held(struct dump *d, const struct saved_pages *t)
{
	autoclose int fd = image_create_raw(&d->images, IMG_PAGES, t->pages_id);

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < t->n_held;) {
		size_t n = min(t->n_held - i, (size_t)CHUNK_PAGES);
		struct chunk c = { .n_keep = n, .pos = lseek(fd, 0, SEEK_END) };

		memcpy(c.keep, t->held + i, n * sizeof(*c.keep));
		int rc = write_chunk(fd, &c);
		if (rc < 0)
			return write_failed(-rc, t->pages_id);
		i += n;
	}
	return 0;
}

static int write_at_once(struct reader *r, uint64_t total)
{
	uint32_t id = r->to->pages_id;
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

static int send_at_once(struct reader *r, uint64_t total)
{
	int rc = page_client_open(r->d, r->to);

	if (rc == 0)
		rc = write_runs(r, -1, total);
	return rc < 0 ? rc : send_known(r, UINT64_MAX);
}

static int save(struct reader *r)
{
	struct saved_pages *to = r->to;
	uint64_t total = mem_total_pages(to) * PAGE_SIZE_, start = now_us();

	if (!to->pages_id)
		to->pages_id = ++r->d->last_pages_id;
	to->is_held = total <= MEM_HOLD_MAX - min(r->d->held_bytes, MEM_HOLD_MAX);
	int rc = to->is_held		   ? hold(r, total)
		 : r->d->opts->page_server ? send_at_once(r, total)
					   : write_at_once(r, total);
	to->runs = r->kept;
	to->n_runs = r->n_kept;
	r->d->stats.pages_written += r->offset / PAGE_SIZE_;
	r->d->stats.pages_shared += r->n_same;
	r->d->stats.memdump_us += now_us() - start;
	return rc;
}

static int save_task(struct dump *d, struct dump_task *t, int mem, bool is_live)
{
	char who[32];
	struct reader r = { .d = d,
			    .t = t,
			    .to = &t->pages,
			    .who = who,
			    .fd = mem,
			    .size = UINT64_MAX,
			    .is_live = is_live };

	snprintf(who, sizeof(who), "pid %d", t->process->pid);
	int rc = save(&r);
	if (rc == 0)
		cow_merge(d, t);
	incremental_task_done(t);
	return rc;
}

/* Pages that are stored elsewhere: in an earlier dump, or with another task in the same directory.
 */
static int find_known(struct dump *d, struct dump_task *t)
{
	if (d->opts->prev_images_dir)
		return incremental_find(d, t);
	return d->opts->page_server ? 0 : cow_find(d, t);
}

int mem_save_pages(struct dump *d, struct dump_task *t)
{
	int mem = process_mem(t->process);
	int rc = mem < 0 ? mem : find_known(d, t);

	if (t->copy.pid)
		t->pages.pages_id = ++d->last_pages_id; /* as if it was saved now */
	return rc < 0 || t->copy.pid ? rc : save_task(d, t, mem, false);
}

int mem_save_copied(struct dump *d, struct dump_task *t)
{
	return t->copy.pid ? save_task(d, t, t->copy.mem_fd, false) : 0;
}

int mem_save_live(struct dump *d, struct dump_task *t)
{
	int mem = process_mem(t->process);

	return mem < 0 ? mem : save_task(d, t, mem, true);
}

/* The parts of a file in memory that were written to. */
static int find_data(struct reader *r)
{
	off_t pos = 0;

	while (pos >= 0 && (uint64_t)pos < r->size) {
		off_t start = lseek(r->fd, pos, SEEK_DATA);

		if (start < 0 && errno == ENXIO)
			return 0;
		pos = start < 0 ? -1 : lseek(r->fd, start, SEEK_HOLE);
		if (pos < 0)
			return fail(errno, "%s: look for its data", r->who);
		uint64_t first = start / PAGE_SIZE_;
		uint64_t end = (min((uint64_t)pos, r->size) + PAGE_SIZE_ - 1) / PAGE_SIZE_;

		if (first < end)
			*ARENA_PUSH(&r->d->arena, r->to->runs, r->to->n_runs) =
				(struct page_run){ .vaddr = first * PAGE_SIZE_,
						   .pages = end - first };
	}
	return 0;
}

int mem_save_file(struct dump *d, int fd, uint64_t size, const char *who, unsigned long id,
		  struct saved_pages *ret_pages)
{
	struct reader r = { .d = d, .to = ret_pages, .who = who, .fd = fd, .size = size };

	*ret_pages = (struct saved_pages){ .type = IMG_SHMEM_PAGEMAP, .id = id };
	int rc = find_data(&r);
	return rc < 0 ? rc : save(&r);
}

int mem_write_pages(struct dump *d, struct saved_pages *p)
{
	if (d->opts->page_server)
		return p->is_held ? send_held(d, p) : 0;
	int rc = p->is_held ? write_held(d, p) : 0;
	return rc < 0 ? rc
		      : pagemap_write(&d->images, p->type, p->id, p->pages_id, p->runs, p->n_runs);
}

int mem_write_images(struct dump *d, struct dump_task *t)
{
	int rc = image_write_one(&d->images, IMG_MM, t->process->pid, t->mm);

	if (rc == 0)
		rc = mem_write_pages(d, &t->pages);
	return rc < 0 ? rc : cow_write_levels(d, t);
}
