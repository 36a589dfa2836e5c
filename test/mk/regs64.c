/* SPDX-License-Identifier: GPL-2.0-only */
/* regs: the registers of x86-64. */
#ifdef __x86_64__
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"
#include "regs.h"

enum level { LEVEL_SSE, LEVEL_AVX, LEVEL_AVX512 };

#define FLAG_DF		0x400UL
#define FLAG_AC		0x40000UL
#define FLAG_ID		0x200000UL
#define FLAGS_USED	(FLAG_DF | FLAG_AC | FLAG_ID)
#define FLAGS_FIXED	0x202UL

/* The assembly below knows this layout; see the offsets there. */
struct regset {
	uint8_t zmm[32][64];		/* 0 */
	uint64_t k[8];			/* 2048 */
	uint8_t st[8][16];		/* 2112: ten bytes each */
	uint64_t gpr[16];		/* 2240: rax rbx rcx rdx rsi rdi rbp rsp r8 ... r15 */
	uint64_t redzone[16];		/* 2368: from the top down */
	uint64_t rflags;		/* 2496 */
	uint64_t gs_word;		/* 2504 */
	uint32_t mxcsr;			/* 2512 */
	uint16_t fcw;			/* 2516 */
	uint16_t pops;			/* 2518: x87 registers emptied again */
	uint32_t level;			/* 2520 */
	uint8_t fsave[108];		/* 2524 */
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct regset, gpr) == 2240, "known to the assembly");
_Static_assert(offsetof(struct regset, fsave) == 2524, "known to the assembly");

