/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unix sockets: pairs with data and shut down, servers with clients in another
 * process, connections nobody has accepted yet, datagrams, and options.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"
#include "sk.h"

#define CHILD_CODE	21
#define OWNER		1000
#define GROUP		1001
#define CHUNK		4096
#define PEEK_AT		5
#define HOW_MANY	10	/* clients that try to fill a backlog */

static const long nothing[] = { NO_RECORD };
static const long bytes[] = { 1, 5000, 70000, NO_RECORD };
static const long full_packets[] = { 4096, 1, 30000, NO_RECORD };
static const long some_empty[] = { 4096, 0, 1, 30000, 0, NO_RECORD };
static const long solid[] = { 10, 6000, 1, NO_RECORD };
static const long ten[] = { 10, NO_RECORD };

static const long *packets(void)
{
	return param_long("empty") ? some_empty : full_packets;
}

static const char *type_name(int type)
{
	return type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "dgram" : "seqpacket";
}

/* ---- pairs ---- */

struct pair {
	char what[48];
	int type, how;			/* how: of shutdown(), for the first; -1: not at all */
	int fds[2];
	const long *from[2];		/* records the first and the second have sent */
	short events[2];
};

static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
static const int hows[] = { SHUT_RD, SHUT_WR, SHUT_RDWR };
static const char *const how_names[] = { "read", "write", "both" };

static struct pair whole[ARRAY_SIZE(types)][4], halves[ARRAY_SIZE(types)][ARRAY_SIZE(hows)];
static struct pair gone[ARRAY_SIZE(types)], reset;
static int first_dup;

static void make_pair(struct pair *p, int type, int flags, const long *first, const long *second)
{
	p->type = type;
	p->how = -1;
	p->from[0] = first;
	p->from[1] = second;
	need("socketpair", socketpair(AF_UNIX, type | flags, 0, p->fds));
	put_records(p->what, p->fds[0], first, p->fds[0]);
	put_records(p->what, p->fds[1], second, p->fds[1]);
}

static void note_pair(struct pair *p)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (p->fds[i] < 0)
			continue;
		remember_fd(p->what, p->fds[i]);
		p->events[i] = socket_events(p->fds[i]);
	}
}

/* Without data, with data one way, the other, both; and with other flags each time. */
static void make_whole(int type, struct pair *p)
{
	static const int flags[] = { 0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC };
	const long *data = type == SOCK_STREAM ? bytes : packets();
	int i;

	for (i = 0; i < 4; i++) {
		snprintf(p[i].what, sizeof(p[i].what), "%s pair %d", type_name(type), i);
		make_pair(&p[i], type, flags[i], i & 1 ? data : nothing, i & 2 ? data : nothing);
		note_pair(&p[i]);
	}
}

static void make_halves(int type, struct pair *p)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hows); i++) {
		snprintf(p[i].what, sizeof(p[i].what), "%s, %s shut", type_name(type),
			 how_names[i]);
		make_pair(&p[i], type, 0, solid, solid);
		need("shutdown", shutdown(p[i].fds[0], hows[i]));
		p[i].how = hows[i];
		note_pair(&p[i]);
	}
}

static void close_second(struct pair *p)
{
	close(p->fds[1]);
	p->fds[1] = -1;
	note_pair(p);
}

static void make_pairs(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		make_whole(types[i], whole[i]);
		make_halves(types[i], halves[i]);
		snprintf(gone[i].what, sizeof(gone[i].what), "%s, peer gone", type_name(types[i]));
		make_pair(&gone[i], types[i], 0, nothing, solid);
		close_second(&gone[i]);
	}
	first_dup = remember_fd("dup", fcntl(whole[0][0].fds[0], F_DUPFD_CLOEXEC, 0));
	if (param_long("reset")) {
		strcpy(reset.what, "peer gone without reading");
		make_pair(&reset, SOCK_STREAM, 0, solid, solid);
		close_second(&reset);
	}
}

static void check_events(const struct pair *p)
{
	char text[96];
	int i;

	snprintf(text, sizeof(text), "%s: poll", p->what);
	for (i = 0; i < 2; i++)
		if (p->fds[i] >= 0)
			same_long(text, p->events[i], socket_events(p->fds[i]));
}

