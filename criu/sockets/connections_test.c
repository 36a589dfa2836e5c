/* SPDX-License-Identifier: GPL-2.0-only */
/* Unix sockets, dumped and made again: who is connected to whom, names, queues, what is in flight.
 */
#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/own.h"
#include "files/again_test.h"
#include "sockets/unix.h"

#define PATH_BYTES sizeof(((struct sockaddr_un *)0)->sun_path)

static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };

/* ---- addresses ---- */

struct address {
	struct sockaddr_un un;
	socklen_t len;
};

static struct address of_bytes(const void *bytes, size_t n)
{
	struct address a = { .un.sun_family = AF_UNIX,
			     .len = offsetof(struct sockaddr_un, sun_path) + n };

	memcpy(a.un.sun_path, bytes, n);
	return a;
}

/* Abstract, and nobody else's; zero bytes are part of it. */
static struct address abstract(size_t n, char which)
{
	char bytes[PATH_BYTES];

	memset(bytes, which, sizeof(bytes));
	memset(bytes, 0, 40);
	snprintf(bytes + 1, 30, "criu-unit-%d", getpid());
	return of_bytes(bytes, n);
}

static struct address of_path(const char *path)
{
	return of_bytes(path, strlen(path));
}

static const struct sockaddr *sa(const struct address *a)
{
	return (const struct sockaddr *)&a->un;
}

static int make(int type, const struct address *name)
{
	int fd = ASSERT_OK(socket(AF_UNIX, type | SOCK_NONBLOCK, 0));

	if (name)
		ASSERT_OK(bind(fd, sa(name), name->len));
	return fd;
}

static int make_listener(int type, const struct address *name, int backlog)
{
	int fd = make(type, name);

	ASSERT_OK(listen(fd, backlog));
	return fd;
}

static int connected(int type, const struct address *to)
{
	int fd = make(type, NULL);

	ASSERT_OK(connect(fd, sa(to), to->len));
	return fd;
}

static void expect_own_name(int fd, const struct address *want)
{
	struct address got = { .len = sizeof(got.un) };

	ASSERT_OK(getsockname(fd, (struct sockaddr *)&got.un, &got.len));
	ASSERT_EQ(got.len, want->len);
	ASSERT(!memcmp(&got.un, &want->un, want->len));
}

static void expect(int fd, const char *text)
{
	char got[256] = { 0 };

	ASSERT_EQ(recv(fd, got, sizeof(got), MSG_DONTWAIT), strlen(text));
	ASSERT_STR(got, text);
}

static void expect_nothing(int fd)
{
	char c;

	ASSERT(recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

static void say(int fd, const char *text)
{
	ASSERT_EQ(send(fd, text, strlen(text), MSG_DONTWAIT), strlen(text));
}

/* ---- pairs ---- */

static void expect_pair(int type)
{
	struct again a;
	int fd[2];

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, type, 0, fd));
	say(fd[0], "first");
	say(fd[0], "second");
	say(fd[1], "back");
	again_add(&a, fd[0]);
	again_add(&a, fd[1]);
	again_cycle(&a);
	int x = again_fd(&a, fd[0]), y = again_fd(&a, fd[1]);
	if (type == SOCK_STREAM) {
		expect(y, "firstsecond");
	} else {
		expect(y, "first");
		expect(y, "second");
	}
	expect(x, "back");
	expect_nothing(y);
	say(x, "new");
	expect(y, "new");
	again_end(&a);
}

TEST(connections, a_pair_has_its_queues_and_is_one)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		expect_pair(types[i]);
}

TEST(connections, a_large_queue_fits_again)
{
	struct again a;
	char data[4096];
	int fd[2], n = 0;

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fd));
	memset(data, 'd', sizeof(data));
	while (send(fd[0], data, sizeof(data) - n, 0) > 0)
		n++;
	ASSERT(n > 5);
	again_add(&a, fd[0]);
	again_add(&a, fd[1]);
	again_cycle(&a);
	for (int i = 0; i < n; i++)
		ASSERT_EQ(recv(again_fd(&a, fd[1]), data, sizeof(data), 0), sizeof(data) - i);
	expect_nothing(again_fd(&a, fd[1]));
	again_end(&a);
}

