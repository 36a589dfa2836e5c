/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * POSIX timers and interval timers. Images: task_timers_entry of core-PID.
 *
 * Everything is relative: a timer goes on with the time that it had left. A timer whose signal
 * is pending has expired, and an interval timer then waits for the delivery (its overruns are
 * counted there); such a timer is made to expire at once, so that the signal that is pending
 * after the restore is its own again. The kernel offers no call for a count of overruns: see
 * catch_up for how it comes back.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "proc/timers.h"
#include "task/restore.h"
#include "task/timers.h"

#define NSEC 1000000000ll

/* CPU clocks: ~pid << 3, then whether that is a thread, then which time. */
#define CLOCK_OWN_THREAD   (-2)
#define CLOCK_IS_OF_THREAD 4
#define CLOCK_IS_FD	   3
#define clock_pid(clock)   (~((clock) >> 3))
#define clock_is_cpu(clock)                                                                        \
	((clock) < 0 || (clock) == CLOCK_PROCESS_CPUTIME_ID || (clock) == CLOCK_THREAD_CPUTIME_ID)

static bool has_thread(const struct dump_task *t, pid_t tid)
{
	for (size_t i = 0; i < t->process->n_threads; i++)
		if (t->process->threads[i].tid == tid)
			return true;
	return false;
}

static void check_timer(struct dump *d, const struct dump_task *t, const struct proc_timer *timer)
{
	pid_t pid = t->process->pid, of = timer->clock < 0 ? clock_pid(timer->clock) : 0;

	if (timer->notify == TIMER_THREAD_ID && !has_thread(t, timer->target))
		dump_block(d, "pid %d: its POSIX timer %u notifies the thread %d, which is gone",
			   pid, timer->id, timer->target);
	if (timer->clock < 0 && (timer->clock & 7) == CLOCK_IS_FD)
		dump_block(d, "pid %d: its POSIX timer %u runs by the clock of a device", pid,
			   timer->id);
	else if (of && (timer->clock & CLOCK_IS_OF_THREAD ? !has_thread(t, of)
							  : !tree_find(&d->tree, of)))
		dump_block(d,
			   "pid %d: its POSIX timer %u runs by the CPU time of %d, which is not in "
			   "the tree",
			   pid, timer->id, of);
}

static PosixTimerEntry *make_entry(struct arena *a, const struct proc_timer *timer)
{
	PosixTimerEntry *e = MESSAGE(a, PosixTimerEntry, posix_timer_entry);

	e->it_id = timer->id;
	e->clock_id = timer->clock;
	e->si_signo = timer->signal;
	e->it_sigev_notify = timer->notify;
	e->sival_ptr = timer->value;
	if (timer->notify == TIMER_THREAD_ID) {
		e->has_notify_thread_id = true;
		e->notify_thread_id = timer->target;
	}
	return e;
}

int timers_collect(struct dump *d, struct dump_task *t)
{
	struct proc_timer *list;
	int rc = proc_timers_read(t->process->proc_fd, &d->arena, &list, &t->n_posix_timers);

	if (rc == -ENOENT)
		dump_block(d,
			   "pid %d: this kernel does not tell whether it has POSIX timers "
			   "(CONFIG_CHECKPOINT_RESTORE)",
			   t->process->pid);
	else if (rc < 0)
		return fail(-rc, "pid %d: read /proc/%d/timers", t->process->pid, t->process->pid);
	t->posix_timers = arena_array(&d->arena, PosixTimerEntry *, t->n_posix_timers);
	/* The kernel lists the youngest first. */
	for (size_t i = 0; i < t->n_posix_timers; i++) {
		const struct proc_timer *timer = &list[t->n_posix_timers - 1 - i];

		check_timer(d, t, timer);
		t->posix_timers[i] = make_entry(&d->arena, timer);
	}
	return 0;
}

struct kernel_itimerspec {
	int64_t isec, insec, vsec, vnsec;
};

