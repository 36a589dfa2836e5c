/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory of every kind: one row of areas[] makes one kind of mapping, fills
 * it, and compares it later, protection and advice included.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

#define FILE_PAGES	16
#ifdef __i386__
#define GROWS_AT	0x60000000UL
#define HOLE_AT		0x70000000UL
#define HIGH_AT		0xffffd000UL
#else
#define GROWS_AT	0x200000000UL	/* far from everything, with room below */
#define HOLE_AT		0x300000000UL	/* room is taken from the top: this hole stays one */
#define HIGH_AT		0x7fffffffe000UL	/* the last page that a task can have */
#endif
#define LOW_AT		0x10000UL
#define MAX_MAPS	60000
#define NR_ALLOCS	200
#define DEPTH		150		/* stack frames of a page and more each */

/* ---- tools ---- */

static unsigned char *map_at(unsigned long at, size_t pages, int prot, int flags, int fd,
			     off_t offset)
{
	void *p;

	if (at)
		flags |= MAP_FIXED_NOREPLACE;
	p = mmap((void *)at, pages * PAGE, prot, flags, fd, offset);

	if (p == MAP_FAILED)
		die("mmap of %zu pages: %s", pages, strerror(errno));
	return p;
}

static unsigned char *map_pages_at(unsigned long at, size_t pages, int flags)
{
	return map_at(at, pages, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
}

static unsigned char *map_pages(size_t pages)
{
	return map_pages_at(0, pages, MAP_PRIVATE);
}

static void protect(void *p, size_t pages, int prot)
{
	if (mprotect(p, pages * PAGE, prot) < 0)
		die("mprotect: %s", strerror(errno));
}

static void compare(const char *what, const void *p, size_t len, uint64_t seed)
{
	ssize_t at = verify(p, len, seed);

	if (at >= 0)
		bad("%s differs at byte %zd", what, at);
}

static void compare_zero(const char *what, const unsigned char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (p[i]) {
			bad("%s is not zero at byte %zu", what, i);
			return;
		}
}

/* The kernel reads (writes) the word at @p for us: EFAULT instead of a crash. */
static bool is_readable(const void *p)
{
	return syscall(SYS_access, p, F_OK) == 0 || errno != EFAULT;
}

static bool is_writable(void *p)
{
	return syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, p, 8) == 0;
}

static void expect_access(const char *what, void *p, bool readable, bool writable)
{
	if (is_readable(p) != readable)
		bad("%s can%s be read", what, readable ? "not" : "");
	/* last: it destroys the word where it should not have been possible */
	if (!writable && is_writable(p))
		bad("%s can be written", what);
}

static bool is_mapped(void *p)
{
	unsigned char resident;

	return mincore(p, PAGE, &resident) == 0;
}

static void expect_flag(const char *what, const void *p, const char *flag)
{
	char flags[256], padded[8];

	smaps_line(p, "VmFlags:", flags, sizeof(flags));
	snprintf(padded, sizeof(padded), " %s ", flag);
	if (!strstr(flags, padded))
		bad("%s has lost flag %s, has%.100s", what, flag, flags + strcspn(flags, " "));
}

/* ---- plain memory ---- */

static unsigned char *plain, *untouched, *zeroed, *touched;
static size_t plain_bytes;

static void make_plain(void)
{
	plain_bytes = param_long("size");
	plain = map_pages((plain_bytes + PAGE - 1) / PAGE + 1);
	fill(plain, plain_bytes, 1);
	untouched = map_pages(1000);
	untouched[500 * PAGE] = 1;
	zeroed = map_pages(10);
	memset(zeroed, 1, 10 * PAGE);
	memset(zeroed, 0, 10 * PAGE);
	/* read, not written: the shared zero page of the kernel */
	touched = map_pages(10);
	compare_zero("fresh memory", touched, 10 * PAGE);
}