static bool take_from(const struct pair *p, int i)
{
	return take_records(p->what, p->fds[!i], p->from[i], p->fds[i]);
}

static void check_whole(const struct pair *p)
{
	bool good;
	int i;

	check_events(p);
	check_other_file(p->what, p->fds[0], p->fds[1]);
	good = take_from(p, 0);
	good = take_from(p, 1) && good;
	if (good)
		check_talk(p->what, p->fds[0], p->fds[1]);
	for (i = 0; i < 2; i++)
		put_records(p->what, p->fds[i], p->from[i], p->fds[i]);
}

/* Shut down to the first or its peer; a dgram socket does not tell its peer. */
static void check_half(const struct pair *p)
{
	const bool closed[2] = { p->how != SHUT_RD, p->how != SHUT_WR };
	int i;

	check_events(p);
	for (i = 0; i < 2; i++) {
		if (!closed[i]) {
			if (take_from(p, i))
				put_records(p->what, p->fds[i], p->from[i], p->fds[i]);
			continue;
		}
		peek_records(p->what, p->fds[!i], p->from[i], p->fds[i], p->type != SOCK_DGRAM);
		check_send_fails(p->what, p->fds[i], EPIPE);
	}
}

static void check_gone(const struct pair *p, uint64_t seed)
{
	check_events(p);
	peek_records(p->what, p->fds[0], p->from[1], seed, p->type != SOCK_DGRAM);
	if (p->type != SOCK_DGRAM)
		check_send_fails(p->what, p->fds[0], EPIPE);
}

static void check_pairs(void)
{
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		for (j = 0; j < ARRAY_SIZE(whole[i]); j++)
			check_whole(&whole[i][j]);
		for (j = 0; j < ARRAY_SIZE(hows); j++)
			check_half(&halves[i][j]);
		check_gone(&gone[i], gone[i].fds[0] + 1);
	}
	check_same_file("dup of a socket", whole[0][0].fds[0], first_dup);
	if (param_long("reset"))
		check_events(&reset);	/* whoever asks for the error takes it away */
}

/* ---- as much as goes in ---- */

static struct pair brim;
static long nr_chunks;
static unsigned char chunk[CHUNK];

static bool put_chunk(long number)
{
	fill(chunk, CHUNK, number);
	return send(brim.fds[0], chunk, CHUNK, MSG_DONTWAIT) == CHUNK;
}

static void make_brim(void)
{
	strcpy(brim.what, "full");
	make_pair(&brim, SOCK_STREAM, 0, nothing, nothing);
	while (put_chunk(nr_chunks))
		nr_chunks++;
	note_pair(&brim);
}

static void check_brim(void)
{
	long i;

	for (i = 0; i < nr_chunks; i++) {
		if (recv(brim.fds[1], chunk, CHUNK, MSG_DONTWAIT | MSG_WAITALL) != CHUNK ||
		    verify(chunk, CHUNK, i) >= 0) {
			bad("chunk %ld of %ld in the full socket is wrong", i, nr_chunks);
			return;
		}
	}
	check_talk(brim.what, brim.fds[0], brim.fds[1]);
	for (i = 0; i < nr_chunks; i++)
		if (!put_chunk(i))
			bad("only %ld of %ld chunks go back", i, nr_chunks);
	same_long("one more chunk than goes in", false, put_chunk(nr_chunks));
}

/* ---- servers here, clients in a child ---- */

struct remote {
	const char *what;
	int type;
	bool other_user;	/* the client is somebody else when it connects */
	int listener, accepted, client;
	struct name name, client_name;
};

static struct remote remotes[] = {
	{ "by path",		SOCK_STREAM },
	{ "abstract",		SOCK_STREAM },
	{ "autobind",		SOCK_STREAM },
	{ "packets by path",	SOCK_SEQPACKET },
	{ "from another user",	SOCK_STREAM, .other_user = true },
};
static const long standing[] = { 3000, NO_RECORD };
static int made_here[2];	/* one end is the child's */
static pid_t child, server;

static size_t nr_remotes(void)
{
	return ARRAY_SIZE(remotes) - !param_long("cred");
}

