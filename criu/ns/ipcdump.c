/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The IPC namespace of a tree at dump. All is read in the step `collect` but the contents of shared
 * memory. Nothing is changed: messages are copied (MSG_COPY), and segments are read through the
 * mappings that tasks have of them. Only those that nobody has attached are attached by us, for a
 * moment, which shows in their times.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "mem/mem.h"
#include "model/vma.h"
#include "ns/attach.h"
#include "ns/enter.h"
#include "ns/ipc.h"
#include "ns/ipcvars.h"
#include "proc/task.h"

#define PADDING 8 /* what messages and values are filled up to */

struct segment {
	IpcShmEntry *entry;
	uint64_t attached; /* how often, */
	uint64_t in_tree;  /* how often of these by tasks of the tree, */
	struct {
		const struct dump_task *t; /* this one among them */
		uint64_t start, end;
	} user;
	struct saved_pages pages;
};

struct semaphores {
	IpcSemEntry *entry;
	uint16_t *values;
};

struct text {
	IpcMsg *entry;
	const void *data;
};

struct queue {
	IpcMsgEntry *entry;
	struct text *texts;
	size_t n;
};

struct dump_ipc {
	IpcVarEntry *var;
	struct segment *segments;
	size_t n_segments;
	struct semaphores *sets;
	size_t n_sets;
	struct queue *queues;
	size_t n_queues;
};

static IpcDescEntry *describe(struct arena *a, const struct ipc_perm *perm, int id)
{
	IpcDescEntry *e = MESSAGE(a, IpcDescEntry, ipc_desc_entry);

	e->key = perm->__key;
	e->uid = perm->uid;
	e->gid = perm->gid;
	e->cuid = perm->cuid;
	e->cgid = perm->cgid;
	e->mode = perm->mode;
	e->id = id;
	return e;
}

/* ---- shared memory ---- */

static void add_segment(struct dump *d, int id, const struct shmid_ds *ds)
{
	IpcShmEntry *e = MESSAGE(&d->arena, IpcShmEntry, ipc_shm_entry);

	e->desc = describe(&d->arena, &ds->shm_perm, id);
	e->size = ds->shm_segsz;
	e->has_in_pagemaps = e->in_pagemaps = true;
	*ARENA_PUSH(&d->arena, d->ipc->segments, d->ipc->n_segments) =
		(struct segment){ .entry = e, .attached = ds->shm_nattch };
}

static int read_segments(struct dump *d)
{
	struct shmid_ds ds;
	int last = shmctl(0, SHM_INFO, &ds);

	for (int i = 0; i <= last; i++) {
		int id = shmctl(i, SHM_STAT_ANY, &ds);

		if (id >= 0)
			add_segment(d, id, &ds);
		else if (errno != EINVAL) /* there is none of that number */
			return fail(errno, "IPC namespace: look at shared memory number %d", i);
	}
	return last < 0 ? fail(errno, "IPC namespace: look for shared memory") : 0;
}

/* ---- semaphores ---- */

static int add_set(struct dump *d, int id, const struct semid_ds *ds)
{
	IpcSemEntry *e = MESSAGE(&d->arena, IpcSemEntry, ipc_sem_entry);
	uint16_t *values = arena_array(&d->arena, uint16_t, ds->sem_nsems);

	e->desc = describe(&d->arena, &ds->sem_perm, id);
	e->nsems = ds->sem_nsems;
	if (semctl(id, 0, GETALL, (union semun){ .array = values }) < 0)
		return fail(errno, "semaphore set %d: read its values", id);
	*ARENA_PUSH(&d->arena, d->ipc->sets, d->ipc->n_sets) =
		(struct semaphores){ .entry = e, .values = values };
	return 0;
}

static int read_sets(struct dump *d)
{
	struct semid_ds ds;
	struct seminfo info;
	int last = semctl(0, 0, SEM_INFO, (union semun){ .info = &info }), rc = 0;

	for (int i = 0; i <= last && rc == 0; i++) {
		int id = semctl(i, 0, SEM_STAT_ANY, (union semun){ .buf = &ds });

		if (id >= 0)
			rc = add_set(d, id, &ds);
		else if (errno != EINVAL)
			rc = fail(errno, "IPC namespace: look at semaphores number %d", i);
	}
	return last < 0 ? fail(errno, "IPC namespace: look for semaphores") : rc;
}

