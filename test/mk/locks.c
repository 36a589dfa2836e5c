/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Locks of files: of processes (POSIX), of open file descriptions, flock, and
 * on demand leases, a thread that waits for a lock, a lock whose taker is
 * gone. A process of no lasting asks from outside what is locked, and
 * /proc/locks must list the same ones.
 *
 * Nobody here may close a second descriptor of the POSIX file: the kernel
 * would drop all locks the process has on it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"

#define MAX_LINES	32
#define LINE_BYTES	96
#define MAX_FILES	12
#define FAR		1000000000L	/* behind the end of every file here */

enum kind { POSIX, OFD, FLOCK };
enum owner { NOBODY, PARENT, CHILD, ANYONE, DESCRIPTION };

/* Somebody else asks for the range: which lock is in the way? */
static const struct question {
	const char *what;
	const char *name;
	enum kind kind;
	short type;
	long start, len;
	/* the answer */
	enum owner owner;
	short held;
	long held_start, held_len;
} questions[] = {
	{ "write lock", "posix", POSIX, F_RDLCK, 5, 1, PARENT, F_WRLCK, 0, 10 },
	{ "two read locks", "posix", POSIX, F_WRLCK, 20, 10, ANYONE, F_RDLCK, 20, 10 },
	{ "another reader", "posix", POSIX, F_RDLCK, 20, 10, NOBODY, F_UNLCK, 0, 0 },
	{ "write lock of the child", "posix", POSIX, F_RDLCK, 150, 1, CHILD, F_WRLCK, 100, 100 },
	{ "lock to infinity", "posix", POSIX, F_RDLCK, FAR + 7, 1, PARENT, F_WRLCK, FAR, 0 },
	{ "between the locks", "posix", POSIX, F_WRLCK, 300, FAR - 300, NOBODY, F_UNLCK, 0, 0 },
	{ "lock in an empty file", "empty", POSIX, F_RDLCK, 0, 0, CHILD, F_WRLCK, 0, 0 },
	{ "write lock of a description", "ofd", OFD, F_RDLCK, 0, 1, DESCRIPTION, F_WRLCK, 0, 50 },
	{ "description against process", "ofd", POSIX, F_RDLCK, 0, 1, DESCRIPTION, F_WRLCK, 0, 50 },
	{ "read locks of descriptions", "ofd", OFD, F_WRLCK, 65, 1, DESCRIPTION, F_RDLCK, 60, 20 },
	{ "description to infinity", "ofd", OFD, F_RDLCK, FAR, 1, DESCRIPTION, F_WRLCK, 1000, 0 },
	{ "free in between", "ofd", OFD, F_WRLCK, 80, 100, NOBODY, F_UNLCK, 0, 0 },
	{ "exclusive flock", "flock-ex", FLOCK, LOCK_SH, 0, 0, DESCRIPTION, 0, 0, 0 },
	{ "shared flock", "flock-sh", FLOCK, LOCK_EX, 0, 0, DESCRIPTION, 0, 0, 0 },
	{ "another shared flock", "flock-sh", FLOCK, LOCK_SH, 0, 0, NOBODY, 0, 0, 0 },
};

struct answer {
	int error;
	struct flock lock;
};

static ino_t inodes[MAX_FILES];
static int nr_files;
static int posix, empty, ofd_a, ofd_b, flock_ex, flock_dup, flock_sh_a, flock_sh_b;
static int lease_read = -1, lease_write = -1, waiting = -1, gone = -1;
static int broken[2] = { -1, -1 };	/* leases: one becomes one for reading, the other ends */
static volatile sig_atomic_t ios;
static pid_t child;
static char lines[MAX_LINES][LINE_BYTES];
static int nr_lines;

static int open_file(const char *name, int flags)
{
	struct stat st;
	int fd = open(dir_path(name), flags, 0644);

	if (fd < 0 || fstat(fd, &st) < 0)
		die("%s: %s", name, strerror(errno));
	if (flags & O_CREAT)
		inodes[nr_files++] = st.st_ino;
	return fd;
}

