/* SPDX-License-Identifier: GPL-2.0-only */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/external.h"
#include "files/files.h"
#include "files/regular.h"
#include "files/tty.h"
#include "files/ttyqueue.h"

/* Documentation/admin-guide/devices.txt of the kernel */
#define PTS_FIRST_MAJOR 136
#define PTS_LAST_MAJOR	143
#define MINORS		256u

static const struct {
	unsigned major, first_minor, last_minor;
	TtyType type;
} devices[] = {
	{ TTY_AUX_MAJOR, 0, 0, TTY_TYPE__CTTY },
	{ TTY_AUX_MAJOR, 1, 1, TTY_TYPE__CONSOLE },
	{ 4, 0, 63, TTY_TYPE__VT },
	{ 4, 64, 255, TTY_TYPE__SERIAL },
	{ 166, 0, 255, TTY_TYPE__SERIAL }, /* ttyACM */
	{ 188, 0, 255, TTY_TYPE__SERIAL }, /* ttyUSB */
	{ 204, 0, 255, TTY_TYPE__SERIAL }, /* ttyAMA and others */
	{ 229, 0, 255, TTY_TYPE__SERIAL }, /* hvc */
};

/* One end of a terminal that descriptions of the tree lead to. */
struct dump_tty {
	TtyInfoEntry *info;
	const char *who, *path;
	dev_t dev; /* of the terminal itself, as a session has it */
	bool is_master, is_hung_up;
	int fd; /* of a master, until the tree is let go */
	struct tty_queue queue;
	struct dump_tty *next;
};

static bool is_slave(const struct stat *st)
{
	return major(st->st_rdev) >= PTS_FIRST_MAJOR && major(st->st_rdev) <= PTS_LAST_MAJOR;
}

/* UNKNOWN: no terminal. */
static TtyType type_of(const struct stat *st)
{
	if (tty_is_master(st->st_rdev) || is_slave(st))
		return TTY_TYPE__PTY;
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
		if (major(st->st_rdev) == devices[i].major &&
		    minor(st->st_rdev) >= devices[i].first_minor &&
		    minor(st->st_rdev) <= devices[i].last_minor)
			return devices[i].type;
	return TTY_TYPE__UNKNOWN;
}

bool tty_match(const struct fd_probe *p)
{
	return S_ISCHR(p->st.st_mode) && type_of(&p->st) != TTY_TYPE__UNKNOWN &&
	       !(p->info.flags & O_PATH);
}

static uint32_t slave_index(const struct stat *st)
{
	return (major(st->st_rdev) - PTS_FIRST_MAJOR) * MINORS + minor(st->st_rdev);
}

/*
 * The image format has the control characters as bytes, one behind the other in c_cc, which is
 * declared to be numbers: four in each, and the rest is filled up.
 */
static TermiosEntry *make_termios(struct arena *a, const struct termios2 *t)
{
	TermiosEntry *e = MESSAGE(a, TermiosEntry, termios_entry);

	e->c_iflag = t->c_iflag;
	e->c_oflag = t->c_oflag;
	e->c_cflag = t->c_cflag;
	e->c_lflag = t->c_lflag;
	e->c_line = t->c_line;
	e->c_ispeed = t->c_ispeed;
	e->c_ospeed = t->c_ospeed;
	e->n_c_cc = NCCS;
	e->c_cc = arena_array(a, uint32_t, NCCS);
	memset(e->c_cc, 0, NCCS * sizeof(e->c_cc[0]));
	memcpy(e->c_cc, t->c_cc, NCCS);
	return e;
}

/* Locks of settings are a termios without speeds. */
static TermiosEntry *make_locked(struct arena *a, int fd)
{
	struct termios locked;
	struct termios2 t = { 0 };

	if (ioctl(fd, TIOCGLCKTRMIOS, &locked) < 0)
		return NULL;
	memcpy(&t, &locked, sizeof(locked));
	return make_termios(a, &t);
}

static void read_settings(struct arena *a, int fd, TtyInfoEntry *e)
{
	int locked = 0, exclusive = 0, packet = 0;
	struct winsize size;
	struct termios2 t;

	(void)ioctl(fd, TIOCGPTLCK, &locked);
	(void)ioctl(fd, TIOCGEXCL, &exclusive);
	(void)ioctl(fd, TIOCGPKT, &packet);
	e->locked = locked;
	e->exclusive = exclusive;
	e->packet_mode = packet;
	if (ioctl(fd, TCGETS2, &t) == 0)
		e->termios = make_termios(a, &t);
	e->termios_locked = make_locked(a, fd);
	if (ioctl(fd, TIOCGWINSZ, &size) == 0) {
		e->winsize = MESSAGE(a, WinsizeEntry, winsize_entry);
		e->winsize->ws_row = size.ws_row;
		e->winsize->ws_col = size.ws_col;
		e->winsize->ws_xpixel = size.ws_xpixel;
		e->winsize->ws_ypixel = size.ws_ypixel;
	}
}

