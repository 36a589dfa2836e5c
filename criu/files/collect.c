/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors at dump. One open file description may stand behind many descriptors of many
 * tasks: kcmp(2) orders descriptions, so that a search tree finds the ones already known.
 * Images: files, fdinfo-ID, fs-PID.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/bpfmap.h"
#include "files/epoll.h"
#include "files/eventfd.h"
#include "files/external.h"
#include "files/files.h"
#include "files/locks.h"
#include "files/memfd.h"
#include "files/pipe.h"
#include "files/probe.h"
#include "files/regular.h"
#include "files/remap.h"
#include "files/tty.h"
#include "files/tun.h"
#include "files/unknown.h"
#include "proc/text.h"
#include "sockets/sockets.h"

/* A description, seen through the first descriptor that led to it. */
struct known_file {
	dev_t dev;
	ino_t ino;
	pid_t pid;
	int fd;
	struct dump *dump; /* a comparison has no other way to report */
	FileEntry *entry;
};

/* A file by path: mapped, executed, a directory of the task. */
struct known_path {
	dev_t dev;
	ino_t ino;
	int flags;
	const char *path;
	FileEntry *entry;
};

struct file_table {
	void *files; /* tree of known_file */
	void *paths; /* tree of known_path */
	uint32_t last_id;
	ino_t *inodes; /* by id, from 1 */
	size_t n_inodes;
};

#define COMPARE(x, y) (((x) > (y)) - ((x) < (y)))

static int compare_files(const void *a, const void *b)
{
	const struct known_file *x = a, *y = b;
	int c = COMPARE(x->dev, y->dev);

	c = c ? c : COMPARE(x->ino, y->ino);
	if (c || (x->pid == y->pid && x->fd == y->fd))
		return c;
	/* 0 same, 1 less, 2 greater */
	long order = syscall(SYS_kcmp, x->pid, y->pid, KCMP_FILE, x->fd, y->fd);
	if (order == 0 || order == 1 || order == 2)
		return order == 0 ? 0 : order == 1 ? -1 : 1;
	if (order < 0)
		dump_block(x->dump, "pid %d fd %d: is it the same as fd %d of pid %d: %s", x->pid,
			   x->fd, y->fd, y->pid, strerror(errno));
	c = COMPARE(x->pid, y->pid);
	return c ? c : COMPARE(x->fd, y->fd);
}

static int compare_paths(const void *a, const void *b)
{
	const struct known_path *x = a, *y = b;
	int c = COMPARE(x->dev, y->dev);

	c = c ? c : COMPARE(x->ino, y->ino);
	c = c ? c : COMPARE(x->flags, y->flags);
	return c ? c : strcmp(x->path, y->path);
}

static struct file_table *table(struct dump *d)
{
	if (!d->file_table)
		d->file_table = arena_new(&d->arena, struct file_table);
	return d->file_table;
}

void file_table_free(struct file_table *t)
{
	if (!t)
		return;
	tdestroy(t->files, arena_leave_node);
	tdestroy(t->paths, arena_leave_node);
}

FileEntry *files_new_entry(struct dump *d)
{
	FileEntry *e = MESSAGE(&d->arena, FileEntry, file_entry);

	e->id = ++table(d)->last_id;
	*ARENA_PUSH(&d->arena, table(d)->inodes, table(d)->n_inodes) = 0;
	*ARENA_PUSH(&d->arena, d->files, d->n_files) = e;
	return e;
}

ino_t files_inode(const struct dump *d, uint32_t id)
{
	return d->file_table->inodes[id - 1];
}

static int dump_description(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	if (p->info.flags & O_PATH && p->link[0] != '/') {
		dump_block(d, "pid %d fd %d: %s: an O_PATH descriptor of it cannot be dumped",
			   p->task->process->pid, p->fd, p->link);
		return 0;
	}
	if (external_has_file(d, p)) {
		external_dump_file(d, p, e);
		return 0;
	}
	for (size_t i = 0; i < n_file_classes; i++) {
		if (!file_classes[i]->match(p))
			continue;
		e->type = file_classes[i]->type;
		return file_classes[i]->dump(d, p, e);
	}
	unknown_block(d, p);
	return 0;
}

