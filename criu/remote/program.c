/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Programs and how they are rung and waited for.
 *
 * The bell has to be rung in one step. Were the word written first and the sleeper woken then:
 *  1. criu clears BELL_IDLE, which is the kernel's FUTEX_WAITERS bit; 2. criu is killed;
 *  3. the kernel marks the word as ownerless, sees no waiter bit and wakes nobody;
 *  4. the task sleeps for ever.
 * FUTEX_WAKE_OP clears the bit and wakes while it holds the futex's lock. Bits of processes that
 * were stopped are another one (remote/abi.h).
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "remote/arch.h"
#include "remote/program.h"
#include "remote/tree.h"

#define PAGE		4096
#define ALIGN		16
#define SPIN_US		40
#define SLICE_MS	10
#define ORPHAN_WAIT_SEC 1 /* by far longer than it takes the kernel to be done with a dead criu */

enum { DONE_BUSY = 0, DONE_YES = 1, DONE_AWAITED = 2 };

void region_init(struct region *r, uint64_t raddr, void *local, size_t size)
{
	*r = (struct region){ .raddr = raddr, .size = size, .local = local, .used = PAGE };
	memcpy(local, stub_child, stub_end - stub_child);
}

uint64_t region_stub_entry(const struct region *r)
{
	return r->raddr + (stub_begin - stub_child);
}

uint64_t region_stub_child(const struct region *r)
{
	return r->raddr;
}

void *region_alloc(struct region *r, size_t size)
{
	size_t need = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);

	if (need < size || r->size - r->used < need) {
		(void)refuse(ENOSPC, "the shared region of %zu bytes has no room for %zu more",
			     r->size, size);
		return NULL;
	}
	void *p = r->local + r->used;
	r->used += need;
	return p;
}

struct slot *slot_new(struct region *r, const struct engine *e)
{
	struct slot *s = region_alloc(r, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct slot){
		.bell = e->tid, .owner = e->tid, .self = region_raddr(r, s), .idle = BELL_IDLE
	};
	return s;
}

void slot_keep_stopped(struct slot *s, bool may_call)
{
	s->idle = BELL_IDLE_STOPPED;
	s->wait_sec = may_call ? ORPHAN_WAIT_SEC : 0;
}

static struct robust_list *slot_node(struct slot *s)
{
	return (struct robust_list *)&s->robust;
}

/* The kernel walks the list from its head at any instant: a node is linked by one store. */
void slot_watch(struct slot *s, struct engine *e)
{
	slot_node(s)->next = e->robust.list.next;
	__atomic_store_n(&e->robust.list.next, slot_node(s), __ATOMIC_RELEASE);
}

void slot_unwatch(struct slot *s, struct engine *e)
{
	struct robust_list *l = &e->robust.list;

	while (l->next != slot_node(s) && l->next != &e->robust.list)
		l = l->next;
	if (l->next == slot_node(s))
		__atomic_store_n(&l->next, slot_node(s)->next, __ATOMIC_RELEASE);
}

int program_begin(struct program *p, struct worker *w, uint32_t max)
{
	*p = (struct program){ .worker = w, .max = max, .region_mark = w->region->used };
	p->calls = region_alloc(w->region, max * sizeof(struct call));
	if (!p->calls)
		return -ENOSPC;
	p->labels = xmalloc(max * sizeof(*p->labels));
	p->data_mark = w->region->used;
	return 0;
}

void program_set_long(struct program *p)
{
	p->is_long = true;
}

/* Runs what a long program has so far; an error is kept for program_run. */
static void flush(struct program *p)
{
	if (!p->error && p->n)
		p->error = program_run(p);
	p->n = 0;
}

void program_end(struct program *p)
{
	if (!p->worker)
		return;
	p->worker->region->used = p->region_mark;
	free(p->labels);
	*p = (struct program){ 0 };
}

void program_reserve(struct program *p, uint32_t n)
{
	if (p->is_long && p->max - p->n < n)
		flush(p);
}

struct call *program_call(struct program *p, const char *label, long nr, const uint64_t arg[6])
{
	if (p->n == p->max && p->is_long)
		flush(p);
	if (p->n == p->max) {
		p->error = -ENOSPC;
		return &p->nowhere;
	}
	struct call *c = &p->calls[p->n];
	memset(c, 0, sizeof(*c));
	c->nr = nr;
	memcpy(c->arg, arg, sizeof(c->arg));
	p->labels[p->n++] = label;
	return c;
}

void call_load(struct call *c, int i, uint64_t raddr)
{
	c->arg[i] = raddr;
	c->refs |= 1 << i;
}

void call_use(const struct program *p, struct call *c, int i, const struct call *earlier)
{
	call_load(c, i, program_raddr(p, &earlier->ret));
}

void *program_room(struct program *p, size_t size)
{
	struct region *r = p->worker->region;

	if (p->is_long && r->size - r->used < size + ALIGN) {
		flush(p);
		r->used = p->data_mark;
	}
	void *room = region_alloc(r, size);
	if (room)
		memset(room, 0, size);
	else
		p->error = -ENOSPC;
	return room;
}

void *program_data(struct program *p, const void *data, size_t size)
{
	void *room = program_room(p, size);

	if (room && size)
		memcpy(room, data, size);
	return room;
}

