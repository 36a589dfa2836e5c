/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A tree of processes with all kinds of sessions and process groups. Every
 * member remembers its ids and its children, and writes what it finds into
 * its record of one file; the root reads the records.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

#define MAX_MEMBERS	512
#define MAX_WIDTH	64
#define DATA_BYTES	(3 * PAGE)
#define ZOMBIE_CODE	42

/* How a child stands to the session and group of its parent; its number chooses. */
enum layout { PLAIN, OWN_GROUP, OWN_SESSION, GROUP_OF_SIBLING, NR_LAYOUTS };

struct record {
	long round;		/* of the last check that was answered */
	pid_t pid;
	bool ready;
	char finding[128];
};

struct ids {
	pid_t pid, ppid, sid, pgid;
};

static struct ids mine;
static int index_here;		/* number of this process in the tree, the root is 0 */
static long width, zombies;
static int results;		/* one struct record for each member */
static long round_now;
static struct record answer;
static pid_t children[2 * MAX_WIDTH], dead[MAX_WIDTH];
static int members[2 * MAX_WIDTH];	/* numbers of the children */
static int nr_children;
static int nr_members;
static unsigned char *inherited;	/* private memory: filled by the root, changed by each */
static long *common;			/* shared memory: one counter for each member */

static struct ids read_ids(void)
{
	struct ids ids = { getpid(), getppid(), getsid(0), getpgrp() };

	return ids;
}

static void finding(const char *fmt, ...)
{
	va_list ap;

	if (answer.finding[0])
		return;
	va_start(ap, fmt);
	vsnprintf(answer.finding, sizeof(answer.finding), fmt, ap);
	va_end(ap);
}

static void expect(const char *what, long expected, long got)
{
	if (expected != got)
		finding("%s, expected %ld, got %ld", what, expected, got);
}

static void write_answer(void)
{
	if (pwrite(results, &answer, sizeof(answer), index_here * sizeof(answer)) != sizeof(answer))
		_exit(99);
}

static bool read_answer(int member, struct record *ret_answer)
{
	return pread(results, ret_answer, sizeof(*ret_answer), member * sizeof(*ret_answer)) ==
	       sizeof(*ret_answer);
}

/* ---- checking ---- */

static void check_children(void)
{
	siginfo_t info;
	int i;

	for (i = 0; i < nr_children; i++) {
		info.si_pid = 0;
		if (waitid(P_PID, children[i], &info, WEXITED | WNOHANG | WNOWAIT) < 0)
			finding("child %d is lost: %s", children[i], strerror(errno));
		else if (info.si_pid)
			finding("child %d is dead: code %d, status %d", children[i], info.si_code,
				info.si_status);
	}
	for (i = 0; i < zombies; i++) {
		info.si_pid = 0;
		if (waitid(P_PID, dead[i], &info, WEXITED | WNOHANG | WNOWAIT) < 0)
			finding("zombie %d is lost: %s", dead[i], strerror(errno));
		expect("zombie", dead[i], info.si_pid);
		/* every second one was killed by a signal */
		expect("how the zombie died", i % 2 ? CLD_KILLED : CLD_EXITED, info.si_code);
		expect("status of the zombie", i % 2 ? SIGKILL : ZOMBIE_CODE, info.si_status);
	}
}

/* Only the byte of this member differs from what the root wrote. */
static void check_memory(void)
{
	ssize_t at;

	inherited[index_here] ^= 0xff;
	at = verify(inherited, DATA_BYTES, 77);
	inherited[index_here] ^= 0xff;
	if (at >= 0)
		finding("inherited memory differs at byte %zd", at);
	if (common)
		expect("shared counter", round_now - 1, common[index_here]++);
}

static void check_self(void)
{
	struct ids now = read_ids();

	round_now++;
	answer.finding[0] = '\0';
	expect("pid", mine.pid, now.pid);
	if (index_here)		/* who adopts the root is not its business */
		expect("parent", mine.ppid, now.ppid);
	expect("session", mine.sid, now.sid);
	expect("process group", mine.pgid, now.pgid);
	check_children();
	check_memory();
	answer.round = round_now;
}

static void check_member(void)
{
	check_self();
	write_answer();
}

/* ---- the end ---- */

static int exit_code(int member)
{
	return member % 50 + 1;
}