static void check_plain(void)
{
	compare("plain memory", plain, plain_bytes, 1);
	compare_zero("untouched memory", untouched, 500 * PAGE);
	same_long("the one byte in untouched memory", 1, untouched[500 * PAGE]);
	compare_zero("untouched memory behind the byte", untouched + 501 * PAGE, 499 * PAGE);
	compare_zero("zeroed memory", zeroed, 10 * PAGE);
	compare_zero("memory read once", touched, 10 * PAGE);
	memset(touched, 0, PAGE);
}

/* ---- protections ---- */

static unsigned char *read_only, *no_access, *code, *striped, *with_hole;
#define STRIPES		64

static int call_code(void)
{
	int (*f)(void);

	memcpy(&f, &code, sizeof(f));
	return f();
}

static void make_protected(void)
{
	/* mov $77, %eax; ret */
	static const unsigned char return_77[] = { 0xb8, 77, 0, 0, 0, 0xc3 };
	int i;

	read_only = map_pages(5);
	fill(read_only, 5 * PAGE, 2);
	protect(read_only, 5, PROT_READ);
	no_access = map_pages(5);
	fill(no_access, 5 * PAGE, 3);
	protect(no_access, 5, PROT_NONE);
	code = map_pages(1);
	memcpy(code, return_77, sizeof(return_77));
	protect(code, 1, PROT_READ | PROT_EXEC);
	striped = map_pages(STRIPES);
	fill(striped, STRIPES * PAGE, 4);
	for (i = 0; i < STRIPES; i += 2)
		protect(striped + i * PAGE, 1, PROT_READ);
	with_hole = map_pages_at(HOLE_AT, 3, MAP_PRIVATE);
	fill(with_hole, 3 * PAGE, 5);
	munmap(with_hole + PAGE, PAGE);
}

static void check_protected(void)
{
	int i;

	expect_access("read-only memory", read_only, true, false);
	compare("read-only memory", read_only, 5 * PAGE, 2);
	expect_access("memory without access", no_access, false, false);
	protect(no_access, 5, PROT_READ);
	compare("memory without access", no_access, 5 * PAGE, 3);
	protect(no_access, 5, PROT_NONE);
	expect_access("code", code, true, false);
	same_long("result of the code", 77, call_code());
	for (i = 0; i < STRIPES; i += 2)
		expect_access("read-only stripe", striped + i * PAGE, true, false);
	compare("stripes", striped, STRIPES * PAGE, 4);
	striped[PAGE] ^= 0xff;
	striped[PAGE] ^= 0xff;
	compare("memory below the hole", with_hole, PAGE, 5);
	if (is_mapped(with_hole + PAGE))
		bad("the hole is gone");
}

/* ---- heap ---- */

static unsigned char *allocs[NR_ALLOCS];
static unsigned char *heap, *heap_end;
#define HEAP_BYTES	(256 * 1024)

static size_t alloc_size(int i)
{
	/* from a few bytes to what gets a mapping of its own */
	return 24 + mix(i) % (i % 10 ? 2000 : 300000);
}

static void make_heap(void)
{
	int i;

	for (i = 0; i < NR_ALLOCS; i++) {
		allocs[i] = malloc(alloc_size(i));
		fill(allocs[i], alloc_size(i), 1000 + i);
	}
	heap = sbrk(HEAP_BYTES);
	if (heap == (void *)-1)
		die("sbrk: %s", strerror(errno));
	fill(heap, HEAP_BYTES, 6);
}

static void check_heap(void)
{
	unsigned char *top = sbrk(0), *more;
	int i;

	same_long("end of the heap", (long)heap_end, (long)top);
	compare("heap", heap, HEAP_BYTES, 6);
	more = sbrk(3 * PAGE);
	if (more != top) {
		bad("sbrk does not work any more");
		return;
	}
	fill(more, 3 * PAGE, 7);
	sbrk(-(3 * (long)PAGE));
	same_long("end of the heap after shrinking", (long)top, (long)sbrk(0));
	for (i = 0; i < NR_ALLOCS; i++) {
		compare("allocated memory", allocs[i], alloc_size(i), 1000 + i);
		free(allocs[i]);
	}
	/* in the other order, so that the allocator has to work on what it finds */
	for (i = NR_ALLOCS - 1; i >= 0; i--) {
		allocs[i] = malloc(alloc_size(i));
		fill(allocs[i], alloc_size(i), 1000 + i);
	}
}

