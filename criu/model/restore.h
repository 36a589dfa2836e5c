/* SPDX-License-Identifier: GPL-2.0-only */
/* What one restore knows: the snapshot that was loaded, and the tasks that come out of it. */
#ifndef MODEL_RESTORE_H
#define MODEL_RESTORE_H

#include <sys/resource.h>

#include "model/options.h"
#include "model/snapshot.h"
#include "proc/task.h"
#include "remote/inject.h"

/* The credentials that a blank task has: criu's. */
struct own_creds {
	struct proc_status status;
	int securebits;
	unsigned last_cap;
};

struct restore_timer; /* task/ */
struct cow_area;      /* mem/ */
struct cow;

struct mem_range {
	uint64_t start, end;
};

struct restore_thread {
	const CoreEntry *core;
	pid_t tid;
	struct worker worker;
	bool exists;
};

struct restore_task {
	const struct snapshot_task *image;
	struct restore_task *parent; /* NULL for the root */
	struct restore_thread *threads;
	size_t n_threads;
	pid_t pid;
	struct mem_range *huge; /* memory of huge pages, which are there before it is filled */
	size_t n_huge;
	struct cow_area **areas; /* mappings that it has inherited (mem/premap.c), */
	size_t n_areas;
	struct pagemap there; /* and pages in them */
	int uffd;	      /* its userfaultfd while memory is filled, in criu; -1: none */
	int uffd_there;	      /* the same descriptor in the task */
	bool is_zombie;
	bool is_gone; /* a zombie or helper that has died */
	bool can_raise_limits;
	bool has_foreign_vdso;
	bool is_compat;		   /* a 32-bit program */
	uint64_t compat_call_insn; /* of such a one: a call instruction in its vDSO */
	size_t seccomp_common;	   /* so many of their oldest filters all threads have already */
	bool has_sigpending_limit; /* to be set when nothing more is queued */
	struct rlimit64 sigpending_limit;
	struct restore_timer *timers; /* by id */
	size_t n_timers;
};

/* The worker of the leader. */
static inline struct worker *task_worker(struct restore_task *t)
{
	return &t->threads[0].worker;
}

struct restore_stats {
	uint64_t forking_us, restore_us;
	uint64_t pages_restored;
};

struct kin_plan;    /* task/ */
struct inherit;	    /* files/ */
struct restore_ipc; /* ns/ */
struct restore_pipe;
struct dead_process;
struct restore_tty;
struct restore_sockets; /* sockets/ */

struct restore {
	const struct options *opts;
	struct arena arena;
	struct engine engine;
	struct snapshot snapshot;
	struct restore_task *tasks;
	size_t n_tasks;
	struct restore_task *helpers; /* that exist while the tree is created */
	size_t n_helpers;
	uint32_t last_helper_pid;
	const struct kin_plan *kinship;
	int *creators;	 /* of tasks, then helpers: who forks it; -1: criu */
	struct cow *cow; /* while tasks are created */
	struct own_creds own_creds;
	bool has_compat;      /* one of the tasks is a 32-bit program */
	struct maps own_maps; /* of criu, so of every blank task */
	struct region region; /* shared by criu and all tasks, at the same address */
	uint64_t vdso_tmp;    /* where the vDSO of blank tasks waits */
	uint64_t attach_tmp; /* where System V shared memory is attached that comes back in parts */
	int *file_fds;	     /* by index of snapshot.files: descriptor in criu, or -1 */
	uint8_t *fd_is_used; /* by number: some task has it */
	size_t n_fd_is_used;
	int next_fd;		 /* where the search for an unused number goes on */
	int placeholder_fd;	 /* 0: none as yet */
	uint8_t *file_is_late;	 /* by index: opened when the processes exist */
	uint8_t *file_is_async;	 /* its O_ASYNC is set */
	uint8_t *file_is_done;	 /* some task did what its class asks for */
	struct inherit *inherit; /* of --inherit-fd */
	size_t n_inherit;
	void *pipe_tree; /* of restore_pipe, by id */
	struct restore_pipe *pipes;
	uint64_t fifo_give_up_us;  /* when no more is waited for what the killed tree has left; 0:
				      not yet */
	struct dead_process *dead; /* that files lead to */
	size_t n_dead;
	struct restore_sockets *sockets;
	struct restore_ipc *ipc;  /* until all segments are attached */
	struct restore_tty *ttys; /* pairs, while criu holds them */
	int *shared_fds;	  /* by index of snapshot.shared, until memory is mapped */
	int *memfds; /* by index of snapshot.memfds, while criu holds them; -1: not made */
	const char *
		*made; /* names for deleted files, and directories for these, as they were made */
	size_t n_made;
	bool has_pidfile;
	bool is_huge_for_all;  /* the kernel makes huge pages where nobody asks for them */
	uint64_t reaped_by_us; /* when zombies that have our pids must be gone; 0: none was seen */
	struct restore_stats stats;
	uint64_t start_us;
	int images_fd;
};

/* The task with that pid, or NULL. */
static inline struct restore_task *restore_find(const struct restore *r, uint32_t pid)
{
	for (size_t i = 0; i < r->n_tasks; i++)
		if ((uint32_t)r->tasks[i].pid == pid)
			return &r->tasks[i];
	return NULL;
}

/* Task or helper by its number: helpers are counted behind the tasks. */
static inline struct restore_task *restore_node(struct restore *r, int i)
{
	return (size_t)i < r->n_tasks ? &r->tasks[i] : &r->helpers[i - r->n_tasks];
}

#endif
