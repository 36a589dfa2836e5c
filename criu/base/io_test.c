/* SPDX-License-Identifier: GPL-2.0-only */
/* Reads and writes, and the ownership that own.h gives to descriptors and memory. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/own.h"
#include "base/test.h"

#define MANY (300u << 10) /* several times what a pipe holds */

/* A nameless file with a known content. */
static int file_with(const void *data, size_t size)
{
	char path[] = "/tmp/criu-io-test-XXXXXX";
	int fd = ASSERT_OK(mkstemp(path));

	ASSERT_OK(unlink(path));
	ASSERT_OK(write_all(fd, data, size));
	ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static char *pattern(size_t size)
{
	char *p = xmalloc(size);

	for (size_t i = 0; i < size; i++)
		p[i] = i * 7 + i / 251;
	return p;
}

static void ignore(int sig)
{
	(void)sig;
}

/* Makes the signal that the child sends interrupt calls instead of restarting them. */
static void let_signals_interrupt(void)
{
	struct sigaction sa = { .sa_handler = ignore };

	ASSERT_OK(sigaction(SIGUSR1, &sa, NULL));
}

/* The first signal ends a call that has moved something, the second one that has not. */
static void interrupt_parent_twice(void)
{
	for (int i = 0; i < 2; i++) {
		kill(getppid(), SIGUSR1);
		usleep(100);
	}
}

/* Passes bytes on in small pieces. */
static void child_moves(bool writes, int fd, char *data)
{
	size_t done = 0;

	while (done < MANY) {
		size_t piece = min((size_t)5000, MANY - done);

		interrupt_parent_twice();
		ssize_t n = writes ? write(fd, data + done, piece) : read(fd, data + done, piece);
		if (n <= 0)
			_exit(1);
		done += n;
	}
}

static int child_status(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		ASSERT_EQ(errno, EINTR);
	return status;
}

TEST(io, write_all_goes_on_after_short_and_interrupted_writes)
{
	autofree char *data = pattern(MANY);
	int fds[2];

	let_signals_interrupt();
	ASSERT_OK(pipe(fds));
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0) {
		char *got = xmalloc(MANY);

		child_moves(false, fds[0], got);
		_exit(memcmp(got, data, MANY) != 0);
	}
	ASSERT_EQ(write_all(fds[1], data, MANY), 0);
	ASSERT_EQ(child_status(pid), 0);
}

TEST(io, read_all_goes_on_after_short_and_interrupted_reads)
{
	autofree char *data = pattern(MANY), *got = xmalloc(MANY);
	int fds[2];

	let_signals_interrupt();
	ASSERT_OK(pipe(fds));
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0) {
		child_moves(true, fds[1], data);
		_exit(0);
	}
	ASSERT_EQ(read_all(fds[0], got, MANY), 0);
	ASSERT(!memcmp(got, data, MANY));
	ASSERT_EQ(child_status(pid), 0);
}

TEST(io, nothing_is_read_and_written_without_a_call)
{
	ASSERT_EQ(read_all(-1, NULL, 0), 0);
	ASSERT_EQ(write_all(-1, NULL, 0), 0);
	ASSERT_EQ(pread_all(-1, NULL, 0, 0), 0);
	ASSERT_EQ(pwrite_all(-1, NULL, 0, 0), 0);
}

TEST(io, early_end_is_no_data)
{
	autoclose int fd = file_with("12345", 5);
	char buf[8];

	ASSERT_EQ(read_all(fd, buf, 6), -ENODATA);
	ASSERT_EQ(read_all(fd, buf, 1), -ENODATA);
	ASSERT_EQ(pread_all(fd, buf, 6, 0), -ENODATA);
	ASSERT_EQ(pread_all(fd, buf, 1, 5), -ENODATA);
	ASSERT_EQ(pread_all(fd, buf, 1, 1000), -ENODATA);
	ASSERT_EQ(pread_all(fd, buf, 5, 0), 0);
}

TEST(io, errors_are_returned)
{
	autoclose int full = open("/dev/full", O_RDWR);
	int fds[2];
	char c = 0;

	ASSERT_EQ(read_all(-1, &c, 1), -EBADF);
	ASSERT_EQ(write_all(-1, &c, 1), -EBADF);
	ASSERT_EQ(pread_all(-1, &c, 1, 0), -EBADF);
	ASSERT_EQ(pwrite_all(-1, &c, 1, 0), -EBADF);
	ASSERT_EQ(write_all(full, &c, 1), -ENOSPC);
	ASSERT_EQ(pwrite_all(full, &c, 1, 0), -ENOSPC);

	signal(SIGPIPE, SIG_IGN);
	ASSERT_OK(pipe(fds));
	ASSERT_EQ(pread_all(fds[0], &c, 1, 0), -ESPIPE);
	close(fds[0]);
	ASSERT_EQ(write_all(fds[1], &c, 1), -EPIPE);
}

