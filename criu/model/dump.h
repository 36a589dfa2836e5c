/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What one dump knows. The messages that will be written are the model: there is no second set
 * of structures for the same facts.
 */
#ifndef MODEL_DUMP_H
#define MODEL_DUMP_H

#include <sys/uio.h>

#include "image/image.h"
#include "image/messages.h"
#include "image/pagemap.h"
#include "model/options.h"
#include "proc/maps.h"
#include "remote/copy.h"
#include "remote/inject.h"
#include "remote/tree.h"

struct file_table; /* files/ */
struct remap_table;
struct dump_pipe;
struct dump_bpfmap;
struct dump_memfd;
struct dump_tty;
struct dump_sockets; /* sockets/ */
struct dump_epoll;
struct shared_use; /* mem/ */
struct before;
struct dump_shared;
struct dump_ipc; /* ns/ */

/* A lock and what it belongs to. */
struct dump_lock {
	FileLockEntry *entry;
	dev_t dev;
	ino_t ino;
	uint32_t file_id;
};

struct dump_thread {
	struct thread *thread;
	struct proc_status status;
	CoreEntry *core;
	struct tls *tls; /* NULL: none that it uses */
};

/* Pages of a task or of a file in memory, on their way into a pages file. */
struct saved_pages {
	enum image_type type;  /* of their pagemap: IMG_PAGEMAP, IMG_SHMEM_PAGEMAP */
	unsigned long id;      /* of the task or segment */
	struct page_run *runs; /* by address; once saved: those in the image */
	size_t n_runs;
	uint32_t pages_id;
	bool is_held;
	struct iovec *held; /* their bytes, if they are written only after the tree is let go */
	size_t n_held;
};

struct dump_task {
	struct process *process;
	const struct dump_task *parent; /* NULL for the root */
	struct maps maps;		/* with VmFlags */
	struct dump_thread *threads;
	size_t n_threads; /* 0 for a zombie */
	struct inject in;
	bool has_entered; /* in is to be left */
	bool has_ldt;	  /* a local descriptor table */
	PstreeEntry *pstree;
	TaskKobjIdsEntry *ids;
	PosixTimerEntry **posix_timers; /* oldest first */
	size_t n_posix_timers;
	MmEntry *mm;
	FsEntry *fs;
	FdinfoEntry **fds;
	size_t n_fds;
	FdinfoEntry **unasked_fds; /* those whose close-on-exec flag only the task can tell */
	size_t n_unasked_fds;
	struct saved_pages pages;
	struct copy copy;      /* of its memory, if the tree goes on while that is written */
	int pidfd;	       /* of the process that has a copy */
	struct before *before; /* in an earlier dump; NULL: nothing there (mem/incremental.c) */
	const struct dump_task *donor; /* an earlier one that has pages in common with it, */
	struct page_run *shared;       /* these; or those that are still as in an earlier dump */
	size_t n_shared;
};

struct dump_stats {
	uint64_t freezing_us, frozen_us, memdump_us, memwrite_us;
	uint64_t pages_scanned, pages_written, pages_shared;
};

#define NS_KINDS    8
#define NS_LINK_MAX 32 /* "cgroup:[4026531835]" */

struct dump {
	const struct options *opts;
	struct arena arena;
	struct engine engine;
	struct tree tree;
	struct image_dir images;
	struct image_dir *levels; /* parent, parent/parent, ... below it (mem/cow.c) */
	size_t n_levels;
	int before_fd;		   /* directory of an earlier dump; -1: none is looked at */
	const char *before_run_id; /* of that dump; NULL: it has none */
	const char *run_id; /* of this one, if the kernel notes what is written from now on */
	struct {
		int fd;		  /* where pages go in place of files; -1: there is none */
		const char *name; /* as the user knows it */
	} page_server;
	struct dump_task *tasks; /* parents before children, as in the tree */
	size_t n_tasks;
	FileEntry **files; /* open file descriptions, mapped files, executables */
	size_t n_files;
	void *tables; /* tree of tasks by descriptor table, while they are collected */
	struct file_table *file_table;
	struct remap_table *remap_table;
	struct dump_pipe *pipes;
	size_t n_pipes;
	struct dump_bpfmap *bpfmaps;
	size_t n_bpfmaps;
	struct dump_memfd *memfds;
	struct dump_epoll *epolls;
	struct dump_timer {
		struct dump_task *task;
		int fd;
		TimerfdEntry *entry;
	} * timers_off; /* timerfds that seem to be */
	size_t n_timers_off;
	struct dump_tty *ttys;
	struct dump_sockets *sockets;
	struct dump_task *own; /* criu itself, with descriptors that it found in flight */
	struct {
		pid_t pid; /* 0: none */
		int fd;
	} last_pidfd; /* of the process whose descriptors were copied last */
	int *own_fds;
	size_t n_own_fds;
	struct dump_lock *locks;
	size_t n_locks;
	struct file_system {
		dev_t dev;
		uint32_t type;
	} * file_systems; /* of files that were looked at */
	size_t n_file_systems;
	dev_t pipefs;		      /* of all pipes; 0: not known yet */
	struct locked_inodes *locked; /* of the whole system (files/locks.c) */
	SeccompFilter **seccomp_filters;
	size_t n_seccomp_filters;
	uint32_t last_pages_id;
	struct shared_use *shared_uses; /* mappings of shared memory */
	size_t n_shared_uses;
	struct dump_shared *shared; /* segments behind them */
	size_t n_shared;
	const char **blockers;
	size_t n_blockers;
	struct dump_stats stats;
	size_t n_cpus; /* online */
	char own_namespaces[NS_KINDS][NS_LINK_MAX];
	char ipc_namespace[NS_LINK_MAX]; /* of the tree; "": that of criu */
	struct dump_ipc *ipc;		 /* what is in it; NULL: it is that of criu */
	uint64_t held_bytes;
	bool external_is_used[OPTION_LIST_MAX]; /* by index of the option's values */
	int script_status; /* of an action script that failed; it becomes the exit status */
	uint64_t freeze_start_us;
};

/*
 * Notes something that prevents the dump: object, reason, and the option or deed that helps. The
 * dump goes on to find all of them and fails at its step `judge`.
 */
void dump_block(struct dump *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
