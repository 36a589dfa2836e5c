/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The engine on live tasks: stop, inject, run programs, leave; and what happens to a task when
 * its tracer is killed in the middle.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/test.h"
#include "remote/session_test.h"

static void kill_and_reap(pid_t pid)
{
	ASSERT_OK(kill(pid, SIGKILL));
	ASSERT_OK(waitpid(pid, NULL, __WALL));
}

/* The child sleeps for ever after telling us that it is ready. */
static pid_t sleeper(void)
{
	int ready[2];
	char c;

	ASSERT_OK(pipe(ready));
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0) {
		(void)!write(ready[1], "", 1);
		for (;;)
			pause();
	}
	ASSERT(read(ready[0], &c, 1) == 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

TEST(remote, results_are_arguments_of_later_calls)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();

	session_begin(&s, pid);
	ASSERT_OK(program_begin(&p, &s.in.worker, 8));
	char *path = program_data(&p, "/proc/self/comm", 16), *buf = program_room(&p, 64);
	struct call *open =
		CALL(&p, "open", SYS_openat, AT_FDCWD, program_raddr(&p, path), O_RDONLY);
	struct call *read = CALL(&p, "read", SYS_read, 0, program_raddr(&p, buf), 63);
	call_use(&p, read, 0, open);
	struct call *close = CALL(&p, "close", SYS_close, 0);
	call_use(&p, close, 0, open);
	struct call *getpid = CALL(&p, "getpid", SYS_getpid, 0);
	ASSERT_OK(program_run(&p));
	ASSERT(open->ret >= 0);
	ASSERT_EQ(read->ret, (long)strlen(buf));
	ASSERT_EQ(close->ret, 0);
	ASSERT_EQ(getpid->ret, pid);
	ASSERT(!strncmp(buf, "unit", 4));
	program_end(&p);
	session_end(&s);
	kill_and_reap(pid);
}

TEST(remote, a_failing_call_ends_the_program_and_is_named)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();

	session_begin(&s, pid);
	ASSERT_OK(program_begin(&p, &s.in.worker, 3));
	CALL(&p, "getpid", SYS_getpid, 0);
	CALL(&p, "closing what is not open", SYS_close, 4711);
	struct call *never = CALL(&p, "never made", SYS_getpid, 0);
	never->ret = 4242;
	ASSERT_EQ(program_run(&p), -EBADF);
	ASSERT_EQ(never->ret, 4242);
	ASSERT(strstr(log_first_error(), "closing what is not open"));
	program_end(&p);
	session_end(&s);
	kill_and_reap(pid);
}

TEST(remote, a_call_that_may_fail_does_not_end_the_program)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();

	session_begin(&s, pid);
	ASSERT_OK(program_begin(&p, &s.in.worker, 2));
	struct call *bad = CALL(&p, "close", SYS_close, 4711);
	bad->flags = CALL_MAY_FAIL;
	struct call *good = CALL(&p, "getpid", SYS_getpid, 0);
	ASSERT_OK(program_run(&p));
	ASSERT_EQ(bad->ret, -EBADF);
	ASSERT_EQ(good->ret, pid);
	program_end(&p);
	session_end(&s);
	kill_and_reap(pid);
}

TEST(remote, a_thousand_calls)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();

	session_begin(&s, pid);
	for (int round = 0; round < 5; round++) {
		ASSERT_OK(program_begin(&p, &s.in.worker, 200));
		for (int i = 0; i < 200; i++)
			CALL(&p, "getpid", SYS_getpid, 0);
		ASSERT_OK(program_run(&p));
		for (int i = 0; i < 200; i++)
			ASSERT_EQ(p.calls[i].ret, pid);
		program_end(&p);
	}
	session_end(&s);
	kill_and_reap(pid);
}

static void drop_capabilities(uint64_t dropped)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	ASSERT_OK(syscall(SYS_capget, &head, data));
	for (int i = 0; i < 2; i++)
		data[i].effective &= ~(uint32_t)(dropped >> 32 * i);
	ASSERT_OK(syscall(SYS_capset, &head, data));
}

static size_t count_entries(pid_t pid, const char *dir)
{
	autoclose int fd = proc_open(pid);
	struct arena a = { 0 };
	size_t n;
	int *numbers;

	ASSERT_OK(proc_numbers(fd, dir, &a, &numbers, &n));
	arena_done(&a);
	return n;
}

