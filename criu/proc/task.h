/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * /proc/PID/stat, status, fdinfo, children: what is there once for a task or a descriptor.
 * proc_pid_stat(5), proc_pid_status(5), proc_pid_fdinfo(5).
 */
#ifndef PROC_TASK_H
#define PROC_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"

struct proc_stat {
	pid_t pid;
	char comm[64]; /* as in /proc: kernel threads have longer ones than 15 bytes */
	char state;    /* R S D Z T t X I */
	pid_t ppid, pgid, sid;
	uint32_t flags;	     /* PF_* */
	uint64_t start_time; /* clock ticks after boot */
	uint64_t start_code, end_code, start_stack;
	uint64_t start_data, end_data, start_brk;
	uint64_t arg_start, arg_end, env_start, env_end;
	uint32_t exit_code;
	uint32_t tty;	  /* controlling terminal, as the kernel encodes it; 0: none */
	int32_t tty_pgid; /* its foreground group */
};

enum proc_cap { CAP_SET_INH, CAP_SET_PRM, CAP_SET_EFF, CAP_SET_BND, CAP_SET_AMB, CAP_SETS };

struct proc_status {
	char comm[64]; /* "" if the text has no Name */
	char state;
	pid_t tgid, ppid, tracer;
	uint32_t umask;
	uint32_t uid[4], gid[4]; /* real, effective, saved, file system */
	uint32_t *groups;	 /* in the arena */
	size_t n_groups;
	uint32_t threads;
	uint64_t sig_pending, shared_pending, sig_blocked, sig_ignored, sig_caught;
	uint64_t cap[CAP_SETS];
	uint32_t no_new_privs;
	uint32_t seccomp; /* mode: 0, 1 strict, 2 filter */
	uint32_t seccomp_filters;
	bool thp_enabled;
	bool has_shadow_stack;
	uint64_t untag_mask; /* all ones: addresses have no tags */
	/* What the thread may forbid the CPU, as PR_SPEC_*; 0: it has not. */
	uint32_t spec_store_bypass, spec_indirect_branch;
	uint64_t vm_rss_kib;
	uint64_t vm_lck_kib;
};

struct proc_fdinfo {
	int64_t pos;
	uint32_t flags;
	int32_t mnt_id;
	uint64_t ino; /* 0 before Linux 5.14 */
	unsigned locks;
};

/* Pure parsers; unknown fields are ignored. The text is changed. Return 0 or -EINVAL. */
int proc_stat_parse(const char *text, struct proc_stat *ret);
int proc_status_parse(char *text, struct arena *a, struct proc_status *ret);
int proc_fdinfo_parse(char *text, struct proc_fdinfo *ret);

/* Readers; dirfd is /proc/PID or /proc/PID/task/TID. Return 0 or -errno. */
int proc_stat_read(int dirfd, struct proc_stat *ret);
int proc_stat_read_at(int dirfd, const char *path, struct proc_stat *ret);
int proc_stat_of(pid_t pid, struct proc_stat *ret);
int proc_status_read(int dirfd, struct arena *a, struct proc_status *ret);
int proc_status_read_at(int dirfd, const char *path, struct arena *a, struct proc_status *ret);

/*
 * Lists the entries of the directory that are numbers ("task", "fd"), in ascending order.
 * Returns 0 or -errno.
 */
int proc_numbers(int dirfd, const char *path, struct arena *a, int **ret, size_t *ret_n);

/* The numbers in a file of numbers ("children"). Returns 0 or -errno. */
int proc_children(int dirfd, const char *path, struct arena *a, int **ret, size_t *ret_n);

/* Opens /proc/PID for the *at() calls above. Returns a descriptor or -errno. */
int proc_open(pid_t pid);

#endif
