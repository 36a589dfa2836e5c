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
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/dead.h"
#include "files/external.h"
#include "files/files.h"
#include "files/inherit.h"
#include "files/locks.h"
#include "files/memfd.h"
#include "files/pipe.h"
#include "files/tty.h"
#include "sockets/sockets.h"

#define FIRST_FD  3
#define SPARE_FDS 256 /* for criu itself */

/* Numbers of descriptors of all tasks, and those under which epolls know files. */
static void for_each_number(struct restore *r, void (*what)(struct restore *r, uint32_t number))
{
	const struct snapshot *s = &r->snapshot;

	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t j = 0; j < s->tasks[i].n_fds; j++)
			what(r, s->tasks[i].fds[j]->fd);
	for (size_t i = 0; i < s->n_files; i++)
		for (size_t j = 0; s->files[i]->epfd && j < s->files[i]->epfd->n_tfd; j++)
			what(r, s->files[i]->epfd->tfd[j]->tfd);
}

static void note_highest(struct restore *r, uint32_t number)
{
	r->n_fd_is_used = max(r->n_fd_is_used, (size_t)number + 1);
}

static void note_used(struct restore *r, uint32_t number)
{
	r->fd_is_used[number] = 1;
}

static void note_used_fds(struct restore *r)
{
	for_each_number(r, note_highest);
	r->fd_is_used = arena_alloc(&r->arena, r->n_fd_is_used);
	for_each_number(r, note_used);
	r->next_fd = FIRST_FD;
}

/* A task may have a number that the limit of criu forbids, which is that of new tasks, too. */
static int make_room_for_numbers(const struct restore *r)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || r->n_fd_is_used <= l.rlim_cur)
		return 0;
	rlim_t wanted = r->n_fd_is_used + r->snapshot.n_files + SPARE_FDS;
	if (setrlimit(RLIMIT_NOFILE, &(struct rlimit){ wanted, wanted }) == 0)
		return 0;
	return refuse(EMFILE,
		      "a task has descriptor %zu, but the limit of open files is %lu here, and "
		      "raising it takes CAP_SYS_RESOURCE; raise it before (ulimit -n)",
		      r->n_fd_is_used - 1, (unsigned long)l.rlim_max);
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

int files_own_number(struct restore *r, int fd)
{
	return fd < 0 ? fd : to_unused_number(r, fd);
}

/* What --inherit-fd gives in place of a file. Returns a descriptor, -ENOENT, or an error. */
static int inherited(struct restore *r, const struct file_class *c, const FileEntry *e)
{
	char key[4200];

	if (!c->key || !r->n_inherit)
		return -ENOENT;
	c->key(r, e, key, sizeof(key));
	int fd = inherit_by_key(r, key);
	if (fd < 0)
		return -ENOENT;
	info("%s: descriptor given by --inherit-fd takes its place", key);
	return inherit_file(key, fd, c->inherit_kind, c->flags ? c->flags(r, e) : 0);
}

/* Opened late: until then a descriptor of something else keeps the number for it in all tasks. */
static int placeholder(struct restore *r)
{
	if (r->placeholder_fd == 0) {
		int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		r->placeholder_fd =
			fd < 0 ? fail(errno, "open /dev/null") : files_own_number(r, fd);
	}
	int fd = fcntl(r->placeholder_fd, F_DUPFD_CLOEXEC, FIRST_FD);
	return fd < 0 ? fail(errno, "keep a number for a file") : files_own_number(r, fd);
}

/* More than the part of its type, which is there. */
static bool has_other_part(const FileEntry *e)
{
	const ProtobufCMessageDescriptor *d = &file_entry__descriptor;
	unsigned parts = 0;

	for (unsigned i = 0; i < d->n_fields; i++)
		if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
			parts += *(void *const *)((const char *)e + d->fields[i].offset) != NULL;
	return parts > 1;
}

static int check(const struct restore *r, const struct file_class *c, const FileEntry *e)
{
	if (!c)
		return refuse(EOPNOTSUPP,
			      "image files.img: file %#x is of type %d, which this version cannot "
			      "restore",
			      e->id, e->type);
	if (!c->has_part(e))
		return refuse(EINVAL, "image files.img: %s %#x: its entry does not fit its type",
			      c->name, e->id);
	if (has_other_part(e))
		return refuse(EINVAL, "image files.img: %s %#x: its entry is of two types", c->name,
			      e->id);
	return c->check ? c->check(r, e) : 0;
}

static int open_one(struct restore *r, size_t i)
{
	const FileEntry *e = r->snapshot.files[i];
	const struct file_class *c = file_class_of(e->type);
	int fd = inherited(r, c, e);

	if (fd != -ENOENT)
		return files_own_number(r, fd);
	if (c->is_late && c->is_late(r, e)) {
		r->file_is_late[i] = true;
		return placeholder(r);
	}
	return files_own_number(r, c->open(r, e));
}

