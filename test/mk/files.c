/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Open files: offsets, access modes, flags, descriptors that share one open
 * file description (dup, fork) or only look so, devices, directories, O_PATH.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

#define DATA_BYTES	10000
#define HIGH_FD		900
#define NR_NAMES	50	/* entries of the directory that is being read */
#define MAX_FDS		32

struct open_fd {
	const char *what;
	int fd;
	/* as they were when made */
	int status, fd_flags;
	dev_t dev, rdev;
	ino_t ino;
	off_t offset;
	char link[256];
};

static struct open_fd fds[MAX_FDS];
static int nr_fds;

/* The ones that are used, not only looked at. */
static int reading, appending, writing, twin_a, twin_b, loner, shared, ack, listing;
static int path_dir, path_file;
static int dev_zero, dev_full, dev_random, dev_null;
static pid_t child;
static char cwd[512];
static mode_t mask;
static off_t appended;
static off_t shared_offset;
static char names_read[NR_NAMES + 2][32], names_left[NR_NAMES + 2][32];
static int nr_read, nr_left;

static void note_offset(struct open_fd *f)
{
	f->offset = lseek(f->fd, 0, SEEK_CUR);
}

static void read_state(int fd, struct open_fd *ret_state)
{
	struct stat st = { 0 };

	ret_state->fd = fd;
	ret_state->status = fcntl(fd, F_GETFL);
	ret_state->fd_flags = fcntl(fd, F_GETFD);
	fstat(fd, &st);
	ret_state->dev = st.st_dev;
	ret_state->rdev = st.st_rdev;
	ret_state->ino = st.st_ino;
	note_offset(ret_state);
	fd_name(fd, ret_state->link, sizeof(ret_state->link));
}

static int remember(const char *what, int fd)
{
	if (fd < 0)
		die("%s: %s", what, strerror(errno));
	if (nr_fds == MAX_FDS)
		die("too many descriptors");
	fds[nr_fds].what = what;
	fds[nr_fds].fd = fd;
	nr_fds++;
	return fd;
}

