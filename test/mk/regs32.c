/* SPDX-License-Identifier: GPL-2.0-only */
/* regs: the registers of an i386. gs leads to the thread's own storage by a segment of the kernel's table. */
#ifdef __i386__
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"
#include "regs.h"

#define FLAGS_FIXED	0x202
#define FLAG_DF		0x400
#define FLAG_AC		0x40000

/* The assembly below knows this layout. */
struct regset {
	uint8_t xmm[8][16];	/* 0 */
	uint8_t st[8][16];	/* 128: ten bytes each */
	uint32_t gpr[8];	/* 256: eax ecx edx ebx esp ebp esi edi */
	uint32_t eflags;	/* 288 */
	uint32_t mxcsr;		/* 292 */
	uint16_t fcw;		/* 296 */
	uint16_t pops;		/* 298: x87 registers emptied again */
	uint8_t fsave[108];	/* 300 */
} __attribute__((aligned(16)));

_Static_assert(offsetof(struct regset, fsave) == 300, "known to the assembly");

static const char *const gpr_names[8] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };

struct registers {
	struct regset in, out;
	struct user_desc tls;
};

__thread struct regset *regs_out;
__thread void *regs_saved_sp;

void regs_hold(struct regset *in, struct regset *out);

#define EACH_OF_8	".irp n,0,1,2,3,4,5,6,7\n"
#define END_EACH	".endr\n"

asm(
	".text\n"
	".globl regs_hold\n"
	".type regs_hold, @function\n"
	"regs_hold:\n"
	"	push %ebx\n	push %ebp\n	push %esi\n	push %edi\n"
	"	mov 20(%esp), %edi\n"
	"	mov 24(%esp), %esi\n"
	"	mov %esp, %gs:regs_saved_sp@ntpoff\n"
	"	mov %esi, %gs:regs_out@ntpoff\n"
	"	fninit\n"
	EACH_OF_8
	"	fldt 128+16*(7-\\n)(%edi)\n"
	"	movups 16*\\n(%edi), %xmm\\n\n"
	END_EACH
	"	movzwl 298(%edi), %ecx\n"
	"	jecxz 2f\n"
	"1:	fstp %st(0)\n"
	"	loop 1b\n"
	"2:	fldcw 296(%edi)\n"
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
	"	movl $1, %gs:regs_spinning@ntpoff\n"
	"3:	pause\n"
	"	cmpl $0, regs_stop\n"
	"	je 3b\n"
	"	pushfl\n"
	"	pushl $0x202\n"
	"	popfl\n"
	"	push %edi\n"
	"	mov %gs:regs_out@ntpoff, %edi\n"
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
	EACH_OF_8
	"	movups %xmm\\n, 16*\\n(%edi)\n"
	END_EACH
	"	pushl $0x1f80\n"
	"	ldmxcsr (%esp)\n"
	"	mov %gs:regs_saved_sp@ntpoff, %esp\n"
	"	pop %edi\n	pop %esi\n	pop %ebp\n	pop %ebx\n"
	"	ret\n"
	".size regs_hold, . - regs_hold\n"
);

static void choose_values(struct registers *h, long i, long round)
{
	const uint16_t precision[] = { 0x000, 0x200, 0x300 };
	struct regset *in = &h->in;
	int n;

	fill(in, sizeof(*in), mix(i) ^ round);
	for (n = 0; n < 8; n++) {
		uint16_t sign_exponent = 0x3f00 + n * 17 + i % 100 + (n % 2 ? 0x8000 : 0);

		in->st[n][7] |= 0x80;
		memcpy(&in->st[n][8], &sign_exponent, sizeof(sign_exponent));
	}
	in->pops = i % 3 == 1 ? 5 : 0;
	in->fcw = 0x7f | (i / 2 % 4) << 10 | precision[i % 3];
	in->mxcsr = 0x1f80 | i % 4 << 13 | (i % 8 / 4) << 15 | (i & 0x3f);
	in->eflags = FLAGS_FIXED | (i % 2 ? FLAG_DF : 0) | (i % 4 == 3 ? FLAG_AC : 0);
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static void compare_x87(struct registers *h)
{
	const uint8_t *got = h->out.fsave + 28;
	int left = 8 - h->in.pops, n;
	uint32_t tags = 0;

	for (n = 0; n < h->in.pops; n++)
		tags |= 3 << (2 * n);
	if ((load32(h->out.fsave) & 0xffff) != h->in.fcw)
		regs_differ("x87 control word", NO_NUMBER, h->in.fcw, load32(h->out.fsave) & 0xffff);
	if ((load32(h->out.fsave + 8) & 0xffff) != tags)
		regs_differ("x87 tag word", NO_NUMBER, tags, load32(h->out.fsave + 8) & 0xffff);
	for (n = 0; n < left; n++)
		if (memcmp(h->in.st[n + h->in.pops], got + 10 * n, 10))
			regs_differ("st", n, load32(h->in.st[n + h->in.pops]), load32(got + 10 * n));
}

static void compare(struct registers *h)
{
	struct user_desc now = { .entry_number = h->tls.entry_number };
	int n;

	for (n = 0; n < 8; n++) {
		if (h->in.gpr[n] != h->out.gpr[n])
			regs_differ(gpr_names[n], NO_NUMBER, h->in.gpr[n], h->out.gpr[n]);
		if (memcmp(h->in.xmm[n], h->out.xmm[n], 16))
			regs_differ("xmm", n, load32(h->in.xmm[n]), load32(h->out.xmm[n]));
	}
	if ((h->in.eflags ^ h->out.eflags) & (FLAG_DF | FLAG_AC))
		regs_differ("eflags", NO_NUMBER, h->in.eflags, h->out.eflags);
	if (h->in.mxcsr != h->out.mxcsr)
		regs_differ("mxcsr", NO_NUMBER, h->in.mxcsr, h->out.mxcsr);
	if (syscall(SYS_get_thread_area, &now) || memcmp(&now, &h->tls, sizeof(now)))
		regs_differ("segment of gs", NO_NUMBER, h->tls.base_addr, now.base_addr);
	compare_x87(h);
}

static uint32_t gs_selector(void)
{
	uint32_t selector;

	asm volatile ("mov %%gs, %0" : "=r" (selector));
	return selector;
}

struct registers *regs_new(long i)
{
	struct registers *h = aligned_alloc(16, (sizeof(*h) + 15) & ~15u);

	(void)i;
	if (!h)
		die("out of memory");
	memset(h, 0, sizeof(*h));
	h->tls.entry_number = gs_selector() >> 3;
	syscall(SYS_get_thread_area, &h->tls);
	return h;
}

void regs_round(struct registers *h, long i, long round)
{
	choose_values(h, i, round);
	regs_hold(&h->in, &h->out);
	compare(h);
}
#endif
