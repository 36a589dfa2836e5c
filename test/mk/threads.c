/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads blocked in system calls that must not notice anything: each row of
 * kinds[] is one call. A check first asks that no call has returned by itself
 * and all sit in the kernel, then wakes each the way it is meant to be woken.
 * With ticks=1 more threads make short calls over and over: never an EINTR.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"

#ifdef __i386__
#undef SYS_select	/* an older call with another number of arguments */
#define SYS_select SYS__newselect
#endif

#define MAX_THREADS	256
#define STACK_SIZE	(256 * 1024)
#define ALT_STACK_SIZE	(32 * 1024)
#define LONG_SEC	100000
#define TICK_NS		4000000
#define WAKE_SIG	SIGUSR2
#define QUEUED_SIG	(SIGRTMIN + 1)
#define QUEUED_VALUE	4711

struct sleeper;

struct kind {
	const char *name;
	long nr;			/* the call it sits in */
	long (*block)(struct sleeper *s);
	void (*wake)(struct sleeper *s);
	long expected;			/* what the call returns when woken */
};

struct sleeper {
	const struct kind *kind;
	pthread_t thread;
	pid_t tid;
	int index;
	uint64_t mask;
	stack_t alt_stack;
	long timer_slack;
	cpu_set_t cpus;
	int futex;
	volatile int returns;		/* how often the call came back, with: */
	long result;
	int returns_seen;
	char finding[160];
};

static struct sleeper *sleepers;
static long nr_sleepers;

static __thread uint64_t tls_words[64];
static __thread void *tls_self;
static __thread volatile int handled;
static __thread char *volatile handler_stack;

static long result_of(long rc)
{
	return rc < 0 ? -errno : rc;
}

/* ---- the calls ---- */

static struct timespec in_the_far_future(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_sec += LONG_SEC;
	return ts;
}

static long block_futex(struct sleeper *s)
{
	return result_of(syscall(SYS_futex, &s->futex, FUTEX_WAIT_PRIVATE, 0, NULL));
}

static long block_futex_relative(struct sleeper *s)
{
	const struct timespec ts = { LONG_SEC, 0 };

	return result_of(syscall(SYS_futex, &s->futex, FUTEX_WAIT, 0, &ts));
}

static long block_futex_absolute(struct sleeper *s)
{
	const struct timespec ts = in_the_far_future(CLOCK_REALTIME);

	return result_of(syscall(SYS_futex, &s->futex,
				 FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &ts, NULL,
				 FUTEX_BITSET_MATCH_ANY));
}

/* The time left is reported when a handler interrupts it: more than asked for would be odd. */
static long block_nanosleep(struct sleeper *s)
{
	struct timespec ts = { LONG_SEC, 5 }, left = { 0, 0 };
	long rc = result_of(syscall(SYS_nanosleep, &ts, &left));

	(void)s;
	if (rc == -EINTR && (left.tv_sec > LONG_SEC || left.tv_sec < LONG_SEC - 1000))
		return left.tv_sec;
	return rc;
}

static long block_clock_nanosleep(struct sleeper *s)
{
	const struct timespec ts = in_the_far_future(CLOCK_BOOTTIME);

	(void)s;
	return result_of(syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, TIMER_ABSTIME, &ts, NULL));
}

static long block_poll(struct sleeper *s)
{
	(void)s;
	return result_of(syscall(SYS_poll, NULL, 0, LONG_SEC * 1000));
}

static long block_ppoll(struct sleeper *s)
{
	struct timespec ts = { LONG_SEC, 0 };
	uint64_t mask = s->mask | 1ULL << (SIGRTMIN + 9 - 1);

	return result_of(syscall(SYS_ppoll, NULL, 0, &ts, &mask, sizeof(mask)));
}

static long block_select(struct sleeper *s)
{
	(void)s;
	return result_of(syscall(SYS_select, 0, NULL, NULL, NULL, NULL));
}

static long block_sigsuspend(struct sleeper *s)
{
	const uint64_t mask = ~(1ULL << (WAKE_SIG - 1)) & ~(1ULL << (40 + s->index % 20 - 1));

	return result_of(syscall(SYS_rt_sigsuspend, &mask, sizeof(mask)));
}

