/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/remap.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/io.h"
#include "base/own.h"
#include "files/again_test.h"

#define MIB (1 << 20)

/* What is in the test's directory, besides images. */
static size_t count_names(const char *part)
{
	autoclosedir DIR *dir = opendir(test_path());
	size_t n = 0;

	for (struct dirent *e; (e = readdir(dir));)
		n += strstr(e->d_name, part) != NULL;
	return n;
}

static void expect_content(int fd, uint64_t at, char c, size_t n)
{
	autofree char *data = xmalloc(n);

	ASSERT_EQ(pread(fd, data, n, at), n);
	for (size_t i = 0; i < n; i++)
		ASSERT_EQ(data[i], c);
}

static void fill(int fd, uint64_t at, char c, size_t n)
{
	autofree char *data = xmalloc(n);

	memset(data, c, n);
	ASSERT_OK(pwrite_all(fd, data, n, at));
}

/* ---- ghosts ---- */

static const struct {
	uint64_t size;
	struct {
		uint64_t at, n;
	} data[2];
} ghosts[] = {
	{ 0, { { 0, 0 } } },
	{ 5, { { 0, 5 } } },
	{ 12287, { { 0, 12287 } } }, /* the last that is in one piece */
	{ 12288, { { 0, 12288 } } },
	{ 70000, { { 0, 0 } } }, /* a hole */
	{ 5000, { { 0, 0 } } },
	{ 3 * MIB, { { MIB - 4096, 8192 }, { 2 * MIB, 4096 } } },
	{ 2 * MIB + 5000, { { 0, 4096 }, { 4096, 2 * MIB + 5000 - 4096 } } }, /* several chunks */
};

TEST(remap, ghosts_have_their_content_and_holes)
{
	int fds[ARRAY_SIZE(ghosts)];
	struct again a;
	struct stat st;

	again_begin(&a);
	a.opts.ghost_limit = 16 * MIB;
	for (size_t i = 0; i < ARRAY_SIZE(ghosts); i++) {
		const char *path = again_path(&a, "ghost");

		fds[i] = ASSERT_OK(open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
		ASSERT_OK(ftruncate(fds[i], ghosts[i].size));
		for (size_t k = 0; k < 2 && ghosts[i].data[k].n; k++)
			fill(fds[i], ghosts[i].data[k].at, 'a' + i, ghosts[i].data[k].n);
		ASSERT_OK(unlink(path));
		again_add(&a, fds[i]);
	}
	again_cycle(&a);
	for (size_t i = 0; i < ARRAY_SIZE(ghosts); i++) {
		int fd = again_fd(&a, fds[i]);
		uint64_t bytes = 0;

		ASSERT_OK(fstat(fd, &st));
		ASSERT_EQ(st.st_size, ghosts[i].size);
		ASSERT_EQ(st.st_nlink, 0);
		for (size_t k = 0; k < 2 && ghosts[i].data[k].n; k++) {
			expect_content(fd, ghosts[i].data[k].at, 'a' + i, ghosts[i].data[k].n);
			bytes += ghosts[i].data[k].n;
		}
		/* Not more than that is written: the rest of a large one is a hole. */
		if (ghosts[i].size >= 12288)
			ASSERT(st.st_blocks * 512ull <= bytes + 2 * 4096);
		ASSERT_STR(again_link(&a, fds[i]), again_path(&a, "ghost (deleted)"));
	}
	ASSERT_EQ(count_names("ghost."), 0);
	ASSERT_EQ(count_names(".cr."), 0);
	again_end(&a);
}

/* The value of each is the beginning of its name. */
static const char *const xattrs[] = { "user.a", "user.another", "user.one.more" };

TEST(remap, a_ghost_is_what_it_was)
{
	const struct timespec times[2] = { { 1000000001, 123456789 }, { 1000000002, 987654321 } };
	struct again a;
	struct stat st;
	bool has_xattrs = true;

	again_begin(&a);
	const char *path = again_path(&a, "ghost");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));
	fill(fd, 0, 'x', 10);
	ASSERT_OK(fchown(fd, 12, 34));
	ASSERT_OK(fchmod(fd, 06751));
	for (size_t i = 0; i < ARRAY_SIZE(xattrs) && has_xattrs; i++)
		has_xattrs = setxattr(path, xattrs[i], xattrs[i], i * 3, 0) == 0;
	ASSERT_OK(futimens(fd, times));
	ASSERT_OK(unlink(path));
	ASSERT_OK(lseek(fd, 7, SEEK_SET));
	again_add(&a, fd);
	again_cycle(&a);
	int new = again_fd(&a, fd);
	ASSERT_OK(fstat(new, &st));
	ASSERT_EQ(st.st_mode, S_IFREG | 06751);
	ASSERT_EQ(st.st_uid, 12);
	ASSERT_EQ(st.st_gid, 34);
	ASSERT_EQ(st.st_atim.tv_sec, times[0].tv_sec);
	ASSERT_EQ(st.st_atim.tv_nsec, times[0].tv_nsec);
	ASSERT_EQ(st.st_mtim.tv_sec, times[1].tv_sec);
	ASSERT_EQ(st.st_mtim.tv_nsec, times[1].tv_nsec);
	ASSERT_EQ(lseek(new, 0, SEEK_CUR), 7);
	for (size_t i = 0; i < ARRAY_SIZE(xattrs) && has_xattrs; i++) {
		char value[16];

		ASSERT_EQ(fgetxattr(new, xattrs[i], value, sizeof(value)), i * 3);
		ASSERT(!memcmp(value, xattrs[i], i * 3));
	}
	again_end(&a);
}

