/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A tree of processes by chance: its members take turns at forking, leaving,
 * reaping, making sessions, groups and threads, all of it decided by a seed.
 * The root is a subreaper, and others become it, so that nobody gets lost.
 * What came out is read from /proc, and must be the same at every check.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

#define MAX_MEMBERS	60
#define MAX_THREADS	3	/* more, of one member */
#define STACK_BYTES	65536

/* What /proc/PID/stat tells of a member. */
struct place {
	int ppid, pgid, sid, tty, threads;
	char state;
};

struct member {
	pid_t pid;
	bool has_left;
	int answered;		/* the last round of checks */
	struct place place;
	char finding[96];
};

/* Shared by the whole tree, in a file. */
struct common {
	int turn;		/* the step that is taken, */
	int actor;		/* and who takes it */
	int nr_members;
	pid_t leaving;		/* who left in the step before */
	int resting;
	int round;
	struct member members[MAX_MEMBERS];
};

static volatile struct common *common;
static int us;			/* the number of this process, 0 for the root */
static int nr_threads;
static long step, nr_steps, max_members, stays_in_group;
static uint64_t state;

static struct common *shared(void)
{
	return (struct common *)common;
}

static long chance(long n)
{
	state = mix(state);
	return (state >> 16) % n;
}

static long need(const char *what, long rc)
{
	if (rc < 0)
		die("member %d, step %ld: %s: %s", us, step, what, strerror(errno));
	return rc;
}

/* ---- looking ---- */

static bool read_place(pid_t pid, struct place *ret)
{
	char path[32], text[512], *tail;
	int fd, n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	tail = strrchr(text, ')');
	return tail && sscanf(tail, ") %c %d %d %d %d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d",
			      &ret->state, &ret->ppid, &ret->pgid, &ret->sid, &ret->tty,
			      &ret->threads) == 6;
}

static bool has_left(void *arg)
{
	struct place p;

	/* The first thread may be a zombie before the others are gone. */
	return !read_place(*(pid_t *)arg, &p) || (p.state == 'Z' && p.threads <= 1);
}

static bool is_in_state(pid_t pid, char wanted)
{
	struct place p;

	return read_place(pid, &p) && p.state == wanted;
}

static bool is_stopped(void *arg)
{
	return is_in_state(*(pid_t *)arg, 'T');
}

/* ---- what members do ---- */

