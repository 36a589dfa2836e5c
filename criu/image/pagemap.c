/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "image/messages.h"
#include "image/pagemap.h"

#define PARENTS_MAX 1000 /* links that are followed */

/* The directories on the way from the first image to its farthest parent. */
struct level {
	const struct level *child;
	int dirfd, depth;
};

struct reading {
	struct pagemap_set *set;
	enum image_type type;
	unsigned long id;
	char name[IMAGE_NAME_MAX];
};

static int read_level(struct reading *r, const struct level *level, struct pagemap *ret);

/* A file that several pagemaps name has one descriptor: by that they know what they share. */
static int find_pages(const struct pagemap_set *set, const struct stat *st, uint64_t *ret_size)
{
	for (size_t i = 0; i < set->n_files; i++)
		if (set->files[i].ino == st->st_ino && set->files[i].dev == st->st_dev) {
			*ret_size = set->files[i].size;
			return set->files[i].fd;
		}
	return -1;
}

static int open_pages(struct pagemap_set *set, int dirfd, uint32_t id, uint64_t *ret_size)
{
	char name[IMAGE_NAME_MAX];
	struct stat st;

	image_name(IMG_PAGES, id, name);
	autoclose int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(errno, "image %s: open", name);
	if (!S_ISREG(st.st_mode))
		return refuse(EINVAL, "image %s: not a regular file", name);
	int known = find_pages(set, &st, ret_size);
	if (known >= 0)
		return known;
	*ret_size = st.st_size;
	*ARENA_PUSH(set->arena, set->files, set->n_files) = (struct pages_file){
		.dev = st.st_dev, .ino = st.st_ino, .fd = fd, .size = st.st_size
	};
	return take_fd(&fd);
}

static void add_run(struct pagemap_set *set, struct pagemap *map, struct page_run run)
{
	struct page_run *last = map->n ? &map->run[map->n - 1] : NULL;

	if (last && page_run_end(last) == run.vaddr && page_runs_agree(last, &run))
		last->pages += run.pages;
	else
		*ARENA_PUSH(set->arena, map->run, map->n) = run;
}