static bool is_armed(const struct kernel_itimerspec *v)
{
	return v->vsec || v->vnsec;
}

static bool has_moved(const struct kernel_itimerspec *a, const struct kernel_itimerspec *b)
{
	return a->vsec != b->vsec || a->vnsec != b->vnsec;
}

/* Reads one timer twice in a thread: only CPU time of that thread has passed meanwhile. */
static int is_clock_of(struct dump_task *t, const PosixTimerEntry *e, struct thread *thread)
{
	size_t mark = t->in.region.used;
	struct kernel_itimerspec *v = region_alloc(&t->in.region, 2 * sizeof(*v));

	if (!v)
		return -ENOSPC;
	struct thread_call calls[2] = {
		{ .nr = SYS_timer_gettime,
		  .arg = { e->it_id, region_raddr(&t->in.region, &v[0]) } },
		{ .nr = SYS_timer_gettime,
		  .arg = { e->it_id, region_raddr(&t->in.region, &v[1]) } },
	};
	struct thread_calls batch = { thread, calls };
	int rc = inject_thread_calls(&t->in, &batch, 1, ARRAY_SIZE(calls));
	bool moved = has_moved(&v[0], &v[1]);
	t->in.region.used = mark;
	if (rc == 0 && (calls[0].ret < 0 || calls[1].ret < 0))
		rc = fail(-min(calls[0].ret, calls[1].ret), "pid %d: read timer %u", thread->tid,
			  e->it_id);
	return rc < 0 ? rc : moved;
}

/*
 * A timer of "my thread's CPU time" counts that of the thread which made it, and nothing says
 * which that was. But only that thread can see its clock move while all others stand still.
 */
static int find_clock_owner(struct dump_task *t, PosixTimerEntry *e)
{
	for (size_t i = 1; i < t->process->n_threads; i++) {
		int rc = is_clock_of(t, e, &t->process->threads[i]);

		if (rc < 0)
			return rc;
		if (rc > 0) {
			e->has_clock_thread_id = true;
			e->clock_thread_id = t->process->threads[i].tid;
			return 0;
		}
	}
	return 0;
}

struct timer_questions {
	struct kernel_itimerspec *now, *again;
	struct call *overrun;
};

#define TIMERS_AT_ONCE 64

static int add_questions(struct program *p, PosixTimerEntry **list, struct timer_questions *q,
			 size_t n)
{
	for (size_t i = 0; i < n; i++) {
		q[i].now = program_room(p, sizeof(*q[i].now));
		q[i].again = program_room(p, sizeof(*q[i].again));
		if (!q[i].now || !q[i].again)
			return -ENOSPC;
		CALL(p, "read a POSIX timer", SYS_timer_gettime, list[i]->it_id,
		     program_raddr(p, q[i].now));
		q[i].overrun = CALL(p, "read the overruns of a POSIX timer", SYS_timer_getoverrun,
				    list[i]->it_id);
	}
	for (size_t i = 0; i < n; i++)
		CALL(p, "read a POSIX timer again", SYS_timer_gettime, list[i]->it_id,
		     program_raddr(p, q[i].again));
	return 0;
}

static void take_answer(PosixTimerEntry *e, const struct timer_questions *q)
{
	e->isec = q->now->isec;
	e->insec = q->now->insec;
	e->vsec = q->now->vsec;
	e->vnsec = q->now->vnsec;
	e->overrun = q->overrun->ret;
}

