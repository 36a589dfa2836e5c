/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pseudo terminals with both ends here: settings, sizes, locks, on demand
 * bytes that nobody has read yet, packet mode, ends whose other end is closed,
 * and a session of its own that a terminal controls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <asm/termbits.h>
#include <unistd.h>

#include "mk.h"

#define MAX_ENDS	20
#define PATIENCE_MS	20000
#define FULL_BYTES	6000	/* more than an end holds: the rest is on its way */

struct end {
	const char *what;
	int fd;
	/* as they were when made */
	struct stat st;
	int status, fd_flags;
	struct termios2 termios;
	struct termios locked;
	struct winsize size;
	int index;		/* of a master */
	int is_locked, packet, exclusive;
	char link[64];
};

static struct end ends[MAX_ENDS];
static int nr_ends;
static int raw[2], cooked[2], queued[2], lines[2], full[2], packet[2];
static int half_master = -1, half_slave = -1;
static int session = -1;	/* the master of the terminal that controls the session */
static pid_t leader, foreground;

/* ---- making ---- */

static int remember(const char *what, int fd)
{
	if (fd < 0)
		die("%s: %s", what, strerror(errno));
	if (nr_ends == MAX_ENDS)
		die("too many ends");
	ends[nr_ends].what = what;
	ends[nr_ends++].fd = fd;
	return fd;
}

static int open_master(bool locked)
{
	int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY), value = locked;

	if (fd < 0 || ioctl(fd, TIOCSPTLCK, &value) < 0)
		die("/dev/ptmx: %s", strerror(errno));
	return fd;
}

static int open_slave(int master, int flags)
{
	char path[32];
	int index, fd;

	if (ioctl(master, TIOCGPTN, &index) < 0)
		die("TIOCGPTN: %s", strerror(errno));
	snprintf(path, sizeof(path), "/dev/pts/%d", index);
	fd = open(path, flags);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static void make_raw(int fd)
{
	struct termios2 t;

	if (ioctl(fd, TCGETS2, &t) < 0)
		die("TCGETS2: %s", strerror(errno));
	t.c_iflag = IGNPAR;
	t.c_oflag = 0;
	t.c_lflag = 0;
	if (ioctl(fd, TCSETS2, &t) < 0)
		die("TCSETS2: %s", strerror(errno));
}

static void open_pair(int *pair, const char *what)
{
	pair[0] = remember(what, open_master(false));
	pair[1] = remember(what, open_slave(pair[0], O_RDWR | O_NOCTTY));
}

static void make_raw_pair(void)
{
	const struct winsize size = { 33, 99, 640, 480 };
	struct termios2 t;

	open_pair(raw, "raw pair");
	make_raw(raw[1]);
	ioctl(raw[1], TCGETS2, &t);
	t.c_cc[VMIN] = 3;
	t.c_cc[VTIME] = 7;
	t.c_cflag = (t.c_cflag & ~(CBAUD | CSIZE)) | BOTHER | CS8 | CSTOPB;
	t.c_ospeed = 12345;
	t.c_ispeed = 12345;
	if (ioctl(raw[1], TCSETS2, &t) < 0 || ioctl(raw[0], TIOCSWINSZ, &size) < 0)
		die("raw pair: %s", strerror(errno));
	remember("raw slave, opened again", open_slave(raw[0], O_RDONLY | O_NOCTTY | O_NONBLOCK));
	remember("dup of the raw slave", fcntl(raw[1], F_DUPFD_CLOEXEC, 0));
	if (fchown(raw[1], 1234, 5) < 0)
		die("fchown: %s", strerror(errno));
}

/* Lines are edited here, with keys of its own; some settings may not be changed by others. */
static void make_cooked_pair(void)
{
	struct termios locked = { .c_lflag = ECHO, .c_cc[VERASE] = 1 };
	struct termios2 t;

	open_pair(cooked, "cooked pair");
	ioctl(cooked[1], TCGETS2, &t);
	t.c_lflag = (t.c_lflag & ~(ECHO | ISIG)) | ICANON;
	t.c_iflag |= IXANY | IUTF8;
	t.c_cc[VERASE] = '#';
	t.c_cc[VKILL] = '@';
	if (ioctl(cooked[1], TCSETS2, &t) < 0 || ioctl(cooked[1], TIOCSLCKTRMIOS, &locked) < 0)
		die("cooked pair: %s", strerror(errno));
}

static void make_locks(void)
{
	int pair[2];

	remember("locked master", open_master(true));
	open_pair(pair, "exclusive pair");
	if (ioctl(pair[1], TIOCEXCL) < 0)
		die("TIOCEXCL: %s", strerror(errno));
}

static void put(const char *what, int fd, const char *text)
{
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		bad_errno(what);
}

static void fill_queues(void)
{
	put("queue to the slave", queued[0], "input");
	put("queue to the master", queued[1], "some output");
}

/* Typed: two lines, one ended by Control-D, an empty one so ended, and the start of one. */
static void type_lines(void)
{
	put("lines", lines[0], "one\rt\026\023wo\nthree\004\004pax\177");
}

static char full_byte(int i)
{
	return "0123456789\n\r\021\023\003\377"[i % 16];
}

static void fill_full(void)
{
	char buf[FULL_BYTES];
	int i;

	for (i = 0; i < FULL_BYTES; i++)
		buf[i] = full_byte(i);
	if (write(full[0], buf, sizeof(buf)) != sizeof(buf) ||
	    write(full[1], buf, sizeof(buf)) != sizeof(buf))
		bad_errno("full pair");
}

static void make_queued(void)
{
	open_pair(queued, "pair with queues");
	make_raw(queued[1]);
	fill_queues();
	open_pair(lines, "pair with lines");
	type_lines();
	open_pair(full, "pair with more than it holds");
	make_raw(full[1]);
	fill_full();
}

static void make_packet(void)
{
	int on = 1;

	open_pair(packet, "pair in packet mode");
	make_raw(packet[1]);
	if (ioctl(packet[0], TIOCPKT, &on) < 0)
		die("TIOCPKT: %s", strerror(errno));
	put("packet slave", packet[1], "waits");
}

/* Terminals that are no pairs, as far as this machine has them. */
static void make_devices(void)
{
	static const char *const paths[] = { "/dev/console", "/dev/tty1", "/dev/ttyS0" };
	int fd, found = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(paths); i++) {
		fd = open(paths[i], (i ? O_RDWR : O_WRONLY) | O_NOCTTY | O_NONBLOCK);
		if (fd >= 0)
			found += remember(paths[i], fd) >= 0;
	}
	if (!found)
		skip("no console or serial line can be opened here");
}