TEST(remote, a_memfd_is_the_region_where_map_files_is_forbidden)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();
	size_t descriptors = count_entries(pid, "fd");

	drop_capabilities(1ull << CAP_SYS_ADMIN | 1ull << CAP_CHECKPOINT_RESTORE);
	session_begin(&s, pid);
	struct maps maps;
	ASSERT_OK(maps_read(s.tree.processes[0]->proc_fd, "maps", &s.arena, &maps));
	ASSERT(strstr(maps_find(&maps, s.in.site.region)->path, "/memfd:"));
	ASSERT_EQ(count_entries(pid, "fd"), descriptors);
	ASSERT_OK(program_begin(&p, &s.in.worker, 1));
	struct call *getpid = CALL(&p, "getpid", SYS_getpid, 0);
	ASSERT_OK(program_run(&p));
	ASSERT_EQ(getpid->ret, pid);
	program_end(&p);
	session_end(&s);
	ASSERT_EQ(count_entries(pid, "fd"), descriptors);
	kill_and_reap(pid);
}

TEST(remote, a_program_larger_than_its_room_is_refused)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();

	session_begin(&s, pid);
	ASSERT_EQ(program_begin(&p, &s.in.worker, 5000), -ENOSPC);
	ASSERT_OK(program_begin(&p, &s.in.worker, 1));
	CALL(&p, "getpid", SYS_getpid, 0);
	CALL(&p, "one too many", SYS_getpid, 0);
	ASSERT_EQ(program_run(&p), -ENOSPC);
	program_end(&p);
	session_end(&s);
	kill_and_reap(pid);
}

TEST(remote, a_task_that_dies_in_a_program_is_named)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();

	session_begin(&s, pid);
	ASSERT_OK(program_begin(&p, &s.in.worker, 1));
	CALL(&p, "exit", SYS_exit_group, 3);
	ASSERT_EQ(program_run(&p), -ESRCH);
	ASSERT(strstr(log_first_error(), "exited with status 3"));
}

/* Kills the process under a program, which is told of it. */
static void expect_killed(struct session *s, pid_t pid)
{
	struct program p;

	session_begin(s, pid);
	ASSERT_OK(kill(pid, SIGKILL));
	ASSERT_OK(program_begin(&p, &s->in.worker, 1));
	CALL(&p, "getpid", SYS_getpid, 0);
	ASSERT_EQ(program_run(&p), -ESRCH);
	ASSERT(strstr(log_first_error(), "killed by signal 9"));
}

TEST(remote, a_task_killed_by_others_is_named)
{
	struct session s;

	expect_killed(&s, sleeper());
}