static bool is_hung_up(int fd)
{
	struct termios2 t;

	return ioctl(fd, TCGETS2, &t) < 0 && errno == EIO;
}

static struct dump_tty *find(struct dump *d, uint32_t id)
{
	for (struct dump_tty *t = d->ttys; t; t = t->next)
		if (t->info->id == id)
			return t;
	return NULL;
}

static uint32_t info_id(uint32_t index, bool master)
{
	return index << 1 | master;
}

/* Of others than pseudo terminals. */
static uint32_t device_id(TtyType type, dev_t dev)
{
	return (type == TTY_TYPE__CTTY ? 2u : 1u) << 30 | major(dev) << 20 | minor(dev);
}

/* tty_nr of /proc/PID/stat and TIOCGDEV: the kernel's own encoding. */
static dev_t device_of(uint32_t nr)
{
	return makedev(nr >> 8 & 0xfff, (nr & 0xff) | (nr >> 12 & 0xfff00));
}

/* What /dev/tty and /dev/console lead to. */
static dev_t real_device(const struct fd_probe *p)
{
	uint32_t nr;

	return ioctl(p->copy, TIOCGDEV, &nr) < 0 ? p->st.st_rdev : device_of(nr);
}

static struct dump_tty *add(struct dump *d, const struct fd_probe *p, uint32_t id, TtyType type,
			    dev_t dev)
{
	struct dump_tty *t = arena_new(&d->arena, struct dump_tty);
	TtyInfoEntry *e = MESSAGE(&d->arena, TtyInfoEntry, tty_info_entry);
	bool is_master = tty_is_master(p->st.st_rdev);
	char who[64];

	snprintf(who, sizeof(who), "pid %d fd %d", p->task->process->pid, p->fd);
	e->id = id;
	e->type = type;
	e->rdev = p->st.st_rdev;
	e->has_dev = e->has_uid = e->has_gid = true;
	e->dev = p->st.st_dev;
	e->uid = p->st.st_uid;
	e->gid = p->st.st_gid;
	if (type == TTY_TYPE__PTY) {
		e->pty = MESSAGE(&d->arena, TtyPtyEntry, tty_pty_entry);
		e->pty->index = id >> 1;
	}
	*t = (struct dump_tty){ .info = e,
				.who = arena_strdup(&d->arena, who),
				.path = arena_strdup(&d->arena, p->link),
				.dev = dev,
				.is_master = is_master,
				.is_hung_up = !is_master && is_hung_up(p->copy),
				.fd = is_master ? files_keep_fd(d, p->copy) : -1,
				.next = d->ttys };
	/* All slaves were closed again. It is another thing if there never was one. */
	e->slave_closed = e->has_slave_closed = is_master && shows_event(p->copy, POLLHUP);
	if (!t->is_hung_up)
		read_settings(&d->arena, p->copy, e);
	return d->ttys = t;
}

int tty_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	TtyType type = type_of(&p->st);
	bool is_master = tty_is_master(p->st.st_rdev);
	uint32_t index = slave_index(&p->st), id;
	FileEntry *file;

	if (p->copy < 0 || (is_master && ioctl(p->copy, TIOCGPTN, &index) < 0))
		return fail(errno, "pid %d fd %d: %s: look at the terminal", p->task->process->pid,
			    p->fd, p->link);
	dev_t dev = real_device(p);
	id = type == TTY_TYPE__PTY ? info_id(index, is_master)
				   : device_id(type, type == TTY_TYPE__CTTY ? dev : p->st.st_rdev);
	if (!find(d, id))
		(void)add(d, p, id, type, dev);
	file = files_new_entry(d);
	e->tty = MESSAGE(&d->arena, TtyFileEntry, tty_file_entry);
	e->tty->id = e->id;
	e->tty->tty_info_id = id;
	e->tty->flags = probe_flags(p);
	e->tty->fown = fown_read(d, p);
	e->tty->has_regf_id = true;
	e->tty->regf_id = file->id;
	regular_name_entry(d, p, file);
	return 0;
}

static bool is_external(struct dump *d, const struct dump_tty *t)
{
	char key[64];

	tty_key_of(t->info, key, sizeof(key));
	return external_has(d, key);
}

