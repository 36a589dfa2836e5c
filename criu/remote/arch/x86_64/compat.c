/* SPDX-License-Identifier: GPL-2.0-only */
#include <asm/unistd.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/own.h"
#include "kernel/abi.h"
#include "remote/arch/x86_64/compat.h"
#include "remote/arch/x86_64/frame.h"
#include "remote/arch/x86_64/segments.h"
#include "remote/arch/x86_64/xsave.h"

/*
 * The mark: an i386 has no general register that calls do not use. But it has fs, which is empty or
 * leads to thread-local storage, and leads to all memory in no program. Frames load the true one.
 */
#define MARK_FS USER_DS

#define COMPAT_OPEN		5
#define COMPAT_GETPID		20
#define COMPAT_NANOSLEEP	162
#define COMPAT_CLOCK_NANOSLEEP	267
#define COMPAT_CLOCK_NANOSLEEP2 407 /* with 64-bit times */

#define COMPAT_GET_ROBUST_LIST 312

#define NSEC_PER_SEC	  1000000000u
#define FIRST_TLS_SEGMENT 12 /* GDT_ENTRY_TLS_MIN */

/* The calls that criu makes in stopped threads: include/uapi/asm/unistd_{64,32}.h. */
static const struct {
	uint16_t nr, compat_nr;
} calls[] = {
	{ __NR_mmap, 192 /* mmap2: the offset in pages */ },
	{ __NR_mprotect, 125 },
	{ __NR_munmap, 91 },
	{ __NR_memfd_create, 356 },
	{ __NR_close, 6 },
	{ __NR_sigaltstack, 186 },
	{ __NR_prctl, 172 },
	{ __NR_arch_prctl, 384 },
	{ __NR_get_mempolicy, 275 },
	{ __NR_close_range, 436 },
	{ __NR_setsid, 66 },
	{ __NR_clone, 120 },
	{ __NR_timer_gettime, 408 /* with 64-bit times */ },
};

void compat_set_call(struct regs *regs, long nr, const uint64_t arg[6])
{
	struct user_regs_struct *g = &regs->gp;

	g->rax = ~0u; /* no call: ENOSYS */
	g->rbx = arg[0];
	g->rcx = arg[1];
	g->rdx = arg[2];
	g->rsi = arg[3];
	g->rdi = arg[4];
	g->rbp = arg[5];
	g->fs = MARK_FS;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].nr == nr)
			g->rax = calls[i].compat_nr;
}

bool compat_is_marked(const struct regs *regs)
{
	return regs->gp.fs == MARK_FS;
}

/* Calls that restart_syscall goes on with: with times of 32 bits, and of 64. */
static const struct {
	long nr;
	uint16_t compat_nr, compat_nr_64;
	uint8_t time; /* the argument that points at it; of no use if there is one number */
} restarted[] = {
	{ __NR_poll, 168, 168, 0 },
	{ __NR_nanosleep, COMPAT_NANOSLEEP, COMPAT_NANOSLEEP, 0 },
	{ __NR_clock_nanosleep, COMPAT_CLOCK_NANOSLEEP, COMPAT_CLOCK_NANOSLEEP2, 2 },
	{ __NR_futex, 240, 422, 3 },
};

uint64_t compat_restarted_time(const struct regs *regs, long nr)
{
	for (size_t i = 0; i < ARRAY_SIZE(restarted); i++)
		if (restarted[i].nr == nr && restarted[i].compat_nr != restarted[i].compat_nr_64)
			return regs_argument(regs, restarted[i].time);
	return 0;
}

/*
 * Seconds and nanoseconds are words 0 and 1, or 0-1 and 2-3. Where both are possible the seconds
 * are the same, and the later time does no harm.
 */
static bool is_time_64(const uint32_t time[3])
{
	bool can_be_32 = time[1] < NSEC_PER_SEC, can_be_64 = !time[1] && time[2] < NSEC_PER_SEC;

	return can_be_64 || !can_be_32;
}

long compat_restarted_number(long nr, const uint32_t time[3])
{
	for (size_t i = 0; i < ARRAY_SIZE(restarted); i++)
		if (restarted[i].nr == nr)
			return is_time_64(time) ? restarted[i].compat_nr_64
						: restarted[i].compat_nr;
	return -1;
}

