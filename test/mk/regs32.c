/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Registers of an i386 program, as regs.c does it for others: threads load all of them with values
 * of their own and spin on a flag in memory. Values under x87 are popped and left, rounding modes
 * differ, and gs leads to the thread's own storage by a segment of the kernel's table.
 */
#ifdef __i386__
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"

#define MAX_THREADS	1024
#define STACK_SIZE	(256 * 1024)
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

struct holder {
	struct regset in, out;
	pthread_t thread;
	struct user_desc tls;
	volatile int *spinning;
	char finding[160];
};

volatile int regs_stop;
__thread volatile int regs_spinning;
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

static struct holder *holders;
static long nr_threads;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_out = PTHREAD_COND_INITIALIZER, go_on = PTHREAD_COND_INITIALIZER;
static long nr_out, generation;

static void choose_values(struct holder *h, long i)
{
	const uint16_t precision[] = { 0x000, 0x200, 0x300 };
	struct regset *in = &h->in;
	int n;

	fill(in, sizeof(*in), mix(i) ^ generation);
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

#define NO_NUMBER	-1

static void differs(struct holder *h, const char *what, int n, uint32_t expected, uint32_t got)
{
	char number[12] = "";

	if (h->finding[0])
		return;
	if (n != NO_NUMBER)
		snprintf(number, sizeof(number), "%d", n);
	snprintf(h->finding, sizeof(h->finding), "%s%s, expected %#x, got %#x", what, number, expected, got);
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static void compare_x87(struct holder *h)
{
	const uint8_t *got = h->out.fsave + 28;
	int left = 8 - h->in.pops, n;
	uint32_t tags = 0;

	for (n = 0; n < h->in.pops; n++)
		tags |= 3 << (2 * n);
	if ((load32(h->out.fsave) & 0xffff) != h->in.fcw)
		differs(h, "x87 control word", NO_NUMBER, h->in.fcw, load32(h->out.fsave) & 0xffff);
	if ((load32(h->out.fsave + 8) & 0xffff) != tags)
		differs(h, "x87 tag word", NO_NUMBER, tags, load32(h->out.fsave + 8) & 0xffff);
	for (n = 0; n < left; n++)
		if (memcmp(h->in.st[n + h->in.pops], got + 10 * n, 10))
			differs(h, "st", n, load32(h->in.st[n + h->in.pops]), load32(got + 10 * n));
}

static void compare(struct holder *h)
{
	struct user_desc now = { .entry_number = h->tls.entry_number };
	int n;

	for (n = 0; n < 8; n++) {
		if (h->in.gpr[n] != h->out.gpr[n])
			differs(h, gpr_names[n], NO_NUMBER, h->in.gpr[n], h->out.gpr[n]);
		if (memcmp(h->in.xmm[n], h->out.xmm[n], 16))
			differs(h, "xmm", n, load32(h->in.xmm[n]), load32(h->out.xmm[n]));
	}
	if ((h->in.eflags ^ h->out.eflags) & (FLAG_DF | FLAG_AC))
		differs(h, "eflags", NO_NUMBER, h->in.eflags, h->out.eflags);
	if (h->in.mxcsr != h->out.mxcsr)
		differs(h, "mxcsr", NO_NUMBER, h->in.mxcsr, h->out.mxcsr);
	if (syscall(SYS_get_thread_area, &now) || memcmp(&now, &h->tls, sizeof(now)))
		differs(h, "segment of gs", NO_NUMBER, h->tls.base_addr, now.base_addr);
	compare_x87(h);
}

static uint32_t gs_selector(void)
{
	uint32_t selector;

	asm volatile ("mov %%gs, %0" : "=r" (selector));
	return selector;
}

static void *hold_registers(void *arg)
{
	struct holder *h = arg;

	h->tls.entry_number = gs_selector() >> 3;
	syscall(SYS_get_thread_area, &h->tls);
	h->spinning = &regs_spinning;
	for (;;) {
		long seen = generation;

		choose_values(h, h - holders);
		regs_hold(&h->in, &h->out);
		regs_spinning = 0;
		compare(h);
		pthread_mutex_lock(&lock);
		if (++nr_out == nr_threads)
			pthread_cond_signal(&all_out);
		while (generation == seen)
			pthread_cond_wait(&go_on, &lock);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void *serve_here(void *arg)
{
	void (*serve)(void);

	memcpy(&serve, arg, sizeof(serve));
	serve();
	return NULL;
}

/* The first thread holds registers, too; another takes its place at the signals. */
static void around(void (*serve)(void))
{
	static void (*place_to_serve)(void);
	pthread_t server;
	sigset_t all;

	place_to_serve = serve;
	if (pthread_create(&server, NULL, serve_here, &place_to_serve))
		die("cannot create a thread");
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	hold_registers(&holders[nr_threads - 1]);
}

static bool spins(void *arg)
{
	struct holder *h = arg;

	return h->spinning && *h->spinning;
}

static bool all_spin(void *unused)
{
	long i;

	(void)unused;
	for (i = 0; i < nr_threads; i++)
		if (!spins(&holders[i]))
			return false;
	return true;
}

static void make(void)
{
	sigset_t all, old;
	pthread_attr_t attr;
	long i, nr_new = param_long("threads");

	if (nr_new < 0 || nr_new >= MAX_THREADS)
		die("threads= is less than %d", MAX_THREADS);
	nr_threads = nr_new + 1;
	holders = aligned_alloc(16, nr_threads * sizeof(*holders));
	if (!holders)
		die("out of memory");
	memset(holders, 0, nr_threads * sizeof(*holders));
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (i = 0; i < nr_new; i++)
		if (pthread_create(&holders[i].thread, &attr, hold_registers, &holders[i]))
			die("cannot create thread %ld", i);
	sigprocmask(SIG_SETMASK, &old, NULL);
	for (i = 0; i < nr_new; i++)
		if (!wait_until(spins, &holders[i]))
			die("the threads do not start");
}

static bool wait_all_out(void)
{
	struct timespec deadline;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 20;
	pthread_mutex_lock(&lock);
	while (nr_out < nr_threads && !rc)
		rc = pthread_cond_timedwait(&all_out, &lock, &deadline);
	pthread_mutex_unlock(&lock);
	return !rc;
}

static void check(void)
{
	long i;

	regs_stop = 1;
	if (!wait_all_out()) {
		bad("only %ld of %ld threads answer", nr_out, nr_threads);
		return;
	}
	for (i = 0; i < nr_threads; i++) {
		if (holders[i].finding[0])
			bad("thread %ld: %s", i, holders[i].finding);
		holders[i].finding[0] = '\0';
	}
	regs_stop = 0;
	pthread_mutex_lock(&lock);
	nr_out = 0;
	generation++;
	pthread_cond_broadcast(&go_on);
	pthread_mutex_unlock(&lock);
	if (!wait_until(all_spin, NULL))
		bad("the threads do not start again");
}

struct factory regs_factory = {
	.name	= "regs",
	.about	= "threads that hold values in all registers",
	.params	= { { "threads", "64", "number of threads besides the first" } },
	.make	= make,
	.check	= check,
	.around	= around,
};
#endif
