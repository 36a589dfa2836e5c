/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A program that notices whatever is done to it: its threads do work whose results they know in
 * advance, round after round, and report the first thing that is wrong.
 *   victim FILE [leader=ROLE] [trap=default|ignored|handled|blocked] [threads=N] [timer=1]
 * FILE is what it reports to (struct victim_board). The leader, whose registers a tracer borrows,
 * has the role asked for; the other threads take the roles of the table in turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hold.h"
#include "victim.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define STACK_SIZE    (256 * 1024)
#define MS	      1000000ll
#define NAP	      (2 * MS)
#define FEED_EVERY    (1 * MS)
#define REST	      (MS / 2)
#define TIMER_EVERY   (1 * MS)

struct me;

struct role {
	const char *name;
	void (*round)(struct me *me);
	bool is_fed; /* by a pipe */
};

struct me {
	const struct role *role;
	struct victim_thread *shared;
	int index;
	uint64_t rounds;
	int in, out; /* of its pipe */
	uint64_t got, fed;
	int epoll;
	uint64_t added, aborts;
};

static struct victim_board *board;
static struct me threads[VICTIM_THREADS_MAX];
static int n_threads;
static bool trap_is_blocked, timer_is_wanted;
static timer_t timer;

static void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void wrong(const char *fmt, ...)
{
	static volatile int taken;
	va_list ap;

	if (__atomic_exchange_n(&taken, 1, __ATOMIC_ACQ_REL))
		return; /* the first one tells enough */
	va_start(ap, fmt);
	vsnprintf(board->text, sizeof(board->text), fmt, ap);
	va_end(ap);
	__atomic_store_n(&board->failed, 1, __ATOMIC_RELEASE);
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static struct timespec after(clockid_t clock, int64_t ns)
{
	int64_t at = now_ns(clock) + ns;

	return (struct timespec){ at / (1000 * MS), at % (1000 * MS) };
}

/* What a call returned and when, against what it had to. */
static void judge(const char *call, long got, long want, int64_t start, int64_t lasts)
{
	int64_t took = now_ns(CLOCK_MONOTONIC) - start;

	if (got != want)
		wrong("%s: returned %ld, expected %ld", call, got, want);
	else if (took < lasts)
		wrong("%s: took %ld us of %ld", call, (long)took / 1000, (long)lasts / 1000);
}

static long result_of(long rc)
{
	return rc < 0 ? -errno : rc;
}

/* ---- roles ---- */

/* A leader never rests. Did all others not rest either, they would only wait for a CPU. */
static void rest(struct me *me)
{
	const struct timespec nap = { 0, REST };
	int64_t start = now_ns(CLOCK_MONOTONIC);

	if (me->index)
		judge("nanosleep to rest", result_of(nanosleep(&nap, NULL)), 0, start, REST);
}

static void round_regs(struct me *me)
{
	const char *bad = hold_registers(me->rounds * VICTIM_THREADS_MAX + me->index);

	if (bad)
		wrong("thread %d: %s changed", me->index, bad);
	if (me->rounds % 16 == 0)
		rest(me);
}

static void round_sleep(struct me *me)
{
	struct timespec nap = { 0, NAP }, left, then = after(CLOCK_MONOTONIC, NAP);
	int64_t start = now_ns(CLOCK_MONOTONIC);

	if (me->rounds % 3 == 0)
		judge("nanosleep", result_of(nanosleep(&nap, &left)), 0, start, NAP);
	else if (me->rounds % 3 == 1)
		judge("nanosleep without rest", result_of(nanosleep(&nap, NULL)), 0, start, NAP);
	else
		judge("absolute nanosleep",
		      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL), 0, start, 0);
}

/*
 * The number stands right in front of the instruction, as in a C library: that is how a tracer
 * knows which call a restart belongs to.
 */
