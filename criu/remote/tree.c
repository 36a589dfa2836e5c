/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stopping a tree: seize and interrupt a task, look for its threads and children, and repeat
 * until a whole pass finds nothing new. A stopped task can neither clone nor exit, so a pass
 * over stopped tasks only that finds nothing is final.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "remote/restart.h"
#include "remote/tree.h"

#define PASSES_MAX 64 /* a tree that forks faster than this is given up */

int tracee_died(pid_t tid, int status, const char *what)
{
	if (WIFSIGNALED(status))
		return refuse(ESRCH, "pid %d was killed by signal %d (%s) while %s", tid,
			      WTERMSIG(status), strsignal(WTERMSIG(status)), what);
	return refuse(ESRCH, "pid %d exited with status %d while %s", tid, WEXITSTATUS(status),
		      what);
}

static bool is_forced(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGFPE || sig == SIGSYS;
}

int tracee_check_signal(pid_t tid, int status, const char *what)
{
	if (status >> 16 || !is_forced(WSTOPSIG(status)))
		return 0;
	return refuse(EFAULT,
		      "pid %d: %s while %s: its segments, or memory that the kernel uses (rseq, "
		      "signal frames), are not as they have to be",
		      tid, strsignal(WSTOPSIG(status)), what);
}

int process_mem(struct process *p)
{
	if (p->mem_fd < 0) {
		p->mem_fd = openat(p->proc_fd, "mem", O_RDWR | O_CLOEXEC);
		if (p->mem_fd < 0)
			return fail(errno, "pid %d: open /proc/%d/mem", p->pid, p->pid);
	}
	return p->mem_fd;
}

int tracee_mem(pid_t pid)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? fail(errno, "open %s", path) : fd;
}

/* A file of /proc/PID says so of a process that was reaped. */
static bool is_gone(int rc)
{
	return rc == -ENOENT || rc == -ESRCH;
}

/* A zombie answers PTRACE_SEIZE with EPERM, like a task that we have no right to. */
static bool has_ended(struct process *p, pid_t tid)
{
	struct proc_stat stat;
	char path[64];

	snprintf(path, sizeof(path), "task/%d/stat", tid);
	int rc = proc_stat_read_at(p->proc_fd, path, &stat);
	return is_gone(rc) || (rc == 0 && (stat.state == 'Z' || stat.state == 'X'));
}

static int why_not_seized(struct process *p, pid_t tid, int err)
{
	struct arena a = { 0 };
	struct proc_status status;
	int rc;

	if (proc_status_read(p->proc_fd, &a, &status) == 0 && status.tracer)
		rc = refuse(EBUSY, "pid %d is traced by pid %d; detach that debugger first", tid,
			    status.tracer);
	else
		rc = fail(err,
			  "pid %d: cannot be traced (missing rights, or a security module refuses)",
			  tid);
	arena_done(&a);
	return rc;
}

/* Seccomp filters would stop our calls; only a privileged tracer may suspend them. */
static int seize(pid_t tid)
{
	if (ptrace(PTRACE_SEIZE, tid, NULL, TRACEE_OPTIONS) == 0)
		return 0;
	int err = errno;
	if ((err != EPERM && err != EINVAL) ||
	    ptrace(PTRACE_SEIZE, tid, NULL, TRACEE_OPTIONS & ~PTRACE_O_SUSPEND_SECCOMP) < 0)
		return -err;
	return 0;
}

/*
 * Another stop than that of our interrupt may come first, and any trap
 * eats a pending interrupt:
 *  1. criu interrupts; 2. the task stops to get a signal delivered, which clears the interrupt;
 *  3. a tracer that only waited on would wait for ever.
 * So every other stop is answered with a new interrupt and with its signal, which is not lost.
 */
