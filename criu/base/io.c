/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/own.h"

int write_all(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		size -= n;
	}
	return 0;
}

int read_all(int fd, void *data, size_t size)
{
	char *p = data;

	while (size) {
		ssize_t n = read(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		p += n;
		size -= n;
	}
	return 0;
}

int pread_all(int fd, void *data, size_t size, off_t pos)
{
	char *p = data;

	while (size) {
		ssize_t n = pread(fd, p, size, pos);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		p += n;
		pos += n;
		size -= n;
	}
	return 0;
}

int pwrite_all(int fd, const void *data, size_t size, off_t pos)
{
	const char *p = data;

	while (size) {
		ssize_t n = pwrite(fd, p, size, pos);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		pos += n;
		size -= n;
	}
	return 0;
}

void iov_skip(struct iovec **v, int *n, size_t size)
{
	for (; *n && size >= (*v)->iov_len; ++*v, --*n)
		size -= (*v)->iov_len;
	if (*n) {
		(*v)->iov_base = (char *)(*v)->iov_base + size;
		(*v)->iov_len -= size;
	}
}

ssize_t read_file_at(int dirfd, const char *path, char **ret_text)
{
	autoclose int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	size_t size = 16384, len = 0;

	if (fd < 0)
		return -errno;
	autofree char *text = xmalloc(size);
	for (;;) {
		ssize_t n = read(fd, text + len, size - len - 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += n;
		if (size - len < size / 4) {
			size *= 4;
			text = xrealloc(text, size);
		}
	}
	text[len] = '\0';
	*ret_text = take_ptr(text);
	return len;
}

ssize_t read_small_at(int dirfd, const char *path, char *buf, size_t size)
{
	autoclose int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = read(fd, buf, size - 1);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	return n;
}

ssize_t read_link_at(int dirfd, const char *path, char *buf, size_t size)
{
	ssize_t n = readlinkat(dirfd, path, buf, size);

	if (n < 0)
		return -errno;
	if ((size_t)n >= size)
		return -ENAMETOOLONG;
	buf[n] = '\0';
	return n;
}

bool shows_event(int fd, short event)
{
	struct pollfd p = { .fd = fd, .events = event };

	return poll(&p, 1, 0) == 1 && p.revents & event;
}

int copy_fd_of(pid_t pid, int fd)
{
	autoclose int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int copy = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	return copy < 0 ? -errno : copy;
}

void raise_fd_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
}

uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}
