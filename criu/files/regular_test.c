/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/regular.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/own.h"
#include "files/again_test.h"

static int make_file(const char *path, int flags)
{
	int fd = ASSERT_OK(open(path, flags | O_CREAT, 0640));

	if ((flags & O_ACCMODE) != O_RDONLY)
		ASSERT_EQ(write(fd, "content", 7), 7);
	return fd;
}

static const int flags_of_files[] = {
	O_RDWR,
	O_WRONLY | O_APPEND,
	O_RDWR | O_NONBLOCK,
	O_WRONLY | O_SYNC,
	O_RDWR | O_NOATIME,
	O_RDWR | O_DSYNC,
	O_RDONLY,
};

TEST(regular, flags_and_positions_are_as_they_were)
{
	const int all = O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_NOATIME | O_DSYNC;
	int fds[ARRAY_SIZE(flags_of_files)];
	struct again a;

	again_begin(&a);
	for (size_t i = 0; i < ARRAY_SIZE(flags_of_files); i++) {
		fds[i] = make_file(again_path(&a, "file"), flags_of_files[i]);
		ASSERT_OK(lseek(fds[i], 1000 * i, SEEK_SET));
		again_add(&a, fds[i]);
	}
	again_cycle(&a);
	for (size_t i = 0; i < ARRAY_SIZE(flags_of_files); i++) {
		int fd = again_fd(&a, fds[i]);

		ASSERT_EQ(fcntl(fd, F_GETFL) & all, flags_of_files[i]);
		ASSERT_EQ(lseek(fd, 0, SEEK_CUR), 1000 * i);
		ASSERT_STR(again_link(&a, fds[i]), again_path(&a, "file"));
	}
	again_end(&a);
}

TEST(regular, descriptors_of_the_test_do_not_get_numbers_of_the_task)
{
	struct again a;
	int fds[3];

	again_begin(&a);
	for (int i = 0; i < 3; i++) {
		fds[i] = make_file(again_path(&a, "file"), O_RDWR);
		again_add(&a, fds[i]);
	}
	again_cycle(&a);
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 3; k++)
			ASSERT(again_fd(&a, fds[i]) != fds[k]);
	again_end(&a);
}

TEST(regular, directories_and_devices_are_opened_by_their_path)
{
	struct again a;

	again_begin(&a);
	int dir = ASSERT_OK(open("/", O_RDONLY | O_DIRECTORY));
	int null = ASSERT_OK(open("/dev/null", O_WRONLY));
	int path = ASSERT_OK(open("/dev/zero", O_PATH));
	again_add(&a, dir);
	again_add(&a, null);
	again_add(&a, path);
	again_cycle(&a);
	ASSERT_STR(again_link(&a, dir), "/");
	ASSERT_STR(again_link(&a, null), "/dev/null");
	ASSERT_STR(again_link(&a, path), "/dev/zero");
	ASSERT(fcntl(again_fd(&a, path), F_GETFL) & O_PATH);
	again_end(&a);
}

/* ---- what has changed since the dump ---- */

static void change_size(const char *path)
{
	ASSERT_OK(truncate(path, 8));
}

static void change_mode(const char *path)
{
	ASSERT_OK(chmod(path, 0600));
}

static void change_kind(const char *path)
{
	ASSERT_OK(unlink(path));
	ASSERT_OK(mkdir(path, 0640));
}

/* Opening it may not wait for a writer. */
static void change_to_fifo(const char *path)
{
	ASSERT_OK(unlink(path));
	ASSERT_OK(mkfifo(path, 0640));
}

static void remove_it(const char *path)
{
	ASSERT_OK(unlink(path));
}

static const struct {
	void (*change)(const char *path);
	const char *text;
} changes[] = {
	{ change_size, "/file: its size is 8, at dump 7" },
	{ change_mode, "/file: its permissions are 0600, at dump 0640" },
	{ change_kind, "/file: it is of another kind than at dump" },
	{ change_to_fifo, "/file: it is of another kind than at dump" },
	{ remove_it, "/file: open again: No such file or directory" },
};

static void expect_change_refused(void (*change)(const char *path), const char *text)
{
	struct again a;

	again_begin(&a);
	close(make_file(again_path(&a, "file"), O_RDWR));
	again_add(&a, ASSERT_OK(open(again_path(&a, "file"), O_RDONLY)));
	again_collect(&a);
	again_save(&a);
	change(again_path(&a, "file"));
	ASSERT_REFUSED(again_open(&a), text);
	(void)remove(again_path(&a, "file"));
	again_end(&a);
}

TEST(regular, a_file_that_is_another_one_by_now_is_refused)
{
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
		expect_change_refused(changes[i].change, changes[i].text);
}

TEST(regular, permissions_need_not_be_the_same_if_nobody_minds)
{
	struct again a;

	again_begin(&a);
	int fd = make_file(again_path(&a, "file"), O_RDWR);
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	change_mode(again_path(&a, "file"));
	a.opts.skip_rwx_check = true;
	ASSERT_OK(again_open(&a));
	again_end(&a);
}