/* A description that is seen for the first time. */
static int add_description(struct dump *d, struct fd_probe *p, struct known_file *f)
{
	f->entry = files_new_entry(d);
	table(d)->inodes[f->entry->id - 1] = p->st.st_ino;
	return dump_description(d, p, f->entry);
}

static int collect_probe(struct dump *d, struct fd_probe *p, const struct fd_places *at)
{
	struct dump_task *t = p->task;
	int rc = probe_fd(d, p, at);
	if (rc < 0)
		return rc;
	struct known_file *f = arena_new(&d->arena, struct known_file);
	*f = (struct known_file){ p->st.st_dev, p->st.st_ino, t->process->pid, p->fd, d, NULL };
	struct known_file **found = tsearch(f, &table(d)->files, compare_files);
	if (!found)
		return fail(ENOMEM, "pid %d fd %d: remember it", t->process->pid, p->fd);
	if (*found == f)
		rc = add_description(d, p, f);
	if (rc < 0)
		return rc;
	FdinfoEntry *e = MESSAGE(&d->arena, FdinfoEntry, fdinfo_entry);
	e->id = (*found)->entry->id;
	e->type = (*found)->entry->type;
	e->fd = p->fd;
	e->flags = p->info.flags & O_CLOEXEC ? FD_CLOEXEC : 0;
	*ARENA_PUSH(&d->arena, t->fds, t->n_fds) = e;
	if (p->is_flag_unknown)
		*ARENA_PUSH(&d->arena, t->unasked_fds, t->n_unasked_fds) = e;
	return locks_collect(d, p, e->id);
}

static int collect_fd(struct dump *d, struct dump_task *t, int fd, const struct fd_places *at)
{
	autoprobe struct fd_probe p;

	(void)probe_begin(&p, t, fd, at);
	return collect_probe(d, &p, at);
}

int files_dump_fd(struct dump *d, pid_t pid, int fd)
{
	if (d->last_pidfd.pid != pid) {
		if (d->last_pidfd.pid)
			own_close(&d->last_pidfd.fd);
		d->last_pidfd.fd = syscall(SYS_pidfd_open, pid, 0);
		d->last_pidfd.pid = d->last_pidfd.fd < 0 ? 0 : pid;
	}
	int copy = d->last_pidfd.pid ? (int)syscall(SYS_pidfd_getfd, d->last_pidfd.fd, fd, 0) : -1;
	return copy < 0 ? -errno : copy;
}

/* A task that is criu: only what the descriptors need of one is there. */
static struct dump_task *own_task(struct dump *d)
{
	if (d->own)
		return d->own;
	struct process *p = arena_new(&d->arena, struct process);
	p->pid = getpid();
	p->proc_fd = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	p->mem_fd = -1;
	if (p->proc_fd < 0)
		return NULL;
	d->own = arena_new(&d->arena, struct dump_task);
	d->own->process = p;
	return d->own;
}

int files_keep_fd(struct dump *d, int fd)
{
	int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (kept >= 0)
		*ARENA_PUSH(&d->arena, d->own_fds, d->n_own_fds) = kept;
	return kept;
}

int files_add_own(struct dump *d, int fd, uint32_t *ret_id)
{
	struct dump_task *t = own_task(d);
	autoplaces struct fd_places at = { -1, -1, -1, -1, 0 };

	*ARENA_PUSH(&d->arena, d->own_fds, d->n_own_fds) = fd;
	int rc = t ? fd_places_open(t->process, &at) : -errno;

	at.n = 1; /* of interest */
	if (rc == 0)
		rc = collect_fd(d, t, fd, &at);
	if (rc == 0)
		*ret_id = t->fds[t->n_fds - 1]->id;
	return rc;
}