static void make_hung_up(void)
{
	int slave;

	half_master = remember("master of a closed slave", open_master(false));
	slave = open_slave(half_master, O_RDWR | O_NOCTTY);
	put("closed slave", slave, "last words");
	close(slave);
}

static void make_orphan(void)
{
	int master = open_master(false);

	half_slave = remember("slave of a closed master", open_slave(master, O_RDWR | O_NOCTTY));
	close(master);
}

/* ---- a session that a terminal controls: leader and foreground are children ---- */

static int tty = -1;		/* the slave, in both of them */
static int current = -1;	/* the same, opened as /dev/tty by the leader */
static volatile sig_atomic_t interrupts;

static void say(const char *text)
{
	int fd = current >= 0 ? current : tty;

	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		_exit(95);
}

static bool is_current_good(void)
{
	char name[32] = "";
	struct stat st;

	if (current < 0)
		return true;
	fd_name(current, name, sizeof(name));
	return fstat(current, &st) == 0 && st.st_rdev == makedev(5, 0) && !strcmp(name, "/dev/tty") &&
	       (fcntl(current, F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_RDWR | O_APPEND);
}

static void on_interrupt(int sig)
{
	(void)sig;
	interrupts++;
	say("interrupted\n");
}

static void nothing(void)
{
}

static void foreground_leaves(void)
{
	_exit(12);
}

static void foreground_life(void)
{
	const struct sigaction sa = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART };

	if (setpgid(0, 0) < 0 || sigaction(SIGINT, &sa, NULL) < 0)
		_exit(94);
	say("ready\n");
	serve_signals(nothing, foreground_leaves);
}