static int ask_some(struct dump_task *t, PosixTimerEntry **list, size_t n, bool *ret_is_elsewhere)
{
	struct timer_questions q[TIMERS_AT_ONCE];
	struct program p;
	int rc = program_begin(&p, &t->in.worker, 3 * TIMERS_AT_ONCE);

	if (rc == 0)
		rc = add_questions(&p, list, q, n);
	if (rc == 0)
		rc = program_run(&p);
	for (size_t i = 0; i < n && rc == 0; i++) {
		take_answer(list[i], &q[i]);
		ret_is_elsewhere[i] = (int32_t)list[i]->clock_id == CLOCK_OWN_THREAD &&
				      is_armed(q[i].now) && !has_moved(q[i].now, q[i].again);
		if ((int32_t)list[i]->clock_id == CLOCK_OWN_THREAD && !is_armed(q[i].now) &&
		    t->process->n_threads > 1)
			warn("pid %d: POSIX timer %u: it is not running, so nothing tells whose "
			     "CPU time it counts; it will be that of the first thread",
			     t->process->pid, list[i]->it_id);
	}
	program_end(&p);
	return rc;
}

int timers_ask(struct dump_task *t)
{
	for (size_t first = 0; first < t->n_posix_timers; first += TIMERS_AT_ONCE) {
		size_t n = min(t->n_posix_timers - first, (size_t)TIMERS_AT_ONCE);
		PosixTimerEntry **list = &t->posix_timers[first];
		bool is_elsewhere[TIMERS_AT_ONCE];
		int rc = ask_some(t, list, n, is_elsewhere);

		for (size_t i = 0; i < n && rc == 0; i++)
			rc = is_elsewhere[i] ? find_clock_owner(t, list[i]) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static PosixTimerEntry *find_in(PosixTimerEntry **list, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (list[i]->it_id == id)
			return list[i];
	return NULL;
}

/* The interval timer that sends the signal, if it was not pending already before we asked. */
static const ItimerEntry *itimer_of(const struct dump_task *t, int sig)
{
	const TaskTimersEntry *timers = t->threads[0].core->tc->timers;

	if (!timers || t->threads[0].status.shared_pending >> (sig - 1) & 1)
		return NULL;
	return sig == SIGALRM	  ? timers->real
	       : sig == SIGVTALRM ? timers->virt
	       : sig == SIGPROF	  ? timers->prof
				  : NULL;
}

bool timers_is_ahead(const struct dump_task *t, const siginfo_t *si, uint64_t asked_us,
		     uint64_t read_us)
{
	uint64_t left_us = 0;

	if (si->si_code == SI_TIMER) {
		const PosixTimerEntry *e =
			find_in(t->posix_timers, t->n_posix_timers, si->si_timerid);

		left_us = !e ? 0 : e->vsec * 1000000 + (e->vnsec + 999) / 1000;
	} else if (si->si_code == SI_KERNEL) {
		const ItimerEntry *e = itimer_of(t, si->si_signo);

		left_us = !e ? 0 : e->vsec * 1000000 + e->vusec;
	}
	return left_us && left_us <= read_us - asked_us;
}

/* ---- restore ---- */

struct kernel_sigevent {
	uint64_t value;
	int32_t signal, notify, tid;
	char unused[44];
};

/* What becomes of a POSIX timer at restore. */
struct restore_timer {
	const PosixTimerEntry *entry;
	const SiginfoEntry *pending; /* the signal that it brings back by expiring */
	bool is_running;	     /* since catch_up */
};

static int64_t value_ns(const PosixTimerEntry *e)
{
	/* Read while it expired: it goes on with its interval. */
	if (!e->vsec && !e->vnsec)
		return e->isec * NSEC + e->insec;
	return e->vsec * NSEC + e->vnsec;
}

static int64_t interval_ns(const PosixTimerEntry *e)
{
	return e->isec * NSEC + e->insec;
}

static int64_t clock_now_ns(int32_t clock)
{
	struct timespec now = { 0 };

	/* Alarm clocks show the time of their base, but only where there is an alarm. */
	(void)clock_gettime(clock == CLOCK_REALTIME_ALARM   ? CLOCK_REALTIME
			    : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME
							    : clock,
			    &now);
	return now.tv_sec * NSEC + now.tv_nsec;
}

/* The time on its clock at which an interval timer expired n intervals before its next expiry. */
static int64_t earlier_expiry_ns(const PosixTimerEntry *e, uint64_t n)
{
	__int128 at =
		(__int128)clock_now_ns(e->clock_id) + value_ns(e) - (__int128)n * interval_ns(e);

	return at > INT64_MAX || at < 1 ? 0 : at;
}

static struct kernel_itimerspec spec(const PosixTimerEntry *e, int64_t value)
{
	return (struct kernel_itimerspec){ e->isec, e->insec, value / NSEC, value % NSEC };
}

static void *add_set(struct program *p, const struct restore_timer *timer, int flags, int64_t value)
{
	struct kernel_itimerspec v = spec(timer->entry, value);
	void *room = program_data(p, &v, sizeof(v));

	if (room)
		CALL(p, "start a POSIX timer", SYS_timer_settime, timer->entry->it_id, flags,
		     program_raddr(p, room), 0);
	return room;
}

static int by_id(const void *a, const void *b)
{
	uint32_t x = ((const struct restore_timer *)a)->entry->it_id,
		 y = ((const struct restore_timer *)b)->entry->it_id;

	return (x > y) - (x < y);
}

static struct restore_timer *find_timer(const struct restore_task *t, uint32_t id)
{
	PosixTimerEntry e = { .it_id = id };
	struct restore_timer key = { .entry = &e };

	if (!t->n_timers)
		return NULL;
	return bsearch(&key, t->timers, t->n_timers, sizeof(key), by_id);
}

/* The id of the timer that sent a signal, or -1. */
static int64_t timer_of(const SiginfoEntry *e)
{
	siginfo_t si = { 0 };

	memcpy(&si, e->siginfo.data, min(e->siginfo.len, sizeof(si)));
	return si.si_code == SI_TIMER ? si.si_timerid : -1;
}

/*
 * CPU time stands still until the task runs, and a count of overruns does not outlive another
 * start of the timer: there the signal is queued like any other.
 */
static void find_pending(struct restore_task *t, const SignalQueueEntry *q, pid_t tid)
{
	for (size_t i = 0; q && i < q->n_signals; i++) {
		int64_t id = timer_of(q->signals[i]);
		struct restore_timer *timer = id < 0 ? NULL : find_timer(t, id);
		const PosixTimerEntry *e = timer ? timer->entry : NULL;

		if (!e || timer->pending || e->overrun || clock_is_cpu((int32_t)e->clock_id) ||
		    e->it_sigev_notify == TIMER_NONE ||
		    (e->it_sigev_notify == TIMER_THREAD_ID ? e->notify_thread_id : 0) != tid)
			continue;
		if (!interval_ns(e) ? !value_ns(e) : earlier_expiry_ns(e, 1) > 0)
			timer->pending = q->signals[i];
	}
}

static void plan_timers(struct restore *r, struct restore_task *t, const TaskTimersEntry *image)
{
	t->n_timers = image->n_posix;
	t->timers = arena_array(&r->arena, struct restore_timer, t->n_timers);
	for (size_t i = 0; i < t->n_timers; i++)
		t->timers[i].entry = image->posix[i];
	qsort(t->timers, t->n_timers, sizeof(*t->timers), by_id);
	find_pending(t, t->image->cores[0]->tc->signals_s, 0);
	for (size_t i = 0; i < t->n_threads; i++)
		find_pending(t, t->threads[i].core->thread_core->signals_p, t->threads[i].tid);
}

bool timers_bring_back(const struct restore_task *t, const SiginfoEntry *e)
{
	int64_t id = timer_of(e);
	const struct restore_timer *timer = id < 0 ? NULL : find_timer(t, id);

	return timer && timer->pending == e;
}

static struct worker *worker_of(struct restore_task *t, pid_t tid)
{
	for (size_t i = 0; i < t->n_threads; i++)
		if (t->threads[i].tid == tid)
			return &t->threads[i].worker;
	return task_worker(t);
}

/* Lets timer_create take the number that it finds where it is to write one: Linux 6.16. */
static int choose_ids(struct restore_task *t, bool on, bool *ret_can)
{
	struct program p;
	int rc = program_begin(&p, task_worker(t), 1);

	if (rc < 0)
		return rc;
	struct call *c = CALL(&p, "choose ids of POSIX timers", SYS_prctl,
			      ABI_PR_TIMER_CREATE_RESTORE_IDS, on, 0, 0, 0);
	c->flags = CALL_MAY_FAIL;
	rc = program_run(&p);
	*ret_can = c->ret == 0;
	program_end(&p);
	return rc;
}

#define IDS_AT_ONCE 512
#define IDS_MAX	    (1u << 24) /* takes seconds */

/* Older kernels count up: timers are made and deleted until the next one gets the number. */
static int skip_ids(struct restore_task *t, uint32_t n)
{
	const struct kernel_sigevent nobody = { .notify = SIGEV_NONE };
	struct program p;
	int rc = program_begin(&p, task_worker(t), 2 * IDS_AT_ONCE);

	if (rc < 0)
		return rc;
	program_set_long(&p);
	for (uint32_t i = 0; i < n; i++) {
		program_reserve(&p, 2);
		void *event = program_data(&p, &nobody, sizeof(nobody));
		uint64_t *id = program_room(&p, sizeof(*id));

		if (!event || !id)
			break;
		CALL(&p, "use up an id of POSIX timers", SYS_timer_create, CLOCK_MONOTONIC,
		     program_raddr(&p, event), program_raddr(&p, id));
		struct call *c = CALL(&p, "use up an id of POSIX timers", SYS_timer_delete, 0);
		call_load(c, 0, program_raddr(&p, id));
	}
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

static int make_timer(struct restore *r, struct restore_task *t, const PosixTimerEntry *e)
{
	struct kernel_sigevent event = { e->sival_ptr, e->si_signo, e->it_sigev_notify,
					 e->notify_thread_id };
	struct program p;
	int rc = program_begin(&p, worker_of(t, e->clock_thread_id), 1);

	if (rc < 0)
		return rc;
	void *room = program_data(&p, &event, sizeof(event));
	int32_t *id = program_data(&p, &e->it_id, sizeof(e->it_id));
	if (!room || !id)
		return -ENOSPC;
	CALL(&p, arena_printf(&r->arena, "make POSIX timer %u of clock %d", e->it_id, e->clock_id),
	     SYS_timer_create, e->clock_id, program_raddr(&p, room), program_raddr(&p, id));
	rc = program_run(&p);
	if (rc == 0 && (uint32_t)*id != e->it_id)
		rc = refuse(EBUSY, "pid %d: POSIX timer %u got the id %d", t->pid, e->it_id, *id);
	program_end(&p);
	return rc;
}

/*
 * Overruns are counted when the signal of an interval timer is delivered: as many intervals as
 * have passed since the expiry, but one. So the timer is started as if it had expired that long
 * ago, and its signal, which comes at once and is blocked, is taken; it then goes on at the
 * right time. Nothing else can be pending yet.
 */
static int catch_up(struct restore_task *t, struct restore_timer *timer)
{
	const PosixTimerEntry *e = timer->entry;
	const struct timespec patience = { .tv_sec = 1 };
	uint64_t set = 1ull << (e->si_signo - 1);
	struct program p;
	int rc = program_begin(&p, worker_of(t, e->notify_thread_id), 2);

	if (rc < 0)
		return rc;
	void *mask = program_data(&p, &set, sizeof(set));
	void *time = program_data(&p, &patience, sizeof(patience));
	siginfo_t *si = program_room(&p, sizeof(*si));
	int64_t expiry = earlier_expiry_ns(e, (uint64_t)e->overrun + 1);
	bool is_possible = mask && time && si && expiry > 0 &&
			   !clock_is_cpu((int32_t)e->clock_id) && value_ns(e) <= interval_ns(e);
	if (is_possible) {
		add_set(&p, timer, TIMER_ABSTIME, expiry);
		struct call *c = CALL(&p, "take the signal of a POSIX timer", SYS_rt_sigtimedwait,
				      program_raddr(&p, mask), program_raddr(&p, si),
				      program_raddr(&p, time), sizeof(set));
		c->flags = CALL_MAY_FAIL;
		rc = program_run(&p);
		timer->is_running =
			rc == 0 && si->si_code == SI_TIMER && (uint32_t)si->si_timerid == e->it_id;
	}
	program_end(&p);
	if (rc == 0 && !timer->is_running)
		warn("pid %d: POSIX timer %u: its count of overruns (%u) is lost", t->pid, e->it_id,
		     e->overrun);
	return rc;
}

static int make_all(struct restore *r, struct restore_task *t, bool can_choose)
{
	uint32_t next = 0;

	for (size_t i = 0; i < t->n_timers; i++) {
		const PosixTimerEntry *e = t->timers[i].entry;
		int rc = 0;

		if (!can_choose && e->it_id > IDS_MAX)
			return refuse(EOPNOTSUPP,
				      "pid %d: POSIX timer %u: a number that high takes a kernel "
				      "where it can be chosen (Linux 6.16)",
				      t->pid, e->it_id);
		if (!can_choose)
			rc = skip_ids(t, e->it_id - next);
		if (rc == 0)
			rc = make_timer(r, t, e);
		if (rc < 0)
			return rc;
		next = e->it_id + 1;
	}
	for (size_t i = 0; i < t->n_timers; i++) {
		int rc = t->timers[i].entry->overrun ? catch_up(t, &t->timers[i]) : 0;

		if (rc < 0)
			return rc;
	}
	return 0;
}

int timers_create(struct restore *r, struct restore_task *t)
{
	const TaskTimersEntry *image = t->image->cores[0]->tc->timers;
	bool can_choose, ignored;

	if (!image || !image->n_posix)
		return 0;
	plan_timers(r, t, image);
	int rc = choose_ids(t, true, &can_choose);
	if (rc == 0)
		rc = make_all(r, t, can_choose);
	return rc == 0 && can_choose ? choose_ids(t, false, &ignored) : rc;
}

static void add_itimers(const TaskTimersEntry *timers, struct program *p)
{
	const ItimerEntry *which[] = { timers->real, timers->virt, timers->prof };

	for (int i = 0; i < 3; i++) {
		struct itimerval v = {
			.it_interval = { which[i]->isec, which[i]->iusec },
			.it_value = { which[i]->vsec, which[i]->vusec },
		};

		/* An interval timer that was read while it expired has no time left: it goes on. */
		if (!v.it_value.tv_sec && !v.it_value.tv_usec)
			v.it_value = v.it_interval;
		if (!v.it_value.tv_sec && !v.it_value.tv_usec)
			continue;
		void *room = program_data(p, &v, sizeof(v));
		if (room)
			CALL(p, "set an interval timer", SYS_setitimer, i, program_raddr(p, room),
			     0);
	}
}

static void add_start(struct program *p, const struct restore_timer *timer)
{
	const PosixTimerEntry *e = timer->entry;

	if (timer->is_running)
		return;
	if (timer->pending)
		(void)add_set(p, timer, TIMER_ABSTIME,
			      interval_ns(e) ? max(earlier_expiry_ns(e, 1), (int64_t)1) : 1);
	else if (value_ns(e))
		(void)add_set(p, timer, 0, value_ns(e));
}

void timers_add_start(const struct restore_task *t, struct program *p)
{
	const TaskTimersEntry *image = t->image->cores[0]->tc->timers;

	for (size_t i = 0; i < t->n_timers; i++)
		add_start(p, &t->timers[i]);
	if (image)
		add_itimers(image, p);
}
