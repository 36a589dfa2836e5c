/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pipes and fifos. Images: entries in files.img, queues in pipes-data and fifo-data. pipe(7).
 *
 * At dump the queue is duplicated with tee(2) into a pipe of criu. At restore criu makes the
 * pipe, fills it, and opens every description again from the first of its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"
#include "files/inherit.h"
#include "files/pipe.h"
#include "files/regular.h"
#include "sockets/sockets.h"

/* One description of a pipe, at dump. */
struct dump_pipe {
	dev_t dev;
	ino_t ino;
	uint32_t id; /* in the images; that of a fifo is found when all are known */
	bool is_fifo;
	pid_t pid;
	int fd;
	uint32_t flags;
	uint32_t size, bytes;
	PipeEntry *entry; /* NULL: a fifo */
	FifoEntry *fifo;  /* NULL: a pipe */
};

/* ---- dump ---- */

static bool is_pipe(const struct fd_probe *p)
{
	return S_ISFIFO(p->st.st_mode) && !strncmp(p->link, "pipe:[", 6);
}

static bool is_fifo(const struct fd_probe *p)
{
	return S_ISFIFO(p->st.st_mode) && !(p->info.flags & O_PATH);
}

static int by_pipe(const void *a, const void *b)
{
	const struct dump_pipe *x = a, *y = b;

	if (x->is_fifo != y->is_fifo)
		return x->is_fifo - y->is_fifo;
	if (x->dev != y->dev)
		return x->dev > y->dev ? 1 : -1;
	return (x->ino > y->ino) - (x->ino < y->ino);
}

/* The ends of a pipe mostly come one after the other: the second has nothing new to tell. */
static void note_pipe(struct dump *d, const struct fd_probe *p, const FileEntry *e)
{
	const struct dump_pipe *last = d->n_pipes ? &d->pipes[d->n_pipes - 1] : NULL;
	struct dump_pipe pipe = { .dev = p->st.st_dev,
				  .ino = p->st.st_ino,
				  .id = p->st.st_ino,
				  .is_fifo = e->fifo != NULL,
				  .entry = e->pipe,
				  .fifo = e->fifo,
				  .pid = p->task->process->pid,
				  .fd = p->fd,
				  .flags = probe_flags(p) };

	if (last && by_pipe(last, &pipe) == 0) {
		pipe.size = last->size;
		pipe.bytes = last->bytes;
	} else {
		int bytes = 0, size = fcntl(p->copy, F_GETPIPE_SZ);

		if (size < 0 || ioctl(p->copy, FIONREAD, &bytes) < 0)
			dump_block(d, "pid %d fd %d: %s: look into the pipe: %s", pipe.pid, p->fd,
				   p->link, strerror(errno));
		pipe.size = max(size, 0);
		pipe.bytes = bytes;
	}
	*ARENA_PUSH(&d->arena, d->pipes, d->n_pipes) = pipe;
}

static int no_copy(const struct fd_probe *p)
{
	return fail(errno,
		    "pid %d fd %d: %s: get a copy of the descriptor (pidfd_getfd, Linux 5.6)",
		    p->task->process->pid, p->fd, p->link);
}

static int pipe_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	if (p->copy < 0)
		return no_copy(p);
	e->pipe = MESSAGE(&d->arena, PipeEntry, pipe_entry);
	e->pipe->id = e->id;
	e->pipe->pipe_id = p->st.st_ino;
	e->pipe->flags = probe_flags(p);
	e->pipe->fown = fown_read(d, p);
	note_pipe(d, p, e);
	return 0;
}

static int fifo_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	FileEntry *file = files_new_entry(d);

	if (p->copy < 0)
		return no_copy(p);
	e->fifo = MESSAGE(&d->arena, FifoEntry, fifo_entry);
	e->fifo->id = e->id;
	e->fifo->pipe_id = p->st.st_ino;
	e->fifo->has_regf_id = true;
	e->fifo->regf_id = file->id;
	note_pipe(d, p, e);
	return regular_dump(d, p, file);
}

