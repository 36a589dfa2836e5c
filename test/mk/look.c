/* SPDX-License-Identifier: GPL-2.0-only */
/* Looks at descriptors: what stat, fcntl, fdinfo, poll and peeking tell. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"
#include "look.h"
#include "mk.h"

#define MAX_DATA	(1 << 20)
#define MAX_MESSAGE_FDS	16
#define MAX_UNIX	4096
#define TIMER_STEP	1000	/* seconds; far from any that a test takes */

static unsigned char scratch[MAX_DATA];

static void say(struct look *k, const char *fmt, ...) PRINTF(2, 3);

static void say(struct look *k, const char *fmt, ...)
{
	size_t used = strlen(k->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(k->text + used, sizeof(k->text) - used, fmt, ap);
	va_end(ap);
}

static unsigned int hash(const void *data, size_t len)
{
	const unsigned char *p = data;
	unsigned int h = 2166136261U;

	while (len--)
		h = (h ^ *p++) * 16777619U;
	return h;
}

/* ---- any descriptor ---- */

/* Numbers in brackets, and those of files that never had a name, are given anew. */
static void say_link(struct look *k)
{
	char text[300], *p, *hashed;

	fd_name(k->fd, text, sizeof(text));
	p = strchr(text, '[');
	if (p && p[1] >= '0' && p[1] <= '9')
		*p = '\0';
	hashed = strstr(text, "/#");
	if (hashed)
		strcpy(hashed, "/#N_(deleted)");
	for (p = text; *p; p++)
		if (*p == ' ')
			*p = '_';
	p = strrchr(text, '/');
	/* two components are enough to tell, and leave room */
	while (p && p > text && p[-1] != '/')
		p--;
	say(k, "link=%s", p ? p : text);
}

static void say_stat(struct look *k)
{
	struct stat st = { 0 };
	bool named;

	fstat(k->fd, &st);
	k->dev = st.st_dev;
	k->ino = st.st_ino;
	named = (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISFIFO(st.st_mode)) &&
		st.st_nlink && !strstr(k->text, "link=pipe:") && !strstr(k->text, "memfd:");
	k->anew = !named && !strstr(k->text, "link=anon_inode:");
	say(k, " mode=%o nlink=%ld uid=%d", st.st_mode, (long)st.st_nlink, st.st_uid);
	if (named)
		say(k, " ino=%lx:%lu", (long)st.st_dev, (long)st.st_ino);
	if (S_ISREG(st.st_mode))
		say(k, " size=%ld", (long)st.st_size);
}

static void say_flags(struct look *k)
{
	struct pollfd p = { .fd = k->fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP };

	poll(&p, 1, 0);
	say(k, " flags=%o", fcntl(k->fd, F_GETFL));
	if (k->carrier < 0)
		say(k, " fdflags=%d", fcntl(k->fd, F_GETFD));
	say(k, " pos=%ld poll=%#x", position_of(getpid(), k->fd), p.revents);
}

/* ---- files and pipes ---- */

static void say_content(struct look *k)
{
	int fd = reopen(k->fd, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, scratch, sizeof(scratch), 0);

	if (n >= 0)
		say(k, " content=%zd:%x", n, hash(scratch, n));
	else
		say(k, " content=%s", strerrorname_np(errno));
	if (fd >= 0)
		close(fd);
	n = fcntl(k->fd, F_GET_SEALS);
	if (n >= 0)
		say(k, " seals=%zx", n);
}

/* A packet is what one read gives. */
static void say_packets(struct look *k, int r)
{
	unsigned int all = 0;
	int nr = 0;
	ssize_t n;

	while ((n = read(r, scratch, sizeof(scratch))) > 0) {
		all = all * 31 + hash(scratch, n) + n;
		nr++;
	}
	say(k, " queued=%d:%x", nr, all);
}

static void say_pipe(struct look *k)
{
	int ends[2], n = -1;

	ioctl(k->fd, FIONREAD, &n);
	say(k, " unread=%d capacity=%d", n, fcntl(k->fd, F_GETPIPE_SZ));
	if ((fcntl(k->fd, F_GETFL) & O_ACCMODE) == O_WRONLY || n <= 0)
		return;
	need("pipe", pipe2(ends, O_NONBLOCK | O_CLOEXEC));
	fcntl(ends[1], F_SETPIPE_SZ, MAX_DATA);
	if (tee(k->fd, ends[1], MAX_DATA, SPLICE_F_NONBLOCK) > 0)
		say_packets(k, ends[0]);
	else
		say(k, " queued=%s", strerrorname_np(errno));
	close(ends[0]);
	close(ends[1]);
}

/* ---- what has no name ---- */

static void say_timer(struct look *k)
{
	struct itimerspec t = { 0 };

	if (timerfd_gettime(k->fd, &t))
		return;
	say(k, " interval=%ld.%ld left=%ld", (long)t.it_interval.tv_sec, t.it_interval.tv_nsec,
	    (long)t.it_value.tv_sec / TIMER_STEP);
}

static bool is_meant(const char *line)
{
	static const char *const keys[] = { "eventfd-count:",  "eventfd-semaphore:", "clockid:",
					    "ticks:", "settime flags:", "sigmask:", "Pid:" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strncmp(line, keys[i], strlen(keys[i])))
			return true;
	return false;
}

static void say_line(struct look *k, const char *line)
{
	char text[200];
	size_t n = 0;

	for (; *line && n < sizeof(text) - 1; line++)
		if (*line != ' ' && *line != '\t')
			text[n++] = *line;
	text[n] = '\0';
	say(k, " %s", text);
}

/* Many lines are one word: a number of them and their hash. */
static void say_lines(struct look *k, const char *prefix, const char *end)
{
	char text[8192], *p;
	int nr = 0;

	fdinfo_lines(k->fd, prefix, end, text, sizeof(text));
	for (p = text; *p; p++)
		nr += *p == '\n';
	if (nr == 1) {
		text[strcspn(text, "\n")] = '\0';
		say_line(k, text);
	} else if (nr) {
		say(k, " %s%d:%x", prefix, nr, hash(text, strlen(text)));
	}
}

static void say_anonymous(struct look *k)
{
	char text[8192], *line, *rest = text;

	read_fdinfo(getpid(), k->fd, text, sizeof(text));
	while ((line = strsep(&rest, "\n")))
		if (is_meant(line))
			say_line(k, line);
	if (strstr(k->text, "[timerfd]"))
		say_timer(k);
	say_lines(k, "tfd:", " pos:");
	say_lines(k, "inotify", " fhandle");
}

/* ---- sockets ---- */

static long option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	getsockopt(fd, SOL_SOCKET, name, &value, &len);
	return value;
}

