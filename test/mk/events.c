/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors of things that are in no directory: eventfd, signalfd, timerfd,
 * memfd, pidfd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define NSEC		1000000000LL
#define TICK_NSEC	(20 * 1000000LL)	/* of the timers that expire */
#define MIN_TICKS	3
#define SLACK_NSEC	(2 * NSEC)
#define QUEUED_VALUE	0x5eed
#define CHILD_CODE	13

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL	0x8U
#endif

/* ---- eventfd ---- */

static struct event_kind {
	const char *what;
	uint64_t count;
	int flags;
} event_kinds[] = {
	{ "eventfd of 0",		0,			0 },
	{ "eventfd of 1",		1,			EFD_CLOEXEC },
	{ "large eventfd",		0x123456789abcdef0ULL,	0 },
	{ "eventfd at its limit",	UINT64_MAX - 1,		0 },
	{ "semaphore",			5,			EFD_SEMAPHORE },
	{ "semaphore of 0",		0,			EFD_SEMAPHORE | EFD_NONBLOCK },
	{ "eventfd without blocking",	9,			EFD_NONBLOCK },
	{ "empty, without blocking",	0,			EFD_NONBLOCK | EFD_CLOEXEC },
};

static int events[ARRAY_SIZE(event_kinds)], event_dup;

static void add_to_event(int fd, uint64_t count)
{
	if (count && write(fd, &count, sizeof(count)) != sizeof(count))
		bad_errno("writing to an eventfd");
}

/* Before Linux 6.5 nothing tells a semaphore from others, and no checkpoint can keep it. */
static bool shows_semaphores(void)
{
	char line[64] = "";
	int fd = eventfd(0, EFD_SEMAPHORE);

	fdinfo_lines(fd, "eventfd-semaphore:", NULL, line, sizeof(line));
	close(fd);
	return line[0];
}

static void make_events(void)
{
	bool shows = shows_semaphores();
	size_t i;

	for (i = 0; i < ARRAY_SIZE(event_kinds); i++) {
		struct event_kind *k = &event_kinds[i];

		k->flags &= shows ? ~0 : ~EFD_SEMAPHORE;
		events[i] = remember_fd(k->what, eventfd(0, k->flags));
		add_to_event(events[i], k->count);
	}
	event_dup = remember_fd("dup of an eventfd", dup(events[1]));
}

/* A semaphore gives one at a time. Returns what was in it in all; never waits. */
static uint64_t take_events(const struct event_kind *k, int fd)
{
	uint64_t sum = 0, count;

	while (ready_events(fd) & POLLIN) {
		if (read(fd, &count, sizeof(count)) != sizeof(count))
			break;
		if (k->flags & EFD_SEMAPHORE)
			same_long("step of a semaphore", 1, count);
		sum += count;
		if (sum > k->count && k->flags & EFD_SEMAPHORE)
			break;
	}
	return sum;
}

static void check_events(void)
{
	uint64_t count;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(event_kinds); i++) {
		const struct event_kind *k = &event_kinds[i];

		same_long(k->what, k->count, take_events(k, events[i]));
		if (k->flags & EFD_NONBLOCK && never_waits(events[i])) {
			same_long("reading an empty eventfd", -1, read(events[i], &count, 8));
			same_long("errno of an empty eventfd", EAGAIN, errno);
		}
		add_to_event(events[i], 2);
		count = take_events(&(const struct event_kind){ k->what, 2, k->flags }, events[i]);
		same_long("sum of what was written to an eventfd", 2, count);
		add_to_event(events[i], k->count);
	}
	same_long("eventfd at its limit can be written", POLLIN, ready_events(events[3]));
	check_same_file("eventfds", events[1], event_dup);
	check_other_file("eventfds", events[0], events[7]);
}

/* ---- signalfd ---- */

static int signals_a, signals_b, signals_none;
static char masks[3][64];

static uint64_t bit(int sig)
{
	return 1ULL << (sig - 1);
}

