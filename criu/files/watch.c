/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/watch.h"
#include "proc/mounts.h"
#include "proc/text.h"

#define HANDLE_BYTES 128
#define HANDLE_WORDS (HANDLE_BYTES / 8)

bool watch_hex(const char *line, const char *name, uint64_t *ret)
{
	const char *at = strstr(line, name);

	return at && text_hex(at + strlen(name), ret);
}

const char *watch_next(const struct fd_probe *p, const char *kind, const char *line)
{
	const char *end = p->lines + p->lines_size;
	size_t len = strlen(kind);

	line = line ? strchr(line, '\0') + 1 : p->lines;
	for (; line < end; line = strchr(line, '\0') + 1)
		if (!strncmp(line, kind, len) && line[len] == ' ')
			return line + len + 1;
	return NULL;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

FhEntry *watch_handle(struct dump *d, const char *line)
{
	FhEntry *e = MESSAGE(&d->arena, FhEntry, fh_entry);
	const char *at = strstr(line, " f_handle:");
	uint64_t bytes, type;

	if (!at || !watch_hex(line, "fhandle-bytes:", &bytes) ||
	    !watch_hex(line, "fhandle-type:", &type) || bytes > HANDLE_BYTES)
		return e;
	e->type = type;
	e->n_handle = HANDLE_WORDS;
	e->handle = arena_array(&d->arena, uint64_t, HANDLE_WORDS);
	at += strlen(" f_handle:");
	for (size_t i = 0; i < bytes; i++) {
		int high = hex_digit(at[2 * i]), low = high < 0 ? -1 : hex_digit(at[2 * i + 1]);

		if (low < 0)
			return e;
		((uint8_t *)e->handle)[i] = high << 4 | low;
	}
	e->bytes = bytes;
	return e;
}

dev_t watch_device(uint32_t sdev)
{
	return makedev(sdev >> 20, sdev & 0xfffff);
}

/* Opens what a handle stands for, through any mount of its device. A descriptor or -errno. */
static int open_handle(dev_t dev, const FhEntry *e)
{
	struct {
		struct file_handle head;
		uint8_t bytes[HANDLE_BYTES];
	} h = { .head.handle_bytes = e->bytes, .head.handle_type = e->type };
	autofree char *text = NULL;

	if (!e->bytes)
		return -ENOENT;
	memcpy(h.head.f_handle, e->handle, e->bytes);
	ssize_t len = read_file_at(AT_FDCWD, "/proc/self/mountinfo", &text);
	if (len < 0)
		return len;
	for (char *line = text, *next; line && *line; line = next) {
		struct proc_mount m;

		next = text_cut_line(line);
		if (!proc_mount_parse(line, &m) || m.dev != dev)
			continue;
		autoclose int mount = open(m.point, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		int fd = mount < 0 ? -1 : open_by_handle_at(mount, &h.head, O_PATH | O_CLOEXEC);
		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

/* The path of the watched file by its handle, if that leads to it. NULL: it does not. */
static const char *path_of_handle(struct dump *d, dev_t dev, const FhEntry *e)
{
	autoclose int fd = open_handle(dev, e);
	char link[64], path[PATH_MAX];
	struct stat by_handle, by_path;

	if (fd < 0)
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (read_link_at(AT_FDCWD, link, path, sizeof(path)) < 0 || path[0] != '/' ||
	    fstat(fd, &by_handle) < 0 || lstat(path, &by_path) < 0 ||
	    by_handle.st_ino != by_path.st_ino || by_handle.st_dev != by_path.st_dev)
		return NULL;
	return arena_strdup(&d->arena, path);
}

void watch_find_path(struct dump *d, const char *who, uint32_t sdev, uint64_t ino, FhEntry *e)
{
	dev_t dev = watch_device(sdev);

	if (!d->opts->force_irmap)
		e->path = (char *)path_of_handle(d, dev, e);
	if (!e->path)
		e->path = (char *)irmap_find(d, sdev, ino);
	if (!e->path)
		dump_block(d,
			   "%s: no path leads to inode %#" PRIx64 " of device %u:%u that it "
			   "watches: it was deleted, or its file system has no handles; in the "
			   "latter case give --irmap-scan-path with a directory above it",
			   who, ino, major(dev), minor(dev));
}

int watch_check(const char *what, uint32_t id, const FhEntry *e)
{
	if (!e || !e->path || e->path[0] != '/')
		return refuse(EOPNOTSUPP,
			      "image files.img: %s %#x: a watch has no path; this version cannot "
			      "restore it",
			      what, id);
	return 0;
}
