/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The end of a restore: all tasks go on, or none. That they die with criu (PTRACE_O_EXITKILL) ends
 * for one thread after the other; SIGKILL to criu in between would leave a part of the tree. So a
 * process of criu's own watches over that time:
 *  1. it has pidfds of all tasks, and the end of a pipe whose other end only criu has; 2. criu
 * takes the option from all threads, which are still stopped; 3. it kills the guard: from here on
 * its own death kills nobody; 4. it lets all go. If criu dies before step 3 the pipe is closed,
 * which the kernel does before it lets go of tracees, and the guard kills all tasks.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "remote/tree.h"
#include "task/restore.h"

struct guard {
	pid_t pid; /* -1: none */
	int pipe;
};

static bool open_pidfds(const struct restore *r, int *fds, size_t *ret_n)
{
	for (size_t i = 0; i < r->n_tasks; i++) {
		if (r->tasks[i].is_gone)
			continue;
		int fd = syscall(SYS_pidfd_open, r->tasks[i].pid, 0);
		if (fd < 0)
			return false;
		fds[(*ret_n)++] = fd;
	}
	return true;
}

static _Noreturn void watch(int pipe, const int *pidfds, size_t n)
{
	ssize_t got;
	char byte;

	do {
		got = read(pipe, &byte, 1);
	} while (got < 0 && errno == EINTR);
	for (size_t i = 0; i < n && got == 0; i++)
		(void)syscall(SYS_pidfd_send_signal, pidfds[i], SIGKILL, NULL, 0);
	_exit(0);
}

/* Without one, for want of descriptors or processes, all goes well but for that moment. */
static struct guard guard_begin(struct restore *r)
{
	struct guard g = { .pid = -1, .pipe = -1 };
	int *fds = arena_array(&r->arena, int, r->n_tasks), ends[2];
	size_t n = 0;

	/* The threads of one process die together in any case. */
	if (r->n_tasks > 1 && open_pidfds(r, fds, &n) && pipe2(ends, O_CLOEXEC) == 0) {
		g.pid = fork();
		if (g.pid == 0) {
			(void)close(ends[1]);
			watch(ends[0], fds, n);
		}
		g.pipe = ends[1];
		(void)close(ends[0]);
	}
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
	return g;
}

/* Nothing but its death may come before the end of the pipe. */
static void guard_end(struct guard *g)
{
	if (g->pid > 0) {
		if (kill(g->pid, SIGKILL) < 0)
			(void)syscall(SYS_tgkill, g->pid, g->pid, SIGKILL);
		tracee_reap(g->pid);
	}
	own_close(&g->pipe);
}

void task_let_go(struct restore *r, bool stop)
{
	struct guard guard = guard_begin(r);

	for (size_t i = 0; i < r->n_tasks; i++) {
		struct restore_task *t = &r->tasks[i];

		if (t->is_gone)
			continue;
		for (size_t j = 0; j < t->n_threads; j++)
			(void)ptrace(PTRACE_SETOPTIONS, t->threads[j].tid, NULL, 0);
		if (stop && !task_is_stopped(t))
			(void)kill(t->pid, SIGSTOP);
	}
	guard_end(&guard);
	for (size_t i = r->n_tasks; i-- > 0;) {
		struct restore_task *t = &r->tasks[i];

		for (size_t j = t->is_gone ? 0 : t->n_threads; j-- > 0;)
			if (ptrace(PTRACE_DETACH, t->threads[j].tid, NULL, NULL) < 0)
				warn("pid %d: detach: %s", t->threads[j].tid, strerror(errno));
	}
}