void files_dump_done(struct dump *d)
{
	while (d->n_own_fds)
		(void)close(d->own_fds[--d->n_own_fds]);
	if (d->own)
		own_close(&d->own->process->proc_fd);
	if (d->last_pidfd.pid)
		own_close(&d->last_pidfd.fd);
	d->last_pidfd.pid = 0;
}

int files_check_options(const struct options *o)
{
	return external_check(o);
}

/* Who has the descriptor table that the task shares; itself if it is the first that has it. */
static const struct dump_task *owner_of_table(const struct dump *d, const struct dump_task *t)
{
	for (size_t i = 0; i < d->n_tasks; i++)
		if (d->tasks[i].ids->files_id == t->ids->files_id)
			return &d->tasks[i];
	return t;
}

/*
 * To list them the kernel makes an inode for each. They mostly have all numbers from 0 on: who
 * knows how many there are need not list them. *ret_next: those below are done.
 */
static int collect_by_number(struct dump *d, struct dump_task *t, const struct fd_places *at,
			     int *ret_next)
{
	size_t found = 0;

	for (size_t fd = 0; found < at->n && fd < 2 * at->n; fd++) {
		autoprobe struct fd_probe p;

		bool is_there = probe_begin(&p, t, fd, at);
		if (is_there && p.copy < 0)
			return 0; /* no copies are to be had here, so this tells nothing */
		*ret_next = fd + 1;
		if (!is_there)
			continue;
		int rc = collect_probe(d, &p, at);
		if (rc < 0)
			return rc;
		found++;
	}
	return 0;
}

static int collect_listed(struct dump *d, struct dump_task *t, struct fd_places *at, int first)
{
	size_t n;
	int *fds, rc = proc_numbers(t->process->proc_fd, "fd", &d->arena, &fds, &n);

	if (rc < 0)
		return fail(-rc, "pid %d: list its descriptors", t->process->pid);
	at->n = n;
	for (size_t i = 0; i < n && rc == 0; i++)
		if (fds[i] >= first)
			rc = collect_fd(d, t, fds[i], at);
	return rc;
}

int files_collect_task(struct dump *d, struct dump_task *t)
{
	const struct dump_task *owner = owner_of_table(d, t);

	if (owner != t) {
		t->fds = owner->fds;
		t->n_fds = owner->n_fds;
		return 0;
	}
	autoplaces struct fd_places at = { -1, -1, -1, -1, 0 };
	int next = 0, rc = fd_places_open(t->process, &at);

	if (rc == 0 && at.n >= FD_PLACES_MANY)
		rc = collect_by_number(d, t, &at, &next);
	if (rc == 0 && (!at.n || t->n_fds < at.n))
		rc = collect_listed(d, t, &at, next);
	return rc;
}

#define ASKED_AT_ONCE 512

static int ask(struct dump_task *t, FdinfoEntry *const *fds, size_t n)
{
	struct program p;
	int rc = program_begin(&p, &t->in.worker, n);

	for (size_t i = 0; i < n && rc == 0; i++)
		CALL(&p, "read a descriptor's flags", SYS_fcntl, fds[i]->fd, F_GETFD);
	if (rc == 0)
		rc = program_run(&p);
	for (size_t i = 0; i < n && rc == 0; i++)
		fds[i]->flags = p.calls[i].ret;
	program_end(&p);
	return rc;
}

int files_ask_task(struct dump_task *t)
{
	int rc = 0;

	for (size_t i = 0; i < t->n_unasked_fds && rc == 0; i += ASKED_AT_ONCE)
		rc = ask(t, t->unasked_fds + i, min(t->n_unasked_fds - i, (size_t)ASKED_AT_ONCE));
	return rc;
}

