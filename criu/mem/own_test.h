/* SPDX-License-Identifier: GPL-2.0-only */
/* A dump for tests of mem/: its tasks are the test itself and children of it, and run. */
#ifndef MEM_OWN_TEST_H
#define MEM_OWN_TEST_H

#include <fcntl.h>
#include <sys/mman.h>

#include "base/own.h"
#include "base/test.h"
#include "mem/mem.h"

struct own {
	struct options opts;
	struct dump d;
	int dir;
	uint32_t last_file_id;
};

static inline void own_begin(struct own *o)
{
	*o = (struct own){ .dir = test_dir() };
	o->d.opts = &o->opts;
	image_dir_init(&o->d.images, o->dir);
}

static inline void own_init_task(struct own *o, struct dump_task *t, pid_t pid)
{
	char path[32];

	*t = (struct dump_task){ .process = arena_new(&o->d.arena, struct process), .pidfd = -1 };
	snprintf(path, sizeof(path), "/proc/%d", pid);
	t->process->pid = pid;
	t->pages.type = IMG_PAGEMAP;
	t->pages.id = pid;
	t->process->proc_fd = ASSERT_OK(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	t->process->mem_fd = ASSERT_OK(open(path, O_RDWR | O_CLOEXEC));
	t->mm = MESSAGE(&o->d.arena, MmEntry, mm_entry);
}

/* Every file is another one. */
static inline int own_file_id(struct dump *d, struct dump_task *t, const char *link, int flags,
			      const char *what, uint32_t *ret_id)
{
	struct own *o = container_of(d, struct own, d);

	(void)t, (void)link, (void)flags, (void)what;
	*ret_id = ++o->last_file_id;
	return 0;
}

static inline void own_end(struct own *o)
{
	image_dir_done(&o->d.images);
	arena_done(&o->d.arena);
}

/* Pages of memory with nothing right before or behind them. */
static inline char *own_pages(size_t n)
{
	char *p = mmap(NULL, (n + 2) * PAGE_SIZE_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT(p != MAP_FAILED);
	p += PAGE_SIZE_;
	ASSERT(mmap(p, n * PAGE_SIZE_, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	/* No page of it is a part of a huge one. */
	ASSERT_OK(madvise(p, n * PAGE_SIZE_, MADV_NOHUGEPAGE));
	return p;
}

#endif