static void bind_remote(struct remote *r)
{
	const struct name family = { .addr.un.sun_family = AF_UNIX, .len = sizeof(sa_family_t) };
	struct name name = path_name(dir_path(r->what));

	if (!strcmp(r->what, "autobind"))
		name = family;
	else if (!strcmp(r->what, "abstract") || r->other_user)
		name = abstract_name(r->what, strlen(r->what));
	r->listener = remember_fd(r->what, new_socket(r->type));
	bind_name(r->listener, name);
	r->name = own_name(r->listener);
	need("listen", listen(r->listener, 3));
}

static void own_file(const char *path)
{
	need("chmod", chmod(path, 0600));
	need("chown", chown(path, OWNER, GROUP));
}

static void connect_remotes(void)
{
	size_t i;

	for (i = 0; i < nr_remotes(); i++) {
		struct remote *r = &remotes[i];

		close(r->listener);
		if (r->other_user) {
			need("setresgid", setresgid(GROUP, GROUP, GROUP));
			need("setresuid", setresuid(OWNER, OWNER, OWNER));
			prctl(PR_SET_DUMPABLE, 1);
		}
		r->client = need("socket", socket(AF_UNIX, r->type, 0));
		if (!strcmp(r->what, "abstract"))
			bind_name(r->client, abstract_name("client", 6));
		r->client_name = own_name(r->client);
		connect_name(r->client, r->name);
		put_records(r->what, r->client, standing, i);
	}
}

static bool same_cred(int fd, pid_t pid, uid_t uid, gid_t gid)
{
	struct ucred c = { 0 };
	socklen_t len = sizeof(c);

	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len);
	return c.pid == pid && c.uid == uid && c.gid == gid;
}

/* What the child sees; its answers tell: 1 is good. */
static uint64_t inspect(const struct remote *r)
{
	struct name own = own_name(r->client), peer = peer_name(r->client);

	if (own.len != r->client_name.len || memcmp(&own.addr, &r->client_name.addr, own.len))
		return 2;
	if (peer.len != r->name.len || memcmp(&peer.addr, &r->name.addr, peer.len))
		return 3;
	if (param_long("cred") && (!same_cred(r->client, server, 0, 0) ||
				   !same_cred(made_here[1], server, 0, 0)))
		return 4;
	return 1;
}

static void answer(void)
{
	uint64_t question, reply;
	size_t i;

	for (i = 0; i < nr_remotes(); i++) {
		const struct remote *r = &remotes[i];

		if (recv(r->client, &question, 8, MSG_DONTWAIT) != 8)
			continue;
		reply = mix(question) + inspect(r);
		send(r->client, &reply, 8, MSG_DONTWAIT | MSG_NOSIGNAL);
		put_records(r->what, r->client, standing, i);
	}
}

static void leave(void)
{
	_exit(CHILD_CODE);
}

static bool all_connected(void *arg)
{
	size_t i;

	(void)arg;
	for (i = 0; i < nr_remotes(); i++)
		if (!(ready_events(remotes[i].listener) & POLLIN))
			return false;
	return true;
}

static bool has_bytes(void *arg)
{
	const struct remote *r = arg;

	return ready_events(r->accepted) & POLLIN;
}

static void start_child(void)
{
	size_t i;

	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, made_here));
	for (i = 0; i < nr_remotes(); i++)
		bind_remote(&remotes[i]);
	own_file(dir_path("by path"));
	server = getpid();
	child = need("fork", fork());
	if (!child) {
		close(made_here[0]);
		connect_remotes();
		serve_signals(answer, leave);
	}
	close(made_here[1]);
	remember_fd("shared with the child", made_here[0]);
	if (!wait_until(all_connected, NULL))
		die("the child does not connect");
	for (i = 0; i < nr_remotes(); i++) {
		struct remote *r = &remotes[i];

		r->accepted = remember_fd(r->what, accept(r->listener, NULL, NULL));
		r->client_name = peer_name(r->accepted);
		if (!wait_until(has_bytes, r))
			die("the child says nothing");
	}
}

static void check_file(const char *path)
{
	struct stat st = { 0 };

	if (lstat(path, &st))
		bad_errno(path);
	same_long("mode of the socket file", S_IFSOCK | 0600, st.st_mode);
	same_long("owner of the socket file", OWNER, st.st_uid);
	same_long("group of the socket file", GROUP, st.st_gid);
}

