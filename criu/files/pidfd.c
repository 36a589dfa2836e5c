/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pidfd_open(2). Of a process of the tree: opened when that exists. Of one that was reaped: a
 * child of criu takes its place, is opened, and dies; all descriptions of one process share it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/dead.h"
#include "files/files.h"
#include "proc/text.h"

#define NO_PROCESS -1 /* nspid of one that is gone */

static bool pidfd_match(const struct fd_probe *p)
{
	return !strcmp(p->link, "anon_inode:[pidfd]") || !strncmp(p->link, "pidfd:", 6);
}

static int pidfd_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	const char *value = probe_next(p, "Pid", NULL);
	int64_t pid = NO_PROCESS;

	if (!value || !text_int(value, &pid))
		return refuse(EINVAL, "pid %d fd %d: fdinfo of a pidfd has no Pid",
			      p->task->process->pid, p->fd);
	if (pid >= 0 && !tree_find(&d->tree, pid))
		dump_block(d,
			   "pid %d fd %d: it is a pidfd of pid %d, which is not a process of the "
			   "tree; "
			   "close it before the dump",
			   p->task->process->pid, p->fd, (int)pid);
	e->pidfd = MESSAGE(&d->arena, PidfdEntry, pidfd_entry);
	e->pidfd->id = e->id;
	e->pidfd->ino = p->st.st_ino;
	e->pidfd->flags = probe_flags(p);
	e->pidfd->nspid = pid;
	e->pidfd->fown = fown_read(d, p);
	return 0;
}

static bool is_known_task(const struct restore *r, pid_t pid)
{
	for (size_t i = 0; i < r->snapshot.n_tasks; i++)
		if ((pid_t)r->snapshot.tasks[i].pstree->pid == pid)
			return true;
	return false;
}

static int pidfd_check(const struct restore *r, const FileEntry *e)
{
	if (e->pidfd->nspid != NO_PROCESS && !is_known_task(r, e->pidfd->nspid))
		return refuse(EINVAL, "image files.img: pidfd %#x: there is no process %d", e->id,
			      e->pidfd->nspid);
	return 0;
}

static int pidfd_open_entry(struct restore *r, const FileEntry *entry)
{
	const PidfdEntry *e = entry->pidfd;
	pid_t pid = e->nspid == NO_PROCESS ? dead_by_inode(r, e->ino) : e->nspid;

	if (pid < 0)
		return fail(-pid, "pidfd %#x: make a process that has ended", e->id);
	int fd = syscall(SYS_pidfd_open, pid, e->flags & (O_NONBLOCK | O_EXCL));
	if (fd < 0)
		return fail(errno, "pidfd %#x: open it for pid %d", e->id, e->nspid);
	return file_finish(fd, e->flags, "pidfd");
}

static bool pidfd_is_late(const struct restore *r, const FileEntry *e)
{
	(void)r;
	return e->pidfd->nspid != NO_PROCESS;
}

FILE_PART(pidfd, pidfd)

const struct file_class pidfd_class = {
	.name = "pidfd",
	.type = FD_TYPES__PIDFD,
	.match = pidfd_match,
	.dump = pidfd_dump,
	.has_part = pidfd_has_part,
	.check = pidfd_check,
	.open = pidfd_open_entry,
	.is_late = pidfd_is_late,
	.fown = pidfd_fown,
	.flags = pidfd_flags,
};
