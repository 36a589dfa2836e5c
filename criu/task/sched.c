/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Scheduling of threads. Images: sched_* of core-TID, and own fields for what the established
 * format has no place for; those only where it is not as usual, so that a machine with more
 * CPUs gives all of them to a task that had all.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "proc/text.h"
#include "task/constants.h"
#include "task/sched.h"

/* struct sched_attr of sched_setattr(2); headers put it in different places. */
struct sched_attr_v1 {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max; /* Linux 5.3 */
};

#define FLAG_RESET_ON_FORK 0x01ull
#define FLAGS_OF_DEADLINE  0x06ull /* reclaim, tell of overruns */
#define FLAG_KEEP_ALL	   0x18ull /* policy and parameters */
#define FLAGS_UTIL_CLAMP   0x60ull
#define UTIL_MAX_DEFAULT   1024

#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_CLASS(prio) ((prio) >> 13)

static size_t count_bits(const uint64_t *words, size_t n)
{
	size_t bits = 0;

	for (size_t i = 0; i < n; i++)
		bits += __builtin_popcountll(words[i]);
	return bits;
}

static int put_affinity(struct dump *d, pid_t tid, ThreadCoreEntry *e)
{
	uint64_t cpus[128]; /* 8,192 CPUs, the kernel's most */
	long bytes = syscall(SYS_sched_getaffinity, tid, sizeof(cpus), cpus);

	if (bytes < 0)
		return fail(errno, "pid %d: read its CPU affinity", tid);
	if (count_bits(cpus, bytes / sizeof(cpus[0])) < d->n_cpus) {
		e->n_cpu_affinity = bytes / sizeof(cpus[0]);
		e->cpu_affinity = arena_memdup(&d->arena, cpus, bytes);
	}
	return 0;
}

void sched_take_timer_slack(struct dump_thread *th, uint64_t slack_ns)
{
	ThreadCoreEntry *e = th->core->thread_core;

	e->has_timer_slack_ns = slack_ns != DEFAULT_TIMER_SLACK;
	e->timer_slack_ns = e->has_timer_slack_ns ? slack_ns : 0;
}

void sched_take_low_timer_slack(struct dump_thread *th, uint32_t low)
{
	char path[48], text[32];
	uint64_t slack_ns;

	if (low == DEFAULT_TIMER_SLACK) {
		sched_take_timer_slack(th, low);
		return;
	}
	/* The file is in /proc/TID, not below task/. */
	snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", th->thread->tid);
	if (read_small_at(AT_FDCWD, path, text, sizeof(text)) <= 0 || !text_dec(text, &slack_ns) ||
	    (uint32_t)slack_ns != low) {
		warn("pid %d: its timer slack is taken for %u ns; only with CAP_SYS_NICE is more "
		     "than 4 s to be told",
		     th->thread->tid, low);
		slack_ns = low;
	}
	sched_take_timer_slack(th, slack_ns);
}

void sched_add_thread(const ThreadCoreEntry *e, struct program *p)
{
	if (e->has_timer_slack_ns)
		CALL(p, "set the timer slack", SYS_prctl, PR_SET_TIMERSLACK, e->timer_slack_ns);
}

/* What a thread has that never set an I/O priority: some kernels tell 0, others this. */
static int derived_io_priority(const struct sched_attr_v1 *attr)
{
	int class = attr->policy == SCHED_IDLE				     ? 3
		    : attr->policy == SCHED_FIFO || attr->policy == SCHED_RR ? 1
		    : attr->policy == SCHED_DEADLINE			     ? 1
									     : 2;

	return class << 13 | (attr->nice + 20) / 5;
}

static bool is_io_priority_set(long prio, const struct sched_attr_v1 *attr)
{
	return prio >= 0 && IOPRIO_CLASS(prio) && prio != derived_io_priority(attr);
}

static int put_io_priority(pid_t tid, ThreadCoreEntry *e, const struct sched_attr_v1 *attr)
{
	long prio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);

	if (prio < 0 && errno != ENOSYS)
		return fail(errno, "pid %d: read its I/O priority", tid);
	if (!is_io_priority_set(prio, attr))
		return 0;
	e->has_io_priority = true;
	e->io_priority = prio;
	return 0;
}

static void put_util_clamp(ThreadCoreEntry *e, const struct sched_attr_v1 *attr)
{
	bool is_realtime = attr->policy == SCHED_FIFO || attr->policy == SCHED_RR;

	/* Both 0: the kernel has no such thing. Real-time tasks have all at the start. */
	if (!attr->util_max || (attr->util_max == UTIL_MAX_DEFAULT &&
				attr->util_min == (is_realtime ? UTIL_MAX_DEFAULT : 0)))
		return;
	e->has_sched_util_min = e->has_sched_util_max = true;
	e->sched_util_min = attr->util_min;
	e->sched_util_max = attr->util_max;
}

static void put_deadline(ThreadCoreEntry *e, const struct sched_attr_v1 *attr)
{
	e->has_sched_runtime = e->has_sched_deadline = e->has_sched_period = true;
	e->sched_runtime = attr->runtime;
	e->sched_deadline = attr->deadline;
	e->sched_period = attr->period;
	e->has_sched_flags = attr->flags & FLAGS_OF_DEADLINE;
	e->sched_flags = attr->flags & FLAGS_OF_DEADLINE;
}

