/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/incremental.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/mem.h"
#include "mem/pageclient.h"
#include "mem/tracking.h"
#include "model/vma.h"

#define WINDOW 512 /* pages that are looked at in one go */

int incremental_open(struct dump *d)
{
	const char *path = d->opts->prev_images_dir;
	InventoryEntry *inventory;

	if (!path)
		return 0;
	d->before_fd = openat(d->images.fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->before_fd < 0)
		return fail(errno, "--prev-images-dir %s: open (relative paths begin in %s)", path,
			    d->opts->images_dir);
	int rc = pagemap_check_chain(d->before_fd, d->images.fd, path);
	if (rc == 0)
		rc = image_read_one(d->before_fd, IMG_INVENTORY, 0, &d->arena, &inventory);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return refuse(ENOENT,
			      "--prev-images-dir %s: image inventory.img is missing: it holds no "
			      "finished dump or pre-dump",
			      path);
	d->before_run_id = inventory->dump_criu_run_id;
	return 0;
}

int incremental_link(struct dump *d)
{
	const char *path = d->opts->prev_images_dir;

	return path ? pagemap_link_parent(&d->images, d->before_fd, path) : 0;
}

/*
 * What kernel or devices write does not count as written by the task, or is not known page by page;
 * and a page that is merged with an equal one (KSM) does not count as written any more (Linux 6.1).
 * So all that is stored, or compared.
 */
static bool is_tracked(const VmaEntry *e)
{
	return !(e->status & (VMA_AIO_RING | VMA_VDSO)) && !(e->flags & MAP_HUGETLB) &&
	       !(e->madv & 1ull << MADV_MERGEABLE);
}

struct search {
	struct dump *d;
	struct dump_task *t;
	int fd;	      /* pagemap */
	int flags_fd; /* /proc/kpageflags, if it was needed; -1 */
	struct tracking tracking;
	bool is_all_known; /* all page tables are those of then */
	size_t vma;	   /* none before it is of interest any more */
	struct page_run *clean;
	size_t n_clean;
};

/* Is the frame one of the kernel's pages of zeroes, small or huge? What cannot be told counts. */
static bool is_zero_frame(struct search *s, uint64_t frame)
{
	uint64_t flags;

	if (s->flags_fd < 0)
		s->flags_fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	return !frame || s->flags_fd < 0 ||
	       pread_all(s->flags_fd, &flags, sizeof(flags), frame * sizeof(flags)) < 0 ||
	       flags & ABI_KPF_ZERO_PAGE;
}

/*
 * A page that was dropped (MADV_DONTNEED) and read since is a page of zeroes that nobody has
 * written to. Frames of these have no owner, so a page of the task alone is none.
 */
static bool is_clean(struct search *s, uint64_t entry)
{
	if (entry & ABI_PM_SOFT_DIRTY)
		return false;
	return entry & (ABI_PM_SWAPPED | ABI_PM_EXCLUSIVE) ||
	       !is_zero_frame(s, entry & ABI_PM_FRAME);
}

/* Finds the clean pages of [addr, end), which are in the earlier dump. */
static int search_pages(struct search *s, uint64_t addr, uint64_t end)
{
	uint64_t entry[WINDOW];

	while (addr < end) {
		size_t n = min((end - addr) / PAGE_SIZE_, (uint64_t)WINDOW);
		int rc = pread_all(s->fd, entry, n * sizeof(entry[0]),
				   addr / PAGE_SIZE_ * sizeof(entry[0]));

		if (rc < 0)
			return fail(-rc, "pid %d: read pagemap at %#lx", s->t->process->pid,
				    (long)addr);
		for (size_t i = 0; i < n; i++, addr += PAGE_SIZE_) {
			bool has_stayed = tracking_has_stayed(&s->tracking, addr);

			s->is_all_known &= has_stayed;
			if (has_stayed && is_clean(s, entry[i]))
				mem_add_page(&s->d->arena, &s->clean, &s->n_clean, addr);
		}
	}
	return 0;
}

/* Of pages that the task has and the earlier dump, too: those in mappings that are tracked. */
static int search_common(struct search *s, uint64_t start, uint64_t end)
{
	const MmEntry *mm = s->t->mm;

	while (s->vma < mm->n_vmas && mm->vmas[s->vma]->end <= start)
		s->vma++;
	for (size_t v = s->vma; v < mm->n_vmas && mm->vmas[v]->start < end; v++) {
		const VmaEntry *e = mm->vmas[v];
		int rc =
			is_tracked(e) ? search_pages(s, max(start, e->start), min(end, e->end)) : 0;

		if (rc < 0)
			return rc;
	}
	return 0;
}

/*
 * Pages of the task, those of the earlier dump, and mappings come by address. Where nothing is
 * known of the earlier dump, it has all that the task had then.
 */
