/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System V semaphores: values, owners and ids of sets, and threads that sleep
 * in semop, semtimedop, msgrcv and msgsnd: each goes on sleeping until check()
 * gives it what it waits for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "ipcns.h"
#include "mk.h"

#define BIG	 60
#define KEY	 0x43530001
#define HIGH_ID	 (1234 << 15 | 9)
#define SLEEPERS 4
#define LONG_SEC 100000

static int big, sleep_on, queue, full;
static volatile int woken[SLEEPERS], tids[SLEEPERS], failed;

static int make_set(key_t key, int n, int flags)
{
	return need("semget", semget(key, n, IPC_CREAT | IPC_EXCL | flags));
}

static unsigned short value_of(int i)
{
	return i * 541 % 32768;
}

struct text {
	long type;
	char text[16];
};

/* ---- those who sleep ---- */

/* Which call the C library makes depends on its version; an i386 has one for all of System V, too. */
#ifdef SYS_semop
#define NR_SEMOP      SYS_semop
#define NR_SEMTIMEDOP SYS_semtimedop
#define SEMOP(id, ops, n) syscall(SYS_semop, id, ops, n)
#else
#define NR_SEMOP      SYS_ipc
#define NR_SEMTIMEDOP SYS_semtimedop_time64
#define SEMOP(id, ops, n) syscall(SYS_ipc, 1, id, n, 0, ops)
#endif

static void sleep_in_semop(void)
{
	struct sembuf take[2] = { { 0, -1, 0 }, { 1, -2, 0 } };

	if (SEMOP(sleep_on, take, 2) < 0)
		failed = errno;
}

static void sleep_in_semtimedop(void)
{
	struct sembuf take = { 2, -1, 0 };
	int64_t limit[2] = { LONG_SEC };

	if (syscall(NR_SEMTIMEDOP, sleep_on, &take, 1, limit) < 0)
		failed = errno;
}

static void sleep_in_msgrcv(void)
{
	struct text t;

	if (syscall(SYS_msgrcv, queue, &t, sizeof(t.text), 33, 0) < 0)
		failed = errno;
}

static void sleep_in_msgsnd(void)
{
	struct text t = { .type = 5 };

	if (syscall(SYS_msgsnd, full, &t, sizeof(t.text), 0) < 0)
		failed = errno;
}

static const struct {
	void (*sleep)(void);
	long nr;
} sleepers[SLEEPERS] = {
	{ sleep_in_semop, NR_SEMOP },
	{ sleep_in_semtimedop, NR_SEMTIMEDOP },
	{ sleep_in_msgrcv, SYS_msgrcv },
	{ sleep_in_msgsnd, SYS_msgsnd },
};

static void *sleeper_main(void *arg)
{
	int i = (long)arg;

	tids[i] = syscall(SYS_gettid);
	for (;;) {
		sleepers[i].sleep();
		woken[i]++;
	}
	return NULL;
}

static void wake_all(void)
{
	struct sembuf give[3] = { { 0, 1, 0 }, { 1, 2, 0 }, { 2, 1, 0 } };
	struct text t = { .type = 33 }, taken;

	if (semop(sleep_on, give, 3) < 0)
		bad_errno("semop");
	if (msgsnd(queue, &t, sizeof(t.text), IPC_NOWAIT) < 0)
		bad_errno("msgsnd");
	if (msgrcv(full, &taken, sizeof(taken.text), 0, IPC_NOWAIT) < 0)
		bad_errno("msgrcv");
}

static bool sleeps(void *arg)
{
	long i = (long)arg;

	return tids[i] && sleeps_in(tids[i], sleepers[i].nr);
}

struct wait {
	int i, rounds;
};

static bool has_woken(void *arg)
{
	const struct wait *w = arg;

	return failed || woken[w->i] > w->rounds;
}

static void start_sleepers(void)
{
	pthread_attr_t attr;
	long i;

	sleep_on = make_set(IPC_PRIVATE, 4, 0600);
	queue = need("msgget", msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	full = need("msgget", msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	need("IPC_SET", msgctl(full, IPC_SET, &(struct msqid_ds){ .msg_qbytes = sizeof(((struct text *)0)->text),
								   .msg_perm = { .mode = 0600 } }));
	need("msgsnd", msgsnd(full, &(struct text){ .type = 4 }, sizeof(((struct text *)0)->text), 0));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 16 * PAGE);
	for (i = 0; i < SLEEPERS; i++) {
		pthread_t thread;

		if (pthread_create(&thread, &attr, sleeper_main, (void *)i))
			die("pthread_create");
	}
	for (i = 0; i < SLEEPERS; i++)
		if (!wait_until(sleeps, (void *)i))
			die("sleeper %ld does not sleep", i);
}

static void check_sleepers(void)
{
	struct wait w;
	long i;
	int rounds[SLEEPERS];

	for (i = 0; i < SLEEPERS; i++) {
		rounds[i] = woken[i];
		if (!sleeps((void *)i))
			bad("sleeper %ld does not sleep any more", i);
	}
	if (failed)
		bad("a sleeper's call: %s", strerror(failed));
	wake_all();
	for (i = 0; i < SLEEPERS; i++) {
		w = (struct wait){ .i = i, .rounds = rounds[i] };
		if (!wait_until(has_woken, &w) || !wait_until(sleeps, (void *)i))
			bad("sleeper %ld cannot be woken", i);
	}
}

/* ---- all ---- */

static void make(void)
{
	unsigned short values[BIG];
	int i;

	need_own_ipc();
	big = make_set(KEY, BIG, 0640);
	for (i = 0; i < BIG; i++)
		values[i] = value_of(i);
	need("SETALL", semctl(big, 0, SETALL, (union semun){ .array = values }));
	need("IPC_RMID", semctl(make_set(IPC_PRIVATE, 1, 0600), 0, IPC_RMID));
	be_user(1000);
	i = make_set(KEY + 1, 1, 0666);
	be_user(0);
	need("SETVAL", semctl(i, 0, SETVAL, (union semun){ .val = 32767 }));
	choose_next_id("sem", HIGH_ID);
	make_set(KEY + 2, 3, 0);
	if (param_long("sleepers"))
		start_sleepers();
	if (param_long("limits"))
		change_ipc_limits();
	note_ipc();
}

static void check(void)
{
	unsigned short values[BIG];
	int i;

	check_ipc();
	if (semctl(big, 0, GETALL, (union semun){ .array = values }) < 0)
		bad_errno("GETALL");
	for (i = 0; i < BIG; i++)
		same_long("the value of a semaphore", value_of(i), values[i]);
	if (param_long("sleepers"))
		check_sleepers();
}

struct factory ipcsem_factory = {
	.name	= "ipcsem",
	.about	= "System V semaphores in an IPC namespace of its own",
	.params	= {
		{ "sleepers", "0", "1: threads that wait for semaphores and messages" },
		{ "limits", "0", "1: limits of the namespace are lower than what is there" },
	},
	.make	= make,
	.check	= check,
};