int tracee_interrupt_after(struct engine *e, pid_t tid, int status, int *ret_stop_signal)
{
	while (WIFSTOPPED(status)) {
		bool is_call = WSTOPSIG(status) == (SIGTRAP | 0x80);
		int sig = status >> 16 || is_call ? 0 : WSTOPSIG(status);

		if (status >> 16 == PTRACE_EVENT_STOP) {
			*ret_stop_signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
			return 0;
		}
		if ((ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0 ||
		     ptrace(PTRACE_CONT, tid, NULL, (void *)(long)sig) < 0) &&
		    errno != ESRCH)
			return fail(errno, "pid %d: interrupt again", tid);
		int rc = engine_wait(e, tid, &status);
		if (rc < 0)
			return rc;
	}
	return -ESRCH;
}

int tracee_wait_interrupted(struct engine *e, pid_t tid, int *ret_stop_signal)
{
	int status;
	int rc = engine_wait(e, tid, &status);

	return rc < 0 ? rc : tracee_interrupt_after(e, tid, status, ret_stop_signal);
}

struct regs thread_regs_alone(const struct thread *t)
{
	struct regs r = t->resume;

	if (regs_is_restart(&r) && t->restarted_call >= 0)
		regs_set_interrupted_call(&r, t->restarted_call);
	regs_redo_call(&r);
	return r;
}

/*
 * A stop may fall between two steps of the kernel:
 *  1. a stop interrupts a nanosleep; 2. the thread goes on, and the kernel sets it up to make
 *  restart_syscall; 3. the next stop comes before that call.
 * It looks like a thread that is in no call then. But what the call would go on with would be
 * lost with the first frame that is loaded, as if it was interrupted.
 */
static int undo_restart(struct thread *t)
{
	uint8_t code[2];
	int mem = process_mem(t->process);

	if (mem < 0)
		return mem;
	if (pread_all(mem, code, sizeof(code), regs_pc(&t->regs)) < 0 ||
	    find_syscall(code, sizeof(code), regs_is_compat(&t->regs)) != 0)
		return 0;
	regs_before_restart(&t->regs);
	int rc = regs_set(t->tid, &t->regs);
	return rc < 0 ? fail(-rc, "pid %d: set registers", t->tid) : 0;
}

int thread_read_regs(struct thread *t)
{
	int rc = regs_get(t->tid, &t->regs);

	if (rc < 0)
		return fail(-rc, "pid %d: read registers", t->tid);
	return regs_may_restart(&t->regs) ? undo_restart(t) : 0;
}

/*
 * Calls that even a stop without a signal ends with EINTR are put right at once: from here on it
 * does not matter how the task comes to go on.
 */
static int fix_interrupted_call(struct thread *t)
{
	int rc = thread_read_regs(t);

	if (rc < 0)
		return rc;
	t->resume = t->regs;
	regs_fix_resume(&t->resume);
	if (regs_result(&t->resume) == regs_result(&t->regs))
		return 0;
	rc = regs_set(t->tid, &t->resume);
	return rc < 0 ? fail(-rc, "pid %d: set registers", t->tid) : 0;
}

static int go_to_call_stop(struct tree *tree, struct thread *t)
{
	int status, rc;

	if (ptrace(PTRACE_SYSCALL, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: let it go back to its program", t->tid);
	rc = engine_wait(tree->engine, t->tid, &status);
	if (rc < 0)
		return rc;
	if (!WIFSTOPPED(status))
		return tracee_died(t->tid, status, "it went back to its program");
	if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP)
		t->process->stop_again = true;
	rc = regs_get(t->tid, &t->regs);
	return rc < 0 ? fail(-rc, "pid %d: read registers", t->tid) : 0;
}

/*
 * A thread on its way back from a criu that died has neither its program's registers nor its
 * mask. It is let go on, through the frames that it returns by, to where its program was:
 *  1. its last frame is loaded by a system call; 2. at the stop behind that the registers are
 *  the program's; 3. an interrupt before it goes on stops it there as any other thread.
 * No signal may come in between; the frames hold the true mask.
 */
static int send_home(struct tree *tree, struct thread *t)
{
	const uint64_t all_signals = ~0ull;
	int stop_signal, rc = 0;

	debug("pid %d: it is on its way back from a criu that died", t->tid);
	if (ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(all_signals), &all_signals) < 0)
		return fail(errno, "pid %d: set the signal mask", t->tid);
	while (rc == 0 && regs_is_marked(&t->regs))
		rc = go_to_call_stop(tree, t);
	if (rc < 0)
		return rc;
	if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) < 0 ||
	    ptrace(PTRACE_CONT, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: interrupt", t->tid);
	rc = tracee_wait_interrupted(tree->engine, t->tid, &stop_signal);
	if (rc == -ESRCH)
		return refuse(ESRCH, "pid %d: it ended while it was being stopped", t->tid);
	return rc < 0 ? rc : fix_interrupted_call(t);
}

