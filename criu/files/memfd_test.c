/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/own.h"
#include "files/again_test.h"

#define PAGE 4096

TEST(memfd, paths_of_proc_tell_it)
{
	ASSERT(memfd_is_path("/memfd:name (deleted)"));
	ASSERT(memfd_is_path("/memfd: (deleted)"));
	ASSERT(!memfd_is_path("/memfd"));
	ASSERT(!memfd_is_path("/tmp/memfd:x"));
}

/* Content with holes, a page of zeroes, and a last page that is not whole. */
TEST(memfd, content_position_and_owner_are_as_they_were)
{
	struct again a;
	struct stat st;
	char data[5 * PAGE], got[5 * PAGE + 1];
	int fd = ASSERT_OK(memfd_create("with (deleted) in it", 0));

	memset(data, 0, sizeof(data));
	memset(data + PAGE, 'a', PAGE);
	memset(data + 4 * PAGE, 'b', 10);
	ASSERT_OK(ftruncate(fd, 4 * PAGE + 10));
	ASSERT_OK(pwrite_all(fd, data + PAGE, 2 * PAGE, PAGE)); /* the second is zeroes */
	ASSERT_OK(pwrite_all(fd, data + 4 * PAGE, 10, 4 * PAGE));
	ASSERT_OK(lseek(fd, 77, SEEK_SET));
	ASSERT_OK(fchmod(fd, 0640));
	ASSERT_OK(fchown(fd, 12, 34));
	again_begin(&a);
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_OK(memfds_seal(&a.restore));
	int new = again_fd(&a, fd);
	ASSERT_EQ(lseek(new, 0, SEEK_CUR), 77);
	ASSERT_EQ(pread(new, got, sizeof(got), 0), 4 * PAGE + 10);
	ASSERT(!memcmp(got, data, 4 * PAGE + 10));
	ASSERT_OK(fstat(new, &st));
	ASSERT_EQ(st.st_mode & 07777, 0640);
	ASSERT_EQ(st.st_uid, 12);
	ASSERT_EQ(st.st_gid, 34);
	ASSERT_EQ(st.st_blocks, 2 * PAGE / 512); /* holes are holes */
	ASSERT_STR(a.restore.snapshot.memfds[0]->name, "with (deleted) in it");
	again_end(&a);
}

TEST(memfd, descriptions_of_one_lead_to_one)
{
	struct again a;
	char path[64];
	int fd = ASSERT_OK(memfd_create("", 0));

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int reader = ASSERT_OK(open(path, O_RDONLY));
	ASSERT_EQ(write(fd, "abc", 3), 3);
	again_begin(&a);
	again_add(&a, fd);
	again_add(&a, reader);
	again_cycle(&a);
	ASSERT_EQ(a.restore.snapshot.n_memfds, 1);
	ASSERT_EQ(lseek(again_fd(&a, fd), 0, SEEK_CUR), 3);
	ASSERT_EQ(lseek(again_fd(&a, reader), 0, SEEK_CUR), 0);
	ASSERT_EQ(write(again_fd(&a, fd), "d", 1), 1);
	char got[8] = { 0 };
	ASSERT_EQ(read(again_fd(&a, reader), got, sizeof(got)), 4);
	ASSERT_STR(got, "abcd");
	ASSERT(write(again_fd(&a, reader), "x", 1) < 0);
	again_end(&a);
}

static const int seals[] = {
	0,
	F_SEAL_WRITE,
	F_SEAL_SEAL,
	F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE,
};

/* They come after the content, which they would be in the way of. */
TEST(memfd, seals_are_put_on_last)
{
	int fds[ARRAY_SIZE(seals)];
	struct again a;

	again_begin(&a);
	for (size_t i = 0; i < ARRAY_SIZE(seals); i++) {
		fds[i] = ASSERT_OK(memfd_create("sealed", MFD_ALLOW_SEALING));
		ASSERT_EQ(write(fds[i], "content", 7), 7);
		ASSERT_OK(fcntl(fds[i], F_ADD_SEALS, seals[i]));
		again_add(&a, fds[i]);
	}
	int unsealable = ASSERT_OK(memfd_create("plain", 0)); /* F_SEAL_SEAL from the start */
	again_add(&a, unsealable);
	again_cycle(&a);
	ASSERT_OK(memfds_seal(&a.restore));
	for (size_t i = 0; i < ARRAY_SIZE(seals); i++) {
		char got[8] = { 0 };

		ASSERT_EQ(fcntl(again_fd(&a, fds[i]), F_GET_SEALS), seals[i]);
		ASSERT_EQ(pread(again_fd(&a, fds[i]), got, sizeof(got), 0), 7);
		ASSERT_STR(got, "content");
	}
	ASSERT_EQ(fcntl(again_fd(&a, unsealable), F_GET_SEALS), F_SEAL_SEAL);
	again_end(&a);
}

TEST(memfd, one_that_the_image_lacks_is_refused)
{
	struct again a;

	again_begin(&a);
	again_add(&a, ASSERT_OK(memfd_create("m", 0)));
	again_collect(&a);
	again_save(&a);
	ASSERT_OK(unlinkat(a.world.dir, "memfd.img", 0));
	ASSERT_REFUSED(again_open(&a), "memfd.img has no inode");
	again_end(&a);
}