static void stop_child(pid_t pid, int expected)
{
	int status = 0;

	kill(pid, SIGTERM);
	if (waitpid(pid, &status, 0) != pid)
		finding("waitpid %d: %s", pid, strerror(errno));
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
		finding("child %d left with status %#x, expected exit code %d", pid, status,
			expected);
}

static int subtree_size(long depth)
{
	int size = 1;

	for (; depth > 0; depth--)
		size = size * width + 1;
	return size;
}

static long depth_here;

static int child_index(int nr)
{
	return index_here + 1 + nr * subtree_size(depth_here - 1);
}

static void stop_children(void)
{
	int i;

	answer.finding[0] = '\0';
	for (i = 0; i < nr_children; i++)
		stop_child(children[i], exit_code(members[i]));
	for (i = 0; i < zombies; i++)
		if (waitpid(dead[i], NULL, WNOHANG) != dead[i])
			finding("zombie %d cannot be waited for", dead[i]);
}

static void stop_member(void)
{
	stop_children();
	_exit(answer.finding[0] ? 99 : exit_code(index_here));
}

/* ---- making ---- */

static void take_layout(int nr)
{
	int rc = 0;

	switch (nr % NR_LAYOUTS) {
	case PLAIN:
		break;
	case OWN_GROUP:
		rc = setpgid(0, 0);
		break;
	case OWN_SESSION:
		rc = setsid() < 0 ? -1 : 0;
		break;
	case GROUP_OF_SIBLING:
		rc = setpgid(0, children[nr - 2]);	/* the one in a group of its own */
		break;
	}
	if (rc < 0)
		_exit(98);
}

struct question {
	int member;
	struct record r;
};

static bool is_ready(void *arg)
{
	struct question *q = arg;

	return read_answer(q->member, &q->r) && q->r.ready;
}

static void make_children(void);

static void be_member(int index)
{
	/* the parent's mark came along */
	inherited[index_here] ^= 0xff;
	index_here = index;
	inherited[index_here] ^= 0xff;
	nr_children = 0;
	mine = read_ids();
	make_children();
	answer.pid = mine.pid;
	answer.ready = true;
	write_answer();
	serve_signals(check_member, stop_member);
}

static void be_child(int nr)
{
	int index = child_index(nr);

	take_layout(nr);
	depth_here--;
	be_member(index);
}

static void make_zombie(int nr)
{
	siginfo_t info;
	pid_t pid = fork();

	if (!pid) {
		if (nr % 2)
			kill(getpid(), SIGKILL);
		_exit(ZOMBIE_CODE);
	}
	dead[nr] = pid;
	waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
}

/* One after the other: a later sibling joins the group of an earlier one. */
static void make_children(void)
{
	struct question q;
	int i;

	for (i = 0; i < zombies; i++)
		make_zombie(i);
	for (i = 0; depth_here && i < width; i++) {
		pid_t pid = fork();

		if (pid < 0)
			_exit(97);
		if (!pid)
			be_child(i);
		children[nr_children] = pid;
		members[nr_children++] = q.member = child_index(i);
		if (!wait_until(is_ready, &q))
			_exit(96);
	}
}

static bool is_adopted(void *arg)
{
	return getppid() == *(pid_t *)arg;
}

static void be_orphan(int index, pid_t root)
{
	if (!wait_until(is_adopted, &root))
		_exit(95);
	depth_here = zombies = 0;
	be_member(index);
}

/* A process whose session leader is dead: the leader leaves as soon as it has forked. */
static void make_orphan(int index)
{
	struct question q = { .member = index };
	pid_t root = getpid(), leader = fork();

	if (!leader) {
		setsid();
		if (!fork())
			be_orphan(index, root);
		_exit(0);
	}
	if (leader < 0 || waitpid(leader, NULL, 0) != leader || !wait_until(is_ready, &q))
		die("orphan: %s", strerror(errno));
	children[nr_children] = q.r.pid;
	members[nr_children++] = index;
}

static volatile sig_atomic_t news;	/* signals that told of children */
static int news_before;
static pid_t stopped;

static void on_child(int sig)
{
	(void)sig;
	news++;
}

static void leave_at_once(void)
{
	_exit(0);
}

static void do_nothing(void)
{
}

/*
 * Known to be stopped: nobody has to be told again, unless news=1. In a group of its own, or the
 * kernel would not let it be stopped by all signals.
 */
