/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The IPC namespace of a tree at restore. Its root is born in a new one, where a visitor
 * makes all objects, with their ids. Tasks attach segments by themselves (mem/sysv.c), limits come
 * back when they have.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "mem/mem.h"
#include "ns/attach.h"
#include "ns/enter.h"
#include "ns/ipc.h"
#include "ns/ipcvars.h"

#define MODE_BITS 0777

/* Segments that are marked for removal, kept by criu until tasks have attached them. */
struct restore_ipc {
	void **kept;
	size_t n_kept;
};

/* One of the three kinds. */
struct kind {
	const char *what;
	const char *next_id; /* names the file with the id of the next one */
	int (*get)(const IpcDescEntry *e, const void *entry, int flags);
};

/* Whether memory was reserved for it is not told: what is too large for that was made without. */
static int get_shm(const IpcDescEntry *e, const void *entry, int flags)
{
	const IpcShmEntry *shm = entry;
	uint32_t key = shm->has_removed_key ? shm->removed_key : e->key;
	int id = shmget(key, shm->size, flags | shm->hugetlb_flag);

	if (id >= 0 || errno != ENOMEM)
		return id;
	warn("shared memory segment %u: no memory is reserved for its %lu bytes", e->id,
	     (long)shm->size);
	return shmget(key, shm->size, flags | shm->hugetlb_flag | SHM_NORESERVE);
}

static int get_sem(const IpcDescEntry *e, const void *entry, int flags)
{
	return semget(e->key, ((const IpcSemEntry *)entry)->nsems, flags);
}

static int get_msg(const IpcDescEntry *e, const void *entry, int flags)
{
	(void)entry;
	return msgget(e->key, flags);
}

static const struct kind shm_kind = { "shared memory segment", "shm", get_shm },
			 sem_kind = { "semaphore set", "sem", get_sem },
			 msg_kind = { "message queue", "msg", get_msg };

/*
 * Of this thread alone: those of the C library would set the ids of all threads that it knows.
 * Capabilities stay (SECBIT_NO_SETUID_FIXUP).
 */
static int be_creator(uint32_t uid, uint32_t gid)
{
	if (syscall(SYS_setresgid, -1, gid, -1) < 0 || syscall(SYS_setresuid, -1, uid, -1) < 0)
		return -errno;
	return 0;
}

static int get_new(const struct kind *k, const IpcDescEntry *e, const void *entry)
{
	int id = k->get(e, entry, IPC_CREAT | IPC_EXCL | (e->mode & MODE_BITS));

	return id < 0 ? -errno : id == (int)e->id ? 0 : -EEXIST;
}

/*
 * The kernel notes who makes an object, and takes no other word for it. Whoever changes ids stops
 * being dumpable, and memory is that of criu.
 */
static int get_as_creator(const struct kind *k, const IpcDescEntry *e, const void *entry)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	bool is_dumpable = prctl(PR_GET_DUMPABLE) == 1;

	if (e->cuid == uid && e->cgid == gid)
		return get_new(k, e, entry);
	int rc = be_creator(e->cuid, e->cgid);
	if (rc == 0)
		rc = get_new(k, e, entry);
	int back = be_creator(uid, gid);
	if (is_dumpable && prctl(PR_SET_DUMPABLE, 1) < 0)
		back = -errno;
	return rc < 0 ? rc : back;
}

static int make_object(const struct kind *k, const IpcDescEntry *e, const void *entry)
{
	int rc = ipcvars_set_next_id(k->next_id, e->id);

	if (rc < 0)
		return rc;
	rc = get_as_creator(k, e, entry);
	return rc < 0 ? fail(-rc, "%s %u: make it (key %#x, of user %u)", k->what, e->id, e->key,
			     e->cuid)
		      : 0;
}

static struct ipc_perm owner_of(const IpcDescEntry *e)
{
	return (struct ipc_perm){ .uid = e->uid, .gid = e->gid, .mode = e->mode & MODE_BITS };
}

static int owner_failed(const struct kind *k, const IpcDescEntry *e)
{
	return fail(errno, "%s %u: give it to user %u, group %u", k->what, e->id, e->uid, e->gid);
}

/* ---- shared memory ---- */

static int fill_segment(const struct snapshot_shm *m, int fd)
{
	struct stat st;
	char who[64];

	snprintf(who, sizeof(who), "shared memory segment %u", m->entry->desc->id);
	if (fstat(fd, &st) < 0)
		return fail(errno, "%s: look at its file", who);
	return mem_fill_file(fd, st.st_size, &m->pages, who);
}

/* It has no key any more, so that another one may have the same, and goes when nobody has it. */
static int mark_removed(struct restore *r, int id, void *addr)
{
	*ARENA_PUSH(&r->arena, r->ipc->kept, r->ipc->n_kept) = addr;
	return shmctl(id, IPC_RMID, NULL) < 0
		       ? fail(errno, "shared memory segment %d: mark it for removal", id)
		       : 0;
}