size_t pagemap_first_behind(const struct pagemap *map, uint64_t addr)
{
	size_t lo = 0, hi = map->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (page_run_end(&map->run[mid]) <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool page_run_is_sound(uint64_t vaddr, uint64_t pages, uint64_t after)
{
	uint64_t end;

	return vaddr % PAGE_SIZE_ == 0 && vaddr >= after && pages &&
	       !__builtin_mul_overflow(pages, PAGE_SIZE_, &end) &&
	       !__builtin_add_overflow(end, vaddr, &end);
}

bool pagemap_has(const struct pagemap *map, uint64_t start, uint64_t end)
{
	for (size_t i = pagemap_first_behind(map, start);
	     i < map->n && start < end && map->run[i].vaddr <= start; i++)
		start = page_run_end(&map->run[i]);
	return start >= end;
}

/* Takes the pages [start, end) from the parent, where they may lie in several pieces. */
static int take_from_parent(struct reading *r, const struct pagemap *parent, uint64_t start,
			    uint64_t end, struct pagemap *out)
{
	for (size_t i = pagemap_first_behind(parent, start); i < parent->n && start < end; i++) {
		const struct page_run *p = &parent->run[i];
		uint64_t p_end = page_run_end(p);

		if (p->vaddr > start)
			break;
		uint64_t stop = min(end, p_end);
		add_run(r->set, out, page_run_part(p, start, stop));
		start = stop;
	}
	if (start < end)
		return refuse(EINVAL,
			      "image %s: page %#lx should be in the parent image, which lacks it",
			      r->name, (long)start);
	return 0;
}

/* A chain without end comes by a directory twice. */
static bool is_loop(const struct level *child, int dirfd)
{
	struct stat dir, st;

	if (fstat(dirfd, &dir) < 0)
		return true;
	for (const struct level *l = child; l; l = l->child)
		if (fstat(l->dirfd, &st) < 0 ||
		    (st.st_dev == dir.st_dev && st.st_ino == dir.st_ino))
			return true;
	return false;
}

static int load_parent(struct reading *r, const struct level *level, struct pagemap *ret)
{
	autoclose int parent = openat(level->dirfd, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct level next = { .child = level, .dirfd = parent, .depth = level->depth + 1 };

	if (parent < 0)
		return fail(errno, "image %s refers to a parent image: open the link `parent`",
			    r->name);
	if (next.depth > PARENTS_MAX || is_loop(level, parent))
		return refuse(ELOOP, "image %s: its chain of parent images has no end", r->name);
	int rc = read_level(r, &next, ret);
	if (rc == 0)
		return refuse(EINVAL, "image %s refers to a parent image that has no such file",
			      r->name);
	return rc;
}

static uint64_t entry_pages(const PagemapEntry *e)
{
	return e->has_nr_pages ? e->nr_pages : e->compat_nr_pages;
}

static uint32_t entry_flags(const PagemapEntry *e)
{
	if (e->has_flags)
		return e->flags;
	return e->has_in_parent && e->in_parent ? PAGEMAP_PARENT : PAGEMAP_PRESENT;
}

static int check_entry(struct reading *r, const PagemapEntry *e, uint64_t after)
{
	uint64_t pages = entry_pages(e);

	if (!page_run_is_sound(e->vaddr, pages, after))
		return refuse(EINVAL,
			      "image %s: the entry for %#lx (%lu pages) is out of order or range",
			      r->name, (long)e->vaddr, (long)pages);
	return 0;
}

static int read_entries(struct reading *r, struct image_in *in, const struct level *level,
			struct pagemap *ret)
{
	struct pagemap parent = { 0 };
	bool has_parent = false;
	uint64_t size = 0, offset = 0, after = 0;
	PagemapHead *head;
	PagemapEntry *e;

	int rc = image_next(in, r->set->arena, &pagemap_head__descriptor, &head);
	if (rc <= 0)
		return rc < 0 ? rc : refuse(EINVAL, "image %s: it has no head", r->name);
	int fd = open_pages(r->set, level->dirfd, head->pages_id, &size);
	if (fd < 0)
		return fd;
	while ((rc = image_next(in, r->set->arena, NULL, &e)) > 0) {
		rc = check_entry(r, e, after);
		if (rc < 0)
			return rc;
		uint64_t bytes = entry_pages(e) * PAGE_SIZE_;

		after = e->vaddr + bytes;
		if (entry_flags(e) & PAGEMAP_PRESENT) {
			if (bytes > size || offset > size - bytes)
				return refuse(EINVAL,
					      "image pages-%u.img: truncated: %s needs %lu bytes "
					      "from offset %lu, it has %lu",
					      head->pages_id, r->name, (long)bytes, (long)offset,
					      (long)size);
			add_run(r->set, ret,
				(struct page_run){ .vaddr = e->vaddr,
						   .pages = bytes / PAGE_SIZE_,
						   .fd = fd,
						   .offset = offset });
			offset += bytes;
		} else if (entry_flags(e) & PAGEMAP_PARENT) {
			if (!has_parent)
				rc = load_parent(r, level, &parent);
			has_parent = true;
			if (rc >= 0)
				rc = take_from_parent(r, &parent, e->vaddr, after, ret);
			if (rc < 0)
				return rc;
		} else {
			return refuse(EOPNOTSUPP,
				      "image %s: the pages at %#lx are not in the image but "
				      "with a page server (--lazy-pages)",
				      r->name, (long)e->vaddr);
		}
	}
	return rc;
}

/* Reads the pagemap of one directory, parents included: 1, 0 if there is none, or an error. */
static int read_level(struct reading *r, const struct level *level, struct pagemap *ret)
{
	struct image_in in;
	int rc = image_open(&in, level->dirfd, r->type, r->id);

	if (rc <= 0)
		return rc;
	rc = read_entries(r, &in, level, ret);
	image_close(&in);
	return rc < 0 ? rc : 1;
}

int pagemap_read(struct pagemap_set *set, int dirfd, enum image_type type, unsigned long id,
		 struct pagemap *ret)
{
	struct reading r = { .set = set, .type = type, .id = id };
	const struct level first = { .dirfd = dirfd };

	image_name(type, id, r.name);
	*ret = (struct pagemap){ 0 };
	return read_level(&r, &first, ret);
}

void pagemap_set_done(struct pagemap_set *set)
{
	for (size_t i = 0; i < set->n_files; i++)
		own_close(&set->files[i].fd);
	set->n_files = 0;
}

static bool is_same_dir(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

int pagemap_check_chain(int before_fd, int dirfd, const char *path)
{
	int fd = dup(before_fd), rc = 0;

	for (int depth = 1; fd >= 0 && rc == 0; depth++) {
		if (is_same_dir(fd, dirfd))
			rc = refuse(ELOOP,
				    "--prev-images-dir %s: these images are on top of the "
				    "directory of images itself, which would be written over; "
				    "write to another one",
				    path);
		else if (depth > PARENTS_MAX)
			rc = refuse(ELOOP,
				    "--prev-images-dir %s: more than %d directories are on top "
				    "of each other there; begin with a dump without it",
				    path, PARENTS_MAX);
		int next = openat(fd, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void)close(fd);
		fd = next;
	}
	own_close(&fd);
	return rc;
}

int pagemap_link_parent(struct image_dir *d, int before_fd, const char *path)
{
	int rc = image_dir_link(d, "parent", path);

	if (rc < 0)
		return rc;
	autoclose int fd = openat(d->fd, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail(errno, "--prev-images-dir %s: open the link `parent` to it", path);
	return is_same_dir(fd, before_fd)
		       ? 0
		       : refuse(EEXIST,
				"--prev-images-dir %s: the link `parent` in the directory of "
				"images leads to another one; remove it",
				path);
}

int pagemap_write(struct image_dir *d, enum image_type type, unsigned long id, uint32_t pages_id,
		  const struct page_run *run, size_t n)
{
	PagemapHead head = PAGEMAP_HEAD__INIT;
	struct image_out out;

	head.pages_id = pages_id;
	image_begin(&out, d, type, id);
	image_add_message(&out, &head.base);
	for (size_t i = 0; i < n; i++) {
		PagemapEntry e = PAGEMAP_ENTRY__INIT;

		e.vaddr = run[i].vaddr;
		e.has_flags = true;
		e.flags = run[i].in_parent ? PAGEMAP_PARENT : PAGEMAP_PRESENT;
		/* Both the old field and the new: readers before 4.0 know only the first. */
		e.compat_nr_pages = run[i].pages;
		e.has_nr_pages = true;
		e.nr_pages = run[i].pages;
		image_add(&out, &e);
	}
	return image_commit(&out);
}