static const struct {
	int how; /* of the first end */
	bool can_send, can_receive;
} shutdowns[] = {
	{ SHUT_WR, false, true },
	{ SHUT_RD, true, false },
	{ SHUT_RDWR, false, false },
};

TEST(connections, an_end_that_was_shut_down_is_shut_down)
{
	for (size_t i = 0; i < ARRAY_SIZE(shutdowns); i++) {
		struct again a;
		char c;
		int fd[2];

		again_begin(&a);
		ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
		say(fd[0], "before");
		ASSERT_OK(shutdown(fd[0], shutdowns[i].how));
		again_add(&a, fd[0]);
		again_add(&a, fd[1]);
		again_cycle(&a);
		int x = again_fd(&a, fd[0]), y = again_fd(&a, fd[1]);
		expect(y, "before");
		ASSERT_EQ(send(x, "x", 1, MSG_NOSIGNAL) > 0, shutdowns[i].can_send);
		ASSERT_EQ(send(y, "y", 1, MSG_NOSIGNAL) > 0, shutdowns[i].can_receive);
		ASSERT_EQ(recv(x, &c, 1, MSG_DONTWAIT), shutdowns[i].can_receive);
		again_end(&a);
	}
}

TEST(connections, what_a_closed_end_has_sent_is_read_and_then_it_ends)
{
	struct again a;
	char c;
	int fd[2];

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	say(fd[0], "last words");
	close(fd[0]);
	again_add(&a, fd[1]);
	again_cycle(&a);
	expect(again_fd(&a, fd[1]), "last words");
	ASSERT_EQ(recv(again_fd(&a, fd[1]), &c, 1, MSG_DONTWAIT), 0);
	ASSERT(send(again_fd(&a, fd[1]), "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	again_end(&a);
}

TEST(connections, flags_options_and_the_place_to_peek_are_as_they_were)
{
	const int one = 1, offset = 3;
	struct again a;
	char got[8] = { 0 };
	int fd[2], value = 0;
	socklen_t len = sizeof(value);

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
	say(fd[0], "abcdef");
	ASSERT_OK(setsockopt(fd[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)));
	ASSERT_OK(setsockopt(fd[1], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)));
	again_add(&a, fd[0]);
	again_add(&a, fd[1]);
	again_cycle(&a);
	int y = again_fd(&a, fd[1]);
	ASSERT(fcntl(y, F_GETFL) & O_NONBLOCK);
	ASSERT_OK(getsockopt(y, SOL_SOCKET, SO_PASSCRED, &value, &len));
	ASSERT_EQ(value, 1);
	ASSERT_EQ(recv(y, got, sizeof(got), MSG_PEEK), 3);
	ASSERT_STR(got, "def");
	again_end(&a);
}

/* ---- names ---- */

static const size_t name_lengths[] = { 1, 40, 41, PATH_BYTES - 1, PATH_BYTES };

TEST(connections, an_abstract_name_has_all_its_bytes_again)
{
	struct again a;
	struct address names[ARRAY_SIZE(name_lengths)];
	int fds[ARRAY_SIZE(name_lengths)];

	again_begin(&a);
	for (size_t i = 1; i < ARRAY_SIZE(name_lengths); i++) {
		names[i] = abstract(name_lengths[i], 'n');
		fds[i] = make(SOCK_DGRAM, &names[i]);
		again_add(&a, fds[i]);
	}
	again_cycle(&a);
	for (size_t i = 1; i < ARRAY_SIZE(name_lengths); i++)
		expect_own_name(again_fd(&a, fds[i]), &names[i]);
	again_end(&a);
}

/* A path of so many bytes; the kernel needs no zero byte behind it. */
static struct address long_path(struct again *a, size_t n)
{
	const char *dir = again_path(a, "");
	char bytes[PATH_BYTES];

	memset(bytes, 'p', sizeof(bytes));
	memcpy(bytes, dir, strlen(dir));
	return of_bytes(bytes, n);
}

static void expect_path(size_t n)
{
	struct again a;
	struct stat st;
	char path[PATH_BYTES + 1] = { 0 };

	again_begin(&a);
	const struct address name = long_path(&a, n);
	int fd = make(SOCK_DGRAM, &name);
	memcpy(path, name.un.sun_path, n);
	ASSERT_OK(chmod(path, 0640));
	again_add(&a, fd);
	again_cycle(&a);
	/* It is bound and can be reached, and its file has the mode. */
	int client = connected(SOCK_DGRAM, &name);
	say(client, "hello");
	expect(again_fd(&a, fd), "hello");
	ASSERT_OK(stat(path, &st));
	ASSERT_EQ(st.st_mode, S_IFSOCK | 0640);
	again_end(&a);
}

TEST(connections, a_path_is_bound_again_however_long_it_is)
{
	expect_path(40);
	expect_path(PATH_BYTES - 1);
	expect_path(PATH_BYTES);
}

TEST(connections, a_file_of_a_socket_that_was_deleted_stays_away)
{
	struct again a;

	again_begin(&a);
	const char *path = again_path(&a, "s");
	const struct address name = of_path(path);
	int fd = make(SOCK_STREAM, &name);
	ASSERT_OK(unlink(path));
	close(ASSERT_OK(open(path, O_CREAT | O_WRONLY, 0600))); /* another file is there */
	again_add(&a, fd);
	again_cycle(&a);
	struct stat st;
	ASSERT_OK(stat(path, &st));
	ASSERT(S_ISREG(st.st_mode));
	ASSERT(again_entry(&a, fd)->usk->deleted);
	struct address got = { .len = sizeof(got.un) };
	ASSERT_OK(getsockname(again_fd(&a, fd), (struct sockaddr *)&got.un, &got.len));
	ASSERT_STR(got.un.sun_path, path);
	again_end(&a);
}

TEST(connections, a_relative_name_is_bound_in_its_directory)
{
	struct again a;

	again_begin(&a);
	ASSERT_OK(mkdir(again_path(&a, "dir"), 0700));
	ASSERT_OK(chdir(again_path(&a, "dir")));
	const struct address name = of_path("./s");
	int fd = make(SOCK_DGRAM, &name);
	ASSERT_OK(chdir("/"));
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_STR(again_entry(&a, fd)->usk->name_dir, again_path(&a, "dir"));
	const struct address where = of_path(again_path(&a, "dir/s"));
	int client = connected(SOCK_DGRAM, &where);
	say(client, "hello");
	expect(again_fd(&a, fd), "hello");
	char cwd[64];
	ASSERT_STR(getcwd(cwd, sizeof(cwd)), "/"); /* we have come back */
	again_end(&a);
}

/* The socket says its old name for ever; clients go by the new one. */
TEST(connections, a_file_of_a_socket_that_was_renamed_has_its_new_name)
{
	struct again a;

	again_begin(&a);
	const struct address name = of_path(again_path(&a, "old"));
	int fd = make(SOCK_DGRAM, &name);
	ASSERT_OK(rename(again_path(&a, "old"), again_path(&a, "new")));
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_STR(again_entry(&a, fd)->usk->file_path, again_path(&a, "new"));
	ASSERT(access(again_path(&a, "old"), F_OK) < 0);
	const struct address where = of_path(again_path(&a, "new"));
	int client = connected(SOCK_DGRAM, &where);
	say(client, "hello");
	expect(again_fd(&a, fd), "hello");
	struct address got = { .len = sizeof(got.un) };
	ASSERT_OK(getsockname(again_fd(&a, fd), (struct sockaddr *)&got.un, &got.len));
	ASSERT_STR(got.un.sun_path, again_path(&a, "old"));
	again_end(&a);
}

TEST(connections, a_file_of_a_socket_that_is_where_it_was_needs_no_other_name)
{
	struct again a;

	again_begin(&a);
	const struct address name = of_path(again_path(&a, "s"));
	int fd = make(SOCK_DGRAM, &name);
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT(!again_entry(&a, fd)->usk->file_path);
	ASSERT(!again_entry(&a, fd)->usk->deleted);
	again_end(&a);
}

TEST(connections, another_program_that_has_the_path_is_left_alone)
{
	struct again a;

	again_begin(&a);
	const struct address name = of_path(again_path(&a, "s"));
	again_add(&a, make_listener(SOCK_STREAM, &name, 1));
	again_collect(&a);
	again_save(&a);
	ASSERT_OK(unlink(again_path(&a, "s")));
	close(ASSERT_OK(open(again_path(&a, "s"), O_CREAT | O_WRONLY, 0600)));
	ASSERT_REFUSED(again_open(&a), "bind it to its path: File exists");
	again_end(&a);
}

/* ---- listeners ---- */

static void expect_listener(struct again *a, int type, const struct address *name)
{
	int server = make_listener(type, name, 5);
	int accepted_client = connected(type, name), accepted = accept(server, NULL, NULL);
	static const int order[] = { 2, 0, 1 }; /* in which they connect */
	int waiting[3];
	const struct address names[3] = { abstract(50, 'x'), abstract(50, 'y'), abstract(50, 'z') };

	say(accepted_client, "request");
	for (int i = 0; i < 3; i++)
		waiting[i] = make(type, &names[i]);
	for (int i = 0; i < 3; i++)
		ASSERT_OK(connect(waiting[order[i]], sa(name), name->len));
	again_add(a, server);
	again_add(a, accepted);
	again_add(a, accepted_client);
	for (int i = 2; i >= 0; i--)
		again_add(a, waiting[i]);
	again_cycle(a);
	expect(again_fd(a, accepted), "request");
	say(again_fd(a, accepted), "answer");
	expect(again_fd(a, accepted_client), "answer");
	/* Who waits is accepted in the order in which they came. */
	for (int i = 0; i < 3; i++) {
		struct address from = { .len = sizeof(from.un) };
		int fd = accept(again_fd(a, server), (struct sockaddr *)&from.un, &from.len);

		ASSERT_OK(fd);
		ASSERT_EQ(from.un.sun_path[49], "xyz"[order[i]]);
		say(fd, "welcome");
		expect(again_fd(a, waiting[order[i]]), "welcome");
	}
	ASSERT(accept(again_fd(a, server), NULL, NULL) < 0 && errno == EAGAIN);
	/* It goes on to listen. */
	int late = connected(type, name);
	ASSERT_OK(accept(again_fd(a, server), NULL, NULL));
	close(late);
	again_end(a);
}

TEST(connections, a_listener_has_accepted_and_waiting_clients_again)
{
	static const int with_connections[] = { SOCK_STREAM, SOCK_SEQPACKET };

	for (size_t i = 0; i < ARRAY_SIZE(with_connections); i++) {
		struct again a;
		const struct address name = abstract(60, 'l');

		again_begin(&a);
		expect_listener(&a, with_connections[i], &name);
	}
}

TEST(connections, a_listener_may_have_a_path)
{
	struct again a;

	again_begin(&a);
	const struct address name = of_path(again_path(&a, "listener"));
	expect_listener(&a, SOCK_STREAM, &name);
}

TEST(connections, a_connection_outlives_its_listener)
{
	struct again a;
	const struct address name = abstract(60, 'l');
	int server = make_listener(SOCK_STREAM, &name, 5);

	again_begin(&a);
	int client = connected(SOCK_STREAM, &name), accepted = accept(server, NULL, NULL);
	close(server);
	say(client, "request");
	again_add(&a, client);
	again_add(&a, accepted);
	again_cycle(&a);
	expect(again_fd(&a, accepted), "request");
	expect_own_name(again_fd(&a, accepted), &name);
	int nobody = make(SOCK_STREAM, NULL);
	ASSERT(connect(nobody, sa(&name), name.len) < 0 && errno == ECONNREFUSED);
	again_end(&a);
}

/* ---- datagrams ---- */

TEST(connections, datagrams_say_from_whom_they_are)
{
	struct again a;
	const struct address server = abstract(70, 's'), client = abstract(70, 'c'),
			     gone = abstract(70, 'g');
	const struct address *senders[] = { &client, &gone, NULL, &client };
	int to = make(SOCK_DGRAM, &server), from = make(SOCK_DGRAM, &client);

	again_begin(&a);
	for (size_t i = 0; i < ARRAY_SIZE(senders); i++) {
		int fd = senders[i] == &client ? dup(from) : make(SOCK_DGRAM, senders[i]);

		ASSERT_EQ(sendto(fd, &"0123"[i], 1, 0, sa(&server), server.len), 1);
		close(fd);
	}
	again_add(&a, to);
	again_add(&a, from);
	again_cycle(&a);
	for (size_t i = 0; i < ARRAY_SIZE(senders); i++) {
		struct address got = { .len = sizeof(got.un) };
		char c;

		ASSERT_EQ(recvfrom(again_fd(&a, to), &c, 1, MSG_DONTWAIT,
				   (struct sockaddr *)&got.un, &got.len),
			  1);
		ASSERT_EQ(c, "0123"[i]);
		if (senders[i]) {
			ASSERT_EQ(got.len, senders[i]->len);
			ASSERT(!memcmp(&got.un, &senders[i]->un, got.len));
		} else {
			ASSERT(got.len <= sizeof(sa_family_t));
		}
	}
	/* The name of the one that is gone is free. */
	close(make(SOCK_DGRAM, &gone));
	again_end(&a);
}

/* Whoever sends without saying where to reaches the one that it is connected to. */
TEST(connections, a_datagram_socket_may_be_connected_one_way_or_to_itself)
{
	struct again a;
	const struct address server = abstract(70, 's'), self = abstract(70, 'i');
	int to = make(SOCK_DGRAM, &server), from = connected(SOCK_DGRAM, &server);
	int own = make(SOCK_DGRAM, &self);

	again_begin(&a);
	ASSERT_OK(connect(own, sa(&self), self.len));
	say(from, "before");
	again_add(&a, from);
	again_add(&a, to);
	again_add(&a, own);
	again_cycle(&a);
	expect(again_fd(&a, to), "before");
	say(again_fd(&a, from), "after");
	expect(again_fd(&a, to), "after");
	ASSERT(send(again_fd(&a, to), "x", 1, 0) < 0 && errno == ENOTCONN);
	say(again_fd(&a, own), "to myself");
	expect(again_fd(&a, own), "to myself");
	again_end(&a);
}

static void expect_sender_of_path(bool has_file)
{
	struct again a;
	struct stat before, after;
	const struct address server = abstract(70, 's');
	int to = make(SOCK_DGRAM, &server);

	again_begin(&a);
	const char *path = again_path(&a, "gone");
	const struct address name = of_path(path);
	int from = make(SOCK_DGRAM, &name);
	ASSERT_EQ(sendto(from, "x", 1, 0, sa(&server), server.len), 1);
	close(from);
	ASSERT_OK(unlink(path));
	if (has_file) {
		close(ASSERT_OK(open(path, O_CREAT | O_WRONLY, 0600)));
		ASSERT_OK(stat(path, &before));
	}
	again_add(&a, to);
	again_cycle(&a);
	struct address got = { .len = sizeof(got.un) };
	char c;
	ASSERT_EQ(recvfrom(again_fd(&a, to), &c, 1, MSG_DONTWAIT, (struct sockaddr *)&got.un,
			   &got.len),
		  1);
	ASSERT_STR(got.un.sun_path, path);
	ASSERT_EQ(stat(path, &after) == 0, has_file);
	ASSERT(!has_file || before.st_ino == after.st_ino);
	again_end(&a);
}

TEST(connections, a_sender_that_is_gone_had_a_path)
{
	expect_sender_of_path(false);
}

TEST(connections, a_sender_that_is_gone_had_a_path_that_is_another_files)
{
	expect_sender_of_path(true);
}

static const char *const messages[] = { "abc", "", "xyz", "" };

static const struct {
	size_t n; /* of the messages above */
	bool is_shut;
} queues[] = { { 4, false }, { 4, true }, { 1, true }, { 0, true } };

/* Of an empty one nothing can be told but that it is there, also where nothing more can come. */
TEST(connections, empty_messages_are_messages)
{
	for (size_t k = 0; k < ARRAY_SIZE(queues); k++) {
		struct again a;
		int fd[2];

		again_begin(&a);
		ASSERT_OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd));
		for (size_t i = 0; i < queues[k].n; i++)
			say(fd[0], messages[i]);
		if (queues[k].is_shut)
			ASSERT_OK(shutdown(fd[1], SHUT_RD));
		again_add(&a, fd[0]);
		again_add(&a, fd[1]);
		again_cycle(&a);
		for (size_t i = 0; i < queues[k].n; i++)
			expect(again_fd(&a, fd[1]), messages[i]);
		expect_nothing(again_fd(&a, fd[1]));
		again_end(&a);
	}
}

