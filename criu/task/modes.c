/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Switches of processes and threads. Images: thp_disabled of mm-PID, membarrier registrations of
 * core-PID, and own fields, which are written only where a switch is not as usual.
 */
#include <elf.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "proc/task.h"
#include "task/creds.h"
#include "task/modes.h"

#define PF_MCE_PROCESS 0x00000080
#define PF_MCE_EARLY   0x08000000
#define PF_IO_FLUSHER  0x00180000 /* PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, both */

#define SPEC_STORE_BYPASS    0
#define SPEC_INDIRECT_BRANCH 1
#define SPEC_IS_SETTABLE     1u /* PR_SPEC_PRCTL */

#define DISPATCH_ON    1
#define DISPATCH_ALLOW 0

#define MEMBARRIER_GET_REGISTRATIONS 512 /* Linux 6.3 */

/* Commands that fail unless they were registered, and the registration. */
static const struct {
	int command, registration;
} membarriers[] = { { 8, 16 }, { 32, 64 }, { 128, 256 } };

/* ---- dump ---- */

static void put_flags(ThreadCoreEntry *e, uint32_t flags)
{
	e->has_mce_kill = flags & PF_MCE_PROCESS;
	e->mce_kill = flags & PF_MCE_EARLY ? PR_MCE_KILL_EARLY : PR_MCE_KILL_LATE;
	e->has_io_flusher = e->io_flusher = (flags & PF_IO_FLUSHER) == PF_IO_FLUSHER;
}

static void put_speculation(ThreadCoreEntry *e, const struct proc_status *s)
{
	e->has_spec_store_bypass = s->spec_store_bypass;
	e->spec_store_bypass = s->spec_store_bypass;
	e->has_spec_indirect_branch = s->spec_indirect_branch;
	e->spec_indirect_branch = s->spec_indirect_branch;
}

/* The byte by which a program says whether its calls are made or turned into SIGSYS. */
static bool may_make_calls(struct process *p, const struct abi_dispatch_config *c)
{
	int mem = process_mem(p);
	uint8_t selector;

	return c->selector && mem >= 0 && pread(mem, &selector, 1, c->selector) == 1 &&
	       selector == DISPATCH_ALLOW;
}

/* Linux 6.4; without an answer there may be some nevertheless, but nobody could tell. */
static int collect_dispatch(struct dump_task *t, struct dump_thread *th)
{
	struct abi_dispatch_config c;
	ThreadCoreEntry *e = th->core->thread_core;

	if (ptrace(ABI_PTRACE_GET_DISPATCH, th->thread->tid, sizeof(c), &c) < 0 ||
	    c.mode != DISPATCH_ON)
		return 0;
	if (!may_make_calls(t->process, &c))
		return refuse(EOPNOTSUPP,
			      "pid %d: its system calls are being turned into signals (syscall "
			      "user dispatch), those of criu would be, too; try again when its "
			      "selector allows calls",
			      th->thread->tid);
	e->has_dispatch_selector = e->has_dispatch_offset = e->has_dispatch_len = true;
	e->dispatch_selector = c.selector;
	e->dispatch_offset = c.offset;
	e->dispatch_len = c.len;
	return 0;
}

/* The register set is there only for those that ioperm(2) has given ports. */
static bool uses_ports(pid_t tid)
{
	uint64_t part;
	struct iovec v = { &part, sizeof(part) };

	return ptrace(PTRACE_GETREGSET, tid, (void *)NT_386_IOPERM, &v) == 0;
}

static void check_cpu_features(struct dump *d, const struct dump_thread *th)
{
	if (th->status.has_shadow_stack)
		dump_block(d, "pid %d: it uses a shadow stack (CET), which cannot be dumped",
			   th->thread->tid);
	if (uses_ports(th->thread->tid))
		dump_block(d, "pid %d: it uses I/O ports (ioperm), which cannot be dumped",
			   th->thread->tid);
	if (th->status.untag_mask != ~0ull)
		dump_block(d, "pid %d: it uses tagged addresses (LAM), which cannot be dumped",
			   th->thread->tid);
}

int modes_collect(struct dump *d, struct dump_task *t, struct dump_thread *th)
{
	ThreadCoreEntry *e = th->core->thread_core;
	struct proc_stat stat = t->process->stat;
	char path[32];

	if (th != &t->threads[0]) {
		snprintf(path, sizeof(path), "task/%d/stat", th->thread->tid);
		int rc = proc_stat_read_at(t->process->proc_fd, path, &stat);

		if (rc < 0)
			return fail(-rc, "pid %d: read stat", th->thread->tid);
	}
	put_flags(e, stat.flags);
	put_speculation(e, &th->status);
	check_cpu_features(d, th);
	return collect_dispatch(t, th);
}

static struct call *ask(struct program *p, const char *label, long nr, uint64_t a, uint64_t b)
{
	struct call *c = CALL(p, label, nr, a, b, 0, 0, 0);