static long futex(volatile uint32_t *word, long op, long val, const struct timespec *t, long mask)
{
#ifdef __i386__
	long ret = syscall(SYS_futex, word, op, val, t, NULL, mask);

	return ret < 0 ? -errno : ret;
#else
	register const struct timespec *r10 __asm__("r10") = t;
	register long r8 __asm__("r8") = 0;
	register long r9 __asm__("r9") = mask;
	long ret;

	__asm__ volatile("mov %[nr], %%eax\n\t"
			 "syscall"
			 : "=a"(ret)
			 : [nr] "i"(SYS_futex), "D"(word), "S"(op), "d"(val), "r"(r10), "r"(r8),
			   "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
#endif
}

static void round_futex(struct me *me)
{
	struct timespec nap = { 0, NAP }, then = after(CLOCK_MONOTONIC, NAP);
	int64_t start = now_ns(CLOCK_MONOTONIC);
	volatile uint32_t word = 0;

	if (me->rounds % 2)
		judge("futex", futex(&word, FUTEX_WAIT_PRIVATE, 0, &nap, 0), -ETIMEDOUT, start,
		      NAP);
	else
		judge("futex until",
		      futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &then, FUTEX_BITSET_MATCH_ANY),
		      -ETIMEDOUT, start, 0);
}

static void round_poll(struct me *me)
{
	const struct timespec nap = { 0, NAP };
	int64_t start = now_ns(CLOCK_MONOTONIC);
	sigset_t mask;

	sigfillset(&mask);
	if (me->rounds % 2)
		judge("poll", result_of(poll(NULL, 0, NAP / MS)), 0, start, NAP);
	else
		judge("ppoll", result_of(ppoll(NULL, 0, &nap, board->may_vary ? &mask : NULL)), 0,
		      start, NAP);
}

static void take_number(struct me *me, long rc, uint64_t number)
{
	if (rc != sizeof(number))
		wrong("read: returned %ld", rc);
	else if (number != me->got++)
		wrong("read: number %lu, expected %lu", (long)number, (long)me->got - 1);
}

static void round_read(struct me *me)
{
	uint64_t number = 0;
	long rc = result_of(read(me->in, &number, sizeof(number)));

	take_number(me, rc, number);
}

static void round_epoll(struct me *me)
{
	struct epoll_event event = { 0 };
	long rc = result_of(epoll_wait(me->epoll, &event, 1, 10000));

	if (rc == -EINTR)
		board->eintrs++;
	else if (rc != 1 || event.data.u64 != (uint64_t)me->index)
		wrong("epoll_wait: returned %ld for %lu", rc, (long)event.data.u64);
	else
		round_read(me);
}

static void round_sigwait(struct me *me)
{
	const struct timespec nap = { 0, NAP };
	int64_t start = now_ns(CLOCK_MONOTONIC);
	sigset_t set;

	(void)me;
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	long rc = result_of(sigtimedwait(&set, NULL, &nap));
	if (rc == -EINTR)
		board->eintrs++;
	else
		judge("sigtimedwait", rc, -EAGAIN, start, NAP);
}

/* Feeds all pipes; they hold far more than a reader that falls behind leaves in them. */
static void round_feed(struct me *me)
{
	const struct timespec nap = { 0, FEED_EVERY };
	int64_t start = now_ns(CLOCK_MONOTONIC);

	(void)me;
	judge("nanosleep of the feeder", result_of(nanosleep(&nap, NULL)), 0, start, FEED_EVERY);
	for (int i = 0; i < n_threads; i++) {
		struct me *to = &threads[i];

		if (!to->role->is_fed)
			continue;
		long rc = result_of(write(to->out, &to->fed, sizeof(to->fed)));
		if (rc != sizeof(to->fed))
			wrong("write: returned %ld", rc);
		to->fed++;
	}
}

/* ---- restartable sequences: load, linger, store ---- */

#define LINGER	  2000 /* loops inside a section: most interruptions shall fall there */
#define RSEQ_ADDS 200  /* additions of a round */

static struct {
	volatile uint64_t value;
} __attribute__((aligned(64))) counters[CPU_SETSIZE];
static pthread_barrier_t rseq_all;
static int n_rseq;