static size_t same_pipe(const struct dump *d, size_t first)
{
	size_t end = first;

	while (end < d->n_pipes && by_pipe(&d->pipes[first], &d->pipes[end]) == 0)
		end++;
	return end;
}

static bool has_end(const struct dump_pipe *from, const struct dump_pipe *to, uint32_t mode)
{
	for (; from < to; from++)
		if ((from->flags & O_ACCMODE) == mode || (from->flags & O_ACCMODE) == O_RDWR)
			return true;
	return false;
}

/* Has the other end no description at all, and had one? */
static bool is_hung_up(struct dump *d, const struct dump_pipe *p)
{
	autoclose int fd = files_dump_fd(d, p->pid, p->fd);

	if (fd < 0)
		dump_block(d, "pid %d fd %d: look at the other end of the pipe: %s", p->pid, p->fd,
			   strerror(-fd));
	return fd >= 0 && (shows_event(fd, POLLHUP) || shows_event(fd, POLLERR));
}

static void check_pipe(struct dump *d, const struct dump_pipe *p)
{
	if (is_hung_up(d, p))
		return;
	p->entry->has_peer_outside = p->entry->peer_outside = true;
	warn("pid %d fd %d: the other end of pipe:[%lu] is outside of the tree; to connect "
	     "it at restore give --inherit-fd 'fd[N]:pipe:[%lu]' with N open on a new pipe",
	     p->pid, p->fd, (unsigned long)p->ino, (unsigned long)p->ino);
}

/* Who opens a fifo for reading before anybody writes sees no end until a writer has come and gone.
 */
static void check_fifo(struct dump *d, const struct dump_pipe *from, const struct dump_pipe *to)
{
	for (const struct dump_pipe *p = from; p < to && !has_end(from, to, O_WRONLY); p++)
		p->fifo->has_no_hangup = p->fifo->no_hangup = !is_hung_up(d, p);
}

/* Of fifos on different file systems the inodes may have the same number. */
static uint32_t free_fifo_id(const struct dump *d, const struct dump_pipe *p)
{
	uint32_t id = p->ino;

	for (size_t i = 0; i < (size_t)(p - d->pipes);) {
		bool is_taken = d->pipes[i].is_fifo && d->pipes[i].id == id;

		i = is_taken ? 0 : i + 1;
		id += is_taken;
	}
	return id;
}

static void set_fifo_id(const struct dump *d, struct dump_pipe *from, struct dump_pipe *to)
{
	uint32_t id = free_fifo_id(d, from);

	for (; from < to; from++)
		from->id = from->fifo->pipe_id = id;
}

void pipes_check_ends(struct dump *d)
{
	if (d->n_pipes)
		qsort(d->pipes, d->n_pipes, sizeof(*d->pipes), by_pipe);
	for (size_t i = 0, end; i < d->n_pipes; i = end) {
		struct dump_pipe *p = &d->pipes[i], *last;

		end = same_pipe(d, i);
		last = d->pipes + end;
		if (p->is_fifo) {
			set_fifo_id(d, p, last);
			check_fifo(d, p, last);
		} else if (!has_end(p, last, O_RDONLY) || !has_end(p, last, O_WRONLY))
			check_pipe(d, p);
	}
}

/* A pipe of criu, with room for all that another one holds. */
struct own_pipe {
	int fd[2];
	uint32_t size;
};

static void own_pipe_close(struct own_pipe *p)
{
	own_close(&p->fd[0]);
	own_close(&p->fd[1]);
	p->fd[0] = p->fd[1] = -1;
}

#define autopipe __attribute__((cleanup(own_pipe_close)))