static void say_name(struct look *k, const char *what, int rc, const struct sockaddr_un *un,
		     socklen_t len)
{
	if (rc)
		say(k, " %s=%s", what, strerrorname_np(errno));
	else
		say(k, " %s=%d:%x", what, (int)len, hash(un, len));
}

static void say_names(struct look *k)
{
	struct sockaddr_un un;
	socklen_t len = sizeof(un);
	int rc = getsockname(k->fd, (struct sockaddr *)&un, &len);

	say_name(k, "name", rc, &un, len);
	len = sizeof(un);
	rc = getpeername(k->fd, (struct sockaddr *)&un, &len);
	say_name(k, "peer", rc, &un, len);
}

static void add_look(struct looks *l, int fd, int carrier);

static void take_fds(struct looks *l, int carrier, struct msghdr *msg)
{
	int fds[MAX_MESSAGE_FDS], nr, i;
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), nr * sizeof(int));
		say(&l->all[carrier], "+%d", nr);
		for (i = 0; i < nr; i++)
			add_look(l, fds[i], carrier);
	}
}

static ssize_t peek(int fd, struct msghdr *msg, void *control, size_t size, struct sockaddr_un *un)
{
	static struct iovec iov;

	iov = (struct iovec){ scratch, sizeof(scratch) };
	*msg = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1, .msg_name = un,
				.msg_namelen = sizeof(*un), .msg_control = control,
				.msg_controllen = size };
	return recvmsg(fd, msg, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
}

