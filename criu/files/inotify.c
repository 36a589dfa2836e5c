/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inotify(7). fdinfo names what is watched by a file handle; the handle leads to the path, which
 * goes into the image with it. Watches get their old numbers back. Events that wait unread are
 * lost; the log says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"
#include "proc/text.h"

#define SET_NEXT_WD  _IOW('I', 0, int32_t) /* INOTIFY_IOC_SETNEXTWD: the number is no pointer */
#define HANDLE_BYTES 128
#define HANDLE_WORDS (HANDLE_BYTES / 8)
#define EVENTS_ASKED (IN_ALL_EVENTS | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_ONESHOT | IN_ONLYDIR)

static bool inotify_match(const struct fd_probe *p)
{
	return !strcmp(p->link, "anon_inode:inotify") || !strcmp(p->link, "anon_inode:[inotify]");
}

static bool hex_after(const char *line, const char *name, uint64_t *ret)
{
	const char *at = strstr(line, name);

	return at && text_hex(at + strlen(name), ret);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_handle(const char *line, FhEntry *e, struct arena *a)
{
	uint64_t bytes, type;
	const char *at = strstr(line, " f_handle:");
	uint8_t *data;

	if (!at || !hex_after(line, "fhandle-bytes:", &bytes) ||
	    !hex_after(line, "fhandle-type:", &type) || bytes > HANDLE_BYTES)
		return false;
	e->bytes = bytes;
	e->type = type;
	e->n_handle = HANDLE_WORDS;
	e->handle = arena_array(a, uint64_t, HANDLE_WORDS);
	data = (uint8_t *)e->handle;
	at += strlen(" f_handle:");
	for (size_t i = 0; i < bytes; i++) {
		int high = hex_digit(at[2 * i]), low = high < 0 ? -1 : hex_digit(at[2 * i + 1]);

		if (low < 0)
			return false;
		data[i] = high << 4 | low;
	}
	return true;
}

/* The kernel's own encoding of a device number, as fdinfo has it. */
static dev_t device(uint32_t sdev)
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

	memcpy(h.head.f_handle, e->handle, e->bytes);
	if (read_file_at(AT_FDCWD, "/proc/self/mountinfo", &text) < 0)
		return -errno;
	for (char *line = text, *next; line && *line; line = next) {
		unsigned major, minor;
		char point[PATH_MAX];

		next = text_cut_line(line);
		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major, &minor, point) != 3 ||
		    makedev(major, minor) != dev)
			continue;
		autoclose int mount = open(point, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		int fd = mount < 0 ? -1 : open_by_handle_at(mount, &h.head, O_PATH | O_CLOEXEC);
		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

/* The path of the watched file, if it has one that leads to it. */
static bool find_path(struct dump *d, InotifyWdEntry *w)
{
	autoclose int fd = open_handle(device(w->s_dev), w->f_handle);
	char link[64], path[PATH_MAX];
	struct stat by_handle, by_path;

	if (fd < 0)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (read_link_at(AT_FDCWD, link, path, sizeof(path)) < 0 || path[0] != '/' ||
	    fstat(fd, &by_handle) < 0 || lstat(path, &by_path) < 0 ||
	    by_handle.st_ino != by_path.st_ino || by_handle.st_dev != by_path.st_dev)
		return false;
	w->f_handle->path = arena_strdup(&d->arena, path);
	return true;
}

/* `wd:1 ino:2 sdev:3 mask:4 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:...` */
static InotifyWdEntry *parse_watch(struct dump *d, const char *line)
{
	InotifyWdEntry *w = MESSAGE(&d->arena, InotifyWdEntry, inotify_wd_entry);
	uint64_t wd, ino, sdev, mask, ignored = 0;

	if (!hex_after(line, "wd:", &wd) || !hex_after(line, "ino:", &ino) ||
	    !hex_after(line, "sdev:", &sdev) || !hex_after(line, "mask:", &mask))
		return NULL;
	(void)hex_after(line, "ignored_mask:", &ignored);
	w->wd = wd;
	w->i_ino = ino;
	w->s_dev = sdev;
	w->mask = mask;
	w->ignored_mask = ignored;
	w->f_handle = MESSAGE(&d->arena, FhEntry, fh_entry);
	(void)parse_handle(line, w->f_handle, &d->arena);
	return w;
}

/* `inotify wd:...`: the name of the field ends with a blank. */
static const char *next_watch(const struct fd_probe *p, const char *line)
{
	const char *end = p->lines + p->lines_size;

	line = line ? strchr(line, '\0') + 1 : p->lines;
	for (; line < end; line = strchr(line, '\0') + 1)
		if (!strncmp(line, "inotify ", 8))
			return line + 8;
	return NULL;
}

static int inotify_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	InotifyFileEntry *in = MESSAGE(&d->arena, InotifyFileEntry, inotify_file_entry);
	pid_t pid = p->task->process->pid;
	int unread = 0;

	in->id = e->id;
	in->flags = probe_flags(p);
	in->fown = fown_read(d, p);
	e->ify = in;
	if (p->copy >= 0 && ioctl(p->copy, FIONREAD, &unread) == 0 && unread)
		warn("pid %d fd %d: %d bytes of inotify events are unread; they are not dumped",
		     pid, p->fd, unread);
	for (const char *line = NULL; (line = next_watch(p, line));) {
		InotifyWdEntry *w = parse_watch(d, line);

		if (!w)
			return refuse(EINVAL, "pid %d fd %d: unknown line of fdinfo: inotify %s",
				      pid, p->fd, line);
		w->id = e->id;
		if (!find_path(d, w))
			dump_block(
				d,
				"pid %d fd %d: inotify watch %u: no path leads to inode %#" PRIx64
				" of device %u:%u that it watches (deleted, or its file system has "
				"no handles)",
				pid, p->fd, w->wd, w->i_ino, major(device(w->s_dev)),
				minor(device(w->s_dev)));
		*ARENA_PUSH(&d->arena, in->wd, in->n_wd) = w;
	}
	return 0;
}

