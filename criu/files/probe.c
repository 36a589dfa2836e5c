/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * /proc tells all of a descriptor, at a price: its link takes 3 us and fdinfo 6, most of that for
 * inodes which /proc makes and drops again. Of a task with many descriptors, what a copy of the
 * descriptor tells is not read there: then one costs 2 us. Only its close-on-exec flag is then
 * left, which the task itself is asked for.
 *
 * Some files have more in fdinfo than that: only kinds and file systems take the short way that
 * are known to have nothing but locks, and only if /proc/locks shows none on that inode. (It tells
 * the truth only if it is short: files/locks.c.)
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/locks.h"
#include "files/probe.h"
#include "kernel/abi.h"
#include "proc/text.h"

#define INFO_ROOM 2048

const char *probe_next(const struct fd_probe *p, const char *name, const char *line)
{
	const char *end = p->lines + p->lines_size;

	line = line ? strchr(line, '\0') + 1 : p->lines;
	for (; line < end; line = strchr(line, '\0') + 1) {
		const char *value = text_field(line, name);

		if (value)
			return value;
	}
	return NULL;
}

uint64_t probe_number(const struct fd_probe *p, const char *name, int base, uint64_t fallback)
{
	const char *value = probe_next(p, name, NULL);
	uint64_t n;

	if (!value)
		return fallback;
	if (base == 8)
		return text_oct(value, &n) ? n : fallback;
	return (base == 16 ? text_hex(value, &n) : text_dec(value, &n)) ? n : fallback;
}

uint32_t probe_flags(const struct fd_probe *p)
{
	return p->info.flags & ~O_CLOEXEC;
}

/* 0 or -errno, not reported. */
static int read_info(struct fd_probe *p)
{
	char path[TEXT_DEC_MAX];

	free(p->lines);
	p->lines = NULL;
	text_put_dec(path, p->fd);
	/* The kernel gives it as a whole: mostly one read is enough. */
	p->lines = xmalloc(INFO_ROOM);
	ssize_t len = read_small_at(p->info_dir, path, p->lines, INFO_ROOM);
	if (len == INFO_ROOM - 1) {
		free(p->lines);
		p->lines = NULL;
		len = read_file_at(p->info_dir, path, &p->lines);
	}
	p->lines_size = len < 0 ? 0 : len;
	return len < 0 ? (int)len : proc_fdinfo_parse(p->lines, &p->info);
}

static int probe_failed(const struct fd_probe *p, int rc)
{
	return fail(-rc, "pid %d fd %d: look at it in /proc", p->task->process->pid, p->fd);
}

int probe_read_info(struct fd_probe *p)
{
	int rc = read_info(p);

	return rc < 0 ? probe_failed(p, rc) : 0;
}

void probe_done(struct fd_probe *p)
{
	own_close(&p->copy);
	free(p->lines);
}

void fd_places_close(struct fd_places *at)
{
	own_close(&at->pidfd);
	own_close(&at->fds);
	own_close(&at->infos);
	own_close(&at->own_fds);
}

int fd_places_open(const struct process *p, struct fd_places *ret)
{
	struct stat st;
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

	*ret = (struct fd_places){ .pidfd = syscall(SYS_pidfd_open, p->pid, 0),
				   .fds = openat(p->proc_fd, "fd", flags),
				   .infos = openat(p->proc_fd, "fdinfo", flags),
				   .own_fds = -1 };
	if (ret->pidfd < 0 || ret->fds < 0 || ret->infos < 0)
		return fail(errno, "pid %d: look at its descriptors", p->pid);
	/* The size is their number (Linux 6.2). */
	ret->n = fstat(ret->fds, &st) == 0 ? st.st_size : 0;
	/* Only the short way needs it. */
	if (!ret->n || ret->n >= FD_PLACES_MANY)
		ret->own_fds = open("/proc/self/fd", flags);
	return 0;
}

/* ---- the short way ---- */

/* Their files have an offset that can be asked for, and inodes whose numbers are those of stat. */
static bool is_simple_fs(uint32_t type)
{
	static const uint32_t simple[] = { EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
					   F2FS_SUPER_MAGIC, TMPFS_MAGIC,     RAMFS_MAGIC };

	for (size_t i = 0; i < ARRAY_SIZE(simple); i++)
		if (type == simple[i])
			return true;
	return false;
}

/* The kernel has no name for the device of all pipes. */
static bool is_in_pipefs(struct dump *d, const struct stat *st)
{
	struct stat own;
	int ends[2];

	if (!d->pipefs && pipe2(ends, O_CLOEXEC) == 0) {
		d->pipefs = fstat(ends[0], &own) == 0 ? own.st_dev : 0;
		(void)close(ends[0]);
		(void)close(ends[1]);
	}
	return d->pipefs && st->st_dev == d->pipefs;
}

static const char *nameless_kind(struct dump *d, const struct stat *st)
{
	return S_ISSOCK(st->st_mode)			      ? "socket"
	       : S_ISFIFO(st->st_mode) && is_in_pipefs(d, st) ? "pipe"
							      : NULL;
}