TEST(remap, descriptions_of_one_ghost_lead_to_one_file)
{
	struct again a;
	struct stat x, y;

	again_begin(&a);
	const char *path = again_path(&a, "ghost");
	int writer = ASSERT_OK(open(path, O_WRONLY | O_CREAT | O_APPEND, 0600));
	int reader = ASSERT_OK(open(path, O_RDONLY | O_NONBLOCK));
	int holder = ASSERT_OK(open(path, O_PATH));
	ASSERT_OK(unlink(path));
	again_add(&a, writer);
	again_add(&a, reader);
	again_add(&a, holder);
	again_cycle(&a);
	ASSERT_EQ(a.restore.snapshot.n_ghosts, 1);
	ASSERT_OK(fstat(again_fd(&a, writer), &x));
	ASSERT_OK(fstat(again_fd(&a, reader), &y));
	ASSERT_EQ(x.st_ino, y.st_ino);
	ASSERT_OK(fstat(again_fd(&a, holder), &y));
	ASSERT_EQ(x.st_ino, y.st_ino);
	ASSERT_EQ(fcntl(again_fd(&a, writer), F_GETFL) & (O_ACCMODE | O_APPEND),
		  O_WRONLY | O_APPEND);
	ASSERT_EQ(fcntl(again_fd(&a, reader), F_GETFL) & (O_ACCMODE | O_NONBLOCK),
		  O_RDONLY | O_NONBLOCK);
	ASSERT(fcntl(again_fd(&a, holder), F_GETFL) & O_PATH);
	again_end(&a);
}

TEST(remap, a_file_that_has_the_name_by_now_keeps_it)
{
	struct again a;
	struct stat before, after;

	again_begin(&a);
	const char *path = again_path(&a, "ghost");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));
	fill(fd, 0, 'o', 3);
	ASSERT_OK(unlink(path));
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	autoclose int other = ASSERT_OK(open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
	fill(other, 0, 'n', 4);
	ASSERT_OK(fstat(other, &before));
	ASSERT_OK(again_open(&a));
	expect_content(again_fd(&a, fd), 0, 'o', 3);
	ASSERT_STR(again_link(&a, fd), again_path(&a, "ghost (deleted)"));
	ASSERT_OK(stat(path, &after));
	ASSERT_EQ(before.st_ino, after.st_ino);
	ASSERT_EQ(after.st_nlink, 1);
	expect_content(other, 0, 'n', 4);
	ASSERT_EQ(count_names("ghost"), 2); /* the file, and the image */
	ASSERT_OK(stat(path, &after));
	ASSERT_EQ(before.st_ino, after.st_ino);
	again_end(&a);
}

/* Directories that are gone, too, exist only as long as they are needed. */
TEST(remap, a_ghost_may_have_been_in_a_directory_that_is_gone)
{
	struct again a;

	again_begin(&a);
	const char *outer = again_path(&a, "outer"), *inner = again_path(&a, "outer/inner");
	ASSERT_OK(mkdir(outer, 0700));
	ASSERT_OK(mkdir(inner, 0700));
	const char *path = again_path(&a, "outer/inner/ghost");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));
	fill(fd, 0, 'd', 5);
	ASSERT_OK(unlink(path));
	ASSERT_OK(rmdir(inner));
	ASSERT_OK(rmdir(outer));
	again_add(&a, fd);
	again_cycle(&a);
	expect_content(again_fd(&a, fd), 0, 'd', 5);
	ASSERT_STR(again_link(&a, fd), again_path(&a, "outer/inner/ghost (deleted)"));
	ASSERT_EQ(count_names("outer"), 0);
	again_end(&a);
}