static void check_remote(struct remote *r, int i)
{
	uint64_t question = mix(i), reply = 0;
	uid_t uid = r->other_user ? OWNER : 0;

	same_long(r->what, 0, ready_events(r->listener));
	same_name(r->what, r->name, own_name(r->listener));
	same_name(r->what, r->name, own_name(r->accepted));
	same_name(r->what, r->client_name, peer_name(r->accepted));
	if (param_long("cred") && !same_cred(r->accepted, child, uid, uid ? GROUP : 0))
		bad("%s: the peer has other credentials", r->what);
	if (!take_records(r->what, r->accepted, standing, i))
		return;
	if (send(r->accepted, &question, 8, MSG_DONTWAIT | MSG_NOSIGNAL) != 8)
		bad_errno(r->what);
	kill(child, SIGUSR1);
	if (!wait_until(has_bytes, r) || recv(r->accepted, &reply, 8, MSG_DONTWAIT) != 8)
		bad("%s: no answer of the child", r->what);
	else
		same_long("what the child thinks of its end: 2 own name, 3 peer's, 4 credentials",
			  1, reply - mix(question));
	wait_until(has_bytes, r);
}

/* One more than the length of the backlog may wait. */
static void check_room(const struct remote *r)
{
	int fds[HOW_MANY], n = 0, i, accepted;

	for (i = 0; i < HOW_MANY; i++) {
		fds[i] = new_socket(r->type | SOCK_NONBLOCK);
		n += !connect(fds[i], (struct sockaddr *)&r->name.addr, r->name.len);
	}
	same_long("clients that may wait", 4, n);
	for (i = 0; i < HOW_MANY; i++)
		close(fds[i]);
	while (ready_events(r->listener) & POLLIN && (accepted = accept(r->listener, 0, 0)) >= 0)
		close(accepted);
}

static void check_remotes(void)
{
	size_t i;

	check_file(dir_path("by path"));
	for (i = 0; i < nr_remotes(); i++)
		check_remote(&remotes[i], i);
	for (i = 0; i < nr_remotes(); i++)
		check_room(&remotes[i]);
	if (param_long("cred") && !same_cred(made_here[0], server, 0, 0))
		bad("a pair has other credentials");
}

/* ---- nobody has accepted them yet ---- */

static int crowded, waiting[2];
static struct name crowded_name;

static const long *crowded_data(void)
{
	return param_long("backlog") > 1 ? ten : nothing;
}

/* The numbers stay the same when they are made again. */
static void queue_clients(bool again)
{
	int i, fd;

	for (i = 0; i < 2; i++) {
		fd = new_socket(SOCK_STREAM);
		if (again) {
			need("dup2", dup2(fd, waiting[i]));
			close(fd);
		} else {
			waiting[i] = remember_fd("not accepted", fd);
		}
		connect_name(waiting[i], crowded_name);
	}
	put_records("not accepted", waiting[1], crowded_data(), 77);
}

static void make_backlog(void)
{
	crowded_name = path_name(dir_path("crowded"));
	crowded = remember_fd("crowded", new_socket(SOCK_STREAM));
	bind_name(crowded, crowded_name);
	crowded_name = own_name(crowded);
	need("listen", listen(crowded, 5));
	queue_clients(false);
}

static void check_backlog(void)
{
	int i, fd;

	same_name("crowded", crowded_name, own_name(crowded));
	for (i = 0; i < 2; i++) {
		same_name("peer of who waits", crowded_name, peer_name(waiting[i]));
		if (!(ready_events(crowded) & POLLIN)) {
			bad("%d of 2 clients wait to be accepted", i);
			break;
		}
		fd = accept(crowded, NULL, NULL);
		if (take_records("waited", fd, i ? crowded_data() : nothing, 77))
			check_talk("waited", fd, waiting[i]);
		close(fd);
	}
	same_long("more who wait", 0, ready_events(crowded));
	queue_clients(true);
}

/* ---- datagrams ---- */

static int box, sender, selfish, loose[2];
static struct name box_name, self_name, loose_names[2];

