/* SPDX-License-Identifier: GPL-2.0-only */
/* x86-64: registers, system calls in a stopped thread, and what an interrupted call needs. */
#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/own.h"
#include "remote/arch/x86_64/compat.h"
#include "remote/arch/x86_64/segments.h"

#define NT_X86_XSTATE  0x202
#define TRAP_FLAG      0x100u
#define DIRECTION_FLAG 0x400u
#define MARK	       0x9a3cf57b6de2801full /* in registers that no call and not the stub uses */

/* Codes that the kernel keeps to itself: include/linux/errno.h. */
#define ERESTARTSYS	      512
#define ERESTARTNOINTR	      513
#define ERESTARTNOHAND	      514
#define ERESTART_RESTARTBLOCK 516

void xstate_layout_read(struct xstate_layout *ret)
{
	unsigned eax, ebx, ecx, edx;

	*ret = (struct xstate_layout){ .features = 3 /* x87 and SSE */ };
	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return;
	__asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	ret->features = (uint64_t)edx << 32 | eax;
	for (size_t i = 2; i < ARRAY_SIZE(ret->size); i++) {
		if (!(ret->features >> i & 1))
			continue;
		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		ret->size[i] = eax;
		ret->offset[i] = ebx;
	}
}

/* PTRACE_GETREGSET would give a thread in 32-bit code the registers of an i386. */
int regs_get(pid_t tid, struct regs *ret)
{
	return ptrace(PTRACE_GETREGS, tid, NULL, &ret->gp) < 0 ? -errno : 0;
}

int regs_set(pid_t tid, const struct regs *regs)
{
	return ptrace(PTRACE_SETREGS, tid, NULL, &regs->gp) < 0 ? -errno : 0;
}

int xstate_get(pid_t tid, void *buf)
{
	struct iovec iov = { buf, XSTATE_MAX };

	return ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov) < 0 ? -errno : (int)iov.iov_len;
}

int xstate_set(pid_t tid, const void *data, size_t size)
{
	struct iovec iov = { (void *)data, size };

	return ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov) < 0 ? -errno : 0;
}

static void set_mark(struct regs *r)
{
	r->gp.r14 = MARK;
	r->gp.r15 = MARK;
}

bool regs_is_marked(const struct regs *regs)
{
	/* 32-bit code has no use for these registers: they may hold an older mark. */
	if (regs_is_compat(regs))
		return compat_is_marked(regs);
	return regs->gp.r14 == MARK && regs->gp.r15 == MARK;
}

void regs_fill_mark(void *buf, size_t size)
{
	const uint64_t mark = MARK;

	for (size_t i = 0; i + sizeof(mark) <= size; i += sizeof(mark))
		memcpy((uint8_t *)buf + i, &mark, sizeof(mark));
}

struct regs regs_for_call(const struct regs *orig, uint64_t insn, uint64_t sp, long nr,
			  const uint64_t arg[6])
{
	struct regs r = *orig;

	r.gp.rip = insn;
	r.gp.rsp = sp;
	r.gp.orig_rax = -1; /* or the kernel would restart the interrupted call in our place */
	r.gp.eflags &= ~(unsigned long long)(TRAP_FLAG | DIRECTION_FLAG);
	if (regs_is_compat(orig)) {
		compat_set_call(&r, nr, arg);
		return r;
	}
	r.gp.rax = nr;
	r.gp.rdi = arg[0];
	r.gp.rsi = arg[1];
	r.gp.rdx = arg[2];
	r.gp.r10 = arg[3];
	r.gp.r8 = arg[4];
	r.gp.r9 = arg[5];
	set_mark(&r);
	return r;
}

void regs_set_store(struct regs *regs, uint64_t addr)
{
	regs->gp.rbx = addr;
}

int64_t regs_result(const struct regs *regs)
{
	return regs->gp.rax;
}

struct regs regs_for_stub(const struct regs *orig, uint64_t entry, uint64_t slot)
{
	struct regs r = *orig;

	r.gp.cs = USER_CS_64;
	r.gp.ss = USER_DS;
	r.gp.rip = entry;
	r.gp.rbx = slot;
	r.gp.orig_rax = -1;
	r.gp.eflags &= ~(unsigned long long)(TRAP_FLAG | DIRECTION_FLAG);
	set_mark(&r);
	return r;
}

uint64_t regs_pc(const struct regs *regs)
{
	return regs->gp.rip;
}

void regs_set_pc(struct regs *regs, uint64_t pc)
{
	regs->gp.rip = pc;
}

uint64_t regs_sp(const struct regs *regs)
{
	return regs->gp.rsp;
}

