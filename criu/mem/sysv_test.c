/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/sysv.h"

#include <fcntl.h>

#include "base/own.h"
#include "base/test.h"
#include "model/vma.h"

#define PAGES(n)  ((n)*PAGE_SIZE_)
#define BASE	  0x100000ull
#define PARTS_MAX 3

/* Mappings of a segment of four pages, and the room that it takes to attach them. */
static const struct {
	const char *what;
	struct {
		uint64_t page, pgoff, pages; /* behind BASE; in the segment */
		uint32_t fdflags;
	} part[PARTS_MAX];
	uint64_t room; /* and one more page, on which it lies */
} rows[] = {
	{ "a whole one", { { 0, 0, 4, O_RDWR } }, 0 },
	{ "one in parts", { { 0, 0, 1, O_RDWR }, { 1, 1, 3, O_RDWR } }, 0 },
	{ "two whole ones", { { 0, 0, 4, O_RDWR }, { 4, 0, 4, O_RDWR } }, 0 },
	{ "its start", { { 0, 0, 3, O_RDWR } }, 4 + 1 },
	{ "its end", { { 0, 1, 3, O_RDWR } }, 4 + 1 },
	{ "one with a hole", { { 0, 0, 1, O_RDWR }, { 2, 2, 2, O_RDWR } }, 4 + 1 },
	{ "one that has grown", { { 0, 0, 5, O_RDWR } }, 5 + 1 },
	{ "what has grown, alone", { { 9, 9, 3, O_RDWR } }, 12 + 1 },
	{ "parts in another order", { { 0, 2, 2, O_RDWR }, { 2, 0, 2, O_RDWR } }, 4 + 1 },
	{ "parts of two that differ", { { 0, 0, 2, O_RDWR }, { 2, 2, 2, O_RDONLY } }, 4 + 1 },
};

static uint64_t room_of_row(size_t i)
{
	IpcDescEntry desc = IPC_DESC_ENTRY__INIT;
	IpcShmEntry shm = IPC_SHM_ENTRY__INIT;
	struct snapshot_shm segment = { .entry = &shm };
	struct snapshot_ipc ipc = { .shm = &segment, .n_shm = 1 };
	MmEntry mm = MM_ENTRY__INIT;
	VmaEntry vmas[PARTS_MAX], *list[PARTS_MAX];
	struct snapshot_task task = { .mm = &mm };
	struct restore r = { .snapshot = { .ipc = &ipc, .tasks = &task, .n_tasks = 1 } };

	desc.id = 5;
	shm.desc = &desc;
	shm.size = PAGES(4) - 100;
	mm.vmas = list;
	for (; mm.n_vmas < PARTS_MAX && rows[i].part[mm.n_vmas].pages; mm.n_vmas++) {
		VmaEntry *v = list[mm.n_vmas] = &vmas[mm.n_vmas];

		vma_entry__init(v);
		v->shmid = desc.id;
		v->status = VMA_REGULAR | VMA_ANON_SHARED | VMA_SYSVIPC;
		v->start = BASE + PAGES(rows[i].part[mm.n_vmas].page);
		v->end = v->start + PAGES(rows[i].part[mm.n_vmas].pages);
		v->pgoff = PAGES(rows[i].part[mm.n_vmas].pgoff);
		v->has_fdflags = true;
		v->fdflags = rows[i].part[mm.n_vmas].fdflags;
	}
	return sysv_room(&r);
}

TEST(sysv, only_what_is_not_whole_takes_room)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t room = room_of_row(i);

		if (room != PAGES(rows[i].room))
			test_fail(__FILE__, __LINE__, "%s: %lu pages", rows[i].what,
				  (long)(room / PAGE_SIZE_));
	}
}

TEST(sysv, without_a_namespace_there_is_nothing_to_attach)
{
	const struct restore r = { 0 };

	ASSERT_EQ(sysv_room(&r), 0);
}