static void *rest(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

static void start_thread(void)
{
	pthread_attr_t attr;
	pthread_t t;
	sigset_t all, before;

	if (nr_threads == MAX_THREADS)
		return;
	nr_threads++;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	if (pthread_create(&t, &attr, rest, NULL))
		die("pthread_create");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The child has the next number; it waits for its turn like everybody. */
static void have_child(unsigned long flags)
{
	int number = common->nr_members;
	long pid;

	if (number == max_members)
		return;
	pid = need("clone", syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0));
	if (pid) {
		shared()->members[number].pid = pid;
		common->nr_members++;
		return;
	}
	us = number;
	nr_threads = 0;
}

static void leave(void)
{
	shared()->members[us].has_left = true;
	common->leaving = getpid();
}

static void join_some_group(pid_t who)
{
	const struct member *m = &shared()->members[chance(common->nr_members)];
	pid_t group = m->has_left ? 0 : getpgid(m->pid);

	if (group && getsid(m->pid) == getsid(0))
		(void)setpgid(who, group);	/* a leader of a session may not */
}

static void move_child(void)
{
	const struct member *m = &shared()->members[chance(common->nr_members)];
	struct place p;

	if (read_place(m->pid, &p) && p.ppid == getpid() && p.sid == getsid(0))
		join_some_group(m->pid);
}

static void act(void)
{
	bool may_move = us || !stays_in_group;
	long n = chance(100);

	if (n < 34)
		have_child(0);
	else if (n < 37 && us)
		have_child(CLONE_PARENT);
	else if (n < 48 && may_move)
		(void)setsid();			/* unless it leads a group */
	else if (n < 56 && may_move)
		(void)setpgid(0, 0);
	else if (n < 64 && may_move)
		join_some_group(0);
	else if (n < 69)
		move_child();
	else if (n < 83 && us)
		leave();
	else if (n < 89)
		waitpid(-1, NULL, WNOHANG);
	else if (n < 93)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	else if (n < 94 && us)
		prctl(PR_SET_CHILD_SUBREAPER, 0);
	else if (n < 98)
		start_thread();
}

/* ---- turns ---- */

static bool is_our_turn(void *arg)
{
	(void)arg;
	return common->turn >= nr_steps ||
	       __atomic_load_n(&shared()->actor, __ATOMIC_SEQ_CST) == us;
}

static void start_step(long number)
{
	int actor;

	state = mix(mix(param_long("seed")) + number);
	do
		actor = chance(common->nr_members);
	while (shared()->members[actor].has_left);
	common->turn = number;
	__atomic_store_n(&shared()->actor, actor, __ATOMIC_SEQ_CST);
}

/* A process that has left is a zombie, and its children are adopted, before anybody goes on. */
static void see_off(void)
{
	pid_t pid = common->leaving;

	if (pid && !wait_until(has_left, &pid))
		die("process %d does not leave", pid);
	common->leaving = 0;
}

static void die_somehow(void)
{
	if (chance(2))
		kill(getpid(), SIGKILL);
	_exit(chance(100));
}

static void take_steps(void)
{
	int here = us;

	for (;;) {
		if (!wait_until(is_our_turn, NULL))
			die("member %d waits for its turn", us);
		step = common->turn;
		if (step >= nr_steps)
			return;
		see_off();
		state = mix(mix(param_long("seed")) - step);
		act();
		/* a new process waits while its parent goes on */
		if (us == here)
			start_step(step + 1);
		if (shared()->members[us].has_left)
			die_somehow();
		here = us;
	}
}

/* ---- checks ---- */

static void check_self(void)
{
	struct member *m = &shared()->members[us];

	if (getppid() != m->place.ppid || getpgrp() != m->place.pgid || getsid(0) != m->place.sid)
		snprintf(m->finding, sizeof(m->finding), "it sees parent %d, group %d, session %d",
			 getppid(), getpgrp(), getsid(0));
	m->answered = common->round;
}

static void leave_now(void)
{
	_exit(0);
}

static bool has_answered(void *arg)
{
	return ((volatile struct member *)arg)->answered == common->round;
}

static void compare_place(const struct member *m, const struct place *now)
{
	const struct place *p = &m->place;

	if (m != shared()->members && now->ppid != p->ppid)
		bad("process %d: parent %d, expected %d", m->pid, now->ppid, p->ppid);
	if (now->pgid != p->pgid || now->sid != p->sid || now->tty != p->tty)
		bad("process %d: group, session, terminal are %d %d %d, expected %d %d %d", m->pid,
		    now->pgid, now->sid, now->tty, p->pgid, p->sid, p->tty);
	if (now->threads != p->threads)
		bad("process %d: %d threads, expected %d", m->pid, now->threads, p->threads);
	if ((now->state != p->state) && (strchr("ZT", p->state) || strchr("ZT", now->state)))
		bad("process %d: state %c, expected %c", m->pid, now->state, p->state);
}

static void ask(struct member *m)
{
	m->finding[0] = '\0';
	if (kill(m->pid, SIGUSR1) < 0)
		bad("process %d is gone", m->pid);
	else if (!wait_until(has_answered, m))
		bad("process %d does not answer", m->pid);
	else if (m->finding[0])
		bad("process %d: %s", m->pid, m->finding);
}

static void check(void)
{
	struct place now;
	int i;

	common->round++;
	for (i = 0; i < common->nr_members; i++) {
		struct member *m = &shared()->members[i];

		if (!m->place.state) /* reaped before all began */
			continue;
		if (!read_place(m->pid, &now))
			bad("process %d is gone", m->pid);
		else
			compare_place(m, &now);
		if (i && !strchr("ZT", m->place.state))
			ask(m);
	}
}

/* ---- all of it ---- */

static void map_common(void)
{
	int fd = need("open", open(dir_path("common"), O_RDWR | O_CREAT, 0600));

	need("ftruncate", ftruncate(fd, sizeof(*common)));
	common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (common == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	close(fd);
}

static bool all_rest(void *arg)
{
	int i, living = 0;

	(void)arg;
	for (i = 1; i < common->nr_members; i++)
		living += !shared()->members[i].has_left;
	return __atomic_load_n(&shared()->resting, __ATOMIC_SEQ_CST) == living;
}

static void stop_some(void)
{
	int i;

	for (i = 1; i < common->nr_members; i++) {
		struct member *m = &shared()->members[i];

		if (m->has_left || chance(8) != 0)
			continue;
		kill(m->pid, SIGSTOP);
		if (!wait_until(is_stopped, &m->pid))
			die("process %d does not stop", m->pid);
	}
}

static void make(void)
{
	int i;

	nr_steps = param_long("steps");
	max_members = param_long("members");
	stays_in_group = param_long("job");
	if (max_members < 1 || max_members > MAX_MEMBERS)
		die("members= is at most %d", MAX_MEMBERS);
	need("prctl", prctl(PR_SET_CHILD_SUBREAPER, 1));
	map_common();
	common->nr_members = 1;
	common->members[0].pid = getpid();
	start_step(0);
	take_steps();
	if (us) {
		__atomic_add_fetch(&shared()->resting, 1, __ATOMIC_SEQ_CST);
		serve_signals(check_self, leave_now);
	}
	see_off();
	if (!wait_until(all_rest, NULL))
		die("some members do not come to rest");
	state = mix(mix(param_long("seed")) - nr_steps);
	stop_some();
	for (i = 0; i < common->nr_members; i++) {
		struct member *m = &shared()->members[i];

		if (!read_place(m->pid, &m->place))
			m->place.state = '\0';
	}
}

/* Whoever loses its parent by that becomes a child of the root. */
static void stop(void)
{
	int i;

	signal(SIGHUP, SIG_IGN);	/* our group may lose its last parent outside while some are stopped */
	for (i = common->nr_members - 1; i > 0; i--)
		if (!shared()->members[i].has_left)
			kill(shared()->members[i].pid, SIGKILL);
	while (wait(NULL) > 0)
		;
}

struct factory randtree_factory = {
	.name	= "randtree",
	.about	= "a tree of processes by chance",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "seed", "1", "decides everything" },
		{ "steps", "150", "what is done" },
		{ "members", "60", "at most so many processes" },
		{ "job", "0", "1: the root stays in its session and group, those of a shell" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
