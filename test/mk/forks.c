/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Workers forked by a process with much memory, which they share until somebody writes to it. All
 * of them change some pages; their memory and what it costs (Pss) has to stay as it was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mk.h"

#define MAX_WORKERS 512
#define FILE_PAGES  64
#define SEED	    4711

/* How a member has changed a page of the area; chosen by its number and that of the page. */
enum change { NONE, WRITTEN, DROPPED, ZEROED };

/* Written by the member, read by the root. */
struct record {
	volatile long round, bad_at;
	volatile pid_t pid;
};

static unsigned char *area, *file_area, *extra;
static size_t pages;
static long nr_workers, spread;
static struct record *records;
static long round_now, index_here;
static pid_t workers[MAX_WORKERS + 1];
static long pss_before;

/* The root changes its pages when all workers are born. */
static enum change change_of(long member, size_t page)
{
	if (page == pages - 1)
		return WRITTEN;
	if (!spread || (page + member * 13) % spread)
		return NONE;
	return WRITTEN + (page / spread + member) % 3;
}

static void change_page(unsigned char *at, enum change c, long member, size_t page)
{
	switch (c) {
	case NONE:
		break;
	case WRITTEN:
		fill(at, PAGE, SEED + page * 1000 + member);
		break;
	case DROPPED:
		madvise(at, PAGE, MADV_DONTNEED);
		break;
	case ZEROED:
		memset(at, 0, PAGE);
		break;
	}
}

static bool is_zero(const unsigned char *at)
{
	return !at[0] && !memcmp(at, at + 1, PAGE - 1);
}

static bool is_page_right(const unsigned char *at, size_t page)
{
	switch (change_of(index_here, page)) {
	case NONE:
		return verify(at, PAGE, SEED + page) < 0;
	case WRITTEN:
		return verify(at, PAGE, SEED + page * 1000 + index_here) < 0;
	default:
		return is_zero(at);
	}
}

static long find_bad(void)
{
	size_t page;

	for (page = 0; page < pages; page++)
		if (!is_page_right(area + page * PAGE, page))
			return page;
	for (page = 0; page < FILE_PAGES; page++) {
		bool own = page == (size_t)index_here % FILE_PAGES;

		if (page % 2 && !own)
			continue;	/* that of the file */
		if (verify(file_area + page * PAGE, PAGE, SEED + 2 + page + (own ? index_here : 0)) >= 0)
			return 1000000 + page;
	}
	if (verify(extra, PAGE, index_here) >= 0)
		return 2000000;
	return -1;
}

static void answer(void)
{
	records[index_here].bad_at = find_bad();
	records[index_here].round++;
}

static void leave(void)
{
	_exit(0);
}

static void change_all(long member)
{
	size_t page;

	for (page = 0; page < pages; page++)
		change_page(area + page * PAGE, change_of(member, page), member, page);
}

static void be_worker(long index)
{
	/* One of three has a child of its own, as long as both are alike. */
	if (index % 3 == 2 && index < nr_workers && !fork())
		index++;
	index_here = index;
	change_all(index_here);
	fill(file_area + index_here % FILE_PAGES * PAGE, PAGE, SEED + 2 + index_here % FILE_PAGES + index_here);
	fill(extra, PAGE, index_here);
	/* Parts of what is shared are protected, grown, cut off. */
	if (index_here % 2)
		mprotect(area, pages / 4 * PAGE, PROT_READ);
	if (index_here % 5 == 4)
		munmap(extra + PAGE, PAGE);
	sbrk(index_here * PAGE);
	records[index_here].pid = getpid();
	serve_signals(answer, leave);
}

static bool is_born(void *arg)
{
	return records[*(long *)arg].pid != 0;
}

static bool has_answered(void *arg)
{
	return records[*(long *)arg].round == round_now;
}

static long pss_of(pid_t pid)
{
	char path[64], line[256];
	long kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss_Anon: %ld", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb;
}

static long pss_of_all(void)
{
	long i, sum = 0;

	for (i = 0; i <= nr_workers; i++)
		sum += pss_of(records[i].pid);
	return sum;
}

static void *map(size_t size, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE,
		       fd, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static void make(void)
{
	long i;
	size_t page;
	int fd = open(dir_path("private"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	nr_workers = param_long("n");
	pages = param_long("size") / PAGE;
	spread = param_long("spread");
	if (nr_workers < 1 || nr_workers > MAX_WORKERS || pages < 8)
		die("n= is 1 to %d, size= at least 8 pages", MAX_WORKERS);
	if (fd < 0 || ftruncate(fd, FILE_PAGES * PAGE) < 0)
		die("private: %s", strerror(errno));
	area = map(pages * PAGE, -1);
	file_area = map(FILE_PAGES * PAGE, fd);
	extra = map(4 * PAGE, -1);
	close(fd);
	records = mmap(NULL, sizeof(*records) * (MAX_WORKERS + 1), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (records == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	/* Where huge pages are for all, khugepaged gives one worker after the other its own. */
	if (madvise(area, pages * PAGE, param_long("huge") ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0 &&
	    param_long("huge"))
		skip("MADV_HUGEPAGE: %s", strerror(errno));
	for (page = 0; page < pages; page++)
		fill(area + page * PAGE, PAGE, SEED + page);
	for (page = 0; page < FILE_PAGES; page += 2)
		fill(file_area + page * PAGE, PAGE, SEED + 2 + page);
	records[0].pid = getpid();
	for (i = 1; i <= nr_workers; i++) {
		if (i % 3) {	/* others are born by the one before */
			pid_t pid = fork();

			if (pid < 0)
				die("fork: %s", strerror(errno));
			if (!pid)
				be_worker(i);
			workers[i] = pid;
		}
		if (!wait_until(is_born, &i))
			die("worker %ld does not come", i);
	}
	change_all(0);
	fill(file_area, PAGE, SEED + 2);
	fill(extra, PAGE, 0);
	pss_before = pss_of_all();
}

static void check(void)
{
	long i, now;

	round_now++;
	now = pss_of_all();
	if (now > pss_before + pss_before / 20 + 256)
		bad("memory of all: %ld KiB, was %ld", now, pss_before);
	i = find_bad();
	if (i >= 0)
		bad("root: page %ld differs", i);
	for (i = 1; i <= nr_workers; i++)
		if (kill(records[i].pid, SIGUSR1) < 0)
			bad("worker %ld: %s", i, strerror(errno));
		else if (!wait_until(has_answered, &i))
			bad("worker %ld does not answer", i);
		else if (records[i].bad_at >= 0)
			bad("worker %ld: page %ld differs", i, records[i].bad_at);
}

static void stop(void)
{
	long i;

	/* grandchildren first: they are not ours to wait for */
	for (i = nr_workers; i >= 1; i--)
		if (!workers[i])
			kill(records[i].pid, SIGKILL);
	for (i = 1; i <= nr_workers; i++)
		if (workers[i])
			end_child(workers[i], 0);
}

struct factory forks_factory = {
	.name	= "forks",
	.about	= "memory that forked workers share",
	.params	= {
		{ "n", "7", "workers" },
		{ "size", "4194304", "bytes that they share" },
		{ "spread", "50", "one of so many pages is changed by each (0: none)" },
		{ "huge", "0", "ask for huge pages" },
		{ "dir", ".", "directory for a file" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
