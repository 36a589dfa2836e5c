/* SPDX-License-Identifier: GPL-2.0-only */
/* Whole reads and writes, and small files. Nothing here logs. */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Write or read exactly size bytes. Return 0 or -errno; a file that ends early is -ENODATA. */
int write_all(int fd, const void *data, size_t size);
int read_all(int fd, void *data, size_t size);
int pread_all(int fd, void *data, size_t size, off_t pos);
int pwrite_all(int fd, const void *data, size_t size, off_t pos);

/* Leaves out what is done of the pieces: the first size bytes. */
struct iovec;
void iov_skip(struct iovec **v, int *n, size_t size);

/*
 * Reads a whole file of unknown size (such as one of /proc), NUL-terminated.
 * Returns its length or -errno; the caller frees *ret_text.
 */
ssize_t read_file_at(int dirfd, const char *path, char **ret_text);

/*
 * Reads up to size - 1 bytes of a small file of /proc into buf, NUL-terminated, by one read: such
 * files come as a whole. Length or -errno.
 */
ssize_t read_small_at(int dirfd, const char *path, char *buf, size_t size);

/* readlinkat with termination; -ENAMETOOLONG if it does not fit. Returns the length or -errno. */
ssize_t read_link_at(int dirfd, const char *path, char *buf, size_t size);

/*
 * A copy of a descriptor of another process, close-on-exec (pidfd_getfd(2), Linux 5.6). The caller
 * closes it; or -errno.
 */
int copy_fd_of(pid_t pid, int fd);

/* Does poll(2) show that event (POLLIN, POLLHUP, ...) right now? */
bool shows_event(int fd, short event);

/* As many descriptors as the hard limit allows: trees and images may need them. */
void raise_fd_limit(void);

/* Monotonic time in microseconds. */
uint64_t now_us(void);

#endif
