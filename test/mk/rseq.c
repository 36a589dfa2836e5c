/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Restartable sequences. Threads that share one CPU add to one counter in a
 * long critical section: load, linger, store. A section interrupted by the
 * checkpoint must be aborted when its thread runs again; one that simply went
 * on would store a stale value and lose what the other thread added meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

#define MAX_THREADS	16
#define LINGER		4000	/* rounds inside a section: most interruptions shall fall there */

struct counter {
	volatile long value;
} __attribute__((aligned(64)));

struct adder {
	pthread_t thread;
	volatile long added;
	long added_before;	/* at the last check */
	long aborts;
	char finding[96];
};

static struct counter counters[CPU_SETSIZE];
static struct adder adders[MAX_THREADS];
static long nr_threads;
static volatile int park;
static pthread_barrier_t parked, released;

static struct rseq *rseq_area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* Adds one to counters[cpu] unless the section is interrupted or not on that cpu: then false. */
static bool add_on(int cpu, volatile long *counter)
{
#ifdef __x86_64__
	struct rseq *area = rseq_area();

	asm goto volatile (
		".pushsection mk_rseq_cs, \"aw\"\n\t"
		".balign 32\n\t"
		"3: .long 0, 0\n\t"
		".quad 1f, 2f - 1f, 4f\n\t"
		".popsection\n\t"
		"leaq 3b(%%rip), %%rax\n\t"
		"movq %%rax, %[section]\n"
		"1:\n\t"
		"cmpl %[cpu], %[cpu_id]\n\t"
		"jne 4f\n\t"
		"movq (%[counter]), %%rax\n\t"
		"movl %[linger], %%ecx\n"
		"5:\n\t"
		"decl %%ecx\n\t"
		"jnz 5b\n\t"
		"incq %%rax\n\t"
		"movq %%rax, (%[counter])\n"
		"2:\n\t"
		".pushsection mk_rseq_abort, \"ax\"\n\t"
		".byte 0x0f, 0xb9, 0x3d\n\t"	/* ud1, the signature is its operand */
		".long %c[signature]\n"
		"4: jmp %l[aborted]\n\t"
		".popsection\n\t"
		:
		: [section] "m" (area->rseq_cs), [cpu_id] "m" (area->cpu_id), [cpu] "r" (cpu),
		  [counter] "r" (counter), [linger] "i" (LINGER), [signature] "i" (RSEQ_SIG)
		: "rax", "rcx", "cc", "memory"
		: aborted);
	return true;
aborted:
#else
	(void)cpu;
	(void)counter;
#endif
	return false;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("sched_setaffinity to cpu %d: %s", cpu, strerror(errno));
}

/* Another registration of the same area is refused only as long as the first one holds. */
static void check_registered(struct adder *a)
{
	int rc = syscall(SYS_rseq, rseq_area(), sizeof(struct rseq), 0, RSEQ_SIG);

	if (rc == 0)
		snprintf(a->finding, sizeof(a->finding), "rseq area was not registered any more");
	else if (errno != EBUSY)
		snprintf(a->finding, sizeof(a->finding), "rseq again: expected EBUSY, got %s",
			 strerror(errno));
}

/* The kernel keeps cpu_id up to date, wherever we go. sched_getcpu() would only read it, too. */
static void check_cpu_id(struct adder *a)
{
	cpu_set_t allowed;
	int cpu;

	CPU_ZERO(&allowed);
	sched_getaffinity(0, sizeof(allowed), &allowed);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		int told;

		if (!CPU_ISSET(cpu, &allowed))
			continue;
		pin(cpu);
		told = *(volatile uint32_t *)&rseq_area()->cpu_id;
		if (told != cpu)
			snprintf(a->finding, sizeof(a->finding), "rseq cpu_id, expected %d, got %d",
				 cpu, told);
	}
	sched_setaffinity(0, sizeof(allowed), &allowed);
}

static void *add_for_ever(void *arg)
{
	struct adder *a = arg;

	if (param_long("pin"))
		pin(0);
	for (;;) {
		int cpu = rseq_area()->cpu_id_start;

		if (add_on(cpu, &counters[cpu].value))
			a->added++;
		else
			a->aborts++;
		if (park) {
			check_registered(a);
			check_cpu_id(a);
			/* a checkpoint need not keep this */
			if (param_long("pin"))
				pin(0);
			pthread_barrier_wait(&parked);
			pthread_barrier_wait(&released);
		}
	}
	return NULL;
}

static bool all_counted_on(void *unused)
{
	long i;

	(void)unused;
	for (i = 0; i < nr_threads; i++)
		if (adders[i].added <= adders[i].added_before)
			return false;
	return true;
}

static void make(void)
{
	long i;

	if (!__rseq_size)
		skip("glibc has no rseq area registered");
	nr_threads = param_long("threads");
	if (nr_threads < 1 || nr_threads > MAX_THREADS)
		die("threads= is 1 to %d", MAX_THREADS);
	pthread_barrier_init(&parked, NULL, nr_threads + 1);
	pthread_barrier_init(&released, NULL, nr_threads + 1);
	for (i = 0; i < nr_threads; i++)
		if (pthread_create(&adders[i].thread, NULL, add_for_ever, &adders[i]))
			die("cannot create thread %ld", i);
	/* until then they are still being set up */
	if (!wait_until(all_counted_on, NULL))
		die("the threads do not count");
}

static void check(void)
{
	long i, added = 0, counted = 0;

	if (!wait_until(all_counted_on, NULL))
		bad("a thread does not count any more");
	park = 1;
	pthread_barrier_wait(&parked);
	for (i = 0; i < nr_threads; i++) {
		added += adders[i].added;
		adders[i].added_before = adders[i].added;
		if (adders[i].finding[0])
			bad("thread %ld: %s", i, adders[i].finding);
		adders[i].finding[0] = '\0';
	}
	for (i = 0; i < CPU_SETSIZE; i++)
		counted += counters[i].value;
	same_long("sum of the counters", added, counted);
	park = 0;
	pthread_barrier_wait(&released);
}

struct factory rseq_factory = {
	.name	= "rseq",
	.about	= "threads count in restartable sequences",
	.params	= {
		{ "threads", "2", "number of threads" },
		{ "pin", "1", "1: all on CPU 0, so that a section that was not aborted shows" },
	},
	.make	= make,
	.check	= check,
};
