/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inotify(7). Watches get their old numbers back. Events that wait unread are lost; the log says
 * so.
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
#include "files/watch.h"

#define SET_NEXT_WD  _IOW('I', 0, int32_t) /* INOTIFY_IOC_SETNEXTWD: the number is no pointer */
#define EVENTS_ASKED (IN_ALL_EVENTS | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_ONESHOT | IN_ONLYDIR)

static bool inotify_match(const struct fd_probe *p)
{
	return !strcmp(p->link, "anon_inode:inotify") || !strcmp(p->link, "anon_inode:[inotify]");
}

/* `wd:1 ino:2 sdev:3 mask:4 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:...` */
static InotifyWdEntry *parse_watch(struct dump *d, const char *line)
{
	InotifyWdEntry *w = MESSAGE(&d->arena, InotifyWdEntry, inotify_wd_entry);
	uint64_t wd, ino, sdev, mask, ignored = 0;

	if (!watch_hex(line, "wd:", &wd) || !watch_hex(line, "ino:", &ino) ||
	    !watch_hex(line, "sdev:", &sdev) || !watch_hex(line, "mask:", &mask))
		return NULL;
	(void)watch_hex(line, "ignored_mask:", &ignored);
	w->wd = wd;
	w->i_ino = ino;
	w->s_dev = sdev;
	w->mask = mask;
	w->ignored_mask = ignored;
	w->f_handle = watch_handle(d, line);
	return w;
}

static int inotify_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	InotifyFileEntry *in = MESSAGE(&d->arena, InotifyFileEntry, inotify_file_entry);
	pid_t pid = p->task->process->pid;
	char who[64];
	int unread = 0;

	in->id = e->id;
	in->flags = probe_flags(p);
	in->fown = fown_read(d, p);
	e->ify = in;
	if (p->copy >= 0 && ioctl(p->copy, FIONREAD, &unread) == 0 && unread)
		warn("pid %d fd %d: %d bytes of inotify events are unread; they are not dumped",
		     pid, p->fd, unread);
	for (const char *line = NULL; (line = watch_next(p, "inotify", line));) {
		InotifyWdEntry *w = parse_watch(d, line);

		if (!w)
			return refuse(EINVAL, "pid %d fd %d: unknown line of fdinfo: inotify %s",
				      pid, p->fd, line);
		w->id = e->id;
		snprintf(who, sizeof(who), "pid %d fd %d: inotify watch %u", pid, p->fd, w->wd);
		watch_find_path(d, who, w->s_dev, w->i_ino, w->f_handle);
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
	/* The newest is the first in fdinfo; what comes next is numbered after the last one added.
	 */
	for (size_t i = e->n_wd; i-- > 0;) {
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
		int rc = watch_check("inotify", e->id, e->ify->wd[i]->f_handle);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static void drain(int fd)
{
	uint8_t buf[4096];
	int unread = 0;

	while (ioctl(fd, FIONREAD, &unread) == 0 && unread > 0)
		if (read(fd, buf, sizeof(buf)) <= 0)
			return;
}

/* What the restore itself did to watched files is no event of the program's. */
void watches_drain(struct restore *r)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		if (r->file_fds[i] < 0)
			continue;
		if (r->snapshot.files[i]->type == FD_TYPES__INOTIFY)
			drain(r->file_fds[i]);
		else if (r->snapshot.files[i]->type == FD_TYPES__FANOTIFY)
			fanotify_drain(r->file_fds[i]);
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
