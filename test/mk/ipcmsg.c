/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System V message queues: messages of many types and sizes in their order,
 * queues that are fuller than they may be by now, owners and ids. check() takes
 * all messages out and puts them in again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <unistd.h>

#include "fd.h"
#include "ipcns.h"
#include "mk.h"

#define KEY	0x434d0001
#define HIGH_ID (99 << 15 | 2)
#define MANY	200

struct text {
	long type;
	unsigned char text[8192];
};

/* Sizes around those at which the kernel begins another piece, and none at all. */
static const size_t sizes[] = { 0, 1, 7, 8, 9, 4047, 4048, 4049, 8000 };
static const long types[] = { 1, 2, 0x7fffffffL, (long)(~0UL >> 1), 3 };

static int queue, lowered, many;

static void send(int id, long type, size_t size, uint64_t seed)
{
	static struct text t;

	t.type = type;
	fill(t.text, size, seed);
	if (msgsnd(id, &t, size, IPC_NOWAIT) < 0)
		die("msgsnd: %s", strerror(errno));
}

static void receive(int id, long type, size_t size, uint64_t seed)
{
	static struct text t;
	ssize_t got = msgrcv(id, &t, sizeof(t.text), 0, IPC_NOWAIT);

	if (got < 0) {
		bad_errno("msgrcv");
		return;
	}
	same_long("the size of a message", size, got);
	same_long("the type of a message", type, t.type);
	if (verify(t.text, size, seed) >= 0)
		bad("a message of %zu bytes differs", size);
}

typedef void deal_fn(int id, long type, size_t size, uint64_t seed);

static void deal_with_all(deal_fn *deal)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		deal(queue, types[i % ARRAY_SIZE(types)], sizes[i], i);
	for (i = 0; i < MANY; i++)
		deal(many, i % 7 + 1, i % 5, i);
}

static int make_queue(key_t key, int flags)
{
	return need("msgget", msgget(key, IPC_CREAT | IPC_EXCL | flags));
}

static void set_limit(int id, unsigned long bytes)
{
	struct msqid_ds ds;

	need("IPC_STAT", msgctl(id, IPC_STAT, &ds));
	ds.msg_qbytes = bytes;
	need("IPC_SET", msgctl(id, IPC_SET, &ds));
}

static void make(void)
{
	int id;

	need_own_ipc();
	choose_next_id("msg", HIGH_ID);
	queue = make_queue(KEY, 0600);
	choose_next_id("msg", 0);
	many = make_queue(IPC_PRIVATE, 0600);
	be_user(1000);
	id = make_queue(KEY + 1, 0666);
	be_user(0);
	need("IPC_RMID", msgctl(id, IPC_RMID, NULL));
	be_user(1000);
	id = make_queue(KEY + 1, 0640);
	be_user(0);
	set_limit(id, 100);
	lowered = make_queue(KEY + 2, 0600);
	send(lowered, 9, 5000, 99);
	set_limit(lowered, 1000);
	set_ipc_limit("kernel/msgmnb", "65536");
	set_limit(queue, 65536);
	deal_with_all(send);
	if (param_long("limits"))
		change_ipc_limits();
	note_ipc();
}

static void check(void)
{
	struct msqid_ds ds;

	check_ipc();
	deal_with_all(receive);
	if (msgctl(queue, IPC_STAT, &ds) < 0)
		bad_errno("IPC_STAT");
	same_long("messages that are left", 0, ds.msg_qnum);
	same_long("the limit of a queue", 65536, ds.msg_qbytes);
	if (msgctl(lowered, IPC_STAT, &ds) < 0)
		bad_errno("IPC_STAT");
	same_long("a limit that was lowered", 1000, ds.msg_qbytes);
	same_long("bytes in a queue", 5000, ds.__msg_cbytes);
	deal_with_all(send);
}

struct factory ipcmsg_factory = {
	.name	= "ipcmsg",
	.about	= "System V message queues in an IPC namespace of its own",
	.params	= {
		{ "limits", "0", "1: limits of the namespace are lower than what is there" },
	},
	.make	= make,
	.check	= check,
};