TEST(remote, a_traced_task_is_refused_with_its_tracers_pid)
{
	struct session s = { 0 };
	pid_t pid = sleeper();
	int ready[2];
	char c, text[64];

	ASSERT_OK(pipe(ready));
	pid_t tracer = ASSERT_OK(fork());
	if (tracer == 0) {
		ASSERT_OK(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
		(void)!write(ready[1], "", 1);
		for (;;)
			pause();
	}
	ASSERT(read(ready[0], &c, 1) == 1);
	ASSERT_OK(engine_init(&s.engine));
	ASSERT_EQ(tree_stop(&s.tree, &s.engine, &s.arena, pid), -EBUSY);
	snprintf(text, sizeof(text), "traced by pid %d", tracer);
	ASSERT(strstr(log_first_error(), text));
	kill_and_reap(tracer);
	kill_and_reap(pid);
}

TEST(remote, a_zombie_and_a_missing_task_are_refused)
{
	struct session s = { 0 };
	siginfo_t si;
	pid_t pid = ASSERT_OK(fork());

	if (pid == 0)
		_exit(0);
	ASSERT_OK(waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
	ASSERT_OK(engine_init(&s.engine));
	ASSERT_EQ(tree_stop(&s.tree, &s.engine, &s.arena, pid), -ESRCH);
	ASSERT(strstr(log_first_error(), "zombie"));
	log_clear_first_error();
	ASSERT_OK(waitpid(pid, NULL, 0));
	ASSERT_EQ(tree_stop(&s.tree, &s.engine, &s.arena, pid), -ESRCH);
	ASSERT(strstr(log_first_error(), "no such process"));
}

static char state_of(pid_t pid)
{
	struct proc_stat st;
	autoclose int fd = proc_open(pid);

	return fd >= 0 && proc_stat_read(fd, &st) == 0 ? st.state : '?';
}

/* Waits until the state is as wanted; the test's alarm ends a wait without end. */
static void await_state(pid_t pid, const char *states)
{
	while (!strchr(states, state_of(pid)))
		usleep(200);
}

TEST(remote, a_stopped_task_stays_stopped)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();
	int status;

	ASSERT_OK(kill(pid, SIGSTOP));
	ASSERT_EQ(ASSERT_OK(waitpid(pid, &status, WUNTRACED)), pid);
	session_begin(&s, pid);
	ASSERT_EQ(s.tree.processes[0]->stop_signal, SIGSTOP);
	ASSERT_OK(program_begin(&p, &s.in.worker, 1));
	CALL(&p, "getpid", SYS_getpid, 0);
	ASSERT_OK(program_run(&p));
	program_end(&p);
	session_end(&s);
	await_state(pid, "T");
	ASSERT_OK(kill(pid, SIGCONT));
	await_state(pid, "S");
	kill_and_reap(pid);
}

TEST(remote, a_sigstop_in_the_middle_takes_effect_afterwards)
{
	struct session s;
	struct program p;
	pid_t pid = sleeper();

	session_begin(&s, pid);
	ASSERT_OK(kill(pid, SIGSTOP));
	for (int i = 0; i < 50; i++) {
		ASSERT_OK(program_begin(&p, &s.in.worker, 1));
		CALL(&p, "getpid", SYS_getpid, 0);
		ASSERT_OK(program_run(&p));
		program_end(&p);
	}
	session_end(&s);
	await_state(pid, "T");
	kill_and_reap(pid);
}

/* What a call that was interrupted by the engine gives the caller. */
struct interrupted {
	const char *name;
	long (*call)(int fd);
	long want;
	int want_ms; /* it may not return much earlier; 0: when the pipe is written */
};

static long do_read(int fd)
{
	char c;

	return read(fd, &c, 1);
}

static long do_nanosleep(int fd)
{
	struct timespec t = { 0, 300000000 };

	(void)fd;
	return syscall(SYS_nanosleep, &t, &t);
}

static long do_poll(int fd)
{
	(void)fd;
	return syscall(SYS_poll, NULL, 0, 300);
}

static long do_epoll(int fd)
{
	char events[12];

	(void)fd;
	int ep = syscall(SYS_epoll_create1, 0);
	return syscall(SYS_epoll_wait, ep, events, 1, 300);
}

static long do_sigtimedwait(int fd)
{
	struct timespec t = { 0, 300000000 };
	uint64_t set = 1 << (SIGUSR2 - 1);

	(void)fd;
	long rc = syscall(SYS_rt_sigtimedwait, &set, NULL, &t, 8);
	return rc < 0 && errno == EAGAIN ? 0 : -1;
}

static long do_futex(int fd)
{
	struct timespec t = { 0, 300000000 };
	uint32_t word = 0;

	(void)fd;
	long rc = syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, &t, NULL, 0);
	return rc < 0 && errno == ETIMEDOUT ? 0 : -1;
}

static const struct interrupted interrupted_calls[] = {
	{ "read", do_read, 1, 0 },
	{ "nanosleep", do_nanosleep, 0, 300 },
	{ "poll", do_poll, 0, 300 },
	{ "epoll_wait", do_epoll, 0, 300 },
	{ "sigtimedwait", do_sigtimedwait, 0, 300 },
	{ "futex", do_futex, 0, 300 },
};

static void check_interrupted(const struct interrupted *c)
{
	struct session s;
	int in[2], ready[2], status;
	char b;

	ASSERT_OK(pipe(in));
	ASSERT_OK(pipe(ready));
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0) {
		(void)!write(ready[1], "", 1);
		uint64_t start = now_us();
		long rc = c->call(in[0]);
		_exit(rc != c->want ? 1 : now_us() - start + 1000 < c->want_ms * 1000ull ? 2 : 0);
	}
	ASSERT(read(ready[0], &b, 1) == 1);
	await_state(pid, "S");
	session_begin(&s, pid);
	struct program p;
	ASSERT_OK(program_begin(&p, &s.in.worker, 1));
	CALL(&p, "getpid", SYS_getpid, 0);
	ASSERT_OK(program_run(&p));
	program_end(&p);
	session_end(&s);
	if (!c->want_ms)
		ASSERT_EQ(write(in[1], "", 1), 1);
	ASSERT_EQ(ASSERT_OK(waitpid(pid, &status, 0)), pid);
	if (status)
		test_fail(__FILE__, __LINE__, "%s: wait status %#x", c->name, status);
}

TEST(remote, interrupted_calls_go_on)
{
	for (size_t i = 0; i < ARRAY_SIZE(interrupted_calls); i++)
		check_interrupted(&interrupted_calls[i]);
}

#define THREADS 200

