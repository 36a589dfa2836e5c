/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What processes and threads have, at restore: limits, signals, timers, scheduling, credentials,
 * registers. Images: core-TID.
 */
#include <errno.h>
#include <linux/capability.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "mem/vdso.h"
#include "proc/text.h"
#include "task/constants.h"
#include "task/creds.h"
#include "task/ldt.h"
#include "task/modes.h"
#include "task/pending.h"
#include "task/procfile.h"
#include "task/registers.h"
#include "task/restore.h"
#include "task/sched.h"
#include "task/seccomp.h"
#include "task/timers.h"

static void add_limit(struct program *p, size_t i, const struct rlimit64 *want)
{
	void *room = program_data(p, want, sizeof(*want));

	if (room)
		CALL(p, "set a limit", SYS_prlimit64, 0, i, program_raddr(p, room), 0);
}

static void add_limits(struct restore_task *t, struct program *p)
{
	const TaskRlimitsEntry *e = t->image->cores[0]->tc->rlimits;

	for (size_t i = 0; e && i < e->n_rlimits; i++) {
		struct rlimit64 now, want = { e->rlimits[i]->cur, e->rlimits[i]->max };

		/* A blank task has the limits of criu. */
		if (prlimit64(0, i, NULL, &now) < 0 ||
		    (now.rlim_cur == want.rlim_cur && now.rlim_max == want.rlim_max))
			continue;
		if (want.rlim_max > now.rlim_max && !(t->can_raise_limits)) {
			warn("pid %d: limit %zu cannot be raised to %lu again without "
			     "CAP_SYS_RESOURCE; it "
			     "stays at %lu",
			     t->pid, i, (long)want.rlim_max, (long)now.rlim_max);
			want.rlim_max = now.rlim_max;
			want.rlim_cur = min(want.rlim_cur, want.rlim_max);
		}
		/* Signals and timers of blank tasks count as criu's user's: it is lowered later. */
		if (i == RLIMIT_SIGPENDING) {
			t->has_sigpending_limit = true;
			t->sigpending_limit = want;
			want.rlim_cur = want.rlim_max = max(want.rlim_max, now.rlim_max);
		}
		add_limit(p, i, &want);
	}
}

/* As an i386 has them. */
#define COMPAT_RT_SIGACTION    174
#define COMPAT_SET_ROBUST_LIST 311

static int signal_of(size_t index)
{
	/* The list leaves out SIGKILL and SIGSTOP. */
	int sig = index + 1;

	sig += sig >= SIGKILL;
	return sig + (sig >= SIGSTOP);
}

struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

struct compat_sigaction {
	uint32_t handler, flags, restorer, mask[2];
};

/* The kernel notes which kind of call it was, and makes handlers' frames like that. */
static void add_compat_action(struct program *p, int sig, const SaEntry *e)
{
	const struct compat_sigaction act = {
		e->sigaction, e->flags, e->restorer, { e->mask, e->mask >> 32 }
	};
	void *room = program_data(p, &act, sizeof(act));

	if (room)
		CALL(p, "set a signal action of a 32-bit program", COMPAT_RT_SIGACTION, sig,
		     program_raddr(p, room), 0, 8)
			->flags = CALL_COMPAT;
}

static void add_action(struct program *p, int sig, const struct kernel_sigaction *act)
{
	void *room = program_data(p, act, sizeof(*act));

	if (room)
		CALL(p, "set a signal action", SYS_rt_sigaction, sig, program_raddr(p, room), 0, 8);
}

/*
 * Zombie children that were made to die have left a SIGCHLD pending. Ignoring it discards it,
 * and is no harm to the zombies that are there already.
 */
static void add_actions(struct restore_task *t, struct program *p)
{
	const TaskCoreEntry *tc = t->image->cores[0]->tc;
	const struct kernel_sigaction ignore = { .handler = (uint64_t)SIG_IGN };

	add_action(p, SIGCHLD, &ignore);
	for (size_t i = 0; i < tc->n_sigactions; i++) {
		const SaEntry *e = tc->sigactions[i];
		struct kernel_sigaction act = { e->sigaction, e->flags, e->restorer, e->mask };

		if (signal_of(i) > SIGNALS)
			continue;
		if (e->compat_sigaction && t->is_compat)
			add_compat_action(p, signal_of(i), e);
		else
			add_action(p, signal_of(i), &act);
	}
}

