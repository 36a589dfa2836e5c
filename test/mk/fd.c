/* SPDX-License-Identifier: GPL-2.0-only */
/* Descriptors of any kind: what fcntl, fdinfo and kcmp tell about them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define MAX_FDS		128
#define MAX_LINES	64

static struct known_fd {
	const char *what;
	int fd;
	int status, fd_flags;
	mode_t mode;
	off_t offset;
} known[MAX_FDS];
static size_t nr_known;

long need(const char *what, long rc)
{
	if (rc < 0)
		die("%s: %s", what, strerror(errno));
	return rc;
}

int remember_fd(const char *what, int fd)
{
	need(what, fd);
	if (nr_known == MAX_FDS)
		die("too many descriptors");
	known[nr_known].what = what;
	known[nr_known++].fd = fd;
	return fd;
}

static void read_state(struct known_fd *f)
{
	struct stat st = { 0 };

	f->status = fcntl(f->fd, F_GETFL);
	f->fd_flags = fcntl(f->fd, F_GETFD);
	fstat(f->fd, &st);
	f->mode = st.st_mode;
	f->offset = lseek(f->fd, 0, SEEK_CUR);
}

void note_fds(void)
{
	size_t i;

	for (i = 0; i < nr_known; i++)
		read_state(&known[i]);
}

void check_fds(void)
{
	char what[96];
	size_t i;

	for (i = 0; i < nr_known; i++) {
		struct known_fd now = known[i];

		read_state(&now);
#define SAME(member)								\
	do {									\
		snprintf(what, sizeof(what), "%s: %s", now.what, #member);	\
		same_long(what, known[i].member, now.member);			\
	} while (0)
		SAME(status);
		SAME(fd_flags);
		SAME(mode);
		SAME(offset);
#undef SAME
	}
}

void allow_fds(long highest)
{
	struct rlimit limit = { highest + 1, highest + 1 };

	need("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
}

int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags);
}

ino_t inode_of(int fd)
{
	struct stat st = { 0 };

	fstat(fd, &st);
	return st.st_ino;
}

bool is_same_file(pid_t pid_a, int a, pid_t pid_b, int b)
{
	return syscall(SYS_kcmp, pid_a, pid_b, KCMP_FILE, (long)a, (long)b) == 0;
}

void check_same_file(const char *what, int a, int b)
{
	if (!is_same_file(getpid(), a, getpid(), b))
		bad("%s: %d and %d are not one open file description any more", what, a, b);
}

void check_other_file(const char *what, int a, int b)
{
	if (is_same_file(getpid(), a, getpid(), b))
		bad("%s: %d and %d have become one open file description", what, a, b);
}

bool never_waits(int fd)
{
	return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

short ready_events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	return poll(&p, 1, 0) < 0 ? POLLNVAL : p.revents;
}

void read_fdinfo(pid_t pid, int fd, char *buf, size_t size)
{
	char path[64];
	size_t used = 0;
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	while (info >= 0 && used < size - 1 && (n = read(info, buf + used, size - 1 - used)) > 0)
		used += n;
	buf[used] = '\0';
	if (info >= 0)
		close(info);
}

const char *fdinfo_value(pid_t pid, int fd, const char *key)
{
	static char text[8192];
	char *line, *rest = text;

	read_fdinfo(pid, fd, text, sizeof(text));
	while ((line = strsep(&rest, "\n")))
		if (!strncmp(line, key, strlen(key)))
			return line + strlen(key) + strspn(line + strlen(key), " \t");
	return "";
}

long position_of(pid_t pid, int fd)
{
	const char *pos = fdinfo_value(pid, fd, "pos:");

	return *pos ? strtol(pos, NULL, 10) : -1;
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void fdinfo_lines(int fd, const char *prefix, const char *end, char *buf, size_t size)
{
	char text[8192], *lines[MAX_LINES], *line, *rest = text, *cut;
	size_t nr = 0, used = 0, i;

	read_fdinfo(getpid(), fd, text, sizeof(text));
	while (nr < MAX_LINES && (line = strsep(&rest, "\n"))) {
		if (strncmp(line, prefix, strlen(prefix)))
			continue;
		cut = end ? strstr(line, end) : NULL;
		if (cut)
			*cut = '\0';
		lines[nr++] = line;
	}
	qsort(lines, nr, sizeof(lines[0]), compare_lines);
	buf[0] = '\0';
	for (i = 0; i < nr && used < size; i++)
		used += snprintf(buf + used, size - used, "%s\n", lines[i]);
}

bool sleeps_in(pid_t tid, long nr)
{
	char path[64], line[128], *end;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	read_line(path, line, sizeof(line));
	return strtol(line, &end, 10) == nr && end != line && *end == ' ';
}

union control {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

void send_fd(int sock, int fd)
{
	union control control = { 0 };
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.buf, .msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	need("sendmsg", sendmsg(sock, &msg, 0));
}

int receive_fd(int sock)
{
	union control control = { 0 };
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.buf, .msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *c;
	int fd;

	need("recvmsg", recvmsg(sock, &msg, 0));
	c = CMSG_FIRSTHDR(&msg);
	if (!c)
		die("no descriptor came");
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}
