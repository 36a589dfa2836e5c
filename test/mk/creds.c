/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Credentials, limits and the small settings of a task. Everything is read
 * into one struct; a check reads it again and names the fields that differ.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

#define NR_CAPS		41
#define MAX_GROUPS	40
#define WHO_PROCESS	1	/* IOPRIO_WHO_PROCESS */
#define IOPRIO_BE_6	(2 << 13 | 6)
#define CAP(n)		(1ULL << (n))

struct settings {
	uid_t uid, euid, suid, fsuid;
	gid_t gid, egid, sgid, fsgid;
	int nr_groups;
	gid_t groups[MAX_GROUPS];
	uint64_t cap_effective, cap_permitted, cap_inheritable, cap_bounding, cap_ambient;
	int securebits, no_new_privs, keepcaps, dumpable;
	int nice, scheduler, sched_priority, ioprio;
	unsigned long affinity;
	mode_t umask;
	long personality;
	long timer_slack;
	int thp_disabled, child_subreaper, mce_policy, oom_score_adj, core_filter;
	char comm[16];
	struct rlimit limits[RLIM_NLIMITS];
};

/* Plain numbers; sizes tell how to print them. */
#define FIELD(f)	{ #f, offsetof(struct settings, f), sizeof(((struct settings *)0)->f) }

static const struct {
	const char *name;
	size_t offset, size;
} fields[] = {
	FIELD(uid), FIELD(euid), FIELD(suid), FIELD(fsuid),
	FIELD(gid), FIELD(egid), FIELD(sgid), FIELD(fsgid), FIELD(nr_groups),
	FIELD(cap_effective), FIELD(cap_permitted), FIELD(cap_inheritable), FIELD(cap_bounding),
	FIELD(cap_ambient), FIELD(securebits), FIELD(no_new_privs), FIELD(keepcaps),
	FIELD(dumpable),
	FIELD(nice), FIELD(scheduler), FIELD(sched_priority), FIELD(ioprio), FIELD(affinity),
	FIELD(umask), FIELD(personality), FIELD(timer_slack), FIELD(thp_disabled),
	FIELD(child_subreaper), FIELD(mce_policy), FIELD(oom_score_adj), FIELD(core_filter),
};

static struct settings expected;

/* ---- reading ---- */

static long number_in(const char *path, int base)
{
	char text[64];

	read_line(path, text, sizeof(text));
	return strtol(text, NULL, base);
}

static void read_caps(struct settings *s)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };
	int cap;

	syscall(SYS_capget, &head, data);
	s->cap_effective = data[0].effective | (uint64_t)data[1].effective << 32;
	s->cap_permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	s->cap_inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	for (cap = 0; cap < NR_CAPS; cap++) {
		if (prctl(PR_CAPBSET_READ, cap) == 1)
			s->cap_bounding |= CAP(cap);
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
			s->cap_ambient |= CAP(cap);
	}
}

static void read_ids(struct settings *s)
{
	getresuid(&s->uid, &s->euid, &s->suid);
	getresgid(&s->gid, &s->egid, &s->sgid);
	/* an impossible id changes nothing and tells the present one */
	s->fsuid = setfsuid(-1);
	s->fsgid = setfsgid(-1);
	s->nr_groups = getgroups(MAX_GROUPS, s->groups);
}

static void read_scheduling(struct settings *s)
{
	struct sched_param param = { 0 };

	s->nice = getpriority(PRIO_PROCESS, 0);
	s->scheduler = sched_getscheduler(0);
	sched_getparam(0, &param);
	s->sched_priority = param.sched_priority;
	s->ioprio = syscall(SYS_ioprio_get, WHO_PROCESS, 0);
	syscall(SYS_sched_getaffinity, 0, sizeof(s->affinity), &s->affinity);
	s->timer_slack = prctl(PR_GET_TIMERSLACK);
}

static void read_settings(struct settings *s)
{
	int i;

	memset(s, 0, sizeof(*s));
	read_ids(s);
	read_caps(s);
	read_scheduling(s);
	s->securebits = prctl(PR_GET_SECUREBITS);
	s->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	s->keepcaps = prctl(PR_GET_KEEPCAPS);
	s->dumpable = prctl(PR_GET_DUMPABLE);
	s->thp_disabled = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	prctl(PR_GET_CHILD_SUBREAPER, &s->child_subreaper);
	s->mce_policy = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
	s->umask = umask(0);
	umask(s->umask);
	s->personality = personality(0xffffffff);
	s->oom_score_adj = number_in("/proc/self/oom_score_adj", 10);
	/* zero where the ids changed: that file then belongs to root */
	s->core_filter = number_in("/proc/self/coredump_filter", 16);
	prctl(PR_GET_NAME, s->comm);
	for (i = 0; i < RLIM_NLIMITS; i++)
		getrlimit(i, &s->limits[i]);
}

/* ---- making ---- */

static void must(int rc, const char *what)
{
	if (rc < 0)
		die("%s: %s", what, strerror(errno));
}