static long block_pause(struct sleeper *s)
{
	(void)s;
	return result_of(syscall(SYS_pause));
}

static long wait_for_queued(const struct timespec *timeout)
{
	const uint64_t mask = 1ULL << (QUEUED_SIG - 1);
	siginfo_t info;
	long rc;

	memset(&info, 0, sizeof(info));
	rc = result_of(syscall(SYS_rt_sigtimedwait, &mask, &info, timeout, sizeof(mask)));
	return rc == QUEUED_SIG ? info.si_value.sival_int : rc;
}

static long block_sigwaitinfo(struct sleeper *s)
{
	(void)s;
	return wait_for_queued(NULL);
}

static long block_sigtimedwait(struct sleeper *s)
{
	const struct timespec ts = { LONG_SEC, 0 };

	(void)s;
	return wait_for_queued(&ts);
}

/* ---- how they are woken ---- */

static void wake_futex(struct sleeper *s)
{
	syscall(SYS_futex, &s->futex, FUTEX_WAKE, INT_MAX);
}

static void wake_private_futex(struct sleeper *s)
{
	syscall(SYS_futex, &s->futex, FUTEX_WAKE_PRIVATE, INT_MAX);
}

static void wake_handler(struct sleeper *s)
{
	syscall(SYS_tgkill, getpid(), s->tid, WAKE_SIG);
}

static void wake_queue(struct sleeper *s)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_code = SI_QUEUE;
	info.si_pid = getpid();
	info.si_value.sival_int = QUEUED_VALUE;
	syscall(SYS_rt_tgsigqueueinfo, getpid(), s->tid, QUEUED_SIG, &info);
}

static const struct kind kinds[] = {
	{ "futex",	SYS_futex,		block_futex,		wake_private_futex, 0 },
	{ "nanosleep",	SYS_nanosleep,		block_nanosleep,	wake_handler, -EINTR },
	{ "clocksleep",	SYS_clock_nanosleep,	block_clock_nanosleep,	wake_handler, -EINTR },
	{ "poll",	SYS_poll,		block_poll,		wake_handler, -EINTR },
	{ "sigsuspend",	SYS_rt_sigsuspend,	block_sigsuspend,	wake_handler, -EINTR },
	{ "pause",	SYS_pause,		block_pause,		wake_handler, -EINTR },
	{ "select",	SYS_select,		block_select,		wake_handler, -EINTR },
	{ "sigtimedw",	SYS_rt_sigtimedwait,	block_sigtimedwait,	wake_queue, QUEUED_VALUE },
	{ "futexrel",	SYS_futex,		block_futex_relative,	wake_futex, 0 },
	{ "futexabs",	SYS_futex,		block_futex_absolute,	wake_private_futex, 0 },
	{ "ppoll",	SYS_ppoll,		block_ppoll,		wake_handler, -EINTR },
	{ "sigwaitinf",	SYS_rt_sigtimedwait,	block_sigwaitinfo,	wake_queue, QUEUED_VALUE },
};

/* ---- what a thread knows of itself ---- */

static void on_wake(int sig)
{
	char here;

	(void)sig;
	handler_stack = &here;
	handled++;
}

static void differs(struct sleeper *s, const char *what, long expected, long got)
{
	if (!s->finding[0] && expected != got)
		snprintf(s->finding, sizeof(s->finding), "%s, expected %#lx, got %#lx", what,
			 expected, got);
}

static void set_up_self(struct sleeper *s)
{
	cpu_set_t cpu;
	char name[16];

	s->tid = gettid();
	fill(tls_words, sizeof(tls_words), s->index);
	tls_self = s;
	snprintf(name, sizeof(name), "%s-%d", s->kind->name, s->index);
	prctl(PR_SET_NAME, name);
	if (param_long("extras")) {
		/* 5 s are more than 32 bits; not for who sleeps for some time */
		prctl(PR_SET_TIMERSLACK, sizeof(long) == 8 && s->kind->nr == SYS_pause ? 5000000000ul : 50001ul + s->index);
		CPU_ZERO(&cpu);
		CPU_SET(s->index % 2, &cpu);
		sched_setaffinity(0, sizeof(cpu), &cpu);
	}
	s->timer_slack = prctl(PR_GET_TIMERSLACK);
	sched_getaffinity(0, sizeof(s->cpus), &s->cpus);
	setpriority(PRIO_PROCESS, 0, s->index % 10);
	s->alt_stack.ss_size = ALT_STACK_SIZE;
	s->alt_stack.ss_sp = malloc(ALT_STACK_SIZE);
	sigaltstack(&s->alt_stack, NULL);
	s->mask = 1ULL << (SIGUSR1 - 1) | 1ULL << (SIGTERM - 1) | 1ULL << (QUEUED_SIG - 1) |
		  1ULL << (40 + s->index % 20 - 1);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &s->mask, NULL, sizeof(s->mask));
}

