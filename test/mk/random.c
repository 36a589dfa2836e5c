/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors by chance: processes take turns at making, sharing, moving,
 * closing and using them, all of it decided by a seed. What came out is
 * looked at, and must look the same at every check.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "look.h"
#include "mk.h"
#include "sk.h"

#define MAX_PROCS	5
#define MAX_OWN		40
#define MAX_OBJECTS	512
#define FIRST_MOVED	10	/* where descriptors are moved to */
#define LAST_MOVED	250
#define MAX_CHUNK	4000
#define MAX_PAIRS	((size_t)MAX_PROCS * MAX_LOOKS)

enum kind {
	REGULAR, DIRECTORY, FIFO, PIPE_R, PIPE_W, EVENT, TIMER, SIGNALS, MEMORY, EPOLL, INOTIFY,
	PID, SOCKET, LISTENER,
};

/* What is behind descriptors; number 0 is not used. */
struct object {
	enum kind kind;
	int type;		/* of a socket */
	bool mute;		/* nothing may be sent: nobody has accepted it yet */
	bool connected;
	bool sent, watched;	/* in a message, by an epoll: never both */
	char path[64];		/* below dir=, or empty */
	struct name name;	/* of a socket */
};

struct own {
	int fd;
	int object;
};

/* Shared by the whole tree, in a file. */
struct common {
	int turn;		/* the step that is taken, */
	int actor;		/* and who takes it */
	int nr_procs;
	pid_t pids[MAX_PROCS];
	int nr_objects;
	struct object objects[MAX_OBJECTS];
	int round;		/* of looking; */
	int looked;		/* processes that have looked in it, */
	int left;		/* and closed what they had to open for that */
	bool leave;
	struct looks now[MAX_PROCS];
};

static volatile struct common *common;
static struct own own[MAX_OWN];
static int nr_own, us;		/* us: the number of this process, 0 for the root */
static long step, nr_steps;
static uint64_t state;

/* What the root remembers. */
static struct looks before[MAX_PROCS];
static unsigned char relations[MAX_PAIRS][MAX_PAIRS];

static struct common *shared(void)
{
	return (struct common *)common;
}

/* ---- chance ---- */

static long chance(long n)
{
	state = mix(state);
	return (state >> 16) % n;
}

static bool one_in(long n)
{
	return chance(n) == 0;
}

static long pick(const long *values, size_t nr)
{
	return values[chance(nr)];
}

#define PICK(...) pick((const long[]){ __VA_ARGS__ }, ARRAY_SIZE(((const long[]){ __VA_ARGS__ })))

static void tell(const char *fmt, ...) PRINTF(1, 2);

static void tell(const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	status_line("step %ld: process %d: %s", step, us, text);
}

/* ---- the table ---- */

static int new_object(enum kind kind, const char *path)
{
	struct object *o = &shared()->objects[++shared()->nr_objects];

	if (shared()->nr_objects == MAX_OBJECTS - 1)
		die("too many objects");
	*o = (struct object){ .kind = kind };
	snprintf(o->path, sizeof(o->path), "%s", path);
	return shared()->nr_objects;
}

static struct object *object_of(const struct own *o)
{
	return &shared()->objects[o->object];
}

/* Never fails: what is too much is closed again. */
static bool keep(int fd, int object)
{
	if (fd < 0)
		return false;
	if (nr_own == MAX_OWN) {
		close(fd);
		return false;
	}
	own[nr_own++] = (struct own){ fd, object };
	return true;
}

static struct own *some(void)
{
	return nr_own ? &own[chance(nr_own)] : NULL;
}

static struct own *some_of(unsigned int kinds)
{
	int first = nr_own ? chance(nr_own) : 0, i;

	for (i = 0; i < nr_own; i++) {
		struct own *o = &own[(first + i) % nr_own];

		if (kinds & 1U << object_of(o)->kind)
			return o;
	}
	return NULL;
}

#define K(kind) (1U << (kind))

static void forget(struct own *o)
{
	*o = own[--nr_own];
}

static struct own *find_own(int fd)
{
	int i;

	for (i = 0; i < nr_own; i++)
		if (own[i].fd == fd)
			return &own[i];
	return NULL;
}

/* ---- files ---- */

