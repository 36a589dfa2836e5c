/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Switches of the process and of its threads: each thread has its own scheduling, I/O priority,
 * NUMA policy, forbidden instructions, and so on, reads them again when it is asked, and uses
 * what it can use. What the machine does not have is left out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/io.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "mk.h"

#define SET_IO_FLUSHER		57
#define GET_IO_FLUSHER		58
#define SET_DISPATCH		59
#define SET_MDWE		65
#define GET_MDWE		66
#define SET_MEMORY_MERGE	67
#define GET_MEMORY_MERGE	68
#define GET_CPUID		0x1011
#define SET_CPUID		0x1012
#define REGISTRATIONS		512
#define WHO_PROCESS		1	/* of ioprio_set */
#define DISPATCH_BLOCK		1
#define TRACER_GET_DISPATCH	0x4211

struct sched_attr_v1 {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

struct modes {
	struct sched_attr_v1 sched;
	int ioprio, numa_mode, tsc, mce_kill, cpuid, io_flusher, spec_store_bypass,
		spec_indirect_branch;
	unsigned long numa_nodes, affinity;
};

struct worker {
	const char *name;
	void (*set)(void);
	void (*use)(void);
	pthread_t thread;
	sem_t go, done;
	struct modes expected;
};

static char selector;
static volatile int caught_call;
static pid_t dispatch_tid;
static long process_modes[6];

static void must(long rc, const char *what)
{
	if (rc < 0)
		die("%s: %s", what, strerror(errno));
}

static void read_modes(struct modes *m)
{
	memset(m, 0, sizeof(*m));
	m->sched.size = sizeof(m->sched);
	must(syscall(SYS_sched_getattr, 0, &m->sched, sizeof(m->sched), 0), "sched_getattr");
	m->ioprio = syscall(SYS_ioprio_get, WHO_PROCESS, 0);
	syscall(SYS_get_mempolicy, &m->numa_mode, &m->numa_nodes, 64, 0, 0);
	syscall(SYS_sched_getaffinity, 0, sizeof(m->affinity), &m->affinity);
	prctl(PR_GET_TSC, &m->tsc);
	m->mce_kill = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
	m->cpuid = syscall(SYS_arch_prctl, GET_CPUID, 0);
	m->io_flusher = prctl(GET_IO_FLUSHER, 0, 0, 0, 0);
	m->spec_store_bypass = prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0);
	m->spec_indirect_branch = prctl(PR_GET_SPECULATION_CTRL, 1, 0, 0, 0);
}

/* ---- what threads set ---- */

static void set_sched(struct sched_attr_v1 attr)
{
	attr.size = sizeof(attr);
	must(syscall(SYS_sched_setattr, 0, &attr, 0), "sched_setattr");
}

static void set_deadline(void)
{
	set_sched((struct sched_attr_v1){ .policy = 6, .runtime = 2000000, .deadline = 50000000,
					  .period = 100000000 });
}

static void set_deadline_flags(void)
{
	set_sched((struct sched_attr_v1){ .policy = 6, .runtime = 1000000, .deadline = 60000000,
					  .period = 60000000, .flags = 2 | 4 });
}

static void set_fifo(void)
{
	set_sched((struct sched_attr_v1){ .policy = SCHED_FIFO, .priority = 3, .flags = 1 });
	must(syscall(SYS_ioprio_set, WHO_PROCESS, 0, 2 << 13 | 1), "ioprio_set");
}

static void set_idle(void)
{
	set_sched((struct sched_attr_v1){ .policy = SCHED_IDLE, .nice = 9 });
}

static void set_batch(void)
{
	set_sched((struct sched_attr_v1){ .policy = SCHED_BATCH, .nice = -5, .flags = 1 });
	must(syscall(SYS_ioprio_set, WHO_PROCESS, 0, 3 << 13), "ioprio_set");
}

/* Clamps of utilization take CONFIG_UCLAMP_TASK. */
static void set_clamp(void)
{
	struct sched_attr_v1 attr = { .size = sizeof(attr), .flags = 0x78, .util_min = 100,
				      .util_max = 700 };

	if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0 && errno != EOPNOTSUPP)
		die("utilization clamp: %s", strerror(errno));
}

static void set_io_realtime(void)
{
	must(syscall(SYS_ioprio_set, WHO_PROCESS, 0, 1 << 13 | 2), "ioprio_set");
}

