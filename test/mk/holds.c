/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A child that cannot be dumped as it is: one that waits for its vfork child, or one whose first
 * thread has exited while another one runs on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

static pid_t child;

static void *sleep_on(void *arg)
{
	for (;;)
		pause();
	return arg;
}

/* Children die with their parents: nobody else would end them. */
static void wait_in_vfork(void)
{
	if (vfork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			syscall(SYS_pause);
	}
	_exit(0);
}

static void leave_first_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, sleep_on, NULL))
		_exit(1);
	syscall(SYS_exit, 0);
}

/* In uninterruptible sleep, or a zombie that still has threads. */
static bool is_held(void *arg)
{
	char path[48], line[256];
	const char *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", *(pid_t *)arg);
	read_line(path, line, sizeof(line));
	state = strrchr(line, ')');
	return state && (state[2] == 'D' || state[2] == 'Z');
}

static void make(void)
{
	bool is_vfork = !strcmp(param_str("kind"), "vfork");

	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (is_vfork)
			wait_in_vfork();
		leave_first_thread();
	}
	if (child < 0 || !wait_until(is_held, &child))
		die("the child is not held: %s", strerror(errno));
	status_line("child %d", child);
}

static void check(void)
{
	if (!is_held(&child))
		bad("the child is not held any more");
}

static void stop(void)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

struct factory holds_factory = {
	.name	= "holds",
	.about	= "a child that cannot be stopped, or has lost its first thread",
	.params	= {
		{ "kind", "vfork", "vfork, or leader" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