static const char *new_name(const char *what)
{
	static char name[64];

	snprintf(name, sizeof(name), "%s%ld", what, step);
	return name;
}

static int access_flags(void)
{
	return PICK(O_RDONLY, O_WRONLY, O_RDWR, O_RDWR) |
	       PICK(0, 0, O_APPEND, O_NONBLOCK, O_SYNC, O_NOATIME, O_DIRECT) |
	       PICK(0, 0, O_CLOEXEC);
}

static void make_content(const char *path)
{
	static unsigned char content[20000];
	int fd = need(path, open(dir_path(path), O_WRONLY | O_CREAT | O_EXCL, PICK(0600, 0644, 0400)));
	long len = PICK(0, 1, 300, 5000, 20000);

	fill(content, len, step);
	if (write(fd, content, len) != len)
		die("write: %s", strerror(errno));
	close(fd);
}

static void open_file(int object)
{
	const char *path = shared()->objects[object].path;
	int flags = access_flags(), fd;

	if (one_in(12))
		flags = O_PATH;
	fd = open(dir_path(path), flags);
	if (fd >= 0 && one_in(2))
		lseek(fd, chance(6000), SEEK_SET);
	tell("open %s, flags %#o: %d", path, flags, fd);
	keep(fd, object);
}

static void make_file(void)
{
	const char *path = new_name("file");

	make_content(path);
	open_file(new_object(REGULAR, path));
}

static void make_tmpfile(void)
{
	int fd = open(dir_path("."), O_TMPFILE | O_RDWR, 0600);

	if (fd < 0)
		return;
	if (write(fd, "temporary", 9) != 9)
		die("write: %s", strerror(errno));
	tell("O_TMPFILE: %d", fd);
	keep(fd, new_object(REGULAR, ""));
}

static void make_directory(void)
{
	char path[64];

	snprintf(path, sizeof(path), "%s", new_name("dir"));
	need(path, mkdir(dir_path(path), 0700));
	if (one_in(3))
		open_file(new_object(DIRECTORY, path));
	else
		keep(open(dir_path(path), O_RDONLY | O_DIRECTORY), new_object(DIRECTORY, path));
	tell("directory %s", path);
	if (one_in(2)) {
		strcat(path, "/file");
		make_content(path);
		open_file(new_object(REGULAR, path));
	}
}

/* The last one open needs no partner. */
static void make_fifo(void)
{
	char path[64];
	int object, both, extra;

	snprintf(path, sizeof(path), "%s", new_name("fifo"));
	need(path, mkfifo(dir_path(path), 0600));
	object = new_object(FIFO, path);
	both = need(path, open(dir_path(path), O_RDWR | O_NONBLOCK));
	tell("fifo %s: %d", path, both);
	if (one_in(2) && write(both, "in the fifo", 11) != 11)
		die("write: %s", strerror(errno));
	if (one_in(2)) {
		extra = open(dir_path(path), PICK(O_RDONLY, O_WRONLY) | O_NONBLOCK);
		tell("one more, flags %#o: %d", fcntl(extra, F_GETFL), extra);
		keep(extra, object);
	}
	if (one_in(3)) {
		tell("close %d", both);
		close(both);
	} else {
		keep(both, object);
	}
}

static void open_again(void)
{
	struct own *o = some_of(K(REGULAR) | K(DIRECTORY) | K(FIFO) | K(PIPE_R) | K(PIPE_W) | K(MEMORY));
	int flags = access_flags() | O_NONBLOCK, fd, object;
	enum kind kind;

	if (!o)
		return;
	fd = reopen(o->fd, flags);
	tell("reopen %d, flags %#o: %d", o->fd, flags, fd);
	if (fd < 0)
		return;
	kind = object_of(o)->kind;
	object = o->object;
	if (kind == PIPE_R || kind == PIPE_W)
		object = new_object((flags & O_ACCMODE) == O_RDONLY ? PIPE_R : PIPE_W, "");
	keep(fd, object);
}

