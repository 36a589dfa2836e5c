/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Creating blank tasks: the first by criu, every other one by another task, each with the id that
 * it had. A blank task has nothing but the shared region and the vDSO and sits in the stub.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "kernel/abi.h"
#include "mem/mem.h"
#include "proc/task.h"
#include "task/constants.h"
#include "task/create.h"
#include "task/creds.h"
#include "task/registers.h"
#include "task/restore.h"
#include "task/seccomp.h"

#define BLANK_OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)

#define REAP_WAIT_US 5000000
#define REAP_POLL_US 500

/*
 * True if the number stands for a process, a thread, a process group or a session: F_SETOWN looks
 * it up as clone3 will do.
 */
static bool is_number_used(uint32_t id)
{
	autoclose int fd = eventfd(0, EFD_CLOEXEC);

	return fcntl(fd, F_SETOWN, id) == 0;
}

static int number_is_taken(uint32_t id, const struct proc_stat *s)
{
	if (!s)
		return refuse(
			EEXIST,
			"pid %u is the number of a process group or session that still has "
			"members; end those, or restore into a new pid namespace (--pidns=new)",
			id);
	if (s->state == 'Z' || s->state == 'X')
		return refuse(EEXIST,
			      "pid %u is taken by a zombie (%s) that its parent %d does not reap",
			      id, s->comm, s->ppid);
	return refuse(EEXIST,
		      "pid %u is taken by another process (%s); end that one, or restore "
		      "into a new pid namespace (--pidns=new)",
		      id, s->comm);
}

/*
 * The task that was dumped and killed a moment ago keeps its pid until its parent has reaped it,
 * which happens soon, but after criu dump has ended; and Linux 6.15 and later take it off /proc a
 * moment before they free its number. Both is waited for, not longer for many than for one.
 */
int pid_check_free(struct restore *r, uint32_t id)
{
	while (is_number_used(id)) {
		if (!r->reaped_by_us)
			r->reaped_by_us = now_us() + REAP_WAIT_US;
		struct proc_stat s;
		bool is_there = proc_stat_of(id, &s) == 0,
		     is_alive = is_there && s.state != 'Z' && s.state != 'X';

		if (is_alive || now_us() > r->reaped_by_us)
			return number_is_taken(id, is_there ? &s : NULL);
		int rc = engine_check(&r->engine);
		if (rc < 0)
			return rc;
		(void)usleep(REAP_POLL_US);
	}
	return 0;
}

static int check_thread(struct restore *r, const CoreEntry *core, uint32_t tid)
{
	char who[32];

	snprintf(who, sizeof(who), "pid %u", tid);
	int rc = registers_check(&r->engine.layout, core, who);
	if (rc == 0 && core->thread_core->creds)
		rc = creds_check(&r->own_creds, core->thread_core->creds, tid);
	return rc;
}

/* Before all else: it is the same for all of them. */
static int check_compat(const struct restore *r)
{
	for (size_t i = 0; i < r->n_tasks; i++) {
		if (!r->tasks[i].is_compat)
			continue;
		return compat_is_there()
			       ? 0
			       : refuse(ENOEXEC,
					"pid %d: it is a 32-bit program, and this kernel runs none "
					"(CONFIG_IA32_EMULATION, ia32_emulation=)",
					r->tasks[i].pid);
	}
	return 0;
}

int task_check(struct restore *r)
{
	int first_error = 0, rc = check_compat(r);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < r->snapshot.n_tasks; i++) {
		const struct snapshot_task *t = &r->snapshot.tasks[i];

		for (size_t j = 0; j < t->pstree->n_threads; j++) {
			rc = t->is_zombie ? 0 : check_thread(r, t->cores[j], t->pstree->threads[j]);
			if (rc < 0)
				return rc;
			/* All that are taken are reported, not only the first. */
			rc = pid_check_free(r, t->pstree->threads[j]);
			first_error = first_error ? first_error : rc;
		}
	}
	rc = kin_plan(r);
	return first_error ? first_error : rc;
}