static int make_signalfd(uint64_t mask, int flags)
{
	sigset_t set;

	sigemptyset(&set);
	memcpy(&set, &mask, sizeof(mask));
	return signalfd(-1, &set, flags);
}

static void read_masks(char text[3][64])
{
	const int fds[] = { signals_a, signals_b, signals_none };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fds); i++)
		fdinfo_lines(fds[i], "sigmask:", NULL, text[i], sizeof(text[i]));
}

static void queue_signal(void)
{
	union sigval value = { .sival_int = QUEUED_VALUE };

	sigqueue(getpid(), 40, value);
}

static void make_signals(void)
{
	uint64_t blocked = bit(SIGUSR2) | bit(40) | bit(41) | bit(64);

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, NULL, sizeof(blocked));
	signals_a = remember_fd("signalfd", make_signalfd(bit(SIGUSR2) | bit(40), 0));
	signals_b = remember_fd("signalfd without blocking",
				make_signalfd(bit(41) | bit(64), SFD_NONBLOCK | SFD_CLOEXEC));
	signals_none = remember_fd("signalfd of no signal", make_signalfd(0, SFD_NONBLOCK));
	read_masks(masks);
	queue_signal();
}

static bool take_signal(int fd, struct signalfd_siginfo *ret_info)
{
	memset(ret_info, 0, sizeof(*ret_info));
	if (ready_events(fd) & POLLIN && read(fd, ret_info, sizeof(*ret_info)) == sizeof(*ret_info))
		return true;
	bad("signalfd %d has no signal", fd);
	return false;
}

static void check_signals(void)
{
	struct signalfd_siginfo info;
	char now[3][64];
	size_t i;

	read_masks(now);
	for (i = 0; i < ARRAY_SIZE(now); i++)
		same_str("mask of a signalfd", masks[i], now[i]);
	if (take_signal(signals_a, &info)) {
		same_long("signal from a signalfd", 40, info.ssi_signo);
		same_long("value from a signalfd", QUEUED_VALUE, info.ssi_int);
		same_long("code from a signalfd", SI_QUEUE, info.ssi_code);
		same_long("sender from a signalfd", getpid(), info.ssi_pid);
	}
	same_long("signalfd without signals, poll", 0, ready_events(signals_b));
	if (never_waits(signals_b))
		same_long("signalfd without signals, read", -1,
			  read(signals_b, &info, sizeof(info)));
	kill(getpid(), 64);
	same_long("signalfd of other signals, poll", 0, ready_events(signals_a));
	if (take_signal(signals_b, &info))
		same_long("new signal from a signalfd", 64, info.ssi_signo);
	same_long("signalfd of no signal, poll", 0, ready_events(signals_none));
	queue_signal();
}

/* ---- timerfd ---- */

enum timer_type { DISARMED, FAR, EXPIRING };

static const struct timer_kind {
	const char *what;
	int clock;
	int flags;		/* of timerfd_settime() */
	enum timer_type type;
	int64_t value, interval;	/* in ns; value from now on even where it is absolute */
	int fd_flags;
} timer_kinds[] = {
	{ "disarmed timer", CLOCK_REALTIME, 0, DISARMED, 0, 0, 0 },
	{ "disarmed timer, monotonic", CLOCK_MONOTONIC, 0, DISARMED, 0, 0, TFD_CLOEXEC },
	{ "one-shot timer", CLOCK_MONOTONIC, 0, FAR, 100000 * NSEC + 123456789, 0, 0 },
	{ "one-shot timer, realtime", CLOCK_REALTIME, 0, FAR, 200000 * NSEC, 0, TFD_NONBLOCK },
	{ "periodic timer, boottime", CLOCK_BOOTTIME, 0, FAR, 50000 * NSEC, 3600 * NSEC + 17, 0 },
	{ "absolute timer", CLOCK_REALTIME, TFD_TIMER_ABSTIME, FAR, 300000 * NSEC, 0, 0 },
	{ "absolute periodic timer", CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, FAR, 400000 * NSEC,
	  60 * NSEC, 0 },
	{ "timer that notices a set clock", CLOCK_REALTIME,
	  TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, FAR, 500000 * NSEC, 0, 0 },
	{ "periodic timer that expired", CLOCK_MONOTONIC, 0, EXPIRING, TICK_NSEC, TICK_NSEC, 0 },
	/* it began to expire long ago, and the next time is far away */
	{ "periodic timer from the past", CLOCK_REALTIME, TFD_TIMER_ABSTIME, EXPIRING,
	  -100000 * NSEC - NSEC / 2, 10000 * NSEC, 0 },
	{ "one-shot timer that expired", CLOCK_BOOTTIME, 0, EXPIRING, TICK_NSEC, 0, 0 },
};

