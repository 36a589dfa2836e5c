/* SPDX-License-Identifier: GPL-2.0-only */
/* Unix sockets: names, queues, servers. Nothing here ever waits for data. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"
#include "sk.h"

#define NAME_START	offsetof(struct sockaddr_un, sun_path)
#define SERVER_SEED	9000

static unsigned char scratch[MAX_RECORDS + 1];
static const long server_records[] = { 1, 3000, NO_RECORD };

/* ---- names ---- */

struct name path_name(const char *path)
{
	struct name n = { .addr.un.sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(n.addr.un.sun_path))
		skip("%s is too long for a socket", path);
	strcpy(n.addr.un.sun_path, path);
	n.len = NAME_START + strlen(path) + 1;
	return n;
}

struct name abstract_name(const char *bytes, size_t len)
{
	struct name n = { .addr.un.sun_family = AF_UNIX };
	int used = snprintf(n.addr.un.sun_path + 1, 32, "mk-%d-", getpid()) + 1;

	if (used + len > sizeof(n.addr.un.sun_path))
		die("the abstract name is too long");
	memcpy(n.addr.un.sun_path + used, bytes, len);
	n.len = NAME_START + used + len;
	return n;
}

struct name own_name(int fd)
{
	struct name n = { .len = sizeof(n.addr) };

	if (getsockname(fd, (struct sockaddr *)&n.addr, &n.len))
		n.len = 0;
	return n;
}

struct name peer_name(int fd)
{
	struct name n = { .len = sizeof(n.addr) };

	if (getpeername(fd, (struct sockaddr *)&n.addr, &n.len))
		n.len = 0;
	return n;
}

/* Zeroes as @, with the length, which tells them apart at the end. */
static void describe(struct name n, char *text, size_t size)
{
	size_t i, end = 0;

	for (i = NAME_START; i < n.len && end < size - 8; i++)
		text[end++] = n.addr.bytes[i] ? n.addr.bytes[i] : '@';
	snprintf(text + end, size - end, " (%u)", n.len);
}

/* The kernel counts a zero byte at the end of a path where the caller may not have. */
bool same_name(const char *what, struct name expected, struct name got)
{
	char text[2][160];

	if (expected.len == got.len && !memcmp(&expected.addr, &got.addr, got.len))
		return true;
	describe(expected, text[0], sizeof(text[0]));
	describe(got, text[1], sizeof(text[1]));
	bad("%s, expected %s, got %s", what, text[0], text[1]);
	return false;
}

int new_socket(int type)
{
	return need("socket", socket(AF_UNIX, type, 0));
}

void bind_name(int fd, struct name name)
{
	need("bind", bind(fd, (struct sockaddr *)&name.addr, name.len));
}

void connect_name(int fd, struct name name)
{
	need("connect", connect(fd, (struct sockaddr *)&name.addr, name.len));
}

/* ---- queues ---- */

static int type_of(int fd)
{
	int type = -1;
	socklen_t len = sizeof(type);

	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
	return type;
}

void put_records(const char *what, int fd, const long *records, uint64_t seed)
{
	for (; *records != NO_RECORD; records++) {
		fill(scratch, *records, seed++);
		if (send(fd, scratch, *records, MSG_DONTWAIT | MSG_NOSIGNAL) != *records) {
			bad_errno(what);
			return;
		}
	}
}

static bool same_record(const char *what, int nr, long len, uint64_t seed, const void *got)
{
	ssize_t at = verify(got, len, seed);

	if (at >= 0)
		bad("%s: record %d has wrong data at byte %zd", what, nr, at);
	return at < 0;
}

static bool receive_stream(const char *what, int fd, const long *records, uint64_t seed, int flags)
{
	long total = 0, got = 0, n;
	int i;

	for (i = 0; records[i] != NO_RECORD; i++)
		total += records[i];
	/* one byte more than there should be */
	while (got <= total &&
	       (n = recv(fd, scratch + got, total + 1 - got, flags | MSG_DONTWAIT)) > 0)
		got += n;
	if (got != total) {
		bad("%s: bytes queued, expected %ld, got %ld", what, total, got);
		return false;
	}
	for (i = 0, got = 0; records[i] != NO_RECORD; got += records[i++])
		if (!same_record(what, i, records[i], seed + i, scratch + got))
			return false;
	return true;
}

static bool receive_packets(const char *what, int fd, const long *records, uint64_t seed, int flags)
{
	long n;
	int i;

	for (i = 0; records[i] != NO_RECORD; i++) {
		n = recv(fd, scratch, sizeof(scratch), flags | MSG_DONTWAIT | MSG_TRUNC);
		if (n != records[i]) {
			bad("%s: length of record %d, expected %ld, got %ld", what, i,
			    records[i], n);
			return false;
		}
		if (!same_record(what, i, n, seed + i, scratch))
			return false;
	}
	return true;
}

