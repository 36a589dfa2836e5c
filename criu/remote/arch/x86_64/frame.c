/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * x86-64: signal frames as rt_sigreturn reads them (arch/x86/kernel/signal_64.c), and the
 * pieces of code in a task that lead to one.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/own.h"
#include "remote/arch/x86_64/compat.h"
#include "remote/arch/x86_64/frame.h"
#include "remote/arch/x86_64/segments.h"
#include "remote/arch/x86_64/xsave.h"

#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4
#define SW_BYTES	     464 /* of the legacy area: the software's own */
#define XFEATURE_FIRST_TILE  17	 /* AMX: only in frames of tasks that asked for it */

struct sigcontext64 {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2;
	uint64_t fpstate;
	uint64_t reserved[8];
};

struct frame {
	uint64_t pretcode;
	uint64_t uc_flags;
	uint64_t uc_link;
	uint64_t ss_sp;
	uint32_t ss_flags, ss_pad;
	uint64_t ss_size;
	struct sigcontext64 sc;
	uint64_t mask;
	uint8_t siginfo[128];
};

struct fpx_sw_bytes {
	uint32_t magic1;
	uint32_t extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size;
	uint32_t padding[7];
};

_Static_assert(sizeof(struct sigcontext64) == 256, "sigcontext");
_Static_assert(sizeof(struct frame) == 440, "frame");

/* The frame stands at at, its extended state behind it on a 64-byte boundary. */
static uint64_t fpstate_at(uint64_t at)
{
	return (at + sizeof(struct frame) + 63) & ~63ull;
}

static uint64_t xfeatures_of(const struct xstate *x)
{
	uint64_t xcr0, used;

	memcpy(&xcr0, x->data + SW_BYTES, sizeof(xcr0));
	memcpy(&used, x->data + XSTATE_BV_AT, sizeof(used));
	if (!(used >> XFEATURE_FIRST_TILE))
		xcr0 &= (1ull << XFEATURE_FIRST_TILE) - 1;
	return xcr0;
}

/* The kernel refuses a frame larger than the task's own permission allows: cut it. */
static size_t xstate_frame_size(const struct xstate_layout *l, const struct xstate *x)
{
	uint64_t features = xfeatures_of(x);
	size_t size = HEADER_END;

	for (size_t i = 2; i < ARRAY_SIZE(l->size); i++)
		if (features >> i & 1 && (size_t)l->offset[i] + l->size[i] <= x->size)
			size = max(size, (size_t)l->offset[i] + l->size[i]);
	return size;
}

size_t frame_size(const struct xstate_layout *l, const struct xstate *x)
{
	size_t size = sizeof(struct frame);

	if (x)
		size += 64 + xstate_frame_size(l, x) + sizeof(uint32_t);
	return (size + 15) & ~(size_t)15;
}

static void put_regs(struct sigcontext64 *sc, const struct user_regs_struct *g)
{
	sc->r8 = g->r8;
	sc->r9 = g->r9;
	sc->r10 = g->r10;
	sc->r11 = g->r11;
	sc->r12 = g->r12;
	sc->r13 = g->r13;
	sc->r14 = g->r14;
	sc->r15 = g->r15;
	sc->di = g->rdi;
	sc->si = g->rsi;
	sc->bp = g->rbp;
	sc->bx = g->rbx;
	sc->dx = g->rdx;
	sc->ax = g->rax;
	sc->cx = g->rcx;
	sc->sp = g->rsp;
	sc->ip = g->rip;
	sc->flags = g->eflags;
	sc->cs = USER_CS_64;
	sc->ss = USER_DS;
}

void frame_put_xstate(const struct xstate_layout *l, uint8_t *out, const struct xstate *x)
{
	size_t size = xstate_frame_size(l, x);
	uint64_t features = xfeatures_of(x), in_use;
	struct fpx_sw_bytes sw = {
		.magic1 = FP_XSTATE_MAGIC1,
		.extended_size = size + sizeof(uint32_t),
		.xfeatures = features,
		.xstate_size = size,
	};
	uint32_t magic2 = FP_XSTATE_MAGIC2;

	memcpy(out, x->data, size);
	memcpy(out + SW_BYTES, &sw, sizeof(sw));
	memcpy(&in_use, out + XSTATE_BV_AT, sizeof(in_use));
	in_use &= features;
	memcpy(out + XSTATE_BV_AT, &in_use, sizeof(in_use));
	memcpy(out + size, &magic2, sizeof(magic2));
}

