/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Named pipes: opened for both, for reading and writing apart, with an end
 * missing, with data; and one whose name is gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define MAX_BYTES	65536
#define BIG		131072

enum ends { TOGETHER, APART, READER, WRITER };

static const struct kind {
	const char *name;
	enum ends ends;
	int flags;
	long bytes;
	long capacity;
	bool unlinked;
} kinds[] = {
	{ "both",	TOGETHER,	0,			5000,	65536,	false },
	{ "both-empty",	TOGETHER,	O_NONBLOCK,		0,	65536,	false },
	{ "apart",	APART,		0,			4097,	65536,	false },
	{ "apart-empty", APART,		O_CLOEXEC,		0,	65536,	false },
	{ "nonblock",	APART,		O_NONBLOCK,		10,	65536,	false },
	{ "full",	APART,		0,			65536,	65536,	false },
	{ "big",	TOGETHER,	0,			60000,	BIG,	false },
	{ "reader",	READER,		O_NONBLOCK,		300,	65536,	false },
	{ "reader-empty", READER,	O_NONBLOCK,		0,	65536,	false },
	{ "writer",	WRITER,		O_NONBLOCK,		200,	65536,	false },
	{ "gone",	APART,		0,			3000,	65536,	true },
	{ "gone-both",	TOGETHER,	0,			20,	65536,	true },
};

static struct fifo {
	int r, w;	/* the same where one is for both; -1 where it is missing */
	struct stat st;
} fifos[ARRAY_SIZE(kinds)];

static int second_reader;	/* of "apart" */
static unsigned char scratch[MAX_BYTES];

static bool is_made(const struct kind *k)
{
	return !k->unlinked || param_long("unlinked");
}

static long unread(int fd)
{
	int n = -1;

	ioctl(fd, FIONREAD, &n);
	return n;
}

/* Does not wait for the other end while opening, whatever the flags will be. */
static void open_ends(struct fifo *f, const struct kind *k)
{
	const char *path = dir_path(k->name);

	need(k->name, mkfifo(path, 0640));
	if (k->ends == TOGETHER) {
		f->r = f->w = need(k->name, open(path, O_RDWR | k->flags));
		return;
	}
	f->r = need(k->name, open(path, O_RDONLY | O_NONBLOCK | k->flags));
	f->w = need(k->name, open(path, O_WRONLY | k->flags));
	if (!(k->flags & O_NONBLOCK))
		need("F_SETFL", fcntl(f->r, F_SETFL, 0));
}

static void drop_end(int *fd)
{
	close(*fd);
	*fd = -1;
}

static void put_data(const char *what, int w, long bytes, uint64_t seed)
{
	fill(scratch, bytes, seed);
	if (bytes && write(w, scratch, bytes) != bytes)
		bad_errno(what);
}

static void make_fifo(struct fifo *f, const struct kind *k)
{
	open_ends(f, k);
	if (k->capacity != 65536)
		need("F_SETPIPE_SZ", fcntl(f->w, F_SETPIPE_SZ, k->capacity));
	put_data(k->name, f->w, k->bytes, k - kinds);
	if (k->ends == READER)
		drop_end(&f->w);
	if (k->ends == WRITER)
		drop_end(&f->r);
	if (k->unlinked)
		need("unlink", unlink(dir_path(k->name)));
	if (f->r >= 0)
		remember_fd(k->name, f->r);
	if (f->w >= 0 && f->w != f->r)
		remember_fd(k->name, f->w);
	fstat(f->r >= 0 ? f->r : f->w, &f->st);
}

static void make(void)
{
	size_t i;

	signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_made(&kinds[i]))
			make_fifo(&fifos[i], &kinds[i]);
	second_reader = remember_fd("second reader", reopen(fifos[2].r, O_RDONLY));
	note_fds();
}

/* ---- check ---- */

