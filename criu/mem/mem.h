/* SPDX-License-Identifier: GPL-2.0-only */
/* Address spaces: what is mapped, the pages, and how both come back. */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "model/dump.h"
#include "model/restore.h"
#include "model/vma.h"

/* Finds a file's id for a mapping; what the caller of mem_collect brings along (files/). */
typedef int (*mem_file_id_fn)(struct dump *d, struct dump_task *t, const char *link, int flags,
			      const char *what, uint32_t *ret_id);

/* Reads the task's mappings (into t->maps) and makes its mm entry, all but the break. */
int mem_collect(struct dump *d, struct dump_task *t, mem_file_id_fn file_id);

/*
 * Protection keys (pkeys(7)) that the process has allocated: asks the leader, where the CPU has
 * any.
 */
struct keys_questions {
	struct call *key[KEYS_MAX];
};
void mem_ask_keys(const struct xstate_layout *l, struct program *p, struct keys_questions *q);
void mem_take_keys(struct dump_task *t, const struct keys_questions *q);

/* The task locks new mappings, as that at raddr: notes how (mlockall). */
void mem_collect_lock_future(struct dump *d, struct dump_task *t, uint64_t raddr);

/* Finds the pages that have to be stored. The task is stopped. */
int mem_collect_pages(struct dump *d, struct dump_task *t);

/* Adds a range behind the last one of a list, or to it. */
void mem_add_range(struct arena *a, RangeEntry ***list, size_t *n, uint64_t start, uint64_t end);

uint64_t mem_total_pages(const struct saved_pages *p);

/* Adds a page behind the last run, or to it. */
void mem_add_page(struct arena *a, struct page_run **runs, size_t *n, uint64_t addr);

/* Takes away these runs, which are all in those that there are. */
void mem_take_out(struct arena *a, struct saved_pages *from, const struct page_run *runs, size_t n);

/*
 * Saves the pages, leaving out those that are zero: few are copied into our memory, so that the
 * task need not stay stopped while a file is written; many go to pages-ID.img at once.
 */
int mem_save_pages(struct dump *d, struct dump_task *t);
#define MEM_HOLD_MAX (16ull << 20) /* of a dump; copying that much takes some 4 ms */

/* The same while the task goes on, as far as its pages are still there. They have been found. */
int mem_save_live(struct dump *d, struct dump_task *t);

/*
 * Copies of all tasks, so that the tree can go on while memory is written (--snapshot). Where that
 * cannot be, there are none, and the log says why. 0 or an error.
 */
int mem_make_copies(struct dump *d);
/* Saves the pages of a task that has a copy from that; mem_save_pages has only found them then. */
int mem_save_copied(struct dump *d, struct dump_task *t);
/* Ends the copies, and makes the huge pages again that they have split. */
void mem_end_copies(struct dump *d);

/* Writes mm-PID.img, pagemap-PID.img and the pages that are held. */
int mem_write_images(struct dump *d, struct dump_task *t);

/*
 * The same for a file in memory (memfd, shared segment) of that size: what was written to is
 * saved, zero pages left out. fd is open for reading. Errors are reported.
 */
int mem_save_file(struct dump *d, int fd, uint64_t size, const char *who, unsigned long id,
		  struct saved_pages *ret_pages);
/* Their pagemap, and pages that are held: to files, or to the page server. */
int mem_write_pages(struct dump *d, struct saved_pages *p);

/* Fills a file in memory, which has its size, with the pages of an image. 0 or an error. */
int mem_fill_file(int fd, uint64_t size, const struct pagemap *pages, const char *who);

/* Shared anonymous memory: finds the segments behind the mappings; saves, writes their pages. */
int mem_collect_shared(struct dump *d);
int mem_save_shared(struct dump *d);
int mem_write_shared(struct dump *d);
/* Makes and fills the segments, which tasks inherit as descriptors of criu; closes those. */
int mem_make_shared(struct restore *r);
void mem_close_shared(struct restore *r);

/* Maps what the entry says, with that protection. */
void mem_add_map(struct restore *r, struct program *p, const VmaEntry *v, int prot);

/*
 * Before and after a task is forked (node: its index, or behind those of tasks that of a helper):
 * memory that it shares with others from birth. See mem/cow.h.
 */
int cow_before_fork(struct restore *r, int node);
void cow_inherit(struct restore *r, struct restore_task *t, const struct restore_task *creator);

/*
 * Restore, in this order, all but mem_fill by programs in the blank task:
 *   mem_choose      addresses that are free in criu and in all tasks, for the shared region and
 *                   for the vDSO while it waits
 *   mem_add_strip   unmap everything else
 *   mem_add_layout  set the fields of the mm, vDSO into place, map everything
 *   mem_fill        pages, from criu
 *   mem_add_finish  final protections, locks and advice
 */
int mem_choose(struct restore *r, uint64_t *ret_region, size_t region_size);
void mem_add_strip(struct restore *r, struct program *p);
int mem_add_layout(struct restore *r, struct restore_task *t, struct program *p);
/*
 * Pages go into mappings of the task, which hold all of them, by address. Memory of huge pages
 * and what is there already are left out (t->huge, t->there). Then the end of that in the task.
 */
int mem_fill(struct restore *r, struct restore_task *t, const struct pagemap *pages,
	     VmaEntry *const *vmas);
void mem_add_end_fill(struct restore_task *t, struct program *p);
void mem_add_finish(struct restore *r, struct restore_task *t, struct program *p);

#endif
