/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/ttyqueue.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "model/snapshot.h"

#define HELD_MAX                                                                                   \
	4095 /* bytes and marks that an end takes; some 8 KiB more wait on their way to it */
#define EOFS_MAX HELD_MAX
#define NO_CHAR	 0 /* as a control character: there is none */

/* Why nothing was copied, and nothing touched. */
enum obstacle { OBSTACLE_NONE, OBSTACLE_TIOCSTI, OBSTACLE_STATUS };

static const char *const obstacles[] = {
	[OBSTACLE_TIOCSTI] = "this kernel does not let criu put them back (TIOCSTI; see "
			     "dev.tty.legacy_tiocsti and CAP_SYS_ADMIN)",
	[OBSTACLE_STATUS] = "a status of packet mode waits before them",
};

struct copy {
	uint32_t n, n_eof, eof_at[EOFS_MAX];
	uint8_t data[TTY_DATA_MAX];
};

/* What criu and the process that copies share. */
struct copies {
	struct copy of_master, of_slave;
	enum obstacle obstacle;
	int error;
};

/* Settings of a pair, which its slave has; locks keep anybody from changing some of them. */
struct settings {
	struct termios2 t;
	struct termios locked;
	bool has_locks;
};

static int settings_take(int slave, struct settings *s)
{
	static const struct termios none;

	if (ioctl(slave, TCGETS2, &s->t) < 0 || ioctl(slave, TIOCGLCKTRMIOS, &s->locked) < 0)
		return -errno;
	s->has_locks = memcmp(&s->locked, &none, sizeof(none)) != 0;
	return s->has_locks && ioctl(slave, TIOCSLCKTRMIOS, &none) < 0 ? -errno : 0;
}

static int settings_put_back(int slave, const struct settings *s)
{
	if (ioctl(slave, TCSETS2, &s->t) < 0 ||
	    (s->has_locks && ioctl(slave, TIOCSLCKTRMIOS, &s->locked) < 0))
		return -errno;
	return 0;
}

static bool has_byte(const struct tty_queue *q, uint8_t byte)
{
	return q->n && memchr(q->data, byte, q->n);
}

static bool ends_line(const struct termios2 *t, uint8_t c)
{
	return c == '\n' || (c != NO_CHAR &&
			     (c == t->c_cc[VEOL] || (t->c_lflag & IEXTEN && c == t->c_cc[VEOL2])));
}

/* A character for end-of-file that means nothing else there. */
static uint8_t find_eof_char(const struct termios2 *t, const struct tty_queue *q)
{
	for (unsigned c = 1; c < 256; c++)
		if (!has_byte(q, c) && !ends_line(t, c) && c != t->c_cc[VSTART] &&
		    c != t->c_cc[VSTOP])
			return c;
	return NO_CHAR;
}

/*
 * Bytes that were processed once come in as they are. Lines stay lines: switching ICANON would
 * make one of all that is there. IXON stays where it can, as its change is told in packet mode.
 */
static struct termios2 settings_to_refill(const struct termios2 *t, const struct tty_queue *q)
{
	static const uint8_t editing[] = { VERASE, VKILL, VWERASE, VREPRINT, VLNEXT, VDISCARD };
	struct termios2 r = *t;

	r.c_iflag &= ~(ISTRIP | IUCLC | IGNCR | ICRNL | INLCR | PARMRK | IXANY);
	if (has_byte(q, t->c_cc[VSTART]) || has_byte(q, t->c_cc[VSTOP]))
		r.c_iflag &= ~IXON;
	r.c_lflag &= ~(ECHO | ECHONL | ISIG);
	for (size_t i = 0; i < sizeof(editing); i++)
		r.c_cc[editing[i]] = NO_CHAR;
	r.c_cc[VEOF] = q->n_eof ? find_eof_char(t, q) : NO_CHAR;
	return r;
}

