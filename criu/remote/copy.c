/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies by double clone:
 *  1. the leader, in the stub, clones a go-between that shares its memory, and waits for its end;
 *  2. the go-between, stopped at birth, leaves descriptors and session and clones the copy, which
 *  is stopped at birth, too; 3. it is killed, and the leader has waited for it: the copy has no
 *  parent in the process any more.
 *
 * Should criu die in between, so do both (EXITKILL), or, before that is set, the go-between runs
 * into its slot, which nobody owns, and ends. The leader finishes its program in any case.
 *
 * The copy has no descriptors: a pipe would stay open that the process has closed. And it has a
 * session of its own: no signal for the process group reaches it, and dead it holds up nobody,
 * should its new parent not wait for it soon.
 */
#include "remote/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"

static void end_tracee(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	tracee_reap(pid);
}

static int await_birth(struct engine *e, pid_t pid)
{
	const long options = TRACEE_OPTIONS | PTRACE_O_EXITKILL;
	int stop_signal;
	int rc = tracee_wait_interrupted(e, pid, &stop_signal);

	if (rc == -ESRCH)
		return refuse(ESRCH, "pid %d: it was killed while a copy was made of it", pid);
	if (rc < 0)
		return rc;
	if (ptrace(PTRACE_SETOPTIONS, pid, NULL, options) < 0 &&
	    ptrace(PTRACE_SETOPTIONS, pid, NULL, options & ~PTRACE_O_SUSPEND_SECCOMP) < 0)
		return fail(errno, "pid %d: bind it to criu", pid);
	return 0;
}

static int call_in(struct inject *in, pid_t tid, struct thread_call *call)
{
	/* The place is in the program's code: 32-bit code, maybe, unlike that of the stub. */
	const struct regs *regs = &in->process->threads[0].regs;

	return tracee_call(in->engine, tid, regs, in->site.call_insn, regs_sp(regs), call);
}

/* 0, 1, or an error, as copy_make. */
static int clone_copy(struct inject *in, pid_t between, struct copy *c, int *ret_errno)
{
	struct thread_call calls[] = {
		{ .nr = SYS_close_range, .arg = { 0, ~0u, CLOSE_RANGE_UNSHARE } },
		{ .nr = SYS_setsid },
		{ .nr = SYS_clone, .arg = { CLONE_PTRACE } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		int rc = call_in(in, between, &calls[i]);

		if (rc < 0)
			return rc;
		if (calls[i].ret < 0) {
			*ret_errno = -calls[i].ret;
			return 1;
		}
		engine_point(in->engine, "go-between stopped");
	}
	c->pid = calls[ARRAY_SIZE(calls) - 1].ret;
	return await_birth(in->engine, c->pid);
}

static int open_copy(struct inject *in, struct copy *c)
{
	c->mem_fd = tracee_mem(c->pid);
	return c->mem_fd < 0 ? c->mem_fd : inject_clean_copy(in, c->mem_fd);
}

/* Nobody owns this slot: who enters it, ends. */
static uint64_t slot_of_nobody(struct program *p)
{
	struct slot *s = program_room(p, sizeof(*s));

	if (!s)
		return 0;
	s->owner = 1;
	s->self = program_raddr(p, s);
	return program_raddr(p, &s->self);
}

/* No failure ends the program: nothing may stay changed. Returns the first of the calls. */
static struct call *advise(struct program *p, const struct copy_range *ranges, size_t n,
			   bool allows)
{
	struct call *first = &p->calls[p->n];

	for (size_t i = 0; i < n; i++)
		CALL(p, "let memory be forked, or not", SYS_madvise, ranges[i].start,
		     ranges[i].end - ranges[i].start, allows ? ranges[i].allow : ranges[i].forbid)
			->flags = CALL_MAY_FAIL;
	return first;
}

static int check_advice(const struct inject *in, const struct call *calls, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (calls[i].ret < 0)
			return fail(-calls[i].ret, "pid %d: madvise(%#lx, %#lx, %ld) for a copy",
				    in->process->pid, (long)calls[i].arg[0], (long)calls[i].arg[1],
				    (long)calls[i].arg[2]);
	return 0;
}

/* The program runs until the go-between has ended. */
static int work_between(struct inject *in, struct program *p, const struct call *clone,
			struct copy *c, int *ret_errno)
{
	int rc = program_start(p);

	if (rc == 0)
		rc = program_wait_call(p, clone);
	if (rc < 0)
		return rc;
	pid_t between = clone->ret > 0 ? clone->ret : 0;
	engine_point(in->engine, "go-between born");
	if (between) {
		rc = await_birth(in->engine, between);
		if (rc == 0)
			rc = clone_copy(in, between, c, ret_errno);
		end_tracee(between);
		engine_point(in->engine, "go-between gone");
	} else {
		*ret_errno = -clone->ret;
		rc = 1;
	}
	int waited = program_wait(p);
	return rc < 0 || waited == 0 ? rc : waited;
}

int copy_make(struct inject *in, const struct copy_range *ranges, size_t n, struct copy *ret,
	      int *ret_errno)
{
	struct copy c = { .mem_fd = -1 };
	struct program p;
	int rc = program_begin(&p, &in->worker, 2 * n + 2);

	if (rc < 0)
		return rc;
	uint64_t stack = slot_of_nobody(&p);
	const struct call *allowed = advise(&p, ranges, n, true);
	struct call *clone = CALL(&p, "clone a go-between", SYS_clone,
				  CLONE_VM | CLONE_FILES | CLONE_PTRACE, stack);
	clone->flags = CALL_CLONES | CALL_MAY_FAIL;
	struct call *wait =
		CALL(&p, "wait for the go-between", SYS_waitid, P_PID, 0, 0, WEXITED | __WALL, 0);
	wait->flags = CALL_MAY_FAIL; /* if there is none */
	call_use(&p, wait, 1, clone);
	const struct call *forbidden = advise(&p, ranges, n, false);
	rc = work_between(in, &p, clone, &c, ret_errno);
	if (rc == 0)
		rc = check_advice(in, allowed, n);
	if (rc == 0)
		rc = check_advice(in, forbidden, n);
	program_end(&p);
	if (rc == 0)
		rc = open_copy(in, &c);
	if (rc != 0)
		copy_end(&c);
	*ret = c;
	return rc;
}

void copy_end(struct copy *c)
{
	if (!c->pid)
		return;
	end_tracee(c->pid);
	own_close(&c->mem_fd);
	c->pid = 0;
}