/* Entries that only others refer to are no descriptions: files of fifos, temporary links. */
static bool *find_indirect(struct restore *r)
{
	const struct snapshot *s = &r->snapshot;
	bool *is_indirect = arena_array(&r->arena, bool, s->n_files);

	for (size_t i = 0; i < s->n_files; i++) {
		const FileEntry *e = s->files[i];
		uint32_t id = e->fifo && e->fifo->has_regf_id ? e->fifo->regf_id
			      : e->tty && e->tty->has_regf_id ? e->tty->regf_id
							      : e->id;

		if (socket_is_outside(e))
			is_indirect[i] = true;
		if (id != e->id && snapshot_file(s, id) >= 0)
			is_indirect[snapshot_file(s, id)] = true;
	}
	for (size_t i = 0; i < s->n_remaps; i++)
		if (s->remaps[i]->remap_type == REMAP_TYPE__LINKED)
			is_indirect[snapshot_file(s, s->remaps[i]->remap_id)] = true;
	return is_indirect;
}

static int check_all(struct restore *r)
{
	int first_error = 0;

	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		const FileEntry *e = r->snapshot.files[i];
		int rc = check(r, file_class_of(e->type), e);

		if (rc < 0 && !first_error)
			first_error = rc;
	}
	return first_error;
}

static bool is_last(const FileEntry *e)
{
	const struct file_class *c = file_class_of(e->type);

	return c->is_last && c->is_last(e);
}

/* All that cannot be opened is reported, not only the first. */
static int open_those(struct restore *r, const bool *is_indirect, bool are_last)
{
	int first_error = 0;

	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		if (is_indirect[i] || is_last(r->snapshot.files[i]) != are_last)
			continue;
		r->file_fds[i] = open_one(r, i);
		if (r->file_fds[i] < 0 && !first_error)
			first_error = r->file_fds[i];
	}
	return first_error;
}

static int open_each(struct restore *r)
{
	const bool *is_indirect = find_indirect(r);

	r->file_fds = arena_array(&r->arena, int, r->snapshot.n_files);
	r->file_is_late = arena_array(&r->arena, uint8_t, r->snapshot.n_files);
	r->file_is_async = arena_array(&r->arena, uint8_t, r->snapshot.n_files);
	r->file_is_done = arena_array(&r->arena, uint8_t, r->snapshot.n_files);
	for (size_t i = 0; i < r->snapshot.n_files; i++)
		r->file_fds[i] = -1;
	int rc = open_those(r, is_indirect, false);
	int last = open_those(r, is_indirect, true);
	return rc < 0 ? rc : last;
}

int files_open_all(struct restore *r)
{
	note_used_fds(r);
	int rc = make_room_for_numbers(r);
	if (rc == 0)
		rc = check_all(r);
	if (rc == 0)
		rc = external_check(r->opts);
	if (rc == 0)
		rc = inherit_parse(r);
	if (rc == 0)
		rc = external_check_given(r);
	if (rc == 0)
		rc = inherit_move(r);
	if (rc == 0)
		rc = open_each(r);
	dead_end_all(r);
	pipes_close_rest(r);
	int finished = ttys_finish(r, rc == 0);
	if (rc == 0)
		rc = finished;
	if (rc == 0)
		rc = inherit_check_used(r);
	inherit_close(r);
	return rc;
}

void files_close_all(struct restore *r)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		own_close(&r->file_fds[i]);
		r->file_fds[i] = -1;
	}
}

int files_open_late(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->snapshot.n_files && rc >= 0; i++) {
		const FileEntry *e = r->snapshot.files[i];

		if (!r->file_is_late[i])
			continue;
		autoclose int fd = file_class_of(e->type)->open(r, e);
		rc = fd < 0 ? fd : 0;
		if (fd >= 0 && dup3(fd, r->file_fds[i], O_CLOEXEC) < 0)
			rc = fail(errno, "file %#x: move its descriptor", e->id);
	}
	return rc < 0 ? rc : sockets_finish(r);
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

#define TAKEN_AT_ONCE 20

/* Descriptors of criu that a task takes by the same calls. */
struct taking {
	struct program *p;
	int numbers[TAKEN_AT_ONCE];
	size_t n;
};

static void close_result(struct program *p, const char *label, const struct call *opened)
{
	call_use(p, CALL(p, label, SYS_close, 0), 0, opened);
}

/*
 * What criu opened after the task was born: the task takes it from criu, to the number that was
 * kept for it.
 */
