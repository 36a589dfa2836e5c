/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * --inherit-fd 'fd[N]:KEY': the description behind criu's descriptor N is used as it is, position
 * and all, in place of the file that KEY names. 'debug[N]:TEXT' writes TEXT to N.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "files/inherit.h"
#include "proc/text.h"

struct inherit {
	const char *key; /* without the first slash */
	int number;	 /* as the user gave it */
	int fd;
	bool is_used;
};

static int bad_syntax(const char *arg)
{
	return refuse(
		EINVAL,
		"--inherit-fd %s: not of the form fd[N]:KEY or debug[N]:TEXT, where N is an open "
		"descriptor of criu",
		arg);
}

static int write_debug(int fd, const char *text, const char *arg)
{
	int rc = write_all(fd, text, strlen(text));

	return rc < 0 ? fail(-rc, "--inherit-fd %s: write to descriptor %d", arg, fd) : 0;
}

static int parse_one(struct restore *r, const char *arg)
{
	bool is_debug = !strncmp(arg, "debug[", 6);
	const char *p = is_debug ? arg + 6 : !strncmp(arg, "fd[", 3) ? arg + 3 : NULL;
	uint64_t fd;

	p = p ? text_dec(p, &fd) : NULL;
	if (!p || strncmp(p, "]:", 2) || !p[2] || fd > INT32_MAX)
		return bad_syntax(arg);
	if (fcntl(fd, F_GETFD) < 0)
		return refuse(EBADF, "--inherit-fd %s: descriptor %d of criu is not open", arg,
			      (int)fd);
	p += 2;
	if (is_debug)
		return write_debug(fd, p, arg);
	p += *p == '/';
	for (size_t i = 0; i < r->n_inherit; i++)
		if (!strcmp(r->inherit[i].key, p))
			return refuse(EINVAL, "--inherit-fd: two descriptors, %d and %d, for %s",
				      r->inherit[i].number, (int)fd, p);
	*ARENA_PUSH(&r->arena, r->inherit, r->n_inherit) =
		(struct inherit){ .key = p, .number = fd, .fd = fd };
	return 0;
}

int inherit_parse(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->opts->inherit_fd.n && rc == 0; i++)
		rc = parse_one(r, r->opts->inherit_fd.item[i]);
	return rc;
}

int inherit_move(struct restore *r)
{
	for (size_t i = 0; i < r->n_inherit; i++) {
		int fd = fcntl(r->inherit[i].fd, F_DUPFD_CLOEXEC, 0);

		fd = fd < 0 ? fail(errno, "--inherit-fd %s: duplicate the descriptor",
				   r->inherit[i].key)
			    : files_own_number(r, fd);
		if (fd < 0)
			return fd;
		r->inherit[i].fd = fd;
	}
	return 0;
}

bool inherit_has(const struct restore *r, const char *key)
{
	for (size_t i = 0; i < r->n_inherit; i++)
		if (!strcmp(r->inherit[i].key, key))
			return true;
	return false;
}

int inherit_by_key(struct restore *r, const char *key)
{
	for (size_t i = 0; i < r->n_inherit; i++) {
		if (strcmp(r->inherit[i].key, key))
			continue;
		r->inherit[i].is_used = true;
		return r->inherit[i].fd;
	}
	return -1;
}

static const char *kind_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "a regular file";
	case S_IFDIR:
		return "a directory";
	case S_IFCHR:
		return "a character device";
	case S_IFBLK:
		return "a block device";
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFLNK:
		return "a symbolic link";
	}
	return "an anonymous file";
}

int inherit_file(const char *key, int fd, mode_t kind, uint32_t flags)
{
	uint32_t want = flags & O_ACCMODE, have = fcntl(fd, F_GETFL) & O_ACCMODE;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(errno, "--inherit-fd: %s: stat its descriptor", key);
	if (kind && (st.st_mode & S_IFMT) != kind)
		return refuse(EINVAL, "--inherit-fd: %s was %s, its descriptor is %s", key,
			      kind_name(kind), kind_name(st.st_mode));
	if (!(flags & O_PATH) && have != O_RDWR && want != have)
		return refuse(EINVAL, "--inherit-fd: %s was open for %s, its descriptor is for %s",
			      key,
			      want == O_RDONLY	 ? "reading"
			      : want == O_WRONLY ? "writing"
						 : "both",
			      have == O_RDONLY ? "reading only" : "writing only");
	int new = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return new < 0 ? fail(errno, "--inherit-fd: %s: duplicate its descriptor", key) : new;
}

int inherit_pipe(struct restore *r, const char *key, int fd, int end[2], bool is_first[2])
{
	uint32_t mode = fcntl(fd, F_GETFL) & O_ACCMODE;
	int own = files_own_number(r, inherit_file(key, fd, S_IFIFO, mode));

	if (own < 0)
		return own;
	end[mode != O_RDONLY] = own;
	is_first[mode != O_RDONLY] = true;
	info("%s: descriptor given by --inherit-fd takes its place", key);
	return 0;
}

int inherit_check_used(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->n_inherit; i++)
		if (!r->inherit[i].is_used)
			rc = refuse(ENOENT,
				    "--inherit-fd fd[%d]:%s: no file of the images has this name",
				    r->inherit[i].number, r->inherit[i].key);
	return rc;
}

void inherit_close(struct restore *r)
{
	for (size_t i = 0; i < r->n_inherit; i++)
		(void)close(r->inherit[i].fd);
	r->n_inherit = 0;
}
