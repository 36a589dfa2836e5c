/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Signal actions with every flag, ignored and default ones, a blocked mask, an
 * alternate stack, and with pending=1 signals that wait, with their values.
 * Actions are read back with the raw system call: libc would hide the restorer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mk.h"

#define ALT_STACK_SIZE	(64 * 1024)
#define KERNEL_NSIG	64
#define NR_QUEUED	5

struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

enum disposition { DFL, IGN, HANDLER, INFO };

static void on_signal(int sig);
static void on_info(int sig, siginfo_t *info, void *context);

static const struct action {
	int sig;
	enum disposition how;
	int flags;
	uint64_t blocked;	/* in the handler, one bit a signal */
} actions[] = {
	{ SIGHUP,	HANDLER,	SA_RESTART, 0 },
	{ SIGINT,	IGN,		0, 0 },
	{ SIGQUIT,	HANDLER,	SA_NODEFER, 0xff00 },
	{ SIGILL,	INFO,		SA_RESETHAND, 0 },
	{ SIGABRT,	HANDLER,	SA_RESETHAND | SA_NODEFER, 0 },
	{ SIGBUS,	INFO,		SA_ONSTACK, 0x5555 },
	{ SIGFPE,	HANDLER,	0, ~0ULL },
	{ SIGUSR2,	INFO,		SA_ONSTACK | SA_RESTART, 1ULL << (SIGHUP - 1) },
	{ SIGPIPE,	IGN,		SA_RESTART, 0 },
	{ SIGALRM,	HANDLER,	0, 0 },
	{ SIGSTKFLT,	HANDLER,	SA_ONSTACK, 0 },
	{ SIGCHLD,	HANDLER,	SA_NOCLDSTOP | SA_NOCLDWAIT, 0 },
	{ SIGCONT,	HANDLER,	0, 0 },
	{ SIGTSTP,	IGN,		0, 0 },
	{ SIGTTIN,	HANDLER,	SA_RESTART, 0 },
	{ SIGURG,	DFL,		0, 0 },
	{ SIGXCPU,	INFO,		0, 0xf0f0f0f0 },
	{ SIGVTALRM,	DFL,		SA_RESTART, 0x3 },
	{ SIGWINCH,	HANDLER,	SA_RESTART, 0 },
	{ SIGIO,	INFO,		SA_NODEFER | SA_RESTART, 0 },
	{ 34,		HANDLER,	SA_RESTART, 0 },
	{ 35,		INFO,		SA_ONSTACK | SA_NODEFER, 0xffffffff00000000ULL },
	{ 40,		IGN,		0, 0 },
	{ 63,		INFO,		SA_ONSTACK, 0 },
	{ 64,		HANDLER,	SA_RESETHAND, 1ULL << 63 },
};

static const int blocked[] = { SIGWINCH, SIGPROF, SIGVTALRM, 36, 45, 64 };

/* What trap= says about SIGTRAP: a debugger-like tool uses that signal and may leave traces. */
static const struct trap {
	const char *name;
	enum disposition how;
	bool blocked;
} traps[] = {
	{ "default", DFL, false },
	{ "ignored", IGN, false },
	{ "handled", HANDLER, false },
	{ "blocked", HANDLER, true },
	{ "blocked-default", DFL, true },
	{ "blocked-ignored", IGN, true },
};

static struct kernel_sigaction expected[KERNEL_NSIG + 1];
static uint64_t expected_mask;
static stack_t expected_stack;
static volatile int calls, last_sig, last_value, on_alt_stack;

static void note(int sig)
{
	char here;

	on_alt_stack = &here >= (char *)expected_stack.ss_sp &&
		       &here < (char *)expected_stack.ss_sp + expected_stack.ss_size;
	last_sig = sig;
	calls++;
}

static void on_signal(int sig)
{
	note(sig);
}

static void on_info(int sig, siginfo_t *info, void *context)
{
	(void)context;
	last_value = info->si_value.sival_int;
	note(sig);
}

static int read_action(int sig, struct kernel_sigaction *ret_action)
{
	return syscall(SYS_rt_sigaction, sig, NULL, ret_action, sizeof(ret_action->mask));
}

static uint64_t read_mask(void)
{
	uint64_t mask = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, sizeof(mask));
	return mask;
}

static void set_action(const struct action *a)
{
	struct sigaction sa = { .sa_flags = a->flags };

	memcpy(&sa.sa_mask, &a->blocked, sizeof(a->blocked));
	switch (a->how) {
	case DFL:
		sa.sa_handler = SIG_DFL;
		break;
	case IGN:
		sa.sa_handler = SIG_IGN;
		break;
	case HANDLER:
		sa.sa_handler = on_signal;
		break;
	case INFO:
		sa.sa_sigaction = on_info;
		sa.sa_flags |= SA_SIGINFO;
		break;
	}
	if (sigaction(a->sig, &sa, NULL) < 0)
		die("sigaction %d: %s", a->sig, strerror(errno));
}

static void block(int sig)
{
	uint64_t bit = 1ULL << (sig - 1);

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &bit, NULL, sizeof(bit));
}

static void set_trap(void)
{
	const char *name = param_str("trap");
	struct action a = { .sig = SIGTRAP };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(traps); i++)
		if (!strcmp(name, traps[i].name))
			break;
	if (i == ARRAY_SIZE(traps))
		die("trap=%s is not known", name);
	a.how = traps[i].how;
	set_action(&a);
	if (traps[i].blocked)
		block(SIGTRAP);
}

