/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pagemaps: which pages an image holds, and where their bytes are. Page size is 4 KiB.
 */
#ifndef IMAGE_PAGEMAP_H
#define IMAGE_PAGEMAP_H

#include "image/image.h"

#define PAGE_SHIFT_ 12
#define PAGE_SIZE_  4096ull

enum pagemap_flag {
	PAGEMAP_PARENT = 1,  /* the bytes are in the parent image */
	PAGEMAP_LAZY = 2,    /* they may be fetched later */
	PAGEMAP_PRESENT = 4, /* they are in the pages file */
};

/* Pages with their bytes one after the other in a file. */
struct page_run {
	uint64_t vaddr;
	uint64_t pages;
	int fd;		 /* owned by the pagemap_set; one for each file */
	uint64_t offset; /* in the file */
	bool in_parent;	 /* to be written: the bytes are those of the parent image */
};

/* May pages be there, behind those that end at `after`? Does their number make sense? */
bool page_run_is_sound(uint64_t vaddr, uint64_t pages, uint64_t after);

/* Address behind the last page. */
static inline uint64_t page_run_end(const struct page_run *run)
{
	return run->vaddr + run->pages * PAGE_SIZE_;
}

/* Have both, where they overlap, the same bytes of the same file? */
static inline bool page_runs_agree(const struct page_run *a, const struct page_run *b)
{
	return a->fd == b->fd && a->offset - a->vaddr == b->offset - b->vaddr;
}

/* The part [start, end) of a run. */
static inline struct page_run page_run_part(const struct page_run *run, uint64_t start,
					    uint64_t end)
{
	return (struct page_run){ .vaddr = start,
				  .pages = (end - start) / PAGE_SIZE_,
				  .fd = run->fd,
				  .offset = run->offset + (start - run->vaddr) };
}

/* All runs of one object by address, parents resolved. */
struct pagemap {
	struct page_run *run;
	size_t n;
};

/* Index of the first run that ends behind addr; n if there is none. */
size_t pagemap_first_behind(const struct pagemap *map, uint64_t addr);

/* Does it have all pages of [start, end)? */
bool pagemap_has(const struct pagemap *map, uint64_t start, uint64_t end);

/* The pages files that runs refer to. */
struct pages_file {
	dev_t dev;
	ino_t ino;
	int fd;
	uint64_t size;
};

struct pagemap_set {
	struct arena *arena;
	struct pages_file *files;
	size_t n_files;
};

/*
 * Reads the pagemap of a task (IMG_PAGEMAP) or a shared segment (IMG_SHMEM_PAGEMAP) and follows
 * `parent` links for what an incremental image left out. Checks order, overlap, and that all
 * bytes are inside their files. Returns 1, 0 if there is none, or an error that is reported.
 */
int pagemap_read(struct pagemap_set *set, int dirfd, enum image_type type, unsigned long id,
		 struct pagemap *ret);
void pagemap_set_done(struct pagemap_set *set);

/*
 * May the images in dirfd be on top of those in before_fd, which path names (--prev-images-dir)?
 * Not if these are on top of the same directory themselves, or of too many. 0 or -errno, reported.
 */
int pagemap_check_chain(int before_fd, int dirfd, const char *path);

/*
 * Makes the link `parent` in a directory of images; one that is there has to lead to before_fd,
 * too. Else the path went by way of a link that has been replaced. 0 or -errno, reported.
 */
int pagemap_link_parent(struct image_dir *d, int before_fd, const char *path);

/*
 * Writes a pagemap whose runs are, in order, in pages file pages_id, but for those in the parent
 * image.
 */
int pagemap_write(struct image_dir *d, enum image_type type, unsigned long id, uint32_t pages_id,
		  const struct page_run *run, size_t n);

#endif
