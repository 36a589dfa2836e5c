/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Getting into a stopped process and out again: calls in a stopped thread, the shared region,
 * and the frames through which a task finds back if criu dies.
 */
#ifndef REMOTE_INJECT_H
#define REMOTE_INJECT_H

#include "proc/maps.h"
#include "remote/program.h"
#include "remote/tree.h"

/* Where in a process we can work. Addresses are the task's; 0 stands for "there is none". */
struct site {
	uint64_t call_insn; /* a system call instruction; if is_gadget it reaches a return */
	bool is_gadget;
	size_t gadget_pops; /* bytes that go off the stack between */
	uint64_t restorer;  /* instructions that call rt_sigreturn */
	uint64_t store;	   /* code that stores the result of a call; only looked for with threads */
	size_t store_pops; /* bytes that it takes off the stack */
	uint64_t stack_end;
	uint64_t stack_start; /* of the main thread's stack mapping */
	uint64_t region;      /* a hole for the shared region */
};

#define INJECT_REGION_SIZE (96u << 10) /* what is asked for at most is 64 KiB (modify_ldt) */
#define INJECT_THREADS_MAX 8	       /* at once: each needs room for its frames in the stack */
#define INJECT_DEAD_PAGES  3	       /* of the stack, for the frames of one thread */

struct inject {
	struct engine *engine;
	struct process *process;
	struct site site;
	struct region region;
	struct worker worker;
	uint32_t dead_places; /* bit N: stack memory for the frames of thread N */
	bool is_mapped;	      /* the region is in the task, or may be */
	bool is_lost;	      /* it could not be left */
	bool has_shadow_stack;
	bool is_compat;			 /* a 32-bit program: its calls are those of an i386 */
	bool is_protected;		 /* it finds back without criu */
	uint64_t way_out;		 /* frame that unmaps the region and returns */
	uint64_t context;		 /* frame with the true context */
	uint64_t dirty_start, dirty_end; /* stack memory that the frames took */
	uint8_t *saved;	     /* content of the stack from its start, as far as frames may go */
	uint64_t frames_end; /* of the stack that frames of other threads took; 0: none */
	const char *why_unprotected;
};

/*
 * Looks for the site. Returns 0, or an error that is reported if nothing can run in the task.
 * What makes the process unprotected is noted for the log.
 */
int inject_find_site(struct inject *in, struct engine *e, struct process *p,
		     const struct maps *maps, bool has_shadow_stack);

/* Maps the region into the process and brings its leader into the stub. */
int inject_enter(struct inject *in);

/*
 * Takes leader and region out of the process; the task is stopped as it was found. After an
 * error of inject_enter too. Returns 0 or an error that is reported.
 */
int inject_leave(struct inject *in);

/* Gives back what criu itself has of it. This can wait until the process goes on, or is gone. */
void inject_done(struct inject *in);

/*
 * Stops the leader, which idles in the stub, for questions that only ptrace answers, and lets it
 * go on. 0 or -errno, reported.
 */
int inject_pause(struct inject *in);
int inject_go_on(struct inject *in);

/*
 * What the page of the task at addr holds in truth, if our frames lie over it at present; NULL if
 * they do not.
 */
const uint8_t *inject_saved_page(const struct inject *in, uint64_t addr);

/* Writes what our frames hide into a copy of the memory, which mem is open on. 0 or an error. */
int inject_clean_copy(const struct inject *in, int mem);

/* A call that a stopped thread makes by itself: number, arguments, result. */
struct thread_call {
	long nr;
	uint64_t arg[6];
	int64_t ret;
};

struct thread_calls {
	struct thread *thread;
	struct thread_call *calls;
};

#define INJECT_CALLS_MAX 8

/*
 * Lets up to INJECT_THREADS_MAX threads other than the leader make n calls each (at most
 * INJECT_CALLS_MAX, at least one), and puts their registers and masks back. Of the results 32
 * bits are true. 0 or -errno, reported.
 */
int inject_thread_calls(struct inject *in, struct thread_calls *batch, size_t n_threads, size_t n);

/*
 * One system call in a stopped tracee at instruction insn with the given stack pointer; its
 * other registers come from base. For tasks that are ours to change (blank ones).
 */
int tracee_call(struct engine *e, pid_t tid, const struct regs *base, uint64_t insn, uint64_t sp,
		struct thread_call *call);

#endif