/* ---- files ---- */

static unsigned char *file_private, *file_shared, *file_ro, *file_tail, *shared_ro;
static int shared_fd;
static long shared_round;

static const int modified[] = { 1, 3, 7, 8, 15 };

static int make_file(const char *name, size_t bytes, uint64_t seed)
{
	unsigned char *data = malloc(bytes);
	int fd = open(dir_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

	fill(data, bytes, seed);
	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes)
		die("%s: %s", name, strerror(errno));
	free(data);
	return fd;
}

static void make_files(void)
{
	int fd = make_file("private", FILE_PAGES * PAGE, 10);
	size_t i;

	file_private = map_at(0, FILE_PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	for (i = 0; i < ARRAY_SIZE(modified); i++)
		fill(file_private + modified[i] * PAGE, PAGE, 20 + i);
	/* without write permission now, with changed pages */
	protect(file_private + 8 * PAGE, 1, PROT_READ);
	file_ro = map_at(0, 3, PROT_READ, MAP_PRIVATE, fd, 5 * PAGE);
	close(fd);

	shared_fd = make_file("shared", FILE_PAGES * PAGE, 11);
	file_shared = map_at(0, FILE_PAGES - 2, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd,
			     2 * PAGE);
	*(long *)(file_shared + 16) = 1000;
	shared_ro = map_at(0, 1, PROT_READ, MAP_SHARED, shared_fd, 0);

	/* the end of the file is in the third page; the fourth can only be mapped, not touched */
	fd = make_file("tail", 2 * PAGE + 100, 12);
	file_tail = map_at(0, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	fill(file_tail + 2 * PAGE + 50, 100, 13);
	close(fd);
}

static int find_modified(int page)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(modified); i++)
		if (modified[i] == page)
			return i;
	return -1;
}

static void check_private_file(void)
{
	unsigned char original[FILE_PAGES * PAGE], on_disk[FILE_PAGES * PAGE];
	int fd = open(dir_path("private"), O_RDONLY | O_CLOEXEC);
	int page;

	fill(original, sizeof(original), 10);
	if (fd < 0 || pread(fd, on_disk, sizeof(on_disk), 0) != sizeof(on_disk))
		bad_errno("private");
	else if (memcmp(on_disk, original, sizeof(original)))
		bad("private changes went to the file");
	if (fd >= 0)
		close(fd);
	for (page = 0; page < FILE_PAGES; page++) {
		int i = find_modified(page);

		if (i >= 0)
			compare("changed page of a private file", file_private + page * PAGE, PAGE,
				20 + i);
		else if (memcmp(file_private + page * PAGE, original + page * PAGE, PAGE))
			bad("unchanged page %d of a private file differs", page);
	}
	expect_access("page of a private file", file_private + 8 * PAGE, true, false);
	if (memcmp(file_ro, original + 5 * PAGE, 3 * PAGE))
		bad("read-only mapping of a file differs");
	expect_access("read-only mapping of a file", file_ro, true, false);
}

/* A store through the mapping is seen in the file, and the other way round. */
static void check_shared_file(void)
{
	long got = 0, put = ++shared_round;
	off_t at = 5 * PAGE + 8;

	same_long("store before the checkpoint", put - 1, *(long *)(file_shared + 16) - 1000);
	*(long *)(file_shared + 16) = 1000 + put;
	if (pread(shared_fd, &got, sizeof(got), 2 * PAGE + 16) != sizeof(got))
		bad_errno("shared");
	same_long("store seen in the file", 1000 + put, got);
	put = mix(shared_round);
	if (pwrite(shared_fd, &put, sizeof(put), at) != sizeof(put))
		bad_errno("shared");
	same_long("write seen in the mapping", put, *(long *)(file_shared + at - 2 * PAGE));
	expect_access("read-only shared mapping", shared_ro, true, false);
}

