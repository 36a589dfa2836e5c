/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared memory without a name: one segment in several processes at different
 * places, in parts, with other protections; grown beyond its end, cut to its
 * start, mostly holes; and one that two processes share who did not get it by
 * birth.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define NR_CHILDREN	3
#define WHOLE		8	/* pages */
#define PARTS		6
#define CUT		6
#define SMALL		2	/* before it grew */
#define GROWN		5
#define SPARSE		(1UL << 30)
#define MET		3
#define MET_BYTES	(MET * PAGE - sizeof(long))	/* that are compared */

/* What the processes tell one another, through a segment as well. */
static struct board {
	volatile int round, answers[NR_CHILDREN];
	char findings[NR_CHILDREN][200];
} *board;

static unsigned char *whole, *parts[PARTS], *cut, *grown, *from_device, *sparse, *met;
static pid_t children[NR_CHILDREN];
static int number_here = -1;	/* of a child */

static void found(const char *what, long at)
{
	if (number_here < 0)
		bad("%s, %ld", what, at);
	else
		snprintf(board->findings[number_here], sizeof(board->findings[0]), "%s, %ld", what, at);
}

static void compare(const char *what, const void *p, size_t len, uint64_t seed)
{
	ssize_t at = verify(p, len, seed);

	if (at >= 0)
		found(what, at);
}

/* The kernel reads the word for us: EFAULT instead of SIGBUS. */
static bool is_readable(const void *p)
{
	return syscall(SYS_access, p, F_OK) == 0 || errno != EFAULT;
}