static int named_dgram(const char *what, struct name *name)
{
	int fd = remember_fd(what, new_socket(SOCK_DGRAM));

	bind_name(fd, *name);
	*name = own_name(fd);
	return fd;
}

static void send_loose(int from, uint64_t number)
{
	const struct name *to = &loose_names[!from];

	if (sendto(loose[from], &number, sizeof(number), MSG_DONTWAIT,
		   (struct sockaddr *)&to->addr, to->len) != sizeof(number))
		bad("sendto: %s", strerror(errno));
}

/* The message is that number, and tells who has sent it. */
static bool receive_loose(int to, uint64_t expected)
{
	struct name name = { .len = sizeof(name.addr) };
	uint64_t number = 0;

	if (recvfrom(loose[to], &number, sizeof(number), MSG_DONTWAIT,
		     (struct sockaddr *)&name.addr, &name.len) != sizeof(number))
		bad("recvfrom: %s", strerror(errno));
	else if (number == expected)
		return same_name("who has sent a datagram", loose_names[!to], name);
	else
		bad("wrong datagram");
	return false;
}

static void make_dgrams(void)
{
	box_name = path_name(dir_path("box"));
	box = named_dgram("box", &box_name);
	own_file(dir_path("box"));
	sender = remember_fd("sender", new_socket(SOCK_DGRAM));
	connect_name(sender, box_name);
	put_records("box", sender, packets(), 300);

	self_name = abstract_name("self", 4);
	selfish = named_dgram("to itself", &self_name);
	connect_name(selfish, self_name);
	put_records("to itself", selfish, packets(), 310);

	loose_names[0] = path_name(dir_path("loose"));
	loose_names[1] = abstract_name("loose", 5);
	loose[0] = named_dgram("loose 0", &loose_names[0]);
	loose[1] = named_dgram("loose 1", &loose_names[1]);
	if (param_long("source"))
		send_loose(0, 1234);
}

static void check_loose(void)
{
	same_name("loose", loose_names[0], own_name(loose[0]));
	same_name("loose", loose_names[1], own_name(loose[1]));
	same_long("peer of a loose one", 0, peer_name(loose[0]).len);
	if (param_long("source"))
		receive_loose(1, 1234);
	send_loose(0, 1);
	receive_loose(1, 1);
	send_loose(1, 2);
	receive_loose(0, 2);
	if (param_long("source"))
		send_loose(0, 1234);
}

static void check_dgrams(void)
{
	check_file(dir_path("box"));
	same_name("box", box_name, own_name(box));
	same_name("peer of the sender", box_name, peer_name(sender));
	same_long("peer of the box", 0, peer_name(box).len);
	if (take_records("box", box, packets(), 300))
		put_records("box", sender, packets(), 300);
	same_name("to itself", self_name, own_name(selfish));
	same_name("peer of the one to itself", self_name, peer_name(selfish));
	if (take_records("to itself", selfish, packets(), 310))
		put_records("to itself", selfish, packets(), 310);
	check_loose();
}

/* ---- options ---- */

static const struct option {
	const char *what;
	int name;
	socklen_t len;
	union { int number; struct timeval time; struct linger linger; } value;
} options[] = {
	{ "SO_PASSCRED",	SO_PASSCRED,	4,	{ .number = 1 } },
	{ "SO_SNDBUF",		SO_SNDBUF,	4,	{ .number = 50000 } },
	{ "SO_RCVBUF",		SO_RCVBUF,	4,	{ .number = 30000 } },
	{ "SO_RCVTIMEO",	SO_RCVTIMEO,	16,	{ .time = { 3, 500000 } } },
	{ "SO_SNDTIMEO",	SO_SNDTIMEO,	16,	{ .time = { 7, 0 } } },
	{ "SO_LINGER",		SO_LINGER,	8,	{ .linger = { 1, 5 } } },
	{ "SO_PRIORITY",	SO_PRIORITY,	4,	{ .number = 3 } },
};
#define NR_OPTIONS	ARRAY_SIZE(options)

/* The first has one option, and its peer all the others; the last pair has none. */
static struct pair optional[NR_OPTIONS + 1];
static struct pair peeked;

