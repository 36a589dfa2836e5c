/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loading an IPC namespace: its limits, shared memory, semaphores and message queues.
 * Images: ipcns-var-ID, ipcns-shm-ID, ipcns-sem-ID, ipcns-msg-ID, pagemap-shmem-SHMID.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>

#include "base/log.h"
#include "base/own.h"
#include "model/load.h"
#include "model/vma.h"

#define SEM_LIMITS     4
#define VALUE_MAX      32767 /* SEMVMX */
#define SEM_COUNT_MAX  65536 /* their numbers in a set have 16 bits */
#define PADDING	       8     /* what messages and values are filled up to */
#define HUGE_SHIFT_MIN 20
#define HUGE_SHIFT_MAX 34
#define HUGE_UNKNOWN   (1ull << 30) /* of pages whose size is not told: no more than that */

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static uint32_t huge_shift(const IpcShmEntry *e)
{
	return e->hugetlb_flag >> MAP_HUGE_SHIFT & MAP_HUGE_MASK;
}

uint64_t snapshot_shm_page(const struct snapshot_shm *m)
{
	uint32_t shift = huge_shift(m->entry);

	if (!m->entry->hugetlb_flag)
		return PAGE_SIZE_;
	return shift ? 1ull << shift : HUGE_UNKNOWN;
}

uint64_t snapshot_shm_room(const struct snapshot_shm *m)
{
	return round_up(m->entry->size, snapshot_shm_page(m));
}

static int check_var(const IpcVarEntry *e, unsigned long id)
{
	const uint32_t next[] = { e->msg_next_id, e->sem_next_id, e->shm_next_id };

	if (e->n_sem_ctls != SEM_LIMITS)
		return refuse(EINVAL, "image ipcns-var-%lu.img: %zu limits of semaphores, not %d",
			      id, e->n_sem_ctls, SEM_LIMITS);
	for (size_t i = 0; i < ARRAY_SIZE(next); i++)
		if (next[i] > INT_MAX)
			return refuse(EINVAL, "image ipcns-var-%lu.img: %#x can be no next id", id,
				      next[i]);
	return 0;
}

/* What all three kinds have. */
static int check_desc(const IpcDescEntry *e, const char *what)
{
	if (e->id > INT_MAX)
		return refuse(EINVAL, "IPC namespace: %s has the id %u, which it cannot", what,
			      e->id);
	return 0;
}

static int check_shm(const IpcShmEntry *e)
{
	uint32_t shift = huge_shift(e);
	int rc = check_desc(e->desc, "a segment of shared memory");

	if (rc < 0)
		return rc;
	if (!e->size || e->size > INT64_MAX - HUGE_UNKNOWN ||
	    (shift && (shift < HUGE_SHIFT_MIN || shift > HUGE_SHIFT_MAX)))
		return refuse(EINVAL,
			      "shared memory segment %u: its size (%lu bytes, hugetlb %#x) makes "
			      "no sense",
			      e->desc->id, (long)e->size, e->hugetlb_flag);
	if (!e->has_in_pagemaps || !e->in_pagemaps)
		return refuse(EOPNOTSUPP,
			      "shared memory segment %u: its content is within its image, as old "
			      "versions wrote it; this version cannot restore that",
			      e->desc->id);
	return 0;
}

static int by_shm_id(const void *a, const void *b)
{
	const struct snapshot_shm *x = a, *y = b;

	return (x->entry->desc->id > y->entry->desc->id) -
	       (x->entry->desc->id < y->entry->desc->id);
}