static struct rseq *rseq_area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* Adds one to the counter unless the section is interrupted or not on that CPU: then false. */
static bool add_on(int cpu, volatile uint64_t *counter)
{
#ifdef __x86_64__
	struct rseq *area = rseq_area();

	/* clang-format off */
	__asm__ goto volatile(
		".pushsection victim_rseq_cs, \"aw\"\n\t"
		".balign 32\n\t"
		"3: .long 0, 0\n\t"
		".quad 1f, 2f - 1f, 4f\n\t"
		".popsection\n\t"
		"leaq 3b(%%rip), %%rax\n\t"
		"movq %%rax, %[section]\n"
		"1:\n\t"
		"cmpl %[cpu], %[cpu_id]\n\t"
		"jne 4f\n\t"
		"movq (%[counter]), %%rax\n\t"
		"movl %[linger], %%ecx\n"
		"5:\n\t"
		"decl %%ecx\n\t"
		"jnz 5b\n\t"
		"incq %%rax\n\t"
		"movq %%rax, (%[counter])\n"
		"2:\n\t"
		".pushsection victim_rseq_abort, \"ax\"\n\t"
		".byte 0x0f, 0xb9, 0x3d\n\t"	/* ud1, the signature is its operand */
		".long %c[signature]\n"
		"4: jmp %l[aborted]\n\t"
		".popsection\n\t"
		:
		: [section] "m" (area->rseq_cs), [cpu_id] "m" (area->cpu_id), [cpu] "r" (cpu),
		  [counter] "r" (counter), [linger] "i" (LINGER), [signature] "i" (RSEQ_SIG)
		: "rax", "rcx", "cc", "memory"
		: aborted);
	/* clang-format on */
	return true;
aborted:
#else
	(void)cpu;
	(void)counter;
#endif
	return false;
}

static void compare_sums(void)
{
	uint64_t added = 0, counted = 0;

	for (int i = 0; i < n_threads; i++)
		added += threads[i].added;
	for (int i = 0; i < CPU_SETSIZE; i++)
		counted += counters[i].value;
	if (added != counted)
		wrong("rseq: %lu added, %lu counted", (long)added, (long)counted);
}

static void round_rseq(struct me *me)
{
	for (int i = 0; i < RSEQ_ADDS;) {
		int cpu = rseq_area()->cpu_id_start;

		if (add_on(cpu, &counters[cpu].value)) {
			me->added++;
			i++;
		} else {
			me->aborts++;
		}
	}
	if (pthread_barrier_wait(&rseq_all) == PTHREAD_BARRIER_SERIAL_THREAD) {
		uint64_t aborts = 0;

		compare_sums();
		for (int i = 0; i < n_threads; i++)
			aborts += threads[i].aborts;
		board->rseq_aborts = aborts;
	}
	pthread_barrier_wait(&rseq_all);
	rest(me);
}

/* All on one CPU: a section that went on instead of being aborted has lost an addition. */
static void pin_to_first_cpu(void)
{
	cpu_set_t allowed, one;
	int cpu = 0;

	sched_getaffinity(0, sizeof(allowed), &allowed);
	while (!CPU_ISSET(cpu, &allowed))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) < 0)
		die("sched_setaffinity");
}

/* ---- putting it together ---- */

/* Twice rseq: it takes two to lose an addition. */
static const struct role roles[] = {
	{ "regs", round_regs },
#ifdef __x86_64__
	{ "rseq", round_rseq },
	{ "rseq", round_rseq },
#endif
	{ "sleep", round_sleep },
	{ "read", round_read, .is_fed = true },
	{ "epoll", round_epoll, .is_fed = true },
	{ "futex", round_futex },
	{ "poll", round_poll },
	{ "sigwait", round_sigwait },
};
static const struct role feeder = { "feeder", round_feed };

static const struct role *find_role(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		if (!strcmp(roles[i].name, name))
			return &roles[i];
	fprintf(stderr, "no role %s\n", name);
	exit(1);
}