static unsigned char *map_shared(size_t bytes, int flags)
{
	unsigned char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | flags,
				-1, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static void *moved(void *p, size_t from, size_t to)
{
	void *q = mremap(p, from, to, MREMAP_MAYMOVE);

	if (q == MAP_FAILED)
		die("mremap: %s", strerror(errno));
	return q;
}

/* Every second page of a segment at a place of its own, the last one first; the others unmapped. */
static void make_parts(void)
{
	unsigned char *p = map_shared(2 * PARTS * PAGE, 0);
	unsigned char *room = mmap(NULL, 3 * PARTS * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i;

	fill(p, 2 * PARTS * PAGE, 20);
	for (i = 0; i < PARTS; i++) {
		parts[i] = room + 3 * (PARTS - 1 - i) * PAGE;
		if (mremap(p + 2 * i * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, parts[i]) !=
		    parts[i])
			die("mremap: %s", strerror(errno));
		munmap(p + (2 * i + 1) * PAGE, PAGE);
	}
	mprotect(parts[1], PAGE, PROT_READ);
	mprotect(parts[2], PAGE, PROT_NONE);
}

static void check_parts(void)
{
	unsigned char all[2 * PARTS * PAGE];
	int i;

	fill(all, sizeof(all), 20);
	mprotect(parts[2], PAGE, PROT_READ);
	for (i = 0; i < PARTS; i++)
		if (memcmp(parts[i], all + 2 * i * PAGE, PAGE))
			found("a part of a segment differs", i);
	mprotect(parts[2], PAGE, PROT_NONE);
}

/* What no mapping shows is still there. */
static void check_cut(void)
{
	unsigned char *all = moved(cut, PAGE, CUT * PAGE);

	compare("rest of a segment that is not mapped", all, CUT * PAGE, 30);
	munmap(all + PAGE, (CUT - 1) * PAGE);
	if (all != cut && mremap(all, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, cut) != cut)
		found("mremap", errno);
}

static void check_grown(void)
{
	compare("segment that is smaller than its mapping", grown, SMALL * PAGE, 40);
	if (!is_readable(grown + (SMALL - 1) * PAGE) || is_readable(grown + SMALL * PAGE))
		found("the end of a segment has moved", SMALL);
}

static void make_sparse(void)
{
	sparse = map_shared(SPARSE, MAP_NORESERVE);
	fill(sparse + SPARSE / 2, PAGE, 50);
	fill(sparse + SPARSE - PAGE, PAGE, 51);
	memset(sparse + PAGE, 0, PAGE);
}

static void check_sparse(void)
{
	unsigned char resident[SPARSE / PAGE / 1024];
	size_t i, n = 0;

	compare("page in the middle", sparse + SPARSE / 2, PAGE, 50);
	compare("last page", sparse + SPARSE - PAGE, PAGE, 51);
	if (mincore(sparse + SPARSE / 4, sizeof(resident) * PAGE, resident) < 0)
		found("mincore", errno);
	for (i = 0; i < sizeof(resident); i++)
		n += resident[i] & 1;
	if (n)
		found("pages where there were none", n);
}

/* Each process has the segment elsewhere, and its own protection. */
static void check_whole(void)
{
	compare("segment of all", whole, WHOLE * PAGE, 10);
	compare("segment of /dev/zero", from_device, 3 * PAGE, 60);
}

static void check_here(void)
{
	check_whole();
	check_parts();
	check_cut();
	check_grown();
	check_sparse();
	if (met)
		compare("segment not got by birth", met, MET_BYTES, 70);
}

/* ---- the children ---- */

/* The first one writes the number of the round into the segment, the second one finds it there. */
static volatile long *met_round(void)
{
	return (volatile long *)(met + MET_BYTES);
}

static void answer(void)
{
	check_here();
	if (number_here == 0)
		*met_round() = board->round;
	if (number_here == 1 && *met_round() != board->round)
		found("a store to a segment not got by birth is not seen", *met_round());
	board->answers[number_here] = board->round;
}

static void leave(void)
{
	_exit(number_here);
}

/* The second child finds the segment of the first in /proc. */
static void meet(unsigned long start)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", children[0], start,
		 start + MET * PAGE);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	met = mmap(NULL, MET * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (met == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	close(fd);
}

static volatile unsigned long *met_at(void)
{
	return (volatile unsigned long *)(whole + WHOLE * PAGE);
}

static void be_child(int n)
{
	number_here = n;
	setsid();
	if (n == 0) {
		met = map_shared(MET * PAGE, 0);
		fill(met, MET_BYTES, 70);
		*met_at() = (unsigned long)met;
	} else if (n == 1) {
		meet(*met_at());
	} else {
		whole = moved(whole, (WHOLE + 1) * PAGE, (WHOLE + 1) * PAGE);
		mprotect(whole, 3 * PAGE, PROT_READ);
	}
	board->answers[n] = 1;
	serve_signals(answer, leave);
}

static bool has_answered(void *arg)
{
	return board->answers[*(int *)arg] == board->round;
}

static void make(void)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC), n;

	board = (struct board *)map_shared(PAGE, 0);
	board->round = 1;
	whole = map_shared((WHOLE + 1) * PAGE, 0);
	fill(whole, WHOLE * PAGE, 10);
	from_device = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || from_device == MAP_FAILED)
		die("/dev/zero: %s", strerror(errno));
	close(fd);
	fill(from_device, 3 * PAGE, 60);
	make_parts();
	cut = map_shared(CUT * PAGE, 0);
	fill(cut, CUT * PAGE, 30);
	munmap(cut + PAGE, (CUT - 1) * PAGE);
	grown = map_shared(SMALL * PAGE, 0);
	fill(grown, SMALL * PAGE, 40);
	grown = moved(grown, SMALL * PAGE, GROWN * PAGE);
	make_sparse();
	for (n = 0; n < NR_CHILDREN; n++) {
		children[n] = need("fork", fork());
		if (!children[n])
			be_child(n);
		if (!wait_until(has_answered, &n))
			die("child %d does not come up", n);
	}
}

static void check(void)
{
	int n;

	check_here();
	board->round++;
	for (n = 0; n < NR_CHILDREN; n++) {
		kill(children[n], SIGUSR1);
		if (!wait_until(has_answered, &n))
			bad("child %d does not answer through shared memory", n);
		else if (board->findings[n][0])
			bad("child %d: %s", n, board->findings[n]);
	}
}

static void stop(void)
{
	int n;

	for (n = 0; n < NR_CHILDREN; n++)
		end_child(children[n], n);
}

struct factory shm_factory = {
	.name	= "shm",
	.about	= "shared anonymous memory in several processes",
	.make	= make,
	.check	= check,
	.stop	= stop,
};