/* Each thread counts, or waits in a call that may not end early. */
static struct counters {
	atomic_uint ready;
	atomic_bool is_over;
	struct {
		pid_t tid;
		atomic_ulong count;
		atomic_uint wrong;
	} of[THREADS];
} * counters;

static void *count(void *arg)
{
	size_t me = (size_t)arg;
	const struct timespec tick = { .tv_nsec = 2000000 };

	counters->of[me].tid = gettid();
	counters->ready++;
	while (!counters->is_over) {
		counters->of[me].count++;
		if (me % 4 && clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL))
			counters->of[me].wrong++;
		if (gettid() != counters->of[me].tid)
			counters->of[me].wrong++;
		if (me % 4 == 0)
			sched_yield();
	}
	return NULL;
}

static pid_t many_threads(void)
{
	counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	ASSERT(counters != MAP_FAILED);
	pid_t pid = ASSERT_OK(fork());

	if (pid == 0) {
		pthread_t thread[THREADS];

		for (size_t i = 0; i < THREADS; i++)
			if (pthread_create(&thread[i], NULL, count, (void *)i))
				_exit(1);
		for (size_t i = 0; i < THREADS; i++)
			pthread_join(thread[i], NULL);
		_exit(0);
	}
	while (counters->ready < THREADS)
		usleep(1000);
	return pid;
}

/* Every thread tells its id; those beside each other at once. */
static void ask_all_threads(struct session *s)
{
	struct process *p = s->tree.processes[0];

	for (size_t first = 1; first < p->n_threads; first += INJECT_THREADS_MAX) {
		struct thread_call calls[INJECT_THREADS_MAX][2];
		struct thread_calls batch[INJECT_THREADS_MAX];
		size_t n = min(p->n_threads - first, (size_t)INJECT_THREADS_MAX);

		for (size_t i = 0; i < n; i++) {
			calls[i][0] = (struct thread_call){ .nr = SYS_gettid };
			calls[i][1] = (struct thread_call){ .nr = SYS_getpid };
			batch[i] = (struct thread_calls){ &p->threads[first + i], calls[i] };
		}
		ASSERT_OK(inject_thread_calls(&s->in, batch, n, 2));
		for (size_t i = 0; i < n; i++) {
			ASSERT_EQ(calls[i][0].ret, p->threads[first + i].tid);
			ASSERT_EQ(calls[i][1].ret, p->pid);
		}
	}
}

TEST(remote, two_hundred_threads)
{
	pid_t pid = many_threads();
	unsigned long before[THREADS];
	int status;

	for (int round = 0; round < 3; round++) {
		struct session s;

		session_begin(&s, pid);
		ASSERT_EQ(s.tree.processes[0]->n_threads, THREADS + 1);
		ask_all_threads(&s);
		for (size_t i = 0; i < THREADS; i++)
			before[i] = counters->of[i].count;
		session_end(&s);
		for (size_t i = 0; i < THREADS; i++)
			while (counters->of[i].count == before[i])
				usleep(1000);
	}
	counters->is_over = true;
	ASSERT_EQ(ASSERT_OK(waitpid(pid, &status, 0)), pid);
	ASSERT_EQ(status, 0);
	for (size_t i = 0; i < THREADS; i++)
		ASSERT_EQ(counters->of[i].wrong, 0);
}

/* The kernel does not report the end of a leader before its other threads have been reaped. */
TEST(remote, a_leader_killed_by_others_is_not_waited_for)
{
	struct session s;

	expect_killed(&s, many_threads());
	ASSERT(inject_leave(&s.in) < 0);
	tree_end(&s.tree, TREE_KILL);
}

/*
 * Stopped a second time in the same call, a thread is let go on into it for a moment; the call
 * may just end then. Nobody may see that.
 */
TEST(remote, calls_interrupted_again_and_again)
{
	atomic_uint *calls =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;

	ASSERT(calls != MAP_FAILED);
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0) {
		const struct timespec t = { .tv_nsec = 2000000 };

		for (;; ++*calls)
			if (syscall(SYS_nanosleep, &t, NULL) || poll(NULL, 0, 2))
				_exit(1);
	}
	for (int i = 0; i < 300 || *calls < 50; i++) {
		struct session s;

		session_stop(&s, pid);
		tree_end(&s.tree, TREE_RUN);
		tree_done(&s.tree);
		arena_done(&s.arena);
		ASSERT_EQ(ASSERT_OK(waitpid(pid, &status, WNOHANG)), 0);
	}
	kill_and_reap(pid);
}