static bool receive(const char *what, int fd, const long *records, uint64_t seed, int flags)
{
	return type_of(fd) == SOCK_STREAM ? receive_stream(what, fd, records, seed, flags) :
					    receive_packets(what, fd, records, seed, flags);
}

/* Nothing more, and -1 or the 0 of the end of the file. */
static bool check_behind(const char *what, int fd, bool eof, int flags)
{
	char text[96];
	long n = recv(fd, scratch, 1, flags | MSG_DONTWAIT);

	snprintf(text, sizeof(text), "%s: recv behind the last", what);
	return same_long(text, eof ? 0 : -1, n);
}

bool take_records(const char *what, int fd, const long *records, uint64_t seed)
{
	return receive(what, fd, records, seed, 0) && check_behind(what, fd, false, 0);
}

/* With an offset, each MSG_PEEK goes on where the one before ended. */
void peek_records(const char *what, int fd, const long *records, uint64_t seed, bool eof)
{
	int start = 0, off = -1;

	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start)))
		bad_errno("SO_PEEK_OFF");
	else if (receive(what, fd, records, seed, MSG_PEEK))
		check_behind(what, fd, eof, MSG_PEEK);
	setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off));
}

static void check_one_way(const char *what, int from, int to)
{
	static uint64_t number;
	uint64_t sent = mix(++number), got = 0;

	if (send(from, &sent, sizeof(sent), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(sent) ||
	    recv(to, &got, sizeof(got), MSG_DONTWAIT) != sizeof(got) || got != sent)
		bad("%s: nothing comes from %d to %d: %s", what, from, to, strerror(errno));
}

void check_talk(const char *what, int a, int b)
{
	check_one_way(what, a, b);
	check_one_way(what, b, a);
}

short socket_events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	return poll(&p, 1, 0) < 0 ? POLLNVAL : p.revents;
}

void check_send_fails(const char *what, int fd, int error)
{
	errno = 0;
	if (send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != -1 || errno != error)
		bad("%s: send, expected '%s', got '%s'", what, strerror(error), strerror(errno));
}

/* ---- servers ---- */

void start_server(struct server *s, const char *what, int type, struct name name)
{
	s->what = what;
	s->type = type;
	s->listener = remember_fd(what, new_socket(type));
	bind_name(s->listener, name);
	s->name = own_name(s->listener);
	need("listen", listen(s->listener, 5));
	s->client = remember_fd(what, new_socket(type));
	connect_name(s->client, name);	/* its own may be longer than that */
	s->accepted = remember_fd(what, accept(s->listener, NULL, NULL));
	put_records(what, s->client, server_records, SERVER_SEED);
	put_records(what, s->accepted, server_records, SERVER_SEED + 10);
}

static void check_names(const struct server *s)
{
	const struct name none = { .addr.un.sun_family = AF_UNIX, .len = NAME_START };
	char text[96];

	snprintf(text, sizeof(text), "%s: name", s->what);
	same_name(text, s->name, own_name(s->listener));
	same_name(text, s->name, own_name(s->accepted));
	same_name(text, s->name, peer_name(s->client));
	snprintf(text, sizeof(text), "%s: no name", s->what);
	same_name(text, none, own_name(s->client));
	same_name(text, none, peer_name(s->accepted));
}

static void check_connection(const struct server *s)
{
	bool good = take_records(s->what, s->accepted, server_records, SERVER_SEED);

	if (!take_records(s->what, s->client, server_records, SERVER_SEED + 10) || !good)
		return;
	check_talk(s->what, s->client, s->accepted);
	put_records(s->what, s->client, server_records, SERVER_SEED);
	put_records(s->what, s->accepted, server_records, SERVER_SEED + 10);
}

static void check_new_client(const struct server *s, struct name reach)
{
	int client = new_socket(s->type | SOCK_NONBLOCK), accepted = -1;

	if (connect(client, (struct sockaddr *)&reach.addr, reach.len))
		bad("%s: a new client: %s", s->what, strerror(errno));
	else if (!(socket_events(s->listener) & POLLIN))
		bad("%s: a new client reaches another server", s->what);
	else if ((accepted = accept(s->listener, NULL, NULL)) < 0)
		bad("%s: accept: %s", s->what, strerror(errno));
	else
		check_talk(s->what, client, accepted);
	close(client);
	if (accepted >= 0)
		close(accepted);
}

void check_server(const struct server *s, const struct name *reach)
{
	int listens = 0;
	socklen_t len = sizeof(listens);

	getsockopt(s->listener, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len);
	if (!listens)
		bad("%s: does not listen", s->what);
	if (socket_events(s->listener))
		bad("%s: somebody waits to be accepted", s->what);
	check_names(s);
	check_connection(s);
	if (reach)
		check_new_client(s, *reach);
}