int files_path_id(struct dump *d, struct dump_task *t, const char *link, int flags,
		  const char *what, uint32_t *ret_id)
{
	int dir = t->process->proc_fd;
	char path[4200], who[128], source[128];
	struct stat st;

	ssize_t len = read_link_at(dir, link, path, sizeof(path));
	if (len < 0)
		return fail(-len, "pid %d: %s: read the link %s", t->process->pid, what, link);
	if (fstatat(dir, link, &st, 0) < 0)
		return fail(errno, "pid %d: %s: stat %s", t->process->pid, what, link);

	struct known_path *k = arena_new(&d->arena, struct known_path);
	*k = (struct known_path){ st.st_dev, st.st_ino, flags, path, NULL };
	struct known_path **found = tfind(k, &table(d)->paths, compare_paths);
	if (found) {
		*ret_id = (*found)->entry->id;
		return 0;
	}
	k->path = arena_strdup(&d->arena, path);
	k->entry = files_new_entry(d);
	if (!tsearch(k, &table(d)->paths, compare_paths))
		return fail(ENOMEM, "pid %d: remember %s", t->process->pid, path);
	*ret_id = k->entry->id;
	snprintf(who, sizeof(who), "pid %d: %s", t->process->pid, what);
	snprintf(source, sizeof(source), "/proc/%d/%s", t->process->pid, link);
	if (memfd_is_path(path))
		return memfd_path_entry(d, who, path, source, &st, flags, k->entry);
	return regular_path_entry(d, who, path, source, &st, flags, k->entry);
}

int files_collect_fs(struct dump *d, struct dump_task *t)
{
	t->fs = MESSAGE(&d->arena, FsEntry, fs_entry);
	t->fs->has_umask = true;
	t->fs->umask = t->threads[0].status.umask;
	int rc = files_path_id(d, t, "cwd", O_RDONLY, "working directory", &t->fs->cwd_id);
	return rc < 0 ? rc
		      : files_path_id(d, t, "root", O_RDONLY, "root directory", &t->fs->root_id);
}

static int write_task(struct dump *d, struct dump_task *t)
{
	struct image_out out;

	int rc = 0;

	if (owner_of_table(d, t) == t) {
		image_begin(&out, &d->images, IMG_FDINFO, t->ids->files_id);
		for (size_t i = 0; i < t->n_fds; i++)
			image_add(&out, t->fds[i]);
		rc = image_commit(&out);
	}
	return rc < 0 ? rc : image_write_one(&d->images, IMG_FS, t->process->pid, t->fs);
}

/* All descriptors are known now: what refers to others can be resolved. */
int files_collect_end(struct dump *d)
{
	/* First, because it finds more files: those in flight. */
	int rc = sockets_collect_end(d);

	pipes_check_ends(d);
	ttys_resolve(d);
	if (rc == 0)
		rc = tuns_resolve(d);
	if (rc == 0)
		rc = timerfds_resolve(d);
	if (rc == 0)
		rc = external_check_used(d);
	return rc < 0 ? rc : epolls_resolve(d);
}

int files_save_contents(struct dump *d)
{
	int rc = pipes_save(d);

	if (rc == 0)
		rc = bpfmaps_save(d);
	if (rc == 0)
		rc = memfds_save(d);
	if (rc == 0)
		rc = ttys_save_queues(d);
	return rc < 0 ? rc : remap_save(d);
}

int files_write_images(struct dump *d)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_FILES, 0);
	for (size_t i = 0; i < d->n_files; i++) {
		regular_add_build_id(d, d->files[i]);
		image_add(&out, d->files[i]);
	}
	int rc = image_commit(&out);
	if (rc == 0)
		rc = memfds_write(d);
	if (rc == 0)
		rc = remap_write_image(d);
	if (rc == 0)
		rc = ttys_write_images(d);
	if (rc == 0)
		rc = sockets_write_image(d);
	if (rc == 0)
		rc = locks_write_image(d);
	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = write_task(d, &d->tasks[i]);
	return rc;
}