/* That of the file, which is asked for once for each device. */
static uint32_t fs_type(struct dump *d, int fd, dev_t dev)
{
	struct statfs fs;

	for (size_t i = d->n_file_systems; i-- > 0;)
		if (d->file_systems[i].dev == dev)
			return d->file_systems[i].type;
	uint32_t type = fstatfs(fd, &fs) == 0 ? fs.f_type : 0;
	*ARENA_PUSH(&d->arena, d->file_systems, d->n_file_systems) =
		(struct file_system){ dev, type };
	return type;
}

/* What fdinfo would say. False: it has more to say, or may have. */
static bool info_of_copy(struct dump *d, struct fd_probe *p, const char *kind, uint32_t mnt_id)
{
	int flags = fcntl(p->copy, F_GETFL);

	if (flags < 0 || flags & O_PATH || locks_may_be_on(d, p->st.st_ino))
		return false;
	p->info = (struct proc_fdinfo){ .flags = flags & ~O_CLOEXEC, .mnt_id = mnt_id };
	if (kind)
		return true;
	/* To ask for the offset of a directory may change it, on some file systems. */
	if (!S_ISREG(p->st.st_mode) || !is_simple_fs(p->fs_type))
		return false;
	p->info.pos = lseek(p->copy, 0, SEEK_CUR);
	return p->info.pos >= 0;
}

/*
 * The link of the copy is the same, and cheaper: its name stays in the kernel's cache, as all
 * copies get the same number, and one may always look at oneself.
 */
static bool link_of_copy(struct fd_probe *p, const char *kind, int own_fds)
{
	char name[TEXT_DEC_MAX];

	if (kind)
		return snprintf(p->link, sizeof(p->link), "%s:[%lu]", kind, (long)p->st.st_ino) > 0;
	text_put_dec(name, p->copy);
	return read_link_at(own_fds, name, p->link, sizeof(p->link)) > 0;
}

/* False: both are to be read in the folder of the task. */
static bool look_at_copy(struct dump *d, struct fd_probe *p, const struct fd_places *at,
			 uint32_t mnt_id)
{
	const char *kind = nameless_kind(d, &p->st);

	return info_of_copy(d, p, kind, mnt_id) && link_of_copy(p, kind, at->own_fds);
}

/* ---- the long way ---- */

static int look_in_proc(struct fd_probe *p, const struct fd_places *at)
{
	ssize_t len = read_link_at(at->fds, p->name, p->link, sizeof(p->link));
	if (len < 0)
		return len;
	int rc = read_info(p);
	if (rc == 0 && p->info.flags & O_PATH) {
		own_close(&p->copy); /* it can do nothing */
		p->copy = -1;
	}
	return rc;
}

static struct stat stat_of(const struct statx *sx)
{
	return (struct stat){
		.st_dev = makedev(sx->stx_dev_major, sx->stx_dev_minor),
		.st_ino = sx->stx_ino,
		.st_mode = sx->stx_mode,
		.st_nlink = sx->stx_nlink,
		.st_uid = sx->stx_uid,
		.st_gid = sx->stx_gid,
		.st_rdev = makedev(sx->stx_rdev_major, sx->stx_rdev_minor),
		.st_size = sx->stx_size,
		.st_blksize = sx->stx_blksize,
		.st_blocks = sx->stx_blocks,
		.st_atim = { sx->stx_atime.tv_sec, sx->stx_atime.tv_nsec },
		.st_mtim = { sx->stx_mtime.tv_sec, sx->stx_mtime.tv_nsec },
		.st_ctim = { sx->stx_ctime.tv_sec, sx->stx_ctime.tv_nsec },
	};
}

static int look(struct dump *d, struct fd_probe *p, const struct fd_places *at)
{
	struct statx sx;

	if (p->copy < 0) {
		if (fstatat(at->fds, p->name, &p->st, 0) < 0)
			return -errno;
		return look_in_proc(p, at);
	}
	if (statx(p->copy, "", AT_EMPTY_PATH, STATX_BASIC_STATS | ABI_STATX_MNT_ID, &sx) < 0)
		return -errno;
	p->st = stat_of(&sx);
	if (S_ISREG(p->st.st_mode) || S_ISDIR(p->st.st_mode))
		p->fs_type = fs_type(d, p->copy, p->st.st_dev);
	p->is_flag_unknown = at->n >= FD_PLACES_MANY && sx.stx_mask & ABI_STATX_MNT_ID &&
			     look_at_copy(d, p, at, sx.stx_mnt_id);
	return p->is_flag_unknown ? 0 : look_in_proc(p, at);
}

bool probe_begin(struct fd_probe *p, struct dump_task *t, int fd, const struct fd_places *at)
{
	p->task = t;
	p->fd = fd;
	p->info_dir = at->infos;
	p->fs_type = 0;
	p->is_flag_unknown = false;
	p->lines = NULL; /* the rest is filled in; its room for a link is large */
	p->lines_size = 0;
	/* To stat it is half as dear as by the path. */
	p->copy = syscall(SYS_pidfd_getfd, at->pidfd, fd, 0);
	return p->copy >= 0 || errno != EBADF;
}

int probe_fd(struct dump *d, struct fd_probe *p, const struct fd_places *at)
{
	text_put_dec(p->name, p->fd);
	int rc = look(d, p, at);
	return rc < 0 ? probe_failed(p, rc) : 0;
}