/* Soft limits differ from the hard ones, and all are lower than what one starts with. */
static void set_limits(void)
{
	static const struct {
		int resource;
		rlim_t soft, hard;
	} limits[] = {
		{ RLIMIT_NOFILE, 123, 456 },
		{ RLIMIT_CORE, 0, 1 << 20 },
		{ RLIMIT_STACK, 4 << 20, 6 << 20 },
		{ RLIMIT_FSIZE, 64 << 20, 100 << 20 },
		{ RLIMIT_SIGPENDING, 50, 60 },
		{ RLIMIT_MSGQUEUE, 1000, 2000 },
		{ RLIMIT_CPU, 3600, 7200 },
		{ RLIMIT_LOCKS, 10, 20 },
		{ RLIMIT_RTTIME, 5000000, 6000000 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		struct rlimit now, l = { limits[i].soft, limits[i].hard };

		getrlimit(limits[i].resource, &now);
		/* raising one would need a capability we may not have */
		if (l.rlim_max > now.rlim_max)
			l.rlim_max = now.rlim_max;
		if (l.rlim_cur > l.rlim_max)
			l.rlim_cur = l.rlim_max;
		must(setrlimit(limits[i].resource, &l), "setrlimit");
	}
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	if (!f || fputs(text, f) < 0 || fclose(f))
		die("%s: %s", path, strerror(errno));
}

/* Settings that image formats have no place for. */
static void set_extras(void)
{
	unsigned long cpu0 = 1;

	write_text("/proc/self/coredump_filter", "0x25");
	must(syscall(SYS_ioprio_set, WHO_PROCESS, 0, IOPRIO_BE_6), "ioprio_set");
	must(syscall(SYS_sched_setaffinity, 0, sizeof(cpu0), &cpu0), "sched_setaffinity");
	must(prctl(PR_SET_TIMERSLACK, 123456), "timer slack");
}

static void set_small_things(void)
{
	struct sched_param none = { 0 };

	write_text("/proc/self/oom_score_adj", "321");
	must(sched_setscheduler(0, SCHED_BATCH, &none), "sched_setscheduler");
	must(setpriority(PRIO_PROCESS, 0, 7), "setpriority");
	must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "thp disable");
	must(prctl(PR_SET_CHILD_SUBREAPER, 1), "child subreaper");
	must(prctl(PR_SET_NAME, "odd) name\t\\1"), "name");
	must(personality(ADDR_NO_RANDOMIZE | UNAME26), "personality");
	umask(0137);
}

static void set_groups(gid_t gid)
{
	const gid_t groups[] = { 5, 27, gid, 100000, 4000000000U };

	must(setgroups(ARRAY_SIZE(groups), groups), "setgroups");
	must(setresgid(gid, gid + 1, gid + 2), "setresgid");
}

static void set_caps(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ effective, permitted, inheritable },
		{ effective >> 32, permitted >> 32, inheritable >> 32 },
	};

	must(syscall(SYS_capset, &head, data), "capset");
}

static void drop_bounding(void)
{
	const int dropped[] = { CAP_SYS_MODULE, CAP_MKNOD, CAP_AUDIT_WRITE, CAP_SYS_BOOT };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(dropped); i++)
		must(prctl(PR_CAPBSET_DROP, dropped[i]), "drop from bounding set");
}

static void set_ids(uid_t uid)
{
	must(prctl(PR_SET_KEEPCAPS, 1), "keepcaps");
	must(setresuid(uid, uid + 1, uid + 2), "setresuid");
	/* the switch clears the effective set, and with it what setfsuid needs */
	set_caps(CAP(CAP_SETUID) | CAP(CAP_SETGID), expected.cap_permitted, 0);
	setfsuid(uid + 2);
	setfsgid(param_long("gid") + 2);
}

static void set_cap_sets(void)
{
	const uint64_t inheritable = CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_NET_RAW);
	const uint64_t permitted = inheritable | CAP(CAP_KILL) | CAP(CAP_CHOWN) |
				   CAP(CAP_WAKE_ALARM) | CAP(CAP_SETPCAP);
	const int securebits = SECBIT_KEEP_CAPS | SECBIT_NOROOT | SECBIT_NO_SETUID_FIXUP_LOCKED;

	set_caps(permitted, permitted, inheritable);
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0), "raise ambient");
	must(prctl(PR_SET_SECUREBITS, securebits), "securebits");
	set_caps(CAP(CAP_KILL) | CAP(CAP_WAKE_ALARM), permitted & ~CAP(CAP_SETPCAP), inheritable);
}

static void make(void)
{
	long uid = param_long("uid");

	read_caps(&expected);
	set_small_things();
	if (param_long("extras"))
		set_extras();
	if (uid) {
		drop_bounding();
		set_groups(param_long("gid"));
		set_ids(uid);
		set_cap_sets();
	}
	if (param_long("nnp"))
		must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	set_limits();
	read_settings(&expected);
}

/* ---- checking ---- */

static long field_value(const struct settings *s, size_t i)
{
	long value = 0;

	memcpy(&value, (const char *)s + fields[i].offset, fields[i].size);
	return value;
}

static void check(void)
{
	struct settings now;
	char what[32];
	size_t i;
	int n;

	read_settings(&now);
	for (i = 0; i < ARRAY_SIZE(fields); i++)
		same_long(fields[i].name, field_value(&expected, i), field_value(&now, i));
	for (n = 0; n < expected.nr_groups && n < now.nr_groups; n++)
		same_long("supplementary group", expected.groups[n], now.groups[n]);
	same_str("comm", expected.comm, now.comm);
	for (n = 0; n < RLIM_NLIMITS; n++) {
		snprintf(what, sizeof(what), "soft limit %d", n);
		same_long(what, expected.limits[n].rlim_cur, now.limits[n].rlim_cur);
		snprintf(what, sizeof(what), "hard limit %d", n);
		same_long(what, expected.limits[n].rlim_max, now.limits[n].rlim_max);
	}
}

struct factory creds_factory = {
	.name	= "creds",
	.about	= "ids, groups, capabilities, limits, scheduling, personality, name",
	.params	= {
		{ "uid", "1000", "real user id, the next two are effective and saved; 0: root" },
		{ "gid", "2000", "real group id, the next two are effective and saved" },
		{ "nnp", "1", "1: set no_new_privs" },
		{ "extras", "0", "1: also CPU affinity, ioprio, timer slack, core dump filter" },
	},
	.make	= make,
	.check	= check,
};
