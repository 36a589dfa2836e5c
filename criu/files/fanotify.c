/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fanotify(7): groups with marks on inodes and mounts. Events that wait unread are lost; the log
 * says so. A group that is asked for permission prevents the dump: whoever opens a marked file,
 * criu too, waits for its answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"
#include "files/watch.h"
#include "proc/mounts.h"
#include "proc/text.h"

#define PERMISSION_CLASSES (FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT)

static bool fanotify_match(const struct fd_probe *p)
{
	return !strcmp(p->link, "anon_inode:[fanotify]");
}

static const char *mount_point(struct dump *d, uint64_t mnt_id)
{
	autofree char *text = NULL;

	if (read_file_at(AT_FDCWD, "/proc/self/mountinfo", &text) < 0)
		return NULL;
	for (char *line = text, *next; line && *line; line = next) {
		struct proc_mount m;

		next = text_cut_line(line);
		if (proc_mount_parse(line, &m) && (uint64_t)m.id == mnt_id)
			return arena_strdup(&d->arena, m.point);
	}
	return NULL;
}

/*
 * One of
 *   ino:2 sdev:3 mflags:0 mask:8 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:...
 *   mnt_id:1f mflags:0 mask:2 ignored_mask:0
 *   sdev:3 mflags:0 mask:2 ignored_mask:0
 */
static FanotifyMarkEntry *parse_mark(struct dump *d, const char *who, const char *line)
{
	FanotifyMarkEntry *m = MESSAGE(&d->arena, FanotifyMarkEntry, fanotify_mark_entry);
	uint64_t ino, mnt_id, sdev = 0, mflags, mask, ignored;

	if (!watch_hex(line, "mflags:", &mflags) || !watch_hex(line, " mask:", &mask) ||
	    !watch_hex(line, "ignored_mask:", &ignored))
		return NULL;
	(void)watch_hex(line, "sdev:", &sdev);
	m->mflags = mflags;
	m->mask = mask;
	m->ignored_mask = ignored;
	m->s_dev = sdev;
	if (!strncmp(line, "ino:", 4) && watch_hex(line, "ino:", &ino)) {
		m->type = MARK_TYPE__INODE;
		m->ie = MESSAGE(&d->arena, FanotifyInodeMarkEntry, fanotify_inode_mark_entry);
		m->ie->i_ino = ino;
		m->ie->f_handle = watch_handle(d, line);
		watch_find_path(d, who, sdev, ino, m->ie->f_handle);
	} else if (!strncmp(line, "mnt_id:", 7) && watch_hex(line, "mnt_id:", &mnt_id)) {
		m->type = MARK_TYPE__MOUNT;
		m->me = MESSAGE(&d->arena, FanotifyMountMarkEntry, fanotify_mount_mark_entry);
		m->me->mnt_id = mnt_id;
		m->me->path = (char *)mount_point(d, mnt_id);
		if (!m->me->path)
			dump_block(d, "%s: the mount %u that it watches is not here", who,
				   m->me->mnt_id);
	} else {
		m->type = MARK_TYPE__INODE;
		dump_block(d, "%s: it watches a whole file system, which cannot be dumped", who);
	}
	return m;
}

static int fanotify_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	FanotifyFileEntry *f = MESSAGE(&d->arena, FanotifyFileEntry, fanotify_file_entry);
	uint64_t flags = 0, event_flags = 0;
	char who[64];
	int unread = 0;

	snprintf(who, sizeof(who), "pid %d fd %d: fanotify", p->task->process->pid, p->fd);
	f->id = e->id;
	f->flags = probe_flags(p);
	f->fown = fown_read(d, p);
	e->ffy = f;
	if (p->copy >= 0 && ioctl(p->copy, FIONREAD, &unread) == 0 && unread)
		warn("%s: %d bytes of events are unread; they are not dumped", who, unread);
	for (const char *line = NULL; (line = watch_next(p, "fanotify", line));) {
		if (!strncmp(line, "flags:", 6)) {
			(void)watch_hex(line, "flags:", &flags);
			(void)watch_hex(line, "event-flags:", &event_flags);
			continue;
		}
		FanotifyMarkEntry *m = parse_mark(d, who, line);
		if (!m)
			return refuse(EINVAL, "%s: unknown line of fdinfo: %s", who, line);
		m->id = e->id;
		*ARENA_PUSH(&d->arena, f->mark, f->n_mark) = m;
	}
	f->faflags = flags;
	f->evflags = event_flags;
	if (flags & PERMISSION_CLASSES)
		dump_block(d, "%s: it is asked for permission to open files; this cannot be dumped",
			   who);
	return 0;
}

static int fanotify_check(const struct restore *r, const FileEntry *e)
{
	(void)r;
	for (size_t i = 0; i < e->ffy->n_mark; i++) {
		const FanotifyMarkEntry *m = e->ffy->mark[i];
		bool is_inode = m->type == MARK_TYPE__INODE && m->ie;

		if (is_inode && watch_check("fanotify", e->id, m->ie->f_handle) < 0)
			return -EOPNOTSUPP;
		if (!is_inode &&
		    !(m->type == MARK_TYPE__MOUNT && m->me && m->me->path && m->me->path[0] == '/'))
			return refuse(EINVAL,
				      "image files.img: fanotify %#x: a mark has neither inode nor "
				      "mount",
				      e->id);
	}
	return 0;
}

static int add_mark(int fd, const FanotifyMarkEntry *m)
{
	const char *path = m->ie ? m->ie->f_handle->path : m->me->path;
	unsigned flags = FAN_MARK_ADD | m->mflags | (m->ie ? 0 : FAN_MARK_MOUNT);
	int rc = 0;

	/* Flags about the ignored mask may only be given with it. */
	if (m->mask)
		rc = fanotify_mark(fd, flags & ~FAN_MARK_IGNORED_SURV_MODIFY, m->mask, AT_FDCWD,
				   path);
	if (rc == 0 && m->ignored_mask)
		rc = fanotify_mark(fd, flags | FAN_MARK_IGNORED_MASK, m->ignored_mask, AT_FDCWD,
				   path);
	return rc < 0 ? fail(errno, "fanotify: mark %s", path) : 0;
}

static int fanotify_open(struct restore *r, const FileEntry *entry)
{
	const FanotifyFileEntry *e = entry->ffy;
	autoclose int fd = fanotify_init(e->faflags, e->evflags);

	(void)r;
	/* Whether FAN_CLOEXEC was given shows in fdinfo for ever. */
	if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return fail(errno, "fanotify %#x: make it", e->id);
	/* The newest is the first in fdinfo. */
	for (size_t i = e->n_mark; i-- > 0;) {
		int rc = add_mark(fd, e->mark[i]);

		if (rc < 0)
			return rc;
	}
	return file_finish(take_fd(&fd), e->flags, "fanotify");
}

void fanotify_drain(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	struct fanotify_event_metadata events[64];
	ssize_t len;

	(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	while ((len = read(fd, events, sizeof(events))) > 0)
		for (struct fanotify_event_metadata *m = events; FAN_EVENT_OK(m, len);
		     m = FAN_EVENT_NEXT(m, len))
			if (m->fd >= 0)
				(void)close(m->fd);
	(void)fcntl(fd, F_SETFL, flags);
}

FILE_PART(fanotify, ffy)

const struct file_class fanotify_class = {
	.name = "fanotify",
	.type = FD_TYPES__FANOTIFY,
	.match = fanotify_match,
	.dump = fanotify_dump,
	.has_part = fanotify_has_part,
	.check = fanotify_check,
	.open = fanotify_open,
	.fown = fanotify_fown,
	.flags = fanotify_flags,
};