/* That of the leader counts; a shell job has its leader outside. */
static bool find_session(struct dump *d, struct dump_tty *t)
{
	for (size_t i = 0; i < d->n_tasks; i++) {
		const struct proc_stat *s = &d->tasks[i].process->stat;
		bool is_leader = s->sid == s->pid;

		if (!s->tty || device_of(s->tty) != t->dev)
			continue;
		if (is_leader || t->info->type == TTY_TYPE__CTTY) {
			t->info->sid = s->sid;
			t->info->pgrp = max(s->tty_pgid, 0);
		}
		if (is_leader)
			return true;
	}
	return false;
}

static bool is_open_by_name(const struct dump *d, dev_t dev)
{
	for (const struct dump_tty *t = d->ttys; t; t = t->next)
		if (t->dev == dev && t->info->type != TTY_TYPE__CTTY)
			return true;
	return false;
}

static void resolve_current(struct dump *d, const struct dump_tty *t, bool has_leader)
{
	if (t->is_hung_up || !t->info->sid)
		dump_block(d, "%s: its %s is %s, and could not be opened again", t->who, t->path,
			   t->is_hung_up ? "a terminal that was hung up"
					 : "the terminal of no process of the tree");
	else if (has_leader && !is_open_by_name(d, t->dev))
		dump_block(d,
			   "%s: its %s is a terminal that no process of the tree has open by its "
			   "own name; it cannot be given back to the session %u",
			   t->who, t->path, t->info->sid);
	else if (!has_leader && !d->opts->shell_job)
		dump_block(d,
			   "%s: its %s is a terminal of a session outside of the tree; to restore "
			   "on the terminal that criu runs on give --shell-job",
			   t->who, t->path);
}

static void resolve_slave(struct dump *d, const struct dump_tty *t)
{
	if (t->is_hung_up || find(d, t->info->id | 1) || d->opts->shell_job)
		return;
	dump_block(d,
		   "%s: the terminal %s belongs to a program outside of the tree; to restore "
		   "on the terminal that criu runs on give --shell-job, on another one "
		   "--external tty[%x:%x]",
		   t->who, t->path, t->info->rdev, t->info->dev);
}

void ttys_resolve(struct dump *d)
{
	for (struct dump_tty *t = d->ttys; t; t = t->next) {
		bool has_leader = find_session(d, t);

		if (is_external(d, t) || t->is_master)
			continue;
		if (t->info->type == TTY_TYPE__CTTY)
			resolve_current(d, t, has_leader);
		else if (t->info->type == TTY_TYPE__PTY)
			resolve_slave(d, t);
		else if (t->is_hung_up)
			dump_block(d, "%s: the terminal %s was hung up, which a new one is not",
				   t->who, t->path);
	}
}

int ttys_save_queues(struct dump *d)
{
	int rc = 0;

	for (struct dump_tty *t = d->ttys; t && rc == 0; t = t->next) {
		struct tty_queue none = { 0 };
		int unread = 0;

		if (!t->is_master || is_external(d, t))
			continue;
		struct dump_tty *slave = find(d, t->info->id & ~1u);
		if (slave || t->info->slave_closed)
			rc = tty_queues_copy(&d->arena, t->fd, t->who, &t->queue,
					     slave ? &slave->queue : &none);
		else if (ioctl(t->fd, FIONREAD, &unread) == 0 && unread)
			warn("%s: %d bytes wait for the master of a terminal, whose slave is not "
			     "in the tree; they are not dumped",
			     t->who, unread);
		if (none.n)
			warn("%s: %zu bytes wait in a terminal for whoever opens its slave again; "
			     "they are not dumped",
			     t->who, none.n);
	}
	return rc;
}

static int write_queues(struct dump *d)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_TTY_DATA, 0);
	for (const struct dump_tty *t = d->ttys; t; t = t->next) {
		TtyDataEntry e = TTY_DATA_ENTRY__INIT;

		if (!t->queue.n && !t->queue.n_eof)
			continue;
		e.tty_id = t->info->id;
		e.data.data = (uint8_t *)t->queue.data;
		e.data.len = t->queue.n;
		e.eof_at = (uint32_t *)t->queue.eof_at;
		e.n_eof_at = t->queue.n_eof;
		image_add(&out, &e);
	}
	return image_commit(&out);
}

int ttys_write_images(struct dump *d)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_TTY_INFO, 0);
	for (const struct dump_tty *t = d->ttys; t; t = t->next)
		image_add(&out, t->info);
	int rc = image_commit(&out);
	return rc < 0 ? rc : write_queues(d);
}