static void read_rseq(struct thread *t)
{
	struct abi_rseq_configuration conf;
	uint64_t cs = 0;

	if (ptrace(ABI_PTRACE_GET_RSEQ_CONFIGURATION, t->tid, sizeof(conf), &conf) < 0) {
		t->rseq.is_unknown =
			errno == EIO && !(syscall(SYS_rseq, NULL, 0, 0, 0) < 0 && errno == ENOSYS);
		return;
	}
	if (!conf.rseq_abi_pointer)
		return;
	t->rseq.pointer = conf.rseq_abi_pointer;
	t->rseq.size = conf.rseq_abi_size;
	t->rseq.signature = conf.signature;
	int mem = process_mem(t->process);
	if (mem >= 0 &&
	    pread(mem, &cs, sizeof(cs), conf.rseq_abi_pointer + RSEQ_CS_OFFSET) == sizeof(cs))
		t->rseq.cs_pointer = cs;
}

/*
 * A thread that we move inside its critical section never gets to see the abort that a
 * migration would have caused: send it to the abort handler ourselves.
 */
static int fix_rseq(struct thread *t)
{
	struct {
		uint32_t version, flags;
		uint64_t start_ip, post_commit_offset, abort_ip;
	} cs;

	if (!t->rseq.cs_pointer || t->process->mem_fd < 0 ||
	    pread(t->process->mem_fd, &cs, sizeof(cs), t->rseq.cs_pointer) != sizeof(cs))
		return 0;
	if (regs_pc(&t->regs) - cs.start_ip >= cs.post_commit_offset ||
	    cs.flags & RSEQ_CS_FLAG_NO_RESTART_ON_SIGNAL)
		return 0;
	regs_set_pc(&t->resume, cs.abort_ip);
	int rc = regs_set(t->tid, &t->resume);
	return rc < 0 ? fail(-rc, "pid %d: set registers", t->tid) : 0;
}

static int read_thread(struct tree *tree, struct thread *t)
{
	_Alignas(64) uint8_t buf[XSTATE_MAX];
	int rc = 0;

	if (regs_is_marked(&t->regs))
		rc = send_home(tree, t);
	if (rc < 0)
		return rc;
	t->restarted_call = -1;
	if (restart_is_needed(t)) {
		rc = restart_find_call(tree->engine, t);
		t->resume = t->regs;
	}
	if (rc < 0)
		return rc;
	if (ptrace(PTRACE_GETSIGMASK, t->tid, sizeof(t->mask), &t->mask) < 0)
		return fail(errno, "pid %d: read the signal mask", t->tid);
	rc = xstate_get(t->tid, buf);
	if (rc < 0)
		return fail(-rc, "pid %d: read extended registers", t->tid);
	t->xstate.size = rc;
	t->xstate.data = arena_memdup(tree->arena, buf, rc);
	/* Before anything runs in the task: the kernel clears rseq_cs on the way to user space. */
	read_rseq(t);
	return fix_rseq(t);
}

