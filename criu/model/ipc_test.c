/* SPDX-License-Identifier: GPL-2.0-only */
/* IPC namespaces: what loads, and what is refused. */
#include <limits.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "base/own.h"
#include "model/snapshot.h"
#include "model/vma.h"
#include "model/world_test.h"

#define OWN_NS	     3
#define TREE_NS	     9
#define SHM_ID	     0 /* as the first one has it */
#define SHM_BYTES    5000
#define OTHER_SHM    (7 << 15)
#define SEM_ID	     40
#define MSG_ID	     50
#define SHM_START    0x60000ull
#define TEXT	     "hello"
#define RAW_MAX	     256
#define NEW(t, T, n) MESSAGE(&(t)->w.arena, T, n)

/* A world whose tree has a namespace of its own, with one object of each kind. */
struct ipc_world {
	struct world w;
	struct snapshot s;
	IpcVarEntry *var;
	IpcShmEntry *shm, *other;
	IpcSemEntry *sem;
	IpcMsgEntry *msg;
	IpcMsg *text;
	VmaEntry *vma;
	uint16_t values[4];
};

static IpcDescEntry *describe(struct ipc_world *t, uint32_t id)
{
	IpcDescEntry *e = NEW(t, IpcDescEntry, ipc_desc_entry);

	e->id = id;
	e->mode = 0600;
	return e;
}

static IpcShmEntry *add_shm(struct ipc_world *t, uint32_t id, uint64_t size)
{
	IpcShmEntry *e = NEW(t, IpcShmEntry, ipc_shm_entry);

	e->desc = describe(t, id);
	e->size = size;
	e->has_in_pagemaps = e->in_pagemaps = true;
	world_add(&t->w, IMG_IPCNS_SHM, TREE_NS, e);
	*ARENA_PUSH(&t->w.arena, t->w.pages, t->w.n_pages) =
		(struct world_pages){ .type = IMG_SHMEM_PAGEMAP,
				      .id = id,
				      .pages_id = 10 + t->w.n_pages,
				      .run = { { .vaddr = PAGE_SIZE_, .pages = 1 } },
				      .n = 1 };
	return e;
}

static void enter(TaskKobjIdsEntry *e, uint32_t id)
{
	e->has_ipc_ns_id = true;
	e->ipc_ns_id = id;
}

static void begin(struct ipc_world *t)
{
	static const uint32_t limits[4] = { 32000, 1024000000, 500, 32000 };

	*t = (struct ipc_world){ .values = { 1, 32767, 0, 3 } };
	world_furnish(&t->w);
	t->w.inventory->root_ids = NEW(t, TaskKobjIdsEntry, task_kobj_ids_entry);
	enter(t->w.inventory->root_ids, OWN_NS);
	enter(t->w.root.ids, TREE_NS);
	enter(t->w.child.ids, TREE_NS);
	t->var = NEW(t, IpcVarEntry, ipc_var_entry);
	t->var->n_sem_ctls = ARRAY_SIZE(limits);
	t->var->sem_ctls = arena_memdup(&t->w.arena, limits, sizeof(limits));
	world_add(&t->w, IMG_IPC_VAR, TREE_NS, t->var);
	t->other = add_shm(t, OTHER_SHM, 0x3000);
	t->shm = add_shm(t, SHM_ID, SHM_BYTES);
	t->sem = NEW(t, IpcSemEntry, ipc_sem_entry);
	t->sem->desc = describe(t, SEM_ID);
	t->sem->nsems = 3;
	t->msg = NEW(t, IpcMsgEntry, ipc_msg_entry);
	t->msg->desc = describe(t, MSG_ID);
	t->msg->qbytes = INT_MAX;
	t->msg->qnum = 2;
	t->text = NEW(t, IpcMsg, ipc_msg);
	t->text->mtype = 33;
	t->text->msize = strlen(TEXT);
	t->vma = arena_memdup(&t->w.arena, t->w.root.mm->vmas[VMA_OF_SHARED], sizeof(*t->vma));
	t->vma->start = SHM_START;
	t->vma->end = SHM_START + 0x1000;
	t->vma->pgoff = 0x1000;
	t->vma->status |= VMA_SYSVIPC;
	t->vma->shmid = SHM_ID;
	t->w.child.mm->vmas = arena_array(&t->w.arena, VmaEntry *, 1);
	t->w.child.mm->vmas[t->w.child.mm->n_vmas++] = t->vma;
}

/* Both messages are the same; each with its padding. */
static size_t put_texts(const struct ipc_world *t, uint8_t raw[RAW_MAX])
{
	size_t n = 0;

	for (int i = 0; i < 2; i++) {
		uint32_t size = ipc_msg__pack(t->text, raw + n + sizeof(size));

		memcpy(raw + n, &size, sizeof(size));
		n += sizeof(size) + size;
		memcpy(raw + n, TEXT, strlen(TEXT));
		n += 8;
	}
	return n;
}

