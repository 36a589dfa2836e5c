/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory that is written to all the time, in an order that tells whether a copy of it is of one
 * instant: each lap gives all pages the number of the lap, one after the other, and finds in each
 * that of the lap before. Beside it memory that fork(2) treats in its own way, and a watcher to
 * whom no child may ever show.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

#define SPECIAL_PAGES 64

static struct {
	volatile unsigned long *pages;
	size_t n;
	atomic_bool holds, is_held;
	_Atomic(const char *) finding;
	unsigned char *dont_fork, *wipe_on_fork;
} snap;

#define WORDS (PAGE / sizeof(unsigned long))

static void *write_laps(void *arg)
{
	for (unsigned long lap = 1;; lap++) {
		for (size_t i = 0; i < snap.n; i++) {
			while (snap.holds)
				snap.is_held = true;
			snap.is_held = false;
			if (snap.pages[i * WORDS] != lap - 1)
				snap.finding = "a page is not of the instant of the others";
			snap.pages[i * WORDS] = lap;
		}
	}
	return arg;
}

static void *watch(void *arg)
{
	int options = WNOHANG | (param_long("watches") > 1 ? __WALL : 0);

	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, options);

		if (pid >= 0 || errno != ECHILD)
			snap.finding = "wait(2) knows of a child";
	}
	return arg;
}

static unsigned char *special(int advice, uint64_t seed)
{
	unsigned char *p = mmap(NULL, SPECIAL_PAGES * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	fill(p, SPECIAL_PAGES * PAGE, seed);
	if (madvise(p, SPECIAL_PAGES * PAGE, advice) < 0)
		die("madvise(%d): %s", advice, strerror(errno));
	return p;
}

static void start(void *(*run)(void *))
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, NULL);
	if (errno)
		die("pthread_create: %s", strerror(errno));
}

static void make(void)
{
	size_t size = param_long("size"), align = 2UL << 20;
	char *p = mmap(NULL, size + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (p == MAP_FAILED)
		die("mmap of %zu bytes: %s", size, strerror(errno));
	p = (char *)(((unsigned long)p + align - 1) & ~(align - 1));
	if (param_long("huge") && madvise(p, size, MADV_HUGEPAGE) < 0)
		die("MADV_HUGEPAGE: %s", strerror(errno));
	if (param_long("subreaper"))
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	snap.pages = (void *)p;
	snap.n = size / PAGE;
	for (size_t i = 0; i < snap.n; i++) {
		fill(p + i * PAGE, PAGE, i);
		snap.pages[i * WORDS] = 0;
	}
	snap.dont_fork = special(MADV_DONTFORK, 1);
	snap.wipe_on_fork = special(MADV_WIPEONFORK, 2);
	if (param_long("writes"))
		start(write_laps);
	if (param_long("watches"))
		start(watch);
}

static void check_flag(const void *p, const char *flag)
{
	char line[512];

	smaps_line(p, "VmFlags:", line, sizeof(line));
	if (!strstr(line, flag))
		bad("mapping %p has lost its flag%s", p, flag);
}

static void check(void)
{
	unsigned long first;

	if (snap.finding)
		bad("%s", snap.finding);
	snap.holds = true;
	while (param_long("writes") && !snap.is_held)
		;
	first = snap.pages[0];
	for (size_t i = 1; i < snap.n; i++)
		if (snap.pages[i * WORDS] > snap.pages[(i - 1) * WORDS] ||
		    first - snap.pages[i * WORDS] > 1)
			bad("page %zu is of lap %lu, the first of %lu", i, snap.pages[i * WORDS],
			    first);
	for (size_t i = 0; i < snap.n; i++) {
		unsigned char expected[PAGE];

		fill(expected, PAGE, i);
		if (memcmp((const char *)&snap.pages[i * WORDS + 1], expected + sizeof(long),
			   PAGE - sizeof(long)))
			bad("page %zu has changed", i);
	}
	snap.holds = false;
	if (verify(snap.dont_fork, SPECIAL_PAGES * PAGE, 1) >= 0)
		bad("what is not forked has changed");
	if (verify(snap.wipe_on_fork, SPECIAL_PAGES * PAGE, 2) >= 0)
		bad("what is wiped on fork has changed");
	check_flag(snap.dont_fork, " dc");
	check_flag(snap.wipe_on_fork, " wf");
}

struct factory snap_factory = {
	.name = "snap",
	.about = "memory that is written to all the time, and memory that is not forked",
	.params = {
		{ "size", "67108864", "bytes" },
		{ "huge", "0", "1: of huge pages" },
		{ "writes", "1", "0: nobody writes" },
		{ "watches", "2", "0: nobody waits for children, 1: but for clones" },
		{ "subreaper", "0", "1: it adopts orphans" },
		{ NULL },
	},
	.make = make,
	.check = check,
};