static int make_segment(struct restore *r, const struct snapshot_shm *m)
{
	const IpcDescEntry *e = m->entry->desc;
	struct shmid_ds ds = { .shm_perm = owner_of(e) };
	void *addr;
	int rc = make_object(&shm_kind, e, m->entry);

	if (rc < 0)
		return rc;
	if (shmctl(e->id, IPC_SET, &ds) < 0)
		return owner_failed(&shm_kind, e);
	autoclose int fd = attach_open(e->id, O_RDWR, &addr);
	rc = fd < 0 ? fd : fill_segment(m, fd);
	if (rc == 0 && e->mode & SHM_LOCKED && shmctl(e->id, SHM_LOCK, NULL) < 0)
		rc = fail(errno, "shared memory segment %u: lock it (SHM_LOCK)", e->id);
	if (rc == 0 && e->mode & SHM_DEST)
		return mark_removed(r, e->id, addr);
	if (fd >= 0)
		(void)shmdt(addr);
	return rc;
}

static int make_segments(struct restore *r, bool is_removed)
{
	const struct snapshot_ipc *ipc = r->snapshot.ipc;
	int rc = 0;

	for (size_t i = 0; i < ipc->n_shm && rc == 0; i++)
		if (is_removed == !!(ipc->shm[i].entry->desc->mode & SHM_DEST))
			rc = make_segment(r, &ipc->shm[i]);
	return rc;
}

/* ---- semaphores ---- */

static int make_set(const struct snapshot_sem *s)
{
	const IpcDescEntry *e = s->entry->desc;
	struct semid_ds ds = { .sem_perm = owner_of(e) };
	int rc = make_object(&sem_kind, e, s->entry);

	if (rc < 0)
		return rc;
	if (semctl(e->id, 0, SETALL, (union semun){ .array = s->values }) < 0)
		return fail(errno, "semaphore set %u: set its values", e->id);
	return semctl(e->id, 0, IPC_SET, (union semun){ .buf = &ds }) < 0
		       ? owner_failed(&sem_kind, e)
		       : 0;
}

/* ---- messages ---- */

static int send(uint32_t id, const struct snapshot_msg *m)
{
	autofree struct msgbuf *buf = xmalloc(sizeof(*buf) + m->entry->msize);

	buf->mtype = m->entry->mtype;
	memcpy(buf->mtext, m->data, m->entry->msize);
	return msgsnd(id, buf, m->entry->msize, IPC_NOWAIT) < 0
		       ? fail(errno, "message queue %u: send a message of %u bytes", id,
			      m->entry->msize)
		       : 0;
}

/* Its own limit comes last: it may be lower than what is in it by now. */
static int make_queue(const struct snapshot_queue *q)
{
	const IpcDescEntry *e = q->entry->desc;
	struct msqid_ds ds = { .msg_perm = owner_of(e), .msg_qbytes = q->entry->qbytes };
	int rc = make_object(&msg_kind, e, q->entry);

	for (size_t i = 0; i < q->n && rc == 0; i++)
		rc = send(e->id, &q->messages[i]);
	if (rc == 0 && msgctl(e->id, IPC_SET, &ds) < 0)
		rc = owner_failed(&msg_kind, e);
	return rc;
}

/* ---- all ---- */

/* Those that are marked for removal come first: others may have their keys. */
static int make_all(void *arg)
{
	struct restore *r = arg;
	const struct snapshot_ipc *ipc = r->snapshot.ipc;

	if (!ipc->n_shm && !ipc->n_sem && !ipc->n_msg)
		return 0; /* /proc/sys may be read-only */
	/* Where that is not allowed, objects of others cannot be made, which is told then. */
	(void)prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
	int rc = ipcvars_widen();
	if (rc == 0)
		rc = make_segments(r, true);
	if (rc == 0)
		rc = make_segments(r, false);
	for (size_t i = 0; i < ipc->n_sem && rc == 0; i++)
		rc = make_set(&ipc->sem[i]);
	for (size_t i = 0; i < ipc->n_msg && rc == 0; i++)
		rc = make_queue(&ipc->msg[i]);
	return rc;
}

static int set_vars(void *arg)
{
	struct restore *r = arg;

	return ipcvars_set(r->snapshot.ipc->var);
}

static int call_inside(struct restore *r, int (*fn)(void *arg))
{
	const char *where = "open it";
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", r->tasks[0].pid);
	autoclose int ns = open(path, O_RDONLY | O_CLOEXEC);
	int rc = ns < 0 ? -errno : ns_call(ns, CLONE_NEWIPC, fn, r, &where);
	return rc < 0 && where
		       ? fail(-rc, "pid %d: its new IPC namespace: %s", r->tasks[0].pid, where)
		       : rc;
}

int ipc_make(struct restore *r)
{
	if (!r->snapshot.ipc)
		return 0;
	r->ipc = arena_new(&r->arena, struct restore_ipc);
	int rc = call_inside(r, make_all);
	if (rc < 0)
		ipc_drop(r);
	return rc;
}

int ipc_finish(struct restore *r)
{
	ipc_drop(r);
	return r->snapshot.ipc ? call_inside(r, set_vars) : 0;
}

void ipc_drop(struct restore *r)
{
	for (size_t i = 0; r->ipc && i < r->ipc->n_kept; i++)
		(void)shmdt(r->ipc->kept[i]);
	if (r->ipc)
		r->ipc->n_kept = 0;
}
