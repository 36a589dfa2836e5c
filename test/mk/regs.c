/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Registers. Threads load every register the CPU has with values of their own
 * and spin on a flag in memory, touching none of them. A check raises the
 * flag; each thread then writes its registers out, and C compares them.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"
#include "regs.h"

#define MAX_THREADS	1024
#define STACK_SIZE	(256 * 1024)

struct holder {
	pthread_t thread;
	volatile int *spinning;
	char finding[160];
};

volatile int regs_stop;
__thread volatile int regs_spinning;
static __thread struct holder *self;

static struct holder *holders;
static long nr_threads;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_out = PTHREAD_COND_INITIALIZER, go_on = PTHREAD_COND_INITIALIZER;
static long nr_out, generation;

void regs_differ(const char *what, int n, uint64_t expected, uint64_t got)
{
	char number[12] = "";

	if (self->finding[0])
		return;	/* the first one tells enough */
	if (n != NO_NUMBER)
		snprintf(number, sizeof(number), "%d", n);
	snprintf(self->finding, sizeof(self->finding), "%s%s, expected %#llx, got %#llx", what, number,
		 (unsigned long long)expected, (unsigned long long)got);
}

static void report_and_wait(long seen)
{
	pthread_mutex_lock(&lock);
	if (++nr_out == nr_threads)
		pthread_cond_signal(&all_out);
	while (generation == seen)
		pthread_cond_wait(&go_on, &lock);
	pthread_mutex_unlock(&lock);
}

static void *hold_registers(void *arg)
{
	long i = (struct holder *)arg - holders;
	struct registers *registers = regs_new(i);

	self = arg;
	self->spinning = &regs_spinning;
	for (;;) {
		long seen = generation;

		regs_round(registers, i, seen);
		regs_spinning = 0;
		report_and_wait(seen);
	}
	return NULL;
}

static void *serve_here(void *arg)
{
	void (*serve)(void);

	memcpy(&serve, arg, sizeof(serve));
	serve();
	return NULL;
}

/*
 * The first thread holds registers, too: what a tool does to a process it mostly does in that
 * one. Another takes its place at the signals.
 */
static void around(void (*serve)(void))
{
	static void (*place_to_serve)(void);
	pthread_t server;
	sigset_t all;

	place_to_serve = serve;
	if (pthread_create(&server, NULL, serve_here, &place_to_serve))
		die("cannot create a thread");
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	hold_registers(&holders[nr_threads - 1]);
}

static bool spins(void *arg)
{
	struct holder *h = arg;

	return h->spinning && *h->spinning;
}

static bool all_spin(void *unused)
{
	long i;

	(void)unused;
	for (i = 0; i < nr_threads; i++)
		if (!spins(&holders[i]))
			return false;
	return true;
}

static void make(void)
{
	sigset_t all, old;
	pthread_attr_t attr;
	long i;
	long nr_new = param_long("threads");

	if (nr_new < 0 || nr_new >= MAX_THREADS)
		die("threads= is less than %d", MAX_THREADS);
	nr_threads = nr_new + 1;
	holders = calloc(nr_threads, sizeof(*holders));
	if (!holders)
		die("out of memory");

	/* a handler would find no usable direction flag and rounding modes */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (i = 0; i < nr_new; i++)
		if (pthread_create(&holders[i].thread, &attr, hold_registers, &holders[i]))
			die("cannot create thread %ld", i);
	sigprocmask(SIG_SETMASK, &old, NULL);
	for (i = 0; i < nr_new; i++)
		if (!wait_until(spins, &holders[i]))
			die("the threads do not start");
}

/* False when a thread did not answer: it crashed or hangs. */
static bool wait_all_out(void)
{
	struct timespec deadline;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 20;
	pthread_mutex_lock(&lock);
	while (nr_out < nr_threads && !rc)
		rc = pthread_cond_timedwait(&all_out, &lock, &deadline);
	pthread_mutex_unlock(&lock);
	return !rc;
}

static void check(void)
{
	long i;

	regs_stop = 1;
	if (!wait_all_out()) {
		bad("only %ld of %ld threads answer", nr_out, nr_threads);
		return;
	}
	for (i = 0; i < nr_threads; i++) {
		if (holders[i].finding[0])
			bad("thread %ld: %s", i, holders[i].finding);
		holders[i].finding[0] = '\0';
	}
	regs_stop = 0;
	pthread_mutex_lock(&lock);
	nr_out = 0;
	generation++;
	pthread_cond_broadcast(&go_on);
	pthread_mutex_unlock(&lock);
	if (!wait_until(all_spin, NULL))
		bad("the threads do not start again");
}

struct factory regs_factory = {
	.name	= "regs",
	.about	= "threads that hold values in all registers",
	.params	= {
		{ "threads", "64", "number of threads besides the first" },
		{ "id", "0", "1: also bit 21 of rflags, which no debugger can set" },
	},
	.make	= make,
	.check	= check,
	.around	= around,
};
