/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * epoll: watched eventfds and pipes with all kinds of flags, the same file
 * under several numbers, numbers that are closed or name another file by now,
 * and an epoll that watches an epoll.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define MAX_EVENTS	32
#define CLOSED_FD	500	/* the number an epoll still knows */
#define REUSED_FD	501	/* the same, and now of /dev/null */
#define TEXT		4096

/* What is watched; index into files[]. */
enum { FULL, EMPTY, PAIR_R, PAIR_W, EDGE, ONCE_ARMED, ONCE_FIRED, EXCLUSIVE, KEPT, KEPT_TOO,
       NR_FILES };

static const struct target {
	const char *what;
	int file;
	int number;	/* to be watched under, 0: the number of the file */
	uint32_t events;
	uint64_t data;
	uint32_t ready;	/* what epoll_wait() tells */
} targets[] = {
	{ "readable eventfd", FULL, 0, EPOLLIN, 0x1122334455667788, EPOLLIN },
	{ "the same under another number", FULL, 400, EPOLLIN | EPOLLOUT | EPOLLPRI,
	  0xfedcba9876543210, EPOLLIN | EPOLLOUT },
	{ "empty eventfd", EMPTY, 0, EPOLLIN, 2, 0 },
	{ "readable pipe", PAIR_R, 0, EPOLLIN | EPOLLRDHUP, 3, EPOLLIN },
	{ "writable pipe", PAIR_W, 0, EPOLLOUT, 4, EPOLLOUT },
	{ "no events", FULL, 401, 0, 5, 0 },
	{ "edge triggered", EDGE, 0, EPOLLIN | EPOLLET, 6, EPOLLIN },
	{ "one shot, armed", ONCE_ARMED, 0, EPOLLIN | EPOLLONESHOT, 7, 0 },
	{ "one shot, fired", ONCE_FIRED, 0, EPOLLIN | EPOLLONESHOT | EPOLLET, 8, 0 },
	{ "exclusive", EXCLUSIVE, 0, EPOLLIN | EPOLLEXCLUSIVE, UINT64_MAX, EPOLLIN },
	{ "closed number", KEPT, CLOSED_FD, EPOLLIN, 10, EPOLLIN },
	{ "reused number", KEPT_TOO, REUSED_FD, EPOLLIN, 11, 0 },
};