/* Each MSG_PEEK goes on where the one before ended. */
static void say_queue(struct looks *l, int at)
{
	union {
		char buf[CMSG_SPACE(MAX_MESSAGE_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct look *k = &l->all[at];
	int start = 0, off = -1;
	struct sockaddr_un un;
	struct msghdr msg;
	ssize_t n;

	setsockopt(k->fd, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start));
	say(k, " queue=");
	while ((n = peek(k->fd, &msg, &control, sizeof(control), &un)) > 0) {
		say(k, "%zd:%x", n, hash(scratch, n));
		if (msg.msg_namelen)
			say(k, "<%x", hash(&un, msg.msg_namelen));
		take_fds(l, at, &msg);
		say(k, ",");
	}
	say(k, "%s", n ? strerrorname_np(errno) : "end");
	setsockopt(k->fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off));
}

/* Sockets may be on their way in each other. */
static bool is_seen(const struct looks *l, int at)
{
	int i;

	for (i = 0; i < at; i++)
		if (l->all[i].dev == l->all[at].dev && l->all[i].ino == l->all[at].ino)
			return true;
	return false;
}

static void say_socket(struct looks *l, int at)
{
	struct look *k = &l->all[at];
	int unread = -1;

	ioctl(k->fd, FIONREAD, &unread);
	say(k, " type=%ld listens=%ld sndbuf=%ld rcvbuf=%ld unread=%d",
	    option(k->fd, SO_TYPE), option(k->fd, SO_ACCEPTCONN), option(k->fd, SO_SNDBUF),
	    option(k->fd, SO_RCVBUF), unread);
	say_names(k);
	if (!is_seen(l, at))
		say_queue(l, at);
}

/* ---- all of a process ---- */

static void add_look(struct looks *l, int fd, int carrier)
{
	struct look *k = &l->all[l->nr];
	struct stat st = { 0 };

	if (l->nr == MAX_LOOKS)
		die("too many descriptors");
	l->nr++;
	*k = (struct look){ .fd = fd, .carrier = carrier };
	say_link(k);
	say_stat(k);
	say_flags(k);
	fstat(fd, &st);
	if (fcntl(fd, F_GETFL) & O_PATH)
		return;
	if (S_ISREG(st.st_mode))
		say_content(k);
	else if (S_ISFIFO(st.st_mode))
		say_pipe(k);
	else if (S_ISSOCK(st.st_mode))
		say_socket(l, l->nr - 1);
	else if (!S_ISDIR(st.st_mode))
		say_anonymous(k);
}

void start_looks(struct looks *l)
{
	l->pid = getpid();
	l->nr = 0;
}

void look_at(struct looks *l, int fd)
{
	add_look(l, fd, -1);
}

void end_looks(struct looks *l)
{
	int i;

	for (i = 0; i < l->nr; i++)
		if (l->all[i].carrier >= 0)
			close(l->all[i].fd);
}

static void compare_words(int process, const struct look *a, const struct look *b)
{
	char text[2][LOOK_TEXT], *rest[2] = { text[0], text[1] }, *word[2] = { "", "" };

	strcpy(text[0], a->text);
	strcpy(text[1], b->text);
	while (word[0] && word[1] && !strcmp(word[0], word[1])) {
		word[0] = strsep(&rest[0], " ");
		word[1] = strsep(&rest[1], " ");
	}
	bad("process %d, %s %d (%.40s): expected %s, got %s", process,
	    a->carrier >= 0 ? "in flight as" : "descriptor", a->fd, a->text + 5,
	    word[0] ? word[0] : "nothing", word[1] ? word[1] : "nothing");
}

void compare_looks(int process, const struct looks *expected, const struct looks *got)
{
	int i;

	if (expected->nr != got->nr)
		bad("process %d: expected %d descriptors, got %d", process, expected->nr, got->nr);
	for (i = 0; i < expected->nr && i < got->nr; i++)
		if (strcmp(expected->all[i].text, got->all[i].text))
			compare_words(process, &expected->all[i], &got->all[i]);
}

/* ---- relations ---- */

static struct { unsigned int ino, peer; } sockets[MAX_UNIX];
static size_t nr_sockets;

static void take_answer(struct nlmsghdr *h)
{
	struct unix_diag_msg *m = NLMSG_DATA(h);
	struct rtattr *a = (struct rtattr *)(m + 1);
	int left = h->nlmsg_len - NLMSG_LENGTH(sizeof(*m));

	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type != UNIX_DIAG_PEER || nr_sockets == MAX_UNIX)
			continue;
		sockets[nr_sockets].ino = m->udiag_ino;
		memcpy(&sockets[nr_sockets++].peer, RTA_DATA(a), sizeof(int));
	}
}

void read_peers(void)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req req;
	} ask = {
		{ sizeof(ask), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		{ .sdiag_family = AF_UNIX, .udiag_states = -1, .udiag_show = UDIAG_SHOW_PEER },
	};
	int fd = need("netlink", socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
	struct nlmsghdr *h;
	ssize_t n;

	nr_sockets = 0;
	need("send", send(fd, &ask, sizeof(ask), 0));
	while ((n = recv(fd, scratch, sizeof(scratch), 0)) > 0) {
		for (h = (void *)scratch; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
				goto done;
			take_answer(h);
		}
	}
done:
	close(fd);
}

static bool are_peers(ino_t a, ino_t b)
{
	size_t i;

	for (i = 0; i < nr_sockets; i++)
		if (sockets[i].ino == a && sockets[i].peer == b)
			return true;
	return false;
}

enum relation relate(pid_t pid_a, const struct look *a, pid_t pid_b, const struct look *b)
{
	if (is_same_file(pid_a, a->fd, pid_b, b->fd))
		return SAME_DESCRIPTION;
	if (a->anew && a->dev == b->dev && a->ino == b->ino)
		return SAME_INODE;
	if (strstr(a->text, "link=socket:") && strstr(b->text, "link=socket:") &&
	    are_peers(a->ino, b->ino))
		return PEERS;
	return STRANGERS;
}
