/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pending signals. Images: signal_queue_entry of core-TID. They stay where they are, only copies
 * are taken: PTRACE_PEEKSIGINFO.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "task/pending.h"
#include "task/timers.h"

/* The time in which the task was asked for its timers; both 0 before that. */
struct asked {
	uint64_t from_us, to_us;
};

static SignalQueueEntry *read_queue(struct dump *d, const struct dump_task *t, pid_t tid,
				    bool shared, const struct asked *asked)
{
	SignalQueueEntry *q = MESSAGE(&d->arena, SignalQueueEntry, signal_queue_entry);
	siginfo_t si[32];
	uint64_t off = 0;

	for (;;) {
		struct __ptrace_peeksiginfo_args args = {
			.off = off,
			.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
			.nr = ARRAY_SIZE(si),
		};
		long n = ptrace(PTRACE_PEEKSIGINFO, tid, &args, si);

		if (n < 0)
			dump_block(d, "pid %d: read its pending signals: %s", tid, strerror(errno));
		if (n <= 0)
			return q;
		off += n;
		for (long i = 0; i < n; i++) {
			SiginfoEntry *e;

			if (timers_is_ahead(t, &si[i], asked->from_us, asked->to_us))
				continue;
			e = MESSAGE(&d->arena, SiginfoEntry, siginfo_entry);
			e->siginfo.data = arena_memdup(&d->arena, &si[i], sizeof(si[i]));
			e->siginfo.len = sizeof(si[i]);
			*ARENA_PUSH(&d->arena, q->signals, q->n_signals) = e;
		}
	}
}

static void check_trap(struct dump *d, pid_t tid, uint64_t pending)
{
	if (pending & 1ull << (SIGTRAP - 1))
		dump_block(d, "pid %d: a SIGTRAP is pending; let it be delivered first", tid);
}

static SignalQueueEntry *read_some(struct dump *d, const struct dump_task *t, pid_t tid,
				   bool shared, uint64_t pending)
{
	const struct asked not_yet = { 0 };

	check_trap(d, tid, pending);
	if (!pending)
		return MESSAGE(&d->arena, SignalQueueEntry, signal_queue_entry);
	return read_queue(d, t, tid, shared, &not_yet);
}

void pending_collect(struct dump *d, struct dump_task *t)
{
	for (size_t i = 0; i < t->n_threads; i++) {
		const struct dump_thread *th = &t->threads[i];

		th->core->thread_core->signals_p =
			read_some(d, t, th->thread->tid, false, th->status.sig_pending);
	}
	t->threads[0].core->tc->signals_s =
		read_some(d, t, t->process->pid, true, t->threads[0].status.shared_pending);
}

int pending_collect_again(struct dump *d, struct dump_task *t, uint64_t asked_us)
{
	int rc = inject_pause(&t->in);

	if (rc < 0)
		return rc;
	const struct asked asked = { asked_us, now_us() };
	for (size_t i = 0; i < t->n_threads; i++)
		t->threads[i].core->thread_core->signals_p =
			read_queue(d, t, t->threads[i].thread->tid, false, &asked);
	t->threads[0].core->tc->signals_s = read_queue(d, t, t->process->pid, true, &asked);
	return inject_go_on(&t->in);
}

void pending_add(const struct restore_task *t, const SignalQueueEntry *q, pid_t tid,
		 struct program *p)
{
	for (size_t i = 0; q && i < q->n_signals; i++) {
		const ProtobufCBinaryData *si = &q->signals[i]->siginfo;
		siginfo_t info = { 0 };

		if (timers_bring_back(t, q->signals[i]))
			continue;
		memcpy(&info, si->data, min(si->len, sizeof(info)));
		void *room = program_data(p, &info, sizeof(info));
		if (!room)
			return;
		if (tid)
			CALL(p, "queue a pending signal", SYS_rt_tgsigqueueinfo, t->pid, tid,
			     info.si_signo, program_raddr(p, room));
		else
			CALL(p, "queue a pending signal", SYS_rt_sigqueueinfo, t->pid,
			     info.si_signo, program_raddr(p, room));
	}
}