static int files[NR_FILES];
static int main_ep, outer_ep, empty_ep, edge_ep, edge_event, main_dup;
static char lines_main[TEXT], lines_outer[TEXT], lines_edge[TEXT];

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = { .events = events, .data.u64 = data };

	need("EPOLL_CTL_ADD", epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

static void modify(int fd, const struct target *t)
{
	struct epoll_event e = { .events = t->events, .data.u64 = t->data };

	if (epoll_ctl(main_ep, EPOLL_CTL_MOD, fd, &e) < 0)
		bad_errno(t->what);
}

static const struct target *target_of(int file)
{
	size_t i;

	for (i = 0; targets[i].file != file; i++)
		;
	return &targets[i];
}

static void bump(int fd)
{
	const uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		bad_errno("writing to an eventfd");
}

static uint64_t drain(int fd)
{
	uint64_t count = 0;

	if (!never_waits(fd))
		return 0;
	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void make_files(void)
{
	static const uint64_t counts[NR_FILES] = {
		[FULL] = 1, [EDGE] = 1, [ONCE_FIRED] = 1, [EXCLUSIVE] = 1, [KEPT] = 1,
	};
	int i, p[2];

	for (i = 0; i < NR_FILES; i++)
		if (i != PAIR_R && i != PAIR_W)
			files[i] = remember_fd("eventfd", eventfd(counts[i], EFD_NONBLOCK));
	need("pipe", pipe(p));
	files[PAIR_R] = remember_fd("reader", p[0]);
	files[PAIR_W] = remember_fd("writer", p[1]);
	need("write", write(p[1], "data", 4));
}

static void watch(const struct target *t)
{
	int fd = files[t->file];

	if (t->number)
		fd = need("dup2", dup2(fd, t->number));
	add(main_ep, fd, t->events, t->data);
}

/* Returns how many; [i] is set to what target i is ready for. */
static int wait_for(int ep, uint32_t ready[ARRAY_SIZE(targets)])
{
	struct epoll_event e[MAX_EVENTS];
	int n = epoll_wait(ep, e, MAX_EVENTS, 0), i;
	size_t t;

	memset(ready, 0, ARRAY_SIZE(targets) * sizeof(ready[0]));
	for (i = 0; i < n; i++) {
		for (t = 0; t < ARRAY_SIZE(targets); t++)
			if (targets[t].data == e[i].data.u64)
				break;
		if (t == ARRAY_SIZE(targets))
			bad("epoll %d: nobody has the data %#llx", ep,
			    (unsigned long long)e[i].data.u64);
		else
			ready[t] = e[i].events;
	}
	return n;
}

static void read_lines(char *of_main, char *of_outer, char *of_edge)
{
	fdinfo_lines(main_ep, "tfd:", " pos:", of_main, TEXT);
	fdinfo_lines(outer_ep, "tfd:", " pos:", of_outer, TEXT);
	fdinfo_lines(edge_ep, "tfd:", " pos:", of_edge, TEXT);
}

static void make_epolls(void)
{
	main_ep = remember_fd("epoll", epoll_create1(0));
	outer_ep = remember_fd("epoll of an epoll", epoll_create1(EPOLL_CLOEXEC));
	empty_ep = remember_fd("epoll of nothing", epoll_create1(0));
	edge_ep = remember_fd("epoll whose edge is known", epoll_create1(0));
	edge_event = remember_fd("edge that is known", eventfd(1, EFD_NONBLOCK));
	main_dup = remember_fd("dup of an epoll", dup(main_ep));
}

static void make(void)
{
	uint32_t ready[ARRAY_SIZE(targets)];
	size_t i;

	allow_fds(1023);
	make_files();
	make_epolls();
	for (i = 0; i < ARRAY_SIZE(targets); i++)
		watch(&targets[i]);
	add(outer_ep, main_ep, EPOLLIN, 100);
	add(outer_ep, empty_ep, EPOLLIN, 101);
	add(edge_ep, edge_event, EPOLLIN | EPOLLET, 6);
	wait_for(main_ep, ready);	/* fires the one shot */
	wait_for(edge_ep, ready);
	modify(files[EDGE], target_of(EDGE));
	close(CLOSED_FD);
	need("/dev/null", dup2(need("/dev/null", open("/dev/null", O_RDWR)), REUSED_FD));
	remember_fd("number in use again", REUSED_FD);
	read_lines(lines_main, lines_outer, lines_edge);
	note_fds();
}

/* ---- check ---- */

static void check_lines(void)
{
	char of_main[TEXT], of_outer[TEXT], of_edge[TEXT], none[TEXT];

	read_lines(of_main, of_outer, of_edge);
	same_str("targets of epoll", lines_main, of_main);
	same_str("targets of the outer epoll", lines_outer, of_outer);
	same_str("target of the edge", lines_edge, of_edge);
	fdinfo_lines(empty_ep, "tfd:", NULL, none, sizeof(none));
	same_str("targets of the empty epoll", "", none);
}

/* Level-triggered events stay; the edge that nobody has seen yet is seen now, and once. */
static void check_ready(void)
{
	uint32_t ready[ARRAY_SIZE(targets)];
	size_t i;

	wait_for(main_ep, ready);
	for (i = 0; i < ARRAY_SIZE(targets); i++)
		same_long(targets[i].what, targets[i].ready, ready[i]);
	wait_for(main_ep, ready);
	for (i = 0; i < ARRAY_SIZE(targets); i++)
		if (targets[i].file == EDGE)
			same_long("edge seen for the second time", 0, ready[i]);
		else
			same_long(targets[i].what, targets[i].ready, ready[i]);
	modify(files[EDGE], target_of(EDGE));
}

/* One at a time becomes ready, and the epoll knows. */
static void check_wakeup(int file, const char *what, bool expected)
{
	uint32_t ready[ARRAY_SIZE(targets)];
	const struct target *t = target_of(file);

	bump(files[file]);
	wait_for(main_ep, ready);
	same_long(what, expected ? EPOLLIN : 0, ready[t - targets]);
}

static void check_wakeups(void)
{
	check_wakeup(EMPTY, "event of an empty eventfd", true);
	check_wakeup(KEPT_TOO, "event under a reused number", true);
	check_wakeup(EDGE, "new edge", true);
	check_wakeup(ONCE_ARMED, "one shot", true);
	check_wakeup(ONCE_ARMED, "one shot, the second", false);
	check_wakeup(ONCE_FIRED, "one shot that was fired", false);
	same_long("count of the empty eventfd", 1, drain(files[EMPTY]));
	same_long("count under a reused number", 1, drain(files[KEPT_TOO]));
	same_long("count of the one shot", 2, drain(files[ONCE_ARMED]));
	same_long("count of the fired one", 2, drain(files[ONCE_FIRED]));
	same_long("count of the edge", 2, drain(files[EDGE]));
	bump(files[ONCE_FIRED]);
	bump(files[EDGE]);
	modify(files[ONCE_ARMED], target_of(ONCE_ARMED));
	modify(files[EDGE], target_of(EDGE));
}

static void check_nested(void)
{
	struct epoll_event e[2] = { 0 };

	same_long("events of the outer epoll", 1, epoll_wait(outer_ep, e, 2, 0));
	same_long("data of the outer epoll", 100, e[0].data.u64);
	same_long("events of the empty epoll", 0, epoll_wait(empty_ep, e, 2, 0));
}

/* Whether an edge was seen already may be forgotten; a new one may not. */
static void check_edge(void)
{
	struct epoll_event e[2] = { 0 };

	epoll_wait(edge_ep, e, 2, 0);
	same_long("known edge, again", 0, epoll_wait(edge_ep, e, 2, 0));
	bump(edge_event);
	same_long("new edge", 1, epoll_wait(edge_ep, e, 2, 0));
	same_long("data of the new edge", 6, e[0].data.u64);
	same_long("count of the edge that is known", 2, drain(edge_event));
	bump(edge_event);
	epoll_wait(edge_ep, e, 2, 0);
}

static void check(void)
{
	check_fds();
	check_lines();
	check_ready();
	check_nested();
	check_wakeups();
	check_edge();
	check_same_file("epolls", main_ep, main_dup);
	check_other_file("epolls", main_ep, empty_ep);
	same_long("the closed number", -1, fcntl(CLOSED_FD, F_GETFD));
	check_lines();
}

struct factory epolls_factory = {
	.name	= "epolls",
	.about	= "epoll: flags, closed and reused numbers, nested",
	.make	= make,
	.check	= check,
};