static int clone_failed(int err, pid_t pid, uint64_t flags)
{
	if (err == EEXIST)
		return refuse(EEXIST, "pid %d was taken by another process meanwhile", pid);
	if (flags & CLONE_NEWIPC)
		return fail(err,
			    "pid %d: create the task with an IPC namespace of its own "
			    "(CAP_SYS_ADMIN, CONFIG_IPC_NS and user.max_ipc_namespaces have to "
			    "allow it)",
			    pid);
	if (err == EPERM)
		return refuse(
			EPERM,
			"pid %d: choosing a pid takes CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN)",
			pid);
	if (err == EINVAL)
		return refuse(EINVAL, "pid %d cannot be chosen: see /proc/sys/kernel/pid_max", pid);
	return fail(err, "pid %d: create the task", pid);
}

static struct clone_args clone_args(uint64_t slot, uint64_t set_tid, uint64_t flags)
{
	return (struct clone_args){
		.flags = flags,
		.stack = slot,
		.stack_size = SLOT_SELF, /* the new stack pointer stands on the slot's address */
		.set_tid = set_tid,
		.set_tid_size = 1,
	};
}

/* Waits for a new task's first stop, before its first instruction, and lets it run. */
static int let_start(struct restore *r, struct worker *w)
{
	int status;
	int rc = engine_wait(&r->engine, w->tid, &status);

	if (rc < 0)
		return rc;
	if (!WIFSTOPPED(status))
		return tracee_died(w->tid, status, "it was created");
	if (ptrace(PTRACE_CONT, w->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: start", w->tid);
	return 0;
}

/* The first program of every task cannot use the C library's rseq area any more. */
static int strip_root(struct restore *r, struct worker *w,
		      const struct abi_rseq_configuration *rseq)
{
	struct program p;
	int rc = program_begin(&p, w, 16);

	if (rc < 0)
		return rc;
	if (rseq->rseq_abi_pointer)
		CALL(&p, "unregister rseq", SYS_rseq, rseq->rseq_abi_pointer, rseq->rseq_abi_size,
		     1 /* RSEQ_FLAG_UNREGISTER */, rseq->signature);
	mem_add_strip(r, &p);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

static int new_slot(struct restore *r, struct worker *w, pid_t tid)
{
	struct slot *s = slot_new(&r->region, &r->engine);

	if (!s)
		return -ENOSPC;
	*w = (struct worker){ .engine = &r->engine, .region = &r->region, .slot = s, .tid = tid };
	return 0;
}

/* All others are born with the options of the first. */
static int seize_first(struct restore *r, pid_t pid)
{
	bool suspend = seccomp_is_used(&r->snapshot);

	if (ptrace(PTRACE_SEIZE, pid, NULL,
		   BLANK_OPTIONS | (suspend ? PTRACE_O_SUSPEND_SECCOMP : 0)) == 0)
		return 0;
	if (suspend && errno == EPERM)
		return refuse(EPERM,
			      "the images have tasks under seccomp, which criu has to suspend: %s",
			      seccomp_why_not_suspended);
	return fail(errno, "pid %d: trace the new task", pid);
}

/* Created and seized; until that is done the robust list guards against our death. */
int blank_create_first(struct restore *r, struct restore_task *t, bool sibling)
{
	struct worker *w = task_worker(t);
	struct abi_rseq_configuration rseq = { 0 };
	pid_t pid = t->pid;
	int status, rc = new_slot(r, w, pid);

	if (rc < 0)
		return rc;
	slot_watch(w->slot, &r->engine);
	/* All others are born in the namespace of the first. */
	uint64_t flags = (sibling ? CLONE_PARENT : 0) | (r->snapshot.ipc ? CLONE_NEWIPC : 0);
	struct clone_args args = clone_args(w->slot->self, (uint64_t)&pid, flags);
	args.exit_signal = sibling ? 0 : SIGCHLD;
	long child = clone3_into_stub(&args, sizeof(args), region_stub_child(&r->region));
	if (child < 0)
		return clone_failed(-child, pid, flags);
	t->threads[0].exists = true;
	rc = seize_first(r, pid);
	if (rc == 0)
		rc = worker_wait(w);
	slot_unwatch(w->slot, &r->engine);
	if (rc < 0)
		return rc;
	if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0)
		return fail(errno, "pid %d: interrupt", pid);
	rc = engine_wait(&r->engine, pid, &status);
	if (rc < 0)
		return rc;
	if (!WIFSTOPPED(status))
		return tracee_died(pid, status, "it was created");
	(void)ptrace(ABI_PTRACE_GET_RSEQ_CONFIGURATION, pid, sizeof(rseq), &rseq);
	if (ptrace(PTRACE_CONT, pid, NULL, NULL) < 0)
		return fail(errno, "pid %d: continue", pid);
	return strip_root(r, w, &rseq);
}

static int add_child(const struct birth *b, struct program *p, struct call **ret)
{
	pid_t *set_tid = program_data(p, &b->child->pid, sizeof(b->child->pid));

	if (!set_tid)
		return -ENOSPC;
	struct clone_args args = clone_args(task_worker(b->child)->slot->self,
					    program_raddr(p, set_tid), b->flags | CLONE_PTRACE);
	args.exit_signal = b->flags & CLONE_PARENT ? 0 : SIGCHLD; /* that of the creator */
	struct clone_args *room = program_data(p, &args, sizeof(args));
	if (!room)
		return -ENOSPC;
	*ret = CALL(p, "create a child", SYS_clone3, program_raddr(p, room), sizeof(args));
	(*ret)->flags = CALL_CLONES | CALL_MAY_FAIL;
	return 0;
}

/* Children of a blank task are as blank as it is. CLONE_PTRACE: they are ours from birth. */
int blank_create(struct restore *r, struct restore_task *creator, const struct birth *births,
		 size_t n)
{
	struct call *calls[BIRTHS_MAX];
	struct program p;
	int rc = 0;

	/* Slots stay; the program's room, behind them, does not. */
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = new_slot(r, task_worker(births[i].child), births[i].child->pid);
	if (rc == 0)
		rc = program_begin(&p, task_worker(creator), n);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = add_child(&births[i], &p, &calls[i]);
	if (rc == 0)
		rc = program_run(&p);
	for (size_t i = 0; i < n && rc == 0; i++)
		births[i].child->threads[0].exists = calls[i]->ret > 0;
	for (size_t i = 0; i < n && rc == 0; i++)
		if (calls[i]->ret < 0)
			rc = clone_failed(-calls[i]->ret, births[i].child->pid, births[i].flags);
	program_end(&p);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = let_start(r, task_worker(births[i].child));
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = worker_wait(task_worker(births[i].child));
	return rc;
}

int blank_call(struct restore_task *t, const char *label, long nr, uint64_t a, uint64_t b)
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), 1);

	if (rc < 0)
		return rc;
	CALL(&p, label, nr, a, b);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