static void change_name(void)
{
	struct own *o = some_of(K(REGULAR) | K(DIRECTORY) | K(FIFO) | K(LISTENER) | K(SOCKET));
	struct object *b = o ? object_of(o) : NULL;
	char path[64];

	if (!b || !b->path[0])
		return;
	if (one_in(3)) {
		snprintf(path, sizeof(path), "%s", new_name("renamed"));
		tell("rename %s to %s", b->path, path);
		if (!rename(dir_path(b->path), dir_path(path)))
			strcpy(b->path, path);
		return;
	}
	if (b->kind == REGULAR && one_in(3)) {
		tell("one more name for %s", b->path);
		if (link(dir_path(b->path), dir_path(new_name("link"))))
			tell("link: %s", strerror(errno));
	}
	tell("remove %s", b->path);
	if (remove(dir_path(b->path)))
		return;
	if (b->kind == REGULAR && one_in(4))
		make_content(b->path);
	b->path[0] = '\0';
}

/* ---- pipes and nameless things ---- */

static void make_pipe(void)
{
	int flags = PICK(0, 0, O_NONBLOCK, O_DIRECT, O_CLOEXEC, O_DIRECT | O_NONBLOCK), ends[2];

	need("pipe", pipe2(ends, flags));
	if (one_in(4))
		fcntl(ends[0], F_SETPIPE_SZ, PICK(4096, 16384, 262144, 1048576));
	tell("pipe, flags %#o: %d %d", flags, ends[0], ends[1]);
	keep(ends[0], new_object(PIPE_R, ""));
	keep(ends[1], new_object(PIPE_W, ""));
}

static void make_event(void)
{
	int flags = PICK(0, EFD_SEMAPHORE, EFD_NONBLOCK, EFD_CLOEXEC);
	int fd = need("eventfd", eventfd(PICK(0, 1, 7, 100000), flags));

	tell("eventfd, flags %#o: %d", flags, fd);
	keep(fd, new_object(EVENT, ""));
}

static void make_timer(void)
{
	int clock = PICK(CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME);
	struct itimerspec t = { .it_interval.tv_sec = PICK(0, 0, 3600),
				.it_value.tv_sec = PICK(0, 100500, 200500) };
	int fd = need("timerfd", timerfd_create(clock, PICK(0, TFD_NONBLOCK, TFD_CLOEXEC)));

	need("timerfd_settime", timerfd_settime(fd, 0, &t, NULL));
	tell("timerfd of clock %d, %ld s: %d", clock, (long)t.it_value.tv_sec, fd);
	keep(fd, new_object(TIMER, ""));
}

static void make_signals(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, PICK(SIGUSR2, SIGHUP, SIGWINCH));
	sigaddset(&set, SIGRTMIN + chance(20));
	fd = need("signalfd", signalfd(-1, &set, PICK(0, SFD_NONBLOCK, SFD_CLOEXEC)));
	tell("signalfd: %d", fd);
	keep(fd, new_object(SIGNALS, ""));
}

static void make_memory(void)
{
	char data[5000];
	int fd = need("memfd", memfd_create(new_name("mem"), MFD_ALLOW_SEALING | PICK(0, MFD_CLOEXEC)));
	long len = PICK(0, 100, 5000);

	fill(data, len, step);
	if (write(fd, data, len) != len)
		die("write: %s", strerror(errno));
	lseek(fd, chance(6000), SEEK_SET);
	if (one_in(3))
		fcntl(fd, F_ADD_SEALS, PICK(F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_SEAL));
	tell("memfd: %d", fd);
	keep(fd, new_object(MEMORY, ""));
}

static void watch(struct own *epoll)
{
	struct own *target = some();
	struct epoll_event e = { .events = PICK(EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLET, EPOLLPRI, 0,
						EPOLLIN | EPOLLONESHOT, EPOLLIN | EPOLLRDHUP) };
	int rc;

	e.data.u64 = mix(step);
	if (object_of(target)->sent)
		return;
	rc = epoll_ctl(epoll->fd, EPOLL_CTL_ADD, target->fd, &e);
	if (rc)
		return;
	object_of(target)->watched = true;
	tell("epoll %d watches %d for %#x", epoll->fd, target->fd, e.events);
}

static void make_epoll(void)
{
	int fd = need("epoll", epoll_create1(PICK(0, EPOLL_CLOEXEC)));
	int n = chance(4);

	tell("epoll: %d", fd);
	if (!keep(fd, new_object(EPOLL, "")))
		return;
	while (n--)
		watch(&own[nr_own - 1]);
}