static void check_files(void)
{
	check_private_file();
	check_shared_file();
	compare("tail of a file, changed", file_tail + 2 * PAGE + 50, 100, 13);
	if (!is_mapped(file_tail + 3 * PAGE))
		bad("mapping behind the end of a file is gone");
}

/* ---- growing down ---- */

static unsigned char *grows;
static int grown;

static void make_growing(void)
{
	grows = map_pages_at(GROWS_AT, 4, MAP_PRIVATE | MAP_GROWSDOWN);
	fill(grows, 4 * PAGE, 30);
}

static void check_growing(void)
{
	unsigned char *page = grows - ++grown * PAGE;

	compare("memory that grows down", grows, 4 * PAGE, 30);
	expect_flag("memory that grows down", grows, "gd");
	if (is_mapped(page)) {
		bad("memory grew down by itself");
		return;
	}
	/* crashes when it does not grow any more */
	fill(page, PAGE, 31);
	compare("memory grown down", page, PAGE, 31);
}

/* ---- advice and locks ---- */

static struct advice {
	const char *name;
	int advice;
	const char *flag;
	unsigned char *p;	/* NULL: the kernel has no such thing */
} advices[] = {
	{ "MADV_DONTFORK", MADV_DONTFORK, "dc", NULL },
	{ "MADV_DONTDUMP", MADV_DONTDUMP, "dd", NULL },
	{ "MADV_SEQUENTIAL", MADV_SEQUENTIAL, "sr", NULL },
	{ "MADV_RANDOM", MADV_RANDOM, "rr", NULL },
	{ "MADV_WIPEONFORK", MADV_WIPEONFORK, "wf", NULL },
	{ "MADV_HUGEPAGE", MADV_HUGEPAGE, "hg", NULL },
	{ "MADV_NOHUGEPAGE", MADV_NOHUGEPAGE, "nh", NULL },
	{ "MADV_MERGEABLE", MADV_MERGEABLE, "mg", NULL },
};

static unsigned char *locked, *locked_later;

static void make_advised(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(advices); i++) {
		advices[i].p = map_pages(3);
		fill(advices[i].p, 3 * PAGE, 40 + i);
		if (madvise(advices[i].p, 3 * PAGE, advices[i].advice) < 0)
			advices[i].p = NULL;
	}
	locked = map_pages(3);
	if (mlock(locked + PAGE, PAGE) < 0)
		die("mlock: %s", strerror(errno));
	fill(locked, 3 * PAGE, 50);
	if (!param_long("onfault"))
		return;
	locked_later = map_pages(10);
	if (mlock2(locked_later, 10 * PAGE, MLOCK_ONFAULT) < 0)
		die("mlock2: %s", strerror(errno));
	fill(locked_later, PAGE, 51);
}

static void check_advised(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(advices); i++)
		if (advices[i].p) {
			compare(advices[i].name, advices[i].p, 3 * PAGE, 40 + i);
			expect_flag(advices[i].name, advices[i].p, advices[i].flag);
		}
	compare("locked memory", locked, 3 * PAGE, 50);
	expect_flag("locked memory", locked + PAGE, "lo");
	if (!locked_later)
		return;
	compare("memory locked when touched", locked_later, PAGE, 51);
	expect_flag("memory locked when touched", locked_later, "lo");
}

/* ---- many, and at the edges ---- */

static unsigned char *many[MAX_MAPS];
static long nr_many;
static unsigned char *edges[2];

static void make_many(void)
{
	static const int prots[] = {
		PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC,
	};
	unsigned char *block;
	long i;

	nr_many = param_long("maps");
	if (nr_many < 0 || nr_many > MAX_MAPS)
		die("maps= is at most %d", MAX_MAPS);
	block = map_pages(nr_many + 1);
	for (i = 0; i < nr_many; i++) {
		many[i] = block + i * PAGE;
		fill(many[i], PAGE, 10000 + i);
		protect(many[i], 1, prots[i % ARRAY_SIZE(prots)]);
	}
}