static int range(int fd, int command, short type, long start, long len)
{
	struct flock lock = { .l_type = type, .l_start = start, .l_len = len };

	return fcntl(fd, command, &lock);
}

static void must_lock(int fd, int command, short type, long start, long len)
{
	if (range(fd, command, type, start, len) < 0)
		die("lock %ld, %ld bytes: %s", start, len, strerror(errno));
}

static void must_flock(int fd, int how)
{
	if (flock(fd, how | LOCK_NB) < 0)
		die("flock: %s", strerror(errno));
}

/* ---- /proc/locks ---- */

static bool is_ours(const char *line)
{
	char number[32];
	int i;

	for (i = 0; i < nr_files; i++) {
		snprintf(number, sizeof(number), ":%lu ", (unsigned long)inodes[i]);
		if (strstr(line, number))
			return true;
	}
	return false;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

/*
 * Without the number of the line. Nobody can bring back as owner who is gone; inside a pid
 * namespace the kernel does not list such a lock at all.
 */
static void copy_line(const char *line, char *ret_line)
{
	char kind[16], mode[16], type[16], where[64], wait[4] = "";
	int owner, used = 0;

	sscanf(line, "%*d: %n", &used);
	if (!strncmp(line + used, "-> ", 3)) {
		strcpy(wait, "-> ");
		used += 3;
	}
	if (sscanf(line + used, "%15s %15s %15s %d %63[^\n]", kind, mode, type, &owner, where) != 5)
		where[0] = '\0';
	snprintf(ret_line, LINE_BYTES, "%s%s %s %s %d %s", wait, kind, mode, type, owner, where);
}

static int read_locks_once(char list[][LINE_BYTES])
{
	char line[256], buf[4096];
	FILE *f = fopen("/proc/locks", "re");
	int nr = 0;

	if (f)
		setvbuf(f, buf, _IOFBF, sizeof(buf));
	while (f && nr < MAX_LINES && fgets(line, sizeof(line), f))
		if (is_ours(line) && !(gone >= 0 && strstr(line, " FLOCK ")))
			copy_line(line, list[nr++]);
	if (f)
		fclose(f);
	qsort(list, nr, LINE_BYTES, by_text);
	return nr;
}

/*
 * The kernel gives the list page by page; where others lock and unlock between two pages, lines
 * come twice or not at all. What was read twice alike is true.
 */
static int read_locks(char list[][LINE_BYTES])
{
	char again[MAX_LINES][LINE_BYTES];
	int nr;

	do {
		memset(list, 0, sizeof(again));
		memset(again, 0, sizeof(again));
		nr = read_locks_once(list);
	} while (nr != read_locks_once(again) || memcmp(list, again, sizeof(again)));
	return nr;
}

/* ---- the child ---- */

static void nothing(void)
{
}

static void child_leaves(void)
{
	_exit(11);
}

static pid_t owner_of(int fd, long start)
{
	struct flock lock = { .l_type = F_WRLCK, .l_start = start, .l_len = 1 };

	return fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

/*
 * Waits for the first byte. Once it was there: takes the second to say so,
 * gives back the first, and the second when the parent has the first again.
 */
static void *wait_for_lock(void *arg)
{
	const struct timespec pause = { 0, 1000000 };

	for (;;) {
		if (range(waiting, F_SETLKW, F_WRLCK, 0, 1) < 0 ||
		    range(waiting, F_SETLK, F_WRLCK, 1, 1) < 0 ||
		    range(waiting, F_SETLK, F_UNLCK, 0, 1) < 0)
			_exit(98);
		while (owner_of(waiting, 0) != getppid())
			nanosleep(&pause, NULL);
		if (range(waiting, F_SETLK, F_UNLCK, 1, 1) < 0)
			_exit(97);
	}
	return arg;
}

static void child_life(int ready)
{
	pthread_t thread;

	must_lock(posix, F_SETLK, F_RDLCK, 20, 10);
	must_lock(posix, F_SETLK, F_WRLCK, 100, 100);
	must_lock(empty, F_SETLK, F_WRLCK, 0, 0);
	if (waiting >= 0 && pthread_create(&thread, NULL, wait_for_lock, NULL))
		_exit(96);
	close(ready);
	serve_signals(nothing, child_leaves);
}

static void start_child(void)
{
	int ready[2];
	char c;

	if (pipe(ready) < 0 || (child = fork()) < 0)
		die("child: %s", strerror(errno));
	if (!child) {
		close(ready[0]);
		child_life(ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 0)
		die("the child is not ready");
	close(ready[0]);
}

static bool child_waits(void *arg)
{
	char now[MAX_LINES][LINE_BYTES];
	int nr = read_locks(now), i;

	(void)arg;
	for (i = 0; i < nr; i++)
		if (!strncmp(now[i], "-> ", 3))
			return true;
	return false;
}

/* ---- making ---- */

static void make_posix(void)
{
	posix = open_file("posix", O_RDWR | O_CREAT);
	empty = open_file("empty", O_RDWR | O_CREAT);
	if (ftruncate(posix, 1000) < 0)
		die("ftruncate: %s", strerror(errno));
	must_lock(posix, F_SETLK, F_WRLCK, 0, 10);
	must_lock(posix, F_SETLK, F_RDLCK, 20, 10);
	must_lock(posix, F_SETLK, F_WRLCK, FAR, 0);
}

static void make_ofd(void)
{
	ofd_a = open_file("ofd", O_RDWR | O_CREAT);
	ofd_b = open_file("ofd", O_RDWR);
	must_lock(ofd_a, F_OFD_SETLK, F_WRLCK, 0, 50);
	must_lock(ofd_a, F_OFD_SETLK, F_RDLCK, 60, 20);
	must_lock(ofd_b, F_OFD_SETLK, F_RDLCK, 60, 20);
	must_lock(ofd_b, F_OFD_SETLK, F_WRLCK, 1000, 0);
}

static void make_flock(void)
{
	flock_ex = open_file("flock-ex", O_RDONLY | O_CREAT);
	flock_dup = dup(flock_ex);
	flock_sh_a = open_file("flock-sh", O_RDWR | O_CREAT);
	flock_sh_b = open_file("flock-sh", O_RDONLY);
	must_flock(flock_ex, LOCK_EX);
	must_flock(flock_sh_a, LOCK_SH);
	must_flock(flock_sh_b, LOCK_SH);
}

/* A lease for reading needs that nobody writes, one for writing that nobody else has it open. */
static void make_leases(void)
{
	signal(SIGIO, SIG_IGN);
	close(open_file("lease-read", O_RDWR | O_CREAT));
	close(open_file("lease-write", O_RDWR | O_CREAT));
	lease_read = open_file("lease-read", O_RDONLY);
	lease_write = open_file("lease-write", O_RDWR);
	if (fcntl(lease_read, F_SETLEASE, F_RDLCK) < 0 ||
	    fcntl(lease_write, F_SETLEASE, F_WRLCK) < 0)
		die("F_SETLEASE: %s", strerror(errno));
}

static void on_io(int sig)
{
	(void)sig;
	ios++;
}

static void break_one(int i)
{
	if (fcntl(broken[i], F_SETLEASE, i ? F_RDLCK : F_WRLCK) < 0)
		die("F_SETLEASE: %s", strerror(errno));
	if (open(dir_path(i ? "broken-1" : "broken-0"), (i ? O_WRONLY : O_RDONLY) | O_NONBLOCK) >= 0 ||
	    errno != EWOULDBLOCK)
		die("the lease keeps nobody out");
}

/* Nobody has given them up yet; the kernel ends them after some time (/proc/sys/fs/lease-break-time). */
static void make_broken(void)
{
	signal(SIGIO, on_io);
	close(open_file("broken-0", O_RDWR | O_CREAT));
	close(open_file("broken-1", O_RDWR | O_CREAT));
	broken[0] = open_file("broken-0", O_RDONLY);
	broken[1] = open_file("broken-1", O_RDONLY);
	break_one(0);
	break_one(1);
}

/* The lock lives as long as the description; the one who took it is only a number. */
static void make_gone(void)
{
	int status;
	pid_t pid;

	gone = open_file("gone", O_RDWR | O_CREAT);
	pid = fork();
	if (!pid)
		_exit(flock(gone, LOCK_EX | LOCK_NB) < 0);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		die("flock by another process");
}

static void make(void)
{
	make_posix();
	make_ofd();
	make_flock();
	if (param_long("gone"))
		make_gone();
	if (param_long("blocked")) {
		waiting = open_file("waiting", O_RDWR | O_CREAT);
		must_lock(waiting, F_SETLK, F_WRLCK, 0, 1);
	}
	start_child();
	/* after the fork: nobody else may hold this one */
	if (param_long("lease"))
		make_leases();
	if (param_long("breaking"))
		make_broken();
	if (waiting >= 0 && !wait_until(child_waits, NULL))
		die("the child does not wait for the lock");
	nr_lines = read_locks(lines);
	if (nr_lines < 10)
		die("/proc/locks lists only %d of our locks", nr_lines);
}

/* ---- check ---- */

static void ask(const struct question *q, struct answer *ret_answer)
{
	int fd = open(dir_path(q->name), O_RDWR | O_CLOEXEC);

	memset(ret_answer, 0, sizeof(*ret_answer));
	ret_answer->lock.l_type = q->type;
	ret_answer->lock.l_start = q->start;
	ret_answer->lock.l_len = q->len;
	if ((q->kind == FLOCK && flock(fd, q->type | LOCK_NB) < 0) ||
	    (q->kind == POSIX && fcntl(fd, F_GETLK, &ret_answer->lock) < 0) ||
	    (q->kind == OFD && fcntl(fd, F_OFD_GETLK, &ret_answer->lock) < 0))
		ret_answer->error = errno;
	close(fd);
}

/* Our own locks are not in our own way: somebody else has to ask. */
static bool ask_from_outside(const struct question *q, struct answer *ret_answer)
{
	int fds[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		bad_errno("asking from outside");
		return false;
	}
	if (!pid) {
		ask(q, ret_answer);
		_exit(write(fds[1], ret_answer, sizeof(*ret_answer)) != sizeof(*ret_answer));
	}
	close(fds[1]);
	n = read(fds[0], ret_answer, sizeof(*ret_answer));
	close(fds[0]);
	waitpid(pid, NULL, 0);
	if (n != sizeof(*ret_answer))
		bad("%s: no answer", q->what);
	return n == sizeof(*ret_answer);
}

static void check_owner(const struct question *q, pid_t pid)
{
	if (q->owner == PARENT)
		same_long(q->what, getpid(), pid);
	else if (q->owner == CHILD)
		same_long(q->what, child, pid);
	else if (q->owner == DESCRIPTION)
		same_long(q->what, -1, pid);
	else if (q->owner == ANYONE && pid != getpid() && pid != child)
		bad("%s: is of process %d", q->what, pid);
}

static void check_question(const struct question *q)
{
	struct answer a;

	if (!ask_from_outside(q, &a))
		return;
	if (q->kind == FLOCK) {
		same_long(q->what, q->owner == NOBODY ? 0 : EWOULDBLOCK, a.error);
		return;
	}
	same_long(q->what, 0, a.error);
	if (!same_long(q->what, q->held, a.lock.l_type) || q->held == F_UNLCK)
		return;
	same_long(q->what, q->held_start, a.lock.l_start);
	same_long(q->what, q->held_len, a.lock.l_len);
	check_owner(q, a.lock.l_pid);
}

/* The lock is of this description, not of that one. */
static void check_descriptions(void)
{
	if (range(ofd_b, F_OFD_SETLK, F_WRLCK, 0, 50) != -1 || errno != EAGAIN)
		bad("the second description gets the lock of the first");
	if (range(ofd_a, F_OFD_SETLK, F_WRLCK, 1000, 0) != -1 || errno != EAGAIN)
		bad("the first description gets the lock of the second");
	if (range(ofd_a, F_OFD_SETLK, F_WRLCK, 0, 50) < 0)
		bad_errno("the first description asks for its own lock");
	if (range(ofd_b, F_OFD_SETLK, F_WRLCK, 1000, 0) < 0)
		bad_errno("the second description asks for its own lock");
	if (flock(flock_dup, LOCK_EX | LOCK_NB) < 0)
		bad_errno("a dup asks for its own flock");
}

/* Opened against the lease, without waiting: the kernel says no and tells the holder to give up. */
static void check_lease(const char *name, int fd, int type)
{
	pid_t pid;
	int status = 0;

	same_long(name, type, fcntl(fd, F_GETLEASE));
	pid = fork();
	if (!pid) {
		close(fd);
		fd = open(dir_path(name), O_WRONLY | O_NONBLOCK);
		_exit(fd < 0 && errno == EWOULDBLOCK ? 42 : 43);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 42)
		bad("%s: the lease keeps nobody out", name);
	if (fcntl(fd, F_SETLEASE, F_UNLCK) < 0 || fcntl(fd, F_SETLEASE, type) < 0)
		bad_errno(name);
}

/* Its owner was told once, and not again; it can be given up in the way that is asked for. */
static void check_broken(void)
{
	int i;

	same_long("signals of leases", 2, ios);
	ios = 0;
	for (i = 0; i < 2; i++) {
		same_long("lease that is being broken", i ? F_UNLCK : F_RDLCK, fcntl(broken[i], F_GETLEASE));
		if (fcntl(broken[i], F_SETLEASE, i ? F_UNLCK : F_RDLCK) < 0 ||
		    (!i && fcntl(broken[i], F_SETLEASE, F_UNLCK) < 0))
			bad_errno("giving up a lease");
		same_long("lease", F_UNLCK, fcntl(broken[i], F_GETLEASE));
		break_one(i);
	}
}

static bool child_has_it(void *arg)
{
	return owner_of(waiting, (long)arg) == child;
}

static bool child_gave_it_back(void *arg)
{
	return !owner_of(waiting, (long)arg);
}

/* It still waits, and gets the lock once it is free. */
static void check_waiting(void)
{
	if (range(waiting, F_SETLK, F_UNLCK, 0, 1) < 0)
		bad_errno("unlock");
	if (!wait_until(child_has_it, (void *)1L))
		bad("the child does not get the lock it waits for");
	if (range(waiting, F_SETLKW, F_WRLCK, 0, 1) < 0)
		bad_errno("lock");
	if (!wait_until(child_gave_it_back, (void *)1L) || !wait_until(child_waits, NULL))
		bad("the child does not wait again");
}

static void check_lines(void)
{
	char now[MAX_LINES][LINE_BYTES];
	int nr = read_locks(now), i;

	same_long("locks in /proc/locks", nr_lines, nr);
	for (i = 0; i < nr && i < nr_lines; i++)
		same_str("/proc/locks", lines[i], now[i]);
}

static void check(void)
{
	size_t i;

	check_lines();
	for (i = 0; i < ARRAY_SIZE(questions); i++)
		check_question(&questions[i]);
	check_descriptions();
	if (lease_read >= 0) {
		check_lease("lease-read", lease_read, F_RDLCK);
		check_lease("lease-write", lease_write, F_WRLCK);
	}
	if (broken[0] >= 0)
		check_broken();
	if (waiting >= 0)
		check_waiting();
	check_lines();
}

static void stop(void)
{
	int status = 0;

	kill(child, SIGTERM);
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 11)
		bad("exit status of the child, expected 11, got %#x", status);
}

struct factory locks_factory = {
	.name	= "locks",
	.about	= "locks of files: POSIX, of descriptions, flock, leases",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "lease", "0", "1: with leases for reading and writing" },
		{ "breaking", "0", "1: with leases that are being broken" },
		{ "blocked", "0", "1: with a thread of a child that waits for a lock" },
		{ "gone", "0", "1: with a flock whose taker has exited" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