static int try_load(struct ipc_world *t)
{
	uint8_t *raw = arena_alloc(&t->w.arena, RAW_MAX);
	size_t n = put_texts(t, raw);

	world_add_raw(&t->w, IMG_IPCNS_SEM, TREE_NS, t->sem, t->values, sizeof(t->values));
	world_add_raw(&t->w, IMG_IPCNS_MSG, TREE_NS, t->msg, raw, n);
	return world_try(&t->w, &t->s);
}

static void end(struct ipc_world *t)
{
	world_end(&t->w, &t->s);
}

TEST(ipc, objects_of_a_namespace_are_loaded)
{
	struct ipc_world t;

	begin(&t);
	ASSERT_OK(try_load(&t));
	const struct snapshot_ipc *ipc = t.s.ipc;
	ASSERT_EQ(ipc->n_shm, 2);
	ASSERT_EQ(ipc->n_sem, 1);
	ASSERT_EQ(ipc->n_msg, 1);
	ASSERT(!memcmp(ipc->sem[0].values, t.values, 3 * sizeof(t.values[0])));
	ASSERT_EQ(ipc->msg[0].n, 2);
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(ipc->msg[0].messages[i].entry->mtype, 33);
		ASSERT(!memcmp(ipc->msg[0].messages[i].data, TEXT, strlen(TEXT)));
	}
	ASSERT_EQ(snapshot_shm(&t.s, SHM_ID)->pages.n, 1);
	ASSERT_EQ(snapshot_shm(&t.s, OTHER_SHM)->entry->size, 0x3000);
	ASSERT(!snapshot_shm(&t.s, 1));
	ASSERT_EQ(t.s.n_shared, 1); /* segments of System V are none of these */
	end(&t);
}

TEST(ipc, the_namespace_of_criu_is_not_loaded)
{
	struct ipc_world t;

	begin(&t);
	enter(t.w.root.ids, OWN_NS);
	enter(t.w.child.ids, OWN_NS);
	t.w.child.mm->n_vmas = 0;
	ASSERT_OK(try_load(&t));
	ASSERT(!t.s.ipc);
	ASSERT(!snapshot_shm(&t.s, SHM_ID));
	end(&t);
}

/* As criu before version 1.7 wrote them. */
TEST(ipc, images_without_ids_of_namespaces_are_in_that_of_criu)
{
	struct ipc_world t;

	begin(&t);
	t.w.inventory->root_ids = NULL;
	t.w.child.mm->n_vmas = 0;
	ASSERT_OK(try_load(&t));
	ASSERT(!t.s.ipc);
	end(&t);
}

TEST(ipc, a_segment_takes_whole_pages_of_its_kind)
{
	static const struct {
		uint64_t size;
		uint32_t flag;
		uint64_t room;
	} rows[] = {
		{ 1, 0, 4096 },
		{ 4096, 0, 4096 },
		{ 4097, 0, 8192 },
		{ 1, SHM_HUGETLB | MAP_HUGE_2MB, 2 << 20 },
		{ (2 << 20) + 1, SHM_HUGETLB | MAP_HUGE_2MB, 4 << 20 },
		{ 1, SHM_HUGETLB | MAP_HUGE_1GB, 1 << 30 },
		{ 1, SHM_HUGETLB, 1 << 30 }, /* not told: at most */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		IpcShmEntry e = IPC_SHM_ENTRY__INIT;
		const struct snapshot_shm m = { .entry = &e };

		e.size = rows[i].size;
		e.hugetlb_flag = rows[i].flag;
		ASSERT_EQ(snapshot_shm_room(&m), rows[i].room);
	}
}

