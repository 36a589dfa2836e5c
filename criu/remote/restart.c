/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which call is it that restart_syscall(2) goes on with?
 *
 * A nanosleep, poll or timed futex wait that was interrupted once (by an earlier dump, say) is
 * continued by the kernel as restart_syscall, and its own number is gone. Interrupted a second
 * time, nothing in the stopped thread tells what it was. So the thread is let go on for a
 * moment: where it sleeps then (/proc/PID/wchan) names the call.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "proc/text.h"
#include "remote/restart.h"

/*
 * How long the thread may take to fall asleep again. On a loaded machine it has to wait for its
 * turn; only a thread whose call ends right now, to be followed by no other, uses all of it.
 */
#define LOOK_US	     500000
#define LOOK_MAX_US  5000000 /* for one that did not get a CPU at all */
#define RAN_NS	     1000000 /* on a CPU: it had its turn */
#define LOOK_EACH_US 20
#define FIRST_PAGE   4096 /* no pointer is lower */

/*
 * Only these calls are ever continued: futex, poll, nanosleep and clock_nanosleep. The last two
 * sleep in one function, which compilers hide behind different names; what tells them apart is
 * that the first argument of clock_nanosleep is no pointer.
 */
static long call_of(const char *wchan, uint64_t first_arg)
{
	if (!strcmp(wchan, "0"))
		return -1; /* it does not sleep yet */
	if (strstr(wchan, "futex"))
		return SYS_futex;
	if (strstr(wchan, "poll"))
		return SYS_poll;
	return first_arg < FIRST_PAGE ? SYS_clock_nanosleep : SYS_nanosleep;
}

/* The time that the thread has spent on a CPU: the first number of schedstat. */
static uint64_t cpu_ns(const struct thread *t)
{
	char path[64], text[128];
	uint64_t ns = 0;

	snprintf(path, sizeof(path), "task/%d/schedstat", t->tid);
	if (read_small_at(t->process->proc_fd, path, text, sizeof(text)) > 0)
		(void)text_dec(text, &ns);
	return ns;
}

/* Reads where the thread sleeps, as soon as it does. Returns the call's number or -1. */
static long watch(struct thread *t, uint64_t first_arg)
{
	uint64_t start = now_us(), started_ns = cpu_ns(t);
	char path[64], wchan[128];

	snprintf(path, sizeof(path), "task/%d/wchan", t->tid);
	do {
		long nr = -1;

		if (read_small_at(t->process->proc_fd, path, wchan, sizeof(wchan)) > 0)
			nr = call_of(wchan, first_arg);
		if (nr >= 0)
			return nr;
		(void)usleep(LOOK_EACH_US);
	} while (now_us() - start < LOOK_US ||
		 (now_us() - start < LOOK_MAX_US && cpu_ns(t) - started_ns < RAN_NS));
	return -1;
}

int restart_find_call(struct engine *e, struct thread *t)
{
	uint64_t first_arg = regs_argument(&t->regs, 0);
	int stop_signal;

	if (ptrace(PTRACE_CONT, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: let it go on", t->tid);
	long nr = watch(t, first_arg);
	if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: interrupt", t->tid);
	int rc = tracee_wait_interrupted(e, t->tid, &stop_signal);
	if (rc == -ESRCH)
		return refuse(ESRCH, "pid %d: it ended while it was being stopped", t->tid);
	if (rc == 0)
		rc = regs_get(t->tid, &t->regs);
	if (rc < 0)
		return fail(-rc, "pid %d: read registers", t->tid);
	t->restarted_call = nr;
	if (nr < 0 && regs_interrupted_call(&t->regs) == SYS_restart_syscall)
		warn("pid %d: which call it is in cannot be told; restored, that call will fail "
		     "with EINTR",
		     t->tid);
	return 0;
}