static void copy_file(const char *from, const char *to)
{
	autofree char *data = NULL;
	ssize_t size = read_file_at(AT_FDCWD, from, &data);

	ASSERT(size > 0);
	autoclose int fd = ASSERT_OK(open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755));
	ASSERT_OK(write_all(fd, data, size));
}

/* Of the same size, with another byte in the build id of /proc/self/exe. */
static void change_build_id(const char *path, const RegFileEntry *e)
{
	autofree char *data = NULL;
	ssize_t size = read_file_at(AT_FDCWD, path, &data);
	char *id = memmem(data, size, e->build_id, e->n_build_id * sizeof(*e->build_id));

	ASSERT(id);
	id[0] ^= 1;
	autoclose int fd = ASSERT_OK(open(path, O_WRONLY));
	ASSERT_OK(write_all(fd, data, size));
}

TEST(regular, a_program_is_known_by_its_build_id)
{
	struct again a;

	again_begin(&a);
	const char *path = again_path(&a, "program");
	copy_file("/proc/self/exe", path);
	a.opts.file_validation = VALIDATE_BUILDID;
	int fd = ASSERT_OK(open(path, O_RDONLY));
	again_add(&a, fd);
	again_cycle(&a);
	const RegFileEntry *e = again_entry(&a, fd)->reg;
	if (!e->n_build_id)
		test_skip("this program has no build id");
	ASSERT_EQ(e->n_build_id, 5);
	change_build_id(path, e);
	struct restore again = { .opts = &a.opts };
	ASSERT_REFUSED(regular_open_part(&again, e, O_RDONLY), "its build id differs");
	a.opts.file_validation = VALIDATE_FILESIZE;
	close(ASSERT_OK(regular_open_part(&again, e, O_RDONLY)));
	arena_done(&again.arena);
	again_end(&a);
}

TEST(regular, a_file_that_is_no_program_has_no_build_id)
{
	struct again a;

	again_begin(&a);
	a.opts.file_validation = VALIDATE_BUILDID;
	int fd = make_file(again_path(&a, "lib.so"), O_RDWR);
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_EQ(again_entry(&a, fd)->reg->n_build_id, 0);
	again_end(&a);
}

/* ---- external and inherited ---- */

/* As --external names it. */
static void external_key(int fd, char key[64])
{
	autofree char *text = NULL;
	struct proc_fdinfo info;
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	ASSERT_OK(read_file_at(AT_FDCWD, path, &text));
	ASSERT_OK(proc_fdinfo_parse(text, &info));
	ASSERT_OK(fstat(fd, &st));
	snprintf(key, 64, "file[%x:%lx]", info.mnt_id, (long)st.st_ino);
}

TEST(regular, an_external_file_is_replaced_by_what_is_given)
{
	struct again a;
	struct stat x, y;
	char key[64], arg[80];

	again_begin(&a);
	int fd = make_file(again_path(&a, "file"), O_RDWR);
	int given = make_file(again_path(&a, "other"), O_RDWR);
	again_add(&a, fd);
	external_key(fd, key);
	a.opts.external.item[a.opts.external.n++] = key;
	again_collect(&a);
	again_save(&a);
	ASSERT_OK(unlink(again_path(&a, "file"))); /* nobody misses it */
	ASSERT_REFUSED(again_open(&a), "give what takes its place by --inherit-fd");
	snprintf(arg, sizeof(arg), "fd[%d]:%s", given, key);
	a.opts.inherit_fd.item[a.opts.inherit_fd.n++] = arg;
	ASSERT_OK(again_open(&a));
	ASSERT_OK(fstat(again_fd(&a, fd), &x));
	ASSERT_OK(fstat(given, &y));
	ASSERT_EQ(x.st_ino, y.st_ino);
	ASSERT_EQ(lseek(again_fd(&a, fd), 0, SEEK_CUR), 7); /* position and all */
	again_end(&a);
}

TEST(regular, a_path_may_be_given_with_its_first_slash_or_without)
{
	for (int without = 0; without < 2; without++) {
		struct again a;

		again_begin(&a);
		int fd = make_file(again_path(&a, "file"), O_RDWR);
		int given = make_file(again_path(&a, "other"), O_RDWR);
		again_add(&a, fd);
		again_collect(&a);
		again_save(&a);
		a.opts.inherit_fd.item[a.opts.inherit_fd.n++] = arena_printf(
			&a.world.arena, "fd[%d]:%s", given, again_path(&a, "file") + without);
		ASSERT_OK(again_open(&a));
		ASSERT_STR(again_link(&a, fd), again_path(&a, "other"));
		again_end(&a);
	}
}

TEST(regular, a_name_that_no_file_has_is_refused)
{
	struct again a;

	again_begin(&a);
	again_add(&a, make_file(again_path(&a, "file"), O_RDWR));
	again_collect(&a);
	again_save(&a);
	a.opts.inherit_fd.item[a.opts.inherit_fd.n++] = "fd[0]:nothing";
	ASSERT_REFUSED(again_open(&a),
		       "--inherit-fd fd[0]:nothing: no file of the images has this");
	again_end(&a);
}
