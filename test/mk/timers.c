/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * POSIX timers of all clocks and kinds of notification: running, at rest, expired with their
 * signal pending, with overruns, of the CPU time of other threads; and a volley of one-shot
 * timers, with an alarm among them, that expire while the program is being looked at: each may signal
 * once only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"

#define NSEC		1000000000LL
#define FAR		(5000 * NSEC)
#define QUIET_SIGNAL	40	/* blocked everywhere */
#define VOLLEY_SIGNAL	41
#define TICK_SIGNAL	42
#define NR_VOLLEY	64
#define MAX_TIMERS	64
#define OVERRUNS	7
#define OWN_THREAD_CPU	(-2)

enum state { RUNNING, AT_REST, EXPIRED, OVERRUN };

struct timer {
	int id;
	int clock, notify;
	bool elsewhere;		/* made by, or about, the other thread */
	enum state state;
	int64_t value, interval;
};

static struct timer timers[MAX_TIMERS];
static int nr_timers;
static int volley[NR_VOLLEY];
static int ticker = -1;
static volatile int ticks;
static pid_t other_tid;
static volatile struct timer *ordered;	/* for the other thread to make */
static int64_t set_at;

static int64_t now_ns(int clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * NSEC + now.tv_nsec;
}

static int create(int clock, int notify, int sig, long value, pid_t tid)
{
	struct sigevent event = { .sigev_notify = notify, .sigev_signo = sig };
	int id = -1;

	event.sigev_value.sival_ptr = (void *)value;
	event._sigev_un._tid = tid;
	if (syscall(SYS_timer_create, clock, &event, &id) < 0)
		die("timer_create, clock %d: %s", clock, strerror(errno));
	return id;
}

static void set(int id, int flags, int64_t value, int64_t interval)
{
	struct itimerspec v = { { interval / NSEC, interval % NSEC }, { value / NSEC, value % NSEC } };

	if (syscall(SYS_timer_settime, id, flags, &v, NULL) < 0)
		die("timer_settime %d: %s", id, strerror(errno));
}

static struct itimerspec get(int id)
{
	struct itimerspec v = { 0 };

	if (syscall(SYS_timer_gettime, id, &v) < 0)
		bad("timer_gettime %d: %s", id, strerror(errno));
	return v;
}

static bool take(int sig, long ms, siginfo_t *ret)
{
	int64_t end = now_ns(CLOCK_MONOTONIC) + ms * 1000000, left;
	const uint64_t mask = 1ULL << (sig - 1);

	long got;

	do {
		left = end - now_ns(CLOCK_MONOTONIC);
		left = left < 0 ? 0 : left;
		const struct timespec patience = { left / NSEC, left % NSEC };
		got = syscall(SYS_rt_sigtimedwait, &mask, ret, &patience, sizeof(mask));
	} while (got < 0 && errno == EINTR && left);
	return got == sig;
}

static void make_timer(struct timer *t)
{
	t->id = create(t->clock, t->notify, QUIET_SIGNAL, 0x1234500000L + nr_timers,
		       t->notify == SIGEV_THREAD_ID ? (t->elsewhere ? other_tid : gettid()) : 0);
}

/* Sleeps but for making timers: those of "my CPU time" belong to who makes them. */
static void *other_thread(void *arg)
{
	other_tid = gettid();
	(void)arg;
	for (;;) {
		sigset_t set;
		int sig;

		sigemptyset(&set);
		sigaddset(&set, SIGURG);
		sigwait(&set, &sig);
		make_timer((struct timer *)ordered);
		ordered = NULL;
	}
	return NULL;
}

static bool has_other(void *arg)
{
	(void)arg;
	return __atomic_load_n(&other_tid, __ATOMIC_SEQ_CST) != 0;
}

static bool is_made(void *arg)
{
	(void)arg;
	return !__atomic_load_n(&ordered, __ATOMIC_SEQ_CST);
}

static int cpu_clock_of(pid_t tid)
{
	return ~tid << 3 | 6;
}

static void add(int clock, int notify, bool elsewhere, enum state state, int64_t value,
		int64_t interval)
{
	struct timer *t = &timers[nr_timers];

	*t = (struct timer){ 0, clock, notify, elsewhere, state, value, interval };
	if (elsewhere && clock == CLOCK_THREAD_CPUTIME_ID) {
		ordered = t;
		syscall(SYS_tgkill, getpid(), other_tid, SIGURG);
		if (!wait_until(is_made, NULL))
			die("the other thread does not make its timer");
	} else {
		make_timer(t);
	}
	nr_timers++;
	/* Ids have gaps. */
	if (nr_timers % 3 == 0)
		syscall(SYS_timer_delete, create(CLOCK_REALTIME, SIGEV_NONE, 0, 0, 0));
}