static int fit_pipe(struct own_pipe *own, uint32_t size)
{
	if (own->fd[0] >= 0 && own->size == size)
		return 0;
	own_pipe_close(own);
	if (pipe2(own->fd, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	own->size = size;
	return fcntl(own->fd[1], F_SETPIPE_SZ, size) < 0 ? -errno : 0;
}

/*
 * A description that can be read: the task's own, or of a pipe that it only writes another one.
 * Closing that is seen by nobody, while closing a second one for reading would send SIGIO.
 */
static int open_for_reading(struct dump *d, const struct dump_pipe *p)
{
	char path[64];

	if ((p->flags & O_ACCMODE) != O_WRONLY)
		return files_dump_fd(d, p->pid, p->fd);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", p->pid, p->fd);
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Reads the copy. With packets every read takes one. */
static int read_copy(struct dump *d, int fd, PipeDataEntry *e, uint8_t *data, bool has_packets)
{
	uint32_t have = 0;

	while (have < e->bytes) {
		ssize_t n = read(fd, data + have, e->bytes - have);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		/* Without packets one read gives all: more reads mean that there are some. */
		if (has_packets || e->n_packets || have + n < e->bytes)
			*ARENA_PUSH(&d->arena, e->packets, e->n_packets) = n;
		have += n;
	}
	return 0;
}

/* Returns the bytes that are in our pipe then, or -errno. */
static int copy_queue(struct dump *d, const struct dump_pipe *p, struct own_pipe *own)
{
	autoclose int fd = open_for_reading(d, p);
	int rc = fd < 0 ? fd : fit_pipe(own, p->size);

	if (rc < 0)
		return rc;
	ssize_t n = tee(fd, own->fd[1], INT32_MAX, SPLICE_F_NONBLOCK);
	/* A reader outside may have been faster. */
	return n < 0 && errno != EAGAIN ? -errno : max(n, (ssize_t)0);
}

/* The end of the first description that can write to it; -1: there is none. */
static int open_for_writing(struct dump *d, const struct dump_pipe *from,
			    const struct dump_pipe *to)
{
	for (; from < to; from++)
		if ((from->flags & O_ACCMODE) != O_RDONLY)
			return files_dump_fd(d, from->pid, from->fd);
	return -1;
}

/*
 * A pipe has a buffer for each page of its size, and is full when all hold something, be it a
 * byte. Would its bytes leave some free if they were written at once, while now none is?
 */
static bool is_full_before_time(struct dump *d, const struct dump_pipe *from,
				const struct dump_pipe *to)
{
	uint32_t buffers = from->size / PAGE_SIZE_;

	if (from->bytes < buffers || from->bytes > (buffers - 1) * PAGE_SIZE_)
		return false;
	autoclose int fd = open_for_writing(d, from, to);
	return fd >= 0 && !shows_event(fd, POLLOUT);
}

/*
 * The queue, in a pipe of ours, is taken out buffer by buffer: tee(2) copies one if there is room
 * for one. What was spliced from a socket may be in larger ones, which only that makes: then there
 * is no list.
 */
static int list_buffers(struct dump *d, int from, PipeDataEntry *e)
{
	autopipe struct own_pipe one = { .fd = { -1, -1 } };
	uint8_t bytes[PAGE_SIZE_];
	int rc = fit_pipe(&one, PAGE_SIZE_);

	for (uint32_t have = 0; have < e->bytes && rc == 0; have += e->buffers[e->n_buffers - 1]) {
		ssize_t n = tee(from, one.fd[1], INT32_MAX, SPLICE_F_NONBLOCK);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		if (n > (ssize_t)sizeof(bytes)) {
			e->n_buffers = 0;
			return 0;
		}
		*ARENA_PUSH(&d->arena, e->buffers, e->n_buffers) = n;
		if (read(one.fd[0], bytes, n) != n || read(from, bytes, n) != n)
			rc = -EIO;
	}
	return rc;
}

/* The group is that of all descriptions of the pipe. */
static int save_buffers(struct dump *d, const struct dump_pipe *from, const struct dump_pipe *to,
			PipeDataEntry *e)
{
	autopipe struct own_pipe own = { .fd = { -1, -1 } };

	if (!e->bytes || !is_full_before_time(d, from, to))
		return 0;
	int rc = copy_queue(d, from, &own);
	return rc < 0 ? rc : list_buffers(d, own.fd[0], e);
}

static bool has_packets(const struct dump_pipe *from, const struct dump_pipe *to)
{
	for (; from < to; from++)
		if (from->flags & O_DIRECT)
			return true;
	return false;
}

static int save_queue(struct dump *d, const struct dump_pipe *p, const struct dump_pipe *end,
		      struct own_pipe *own, struct image_out *out)
{
	PipeDataEntry *e = MESSAGE(&d->arena, PipeDataEntry, pipe_data_entry);
	autofree uint8_t *data = NULL;

	e->pipe_id = p->id;
	e->has_size = true;
	e->size = p->size;
	if (p->bytes) {
		int rc = copy_queue(d, p, own);

		if (rc < 0)
			return fail(-rc, "pid %d fd %d: copy the queue of the pipe", p->pid, p->fd);
		e->bytes = rc;
		data = xmalloc(e->bytes + 1);
		rc = read_copy(d, own->fd[0], e, data, has_packets(p, end));
		if (rc == 0)
			rc = save_buffers(d, p, end, e);
		if (rc < 0)
			return fail(-rc, "pid %d fd %d: read the copy of the queue", p->pid, p->fd);
	}
	image_add(out, e);
	if (e->bytes)
		memcpy(image_add_raw(out, e->bytes), data, e->bytes);
	return 0;
}

int pipes_save(struct dump *d)
{
	static const enum image_type types[2] = { IMG_PIPES_DATA, IMG_FIFO_DATA };
	autopipe struct own_pipe own = { .fd = { -1, -1 } };
	struct image_out out[2];
	int rc = 0;

	for (int k = 0; k < 2; k++)
		image_begin(&out[k], &d->images, types[k], 0);
	for (size_t i = 0, end; i < d->n_pipes && rc == 0; i = end) {
		struct dump_pipe *p = &d->pipes[i];

		end = same_pipe(d, i);
		rc = save_queue(d, p, d->pipes + end, &own, &out[p->is_fifo]);
	}
	for (int k = 0; k < 2; k++) {
		if (rc < 0)
			image_cancel(&out[k]);
		else
			rc = image_commit(&out[k]);
	}
	return rc;
}

/* ---- restore ---- */

/* One pipe: a description for each end, or for both. */
struct restore_pipe {
	uint32_t id;
	bool is_fifo;
	struct restore_pipe *next;
	int end[2];	  /* for reading, for writing; -1: there is none as yet */
	bool is_first[2]; /* nobody has it */
	bool is_held;	  /* a fifo: end[0] is for both, so that no open waits for another */
};

static int put(int fd, const uint8_t *data, uint32_t len, bool is_packet)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 ||
	    fcntl(fd, F_SETFL, (flags & ~O_DIRECT) | O_NONBLOCK | (is_packet ? O_DIRECT : 0)) < 0)
		return -errno;
	if (!len)
		return 0;
	ssize_t n = write(fd, data, len);
	return n < 0 ? -errno : n == (ssize_t)len ? 0 : -EAGAIN;
}

/*
 * What one read gives. More than PIPE_BUF bytes were no packet, but may have been followed by one,
 * which ends the read: it is the last part of them.
 */
static int put_record(int fd, const uint8_t *data, uint32_t len, bool is_last)
{
	uint32_t plain = len <= PIPE_BUF ? 0 : is_last ? len : len - PIPE_BUF;
	int rc = plain ? put(fd, data, plain, false) : 0;

	return rc < 0 || plain == len ? rc : put(fd, data + plain, len - plain, true);
}

/*
 * A buffer of its own, which is no packet. To one that was written what is written next is added,
 * packet or not, and so to one that was moved here, but not to a copy.
 */
static int put_buffer(const int through[2], int fd, const uint8_t *data, uint32_t len, bool is_last)
{
	uint8_t rest[PAGE_SIZE_];
	ssize_t n = write(through[1], data, len);

	if (n == (ssize_t)len && is_last)
		n = splice(through[0], NULL, fd, NULL, len, SPLICE_F_NONBLOCK);
	else if (n == (ssize_t)len && (n = tee(through[0], fd, len, SPLICE_F_NONBLOCK)) > 0)
		n = read(through[0], rest, n);
	return n < 0 ? -errno : n == (ssize_t)len ? 0 : -EAGAIN;
}

/* A packet is, or ends with, a buffer that is marked. */
static int put_buffers(const struct snapshot_pipe *q, int fd)
{
	autopipe struct own_pipe through = { .fd = { -1, -1 } };
	const PipeDataEntry *e = q->entry;
	uint32_t pos = 0, packet = 0, packet_end = e->n_packets ? e->packets[0] : UINT32_MAX;
	int rc = fit_pipe(&through, PAGE_SIZE_);

	for (size_t i = 0; i < e->n_buffers && rc == 0; i++) {
		uint32_t len = e->buffers[i];
		bool is_marked = pos + len == packet_end &&
				 (packet + 1 < e->n_packets || e->packets[packet] <= PIPE_BUF);

		rc = is_marked ? put(fd, q->data + pos, len, true)
			       : put_buffer(through.fd, fd, q->data + pos, len,
					    i + 1 == e->n_buffers);
		pos += len;
		while (packet_end <= pos && ++packet < e->n_packets)
			packet_end += e->packets[packet];
	}
	return rc;
}

static int put_packets(const struct snapshot_pipe *q, int fd)
{
	const PipeDataEntry *e = q->entry;
	int rc = 0;

	for (uint32_t pos = 0, i = 0; i < e->n_packets && rc == 0; i++) {
		rc = put_record(fd, q->data + pos, e->packets[i], i + 1 == e->n_packets);
		pos += e->packets[i];
	}
	return rc;
}

static int fill(const struct snapshot_pipe *q, int fd)
{
	const PipeDataEntry *e = q->entry;
	uint32_t size = max(e->has_size ? e->size : 0, e->bytes);
	if (size && fcntl(fd, F_SETPIPE_SZ, size) < 0)
		return fail(errno,
			    "pipe %#x: set its capacity to %u (see /proc/sys/fs/pipe-max-size)",
			    e->pipe_id, size);
	/* What was spliced from a socket takes less of it than what is written. */
	if (e->has_size && size > e->size)
		warn("pipe %#x: it held %u bytes with a capacity of %u, which has to be %u now",
		     e->pipe_id, e->bytes, e->size, fcntl(fd, F_GETPIPE_SZ));
	int rc = e->n_buffers	? put_buffers(q, fd)
		 : e->n_packets ? put_packets(q, fd)
				: put(fd, q->data, e->bytes, false);
	return rc < 0 ? fail(-rc, "pipe %#x: put its %u bytes back", e->pipe_id, e->bytes) : 0;
}

static int by_id(const void *a, const void *b)
{
	const struct restore_pipe *x = a, *y = b;

	if (x->is_fifo != y->is_fifo)
		return x->is_fifo - y->is_fifo;
	return (x->id > y->id) - (x->id < y->id);
}

static struct restore_pipe *find_pipe(struct restore *r, uint32_t id, bool fifo)
{
	const struct restore_pipe key = { .id = id, .is_fifo = fifo };
	struct restore_pipe **found = tfind(&key, &r->pipe_tree, by_id);

	return found ? *found : NULL;
}

static struct restore_pipe *add_pipe(struct restore *r, uint32_t id, bool fifo)
{
	struct restore_pipe *p = arena_new(&r->arena, struct restore_pipe);

	*p = (struct restore_pipe){
		.id = id, .is_fifo = fifo, .end = { -1, -1 }, .next = r->pipes
	};
	(void)tsearch(p, &r->pipe_tree, by_id);
	return r->pipes = p;
}

static int make_pipe(struct restore *r, struct restore_pipe *p)
{
	const struct snapshot_pipe *q = snapshot_pipe(&r->snapshot, false, p->id);
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(errno, "pipe %#x: make it", p->id);
	p->end[0] = ends[0];
	p->end[1] = ends[1];
	p->is_first[0] = p->is_first[1] = true;
	return q ? fill(q, p->end[1]) : 0;
}

/* The description of an end: the first one of a new pipe, or another opened from it. */
static int take_end(struct restore_pipe *p, uint32_t flags)
{
	uint32_t mode = flags & O_ACCMODE;
	int i = mode != O_RDONLY;

	/* What pipe(2) gives has not the flag that every open(2) sets. */
	if (mode == O_RDWR || !p->is_first[i] || flags & O_LARGEFILE_BIT) {
		int from = p->end[i] >= 0 ? p->end[i] : p->end[!i];
		int fd = file_reopen(from, flags | O_NONBLOCK);

		return fd < 0 ? fail(-fd, "pipe %#x: open another description", p->id) : fd;
	}
	p->is_first[i] = false;
	int fd = fcntl(p->end[i], F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? fail(errno, "pipe %#x: duplicate its end", p->id) : fd;
}

/* A descriptor for the end that no task has would leave the tasks without a peer. */
static int check_given_end(const struct restore *r, const char *name, uint32_t id, int fd)
{
	uint32_t mode = fcntl(fd, F_GETFL) & O_ACCMODE;

	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		const PipeEntry *e = r->snapshot.files[i]->pipe;

		if (e && e->pipe_id == id && (mode == O_RDWR || (e->flags & O_ACCMODE) == mode))
			return 0;
	}
	return refuse(EINVAL,
		      "--inherit-fd: %s: no process had the end for %s, which its descriptor "
		      "is; give the other one",
		      name, mode == O_RDONLY ? "reading" : "writing");
}

static int pipe_open(struct restore *r, const FileEntry *e)
{
	struct restore_pipe *p = find_pipe(r, e->pipe->pipe_id, false);
	char name[32];

	snprintf(name, sizeof(name), "pipe:[%u]", e->pipe->pipe_id);
	if (!p) {
		p = add_pipe(r, e->pipe->pipe_id, false);
		int inherited = inherit_by_key(r, name);
		int rc = 0;

		if (inherited >= 0)
			rc = check_given_end(r, name, p->id, inherited);
		if (inherited >= 0 && rc == 0)
			rc = inherit_pipe(r, name, inherited, p->end, p->is_first);
		if (inherited < 0)
			rc = make_pipe(r, p);
		if (rc < 0)
			return rc;
		if (inherited < 0 && e->pipe->peer_outside)
			warn("%s: its other end was outside of the tree: it is closed now; to "
			     "connect it give --inherit-fd 'fd[N]:%s'",
			     name, name);
	}
	int fd = take_end(p, e->pipe->flags);
	return fd < 0 ? fd : file_finish(fd, e->pipe->flags, name);
}

static const RegFileEntry *file_of_fifo(const struct restore *r, const FileEntry *e)
{
	int i = snapshot_file(&r->snapshot, e->fifo->has_regf_id ? e->fifo->regf_id : e->fifo->id);

	return i < 0 ? NULL : r->snapshot.files[i]->reg;
}

static int open_fifo(struct restore *r, const RegFileEntry *file, int *ret_bytes)
{
	autoclose int fd = regular_open_part(r, file, O_RDWR | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return refuse(EINVAL, "file %s: it was a fifo, and is none now", file->name);
	if (ioctl(fd, FIONREAD, ret_bytes) < 0)
		return fail(errno, "fifo %s: look into it", file->name);
	return take_fd(&fd);
}

/* Was something in flight? Then one may wait, once in a restore, until that is collected. */
static bool may_be_garbage(struct restore *r)
{
	if (!r->fifo_give_up_us)
		r->fifo_give_up_us = now_us() + SOCKETS_COLLECT_US;
	for (size_t i = 0; i < r->snapshot.n_packets; i++)
		if (r->snapshot.packets[i].entry->n_scm)
			return sockets_may_be_collected(r->fifo_give_up_us);
	return false;
}

/*
 * Something is in it only if somebody has it open: a program outside, which has kept what was in
 * it at the dump, too; or the tree that was killed, and that is about to be over.
 */
static int hold_fifo(struct restore *r, struct restore_pipe *p, const RegFileEntry *file)
{
	const struct snapshot_pipe *q = snapshot_pipe(&r->snapshot, true, p->id);
	int bytes = 0;

	for (;;) {
		p->end[0] = open_fifo(r, file, &bytes);
		if (p->end[0] < 0)
			return p->end[0];
		if (!bytes || !may_be_garbage(r))
			break;
		(void)close(p->end[0]);
	}
	p->is_held = true;
	if (bytes)
		warn("fifo %s: it is open elsewhere, and has %d bytes in it: the %u of the images "
		     "are not added",
		     file->name, bytes, q ? q->entry->bytes : 0);
	return q && !bytes ? fill(q, p->end[0]) : 0;
}

/* From now on nobody writes; what is in it stays. */
static int leave_to_readers(struct restore_pipe *p)
{
	int fd = file_reopen(p->end[0], O_RDONLY | O_NONBLOCK);

	if (fd < 0)
		return fd;
	(void)close(p->end[0]);
	p->end[0] = fd;
	p->is_held = false;
	return 0;
}

static bool fifo_is_last(const FileEntry *e)
{
	return e->fifo && e->fifo->no_hangup;
}

static int fifo_open(struct restore *r, const FileEntry *e)
{
	const RegFileEntry *file = file_of_fifo(r, e);
	struct restore_pipe *p = find_pipe(r, e->fifo->pipe_id, true);

	if (!p) {
		p = add_pipe(r, e->fifo->pipe_id, true);
		int rc = hold_fifo(r, p, file);
		if (rc < 0)
			return rc;
	}
	if (e->fifo->no_hangup && p->is_held) {
		int rc = leave_to_readers(p);
		if (rc < 0)
			return fail(-rc, "fifo %s: open for reading", file->name);
	}
	/* Through the descriptor: a deleted fifo has its name only for the first time. */
	int fd = file_reopen(p->end[0], file->flags | O_NONBLOCK);
	if (fd < 0)
		return fail(-fd, "fifo %s: open again", file->name);
	return file_finish(fd, file->flags, file->name);
}

void pipes_close_rest(struct restore *r)
{
	for (struct restore_pipe *p = r->pipes; p; p = p->next)
		for (int k = 0; k < 2; k++) {
			own_close(&p->end[k]);
			p->end[k] = -1;
		}
	tdestroy(r->pipe_tree, arena_leave_node);
	r->pipe_tree = r->pipes = NULL;
}

static bool fifo_has_part(const FileEntry *e)
{
	return e->fifo && e->fifo->id == e->id;
}

static int fifo_check(const struct restore *r, const FileEntry *e)
{
	const RegFileEntry *file = file_of_fifo(r, e);

	if (!file || file->name[0] != '/')
		return refuse(EINVAL, "image files.img: fifo %#x: there is no file of it", e->id);
	return 0;
}

static const FownEntry *fifo_fown(const struct restore *r, const FileEntry *e)
{
	return file_of_fifo(r, e)->fown;
}

static uint32_t fifo_flags(const struct restore *r, const FileEntry *e)
{
	return file_of_fifo(r, e)->flags;
}

FILE_PART(pipe, pipe)

const struct file_class pipe_class = {
	.name = "pipe",
	.type = FD_TYPES__PIPE,
	.match = is_pipe,
	.dump = pipe_dump,
	.has_part = pipe_has_part,
	.open = pipe_open,
	.fown = pipe_fown,
	.flags = pipe_flags,
};

const struct file_class fifo_class = {
	.name = "fifo",
	.type = FD_TYPES__FIFO,
	.match = is_fifo,
	.dump = fifo_dump,
	.has_part = fifo_has_part,
	.check = fifo_check,
	.open = fifo_open,
	.is_last = fifo_is_last,
	.fown = fifo_fown,
	.flags = fifo_flags,
};
