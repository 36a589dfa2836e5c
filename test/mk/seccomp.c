/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * seccomp: filters of the process and more of its threads and children, with and without
 * no_new_privs, a child in strict mode and one whose filter kills it for almost anything. The
 * children answer through pipes. Each filter makes one call, which nobody else makes, fail with
 * an error of its own; the youngest filter wins.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

#define MAX_THREADS	8
#define FIRST_ERROR	200	/* no real one */

/* Calls without an effect with the arguments that we give them. */
static const int calls[] = { SYS_acct, SYS_swapoff, SYS_quotactl, SYS_vhangup, SYS_pivot_root,
			     SYS_iopl, SYS_syslog, SYS_sysfs };

static struct filter_thread {
	pthread_t thread;
	int number, to[2], from[2];
} threads[MAX_THREADS];

static struct echo {
	pid_t pid;
	int to, from;
} strict_child, tight_child, plain_child;

static int nr_threads, base_filters, tsyncs;

static int try(int call)
{
	errno = 0;
	syscall(call, -1, -1, -1, -1, -1, -1);
	return errno;
}

static void install(const struct sock_filter *insn, unsigned short n, unsigned int flags)
{
	struct sock_fprog prog = { n, (struct sock_filter *)insn };

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog))
		die("seccomp: %s", strerror(errno));
}