/* Only what never had such a list has none, as the visitor in which this runs. */
static bool has_undo_list(const struct process *p)
{
	for (size_t i = 0; i < p->n_threads; i++)
		if (syscall(SYS_kcmp, syscall(SYS_gettid), p->threads[i].tid, KCMP_SYSVSEM, 0, 0) >
		    0)
			return true;
	return false;
}

/* A thread of the C library gets a list by its birth. */
static void warn_of_undo(const struct dump *d)
{
	for (size_t i = 0; i < d->n_tasks && d->ipc->n_sets; i++) {
		const struct process *p = d->tasks[i].process;

		if (!has_undo_list(p))
			continue;
		warn("pid %d: it %s semaphores with SEM_UNDO; what its end would undo is not told "
		     "by the kernel, and lost",
		     p->pid, p->n_threads > 1 ? "may have used" : "has used");
	}
}

/* ---- messages ---- */

static void block_queue(struct dump *d, int id)
{
	if (errno == ENOSYS)
		dump_block(d,
			   "message queue %d: this kernel cannot copy its messages (MSG_COPY, "
			   "CONFIG_CHECKPOINT_RESTORE); let the program receive them first",
			   id);
	else if (errno == EINVAL)
		dump_block(d,
			   "message queue %d: it has a message that is longer than "
			   "kernel.msgmax of its namespace allows by now; raise that for the dump",
			   id);
	else
		dump_block(d, "message queue %d: copy its messages: %s", id, strerror(errno));
}

/* Returns whether the next message could be copied. */
static bool add_text(struct arena *a, struct queue *q, struct msgbuf *m, size_t room)
{
	ssize_t size = msgrcv(q->entry->desc->id, m, room, q->n, MSG_COPY | IPC_NOWAIT);

	if (size < 0)
		return false;
	IpcMsg *e = MESSAGE(a, IpcMsg, ipc_msg);
	e->mtype = m->mtype;
	e->msize = size;
	*ARENA_PUSH(a, q->texts, q->n) =
		(struct text){ .entry = e, .data = arena_memdup(a, m->mtext, size) };
	return true;
}

static void add_queue(struct dump *d, int id, const struct msqid_ds *ds)
{
	struct queue q = { .entry = MESSAGE(&d->arena, IpcMsgEntry, ipc_msg_entry) };
	size_t room = ds->__msg_cbytes; /* for any of them */
	autofree struct msgbuf *m = xmalloc(sizeof(*m) + room);

	q.entry->desc = describe(&d->arena, &ds->msg_perm, id);
	q.entry->qbytes = ds->msg_qbytes;
	q.entry->qnum = ds->msg_qnum;
	while (q.n < ds->msg_qnum && add_text(&d->arena, &q, m, room))
		;
	if (q.n < ds->msg_qnum)
		block_queue(d, id);
	*ARENA_PUSH(&d->arena, d->ipc->queues, d->ipc->n_queues) = q;
}

static int read_queues(struct dump *d)
{
	struct msqid_ds ds;
	int last = msgctl(0, MSG_INFO, &ds);

	for (int i = 0; i <= last; i++) {
		int id = msgctl(i, MSG_STAT_ANY, &ds);

		if (id >= 0)
			add_queue(d, id, &ds);
		else if (errno != EINVAL)
			return fail(errno, "IPC namespace: look at message queue number %d", i);
	}
	return last < 0 ? fail(errno, "IPC namespace: look for message queues") : 0;
}

/* ---- message queues of POSIX, which cannot be dumped ---- */

/* They are the files of a file system that need not be mounted anywhere. */
static int open_posix_queues(void)
{
	autoclose int fs = syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC);

	if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	autoclose int mount = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
	int fd = mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void check_posix_queues(struct dump *d)
{
	int fd = open_posix_queues();
	autoclosedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (fd == -ENODEV) /* the kernel has none */
		return;
	if (!dir)
		warn("IPC namespace: whether there are message queues of POSIX cannot be told: %s",
		     strerror(fd < 0 ? -fd : errno));
	for (const struct dirent *e; dir && (e = readdir(dir));)
		if (e->d_name[0] != '.')
			dump_block(d,
				   "IPC namespace: message queue /%s of POSIX cannot be dumped by "
				   "this version; let the program close and unlink it",
				   e->d_name);
}