static struct timer {
	int fd;
	char setting[128];	/* clock, flags and interval, as fdinfo has them */
	int64_t set_at, left;	/* on its clock: when it was looked at, and what was left */
	int64_t armed_at;
} timers[ARRAY_SIZE(timer_kinds)];

static int64_t nsec(struct timespec ts)
{
	return ts.tv_sec * NSEC + ts.tv_nsec;
}

static struct timespec timespec(int64_t ns)
{
	return (struct timespec){ ns / NSEC, ns % NSEC };
}

static int64_t now(int clock)
{
	struct timespec ts;

	syscall(SYS_clock_gettime, clock, &ts);
	return nsec(ts);
}

static int64_t time_left(int fd)
{
	struct itimerspec left = { 0 };

	timerfd_gettime(fd, &left);
	return nsec(left.it_value);
}

static void read_setting(int fd, char *buf, size_t size)
{
	size_t used;

	fdinfo_lines(fd, "clockid:", NULL, buf, size);
	used = strlen(buf);
	fdinfo_lines(fd, "settime flags:", NULL, buf + used, size - used);
	used = strlen(buf);
	fdinfo_lines(fd, "it_interval:", NULL, buf + used, size - used);
}

static void note_time(struct timer *t, const struct timer_kind *k)
{
	t->set_at = now(k->clock);
	t->left = time_left(t->fd);
}

static void arm(struct timer *t, const struct timer_kind *k)
{
	struct itimerspec spec = { timespec(k->interval), timespec(k->value) };

	t->armed_at = now(k->clock);
	if (k->flags & TFD_TIMER_ABSTIME)
		spec.it_value = timespec(t->armed_at + k->value);
	need("timerfd_settime", timerfd_settime(t->fd, k->flags, &spec, NULL));
}

static void make_timers(void)
{
	const struct timespec some_ticks = timespec((MIN_TICKS + 1) * TICK_NSEC);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(timers); i++) {
		const struct timer_kind *k = &timer_kinds[i];

		timers[i].fd = remember_fd(k->what, timerfd_create(k->clock, k->fd_flags));
		if (k->type != DISARMED)
			arm(&timers[i], k);
		read_setting(timers[i].fd, timers[i].setting, sizeof(timers[i].setting));
		if (k->type == FAR)
			note_time(&timers[i], k);
	}
	nanosleep(&some_ticks, NULL);
}

/*
 * A relative timer may have been stopped while there was no process, or not;
 * nothing more may be left than before. An absolute one knows its time.
 */
static void check_far(const struct timer *t, const struct timer_kind *k)
{
	int64_t passed = now(k->clock) - t->set_at, left = time_left(t->fd);
	int64_t most = k->flags & TFD_TIMER_ABSTIME ? t->left - passed : t->left;

	if (left > most + (k->flags & TFD_TIMER_ABSTIME ? SLACK_NSEC : 0) ||
	    left < t->left - passed - SLACK_NSEC)
		bad("%s: %lld ns left, before %lld, %lld ns ago", k->what, (long long)left,
		    (long long)t->left, (long long)passed);
	same_long(k->what, 0, ready_events(t->fd));
}