static void check_signal_state(struct sleeper *s)
{
	char *low = s->alt_stack.ss_sp;
	uint64_t mask = 0;
	stack_t stack;
	int before = handled;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, sizeof(mask));
	differs(s, "blocked signals", s->mask, mask);
	sigaltstack(NULL, &stack);
	differs(s, "alternate stack", (long)s->alt_stack.ss_sp, (long)stack.ss_sp);
	differs(s, "alternate stack size", s->alt_stack.ss_size, stack.ss_size);
	syscall(SYS_tgkill, getpid(), gettid(), WAKE_SIG);
	differs(s, "calls of the handler", before + 1, handled);
	differs(s, "the handler ran on the alternate stack", 1,
		handler_stack >= low && handler_stack < low + ALT_STACK_SIZE);
}

static void check_self(struct sleeper *s)
{
	cpu_set_t cpus;
	char name[16], now[16] = "";

	differs(s, "thread local pointer", (long)s, (long)tls_self);
	differs(s, "thread local words", -1, verify(tls_words, sizeof(tls_words), s->index));
	differs(s, "tid", s->tid, gettid());
	differs(s, "pthread_self", (long)s->thread, (long)pthread_self());
	snprintf(name, sizeof(name), "%s-%d", s->kind->name, s->index);
	prctl(PR_GET_NAME, now);
	differs(s, "name", 0, strcmp(name, now));
	differs(s, "nice", s->index % 10, getpriority(PRIO_PROCESS, 0));
	differs(s, "timer slack", s->timer_slack, prctl(PR_GET_TIMERSLACK));
	sched_getaffinity(0, sizeof(cpus), &cpus);
	differs(s, "CPU affinity", 1, CPU_EQUAL(&cpus, &s->cpus));
	check_signal_state(s);
}