/* ---- all ---- */

static int read_all_objects(void *arg)
{
	struct dump *d = arg;

	d->ipc->var = ipcvars_read(&d->arena);
	int rc = d->ipc->var ? read_segments(d) : -EINVAL;
	if (rc == 0)
		rc = read_sets(d);
	if (rc == 0)
		rc = read_queues(d);
	if (rc < 0)
		return rc;
	warn_of_undo(d);
	check_posix_queues(d);
	return 0;
}

/* In the namespace of the root, which is that of all. */
static int call_inside(struct dump *d, int (*fn)(void *arg), void *arg, const char **ret_where)
{
	const struct process *root = d->tree.processes[0];
	autoclose int ns = openat(root->proc_fd, "ns/ipc", O_RDONLY | O_CLOEXEC);

	*ret_where = "open it";
	return ns < 0 ? -errno : ns_call(ns, CLONE_NEWIPC, fn, arg, ret_where);
}

/* Whoever made the namespace for the tree may have stayed in it. */
static void warn_of_outside(const struct dump *d)
{
	pid_t parent = d->tree.processes[0]->stat.ppid;
	autoclose int proc = parent ? proc_open(parent) : -1;
	char link[NS_LINK_MAX];

	if (proc < 0 || read_link_at(proc, "ns/ipc", link, sizeof(link)) < 0 ||
	    strcmp(link, d->ipc_namespace))
		return;
	warn("pid %d: its parent %d, outside of the tree, is in the same IPC namespace (%s); once "
	     "restored, each has its own",
	     d->tree.processes[0]->pid, parent, link);
}

int ipc_collect(struct dump *d)
{
	const char *where;

	if (!d->ipc_namespace[0])
		return 0;
	d->ipc = arena_new(&d->arena, struct dump_ipc);
	int rc = call_inside(d, read_all_objects, d, &where);
	if (rc < 0 && !where)
		return rc;
	if (rc < 0)
		dump_block(d,
			   "pid %d: its IPC namespace (%s): %s: %s; CAP_SYS_ADMIN is needed for "
			   "that",
			   d->tree.processes[0]->pid, d->ipc_namespace, where, strerror(-rc));
	warn_of_outside(d);
	return 0;
}

static struct segment *find_segment(const struct dump *d, uint64_t id)
{
	for (size_t i = 0; d->ipc && i < d->ipc->n_segments; i++)
		if (d->ipc->segments[i].entry->desc->id == id)
			return &d->ipc->segments[i];
	return NULL;
}

bool ipc_has_segment(const struct dump *d, uint64_t id)
{
	return find_segment(d, id);
}

void ipc_note_attachment(struct dump *d, const struct dump_task *t, const VmaEntry *v, uint32_t key)
{
	struct segment *s = find_segment(d, v->shmid);

	s->in_tree++;
	s->user.t = t;
	s->user.start = v->start;
	s->user.end = v->end;
	/* The kernel has forgotten it, but for the name of the mapping. */
	if (s->entry->desc->mode & SHM_DEST && key) {
		s->entry->has_removed_key = true;
		s->entry->removed_key = key;
	}
}

/* A segment that goes when nobody has it attached any more would go when we have read it. */
static void check_segment(struct dump *d, const struct segment *s)
{
	if (s->attached != s->in_tree)
		dump_block(d,
			   "shared memory segment %u: it is attached %lu times, and mapped %lu "
			   "times by tasks of the tree; let others detach it (see "
			   "/proc/sysvipc/shm in the IPC namespace of the tree)",
			   s->entry->desc->id, (long)s->attached, (long)s->in_tree);
	else if (!s->attached && d->ipc->var->shm_rmid_forced)
		dump_block(d,
			   "shared memory segment %u: nobody has it attached, and "
			   "kernel.shm_rmid_forced is set in its IPC namespace: to read it would "
			   "remove it; let a task of the tree attach it, or clear that",
			   s->entry->desc->id);
}

void ipc_check_attachments(struct dump *d)
{
	for (size_t i = 0; d->ipc && i < d->ipc->n_segments; i++)
		check_segment(d, &d->ipc->segments[i]);
}

