/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unusual memory, one kind at a time: rows of kinds[]. What mem.c has, every
 * program has; what is here, few have, or not every kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

/* Newer than the headers of some. */
#define DROPPABLE		0x08
#define GUARD_INSTALL		102
#define GUARD_REMOVE		103
#define SET_VMA			0x53564d41
#define SET_MEMORY_MERGE	67
#define GET_MEMORY_MERGE	68
#define EXCEPT_ADVISED		2	/* of PR_SET_THP_DISABLE */
#define NR_MSEAL		462
#define NR_MEMFD_SECRET		447

#define RW			(PROT_READ | PROT_WRITE)
#define ANON			(MAP_PRIVATE | MAP_ANONYMOUS)
#define SHARED			(MAP_SHARED | MAP_ANONYMOUS)

static unsigned char *area, *second, *third, *fourth;

/* ---- tools ---- */

static unsigned char *map(size_t pages, int prot, int flags, int fd)
{
	void *p = mmap(NULL, pages * PAGE, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
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

static bool is_readable(const void *p)
{
	return syscall(SYS_access, p, F_OK) == 0 || errno != EFAULT;
}

static void expect_readable(const char *what, const void *p, bool expected)
{
	if (is_readable(p) != expected)
		bad("%s can%s be read", what, expected ? "not" : "");
}

static bool is_mapped(void *p)
{
	unsigned char resident;

	return mincore(p, PAGE, &resident) == 0;
}

static bool has_flag(const void *p, const char *flag)
{
	char line[512], padded[8];

	smaps_line(p, "VmFlags:", line, sizeof(line));
	snprintf(padded, sizeof(padded), " %s ", flag);
	return strstr(line, padded);
}

static void expect_flag(const char *what, const void *p, const char *flag, bool expected)
{
	if (has_flag(p, flag) != expected)
		bad("%s has %s flag %s", what, expected ? "lost" : "got", flag);
}

static int make_file(const char *name, size_t pages, uint64_t seed)
{
	unsigned char *data = malloc(pages * PAGE);
	int fd = need(name, open(dir_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));

	fill(data, pages * PAGE, seed);
	need("write", write(fd, data, pages * PAGE));
	free(data);
	return fd;
}

/* ---- droppable: empty after a restore ---- */

static unsigned long segment_seen;

/* The inode of shared memory is another one when it was made again. */
static unsigned long segment_inode(void)
{
	unsigned long inode = 0;
	char line[512];

	smaps_line(second, "", line, sizeof(line));
	if (sscanf(line, "%*s %*s %*s %*s %lu", &inode) != 1)
		bad("no inode in \"%s\"", line);
	return inode;
}

static void make_droppable(void)
{
	void *p = mmap(NULL, 3 * PAGE, RW, DROPPABLE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		skip("MAP_DROPPABLE takes Linux 6.11");
	area = p;
	second = map(1, RW, SHARED, -1);
	segment_seen = segment_inode();
	fill(area, 3 * PAGE, 1);
}

static void check_droppable(void)
{
	expect_flag("droppable memory", area, "dp", true);
	if (segment_inode() != segment_seen)
		compare_zero("droppable memory after a restore", area, 3 * PAGE);
	segment_seen = segment_inode();
	fill(area, 3 * PAGE, 1);
}

/* ---- guards ---- */

static bool guards_in_files;

static void make_guards(void)
{
	int fd = make_file("guarded", 8, 3);

	area = map(16, RW, ANON, -1);
	fill(area, 16 * PAGE, 2);
	if (madvise(area, PAGE, GUARD_INSTALL) < 0)
		skip("MADV_GUARD_INSTALL takes Linux 6.13");
	need("guard", madvise(area + 5 * PAGE, 3 * PAGE, GUARD_INSTALL));
	/* across two mappings */
	mprotect(area + 10 * PAGE, 2 * PAGE, PROT_READ);
	need("guard", madvise(area + 9 * PAGE, 2 * PAGE, GUARD_INSTALL));
	second = map(4, RW, SHARED, -1);
	fill(second, 4 * PAGE, 4);
	third = map(8, RW, MAP_PRIVATE, fd);
	fill(third, 3 * PAGE, 5);
	close(fd);
	/* 6.15 */
	guards_in_files = madvise(second + PAGE, PAGE, GUARD_INSTALL) == 0;
	if (guards_in_files)
		need("guard", madvise(third + 2 * PAGE, 3 * PAGE, GUARD_INSTALL));
}

static bool is_guard(int page)
{
	return page == 0 || (page >= 5 && page < 8) || page == 9 || page == 10;
}

static void check_guards(void)
{
	unsigned char all[16 * PAGE];
	int i;

	fill(all, sizeof(all), 2);
	for (i = 0; i < 16; i++) {
		expect_readable("guarded memory", area + i * PAGE, !is_guard(i));
		if (!is_guard(i) && is_readable(area + i * PAGE) &&
		    memcmp(area + i * PAGE, all + i * PAGE, PAGE))
			bad("page %d beside guards differs", i);
	}
	need("guard", madvise(area + 6 * PAGE, PAGE, GUARD_REMOVE));
	compare_zero("memory behind a guard", area + 6 * PAGE, PAGE);
	need("guard", madvise(area + 6 * PAGE, PAGE, GUARD_INSTALL));
	if (!guards_in_files)
		return;
	for (i = 0; i < 4; i++)
		expect_readable("guarded shared memory", second + i * PAGE, i != 1);
	for (i = 0; i < 8; i++)
		expect_readable("guarded file", third + i * PAGE, i < 2 || i > 4);
	same_fill("changed page of a guarded file", third, 2 * PAGE, 5);
}

/* ---- locks ---- */

static const int on_fault[] = { 0, MCL_ONFAULT };

static void make_future(void)
{
	int flags = MCL_FUTURE | on_fault[param_long("onfault") & 1];
	struct rlimit limit = { 64 << 20, 64 << 20 };

	/* an ordinary user with a limit, as locks come for the most part */
	setrlimit(RLIMIT_MEMLOCK, &limit);
	need("setgid", setgid(65534));
	need("setuid", setuid(65534));
	prctl(PR_SET_DUMPABLE, 1);
	area = map(4, RW, ANON, -1);
	fill(area, 4 * PAGE, 6);
	need("mlockall", mlockall(flags));
	second = map(4, RW, ANON, -1);
	third = map(4, PROT_NONE, ANON, -1);
	fourth = map(4, RW, SHARED, -1);
	fill(second, PAGE, 7);
}

static void check_future(void)
{
	unsigned char *fresh = map(4, RW, ANON, -1);
	bool later = param_long("onfault");
	unsigned char resident[4];

	same_fill("memory before mlockall", area, 4 * PAGE, 6);
	same_fill("memory after mlockall", second, PAGE, 7);
	expect_flag("memory before mlockall", area, "lo", false);
	expect_flag("memory after mlockall", second, "lo", true);
	expect_flag("memory without access", third, "lo", true);
	expect_flag("shared memory", fourth, "lo", true);
	expect_flag("new memory", fresh, "lo", true);
	/* Linux 6.1 has no name for it */
	expect_flag("new memory", fresh, has_flag(fresh, "??") ? "??" : "lf", later);
	if (mincore(fresh, 4 * PAGE, resident) < 0 || (resident[3] & 1) == later)
		bad("new memory is %sthere at once", later ? "" : "not ");
	munmap(fresh, 4 * PAGE);
}

static void make_lockall(void)
{
	int fd = make_file("locked", 1, 8);

	area = map(4, PROT_NONE, ANON, -1);
	second = map(3, PROT_READ, MAP_PRIVATE, fd);
	close(fd);
	/* enough for a userfaultfd, with pages that are there and zero */
	third = map(400, RW, ANON, -1);
	fill(third, 200 * PAGE, 36);
	(void)mlockall(MCL_CURRENT);	/* not all of it can be touched */
}

static void check_lockall(void)
{
	same_fill("locked memory", third, 200 * PAGE, 36);
	compare_zero("locked memory not written to", third + 200 * PAGE, 200 * PAGE);
	expect_flag("memory without access", area, "lo", true);
	expect_flag("file with less than is mapped", second, "lo", true);
	expect_readable("file", second, true);
	expect_readable("memory behind the end of a file", second + PAGE, false);
}

/* ---- a lot of room ---- */

#define TIB		(1UL << 40)
#define PAGEMAP_SCAN	_IOWR('f', 16, unsigned long[12])

static size_t sparse = 40 * TIB;

/* Kernels before 6.7 have to be asked for each page: more than a second for a TiB. */
static bool finds_pages_fast(void)
{
	int fd = need("pagemap", open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	bool fast = ioctl(fd, PAGEMAP_SCAN, NULL) == 0 || errno != ENOTTY;

	close(fd);
	return fast;
}

static void make_sparse(void)
{
	if (!finds_pages_fast())
		sparse >>= 10;
	area = map(sparse / PAGE, RW, ANON | MAP_NORESERVE, -1);
	second = map(20 * TIB / PAGE, PROT_NONE, ANON, -1);
	third = map(1 << 20, RW, SHARED | MAP_NORESERVE, -1);
	fill(area, PAGE, 9);
	fill(area + sparse / 2, PAGE, 10);
	fill(area + sparse - PAGE, PAGE, 11);
	fill(third + 1000 * PAGE, PAGE, 12);
}

static void check_sparse(void)
{
	same_fill("first page", area, PAGE, 9);
	same_fill("page in the middle", area + sparse / 2, PAGE, 10);
	same_fill("last page", area + sparse - PAGE, PAGE, 11);
	same_fill("page of a shared one", third + 1000 * PAGE, PAGE, 12);
	expect_flag("memory without reserve", area, "nr", true);
	expect_flag("shared memory without reserve", third, "nr", true);
}

/* ---- a stack with a neighbour in its guard gap ---- */

#define STACK_AT	0x240000000UL

static void make_stack(void)
{
	void *p = mmap((void *)(STACK_AT - 8 * PAGE), 8 * PAGE, PROT_READ, ANON | MAP_FIXED_NOREPLACE, -1, 0);
	void *q = mmap((void *)STACK_AT, 4 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1, 0);
	void *far = mmap((void *)(STACK_AT * 2), 4 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN,
			 -1, 0);

	if (p == MAP_FAILED || q == MAP_FAILED || far == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	area = q;
	second = p;
	third = far;
	fill(area, 4 * PAGE, 13);
	mprotect(second, PAGE, RW);
	fill(second, PAGE, 14);
	/* grown by use, and then without access at its bottom */
	fill(third - 20 * PAGE, 24 * PAGE, 15);
	mprotect(third - 20 * PAGE, PAGE, PROT_NONE);
}

static void check_stack(void)
{
	unsigned char all[24 * PAGE];

	fill(all, sizeof(all), 15);
	same_fill("stack", area, 4 * PAGE, 13);
	same_fill("its neighbour", second, PAGE, 14);
	expect_flag("stack", area, "gd", true);
	expect_flag("grown stack", third, "gd", true);
	if (memcmp(third - 19 * PAGE, all + PAGE, 23 * PAGE))
		bad("grown stack differs");
	expect_readable("bottom of the stack", third - 20 * PAGE, false);
	if (is_mapped(third - 21 * PAGE))
		bad("the stack grew by itself");
}

/* ---- files ---- */

static void make_files(void)
{
	int fd = make_file("cut", 8, 16), mem = need("memfd_create", memfd_create("private", MFD_CLOEXEC));

	area = map(8, RW, MAP_PRIVATE, fd);
	fill(area + PAGE, PAGE, 17);
	fill(area + 6 * PAGE, PAGE, 18);
	need("ftruncate", ftruncate(fd, 2 * PAGE + 10));
	close(fd);

	/* what is written behind the end stays in the last page */
	need("ftruncate", ftruncate(mem, 3 * PAGE + 100));
	second = map(6, RW, MAP_PRIVATE, mem);
	fourth = map(4, RW, MAP_SHARED, mem);
	fill(fourth, 4 * PAGE, 19);
	fill(second + PAGE, PAGE, 20);
	memset(second + 2 * PAGE, 0, PAGE);
	close(mem);

	fd = need("/dev/zero", open("/dev/zero", O_RDWR | O_CLOEXEC));
	third = map(4, RW, MAP_PRIVATE, fd);
	fill(third + PAGE, PAGE, 21);
	close(fd);
}

static void check_files(void)
{
	unsigned char all[4 * PAGE];

	fill(all, sizeof(all), 19);
	same_fill("changed page of a cut file", area + PAGE, PAGE, 17);
	expect_readable("last page of a cut file", area + 2 * PAGE, true);
	expect_readable("changed page behind the end of a cut file", area + 6 * PAGE, false);
	same_fill("memfd", fourth, 4 * PAGE, 19);
	if (memcmp(second, all, PAGE) || memcmp(second + 3 * PAGE, all + 3 * PAGE, PAGE))
		bad("unchanged page of a private memfd differs");
	same_fill("changed page of a private memfd", second + PAGE, PAGE, 20);
	compare_zero("page of zeroes in a private memfd", second + 2 * PAGE, PAGE);
	expect_readable("memory behind the end of a memfd", second + 4 * PAGE, false);
	same_fill("changed page of /dev/zero", third + PAGE, PAGE, 21);
	compare_zero("page of /dev/zero", third + 2 * PAGE, PAGE);
}

/* A file that is gone, and one whose name another file has by now. */
static void make_gone(void)
{
	int fd = make_file("gone", 8, 22), other;

	area = map(8, RW, MAP_PRIVATE, fd);
	fill(area + PAGE, PAGE, 23);
	close(fd);
	need("unlink", unlink(dir_path("gone")));
	fd = make_file("replaced", 8, 24);
	second = map(8, RW, MAP_PRIVATE, fd);
	third = map(8, RW, MAP_SHARED, fd);
	fill(second + PAGE, PAGE, 25);
	close(fd);
	other = make_file("new", 3, 26);
	close(other);
	need("rename", rename(dir_path("new"), dir_path("replaced")));
}

static void check_gone(void)
{
	unsigned char all[8 * PAGE], now[PAGE];
	int fd = open(dir_path("replaced"), O_RDONLY | O_CLOEXEC);

	fill(all, sizeof(all), 22);
	same_fill("changed page of a deleted file", area + PAGE, PAGE, 23);
	if (memcmp(area + 2 * PAGE, all + 2 * PAGE, 6 * PAGE))
		bad("deleted file differs");
	fill(all, sizeof(all), 24);
	same_fill("changed page of a replaced file", second + PAGE, PAGE, 25);
	if (memcmp(second + 2 * PAGE, all + 2 * PAGE, 6 * PAGE) || memcmp(third, all, sizeof(all)))
		bad("replaced file differs");
	if (read(fd, now, PAGE) != PAGE)
		bad_errno("the new file");
	same_fill("the new file", now, PAGE, 26);
	close(fd);
}

/* ---- the heap ---- */

#define HEAP_BYTES	(64 * PAGE)
static unsigned char *heap, *heap_end;

static void make_brk(void)
{
	unsigned char *aligned;

	heap = sbrk(HEAP_BYTES);
	if (heap == (void *)-1)
		die("sbrk: %s", strerror(errno));
	aligned = (unsigned char *)(((unsigned long)heap + PAGE - 1) & ~(PAGE - 1));
	fill(aligned, 40 * PAGE, 27);
	munmap(aligned + 8 * PAGE, 4 * PAGE);
	mprotect(aligned + 20 * PAGE, PAGE, PROT_READ);
	area = aligned;
	/* an end inside a page, and no room to grow into */
	sbrk(123);
	heap_end = sbrk(0);
	second = mmap((void *)(((unsigned long)heap_end + PAGE - 1) & ~(PAGE - 1)), PAGE, RW,
		      ANON | MAP_FIXED_NOREPLACE, -1, 0);
	if (second == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	fill(second, PAGE, 28);
}

static void check_brk(void)
{
	unsigned char all[40 * PAGE];

	fill(all, sizeof(all), 27);
	same_long("end of the heap", (long)heap_end, (long)sbrk(0));
	if (memcmp(area, all, 8 * PAGE) || memcmp(area + 12 * PAGE, all + 12 * PAGE, 28 * PAGE))
		bad("heap differs");
	if (is_mapped(area + 8 * PAGE) || is_mapped(area + 11 * PAGE))
		bad("the hole in the heap is gone");
	same_fill("memory behind the heap", second, PAGE, 28);
	if (sbrk(PAGE) != (void *)-1)
		bad("the heap grew over its neighbour");
	same_long("end of the heap, still", (long)heap_end, (long)sbrk(0));
	sbrk(-23);
	same_long("end of the heap, lower", (long)heap_end - 23, (long)sbrk(0));
	sbrk(23);
}

/* ---- properties of all memory ---- */

static void make_merge(void)
{
	if (prctl(SET_MEMORY_MERGE, 1, 0, 0, 0) < 0)
		skip("PR_SET_MEMORY_MERGE: %s", strerror(errno));
	area = map(4, RW, ANON, -1);
	second = map(4, RW, ANON | MAP_GROWSDOWN, -1);
	need("madvise", madvise(second, 4 * PAGE, MADV_UNMERGEABLE));
	fill(area, 4 * PAGE, 29);
}

static void check_merge(void)
{
	unsigned char *fresh = map(4, RW, ANON, -1);

	same_fill("memory to be merged", area, 4 * PAGE, 29);
	same_long("PR_GET_MEMORY_MERGE", 1, prctl(GET_MEMORY_MERGE, 0, 0, 0, 0));
	expect_flag("memory to be merged", area, "mg", true);
	expect_flag("memory taken out", second, "mg", false);
	expect_flag("new memory", fresh, "mg", true);
	munmap(fresh, 4 * PAGE);
}

static long thp;

static void make_thp(void)
{
	if (prctl(PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0) < 0)
		need("PR_SET_THP_DISABLE", prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
}

static void check_thp(void)
{
	same_long("PR_GET_THP_DISABLE", thp, prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
}

static void make_names(void)
{
	area = map(4, RW, ANON, -1);
	second = map(4, RW, SHARED, -1);
	if (prctl(SET_VMA, 0, area, 4 * PAGE, "a name, with blanks") < 0)
		skip("the kernel has no names for memory (CONFIG_ANON_VMA_NAME)");
	need("PR_SET_VMA", prctl(SET_VMA, 0, second, 2 * PAGE, "shared"));
	fill(area, 4 * PAGE, 30);
	fill(second, 4 * PAGE, 31);
}

static void expect_name(const unsigned char *p, const char *name)
{
	char line[512];

	smaps_line(p, "", line, sizeof(line));
	if (!strstr(line, name))
		bad("%s is not in %.200s", name, line);
}

static void check_names(void)
{
	same_fill("memory with a name", area, 4 * PAGE, 30);
	same_fill("shared memory with a name", second, 4 * PAGE, 31);
	expect_name(area, "[anon:a name, with blanks]");
	expect_name(second, "[anon_shmem:shared]");
}

/* ---- hugetlb ---- */

#define HUGE_BYTES	(2UL << 20)
#define HUGE_PAGES	(HUGE_BYTES / PAGE)

static void make_huge(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	void *p = mmap(NULL, 2 * HUGE_BYTES, RW, ANON | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED || fd < 0)
		skip("no huge pages (vm.nr_hugepages)");
	area = p;
	second = map(2 * HUGE_PAGES, RW, SHARED | MAP_HUGETLB, -1);
	need("ftruncate", ftruncate(fd, 2 * HUGE_BYTES));
	third = map(2 * HUGE_PAGES, RW, MAP_SHARED, fd);
	fourth = map(2 * HUGE_PAGES, RW, MAP_PRIVATE, fd);
	fill(area + 10, HUGE_BYTES, 32);
	mprotect(area + HUGE_BYTES, HUGE_BYTES, PROT_READ);
	fill(second + HUGE_BYTES, HUGE_BYTES, 33);
	munmap(second, HUGE_BYTES);
	fill(third, 2 * HUGE_BYTES, 34);
	fill(fourth + HUGE_BYTES, 3 * PAGE, 35);
	if (param_long("keep"))
		remember_fd("memfd of huge pages", fd);
	else
		close(fd);
}

static void check_huge(void)
{
	same_fill("private huge pages", area + 10, HUGE_BYTES, 32);
	compare_zero("their end", area + 10 + HUGE_BYTES, HUGE_BYTES - 10);
	same_fill("shared huge pages", second + HUGE_BYTES, HUGE_BYTES, 33);
	same_fill("huge memfd", third, 2 * HUGE_BYTES, 34);
	same_fill("private huge memfd", fourth + HUGE_BYTES, 3 * PAGE, 35);
	same_fill("private huge memfd, unchanged", fourth, HUGE_BYTES, 34);
	expect_flag("private huge pages", area, "ht", true);
	expect_flag("huge memfd", third, "ht", true);
}

/* ---- what cannot be dumped ---- */

static void make_sysv(void)
{
	int id = need("shmget", shmget(0x4352, 3 * PAGE, IPC_CREAT | IPC_EXCL | 0600));

	area = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	if (area == (void *)-1)
		die("shmat: %s", strerror(errno));
	fill(area, 3 * PAGE, 40);
}

static void make_secret(void)
{
	int fd = syscall(NR_MEMFD_SECRET, O_CLOEXEC);

	if (fd < 0)
		skip("memfd_secret: %s", strerror(errno));
	need("ftruncate", ftruncate(fd, 3 * PAGE));
	area = map(3, RW, MAP_SHARED, fd);
	close(fd);
	fill(area, 3 * PAGE, 40);
}

static void make_sealed(void)
{
	area = map(3, RW, ANON, -1);
	fill(area, 3 * PAGE, 40);
	if (syscall(NR_MSEAL, area, 3 * PAGE, 0) < 0)
		skip("mseal takes Linux 6.10");
}

static void make_watched(void)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	area = map(3, RW, ANON, -1);
	fill(area, 3 * PAGE, 40);
	reg.range.start = (unsigned long)area;
	reg.range.len = 3 * PAGE;
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		skip("userfaultfd: %s", strerror(errno));
}

/* The buffer of performance events: pages that belong to the kernel. */
static void make_device(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr) };
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	if (fd < 0)
		skip("perf_event_open: %s", strerror(errno));
	map(2, RW, MAP_SHARED, fd);
	area = map(3, RW, ANON, -1);
	fill(area, 3 * PAGE, 40);
}

/* A descriptor of shared memory, which has the name of a device. */
static void make_segment(void)
{
	char path[96];

	area = map(3, RW, SHARED, -1);
	fill(area, 3 * PAGE, 40);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)area,
		 (unsigned long)area + 3 * PAGE);
	need(path, open(path, O_RDWR | O_CLOEXEC));
}

static void check_undumped(void)
{
	same_fill("memory", area, 3 * PAGE, 40);
}

/* ---- all of it ---- */

static const struct {
	const char *name;
	void (*make)(void);
	void (*check)(void);
} kinds[] = {
	{ "droppable", make_droppable, check_droppable },
	{ "guards", make_guards, check_guards },
	{ "future", make_future, check_future },
	{ "lockall", make_lockall, check_lockall },
	{ "sparse", make_sparse, check_sparse },
	{ "stack", make_stack, check_stack },
	{ "files", make_files, check_files },
	{ "gone", make_gone, check_gone },
	{ "brk", make_brk, check_brk },
	{ "merge", make_merge, check_merge },
	{ "thp", make_thp, check_thp },
	{ "names", make_names, check_names },
	{ "huge", make_huge, check_huge },
	{ "sysv", make_sysv, check_undumped },
	{ "secret", make_secret, check_undumped },
	{ "sealed", make_sealed, check_undumped },
	{ "watched", make_watched, check_undumped },
	{ "device", make_device, check_undumped },
	{ "segment", make_segment, check_undumped },
};

static size_t kind_here;

static void make(void)
{
	while (kind_here < ARRAY_SIZE(kinds) && strcmp(kinds[kind_here].name, param_str("kind")))
		kind_here++;
	if (kind_here == ARRAY_SIZE(kinds))
		die("there is no kind %s", param_str("kind"));
	kinds[kind_here].make();
}

static void check(void)
{
	kinds[kind_here].check();
}

struct factory kinds_factory = {
	.name	= "kinds",
	.about	= "unusual memory, one kind of it",
	.params	= {
		{ "kind", NULL, "droppable, guards, future, lockall, sparse, ... (see kinds.c)" },
		{ "dir", "", "an empty directory" },
		{ "onfault", "0", "1: future memory is locked when it is touched" },
		{ "keep", "0", "1: the memfd stays open" },
	},
	.make	= make,
	.check	= check,
};