int task_add_attributes(struct restore *r, struct restore_task *t, struct program *p)
{
	const TaskCoreEntry *tc = t->image->cores[0]->tc;

	if (tc->has_oom_score_adj && procfile_differs("oom_score_adj", tc->oom_score_adj))
		procfile_write(t->pid, "oom_score_adj", tc->oom_score_adj);
	if (tc->has_loginuid && procfile_differs("loginuid", tc->loginuid))
		procfile_write(t->pid, "loginuid", tc->loginuid);
	if (tc->has_coredump_filter)
		procfile_write(t->pid, "coredump_filter", tc->coredump_filter);
	t->can_raise_limits = creds_have(&r->own_creds, CAP_SYS_RESOURCE);
	CALL(p, "set the address of clear_child_tid", SYS_set_tid_address,
	     registers_clear_tid_addr(t->image->cores[0]));
	CALL(p, "set the personality", SYS_personality, tc->personality);
	if (tc->has_child_subreaper && tc->child_subreaper)
		CALL(p, "become a subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	add_limits(t, p);
	add_actions(t, p);
	ldt_add(t, p);
	modes_add(t, p);
	return 0;
}

/*
 * A zombie is a blank child that ends as the dumped one did. Fatal signals reach it only through
 * its tracer, which passes them on.
 */
static int let_die(struct restore *r, struct restore_task *t)
{
	uint32_t code = t->image->cores[0]->tc->exit_code;
	int sig = code & 0x7f, status;
	const struct rlimit64 no_core = { 0, 0 };
	uint64_t no_signals = 0;
	struct program p;
	const char *comm = t->image->cores[0]->tc->comm;
	int rc = program_begin(&p, task_worker(t), 5);

	if (rc < 0)
		return rc;
	const char *name = program_data(&p, comm, strlen(comm) + 1);
	CALL(&p, "set its name", SYS_prctl, PR_SET_NAME, program_raddr(&p, name));
	if (sig) {
		void *limit = program_data(&p, &no_core, sizeof(no_core));
		void *mask = program_data(&p, &no_signals, sizeof(no_signals));

		CALL(&p, "forbid a core dump", SYS_prlimit64, 0, RLIMIT_CORE,
		     program_raddr(&p, limit), 0);
		CALL(&p, "unblock signals", SYS_rt_sigprocmask, SIG_SETMASK,
		     program_raddr(&p, mask), 0, 8);
		CALL(&p, "die by a signal", SYS_kill, t->pid, sig);
	}
	CALL(&p, "exit", SYS_exit_group, code >> 8 & 0xff);
	rc = program_start(&p);
	while (rc == 0) {
		rc = engine_wait(&r->engine, t->pid, &status);
		if (rc < 0 || !WIFSTOPPED(status))
			break;
		if (ptrace(PTRACE_CONT, t->pid, NULL, status >> 16 ? 0 : (long)WSTOPSIG(status)) <
		    0)
			rc = fail(errno, "pid %d: let it die", t->pid);
	}
	program_end(&p);
	t->is_gone = rc == 0;
	return rc;
}

static int pass_on(pid_t pid, long sig)
{
	return ptrace(PTRACE_CONT, pid, NULL, sig) < 0 ? fail(errno, "pid %d: continue", pid) : 0;
}

/*
 * The task sends itself two SIGSTOP:
 *  1. in place of the first it gets the signal that had stopped it; 2. it is in the group stop
 *  then, behind which a tracee may go on (it is in it again when it is let go); 3. the second is
 *  dropped. But where nobody is left who could end such a stop (an orphaned process group) the
 *  kernel ignores all signals that stop but SIGSTOP: then the second stops it.
 */
static int pass_stop_on(struct restore *r, struct restore_task *t, int sig)
{
	int n_sent = 0, n_stops = 0;

	for (;;) {
		int status;
		int rc = engine_wait(&r->engine, t->pid, &status);

		if (rc < 0)
			return rc;
		if (!WIFSTOPPED(status))
			return tracee_died(t->pid, status, "it was to be stopped");
		bool is_group_stop = status >> 16 == PTRACE_EVENT_STOP;
		n_stops += is_group_stop;
		n_sent += !is_group_stop && WSTOPSIG(status) == SIGSTOP;
		if (n_sent == 2 && n_stops)
			return pass_on(t->pid, 0);
		rc = pass_on(t->pid, is_group_stop ? 0 : n_sent == 1 ? sig : WSTOPSIG(status));
		if (rc < 0)
			return rc;
	}
}

static int stop_signal_of(const struct restore_task *t)
{
	const TaskCoreEntry *tc = t->image->cores[0]->tc;

	return tc->has_stop_signo && (tc->stop_signo == SIGTSTP || tc->stop_signo == SIGTTIN ||
				      tc->stop_signo == SIGTTOU)
		       ? (int)tc->stop_signo
		       : SIGSTOP;
}

/* Of what its tracer passes on it gets only what it does not block. */
static int stop_by(struct restore *r, struct restore_task *t, int sig)
{
	const uint64_t all = ~0ull, but_one = ~(1ull << (sig - 1));
	struct program p;
	int rc = program_begin(&p, task_worker(t), 4);

	if (rc < 0)
		return rc;
	const void *open = program_data(&p, &but_one, sizeof(but_one));
	const void *closed = program_data(&p, &all, sizeof(all));
	if (!open || !closed)
		return -ENOSPC;
	CALL(&p, "let a signal through", SYS_rt_sigprocmask, SIG_SETMASK, program_raddr(&p, open),
	     0, 8);
	CALL(&p, "stop", SYS_kill, t->pid, SIGSTOP);
	CALL(&p, "stop", SYS_kill, t->pid, SIGSTOP);
	CALL(&p, "block all signals", SYS_rt_sigprocmask, SIG_SETMASK, program_raddr(&p, closed), 0,
	     8);
	rc = program_start(&p);
	if (rc == 0)
		rc = pass_stop_on(r, t, sig);
	if (rc == 0)
		rc = worker_wait(task_worker(t));
	program_end(&p);
	return rc;
}

/*
 * If the parent was told of the stop in its first life, it is told before it has its signals back,
 * and asks what there is to wait for.
 */
static int let_stop(struct restore *r, struct restore_task *t)
{
	struct program p;
	int rc = stop_by(r, t, stop_signal_of(t));

	if (rc < 0 || !t->parent || t->image->cores[0]->tc->stop_is_news)
		return rc;
	rc = program_begin(&p, task_worker(t->parent), 1);
	if (rc < 0)
		return rc;
	CALL(&p, "take note of the stop of a child", SYS_wait4, t->pid, 0, WUNTRACED | WNOHANG, 0);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

bool task_is_stopped(const struct restore_task *t)
{
	return t->image->cores[0]->tc->task_state == TASK_STATE_STOPPED;
}

/* Deaths come first: one that leaves a process group without a parent ends the stops in it. */
int task_bury_zombies(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		if (r->tasks[i].is_zombie)
			rc = let_die(r, &r->tasks[i]);
	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		if (!r->tasks[i].is_zombie && task_is_stopped(&r->tasks[i]))
			rc = let_stop(r, &r->tasks[i]);
	return rc;
}

/*
 * 2 ("core dumps for root only") cannot be set. It comes by a change of credentials where the
 * administrator wants that (fs.suid_dumpable); else 0 is the nearest that reveals nothing.
 */
static void add_dumpable(const struct restore *r, const struct restore_task *t, struct program *p)
{
	const CredsEntry *creds = t->image->cores[0]->thread_core->creds;
	int dumpable = t->image->mm->dumpable;
	char text[16] = "";

	if (dumpable == 2) {
		(void)read_small_at(AT_FDCWD, "/proc/sys/fs/suid_dumpable", text, sizeof(text));
		if (text[0] == '2' && creds && creds_differ(&r->own_creds, creds))
			return;
		warn("pid %d: its core dumps were for root only (dumpable is 2); now there will "
		     "be none",
		     t->pid);
		dumpable = 0;
	}
	CALL(p, "set dumpable", SYS_prctl, PR_SET_DUMPABLE, dumpable);
}

static void add_robust_list(const struct restore_task *t, const ThreadCoreEntry *e,
			    struct program *p)
{
	long nr = t->is_compat ? COMPAT_SET_ROBUST_LIST : SYS_set_robust_list;
	struct call *c = CALL(p, "set the robust list", nr, e->futex_rla, e->futex_rla_len);

	if (t->is_compat)
		c->flags = CALL_COMPAT;
}

/* All that a thread has to ask for itself. */
static void add_thread_calls(struct restore *r, struct restore_task *t, struct restore_thread *th,
			     struct program *p)
{
	const ThreadCoreEntry *e = th->core->thread_core;
	const char *comm = e->comm ? e->comm : t->image->cores[0]->tc->comm;
	bool is_leader = th == &t->threads[0];
	const char *name = program_data(p, comm, strlen(comm) + 1);

	if (name)
		CALL(p, "set its name", SYS_prctl, PR_SET_NAME, program_raddr(p, name));
	if (e->futex_rla_len)
		add_robust_list(t, e, p);
	if (e->sas) {
		stack_t ss = {
			.ss_sp = (void *)e->sas->ss_sp,
			.ss_size = e->sas->ss_size,
			.ss_flags = e->sas->ss_flags & ~SS_ONSTACK,
		};
		void *room = program_data(p, &ss, sizeof(ss));
		if (room)
			CALL(p, "set the alternate stack", SYS_sigaltstack, program_raddr(p, room),
			     0);
	}
	if (e->rseq_entry && e->rseq_entry->rseq_abi_pointer)
		CALL(p, "register rseq", SYS_rseq, e->rseq_entry->rseq_abi_pointer,
		     e->rseq_entry->rseq_abi_size, 0, e->rseq_entry->signature);
	sched_add_thread(e, p);
	modes_add_thread(r, th, p);
	pending_add(t, e->signals_p, th->tid, p);
	seccomp_add(r, t, th, p);
	if (e->creds)
		creds_add(&r->own_creds, e->creds, p);
	/* A change of credentials clears both of these. */
	if (e->has_pdeath_sig && e->pdeath_sig)
		CALL(p, "set the parent death signal", SYS_prctl, PR_SET_PDEATHSIG, e->pdeath_sig);
	if (is_leader && t->image->mm->has_dumpable)
		add_dumpable(r, t, p);
}

static size_t thread_room(const struct restore *r, const struct restore_thread *th)
{
	const ThreadCoreEntry *e = th->core->thread_core;
	size_t n = 160;

	n += seccomp_calls(r, th);
	n += e->signals_p ? e->signals_p->n_signals : 0;
	return n;
}

/* By the leader: there may be any number. */
static int queue_shared_signals(struct restore_task *t)
{
	const SignalQueueEntry *q = t->image->cores[0]->tc->signals_s;
	struct program p;

	if (!q || !q->n_signals)
		return 0;
	int rc = program_begin(&p, task_worker(t), 256);
	if (rc < 0)
		return rc;
	program_set_long(&p);
	pending_add(t, q, 0, &p);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

int task_start_timers(struct restore *r, struct restore_task *t)
{
	struct program p;

	(void)r;
	int rc = program_begin(&p, task_worker(t), 64);
	if (rc < 0)
		return rc;
	program_set_long(&p);
	if (t->has_sigpending_limit)
		add_limit(&p, RLIMIT_SIGPENDING, &t->sigpending_limit);
	timers_add_start(t, &p);
	rc = p.n ? program_run(&p) : p.error;
	program_end(&p);
	return rc;
}

int task_restore_threads(struct restore *r, struct restore_task *t, struct batch *b)
{
	int rc = queue_shared_signals(t);

	if (rc == 0)
		rc = seccomp_restore_common(r, t);
	for (size_t i = 0; i < t->n_threads && rc == 0; i++)
		rc = sched_restore(&t->threads[i]);
	for (size_t i = 0; i < t->n_threads && rc == 0; i++) {
		struct restore_thread *th = &t->threads[i];
		struct program *p = batch_begin(b, &th->worker, thread_room(r, th));

		if (!p)
			return b->error;
		add_thread_calls(r, t, th, p);
		batch_start(b);
	}
	return rc < 0 ? rc : b->error;
}

static int stop_thread(struct restore *r, struct restore_thread *th)
{
	int status;
	int rc = engine_wait(&r->engine, th->tid, &status);

	if (rc < 0)
		return rc;
	if (!WIFSTOPPED(status))
		return tracee_died(th->tid, status, "it was being restored");
	if (status >> 16 != PTRACE_EVENT_STOP)
		return refuse(EINTR, "pid %d: it stopped for signal %d while it was being restored",
			      th->tid, WSTOPSIG(status));
	return 0;
}

int task_interrupt(struct restore *r, struct restore_task *t)
{
	(void)r;
	for (size_t i = 0; i < t->n_threads; i++)
		if (ptrace(PTRACE_INTERRUPT, t->threads[i].tid, NULL, NULL) < 0)
			return fail(errno, "pid %d: interrupt", t->threads[i].tid);
	return 0;
}

/* The region goes last, by a call from the vDSO, in the leader. */
static int unmap_region(struct restore *r, struct restore_task *t)
{
	uint64_t insn = vdso_call_insn(r, t);
	struct thread_call call = { .nr = SYS_munmap, .arg = { r->region.raddr, r->region.size } };
	struct regs then;

	registers_from_core(t->threads[0].core, &then);
	if (!insn)
		return refuse(EOPNOTSUPP,
			      "pid %d: it has no vDSO to leave the shared region through", t->pid);
	int rc = tracee_call(&r->engine, t->pid, &then, insn, regs_sp(&then), &call);
	if (rc == 0 && call.ret < 0)
		rc = fail(-call.ret, "pid %d: unmap the shared region", t->pid);
	return rc;
}

static int set_thread_registers(const struct xstate_layout *l, struct restore_thread *th,
				uint8_t *fresh, int size)
{
	_Alignas(64) uint8_t x[XSTATE_MAX];
	const ThreadCoreEntry *e = th->core->thread_core;
	uint64_t mask = e->has_blk_sigset ? e->blk_sigset : 0;
	struct regs regs;

	memcpy(x, fresh, size);
	int rc = registers_xstate_from_core(l, th->core, x, size);
	if (rc == 0)
		rc = xstate_set(th->tid, x, size);
	if (rc < 0)
		return fail(-rc, "pid %d: set extended registers", th->tid);
	if (ptrace(PTRACE_SETSIGMASK, th->tid, sizeof(mask), &mask) < 0)
		return fail(errno, "pid %d: set the signal mask", th->tid);
	registers_from_core(th->core, &regs);
	rc = regs_set(th->tid, &regs);
	return rc < 0 ? fail(-rc, "pid %d: set registers", th->tid) : modes_set_stopped(th);
}

int task_set_registers(struct restore *r, struct restore_task *t)
{
	_Alignas(64) uint8_t fresh[XSTATE_MAX];
	int rc = 0;

	for (size_t i = 0; i < t->n_threads && rc == 0; i++)
		rc = stop_thread(r, &t->threads[i]);
	for (size_t i = 0; i < t->n_threads && rc == 0; i++)
		rc = registers_set_tls(t->threads[i].core, t->threads[i].tid);
	if (rc == 0)
		rc = unmap_region(r, t);
	if (rc < 0)
		return rc;
	int size = xstate_get(t->pid, fresh);
	if (size < 0)
		return fail(-size, "pid %d: read extended registers", t->pid);
	for (size_t i = 0; i < t->n_threads && rc == 0; i++)
		rc = set_thread_registers(&r->engine.layout, &t->threads[i], fresh, size);
	return rc;
}

/* Those that are stopped first, as at the end of a dump (remote/tree.c). */
static bool kill_those(const struct restore_task *tasks, size_t n)
{
	bool any = false;

	for (int stopped = 1; stopped >= 0; stopped--)
		for (size_t i = 0; i < n; i++)
			if (tasks[i].threads[0].exists && !tasks[i].is_gone &&
			    (tasks[i].image && !tasks[i].is_zombie && task_is_stopped(&tasks[i])) ==
				    stopped)
				any = kill(tasks[i].pid, SIGKILL) == 0 || any;
	return any;
}

void task_kill_all(struct restore *r)
{
	bool any = kill_those(r->tasks, r->n_tasks);
	int status;
	pid_t pid;

	any = kill_those(r->helpers, r->n_helpers) || any;
	/*
	 * criu has no other children and tracees than these. One that was being created when criu
	 * gave up is not known yet: it comes to a stop as soon as it exists.
	 */
	while (any && ((pid = waitpid(-1, &status, __WALL)) >= 0 || errno == EINTR))
		if (pid > 0 && WIFSTOPPED(status))
			(void)kill(pid, SIGKILL);
}
