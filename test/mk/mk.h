/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mk - makes kernel objects and later tells whether they are still the same.
 *
 * A factory makes its objects in make(), and compares all of them with what
 * it remembers in check(). What it remembers lives in its own memory and
 * registers, so whatever a checkpoint and restore lose shows up there.
 */
#ifndef MK_H
#define MK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define PRINTF(f, a)	__attribute__((format(printf, f, a)))
#define PAGE		4096UL
#define MAX_PARAMS	10

struct param {
	const char *name;
	const char *value;	/* the default; a command line value takes its place */
	const char *about;
};

struct factory {
	const char *name;
	const char *about;
	struct param params[MAX_PARAMS];	/* ended by a row without a name */
	void (*make)(void);
	void (*check)(void);
	/* Calls @serve, which waits for signals, from where the factory wants to be meanwhile. */
	void (*around)(void (*serve)(void));
	/* Takes the objects down on SIGTERM; what it finds bad makes mk exit with 1. */
	void (*stop)(void);
};

extern struct factory idle_factory, regs_factory, threads_factory, mem_factory, files_factory,
	signals_factory, creds_factory, tree_factory, rseq_factory, vdso_factory, churn_factory;
extern struct factory ghost_factory, remap_factory, locks_factory, fown_factory, tty_factory;
extern struct factory pipes_factory, fifos_factory, events_factory, epolls_factory, inotifies_factory,
	fanotifies_factory, tables_factory, shares_factory, random_factory, shm_factory, kinds_factory,
	randmem_factory, randtree_factory, thp_factory, forks_factory, snap_factory, aio_factory, bpfmaps_factory,
	ldt_factory, deadfiles_factory, pkeys_factory, moves_factory;
extern struct factory timers_factory, seccomp_factory, modes_factory, tcreds_factory,
	holds_factory;
extern struct factory ipcshm_factory, ipcsem_factory, ipcmsg_factory, ipcbad_factory;
extern struct factory unixsk_factory, unixscm_factory, unixnames_factory, tuns_factory;

/* Value of a parameter of the running factory. */
const char *param_str(const char *name);
long param_long(const char *name);

/* make() cannot go on: reports, exits with 1 (die), or 77 (skip) where the machine lacks it. */
void die(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
void skip(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));

/* check() found a difference: goes into the "bad" line of the status file. */
void bad(const char *fmt, ...) PRINTF(1, 2);
void bad_errno(const char *what);
bool same_long(const char *what, long expected, long got);
bool same_str(const char *what, const char *expected, const char *got);

/* A line for the status file. */
void status_line(const char *fmt, ...) PRINTF(1, 2);

/*
 * Handles the signals of mk: SIGUSR1 calls check_now, SIGTERM stop_now, once
 * each, with the mask that was in force before. Never returns.
 */
void serve_signals(void (*check_now)(void), void (*stop_now)(void)) __attribute__((noreturn));

/* The bytes depend on seed and position; verify() returns the first wrong position, or -1. */
void fill(void *buf, size_t len, uint64_t seed);
ssize_t verify(const void *buf, size_t len, uint64_t seed);
/* check() of what was filled; says where it differs. */
void same_fill(const char *what, const void *buf, size_t len, uint64_t seed);
uint64_t mix(uint64_t x);

/* Calls ready(arg) until it is true; false when that takes longer than patience allows. */
bool wait_until(bool (*ready)(void *arg), void *arg);

/* Takes a child down on SIGTERM; it has to end with that exit status. */
void end_child(pid_t child, int status);

/* What /proc says that the descriptor leads to, or "". */
void fd_name(int fd, char *name, size_t size);

/* The line of smaps with that key, or the first ("") of the mapping that holds @p; "" if there is none. */
void smaps_line(const void *p, const char *key, char *ret_line, size_t size);

/* The first line of a file, without the newline; empty when it cannot be read. */
void read_line(const char *path, char *buf, size_t size);

/* PATH = directory of the dir= parameter + name, in a static ring of buffers. */
const char *dir_path(const char *name);

#endif