/* A timer that has expired n + 1 times in the past and whose signal was taken only now. */
static void run_over(struct timer *t)
{
	siginfo_t si;

	set(t->id, TIMER_ABSTIME, now_ns(t->clock) + t->value - (OVERRUNS + 1) * t->interval,
	    t->interval);
	if (!take(QUIET_SIGNAL, 10000, &si))
		die("timer %d does not expire", t->id);
	if (syscall(SYS_timer_getoverrun, t->id) != OVERRUNS)
		die("timer %d: %ld overruns", t->id, syscall(SYS_timer_getoverrun, t->id));
}

static bool is_pending(void *arg)
{
	uint64_t pending = 0;

	syscall(SYS_rt_sigpending, &pending, sizeof(pending));
	return pending >> (*(int *)arg - 1) & 1;
}

static void start_quiet(void)
{
	int sig = QUIET_SIGNAL;
	int i;

	set_at = now_ns(CLOCK_MONOTONIC);
	for (i = 0; i < nr_timers; i++)
		if (timers[i].state == OVERRUN)
			run_over(&timers[i]);
	for (i = 0; i < nr_timers; i++) {
		struct timer *t = &timers[i];

		if (t->state == RUNNING)
			set(t->id, 0, t->value, t->interval);
		if (t->state == EXPIRED)
			set(t->id, TIMER_ABSTIME,
			    t->interval ? now_ns(t->clock) + t->value - t->interval : 1,
			    t->interval);
	}
	if (!wait_until(is_pending, &sig))
		die("no timer expires");
}

/* They expire one after the other, while whoever comes is busy with us. */
static void start_volley(void)
{
	const long alarm_us = NR_VOLLEY / 3 * param_long("gap") / 1000;
	const struct itimerval once = { .it_value = { 0, alarm_us } };
	int i;

	setitimer(ITIMER_REAL, &once, NULL);
	for (i = 0; i < NR_VOLLEY; i++)
		set(volley[i], 0, (i + 1) * param_long("gap"), 0);
}

static void make_all(void)
{
	static const int walls[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, 11 /* TAI */ };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(walls); i++) {
		add(walls[i], SIGEV_SIGNAL, false, RUNNING, FAR + i, 0);
		add(walls[i], SIGEV_THREAD, false, RUNNING, FAR, 77 * NSEC + 5);
		add(walls[i], SIGEV_NONE, false, RUNNING, FAR / 2, NSEC);
		add(walls[i], SIGEV_THREAD_ID, true, RUNNING, FAR, FAR);
		add(walls[i], SIGEV_SIGNAL, false, AT_REST, 0, 0);
	}
	add(CLOCK_REALTIME, SIGEV_SIGNAL, false, EXPIRED, 0, 0);
	add(CLOCK_MONOTONIC, SIGEV_SIGNAL, false, EXPIRED, 0, 0);
	add(CLOCK_MONOTONIC, SIGEV_THREAD_ID, false, EXPIRED, 0, 0);
	add(CLOCK_REALTIME, SIGEV_SIGNAL, false, EXPIRED, 3000 * NSEC, 4000 * NSEC);
	add(CLOCK_REALTIME, SIGEV_THREAD_ID, false, EXPIRED, 3000 * NSEC, 4000 * NSEC);
	add(CLOCK_REALTIME, SIGEV_SIGNAL, false, OVERRUN, 3000 * NSEC, 4000 * NSEC);
	add(CLOCK_REALTIME, SIGEV_THREAD_ID, false, OVERRUN, 3000 * NSEC, 4000 * NSEC);
	add(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, false, RUNNING, FAR, NSEC);
	add(CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, false, RUNNING, FAR, 0);
	add(CLOCK_THREAD_CPUTIME_ID, SIGEV_THREAD_ID, true, RUNNING, FAR, FAR);
	add(cpu_clock_of(other_tid), SIGEV_NONE, true, RUNNING, FAR, FAR);
}

static void on_tick(int sig)
{
	(void)sig;
	ticks++;
}