/* ---- contents of shared memory ---- */

static int open_unattached(void *arg)
{
	const struct segment *s = arg;
	void *addr;
	int fd = attach_open(s->entry->desc->id, O_RDONLY, &addr);

	if (fd >= 0)
		(void)shmdt(addr);
	return fd;
}

/* Through the mapping of a task: that is no attachment, and the kernel notes nothing. */
static int open_segment(struct dump *d, struct segment *s)
{
	uint32_t id = s->entry->desc->id;
	const char *where = NULL;
	char path[64];

	if (!s->user.t) {
		int rc = call_inside(d, open_unattached, s, &where);
		return rc < 0 && where ? fail(-rc, "IPC namespace: %s", where) : rc;
	}
	snprintf(path, sizeof(path), "map_files/%lx-%lx", (long)s->user.start, (long)s->user.end);
	int fd = openat(s->user.t->process->proc_fd, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? fail(errno, "shared memory segment %u: open /proc/%d/%s", id,
			     s->user.t->process->pid, path)
		      : fd;
}

static int save_segment(struct dump *d, struct segment *s)
{
	autoclose int fd = open_segment(d, s);
	struct statfs fs;
	struct stat st;
	char who[64];

	if (fd < 0)
		return fd;
	snprintf(who, sizeof(who), "shared memory segment %u", s->entry->desc->id);
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return fail(errno, "%s: look at its file", who);
	if (fs.f_type == HUGETLBFS_MAGIC) {
		s->entry->has_hugetlb_flag = true;
		s->entry->hugetlb_flag = SHM_HUGETLB | __builtin_ctzl(fs.f_bsize) << MAP_HUGE_SHIFT;
	}
	return mem_save_file(d, fd, st.st_size, who, s->entry->desc->id, &s->pages);
}

int ipc_save(struct dump *d)
{
	int rc = 0;

	for (size_t i = 0; d->ipc && i < d->ipc->n_segments && rc == 0; i++)
		rc = save_segment(d, &d->ipc->segments[i]);
	return rc;
}

/* ---- images ---- */

/* Behind an entry, filled up with zeroes. */
static void add_padded(struct image_out *out, const void *data, size_t size)
{
	size_t room = (size + PADDING - 1) & ~(size_t)(PADDING - 1);
	char *raw = image_add_raw(out, room);

	memset(raw + size, 0, room - size);
	memcpy(raw, data, size);
}

static int write_segments(struct dump *d, unsigned long id)
{
	struct image_out out;
	int rc = 0;

	image_begin(&out, &d->images, IMG_IPCNS_SHM, id);
	for (size_t i = 0; i < d->ipc->n_segments && rc == 0; i++) {
		struct segment *s = &d->ipc->segments[i];

		image_add(&out, s->entry);
		rc = mem_write_pages(d, &s->pages);
	}
	if (rc < 0)
		image_cancel(&out);
	return rc < 0 ? rc : image_commit(&out);
}

static int write_sets(struct dump *d, unsigned long id)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_IPCNS_SEM, id);
	for (size_t i = 0; i < d->ipc->n_sets; i++) {
		const struct semaphores *s = &d->ipc->sets[i];

		image_add(&out, s->entry);
		add_padded(&out, s->values, s->entry->nsems * sizeof(s->values[0]));
	}
	return image_commit(&out);
}

static int write_queues(struct dump *d, unsigned long id)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_IPCNS_MSG, id);
	for (size_t i = 0; i < d->ipc->n_queues; i++) {
		const struct queue *q = &d->ipc->queues[i];

		image_add(&out, q->entry);
		for (size_t k = 0; k < q->n; k++) {
			image_add_message(&out, &q->texts[k].entry->base);
			add_padded(&out, q->texts[k].data, q->texts[k].entry->msize);
		}
	}
	return image_commit(&out);
}

int ipc_write_images(struct dump *d)
{
	if (!d->ipc)
		return 0;
	unsigned long id = d->tasks[0].ids->ipc_ns_id;
	int rc = image_write_one(&d->images, IMG_IPC_VAR, id, d->ipc->var);

	if (rc == 0)
		rc = write_segments(d, id);
	if (rc == 0)
		rc = write_sets(d, id);
	return rc < 0 ? rc : write_queues(d, id);
}
