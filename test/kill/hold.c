/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Registers: general ones, direction flag, red zone, x87 stack, vectors as wide as the CPU has
 * them, mask registers, control words. The loop in the middle counts in memory, so that not one
 * of them is free while it runs.
 */
#ifdef __x86_64__
#include <cpuid.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "hold.h"

#define LOOPS	   400
#define FLAGS_IDLE 0x202ul
#define FLAG_DF	   0x400ul
#define FLAGS_SEEN FLAG_DF

enum level { LEVEL_SSE, LEVEL_AVX, LEVEL_AVX512 };

/* The assembly below knows this layout; see the offsets there. */
struct regset {
	uint8_t zmm[32][64];  /* 0 */
	uint64_t k[8];	      /* 2048 */
	uint8_t st[8][16];    /* 2112: ten bytes each */
	uint64_t gpr[16];     /* 2240: rax rbx rcx rdx rsi rdi rbp rsp r8 ... r15 */
	uint64_t redzone[16]; /* 2368: from the top down */
	uint64_t rflags;      /* 2496 */
	uint64_t unused;
	uint32_t mxcsr; /* 2512 */
	uint16_t fcw;	/* 2516 */
	uint16_t unused2;
	uint32_t unused3;
	uint8_t fsave[108]; /* 2524 */
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct regset, gpr) == 2240, "known to the assembly");
_Static_assert(offsetof(struct regset, rflags) == 2496, "known to the assembly");
_Static_assert(offsetof(struct regset, fsave) == 2524, "known to the assembly");

/* Used by the assembly, which has no register free and reaches them through rip or fs. */
int hold_level;
__thread uint32_t hold_loops;
__thread struct regset *hold_out;
__thread void *hold_saved_sp;

void hold_run(struct regset *in, struct regset *out);

/* The lines up to END_EACH once for each number, which stands for \\n in them. */
#define EACH_OF_8   ".irp n,0,1,2,3,4,5,6,7\n"
#define EACH_FROM_8 ".irp n,8,9,10,11,12,13,14,15\n"
#define EACH_OF_16  ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
#define EACH_OF_32                                                                                 \
	".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,"                                            \
	"16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
#define END_EACH ".endr\n"

/* clang-format off */
__asm__(
	".text\n"
	".globl hold_run\n"
	".type hold_run, @function\n"
	"hold_run:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n"
	"	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, %fs:hold_saved_sp@tpoff\n"
	"	mov %rsi, %fs:hold_out@tpoff\n"

	"	fninit\n"
	EACH_OF_8
	"	fldt 2112+16*(7-\\n)(%rdi)\n"
	END_EACH
	"	fldcw 2516(%rdi)\n"
	"	ldmxcsr 2512(%rdi)\n"

	"	cmpl $1, hold_level(%rip)\n"
	"	je 4f\n"
	"	ja 5f\n"
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
	"7:	pause\n"
	"	decl %fs:hold_loops@tpoff\n"
	"	jnz 7b\n"

	/* out again, the stack pointer first steps over the red zone */
	"	lea -256(%rsp), %rsp\n"
	"	pushfq\n"
	"	pushq $0x202\n"
	"	popfq\n"
	"	push %rdi\n"
	"	mov %fs:hold_out@tpoff, %rdi\n"
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
	"	stmxcsr 2512(%rdi)\n"
	"	fnsave 2524(%rdi)\n"
	"	cmpl $1, hold_level(%rip)\n"
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
	"	mov %fs:hold_saved_sp@tpoff, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n"
	"	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n"
	".size hold_run, . - hold_run\n"
);
/* clang-format on */

static uint32_t read_xcr0(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low;
}

void hold_init(void)
{
	const uint32_t avx_state = 0x6, avx512_state = 0xe6;
	uint32_t a, b, c, d;

	hold_level = LEVEL_SSE;
	__cpuid(1, a, b, c, d);
	if (!(c & bit_OSXSAVE) || !(c & bit_AVX) || (read_xcr0() & avx_state) != avx_state)
		return;
	hold_level = LEVEL_AVX;
	__cpuid_count(7, 0, a, b, c, d);
	if ((b & bit_AVX512F) && (b & bit_AVX512BW) && (read_xcr0() & avx512_state) == avx512_state)
		hold_level = LEVEL_AVX512;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void choose(struct regset *in, uint64_t seed)
{
	uint64_t *word = (uint64_t *)in;

	for (size_t i = 0; i < sizeof(*in) / sizeof(*word); i++)
		word[i] = mix(seed + i * 0x9e3779b97f4a7c15ull);
	for (int n = 0; n < 8; n++) {
		uint16_t sign_exponent = 0x3f00 + n * 17 + (n % 2 ? 0x8000 : 0);

		in->st[n][7] |= 0x80; /* a normal number: the integer bit is set */
		memcpy(&in->st[n][8], &sign_exponent, sizeof(sign_exponent));
	}
	in->fcw = 0x37f | (seed & 3) << 10;
	in->mxcsr = 0x1f80 | (seed & 3) << 13 | (seed & 0x3f);
	in->rflags = FLAGS_IDLE | (seed & 4 ? FLAG_DF : 0);
}

static const char *compare_vectors(const struct regset *in, const struct regset *out)
{
	static const size_t width[] = { 16, 32, 64 };
	int n_vectors = hold_level == LEVEL_AVX512 ? 32 : 16;

	for (int n = 0; n < n_vectors; n++)
		if (memcmp(in->zmm[n], out->zmm[n], width[hold_level]))
			return "vector registers";
	if (hold_level == LEVEL_AVX512 && memcmp(in->k, out->k, sizeof(in->k)))
		return "mask registers";
	return NULL;
}

static const char *compare_x87(const struct regset *in, const struct regset *out)
{
	uint16_t word[5]; /* control, -, status, -, tags */

	memcpy(word, out->fsave, sizeof(word));
	if (word[0] != in->fcw)
		return "x87 control word";
	if (word[2] || word[4])
		return "x87 status or tags";
	for (int n = 0; n < 8; n++)
		if (memcmp(in->st[n], out->fsave + 28 + 10 * n, 10))
			return "x87 registers";
	return NULL;
}

static const char *compare_general(const struct regset *in, const struct regset *out)
{
	static const char *const names[16] = {
		"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
		"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
	};

	for (int n = 0; n < 16; n++)
		if (in->gpr[n] != out->gpr[n])
			return names[n];
	if (memcmp(in->redzone, out->redzone, sizeof(in->redzone)))
		return "red zone";
	if ((in->rflags ^ out->rflags) & FLAGS_SEEN)
		return "direction flag";
	if (in->mxcsr != out->mxcsr)
		return "mxcsr";
	return NULL;
}

const char *hold_registers(uint64_t seed)
{
	struct regset in, out = { 0 };

	choose(&in, seed);
	hold_loops = LOOPS;
	hold_run(&in, &out);
	const char *wrong = compare_general(&in, &out);
	if (!wrong)
		wrong = compare_x87(&in, &out);
	if (!wrong)
		wrong = compare_vectors(&in, &out);
	return wrong;
}

void hold_clobber(void)
{
	__asm__ volatile("fninit" : : : "memory");
	if (hold_level == LEVEL_SSE)
		return;
	__asm__ volatile("vpcmpeqd %%xmm0, %%xmm0, %%xmm0\n\t"
			 "vmovdqa %%xmm0, %%xmm7\n\t"
			 "vmovdqa %%xmm0, %%xmm15\n\t"
			 "vzeroupper"
			 :
			 :
			 : "xmm0", "xmm7", "xmm15", "memory");
}
#endif
