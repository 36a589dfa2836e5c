/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "remote/inject.h"

#include "tracer.h"

const char *const phase_names[N_PHASES] = {
	"stop", "site", "enter", "programs", "threads", "leave", "release", "after",
};

struct tracer {
	struct tracer_board *board;
	struct engine engine;
	struct arena arena;
	struct tree tree;
	struct maps maps;
	struct inject in;
};

static void at_point(void *arg, const char *name)
{
	struct tracer_board *b = arg;

	b->point = name;
	if (++b->n_points == b->kill_at)
		(void)kill(getpid(), SIGKILL);
}

static struct process *process_of(struct tracer *t)
{
	return t->tree.processes[0];
}

static int find_site(struct tracer *t)
{
	struct process *p = process_of(t);
	int rc = maps_read(p->proc_fd, "maps", &t->arena, &t->maps);

	if (rc < 0)
		return fail(-rc, "pid %d: read maps", p->pid);
	rc = inject_find_site(&t->in, &t->engine, p, &t->maps, false);
	if (t->board->without_frames)
		t->in.site.restorer = 0;
	return rc;
}

static int enter(struct tracer *t)
{
	int rc = inject_enter(&t->in);

	t->board->is_protected = t->in.is_protected;
	return rc;
}

/* Every action of the process, as a dump asks for them. */
static void add_questions(struct program *p)
{
	uint64_t *actions = program_room(p, 64 * 32);

	for (int sig = 1; actions && sig <= 64; sig++)
		CALL(p, "rt_sigaction", SYS_rt_sigaction, sig, 0,
		     program_raddr(p, actions + (sig - 1) * 4), 8);
}

/* What a program opens it closes: it runs to its end, whether criu lives or not. */
static void add_open_and_close(struct program *p)
{
	char *path = program_data(p, "/proc/self/comm", 16), *buf = program_room(p, 64);
	struct call *open, *read, *close;

	if (!path || !buf)
		return;
	open = CALL(p, "open", SYS_openat, AT_FDCWD, program_raddr(p, path), O_RDONLY);
	read = CALL(p, "read", SYS_read, 0, program_raddr(p, buf), 63);
	call_use(p, read, 0, open);
	close = CALL(p, "close", SYS_close, 0);
	call_use(p, close, 0, open);
}

static void add_map_and_unmap(struct program *p)
{
	struct call *map = CALL(p, "mmap", SYS_mmap, 0, 1 << 16, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_32BIT, -1ull, 0);
	struct call *unmap = CALL(p, "munmap", SYS_munmap, 0, 1 << 16);

	call_use(p, unmap, 0, map);
}

static void add_getpid(struct program *p)
{
	CALL(p, "getpid", SYS_getpid, 0);
}

static int run_programs(struct tracer *t)
{
	static void (*const add[])(struct program *) = { add_questions, add_open_and_close,
							 add_map_and_unmap, add_getpid };

	for (size_t i = 0; i < ARRAY_SIZE(add); i++) {
		struct program p;
		int rc = program_begin(&p, &t->in.worker, 64);

		if (rc < 0)
			return rc;
		add[i](&p);
		rc = program_run(&p);
		program_end(&p);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What only a thread itself can answer, asked as a dump does. The first answers by its result. */
enum { ASK_SECUREBITS, ASK_ALTSTACK, ASK_TID_ADDRESS, N_ASKED };

struct questions {
	struct thread *thread;
	struct {
		union {
			stack_t altstack;
			struct {
				uint32_t sp;
				int32_t flags;
				uint32_t size;
			} compat_altstack;
		};
		uint64_t tid_address;
	} * answers;
	struct thread_call calls[N_ASKED];
};

static int prepare_questions(struct region *r, struct questions *q, struct thread *thread)
{
	q->thread = thread;
	q->answers = region_alloc(r, sizeof(*q->answers));
	if (!q->answers)
		return -ENOSPC;
	memset(q->answers, 0, sizeof(*q->answers));
	q->calls[ASK_SECUREBITS] =
		(struct thread_call){ .nr = SYS_prctl, .arg = { PR_GET_SECUREBITS } };
	q->calls[ASK_ALTSTACK] =
		(struct thread_call){ .nr = SYS_sigaltstack,
				      .arg = { 0, region_raddr(r, &q->answers->altstack) } };
	q->calls[ASK_TID_ADDRESS] =
		(struct thread_call){ .nr = SYS_prctl,
				      .arg = { PR_GET_TID_ADDRESS,
					       region_raddr(r, &q->answers->tid_address) } };
	return 0;
}

static int check_answers(const struct questions *q)
{
	for (size_t i = 0; i < N_ASKED; i++)
		if (q->calls[i].ret < 0)
			return fail(-q->calls[i].ret, "pid %d: question %zu", q->thread->tid, i);
	int flags = regs_is_compat(&q->thread->regs) ? q->answers->compat_altstack.flags
						     : q->answers->altstack.ss_flags;
	if (!q->answers->tid_address || flags != SS_DISABLE)
		return refuse(EIO, "pid %d: wrong answers", q->thread->tid);
	return 0;
}

static int ask_some_threads(struct tracer *t, size_t first, size_t n)
{
	struct questions q[INJECT_THREADS_MAX];
	struct thread_calls batch[INJECT_THREADS_MAX];
	size_t mark = t->in.region.used;
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = prepare_questions(&t->in.region, &q[i], &process_of(t)->threads[first + i]);
		batch[i] = (struct thread_calls){ q[i].thread, q[i].calls };
	}
	if (rc == 0)
		rc = inject_thread_calls(&t->in, batch, n, N_ASKED);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = check_answers(&q[i]);
	t->in.region.used = mark;
	return rc;
}

static int ask_threads(struct tracer *t)
{
	const size_t n = process_of(t)->n_threads;
	int rc = 0;

	for (size_t first = 1; first < n && rc == 0; first += INJECT_THREADS_MAX)
		rc = ask_some_threads(t, first, min(n - first, (size_t)INJECT_THREADS_MAX));
	return rc;
}

static int leave(struct tracer *t)
{
	return inject_leave(&t->in);
}

static int release(struct tracer *t)
{
	tree_end(&t->tree, TREE_RUN);
	return 0;
}

static const struct {
	enum phase phase;
	int (*run)(struct tracer *t);
} steps[] = {
	{ PHASE_SITE, find_site },	{ PHASE_ENTER, enter }, { PHASE_PROGRAMS, run_programs },
	{ PHASE_THREADS, ask_threads }, { PHASE_LEAVE, leave }, { PHASE_RELEASE, release },
};

static void give_up(struct tracer_board *b)
{
	snprintf(b->error, sizeof(b->error), "%s", log_first_error());
	_exit(1);
}

void tracer_main(struct tracer_board *board, pid_t victim)
{
	struct tracer t = { .board = board };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	board->phase = PHASE_STOP;
	__atomic_store_n(&board->has_started, 1, __ATOMIC_RELEASE);
	if (engine_init(&t.engine) < 0)
		give_up(board);
	t.engine.at_point = at_point;
	t.engine.at_point_arg = board;
	if (tree_stop(&t.tree, &t.engine, &t.arena, victim) < 0)
		give_up(board);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		board->phase = steps[i].phase;
		if (steps[i].run(&t) < 0)
			give_up(board);
	}
	board->phase = PHASE_AFTER;
	_exit(0);
}
