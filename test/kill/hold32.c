/* SPDX-License-Identifier: GPL-2.0-only */
/* Registers of an i386 program, as hold.c does it for others. */
#ifdef __i386__
#include <stddef.h>
#include <string.h>

#include "hold.h"

#define LOOPS	   400
#define FLAGS_IDLE 0x202u
#define FLAG_DF	   0x400u

/* The assembly below knows this layout. */
struct regset {
	uint8_t xmm[8][16]; /* 0 */
	uint8_t st[8][16];  /* 128: ten bytes each */
	uint32_t gpr[8];    /* 256: eax ecx edx ebx esp ebp esi edi */
	uint32_t eflags;    /* 288 */
	uint32_t mxcsr;	    /* 292 */
	uint16_t fcw;	    /* 296 */
	uint16_t unused;
	uint8_t fsave[108]; /* 300 */
} __attribute__((aligned(16)));

_Static_assert(offsetof(struct regset, fsave) == 300, "known to the assembly");

__thread uint32_t hold_loops;
__thread struct regset *hold_out;
__thread void *hold_saved_sp;

void hold_run(struct regset *in, struct regset *out);

/* clang-format off */
__asm__(
	".text\n"
	".globl hold_run\n"
	".type hold_run, @function\n"
	"hold_run:\n"
	"	push %ebx\n	push %ebp\n	push %esi\n	push %edi\n"
	"	mov 20(%esp), %edi\n"
	"	mov 24(%esp), %esi\n"
	"	mov %esp, %gs:hold_saved_sp@ntpoff\n"
	"	mov %esi, %gs:hold_out@ntpoff\n"
	"	fninit\n"
	".irp n,0,1,2,3,4,5,6,7\n"
	"	fldt 128+16*(7-\\n)(%edi)\n"
	"	movups 16*\\n(%edi), %xmm\\n\n"
	".endr\n"
	"	fldcw 296(%edi)\n"
	"	ldmxcsr 292(%edi)\n"
	"	mov %esp, 256+16(%edi)\n"
	"	pushl 288(%edi)\n"
	"	popfl\n"
	"	mov 256(%edi), %eax\n"
	"	mov 260(%edi), %ecx\n"
	"	mov 264(%edi), %edx\n"
	"	mov 268(%edi), %ebx\n"
	"	mov 276(%edi), %ebp\n"
	"	mov 280(%edi), %esi\n"
	"	mov 284(%edi), %edi\n"
	"1:	pause\n"
	"	decl %gs:hold_loops@ntpoff\n"
	"	jnz 1b\n"
	"	pushfl\n"
	"	pushl $0x202\n"
	"	popfl\n"
	"	push %edi\n"
	"	mov %gs:hold_out@ntpoff, %edi\n"
	"	mov %eax, 256(%edi)\n"
	"	mov %ecx, 260(%edi)\n"
	"	mov %edx, 264(%edi)\n"
	"	mov %ebx, 268(%edi)\n"
	"	mov %ebp, 276(%edi)\n"
	"	mov %esi, 280(%edi)\n"
	"	popl 284(%edi)\n"
	"	popl 288(%edi)\n"
	"	mov %esp, 256+16(%edi)\n"
	"	stmxcsr 292(%edi)\n"
	"	fnsave 300(%edi)\n"
	".irp n,0,1,2,3,4,5,6,7\n"
	"	movups %xmm\\n, 16*\\n(%edi)\n"
	".endr\n"
	"	pushl $0x1f80\n"
	"	ldmxcsr (%esp)\n"
	"	mov %gs:hold_saved_sp@ntpoff, %esp\n"
	"	pop %edi\n	pop %esi\n	pop %ebp\n	pop %ebx\n"
	"	ret\n"
	".size hold_run, . - hold_run\n"
);
/* clang-format on */

void hold_init(void)
{
}

static void choose(struct regset *in, uint64_t seed)
{
	uint32_t *word = (uint32_t *)in, x = seed * 2654435761u + 1;

	for (size_t i = 0; i < sizeof(*in) / sizeof(*word); i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		word[i] = x;
	}
	for (int n = 0; n < 8; n++) {
		uint16_t sign_exponent = 0x3f00 + n * 17 + (n % 2 ? 0x8000 : 0);

		in->st[n][7] |= 0x80; /* a normal number: the integer bit is set */
		memcpy(&in->st[n][8], &sign_exponent, sizeof(sign_exponent));
	}
	in->fcw = 0x37f | (seed & 3) << 10;
	in->mxcsr = 0x1f80 | (seed & 3) << 13 | (seed & 0x3f);
	in->eflags = FLAGS_IDLE | (seed & 4 ? FLAG_DF : 0);
}

const char *hold_registers(uint64_t seed)
{
	static const char *const names[8] = {
		"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"
	};
	struct regset in, out = { 0 };
	uint16_t word[5]; /* control, -, status, -, tags */

	choose(&in, seed);
	hold_loops = LOOPS;
	hold_run(&in, &out);
	for (int n = 0; n < 8; n++)
		if (in.gpr[n] != out.gpr[n])
			return names[n];
	if ((in.eflags ^ out.eflags) & FLAG_DF)
		return "direction flag";
	if (in.mxcsr != out.mxcsr)
		return "mxcsr";
	memcpy(word, out.fsave, sizeof(word));
	if (word[0] != in.fcw || word[2] || word[4])
		return "x87 control, status or tags";
	for (int n = 0; n < 8; n++)
		if (memcmp(in.st[n], out.fsave + 28 + 10 * n, 10))
			return "x87 registers";
	return memcmp(in.xmm, out.xmm, sizeof(in.xmm)) ? "vector registers" : NULL;
}

void hold_clobber(void)
{
	__asm__ volatile("fninit" : : : "memory");
}
#endif
