/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/pipe.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/own.h"
#include "files/again_test.h"

#define CAPACITY 65536

/* One pipe, both ends of which are dumped unless the test closes one before. */
struct pipe_again {
	struct again again;
	int end[2];
};

static void begin(struct pipe_again *p, int flags)
{
	again_begin(&p->again);
	ASSERT_OK(pipe2(p->end, flags | O_NONBLOCK));
}

static void add_both(struct pipe_again *p)
{
	again_add(&p->again, p->end[0]);
	again_add(&p->again, p->end[1]);
}

static void put(int fd, size_t size)
{
	char data[CAPACITY];

	for (size_t i = 0; i < size; i++)
		data[i] = i * 7 + size;
	ASSERT_EQ(write(fd, data, size), size);
}

static void expect(int fd, size_t size)
{
	char data[CAPACITY + 1];

	ASSERT_EQ(read(fd, data, sizeof(data)), size);
	for (size_t i = 0; i < size; i++)
		ASSERT_EQ(data[i], (char)(i * 7 + size));
}

static void expect_empty(int fd)
{
	char c;

	ASSERT(read(fd, &c, 1) < 0 && errno == EAGAIN);
}

static const size_t sizes[] = { 0, 1, 4095, 4096, 4097, CAPACITY };

TEST(pipe, unread_bytes_are_there_again)
{
	struct again a;
	int ends[ARRAY_SIZE(sizes)][2];

	again_begin(&a);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_OK(pipe2(ends[i], O_NONBLOCK));
		put(ends[i][1], sizes[i]);
		again_add(&a, ends[i][0]);
		again_add(&a, ends[i][1]);
	}
	again_cycle(&a);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int from = again_fd(&a, ends[i][0]), to = again_fd(&a, ends[i][1]);

		if (sizes[i])
			expect(from, sizes[i]);
		expect_empty(from);
		/* Both are ends of the same pipe, with their access. */
		put(to, 3);
		expect(from, 3);
		ASSERT(write(from, "x", 1) < 0);
		ASSERT_EQ(fcntl(from, F_GETFL), O_RDONLY | O_NONBLOCK);
		ASSERT_EQ(fcntl(to, F_GETFL), O_WRONLY | O_NONBLOCK);
	}
	again_end(&a);
}

TEST(pipe, a_dump_takes_nothing_out_of_it)
{
	struct pipe_again p;
	int unread;

	begin(&p, 0);
	put(p.end[1], 5000);
	int own = dup(p.end[0]);
	add_both(&p);
	again_collect(&p.again);
	again_save(&p.again);
	ASSERT_OK(ioctl(own, FIONREAD, &unread));
	ASSERT_EQ(unread, 5000);
	again_end(&p.again);
}

static const int capacities[] = { 4096, 16 * CAPACITY, CAPACITY };

TEST(pipe, capacities_are_as_they_were)
{
	struct again a;
	int ends[ARRAY_SIZE(capacities)][2];

	again_begin(&a);
	for (size_t i = 0; i < ARRAY_SIZE(capacities); i++) {
		ASSERT_OK(pipe2(ends[i], O_NONBLOCK));
		ASSERT_OK(fcntl(ends[i][1], F_SETPIPE_SZ, capacities[i]));
		for (int n = 0; n < capacities[i]; n += 4096) /* full */
			put(ends[i][1], 4096);
		again_add(&a, ends[i][0]);
		again_add(&a, ends[i][1]);
	}
	again_cycle(&a);
	for (size_t i = 0; i < ARRAY_SIZE(capacities); i++) {
		int unread;

		ASSERT_EQ(fcntl(again_fd(&a, ends[i][0]), F_GETPIPE_SZ), capacities[i]);
		ASSERT_OK(ioctl(again_fd(&a, ends[i][0]), FIONREAD, &unread));
		ASSERT_EQ(unread, capacities[i]);
		ASSERT(write(again_fd(&a, ends[i][1]), "x", 1) < 0 && errno == EAGAIN);
	}
	again_end(&a);
}

/* Records of a pipe with packets: each read gives one. */
static const size_t packets[] = { 1, 100, PIPE_BUF, 2, PIPE_BUF - 1 };

TEST(pipe, packets_stay_apart)
{
	struct pipe_again p;

	begin(&p, O_DIRECT);
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++)
		put(p.end[1], packets[i]);
	add_both(&p);
	again_cycle(&p.again);
	int from = again_fd(&p.again, p.end[0]);
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++)
		expect(from, packets[i]);
	expect_empty(from);
	ASSERT(fcntl(again_fd(&p.again, p.end[1]), F_GETFL) & O_DIRECT);
	again_end(&p.again);
}

/* Two, in a pipe that makes none any more. */
static void begin_with_packets(struct pipe_again *p)
{
	begin(p, O_DIRECT);
	put(p->end[1], 10);
	put(p->end[1], 20);
	for (int k = 0; k < 2; k++)
		ASSERT_OK(fcntl(p->end[k], F_SETFL, O_NONBLOCK));
}