TEST(io, positions_are_honoured_and_not_moved)
{
	autoclose int fd = file_with("0123456789", 10);
	char buf[8] = "";

	ASSERT_EQ(pwrite_all(fd, "ab", 2, 3), 0);
	ASSERT_EQ(pwrite_all(fd, "cd", 2, 12), 0);
	ASSERT_EQ(lseek(fd, 0, SEEK_CUR), 0);
	ASSERT_EQ(pread_all(fd, buf, 4, 2), 0);
	ASSERT_STR(buf, "2ab5");
	ASSERT_EQ(pread_all(fd, buf, 4, 10), 0);
	ASSERT(!memcmp(buf, "\0\0cd", 4));
	ASSERT_EQ(lseek(fd, 0, SEEK_CUR), 0);
}

/* A path to an open file that needs no directory of its own. */
static const char *path_of(int fd)
{
	static char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

static void check_whole_file(const char *data, size_t size)
{
	autoclose int fd = file_with(data, size);
	autofree char *text = NULL;

	ASSERT_EQ(read_file_at(AT_FDCWD, path_of(fd), &text), size);
	ASSERT(!memcmp(text, data, size));
	ASSERT_EQ(text[size], 0);
}

TEST(io, whole_file_of_any_size)
{
	/* The buffer starts at 16 KiB and grows by four when less than a quarter is left. */
	static const size_t sizes[] = { 0,     1,     12287, 12288, 12289, 16382, 16383,  16384,
					16385, 49151, 49152, 49153, 65535, 65536, 1000000 };
	autofree char *data = pattern(1000000);

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		check_whole_file(data, sizes[i]);
}

TEST(io, whole_file_that_comes_in_pieces)
{
	autofree char *data = pattern(MANY), *text = NULL;
	int fds[2];

	let_signals_interrupt();
	ASSERT_OK(pipe(fds));
	pid_t pid = ASSERT_OK(fork());
	if (pid == 0) {
		child_moves(true, fds[1], data);
		_exit(0);
	}
	/* Opening a pipe by its path gives a reader of its own; the writer must be the child. */
	const char *path = path_of(fds[0]);
	close(fds[1]);
	ASSERT_EQ(read_file_at(AT_FDCWD, path, &text), MANY);
	ASSERT(!memcmp(text, data, MANY));
	ASSERT_EQ(child_status(pid), 0);
}

TEST(io, whole_file_errors_leave_the_result_alone)
{
	char *text = NULL;

	ASSERT_EQ(read_file_at(AT_FDCWD, "/nonexistent", &text), -ENOENT);
	ASSERT_EQ(read_file_at(AT_FDCWD, "/", &text), -EISDIR);
	ASSERT_EQ(read_file_at(-1, "relative", &text), -EBADF);
	ASSERT(!text);
}

TEST(io, paths_are_relative_to_the_directory)
{
	autoclose int dir = open("/proc/self", O_RDONLY | O_DIRECTORY);
	autofree char *text = NULL;
	char buf[64];

	ASSERT(read_file_at(dir, "comm", &text) > 1);
	ASSERT_EQ(read_small_at(dir, "comm", buf, sizeof(buf)), strlen(text));
	ASSERT_STR(buf, text);
}

TEST(io, small_file_is_cut_to_the_buffer)
{
	autoclose int fd = file_with("12345", 5);
	char buf[8];

	memset(buf, 'x', sizeof(buf));
	ASSERT_EQ(read_small_at(AT_FDCWD, path_of(fd), buf, 8), 5);
	ASSERT_STR(buf, "12345");
	ASSERT_EQ(read_small_at(AT_FDCWD, path_of(fd), buf, 6), 5);
	ASSERT_STR(buf, "12345");
	ASSERT_EQ(read_small_at(AT_FDCWD, path_of(fd), buf, 4), 3);
	ASSERT_STR(buf, "123");
	ASSERT_EQ(buf[4], '5'); /* not written to by the call above */
	ASSERT_EQ(read_small_at(AT_FDCWD, path_of(fd), buf, 1), 0);
	ASSERT_STR(buf, "");
	ASSERT_EQ(read_small_at(AT_FDCWD, "/nonexistent", buf, 8), -ENOENT);
	ASSERT_EQ(read_small_at(AT_FDCWD, "/", buf, 8), -EISDIR);
}

TEST(io, link_that_does_not_fit_is_an_error)
{
	autoclose int fd = test_dir();
	char buf[16];

	ASSERT_OK(symlinkat("target", fd, "l"));
	ASSERT_OK(mkdirat(fd, "d", 0700));
	memset(buf, 'x', sizeof(buf));
	ASSERT_EQ(read_link_at(fd, "l", buf, 16), 6);
	ASSERT_STR(buf, "target");
	ASSERT_EQ(read_link_at(fd, "l", buf, 7), 6);
	ASSERT_STR(buf, "target");
	ASSERT_EQ(read_link_at(fd, "l", buf, 6), -ENAMETOOLONG);
	ASSERT_EQ(read_link_at(fd, "l", buf, 1), -ENAMETOOLONG);
	ASSERT_EQ(read_link_at(fd, "d", buf, 16), -EINVAL);
	ASSERT_EQ(read_link_at(fd, "none", buf, 16), -ENOENT);
}

TEST(io, time_goes_forward)
{
	uint64_t last = now_us(), start = last;

	usleep(2000);
	for (int i = 0; i < 1000; i++) {
		uint64_t now = now_us();

		ASSERT(now >= last);
		last = now;
	}
	ASSERT(last - start >= 2000 && last - start < 5000000);
}

TEST(own, descriptor_is_closed_at_the_end_of_its_scope)
{
	int number;
	{
		autoclose int fd = ASSERT_OK(dup(STDIN_FILENO));
		autoclose int none = -1;

		(void)none;
		number = fd;
		ASSERT_OK(fcntl(number, F_GETFD));
	}
	ASSERT_EQ(fcntl(number, F_GETFD), -1);
}

static int open_and_hand_over(void)
{
	autoclose int fd = ASSERT_OK(dup(STDIN_FILENO));

	return take_fd(&fd);
}

TEST(own, descriptor_that_is_taken_stays_open)
{
	int fd = open_and_hand_over();

	ASSERT_OK(fcntl(fd, F_GETFD));
	ASSERT_EQ(take_fd(&fd) >= 0, true);
	ASSERT_EQ(fd, -1);
	ASSERT_EQ(take_fd(&fd), -1);
}

static char *allocate_and_hand_over(void)
{
	autofree char *p = xmalloc(5), *freed = xmalloc(5), *none = NULL;

	strcpy(p, "mine");
	strcpy(freed, "none");
	(void)none;
	return take_ptr(p);
}

/* The leak sanitizer and the address sanitizer see it if one is not freed or one is too much. */
TEST(own, memory_that_is_taken_stays)
{
	autofree char *p = allocate_and_hand_over();

	ASSERT_STR(p, "mine");
}

TEST(own, mapping_is_unmapped_at_the_end_of_its_scope)
{
	void *addr;
	{
		autounmap struct local_map none = { 0 };
		autounmap struct local_map map = { .size = 4096 };

		(void)none;
		map.addr = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT(map.addr != MAP_FAILED);
		addr = map.addr;
		ASSERT_OK(msync(addr, 4096, MS_ASYNC));
	}
	ASSERT_EQ(msync(addr, 4096, MS_ASYNC), -1);
}

TEST(own, directory_is_closed_at_the_end_of_its_scope)
{
	int number;
	{
		autoclosedir DIR *dir = opendir("/"), *none = NULL;

		(void)none;
		ASSERT(dir);
		number = dirfd(dir);
	}
	ASSERT_EQ(fcntl(number, F_GETFD), -1);
}

TEST(own, min_and_max_evaluate_once)
{
	int i = 0, j = 10;

	ASSERT_EQ(min(i++, j++), 0);
	ASSERT_EQ(max(i++, j++), 11);
	ASSERT_EQ(i, 2);
	ASSERT_EQ(j, 12);
	ASSERT_EQ(min(-1, 1), -1);
	ASSERT_EQ(max(-1, 1), 1);
	ASSERT_EQ(max(min(3, 5), 2), 3);
}

TEST(own, container_is_found_from_its_member)
{
	struct outer {
		int before;
		long member[3];
	} outer;
	long *p = &outer.member[0];

	ASSERT(container_of(p, struct outer, member) == &outer);
	ASSERT_EQ(ARRAY_SIZE(outer.member), 3);
}