static void check_node(const struct fifo *f, const struct kind *k, int fd)
{
	struct stat st = { 0 }, named = { 0 };
	char what[64];

	fstat(fd, &st);
	snprintf(what, sizeof(what), "%s: links", k->name);
	same_long(what, k->unlinked ? 0 : 1, st.st_nlink);
	snprintf(what, sizeof(what), "%s: capacity", k->name);
	same_long(what, k->capacity, fcntl(fd, F_GETPIPE_SZ));
	/* one that has no name is made anew; inode numbers of both ends are compared elsewhere */
	if (k->unlinked)
		return;
	snprintf(what, sizeof(what), "%s: inode", k->name);
	same_long(what, f->st.st_ino, st.st_ino);
	if (stat(dir_path(k->name), &named) < 0)
		bad_errno(k->name);
	same_long(what, named.st_ino, st.st_ino);
}

/* An end that is missing is opened for as long as the data are looked at. */
static bool borrow_ends(const struct fifo *f, const struct kind *k, int *ret_r, int *ret_w)
{
	*ret_r = f->r >= 0 ? f->r : reopen(f->w, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	*ret_w = f->w >= 0 ? f->w : reopen(f->r, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (*ret_r >= 0 && *ret_w >= 0)
		return true;
	bad("%s: the missing end: %s", k->name, strerror(errno));
	return false;
}

static void check_data(const struct kind *k, int r, int w)
{
	char what[64];
	long got;
	ssize_t at;

	snprintf(what, sizeof(what), "%s: bytes in it", k->name);
	if (!same_long(what, k->bytes, unread(r)))
		return;
	got = k->bytes ? read(r, scratch, k->bytes) : 0;
	if (!same_long(what, k->bytes, got))
		return;
	at = verify(scratch, k->bytes, k - kinds);
	if (at >= 0)
		bad("%s: wrong data at byte %zd", k->name, at);
	/* something comes through in any case */
	if (write(w, "hello", 6) != 6 || unread(r) != 6 || read(r, scratch, 6) != 6 ||
	    memcmp(scratch, "hello", 6))
		bad("%s: nothing comes through", k->name);
	put_data(k->name, w, k->bytes, k - kinds);
}

static void check_missing(const struct fifo *f, const struct kind *k)
{
	char what[64];

	if (k->ends == WRITER) {
		snprintf(what, sizeof(what), "%s: write without a reader", k->name);
		same_long(what, -1, write(f->w, "x", 1));
		same_long(what, EPIPE, errno);
	}
	if (k->ends == READER && !k->bytes && never_waits(f->r)) {
		snprintf(what, sizeof(what), "%s: read without a writer", k->name);
		same_long(what, 0, read(f->r, scratch, 1));
	}
	if (k->ends == READER && k->bytes) {
		snprintf(what, sizeof(what), "%s: poll without a writer", k->name);
		same_long(what, POLLIN | POLLHUP, ready_events(f->r));
	}
}

static void check_fifo(const struct fifo *f, const struct kind *k)
{
	int r, w;

	if (f->r >= 0)
		check_node(f, k, f->r);
	if (f->w >= 0)
		check_node(f, k, f->w);
	check_missing(f, k);
	if (!borrow_ends(f, k, &r, &w))
		return;
	if (r != w)
		check_other_file(k->name, r, w);
	if (same_long("inode of the other end", inode_of(r), inode_of(w)))
		check_data(k, r, w);
	if (f->r < 0)
		close(r);
	if (f->w < 0)
		close(w);
}

static void check(void)
{
	size_t i;

	check_fds();
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_made(&kinds[i]))
			check_fifo(&fifos[i], &kinds[i]);
	check_other_file("readers of a fifo", fifos[2].r, second_reader);
	same_long("inode of the second reader", inode_of(fifos[2].r), inode_of(second_reader));
	same_long("bytes for the second reader", kinds[2].bytes, unread(second_reader));
}

struct factory fifos_factory = {
	.name	= "fifos",
	.about	= "named pipes: data, capacity, missing ends",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "unlinked", "0", "1: also some whose name is gone" },
	},
	.make	= make,
	.check	= check,
};
