/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A process that is never the same for long: each row of jobs[] is something
 * a thread does over and over - making threads, processes, mappings, signals -
 * while the checkpoint tries to hold all of it still. Every round checks its
 * own result; nothing may be lost, doubled or interrupted.
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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"

#define SMALL_STACK	(64 * 1024)
#define EXIT_CODE	23
#define QUEUED_SIG	(SIGRTMIN + 2)
#define ECHO_SIG	SIGUSR2

struct job {
	const char *name;
	/* One round; a text says what went wrong. */
	const char *(*round)(unsigned long n);
};

struct worker {
	const struct job *job;
	volatile unsigned long rounds;
	unsigned long rounds_seen;
	const char *volatile finding;
	volatile int error;
	volatile unsigned long found_in;
};

static pthread_attr_t small;
static __thread volatile unsigned long handled;

/* ---- threads ---- */

static void *count_up(void *arg)
{
	return (char *)arg + 1;
}

static const char *make_threads(unsigned long n)
{
	pthread_t threads[4];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(threads); i++)
		if ((errno = pthread_create(&threads[i], &small, count_up, (void *)(n + i))))
			return "pthread_create";
	for (i = 0; i < ARRAY_SIZE(threads); i++) {
		void *result = NULL;

		if ((errno = pthread_join(threads[i], &result)))
			return "pthread_join";
		if (result != (void *)(n + i + 1))
			return "result of a thread";
	}
	return NULL;
}

/* ---- processes ---- */

static const char *wait_for(pid_t pid)
{
	int status = 0;
	pid_t got = waitpid(pid, &status, 0);

	if (got != pid)
		return "waitpid";
	if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_CODE) {
		errno = status;
		return "status of a child";
	}
	return NULL;
}

static const char *make_processes(unsigned long n)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		return "fork";
	if (!pid)
		_exit(getppid() == parent && n ? EXIT_CODE : 1);
	return wait_for(pid);
}

/* The parent stands still, out of reach of any signal, until the child is another program. */
static const char *make_programs(unsigned long n)
{
	static const char *const argv[] = { "sh", "-c", "exit 23", NULL };
	pid_t pid = vfork();

	(void)n;
	if (pid < 0)
		return "vfork";
	if (!pid) {
		execv("/bin/sh", (char *const *)argv);
		_exit(1);
	}
	return wait_for(pid);
}

/* ---- memory ---- */

static const char *make_mappings(unsigned long n)
{
	const int rw = PROT_READ | PROT_WRITE;
	size_t pages = 1 + n % 16;
	unsigned char *p = mmap(NULL, pages * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return "mmap";
	fill(p, pages * PAGE, n);
	p = mremap(p, pages * PAGE, 4 * pages * PAGE, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		return "mremap";
	if (mprotect(p + PAGE, PAGE, PROT_READ) < 0)
		return "mprotect";
	if (verify(p, pages * PAGE, n) >= 0 || p[pages * PAGE] != 0)
		return "contents of a mapping";
	if (munmap(p, 4 * pages * PAGE) < 0)
		return "munmap";
	return NULL;
}

static const char *make_allocations(unsigned long n)
{
	unsigned char *blocks[16];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		blocks[i] = malloc(100 + mix(n + i) % 200000);
		if (!blocks[i])
			return "malloc";
		fill(blocks[i], 100, n + i);
	}
	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		if (verify(blocks[i], 100, n + i) >= 0)
			return "contents of an allocation";
		free(blocks[i]);
	}
	return NULL;
}

/* ---- descriptors ---- */

static const char *make_descriptors(unsigned long n)
{
	char text[8];
	int fd = open("/dev/full", O_RDONLY | O_CLOEXEC), copy;

	(void)n;
	if (fd < 0)
		return "open";
	copy = dup(fd);
	if (copy < 0)
		return "dup";
	close(fd);
	fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text)) != sizeof(text) || text[0])
		return "read";
	close(fd);
	close(copy);
	return NULL;
}

/* ---- signals ---- */

static void on_echo(int sig)
{
	(void)sig;
	handled++;
}