int sched_collect(struct dump *d, struct dump_thread *th)
{
	struct sched_attr_v1 attr = { .size = sizeof(attr) };
	ThreadCoreEntry *e = th->core->thread_core;
	pid_t tid = th->thread->tid;

	if (syscall(SYS_sched_getattr, tid, &attr, sizeof(attr), 0) < 0)
		return fail(errno, "pid %d: read its scheduling", tid);
	e->has_sched_policy = e->has_sched_nice = e->has_sched_prio = true;
	e->sched_policy = attr.policy | (attr.flags & FLAG_RESET_ON_FORK ? SCHED_RESET_ON_FORK : 0);
	/* sched_getattr(2) tells it only of those for whom it counts at present. */
	errno = 0;
	e->sched_nice = getpriority(PRIO_PROCESS, tid);
	if (errno)
		return fail(errno, "pid %d: read its nice value", tid);
	e->sched_prio = attr.priority;
	if (attr.policy == SCHED_DEADLINE)
		put_deadline(e, &attr);
	put_util_clamp(e, &attr);
	int rc = put_affinity(d, tid, e);
	return rc < 0 ? rc : put_io_priority(tid, e, &attr);
}

static int reset_io_priority(void)
{
	struct sched_attr_v1 attr = { .size = sizeof(attr) };
	long now = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);

	if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) < 0)
		return -1;
	return is_io_priority_set(now, &attr) ? syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0)
					      : 0;
}

/* All CPUs are as many as there may be: no need to know how many there are. */
static int reset_affinity(void)
{
	uint64_t cpus[128];

	memset(cpus, 0xff, sizeof(cpus));
	return syscall(SYS_sched_setaffinity, 0, sizeof(cpus), cpus);
}

int sched_reset(void)
{
	int rc = reset_io_priority();

	return reset_affinity() < 0 ? -1 : rc;
}

/* CPUs that this machine lacks cannot be had: the thread then keeps those of criu. */
static void set_affinity(pid_t tid, const ThreadCoreEntry *e)
{
	uint64_t now[128];
	size_t bytes = e->n_cpu_affinity * sizeof(uint64_t);

	if (syscall(SYS_sched_getaffinity, tid, sizeof(now), now) == (long)bytes &&
	    !memcmp(now, e->cpu_affinity, bytes))
		return;
	if (syscall(SYS_sched_setaffinity, tid, bytes, e->cpu_affinity) < 0)
		warn("pid %d: its CPU affinity cannot be restored: %s", tid, strerror(errno));
}

static struct sched_attr_v1 wanted(const ThreadCoreEntry *e)
{
	return (struct sched_attr_v1){
		.size = sizeof(struct sched_attr_v1),
		.policy = e->sched_policy & ~SCHED_RESET_ON_FORK,
		.flags = (e->sched_policy & SCHED_RESET_ON_FORK ? FLAG_RESET_ON_FORK : 0) |
			 (e->sched_flags & FLAGS_OF_DEADLINE),
		.nice = e->sched_nice,
		.priority = e->sched_prio,
		.runtime = e->sched_runtime,
		.deadline = e->sched_deadline,
		.period = e->sched_period,
	};
}

static int set_policy(pid_t tid, const ThreadCoreEntry *e)
{
	struct sched_attr_v1 now = { .size = sizeof(now) }, want = wanted(e);

	if (syscall(SYS_sched_getattr, tid, &now, sizeof(now), 0) == 0 &&
	    now.policy == want.policy && now.nice == want.nice && now.priority == want.priority &&
	    (now.flags & (FLAG_RESET_ON_FORK | FLAGS_OF_DEADLINE)) == want.flags &&
	    (want.policy != SCHED_DEADLINE ||
	     (now.runtime == want.runtime && now.deadline == want.deadline &&
	      now.period == want.period)))
		return 0;
	/* Of these sched_setattr(2) does not take it. */
	if (want.policy != SCHED_OTHER && want.policy != SCHED_BATCH &&
	    getpriority(PRIO_PROCESS, tid) != want.nice &&
	    setpriority(PRIO_PROCESS, tid, want.nice) < 0)
		return fail(errno, "pid %d: set its nice value to %d", tid, want.nice);
	if (syscall(SYS_sched_setattr, tid, &want, 0) < 0)
		return fail(errno, "pid %d: set its scheduling (policy %u, nice %d, priority %u)",
			    tid, want.policy, want.nice, want.priority);
	return 0;
}

static void set_util_clamp(pid_t tid, const ThreadCoreEntry *e)
{
	struct sched_attr_v1 want = {
		.size = sizeof(want),
		.flags = FLAG_KEEP_ALL | FLAGS_UTIL_CLAMP,
		.util_min = e->sched_util_min,
		.util_max = e->sched_util_max,
	};

	if (syscall(SYS_sched_setattr, tid, &want, 0) < 0)
		warn("pid %d: its utilization clamps (%u to %u) cannot be restored: %s", tid,
		     want.util_min, want.util_max, strerror(errno));
}

int sched_restore(const struct restore_thread *th)
{
	const ThreadCoreEntry *e = th->core->thread_core;
	int rc;

	if (e->n_cpu_affinity)
		set_affinity(th->tid, e);
	rc = e->has_sched_policy ? set_policy(th->tid, e) : 0;
	if (rc < 0)
		return rc;
	if (e->has_sched_util_min && e->has_sched_util_max)
		set_util_clamp(th->tid, e);
	if (e->has_io_priority &&
	    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, th->tid, e->io_priority) < 0)
		warn("pid %d: its I/O priority %#x cannot be restored: %s", th->tid, e->io_priority,
		     strerror(errno));
	return 0;
}
