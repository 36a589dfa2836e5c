/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memfd_create(2). One inode in memfd.img, its pages as those of shared memory; each open
 * description is an entry of files.img.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"
#include "files/memfd.h"
#include "image/pagemap.h"
#include "mem/mem.h"
#include "ns/ipc.h"
#include "proc/text.h"

#define MEMFD_PREFIX "/memfd:" /* in /proc */
#define HUGE_FLAGS   (MFD_HUGETLB | 0x3fu << MFD_HUGE_SHIFT)
#define FIRST_ID     0x40000000u /* criu 3.17 does not find numbers that look negative */

struct dump_memfd {
	dev_t dev;
	ino_t ino;
	const char *source; /* path in /proc that leads to it */
	MemfdInodeEntry *entry;
	struct saved_pages pages;
	struct dump_memfd *next;
};

bool memfd_is_path(const char *path)
{
	return !strncmp(path, MEMFD_PREFIX, strlen(MEMFD_PREFIX));
}

static bool memfd_match(const struct fd_probe *p)
{
	return memfd_is_path(p->link);
}

static struct dump_memfd *find(struct dump *d, const struct stat *st)
{
	for (struct dump_memfd *m = d->memfds; m; m = m->next)
		if (m->dev == st->st_dev && m->ino == st->st_ino)
			return m;
	return NULL;
}

/*
 * Inodes of hugetlbfs are numbered apart from those of tmpfs, and segments of System V have ids of
 * the same images: what may be mistaken gets one from up here.
 */
static uint32_t id_of_our_own(const struct dump *d)
{
	uint32_t id = FIRST_ID;

	for (const struct dump_memfd *m = d->memfds; m; m = m->next)
		if (m->entry->shmid >= id)
			id = m->entry->shmid + 1;
	while (ipc_has_segment(d, id))
		id++;
	return id;
}

static int add(struct dump *d, const char *who, const char *path, const char *source,
	       const struct stat *st, int fd)
{
	struct dump_memfd *m = arena_new(&d->arena, struct dump_memfd);
	MemfdInodeEntry *e = MESSAGE(&d->arena, MemfdInodeEntry, memfd_inode_entry);
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return fail(errno, "%s: look at the file system of %s", who, path);
	e->name = arena_strdup(&d->arena, path);
	text_cut_deleted(e->name); /* before the prefix goes, which keeps an empty name apart */
	e->name += strlen(MEMFD_PREFIX);
	e->uid = st->st_uid;
	e->gid = st->st_gid;
	e->size = st->st_size;
	e->shmid = e->inode_id = st->st_ino;
	if (fs.f_type == HUGETLBFS_MAGIC) {
		e->has_hugetlb_flag = true;
		e->hugetlb_flag = MFD_HUGETLB | __builtin_ctzl(fs.f_bsize) << MFD_HUGE_SHIFT;
	}
	if (e->has_hugetlb_flag || ipc_has_segment(d, e->shmid))
		e->shmid = e->inode_id = id_of_our_own(d);
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 && errno != EINVAL) /* what is no memfd has none */
		return fail(errno, "%s: read the seals of %s", who, path);
	e->seals = max(seals, 0);
	e->has_mode = true;
	e->mode = st->st_mode;
	*m = (struct dump_memfd){ .dev = st->st_dev,
				  .ino = st->st_ino,
				  .source = arena_strdup(&d->arena, source),
				  .entry = e,
				  .next = d->memfds };
	d->memfds = m;
	return 0;
}

static int make_entry(struct dump *d, const char *who, const char *path, const char *source,
		      const struct stat *st, FileEntry *e)
{
	struct dump_memfd *m = find(d, st);

	if (!m) {
		autoclose int fd = open(source, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return fail(errno, "%s: open %s", who, path);
		int rc = add(d, who, path, source, st, fd);
		if (rc < 0)
			return rc;
		m = d->memfds;
	}
	e->type = FD_TYPES__MEMFD;
	e->memfd = MESSAGE(&d->arena, MemfdFileEntry, memfd_file_entry);
	e->memfd->id = e->id;
	e->memfd->inode_id = m->entry->inode_id;
	return 0;
}

static int memfd_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	char who[64], source[64];

	snprintf(who, sizeof(who), "pid %d fd %d", p->task->process->pid, p->fd);
	snprintf(source, sizeof(source), "/proc/%d/fd/%d", p->task->process->pid, p->fd);
	int rc = make_entry(d, who, p->link, source, &p->st, e);
	if (rc < 0)
		return rc;
	e->memfd->flags = probe_flags(p);
	e->memfd->pos = p->info.pos;
	e->memfd->fown = fown_read(d, p);
	return 0;
}

int memfd_path_entry(struct dump *d, const char *who, const char *path, const char *source,
		     const struct stat *st, int flags, FileEntry *e)
{
	int rc = make_entry(d, who, path, source, st, e);

	if (rc < 0)
		return rc;
	e->memfd->flags = flags;
	e->memfd->fown = MESSAGE(&d->arena, FownEntry, fown_entry);
	return 0;
}