	c->flags = CALL_MAY_FAIL; /* older kernels lack it: then it is off */
	return c;
}

void modes_ask(struct program *p, struct modes_questions *q)
{
	bool can_tell = syscall(SYS_membarrier, MEMBARRIER_GET_REGISTRATIONS, 0, 0) >= 0;

	q->thp_disable = ask(p, "read THP disable", SYS_prctl, PR_GET_THP_DISABLE, 0);
	q->mdwe = ask(p, "read MDWE", SYS_prctl, ABI_PR_GET_MDWE, 0);
	q->memory_merge = ask(p, "read memory merging", SYS_prctl, PR_GET_MEMORY_MERGE, 0);
	q->ldt = CALL(p, "look for a local descriptor table", SYS_modify_ldt, 0,
		      program_raddr(p, program_room(p, sizeof(uint64_t))), sizeof(uint64_t));
	q->ldt->flags = CALL_MAY_FAIL;
	q->cpuid = ask(p, "see whether CPUID faults", SYS_arch_prctl, ABI_ARCH_GET_CPUID, 0);
	for (int i = 0; i < 2; i++)
		q->keyring[i] = ask(p, "look for a keyring", SYS_keyctl, 0, (uint64_t)(-1 - i));
	if (can_tell)
		q->membarrier = ask(p, "read membarrier registrations", SYS_membarrier,
				    MEMBARRIER_GET_REGISTRATIONS, 0);
	for (size_t i = 0; i < ARRAY_SIZE(membarriers) && !can_tell; i++)
		q->membarrier_probe[i] =
			ask(p, "try a memory barrier", SYS_membarrier, membarriers[i].command, 0);
}

static uint32_t membarrier_mask(const struct modes_questions *q)
{
	uint32_t mask = q->membarrier && q->membarrier->ret > 0 ? q->membarrier->ret : 0;

	for (size_t i = 0; i < ARRAY_SIZE(membarriers); i++)
		if (q->membarrier_probe[i] && q->membarrier_probe[i]->ret == 0)
			mask |= membarriers[i].registration;
	return mask;
}

/* 0: it faults. */
void modes_take_cpuid(struct dump_thread *th, int64_t answer)
{
	ThreadCoreEntry *e = th->core->thread_core;

	e->has_cpuid_forbidden = e->cpuid_forbidden = answer == 0;
}

void modes_take(struct dump_task *t, const struct modes_questions *q)
{
	TaskCoreEntry *tc = t->threads[0].core->tc;
	uint32_t mask = membarrier_mask(q);

	t->has_ldt = q->ldt->ret > 0;
	t->mm->has_thp_disabled = true;
	t->mm->thp_disabled = q->thp_disable->ret > 0;
	tc->has_thp_disable_mode = q->thp_disable->ret > 1;
	tc->thp_disable_mode = tc->has_thp_disable_mode ? q->thp_disable->ret : 0;
	tc->has_mdwe = q->mdwe->ret > 0;
	tc->mdwe = tc->has_mdwe ? q->mdwe->ret : 0;
	tc->has_memory_merge = tc->memory_merge = q->memory_merge->ret > 0;
	tc->has_membarrier_registration_mask = mask;
	tc->membarrier_registration_mask = mask;
	modes_take_cpuid(&t->threads[0], q->cpuid->ret);
	for (int i = 0; i < 2; i++)
		if (q->keyring[i]->ret >= 0)
			warn("pid %d: it has a keyring of its %s, which it will lack when it is "
			     "restored",
			     t->process->pid, i ? "process" : "first thread");
}

void modes_take_thread(struct dump *d, struct dump_thread *th, const struct modes_of_thread *a)
{
	ThreadCoreEntry *e = th->core->thread_core;
	size_t n = MODES_NUMA_WORDS;

	e->has_tsc_forbidden = e->tsc_forbidden = a->tsc == PR_TSC_SIGSEGV;
	if (a->numa_mode == MPOL_DEFAULT)
		return;
	while (n && !a->numa_nodes[n - 1])
		n--;
	e->has_numa_mode = true;
	e->numa_mode = a->numa_mode;
	e->n_numa_nodes = n;
	e->numa_nodes = arena_memdup(&d->arena, a->numa_nodes, n * sizeof(a->numa_nodes[0]));
}

/* ---- restore ---- */

void modes_add(const struct restore_task *t, struct program *p)
{
	const TaskCoreEntry *tc = t->image->cores[0]->tc;
	const MmEntry *mm = t->image->mm;
	uint32_t mask = tc->membarrier_registration_mask;

	/* Modes above 1 are flags of the third argument: Linux 6.18. */
	if (mm->has_thp_disabled && mm->thp_disabled)
		CALL(p, "disable huge pages", SYS_prctl, PR_SET_THP_DISABLE, 1,
		     tc->thp_disable_mode & ~1u, 0, 0);
	for (uint32_t bit = 1; bit && mask; bit <<= 1)
		if (mask & bit)
			CALL(p, "register for memory barriers", SYS_membarrier, bit, 0, 0);
	/* Nothing is made executable any more. */
	if (tc->mdwe)
		CALL(p, "forbid memory to become executable (PR_SET_MDWE)", SYS_prctl,
		     ABI_PR_SET_MDWE, tc->mdwe, 0, 0, 0);
}

