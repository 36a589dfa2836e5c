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
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "files/regular.h"

/* A description, seen through the first descriptor that led to it. */
struct known_file {
	dev_t dev;
	ino_t ino;
	pid_t pid;
	int fd;
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

static void leave_node(void *node)
{
	(void)node; /* in the dump's arena */
}

void file_table_free(struct file_table *t)
{
	if (!t)
		return;
	tdestroy(t->files, leave_node);
	tdestroy(t->paths, leave_node);
}

static FileEntry *new_entry(struct dump *d)
{
	FileEntry *e = MESSAGE(&d->arena, FileEntry, file_entry);

	e->id = ++table(d)->last_id;
	*ARENA_PUSH(&d->arena, d->files, d->n_files) = e;
	return e;
}

static int probe_fd(struct fd_probe *p, struct dump_task *t, int fd)
{
	char name[32];

	p->task = t;
	p->fd = fd;
	snprintf(name, sizeof(name), "fd/%d", fd);
	ssize_t len = read_link_at(t->process->proc_fd, name, p->link, sizeof(p->link));
	if (len < 0)
		return fail(-len, "pid %d fd %d: read its link", t->process->pid, fd);
	if (fstatat(t->process->proc_fd, name, &p->st, 0) < 0)
		return fail(errno, "pid %d fd %d: stat", t->process->pid, fd);
	int rc = proc_fdinfo_read(t->process->proc_fd, fd, &p->info);
	return rc < 0 ? fail(-rc, "pid %d fd %d: read fdinfo", t->process->pid, fd) : 0;
}

static int dump_description(struct dump *d, const struct fd_probe *p, FileEntry *e)
{
	for (size_t i = 0; i < n_file_classes; i++)
		if (file_classes[i]->match(p))
			return file_classes[i]->dump(d, p, e);
	dump_block(d, "pid %d fd %d: %s: this kind of file cannot be dumped by this version",
		   p->task->process->pid, p->fd, p->link);
	return 0;
}

/* SIGIO owners and locks belong to the description; neither has a place in the image yet. */
static void check_extras(struct dump *d, const struct fd_probe *p, int pidfd)
{
	pid_t pid = p->task->process->pid;

	if (p->info.locks)
		dump_block(d,
			   "pid %d fd %d: %s: a lock is held on it; --file-locks is not supported "
			   "by this "
			   "version",
			   pid, p->fd, p->link);
	if (p->info.flags & O_PATH || pidfd < 0)
		return;
	autoclose int copy = syscall(SYS_pidfd_getfd, pidfd, p->fd, 0);
	struct f_owner_ex owner = { 0 };
	if (copy >= 0 && fcntl(copy, F_GETOWN_EX, &owner) == 0 && owner.pid)
		dump_block(d,
			   "pid %d fd %d: %s: F_SETOWN is in use, which this version cannot dump",
			   pid, p->fd, p->link);
}

static int collect_fd(struct dump *d, struct dump_task *t, int fd, int pidfd)
{
	struct fd_probe p;
	int rc = probe_fd(&p, t, fd);

	if (rc < 0)
		return rc;
	struct known_file *f = arena_new(&d->arena, struct known_file);
	*f = (struct known_file){ p.st.st_dev, p.st.st_ino, t->process->pid, fd, NULL };
	struct known_file **found = tsearch(f, &table(d)->files, compare_files);
	if (!found)
		return fail(ENOMEM, "pid %d fd %d: remember it", t->process->pid, fd);
	if (*found == f) {
		f->entry = new_entry(d);
		rc = dump_description(d, &p, f->entry);
		if (rc < 0)
			return rc;
		check_extras(d, &p, pidfd);
	}
	FdinfoEntry *e = MESSAGE(&d->arena, FdinfoEntry, fdinfo_entry);
	e->id = (*found)->entry->id;
	e->type = (*found)->entry->type;
	e->fd = fd;
	e->flags = p.info.flags & O_CLOEXEC ? FD_CLOEXEC : 0;
	*ARENA_PUSH(&d->arena, t->fds, t->n_fds) = e;
	return 0;
}

int files_collect_task(struct dump *d, struct dump_task *t)
{
	size_t n;
	int *fds, rc = proc_numbers(t->process->proc_fd, "fd", &d->arena, &fds, &n);

	if (rc < 0)
		return fail(-rc, "pid %d: list its descriptors", t->process->pid);
	autoclose int pidfd = syscall(SYS_pidfd_open, t->process->pid, 0);
	for (size_t i = 0; i < n; i++) {
		rc = collect_fd(d, t, fds[i], pidfd);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int files_path_id(struct dump *d, struct dump_task *t, const char *link, int flags,
		  const char *what, uint32_t *ret_id)
{
	int dir = t->process->proc_fd;
	char path[4200], who[128];
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
	k->entry = new_entry(d);
	if (!tsearch(k, &table(d)->paths, compare_paths))
		return fail(ENOMEM, "pid %d: remember %s", t->process->pid, path);
	*ret_id = k->entry->id;
	snprintf(who, sizeof(who), "pid %d: %s", t->process->pid, what);
	return regular_entry(d, who, path, &st, flags, 0, k->entry);
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

	image_begin(&out, &d->images, IMG_FDINFO, t->ids->files_id);
	for (size_t i = 0; i < t->n_fds; i++)
		image_add(&out, t->fds[i]);
	int rc = image_commit(&out);
	return rc < 0 ? rc : image_write_one(&d->images, IMG_FS, t->process->pid, t->fs);
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
	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = write_task(d, &d->tasks[i]);
	return rc;
}