bool regs_is_compat(const struct regs *regs)
{
	return regs->gp.cs == USER_CS_32;
}

bool regs_is_in_known_code(const struct regs *regs)
{
	return regs->gp.cs == USER_CS_64 || regs->gp.cs == USER_CS_32;
}

static long restart_syscall_of(const struct regs *regs)
{
	return regs_is_compat(regs) ? COMPAT_RESTART_SYSCALL : SYS_restart_syscall;
}

bool regs_is_restart(const struct regs *regs)
{
	return regs_interrupted_call(regs) == restart_syscall_of(regs);
}

long regs_interrupted_call(const struct regs *regs)
{
	int64_t rax = regs->gp.rax, nr = (int32_t)regs->gp.orig_rax;

	if (nr < 0)
		return -1;
	if (rax == -EINTR || rax == -ERESTARTSYS || rax == -ERESTARTNOINTR ||
	    rax == -ERESTARTNOHAND || rax == -ERESTART_RESTARTBLOCK)
		return nr;
	return -1;
}

bool regs_may_restart(const struct regs *regs)
{
	return (int64_t)regs->gp.rax == restart_syscall_of(regs);
}

void regs_before_restart(struct regs *regs)
{
	if ((int32_t)regs->gp.orig_rax < 0)
		regs->gp.orig_rax = restart_syscall_of(regs);
	regs->gp.rax = -ERESTART_RESTARTBLOCK;
	regs->gp.rip += 2;
}

bool regs_need_restart_block(const struct regs *regs)
{
	return (int32_t)regs->gp.orig_rax >= 0 && (int64_t)regs->gp.rax == -ERESTART_RESTARTBLOCK;
}

uint64_t regs_restarted_time(const struct regs *regs, long nr)
{
	return regs_is_compat(regs) ? compat_restarted_time(regs, nr) : 0;
}

long regs_restarted_number(const struct regs *regs, long nr, const uint32_t time[3])
{
	return regs_is_compat(regs) ? compat_restarted_number(nr, time) : nr;
}

void regs_set_interrupted_call(struct regs *regs, long nr)
{
	regs->gp.orig_rax = nr;
}

uint64_t regs_argument(const struct regs *regs, int i)
{
	const struct user_regs_struct *g = &regs->gp;
	const uint64_t arg[6] = { g->rdi, g->rsi, g->rdx, g->r10, g->r8, g->r9 };
	const uint64_t compat_arg[6] = { g->rbx, g->rcx, g->rdx, g->rsi, g->rdi, g->rbp };

	return regs_is_compat(regs) ? compat_arg[i] : arg[i];
}

/* Calls that are never restarted, so that even a stop without a signal ends them. */
static const long never_restarted[] = {
	SYS_epoll_wait, SYS_epoll_pwait, 441 /* epoll_pwait2 */, SYS_rt_sigtimedwait,
	SYS_semop,	SYS_semtimedop,	 SYS_io_getevents,
};

static bool is_never_restarted(const struct regs *regs)
{
	long nr = regs->gp.orig_rax;

	if (regs_is_compat(regs))
		return compat_is_never_restarted(nr);
	for (size_t i = 0; i < ARRAY_SIZE(never_restarted); i++)
		if (never_restarted[i] == nr)
			return true;
	return false;
}

void regs_fix_resume(struct regs *regs)
{
	if ((int64_t)regs->gp.rax == -EINTR && is_never_restarted(regs))
		regs->gp.rax = -ERESTARTNOHAND;
}

/* nanosleep(req, rem), clock_nanosleep(clock, flags, req, rem): rem was filled. */
static void sleep_for_the_rest(struct regs *regs, long nr)
{
	if (regs_is_compat(regs))
		compat_sleep_for_the_rest(regs, nr);
	else if (nr == SYS_nanosleep && regs->gp.rsi)
		regs->gp.rdi = regs->gp.rsi;
	else if (nr == SYS_clock_nanosleep && regs->gp.r10)
		regs->gp.rdx = regs->gp.r10;
}

void regs_redo_call(struct regs *regs)
{
	int64_t rax = regs->gp.rax;
	long nr = regs_interrupted_call(regs);

	if (nr < 0 || (rax == -EINTR && !is_never_restarted(regs)))
		return;
	if (rax == -ERESTART_RESTARTBLOCK)
		sleep_for_the_rest(regs, nr);
	if (nr == restart_syscall_of(regs)) {
		regs->gp.rax = -EINTR;
	} else {
		regs->gp.rax = nr;
		regs->gp.rip -= 2;
	}
	regs->gp.orig_rax = -1;
}