/* Parts of one byte that are no packets: what is moved from another pipe stays apart. */
static void fill_with_parts(int to, size_t n)
{
	int from[2];

	ASSERT_OK(pipe(from));
	for (size_t i = 0; i < n; i++) {
		put(from[1], 1);
		ASSERT_EQ(splice(from[0], NULL, to, NULL, 1, 0), 1);
	}
	close(from[0]);
	close(from[1]);
}

TEST(pipe, one_that_is_full_of_little_is_full_again)
{
	struct pipe_again p;
	char c[CAPACITY];

	begin(&p, 0);
	fill_with_parts(p.end[1], CAPACITY / 4096);
	ASSERT(!shows_event(p.end[1], POLLOUT));
	add_both(&p);
	again_cycle(&p.again);
	int to = again_fd(&p.again, p.end[1]);
	ASSERT(!shows_event(to, POLLOUT));
	ASSERT_EQ(read(again_fd(&p.again, p.end[0]), c, 3), 3);
	ASSERT(shows_event(to, POLLOUT));
	ASSERT_EQ(read(again_fd(&p.again, p.end[0]), c, sizeof(c)), CAPACITY / 4096 - 3);
	again_end(&p.again);
}

TEST(pipe, one_that_is_full_of_packets_and_parts_is_full_again)
{
	struct pipe_again p;

	begin_with_packets(&p);
	fill_with_parts(p.end[1], CAPACITY / 4096 - 2);
	ASSERT(!shows_event(p.end[1], POLLOUT));
	add_both(&p);
	again_cycle(&p.again);
	ASSERT(!shows_event(again_fd(&p.again, p.end[1]), POLLOUT));
	int from = again_fd(&p.again, p.end[0]);
	expect(from, 10);
	expect(from, 20);
	again_end(&p.again);
}

/* Buffers from there may hold more than a page: so does the pipe, and it has to be larger again. */
TEST(pipe, what_was_spliced_from_a_socket_is_there_again)
{
	struct pipe_again p;
	char data[32000] = "much";
	int pair[2], there, again;

	begin(&p, 0);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	for (int i = 0; i < 4; i++)
		ASSERT_EQ(write(pair[1], data, sizeof(data)), sizeof(data));
	while (splice(pair[0], NULL, p.end[1], NULL, sizeof(data), SPLICE_F_NONBLOCK) > 0)
		;
	close(pair[0]);
	close(pair[1]);
	ASSERT_OK(ioctl(p.end[0], FIONREAD, &there));
	ASSERT(there > CAPACITY);
	add_both(&p);
	again_cycle(&p.again);
	ASSERT_OK(ioctl(again_fd(&p.again, p.end[0]), FIONREAD, &again));
	ASSERT_EQ(again, there);
	again_end(&p.again);
}

/* Who opened it before anybody wrote, and who came later: only that one sees an end. */
TEST(pipe, a_fifo_hangs_up_for_those_who_saw_a_writer)
{
	struct again a;

	again_begin(&a);
	const char *path = again_path(&a, "fifo");
	ASSERT_OK(mkfifo(path, 0600));
	int late = ASSERT_OK(open(path, O_RDONLY | O_NONBLOCK));
	int writer = ASSERT_OK(open(path, O_WRONLY | O_NONBLOCK));
	put(writer, 5);
	close(writer);
	int early = ASSERT_OK(open(path, O_RDONLY | O_NONBLOCK));
	ASSERT(shows_event(late, POLLHUP));
	ASSERT(!shows_event(early, POLLHUP));
	again_add(&a, early);
	again_add(&a, late);
	again_cycle(&a);
	ASSERT(shows_event(again_fd(&a, late), POLLHUP));
	ASSERT(!shows_event(again_fd(&a, early), POLLHUP));
	expect(again_fd(&a, early), 5);
	again_end(&a);
}

/* Written while the pipe had packets, which it has not any more. */
TEST(pipe, packets_stay_apart_though_the_flag_is_gone)
{
	struct pipe_again p;

	begin_with_packets(&p);
	put(p.end[1], 30);
	add_both(&p);
	again_cycle(&p.again);
	int from = again_fd(&p.again, p.end[0]);
	expect(from, 10);
	expect(from, 20);
	expect(from, 30);
	ASSERT(!(fcntl(again_fd(&p.again, p.end[1]), F_GETFL) & O_DIRECT));
	again_end(&p.again);
}

TEST(pipe, what_was_written_by_somebody_who_is_gone_ends)
{
	struct pipe_again p;
	char c;

	begin(&p, 0);
	put(p.end[1], 9);
	close(p.end[1]);
	again_add(&p.again, p.end[0]);
	again_cycle(&p.again);
	expect(again_fd(&p.again, p.end[0]), 9);
	ASSERT_EQ(read(again_fd(&p.again, p.end[0]), &c, 1), 0);
	ASSERT(!again_entry(&p.again, p.end[0])->pipe->peer_outside);
	again_end(&p.again);
}

