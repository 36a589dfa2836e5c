/* SPDX-License-Identifier: GPL-2.0-only */
#include "ns/ipcvars.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/msg.h>

#include "base/io.h"
#include "base/own.h"
#include "base/test.h"

static struct arena arena;

static void enter_new_namespace(void)
{
	if (unshare(CLONE_NEWIPC) < 0)
		test_skip("no new IPC namespace: %s", strerror(errno));
}

static const char *text_of(const char *path)
{
	static char text[128];

	ASSERT_OK(read_small_at(AT_FDCWD, path, text, sizeof(text)));
	text[strcspn(text, "\n")] = '\0';
	return text;
}

TEST(ipcvars, what_is_set_is_read)
{
	enter_new_namespace();
	IpcVarEntry *e = ipcvars_read(&arena);
	ASSERT(e);
	ASSERT(!e->has_msg_next_id && !e->has_sem_next_id && !e->has_shm_next_id);
	e->sem_ctls[0] = 11;
	e->sem_ctls[3] = 44;
	e->msg_ctlmnb = 12345;
	e->shm_ctlall = 1ull << 40;
	e->shm_rmid_forced = 1;
	e->has_msg_next_id = true;
	e->msg_next_id = 0;
	ASSERT_OK(ipcvars_set(e));
	ASSERT_STR(text_of("/proc/sys/kernel/shm_rmid_forced"), "1");
	ASSERT_STR(text_of("/proc/sys/kernel/shmall"), "1099511627776");
	ASSERT_STR(text_of("/proc/sys/kernel/msg_next_id"), "0");
	const IpcVarEntry *again = ipcvars_read(&arena);
	ASSERT(again);
	ASSERT_EQ(again->sem_ctls[0], 11);
	ASSERT_EQ(again->sem_ctls[1], e->sem_ctls[1]);
	ASSERT_EQ(again->sem_ctls[3], 44);
	ASSERT_EQ(again->msg_ctlmnb, 12345);
	ASSERT_EQ(again->shm_ctlmax, e->shm_ctlmax);
	ASSERT(again->has_msg_next_id && !again->has_shm_next_id);
	arena_done(&arena);
}

TEST(ipcvars, wide_limits_are_taken_back)
{
	enter_new_namespace();
	IpcVarEntry *e = ipcvars_read(&arena);
	ASSERT(e);
	e->msg_ctlmax = 10;
	ASSERT_OK(ipcvars_set(e));
	ASSERT_OK(ipcvars_widen());
	ASSERT_STR(text_of("/proc/sys/kernel/msgmax"), "2147483647");
	ASSERT_OK(ipcvars_set(e));
	ASSERT_STR(text_of("/proc/sys/kernel/msgmax"), "10");
	const IpcVarEntry *again = ipcvars_read(&arena);
	ASSERT(again);
	ASSERT(!memcmp(again->sem_ctls, e->sem_ctls, 4 * sizeof(e->sem_ctls[0])));
	ASSERT_EQ(again->shm_ctlmni, e->shm_ctlmni);
	arena_done(&arena);
}

/* The kernel of the dump had none. */
TEST(ipcvars, limits_of_posix_queues_that_are_not_known_stay)
{
	if (access("/proc/sys/fs/mqueue", F_OK) < 0)
		test_skip("no message queues of POSIX");
	enter_new_namespace();
	IpcVarEntry *e = ipcvars_read(&arena);
	ASSERT(e && e->mq_queues_max);
	e->mq_queues_max = e->mq_msg_max = e->mq_msgsize_max = 0;
	e->has_mq_msg_default = e->has_mq_msgsize_default = false;
	ASSERT_OK(ipcvars_set(e));
	const IpcVarEntry *again = ipcvars_read(&arena);
	ASSERT(again && again->mq_queues_max && again->mq_msg_max);
	arena_done(&arena);
}

TEST(ipcvars, an_impossible_value_is_an_error)
{
	enter_new_namespace();
	IpcVarEntry *e = ipcvars_read(&arena);
	ASSERT(e);
	e->shm_rmid_forced = 7;
	ASSERT_REFUSED(ipcvars_set(e), "write 7 to /proc/sys/kernel/shm_rmid_forced");
	arena_done(&arena);
}

TEST(ipcvars, the_next_object_gets_its_id)
{
	enter_new_namespace();
	ASSERT_OK(ipcvars_set_next_id("msg", 5 << 15 | 7));
	ASSERT_EQ(msgget(IPC_PRIVATE, IPC_CREAT | 0600), 5 << 15 | 7);
	ASSERT(msgget(IPC_PRIVATE, IPC_CREAT | 0600) != (5 << 15 | 7));
}
