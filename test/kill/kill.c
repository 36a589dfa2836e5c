/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Proof that a program survives the death of criu at every instant: tracers do what a dump does
 * (tracer.c) to programs that notice everything (victim.c), and are killed in the middle.
 *   kill [--quick] [--random N] [--passes N] [--only NAME] [--seed N] [--verbose]
 * Modes of each variant of the victim:
 *   points   the tracer kills itself at each named point in turn
 *   random   it is killed from outside after a random time
 *   stopped  like points, on a victim stopped by SIGSTOP: it does nothing until it is continued
 *   again    like points, and at once another tracer comes, which finds it on its way back
 *   stopped-again  both: a stopped victim is still where the tracer left it
 * And a control: without the prepared way back victims have to break, or this test is blind.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/own.h"

#include "tracer.h"
#include "watch.h"

#define US		1000ull
/* Where many others want the CPUs a healthy victim takes long: only one that hangs takes this. */
#define DEADLINE_MS	20000
#define BROKEN_ENOUGH	10 /* of one test: each may take the whole deadline */
#define CONTROL_ENOUGH	12
#define RUNS_TO_MEASURE 7
#define FULL_RANDOM	2000
#define FULL_PASSES	3
#define QUICK_RANDOM	200
#define QUICK_STRIDE	4

struct variant {
	const char *name;
	char *args[5];
	/*
	 * A handler that runs between registers and mask runs on the memory of the frames: the
	 * victim gets home, but another tracer does not find that memory unused.
	 */
	bool spoils_frames;
	bool is_i386; /* the victim is a 32-bit program */
};

static const struct variant variants[] = {
	{ "regs", { "leader=regs", "trap=ignored" } },
	{ "regs-timer", { "leader=regs", "trap=default", "timer=1" }, .spoils_frames = true },
	{ "rseq", { "leader=rseq", "trap=handled" } },
	{ "sleep", { "leader=sleep", "trap=default" } },
	{ "read", { "leader=read", "trap=blocked" } },
	{ "epoll", { "leader=epoll", "trap=ignored" } },
	{ "futex", { "leader=futex", "trap=blocked" } },
	{ "poll", { "leader=poll", "trap=handled" } },
	{ "i386-regs", { "leader=regs", "trap=ignored" }, .is_i386 = true },
	{ "i386-sleep", { "leader=sleep", "trap=default" }, .is_i386 = true },
	{ "i386-futex", { "leader=futex", "trap=blocked" }, .is_i386 = true },
};

struct settings {
	long random; /* kills in all */
	long passes; /* over the points */
	long stride; /* of the points that are used, from a random one on */
	const char *only;
	unsigned long seed;
	bool verbose;
};

/* One test: a variant in a mode. */
struct test {
	const struct settings *settings;
	const struct variant *variant;
	const char *mode;
	bool is_stopped; /* the victims are, when the tracer comes */
	bool is_at_once; /* another tracer comes before the victim can be home */
	bool without_frames;
	struct victim victim;
	struct tracer_board *board;
	unsigned long kills, whole; /* tracers that were killed, or were not in time */
	unsigned long verdicts[N_VERDICTS], phases[N_PHASES];
	unsigned long errors; /* tracers that failed by themselves */
	unsigned long eintrs, rseq_aborts;
	struct tracer_board last_kill; /* where the last tracer was when it was killed */
};

static char victim_program[4096], victim32_program[4096 + 2];

/* ---- one kill ---- */

static void spin_until(uint64_t ns)
{
	while (now_ns() < ns)
		__builtin_ia32_pause();
}

static pid_t start_tracer(struct test *t, uint32_t kill_at)
{
	*t->board =
		(struct tracer_board){ .kill_at = kill_at, .without_frames = t->without_frames };
	pid_t pid = fork();
	if (pid == 0)
		tracer_main(t->board, t->victim.pid);
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	return pid;
}

