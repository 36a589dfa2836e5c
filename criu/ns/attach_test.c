/* SPDX-License-Identifier: GPL-2.0-only */
#include "ns/attach.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/shm.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/own.h"
#include "base/test.h"

#define BYTES 5000

static int new_segment(void)
{
	if (unshare(CLONE_NEWIPC) < 0)
		test_skip("no new IPC namespace: %s", strerror(errno));
	return ASSERT_OK(shmget(IPC_PRIVATE, BYTES, IPC_CREAT | 0600));
}

static long attachments(int id)
{
	struct shmid_ds ds;

	ASSERT_OK(shmctl(id, IPC_STAT, &ds));
	return ds.shm_nattch;
}

TEST(attach, the_file_stays_open_and_is_no_attachment)
{
	int id = new_segment();
	void *addr;
	struct stat st;
	char byte = 'x';
	autoclose int fd = ASSERT_OK(attach_open(id, O_RDWR, &addr));

	ASSERT_OK(fstat(fd, &st));
	ASSERT_EQ(st.st_size, BYTES);
	ASSERT_EQ(attachments(id), 1);
	ASSERT_OK(pwrite_all(fd, &byte, 1, 4096));
	ASSERT_EQ(((char *)addr)[4096], 'x');
	ASSERT_OK(shmdt(addr));
	ASSERT_EQ(attachments(id), 0);
	ASSERT_OK(pread_all(fd, &byte, 1, 4096));
	ASSERT_EQ(byte, 'x');
}

TEST(attach, what_is_only_read_needs_no_right_to_write)
{
	int id = new_segment();
	void *addr;
	char byte = 'x';
	autoclose int fd = ASSERT_OK(attach_open(id, O_RDONLY, &addr));

	ASSERT_EQ(pwrite_all(fd, &byte, 1, 0), -EBADF);
	ASSERT_OK(shmdt(addr));
}

TEST(attach, a_segment_that_is_gone_is_an_error)
{
	int id = new_segment();
	void *addr;

	ASSERT_OK(shmctl(id, IPC_RMID, NULL));
	ASSERT_REFUSED(attach_open(id, O_RDONLY, &addr), "attach it");
}