static void check_many(void)
{
	long i;

	for (i = 0; i < nr_many; i++) {
		if (i % 4 == 2) {
			expect_access("one of many, without access", many[i], false, false);
			protect(many[i], 1, PROT_READ);
		}
		compare("one of many", many[i], PAGE, 10000 + i);
		if (i % 4 == 2)
			protect(many[i], 1, PROT_NONE);
	}
}

static void make_edges(void)
{
	if (!param_long("edges"))
		return;
	edges[0] = map_pages_at(LOW_AT, 1, MAP_PRIVATE);
	edges[1] = map_pages_at(HIGH_AT, 1, MAP_PRIVATE);
	fill(edges[0], PAGE, 60);
	fill(edges[1], PAGE, 61);
}

static void check_edges(void)
{
	if (!param_long("edges"))
		return;
	compare("lowest page", edges[0], PAGE, 60);
	compare("highest page", edges[1], PAGE, 61);
}

/* ---- shared anonymous memory ---- */

static unsigned char *shm, *shm_part;
static size_t shm_bytes;

static void make_shm(void)
{
	shm_bytes = param_long("shm") & ~(PAGE - 1);
	if (!shm_bytes)
		return;
	shm = map_pages_at(0, shm_bytes / PAGE, MAP_SHARED);
	fill(shm, shm_bytes / 2, 70);
	/* one more view of the same segment */
	shm_part = mremap(shm, 0, PAGE, MREMAP_MAYMOVE);
	if (shm_part == MAP_FAILED)
		die("mremap: %s", strerror(errno));
}

static void check_shm(void)
{
	if (!shm_bytes)
		return;
	compare("shared memory", shm, shm_bytes / 2, 70);
	compare_zero("untouched shared memory", shm + shm_bytes / 2, shm_bytes / 2);
	shm_part[9] ^= 0xff;
	same_long("store seen in the other view", shm_part[9], shm[9]);
	shm_part[9] ^= 0xff;
}

/* ---- the stack ---- */

static unsigned char *frames[DEPTH];

/* Every frame is full of data that is compared while it is still in use. */
static void __attribute__((noinline)) descend(int depth, void (*serve)(void))
{
	unsigned char frame[PAGE + 200];

	fill(frame, sizeof(frame), 20000 + depth);
	frames[depth] = frame;
	if (depth + 1 < DEPTH)
		descend(depth + 1, serve);
	else
		serve();
	/* keeps the call above from becoming a jump that gives the frame up */
	asm volatile ("" : : "r" (frame) : "memory");
}

static void around(void (*serve)(void))
{
	descend(0, serve);
}

static void check_stack(void)
{
	int i;

	for (i = 0; i < DEPTH; i++)
		compare("stack frame", frames[i], PAGE + 200, 20000 + i);
}

static void make_nothing(void)
{
}

/* ---- all of it ---- */

static const struct {
	void (*make)(void);
	void (*check)(void);
} areas[] = {
	{ make_plain, check_plain },
	{ make_protected, check_protected },
	{ make_files, check_files },
	{ make_growing, check_growing },
	{ make_advised, check_advised },
	{ make_many, check_many },
	{ make_edges, check_edges },
	{ make_shm, check_shm },
	{ make_nothing, check_stack },
	{ make_heap, check_heap },
};

static void make(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(areas); i++)
		areas[i].make();
	heap_end = sbrk(0);
}

/* Backwards: the heap first, before malloc moves its end for the checks of the others. */
static void check(void)
{
	size_t i;

	for (i = ARRAY_SIZE(areas); i-- > 0; )
		areas[i].check();
	heap_end = sbrk(0);
}

struct factory mem_factory = {
	.name	= "mem",
	.about	= "mappings of all kinds, heap, deep stack",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "size", "1048576", "bytes of plain memory" },
		{ "maps", "500", "number of small mappings" },
		{ "onfault", "0", "1: also memory that is locked when it is touched" },
		{ "edges", "0", "1: also the lowest and highest page there can be" },
		{ "shm", "0", "bytes of shared anonymous memory" },
	},
	.make	= make,
	.check	= check,
	.around	= around,
};