/* Reaps the tracer and notes how it ended. Returns true unless it failed by itself. */
static bool end_tracer(struct test *t, pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid) {
		perror("waitpid");
		exit(1);
	}
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		t->kills++;
		t->phases[t->board->phase]++;
		t->last_kill = *t->board;
		return true;
	}
	if (status == 0) {
		t->whole++;
		if (t->board->is_protected || t->without_frames || t->is_at_once)
			return true;
		fprintf(stderr, "FAIL %s %s: the victim had no way back\n", t->variant->name,
			t->mode);
	} else {
		fprintf(stderr, "FAIL %s %s: the tracer ended with %#x: %s\n", t->variant->name,
			t->mode, status, t->board->error);
	}
	t->errors++;
	return false;
}

/* The tracer kills itself at a point, 0: at none. */
static void trace_to_point(struct test *t, uint32_t kill_at)
{
	(void)end_tracer(t, start_tracer(t, kill_at));
}

/* We kill it after a time. It may be through by then. */
static void trace_for(struct test *t, uint64_t ns)
{
	pid_t pid = start_tracer(t, 0);

	while (!__atomic_load_n(&t->board->has_started, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
	spin_until(now_ns() + ns);
	(void)kill(pid, SIGKILL); /* a zombie at most: we have not reaped it */
	(void)end_tracer(t, pid);
}

/* ---- what became of the victim ---- */

static bool new_victim(struct test *t)
{
	int rc = victim_start(&t->victim, t->variant->is_i386 ? victim32_program : victim_program,
			      t->variant->args);

	if (rc == 0 && t->is_stopped && !victim_stop(&t->victim))
		rc = -1;
	if (rc == VICTIM_SKIPPED)
		return false;
	if (rc) {
		fprintf(stderr, "FAIL %s %s: no victim\n", t->variant->name, t->mode);
		exit(1);
	}
	return true;
}

static void drop_victim(struct test *t)
{
	t->eintrs += t->victim.board->eintrs;
	t->rseq_aborts += t->victim.board->rseq_aborts;
	victim_end(&t->victim);
}

/* A stopped victim has to be found stopped first, and is stopped again after it has shown itself.
 */
static enum verdict judge(struct test *t, int timeout_ms, FILE *evidence)
{
	enum verdict verdict;

	if (t->is_stopped) {
		if (!victim_is_stopped(&t->victim, timeout_ms, evidence) ||
		    !victim_stood_still(&t->victim, evidence))
			return BROKEN;
		victim_continue(&t->victim);
	}
	victim_mark(&t->victim);
	verdict = victim_judge(&t->victim, timeout_ms, evidence);
	if (verdict == UNHARMED && t->is_stopped && !victim_stop(&t->victim))
		return BROKEN;
	return verdict;
}

static void replace_victim(struct test *t)
{
	drop_victim(t);
	(void)new_victim(t);
}

static bool is_spoilt(const struct test *t)
{
	return t->variant->spoils_frames &&
	       (t->last_kill.phase == PHASE_ENTER || t->last_kill.phase == PHASE_LEAVE);
}

/* Judges; a victim that was harmed is replaced. */
static void look_after_victim(struct test *t)
{
	static const char *const what[N_VERDICTS] = { "unharmed", "broken", "leaked" };
	autofree char *text = NULL;
	size_t size;
	FILE *evidence = open_memstream(&text, &size);
	enum verdict verdict = judge(t, DEADLINE_MS, evidence);

	fclose(evidence);
	t->verdicts[verdict]++;
	if (verdict == UNHARMED && !is_spoilt(t))
		return;
	if (verdict == UNHARMED) {
		replace_victim(t);
		return;
	}
	if (!t->without_frames || t->settings->verbose)
		fprintf(stderr, "%s %s: victim %s after a kill in phase %s, point %u (%s)\n%s",
			t->variant->name, t->mode, what[verdict], phase_names[t->last_kill.phase],
			t->last_kill.n_points, t->last_kill.point ? t->last_kill.point : "none",
			text);
	replace_victim(t);
}

static unsigned long n_harmed(const struct test *t)
{
	return t->verdicts[BROKEN] + t->verdicts[LEAKED];
}

static bool is_hopeless(const struct test *t)
{
	return n_harmed(t) + t->errors >= (t->without_frames ? CONTROL_ENOUGH : BROKEN_ENOUGH);
}

/* ---- modes ---- */

/* A whole run tells how many points there are. */
static uint32_t count_points(struct test *t)
{
	trace_to_point(t, 0);
	uint32_t n = t->board->n_points;
	look_after_victim(t);
	return n;
}

/* The control needs all of them to be worth something. */
static uint32_t stride(const struct test *t)
{
	return t->without_frames ? 1 : t->settings->stride;
}

static uint32_t first_point(const struct test *t)
{
	return 1 + lrand48() % stride(t);
}

static void run_points(struct test *t, long passes)
{
	uint32_t n = count_points(t);

	for (long pass = 0; pass < passes; pass++)
		for (uint32_t at = first_point(t); at <= n && !is_hopeless(t); at += stride(t)) {
			trace_to_point(t, at);
			look_after_victim(t);
		}
}

/* The second tracer finds the victim in the frames of the first, and is killed or not. */
static void run_again(struct test *t)
{
	uint32_t n = count_points(t);

	for (uint32_t at = first_point(t); at <= n && !is_hopeless(t); at += stride(t)) {
		trace_to_point(t, at);
		trace_to_point(t, lrand48() % 2 ? 0 : 1 + lrand48() % n);
		look_after_victim(t);
	}
}

static int compare_times(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The median time of whole runs under the same conditions: with us spinning. */
static uint64_t measure(struct test *t)
{
	uint64_t times[RUNS_TO_MEASURE];

	for (int i = 0; i < RUNS_TO_MEASURE; i++) {
		pid_t pid = start_tracer(t, 0);

		while (!__atomic_load_n(&t->board->has_started, __ATOMIC_ACQUIRE))
			__builtin_ia32_pause();
		uint64_t start = now_ns();
		while (t->board->phase != PHASE_AFTER && now_ns() - start < DEADLINE_MS * 1000 * US)
			__builtin_ia32_pause();
		times[i] = now_ns() - start;
		(void)end_tracer(t, pid);
		look_after_victim(t);
	}
	qsort(times, RUNS_TO_MEASURE, sizeof(*times), compare_times);
	return times[RUNS_TO_MEASURE / 2];
}

static void run_random(struct test *t, long kills)
{
	uint64_t whole_run = measure(t);

	/* A tracer that was through before its time is not counted; most are not. */
	for (long i = 0; i < 4 * kills && (long)t->kills < kills && !is_hopeless(t); i++) {
		trace_for(t, drand48() * whole_run);
		look_after_victim(t);
	}
}

/* ---- reports ---- */

static struct {
	int passed, failed, skipped;
} total;

static void report(const struct test *t, bool is_good)
{
	printf("%s %s: %lu kills, %lu broken, %lu leaks; phases", t->variant->name, t->mode,
	       t->kills, t->verdicts[BROKEN], t->verdicts[LEAKED]);
	for (int i = 0; i < N_PHASES; i++)
		printf(" %s %lu", phase_names[i], t->phases[i]);
	printf("; %lu whole runs", t->whole);
	if (t->eintrs)
		printf("; %lu EINTR of calls that every stop ends", t->eintrs);
	printf("; %lu rseq aborts", t->rseq_aborts);
	printf("%s\n", is_good ? "" : " FAIL");
	fflush(stdout);
	total.passed += is_good;
	total.failed += !is_good;
}

static void skip(const struct test *t, const char *why)
{
	printf("%s %s: skipped: %s\n", t->variant->name, t->mode, why);
	total.skipped++;
}

static struct tracer_board *shared_board(void)
{
	void *p = mmap(NULL, sizeof(struct tracer_board), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

static void do_points(struct test *t)
{
	run_points(t, t->settings->passes);
}

static void do_random(struct test *t)
{
	run_random(t, t->settings->random / (long)ARRAY_SIZE(variants));
}

static void do_once(struct test *t)
{
	run_points(t, 1);
}

static const struct mode {
	const char *name;
	void (*run)(struct test *t);
	bool is_stopped, is_control, is_at_once;
	bool is_long;	  /* not in a quick run */
	const char *only; /* for this variant */
} modes[] = {
	{ "points", do_points },
	{ "random", do_random },
	{ "stopped", do_once, .is_stopped = true },
	{ "again", run_again, .is_at_once = true },
	{ "stopped-again", run_again, .is_stopped = true, .is_at_once = true, .is_long = true },
	{ "control", do_once, .is_control = true, .only = "regs" },
	{ "control", do_once, .is_control = true, .only = "sleep" },
};

static void run_test(const struct settings *s, const struct variant *v, const struct mode *m)
{
	struct test t = { .settings = s,
			  .variant = v,
			  .mode = m->name,
			  .is_stopped = m->is_stopped,
			  .is_at_once = m->is_at_once,
			  .without_frames = m->is_control };

	if (m->only && strcmp(m->only, v->name))
		return;
	if (geteuid() != 0) {
		skip(&t, "it takes root to map a region of another process");
		return;
	}
	if (v->is_i386 && access(victim32_program, X_OK) < 0) {
		skip(&t, "the compiler makes no 32-bit programs");
		return;
	}
	if (!new_victim(&t)) {
		skip(&t, "no rseq area");
		return;
	}
	t.board = shared_board();
	m->run(&t);
	drop_victim(&t);
	(void)munmap(t.board, sizeof(*t.board));
	report(&t, m->is_control ? n_harmed(&t) > 0 : n_harmed(&t) + t.errors == 0 && t.kills > 0);
}

/* ---- options ---- */

static long number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || end == text || n < 0) {
		fprintf(stderr, "not a number: %s\n", text);
		exit(2);
	}
	return n;
}

static struct settings parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "random", required_argument, NULL, 'r' },
		{ "passes", required_argument, NULL, 'p' },
		{ "only", required_argument, NULL, 'o' },
		{ "seed", required_argument, NULL, 's' },
		{ "verbose", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	struct settings s = { .random = FULL_RANDOM,
			      .passes = FULL_PASSES,
			      .stride = 1,
			      .seed = now_ns() / US % 1000000 };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'q':
			s.random = QUICK_RANDOM;
			s.passes = 1;
			s.stride = QUICK_STRIDE;
			break;
		case 'r':
			s.random = number(optarg);
			break;
		case 'p':
			s.passes = number(optarg);
			break;
		case 'o':
			s.only = optarg;
			break;
		case 's':
			s.seed = number(optarg);
			break;
		case 'v':
			s.verbose = true;
			break;
		default:
			fprintf(stderr,
				"usage: kill [--quick] [--random N] [--passes N] "
				"[--only VARIANT | --only VARIANT:MODE] [--seed N] [--verbose]\n");
			exit(2);
		}
	}
	return s;
}

