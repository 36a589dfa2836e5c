/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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

void engine_stop_signals(sigset_t *set)
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

	engine_stop_signals(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return fail(errno, "block signals");
	return 0;
}

static bool is_over(const struct engine *e)
{
	return !e->is_held && e->deadline_us && now_us() > e->deadline_us;
}

int engine_check(struct engine *e)
{
	sigset_t pending;

	if (e->is_held)
		return 0;
	if (is_over(e))
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

bool engine_has_ended(pid_t tid, int *ret_status)
{
	struct proc_stat stat;

	if (proc_stat_of(tid, &stat) < 0 || stat.state != 'Z')
		return false;
	*ret_status = stat.exit_code;
	return true;
}

static const char *read_of(pid_t tid, const char *file, char *buf, size_t size)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/%s", tid, file);
	if (read_small_at(AT_FDCWD, path, buf, size) <= 0)
		buf[0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return buf;
}

/* Only then does a call that makes a task sleep where no signal reaches it. */
static bool is_vfork(long call)
{
	return call == SYS_vfork || call == SYS_clone || call == SYS_clone3;
}

/* What a task does that does not come to a stop. */
static const char *why_it_runs(pid_t tid, char *buf, size_t size)
{
	char text[1024], place[64], call[128], path[48];
	struct proc_stat stat;

	if (proc_stat_of(tid, &stat) < 0)
		return "it is gone";
	read_of(tid, "wchan", place, sizeof(place));
	read_of(tid, "syscall", call, sizeof(call));
	snprintf(path, sizeof(path), "task/%d/children", tid);
	if (stat.state == 'D' && is_vfork(atol(call)))
		snprintf(buf, size,
			 "its vfork child (%.*s) has its memory; it can be dumped when that has "
			 "started another program or ended",
			 (int)strcspn(read_of(tid, path, text, sizeof(text)), " "), text);
	else if (stat.state == 'D')
		snprintf(buf, size,
			 "it is in uninterruptible sleep in %s of the kernel, in system "
			 "call %.*s",
			 place, (int)strcspn(call, " "), call);
	else
		snprintf(buf, size, "its state is %c", stat.state);
	return buf;
}

int engine_wait(struct engine *e, pid_t tid, int *ret_status)
{
	const struct timespec slice = { .tv_nsec = SLICE_MS * 1000000 };
	uint64_t spin_end = now_us() + SPIN_US;
	char why[256];
	sigset_t child;
	int end;

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
		if (is_over(e))
			return refuse(ETIMEDOUT,
				      "pid %d did not stop in the time given by --timeout: %s", tid,
				      why_it_runs(tid, why, sizeof(why)));
		rc = engine_check(e);
		if (rc < 0)
			return rc;
		if (sigtimedwait(&child, NULL, &slice) > 0 || !engine_has_ended(tid, &end))
			continue;
		if (engine_poll(tid, ret_status) <= 0)
			*ret_status = end;
		return 0;
	}
}
