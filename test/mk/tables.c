/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptor tables that processes share (CLONE_FILES): a chain of children
 * with the table of the first, and a child with one of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define NR_SHARERS	3
#define LOOK_AT		'?'	/* the next byte is a descriptor: is it open? */
#define OPEN_ONE	'+'	/* open one, tell its number */

static int request[NR_SHARERS + 1][2], answer[NR_SHARERS + 1][2];
static pid_t pids[NR_SHARERS + 1];	/* the last has a table of its own */
static int number_here;
static pid_t child_here;

static unsigned char act(unsigned char what, unsigned char fd)
{
	return what == OPEN_ONE ? open("/dev/zero", O_RDONLY) : fcntl(fd, F_GETFD) >= 0;
}

/* On SIGUSR1: what is asked for is in the pipe. */
static void serve_one(void)
{
	unsigned char c[2];

	if (read(request[number_here][0], c, 2) != 2)
		_exit(1);
	c[0] = act(c[0], c[1]);
	if (write(answer[number_here][1], c, 1) != 1)
		_exit(1);
}

static void leave(void)
{
	if (child_here) {
		kill(child_here, SIGTERM);
		waitpid(child_here, NULL, 0);
	}
	_exit(0);
}

static void be_child(int number)
{
	pid_t pid = getpid();

	number_here = number;
	if (write(answer[number][1], &pid, sizeof(pid)) != sizeof(pid) || chdir(number % 2 ? "/" : "/dev") < 0)
		_exit(1);
	serve_signals(serve_one, leave);
}

/* Each sharer is a child of the one before. Returns in the parent of the first. */
static void start_sharers(void)
{
	int number;

	for (number = 0; number < NR_SHARERS; number++) {
		pid_t pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);

		if (pid < 0)
			_exit(1);
		if (pid && number) {
			child_here = pid;
			be_child(number - 1);
		}
		if (pid)
			return;
	}
	be_child(number - 1);
}

static unsigned char ask(int number, unsigned char what, unsigned char fd)
{
	unsigned char c[2] = { what, fd };

	if (write(request[number][1], c, 2) != 2 || kill(pids[number], SIGUSR1) < 0 ||
	    read(answer[number][0], c, 1) != 1)
		bad_errno("ask a child");
	return c[0];
}

static void make(void)
{
	int i;

	for (i = 0; i <= NR_SHARERS; i++) {
		need("pipe", pipe(request[i]));
		need("pipe", pipe(answer[i]));
	}
	start_sharers();
	if (!need("fork", fork()))
		be_child(NR_SHARERS);
	for (i = 0; i <= NR_SHARERS; i++)
		if (read(answer[i][0], &pids[i], sizeof(pids[i])) != sizeof(pids[i]))
			die("child %d does not start", i);
}

static void check(void)
{
	int opener, i, fd;

	for (opener = 0; opener < NR_SHARERS; opener++) {
		fd = ask(opener, OPEN_ONE, 0);
		if (fcntl(fd, F_GETFD) < 0)
			bad("descriptor %d, opened by sharer %d, is not here", fd, opener);
		for (i = 0; i < NR_SHARERS; i++)
			same_long("opened by another sharer", 1, ask(i, LOOK_AT, fd));
		same_long("seen by the child with its own table", 0, ask(NR_SHARERS, LOOK_AT, fd));
		close(fd);
		for (i = 0; i < NR_SHARERS; i++)
			same_long("closed by another sharer", 0, ask(i, LOOK_AT, fd));
	}
}

static void stop(void)
{
	end_child(pids[0], 0);
	end_child(pids[NR_SHARERS], 0);
}

struct factory tables_factory = {
	.name	= "tables",
	.about	= "a descriptor table shared by a chain of children",
	.make	= make,
	.check	= check,
	.stop	= stop,
};