/* The call fails with that error; nothing else changes. */
static void forbid(int call, int error, unsigned int flags)
{
	const struct sock_filter insn[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	install(insn, ARRAY_SIZE(insn), flags);
}

/* All but what a loop of read and write needs kills. */
static void allow_almost_nothing(void)
{
	const struct sock_filter insn[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	install(insn, ARRAY_SIZE(insn), 0);
}

/* Sends each byte back; a 0 asks for a call that is forbidden. Uses nothing of libc's. */
static void echo_for_ever(int in, int out)
{
	char c;

	while (syscall(SYS_read, in, &c, 1) == 1) {
		if (!c)
			syscall(SYS_getppid);
		syscall(SYS_write, out, &c, 1);
	}
	syscall(SYS_exit, 0);
}

static void enter_strict(void)
{
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
		die("strict mode: %s", strerror(errno));
}

static void no_change(void)
{
}

static void start_child(struct echo *e, void (*enter)(void))
{
	int to[2], from[2];
	char c = 'a';

	if (pipe(to) < 0 || pipe(from) < 0)
		die("pipe: %s", strerror(errno));
	e->pid = fork();
	if (e->pid == 0) {
		close(to[1]);
		close(from[0]);
		enter();
		echo_for_ever(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	e->to = to[1];
	e->from = from[0];
	/* it is in its mode when it has answered */
	if (write(e->to, &c, 1) != 1 || read(e->from, &c, 1) != 1)
		die("a child under seccomp does not answer");
}

/* ---- threads: each has the filters of those before it, by being made by them, and one more ---- */

static void *filter_thread(void *arg)
{
	struct filter_thread *t = arg;
	int ask;

	forbid(calls[1 + t->number % (ARRAY_SIZE(calls) - 1)], FIRST_ERROR + 1 + t->number, 0);
	while (write(t->from[1], &t->number, sizeof(int)) == sizeof(int) &&
	       read(t->to[0], &ask, sizeof(ask)) == sizeof(ask)) {
		int error = try(calls[ask]);

		if (write(t->from[1], &error, sizeof(error)) != sizeof(error))
			break;
	}
	return NULL;
}

static void start_thread(int i)
{
	struct filter_thread *t = &threads[i];
	int number;

	t->number = i;
	if (pipe(t->to) < 0 || pipe(t->from) < 0 ||
	    pthread_create(&t->thread, NULL, filter_thread, t))
		die("thread %d: %s", i, strerror(errno));
	if (read(t->from[0], &number, sizeof(number)) != sizeof(number))
		die("thread %d does not start", i);
}

static int ask_thread(struct filter_thread *t, int call)
{
	int answer = -1, number;

	if (write(t->to[1], &call, sizeof(call)) != sizeof(call) ||
	    read(t->from[0], &answer, sizeof(answer)) != sizeof(answer) ||
	    read(t->from[0], &number, sizeof(number)) != sizeof(number))
		bad("thread %d does not answer", t->number);
	return answer;
}

static void make(void)
{
	int i;

	if (param_long("nnp") && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("no_new_privs: %s", strerror(errno));
	start_child(&plain_child, no_change);
	start_child(&strict_child, enter_strict);
	start_child(&tight_child, allow_almost_nothing);
	base_filters = param_long("filters");
	for (i = 0; i < base_filters; i++)
		forbid(calls[0], FIRST_ERROR + 50 + i, i % 2 ? SECCOMP_FILTER_FLAG_LOG : 0);
	nr_threads = param_long("threads");
	if (nr_threads > MAX_THREADS)
		die("threads= is too large");
	for (i = 0; i < nr_threads; i++)
		start_thread(i);
	if (base_filters) {
		/* one more below the chain of the process */
		close(tight_child.to);
		close(tight_child.from);
		waitpid(tight_child.pid, NULL, 0);
		start_child(&tight_child, allow_almost_nothing);
	}
}

/* ---- check ---- */

static void check_child(struct echo *e, const char *what)
{
	char c = 'x';

	if (write(e->to, &c, 1) != 1 || read(e->from, &c, 1) != 1 || c != 'x')
		bad("the child %s does not answer", what);
}

static void check_thread(struct filter_thread *t)
{
	int own = 1 + t->number % (ARRAY_SIZE(calls) - 1);

	if (base_filters)
		same_long("error by the filters of the process", FIRST_ERROR + 50 + base_filters - 1,
			  ask_thread(t, 0));
	same_long("error by the filter of the thread", FIRST_ERROR + 1 + t->number,
		  ask_thread(t, own));
	if (nr_threads > 1 && nr_threads < (int)ARRAY_SIZE(calls)) {
		int other = 1 + (t->number + 1) % nr_threads;
		int error = ask_thread(t, other);

		if (error >= FIRST_ERROR)
			bad("thread %d has the filter of another: error %d", t->number, error);
	}
}

/* The threads' chains are parts of ours, if they are still the same filters. */
static void check_sync(void)
{
	const struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = { 1, (struct sock_filter *)&all };
	long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);

	if (rc)
		bad("filters are not synchronized: %ld %s", rc, rc < 0 ? strerror(errno) : "");
	tsyncs++;
}

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void check(void)
{
	int i;

	check_child(&plain_child, "without seccomp");
	check_child(&strict_child, "in strict mode");
	check_child(&tight_child, "that may do almost nothing");
	if (base_filters)
		same_long("error by the filters", FIRST_ERROR + 50 + base_filters - 1, try(calls[0]));
	else if (try(calls[0]) >= FIRST_ERROR)
		bad("a filter came from nowhere");
	for (i = 0; i < nr_threads; i++)
		check_thread(&threads[i]);
	if (param_long("sync")) {
		pthread_t thread;

		if (!tsyncs && pthread_create(&thread, NULL, sleeper, NULL))
			die("pthread_create: %s", strerror(errno));
		check_sync();
	}
	same_long("no_new_privs", param_long("nnp"), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

/* What is forbidden is still forbidden. */
static void end_by(struct echo *e, int sig, const char *what)
{
	int status = 0;
	char c = 0;

	if (write(e->to, &c, 1) != 1 || waitpid(e->pid, &status, 0) != e->pid ||
	    !WIFSIGNALED(status) || WTERMSIG(status) != sig)
		bad("the child %s ended with status %#x", what, status);
}

static void stop(void)
{
	end_by(&strict_child, SIGKILL, "in strict mode");
	end_by(&tight_child, SIGSYS, "that may do almost nothing");
	kill(plain_child.pid, SIGTERM);
}

struct factory seccomp_factory = {
	.name	= "seccomp",
	.about	= "strict mode and filters of processes, threads and children",
	.params	= {
		{ "filters", "3", "how many the process has" },
		{ "threads", "0", "that many with a filter of their own" },
		{ "nnp", "1", "0: without no_new_privs" },
		{ "sync", "0", "1: each check gives all threads one more filter" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