/* Each thread blocks signals of its own. */
static void set_mask(int index)
{
	sigset_t set;

	sigemptyset(&set);
	if (index)
		sigaddset(&set, SIGALRM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 1 + index % 20);
	if (trap_is_blocked)
		sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

static void on_alarm(int sig)
{
	(void)sig;
	hold_clobber();
}

/* Signals that the leader gets while a tracer is at work, and whose handler uses all registers. */
static void make_timer(void)
{
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };

	ev._sigev_un._tid = gettid();
	sigaction(SIGALRM, &sa, NULL);
	if (timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0)
		die("timer_create");
	timer_is_wanted = true;
}

static void *live(void *arg)
{
	const struct itimerspec every = { { 0, TIMER_EVERY }, { 0, TIMER_EVERY } };
	struct me *me = arg;

	set_mask(me->index);
	if (me->role->round == round_rseq)
		pin_to_first_cpu();
	snprintf(me->shared->role, sizeof(me->shared->role), "%s", me->role->name);
	__atomic_store_n(&me->shared->tid, gettid(), __ATOMIC_RELEASE);
	for (;;) {
		me->role->round(me);
		me->shared->rounds = ++me->rounds;
		if (timer_is_wanted && me->index == 0 && board->may_vary) {
			timer_settime(timer, 0, &every, NULL);
			timer_is_wanted = false;
		}
	}
	return NULL;
}

static void prepare(struct me *me)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = me->index };
	int ends[2];

	if (me->role->round == round_rseq)
		n_rseq++;
	if (!me->role->is_fed)
		return;
	if (pipe(ends) < 0)
		die("pipe");
	me->in = ends[0];
	me->out = ends[1];
	me->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (me->epoll < 0 || epoll_ctl(me->epoll, EPOLL_CTL_ADD, me->in, &event) < 0)
		die("epoll");
}

static void cast_roles(const char *leader)
{
	for (int i = 0; i < n_threads; i++) {
		struct me *me = &threads[i];

		me->index = i;
		me->shared = &board->thread[i];
		me->role = &roles[(i - 1) % ARRAY_SIZE(roles)];
		if (i == 0)
			me->role = find_role(leader);
		else if (i == n_threads - 1)
			me->role = &feeder;
		prepare(me);
	}
	if (n_rseq)
		pthread_barrier_init(&rseq_all, NULL, n_rseq);
}

static void start_others(void)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (int i = 1; i < n_threads; i++)
		if (pthread_create(&t, &attr, live, &threads[i]))
			die("pthread_create");
	for (int i = 1; i < n_threads; i++)
		while (!__atomic_load_n(&board->thread[i].tid, __ATOMIC_ACQUIRE))
			sched_yield();
}

static void on_trap(int sig)
{
	(void)sig;
	wrong("it got a SIGTRAP");
}

static void set_trap(const char *how)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };

	if (!strcmp(how, "ignored"))
		sa.sa_handler = SIG_IGN;
	else if (!strcmp(how, "handled"))
		sa.sa_handler = on_trap;
	trap_is_blocked = !strcmp(how, "blocked");
	sigaction(SIGTRAP, &sa, NULL);
}

static void map_board(const char *file)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die(file);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (board == MAP_FAILED)
		die("mmap");
	close(fd);
}

static const char *param(char **argv, const char *name, const char *preset)
{
	size_t len = strlen(name);

	for (; *argv; argv++)
		if (!strncmp(*argv, name, len) && (*argv)[len] == '=')
			return *argv + len + 1;
	return preset;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 1;
	const char *leader = param(argv + 2, "leader", "regs");

	n_threads = atoi(param(argv + 2, "threads", "11"));
	if (n_threads < 2 || n_threads > VICTIM_THREADS_MAX)
		return 1;
	if (!__rseq_size)
		return VICTIM_SKIPPED;
	hold_init();
	map_board(argv[1]);
	set_trap(param(argv + 2, "trap", "default"));
	set_mask(0);
	raise(SIGUSR2); /* stays pending */
	cast_roles(leader);
	start_others();
	if (atoi(param(argv + 2, "timer", "0")))
		make_timer();
	board->n_threads = n_threads;
	__atomic_store_n(&board->is_ready, 1, __ATOMIC_RELEASE);
	live(&threads[0]);
	return 0;
}