static void write_file(const char *name, uint64_t seed)
{
	char data[DATA_BYTES];
	int fd = open(dir_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	fill(data, sizeof(data), seed);
	if (fd < 0 || write(fd, data, sizeof(data)) != sizeof(data) || close(fd) < 0)
		die("%s: %s", name, strerror(errno));
}

static int open_at(const char *name, int flags, off_t offset)
{
	int fd = open(dir_path(name), flags, 0600);

	if (fd >= 0 && offset)
		lseek(fd, offset, SEEK_SET);
	return fd;
}

static void open_regular(void)
{
	const int odd_flags = O_RDWR | O_NONBLOCK | O_NOATIME | O_DSYNC;

	write_file("data", 1);
	reading = remember("read-only", open_at("data", O_RDONLY, 1234));
	writing = remember("read-write", open_at("data", O_RDWR, 4321));
	/* By the call itself: a C library adds O_LARGEFILE where that says something. */
	remember("small", syscall(SYS_openat, AT_FDCWD, dir_path("data"), O_RDONLY));
	appending = remember("append", open_at("log", O_WRONLY | O_CREAT | O_APPEND, 0));
	remember("odd flags", open_at("data", odd_flags, 77));
	remember("offset behind the end", open_at("data", O_RDWR, 1L << 40));
	remember("close on exec", open_at("data", O_RDONLY | O_CLOEXEC, 0));
	remember("no close on exec", open_at("data", O_RDONLY, 1));
	remember("empty file", open_at("empty", O_RDWR | O_CREAT | O_EXCL, 0));
}

static void open_twins(void)
{
	twin_a = remember("twin", open_at("data", O_RDWR, 100));
	twin_b = remember("twin made with dup", dup(twin_a));
	if (fcntl(twin_b, F_SETFD, FD_CLOEXEC) < 0 || dup2(twin_a, HIGH_FD) < 0)
		die("dup: %s", strerror(errno));
	remember("twin with a high number", HIGH_FD);
	loner = remember("same file, opened again", open_at("data", O_RDWR, 100));
}

static void open_devices(void)
{
	dev_null = remember("null", open("/dev/null", O_RDWR));
	dev_zero = remember("zero", open("/dev/zero", O_RDONLY));
	dev_full = remember("full", open("/dev/full", O_WRONLY));
	dev_random = remember("urandom", open("/dev/urandom", O_RDONLY | O_NONBLOCK));
}

static void open_paths(void)
{
	path_file = remember("O_PATH file", open_at("data", O_PATH, 0));
	path_dir = remember("O_PATH directory",
			    open_at("names", O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
}

/* ---- a directory, read half-way ---- */

struct dirent64_head {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static int read_names(int fd, char list[][32], int max, size_t bytes)
{
	char buf[4096];
	long n = syscall(SYS_getdents64, fd, buf, bytes), at;
	int nr = 0;

	for (at = 0; at < n && nr < max; nr++) {
		const struct dirent64_head *d = (const void *)(buf + at);

		snprintf(list[nr], sizeof(list[nr]), "%s", d->name);
		at += d->reclen;
	}
	return nr;
}

static int read_all_names(int fd, char list[][32], int max)
{
	int nr = 0, more;

	while (nr < max && (more = read_names(fd, list + nr, max - nr, 4096)) > 0)
		nr += more;
	return nr;
}

static void open_listing(void)
{
	char name[32];
	off_t here;
	int i, fd;

	if (mkdir(dir_path("names"), 0755) < 0)
		die("mkdir: %s", strerror(errno));
	for (i = 0; i < NR_NAMES; i++) {
		snprintf(name, sizeof(name), "names/entry-%d", i);
		fd = open(dir_path(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0 || close(fd) < 0)
			die("%s: %s", name, strerror(errno));
	}
	listing = remember("directory", open(dir_path("names"), O_RDONLY | O_DIRECTORY));
	nr_read = read_names(listing, names_read, ARRAY_SIZE(names_read), 600);
	here = lseek(listing, 0, SEEK_CUR);
	nr_left = read_all_names(listing, names_left, ARRAY_SIZE(names_left));
	lseek(listing, here, SEEK_SET);
	if (!nr_read || nr_read + nr_left != NR_NAMES + 2)
		die("directory: %d entries read, then %d", nr_read, nr_left);
}

static void check_listing(void)
{
	char now[NR_NAMES + 2][32];
	off_t here = lseek(listing, 0, SEEK_CUR);
	int nr = read_all_names(listing, now, ARRAY_SIZE(now)), i;

	lseek(listing, here, SEEK_SET);
	if (same_long("directory entries left", nr_left, nr))
		for (i = 0; i < nr; i++)
			same_str("directory entry", names_left[i], now[i]);
}

/* ---- a description shared with a child ---- */

/* The child moves the offset it shares with us, and says in a file where it got to. */
static void child_moves(void)
{
	off_t there = lseek(shared, 7, SEEK_CUR);

	if (pwrite(ack, &there, sizeof(there), 0) != sizeof(there))
		_exit(1);
}

static void child_leaves(void)
{
	_exit(11);
}

static void start_child(void)
{
	shared = remember("shared with a child", open_at("data", O_RDWR, 500));
	ack = remember("answers of the child", open_at("ack", O_RDWR | O_CREAT, 0));
	child = fork();
	if (child < 0)
		die("fork: %s", strerror(errno));
	if (!child)
		serve_signals(child_moves, child_leaves);
	shared_offset = 500;
}

static bool child_answered(void *arg)
{
	off_t *there = arg;

	return pread(ack, there, sizeof(*there), 0) == sizeof(*there) && *there;
}

static void check_shared(void)
{
	off_t there = 0;

	shared_offset += 7;
	if (ftruncate(ack, 0) < 0 || kill(child, SIGUSR1) < 0) {
		bad_errno("asking the child");
		return;
	}
	if (!wait_until(child_answered, &there)) {
		bad("the child does not answer");
		return;
	}
	same_long("offset the child moved to", shared_offset, there);
	same_long("offset the child moved, seen here", shared_offset, lseek(shared, 0, SEEK_CUR));
}

/* ---- all of it ---- */

static void make(void)
{
	struct rlimit limit = { 2 * HIGH_FD, 2 * HIGH_FD };
	int i;

	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("setrlimit: %s", strerror(errno));
	open_regular();
	open_twins();
	open_devices();
	open_listing();
	open_paths();
	if (mkdir(dir_path("cwd"), 0755) < 0 || chdir(dir_path("cwd")) < 0 ||
	    !getcwd(cwd, sizeof(cwd)))
		die("cwd: %s", strerror(errno));
	mask = 0123;
	umask(mask);
	start_child();
	for (i = 0; i < nr_fds; i++)
		read_state(fds[i].fd, &fds[i]);
}

static void check_state(const struct open_fd *f)
{
	struct open_fd now = { 0 };
	char what[96];

	read_state(f->fd, &now);
#define SAME(member)								\
	do {									\
		snprintf(what, sizeof(what), "%s: %s", f->what, #member);	\
		same_long(what, f->member, now.member);				\
	} while (0)
	SAME(status);
	SAME(fd_flags);
	SAME(dev);
	SAME(rdev);
	SAME(ino);
	SAME(offset);
#undef SAME
	same_str(f->what, f->link, now.link);
}

static void check_data(const char *what, int fd, off_t at)
{
	unsigned char got[64], want[DATA_BYTES];
	ssize_t n = read(fd, got, sizeof(got));

	fill(want, sizeof(want), 1);
	if (n != sizeof(got) || memcmp(got, want + at, sizeof(got)))
		bad("%s: wrong data at offset %ld", what, (long)at);
	lseek(fd, at, SEEK_SET);
}

static void check_append(void)
{
	lseek(appending, 0, SEEK_SET);
	if (write(appending, "line\n", 5) != 5)
		bad_errno("append");
	appended += 5;
	same_long("offset after append", appended, lseek(appending, 0, SEEK_CUR));
}

/* One moves, its dups follow, a second open of the same file stays. */
static void check_twins(void)
{
	lseek(twin_b, 333, SEEK_SET);
	same_long("offset of the twin", 333, lseek(twin_a, 0, SEEK_CUR));
	same_long("offset of the twin with a high number", 333, lseek(HIGH_FD, 0, SEEK_CUR));
	same_long("offset of the loner", 100, lseek(loner, 0, SEEK_CUR));
	lseek(twin_a, 100, SEEK_SET);
	fcntl(HIGH_FD, F_SETFL, O_NONBLOCK);
	same_long("flags of the twin", O_RDWR | O_NONBLOCK, fcntl(twin_a, F_GETFL) & ~0100000);
	fcntl(twin_a, F_SETFL, 0);
}

static void check_devices(void)
{
	unsigned char buf[16] = "not zero at all";
	static const unsigned char zero[16];

	if (read(dev_zero, buf, sizeof(buf)) != sizeof(buf) || memcmp(buf, zero, sizeof(buf)))
		bad("/dev/zero does not read zeroes");
	if (read(dev_random, buf, sizeof(buf)) != sizeof(buf) || !memcmp(buf, zero, sizeof(buf)))
		bad("/dev/urandom does not read random bytes");
	if (write(dev_full, buf, 1) != -1 || errno != ENOSPC)
		bad("/dev/full is not full");
	if (read(dev_null, buf, 1) != 0 || write(dev_null, buf, 1) != 1)
		bad("/dev/null does not work");
}

static void check_paths(void)
{
	char c;
	int fd;

	if (read(path_file, &c, 1) != -1 || errno != EBADF)
		bad("O_PATH file can be read");
	fd = openat(path_dir, "entry-7", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		bad_errno("openat the O_PATH directory");
	else
		close(fd);
}

static void check_process(void)
{
	char now[512] = "";
	mode_t old;

	if (!getcwd(now, sizeof(now)))
		bad_errno("getcwd");
	same_str("cwd", cwd, now);
	old = umask(mask);
	same_long("umask", mask, old);
}

static void check(void)
{
	int i;

	for (i = 0; i < nr_fds; i++)
		check_state(&fds[i]);
	check_data("read-only", reading, 1234);
	check_data("read-write", writing, 4321);
	check_append();
	check_twins();
	check_devices();
	check_listing();
	check_paths();
	check_process();
	check_shared();
	/* this check moved these two */
	for (i = 0; i < nr_fds; i++)
		if (fds[i].fd == shared || fds[i].fd == appending)
			note_offset(&fds[i]);
}

static void stop(void)
{
	int status = 0;

	kill(child, SIGTERM);
	if (waitpid(child, &status, 0) != child)
		bad_errno("waitpid");
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 11)
		bad("exit status of the child, expected 11, got %#x", status);
}

struct factory files_factory = {
	.name	= "files",
	.about	= "regular files, devices, directories, cwd, umask, shared offsets",
	.params	= {
		{ "dir", NULL, "an empty directory" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
