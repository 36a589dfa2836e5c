/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pidfd_open(2). Of a process of the tree: opened when that exists. Of one that was reaped: a
 * child of criu takes its place, is opened, and dies; all descriptions of one process share it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"
#include "files/pidfd.h"
#include "proc/text.h"

#define NO_PROCESS -1 /* nspid of one that is gone */

struct dead_process {
	uint32_t ino;
	pid_t pid; /* of the child in its place */
};

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

static pid_t child_in_place_of(struct restore *r, uint32_t ino)
{
	for (size_t i = 0; i < r->n_dead; i++)
		if (r->dead[i].ino == ino)
			return r->dead[i].pid;
	pid_t pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == r->engine.tid)
			pause();
		_exit(0);
	}
	if (pid > 0)
		*ARENA_PUSH(&r->arena, r->dead, r->n_dead) = (struct dead_process){ ino, pid };
	return pid;
}

static int pidfd_open_entry(struct restore *r, const FileEntry *entry)
{
	const PidfdEntry *e = entry->pidfd;
	pid_t pid = e->nspid == NO_PROCESS ? child_in_place_of(r, e->ino) : e->nspid;
	int fd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, e->flags & (O_NONBLOCK | O_EXCL));

	if (fd < 0)
		return fail(errno, "pidfd %#x: open it for pid %d", e->id, e->nspid);
	return file_finish(fd, e->flags, "pidfd");
}

static bool pidfd_is_late(const struct restore *r, const FileEntry *e)
{
	(void)r;
	return e->pidfd->nspid != NO_PROCESS;
}

void pidfds_end_children(struct restore *r)
{
	for (size_t i = 0; i < r->n_dead; i++) {
		(void)kill(r->dead[i].pid, SIGKILL);
		(void)waitpid(r->dead[i].pid, NULL, 0);
	}
	r->n_dead = 0;
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