uint64_t program_raddr(const struct program *p, const void *local)
{
	return region_raddr(p->worker->region, local);
}

static int ring(struct slot *s)
{
	/* bell &= ~idle; wake one sleeper of bell; the comparison is for a second word */
	unsigned bit = __builtin_ctz(s->idle);
	unsigned op =
		FUTEX_OP((FUTEX_OP_ANDN | FUTEX_OP_OPARG_SHIFT | 0u), bit, FUTEX_OP_CMP_EQ, 0);

	return syscall(SYS_futex, &s->bell, FUTEX_WAKE_OP, 1, 0, &s->bell, op) < 0 ? -errno : 0;
}

int program_start(struct program *p)
{
	struct slot *s = p->worker->slot;

	if (p->error == -ENOSPC)
		return refuse(ENOSPC, "pid %d: a program does not fit into its room",
			      p->worker->tid);
	if (p->error)
		return p->error;
	s->program = region_raddr(p->worker->region, p->calls);
	s->count = p->n;
	__atomic_store_n(&s->done, DONE_BUSY, __ATOMIC_RELEASE);
	engine_point(p->worker->engine, "before the bell");
	int rc = ring(s);
	if (rc < 0)
		return fail(-rc, "pid %d: ring its bell", p->worker->tid);
	engine_point(p->worker->engine, "after the bell");
	return 0;
}

static bool is_done(struct slot *s)
{
	return __atomic_load_n(&s->done, __ATOMIC_ACQUIRE) == DONE_YES;
}

/*
 * A worker blocks all signals, but a SIGSTOP stops it, and a SIGCONT or the end of a group stop
 * traps. Both are for later: the stop is repeated when the task is let go.
 */
static int look_after(struct worker *w)
{
	int status;
	int rc = engine_poll(w->tid, &status);

	if (rc < 0 && rc != -ECHILD)
		return fail(-rc, "pid %d: wait", w->tid);
	if (rc <= 0 && !engine_has_ended(w->tid, &status))
		return 0;
	if (!WIFSTOPPED(status))
		return tracee_died(w->tid, status, "criu ran calls in it");
	rc = tracee_check_signal(w->tid, status, "criu ran calls in it");
	if (rc < 0)
		return rc;
	if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP && w->stop_again)
		*w->stop_again = true;
	if (ptrace(PTRACE_CONT, w->tid, NULL, NULL) < 0 && errno != ESRCH)
		return fail(errno, "pid %d: continue", w->tid);
	return 0;
}

int worker_wait(struct worker *w)
{
	const struct timespec slice = { .tv_nsec = SLICE_MS * 1000000 };
	uint64_t spin_end = now_us() + SPIN_US;
	struct slot *s = w->slot;

	while (!is_done(s) && now_us() < spin_end)
		for (int i = 0; i < 20 && !is_done(s); i++)
			__builtin_ia32_pause();
	while (!is_done(s)) {
		uint32_t busy = DONE_BUSY;

		(void)__atomic_compare_exchange_n(&s->done, &busy, DONE_AWAITED, false,
						  __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
		if (busy == DONE_YES)
			break;
		(void)syscall(SYS_futex, &s->done, FUTEX_WAIT, DONE_AWAITED, &slice, NULL, 0);
		if (is_done(s))
			break;
		int rc = look_after(w);
		if (rc == 0)
			rc = engine_check(w->engine);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int program_wait_call(struct program *p, const struct call *c)
{
	while (!__atomic_load_n(&c->ret, __ATOMIC_ACQUIRE)) {
		int rc = look_after(p->worker);

		if (rc == 0)
			rc = engine_check(p->worker->engine);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int program_wait(struct program *p)
{
	struct slot *s = p->worker->slot;
	int rc = worker_wait(p->worker);

	if (rc < 0)
		return rc;
	if (s->index >= p->n)
		return 0;
	const struct call *c = &p->calls[s->index];
	return fail(-c->ret, "pid %d: %s: system call %u(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx)",
		    p->worker->tid, p->labels[s->index], c->nr, (long)c->arg[0], (long)c->arg[1],
		    (long)c->arg[2], (long)c->arg[3], (long)c->arg[4], (long)c->arg[5]);
}

int program_run(struct program *p)
{
	int rc = program_start(p);

	return rc < 0 ? rc : program_wait(p);
}

void batch_wait(struct batch *b)
{
	for (size_t i = 0; i < b->n_started; i++) {
		int rc = program_wait(&b->programs[i]);

		b->error = b->error ? b->error : rc;
	}
	while (b->n > 0)
		program_end(&b->programs[--b->n]);
	b->n_started = 0;
}

struct program *batch_begin(struct batch *b, struct worker *w, uint32_t max)
{
	if (b->n == BATCH_MAX || (b->n && w->region->used > w->region->size / 2))
		batch_wait(b);
	if (b->error)
		return NULL;
	struct program *p = &b->programs[b->n];
	b->error = program_begin(p, w, max);
	if (b->error)
		return NULL;
	b->n++;
	return p;
}

void batch_start(struct batch *b)
{
	if (!b->error)
		b->error = program_start(&b->programs[b->n_started]);
	if (!b->error)
		b->n_started++;
}

int batch_end(struct batch *b)
{
	batch_wait(b);
	return b->error;
}