static void make_stopped(int sig)
{
	struct sigaction action = { .sa_handler = on_child };
	siginfo_t info = { 0 };
	int status;

	stopped = fork();
	if (!stopped) {
		setpgid(0, 0);
		serve_signals(do_nothing, leave_at_once);
	}
	setpgid(stopped, stopped);
	sigaction(SIGCHLD, &action, NULL);
	kill(stopped, sig);
	if (waitid(P_PID, stopped, &info, WSTOPPED | WNOWAIT) < 0 || info.si_status != sig)
		die("stopped child: %s, signal %d", strerror(errno), info.si_status);
	if (!param_long("news") && waitpid(stopped, &status, WUNTRACED) != stopped)
		die("stopped child: %s", strerror(errno));
	news_before = news;
}

static void check_stopped(void)
{
	siginfo_t info = { 0 };
	char path[32], line[256];

	if (!stopped)
		return;
	same_long("signals that tell of children", news_before, news);
	if (waitid(P_PID, stopped, &info, WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT) < 0)
		bad_errno("waitid");
	same_long("child with news", param_long("news") ? stopped : 0, info.si_pid);
	same_long("signal that stopped it", param_long("news") ? param_long("stopped") : 0,
		  info.si_pid ? info.si_status : 0);
	snprintf(path, sizeof(path), "/proc/%d/stat", stopped);
	read_line(path, line, sizeof(line));
	if (!strstr(line, ") T "))
		bad("the stopped child is not stopped: %s", line);
}

static void make_memory(void)
{
	inherited = mmap(NULL, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	if (inherited == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	fill(inherited, DATA_BYTES, 77);
	inherited[0] ^= 0xff;
	if (!param_long("shm"))
		return;
	common = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (common == MAP_FAILED)
		die("mmap: %s", strerror(errno));
}

static void make(void)
{
	long orphans = param_long("orphans");

	width = param_long("width");
	zombies = param_long("zombies");
	depth_here = param_long("depth");
	if (width < 0 || width > MAX_WIDTH || zombies < 0 || zombies > MAX_WIDTH ||
	    orphans > MAX_WIDTH)
		die("width=, zombies= and orphans= are at most %d", MAX_WIDTH);
	if (depth_here < 0 || depth_here > 8 || subtree_size(depth_here) + orphans > MAX_MEMBERS)
		die("that are too many processes");
	nr_members = subtree_size(depth_here);
	results = open(dir_path("results"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (results < 0)
		die("results: %s", strerror(errno));
	make_memory();
	mine = read_ids();
	make_children();
	if (orphans)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (; orphans > 0; orphans--)
		make_orphan(nr_members++);
	if (param_long("stopped"))
		make_stopped(param_long("stopped"));
}

/* ---- the root asks all ---- */

static bool has_answered(void *arg)
{
	struct question *q = arg;

	return read_answer(q->member, &q->r) && q->r.round == round_now;
}

static void check(void)
{
	struct question q;

	check_stopped();
	check_self();
	if (answer.finding[0])
		bad("root: %s", answer.finding);
	for (q.member = 1; q.member < nr_members; q.member++) {
		if (!read_answer(q.member, &q.r) || kill(q.r.pid, SIGUSR1) < 0)
			bad("member %d, process %d: %s", q.member, q.r.pid, strerror(errno));
		else if (!wait_until(has_answered, &q))
			bad("member %d does not answer", q.member);
		else if (q.r.finding[0])
			bad("member %d, process %d: %s", q.member, q.r.pid, q.r.finding);
	}
}

static void stop(void)
{
	if (stopped) {
		signal(SIGCHLD, SIG_DFL);
		kill(stopped, SIGTERM);
		kill(stopped, SIGCONT);
		if (waitpid(stopped, NULL, 0) != stopped)
			bad_errno("wait for the stopped child");
	}
	stop_children();
	if (answer.finding[0])
		bad("%s", answer.finding);
}

struct factory tree_factory = {
	.name	= "tree",
	.about	= "processes in sessions and groups of their own",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "depth", "2", "levels below the root" },
		{ "width", "4", "children of each, in four kinds of groups and sessions" },
		{ "zombies", "0", "dead children of each that nobody waited for" },
		{ "orphans", "0", "children of the root whose session leader is dead" },
		{ "stopped", "0", "a child of the root is stopped by that signal" },
		{ "news", "0", "1: nobody has asked for that yet" },
		{ "shm", "0", "1: a page of shared anonymous memory" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
