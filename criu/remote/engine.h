/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every tracing part shares: the robust list that tells tasks of criu's death, waiting for
 * tracees with interruption, and the points where tests kill criu.
 */
#ifndef REMOTE_ENGINE_H
#define REMOTE_ENGINE_H

#include <linux/futex.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "remote/arch.h"

struct engine {
	struct robust_list_head robust; /* slots whose owner is this thread */
	pid_t tid;
	bool is_held;	      /* neither signals nor time interrupt what is being done */
	uint64_t deadline_us; /* of the command, on the clock of now_us; 0: none */
	struct {	      /* where the C library returns from signal handlers */
		uint32_t dev_major, dev_minor;
		uint64_t ino, offset;
	} own_sigreturn;
	struct xstate_layout layout;
	void (*at_point)(void *arg, const char *name); /* tests only; NULL otherwise */
	void *at_point_arg;
};

/*
 * Prepares the calling thread for tracing: registers its robust list (the C library's own is
 * replaced; we use no robust mutexes) and blocks SIGCHLD and the signals that ask to stop.
 * The engine has to outlive the thread's last injected task. Returns 0 or -errno.
 */
int engine_init(struct engine *e);

/* A named instant at which the death of criu may not harm a tracee. */
static inline void engine_point(struct engine *e, const char *name)
{
	if (e->at_point)
		e->at_point(e->at_point_arg, name);
}

/*
 * Returns 0, or -EINTR / -ETIMEDOUT after reporting that a signal asked criu to stop or that
 * the command's time is over. Cheap; called in every long loop.
 *
 * Held, it always returns 0: a thread in the middle of calls that criu makes in it has neither its
 * registers nor its mask, and is not left so as long as criu can help it.
 */
int engine_check(struct engine *e);

/* Those that ask criu to end what it does. */
void engine_stop_signals(sigset_t *set);

/*
 * Waits for the next stop or the end of tracee tid. Returns 0 with *ret_status as waitpid(2)
 * gives it, or an error that is reported (interruption, timeout, no such tracee).
 */
int engine_wait(struct engine *e, pid_t tid, int *ret_status);

/* waitpid without waiting: 1 with a status, 0 nothing new, -errno. */
int engine_poll(pid_t tid, int *ret_status);

/*
 * True if tid is a zombie; *ret_status is how it ended. waitpid does not tell the end of a thread
 * group leader before its other threads have been reaped, by whoever traces them: by us.
 */
bool engine_has_ended(pid_t tid, int *ret_status);

#endif