/* /dev/tty is whatever terminal controls the one who opens it. */
static void leader_checks(void)
{
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC), tty_group;
	pid_t sid = 0;

	if (fd < 0) {
		say("no /dev/tty\n");
		return;
	}
	tty_group = tcgetpgrp(fd);
	close(fd);
	if (tcgetpgrp(tty) != foreground || tty_group != foreground)
		say("wrong foreground group\n");
	else if (ioctl(tty, TIOCGSID, &sid) < 0 || sid != getpid())
		say("wrong session\n");
	else if (!is_current_good())
		say("another /dev/tty\n");
	else
		say("all well\n");
}

/* Before the leader: its end would hang up the terminal. */
static void leader_leaves(void)
{
	int status = 0;

	kill(foreground, SIGTERM);
	if (waitpid(foreground, &status, 0) != foreground || !WIFEXITED(status))
		_exit(93);
	_exit(WEXITSTATUS(status) == 12 ? 11 : 92);
}

static void leader_life(int master)
{
	setsid();
	tty = open_slave(master, O_RDWR | O_NOCTTY);
	if (ioctl(tty, TIOCSCTTY, 0) < 0)
		_exit(91);
	close(master);
	if (param_long("session") == 2) {
		current = open("/dev/tty", O_RDWR | O_NOCTTY | O_APPEND);
		if (current < 0)
			_exit(88);
	}
	foreground = fork();
	if (foreground < 0)
		_exit(90);
	if (!foreground)
		foreground_life();
	if ((setpgid(foreground, foreground) < 0 && errno != EACCES) ||
	    tcsetpgrp(tty, foreground) < 0)
		_exit(89);
	say("leads\n");
	serve_signals(leader_checks, leader_leaves);
}

/* One line of what the session says. */
static void listen_to(char *line, size_t size)
{
	struct pollfd p = { session, POLLIN, 0 };
	size_t n = 0;

	while (n < size - 1 && poll(&p, 1, PATIENCE_MS) == 1 && read(session, line + n, 1) == 1)
		if (line[n++] == '\n') {
			n--;
			break;
		}
	line[n] = '\0';
}

static void make_session(void)
{
	char first[32], second[32];
	struct termios2 t;
	int fd;

	session = remember("master of a session", open_master(false));
	fd = open_slave(session, O_RDWR | O_NOCTTY);
	ioctl(fd, TCGETS2, &t);
	t.c_lflag = ISIG | ICANON | NOFLSH;
	t.c_oflag = 0;
	if (ioctl(fd, TCSETS2, &t) < 0)
		die("TCSETS2: %s", strerror(errno));
	leader = fork();
	if (leader < 0)
		die("fork: %s", strerror(errno));
	if (!leader) {
		close(fd);
		leader_life(session);
	}
	listen_to(first, sizeof(first));
	listen_to(second, sizeof(second));
	close(fd);
	if (strlen(first) + strlen(second) != strlen("ready") + strlen("leads"))
		die("the session says '%s' and '%s'", first, second);
	if (ioctl(session, TIOCGPGRP, &foreground) < 0)
		die("TIOCGPGRP: %s", strerror(errno));
}

/* ---- what there is ---- */

static void read_state(struct end *e)
{
	fstat(e->fd, &e->st);
	e->status = fcntl(e->fd, F_GETFL);
	e->fd_flags = fcntl(e->fd, F_GETFD);
	e->index = e->is_locked = e->packet = e->exclusive = -1;
	ioctl(e->fd, TIOCGPTN, &e->index);
	ioctl(e->fd, TIOCGPTLCK, &e->is_locked);
	ioctl(e->fd, TIOCGPKT, &e->packet);
	ioctl(e->fd, TIOCGEXCL, &e->exclusive);
	ioctl(e->fd, TCGETS2, &e->termios);
	ioctl(e->fd, TIOCGLCKTRMIOS, &e->locked);
	ioctl(e->fd, TIOCGWINSZ, &e->size);
	fd_name(e->fd, e->link, sizeof(e->link));
}

static void make(void)
{
	int i;

	/* first, so that its children have nothing of the others */
	if (param_long("session"))
		make_session();
	make_raw_pair();
	make_cooked_pair();
	if (param_long("locks"))
		make_locks();
	if (param_long("queue"))
		make_queued();
	if (param_long("packet"))
		make_packet();
	if (param_long("devices"))
		make_devices();
	if (param_long("hangup"))
		make_hung_up();
	if (param_long("orphan"))
		make_orphan();
	for (i = 0; i < nr_ends; i++)
		read_state(&ends[i]);
}