bool compat_is_never_restarted(long nr)
{
	static const uint16_t list[] = {
		256 /* epoll_wait */,
		319 /* epoll_pwait */,
		441 /* epoll_pwait2 */,
		177 /* rt_sigtimedwait */,
		421 /* the same with 64-bit times */,
		117 /* ipc: semop and semtimedop end so */,
		420 /* semtimedop */,
		247 /* io_getevents */,
	};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		if (list[i] == nr)
			return true;
	return false;
}

void compat_sleep_for_the_rest(struct regs *regs, long nr)
{
	struct user_regs_struct *g = &regs->gp;

	/* The time that is left was stored where the last argument says, if anywhere. */
	if (nr == COMPAT_NANOSLEEP && g->rcx)
		g->rbx = g->rcx;
	if ((nr == COMPAT_CLOCK_NANOSLEEP || nr == COMPAT_CLOCK_NANOSLEEP2) && g->rsi)
		g->rdx = g->rsi;
}

/* A call of an i386 by criu itself. */
static long call_as_i386(long nr, long a, long b, long c)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

int compat_get_robust_list(pid_t tid, uint64_t *ret_head, uint64_t *ret_len)
{
	struct answers {
		uint32_t head, len;
	};
	/* It stores below 4 GiB only. */
	struct answers *at = mmap(NULL, sizeof(*at), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	long rc = call_as_i386(COMPAT_GET_ROBUST_LIST, tid, (long)&at->head, (long)&at->len);
	*ret_head = at->head;
	*ret_len = at->len;
	(void)munmap(at, sizeof(*at));
	return rc;
}

int compat_open(const char *path, int flags)
{
	size_t size = strlen(path) + 1;
	/* The name has to be where such a call can reach it. */
	char *name = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (name == MAP_FAILED)
		return -errno;
	memcpy(name, path, size);
	long rc = call_as_i386(COMPAT_OPEN, (long)name, flags, 0);
	(void)munmap(name, size);
	return rc;
}

bool compat_is_there(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		(void)call_as_i386(COMPAT_GETPID, 0, 0, 0);
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status);
}

int tls_get(pid_t tid, struct tls *ret)
{
	for (int i = 0; i < TLS_SEGMENTS; i++)
		if (ptrace(ABI_PTRACE_GET_THREAD_AREA, tid, FIRST_TLS_SEGMENT + i,
			   &ret->segment[i]) < 0)
			return -errno;
	return 0;
}

int tls_set(pid_t tid, const struct tls *tls)
{
	for (int i = 0; i < TLS_SEGMENTS; i++)
		if (ptrace(ABI_PTRACE_SET_THREAD_AREA, tid, FIRST_TLS_SEGMENT + i,
			   &tls->segment[i]) < 0)
			return -errno;
	return 0;
}

bool tls_is_used(const struct regs *regs)
{
	return regs_is_compat(regs) || regs->gp.fs || regs->gp.gs || regs->gp.ds || regs->gp.es;
}

struct sigcontext32 {
	uint16_t gs, gs_high, fs, fs_high, es, es_high, ds, ds_high;
	uint32_t di, si, bp, sp, bx, dx, cx, ax, trapno, err, ip;
	uint16_t cs, cs_high;
	uint32_t flags, sp_at_signal;
	uint16_t ss, ss_high;
	uint32_t fpstate, oldmask, cr2;
};

/* struct rt_sigframe_ia32 */
struct frame32 {
	uint32_t pretcode, sig, pinfo, puc;
	uint8_t siginfo[128];
	uint32_t uc_flags, uc_link;
	uint32_t ss_sp, ss_flags, ss_size;
	struct sigcontext32 sc;
	uint32_t mask[2]; /* at any multiple of 4 */
	uint8_t retcode[8];
};

/* What stands before the XSAVE area: the x87 state as FSAVE stores it, and two words. */
struct legacy_fp {
	uint32_t cwd, swd, twd, fip, fcs, foo, fos;
	uint8_t st[8][10];
	uint16_t status, magic; /* 0: an FXSAVE or XSAVE area follows */
};

