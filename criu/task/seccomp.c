/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * seccomp. Images: seccomp_mode and seccomp_filter of core-TID, which is the thread's oldest
 * filter; seccomp.img has the filters of all threads, each with the one that was installed after it
 * (prev: it stands before it in the list).
 *
 * Nothing tells whether two threads have the same filter or a copy: equal ones are taken for the
 * same. It matters when a program synchronizes its threads (SECCOMP_FILTER_FLAG_TSYNC), which
 * takes that the chains of the others are part of its own. What all threads of a process have
 * in common is therefore installed once, by that flag.
 *
 * Filters are no obstacle to criu: they are suspended in what it traces.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "task/restore.h"
#include "task/seccomp.h"

#define NO_FILTER UINT32_MAX

const char seccomp_why_not_suspended[] =
	"that takes CAP_SYS_ADMIN, and criu itself may not be under seccomp, as it is in many "
	"containers";

static int check_suspended(pid_t tid)
{
	if (ptrace(PTRACE_SETOPTIONS, tid, NULL, TRACEE_OPTIONS) == 0)
		return 0;
	return refuse(errno, "pid %d: seccomp is on and cannot be suspended for the dump: %s", tid,
		      seccomp_why_not_suspended);
}

/* A filter whose calls a listener decides: that one is not part of the tree's state. */
static bool asks_listener(const struct sock_filter *insn, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (insn[i].code == (BPF_RET | BPF_K) &&
		    (insn[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
			return true;
	return false;
}

static uint32_t find_filter(struct dump *d, const struct sock_filter *insn, size_t size,
			    uint32_t prev, uint32_t flags)
{
	for (size_t i = 0; i < d->n_seccomp_filters; i++) {
		const SeccompFilter *f = d->seccomp_filters[i];

		if ((f->has_prev ? f->prev : NO_FILTER) == prev && f->flags == flags &&
		    f->filter.len == size && !memcmp(f->filter.data, insn, size))
			return i;
	}
	SeccompFilter *f = MESSAGE(&d->arena, SeccompFilter, seccomp_filter);
	f->filter.data = arena_memdup(&d->arena, insn, size);
	f->filter.len = size;
	f->has_prev = prev != NO_FILTER;
	f->prev = f->has_prev ? prev : 0;
	f->has_flags = flags != 0;
	f->flags = flags;
	*ARENA_PUSH(&d->arena, d->seccomp_filters, d->n_seccomp_filters) = f;
	return d->n_seccomp_filters - 1;
}

static int count_filters(pid_t tid)
{
	int n = 0;

	while (ptrace(ABI_PTRACE_SECCOMP_GET_FILTER, tid, n, NULL) >= 0 || errno == EMEDIUMTYPE)
		n++;
	return errno == ENOENT ? n : fail(errno, "pid %d: count its seccomp filters", tid);
}

/* Reads filter number i, counted from the oldest. The one after it is *last, which it becomes. */
static int read_filter(struct dump *d, pid_t tid, unsigned i, uint32_t *last)
{
	struct sock_filter insn[BPF_MAXINSNS];
	struct abi_seccomp_metadata meta = { .filter_off = i };
	long n = ptrace(ABI_PTRACE_SECCOMP_GET_FILTER, tid, i, insn);

	if (n < 0 && errno == EMEDIUMTYPE) {
		dump_block(d, "pid %d: the kernel does not tell its seccomp filter %u", tid, i);
		return 0;
	}
	if (n < 0 || ptrace(ABI_PTRACE_SECCOMP_GET_METADATA, tid, sizeof(meta), &meta) < 0)
		return fail(errno, "pid %d: read its seccomp filter %u", tid, i);
	if (asks_listener(insn, n))
		dump_block(
			d,
			"pid %d: its seccomp filter %u asks a listener (SECCOMP_RET_USER_NOTIF); "
			"listeners cannot be dumped",
			tid, i);
	*last = find_filter(d, insn, n * sizeof(insn[0]), *last, meta.flags);
	return 0;
}

static int collect_filters(struct dump *d, struct dump_thread *th)
{
	ThreadCoreEntry *e = th->core->thread_core;
	uint32_t last = NO_FILTER;
	int n = count_filters(th->thread->tid), rc = min(n, 0);

	for (int i = n - 1; i >= 0 && rc == 0; i--)
		rc = read_filter(d, th->thread->tid, i, &last);
	e->seccomp_mode = SECCOMP_MODE__filter;
	e->has_seccomp_filter = last != NO_FILTER;
	e->seccomp_filter = e->has_seccomp_filter ? last : 0;
	return rc;
}

int seccomp_collect(struct dump *d, struct dump_thread *th)
{
	ThreadCoreEntry *e = th->core->thread_core;

	e->has_seccomp_mode = true;
	e->seccomp_mode = SECCOMP_MODE__disabled;
	if (!th->status.seccomp)
		return 0;
	th->thread->process->has_seccomp = true;
	int rc = check_suspended(th->thread->tid);
	if (rc < 0)
		return rc;
	if (th->status.seccomp == SECCOMP_MODE_STRICT)
		e->seccomp_mode = SECCOMP_MODE__strict;
	else if (th->status.seccomp == SECCOMP_MODE_FILTER)
		rc = collect_filters(d, th);
	else
		dump_block(d, "pid %d: it is in the unknown seccomp mode %u", th->thread->tid,
			   th->status.seccomp);
	return rc;
}

int seccomp_write_image(struct dump *d)
{
	SeccompEntry e = SECCOMP_ENTRY__INIT;

	if (!d->n_seccomp_filters)
		return 0;
	e.seccomp_filters = d->seccomp_filters;
	e.n_seccomp_filters = d->n_seccomp_filters;
	return image_write_one(&d->images, IMG_SECCOMP, 0, &e);
}

/* ---- restore ---- */

bool seccomp_is_used(const struct snapshot *s)
{
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct snapshot_task *t = &s->tasks[i];

		for (size_t j = 0; j < t->pstree->n_threads && !t->is_zombie; j++)
			if (t->cores[j]->thread_core->seccomp_mode)
				return true;
	}
	return false;
}

static const SeccompFilter *filter_at(const struct restore *r, uint32_t i)
{
	return r->snapshot.seccomp->seccomp_filters[i];
}

/* The thread's oldest filter, or NO_FILTER. */
static uint32_t oldest(const struct restore_thread *th)
{
	const ThreadCoreEntry *e = th->core->thread_core;

	return e->seccomp_mode == SECCOMP_MODE__filter ? e->seccomp_filter : NO_FILTER;
}

static uint32_t next(const struct restore *r, uint32_t i)
{
	return filter_at(r, i)->has_prev ? filter_at(r, i)->prev : NO_FILTER;
}

static size_t length(const struct restore *r, uint32_t i)
{
	size_t n = 0;

	for (; i != NO_FILTER; i = next(r, i))
		n++;
	return n;
}

/* criu 3.17 also notes how it will install a filter (TSYNC). */
static unsigned own_flags(const SeccompFilter *f)
{
	return f->flags & SECCOMP_FILTER_FLAG_LOG;
}

static bool is_same(const SeccompFilter *f, const SeccompFilter *g)
{
	return own_flags(f) == own_flags(g) && f->filter.len == g->filter.len &&
	       !memcmp(f->filter.data, g->filter.data, f->filter.len);
}

/* How many filters both chains begin with. */
static size_t common(const struct restore *r, uint32_t a, uint32_t b)
{
	size_t n = 0;

	for (; a != NO_FILTER && b != NO_FILTER && is_same(filter_at(r, a), filter_at(r, b)); n++) {
		a = next(r, a);
		b = next(r, b);
	}
	return n;
}

size_t seccomp_calls(const struct restore *r, const struct restore_thread *th)
{
	return 1 + length(r, oldest(th));
}

static void add_filter(const struct restore *r, uint32_t i, unsigned flags, struct program *p)
{
	const SeccompFilter *f = filter_at(r, i);
	void *insn = program_data(p, f->filter.data, f->filter.len);
	struct sock_fprog prog = { .len = f->filter.len / sizeof(struct sock_filter) };

	if (!insn)
		return;
	prog.filter = (struct sock_filter *)program_raddr(p, insn);
	void *room = program_data(p, &prog, sizeof(prog));
	/* Mitigations are the thread's own and restored with it (modes.c). */
	if (room)
		CALL(p, "install a seccomp filter", SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		     flags | own_flags(f) | SECCOMP_FILTER_FLAG_SPEC_ALLOW, program_raddr(p, room));
}

int seccomp_restore_common(struct restore *r, struct restore_task *t)
{
	uint32_t first = oldest(&t->threads[0]);
	size_t n = t->n_threads > 1 ? length(r, first) : 0;
	struct program p;

	for (size_t i = 1; i < t->n_threads; i++)
		n = min(n, common(r, first, oldest(&t->threads[i])));
	t->seccomp_common = n;
	if (!n)
		return 0;
	int rc = program_begin(&p, task_worker(t), n);
	if (rc < 0)
		return rc;
	for (uint32_t i = first; n > 0; i = next(r, i), n--)
		add_filter(r, i, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, &p);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

void seccomp_add(const struct restore *r, const struct restore_task *t,
		 const struct restore_thread *th, struct program *p)
{
	size_t n = 0;

	if (th->core->thread_core->seccomp_mode == SECCOMP_MODE__strict)
		CALL(p, "enter the strict mode of seccomp", SYS_prctl, PR_SET_SECCOMP,
		     SECCOMP_MODE_STRICT, 0);
	for (uint32_t i = oldest(th); i != NO_FILTER; i = next(r, i), n++)
		if (n >= t->seccomp_common)
			add_filter(r, i, 0, p);
}
