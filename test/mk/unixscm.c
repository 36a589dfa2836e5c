/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What messages carry besides data: descriptors that exist nowhere else while
 * they are on their way, and credentials.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"
#include "sk.h"

#define MAX_SENT	4
#define FILE_OFFSET	1234
#define FILE_BYTES	10000
#define SOMEBODY	4321
#define LAST_SEED	600

static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
static const char *const type_names[] = { "stream", "dgram", "seqpacket" };
static const long last[] = { 20, NO_RECORD };	/* an ordinary message behind the others */

/* One carrier of each type, and who is left of the things that are on their way. */
struct carrier {
	const char *what;
	int out, in;
	int pipe_r;		/* its writer is in flight */
	int sock;		/* its peer is in flight */
	int both;		/* is in flight, too */
};

static struct carrier carriers[ARRAY_SIZE(types)];

union control {
	char buf[CMSG_SPACE(MAX_SENT * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	struct cmsghdr align;
};

/* ---- messages ---- */

static void send_fds(int out, uint64_t number, const int *fds, int nr)
{
	union control control = { 0 };
	struct iovec iov = { &number, sizeof(number) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.buf, .msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nr * sizeof(int));
	if (sendmsg(out, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(number))
		bad("sending descriptors: %s", strerror(errno));
}

/* False when not exactly this message with @nr descriptors came; then none is open. */
static bool receive_fds(const char *what, int in, uint64_t number, int *fds, int nr)
{
	union control control;
	uint64_t got = 0;
	struct iovec iov = { &got, sizeof(got) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.buf, .msg_controllen = sizeof(control.buf),
	};
	ssize_t n = recvmsg(in, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	int came = 0, i;

	if (c && c->cmsg_type == SCM_RIGHTS)
		came = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	if (came)
		memcpy(fds, CMSG_DATA(c), came * sizeof(int));
	if (n == sizeof(got) && got == number && came == nr && !(msg.msg_flags & MSG_CTRUNC))
		return true;
	bad("%s: message %ld, expected %d descriptors, got %d, %zd bytes", what, (long)number, nr,
	    came, n);
	for (i = 0; i < came; i++)
		close(fds[i]);
	return false;
}

/* What was sent lives on in the message only. */
static void send_away(int out, uint64_t number, const int *fds, int nr)
{
	int i;

	send_fds(out, number, fds, nr);
	for (i = 0; i < nr; i++)
		close(fds[i]);
}

/* ---- what travels ---- */

static const long parcel[] = { 6, NO_RECORD };

static int new_file(const char *name)
{
	static unsigned char content[FILE_BYTES];
	int fd = need(name, open(dir_path(name), O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600));

	fill(content, sizeof(content), 1);
	if (write(fd, content, sizeof(content)) != sizeof(content))
		die("%s: %s", name, strerror(errno));
	lseek(fd, FILE_OFFSET, SEEK_SET);
	return fd;
}

/* Message 1: a writer and a file; 2: one whose peer we keep; 3: a pipe nobody has; 4: a dup. */
static void make_carrier(struct carrier *c, int type, const char *what)
{
	int pair[2], ends[2], socks[2], lone[2];

	c->what = what;
	need("socketpair", socketpair(AF_UNIX, type, 0, pair));
	c->out = remember_fd(what, pair[0]);
	c->in = remember_fd(what, pair[1]);
	need("pipe", pipe(ends));
	need("pipe", pipe(lone));
	need("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks));
	c->pipe_r = remember_fd("reader", ends[0]);
	c->sock = remember_fd("peer", socks[0]);
	c->both = remember_fd("here and there", new_file("both"));
	if (write(ends[1], "first", 5) != 5 || write(lone[1], "alone", 5) != 5)
		die("write: %s", strerror(errno));
	put_records(what, socks[0], parcel, 40);
	send_away(c->out, 1, (int[]){ ends[1], new_file(what) }, 2);
	send_away(c->out, 2, &socks[1], 1);
	send_away(c->out, 3, lone, 2);
	send_fds(c->out, 4, &c->both, 1);
	put_records(what, c->out, last, LAST_SEED);
}

static void check_pipe(const char *what, int r, int w, const char *content)
{
	char buf[16] = "";

	fcntl(r, F_SETFL, O_NONBLOCK);
	if (read(r, buf, sizeof(buf)) != 5 || memcmp(buf, content, 5))
		bad("%s: the pipe does not hold '%s'", what, content);
	if (write(w, "again", 5) != 5 || read(r, buf, sizeof(buf)) != 5 || memcmp(buf, "again", 5))
		bad("%s: what arrived is not the other end of the pipe", what);
	if (write(w, content, 5) != 5)
		bad_errno(what);
	fcntl(r, F_SETFL, 0);
}

static void check_file(const char *what, int fd)
{
	unsigned char expected[FILE_OFFSET + 100], got[100] = { 0 };
	int flags = fcntl(fd, F_GETFL);

	same_long("flags of the file", O_RDWR | O_APPEND,
		  flags & (O_ACCMODE | O_APPEND | O_NONBLOCK));
	same_long("offset of the file", FILE_OFFSET, lseek(fd, 0, SEEK_CUR));
	fill(expected, sizeof(expected), 1);
	if (pread(fd, got, sizeof(got), FILE_OFFSET) != sizeof(got) ||
	    memcmp(got, expected + FILE_OFFSET, sizeof(got)))
		bad("%s: the file that arrived has another content", what);
}

static void check_first(const struct carrier *c)
{
	int fds[MAX_SENT];

	if (!receive_fds(c->what, c->in, 1, fds, 2))
		return;
	check_pipe(c->what, c->pipe_r, fds[0], "first");
	check_file(c->what, fds[1]);
	send_away(c->out, 1, fds, 2);
}

static void check_socket(const struct carrier *c)
{
	int fds[MAX_SENT];

	if (!receive_fds(c->what, c->in, 2, fds, 1))
		return;
	if (take_records(c->what, fds[0], parcel, 40)) {
		check_talk(c->what, c->sock, fds[0]);
		put_records(c->what, c->sock, parcel, 40);
	}
	send_away(c->out, 2, fds, 1);
}

static void check_lone(const struct carrier *c)
{
	int fds[MAX_SENT];

	if (!receive_fds(c->what, c->in, 3, fds, 2))
		return;
	check_pipe(c->what, fds[0], fds[1], "alone");
	send_away(c->out, 3, fds, 2);
}

static void check_both(const struct carrier *c)
{
	int fds[MAX_SENT];

	if (!receive_fds(c->what, c->in, 4, fds, 1))
		return;
	check_same_file("here and in a message", c->both, fds[0]);
	send_away(c->out, 4, fds, 1);
}

/* Exactly its bytes: one more would be of the next message, and its descriptors be lost. */
static void check_last(const struct carrier *c)
{
	unsigned char got[20];

	if (recv(c->in, got, sizeof(got), MSG_DONTWAIT) != sizeof(got) ||
	    verify(got, sizeof(got), LAST_SEED) >= 0)
		bad("%s: the ordinary message behind the others is lost", c->what);
	put_records(c->what, c->out, last, LAST_SEED);
}

/* Each goes to the end of the queue again, which has the old order in the end. */
static void check_carrier(const struct carrier *c)
{
	check_first(c);
	check_socket(c);
	check_lone(c);
	check_both(c);
	check_last(c);
}

/* ---- a message in a message ---- */

static int nest_out, nest_in, nest_pipe;

static void make_nest(void)
{
	int outer[2], inner[2], ends[2];

	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, outer));
	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, inner));
	need("pipe", pipe(ends));
	nest_out = remember_fd("outer", outer[0]);
	nest_in = remember_fd("outer", outer[1]);
	nest_pipe = remember_fd("reader of the inner pipe", ends[0]);
	if (write(ends[1], "inner", 5) != 5)
		die("write: %s", strerror(errno));
	send_away(inner[0], 8, &ends[1], 1);
	send_away(nest_out, 9, inner, 2);
}

static void check_nest(void)
{
	int fds[MAX_SENT], w[MAX_SENT];

	if (!receive_fds("outer", nest_in, 9, fds, 2))
		return;
	if (receive_fds("inner", fds[1], 8, w, 1)) {
		check_pipe("inner", nest_pipe, w[0], "inner");
		send_away(fds[0], 8, w, 1);
	}
	send_away(nest_out, 9, fds, 2);
}

/* ---- credentials ---- */

static struct { int out, in; } told[ARRAY_SIZE(types)];

/* Root may tell whatever it likes; uid -1: says nothing, and the kernel does. */
static void send_cred(int out, int uid)
{
	union control control = { 0 };
	struct ucred cred = { getpid(), uid, uid };
	struct iovec iov = { &uid, sizeof(uid) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (uid >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(cred));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_CREDENTIALS;
		c->cmsg_len = CMSG_LEN(sizeof(cred));
		memcpy(CMSG_DATA(c), &cred, sizeof(cred));
	}
	if (sendmsg(out, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(uid))
		bad("sending credentials: %s", strerror(errno));
}

static void check_cred(const char *what, int in, int uid)
{
	union control control;
	struct ucred cred = { 0 };
	int got = 0, shown = uid < 0 ? (int)getuid() : uid;
	struct iovec iov = { &got, sizeof(got) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.buf, .msg_controllen = sizeof(control.buf),
	};
	ssize_t n = recvmsg(in, &msg, MSG_DONTWAIT);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);

	if (n != sizeof(got) || got != uid || !c || c->cmsg_type != SCM_CREDENTIALS) {
		bad("%s: no message with credentials: %zd bytes", what, n);
		return;
	}
	memcpy(&cred, CMSG_DATA(c), sizeof(cred));
	same_long("pid of the sender", getpid(), cred.pid);
	same_long("uid of the sender", shown, cred.uid);
	same_long("gid of the sender", shown, cred.gid);
}

static void send_creds(int out)
{
	send_cred(out, 0);
	send_cred(out, SOMEBODY);
	send_cred(out, -1);
}

static void make_creds(void)
{
	int pair[2], one = 1;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		need("socketpair", socketpair(AF_UNIX, types[i], 0, pair));
		told[i].out = remember_fd("tells who it is", pair[0]);
		told[i].in = remember_fd("is told", pair[1]);
		need("SO_PASSCRED",
		     setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)));
		send_creds(pair[0]);
	}
}

static void check_creds(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		check_cred(type_names[i], told[i].in, 0);
		check_cred(type_names[i], told[i].in, SOMEBODY);
		check_cred(type_names[i], told[i].in, -1);
		send_creds(told[i].out);
	}
}

/* ---- all of it ---- */

static void make(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		make_carrier(&carriers[i], types[i], type_names[i]);
	if (param_long("nested"))
		make_nest();
	if (param_long("creds"))
		make_creds();
	note_fds();
}

static void check(void)
{
	size_t i;

	check_fds();
	for (i = 0; i < ARRAY_SIZE(types); i++)
		check_carrier(&carriers[i]);
	if (param_long("nested"))
		check_nest();
	if (param_long("creds"))
		check_creds();
}

struct factory unixscm_factory = {
	.name	= "unixscm",
	.about	= "descriptors and credentials on their way through unix sockets",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "creds", "0", "1: messages with SCM_CREDENTIALS" },
		{ "nested", "0", "1: a socket on its way with a descriptor on its way" },
	},
	.make	= make,
	.check	= check,
};