_Static_assert(sizeof(struct sigcontext32) == 88, "sigcontext");
_Static_assert(sizeof(struct frame32) == 268, "frame");
_Static_assert(sizeof(struct legacy_fp) == 112, "fregs_state");

/* The tag of a register: 0 valid, 1 zero, 2 special, 3 empty (Intel SDM volume 1, 8.1.7). */
static unsigned tag_of(const uint8_t *st)
{
	uint64_t mantissa;
	uint16_t exponent;

	memcpy(&mantissa, st, sizeof(mantissa));
	memcpy(&exponent, st + 8, sizeof(exponent));
	exponent &= 0x7fff;
	if (!exponent)
		return mantissa ? 2 : 1;
	return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

/*
 * FXSAVE has one bit for each physical register and keeps the registers in the order of the
 * stack; FSAVE has two bits for each physical register.
 */
static uint32_t tags_of(const struct fxsave *f)
{
	unsigned top = f->swd >> 11 & 7;
	uint32_t tags = 0;

	for (unsigned i = 0; i < 8; i++) {
		const uint8_t *st = (const uint8_t *)f->st + 16 * ((i - top) & 7);
		uint32_t tag = f->twd >> i & 1 ? tag_of(st) : 3;

		tags |= tag << 2 * i;
	}
	return tags | 0xffff0000u;
}

static struct legacy_fp legacy_of(const struct xstate *x, const struct user_regs_struct *g)
{
	static const struct fxsave fresh = { .cwd = FCW_INIT };
	struct fxsave f;
	uint64_t bv;

	memcpy(&f, x->data, sizeof(f));
	memcpy(&bv, x->data + XSTATE_BV_AT, sizeof(bv));
	if (!(bv & 1))
		f = fresh;
	struct legacy_fp l = {
		.cwd = f.cwd | 0xffff0000u,
		.swd = f.swd | 0xffff0000u,
		.twd = tags_of(&f),
		.fip = f.rip,
		.fcs = g->cs | (uint32_t)f.fop << 16,
		.foo = f.rdp,
		.fos = g->ds,
		.status = f.swd,
	};
	for (int i = 0; i < 8; i++)
		memcpy(l.st[i], (const uint8_t *)f.st + 16 * i, sizeof(l.st[i]));
	return l;
}

static void put_regs(struct sigcontext32 *sc, const struct user_regs_struct *g)
{
	sc->gs = g->gs;
	sc->fs = g->fs;
	sc->es = g->es;
	sc->ds = g->ds;
	sc->di = g->rdi;
	sc->si = g->rsi;
	sc->bp = g->rbp;
	sc->sp = g->rsp;
	sc->bx = g->rbx;
	sc->dx = g->rdx;
	sc->cx = g->rcx;
	sc->ax = g->rax;
	sc->ip = g->rip;
	sc->cs = g->cs;
	sc->flags = g->eflags;
	sc->ss = g->ss;
}

ssize_t compat_frame_build(const struct xstate_layout *l, void *buf, uint64_t at, uint64_t restorer,
			   const struct regs *regs, const struct xstate *x, uint64_t mask)
{
	struct frame32 f = {
		.pretcode = restorer,
		.uc_flags = x ? UC_FP_XSTATE : 0,
		.ss_flags = ~0u, /* leaves the alternate stack alone, as in frame_build */
		.mask = { mask, mask >> 32 },
	};
	size_t size = frame_size(l, x);

	put_regs(&f.sc, &regs->gp);
	if (x) {
		struct legacy_fp legacy = legacy_of(x, &regs->gp);
		uint64_t area = (at + sizeof(f) + sizeof(legacy) + 63) & ~63ull;

		f.sc.fpstate = area - sizeof(legacy);
		memset(buf, 0, size);
		frame_put_xstate(l, (uint8_t *)buf + (area - at), x);
		memcpy((uint8_t *)buf + (f.sc.fpstate - at), &legacy, sizeof(legacy));
	}
	memcpy(buf, &f, sizeof(f));
	return size;
}