static bool is_readable(void *arg)
{
	return ready_events(((struct timer *)arg)->fd) & POLLIN;
}

/* How often it has expired at least, when make() or check() is done. */
static int64_t least_ticks(const struct timer_kind *k)
{
	if (!k->interval)
		return 1;
	return k->value < 0 ? -k->value / k->interval + 1 : MIN_TICKS;
}

static int64_t most_ticks(const struct timer *t, const struct timer_kind *k)
{
	if (!k->interval)
		return 1;
	return (now(k->clock) - t->armed_at - k->value) / k->interval + 2;
}

/* Emptied at the given time: to be as before it must expire again. */
static void rearm(struct timer *t, const struct timer_kind *k, int64_t emptied_at)
{
	const struct timespec some_ticks = timespec((MIN_TICKS + 1) * TICK_NSEC);

	if (k->interval != TICK_NSEC)
		arm(t, k);
	else if (!wait_until(is_readable, t))
		bad("%s: does not go on", k->what);
	else
		t->armed_at = emptied_at - 2 * k->interval;
	nanosleep(&some_ticks, NULL);
}

/* Since it was armed it has expired at least as often as make() or check() waited for. */
static void check_ticks(struct timer *t, const struct timer_kind *k)
{
	int64_t least = least_ticks(k), most = most_ticks(t, k);
	int64_t emptied_at;
	uint64_t ticks = 0;

	if (!is_readable(t)) {
		bad("%s: is not readable", k->what);
		return;
	}
	emptied_at = now(k->clock);	/* not later: it ticks on at once */
	if (read(t->fd, &ticks, sizeof(ticks)) != sizeof(ticks))
		bad_errno(k->what);
	if ((int64_t)ticks < least || (int64_t)ticks > most)
		bad("%s: %llu ticks, not between %lld and %lld", k->what,
		    (unsigned long long)ticks, (long long)least, (long long)most);
	same_long("armed after it expired", k->interval != 0, time_left(t->fd) != 0);
	rearm(t, k, emptied_at);
}

static void check_timers(void)
{
	char setting[128];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(timers); i++) {
		struct timer *t = &timers[i];
		const struct timer_kind *k = &timer_kinds[i];

		read_setting(t->fd, setting, sizeof(setting));
		same_str(k->what, t->setting, setting);
		if (k->type == DISARMED)
			same_long(k->what, 0, time_left(t->fd) || is_readable(t));
		else if (k->type == FAR)
			check_far(t, k);
		else
			check_ticks(t, k);
		if (k->type == FAR)
			note_time(t, k);
	}
}

/* ---- memfd ---- */

static const struct mem_kind {
	const char *name;
	unsigned int flags;
	int seals;
	long bytes, size;
	off_t offset;
} mem_kinds[] = {
	{ "cycle-data", 0, 0, 10000, 10000, 1234 },
	{ "cycle-empty", MFD_CLOEXEC, 0, 0, 0, 0 },
	{ "with a hole", MFD_ALLOW_SEALING, 0, 5000, 1L << 20, 1L << 30 },
	{ "no-writing", MFD_ALLOW_SEALING, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW, 8192, 8192, 0 },
	{ "for-ever", MFD_ALLOW_SEALING, F_SEAL_SEAL | F_SEAL_GROW, 100, 100, 100 },
	{ "future", MFD_ALLOW_SEALING, F_SEAL_FUTURE_WRITE, 4096, 8192, 0 },
	{ "", MFD_NOEXEC_SEAL, 0, 10, 10, 0 },
	{ "cycle-data", 0, 0, 77, 77, 0 },	/* names need not differ */
};

static int mems[ARRAY_SIZE(mem_kinds)], seals[ARRAY_SIZE(mem_kinds)];
static int mem_dup, mem_twin, mem_reader;
static unsigned char *map_a, *map_b;	/* of the first one */