static void *sleep_again_and_again(void *arg)
{
	struct sleeper *s = arg;

	set_up_self(s);
	for (;;) {
		s->result = s->kind->block(s);
		check_self(s);
		__atomic_add_fetch(&s->returns, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* ---- ticking threads ---- */

struct ticker;

struct tick {
	const char *name;
	long (*call)(const struct timespec *ts, int *futex);
	long expected;
};

struct ticker {
	const struct tick *tick;
	volatile unsigned long rounds;
	unsigned long rounds_seen;
	char finding[96];
};

static long tick_nanosleep(const struct timespec *ts, int *futex)
{
	(void)futex;
	return result_of(syscall(SYS_nanosleep, ts, NULL));
}

static long tick_absolute(const struct timespec *ts, int *futex)
{
	struct timespec when;

	(void)futex;
	clock_gettime(CLOCK_MONOTONIC, &when);
	when.tv_nsec += ts->tv_nsec;
	when.tv_sec += when.tv_nsec / 1000000000;
	when.tv_nsec %= 1000000000;
	return result_of(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL));
}

static long tick_poll(const struct timespec *ts, int *futex)
{
	(void)futex;
	return result_of(syscall(SYS_poll, NULL, 0, ts->tv_nsec / 1000000));
}

static long tick_select(const struct timespec *ts, int *futex)
{
	struct timeval tv = { 0, ts->tv_nsec / 1000 };

	(void)futex;
	return result_of(syscall(SYS_select, 0, NULL, NULL, NULL, &tv));
}

static long tick_futex(const struct timespec *ts, int *futex)
{
	return result_of(syscall(SYS_futex, futex, FUTEX_WAIT_PRIVATE, 0, ts));
}

static long tick_sigtimedwait(const struct timespec *ts, int *futex)
{
	(void)futex;
	return wait_for_queued(ts);
}

static const struct tick ticks[] = {
	{ "nanosleep", tick_nanosleep, 0 },
	{ "clock_nanosleep", tick_absolute, 0 },
	{ "poll", tick_poll, 0 },
	{ "select", tick_select, 0 },
	{ "futex", tick_futex, -ETIMEDOUT },
	{ "sigtimedwait", tick_sigtimedwait, -EAGAIN },
};

static struct ticker tickers[ARRAY_SIZE(ticks)];

static int64_t elapsed_ns(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)(now.tv_sec - since->tv_sec) * 1000000000 + now.tv_nsec - since->tv_nsec;
}

static void *tick_for_ever(void *arg)
{
	const struct timespec ts = { 0, TICK_NS };
	struct ticker *t = arg;
	struct timespec start;
	int futex = 0;

	for (;;) {
		int64_t took;
		long rc;

		clock_gettime(CLOCK_MONOTONIC, &start);
		rc = t->tick->call(&ts, &futex);
		took = elapsed_ns(&start);
		if (rc != t->tick->expected && !t->finding[0])
			snprintf(t->finding, sizeof(t->finding), "returned %ld", rc);
		else if (took < TICK_NS && !t->finding[0])
			snprintf(t->finding, sizeof(t->finding), "slept only %ld ns", (long)took);
		t->rounds++;
	}
	return NULL;
}

static bool ticked_on(void *arg)
{
	struct ticker *t = arg;

	return t->rounds > t->rounds_seen + 2;
}

static void check_tickers(void)
{
	struct ticker *t;

	for (t = tickers; t < tickers + ARRAY_SIZE(tickers); t++) {
		t->rounds_seen = t->rounds;
		if (!wait_until(ticked_on, t))
			bad("ticking %s stands still after %lu rounds", t->tick->name, t->rounds);
		if (t->finding[0])
			bad("ticking %s %s", t->tick->name, t->finding);
		t->finding[0] = '\0';
	}
}

/* ---- a robust mutex in the hands of a thread that dies ---- */

static pthread_mutex_t robust;
static pthread_t robust_thread;
static pid_t robust_tid;
static volatile int robust_held, robust_may_die;
static void *robust_head;

static void *die_with_mutex(void *unused)
{
	size_t len;

	(void)unused;
	pthread_mutex_lock(&robust);
	robust_tid = gettid();
	syscall(SYS_get_robust_list, 0, &robust_head, &len);
	__atomic_store_n(&robust_held, 1, __ATOMIC_RELEASE);
	while (!robust_may_die)
		syscall(SYS_futex, &robust_may_die, FUTEX_WAIT_PRIVATE, 0, NULL);
	return (void *)0x5eedL;
}

static bool is_held(void *unused)
{
	(void)unused;
	return __atomic_load_n(&robust_held, __ATOMIC_ACQUIRE);
}

static void start_robust(void)
{
	robust_held = robust_may_die = 0;
	if (pthread_create(&robust_thread, NULL, die_with_mutex, NULL))
		die("cannot create a thread");
	if (!wait_until(is_held, NULL))
		die("the mutex is not taken");
}

static void make_robust(void)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &attr);
	start_robust();
}

static bool is_joined(void *arg)
{
	return pthread_tryjoin_np(robust_thread, arg) == 0;
}

/*
 * Join needs the kernel to clear the tid of the dead thread, EOWNERDEAD needs
 * its list of robust futexes. The thread that comes next shows that new ones
 * can be made.
 */
static void check_robust(void)
{
	void *head = NULL, *result = NULL;
	size_t len = 0;
	int rc;

	syscall(SYS_get_robust_list, robust_tid, &head, &len);
	same_long("robust list", (long)robust_head, (long)head);
	same_long("robust list length", sizeof(struct robust_list_head), len);
	robust_may_die = 1;
	syscall(SYS_futex, &robust_may_die, FUTEX_WAKE_PRIVATE, 1);
	if (!wait_until(is_joined, &result)) {
		bad("thread %d cannot be joined", robust_tid);
		return;
	}
	same_long("result of the dead thread", 0x5eed, (long)result);
	/* trylock: a lock that is still held shall not hang us */
	rc = pthread_mutex_trylock(&robust);
	if (same_long("lock of the dead thread's mutex", EOWNERDEAD, rc))
		pthread_mutex_consistent(&robust);
	if (!rc || rc == EOWNERDEAD)
		pthread_mutex_unlock(&robust);
	start_robust();
}