static void set_numa_bind(void)
{
	unsigned long node = 1;

	if (syscall(SYS_set_mempolicy, MPOL_BIND | MPOL_F_STATIC_NODES, &node, 64) < 0 &&
	    errno != ENOSYS)
		die("set_mempolicy: %s", strerror(errno));
}

static void set_numa_local(void)
{
	if (syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0) < 0 && errno != ENOSYS)
		die("set_mempolicy: %s", strerror(errno));
}

static void set_mce_late(void)
{
	must(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0), "PR_MCE_KILL");
}

static void set_mce_early(void)
{
	must(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0), "PR_MCE_KILL");
}

static void set_no_tsc(void)
{
	must(prctl(PR_SET_TSC, PR_TSC_SIGSEGV), "PR_SET_TSC");
}

static void set_no_cpuid(void)
{
	if (syscall(SYS_arch_prctl, SET_CPUID, 0) < 0 && errno != ENODEV)
		die("ARCH_SET_CPUID: %s", strerror(errno));
}

static void set_speculation(void)
{
	(void)prctl(PR_SET_SPECULATION_CTRL, 0, PR_SPEC_DISABLE, 0, 0);
	(void)prctl(PR_SET_SPECULATION_CTRL, 1, PR_SPEC_FORCE_DISABLE, 0, 0);
}

static void set_io_flusher(void)
{
	if (prctl(SET_IO_FLUSHER, 1, 0, 0, 0) < 0 && errno != EPERM)
		die("PR_SET_IO_FLUSHER: %s", strerror(errno));
}

/* ---- system calls that become signals ---- */

#ifdef __i386__
#define REG_PC		REG_EIP
#define REG_RESULT	REG_EAX
#else
#define REG_PC		REG_RIP
#define REG_RESULT	REG_RAX
#endif

static void on_call(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)sig;
	selector = 0;
	caught_call = info->si_syscall;
	/* now it is made */
	regs[REG_PC] -= 2;
	regs[REG_RESULT] = caught_call;
}

/* Before Linux 6.4 a tracer cannot see it, and no checkpoint can keep it. */
static bool shows_dispatch(void)
{
	uint64_t config[4];
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(1);
	}
	must(waitpid(pid, NULL, __WALL), "waitpid");
	bool shows = ptrace(TRACER_GET_DISPATCH, pid, sizeof(config), config) == 0;
	kill(pid, SIGKILL);
	must(waitpid(pid, NULL, __WALL), "waitpid");
	return shows;
}

static void set_dispatch(void)
{
	struct sigaction act = { .sa_sigaction = on_call, .sa_flags = SA_SIGINFO };

	if (!shows_dispatch())
		return;
	sigaction(SIGSYS, &act, NULL);
	dispatch_tid = gettid();
	if (prctl(SET_DISPATCH, 1, 0, 0, &selector) < 0)
		die("syscall user dispatch: %s", strerror(errno));
}

static void use_dispatch(void)
{
	if (!dispatch_tid)
		return;
	caught_call = 0;
	selector = DISPATCH_BLOCK;
	syscall(SYS_getppid);
	selector = 0;
	same_long("call that became a signal", SYS_getppid, caught_call);
}

static struct worker workers[] = {
	{ .name = "plain" },
	{ .name = "deadline", .set = set_deadline },
	{ .name = "deadline with flags", .set = set_deadline_flags },
	{ .name = "fifo", .set = set_fifo },
	{ .name = "idle", .set = set_idle },
	{ .name = "batch", .set = set_batch },
	{ .name = "clamp", .set = set_clamp },
	{ .name = "realtime I/O", .set = set_io_realtime },
	{ .name = "NUMA bind", .set = set_numa_bind },
	{ .name = "NUMA local", .set = set_numa_local },
	{ .name = "memory errors late", .set = set_mce_late },
	{ .name = "memory errors early", .set = set_mce_early },
	{ .name = "no RDTSC", .set = set_no_tsc },
	{ .name = "speculation", .set = set_speculation },
	{ .name = "I/O flusher", .set = set_io_flusher },
	{ .name = "dispatch", .set = set_dispatch, .use = use_dispatch },
};

