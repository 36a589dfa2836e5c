/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What victim and driver share: a file that both map. The victim never waits for the driver, so
 * nothing here can hold up a thread.
 */
#ifndef KILL_VICTIM_H
#define KILL_VICTIM_H

#include <stdint.h>
#include <sys/types.h>

#define VICTIM_THREADS_MAX 32
#define VICTIM_SKIPPED	   77 /* exit status: this machine lacks what the variant needs */

struct victim_thread {
	char role[12];
	pid_t tid;
	/* Rounds: each does its work and verifies all of it before it counts. */
	volatile uint64_t rounds;
};

struct victim_board {
	volatile uint32_t is_ready; /* all threads made a round */
	/*
	 * Set by the driver when it has seen what masks and pending signals are. From then on they
	 * change for moments: the timer runs, and ppoll has another mask.
	 */
	volatile uint32_t may_vary;
	uint32_t n_threads; /* leader first */
	volatile uint32_t failed;
	char text[200]; /* of the first failure */
	/*
	 * EINTR of calls that the kernel never restarts (signal(7)): a bare stop causes it, with
	 * or without a tracer that touches the task.
	 */
	volatile uint64_t eintrs;
	volatile uint64_t rseq_aborts;
	struct victim_thread thread[VICTIM_THREADS_MAX];
};

#endif
