/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address spaces by chance: from a seed, some processes map, unmap, protect,
 * move, advise, lock, guard and write within one range of addresses; sysv=1:
 * attach and detach System V shared memory there, too. Later each compares
 * every page of it with what was there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fd.h"
#include "ipcns.h"
#include "mk.h"

#define RANGE_AT	0x500000000UL
#define RANGE		1500	/* pages */
#define MAX_PROCS	8
#define NR_FILES	4
#define NR_SEGMENTS	6
#define FILE_PAGES	40
#define GUARD_INSTALL	102
#define GUARD_REMOVE	103
#define UNREADABLE	1	/* in place of a hash */

/* What processes do when they get the signal. */
enum task { COMPARE, GO_ON, NOTE };

static struct board {
	volatile enum task task;
	volatile int round, answers[MAX_PROCS];
	volatile int pages[MAX_PROCS];	/* the first that differs, from 1 */
} *board;

static uint64_t state;
static int number_here, nr_procs;
static pid_t children[MAX_PROCS];
static int files[NR_FILES], segments[NR_SEGMENTS];
static bool has_sysv;
static uint64_t hashes[RANGE];
static bool is_noted;

static unsigned long pick(unsigned long n)
{
	state = mix(state + 1);
	return state % n;
}

static void *page_at(unsigned long page)
{
	return (void *)(RANGE_AT + page * PAGE);
}

/* A part of the range, small for the most part. */
static void *pick_part(size_t *ret_bytes)
{
	unsigned long first = pick(RANGE), n = 1 + pick(pick(4) ? 12 : 150);

	if (n > RANGE - first)
		n = RANGE - first;
	*ret_bytes = n * PAGE;
	return page_at(first);
}

static int pick_prot(void)
{
	static const int prots[] = {
		PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ,
		PROT_NONE, PROT_READ | PROT_EXEC,
	};

	return prots[pick(ARRAY_SIZE(prots))];
}

/* ---- what is done; that it may fail is part of the game ---- */

static void op_map(void)
{
	static const int flags[] = {
		MAP_PRIVATE, MAP_PRIVATE, MAP_SHARED, MAP_PRIVATE | MAP_NORESERVE,
		MAP_SHARED | MAP_NORESERVE,
	};
	size_t bytes;
	void *at = pick_part(&bytes);

	mmap(at, bytes, pick_prot(), flags[pick(ARRAY_SIZE(flags))] | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void op_map_file(void)
{
	size_t bytes;
	void *at = pick_part(&bytes);

	mmap(at, bytes, pick_prot(), (pick(2) ? MAP_PRIVATE : MAP_SHARED) | MAP_FIXED,
	     files[pick(NR_FILES)], pick(FILE_PAGES) * PAGE);
}

static void op_unmap(void)
{
	size_t bytes;
	void *at = pick_part(&bytes);

	munmap(at, bytes);
}

static void op_protect(void)
{
	size_t bytes;
	void *at = pick_part(&bytes);

	mprotect(at, bytes, pick_prot());
}

static void op_move(void)
{
	size_t from, to;
	void *at = pick_part(&from), *target = pick_part(&to);

	/* now and then another view of shared memory: from nothing */
	mremap(at, pick(4) ? from : 0, to, MREMAP_MAYMOVE | MREMAP_FIXED, target);
}

static void op_advise(void)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_SEQUENTIAL, MADV_RANDOM,
		MADV_NORMAL, MADV_DONTDUMP, MADV_DODUMP, MADV_DONTFORK, MADV_WIPEONFORK, MADV_MERGEABLE,
		MADV_REMOVE, GUARD_INSTALL, GUARD_INSTALL, GUARD_REMOVE,
	};
	size_t bytes;
	void *at = pick_part(&bytes);

	madvise(at, bytes, advice[pick(ARRAY_SIZE(advice))]);
}

static void op_lock(void)
{
	size_t bytes;
	void *at = pick_part(&bytes);

	if (pick(3))
		mlock2(at, bytes, pick(2) ? MLOCK_ONFAULT : 0);
	else
		munlock(at, bytes);
}

/* By the kernel: what cannot be written to is left out without a signal. */
static void op_write(void)
{
	unsigned char data[PAGE];
	unsigned long page = pick(RANGE), n = 1 + pick(20);

	for (; n && page < RANGE; n--, page++) {
		struct iovec from = { data, PAGE }, to = { page_at(page), PAGE };

		if (pick(6))
			fill(data, PAGE, pick(1000));
		else
			memset(data, 0, PAGE);
		if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0)
			return;
	}
}

/*
 * On disk only to whole pages: what mappings write behind the end of a file there is gone when the
 * kernel writes the page back. In a memfd (the first) it stays.
 */
static void op_cut(void)
{
	unsigned long i = pick(NR_FILES), size = pick(FILE_PAGES * PAGE);

	if (!pick(4) && files[i] >= 0)
		need("ftruncate", ftruncate(files[i], i ? size & ~(PAGE - 1) : size));
}

static void op_attach(void)
{
	int flags = SHM_REMAP | (pick(4) ? 0 : SHM_RDONLY) | (pick(4) ? 0 : SHM_EXEC);

	shmat(segments[pick(NR_SEGMENTS)], page_at(pick(RANGE - FILE_PAGES)), flags);
}

/* Few guesses hit the start of an attachment: all pages of a part are tried. */
static void op_detach(void)
{
	size_t bytes, at;
	char *part = pick_part(&bytes);

	for (at = 0; at < bytes; at += PAGE)
		shmdt(part + at);
}

static void (*const sysv_ops[])(void) = { op_attach, op_attach, op_attach, op_detach };