static void check_modes(const char *name, const struct modes *expected)
{
	struct modes now;

	read_modes(&now);
#define SAME(field)                                                                                \
	do {                                                                                       \
		if (now.field != expected->field)                                                  \
			bad("%s: %s is %#lx, was %#lx", name, #field, (long)now.field,             \
			    (long)expected->field);                                                \
	} while (0)
	SAME(sched.policy);
	SAME(sched.flags);
	SAME(sched.nice);
	SAME(sched.priority);
	SAME(sched.runtime);
	SAME(sched.deadline);
	SAME(sched.period);
	SAME(sched.util_min);
	SAME(sched.util_max);
	SAME(ioprio);
	SAME(numa_mode);
	SAME(numa_nodes);
	SAME(affinity);
	SAME(tsc);
	SAME(mce_kill);
	SAME(cpuid);
	SAME(io_flusher);
	SAME(spec_store_bypass);
	SAME(spec_indirect_branch);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	if (w->set)
		w->set();
	read_modes(&w->expected);
	for (;;) {
		sem_post(&w->done);
		sem_wait(&w->go);
		check_modes(w->name, &w->expected);
		if (w->use)
			w->use();
	}
	return NULL;
}

static void read_process_modes(long *m)
{
	int subreaper = 0;

	prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
	m[0] = prctl(GET_MDWE, 0, 0, 0, 0);
	m[1] = prctl(GET_MEMORY_MERGE, 0, 0, 0, 0);
	m[2] = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	m[3] = syscall(SYS_membarrier, REGISTRATIONS, 0, 0);
	m[4] = subreaper;
	m[5] = prctl(PR_GET_DUMPABLE);
}

/* Kernels that do not have one of them keep what they say now. */
static void set_process_modes(void)
{
	(void)prctl(SET_MEMORY_MERGE, 1, 0, 0, 0);
	if (prctl(PR_SET_THP_DISABLE, 1, 2, 0, 0) < 0)
		must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "PR_SET_THP_DISABLE");
	must(prctl(PR_SET_CHILD_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER");
	must(prctl(PR_SET_DUMPABLE, param_long("dumpable")), "PR_SET_DUMPABLE");
	must(syscall(SYS_membarrier, 16, 0, 0), "membarrier");
	must(syscall(SYS_membarrier, 4, 0, 0), "membarrier");
	if (param_long("mdwe") && prctl(SET_MDWE, param_long("mdwe"), 0, 0, 0) < 0)
		skip("this kernel has no PR_SET_MDWE");
}

static bool sleeps(void *arg)
{
	char path[48], line[128];

	(void)arg;
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", dispatch_tid);
	read_line(path, line, sizeof(line));
	return !strncmp(line, "202 ", 4); /* futex */
}

static void make(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(workers); i++) {
		struct worker *w = &workers[i];

		sem_init(&w->go, 0, 0);
		sem_init(&w->done, 0, 0);
		if (pthread_create(&w->thread, NULL, work, w))
			die("pthread_create: %s", strerror(errno));
		while (sem_wait(&w->done) < 0)
			;
	}
	if (param_long("cpuid"))
		set_no_cpuid();
	if (param_long("ports") && ioperm(0x80, 1, 1) < 0)
		skip("ioperm: %s", strerror(errno));
	set_process_modes();
	read_process_modes(process_modes);
	if (param_long("block")) {
		if (!dispatch_tid)
			skip("this kernel does not show syscall user dispatch to tracers");
		if (!wait_until(sleeps, NULL))
			die("the thread with syscall user dispatch does not sleep");
		selector = DISPATCH_BLOCK;
	}
}

static void check_mdwe(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0 || errno != EACCES)
		bad("memory can be made executable");
	munmap(p, PAGE);
}

static void check(void)
{
	static const char *const names[] = { "MDWE", "memory merging", "THP disable",
					     "membarrier registrations", "subreaper", "dumpable" };
	long now[ARRAY_SIZE(process_modes)];
	size_t i;

	read_process_modes(now);
	for (i = 0; i < ARRAY_SIZE(now); i++)
		same_long(names[i], process_modes[i], now[i]);
	if (param_long("mdwe"))
		check_mdwe();
	for (i = 0; i < ARRAY_SIZE(workers); i++) {
		sem_post(&workers[i].go);
		while (sem_wait(&workers[i].done) < 0)
			;
	}
}

struct factory modes_factory = {
	.name	= "modes",
	.about	= "switches of process and threads: scheduling, I/O, NUMA, prctl(2)",
	.params	= {
		{ "mdwe", "1", "as of PR_SET_MDWE: memory does not become executable; 0: it may" },
		{ "dumpable", "1", "0: nobody but root may look into it" },
		{ "block", "0", "1: no call of one thread is made, all become signals" },
		{ "ports", "0", "1: an I/O port" },
		{ "cpuid", "0", "1: CPUID faults in the first thread" },
	},
	.make	= make,
	.check	= check,
};