/* ---- in flight ---- */

static void send_fd(int through, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (char *)"f", 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	ASSERT_EQ(sendmsg(through, &msg, MSG_DONTWAIT), 1);
}

static int receive_fd(int through)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	int fd;

	ASSERT_EQ(recvmsg(through, &msg, MSG_DONTWAIT), 1);
	ASSERT(CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* A socket in whose queue is one in whose queue is a pipe with bytes in it. */
TEST(connections, what_is_in_flight_arrives_even_if_it_has_a_queue)
{
	struct again a;
	int outer[2], inner[2], ends[2];
	char got[8] = { 0 };

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, outer));
	ASSERT_OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, inner));
	ASSERT_OK(pipe(ends));
	ASSERT_EQ(write(ends[1], "deep", 4), 4);
	send_fd(inner[0], ends[0]);
	send_fd(outer[0], inner[1]);
	close(ends[0]);
	close(inner[1]);
	again_add(&a, outer[0]);
	again_add(&a, outer[1]);
	again_add(&a, inner[0]);
	again_add(&a, ends[1]);
	again_cycle(&a);
	int socket = receive_fd(again_fd(&a, outer[1]));
	int pipe_end = receive_fd(socket);
	ASSERT_EQ(read(pipe_end, got, sizeof(got)), 4);
	ASSERT_STR(got, "deep");
	again_end(&a);
}

