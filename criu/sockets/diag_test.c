/* SPDX-License-Identifier: GPL-2.0-only */
#include "sockets/diag.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/own.h"
#include "base/test.h"

static uint32_t inode_of(int fd)
{
	struct stat st;

	ASSERT_OK(fstat(fd, &st));
	return st.st_ino;
}

static int bound(int type, const struct sockaddr_un *addr, size_t name_len)
{
	int fd = ASSERT_OK(socket(AF_UNIX, type, 0));

	ASSERT_OK(bind(fd, (const struct sockaddr *)addr,
		       offsetof(struct sockaddr_un, sun_path) + name_len));
	return fd;
}

/* An abstract name that is nobody else's, as long as wanted. */
static struct sockaddr_un own_name(size_t len)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	memset(addr.sun_path, 'n', sizeof(addr.sun_path));
	addr.sun_path[0] = '\0';
	snprintf(addr.sun_path + 1, 30, "criu-unit-%d", getpid()); /* ends in a zero byte */
	ASSERT(len <= sizeof(addr.sun_path));
	return addr;
}

static const struct unix_info *ask(struct arena *a, uint32_t ino)
{
	struct unix_table t;

	ASSERT_OK(unix_table_read(a, &t));
	const struct unix_info *u = unix_table_find(&t, ino);
	ASSERT(u);
	for (size_t i = 1; i < t.n; i++)
		ASSERT(t.info[i].ino > t.info[i - 1].ino);
	return u;
}

TEST(diag, both_ends_of_a_pair_know_each_other)
{
	struct arena a = { 0 };
	int fd[2];

	ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	ASSERT_EQ(write(fd[0], "hello", 5), 5);
	ASSERT_OK(shutdown(fd[0], SHUT_WR));
	uint32_t first = inode_of(fd[0]), second = inode_of(fd[1]);
	const struct unix_info *u = ask(&a, first);
	ASSERT_EQ(u->peer, second);
	ASSERT(u->has_peer);
	ASSERT_EQ(u->type, SOCK_STREAM);
	ASSERT_EQ(u->state, 1);
	ASSERT_EQ(u->shutdown, 2);
	ASSERT_EQ(u->name_len, 0);
	ASSERT(!u->has_file);
	u = ask(&a, second);
	ASSERT_EQ(u->peer, first);
	ASSERT_EQ(u->rqueue, 5);
	ASSERT_EQ(u->shutdown, 1);
	arena_done(&a);
}

TEST(diag, an_abstract_name_is_told_byte_by_byte)
{
	const struct sockaddr_un addr = own_name(sizeof(addr.sun_path));
	struct arena a = { 0 };
	static const size_t lengths[] = { 40, sizeof(addr.sun_path) };

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		autoclose int fd = bound(SOCK_DGRAM, &addr, lengths[i]);
		const struct unix_info *u = ask(&a, inode_of(fd));

		ASSERT_EQ(u->name_len, lengths[i]);
		ASSERT(!memcmp(u->name, addr.sun_path, lengths[i]));
		ASSERT(!u->has_peer);
		ASSERT(!u->has_file);
	}
	arena_done(&a);
}

TEST(diag, a_path_comes_with_its_file)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct arena a = { 0 };
	struct stat st;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", test_path());
	autoclose int fd = bound(SOCK_STREAM, &addr, strlen(addr.sun_path));
	ASSERT_OK(stat(addr.sun_path, &st));
	const struct unix_info *u = ask(&a, inode_of(fd));
	ASSERT(u->has_file);
	ASSERT_EQ(u->file_ino, st.st_ino);
	ASSERT_EQ(strncmp((char *)u->name, addr.sun_path, u->name_len), 0);
	arena_done(&a);
}

TEST(diag, a_listener_knows_who_waits_in_their_order)
{
	const struct sockaddr_un addr = own_name(30);
	struct arena a = { 0 };
	autoclose int server = bound(SOCK_STREAM, &addr, 30);
	uint32_t clients[3];

	ASSERT_OK(listen(server, 7));
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
		int fd = ASSERT_OK(socket(AF_UNIX, SOCK_STREAM, 0));

		ASSERT_OK(connect(fd, (const struct sockaddr *)&addr,
				  offsetof(struct sockaddr_un, sun_path) + 30));
		clients[i] = inode_of(fd);
	}
	const struct unix_info *u = ask(&a, inode_of(server));
	ASSERT_EQ(u->state, 10);
	ASSERT_EQ(u->wqueue, 7);
	ASSERT_EQ(u->n_icons, ARRAY_SIZE(clients));
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
		ASSERT_EQ(u->icons[i], clients[i]);
	/* The other end is nobody's yet. */
	ASSERT_EQ(ask(&a, clients[0])->peer, 0);
	arena_done(&a);
}

TEST(diag, what_is_in_no_table_is_not_found)
{
	struct unix_table t = { 0 };
	struct unix_info one = { .ino = 5 };

	ASSERT(!unix_table_find(&t, 5));
	t = (struct unix_table){ &one, 1 };
	ASSERT(unix_table_find(&t, 5) == &one);
	ASSERT(!unix_table_find(&t, 4));
}