static void set_alt_stack(void)
{
	expected_stack.ss_size = ALT_STACK_SIZE;
	expected_stack.ss_sp = mmap(NULL, ALT_STACK_SIZE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (expected_stack.ss_sp == MAP_FAILED || sigaltstack(&expected_stack, NULL) < 0)
		die("sigaltstack: %s", strerror(errno));
}

/* ---- pending signals: to the process with values in order, and one to the thread ---- */

static void queue_signals(void)
{
	union sigval value;
	int i;

	for (i = 0; i < NR_QUEUED; i++) {
		value.sival_int = 1000 + i;
		if (sigqueue(getpid(), 36, value) < 0)
			die("sigqueue: %s", strerror(errno));
	}
	kill(getpid(), SIGPROF);
	syscall(SYS_tgkill, getpid(), gettid(), 45);
	syscall(SYS_tgkill, getpid(), gettid(), SIGVTALRM);
}

/* Not by sigtimedwait() of libc, which makes SI_USER of SI_TKILL. */
static bool take_signal(int sig, siginfo_t *ret_info)
{
	const struct timespec now = { 0, 0 };
	const uint64_t set = 1ULL << (sig - 1);

	memset(ret_info, 0, sizeof(*ret_info));
	if (syscall(SYS_rt_sigtimedwait, &set, ret_info, &now, sizeof(set)) == sig)
		return true;
	bad("signal %d is not pending any more", sig);
	return false;
}

static void check_queued(void)
{
	siginfo_t info;
	int i;

	for (i = 0; i < NR_QUEUED; i++) {
		if (!take_signal(36, &info))
			return;
		same_long("queued value", 1000 + i, info.si_value.sival_int);
		same_long("queued si_code", SI_QUEUE, info.si_code);
		same_long("queued si_pid", getpid(), info.si_pid);
		same_long("queued si_uid", getuid(), info.si_uid);
	}
	if (take_signal(SIGPROF, &info))
		same_long("SIGPROF si_code", SI_USER, info.si_code);
	if (take_signal(45, &info))
		same_long("signal 45 si_code", SI_TKILL, info.si_code);
	if (take_signal(SIGVTALRM, &info))
		same_long("SIGVTALRM si_code", SI_TKILL, info.si_code);
}

static void check_none_pending(void)
{
	uint64_t pending = 0;

	syscall(SYS_rt_sigpending, &pending, sizeof(pending));
	same_long("pending signals", 0, pending);
}

static void make(void)
{
	size_t i;
	int sig;

	for (i = 0; i < ARRAY_SIZE(actions); i++)
		set_action(&actions[i]);
	set_trap();
	set_alt_stack();
	for (i = 0; i < ARRAY_SIZE(blocked); i++)
		block(blocked[i]);
	for (sig = 1; sig <= KERNEL_NSIG; sig++)
		read_action(sig, &expected[sig]);
	expected_mask = read_mask();
	if (param_long("pending"))
		queue_signals();
}

/* ---- check ---- */

static void check_action(int sig)
{
	struct kernel_sigaction now = { 0 };
	char what[48];

	if (read_action(sig, &now) < 0) {
		bad_errno("rt_sigaction");
		return;
	}
	snprintf(what, sizeof(what), "signal %d handler", sig);
	same_long(what, (long)expected[sig].handler, (long)now.handler);
	snprintf(what, sizeof(what), "signal %d flags", sig);
	same_long(what, expected[sig].flags, now.flags);
	snprintf(what, sizeof(what), "signal %d restorer", sig);
	same_long(what, (long)expected[sig].restorer, (long)now.restorer);
	snprintf(what, sizeof(what), "signal %d mask", sig);
	same_long(what, expected[sig].mask, now.mask);
}

static void check_alt_stack(void)
{
	stack_t now;

	sigaltstack(NULL, &now);
	same_long("alternate stack address", (long)expected_stack.ss_sp, (long)now.ss_sp);
	same_long("alternate stack size", expected_stack.ss_size, now.ss_size);
	same_long("alternate stack flags", expected_stack.ss_flags, now.ss_flags);
}

/* The actions work, too: delivered at once, on the right stack, with the value. */
static void check_delivery(void)
{
	union sigval value = { .sival_int = 0x5eed };
	int before = calls;

	sigqueue(getpid(), 35, value);
	same_long("calls of the handler of 35", before + 1, calls);
	same_long("signal seen", 35, last_sig);
	same_long("value seen", 0x5eed, last_value);
	same_long("35 is handled on the alternate stack", 1, on_alt_stack);
	raise(SIGHUP);
	same_long("calls of the handler of SIGHUP", before + 2, calls);
	same_long("SIGHUP is handled on the alternate stack", 0, on_alt_stack);
	raise(SIGPIPE);
	raise(40);
	same_long("calls for ignored signals", before + 2, calls);
}

static void check(void)
{
	int sig;

	for (sig = 1; sig <= KERNEL_NSIG; sig++)
		check_action(sig);
	same_long("blocked signals", expected_mask, read_mask());
	check_alt_stack();
	check_delivery();
	if (param_long("pending"))
		check_queued();
	check_none_pending();
	if (param_long("pending"))
		queue_signals();
}

struct factory signals_factory = {
	.name	= "signals",
	.about	= "signal actions, masks, alternate stack",
	.params	= {
		{ "trap", "default", "SIGTRAP: default, ignored, handled, blocked, "
				     "blocked-default, blocked-ignored" },
		{ "pending", "0", "1: with signals pending for process and thread" },
	},
	.make	= make,
	.check	= check,
};
