/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who is told by a signal that a descriptor is ready: owners that are a
 * process, a group, a thread, the signal to use, and in whose name it was set,
 * which decides whether the signal may be sent at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

#define PROCESS_SIGNAL	40
#define THREAD_SIGNAL	41
#define MAX_OWNED	12
#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS	17
#endif

struct owned {
	const char *what;
	int fd;
	/* as they were when made */
	struct f_owner_ex owner;
	int sig, status;
	uid_t uids[2];
};

static struct owned all[MAX_OWNED];
static int nr_owned;
static int told_process[2], told_thread[2], told_default[2], silent[2];
static pid_t child;
static volatile pid_t thread_tid;
static volatile int calls, last_sig, last_fd, last_code;
static volatile pid_t last_tid;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	last_sig = sig;
	last_fd = info->si_fd;
	last_code = info->si_code;
	last_tid = gettid();
	calls++;
}

static int remember(const char *what, int fd)
{
	if (fd < 0)
		die("%s: %s", what, strerror(errno));
	if (nr_owned == MAX_OWNED)
		die("too many descriptors");
	all[nr_owned].what = what;
	all[nr_owned++].fd = fd;
	return fd;
}

static void read_state(struct owned *o)
{
	o->owner.type = -1;
	if (fcntl(o->fd, F_GETOWN_EX, &o->owner) < 0)
		bad_errno(o->what);
	o->sig = fcntl(o->fd, F_GETSIG);
	o->status = fcntl(o->fd, F_GETFL);
	if (fcntl(o->fd, F_GETOWNER_UIDS, o->uids) < 0)
		o->uids[0] = o->uids[1] = -2;
}

static void set_owner(int fd, int type, pid_t pid, int sig)
{
	const struct f_owner_ex owner = { type, pid };

	if (fcntl(fd, F_SETOWN_EX, &owner) < 0 || fcntl(fd, F_SETSIG, sig) < 0)
		die("owner %d: %s", pid, strerror(errno));
}

/* For this thread only, and back: libc would do it for all. */
static void become(uid_t ruid, uid_t euid)
{
	if (syscall(SYS_setresuid, ruid, euid, 0) < 0)
		die("setresuid: %s", strerror(errno));
}

/* ---- making ---- */

static void *be_owner(void *arg)
{
	sigset_t mask;

	sigfillset(&mask);
	sigdelset(&mask, THREAD_SIGNAL);
	thread_tid = gettid();
	for (;;)
		sigsuspend(&mask);
	return arg;
}

static bool thread_runs(void *arg)
{
	(void)arg;
	return thread_tid;
}

