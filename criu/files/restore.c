/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors at restore. criu opens every description once, at a number that no task of the
 * snapshot uses. All tasks are born from criu and inherit its table, so each has only to move
 * its descriptors into place and close the rest: nothing is handed over a socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/files.h"

#define FIRST_FD 3

static void note_used_fds(struct restore *r)
{
	uint32_t highest = 0;

	for (size_t i = 0; i < r->snapshot.n_tasks; i++)
		for (size_t j = 0; j < r->snapshot.tasks[i].n_fds; j++)
			highest = max(highest, r->snapshot.tasks[i].fds[j]->fd);
	r->n_fd_is_used = (size_t)highest + 1;
	r->fd_is_used = arena_alloc(&r->arena, r->n_fd_is_used);
	for (size_t i = 0; i < r->snapshot.n_tasks; i++)
		for (size_t j = 0; j < r->snapshot.tasks[i].n_fds; j++)
			r->fd_is_used[r->snapshot.tasks[i].fds[j]->fd] = 1;
	r->next_fd = FIRST_FD;
}

static bool is_unused(const struct restore *r, int fd)
{
	return (size_t)fd >= r->n_fd_is_used || !r->fd_is_used[fd];
}

/* Moves a new descriptor of criu to a number that no task uses. It is closed in any case. */
static int to_unused_number(struct restore *r, int fd)
{
	autoclose int old = fd;

	if (is_unused(r, fd))
		return take_fd(&old);
	for (;;) {
		while (!is_unused(r, r->next_fd))
			r->next_fd++;
		int new = fcntl(old, F_DUPFD_CLOEXEC, r->next_fd);
		if (new < 0)
			return fail(errno,
				    "move a descriptor of criu above %d (limit of open files)",
				    r->next_fd);
		if (is_unused(r, new))
			return new;
		r->next_fd = new + 1; /* taken numbers lay between */
		(void)close(new);
	}
}

static int open_one(struct restore *r, const FileEntry *e)
{
	const struct file_class *c = file_class_of(e->type);

	if (!c)
		return refuse(EOPNOTSUPP,
			      "image files.img: file %#x is of type %d, which this version cannot "
			      "restore",
			      e->id, e->type);
	int rc = c->check(e);
	if (rc < 0)
		return rc;
	int fd = c->open(r, e);
	return fd < 0 ? fd : to_unused_number(r, fd);
}

/* As many descriptors as allowed: images may need more than the soft limit. */
static void raise_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
}

int files_open_all(struct restore *r)
{
	int first_error = 0;

	raise_limit();
	note_used_fds(r);
	r->file_fds = arena_array(&r->arena, int, r->snapshot.n_files);
	/* All that cannot be opened is reported, not only the first. */
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		r->file_fds[i] = open_one(r, r->snapshot.files[i]);
		if (r->file_fds[i] < 0 && !first_error)
			first_error = r->file_fds[i];
	}
	return first_error;
}

int files_fd(const struct restore *r, uint32_t id)
{
	int i = snapshot_file(&r->snapshot, id);

	return i < 0 ? -1 : r->file_fds[i];
}

static bool is_real_root(const struct restore *r, uint32_t id)
{
	const FileEntry *e = r->snapshot.files[snapshot_file(&r->snapshot, id)];

	return !strcmp(e->reg->name, "/");
}

static void add_directories(struct restore *r, const FsEntry *fs, struct program *p)
{
	if (!is_real_root(r, fs->root_id)) {
		const char *dot = program_data(p, ".", 2);

		CALL(p, "enter the root directory", SYS_fchdir, files_fd(r, fs->root_id));
		if (dot)
			CALL(p, "change the root directory", SYS_chroot, program_raddr(p, dot));
	}
	CALL(p, "enter the working directory", SYS_fchdir, files_fd(r, fs->cwd_id));
	if (fs->has_umask)
		CALL(p, "set the umask", SYS_umask, fs->umask);
}

static void add_close(struct program *p, unsigned from, unsigned to)
{
	if (from <= to)
		CALL(p, "close what belongs to criu", SYS_close_range, from, to, 0);
}

void files_restore_task(struct restore *r, struct restore_task *t, struct program *p)
{
	unsigned next = 0;

	add_directories(r, t->image->fs, p);
	for (size_t i = 0; i < t->image->n_fds; i++) {
		const FdinfoEntry *e = t->image->fds[i];

		CALL(p, "move a descriptor into place", SYS_dup3, files_fd(r, e->id), e->fd,
		     e->flags & FD_CLOEXEC ? O_CLOEXEC : 0);
	}
	for (size_t i = 0; i < t->image->n_fds; i++) {
		if (t->image->fds[i]->fd)
			add_close(p, next, t->image->fds[i]->fd - 1);
		next = t->image->fds[i]->fd + 1;
	}
	add_close(p, next, UINT_MAX);
}
