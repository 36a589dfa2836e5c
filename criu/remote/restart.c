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
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "remote/restart.h"

/* How long the thread may take to fall asleep again: on a loaded machine it waits for its turn. */
#define LOOK_US	     5000000
#define LOOKS_MAX    100 /* each was interrupted by something else before the thread slept */
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

/*
 * Reads where the thread sleeps, as soon as it does. Returns the call's number, or -1 if it does
 * not sleep in time. If the thread stopped again, *ret_stopped is set and *ret_status says how.
 */
static long watch(struct thread *t, uint64_t first_arg, bool *ret_stopped, int *ret_status)
{
	uint64_t end = now_us() + LOOK_US;
	char path[64], wchan[128];

	snprintf(path, sizeof(path), "task/%d/wchan", t->tid);
	while (now_us() < end) {
		long nr = -1;

		*ret_stopped = engine_poll(t->tid, ret_status) > 0;
		if (*ret_stopped)
			return -1;
		if (read_small_at(t->process->proc_fd, path, wchan, sizeof(wchan)) > 0)
			nr = call_of(wchan, first_arg);
		if (nr >= 0)
			return nr;
		(void)usleep(LOOK_EACH_US);
	}
	return -1;
}

/* Resumes the thread up to its next stop before or behind a system call. */
static int resume(const struct thread *t)
{
	return ptrace(PTRACE_SYSCALL, t->tid, NULL, NULL) < 0
		       ? fail(errno, "pid %d: let it go on", t->tid)
		       : 0;
}

/*
 * No instruction of the program is executed meanwhile:
 *  1. the thread stops on its way into the call; 2. it sleeps, or the call is over and it stops
 *  on its way out; 3. it is interrupted like every other thread.
 * A signal may come instead of 1 or 2.
 */
static int look(struct engine *e, struct thread *t, long *ret_nr, int *ret_stop_signal)
{
	uint64_t first_arg = regs_argument(&t->regs, 0);
	bool is_stopped = false;
	int status;
	int rc = resume(t);

	if (rc == 0)
		rc = engine_wait(e, t->tid, &status);
	if (rc < 0)
		return rc;
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80))
		return tracee_interrupt_after(e, t->tid, status, ret_stop_signal);
	rc = resume(t);
	if (rc < 0)
		return rc;
	*ret_nr = watch(t, first_arg, &is_stopped, &status);
	if (is_stopped)
		return tracee_interrupt_after(e, t->tid, status, ret_stop_signal);
	if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) < 0)
		return fail(errno, "pid %d: interrupt", t->tid);
	return tracee_wait_interrupted(e, t->tid, ret_stop_signal);
}

bool restart_is_needed(const struct thread *t)
{
	return regs_need_restart_block(&t->regs) && regs_is_restart(&t->regs);
}

/* nr is ours; an i386 has others. */
static long number_in_program(struct thread *t, long nr)
{
	uint64_t at = regs_restarted_time(&t->regs, nr);
	uint32_t time[3] = { 0 };

	if (at && (process_mem(t->process) < 0 ||
		   pread_all(process_mem(t->process), time, sizeof(time), at) < 0))
		return -1;
	return regs_restarted_number(&t->regs, nr, time);
}

int restart_find_call(struct engine *e, struct thread *t)
{
	long nr = -1;

	for (int i = 0; i < LOOKS_MAX && nr < 0 && restart_is_needed(t); i++) {
		int stop_signal = 0;
		int rc = look(e, t, &nr, &stop_signal);

		if (rc == -ESRCH)
			return refuse(ESRCH, "pid %d: it ended while it was being stopped", t->tid);
		if (rc < 0)
			return rc;
		if (stop_signal)
			t->process->stop_signal = stop_signal;
		rc = thread_read_regs(t);
		if (rc < 0)
			return rc;
	}
	t->restarted_call = nr < 0 ? nr : number_in_program(t, nr);
	if (t->restarted_call < 0 && restart_is_needed(t))
		warn("pid %d: which call it is in cannot be told; restored, that call will fail "
		     "with EINTR",
		     t->tid);
	return 0;
}