static void (*const ops[])(void) = {
	op_map, op_map, op_map_file, op_unmap, op_protect, op_protect, op_move, op_advise, op_advise,
	op_lock, op_write, op_write, op_write, op_write, op_cut,
};

static void run(long steps)
{
	for (; steps > 0; steps--) {
		if (has_sysv && !pick(4))
			sysv_ops[pick(ARRAY_SIZE(sysv_ops))]();
		ops[pick(ARRAY_SIZE(ops))]();
	}
}

/* ---- compare ---- */

static uint64_t hash_of(const unsigned char *page)
{
	uint64_t h = 0, word;
	size_t i;

	for (i = 0; i < PAGE; i += sizeof(word)) {
		memcpy(&word, page + i, sizeof(word));
		h = mix(h ^ word);
	}
	return h;
}

/* Through /proc, which reads what we ourselves may not. */
static void compare_pages(void)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC), page;
	unsigned char data[PAGE];

	board->pages[number_here] = 0;
	for (page = 0; page < RANGE; page++) {
		ssize_t n = pread(fd, data, PAGE, (off_t)page_at(page));
		uint64_t h = n == (ssize_t)PAGE ? hash_of(data) : UNREADABLE;

		if (is_noted && h != hashes[page] && !board->pages[number_here])
			board->pages[number_here] = page + 1;
		hashes[page] = h;
	}
	close(fd);
	is_noted = true;
}

static void do_task(void)
{
	switch (board->task) {
	case GO_ON:
		run(param_long("more"));
		break;
	case NOTE:
		is_noted = false;
		/* fall through */
	case COMPARE:
		compare_pages();
	}
}

static void answer(void)
{
	do_task();
	board->answers[number_here] = board->round;
}

static void leave(void)
{
	_exit(number_here);
}

static bool has_answered(void *arg)
{
	return board->answers[*(int *)arg] == board->round;
}

/* ---- make ---- */

static void make_files(void)
{
	unsigned char *data = malloc(FILE_PAGES * PAGE);
	char name[16];
	int i;

	for (i = 0; i < NR_FILES; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		files[i] = i ? need(name, open(dir_path(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600))
			     : need("memfd", memfd_create("random", MFD_CLOEXEC));
		fill(data, FILE_PAGES * PAGE, 5000 + i);
		need("write", write(files[i], data, FILE_PAGES * PAGE));
	}
	free(data);
	if (pick(2))
		need("unlink", unlink(dir_path("file3")));
}

/* One in three is marked for removal while the first process has it attached. */
static void make_segments(void)
{
	int i;

	need_own_ipc();
	for (i = 0; i < NR_SEGMENTS; i++) {
		size_t bytes = 1 + pick(FILE_PAGES * PAGE);
		unsigned char *p;

		be_user(pick(2) * 1000);
		segments[i] = need("shmget", shmget(pick(2) ? 1000 + i : IPC_PRIVATE, bytes, IPC_CREAT | 0600));
		be_user(0);
		p = shmat(segments[i], page_at(i * FILE_PAGES), 0);
		if (p == (void *)-1)
			die("shmat: %s", strerror(errno));
		fill(p, bytes, 7000 + i);
		if (!pick(3))
			need("IPC_RMID", shmctl(segments[i], IPC_RMID, NULL));
	}
}

static void close_files(void)
{
	int i;

	for (i = 0; i < NR_FILES; i++)
		if (pick(2)) {
			close(files[i]);
			files[i] = -1;
		}
}

static void start_child(int n)
{
	children[n] = need("fork", fork());
	if (!children[n]) {
		number_here = n;
		run(param_long("steps") / 2);
		close_files();
		board->answers[n] = board->round;
		serve_signals(answer, leave);
	}
	if (!wait_until(has_answered, &n))
		die("child %d does not come up", n);
}

static void make(void)
{
	int n;

	state = param_long("seed") * 1000003;
	nr_procs = param_long("procs");
	if (nr_procs < 1 || nr_procs > MAX_PROCS)
		die("procs= is 1 to %d", MAX_PROCS);
	board = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	board->round = 1;
	make_files();
	has_sysv = param_long("sysv");
	if (has_sysv)
		make_segments();
	run(param_long("steps"));
	for (n = 1; n < nr_procs; n++) {
		start_child(n);
		state = mix(state + n);
		run(param_long("steps") / 4);
	}
	close_files();
	if (has_sysv)
		note_ipc();
}

/* One after the other: what they share differs from moment to moment. */
static void let_all(enum task task)
{
	int n;

	board->task = task;
	board->round++;
	do_task();
	for (n = 1; n < nr_procs; n++) {
		kill(children[n], SIGUSR1);
		if (!wait_until(has_answered, &n))
			bad("process %d does not answer", n);
	}
}

static void check(void)
{
	int n;

	if (has_sysv)
		check_ipc();
	let_all(COMPARE);
	for (n = 0; n < nr_procs; n++)
		if (board->pages[n])
			bad("process %d: the page at %p differs", n, page_at(board->pages[n] - 1));
	if (!param_long("more"))
		return;
	let_all(GO_ON);
	let_all(NOTE);
	if (has_sysv)
		note_ipc();
}

static void stop(void)
{
	int n;

	for (n = 1; n < nr_procs; n++)
		end_child(children[n], n);
}

struct factory randmem_factory = {
	.name	= "randmem",
	.about	= "address spaces by chance",
	.params	= {
		{ "seed", "1", "where the numbers start" },
		{ "dir", NULL, "an empty directory" },
		{ "steps", "120", "operations of the first process" },
		{ "procs", "3", "processes" },
		{ "more", "0", "operations of each process after each check" },
		{ "sysv", "0", "1: System V shared memory, too" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