/* ---- restore ---- */

static int add_watch(int fd, const InotifyWdEntry *w)
{
	int got;

	if (ioctl(fd, SET_NEXT_WD, (long)w->wd) < 0)
		return fail(errno, "inotify watch %u: set its number (CONFIG_CHECKPOINT_RESTORE)",
			    w->wd);
	uint32_t mask = w->mask & EVENTS_ASKED;
	struct stat st;
	if (lstat(w->f_handle->path, &st) == 0 && S_ISLNK(st.st_mode))
		mask |= IN_DONT_FOLLOW; /* which the kernel does not tell */
	got = inotify_add_watch(fd, w->f_handle->path, mask);
	if (got < 0)
		return fail(errno, "inotify watch %u: watch %s", w->wd, w->f_handle->path);
	if ((uint32_t)got != w->wd)
		return refuse(EEXIST, "inotify watch %u: %s got the number %d", w->wd,
			      w->f_handle->path, got);
	return 0;
}

static int inotify_open(struct restore *r, const FileEntry *entry)
{
	const InotifyFileEntry *e = entry->ify;
	autoclose int fd = inotify_init1(IN_CLOEXEC);

	(void)r;
	if (fd < 0)
		return fail(errno, "inotify %#x: make it", e->id);
	for (size_t i = 0; i < e->n_wd; i++) {
		int rc = add_watch(fd, e->wd[i]);

		if (rc < 0)
			return rc;
	}
	return file_finish(take_fd(&fd), e->flags, "inotify");
}

static int inotify_check(const struct restore *r, const FileEntry *e)
{
	(void)r;
	for (size_t i = 0; i < e->ify->n_wd; i++) {
		const InotifyWdEntry *w = e->ify->wd[i];

		if (!w->f_handle || !w->f_handle->path || w->f_handle->path[0] != '/')
			return refuse(EOPNOTSUPP,
				      "image files.img: inotify %#x: watch %u has no path; this "
				      "version cannot restore it",
				      e->id, w->wd);
	}
	return 0;
}

/* What the restore itself did to watched files is no event of the program's. */
void inotifies_drain(struct restore *r)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		uint8_t buf[4096];
		int unread = 0;

		if (r->snapshot.files[i]->type != FD_TYPES__INOTIFY || r->file_fds[i] < 0)
			continue;
		while (ioctl(r->file_fds[i], FIONREAD, &unread) == 0 && unread > 0)
			if (read(r->file_fds[i], buf, sizeof(buf)) <= 0)
				break;
	}
}

FILE_PART(inotify, ify)

const struct file_class inotify_class = {
	.name = "inotify",
	.type = FD_TYPES__INOTIFY,
	.match = inotify_match,
	.dump = inotify_dump,
	.has_part = inotify_has_part,
	.check = inotify_check,
	.open = inotify_open,
	.fown = inotify_fown,
	.flags = inotify_flags,
};
