/* SPDX-License-Identifier: GPL-2.0-only */
/* The victims of a test: started, looked at from outside, judged after each kill, ended. */
#ifndef KILL_WATCH_H
#define KILL_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "victim.h"

/* What /proc says of a process and has to say again when the tracer is dead. */
struct look {
	char *signals[VICTIM_THREADS_MAX]; /* masks, actions, pending ones, tracer of a thread */
	char *maps;
	char *fds;
};

struct victim {
	pid_t pid;
	struct victim_board *board;
	struct look before;
	/* since the last mark */
	uint64_t rounds[VICTIM_THREADS_MAX]; /* made before */
	/*
	 * Its signals were seen as they were. A handler or ppoll changes them for moments; a mask
	 * that is wrong stays so.
	 */
	bool has_signals[VICTIM_THREADS_MAX];
};

/*
 * Starts `victim` with arguments (NULL-terminated) and waits until all of its threads work.
 * Returns 0, 77 if the machine lacks what it needs, or -1 with a message on stderr.
 */
int victim_start(struct victim *v, const char *program, char *const args[]);
void victim_end(struct victim *v);

/* From here on every thread has to get on. */
void victim_mark(struct victim *v);

enum verdict { UNHARMED, BROKEN, LEAKED, N_VERDICTS };

/*
 * Waits until all threads got on since the mark and everything is as before, at most for
 * timeout_ms. If it never is, evidence (may be NULL) gets what was wrong.
 */
enum verdict victim_judge(struct victim *v, int timeout_ms, FILE *evidence);

/* Stops it, or lets it go on; waits until all threads are stopped and nobody traces them. */
bool victim_stop(struct victim *v);
bool victim_is_stopped(struct victim *v, int timeout_ms, FILE *evidence);
/* Since it was stopped none of its threads has done anything. */
bool victim_stood_still(struct victim *v, FILE *evidence);
void victim_continue(struct victim *v);

uint64_t now_ns(void);

#endif