/* A machine may lack the nodes, and a thread runs without its policy. Tried on criu itself. */
static bool can_have_policy(const ThreadCoreEntry *e)
{
	uint64_t nodes[MODES_NUMA_WORDS] = { 0 };
	int mode = MPOL_DEFAULT;
	unsigned long max = MODES_NUMA_WORDS * 64;

	if (syscall(SYS_get_mempolicy, &mode, nodes, max, 0, 0) < 0 ||
	    syscall(SYS_set_mempolicy, e->numa_mode, e->numa_nodes, e->n_numa_nodes * 64 + 1) < 0)
		return false;
	(void)syscall(SYS_set_mempolicy, mode, mode == MPOL_DEFAULT ? NULL : nodes,
		      mode == MPOL_DEFAULT ? 0 : max);
	return true;
}

static void add_numa_policy(const struct restore_thread *th, struct program *p)
{
	const ThreadCoreEntry *e = th->core->thread_core;

	if (!can_have_policy(e)) {
		warn("pid %d: its NUMA policy (mode %#x) cannot be restored: %s", th->tid,
		     e->numa_mode, strerror(errno));
		return;
	}
	void *nodes = program_data(p, e->numa_nodes, e->n_numa_nodes * sizeof(e->numa_nodes[0]));
	if (nodes)
		CALL(p, "set the NUMA policy", SYS_set_mempolicy, e->numa_mode,
		     program_raddr(p, nodes), e->n_numa_nodes * 64 + 1);
}

static void add_speculation(const struct restore_thread *th, int which, uint32_t want,
			    struct program *p)
{
	int now = prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0);

	if (now > 0 && (unsigned)now & SPEC_IS_SETTABLE)
		CALL(p, "forbid speculation", SYS_prctl, PR_SET_SPECULATION_CTRL, which, want, 0,
		     0);
	else if (now > 0 && (unsigned)now & PR_SPEC_ENABLE) /* else it is forbidden to all */
		warn("pid %d: speculation (kind %d) cannot be forbidden on this machine", th->tid,
		     which);
}

static void add_cpuid(const struct restore_thread *th, struct program *p)
{
	/* It does not fault in criu: setting that changes nothing and tells whether it could. */
	if (syscall(SYS_arch_prctl, ABI_ARCH_SET_CPUID, 1) < 0)
		warn("pid %d: the instruction CPUID will work: this CPU cannot forbid it", th->tid);
	else
		CALL(p, "forbid CPUID", SYS_arch_prctl, ABI_ARCH_SET_CPUID, 0);
}

void modes_add_thread(const struct restore *r, const struct restore_thread *th, struct program *p)
{
	const ThreadCoreEntry *e = th->core->thread_core;

	if (e->has_numa_mode)
		add_numa_policy(th, p);
	if (e->spec_store_bypass)
		add_speculation(th, SPEC_STORE_BYPASS, e->spec_store_bypass, p);
	if (e->spec_indirect_branch)
		add_speculation(th, SPEC_INDIRECT_BRANCH, e->spec_indirect_branch, p);
	if (e->has_mce_kill)
		CALL(p, "set what happens by memory errors", SYS_prctl, PR_MCE_KILL,
		     PR_MCE_KILL_SET, e->mce_kill, 0, 0);
	if (e->io_flusher && creds_have(&r->own_creds, CAP_SYS_RESOURCE))
		CALL(p, "become an I/O flusher", SYS_prctl, ABI_PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	else if (e->io_flusher)
		warn("pid %d: it was an I/O flusher (PR_SET_IO_FLUSHER), which takes "
		     "CAP_SYS_RESOURCE",
		     th->tid);
	if (e->tsc_forbidden)
		CALL(p, "forbid RDTSC", SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV);
	if (e->cpuid_forbidden)
		add_cpuid(th, p);
}

int modes_set_stopped(const struct restore_thread *th)
{
	const ThreadCoreEntry *e = th->core->thread_core;
	struct abi_dispatch_config c = {
		.mode = DISPATCH_ON,
		.selector = e->dispatch_selector,
		.offset = e->dispatch_offset,
		.len = e->dispatch_len,
	};

	if (!e->has_dispatch_selector)
		return 0;
	if (ptrace(ABI_PTRACE_SET_DISPATCH, th->tid, sizeof(c), &c) < 0)
		return fail(errno,
			    "pid %d: turn its system calls into signals again (syscall user "
			    "dispatch, Linux 6.4)",
			    th->tid);
	return 0;
}
