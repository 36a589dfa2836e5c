/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who shares an open file description with whom: within a process, between a
 * parent and its children, and one that only a child and a grandchild have,
 * because it was sent to the child.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define DATA_BYTES	100000
#define HIGH_FD		900
#define PASSED_FD	700
#define MANY_FD		300	/* the first of the many */
#define NR_MANY		100
#define NR_DESCRIPTIONS	7
#define NR_CHILDREN	2
#define STEP		10	/* a child moves the shared offset by STEP and its number */
#define PASSED_STEP	100

static int shared, shared_dup, private_fd, reopened;
static int descriptions[NR_DESCRIPTIONS];
static pid_t children[NR_CHILDREN], grandchild;
static int number_here;		/* 1.. in children */
static long shared_pos = 500, passed_pos = 2000;

static int open_data(const char *name, int flags, off_t offset)
{
	int fd = need(name, open(dir_path(name), flags, 0600));

	lseek(fd, offset, SEEK_SET);
	return fd;
}

static void make_data(const char *name)
{
	int fd = open_data(name, O_RDWR | O_CREAT, 0);

	need("ftruncate", ftruncate(fd, DATA_BYTES));
	close(fd);
}

static int description_of(int i)
{
	return i * 5 % NR_DESCRIPTIONS;
}

/* Each child has closed a third of the many. */
static bool child_has(int child, int i)
{
	return i % 3 != child;
}

static void make_many(void)
{
	int i;

	for (i = 0; i < NR_DESCRIPTIONS; i++)
		descriptions[i] = remember_fd("one of seven", open_data("data", O_RDWR, 10 * i));
	for (i = 0; i < NR_MANY; i++) {
		int fd = MANY_FD + i;

		need("dup3", dup3(descriptions[description_of(i)], fd, i % 2 ? O_CLOEXEC : 0));
		remember_fd("one of many", fd);
	}
}

static void make_twins(void)
{
	shared = remember_fd("shared", open_data("data", O_RDWR, shared_pos));
	shared_dup = remember_fd("dup", fcntl(shared, F_DUPFD_CLOEXEC, 0));
	remember_fd("high dup", dup2(shared, HIGH_FD));
	private_fd = remember_fd("same file", open_data("data", O_RDWR, shared_pos));
	reopened = remember_fd("reopened", reopen(shared, O_RDONLY | O_CLOEXEC));
	lseek(reopened, 77, SEEK_SET);
}

/* ---- the children ---- */

static void move_offsets(void)
{
	lseek(shared, STEP + number_here, SEEK_CUR);
	if (number_here == 1)
		lseek(PASSED_FD, PASSED_STEP, SEEK_CUR);
}

static void leave(void)
{
	_exit(number_here);
}

/* The first child ends its own child before it goes. */
static void leave_with_child(void)
{
	int status = 0;

	kill(grandchild, SIGTERM);
	if (waitpid(grandchild, &status, 0) != grandchild || WEXITSTATUS(status) != 3)
		_exit(99);
	leave();
}

static void move_passed(void)
{
	lseek(PASSED_FD, PASSED_STEP, SEEK_CUR);
}

/* A process that will be gone opens the file; who has it afterwards only received it. */
static void start_sender(int sock)
{
	pid_t sender = need("fork", fork());

	if (!sender) {
		send_fd(sock, open_data("passed", O_RDWR, passed_pos));
		_exit(0);
	}
	waitpid(sender, NULL, 0);
}

static void take_passed(int socks[2])
{
	int fd = receive_fd(socks[1]);

	need("dup2", dup2(fd, PASSED_FD));
	close(fd);
	close(socks[0]);
	close(socks[1]);
}

static void be_child(int socks[2])
{
	int i;

	for (i = 0; i < NR_MANY; i++)
		if (!child_has(number_here - 1, i))
			close(MANY_FD + i);
	if (number_here != 1) {
		close(socks[0]);
		close(socks[1]);
		serve_signals(move_offsets, leave);
	}
	take_passed(socks);
	grandchild = need("fork", fork());
	if (!grandchild) {
		number_here = 3;
		close(shared_dup);
		serve_signals(move_passed, leave);
	}
	serve_signals(move_offsets, leave_with_child);
}

static bool has_grandchild(void *arg)
{
	char path[64], line[64];

	(void)arg;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", children[0], children[0]);
	read_line(path, line, sizeof(line));
	grandchild = atoi(line);
	return grandchild > 0;
}

static bool many_are_closed(void *arg)
{
	(void)arg;
	return position_of(children[0], MANY_FD + 99) < 0 &&
	       position_of(children[1], MANY_FD + 97) < 0 &&
	       position_of(grandchild, shared_dup) < 0;
}

static void start_children(void)
{
	int socks[2], i;

	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	start_sender(socks[0]);
	for (i = 0; i < NR_CHILDREN; i++) {
		children[i] = need("fork", fork());
		if (!children[i]) {
			number_here = i + 1;
			be_child(socks);
		}
	}
	close(socks[0]);
	close(socks[1]);
	if (!wait_until(has_grandchild, NULL) || !wait_until(many_are_closed, NULL))
		die("the children do not come to rest");
}

/* ---- check ---- */

static void expect_shared(const char *what, pid_t a, int fd_a, pid_t b, int fd_b, bool expected)
{
	if (is_same_file(a, fd_a, b, fd_b) != expected)
		bad("%s: %d of %d and %d of %d, expected %s", what, fd_a, a, fd_b, b,
		    expected ? "one description" : "two");
}