/* What is watched there nobody touches. */
static void make_inotify(void)
{
	int fd = need("inotify", inotify_init1(PICK(0, IN_NONBLOCK, IN_CLOEXEC)));
	int n = chance(3);

	tell("inotify with %d watches: %d", n, fd);
	while (n--)
		need("watch", inotify_add_watch(fd, dir_path(n ? "quiet/file" : "quiet"),
						PICK(IN_MODIFY, IN_DELETE_SELF | IN_CREATE, IN_MOVE)));
	keep(fd, new_object(INOTIFY, ""));
}

static void make_pidfd(void)
{
	int whose = chance(shared()->nr_procs);
	int fd = need("pidfd", syscall(SYS_pidfd_open, shared()->pids[whose], PICK(0, O_NONBLOCK)));

	tell("pidfd of process %d: %d", whose, fd);
	keep(fd, new_object(PID, ""));
}

/* ---- sockets ---- */

static const char *const type_names[] = { "", "stream", "dgram", "", "", "seqpacket" };

static int some_type(void)
{
	return PICK(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET);
}

static int add_socket(enum kind kind, int type)
{
	int object = new_object(kind, "");

	shared()->objects[object].type = type;
	return object;
}

static void make_pair(void)
{
	int type = some_type(), pair[2], i, object;

	need("socketpair", socketpair(AF_UNIX, type | PICK(0, SOCK_NONBLOCK, SOCK_CLOEXEC), 0, pair));
	tell("%s pair: %d %d", type_names[type], pair[0], pair[1]);
	for (i = 0; i < 2; i++) {
		object = add_socket(SOCKET, type);
		shared()->objects[object].connected = true;
		keep(pair[i], object);
	}
}

static struct name some_name(struct object *o)
{
	struct name n = { .addr.un.sun_family = AF_UNIX };

	if (one_in(2)) {
		snprintf(o->path, sizeof(o->path), "%s", new_name("socket"));
		return path_name(dir_path(o->path));
	}
	n.len = offsetof(struct sockaddr_un, sun_path) + 1 +
		sprintf(n.addr.un.sun_path + 1, "mk-%d-%ld", shared()->pids[0], step);
	return n;
}

static int make_bound(enum kind kind, int type, int *ret_object)
{
	int fd = new_socket(type), object = add_socket(kind, type);
	struct object *o = &shared()->objects[object];

	o->name = some_name(o);
	bind_name(fd, o->name);
	*ret_object = object;
	return fd;
}

static void make_listener(void)
{
	int object, type = PICK(SOCK_STREAM, SOCK_SEQPACKET), fd = make_bound(LISTENER, type, &object);

	need("listen", listen(fd, PICK(1, 5)));
	tell("%s listener %s: %d", type_names[type], shared()->objects[object].path, fd);
	keep(fd, object);
}

static void make_receiver(void)
{
	int object, type = some_type(), fd = make_bound(SOCKET, type, &object);

	tell("bound %s socket %s: %d", type_names[type], shared()->objects[object].path, fd);
	keep(fd, object);
}

static void connect_to(int object)
{
	struct object *to = &shared()->objects[object], *o;
	int fd, number;

	if (nr_own == MAX_OWN) /* keep() would close it, and nobody has accepted it yet */
		return;
	if (to->type == SOCK_DGRAM && one_in(2)) {
		fd = make_bound(SOCKET, to->type, &number);
	} else {
		fd = new_socket(to->type);
		number = add_socket(SOCKET, to->type);
	}
	o = &shared()->objects[number];
	fcntl(fd, F_SETFL, O_NONBLOCK);
	o->connected = !connect(fd, (struct sockaddr *)&to->name.addr, to->name.len);
	o->mute = to->kind == LISTENER;
	tell("%s socket %d connects to %s %d: %s", type_names[to->type], fd, to->path, object,
	     o->connected ? "good" : strerror(errno));
	if (one_in(2))
		fcntl(fd, F_SETFL, 0);
	keep(fd, number);
}

static bool is_reached(const struct object *o)
{
	return o->name.len && (o->kind == LISTENER || (o->kind == SOCKET && o->type == SOCK_DGRAM));
}

