/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who gets a signal when an open file description becomes ready: F_SETOWN, F_SETSIG, O_ASYNC.
 * See fcntl(2). The kernel remembers with which uids the owner was set and checks them when it
 * sends, so that at restore it is set with the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/files.h"

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

static bool is_in_tree(const struct dump *d, const struct f_owner_ex *owner)
{
	for (size_t i = 0; i < d->tree.n; i++) {
		const struct process *p = d->tree.processes[i];

		if (p->pid == owner->pid ||
		    (owner->type == F_OWNER_PGRP && p->stat.pgid == owner->pid))
			return true;
		for (size_t k = 0; k < p->n_threads && owner->type == F_OWNER_TID; k++)
			if (p->threads[k].tid == owner->pid)
				return true;
	}
	return false;
}

FownEntry *fown_read(struct dump *d, const struct fd_probe *p)
{
	FownEntry *e = MESSAGE(&d->arena, FownEntry, fown_entry);
	struct f_owner_ex owner = { 0 };
	uid_t uids[2] = { 0 };

	if (p->copy < 0)
		return e;
	int sig = fcntl(p->copy, F_GETSIG);
	e->signum = max(sig, 0);
	/* What is open by O_PATH has no owner. */
	if ((sig < 0 || fcntl(p->copy, F_GETOWN_EX, &owner) < 0) && errno != EBADF)
		dump_block(d, "pid %d fd %d: %s: who gets its signals: %s", p->task->process->pid,
			   p->fd, p->link, strerror(errno));
	if (!owner.pid)
		return e;
	if (!is_in_tree(d, &owner)) {
		warn("pid %d fd %d: its signals go to %d, which is not in the tree; nobody will "
		     "get "
		     "them when it is restored",
		     p->task->process->pid, p->fd, owner.pid);
		return e;
	}
	e->pid_type = owner.type;
	e->pid = owner.pid;
	if (fcntl(p->copy, F_GETOWNER_UIDS, uids) < 0 && errno != EINVAL)
		dump_block(d, "pid %d fd %d: %s: who asked for its signals: %s",
			   p->task->process->pid, p->fd, p->link, strerror(errno));
	e->uid = uids[0];
	e->euid = uids[1];
	return e;
}

/* By system call, so that only this thread changes: criu has no other one here. */
static int become(uid_t uid, uid_t euid)
{
	return syscall(SYS_setresuid, uid, euid, 0) < 0 ? -errno : 0;
}

/* The group of the root may be another one now, that of a shell job. */
static pid_t owner_now(const struct restore *r, const FownEntry *e)
{
	bool is_of_root = e->pid_type == F_OWNER_PGRP && e->pid == r->tasks[0].image->pstree->pgid;

	return is_of_root ? getpgid(r->tasks[0].pid) : (pid_t)e->pid;
}

static int set_owner(const struct restore *r, int fd, const FownEntry *e)
{
	const struct f_owner_ex owner = { .type = e->pid_type, .pid = owner_now(r, e) };
	bool is_other = e->uid != getuid() || e->euid != geteuid();
	int rc = is_other ? become(e->uid, e->euid) : 0;

	if (rc == 0 && fcntl(fd, F_SETOWN_EX, &owner) < 0)
		rc = -errno;
	if (is_other) {
		(void)become(0, 0); /* only root comes here: others have no way back, nor there */
		/* A change of the effective uid makes /proc/self unreadable for ourselves. */
		(void)prctl(PR_SET_DUMPABLE, 1);
	}
	return rc;
}

static int restore_one(const struct restore *r, int fd, const FownEntry *e)
{
	int rc = 0;

	if (e->signum && fcntl(fd, F_SETSIG, e->signum) < 0)
		return fail(errno, "set the signal %u of a file", e->signum);
	if (e->pid)
		rc = set_owner(r, fd, e);
	if (rc < 0)
		return fail(-rc, "make pid %u the owner of a file (F_SETOWN)", e->pid);
	return 0;
}

int fown_restore_all(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->snapshot.n_files && rc == 0; i++) {
		const FileEntry *e = r->snapshot.files[i];
		const struct file_class *c = file_class_of(e->type);
		const FownEntry *owner = c && c->fown ? c->fown(r, e) : NULL;

		if (owner && r->file_fds[i] >= 0 && (owner->pid || owner->signum))
			rc = restore_one(r, r->file_fds[i], owner);
	}
	return rc;
}

#define SETTABLE (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

int file_finish(int fd, uint32_t flags, const char *what)
{
	autoclose int own = fd;
	int now = fcntl(fd, F_GETFL);

	if (now < 0)
		return fail(errno, "%s: read its flags", what);
	if ((now ^ flags) & SETTABLE &&
	    fcntl(fd, F_SETFL, (now & ~SETTABLE) | (flags & SETTABLE)) < 0)
		return fail(errno, "%s: set its flags %#x", what, flags & SETTABLE);
	return take_fd(&own);
}

int file_reopen(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* Pipes and fifos refuse O_DIRECT here; file_finish sets it. */
	int without = O_CREAT | O_EXCL | O_TRUNC | O_DIRECT | FASYNC;
	int new = open(path, (flags & ~without) | O_CLOEXEC | O_NOCTTY);
	return new < 0 ? -errno : new;
}
