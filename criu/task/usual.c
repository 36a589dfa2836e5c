/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What criu itself was given by taskset(1), ionice(1), numactl(8), a unit file or the like would be
 * had by all that it creates: images tell of most of these things only where they are not as usual.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "proc/text.h"
#include "task/constants.h"
#include "task/procfile.h"
#include "task/sched.h"
#include "task/usual.h"

/* prctl(2): what GET answers, if not usual, is set by SET with that argument. */
static const struct {
	const char *what;
	int get;
	int usual;
	int set; /* 0: there is no way back */
	unsigned long arg;
} modes[] = {
	{ "its timer slack", PR_GET_TIMERSLACK, DEFAULT_TIMER_SLACK, PR_SET_TIMERSLACK,
	  DEFAULT_TIMER_SLACK },
	{ "that huge pages are disabled", PR_GET_THP_DISABLE, 0, PR_SET_THP_DISABLE, 0 },
	{ "that its memory may be merged", PR_GET_MEMORY_MERGE, 0, PR_SET_MEMORY_MERGE, 0 },
	{ "what happens by memory errors", PR_MCE_KILL_GET, PR_MCE_KILL_DEFAULT, PR_MCE_KILL,
	  PR_MCE_KILL_CLEAR },
	{ "that it is an I/O flusher", ABI_PR_GET_IO_FLUSHER, 0, ABI_PR_SET_IO_FLUSHER, 0 },
	{ "no_new_privs", PR_GET_NO_NEW_PRIVS, 0, 0, 0 },
	{ "that no memory becomes executable (MDWE)", ABI_PR_GET_MDWE, 0, 0, 0 },
};

static void warn_of(const char *what)
{
	warn("criu itself has %s, which it cannot get rid of (%s); so have the restored tasks",
	     what, strerror(errno));
}

static void reset_modes(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		int now = prctl(modes[i].get, 0, 0, 0, 0);

		if (now < 0 || now == modes[i].usual) /* or the kernel has no such mode */
			continue;
		errno = EPERM;
		if (!modes[i].set || prctl(modes[i].set, modes[i].arg, 0, 0, 0) < 0)
			warn_of(modes[i].what);
	}
}

/* Of store bypass and indirect branches: others are off as usual. */
static void reset_speculation(void)
{
	for (int which = 0; which < 2; which++) {
		int now = prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0);

		if (now < 0 || !(now & PR_SPEC_PRCTL) || now & PR_SPEC_ENABLE)
			continue;
		if (prctl(PR_SET_SPECULATION_CTRL, which, PR_SPEC_ENABLE, 0, 0) < 0)
			warn_of("that speculation is forbidden");
	}
}

static void reset_policy(void)
{
	int mode = MPOL_DEFAULT;

	if (syscall(SYS_get_mempolicy, &mode, NULL, 0, 0, 0) == 0 && mode != MPOL_DEFAULT &&
	    syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0) < 0)
		warn_of("a NUMA policy");
}

static void reset_coredump_filter(void)
{
	uint64_t now;
	char text[32];

	if (read_small_at(AT_FDCWD, "/proc/self/coredump_filter", text, sizeof(text)) > 0 &&
	    text_hex(text, &now) && now != DEFAULT_COREDUMP_FILTER)
		procfile_write(getpid(), "coredump_filter", DEFAULT_COREDUMP_FILTER);
}

void usual_make(void)
{
	reset_modes();
	reset_speculation();
	reset_policy();
	reset_coredump_filter();
	if (sched_reset() < 0)
		warn_of("an I/O priority or CPU affinity");
}