static void make_client(void)
{
	int nr = shared()->nr_objects, first = nr ? chance(nr) : 0, i;

	for (i = 0; i < nr; i++) {
		int object = 1 + (first + i) % nr;

		if (is_reached(&shared()->objects[object])) {
			connect_to(object);
			return;
		}
	}
	make_pair();
}

static void accept_one(void)
{
	struct own *o = some_of(K(LISTENER));
	int fd, type, object;

	if (!o || !(ready_events(o->fd) & POLLIN))
		return;
	type = object_of(o)->type;
	fd = accept(o->fd, NULL, NULL);
	tell("accept on %d: %d", o->fd, fd);
	object = add_socket(SOCKET, type);
	shared()->objects[object].connected = true;
	keep(fd, object);
}

/* Some descriptors of ours, each at most once. */
static int choose_fds(int *fds, int max)
{
	int nr = one_in(2) ? 1 + chance(max) : 0, i, j;

	for (i = 0, j = 0; i < nr; i++) {
		struct own *o = some();
		struct object *object = object_of(o);
		int fd = o->fd, k;

		/*
		 * An epoll, or what it watches, cannot be dumped when only a message has it; nor what nobody
		 * has accepted yet if it goes with the message.
		 */
		if (object->kind == EPOLL || object->watched || object->mute)
			continue;
		for (k = 0; k < j && fds[k] != fd; k++)
			;
		if (k < j)
			continue;
		object->sent = true;
		fds[j++] = fd;
	}
	return j;
}