/* ---- the other end is outside ---- */

TEST(connections, a_peer_outside_prevents_the_dump)
{
	struct again a;
	char text[64];
	int fd[2];

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	again_add(&a, fd[0]);
	snprintf(text, sizeof(text), "of pid %d (", getpid()); /* who has it */
	again_blocked(&a, text);
	ASSERT(strstr(a.dump.blockers[0], "to cut it off and reconnect on restore give"));
	again_end(&a);
}

TEST(connections, a_client_outside_that_waits_prevents_the_dump)
{
	struct again a;
	const struct address name = abstract(60, 'l');

	again_begin(&a);
	again_add(&a, make_listener(SOCK_STREAM, &name, 5));
	(void)connected(SOCK_STREAM, &name);
	again_blocked(&a, "outside the tree, waits to be accepted by socket");
	again_end(&a);
}

TEST(connections, a_client_that_waits_and_is_gone_prevents_the_dump)
{
	struct again a;
	const struct address name = abstract(61, 'l');

	again_begin(&a);
	again_add(&a, make_listener(SOCK_STREAM, &name, 5));
	close(connected(SOCK_STREAM, &name));
	again_blocked(&a, "a connection whose client has closed it again waits to be accepted");
	again_end(&a);
}

TEST(connections, what_was_sent_before_it_was_accepted_prevents_the_dump)
{
	struct again a;
	const struct address name = abstract(60, 'l');

	again_begin(&a);
	again_add(&a, make_listener(SOCK_STREAM, &name, 5));
	int client = connected(SOCK_STREAM, &name);
	say(client, "early");
	again_add(&a, client);
	again_blocked(&a, "has sent data over a connection that is not accepted yet");
	again_end(&a);
}