static bool is_known_thread(const struct process *p, pid_t tid)
{
	for (size_t i = 0; i < p->n_threads; i++)
		if (p->threads[i].tid == tid)
			return true;
	return false;
}

/* Seizes and interrupts a thread. Returns 1, or 0 if it ended meanwhile. */
static int ask_to_stop(struct process *p, pid_t tid)
{
	int rc = seize(tid);

	if (rc == -ESRCH)
		return 0;
	if (rc < 0)
		return has_ended(p, tid) ? 0 : why_not_seized(p, tid, -rc);
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0 && errno != ESRCH)
		return fail(errno, "pid %d: interrupt", tid);
	return 1;
}

/* Pointers to threads are only taken when the tree is complete: the array moves as it grows. */
static int await_stop(struct tree *tree, struct process *p, pid_t tid)
{
	int stop_signal = 0;
	int rc = tracee_wait_interrupted(tree->engine, tid, &stop_signal);

	if (rc == -ESRCH)
		return 0;
	if (rc < 0)
		return rc;
	struct thread *t = ARENA_PUSH(tree->arena, p->threads, p->n_threads);
	*t = (struct thread){ .tid = tid, .process = p, .stopped = true };
	if (stop_signal)
		p->stop_signal = stop_signal;
	rc = fix_interrupted_call(t);
	if (rc < 0)
		return rc;
	/* Where pids have wrapped around, other threads have lower ids than their leader. */
	if (tid == p->pid) {
		struct thread leader = *t;

		*t = p->threads[0];
		p->threads[0] = leader;
	}
	engine_point(tree->engine, "thread stopped");
	return 0;
}

/*
 * Stops the threads that are not known yet: all are asked before the first is waited for, since
 * on a loaded machine each stops only when its turn on a CPU comes. Returns how many were new.
 */
static int stop_threads(struct tree *tree, struct process *p)
{
	size_t before = p->n_threads, n;
	int *tids;
	int rc = proc_numbers(p->proc_fd, "task", tree->arena, &tids, &n);

	if (is_gone(rc))
		return 0;
	if (rc < 0)
		return fail(-rc, "pid %d: list threads", p->pid);
	for (size_t i = 0; i < n; i++) {
		rc = is_known_thread(p, tids[i]) ? 0 : ask_to_stop(p, tids[i]);
		if (rc < 0)
			return rc;
		if (rc == 0)
			tids[i] = 0;
	}
	for (size_t i = 0; i < n; i++) {
		rc = tids[i] ? await_stop(tree, p, tids[i]) : 0;
		if (rc < 0)
			return rc;
	}
	return p->n_threads - before;
}

struct process *tree_find(const struct tree *tree, pid_t pid)
{
	for (size_t i = 0; i < tree->n; i++)
		if (tree->processes[i]->pid == pid)
			return tree->processes[i];
	return NULL;
}

/* Returns 1; or 0 if it ended and was reaped, which is an error only for the root. */
static int add_process(struct tree *tree, struct process *parent, pid_t pid)
{
	if (pid == getpid())
		return refuse(EINVAL,
			      "pid %d is criu itself; it cannot be in the tree that it dumps", pid);
	autoclose int fd = proc_open(pid);
	struct proc_stat stat;
	int rc = fd < 0 ? fd : proc_stat_read(fd, &stat);
	if (is_gone(rc))
		return parent ? 0 : refuse(ESRCH, "pid %d: no such process", pid);
	if (rc < 0)
		return fail(-rc, "pid %d: look at it in /proc", pid);

	struct process *p = arena_new(tree->arena, struct process);
	p->pid = pid;
	p->parent = parent;
	p->stat = stat;
	p->proc_fd = take_fd(&fd);
	p->mem_fd = -1;
	*ARENA_PUSH(tree->arena, tree->processes, tree->n) = p;
	if (p->stat.flags & PF_KTHREAD)
		return refuse(EINVAL, "pid %d (%s) is a thread of the kernel", pid, p->stat.comm);
	return 1;
}