static void send_on(struct own *o)
{
	union {
		char buf[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	unsigned char data[MAX_CHUNK];
	struct iovec iov = { data, PICK(1, 10, 700, MAX_CHUNK) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[3], nr = choose_fds(fds, 3), i;
	struct cmsghdr *c;
	ssize_t n;

	fill(data, iov.iov_len, step);
	if (nr) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr * sizeof(int));
	}
	n = sendmsg(o->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	tell("send %zu bytes on %d: %s; with%s", iov.iov_len, o->fd, n < 0 ? strerror(errno) : "good",
	     nr ? "" : " nothing");
	for (i = 0; i < nr && n > 0; i++) {
		bool away = one_in(2);

		tell("  %d, %s", fds[i], away ? "then closed" : "kept");
		if (!away)
			continue;
		close(fds[i]);
		forget(find_own(fds[i]));
	}
}

static void use_socket(struct own *o)
{
	unsigned char data[MAX_CHUNK];
	struct object *b = object_of(o);
	long len;
	ssize_t n;

	if (one_in(12)) {
		len = PICK(SHUT_RD, SHUT_WR, SHUT_RDWR);
		n = shutdown(o->fd, len);
		tell("shutdown %d, %ld: %zd", o->fd, len, n);
	} else if (one_in(5)) {
		len = PICK(1, 50, MAX_CHUNK);
		n = recv(o->fd, data, len, MSG_DONTWAIT);
		tell("receive %ld bytes on %d: %zd", len, o->fd, n);
	} else if (!b->mute && b->connected) {
		send_on(o);
	}
}

static void send_to_somebody(void)
{
	int nr = shared()->nr_objects, first = nr ? chance(nr) : 0, i, fd, number;

	for (i = 0; i < nr; i++) {
		struct object *to = &shared()->objects[1 + (first + i) % nr];

		if (!is_reached(to) || to->type != SOCK_DGRAM)
			continue;
		fd = one_in(2) ? new_socket(SOCK_DGRAM) : make_bound(SOCKET, SOCK_DGRAM, &number);
		tell("a datagram to %d from a socket that is then closed: %zd",
		     1 + (first + i) % nr,
		     sendto(fd, "one way", 7, MSG_DONTWAIT, (struct sockaddr *)&to->name.addr,
			    to->name.len));
		close(fd);
		return;
	}
}

/* ---- using what is there ---- */

static void use_file(struct own *o)
{
	char data[700];
	long what = chance(4), len = PICK(1, 100, 700), rc;

	fill(data, len, step);
	if (what == 0)
		rc = lseek(o->fd, chance(30000), SEEK_SET);
	else if (what == 1)
		rc = read(o->fd, data, len);
	else if (what == 2)
		rc = ftruncate(o->fd, chance(9000));
	else
		rc = write(o->fd, data, len);
	tell("%s %d, %ld: %ld", (const char *[]){ "seek", "read", "truncate", "write" }[what], o->fd,
	     len, rc);
}

static void use_directory(struct own *o)
{
	char data[100];

	tell("read directory %d: %ld", o->fd, syscall(SYS_getdents64, o->fd, data, sizeof(data)));
}

/* With that much room, or data, nobody waits. */
static void use_pipe(struct own *o)
{
	static char data[PAGE];
	int access = fcntl(o->fd, F_GETFL) & O_ACCMODE, n, unread = 0;
	long len = PICK(1, 500, 4096);

	fill(data, len, step);
	if (access != O_RDONLY && (access == O_WRONLY || one_in(2))) {
		for (n = PICK(1, 1, 3, 12); n && ready_events(o->fd) == POLLOUT; n--)
			if (write(o->fd, data, len) < 0)
				break;
		tell("write %ld bytes to pipe %d, %d times less", len, o->fd, n);
		return;
	}
	ioctl(o->fd, FIONREAD, &unread);
	if (unread && one_in(2))
		tell("read from pipe %d: %zd", o->fd, read(o->fd, data, len));
}

static void use_some(void)
{
	struct own *o = some();
	uint64_t one = 1 + chance(9);

	if (!o)
		return;
	switch (object_of(o)->kind) {
	case REGULAR:
	case MEMORY:
		use_file(o);
		break;
	case DIRECTORY:
		use_directory(o);
		break;
	case FIFO:
	case PIPE_R:
	case PIPE_W:
		use_pipe(o);
		break;
	case EVENT:
		tell("add %ld to eventfd %d: %zd", (long)one, o->fd, write(o->fd, &one, sizeof(one)));
		break;
	case EPOLL:
		watch(o);
		break;
	case SOCKET:
		use_socket(o);
		break;
	case LISTENER:
		accept_one();
		break;
	default:
		break;
	}
}

/* ---- numbers and flags ---- */

/* What nobody has accepted yet cannot be dumped once its client is gone. */
static bool is_client_waiting(struct own *o)
{
	return object_of(o)->kind == SOCKET && object_of(o)->mute;
}

static void dup_some(void)
{
	struct own *o = some(), *there;
	int fd = FIRST_MOVED + chance(LAST_MOVED - FIRST_MOVED);

	if (!o)
		return;
	if (one_in(2))
		fd = fcntl(o->fd, PICK(F_DUPFD, F_DUPFD_CLOEXEC), PICK(0, 0, FIRST_MOVED, 100));
	else if (nr_own > 3 && one_in(3))
		fd = some()->fd;
	if (fd == o->fd)
		return;
	there = find_own(fd);
	if (there && is_client_waiting(there))
		return;
	tell("dup %d to %d%s", o->fd, fd, there ? ", which was open" : "");
	need("dup2", dup3(o->fd, fd, PICK(0, O_CLOEXEC)));
	if (there)
		there->object = o->object;
	else
		keep(fd, o->object);
}

static void move_some(void)
{
	struct own *o = some();
	int fd = FIRST_MOVED + chance(LAST_MOVED - FIRST_MOVED);

	if (!o || find_own(fd))
		return;
	tell("move %d to %d", o->fd, fd);
	need("dup2", dup2(o->fd, fd));
	close(o->fd);
	o->fd = fd;
}

static void close_some(void)
{
	struct own *o = some();

	if (!o || is_client_waiting(o))
		return;
	tell("close %d", o->fd);
	close(o->fd);
	forget(o);
}

static void change_flags(void)
{
	struct own *o = some();

	if (!o)
		return;
	if (one_in(2)) {
		fcntl(o->fd, F_SETFD, fcntl(o->fd, F_GETFD) ^ FD_CLOEXEC);
		tell("FD_CLOEXEC of %d: %d", o->fd, fcntl(o->fd, F_GETFD));
		return;
	}
	fcntl(o->fd, F_SETFL, fcntl(o->fd, F_GETFL) ^ PICK(O_NONBLOCK, O_NONBLOCK, O_APPEND, O_NOATIME, O_DIRECT));
	tell("flags of %d: %#o", o->fd, fcntl(o->fd, F_GETFL));
}

static void start_process(void)
{
	int number = shared()->nr_procs;
	pid_t pid;

	if (number >= param_long("procs") || number >= MAX_PROCS)
		return;
	tell("fork process %d", number);
	pid = need("fork", fork());
	if (!pid) {
		us = number;
		return;
	}
	shared()->pids[number] = pid;
	shared()->nr_procs = number + 1;
}

/* ---- steps ---- */

struct choice {
	int weight;
	void (*act)(void);
};

static const struct choice plain[] = {
	{ 8, make_file }, { 1, make_tmpfile }, { 3, make_directory }, { 4, make_fifo },
	{ 7, make_pipe }, { 3, make_event }, { 3, make_timer }, { 2, make_signals },
	{ 3, make_memory }, { 6, make_epoll }, { 2, make_inotify }, { 2, make_pidfd },
	{ 5, open_again }, { 5, change_name }, { 16, use_some }, { 9, dup_some },
	{ 5, move_some }, { 8, close_some }, { 8, change_flags }, { 9, start_process },
};

static const struct choice with_sockets[] = {
	{ 14, make_pair }, { 5, make_listener }, { 5, make_receiver }, { 10, make_client },
	{ 5, accept_one }, { 3, send_to_somebody }, { 25, use_some },
};

static bool act_on(const struct choice *c, size_t nr, long value)
{
	for (; nr && value >= c->weight; nr--, c++)
		value -= c->weight;
	if (nr)
		c->act();
	return nr;
}

static void act(void)
{
	static const long all = 109, socket_weights = 67;	/* the sums of the weights */
	long value = chance(all);

	if (param_long("sockets") && one_in(2))
		act_on(with_sockets, ARRAY_SIZE(with_sockets), chance(socket_weights));
	else
		act_on(plain, ARRAY_SIZE(plain), value);
}

static bool is_our_turn(void *arg)
{
	(void)arg;
	return common->turn >= nr_steps || common->actor == us;
}

/* without= is a list of steps as in ,3,17, that are left out. */
static bool is_left_out(void)
{
	char word[32];

	snprintf(word, sizeof(word), ",%ld,", step);
	return strstr(param_str("without"), word);
}

/* What a step does depends on the seed, its number and what is there, not on who waits how long. */
static void start_step(long number)
{
	state = mix(mix(param_long("seed")) + number);
	common->turn = number;
	__atomic_store_n(&shared()->actor, (int)chance(common->nr_procs), __ATOMIC_SEQ_CST);
}

static void take_steps(void)
{
	int here = us;

	for (;;) {
		if (!wait_until(is_our_turn, NULL))
			die("process %d waits for its turn", us);
		step = common->turn;
		if (step >= nr_steps)
			return;
		state = mix(mix(param_long("seed")) - step);
		if (!is_left_out())
			act();
		/* a new process waits while its parent goes on */
		if (us == here)
			start_step(step + 1);
		here = us;
	}
}

/* ---- looking ---- */

static void look_here(void)
{
	struct looks *l = &shared()->now[us];
	int i;

	start_looks(l);
	for (i = 0; i < nr_own; i++)
		look_at(l, own[i].fd);
}

static int sought;

static bool have_looked(void *arg)
{
	(void)arg;
	return common->looked == sought;
}

static bool have_left(void *arg)
{
	(void)arg;
	return common->left == sought;
}

static bool may_leave(void *arg)
{
	(void)arg;
	return common->leave;
}

static void look_as_child(void)
{
	look_here();
	common->looked++;
	wait_until(may_leave, NULL);
	end_looks(&shared()->now[us]);
	__atomic_add_fetch(&shared()->left, 1, __ATOMIC_SEQ_CST);
}

/* One after the other; what is in flight stays open until end_looking(). */
static bool look_everywhere(void)
{
	common->looked = common->left = 0;
	common->leave = false;
	look_here();
	for (sought = 1; sought < common->nr_procs; sought++) {
		if (kill(common->pids[sought], SIGUSR1) || !wait_until(have_looked, NULL)) {
			bad("process %d is gone", sought);
			return false;
		}
	}
	read_peers();
	return true;
}

static void end_looking(void)
{
	sought = common->nr_procs - 1;
	common->leave = true;
	end_looks(&shared()->now[0]);
	if (!wait_until(have_left, NULL))
		bad("the children do not come to rest");
}

struct pair_of {
	int process;
	const struct look *k;
};

static size_t list_all(struct pair_of *list)
{
	size_t nr = 0;
	int p, i;

	for (p = 0; p < common->nr_procs; p++) {
		const struct looks *l = &shared()->now[p];

		for (i = 0; i < l->nr; i++)
			list[nr++] = (struct pair_of){ p, &l->all[i] };
	}
	return nr;
}

static void for_pairs(void (*do_one)(const struct pair_of *a, const struct pair_of *b,
				     unsigned char *known))
{
	static struct pair_of list[MAX_PAIRS];
	size_t nr = list_all(list), i, j;

	for (i = 0; i < nr; i++)
		for (j = 0; j < nr; j++)
			do_one(&list[i], &list[j], &relations[i][j]);
}

static enum relation related(const struct pair_of *a, const struct pair_of *b)
{
	return relate(common->pids[a->process], a->k, common->pids[b->process], b->k);
}

static void note_pair(const struct pair_of *a, const struct pair_of *b, unsigned char *known)
{
	*known = related(a, b);
}

static void check_pair(const struct pair_of *a, const struct pair_of *b, unsigned char *known)
{
	static const char *const names[] = { "strangers", "one inode", "one description", "peers" };
	enum relation now = related(a, b);

	if (*known != now)
		bad("%d of process %d (%.40s) and %d of process %d: expected %s, got %s", a->k->fd,
		    a->process, a->k->text + 5, b->k->fd, b->process, names[*known], names[now]);
}

/* ---- all of it ---- */

static void leave_child(void)
{
	_exit(0);
}

/*
 * A look takes away what can be seen only once, like a reset. Sockets that nobody can reach, being
 * in flight in each other, are collected meanwhile, which others may notice.
 */
static void settle(void)
{
	int pair[2];

	look_everywhere();
	end_looking();
	/* the kernel collects when a socket goes that is not in flight */
	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	close(pair[0]);
	close(pair[1]);
	nanosleep(&(struct timespec){ 0, 30000000 }, NULL);
}

static void map_common(void)
{
	int fd = need("open", open(dir_path("common"), O_RDWR | O_CREAT, 0600));

	need("ftruncate", ftruncate(fd, sizeof(*common)));
	common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (common == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	close(fd);
}

static void make(void)
{
	nr_steps = param_long("steps");
	signal(SIGPIPE, SIG_IGN);
	need("mkdir", mkdir(dir_path("quiet"), 0700));
	close(need("open", open(dir_path("quiet/file"), O_WRONLY | O_CREAT, 0600)));
	map_common();
	common->nr_procs = 1;
	common->pids[0] = getpid();
	start_step(0);
	take_steps();
	if (us)
		serve_signals(look_as_child, leave_child);
	settle();
	settle();
	look_everywhere();
	memcpy(before, shared()->now, sizeof(before));
	for_pairs(note_pair);
	end_looking();
}

static void check(void)
{
	bool same = true;
	int p;

	if (!look_everywhere())
		return;
	for (p = 0; p < common->nr_procs; p++) {
		compare_looks(p, &before[p], &shared()->now[p]);
		same = same && before[p].nr == shared()->now[p].nr;
	}
	if (same)
		for_pairs(check_pair);
	end_looking();
}

/* A grandchild is waited for by somebody else once its parent has left. */
static void stop(void)
{
	int p;

	for (p = common->nr_procs - 1; p > 0; p--)
		kill(common->pids[p], SIGTERM);
	while (wait(NULL) > 0)
		;
}

struct factory random_factory = {
	.name	= "random",
	.about	= "descriptors by chance, in a tree of processes",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "seed", "1", "decides everything" },
		{ "steps", "60", "what is done" },
		{ "procs", "5", "at most so many processes" },
		{ "sockets", "0", "1: unix sockets, too" },
		{ "without", "", "steps to leave out, as in ,3,17," },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