TEST(remap, directories_links_and_devices_can_be_ghosts)
{
	struct again a;
	struct stat st;
	char target[64] = { 0 };

	again_begin(&a);
	const char *dir = again_path(&a, "dir"), *link = again_path(&a, "link"),
		   *device = again_path(&a, "device");
	ASSERT_OK(mkdir(dir, 0710));
	ASSERT_OK(symlink("to/nowhere", link));
	ASSERT_OK(mknod(device, S_IFCHR, makedev(1, 3)));
	ASSERT_OK(chmod(device, 0622));
	int dir_fd = ASSERT_OK(open(dir, O_RDONLY | O_DIRECTORY));
	int link_fd = ASSERT_OK(open(link, O_PATH | O_NOFOLLOW));
	int device_fd = ASSERT_OK(open(device, O_RDWR));
	ASSERT_OK(rmdir(dir));
	ASSERT_OK(unlink(link));
	ASSERT_OK(unlink(device));
	again_add(&a, dir_fd);
	again_add(&a, link_fd);
	again_add(&a, device_fd);
	again_cycle(&a);
	ASSERT_OK(fstat(again_fd(&a, dir_fd), &st));
	ASSERT_EQ(st.st_mode, S_IFDIR | 0710);
	ASSERT_STR(again_link(&a, dir_fd), again_path(&a, "dir (deleted)"));
	ASSERT_OK(readlinkat(again_fd(&a, link_fd), "", target, sizeof(target) - 1));
	ASSERT_STR(target, "to/nowhere");
	ASSERT_OK(fstat(again_fd(&a, device_fd), &st));
	ASSERT_EQ(st.st_mode, S_IFCHR | 0622);
	ASSERT_EQ(st.st_rdev, makedev(1, 3));
	ASSERT_EQ(st.st_nlink, 0);
	ASSERT_EQ(count_names(".cr."), 0);
	again_end(&a);
}

/* Such a file can still be given a name. */
TEST(remap, a_file_of_o_tmpfile_is_one_again)
{
	struct again a;
	char link[64];

	again_begin(&a);
	int fd = open(test_path(), O_TMPFILE | O_RDWR, 0640);
	if (fd < 0)
		test_skip("no O_TMPFILE in %s", test_path());
	fill(fd, 0, 't', 6);
	again_add(&a, fd);
	again_cycle(&a);
	expect_content(again_fd(&a, fd), 0, 't', 6);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", again_fd(&a, fd));
	ASSERT_OK(linkat(AT_FDCWD, link, AT_FDCWD, again_path(&a, "named"), AT_SYMLINK_FOLLOW));
	again_end(&a);
}

static int deleted_file(struct again *a, size_t size)
{
	const char *path = again_path(a, "large");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));

	fill(fd, 0, 'l', size);
	ASSERT_OK(unlink(path));
	return fd;
}

TEST(remap, a_ghost_may_not_be_larger_than_the_limit)
{
	struct again a;

	again_begin(&a);
	a.opts.ghost_limit = 8191;
	again_add(&a, deleted_file(&a, 8192));
	again_blocked(&a, "was deleted and has 8192 bytes, more than --ghost-limit allows");
	again_end(&a);
}

TEST(remap, a_ghost_may_be_as_large_as_the_limit)
{
	struct again a;

	again_begin(&a);
	a.opts.ghost_limit = 8192;
	int fd = deleted_file(&a, 8192);
	/* What counts is what it takes, not where it ends. */
	ASSERT_OK(ftruncate(fd, 100 * MIB));
	again_add(&a, fd);
	again_cycle(&a);
	again_end(&a);
}

/* ---- links ---- */

/* A file whose name is gone, but which has another one. */
static int hidden_file(struct again *a)
{
	const char *path = again_path(a, "hidden");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));

	fill(fd, 0, 'h', 8);
	ASSERT_OK(link(path, again_path(a, "elsewhere")));
	ASSERT_OK(unlink(path));
	return fd;
}

TEST(remap, a_link_is_made_only_if_asked_for)
{
	struct again a;

	again_begin(&a);
	again_add(&a, hidden_file(&a));
	again_blocked(&a, "was deleted, but has 1 other link(s)");
	ASSERT_EQ(count_names("link_remap"), 0);
	again_end(&a);
}

TEST(remap, a_file_with_another_name_is_held_by_a_link)
{
	struct again a;
	struct stat st, elsewhere;

	again_begin(&a);
	a.opts.link_remap = true;
	int fd = hidden_file(&a);
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	ASSERT_EQ(count_names("link_remap."), 1);
	ASSERT_OK(again_open(&a));
	ASSERT_OK(fstat(again_fd(&a, fd), &st));
	ASSERT_OK(stat(again_path(&a, "elsewhere"), &elsewhere));
	ASSERT_EQ(st.st_ino, elsewhere.st_ino);
	ASSERT_STR(again_link(&a, fd), again_path(&a, "hidden (deleted)"));
	ASSERT_EQ(count_names("link_remap"), 0);
	ASSERT_EQ(count_names("hidden"), 0);
	ASSERT_EQ(count_names("elsewhere"), 1);
	again_end(&a);
}