/* ---- check ---- */

static void check_termios(const struct end *e, const struct end *now)
{
	char what[96];

	snprintf(what, sizeof(what), "%s (fd %d): ", e->what, e->fd);
#define SAME(member) same_long(what, e->member, now->member)
	strcat(what, "settings");
	SAME(termios.c_iflag);
	SAME(termios.c_oflag);
	SAME(termios.c_cflag);
	SAME(termios.c_lflag);
	SAME(termios.c_line);
	SAME(termios.c_ispeed);
	SAME(termios.c_ospeed);
	if (memcmp(e->termios.c_cc, now->termios.c_cc, sizeof(e->termios.c_cc)))
		bad("%s: other keys", what);
	if (memcmp(&e->locked, &now->locked, sizeof(e->locked)))
		bad("%s: other locks", what);
	if (memcmp(&e->size, &now->size, sizeof(e->size)))
		bad("%s: size is %dx%d instead of %dx%d", what, now->size.ws_row, now->size.ws_col,
		    e->size.ws_row, e->size.ws_col);
#undef SAME
}

static void check_end(const struct end *e)
{
	struct end now = { .what = e->what, .fd = e->fd };
	char what[96];

	read_state(&now);
#define SAME(member)									\
	do {										\
		snprintf(what, sizeof(what), "%s (fd %d): %s", e->what, e->fd, #member);	\
		same_long(what, e->member, now.member);					\
	} while (0)
	SAME(status);
	SAME(fd_flags);
	SAME(st.st_rdev);
	SAME(st.st_mode);
	SAME(st.st_uid);
	SAME(st.st_gid);
	SAME(index);
	SAME(is_locked);
	SAME(packet);
	SAME(exclusive);
#undef SAME
	same_str(e->what, e->link, now.link);
	check_termios(e, &now);
}

/* Reads what is there, which must start with @expected. */
static void expect_part(const char *what, int fd, const char *expected)
{
	char buf[64] = "";
	size_t n = 0, want = strlen(expected);
	struct pollfd p = { fd, POLLIN, 0 };
	ssize_t got;

	while (n < want && poll(&p, 1, PATIENCE_MS) == 1 &&
	       (got = read(fd, buf + n, sizeof(buf) - 1 - n)) > 0)
		n += got;
	if (n != want || memcmp(buf, expected, want))
		bad("%s, expected '%s', got %zu bytes '%s'", what, expected, n, buf);
}

static void expect_bytes(const char *what, int fd, const char *expected)
{
	struct pollfd p = { fd, POLLIN, 0 };

	expect_part(what, fd, expected);
	if (poll(&p, 1, 0) != 0)
		bad("%s: more than expected", what);
}

static void check_flow(void)
{
	put("raw master", raw[0], "abc");
	expect_bytes("raw slave", raw[1], "abc");
	put("raw slave", raw[1], "x\ny");
	expect_bytes("raw master", raw[0], "x\ny");
	/* # erases one, @ the line */
	put("cooked master", cooked[0], "junk@abx#c\n");
	expect_bytes("cooked slave", cooked[1], "abc\n");
	put("cooked slave", cooked[1], "1\n2");
	expect_bytes("cooked master", cooked[0], "1\r\n2");
}

/* A line is read at a time; an end of file that was typed ends one. */
static void expect_line(const char *what, const char *expected)
{
	char buf[64] = "";
	struct pollfd p = { lines[1], POLLIN, 0 };

	if (poll(&p, 1, PATIENCE_MS) == 1 && read(lines[1], buf, sizeof(buf) - 1) < 0)
		bad_errno(what);
	same_str(what, expected, buf);
}

static void check_lines(void)
{
	struct pollfd p = { lines[1], POLLIN, 0 };

	expect_line("first line", "one\n");
	expect_line("second line", "t\023wo\n");
	expect_line("third line", "three");
	expect_line("fourth line", "");
	same_long("lines that have no end", 0, poll(&p, 1, 0));
	put("lines", lines[0], "\177artial\n");
	expect_line("last line", "partial\n");
	expect_bytes("echo of the lines", lines[0], "one\r\nt^\b^Swo\r\nthreepax\b \b\b \bartial\r\n");
	type_lines();
}

static void check_full(void)
{
	int end, i;
	char c;

	for (end = 0; end < 2; end++) {
		struct pollfd p = { full[end], POLLIN, 0 };

		for (i = 0; poll(&p, 1, i < FULL_BYTES ? PATIENCE_MS : 0) == 1; i++)
			if (read(full[end], &c, 1) != 1 || c != full_byte(i))
				bad("full pair, end %d: byte %d is %#x, not %#x", end, i, c, full_byte(i));
		same_long("bytes in the full pair", FULL_BYTES, i);
	}
	fill_full();
}

static void check_queues(void)
{
	int n = -1;

	check_lines();
	check_full();
	ioctl(queued[1], FIONREAD, &n);
	same_long("bytes for the slave", 5, n);
	expect_bytes("queue to the slave", queued[1], "input");
	expect_bytes("queue to the master", queued[0], "some output");
	fill_queues();
}

/* In packet mode each read starts with a byte that says what it is about: 0 is data. */
static void check_packet(void)
{
	char buf[8] = "";

	if (read(packet[0], buf, sizeof(buf)) != 6 || memcmp(buf, "\0waits", 6))
		bad("the master is not in packet mode, or what waited is lost");
	put("packet slave", packet[1], "waits");
	put("packet master", packet[0], "def");
	expect_bytes("packet slave", packet[1], "def");
}

static void check_halves(void)
{
	static bool was_read;
	struct pollfd p = { half_master, POLLIN | POLLOUT, 0 };
	char c;

	if (half_master >= 0) {
		if (!was_read)
			expect_part("master of a closed slave", half_master, "last words");
		was_read = true;
		poll(&p, 1, 0);
		same_long("hang-up of the master", POLLHUP, p.revents & POLLHUP);
		if (read(half_master, &c, 1) != -1 || errno != EIO)
			bad("the master of a closed slave can be read");
	}
	if (half_slave >= 0) {
		if (read(half_slave, &c, 1) != 0)
			bad("the slave of a closed master does not read the end");
		if (write(half_slave, &c, 1) != -1 || errno != EIO)
			bad("the slave of a closed master can be written");
	}
}

/* The key for SIGINT, typed at the master, reaches the foreground group and no others. */
static void check_session(void)
{
	char line[64];
	pid_t group = 0, sid = 0;

	ioctl(session, TIOCGPGRP, &group);
	ioctl(session, TIOCGSID, &sid);
	same_long("foreground group", foreground, group);
	same_long("session of the terminal", leader, sid);
	if (kill(leader, SIGUSR1) < 0)
		bad_errno("leader");
	listen_to(line, sizeof(line));
	same_str("the leader says", "all well", line);
	put("master of the session", session, "\003");
	listen_to(line, sizeof(line));
	same_str("the foreground says", "interrupted", line);
}

static void check(void)
{
	int i;

	for (i = 0; i < nr_ends; i++)
		check_end(&ends[i]);
	check_flow();
	if (param_long("queue"))
		check_queues();
	if (param_long("packet"))
		check_packet();
	check_halves();
	if (session >= 0)
		check_session();
}

static void stop(void)
{
	int status = 0;

	if (session < 0)
		return;
	kill(leader, SIGTERM);
	if (waitpid(leader, &status, 0) != leader || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 11)
		bad("exit status of the leader, expected 11, got %#x", status);
}

struct factory tty_factory = {
	.name	= "tty",
	.about	= "pseudo terminals: settings, queues, sessions",
	.params	= {
		{ "session", "0", "1: with a session that a terminal controls; 2: which has /dev/tty open" },
		{ "devices", "0", "1: with consoles and serial lines" },
		{ "locks", "0", "1: a locked master, and an exclusive slave" },
		{ "queue", "0", "1: with bytes nobody has read yet" },
		{ "packet", "0", "1: one master in packet mode" },
		{ "hangup", "0", "1: a master whose slave is closed" },
		{ "orphan", "0", "1: a slave whose master is closed" },
	},
	.make	= make,
	.check	= check,
	.stop	= stop,
};
