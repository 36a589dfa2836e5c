/* SPDX-License-Identifier: GPL-2.0-only */
/* What prevents the dump of an IPC namespace, one kind at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "ipcns.h"
#include "mk.h"

#define KEY 0x43420001

static void *attach(void)
{
	int id = need("shmget", shmget(KEY, PAGE, IPC_CREAT | 0600));
	void *p = shmat(id, NULL, 0);

	if (p == (void *)-1)
		die("shmat: %s", strerror(errno));
	return p;
}

/* A child is ready when it has closed a pipe. */
static void be_ready(int ready[2])
{
	close(ready[0]);
	close(ready[1]);
}

static void wait_ready(int ready[2])
{
	char c;

	close(ready[1]);
	if (read(ready[0], &c, 1) != 0)
		die("read: %s", strerror(errno));
	close(ready[0]);
}

static void make_unattached(void)
{
	need("shmget", shmget(KEY, PAGE, IPC_CREAT | 0600));
	set_ipc_limit("kernel/shm_rmid_forced", "1");
}

static void make_posix(void)
{
	mqd_t q = mq_open("/criu-mk", O_RDWR | O_CREAT, 0600, NULL);

	if (q < 0 && errno == ENOSYS)
		skip("no message queues of POSIX");
	need("mq_open", q);
	close(q);
}

/* A name that is gone does not make a deleted file of it. */
static void make_unlinked(void)
{
	mqd_t q = mq_open("/criu-mk", O_RDWR | O_CREAT, 0600, NULL);

	if (q < 0 && errno == ENOSYS)
		skip("no message queues of POSIX");
	need("mq_open", q);
	need("mq_unlink", mq_unlink("/criu-mk"));
}

static void make_long(void)
{
	struct {
		long type;
		char text[100];
	} t = { .type = 1 };

	need("msgsnd", msgsnd(need("msgget", msgget(KEY, IPC_CREAT | 0600)), &t, sizeof(t.text), 0));
	set_ipc_limit("kernel/msgmax", "50");
}

/* Attached by one who is not in the tree, and ends with it. */
static void make_outside(void)
{
	pid_t target = getpid(), pid;
	int ready[2], status;

	attach();
	need("pipe", pipe(ready));
	pid = need("fork", fork());
	if (pid == 0) {
		struct pollfd p = { .fd = syscall(SYS_pidfd_open, target, 0), .events = POLLIN };

		if (fork())
			_exit(0);
		be_ready(ready);
		poll(&p, 1, -1);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	wait_ready(ready);
}

static void make_two(void)
{
	int ready[2];

	need("pipe", pipe(ready));
	if (need("fork", fork()) == 0) {
		need("unshare", unshare(CLONE_NEWIPC));
		be_ready(ready);
		for (;;)
			pause();
	}
	wait_ready(ready);
}

/* The process has left the namespace of what it has attached. */
static void make_left(void)
{
	attach();
	need("unshare", unshare(CLONE_NEWIPC));
}

static const struct {
	const char *name;
	void (*make)(void);
} kinds[] = {
	{ "unattached", make_unattached }, { "posix", make_posix }, { "unlinked", make_unlinked },
	{ "long", make_long },		   { "outside", make_outside },
	{ "two", make_two },		   { "left", make_left },
};

static void make(void)
{
	const char *name = param_str("kind");
	size_t i;

	need_own_ipc();
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name)) {
			kinds[i].make();
			note_ipc();
			return;
		}
	die("no kind %s", name);
}

struct factory ipcbad_factory = {
	.name	= "ipcbad",
	.about	= "what prevents the dump of an IPC namespace",
	.params	= {
		{ "kind", NULL, "unattached, posix, unlinked, long, outside, two, left" },
	},
	.make	= make,
	.check	= check_ipc,
};
