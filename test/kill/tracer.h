/* SPDX-License-Identifier: GPL-2.0-only */
/* The tracer that gets killed: it does to a process what a dump does, in a process of its own. */
#ifndef KILL_TRACER_H
#define KILL_TRACER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum phase {
	PHASE_STOP,
	PHASE_SITE,
	PHASE_ENTER,
	PHASE_PROGRAMS,
	PHASE_THREADS,
	PHASE_LEAVE,
	PHASE_RELEASE,
	PHASE_AFTER,
	N_PHASES,
};
extern const char *const phase_names[N_PHASES];

/* Shared memory of driver and tracer. */
struct tracer_board {
	/* what the driver asks for */
	uint32_t kill_at;    /* the number of the point where the tracer kills itself; 0: at none */
	bool without_frames; /* the task gets no way back */
	/* what the tracer tells */
	volatile uint32_t has_started;
	volatile uint32_t n_points; /* passed */
	volatile uint32_t phase;    /* the phase it is in */
	const char *volatile point; /* the last one; text of the binary, the same in both */
	volatile bool is_protected; /* the task had a way back */
	char error[200];	    /* why it failed */
};

/* Never returns: exits with 0 after a whole run, with 1 if it failed. */
void tracer_main(struct tracer_board *board, pid_t victim) __attribute__((noreturn));

#endif