TEST(pipe, nobody_reads_what_is_written_to_a_lone_end)
{
	struct pipe_again p;

	signal(SIGPIPE, SIG_IGN);
	begin(&p, 0);
	close(p.end[0]);
	again_add(&p.again, p.end[1]);
	again_cycle(&p.again);
	ASSERT(write(again_fd(&p.again, p.end[1]), "x", 1) < 0 && errno == EPIPE);
	again_end(&p.again);
}

TEST(pipe, that_its_other_end_is_outside_is_in_the_image)
{
	struct pipe_again p;

	begin(&p, 0);
	put(p.end[1], 9);
	again_add(&p.again, p.end[0]);
	again_cycle(&p.again);
	ASSERT(again_entry(&p.again, p.end[0])->pipe->peer_outside);
	expect(again_fd(&p.again, p.end[0]), 9);
	again_end(&p.again);
}

TEST(pipe, descriptions_of_one_end_have_flags_of_their_own)
{
	struct pipe_again p;
	char path[64];

	begin(&p, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p.end[0]);
	int other = ASSERT_OK(open(path, O_RDONLY));
	int both = ASSERT_OK(open(path, O_RDWR | O_NONBLOCK));
	put(p.end[1], 11);
	add_both(&p);
	again_add(&p.again, other);
	again_add(&p.again, both);
	again_cycle(&p.again);
	ASSERT_EQ(fcntl(again_fd(&p.again, other), F_GETFL) & O_NONBLOCK, 0);
	ASSERT_EQ(fcntl(again_fd(&p.again, both), F_GETFL) & O_ACCMODE, O_RDWR);
	expect(again_fd(&p.again, other), 11);
	put(again_fd(&p.again, both), 12);
	expect(again_fd(&p.again, p.end[0]), 12);
	again_end(&p.again);
}

/* ---- --inherit-fd ---- */

static int open_with_inherited(struct pipe_again *p, int fd, char arg[64])
{
	again_collect(&p->again);
	again_save(&p->again);
	int i = p->again.dump.n_files - 1;
	snprintf(arg, 64, "fd[%d]:pipe:[%u]", fd, p->again.dump.files[i]->pipe->pipe_id);
	p->again.opts.inherit_fd.item[p->again.opts.inherit_fd.n++] = arg;
	return again_open(&p->again);
}

TEST(pipe, an_end_that_is_given_takes_the_place_of_the_old_one)
{
	struct pipe_again p;
	char arg[64];
	int given[2];

	begin(&p, 0);
	again_add(&p.again, p.end[0]);
	ASSERT_OK(pipe(given));
	ASSERT_OK(open_with_inherited(&p, given[0], arg));
	put(given[1], 21);
	expect(again_fd(&p.again, p.end[0]), 21);
	again_end(&p.again);
}

TEST(pipe, the_end_that_no_process_had_cannot_be_given)
{
	struct pipe_again p;
	char arg[64];
	int given[2];

	begin(&p, 0);
	again_add(&p.again, p.end[0]);
	ASSERT_OK(pipe(given));
	ASSERT_REFUSED(open_with_inherited(&p, given[1], arg),
		       "no process had the end for writing, which its descriptor is");
	again_end(&p.again);
}

/* ---- fifos ---- */

static int make_fifo(const char *path)
{
	ASSERT_OK(mkfifo(path, 0640));
	return ASSERT_OK(open(path, O_RDWR | O_NONBLOCK));
}

TEST(fifo, unread_bytes_are_there_again)
{
	struct again a;

	again_begin(&a);
	const char *path = again_path(&a, "fifo");
	int fd = make_fifo(path), from = ASSERT_OK(open(path, O_RDONLY | O_NONBLOCK));
	put(fd, 33);
	again_add(&a, fd);
	again_add(&a, from);
	again_cycle(&a);
	expect(again_fd(&a, from), 33);
	expect_empty(again_fd(&a, from));
	int to = ASSERT_OK(open(path, O_WRONLY | O_NONBLOCK)); /* it is the file there */
	put(to, 34);
	expect(again_fd(&a, from), 34);
	again_end(&a);
}

TEST(fifo, one_that_was_deleted_is_deleted_again)
{
	struct again a;
	struct stat st;

	again_begin(&a);
	const char *path = again_path(&a, "fifo");
	int fd = make_fifo(path);
	put(fd, 35);
	ASSERT_OK(unlink(path));
	again_add(&a, fd);
	again_cycle(&a);
	expect(again_fd(&a, fd), 35);
	ASSERT_OK(fstat(again_fd(&a, fd), &st));
	ASSERT_EQ(st.st_mode, S_IFIFO | 0640);
	ASSERT_STR(again_link(&a, fd), again_path(&a, "fifo (deleted)"));
	ASSERT(access(path, F_OK) < 0);
	again_end(&a);
}

TEST(fifo, another_file_in_its_place_is_refused)
{
	struct again a;

	again_begin(&a);
	const char *path = again_path(&a, "fifo");
	int fd = make_fifo(path);
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	ASSERT_OK(unlink(path));
	close(ASSERT_OK(open(path, O_CREAT | O_WRONLY, 0640)));
	ASSERT_REFUSED(again_open(&a), "it is of another kind than at dump");
	again_end(&a);
}