/* Never waits: nobody may read at the other end. */
static int write_slowly(int fd, const uint8_t *data, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	for (size_t i = 0; i < n; i++) {
		if (poll(&p, 1, 0) < 0)
			return -errno;
		if (!(p.revents & POLLOUT))
			return -ENOBUFS;
		if (write(fd, &data[i], 1) < 0)
			return -errno;
	}
	return 0;
}

static int fill(int end, int peer, const struct tty_queue *q, uint8_t eof)
{
	size_t mark = 0, held = 0;

	for (size_t i = 0; i <= q->n; i++) {
		while (mark < q->n_eof && q->eof_at[mark] == i) {
			mark++;
			if (eof == NO_CHAR || held++ >= HELD_MAX)
				continue;
			if (ioctl(end, TIOCSTI, &eof) < 0)
				return -errno;
		}
		if (i == q->n)
			break;
		if (held++ >= HELD_MAX)
			return write_slowly(peer, q->data + i, q->n - i);
		if (ioctl(end, TIOCSTI, &q->data[i]) < 0)
			return -errno;
	}
	return 0;
}

/* What a slave writes is not to be processed, either: that has been done. */
static int fill_master(int master, int slave, const struct tty_queue *q)
{
	struct settings s;

	if (q->n <= HELD_MAX)
		return fill(master, slave, q, NO_CHAR);
	int rc = settings_take(slave, &s);
	if (rc < 0)
		return rc;
	struct termios2 t = s.t;
	t.c_oflag &= ~OPOST;
	rc = ioctl(slave, TCSETS2, &t) < 0 ? -errno : fill(master, slave, q, NO_CHAR);
	int back = settings_put_back(slave, &s);
	return rc < 0 ? rc : back;
}

static int fill_slave(int slave, int master, const struct tty_queue *q)
{
	struct settings s;
	int rc = settings_take(slave, &s);

	if (rc < 0)
		return rc;
	struct termios2 t = settings_to_refill(&s.t, q);
	rc = ioctl(slave, TCSETS2, &t) < 0 ? -errno : fill(slave, master, q, t.c_cc[VEOF]);
	int back = settings_put_back(slave, &s);
	return rc < 0 ? rc : back;
}

int tty_queue_put(int end, int peer, bool is_slave, const struct tty_queue *q)
{
	if (!q->n && !q->n_eof)
		return 0;
	return is_slave ? fill_slave(end, peer, q) : fill_master(end, peer, q);
}

/* ---- taking a copy ---- */

static bool can_refill(void)
{
	autoclose int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	const char byte = 'x';

	return fd >= 0 && ioctl(fd, TIOCSTI, &byte) == 0;
}

/*
 * One read, into what is left of the room; returns the bytes, of which a line or what is there is
 * taken. In packet mode each read starts with a byte that says what follows.
 */
static ssize_t read_some(int fd, struct copy *c, bool is_packet)
{
	uint8_t *at = c->data + c->n;
	size_t room = sizeof(c->data) - c->n;

	if (room <= HELD_MAX + 1)
		return -ENOBUFS;
	ssize_t n = read(fd, at, HELD_MAX + 1);
	if (n < 0)
		return -errno;
	if (n > 0 && is_packet)
		memmove(at, at + 1, --n);
	c->n += n;
	return n;
}

/* A line ends by its last character, or by an end-of-file that is not in it. */
static int read_lines(int slave, const struct termios2 *t, struct copy *c)
{
	while (shows_event(slave, POLLIN)) {
		ssize_t n = read_some(slave, c, false);

		if (n < 0)
			return n;
		if ((n == 0 || !ends_line(t, c->data[c->n - 1])) && c->n_eof < EOFS_MAX)
			c->eof_at[c->n_eof++] = c->n;
	}
	return 0;
}

static int read_all_of(int fd, struct copy *c, bool is_packet)
{
	ssize_t n = 1;

	while (n > 0 && shows_event(fd, POLLIN))
		n = read_some(fd, c, is_packet);
	return n < 0 ? n : 0;
}