static void cut(struct again *a, int fd, const char *where, char text[64])
{
	struct stat st;

	ASSERT_OK(fstat(fd, &st));
	snprintf(text, 64, "%u%s", (unsigned)st.st_ino, where);
	a->opts.ext_unix_sk.n = 1;
	a->opts.ext_unix_sk.item[0] = text;
}

TEST(connections, one_that_is_cut_off_finds_its_server_again)
{
	struct again a;
	const struct address name = abstract(60, 'l');
	int server = make_listener(SOCK_STREAM, &name, 5);
	char option[64];

	again_begin(&a);
	int client = connected(SOCK_STREAM, &name);
	int old = ASSERT_OK(accept(server, NULL, NULL));
	cut(&a, client, "", option);
	again_add(&a, client);
	again_cycle(&a);
	int accepted = ASSERT_OK(accept(server, NULL, NULL));
	ASSERT(accepted != old);
	say(accepted, "hello");
	expect(again_fd(&a, client), "hello");
	again_end(&a);
}

TEST(connections, one_that_is_cut_off_may_come_back_closed)
{
	struct again a;
	char option[64], c;
	int fd[2];

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	say(fd[1], "unread");
	cut(&a, fd[0], "", option);
	again_add(&a, fd[0]);
	again_collect(&a);
	cut(&a, fd[0], "=close", option);
	again_save(&a);
	ASSERT_OK(again_open(&a));
	expect(again_fd(&a, fd[0]), "unread");
	ASSERT_EQ(recv(again_fd(&a, fd[0]), &c, 1, MSG_DONTWAIT), 0);
	again_end(&a);
}