ssize_t frame_build(const struct xstate_layout *l, void *buf, uint64_t at, uint64_t restorer,
		    const struct regs *regs, const struct xstate *x, uint64_t mask)
{
	struct frame f = {
		.pretcode = restorer,
		.uc_flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | (x ? UC_FP_XSTATE : 0),
		/*
		 * The alternate stack cannot be read by ptrace, so it cannot be put here: an
		 * invalid flag makes the kernel leave it alone (it ignores the EINVAL).
		 */
		.ss_flags = ~0u,
		.mask = mask,
	};

	if (x && x->size < HEADER_END)
		return -EOPNOTSUPP;
	if (regs_is_compat(regs))
		return compat_frame_build(l, buf, at, restorer, regs, x, mask);
	/* The kernel does not read this; the call before may end with words popped from here. */
	regs_fill_mark(f.siginfo, sizeof(f.siginfo));
	put_regs(&f.sc, &regs->gp);
	if (x) {
		f.sc.fpstate = fpstate_at(at);
		memset(buf, 0, frame_size(l, x));
		frame_put_xstate(l, (uint8_t *)buf + (fpstate_at(at) - at), x);
	}
	memcpy(buf, &f, sizeof(f));
	return frame_size(l, x);
}

/*
 * Follows the code behind a system call instruction. Harmless on the way to `ret`: clearing or
 * loading registers (a signal frame puts all of them back) and taking words off the stack.
 */
static bool reaches_return(const uint8_t *p, const uint8_t *end, bool is_compat, size_t *ret_pops)
{
	size_t pops = 0, word = is_compat ? 4 : 8;

	for (int i = 0; i < 32 && p + 4 < end; i++) {
		bool has_rex = !is_compat && p[0] >= 0x40 && p[0] <= 0x4f;
		const uint8_t *op = p + has_rex;

		if (p[0] == 0xc3) {
			*ret_pops = pops;
			return true;
		}
		if (*op >= 0x58 && *op <= 0x5f && (*op != 0x5c || has_rex)) { /* pop, not of rsp */
			pops += word;
			p = op + 1;
		} else if (*op == 0x31 && op[1] >= 0xc0) { /* xor reg, reg */
			p = op + 2;
		} else if (!is_compat && p[0] == 0x48 && p[1] == 0x83 && p[2] == 0xc4 &&
			   p[3] < 0x80) { /* add $, rsp */
			pops += p[3];
			p += 4;
		} else if (p[0] == 0x90) {
			p++;
		} else {
			return false;
		}
	}
	return false;
}

/* The vDSO of 32-bit tasks always holds int $0x80 (where other ways in return to, too). */
static const uint8_t *call_insn(bool is_compat)
{
	return (const uint8_t *)(is_compat ? "\xcd\x80" : "\x0f\x05");
}

ssize_t find_call_gadget(const uint8_t *code, size_t size, bool is_compat, size_t *ret_pops)
{
	const uint8_t *insn = call_insn(is_compat);
	ssize_t best = -ENOENT;

	for (size_t i = 0; i + 2 < size; i++) {
		size_t pops;

		if (code[i] != insn[0] || code[i + 1] != insn[1] ||
		    !reaches_return(code + i + 2, code + size, is_compat, &pops))
			continue;
		if (best < 0 || pops < *ret_pops) {
			best = i;
			*ret_pops = pops;
		}
	}
	return best;
}

ssize_t find_store_gadget(const uint8_t *code, size_t size, size_t *ret_pops)
{
	for (size_t i = 0; i + 2 < size; i++) /* mov %eax, (%rbx) */
		if (code[i] == 0x89 && code[i + 1] == 0x03 &&
		    reaches_return(code + i + 2, code + size, false, ret_pops) &&
		    *ret_pops <= FRAME_STORE_POPS_MAX)
			return i;
	return -ENOENT;
}

static ssize_t find_bytes(const uint8_t *code, size_t size, const void *what, size_t len)
{
	const uint8_t *p = memmem(code, size, what, len);

	return p ? p - code : -ENOENT;
}

ssize_t find_syscall(const uint8_t *code, size_t size, bool is_compat)
{
	return find_bytes(code, size, call_insn(is_compat), 2);
}

ssize_t find_sigreturn(const uint8_t *code, size_t size, bool is_compat)
{
	if (is_compat) /* mov $173, %eax; int $0x80 */
		return find_bytes(code, size, "\xb8\xad\x00\x00\x00\xcd\x80", 7);
	/* mov $15, %rax; syscall (glibc, Go) and mov $15, %eax; syscall (musl) */
	ssize_t i = find_bytes(code, size, "\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", 9);

	return i >= 0 ? i : find_bytes(code, size, "\xb8\x0f\x00\x00\x00\x0f\x05", 7);
}

static void no_handler(int sig)
{
	(void)sig;
}

uint64_t own_sigreturn(void)
{
	struct {
		uint64_t handler, flags, restorer, mask;
	} old = { 0 };
	struct sigaction sa = { .sa_handler = no_handler }, before;

	/* The C library gives its own return code to the kernel with every handler it sets. */
	if (sigaction(SIGUSR1, &sa, &before) < 0)
		return 0;
	(void)syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 8);
	(void)sigaction(SIGUSR1, &before, NULL);
	return old.restorer;
}