static void block(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, QUIET_SIGNAL);
	sigaddset(&set, VOLLEY_SIGNAL);
	sigaddset(&set, SIGURG);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static void make(void)
{
	struct sigaction act = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	pthread_t thread;
	int i;

	block();
	if (pthread_create(&thread, NULL, other_thread, NULL) || !wait_until(has_other, NULL))
		die("pthread_create: %s", strerror(errno));
	make_all();
	if (param_long("far")) {
		/* an id that nobody can count up to */
		if (prctl(77 /* PR_TIMER_CREATE_RESTORE_IDS */, 1, 0, 0, 0) < 0)
			skip("this kernel does not let choose ids of timers");
		struct sigevent event = { .sigev_notify = SIGEV_NONE };
		int id = 2000000000;
		if (syscall(SYS_timer_create, CLOCK_REALTIME, &event, &id) < 0)
			die("timer_create: %s", strerror(errno));
		prctl(77, 0, 0, 0, 0);
	}
	for (i = 0; i < NR_VOLLEY; i++)
		volley[i] = create(i % 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME, SIGEV_SIGNAL,
				   VOLLEY_SIGNAL, i, 0);
	start_quiet();
	start_volley();
	if (param_long("ticks")) {
		sigaction(TICK_SIGNAL, &act, NULL);
		ticker = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, TICK_SIGNAL, 0, 0);
		set(ticker, 0, 1000000, 1000000);
	}
}

/* ---- check ---- */

static void check_time(const struct timer *t)
{
	struct itimerspec v = get(t->id);
	int64_t left = v.it_value.tv_sec * NSEC + v.it_value.tv_nsec;
	int64_t interval = v.it_interval.tv_sec * NSEC + v.it_interval.tv_nsec;
	int64_t since = now_ns(CLOCK_MONOTONIC) - set_at;
	int64_t value = t->value;

	if (interval != t->interval)
		bad("timer %d of clock %d: interval %ld, was %ld", t->id, t->clock, (long)interval,
		    (long)t->interval);
	/* what it had at the start, and perhaps all time that has passed since gone by */
	if (left > value + NSEC / 100 || left < value - since - NSEC / 100)
		bad("timer %d of clock %d: %ld ns left of %ld after %ld", t->id, t->clock,
		    (long)left, (long)value, (long)since);
}

static void check_overrun(const struct timer *t)
{
	same_long("overruns", t->state == OVERRUN ? OVERRUNS : 0,
		  syscall(SYS_timer_getoverrun, t->id));
}

/* Each expired timer has one signal, with its number and value, and nobody else has any. */
static void check_expired(void)
{
	int seen[MAX_TIMERS] = { 0 };
	siginfo_t si;
	int i;

	while (take(QUIET_SIGNAL, 0, &si)) {
		i = si.si_value.sival_ptr - (void *)0x1234500000L;
		same_long("si_code", SI_TIMER, si.si_code);
		if (i < 0 || i >= nr_timers) {
			bad("a signal with the value %p", si.si_value.sival_ptr);
			return;
		}
		same_long("number of the timer", timers[i].id, si.si_timerid);
		same_long("overruns told", 0, si.si_overrun);
		seen[i]++;
	}
	for (i = 0; i < nr_timers; i++)
		if (seen[i] != (timers[i].state == EXPIRED))
			bad("timer %d of clock %d has sent %d signals", timers[i].id,
			    timers[i].clock, seen[i]);
}

static void check_volley(void)
{
	int seen[NR_VOLLEY] = { 0 };
	siginfo_t si;
	int i;

	for (i = 0; i < NR_VOLLEY; i++) {
		if (!take(VOLLEY_SIGNAL, 10000, &si)) {
			bad("only %d of %d timers have expired", i, NR_VOLLEY);
			break;
		}
		seen[si.si_value.sival_int]++;
	}
	if (!take(SIGALRM, 10000, &si))
		bad("the alarm does not come");
	/* time for one that would come twice */
	if (take(VOLLEY_SIGNAL, 3, &si))
		bad("timer %d of the volley expired again", si.si_value.sival_int);
	if (take(SIGALRM, 0, &si))
		bad("the alarm came twice");
	for (i = 0; i < NR_VOLLEY; i++)
		if (seen[i] != 1)
			bad("timer %d of the volley expired %d times", i, seen[i]);
}

static bool has_ticked(void *arg)
{
	return ticks > *(int *)arg + 3;
}

static void check(void)
{
	int i, before = ticks;

	for (i = 0; i < nr_timers; i++) {
		check_time(&timers[i]);
		check_overrun(&timers[i]);
	}
	check_expired();
	check_volley();
	if (ticker >= 0 && !wait_until(has_ticked, &before))
		bad("the ticker has stopped");
	start_quiet();
	start_volley();
}

struct factory timers_factory = {
	.name	= "timers",
	.about	= "POSIX timers: clocks, notification, ids, overruns, expired ones",
	.params	= {
		{ "gap", "300000", "nanoseconds between the expiries of 64 one-shot timers" },
		{ "ticks", "0", "1: with a timer that ticks every millisecond" },
		{ "far", "0", "1: with a timer whose id was chosen, 2000000000" },
	},
	.make	= make,
	.check	= check,
};