/* A test that spoils one fact, which has to be refused with that text. */
#define REFUSED(what, text)                                                                        \
	static void spoil_##what(struct ipc_world *t);                                             \
	TEST(ipc, is_refused_if_##what)                                                            \
	{                                                                                          \
		struct ipc_world t;                                                                \
		begin(&t);                                                                         \
		spoil_##what(&t);                                                                  \
		ASSERT_REFUSED(try_load(&t), text);                                                \
		end(&t);                                                                           \
	}                                                                                          \
	static void spoil_##what(struct ipc_world *t)

REFUSED(a_task_is_in_another_one, "image ids-12.img: it is in another IPC namespace")
{
	enter(t->w.child.ids, OWN_NS);
}

REFUSED(a_task_is_in_a_third_one, "image ids-12.img: it is in another IPC namespace")
{
	enter(t->w.child.ids, TREE_NS + 1);
}

REFUSED(its_limits_are_missing, "image ipcns-var-9.img")
{
	world_drop(&t->w, IMG_IPC_VAR, TREE_NS);
}

REFUSED(a_limit_of_semaphores_is_missing, "3 limits of semaphores, not 4")
{
	t->var->n_sem_ctls = 3;
}

REFUSED(a_next_id_is_none, "0x80000000 can be no next id")
{
	t->var->has_sem_next_id = true;
	t->var->sem_next_id = (uint32_t)INT_MAX + 1;
}

REFUSED(an_id_of_shared_memory_is_none, "a segment of shared memory has the id 2147483648")
{
	t->shm->desc->id = (uint32_t)INT_MAX + 1;
}

REFUSED(an_id_of_semaphores_is_none, "a set of semaphores has the id 4294967295")
{
	t->sem->desc->id = UINT32_MAX;
}

REFUSED(an_id_of_a_queue_is_none, "a message queue has the id 4294967295")
{
	t->msg->desc->id = UINT32_MAX;
}

REFUSED(a_segment_is_empty, "shared memory segment 0: its size (0 bytes")
{
	t->shm->size = 0;
}

REFUSED(a_segment_is_too_large, "shared memory segment 0: its size")
{
	t->shm->size = INT64_MAX;
}

REFUSED(pages_of_a_segment_have_an_unknown_size, "hugetlb 0xcc000800")
{
	t->shm->has_hugetlb_flag = true;
	t->shm->hugetlb_flag = SHM_HUGETLB | 51u << MAP_HUGE_SHIFT;
}

REFUSED(a_segment_is_there_twice, "shared memory segment 0: there are two of it")
{
	t->other->desc->id = SHM_ID;
}

REFUSED(segments_have_the_same_key, "has its key 0x77, too")
{
	t->other->desc->key = t->shm->desc->key = 0x77;
}

REFUSED(a_set_is_there_twice, "semaphore set 40: there are two of it")
{
	world_add_raw(&t->w, IMG_IPCNS_SEM, TREE_NS, t->sem, t->values, sizeof(t->values));
}

REFUSED(a_queue_is_there_twice, "message queue 50: there are two of it")
{
	IpcMsgEntry *e = arena_memdup(&t->w.arena, t->msg, sizeof(*e));

	e->qnum = 0;
	world_add(&t->w, IMG_IPCNS_MSG, TREE_NS, e);
}

/* Others are looked at before that is found. */
REFUSED(the_root_is_dead, "image pstree.img: the root 10 is dead")
{
	t->w.root.core->tc->task_state = 2;
	t->w.root.core->tc->timers = NULL;
	t->w.root.pstree->n_threads = 1;
	t->w.child.mm->n_vmas = 0;
}

REFUSED(a_segment_is_inside_its_image, "shared memory segment 0: its content is within its image")
{
	t->shm->in_pagemaps = false;
}

REFUSED(a_segment_has_no_pagemap, "image pagemap-shmem-0.img is missing")
{
	world_drop(&t->w, IMG_SHMEM_PAGEMAP, SHM_ID);
}

REFUSED(pages_are_behind_a_segment, "image pagemap-shmem-0.img: the pages at 0x1000 are behind")
{
	t->shm->size = 4096;
	t->vma->pgoff = 0;
}

REFUSED(a_set_is_empty, "semaphore set 40: 0 semaphores cannot be")
{
	t->sem->nsems = 0;
}

REFUSED(a_set_is_too_large, "semaphore set 40: 65537 semaphores cannot be")
{
	t->sem->nsems = 65537;
}

REFUSED(values_of_a_set_are_missing, "image ipcns-sem-9.img")
{
	t->sem->nsems = 5;
}

REFUSED(a_value_is_too_large, "semaphore set 40: the value 32768 of number 2")
{
	t->values[2] = 32768;
}

REFUSED(a_queue_has_fewer_messages, "message queue 50: 2 messages of 3")
{
	t->msg->qnum = 3;
}

REFUSED(a_limit_of_a_queue_is_too_large, "message queue 50: a limit of 2147483648 bytes")
{
	t->msg->qbytes = (uint32_t)INT_MAX + 1;
}

REFUSED(a_message_has_no_type, "message queue 50: a message of type 0")
{
	t->text->mtype = 0;
}

REFUSED(a_type_is_negative, "message queue 50: a message of type -1")
{
	t->text->mtype = UINT64_MAX;
}

REFUSED(a_message_is_cut_off, "image ipcns-msg-9.img")
{
	t->text->msize = 100;
}

REFUSED(a_message_is_too_long, "with 4294967295 bytes makes no sense")
{
	t->text->msize = UINT32_MAX;
}

REFUSED(a_mapping_is_of_no_segment, "is of shared memory segment 77, which is in no image")
{
	t->vma->shmid = 77;
}

REFUSED(a_mapping_of_a_segment_is_private, "of shared memory segment 0 makes no sense")
{
	t->vma->flags = MAP_PRIVATE;
}

REFUSED(a_mapping_is_too_far_behind_its_segment, "of shared memory segment 0 makes no sense")
{
	t->vma->pgoff = INT64_MAX & ~(PAGE_SIZE_ - 1);
}

/* One that has grown, and has lost its start. */
TEST(ipc, a_mapping_may_lie_behind_its_segment)
{
	struct ipc_world t;

	begin(&t);
	t.vma->pgoff = 0x200000;
	ASSERT_OK(try_load(&t));
	end(&t);
}
