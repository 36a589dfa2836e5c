/* SPDX-License-Identifier: GPL-2.0-only */
#include "sockets/options.h"

#include <sys/socket.h>
#include <sys/time.h>

#include "base/own.h"
#include "base/test.h"

static int get_int(int fd, int option)
{
	int value = -1;
	socklen_t len = sizeof(value);

	ASSERT_OK(getsockopt(fd, SOL_SOCKET, option, &value, &len));
	return value;
}

static void set_int(int fd, int option, int value)
{
	ASSERT_OK(setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)));
}

static const struct {
	int option, value;
} numbers[] = {
	{ SO_PRIORITY, 5 },  { SO_RCVLOWAT, 77 },  { SO_MARK, 3 },	 { SO_PASSCRED, 1 },
	{ SO_DONTROUTE, 1 }, { SO_KEEPALIVE, 1 },  { SO_BROADCAST, 1 },	 { SO_OOBINLINE, 1 },
	{ SO_TIMESTAMP, 1 }, { SO_SNDBUF, 20000 }, { SO_RCVBUF, 30000 },
};

/* Another socket gets what one has; the first is unix, where not all of them mean something. */
TEST(options_of_sockets, are_the_same_afterwards)
{
	const struct timeval send = { 3, 500000 }, receive = { 7, 0 };
	const struct linger linger = { 1, 9 };
	struct arena a = { 0 };
	struct timeval t;
	struct linger l;
	socklen_t len = sizeof(t);
	SkOptsEntry *e;

	autoclose int from = ASSERT_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	autoclose int to = ASSERT_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		set_int(from, numbers[i].option, numbers[i].value);
	ASSERT_OK(setsockopt(from, SOL_SOCKET, SO_SNDTIMEO, &send, sizeof(send)));
	ASSERT_OK(setsockopt(from, SOL_SOCKET, SO_RCVTIMEO, &receive, sizeof(receive)));
	ASSERT_OK(setsockopt(from, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	ASSERT_OK(socket_options_read(&a, from, &e));
	ASSERT_OK(socket_options_set(to, e));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		ASSERT_EQ(get_int(to, numbers[i].option), get_int(from, numbers[i].option));
	ASSERT_OK(getsockopt(to, SOL_SOCKET, SO_SNDTIMEO, &t, &len));
	ASSERT_EQ(t.tv_sec * 1000000 + t.tv_usec, 3500000);
	ASSERT_OK(getsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &t, &len));
	ASSERT_EQ(t.tv_sec * 1000000 + t.tv_usec, 7000000);
	len = sizeof(l);
	ASSERT_OK(getsockopt(to, SOL_SOCKET, SO_LINGER, &l, &len));
	ASSERT(l.l_onoff);
	ASSERT_EQ(l.l_linger, 9);
	arena_done(&a);
}

TEST(options_of_sockets, buffers_may_be_larger_than_others_may_ask_for)
{
	const int huge = 64 << 20;
	struct arena a = { 0 };
	SkOptsEntry *e;

	autoclose int from = ASSERT_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	autoclose int to = ASSERT_OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	set_int(from, SO_SNDBUFFORCE, huge);
	set_int(from, SO_RCVBUFFORCE, huge);
	ASSERT_OK(socket_options_read(&a, from, &e));
	ASSERT_EQ(e->so_sndbuf, 2 * huge);
	ASSERT_OK(socket_options_set(to, e));
	ASSERT_EQ(get_int(to, SO_SNDBUF), 2 * huge);
	ASSERT_EQ(get_int(to, SO_RCVBUF), 2 * huge);
	arena_done(&a);
}

TEST(options_of_sockets, what_is_off_is_not_in_the_entry)
{
	struct arena a = { 0 };
	SkOptsEntry *e;

	autoclose int fd = ASSERT_OK(socket(AF_UNIX, SOCK_STREAM, 0));
	ASSERT_OK(socket_options_read(&a, fd, &e));
	ASSERT(!e->has_so_priority);
	ASSERT(!e->has_so_passcred);
	ASSERT(!e->has_so_linger);
	ASSERT(!e->has_so_mark);
	ASSERT_EQ(e->so_snd_tmo_sec, 0);
	arena_done(&a);
}

TEST(options_of_sockets, a_file_has_none)
{
	SkOptsEntry e = SK_OPTS_ENTRY__INIT, *got;
	struct arena a = { 0 };
	int fd[2];

	ASSERT_OK(pipe(fd));
	ASSERT_EQ(socket_options_read(&a, fd[0], &got), -ENOTSOCK);
	e.has_so_linger = true;
	ASSERT_EQ(socket_options_set(fd[0], &e), -ENOTSOCK);
	arena_done(&a);
}