static void take_late(const struct restore *r, struct taking *t)
{
	struct program *p = t->p;

	if (!t->n)
		return;
	program_reserve(p, 2 + 3 * t->n);
	struct call *criu = CALL(p, "open criu", SYS_pidfd_open, r->engine.tid, 0);
	for (size_t i = 0; i < t->n; i++) {
		int number = t->numbers[i];
		struct call *get =
			CALL(p, "take a descriptor from criu", SYS_pidfd_getfd, 0, number, 0);

		call_use(p, get, 0, criu);
		call_use(p, CALL(p, "keep it", SYS_dup3, 0, number, O_CLOEXEC), 0, get);
		close_result(p, "close its first number", get);
	}
	close_result(p, "close criu", criu);
	t->n = 0;
}

static void add_late_id(struct restore *r, uint32_t id, struct taking *t)
{
	int k = snapshot_file(&r->snapshot, id);

	if (k < 0 || !r->file_is_late[k])
		return;
	t->numbers[t->n++] = r->file_fds[k];
	if (t->n == TAKEN_AT_ONCE)
		take_late(r, t);
}

/* What an epoll watches under a number that the task itself has not. */
static void add_late_targets(struct restore *r, uint32_t epoll, struct taking *t)
{
	int k = snapshot_file(&r->snapshot, epoll);
	const EventpollFileEntry *e = r->snapshot.files[k]->epfd;

	for (size_t i = 0; i < e->n_tfd; i++)
		if (e->tfd[i]->has_file_id)
			add_late_id(r, e->tfd[i]->file_id, t);
}

static void add_late(struct restore *r, const struct restore_task *t, struct program *p)
{
	struct taking late = { .p = p };

	for (size_t i = 0; i < t->image->n_fds; i++) {
		const FdinfoEntry *fd = t->image->fds[i];

		add_late_id(r, fd->id, &late);
		if (fd->type == FD_TYPES__EVENTPOLL)
			add_late_targets(r, fd->id, &late);
	}
	add_late_id(r, t->image->fs->cwd_id, &late);
	add_late_id(r, t->image->fs->root_id, &late);
	take_late(r, &late);
}

/* Of each description that asks for it, the first task that has it does the work. */
static void add_work_of_files(struct restore *r, struct restore_task *t, struct program *p)
{
	for (size_t i = 0; i < t->image->n_fds; i++) {
		int k = snapshot_file(&r->snapshot, t->image->fds[i]->id);
		const FileEntry *e = r->snapshot.files[k];
		const struct file_class *c = file_class_of(e->type);

		if (!c->in_task || r->file_is_done[k])
			continue;
		r->file_is_done[k] = true;
		c->in_task(r, t, e, p);
	}
}

static void add_close(struct program *p, unsigned from, unsigned to)
{
	if (from <= to)
		CALL(p, "close what belongs to criu", SYS_close_range, from, to, 0);
}

/* By the task, because signals name the descriptor through which this was set (si_fd). */
static void add_async(struct restore *r, const struct restore_task *t, struct program *p)
{
	for (size_t i = 0; i < t->image->n_fds; i++) {
		const FdinfoEntry *fd = t->image->fds[i];
		int k = snapshot_file(&r->snapshot, fd->id);
		const struct file_class *c = file_class_of(fd->type);
		uint32_t flags = c->flags ? c->flags(r, r->snapshot.files[k]) : 0;

		if (!(flags & O_ASYNC) || flags & O_PATH || r->file_is_async[k])
			continue;
		r->file_is_async[k] = true;
		CALL(p, "set O_ASYNC", SYS_fcntl, fd->fd, F_SETFL, flags & ~O_ACCMODE);
	}
}

/* All process groups are there. The stub blocks SIGTTOU, so that a task in the background may. */
static void add_foreground(struct restore *r, const struct restore_task *t, struct program *p)
{
	uint32_t sid = t->image->pstree->sid, pgrp = ttys_foreground(r, sid);
	void *data = sid == (uint32_t)t->pid && pgrp ? program_data(p, &pgrp, sizeof(pgrp)) : NULL;

	if (data)
		CALL(p, "set the foreground group of its terminal", SYS_ioctl,
		     ttys_of_session(r, sid), TIOCSPGRP, program_raddr(p, data));
}

/* Tasks that share a table need what criu left in it for their directories; the last one tidies up.
 */
static bool has_table_for_itself(const struct restore *r, const struct restore_task *t)
{
	for (const struct restore_task *later = t + 1; later < r->tasks + r->n_tasks; later++)
		if (!later->is_zombie && later->image->ids->files_id == t->image->ids->files_id)
			return false;
	return true;
}

void files_restore_task(struct restore *r, struct restore_task *t, struct program *p)
{
	unsigned next = 0;

	add_late(r, t, p);
	add_directories(r, t->image->fs, p);
	add_foreground(r, t, p);
	if (!has_table_for_itself(r, t))
		return;
	add_work_of_files(r, t, p);
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
	add_async(r, t, p);
	locks_add(r, t, p);
}