static void make_mem(const struct mem_kind *k, int *ret_fd, int *ret_seals)
{
	unsigned char data[16384];

	*ret_fd = memfd_create(k->name, k->flags);
	if (*ret_fd < 0 && errno == EINVAL && k->flags == MFD_NOEXEC_SEAL)
		return;		/* before Linux 6.3 */
	remember_fd(k->name, *ret_fd);
	fill(data, k->bytes, k - mem_kinds);
	if (write(*ret_fd, data, k->bytes) != k->bytes || ftruncate(*ret_fd, k->size) < 0 ||
	    lseek(*ret_fd, k->offset, SEEK_SET) < 0)
		die("memfd: %s", strerror(errno));
	if (k->seals)
		need("F_ADD_SEALS", fcntl(*ret_fd, F_ADD_SEALS, k->seals));
	*ret_seals = fcntl(*ret_fd, F_GET_SEALS);
}

static unsigned char *map_mem(int prot)
{
	void *map = mmap(NULL, 3 * PAGE, prot, MAP_SHARED, mems[0], 0);

	if (map == MAP_FAILED)
		die("mmap of a memfd: %s", strerror(errno));
	return map;
}

static void make_mems(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mem_kinds); i++)
		make_mem(&mem_kinds[i], &mems[i], &seals[i]);
	mem_dup = remember_fd("dup of a memfd", fcntl(mems[0], F_DUPFD_CLOEXEC, 0));
	mem_twin = remember_fd("second description of a memfd", reopen(mems[0], O_RDWR | O_APPEND));
	mem_reader = remember_fd("memfd read-only", reopen(mems[3], O_RDONLY));
	lseek(mem_twin, 4321, SEEK_SET);
	lseek(mem_reader, 5, SEEK_SET);
	if (!param_long("map"))
		return;
	map_a = map_mem(PROT_READ | PROT_WRITE);
	map_b = map_mem(PROT_READ);
}

static void check_name(const struct mem_kind *k, int fd)
{
	char target[256], expected[256];

	fd_name(fd, target, sizeof(target));
	snprintf(expected, sizeof(expected), "/memfd:%s (deleted)", k->name);
	same_str("name of a memfd", expected, target);
}

static void check_mem(const struct mem_kind *k, int fd, int seals_before)
{
	static unsigned char data[1 << 20];
	struct stat st = { 0 };
	long i;

	check_name(k, fd);
	fstat(fd, &st);
	same_long("size of a memfd", k->size, st.st_size);
	same_long("seals of a memfd", seals_before, fcntl(fd, F_GET_SEALS));
	same_long("bytes of a memfd", k->size, pread(fd, data, sizeof(data), 0));
	if (verify(data, k->bytes, k - mem_kinds) >= 0)
		bad("memfd %s: wrong data", k->name);
	for (i = k->bytes; i < k->size; i++)
		if (data[i]) {
			bad("memfd %s: data in a hole, at %ld", k->name, i);
			break;
		}
	if (k->seals & F_SEAL_GROW)
		same_long("sealed memfd can grow", -1, ftruncate(fd, k->size + 1));
	if (k->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		same_long("sealed memfd can be written", -1, pwrite(fd, data, 1, 0));
	else if (k->bytes)
		same_long("writing to a memfd", 1, pwrite(fd, data, 1, 0));
}

static void check_map(void)
{
	unsigned char c = 0;

	if (!map_a)
		return;
	if (verify(map_a, mem_kinds[0].bytes, 0) >= 0 || verify(map_b, mem_kinds[0].bytes, 0) >= 0)
		bad("mapping of a memfd: wrong data");
	map_a[50] ^= 0xff;
	if (pread(mems[0], &c, 1, 50) != 1 || c != map_a[50] || map_b[50] != map_a[50])
		bad("mapping and memfd are not the same");
	map_a[50] ^= 0xff;
}

static void check_mems(void)
{
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(mem_kinds); i++) {
		if (mems[i] < 0)
			continue;
		check_mem(&mem_kinds[i], mems[i], seals[i]);
		for (j = 0; j < i; j++)
			if (inode_of(mems[i]) == inode_of(mems[j]))
				bad("memfds %zu and %zu are one", i, j);
	}
	check_same_file("memfds", mems[0], mem_dup);
	check_other_file("memfds", mems[0], mem_twin);
	same_long("inode of a memfd", inode_of(mems[0]), inode_of(mem_twin));
	same_long("inode of a sealed memfd", inode_of(mems[3]), inode_of(mem_reader));
	lseek(mem_dup, 1, SEEK_CUR);
	same_long("position of a dup'ed memfd", 1235, lseek(mems[0], -1, SEEK_CUR) + 1);
	check_map();
}