static void check_twins(void)
{
	const pid_t us = getpid();

	expect_shared("dup", us, shared, us, shared_dup, true);
	expect_shared("high dup", us, shared, us, HIGH_FD, true);
	expect_shared("opened twice", us, shared, us, private_fd, false);
	expect_shared("reopened", us, shared, us, reopened, false);
	same_long("offset of the high dup", shared_pos, lseek(HIGH_FD, 0, SEEK_CUR));
	lseek(HIGH_FD, 5, SEEK_CUR);
	same_long("offset moved by a dup", shared_pos + 5, lseek(shared_dup, 0, SEEK_CUR));
	lseek(shared, -5, SEEK_CUR);
}

/* Every number names its own description and not the next one. */
static void check_one_of_many(int i)
{
	const pid_t us = getpid();
	int own = descriptions[description_of(i)];
	int other = descriptions[(description_of(i) + 1) % NR_DESCRIPTIONS];
	int fd = MANY_FD + i, c;

	expect_shared("one of many", us, own, us, fd, true);
	expect_shared("another of many", us, other, us, fd, false);
	for (c = 0; c < NR_CHILDREN; c++)
		expect_shared("one of many in a child", us, own, children[c], fd, child_has(c, i));
	expect_shared("one of many in a grandchild", us, own, grandchild, fd, child_has(0, i));
}

static void check_across(void)
{
	const pid_t us = getpid();
	int c;

	for (c = 0; c < NR_CHILDREN; c++) {
		expect_shared("shared with a child", us, shared, children[c], shared, true);
		expect_shared("high dup in a child", us, shared, children[c], HIGH_FD, true);
		expect_shared("inherited", us, private_fd, children[c], private_fd, true);
		expect_shared("inherited, other", us, shared, children[c], private_fd, false);
	}
	expect_shared("shared with a grandchild", us, shared, grandchild, HIGH_FD, true);
	expect_shared("sent", children[0], PASSED_FD, grandchild, PASSED_FD, true);
	same_long("a sent descriptor here", -1, fcntl(PASSED_FD, F_GETFD));
	same_long("a sent descriptor elsewhere", -1, position_of(children[1], PASSED_FD));
	same_long("closed in the grandchild", -1, position_of(grandchild, shared_dup));
}

struct question {
	pid_t pid;
	int fd;
	long pos;
};

static bool is_there(void *arg)
{
	const struct question *q = arg;

	return position_of(q->pid, q->fd) == q->pos;
}

static void expect_position(const char *what, pid_t pid, int fd, long pos)
{
	struct question q = { pid, fd, pos };

	if (!wait_until(is_there, &q))
		same_long(what, pos, position_of(pid, fd));
}

/* What is not shared any more was reported already: nothing to wait for. */
static void check_shared_moves(void)
{
	const pid_t us = getpid();
	int c;

	shared_pos = lseek(shared, 0, SEEK_CUR);
	for (c = 0; c < NR_CHILDREN; c++) {
		if (!is_same_file(us, shared, children[c], shared))
			continue;
		shared_pos += STEP + c + 1;
		kill(children[c], SIGUSR1);
		expect_position("offset moved by a child", us, shared, shared_pos);
		if (is_same_file(us, shared, grandchild, shared))
			expect_position("seen by a grandchild", grandchild, shared, shared_pos);
	}
}

/* The first child has moved this one, too, if it was asked to. */
static void check_sent_moves(void)
{
	if (!is_same_file(children[0], PASSED_FD, grandchild, PASSED_FD))
		return;
	if (is_same_file(getpid(), shared, children[0], shared))
		passed_pos += PASSED_STEP;
	expect_position("offset of the sent one", grandchild, PASSED_FD, passed_pos);
	kill(grandchild, SIGUSR1);
	passed_pos += PASSED_STEP;
	expect_position("offset moved by the grandchild", children[0], PASSED_FD, passed_pos);
}

static void check_moves(void)
{
	long sent_pos = position_of(grandchild, PASSED_FD);

	if (!same_long("offset of the sent one, before", passed_pos, sent_pos))
		passed_pos = sent_pos;
	same_long("shared offset in a child", shared_pos, position_of(children[0], shared));
	check_shared_moves();
	check_sent_moves();
	same_long("offset of the same file", 500, lseek(private_fd, 0, SEEK_CUR));
	same_long("offset of the reopened file", 77, lseek(reopened, 0, SEEK_CUR));
}

static void make(void)
{
	allow_fds(1023);
	make_data("data");
	make_data("passed");
	make_twins();
	make_many();
	start_children();
	note_fds();
}

static void check(void)
{
	int i;

	check_fds();
	check_twins();
	for (i = 0; i < NR_MANY; i++)
		check_one_of_many(i);
	check_across();
	check_moves();
	note_fds();	/* the shared offset has moved */
}

static void stop(void)
{
	int status, c;

	for (c = 0; c < NR_CHILDREN; c++) {
		status = 0;
		kill(children[c], SIGTERM);
		if (waitpid(children[c], &status, 0) != children[c])
			bad_errno("waitpid");
		else if (!WIFEXITED(status) || WEXITSTATUS(status) != c + 1)
			bad("exit status of child %d: %#x", c, status);
	}
}

struct factory shares_factory = {
	.name	= "shares",
	.about	= "descriptions shared by dup, fork and sending",
	.params	= {
		{ "dir", NULL, "an empty directory" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