static const char *const gpr_names[16] = {
	"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};

struct registers {
	struct regset in, out;
	uint64_t gs_block[8];
	uint64_t fs_base;
	uint32_t pkru;
};

/* Used by the assembly, which has no register free and reaches them through rip or fs. */
int regs_max_level;
__thread struct regset *regs_out;
__thread void *regs_saved_sp;

void regs_hold(struct regset *in, struct regset *out);

/* The lines up to END_EACH once for each number, which stands for \\n in them. */
#define EACH_OF_8	".irp n,0,1,2,3,4,5,6,7\n"
#define EACH_FROM_8	".irp n,8,9,10,11,12,13,14,15\n"
#define EACH_OF_16	".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
#define EACH_OF_32	".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15," \
			"16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
#define END_EACH	".endr\n"

asm(
	".text\n"
	".globl regs_hold\n"
	".type regs_hold, @function\n"
	"regs_hold:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n"
	"	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, %fs:regs_saved_sp@tpoff\n"
	"	mov %rsi, %fs:regs_out@tpoff\n"

	/* x87: eight values, some of which may be popped again */
	"	fninit\n"
	EACH_OF_8
	"	fldt 2112+16*(7-\\n)(%rdi)\n"
	END_EACH
	"	movzwl 2518(%rdi), %ecx\n"
	"	jrcxz 2f\n"
	"1:	fstp %st(0)\n"
	"	loop 1b\n"
	"2:	fldcw 2516(%rdi)\n"
	"	ldmxcsr 2512(%rdi)\n"

	/* vectors: as wide as this thread's level says, the rest of each register zero */
	"	cmpl $1, 2520(%rdi)\n"
	"	je 4f\n"
	"	ja 5f\n"
	"	cmpl $0, regs_max_level(%rip)\n"
	"	je 3f\n"
	"	vzeroupper\n"
	"3:\n"
	EACH_OF_16
	"	movups 64*\\n(%rdi), %xmm\\n\n"
	END_EACH
	"	jmp 6f\n"
	"4:\n"
	EACH_OF_16
	"	vmovups 64*\\n(%rdi), %ymm\\n\n"
	END_EACH
	"	jmp 6f\n"
	"5:\n"
	EACH_OF_32
	"	vmovdqu64 64*\\n(%rdi), %zmm\\n\n"
	END_EACH
	EACH_OF_8
	"	kmovq 2048+8*\\n(%rdi), %k\\n\n"
	END_EACH
	"6:\n"

	/* flags before the red zone is filled: a push would spoil it */
	"	pushq 2496(%rdi)\n"
	"	popfq\n"
	EACH_OF_16
	"	mov 2368+8*\\n(%rdi), %rax\n"
	"	mov %rax, -8-8*\\n(%rsp)\n"
	END_EACH
	"	mov %rsp, 2240+56(%rdi)\n"
	"	mov 2240(%rdi), %rax\n"
	"	mov 2248(%rdi), %rbx\n"
	"	mov 2256(%rdi), %rcx\n"
	"	mov 2264(%rdi), %rdx\n"
	"	mov 2272(%rdi), %rsi\n"
	"	mov 2288(%rdi), %rbp\n"
	EACH_FROM_8
	"	mov 2240+8*\\n(%rdi), %r\\n\n"
	END_EACH
	"	mov 2280(%rdi), %rdi\n"
	"	movl $1, %fs:regs_spinning@tpoff\n"
	"7:	pause\n"
	"	cmpl $0, regs_stop(%rip)\n"
	"	je 7b\n"

	/* out again, the stack pointer first steps over the red zone */
	"	lea -256(%rsp), %rsp\n"
	"	pushfq\n"
	"	pushq $0x202\n"
	"	popfq\n"
	"	push %rdi\n"
	"	mov %fs:regs_out@tpoff, %rdi\n"
	"	mov %rax, 2240(%rdi)\n"
	"	mov %rbx, 2248(%rdi)\n"
	"	mov %rcx, 2256(%rdi)\n"
	"	mov %rdx, 2264(%rdi)\n"
	"	mov %rsi, 2272(%rdi)\n"
	"	mov %rbp, 2288(%rdi)\n"
	EACH_FROM_8
	"	mov %r\\n, 2240+8*\\n(%rdi)\n"
	END_EACH
	"	mov (%rsp), %rax\n"
	"	mov %rax, 2280(%rdi)\n"
	"	mov 8(%rsp), %rax\n"
	"	mov %rax, 2496(%rdi)\n"
	"	lea 272(%rsp), %rbx\n"
	"	mov %rbx, 2240+56(%rdi)\n"
	EACH_OF_16
	"	mov -8-8*\\n(%rbx), %rax\n"
	"	mov %rax, 2368+8*\\n(%rdi)\n"
	END_EACH
	"	mov %gs:0, %rax\n"
	"	mov %rax, 2504(%rdi)\n"
	"	stmxcsr 2512(%rdi)\n"
	"	fnsave 2524(%rdi)\n"
	"	cmpl $1, regs_max_level(%rip)\n"
	"	je 8f\n"
	"	ja 9f\n"
	EACH_OF_16
	"	movups %xmm\\n, 64*\\n(%rdi)\n"
	END_EACH
	"	jmp 11f\n"
	"8:\n"
	EACH_OF_16
	"	vmovups %ymm\\n, 64*\\n(%rdi)\n"
	END_EACH
	"	vzeroupper\n"
	"	jmp 11f\n"
	"9:\n"
	EACH_OF_32
	"	vmovdqu64 %zmm\\n, 64*\\n(%rdi)\n"
	END_EACH
	EACH_OF_8
	"	kmovq %k\\n, 2048+8*\\n(%rdi)\n"
	END_EACH
	"	vzeroupper\n"
	"11:\n"
	"	pushq $0x1f80\n"
	"	ldmxcsr (%rsp)\n"
	"	mov %fs:regs_saved_sp@tpoff, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n"
	"	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n"
	".size regs_hold, . - regs_hold\n"
);

static bool has_pku;

/* ---- what this CPU and kernel offer ---- */

static uint32_t read_xcr0(void)
{
	uint32_t low, high;

	asm volatile ("xgetbv" : "=a" (low), "=d" (high) : "c" (0));
	return low;
}

static int find_max_level(void)
{
	const uint32_t avx_state = 0x6, avx512_state = 0xe6;
	uint32_t a, b, c, d;

	__cpuid(1, a, b, c, d);
	if (!(c & bit_OSXSAVE) || !(c & bit_AVX) || (read_xcr0() & avx_state) != avx_state)
		return LEVEL_SSE;
	__cpuid_count(7, 0, a, b, c, d);
	has_pku = c & bit_OSPKE;
	if (!(b & bit_AVX512F) || !(b & bit_AVX512BW) ||
	    (read_xcr0() & avx512_state) != avx512_state)
		return LEVEL_AVX;
	return LEVEL_AVX512;
}

static void write_pkru(uint32_t value)
{
	asm volatile ("wrpkru" : : "a" (value), "c" (0), "d" (0));
}

static uint32_t read_pkru(void)
{
	uint32_t value, zero;

	asm volatile ("rdpkru" : "=a" (value), "=d" (zero) : "c" (0));
	return value;
}

/* ---- values ---- */

/* Threads differ in everything, also in how much of the vector state they use at all. */
static void choose_values(struct registers *h, long i, long round)
{
	const uint16_t precision[] = { 0x000, 0x200, 0x300 };
	struct regset *in = &h->in;
	int n;

	fill(in, sizeof(*in), mix(i) ^ round);
	for (n = 0; n < 8; n++) {
		uint16_t sign_exponent = 0x3f00 + n * 17 + i % 100 + (n % 2 ? 0x8000 : 0);

		/* a normal number: the integer bit is set */
		in->st[n][7] |= 0x80;
		memcpy(&in->st[n][8], &sign_exponent, sizeof(sign_exponent));
	}
	in->level = i % 4 == 3 ? i / 4 % (regs_max_level + 1) : regs_max_level;
	in->pops = i % 3 == 1 ? 5 : 0;
	in->fcw = 0x7f | (i / 2 % 4) << 10 | precision[i % 3];
	in->mxcsr = 0x1f80 | i % 4 << 13 | (i % 8 / 4) << 15 | (i % 5 == 0) << 6 | (i & 0x3f);
	in->rflags = FLAGS_FIXED | (i % 2 ? FLAG_DF : 0) | (i % 4 == 3 ? FLAG_AC : 0) |
		     (i % 3 && param_long("id") ? FLAG_ID : 0);
	in->gs_word = mix(~i);
	h->gs_block[0] = in->gs_word;
}

/* ---- comparing ---- */

static uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static void compare_vectors(struct registers *h)
{
	static const char *const parts[] = {
		"xmm", "upper half of ymm", "upper half of zmm", "upper half of zmm",
	};
	const int width[] = { 16, 32, 64 };
	int loaded = width[h->in.level], stored = width[regs_max_level];
	int nr = h->in.level == LEVEL_AVX512 ? 32 : 16;
	int n, at;

	for (n = 0; n < nr; n++)
		for (at = 0; at < stored; at += 8) {
			uint64_t want = at < loaded ? load64(&h->in.zmm[n][at]) : 0;

			if (want != load64(&h->out.zmm[n][at]))
				regs_differ(parts[at / 16], n, want, load64(&h->out.zmm[n][at]));
		}
	for (n = 0; h->in.level == LEVEL_AVX512 && n < 8; n++)
		if (h->in.k[n] != h->out.k[n])
			regs_differ("k", n, h->in.k[n], h->out.k[n]);
}

static uint16_t fsave_word(const struct registers *h, int at)
{
	uint16_t v;

	memcpy(&v, h->out.fsave + at, sizeof(v));
	return v;
}

static void compare_x87(struct registers *h)
{
	const uint8_t *got = h->out.fsave + 28;
	int left = 8 - h->in.pops, n;
	uint16_t status = (8 - left) << 11;	/* top of stack, no exceptions */
	uint16_t tags = 0;

	for (n = 0; n < h->in.pops; n++)
		tags |= 3 << (2 * n);
	if (fsave_word(h, 0) != h->in.fcw)
		regs_differ("x87 control word", NO_NUMBER, h->in.fcw, fsave_word(h, 0));
	if (fsave_word(h, 4) != status)
		regs_differ("x87 status word", NO_NUMBER, status, fsave_word(h, 4));
	if (fsave_word(h, 8) != tags)
		regs_differ("x87 tag word", NO_NUMBER, tags, fsave_word(h, 8));
	for (n = 0; n < left; n++)
		if (memcmp(h->in.st[n + h->in.pops], got + 10 * n, 10))
			regs_differ("st", n, load64(h->in.st[n + h->in.pops]), load64(got + 10 * n));
}

static void compare_general(struct registers *h)
{
	struct regset *in = &h->in, *out = &h->out;
	int n;

	for (n = 0; n < 16; n++)
		if (in->gpr[n] != out->gpr[n])
			regs_differ(gpr_names[n], NO_NUMBER, in->gpr[n], out->gpr[n]);
	for (n = 0; n < 16; n++)
		if (in->redzone[n] != out->redzone[n])
			regs_differ("red zone word ", n, in->redzone[n], out->redzone[n]);
	if ((in->rflags ^ out->rflags) & FLAGS_USED)
		regs_differ("rflags", NO_NUMBER, in->rflags & FLAGS_USED, out->rflags & FLAGS_USED);
	if (in->gs_word != out->gs_word)
		regs_differ("word at gs:", NO_NUMBER, in->gs_word, out->gs_word);
	if (in->mxcsr != out->mxcsr)
		regs_differ("mxcsr", NO_NUMBER, in->mxcsr, out->mxcsr);
}

static void compare_bases(struct registers *h)
{
	uint64_t fs = 0, gs = 0;

	syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
	syscall(SYS_arch_prctl, ARCH_GET_GS, &gs);
	if (fs != h->fs_base)
		regs_differ("fs base", NO_NUMBER, h->fs_base, fs);
	if (gs != (uint64_t)h->gs_block)
		regs_differ("gs base", NO_NUMBER, (uint64_t)h->gs_block, gs);
	if (has_pku && read_pkru() != h->pkru)
		regs_differ("pkru", NO_NUMBER, h->pkru, read_pkru());
}

static void take_bases(struct registers *h, long i)
{
	syscall(SYS_arch_prctl, ARCH_GET_FS, &h->fs_base);
	syscall(SYS_arch_prctl, ARCH_SET_GS, h->gs_block);
	if (has_pku) {
		/* key 0, the one of all memory here, stays open */
		h->pkru = 0x55555550 ^ (uint32_t)i << 4;
		write_pkru(h->pkru);
	}
}

struct registers *regs_new(long i)
{
	struct registers *h = aligned_alloc(64, sizeof(*h));

	if (!h)
		die("out of memory");
	memset(h, 0, sizeof(*h));
	regs_max_level = find_max_level(); /* the same for all */
	take_bases(h, i);
	return h;
}

void regs_round(struct registers *h, long i, long round)
{
	choose_values(h, i, round);
	regs_hold(&h->in, &h->out);
	compare_general(h);
	compare_x87(h);
	compare_vectors(h);
	compare_bases(h);
}
#endif