TEST(connections, one_that_is_cut_off_needs_to_be_told_what_becomes_of_it)
{
	struct again a;
	char option[64];
	int fd[2];

	again_begin(&a);
	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	cut(&a, fd[0], "", option);
	again_add(&a, fd[0]);
	again_collect(&a);
	again_save(&a);
	ASSERT_REFUSED(again_open(&a), "its peer outside had no name; give --inherit-fd");
	a.opts.ext_unix_sk.n = 0;
	ASSERT_REFUSED(again_open(&a), "to connect it again give --ext-unix-sk=");
	again_end(&a);
}

/* ---- entries that make no sense ---- */

static UnixSkEntry *socket_of_world(struct world *w)
{
	FileEntry *e = world_add_file(w, 9, FD_TYPES__UNIXSK);

	e->usk = MESSAGE(&w->arena, UnixSkEntry, unix_sk_entry);
	e->usk->id = 9;
	e->usk->ino = 4711;
	e->usk->type = SOCK_STREAM;
	e->usk->opts = MESSAGE(&w->arena, SkOptsEntry, sk_opts_entry);
	return e->usk;
}

static const struct {
	size_t name_len;
	char name[8]; /* how it begins */
	const char *name_dir, *file_path;
	uint32_t type, uflags;
	const char *text; /* NULL: it is good */
} entries[] = {
	{ 0, "", NULL, NULL, SOCK_STREAM, 0, NULL },
	{ 109, "/", NULL, NULL, SOCK_DGRAM, 0, NULL },
	{ 110, "/", NULL, NULL, SOCK_DGRAM, 0, "unix socket 0x9 makes no sense" },
	{ 0, "", NULL, NULL, SOCK_RAW, 0, "unix socket 0x9 makes no sense" },
	{ 3, "\0ab", NULL, NULL, SOCK_DGRAM, 0, NULL },
	{ 3, "rel", "/dir", NULL, SOCK_DGRAM, 0, NULL },
	{ 3, "rel", NULL, NULL, SOCK_DGRAM, UNIX_OUTSIDE, NULL },
	{ 3, "rel", NULL, NULL, SOCK_DGRAM, 0, "the directory of its name rel is missing or not" },
	{ 3, "rel", "dir", NULL, SOCK_DGRAM, 0, "the directory of its name rel is missing or not" },
	{ 4, "/abs", "dir", NULL, SOCK_DGRAM, 0, "the directory of its name /abs is missing" },
	{ 4, "/abs", NULL, "/new", SOCK_DGRAM, 0, NULL },
	{ 4, "/abs", NULL, "new", SOCK_DGRAM, 0, "the directory of its name /abs is missing" },
};

TEST(unix, entries_that_make_no_sense_are_refused)
{
	struct world w;
	const struct restore r = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		uint8_t name[110];

		world_begin(&w);
		UnixSkEntry *e = socket_of_world(&w);
		memset(name, 'x', sizeof(name));
		memcpy(name, entries[i].name, min(entries[i].name_len, sizeof(entries[i].name)));
		e->name = (ProtobufCBinaryData){ entries[i].name_len, name };
		e->name_dir = (char *)entries[i].name_dir;
		e->file_path = (char *)entries[i].file_path;
		e->type = entries[i].type;
		e->uflags = entries[i].uflags;
		const FileEntry file = { .id = 9, .usk = e };
		if (entries[i].text)
			ASSERT_REFUSED(unix_check(&r, &file), entries[i].text);
		else
			ASSERT_OK(unix_check(&r, &file));
		e->ino = 0;
		ASSERT_REFUSED(unix_check(&r, &file), "makes no sense");
		arena_done(&w.arena);
	}
}