static int search_run(struct search *s, const struct page_run *run)
{
	uint64_t end = page_run_end(run);
	int rc = 0;

	if (!s->t->before)
		return search_common(s, run->vaddr, end);
	const struct pagemap *before = &s->t->before->pages;

	for (size_t i = pagemap_first_behind(before, run->vaddr);
	     i < before->n && before->run[i].vaddr < end && rc == 0; i++)
		rc = search_common(s, max(run->vaddr, before->run[i].vaddr),
				   min(end, page_run_end(&before->run[i])));
	return rc;
}

/*
 * Returns 1 if it is known of all pages now whether they have been written to, 0 if it is not, or
 * an error. A ring of asynchronous I/O: devices may write to any memory, unseen by the page table.
 */
static int find_clean(struct dump *d, struct dump_task *t)
{
	autoclose int fd = openat(t->process->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);
	struct search s = { .d = d, .t = t, .fd = fd, .flags_fd = -1, .is_all_known = true };
	int rc = 0;

	if (fd < 0)
		return fail(errno, "pid %d: open pagemap", t->process->pid);
	if (t->mm->n_aios || !tracking_load(&d->arena, t, d->before_run_id, fd, &s.tracking))
		return 0;
	for (size_t i = 0; i < t->pages.n_runs && rc == 0; i++)
		rc = search_run(&s, &t->pages.runs[i]);
	own_close(&s.flags_fd);
	if (rc < 0)
		return rc;
	t->shared = s.clean;
	t->n_shared = s.n_clean;
	mem_take_out(&d->arena, &t->pages, t->shared, t->n_shared);
	const struct saved_pages clean = { .runs = s.clean, .n_runs = s.n_clean };
	uint64_t n = mem_total_pages(&clean);
	d->stats.pages_shared += n;
	info("pid %d: %lu pages have not been written to since%s", t->process->pid, (long)n,
	     s.is_all_known ? "" : "; of others it is not known");
	return s.is_all_known;
}

/* The private pages of the task in the earlier dump. 1, 0 if there are none, or an error. */
static int read_before(struct dump *d, struct dump_task *t)
{
	t->before = arena_new(&d->arena, struct before);
	t->before->set.arena = &d->arena;
	return pagemap_read(&t->before->set, d->before_fd, IMG_PAGEMAP, t->process->pid,
			    &t->before->pages);
}

/*
 * What pages could be compared with is on the other machine. If it has got them as files from here,
 * then without those that were zero; else it has all.
 */
static int find_with_server(struct dump *d, struct dump_task *t)
{
	bool has_parent;
	int rc = page_client_has_parent(d, &t->pages, &has_parent);

	if (rc < 0 || !has_parent)
		return rc;
	rc = read_before(d, t);
	if (rc == 0)
		incremental_task_done(t);
	if (rc >= 0)
		rc = find_clean(d, t);
	incremental_task_done(t);
	return min(rc, 0);
}

static int find_with_images(struct dump *d, struct dump_task *t)
{
	int rc = read_before(d, t);
	bool is_there = rc > 0;

	if (is_there)
		rc = find_clean(d, t);
	if (!is_there || rc != 0)
		incremental_task_done(t);
	return min(rc, 0);
}

int incremental_find(struct dump *d, struct dump_task *t)
{
	return d->opts->page_server ? find_with_server(d, t) : find_with_images(d, t);
}

/* What cannot be read counts as different. */
void incremental_compare(const struct before *b, uint64_t addr, const uint8_t *data, size_t pages,
			 uint64_t *same)
{
	uint8_t buf[16 * PAGE_SIZE_];
	uint64_t end = addr + pages * PAGE_SIZE_;

	for (size_t i = pagemap_first_behind(&b->pages, addr);
	     i < b->pages.n && b->pages.run[i].vaddr < end; i++) {
		const struct page_run *r = &b->pages.run[i];
		uint64_t pos = max(addr, r->vaddr), stop = min(end, page_run_end(r));

		while (pos < stop) {
			size_t n = min((stop - pos) / PAGE_SIZE_, sizeof(buf) / PAGE_SIZE_);

			if (pread_all(r->fd, buf, n * PAGE_SIZE_, r->offset + (pos - r->vaddr)) < 0)
				break;
			for (size_t k = 0; k < n; k++, pos += PAGE_SIZE_) {
				size_t page = (pos - addr) / PAGE_SIZE_;

				if (!memcmp(buf + k * PAGE_SIZE_, data + page * PAGE_SIZE_,
					    PAGE_SIZE_))
					same[page / 64] |= 1ull << page % 64;
			}
		}
	}
}

void incremental_task_done(struct dump_task *t)
{
	if (t->before)
		pagemap_set_done(&t->before->set);
	t->before = NULL;
}

void incremental_done(struct dump *d)
{
	for (size_t i = 0; i < d->n_tasks; i++)
		incremental_task_done(&d->tasks[i]);
	own_close(&d->before_fd);
}