static int check_leader_alive(struct tree *tree, struct process *p)
{
	size_t n;
	int *tids;

	int rc = proc_numbers(p->proc_fd, "task", tree->arena, &tids, &n);
	if (rc < 0 && !is_gone(rc))
		return fail(-rc, "pid %d: list threads", p->pid);
	if (rc == 0 && n > 1)
		return refuse(EOPNOTSUPP,
			      "pid %d (%s): its leader thread has exited while %zu others run on; "
			      "this cannot be dumped",
			      p->pid, p->stat.comm, n - 1);
	return 0;
}

/*
 * Stops a process found for the first time. Returns 1; or 0 if it is gone, which is an error
 * only for the root.
 */
static int stop_process(struct tree *tree, struct process *p)
{
	struct proc_stat now;
	int rc = stop_threads(tree, p);

	if (rc < 0)
		return rc;
	/* Only now is what /proc says true for good. */
	rc = proc_stat_read(p->proc_fd, &now);
	if (is_gone(rc))
		return 0;
	if (rc < 0)
		return fail(-rc, "pid %d: read stat", p->pid);
	p->stat = now;
	p->is_zombie = now.state == 'Z' || now.state == 'X';
	if (p->is_zombie) {
		rc = check_leader_alive(tree, p);
		return rc < 0 ? rc : 1;
	}
	if (!p->n_threads || p->threads[0].tid != p->pid)
		return refuse(EAGAIN, "pid %d (%s): its leader thread could not be stopped", p->pid,
			      now.comm);
	return 1;
}

/* Adds and stops the children of one thread that are not known yet. Returns how many. */
static int stop_children_of(struct tree *tree, struct process *p, pid_t tid)
{
	char path[64];
	int *pids, added = 0;
	size_t n;

	snprintf(path, sizeof(path), "task/%d/children", tid);
	int rc = proc_children(p->proc_fd, path, tree->arena, &pids, &n);
	if (rc < 0)
		return fail(-rc, "pid %d: list children (is CONFIG_PROC_CHILDREN off?)", tid);
	for (size_t i = 0; i < n; i++) {
		if (tree_find(tree, pids[i]))
			continue;
		rc = add_process(tree, p, pids[i]);
		if (rc <= 0) {
			if (rc < 0)
				return rc;
			continue;
		}
		rc = stop_process(tree, tree->processes[tree->n - 1]);
		if (rc < 0)
			return rc;
		if (rc == 0) { /* gone; nothing of its own was found yet */
			own_close(&tree->processes[--tree->n]->proc_fd);
			continue;
		}
		added++;
	}
	return added;
}

/* One pass over all known processes. Returns how many threads and processes were new. */
static int stop_pass(struct tree *tree)
{
	int found = 0;

	for (size_t i = 0; i < tree->n; i++) {
		struct process *p = tree->processes[i];

		if (p->is_zombie)
			continue;
		int rc = stop_threads(tree, p);
		if (rc < 0)
			return rc;
		found += rc;
		for (size_t j = 0; j < p->n_threads; j++) {
			rc = stop_children_of(tree, p, p->threads[j].tid);
			if (rc < 0)
				return rc;
			found += rc;
		}
	}
	return found;
}

static int check_root(const struct process *root)
{
	if (root->is_zombie)
		return refuse(ESRCH,
			      "pid %d (%s) has already exited (a zombie); there is nothing to dump",
			      root->pid, root->stat.comm);
	return 0;
}