/*
 * Adds the call that makes one more thread. Its stack is its slot, its clear_child_tid the one
 * that it had.
 */
static int add_thread(struct restore_thread *th, struct program *p)
{
	pid_t *set_tid = program_data(p, &th->tid, sizeof(th->tid));
	if (!set_tid)
		return -ENOSPC;
	struct clone_args args =
		clone_args(th->worker.slot->self, program_raddr(p, set_tid),
			   CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
				   CLONE_SYSVSEM | CLONE_CHILD_CLEARTID | CLONE_PTRACE);
	args.child_tid = registers_clear_tid_addr(th->core);
	struct clone_args *room = program_data(p, &args, sizeof(args));
	if (!room)
		return -ENOSPC;
	struct call *c =
		CALL(p, "create a thread", SYS_clone3, program_raddr(p, room), sizeof(args));
	c->flags = CALL_CLONES;
	return 0;
}

#define THREADS_AT_ONCE 64

static int create_some(struct restore *r, struct restore_task *t, size_t first, size_t end)
{
	struct program p;
	int rc = 0;

	/* Slots stay; the program's room, behind them, does not. */
	for (size_t i = first; i < end && rc == 0; i++)
		rc = new_slot(r, &t->threads[i].worker, t->threads[i].tid);
	if (rc == 0)
		rc = program_begin(&p, task_worker(t), THREADS_AT_ONCE);
	if (rc < 0)
		return rc;
	for (size_t i = first; i < end && rc == 0; i++)
		rc = add_thread(&t->threads[i], &p);
	if (rc == 0)
		rc = program_run(&p);
	program_end(&p);
	for (size_t i = first; i < end && rc == 0; i++) {
		t->threads[i].exists = true;
		rc = let_start(r, &t->threads[i].worker);
	}
	for (size_t i = first; i < end && rc == 0; i++)
		rc = worker_wait(&t->threads[i].worker);
	return rc;
}

int task_create_threads(struct restore *r, struct restore_task *t)
{
	int rc = 0;

	for (size_t first = 1; first < t->n_threads && rc == 0; first += THREADS_AT_ONCE)
		rc = create_some(r, t, first, min(first + THREADS_AT_ONCE, t->n_threads));
	return rc;
}