static int load_shm_pages(struct snapshot *s, int dirfd)
{
	struct snapshot_ipc *ipc = s->ipc;

	if (ipc->n_shm)
		qsort(ipc->shm, ipc->n_shm, sizeof(*ipc->shm), by_shm_id);
	for (size_t i = 0; i < ipc->n_shm; i++) {
		struct snapshot_shm *m = &ipc->shm[i];
		int rc = load_file_pages(s, dirfd, m->entry->desc->id, snapshot_shm_room(m),
					 &m->pages);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int load_shm(struct snapshot *s, int dirfd, unsigned long id)
{
	struct image_in in;
	IpcShmEntry *e;
	int rc = image_open(&in, dirfd, IMG_IPCNS_SHM, id);

	if (rc <= 0)
		return rc;
	while ((rc = image_next(&in, &s->arena, NULL, &e)) > 0) {
		rc = check_shm(e);
		if (rc < 0)
			break;
		*ARENA_PUSH(&s->arena, s->ipc->shm, s->ipc->n_shm) =
			(struct snapshot_shm){ .entry = e };
	}
	image_close(&in);
	return rc < 0 ? rc : load_shm_pages(s, dirfd);
}

static int take_values(struct snapshot *s, struct image_in *in, struct snapshot_sem *sem)
{
	const IpcSemEntry *e = sem->entry;
	size_t size = e->nsems * sizeof(uint16_t);
	const uint8_t *raw;
	int rc = check_desc(e->desc, "a set of semaphores");

	if (rc < 0)
		return rc;
	if (!e->nsems || e->nsems > SEM_COUNT_MAX)
		return refuse(EINVAL, "semaphore set %u: %u semaphores cannot be", e->desc->id,
			      e->nsems);
	rc = image_take_raw(in, round_up(size, PADDING), &raw);
	if (rc < 0)
		return rc;
	sem->values = arena_memdup(&s->arena, raw, size);
	for (size_t i = 0; i < e->nsems; i++)
		if (sem->values[i] > VALUE_MAX)
			return refuse(EINVAL, "semaphore set %u: the value %u of number %zu",
				      e->desc->id, sem->values[i], i);
	return 0;
}

static int load_sem(struct snapshot *s, int dirfd, unsigned long id)
{
	struct image_in in;
	struct snapshot_sem sem;
	int rc = image_open(&in, dirfd, IMG_IPCNS_SEM, id);

	if (rc <= 0)
		return rc;
	while ((rc = image_next(&in, &s->arena, NULL, &sem.entry)) > 0) {
		rc = take_values(s, &in, &sem);
		if (rc < 0)
			break;
		*ARENA_PUSH(&s->arena, s->ipc->sem, s->ipc->n_sem) = sem;
	}
	image_close(&in);
	return rc;
}

static int take_message(struct snapshot *s, struct image_in *in, struct snapshot_queue *q)
{
	struct snapshot_msg m;
	int rc = image_next(in, &s->arena, &ipc_msg__descriptor, &m.entry);

	if (rc < 0)
		return rc;
	if (rc == 0)
		return refuse(EINVAL, "image %s: message queue %u: %zu messages of %u", in->name,
			      q->entry->desc->id, q->n, q->entry->qnum);
	if (!m.entry->mtype || m.entry->mtype > INT64_MAX || m.entry->msize > INT_MAX)
		return refuse(EINVAL,
			      "message queue %u: a message of type %ld with %u bytes makes no "
			      "sense",
			      q->entry->desc->id, (long)m.entry->mtype, m.entry->msize);
	rc = image_take_raw(in, round_up(m.entry->msize, PADDING), &m.data);
	if (rc == 0)
		*ARENA_PUSH(&s->arena, q->messages, q->n) = m;
	return rc;
}

static int take_queue(struct snapshot *s, struct image_in *in, IpcMsgEntry *e)
{
	struct snapshot_queue q = { .entry = e };
	int rc = check_desc(e->desc, "a message queue");

	if (rc == 0 && e->qbytes > INT_MAX)
		rc = refuse(EINVAL, "message queue %u: a limit of %u bytes makes no sense",
			    e->desc->id, e->qbytes);
	while (rc == 0 && q.n < e->qnum)
		rc = take_message(s, in, &q);
	if (rc == 0)
		*ARENA_PUSH(&s->arena, s->ipc->msg, s->ipc->n_msg) = q;
	return rc;
}

static int load_msg(struct snapshot *s, int dirfd, unsigned long id)
{
	struct image_in *in = &s->ipc->msg_image;
	IpcMsgEntry *e;
	int rc = image_open(in, dirfd, IMG_IPCNS_MSG, id);

	if (rc <= 0)
		return rc;
	while ((rc = image_next(in, &s->arena, NULL, &e)) > 0) {
		rc = take_queue(s, in, e);
		if (rc < 0)
			return rc;
	}
	return rc;
}

static int by_id(const void *a, const void *b)
{
	const IpcDescEntry *x = *(IpcDescEntry *const *)a, *y = *(IpcDescEntry *const *)b;

	return (x->id > y->id) - (x->id < y->id);
}

static int by_key(const void *a, const void *b)
{
	const IpcDescEntry *x = *(IpcDescEntry *const *)a, *y = *(IpcDescEntry *const *)b;

	return (x->key > y->key) - (x->key < y->key);
}

/* Ids are unique, and keys but for 0 (IPC_PRIVATE). */
static int check_unique(const IpcDescEntry **list, size_t n, const char *what)
{
	if (n)
		qsort(list, n, sizeof(*list), by_id);
	for (size_t i = 1; i < n; i++)
		if (list[i]->id == list[i - 1]->id)
			return refuse(EINVAL, "%s %u: there are two of it", what, list[i]->id);
	if (n)
		qsort(list, n, sizeof(*list), by_key);
	for (size_t i = 1; i < n; i++)
		if (list[i]->key && list[i]->key == list[i - 1]->key)
			return refuse(EINVAL, "%s %u: %u has its key %#x, too", what, list[i]->id,
				      list[i - 1]->id, list[i]->key);
	return 0;
}

static int check_all_unique(struct snapshot *s)
{
	const struct snapshot_ipc *ipc = s->ipc;
	size_t n = ipc->n_shm + ipc->n_sem + ipc->n_msg; /* more than any of them */
	const IpcDescEntry **list = arena_array(&s->arena, const IpcDescEntry *, n);

	for (size_t i = 0; i < ipc->n_shm; i++)
		list[i] = ipc->shm[i].entry->desc;
	int rc = check_unique(list, ipc->n_shm, "shared memory segment");
	for (size_t i = 0; i < ipc->n_sem; i++)
		list[i] = ipc->sem[i].entry->desc;
	if (rc == 0)
		rc = check_unique(list, ipc->n_sem, "semaphore set");
	for (size_t i = 0; i < ipc->n_msg; i++)
		list[i] = ipc->msg[i].entry->desc;
	return rc < 0 ? rc : check_unique(list, ipc->n_msg, "message queue");
}

static int load_namespace(struct snapshot *s, int dirfd, unsigned long id)
{
	s->ipc = arena_new(&s->arena, struct snapshot_ipc);
	int rc = image_need_one(dirfd, IMG_IPC_VAR, id, &s->arena, &s->ipc->var);

	if (rc >= 0)
		rc = check_var(s->ipc->var, id);
	if (rc >= 0)
		rc = load_shm(s, dirfd, id);
	if (rc >= 0)
		rc = load_sem(s, dirfd, id);
	if (rc >= 0)
		rc = load_msg(s, dirfd, id);
	return rc < 0 ? rc : check_all_unique(s);
}

/* That of criu has the same id in the inventory; 0 stands for it. */
static uint32_t namespace_of(const struct snapshot *s, const TaskKobjIdsEntry *e)
{
	const TaskKobjIdsEntry *own = s->inventory->root_ids;

	if (!own || !own->has_ipc_ns_id || !e->has_ipc_ns_id)
		return 0;
	return e->ipc_ns_id == own->ipc_ns_id ? 0 : e->ipc_ns_id;
}

int load_ipc(struct snapshot *s, const struct snapshot_task *t, int dirfd)
{
	uint32_t id = namespace_of(s, t->ids);

	if (s->tasks[0].ids && id != namespace_of(s, s->tasks[0].ids))
		return refuse(EOPNOTSUPP,
			      "image ids-%u.img: it is in another IPC namespace than the root "
			      "of the tree",
			      t->pstree->pid);
	return id && !s->ipc ? load_namespace(s, dirfd, id) : 0;
}

const struct snapshot_shm *snapshot_shm(const struct snapshot *s, uint64_t id)
{
	IpcDescEntry desc = { .id = id };
	IpcShmEntry e = { .desc = &desc };
	const struct snapshot_shm key = { .entry = &e };

	if (!s->ipc || !s->ipc->n_shm || id > INT_MAX)
		return NULL;
	return bsearch(&key, s->ipc->shm, s->ipc->n_shm, sizeof(key), by_shm_id);
}

int check_attachment(const struct snapshot *s, uint32_t pid, const VmaEntry *v)
{
	const struct snapshot_shm *m = snapshot_shm(s, v->shmid);

	if (!m)
		return refuse(EINVAL,
			      "image mm-%u.img: the mapping %#lx-%#lx is of shared memory segment "
			      "%lu, which is in no image",
			      pid, (long)v->start, (long)v->end, (long)v->shmid);
	if (!(v->flags & MAP_SHARED) || v->pgoff > INT64_MAX - ADDRESS_LIMIT)
		return refuse(EINVAL,
			      "image mm-%u.img: the mapping %#lx-%#lx of shared memory segment %lu "
			      "makes no sense",
			      pid, (long)v->start, (long)v->end, (long)v->shmid);
	return 0;
}