/* --only NAME or NAME:MODE or :MODE */
static bool is_asked_for(const struct settings *s, const struct variant *v, const struct mode *m)
{
	const char *colon = s->only ? strchr(s->only, ':') : NULL;
	size_t len = colon ? (size_t)(colon - s->only) : s->only ? strlen(s->only) : 0;

	if (len && (strlen(v->name) != len || strncmp(s->only, v->name, len)))
		return false;
	if (!colon && m->is_long && s->stride > 1)
		return false;
	return !colon || !strcmp(colon + 1, m->name);
}

static void find_victim_program(void)
{
	ssize_t n = readlink("/proc/self/exe", victim_program, sizeof(victim_program) - 16);

	while (n > 0 && victim_program[n - 1] != '/')
		n--;
	strcpy(victim_program + max(n, (ssize_t)0), "victim");
	snprintf(victim32_program, sizeof(victim32_program), "%s32", victim_program);
}

int main(int argc, char **argv)
{
	struct settings s = parse_options(argc, argv);

	srand48(s.seed);
	find_victim_program();
	printf("seed %lu\n", s.seed);
	fflush(stdout);
	for (size_t i = 0; i < ARRAY_SIZE(variants); i++)
		for (size_t j = 0; j < ARRAY_SIZE(modes); j++)
			if (is_asked_for(&s, &variants[i], &modes[j]))
				run_test(&s, &variants[i], &modes[j]);
	printf("kill: %d passed, %d failed, %d skipped\n", total.passed, total.failed,
	       total.skipped);
	return total.failed ? 1 : 0;
}
