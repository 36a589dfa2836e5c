/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A tree of processes, stopped with ptrace: how it gets stopped and how it goes on.
 */
#ifndef REMOTE_TREE_H
#define REMOTE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "proc/task.h"
#include "remote/arch.h"
#include "remote/engine.h"

/* How the tree is traced: with seccomp suspended, where that is allowed. */
#define TRACEE_OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP)

/* What ptrace says of a thread's restartable sequences (PTRACE_GET_RSEQ_CONFIGURATION). */
struct rseq_conf {
	uint64_t pointer; /* 0: none registered */
	uint32_t size;
	uint32_t signature;
	uint64_t cs_pointer; /* content of rseq_cs */
	bool is_unknown;     /* the kernel has rseq but cannot tell (before 5.13) */
};

struct thread {
	pid_t tid;
	struct process *process;
	bool stopped;	    /* ours to resume */
	bool regs_changed;  /* it has to get its registers back */
	bool is_running;    /* we let it go on, and have not seen it stop again */
	bool is_in_call;    /* it is stopped on its way into a call */
	struct regs regs;   /* as it was stopped */
	struct regs resume; /* as it will go on */
	struct xstate xstate;
	uint64_t mask; /* blocked signals */
	struct rseq_conf rseq;
	long restarted_call; /* what restart_syscall stands for; -1: nothing known */
};

struct process {
	pid_t pid;
	struct process *parent; /* in the tree; NULL for the root */
	int proc_fd;		/* /proc/PID */
	int mem_fd;		/* /proc/PID/mem, -1 until used */
	struct proc_stat stat;	/* read when it was stopped */
	bool is_zombie;
	bool has_seccomp;	/* our calls work only as long as criu traces it */
	bool is_leader_dead;	/* the thread group leader exited before its threads */
	int stop_signal;	/* it was stopped by this one; 0: it ran */
	bool stop_again;	/* a SIGSTOP came while it was ours */
	struct thread *threads; /* leader first; empty for a zombie */
	size_t n_threads;
};

struct tree {
	struct engine *engine;
	struct arena *arena;
	struct process **processes; /* parents before children */
	size_t n;
};

/*
 * Stops root and all its descendants, with all threads, and reads each thread's registers,
 * signal mask and rseq registration. Returns 0; or an error that is reported, with the stopped
 * part in *tree, so that tree_resume is right in both cases.
 */
int tree_stop(struct tree *tree, struct engine *e, struct arena *a, pid_t root);

/* What becomes of the tree. */
enum tree_end {
	TREE_RUN,  /* as before: running processes run, stopped ones stay stopped */
	TREE_STOP, /* running processes get a SIGSTOP */
	TREE_KILL,
};

/*
 * Lets go of the tree. Nothing may be left in any task (inject_leave). Never fails; does nothing
 * to what was let go before.
 */
void tree_end(struct tree *tree, enum tree_end end);

/* Closes what the tree holds. */
void tree_done(struct tree *tree);

/*
 * The registers by which a stopped thread goes on where the kernel does not help it: out of a
 * signal frame, or from an image. An interrupted call is made again from its start.
 */
struct regs thread_regs_alone(const struct thread *t);

/* Reads the registers of a stopped thread into t->regs. 0 or -errno, reported. */
int thread_read_regs(struct thread *t);

/* /proc/PID/mem for reading and writing. A descriptor owned by the process, or -errno. */
int process_mem(struct process *p);

/*
 * Waits for the stop that PTRACE_INTERRUPT asked for, passing on signals that come first.
 * Returns 0 with the signal that a group stop is due to (0: none); -ESRCH, not reported, if the
 * task ends instead; or an error that is reported.
 */
int tracee_wait_interrupted(struct engine *e, pid_t tid, int *ret_stop_signal);

/* The same from a stop of the task, or its end, that was reported already. */
int tracee_interrupt_after(struct engine *e, pid_t tid, int status, int *ret_stop_signal);

/* The process with that pid, zombies too; NULL if it is not in the tree. */
struct process *tree_find(const struct tree *tree, pid_t pid);

/* /proc/PID/mem of a tracee that is no process of a tree. A descriptor or -errno, reported. */
int tracee_mem(pid_t pid);

/* Waits for the end of a tracee that was killed. */
void tracee_reap(pid_t tid);

/*
 * Reports a tracee's end: "pid N was killed by signal S while <what>". Returns -ESRCH.
 */
int tracee_died(pid_t tid, int status, const char *what);
/*
 * All signals are blocked while criu runs calls in a task; the kernel forces some on it all the
 * same, over and over, if its memory or segments are not as they have to be. Returns 0, or
 * -EFAULT for the stop of such a signal, reported.
 */
int tracee_check_signal(pid_t tid, int status, const char *what);

#endif