static void get_options(int fd, char values[NR_OPTIONS][16])
{
	size_t i;

	memset(values, 0, NR_OPTIONS * 16);
	for (i = 0; i < NR_OPTIONS; i++) {
		socklen_t len = options[i].len;

		if (getsockopt(fd, SOL_SOCKET, options[i].name, values[i], &len))
			bad_errno(options[i].what);
	}
}

static char wanted_options[NR_OPTIONS + 1][2][NR_OPTIONS][16];

static void make_options(void)
{
	size_t i, j;

	for (i = 0; i <= NR_OPTIONS; i++) {
		struct pair *p = &optional[i];

		snprintf(p->what, sizeof(p->what), "options %zu", i);
		make_pair(p, types[i % 3], 0, ten, nothing);
		for (j = 0; j < NR_OPTIONS && i < NR_OPTIONS; j++)
			need(options[j].what,
			     setsockopt(p->fds[j != i], SOL_SOCKET, options[j].name,
					&options[j].value, options[j].len));
		note_pair(p);
		get_options(p->fds[0], wanted_options[i][0]);
		get_options(p->fds[1], wanted_options[i][1]);
	}
}

static void check_options(void)
{
	char values[NR_OPTIONS][16];
	size_t i, j, k;

	for (i = 0; i <= NR_OPTIONS; i++) {
		check_whole(&optional[i]);
		for (k = 0; k < 2; k++) {
			get_options(optional[i].fds[k], values);
			for (j = 0; j < NR_OPTIONS; j++)
				if (memcmp(values[j], wanted_options[i][k][j], 16))
					bad("%s is not what it was on the %s", options[j].what,
					    type_name(optional[i].type));
		}
	}
}

static void make_peeked(void)
{
	int at = PEEK_AT;

	strcpy(peeked.what, "peeked");
	make_pair(&peeked, SOCK_STREAM, 0, solid, nothing);
	need("SO_PEEK_OFF", setsockopt(peeked.fds[1], SOL_SOCKET, SO_PEEK_OFF, &at, sizeof(at)));
	note_pair(&peeked);
}

/* Peeking moves it forward, reading moves it back. */
static void check_peeked(void)
{
	unsigned char expected[10], got[5] = { 0 };
	int at = -1;
	socklen_t len = sizeof(at);

	getsockopt(peeked.fds[1], SOL_SOCKET, SO_PEEK_OFF, &at, &len);
	same_long("SO_PEEK_OFF", PEEK_AT, at);
	fill(expected, sizeof(expected), peeked.fds[0]);
	if (recv(peeked.fds[1], got, 5, MSG_PEEK | MSG_DONTWAIT) != 5 ||
	    memcmp(got, expected + PEEK_AT, 5))
		bad("peeking at an offset finds other bytes");
	check_whole(&peeked);
	at = PEEK_AT;
	setsockopt(peeked.fds[1], SOL_SOCKET, SO_PEEK_OFF, &at, sizeof(at));
}

/* ---- all of it ---- */

static void make(void)
{
	start_child();
	make_pairs();
	make_dgrams();
	make_options();
	if (param_long("backlog"))
		make_backlog();
	if (param_long("peek"))
		make_peeked();
	if (param_long("full"))
		make_brim();
	note_fds();
}

static void check(void)
{
	check_fds();
	check_pairs();
	check_remotes();
	check_dgrams();
	check_options();
	if (param_long("backlog"))
		check_backlog();
	if (param_long("peek"))
		check_peeked();
	if (param_long("full"))
		check_brim();
}

static void stop(void)
{
	end_child(child, CHILD_CODE);
}

struct factory unixsk_factory = {
	.name	= "unixsk",
	.about	= "unix sockets: pairs, servers, datagrams, data, options",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "backlog", "0", "1: clients that are not accepted yet; 2: one has sent data" },
		{ "cred", "0", "1: whom SO_PEERCRED tells; one is another user" },
		{ "empty", "0", "1: empty records among the others" },
		{ "full", "0", "1: a socket with as much data as goes in" },
		{ "peek", "0", "1: SO_PEEK_OFF" },
		{ "reset", "0", "1: the peer is gone and has not read all" },
		{ "source", "0", "1: a queued datagram with the name of who sent it" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