static void start_thread(void)
{
	pthread_t thread;
	sigset_t all_signals, before;

	/* it shall take its signal in sigsuspend() and nothing else at any time */
	sigfillset(&all_signals);
	pthread_sigmask(SIG_SETMASK, &all_signals, &before);
	if (pthread_create(&thread, NULL, be_owner, NULL) || !wait_until(thread_runs, NULL))
		die("no thread");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void nothing(void)
{
}

static void child_leaves(void)
{
	_exit(11);
}

static void start_child(void)
{
	child = fork();
	if (child < 0)
		die("fork: %s", strerror(errno));
	if (!child)
		serve_signals(nothing, child_leaves);
	/* by the parent: it has to be done before the group can own something */
	if (setpgid(child, child) < 0)
		die("setpgid: %s", strerror(errno));
}

static int open_null(const char *what)
{
	return remember(what, open("/dev/null", O_RDWR));
}

static void make_plain(void)
{
	int fd = open_null("process by F_SETOWN");

	if (fcntl(fd, F_SETOWN, getpid()) < 0)
		die("F_SETOWN: %s", strerror(errno));
	fd = open_null("group by F_SETOWN");
	if (fcntl(fd, F_SETOWN, -getpgrp()) < 0)
		die("F_SETOWN: %s", strerror(errno));
	set_owner(open_null("the child"), F_OWNER_PID, child, SIGIO);
	set_owner(open_null("the group of the child"), F_OWNER_PGRP, child, 64);
	set_owner(open_null("a thread"), F_OWNER_TID, thread_tid, 0);
	fd = open_null("only a signal");
	if (fcntl(fd, F_SETSIG, SIGRTMIN) < 0)
		die("F_SETSIG: %s", strerror(errno));
	open_null("nothing");
}

static void make_pipe(const char *what, int *fds, int type, pid_t pid, int sig)
{
	if (pipe(fds) < 0)
		die("pipe: %s", strerror(errno));
	remember(what, fds[0]);
	set_owner(fds[0], type, pid, sig);
	if (fcntl(fds[0], F_SETFL, O_ASYNC | O_NONBLOCK) < 0)
		die("O_ASYNC: %s", strerror(errno));
}

/* Set by another user, who may not send signals to us. */
static void make_of_other_user(void)
{
	uid_t uid = param_long("uid");

	become(uid, uid + 1);
	make_pipe("owner set by another user", silent, F_OWNER_PID, getpid(), PROCESS_SIGNAL);
	become(0, 0);
	prctl(PR_SET_DUMPABLE, 1);
}

static void make(void)
{
	const struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	int i;

	if (sigaction(PROCESS_SIGNAL, &sa, NULL) < 0 || sigaction(THREAD_SIGNAL, &sa, NULL) < 0 ||
	    sigaction(SIGIO, &sa, NULL) < 0)
		die("sigaction: %s", strerror(errno));
	start_child();
	if (param_long("uid"))
		make_of_other_user();
	start_thread();
	make_plain();
	make_pipe("pipe, tells the process", told_process, F_OWNER_PID, getpid(), PROCESS_SIGNAL);
	make_pipe("pipe, tells the thread", told_thread, F_OWNER_TID, thread_tid, THREAD_SIGNAL);
	make_pipe("pipe, tells by SIGIO", told_default, F_OWNER_PGRP, getpgrp(), 0);
	for (i = 0; i < nr_owned; i++)
		read_state(&all[i]);
}

/* ---- check ---- */

static void same(const struct owned *o, const char *member, long expected, long got)
{
	char what[96];

	snprintf(what, sizeof(what), "%s: %s", o->what, member);
	same_long(what, expected, got);
}

static void check_owned(const struct owned *o)
{
	struct owned now = { .what = o->what, .fd = o->fd };

	read_state(&now);
	same(o, "type of owner", o->owner.type, now.owner.type);
	same(o, "owner", o->owner.pid, now.owner.pid);
	same(o, "signal", o->sig, now.sig);
	same(o, "flags", o->status, now.status);
	same(o, "uid of the owner", o->uids[0], now.uids[0]);
	same(o, "effective uid of the owner", o->uids[1], now.uids[1]);
}

static bool was_called(void *arg)
{
	return calls > *(int *)arg;
}

static void drain(int fd)
{
	char c[16];

	while (read(fd, c, sizeof(c)) > 0)
		;
}

/* @sig 0: nobody is told. */
static void check_told(const char *what, const int *fds, int sig, pid_t tid)
{
	int before = calls;

	if (write(fds[1], "x", 1) != 1)
		bad_errno(what);
	if (!sig) {
		/* the call would have returned by way of the handler */
		same_long(what, before, calls);
	} else if (!wait_until(was_called, &before)) {
		bad("%s: no signal", what);
	} else {
		same_long(what, sig, last_sig);
		same_long(what, tid, last_tid);
		if (sig != SIGIO) {
			same_long(what, fds[0], last_fd);
			same_long(what, POLL_IN, last_code);
		}
	}
	drain(fds[0]);
	same_long(what, before + (sig ? 1 : 0), calls);
}

static void check(void)
{
	sigset_t set, before;
	int i;

	for (i = 0; i < nr_owned; i++)
		check_owned(&all[i]);
	/* SIGIO goes to whichever thread has it unblocked, that is this one */
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_UNBLOCK, &set, &before);
	check_told("pipe, tells the process", told_process, PROCESS_SIGNAL, getpid());
	check_told("pipe, tells the thread", told_thread, THREAD_SIGNAL, thread_tid);
	check_told("pipe, tells by SIGIO", told_default, SIGIO, getpid());
	if (param_long("uid"))
		check_told("owner set by another user", silent, 0, 0);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static void stop(void)
{
	int status = 0;

	kill(child, SIGTERM);
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 11)
		bad("exit status of the child, expected 11, got %#x", status);
}

struct factory fown_factory = {
	.name	= "fown",
	.about	= "owners and signals of descriptors",
	.params	= {
		{ "uid", "0", "this user sets one of the owners" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
