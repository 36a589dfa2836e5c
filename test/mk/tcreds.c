/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads of one process with credentials of their own: the raw system calls change only the
 * thread that makes them. Each also has a name, a parent death signal, and pending signals with
 * values, of which those of others may not be seen.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

#define MAX_THREADS	64
#define NR_GROUPS	3
#define CAP(n)		(1ULL << (n))
#define OWN_SIGNAL	44

struct ids {
	uid_t uid[3], fsuid;
	gid_t gid[3], fsgid;
	gid_t groups[NR_GROUPS];
	long nr_groups, securebits, no_new_privs, ambient, bounding;
	uint64_t effective, permitted, inheritable, mask;
	int pdeath_sig;
	char comm[16];
};

static struct own_thread {
	pthread_t thread;
	int index;
	sem_t go, done;
	struct ids expected;
} threads[MAX_THREADS];

static void must(long rc, const char *what)
{
	if (rc < 0)
		die("%s: %s", what, strerror(errno));
}

static void read_ids(struct ids *s)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	memset(s, 0, sizeof(*s));
	syscall(SYS_getresuid, &s->uid[0], &s->uid[1], &s->uid[2]);
	syscall(SYS_getresgid, &s->gid[0], &s->gid[1], &s->gid[2]);
	s->fsuid = syscall(SYS_setfsuid, -1);
	s->fsgid = syscall(SYS_setfsgid, -1);
	s->nr_groups = syscall(SYS_getgroups, NR_GROUPS, s->groups);
	s->securebits = prctl(PR_GET_SECUREBITS);
	s->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	s->ambient = prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0);
	s->bounding = prctl(PR_CAPBSET_READ, CAP_MKNOD);
	syscall(SYS_capget, &head, data);
	s->effective = data[0].effective | (uint64_t)data[1].effective << 32;
	s->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	s->inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &s->mask, sizeof(s->mask));
	prctl(PR_GET_PDEATHSIG, &s->pdeath_sig);
	prctl(PR_GET_NAME, s->comm);
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

/* Thread 0 stays root with all it has; the others have less and less in common with it. */
static void set_ids(int i)
{
	const gid_t groups[NR_GROUPS] = { 10 + i, 2000 + i, 100000 + i };
	const uint64_t kept = CAP(CAP_KILL) | CAP(i % 20);
	uint64_t mask = 1ULL << (OWN_SIGNAL - 1) | 1ULL << (50 + i % 8);
	/* the parent may well be a restorer that ends */
	static const int harmless[] = { SIGURG, SIGWINCH, SIGCHLD, SIGCONT };
	char name[16];

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, sizeof(mask));
	snprintf(name, sizeof(name), "creds %d\n)", i);
	prctl(PR_SET_NAME, name);
	if (i) {
		must(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS), "securebits");
		if (i % 2)
			must(prctl(PR_CAPBSET_DROP, CAP_MKNOD), "bounding set");
		must(syscall(SYS_setgroups, 1 + i % NR_GROUPS, groups), "setgroups");
		must(syscall(SYS_setresgid, 100 + i, 200 + i, 300 + i), "setresgid");
		must(syscall(SYS_setresuid, 1000 + i, 2000 + i, 3000 + i), "setresuid");
		set_caps(kept & ~CAP(CAP_SETPCAP), kept, CAP(CAP_KILL));
		if (i % 3 == 0)
			must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0), "ambient");
		if (i % 4 == 0)
			must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	}
	must(prctl(PR_SET_PDEATHSIG, harmless[i % ARRAY_SIZE(harmless)]), "PR_SET_PDEATHSIG");
}

static void queue_own(int i)
{
	siginfo_t si = { .si_signo = OWN_SIGNAL, .si_code = SI_QUEUE };
	int n;

	for (n = 0; n < 3; n++) {
		si.si_value.sival_int = 1000 * i + n;
		must(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), OWN_SIGNAL, &si), "queue");
	}
}

static void check_queue(int i)
{
	const uint64_t mask = 1ULL << (OWN_SIGNAL - 1);
	const struct timespec now = { 0 };
	siginfo_t si;
	int n;

	for (n = 0; n < 3; n++) {
		if (syscall(SYS_rt_sigtimedwait, &mask, &si, &now, sizeof(mask)) != OWN_SIGNAL)
			bad("thread %d: signal %d is not pending", i, n);
		else
			same_long("value of a pending signal", 1000 * i + n, si.si_value.sival_int);
	}
	if (syscall(SYS_rt_sigtimedwait, &mask, &si, &now, sizeof(mask)) > 0)
		bad("thread %d: one signal more is pending", i);
}

static void check_ids(const struct own_thread *t)
{
	const struct ids *want = &t->expected;
	struct ids now;
	int i;

	read_ids(&now);
#define SAME(field)                                                                                \
	do {                                                                                       \
		if (now.field != want->field)                                                      \
			bad("thread %d: %s is %#lx, was %#lx", t->index, #field, (long)now.field,  \
			    (long)want->field);                                                    \
	} while (0)
	for (i = 0; i < 3; i++) {
		SAME(uid[i]);
		SAME(gid[i]);
	}
	SAME(fsuid);
	SAME(fsgid);
	SAME(nr_groups);
	for (i = 0; i < want->nr_groups; i++)
		SAME(groups[i]);
	SAME(securebits);
	SAME(no_new_privs);
	SAME(ambient);
	SAME(bounding);
	SAME(effective);
	SAME(permitted);
	SAME(inheritable);
	SAME(mask);
	SAME(pdeath_sig);
	same_str("name", want->comm, now.comm);
}

static void *work(void *arg)
{
	struct own_thread *t = arg;

	set_ids(t->index);
	read_ids(&t->expected);
	for (;;) {
		queue_own(t->index);
		sem_post(&t->done);
		while (sem_wait(&t->go) < 0)
			;
		check_ids(t);
		check_queue(t->index);
	}
	return NULL;
}

static void make(void)
{
	int i;

	if (param_long("n") > MAX_THREADS)
		die("n= is too large");
	for (i = 0; i < param_long("n"); i++) {
		struct own_thread *t = &threads[i];

		t->index = i;
		sem_init(&t->go, 0, 0);
		sem_init(&t->done, 0, 0);
		if (pthread_create(&t->thread, NULL, work, t))
			die("pthread_create: %s", strerror(errno));
		while (sem_wait(&t->done) < 0)
			;
	}
}

static void check(void)
{
	int i;

	for (i = 0; i < param_long("n"); i++) {
		sem_post(&threads[i].go);
		while (sem_wait(&threads[i].done) < 0)
			;
	}
}

struct factory tcreds_factory = {
	.name	= "tcreds",
	.about	= "threads with credentials, names, pending signals of their own",
	.params	= {
		{ "n", "20", "how many threads" },
	},
	.make	= make,
	.check	= check,
};