static int save(struct dump *d, struct dump_memfd *m)
{
	char who[4200];
	/* Another description: the position of the task's must stay. */
	autoclose int from = open(m->source, O_RDONLY | O_CLOEXEC);

	snprintf(who, sizeof(who), "memfd %s (%s)", m->entry->name, m->source);
	if (from < 0)
		return fail(errno, "%s: open", who);
	return mem_save_file(d, from, m->entry->size, who, m->entry->shmid, &m->pages);
}

int memfds_save(struct dump *d)
{
	int rc = 0;

	for (struct dump_memfd *m = d->memfds; m && rc == 0; m = m->next)
		if (m->entry->size)
			rc = save(d, m);
	return rc;
}

int memfds_write(struct dump *d)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_MEMFD_INODE, 0);
	for (const struct dump_memfd *m = d->memfds; m; m = m->next)
		image_add(&out, m->entry);
	int rc = image_commit(&out);
	for (struct dump_memfd *m = d->memfds; m && rc == 0; m = m->next)
		if (m->entry->size)
			rc = mem_write_pages(d, &m->pages);
	return rc;
}

/* ---- restore ---- */

static int make(struct restore *r, size_t i)
{
	const MemfdInodeEntry *e = r->snapshot.memfds[i];
	unsigned huge = e->has_hugetlb_flag ? e->hugetlb_flag & HUGE_FLAGS : 0;
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | huge;
	autoclose int fd = memfd_create(e->name, flags);

	if (fd < 0)
		return fail(errno, "memfd %s: make it", e->name);
	if (ftruncate(fd, e->size) < 0)
		return fail(errno, "memfd %s: set its size", e->name);
	int rc = mem_fill_file(fd, e->size, &r->snapshot.memfd_pages[i], e->name);
	if (rc < 0)
		return rc;
	if (e->has_mode && fchmod(fd, e->mode & 07777) < 0)
		rc = -errno;
	if (rc == 0 && (e->uid || e->gid) && fchown(fd, e->uid, e->gid) < 0)
		rc = -errno;
	if (rc < 0)
		return fail(-rc, "memfd %s: set its mode and owner", e->name);
	return files_own_number(r, take_fd(&fd));
}

static int memfd_open(struct restore *r, const FileEntry *entry)
{
	const MemfdFileEntry *e = entry->memfd;
	int i = snapshot_memfd(&r->snapshot, e->inode_id);

	if (!r->memfds) {
		r->memfds = arena_array(&r->arena, int, r->snapshot.n_memfds);
		memset(r->memfds, -1, r->snapshot.n_memfds * sizeof(int));
	}
	if (r->memfds[i] < 0)
		r->memfds[i] = make(r, i);
	if (r->memfds[i] < 0)
		return r->memfds[i];
	autoclose int fd = file_reopen(r->memfds[i], e->flags);
	if (fd < 0)
		return fail(-fd, "memfd %s: open it again", r->snapshot.memfds[i]->name);
	if (e->pos && lseek(fd, e->pos, SEEK_SET) < 0)
		return fail(errno, "memfd %s: seek", r->snapshot.memfds[i]->name);
	return file_finish(take_fd(&fd), e->flags, r->snapshot.memfds[i]->name);
}

int memfds_seal(struct restore *r)
{
	for (size_t i = 0; r->memfds && i < r->snapshot.n_memfds; i++) {
		const MemfdInodeEntry *e = r->snapshot.memfds[i];

		if (r->memfds[i] < 0)
			continue;
		if (e->seals && fcntl(r->memfds[i], F_ADD_SEALS, e->seals) < 0)
			return fail(errno, "memfd %s: seal it (%#x)", e->name, e->seals);
		own_close(&r->memfds[i]);
		r->memfds[i] = -1;
	}
	return 0;
}

static int memfd_check(const struct restore *r, const FileEntry *e)
{
	if (snapshot_memfd(&r->snapshot, e->memfd->inode_id) < 0)
		return refuse(EINVAL, "image files.img: memfd %#x: memfd.img has no inode %u",
			      e->id, e->memfd->inode_id);
	return 0;
}

static void memfd_key(const struct restore *r, const FileEntry *e, char *buf, size_t size)
{
	int i = snapshot_memfd(&r->snapshot, e->memfd->inode_id);

	snprintf(buf, size, "memfd:%s", r->snapshot.memfds[i]->name);
}

FILE_PART(memfd, memfd)

const struct file_class memfd_class = {
	.name = "memfd",
	.type = FD_TYPES__MEMFD,
	.match = memfd_match,
	.dump = memfd_dump,
	.has_part = memfd_has_part,
	.check = memfd_check,
	.open = memfd_open,
	.key = memfd_key,
	.inherit_kind = S_IFREG,
	.fown = memfd_fown,
	.flags = memfd_flags,
};