int tree_stop(struct tree *tree, struct engine *e, struct arena *a, pid_t root)
{
	*tree = (struct tree){ .engine = e, .arena = a };

	int rc = add_process(tree, NULL, root);
	if (rc < 0)
		return rc;
	rc = stop_process(tree, tree->processes[0]);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return refuse(ESRCH, "pid %d exited while it was being stopped", root);
	rc = check_root(tree->processes[0]);
	if (rc < 0)
		return rc;

	int pass = 0;
	while ((rc = stop_pass(tree)) > 0)
		if (++pass == PASSES_MAX)
			return refuse(EAGAIN,
				      "pid %d: the tree forks faster than it can be stopped; "
				      "give --freeze-cgroup",
				      root);
	if (rc < 0)
		return rc;

	for (size_t i = 0; i < tree->n; i++) {
		for (size_t j = 0; j < tree->processes[i]->n_threads; j++) {
			rc = read_thread(tree, &tree->processes[i]->threads[j]);
			if (rc < 0)
				return rc;
		}
	}
	engine_point(e, "tree stopped");
	return 0;
}

static void release(struct engine *e, struct thread *t)
{
	if (t->regs_changed) {
		(void)ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(t->mask), &t->mask);
		(void)regs_set(t->tid, &t->resume);
	}
	if (ptrace(PTRACE_DETACH, t->tid, NULL, NULL) < 0 && errno != ESRCH)
		warn("pid %d: detach: %s", t->tid, strerror(errno));
	t->stopped = false;
	engine_point(e, "thread released");
}

void tracee_reap(pid_t tid)
{
	int status = 0;
	pid_t got;

	/* Whoever is left is in the way of those who come after: nothing but its absence counts. */
	do {
		got = waitpid(tid, &status, __WALL);
	} while (got < 0 ? errno != ECHILD : WIFSTOPPED(status));
}

/*
 * A killed tracee stays with its tracer until that has reaped it: all threads first, because
 * the leader's end is not reported before.
 */
static void reap(struct process *p)
{
	for (size_t i = p->n_threads; i-- > 0;) {
		if (p->threads[i].stopped)
			tracee_reap(p->threads[i].tid);
		p->threads[i].stopped = false;
	}
}

/* A security module may forbid to signal what may be traced: such a one dies with its tracer. */
static void kill_process(struct process *p)
{
	if (kill(p->pid, SIGKILL) == 0 || errno == ESRCH ||
	    syscall(SYS_tgkill, p->pid, p->pid, SIGKILL) == 0)
		return;
	warn("pid %d: kill it: %s; it will end with criu", p->pid, strerror(errno));
	for (size_t i = 0; i < p->n_threads; i++) {
		(void)ptrace(PTRACE_SETOPTIONS, p->threads[i].tid, NULL, PTRACE_O_EXITKILL);
		p->threads[i].stopped = false;
	}
}

/*
 * All die at once: children first, so that no parent sees one still stopped. Before them those that
 * are stopped: a process group that loses its last parent outside, and has stopped members, gets a
 * SIGHUP, and others than the tree may be in it.
 */
static void kill_all(const struct tree *tree)
{
	for (int stopped = 1; stopped >= 0; stopped--)
		for (size_t i = tree->n; i-- > 0;)
			if (tree->processes[i]->n_threads &&
			    (tree->processes[i]->stop_signal != 0) == stopped)
				kill_process(tree->processes[i]);
}

void tree_end(struct tree *tree, enum tree_end end)
{
	if (end == TREE_KILL)
		kill_all(tree);
	for (size_t i = tree->n; i-- > 0;) {
		struct process *p = tree->processes[i];

		if (end == TREE_KILL) {
			reap(p);
			continue;
		}
		if (p->n_threads && p->threads[0].stopped &&
		    (p->stop_again || (end == TREE_STOP && !p->stop_signal)))
			(void)kill(p->pid, SIGSTOP);
		for (size_t j = p->n_threads; j-- > 0;)
			if (p->threads[j].stopped)
				release(tree->engine, &p->threads[j]);
	}
}

void tree_done(struct tree *tree)
{
	for (size_t i = 0; i < tree->n; i++) {
		own_close(&tree->processes[i]->proc_fd);
		own_close(&tree->processes[i]->mem_fd);
	}
	tree->n = 0;
}