/* ---- pidfd ---- */

static int pid_self, pid_child, pid_nonblock, pid_dead = -1;
static pid_t child;

static int open_pid(pid_t pid, unsigned int flags)
{
	return syscall(SYS_pidfd_open, pid, flags);
}

static void do_nothing(void)
{
}

static void child_leaves(void)
{
	_exit(CHILD_CODE);
}

static void make_dead(void)
{
	pid_t pid = need("fork", fork());

	if (!pid)
		_exit(0);
	pid_dead = remember_fd("pidfd of the dead", open_pid(pid, 0));
	waitpid(pid, NULL, 0);
}

static void make_pids(void)
{
	pid_self = remember_fd("pidfd of oneself", open_pid(getpid(), 0));
	child = need("fork", fork());
	if (!child)
		serve_signals(do_nothing, child_leaves);
	pid_child = remember_fd("pidfd of a child", open_pid(child, 0));
	pid_nonblock = remember_fd("pidfd without blocking", open_pid(child, O_NONBLOCK));
	if (param_long("dead"))
		make_dead();
}

static long pid_of(int fd)
{
	return strtol(fdinfo_value(getpid(), fd, "Pid:"), NULL, 10);
}

static void check_pidfd(const char *what, int fd, pid_t pid)
{
	same_long(what, pid, pid_of(fd));
	same_long(what, 0, syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
	same_long(what, 0, ready_events(fd));
}

static void check_pids(void)
{
	siginfo_t info = { 0 };

	check_pidfd("pidfd of oneself", pid_self, getpid());
	check_pidfd("pidfd of a child", pid_child, child);
	check_pidfd("pidfd without blocking", pid_nonblock, child);
	check_other_file("pidfds of a child", pid_child, pid_nonblock);
	same_long("waiting for a pidfd", 0,
		  waitid(P_PIDFD, pid_child, &info, WEXITED | WNOHANG | WNOWAIT));
	same_long("the child has ended", 0, info.si_pid);
	if (pid_dead < 0)
		return;
	same_long("pidfd of the dead", -1, pid_of(pid_dead));
	same_long("signal to the dead", -1, syscall(SYS_pidfd_send_signal, pid_dead, 0, NULL, 0));
	same_long("errno of a signal to the dead", ESRCH, errno);
	same_long("poll of the dead", POLLIN, ready_events(pid_dead) & POLLIN);
}

/* ---- all of it ---- */

static void make(void)
{
	make_events();
	make_signals();
	make_mems();
	make_pids();
	/* the last, after the fork: timers go on while others are made */
	make_timers();
	note_fds();
}

static void check(void)
{
	check_fds();
	check_events();
	check_signals();
	check_timers();
	check_mems();
	check_pids();
}

static void stop(void)
{
	siginfo_t info = { 0 };

	syscall(SYS_pidfd_send_signal, pid_child, SIGTERM, NULL, 0);
	if (waitid(P_PID, child, &info, WEXITED) < 0)
		bad_errno("waitid");
	same_long("exit code of the child", CHILD_CODE, info.si_status);
}

struct factory events_factory = {
	.name	= "events",
	.about	= "eventfd, signalfd, timerfd, memfd, pidfd",
	.params	= {
		{ "map", "0", "1: with shared mappings of a memfd" },
		{ "dead", "0", "1: with a pidfd of a process that is no more" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