/* ---- all of it ---- */

static bool is_asleep(void *arg)
{
	struct sleeper *s = arg;
	char path[64], line[128];
	long nr;

	if (!s->tid)
		return false;
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", s->tid);
	read_line(path, line, sizeof(line));
	if (!strncmp(line, "running", 7))
		return false;
	nr = atol(line);
#ifdef __i386__
	/* from outside it cannot always be told which of two calls, for two kinds of time, it was */
	if (s->kind->nr == SYS_futex && nr == SYS_futex_time64)
		return true;
#endif
	/* a call that was restarted has another number */
	return nr == s->kind->nr || nr == SYS_restart_syscall;
}

static void make(void)
{
	struct sigaction wake = { .sa_handler = on_wake, .sa_flags = SA_ONSTACK };
	pthread_attr_t attr;
	long i;

	nr_sleepers = param_long("n");
	if (nr_sleepers < 0 || nr_sleepers > MAX_THREADS)
		die("n= is at most %d", MAX_THREADS);
	sleepers = calloc(nr_sleepers + 1, sizeof(*sleepers));
	sigaction(WAKE_SIG, &wake, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (i = 0; i < nr_sleepers; i++) {
		sleepers[i].index = i;
		sleepers[i].kind = &kinds[i % ARRAY_SIZE(kinds)];
		if (pthread_create(&sleepers[i].thread, &attr, sleep_again_and_again, &sleepers[i]))
			die("cannot create thread %ld", i);
	}
	for (i = 0; i < nr_sleepers; i++)
		if (!wait_until(is_asleep, &sleepers[i]))
			die("thread %ld does not sleep in %s", i, sleepers[i].kind->name);
	make_robust();
	for (i = 0; param_long("ticks") && i < (long)ARRAY_SIZE(ticks); i++) {
		pthread_t thread;

		tickers[i].tick = &ticks[i];
		if (pthread_create(&thread, &attr, tick_for_ever, &tickers[i]))
			die("cannot create a ticking thread");
		if (!wait_until(ticked_on, &tickers[i]))
			die("ticking %s does not start", ticks[i].name);
	}
}

static bool has_returned(void *arg)
{
	struct sleeper *s = arg;

	return __atomic_load_n(&s->returns, __ATOMIC_ACQUIRE) > s->returns_seen;
}

static void check_sleeper(struct sleeper *s)
{
	char what[64];

	snprintf(what, sizeof(what), "thread %d in %s", s->index, s->kind->name);
	if (has_returned(s)) {
		bad("%s returned %ld by itself", what, s->result);
		s->returns_seen = s->returns;
	}
	if (!wait_until(is_asleep, s)) {
		bad("%s is not there", what);
		return;
	}
	s->kind->wake(s);
	if (!wait_until(has_returned, s)) {
		bad("%s does not wake up", what);
		return;
	}
	same_long(what, s->kind->expected, s->result);
	s->returns_seen++;
	if (s->finding[0])
		bad("%s: %s", what, s->finding);
	s->finding[0] = '\0';
	if (!wait_until(is_asleep, s))
		bad("%s does not go to sleep again", what);
	same_long(what, s->returns_seen, s->returns);
}

static void check(void)
{
	long i;

	for (i = 0; i < nr_sleepers; i++)
		check_sleeper(&sleepers[i]);
	check_robust();
	if (param_long("ticks"))
		check_tickers();
}

struct factory threads_factory = {
	.name	= "threads",
	.about	= "threads that sleep in system calls, one of them with a robust mutex",
	.params	= {
		{ "n", "12", "number of sleeping threads" },
		{ "ticks", "0", "1: also threads that make short calls all the time" },
		{ "extras", "0", "1: with CPU affinity and timer slack of their own" },
	},
	.make	= make,
	.check	= check,
};