TEST(remap, a_dump_that_fails_takes_its_links_back)
{
	struct again a;

	again_begin(&a);
	a.opts.link_remap = true;
	again_add(&a, hidden_file(&a));
	again_collect(&a);
	ASSERT_OK(files_save_contents(&a.dump));
	ASSERT_EQ(count_names("link_remap."), 1);
	files_remove_links(&a.dump);
	ASSERT_EQ(count_names("link_remap."), 0);
	again_end(&a);
}

TEST(remap, the_name_of_a_link_may_be_taken)
{
	struct again a;
	struct stat st;

	again_begin(&a);
	a.opts.link_remap = true;
	int fd = hidden_file(&a);
	for (int i = 1; i < 6; i++) {
		const char *name = arena_printf(&a.world.arena, "link_remap.%d", i);

		close(ASSERT_OK(open(again_path(&a, name), O_CREAT | O_WRONLY, 0600)));
	}
	again_add(&a, fd);
	again_cycle(&a);
	expect_content(again_fd(&a, fd), 0, 'h', 8);
	ASSERT_EQ(count_names("link_remap."), 5); /* those of others stay */
	ASSERT_OK(stat(again_path(&a, "elsewhere"), &st));
	ASSERT_EQ(st.st_nlink, 1);
	again_end(&a);
}

TEST(remap, a_directory_that_was_moved_prevents_the_dump)
{
	struct again a;

	again_begin(&a);
	ASSERT_OK(mkdir(again_path(&a, "dir"), 0700));
	int fd = ASSERT_OK(open(again_path(&a, "dir"), O_RDONLY | O_DIRECTORY));
	again_add(&a, fd);
	again_collect(&a);
	ASSERT_EQ(a.dump.n_blockers, 0); /* it has its new name in /proc */
	again_end(&a);
}

TEST(remap, a_file_that_is_hidden_by_a_mount_prevents_the_dump)
{
	struct again a;

	again_begin(&a);
	ASSERT_OK(mkdir(again_path(&a, "dir"), 0700));
	const char *path = again_path(&a, "dir/file");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));
	ASSERT_OK(unshare(CLONE_NEWNS));
	ASSERT_OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	ASSERT_OK(mount("none", again_path(&a, "dir"), "tmpfs", 0, NULL));
	close(ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600)));
	again_add(&a, fd);
	again_blocked(&a, "/dir/file is hidden by a mount; unmount that first");
	again_end(&a);
}

/* ---- what a restore that was killed has left ---- */

/* Names of our file that may stand in the way; without the first there is none of the others. */
static const char *const leftovers[] = { "ghost.cr.1.ghost", "ghost.cr.1.tmp", "ghost" };

static void expect_no_hindrance(unsigned set)
{
	struct again a;

	again_begin(&a);
	const char *path = again_path(&a, "ghost");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));
	fill(fd, 0, 'g', 9);
	ASSERT_OK(unlink(path));
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	const char *first = again_path(&a, leftovers[0]);
	close(ASSERT_OK(open(first, O_RDWR | O_CREAT, 0600)));
	for (size_t i = 1; i < ARRAY_SIZE(leftovers); i++)
		if (set >> i & 1)
			ASSERT_OK(link(first, again_path(&a, leftovers[i])));
	ASSERT_OK(again_open(&a));
	expect_content(again_fd(&a, fd), 0, 'g', 9);
	ASSERT_EQ(count_names("ghost"), 1); /* the image */
	again_end(&a);
}

TEST(remap, what_a_killed_restore_has_left_is_no_hindrance)
{
	for (unsigned set = 0; set < 1u << ARRAY_SIZE(leftovers); set += 2)
		expect_no_hindrance(set);
}

/* It was killed while our file had taken the place of another one. */
TEST(remap, a_file_that_a_killed_restore_has_put_aside_gets_its_name_back)
{
	struct again a;
	struct stat before, after;

	again_begin(&a);
	const char *path = again_path(&a, "ghost");
	int fd = ASSERT_OK(open(path, O_RDWR | O_CREAT, 0600));
	fill(fd, 0, 'g', 9);
	ASSERT_OK(unlink(path));
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	close(ASSERT_OK(open(again_path(&a, leftovers[0]), O_RDWR | O_CREAT, 0600)));
	ASSERT_OK(link(again_path(&a, leftovers[0]), path));
	close(ASSERT_OK(open(again_path(&a, leftovers[1]), O_RDWR | O_CREAT, 0600)));
	ASSERT_OK(stat(again_path(&a, leftovers[1]), &before));
	ASSERT_OK(again_open(&a));
	expect_content(again_fd(&a, fd), 0, 'g', 9);
	ASSERT_OK(stat(path, &after));
	ASSERT_EQ(before.st_ino, after.st_ino);
	ASSERT_EQ(count_names("ghost"), 2); /* it, and the image */
	again_end(&a);
}
