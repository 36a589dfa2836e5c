/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "proc/maps.h"
#include "proc/task.h"
#include "remote/abi.h"
#include "remote/arch.h"
#include "remote/engine.h"

#define SPIN_US	 30 /* a tracee on the other CPU answers in 3 us, a sleep costs 38 */
#define SLICE_MS 100

static const int stop_signals[] = { SIGINT, SIGTERM, SIGHUP };

static void stop_set(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < ARRAY_SIZE(stop_signals); i++)
		sigaddset(set, stop_signals[i]);
}

/* Looked up here, before anything is stopped. */
static void find_own_sigreturn(struct engine *e)
{
	struct arena a = { 0 };
	struct maps maps;
	autoclose int self = proc_open(getpid());
	uint64_t addr = own_sigreturn();

	if (self >= 0 && addr && maps_read(self, "maps", &a, &maps) == 0) {
		const struct mapping *m = maps_find(&maps, addr);

		if (m && m->ino) {
			e->own_sigreturn.dev_major = m->dev_major;
			e->own_sigreturn.dev_minor = m->dev_minor;
			e->own_sigreturn.ino = m->ino;
			e->own_sigreturn.offset = m->pgoff + (addr - m->start);
		}
	}
	arena_done(&a);
}

int engine_init(struct engine *e)
{
	sigset_t set;

	memset(e, 0, sizeof(*e));
	find_own_sigreturn(e);
	xstate_layout_read(&e->layout);
	e->tid = gettid();
	e->robust.list.next = &e->robust.list;
	e->robust.futex_offset =
		(long)offsetof(struct slot, bell) - (long)offsetof(struct slot, robust);
	if (syscall(SYS_set_robust_list, &e->robust, sizeof(e->robust)) < 0)
		return fail(errno, "set the robust list");

	stop_set(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return fail(errno, "block signals");
	return 0;
}

int engine_check(struct engine *e)
{
	sigset_t pending;

	if (e->is_ending)
		return 0;
	if (e->deadline_us && now_us() > e->deadline_us)
		return refuse(ETIMEDOUT, "the time given by --timeout is over");
	sigpending(&pending);
	for (size_t i = 0; i < ARRAY_SIZE(stop_signals); i++)
		if (sigismember(&pending, stop_signals[i]))
			return refuse(EINTR, "interrupted by %s", strsignal(stop_signals[i]));
	return 0;
}

int engine_poll(pid_t tid, int *ret_status)
{
	pid_t got = waitpid(tid, ret_status, __WALL | WNOHANG);

	if (got < 0)
		return -errno;
	return got > 0;
}

int engine_wait(struct engine *e, pid_t tid, int *ret_status)
{
	const struct timespec slice = { .tv_nsec = SLICE_MS * 1000000 };
	uint64_t spin_end = now_us() + SPIN_US;
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (;;) {
		int rc = engine_poll(tid, ret_status);

		if (rc > 0)
			return 0;
		if (rc < 0)
			return fail(-rc, "pid %d: wait", tid);
		if (now_us() < spin_end)
			continue;
		/* The stop signals stay pending: only SIGCHLD is taken here. */
		rc = engine_check(e);
		if (rc < 0)
			return rc;
		(void)sigtimedwait(&child, NULL, &slice);
	}
}
