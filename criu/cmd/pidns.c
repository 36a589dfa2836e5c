/* SPDX-License-Identifier: GPL-2.0-only */
#include "cmd/pidns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "image/image.h"
#include "image/messages.h"

static bool any_is_taken(const PstreeEntry *e)
{
	for (size_t i = 0; i < e->n_threads; i++)
		if (kill(e->threads[i], 0) == 0 || errno == EPERM)
			return true;
	return kill(e->pid, 0) == 0 || errno == EPERM;
}

/* What is wrong with the images is told by the restore itself. */
static bool is_taken(const struct options *o)
{
	autoclose int dir = open(o->images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct arena a = { 0 };
	struct image_in in;
	PstreeEntry *e;
	bool is_found = false;

	if (dir < 0 || image_open(&in, dir, IMG_PSTREE, 0) <= 0)
		return false;
	while (!is_found && image_next(&in, &a, NULL, &e) > 0)
		is_found = any_is_taken(e);
	image_close(&in);
	arena_done(&a);
	return is_found;
}

bool pidns_is_wanted(const struct options *o)
{
	return o->pidns == PIDNS_NEW || (o->pidns == PIDNS_AUTO && is_taken(o));
}

/* Those that a user sends to a program; and the news of a child. */
static const int signals[] = { SIGCHLD, SIGHUP,	 SIGINT,  SIGQUIT,  SIGTERM,
			       SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH, SIGALRM };

static sigset_t followed_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	return set;
}

/* Returns true with the status of the child, if that is among the dead. */
static bool reap(pid_t child, int *ret_status)
{
	bool is_gone = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		if (pid == child && (WIFEXITED(status) || WIFSIGNALED(status))) {
			is_gone = true;
			*ret_status =
				WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
	return is_gone || (pid < 0 && errno == ECHILD);
}

/*
 * Stands between whoever has started us and the child. Signals of the terminal reach it anyhow:
 * those are of the kernel. They have been blocked since before there was a tree: none is lost.
 */
static int follow(pid_t child)
{
	const sigset_t set = followed_signals();
	int status = 0;

	while (!reap(child, &status)) {
		siginfo_t info;
		int sig = sigwaitinfo(&set, &info);

		if (sig > 0 && sig != SIGCHLD && info.si_code <= 0)
			(void)kill(child, sig);
	}
	return status;
}

static int make_proc(void)
{
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail(errno, "new pid namespace: keep its mounts apart");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return fail(errno, "new pid namespace: mount /proc");
	return 0;
}

/* Nobody may wait for us, or for an end of file that we would keep back. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; fd < 3 && null >= 0; fd++)
		(void)dup2(null, fd);
	(void)close_range(3, ~0u, 0);
}

/* The root, our only child, as that /proc knows it. */
static pid_t find_root(int proc)
{
	char text[256];

	if (read_small_at(proc, "thread-self/children", text, sizeof(text)) <= 0)
		return -1;
	return strtol(text, NULL, 10);
}

static int be_first(const struct options *o, int (*restore)(const struct options *o),
		    const sigset_t *before, int tell)
{
	const sigset_t followed = followed_signals();
	struct options inner = *o;
	char done = 0;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigprocmask(SIG_SETMASK, before, NULL);
	inner.detach = true;
	inner.outer_proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int status = inner.outer_proc < 0 || make_proc() < 0 ? 1 : restore(&inner);
	if (status) {
		if (!log_is_stderr() && log_first_error()[0])
			fprintf(stderr, "criu: restore: %s\n", log_first_error());
		return status;
	}
	sigprocmask(SIG_SETMASK, &followed, NULL);
	(void)prctl(PR_SET_PDEATHSIG, 0);
	autoclose int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pid_t root = find_root(proc);
	if (write(tell, &done, 1) != 1)
		return 1;
	if (o->detach)
		leave_terminal();
	return follow(root);
}

int pidns_restore(const struct options *o, int (*restore)(const struct options *o))
{
	const sigset_t followed = followed_signals();
	sigset_t before;
	int fds[2];
	char done;

	if (o->sibling) {
		(void)refuse(EINVAL, "--pidns and --restore-sibling: the caller is in another pid "
				     "namespace than the tree; leave one of them out");
		return 1;
	}
	if (pipe2(fds, O_CLOEXEC) < 0) {
		(void)fail(errno, "make a pipe");
		return 1;
	}
	autoclose int hear = fds[0], tell = fds[1];
	info("restoring into a new pid namespace");
	sigprocmask(SIG_BLOCK, &followed, &before);
	long first = syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
	if (first < 0) {
		(void)fail(errno, "make a new pid namespace");
		return 1;
	}
	if (first == 0)
		_exit(be_first(o, restore, &before, tell));
	own_close(&tell);
	tell = -1;
	ssize_t n;
	do
		n = read(hear, &done, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1 && o->detach)
		return 0;
	return follow(first);
}

pid_t pidns_outer_pid(const struct options *o, pid_t pid)
{
	return o->outer_proc < 0 ? pid : find_root(o->outer_proc);
}