/* A line that has no end yet is only seen when lines do not count. */
static int read_slave(int slave, struct copy *c)
{
	struct settings s;
	int rc = settings_take(slave, &s);

	if (rc < 0)
		return rc;
	if (s.t.c_lflag & ICANON) {
		struct termios2 t = s.t;

		rc = read_lines(slave, &t, c);
		t.c_lflag &= ~ICANON;
		if (rc == 0 && ioctl(slave, TCSETS2, &t) < 0)
			rc = -errno;
	}
	if (rc == 0)
		rc = read_all_of(slave, c, false);
	int back = settings_put_back(slave, &s);
	return rc < 0 ? rc : back;
}

static int put_back(int end, int peer, bool is_slave, const struct copy *c)
{
	const struct tty_queue q = { c->data, c->n, c->eof_at, c->n_eof };

	return tty_queue_put(end, peer, is_slave, &q);
}

/* The slave first: what it takes in may be echoed to the master. */
static int copy_both(int master, int slave, struct copies *c)
{
	int is_packet = 0;

	(void)ioctl(master, TIOCGPKT, &is_packet);
	int rc = read_slave(slave, &c->of_slave);
	if (rc == 0)
		rc = read_all_of(master, &c->of_master, is_packet);
	int back = put_back(master, slave, false, &c->of_master);
	if (back == 0)
		back = put_back(slave, master, true, &c->of_slave);
	return rc < 0 ? rc : back;
}

static int copy_pair(int master, struct copies *c)
{
	int is_locked = 0, unlocked = 0;

	if (!can_refill())
		c->obstacle = OBSTACLE_TIOCSTI;
	else if (shows_event(master, POLLPRI))
		c->obstacle = OBSTACLE_STATUS;
	if (c->obstacle)
		return 0;
	if (ioctl(master, TIOCGPTLCK, &is_locked) < 0 ||
	    (is_locked && ioctl(master, TIOCSPTLCK, &unlocked) < 0))
		return -errno;
	autoclose int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	int rc = slave < 0 ? -errno : copy_both(master, slave, c);
	if (is_locked && ioctl(master, TIOCSPTLCK, &is_locked) < 0 && rc == 0)
		rc = -errno;
	return rc;
}

/* No signal ends it in the middle, nor has it a terminal that could send one. */
static int copy_apart(int master, struct copies *c)
{
	sigset_t all, old;
	int status;

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &old);
	pid_t pid = fork();
	if (pid == 0) {
		(void)setsid();
		c->error = copy_pair(master, c);
		_exit(0);
	}
	int rc = pid < 0 ? -errno : 0;
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	while (rc == 0 && waitpid(pid, &status, 0) < 0)
		rc = errno == EINTR ? 0 : -errno;
	return rc == 0 && status ? -EINTR : rc;
}

static struct tty_queue keep(struct arena *a, const struct copy *c)
{
	return (struct tty_queue){ arena_memdup(a, c->data, c->n), c->n,
				   arena_memdup(a, c->eof_at, c->n_eof * sizeof(c->eof_at[0])),
				   c->n_eof };
}

int tty_queues_copy(struct arena *a, int master, const char *who, struct tty_queue *ret_of_master,
		    struct tty_queue *ret_of_slave)
{
	autounmap struct local_map m = { .size = sizeof(struct copies) };

	m.addr = mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m.addr == MAP_FAILED) {
		m.addr = NULL;
		return fail(errno, "%s: room for what waits in the terminal", who);
	}
	struct copies *c = m.addr;
	int rc = copy_apart(master, c);
	if (rc == 0)
		rc = c->error;
	if (rc < 0)
		return fail(-rc, "%s: copy what waits in the terminal", who);
	if (c->obstacle)
		warn("%s: bytes may wait in the terminal; they are not dumped: %s", who,
		     obstacles[c->obstacle]);
	*ret_of_master = keep(a, &c->of_master);
	*ret_of_slave = keep(a, &c->of_slave);
	return 0;
}