static const char *send_signals(unsigned long n)
{
	unsigned long before = handled;

	(void)n;
	if (syscall(SYS_tgkill, getpid(), gettid(), ECHO_SIG) < 0)
		return "tgkill";
	if (handled != before + 1) {
		errno = handled - before;
		return "calls of the handler";
	}
	return NULL;
}

static const char *queue_signals(unsigned long n)
{
	const uint64_t mask = 1ULL << (QUEUED_SIG - 1);
	const struct timespec now = { 0, 0 };
	siginfo_t info;
	int i;

	for (i = 0; i < 3; i++) {
		memset(&info, 0, sizeof(info));
		info.si_code = SI_QUEUE;
		info.si_value.sival_int = n + i;
		if (syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), QUEUED_SIG, &info) < 0)
			return "rt_tgsigqueueinfo";
	}
	for (i = 0; i < 3; i++) {
		if (syscall(SYS_rt_sigtimedwait, &mask, &info, &now, sizeof(mask)) != QUEUED_SIG)
			return "rt_sigtimedwait";
		if (info.si_value.sival_int != (int)(n + i))
			return "value of a signal";
	}
	return NULL;
}

/* ---- locks between threads ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile unsigned long guarded_a, guarded_b;

static const char *fight_for_lock(unsigned long n)
{
	bool equal;

	(void)n;
	pthread_mutex_lock(&mutex);
	equal = guarded_a == guarded_b;
	guarded_a++;
	sched_yield();
	guarded_b++;
	pthread_mutex_unlock(&mutex);
	return equal ? NULL : "two threads under one lock";
}

static const struct job jobs[] = {
	{ "threads", make_threads },
	{ "processes", make_processes },
	{ "programs", make_programs },
	{ "mappings", make_mappings },
	{ "allocations", make_allocations },
	{ "descriptors", make_descriptors },
	{ "signals", send_signals },
	{ "queued", queue_signals },
	{ "lock", fight_for_lock },
	{ "lock again", fight_for_lock },
};

static struct worker workers[ARRAY_SIZE(jobs)];

/* A nap between the rounds: states shall change, the machine not be busy. */
static void *work(void *arg)
{
	const struct timespec nap = { 0, 200000 };
	struct worker *w = arg;
	unsigned long n;

	for (n = 1; ; n++) {
		const char *finding = w->job->round(n);

		if (finding && !w->finding) {
			w->error = errno;
			w->found_in = n;
			w->finding = finding;
		}
		w->rounds = n;
		if (syscall(SYS_nanosleep, &nap, NULL) < 0 && !w->finding) {
			w->error = errno;
			w->found_in = n;
			w->finding = "nanosleep";
		}
	}
	return NULL;
}

static bool is_wanted(const char *name)
{
	const char *only = param_str("only");

	return !*only || !strcmp(only, name);
}

static bool worked_on(void *arg)
{
	struct worker *w = arg;

	return w->rounds > w->rounds_seen + 2;
}

static void make(void)
{
	struct sigaction echo = { .sa_handler = on_echo };
	pthread_t thread;
	sigset_t blocked;
	size_t i;

	sigemptyset(&blocked);
	sigaddset(&blocked, QUEUED_SIG);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigaction(ECHO_SIG, &echo, NULL);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, SMALL_STACK);
	for (i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (!is_wanted(jobs[i].name))
			continue;
		workers[i].job = &jobs[i];
		if (pthread_create(&thread, NULL, work, &workers[i]) ||
		    !wait_until(worked_on, &workers[i]))
			die("%s does not start", jobs[i].name);
	}
}

static void check(void)
{
	struct worker *w;

	for (w = workers; w < workers + ARRAY_SIZE(workers); w++) {
		if (!w->job)
			continue;
		w->rounds_seen = w->rounds;
		if (!wait_until(worked_on, w))
			bad("%s: stands still after %lu rounds", w->job->name, w->rounds);
		if (w->finding)
			bad("%s: %s in round %lu, error or count %d", w->job->name, w->finding,
			    w->found_in, w->error);
		w->finding = NULL;
	}
}

struct factory churn_factory = {
	.name	= "churn",
	.about	= "threads that make threads, processes, mappings, signals all the time",
	.params	= {
		{ "only", "", "the name of one job, instead of all" },
	},
	.make	= make,
	.check	= check,
};
