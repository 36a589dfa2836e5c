/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Programs: lists of system calls that run inside another task. See remote/abi.h for the
 * records and Documentation/ARCHITECTURE.md for the idea.
 */
#ifndef REMOTE_PROGRAM_H
#define REMOTE_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "remote/abi.h"
#include "remote/engine.h"

/*
 * The memory that criu shares with a task: a page of code (read-execute there), then slots and
 * data (read-write). raddr is its address in the task, local ours.
 */
struct region {
	uint64_t raddr;
	size_t size;
	char *local;
	size_t used; /* bytes handed out from the start */
};

/* A thread that sits in the stub. */
struct worker {
	struct engine *engine;
	struct region *region;
	struct slot *slot;
	pid_t tid;
	bool *stop_again; /* set when a SIGSTOP for the task was held back; may be NULL */
};

/* Copies the stub to the start of the region and leaves the rest for slots and data. */
void region_init(struct region *r, uint64_t raddr, void *local, size_t size);

/* Takes size bytes (16-aligned) of the region. Reports and returns NULL if it is full. */
void *region_alloc(struct region *r, size_t size);

/* The task's address of a piece of the region. */
static inline uint64_t region_raddr(const struct region *r, const void *local)
{
	return r->raddr + ((const char *)local - r->local);
}

/* The stub's addresses in the region. */
uint64_t region_stub_entry(const struct region *r);
uint64_t region_stub_child(const struct region *r);

/* Makes a slot in the region, as if its thread had just been rung. NULL if there is no room. */
struct slot *slot_new(struct region *r, const struct engine *e);

/*
 * For a process that was stopped: should criu die, the thread does nothing before it is continued.
 * may_call: no filter of its own kills it for calls of ours.
 */
void slot_keep_stopped(struct slot *s, bool may_call);

/* Puts the slot on the engine's robust list, or takes it off. */
void slot_watch(struct slot *s, struct engine *e);
void slot_unwatch(struct slot *s, struct engine *e);

struct program {
	struct worker *worker;
	struct call *calls;
	const char **labels;
	uint32_t n, max;
	bool is_long; /* runs what it has whenever it is full */
	int error;    /* of such a run, or that something did not fit */
	size_t region_mark, data_mark;
	struct call nowhere; /* what callers write to when nothing fits any more */
};

/*
 * Begins a program of at most max calls for the worker. One program of a region is built and
 * run at a time unless the region is large: program_end gives its room back.
 */
int program_begin(struct program *p, struct worker *w, uint32_t max);

/*
 * Makes it a program without end: when calls or data do not fit any more, those so far are run
 * and their room is used again. Its calls may not refer to results of others, and results are
 * not read; data belongs to the next call that is added.
 */
void program_set_long(struct program *p);

/*
 * Adds a call; label says for people what it is for ("map /bin/true") and must live until the
 * program has run. Returns the call, so that flags and references can be set and the result be
 * read. CALL(p, label, nr, arguments...) is the usual way to write it.
 */
struct call *program_call(struct program *p, const char *label, long nr, const uint64_t arg[6]);
#define CALL(p, label, nr, ...) program_call((p), (label), (nr), (const uint64_t[6]){ __VA_ARGS__ })

/* Makes argument i of call c the value that stands at raddr when the call is made. */
void call_load(struct call *c, int i, uint64_t raddr);
/*
 * The next n calls of a long program are run together: only then may one use the result of
 * another. Room for data may still be asked for only before them.
 */
void program_reserve(struct program *p, uint32_t n);

/* Makes argument i the result of an earlier call. */
void call_use(const struct program *p, struct call *c, int i, const struct call *earlier);

/* Room for data of this program in the region, zeroed or copied from data. NULL if full. */
void *program_room(struct program *p, size_t size);
void *program_data(struct program *p, const void *data, size_t size);
/* Its address in the task. */
uint64_t program_raddr(const struct program *p, const void *local);

/* Rings; the task runs the program while we go on. */
int program_start(struct program *p);
/*
 * Waits for the end. Returns 0; -errno of the call that failed, reported with its label; -ESRCH
 * if the task died, reported.
 */
int program_wait(struct program *p);
/* Waits until a call of the program, which runs, has a result other than 0. Errors as above. */
int program_wait_call(struct program *p, const struct call *c);
int program_run(struct program *p);
void program_end(struct program *p);

/*
 * Programs of several workers of one region that run at the same time. Each is begun, gets its
 * calls and is started before the next one is begun; batch_begin waits for earlier ones when many
 * run or the region gets full.
 */
#define BATCH_MAX 16
struct batch {
	struct program programs[BATCH_MAX];
	size_t n, n_started;
	int error; /* the first one; nothing is begun or started any more */
};

/* Returns the program, or NULL if there was an error. */
struct program *batch_begin(struct batch *b, struct worker *w, uint32_t max);
void batch_start(struct batch *b);
/* Waits for those that run. */
void batch_wait(struct batch *b);
/* Waits for all; has to be called in any case. Returns the first error, or 0. */
int batch_end(struct batch *b);

/* Waits until the worker is idle, as after entering the stub. Errors as of program_wait. */
int worker_wait(struct worker *w);

#endif
