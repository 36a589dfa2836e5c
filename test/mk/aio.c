/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rings of asynchronous I/O: never used, with events that nobody has read, read to the end, gone
 * round. Each check reads what is there, makes requests, and reads their events.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

#define WAITING 5

static struct {
	const char *what;
	unsigned nr;		/* as io_setup(2) is asked */
	unsigned made, taken;	/* before the check; ~0: a turn and a half */
	aio_context_t context;
	uint64_t first, last;	/* data of the events that wait: first .. last - 1 */
} rings[] = {
	{ "never used", 1, 0, 0 },
	{ "with events", 10, WAITING, 0 },
	{ "read to its end", 64, 20, 20 },
	{ "of many pages", 3000, 700, 690 },
	{ "gone round", 8, ~0u, 0 },
};

static int file;
static char byte;

static unsigned events_of(aio_context_t context)
{
	return ((unsigned *)context)[1];
}

static void submit(size_t i, unsigned n)
{
	while (n--) {
		struct iocb request = { .aio_data = rings[i].last, .aio_lio_opcode = IOCB_CMD_PWRITE,
					.aio_fildes = file, .aio_buf = (uintptr_t)&byte,
					.aio_nbytes = 1, .aio_offset = rings[i].last % 4096 };
		struct iocb *list = &request;

		if (syscall(SYS_io_submit, rings[i].context, 1, &list) != 1)
			bad("ring %s: io_submit: %s", rings[i].what, strerror(errno));
		rings[i].last++;
	}
}

static void take(size_t i, unsigned n)
{
	while (n--) {
		struct timespec now = { 0 };
		struct io_event e;
		long got = syscall(SYS_io_getevents, rings[i].context, 0, 1, &e, &now);

		if (got != 1)
			bad("ring %s: io_getevents gives %ld", rings[i].what, got);
		else if (e.data != rings[i].first || e.res != 1 || e.res2)
			bad("ring %s: event %lu in place of %lu, result %ld", rings[i].what,
			    (long)e.data, (long)rings[i].first, (long)e.res);
		rings[i].first++;
	}
}

static void make(void)
{
	file = open(dir_path("aio-file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file < 0)
		die("open: %s", strerror(errno));
	/* Its size may not change any more. */
	if (ftruncate(file, 4096) < 0)
		die("ftruncate: %s", strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(rings); i++) {
		if (syscall(SYS_io_setup, rings[i].nr, &rings[i].context) < 0) {
			if (errno == ENOSYS)
				skip("this kernel has no asynchronous I/O");
			die("io_setup: %s", strerror(errno));
		}
		if (rings[i].made != ~0u) {
			submit(i, rings[i].made);
			take(i, rings[i].taken);
			continue;
		}
		/* Its head stands behind its tail. */
		for (unsigned left = events_of(rings[i].context) - 2; left; left--) {
			submit(i, 1);
			take(i, 1);
		}
		submit(i, WAITING);
	}
}

static void check(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(rings); i++) {
		unsigned more = events_of(rings[i].context) / 3;

		take(i, rings[i].last - rings[i].first);
		submit(i, more);
		take(i, more);
		submit(i, WAITING);
	}
}

struct factory aio_factory = {
	.name = "aio",
	.about = "rings of asynchronous I/O (io_setup) with events",
	.params = { { "dir", NULL, "an empty directory" }, { NULL } },
	.make = make,
	.check = check,
};
