/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Terminals. Images: entries in files.img, one tty-info for each end. pty(7), ioctl_tty(2).
 *
 * A pair with its master in the tree is made again under its old index. A slave alone belongs to
 * a terminal outside, as that of a shell: with --shell-job the terminal of criu takes its place.
 * A slave whose master was closed is hung up, and is again.
 */
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

#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/external.h"
#include "files/files.h"
#include "files/regular.h"
#include "files/tty.h"
#include "files/ttyqueue.h"

#define TTY_AUX_MAJOR	5 /* /dev/tty, console, ptmx */
#define PTMX_MINOR	2
#define PTS_FIRST_MAJOR 136
#define PTS_LAST_MAJOR	143
#define MINORS		256u
#define MASTERS_TRIED	4096

/* One end of a terminal that descriptions of the tree lead to. */
struct dump_tty {
	TtyInfoEntry *info;
	const char *who, *path;
	bool is_master, is_hung_up;
	int fd; /* of a master, until the tree is let go */
	struct tty_queue queue;
	struct dump_tty *next;
};

static bool is_master(const struct stat *st)
{
	return major(st->st_rdev) == TTY_AUX_MAJOR && minor(st->st_rdev) == PTMX_MINOR;
}

static bool is_slave(const struct stat *st)
{
	return major(st->st_rdev) >= PTS_FIRST_MAJOR && major(st->st_rdev) <= PTS_LAST_MAJOR;
}

static bool tty_match(const struct fd_probe *p)
{
	return S_ISCHR(p->st.st_mode) && (is_master(&p->st) || is_slave(&p->st)) &&
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

/* All slaves were closed again. It is another thing if there never was one. */
static bool has_no_slave(int master)
{
	struct pollfd p = { .fd = master };

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
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

static struct dump_tty *add(struct dump *d, const struct fd_probe *p, uint32_t index)
{
	struct dump_tty *t = arena_new(&d->arena, struct dump_tty);
	TtyInfoEntry *e = MESSAGE(&d->arena, TtyInfoEntry, tty_info_entry);
	char who[64];

	snprintf(who, sizeof(who), "pid %d fd %d", p->task->process->pid, p->fd);
	e->id = info_id(index, is_master(&p->st));
	e->type = TTY_TYPE__PTY;
	e->rdev = p->st.st_rdev;
	e->has_dev = e->has_uid = e->has_gid = true;
	e->dev = p->st.st_dev;
	e->uid = p->st.st_uid;
	e->gid = p->st.st_gid;
	e->pty = MESSAGE(&d->arena, TtyPtyEntry, tty_pty_entry);
	e->pty->index = index;
	*t = (struct dump_tty){ .info = e,
				.who = arena_strdup(&d->arena, who),
				.path = arena_strdup(&d->arena, p->link),
				.is_master = is_master(&p->st),
				.is_hung_up = !is_master(&p->st) && is_hung_up(p->copy),
				.fd = is_master(&p->st) ? files_keep_fd(d, p->copy) : -1,
				.next = d->ttys };
	e->slave_closed = e->has_slave_closed = t->is_master && has_no_slave(p->copy);
	if (!t->is_hung_up)
		read_settings(&d->arena, p->copy, e);
	return d->ttys = t;
}

static int tty_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	uint32_t index = slave_index(&p->st);
	FileEntry *file;

	if (p->copy < 0 || (is_master(&p->st) && ioctl(p->copy, TIOCGPTN, &index) < 0))
		return fail(errno, "pid %d fd %d: %s: look at the terminal", p->task->process->pid,
			    p->fd, p->link);
	if (!find(d, info_id(index, is_master(&p->st))))
		(void)add(d, p, index);
	file = files_new_entry(d);
	e->tty = MESSAGE(&d->arena, TtyFileEntry, tty_file_entry);
	e->tty->id = e->id;
	e->tty->tty_info_id = info_id(index, is_master(&p->st));
	e->tty->flags = probe_flags(p);
	e->tty->fown = fown_read(d, p);
	e->tty->has_regf_id = true;
	e->tty->regf_id = file->id;
	regular_name_entry(d, p, file);
	return 0;
}

/* tty_nr of /proc/PID/stat: the kernel's own encoding. */
static dev_t device_of(uint32_t nr)
{
	return makedev(nr >> 8 & 0xfff, (nr & 0xff) | (nr >> 12 & 0xfff00));
}

static void tty_key_of(const TtyInfoEntry *info, char *buf, size_t size)
{
	snprintf(buf, size, "tty[%x:%x]", info->rdev, info->has_dev ? info->dev : 0);
}

static bool is_external(struct dump *d, const struct dump_tty *t)
{
	char key[64];

	tty_key_of(t->info, key, sizeof(key));
	return external_has(d, key);
}

static void find_session(struct dump *d, struct dump_tty *t)
{
	dev_t dev = makedev(PTS_FIRST_MAJOR + t->info->pty->index / MINORS,
			    t->info->pty->index % MINORS);

	for (size_t i = 0; i < d->n_tasks; i++) {
		const struct proc_stat *s = &d->tasks[i].process->stat;

		if (s->sid != s->pid || !s->tty || device_of(s->tty) != dev)
			continue;
		t->info->sid = s->sid;
		t->info->pgrp = max(s->tty_pgid, 0);
	}
}

void ttys_resolve(struct dump *d)
{
	for (struct dump_tty *t = d->ttys; t; t = t->next) {
		find_session(d, t);
		if (is_external(d, t) || t->is_master || t->is_hung_up ||
		    find(d, t->info->id | 1) || d->opts->shell_job)
			continue;
		dump_block(
			d,
			"%s: the terminal %s belongs to a program outside of the tree; to restore "
			"on the terminal that criu runs on give --shell-job, on another one "
			"--external tty[%x:%x]",
			t->who, t->path, t->info->rdev, t->info->dev);
	}
}

int ttys_save_queues(struct dump *d)
{
	int rc = 0;

	for (struct dump_tty *t = d->ttys; t && rc == 0; t = t->next) {
		struct dump_tty *slave = find(d, t->info->id & ~1u);
		struct tty_queue none = { 0 };
		int unread = 0;

		if (!t->is_master || is_external(d, t))
			continue;
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

/* ---- restore ---- */

/* A pair: criu holds both ends until all descriptions are open. */
struct restore_tty {
	uint32_t index;
	int master;
	bool master_is_taken;
	struct restore_tty *next;
};

static const TtyInfoEntry *info_of(const struct restore *r, const FileEntry *e)
{
	return snapshot_tty(&r->snapshot, e->tty->tty_info_id);
}

static bool is_master_info(const TtyInfoEntry *info)
{
	dev_t dev = info->rdev;

	return major(dev) == TTY_AUX_MAJOR && minor(dev) == PTMX_MINOR;
}

static const TtyInfoEntry *end_of(const struct restore *r, uint32_t index, bool master)
{
	for (size_t i = 0; i < r->snapshot.n_ttys; i++)
		if (r->snapshot.ttys[i]->pty->index == index &&
		    is_master_info(r->snapshot.ttys[i]) == master)
			return r->snapshot.ttys[i];
	return NULL;
}

/* The kernel gives the lowest free index: the ones below are held until ours comes. */
static int open_master(uint32_t index)
{
	int held[MASTERS_TRIED], n = 0, found = -ENOENT;

	while (n < MASTERS_TRIED && found == -ENOENT) {
		uint32_t got;
		int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

		if (fd < 0 || ioctl(fd, TIOCGPTN, &got) < 0)
			found = -errno;
		else if (got == index)
			found = fd;
		else if (got > index)
			found = -EBUSY;
		if (fd >= 0 && fd != found)
			held[n++] = fd;
	}
	while (n)
		(void)close(held[--n]);
	if (found == -EBUSY)
		return refuse(EBUSY,
			      "terminal /dev/pts/%u: it is in use by another program; "
			      "the terminal needs this number again",
			      index);
	return found < 0 ? fail(-found, "terminal /dev/pts/%u: open its master", index) : found;
}

static struct restore_tty *pair_of(struct restore *r, uint32_t index)
{
	int unlocked = 0;

	for (struct restore_tty *t = r->ttys; t; t = t->next)
		if (t->index == index)
			return t;
	int fd = files_own_number(r, open_master(index));
	if (fd < 0)
		return NULL;
	if (ioctl(fd, TIOCSPTLCK, &unlocked) < 0) {
		(void)fail(errno, "terminal /dev/pts/%u: unlock it", index);
		return NULL;
	}
	struct restore_tty *t = arena_new(&r->arena, struct restore_tty);
	*t = (struct restore_tty){ .index = index, .master = fd, .next = r->ttys };
	return r->ttys = t;
}

/* The terminal that criu was started on. */
static int open_own(const struct restore *r, const RegFileEntry *file)
{
	for (int fd = 0; fd < 3 && r->opts->shell_job; fd++)
		if (isatty(fd))
			return fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return refuse(ENOTTY,
		      "terminal %s: it belonged to a program outside of the tree; restore with "
		      "--shell-job on a terminal, or give --inherit-fd",
		      file->name);
}

static const RegFileEntry *file_of(const struct restore *r, const FileEntry *e)
{
	int i = e->tty->has_regf_id ? snapshot_file(&r->snapshot, e->tty->regf_id) : -1;

	return i < 0 ? NULL : r->snapshot.files[i]->reg;
}

static int open_slave(struct restore *r, const FileEntry *e, const TtyInfoEntry *info)
{
	struct restore_tty *t = pair_of(r, info->pty->index);

	if (!t)
		return -EBUSY;
	/* What TIOCGPTPEER opens has other flags than open(2) gives: it is opened once more. */
	autoclose int peer = ioctl(t->master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	int fd = peer < 0 ? -errno : file_reopen(peer, e->tty->flags);
	return fd < 0 ? fail(-fd, "terminal /dev/pts/%u: open it", info->pty->index) : fd;
}

static int tty_open(struct restore *r, const FileEntry *e)
{
	const TtyInfoEntry *info = info_of(r, e);
	int fd;

	if (is_master_info(info)) {
		struct restore_tty *t = pair_of(r, info->pty->index);

		fd = t ? fcntl(t->master, F_DUPFD_CLOEXEC, 0) : -EBUSY;
	} else if (end_of(r, info->pty->index, true) || !info->termios) {
		fd = open_slave(r, e, info);
	} else {
		fd = open_own(r, file_of(r, e));
		/* Its flags are shared with the shell: they stay as they are. */
		return fd;
	}
	return fd < 0 ? fd : file_finish(fd, e->tty->flags, "terminal");
}

static void fill_termios(const TermiosEntry *e, struct termios2 *t)
{
	*t = (struct termios2){ .c_iflag = e->c_iflag,
				.c_oflag = e->c_oflag,
				.c_cflag = e->c_cflag,
				.c_lflag = e->c_lflag,
				.c_line = e->c_line,
				.c_ispeed = e->c_ispeed,
				.c_ospeed = e->c_ospeed };
	memcpy(t->c_cc, e->c_cc, min(sizeof(t->c_cc), e->n_c_cc * sizeof(e->c_cc[0])));
}

/* The settings of a pair are those of its slave; a master alone shows them too. */
static int set_termios(int fd, const TtyInfoEntry *info)
{
	struct termios2 t;
	struct termios locked;

	if (info->termios) {
		fill_termios(info->termios, &t);
		if (ioctl(fd, TCSETS2, &t) < 0)
			return -errno;
	}
	if (info->termios_locked) {
		fill_termios(info->termios_locked, &t);
		memcpy(&locked, &t, sizeof(locked));
		if (ioctl(fd, TIOCSLCKTRMIOS, &locked) < 0)
			return -errno;
	}
	return 0;
}

static int set_size(int fd, const WinsizeEntry *e)
{
	const struct winsize size = { e->ws_row, e->ws_col, e->ws_xpixel, e->ws_ypixel };

	return ioctl(fd, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

static int set_slave(int master, const TtyInfoEntry *info, mode_t mode)
{
	autoclose int fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : set_termios(fd, info);

	if (rc == 0 && info->winsize)
		rc = set_size(fd, info->winsize);
	if (rc == 0 && info->has_uid && info->has_gid && fchown(fd, info->uid, info->gid) < 0)
		rc = -errno;
	if (rc == 0 && mode && fchmod(fd, mode & 07777) < 0)
		rc = -errno;
	if (rc == 0 && info->exclusive && ioctl(fd, TIOCEXCL) < 0)
		rc = -errno;
	return rc;
}

static int set_alone(int master, const TtyInfoEntry *info)
{
	int rc = set_termios(master, info);

	return rc == 0 && info->winsize ? set_size(master, info->winsize) : rc;
}

static int set_master(int fd, const TtyInfoEntry *info)
{
	int on = 1, rc = 0;

	if (info->packet_mode && ioctl(fd, TIOCPKT, &on) < 0)
		rc = -errno;
	if (rc == 0 && info->slave_closed) {
		autoclose int slave = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);

		rc = slave < 0 ? -errno : 0;
	}
	if (rc == 0 && info->locked && ioctl(fd, TIOCSPTLCK, &on) < 0)
		rc = -errno;
	return rc;
}

static mode_t mode_of_slave(const struct restore *r, const TtyInfoEntry *info)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		const FileEntry *e = r->snapshot.files[i];

		if (e->tty && e->tty->tty_info_id == info->id && file_of(r, e))
			return file_of(r, e)->mode;
	}
	return 0;
}

static int fill_queue(const struct restore *r, int master, const TtyInfoEntry *end)
{
	bool is_slave = !is_master_info(end);

	for (size_t i = 0; i < r->snapshot.n_tty_data; i++) {
		const TtyDataEntry *e = r->snapshot.tty_data[i];
		const struct tty_queue q = { e->data.data, e->data.len, e->eof_at, e->n_eof_at };

		if (e->tty_id != end->id)
			continue;
		autoclose int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		int rc = slave < 0  ? -errno
			 : is_slave ? tty_queue_put(slave, master, true, &q)
				    : tty_queue_put(master, slave, false, &q);
		if (rc < 0)
			return fail(-rc, "terminal /dev/pts/%u: put back the %zu bytes that waited",
				    end->pty->index, e->data.len);
	}
	return 0;
}

static int finish_pair(const struct restore *r, const struct restore_tty *t)
{
	const TtyInfoEntry *slave = end_of(r, t->index, false);
	const TtyInfoEntry *master = end_of(r, t->index, true);
	int rc = 0;

	if (slave && slave->termios)
		rc = set_slave(t->master, slave, mode_of_slave(r, slave));
	else if (!slave && master)
		rc = set_alone(t->master, master);
	if (rc == 0 && master) {
		rc = fill_queue(r, t->master, master);
		if (rc == 0 && slave)
			rc = fill_queue(r, t->master, slave);
		if (rc < 0)
			return rc;
		rc = set_master(t->master, master);
	}
	return rc < 0 ? fail(-rc, "terminal /dev/pts/%u: set it as it was", t->index) : 0;
}

int ttys_finish(struct restore *r)
{
	int rc = 0;

	for (struct restore_tty *t = r->ttys; t && rc == 0; t = t->next)
		rc = finish_pair(r, t);
	for (struct restore_tty *t = r->ttys; t; t = t->next)
		own_close(&t->master);
	r->ttys = NULL;
	return rc;
}

/* Any end will do: what a master is asked is done to its slave. */
int ttys_of_session(const struct restore *r, uint32_t sid)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		const FileEntry *e = r->snapshot.files[i];

		if (e->type == FD_TYPES__TTY && info_of(r, e)->sid == sid)
			return r->file_fds[i];
	}
	return -1;
}

uint32_t ttys_foreground(const struct restore *r, uint32_t sid)
{
	for (size_t i = 0; i < r->snapshot.n_ttys; i++)
		if (r->snapshot.ttys[i]->sid == sid)
			return r->snapshot.ttys[i]->pgrp;
	return 0;
}

static int tty_check(const struct restore *r, const FileEntry *e)
{
	const TtyInfoEntry *info = info_of(r, e);

	if (!info)
		return refuse(EINVAL, "image files.img: terminal %#x: tty-info.img has no %#x",
			      e->id, e->tty->tty_info_id);
	if (!is_master_info(info) && !file_of(r, e))
		return refuse(EINVAL, "image files.img: terminal %#x: there is no file of it",
			      e->id);
	return 0;
}

static void tty_key(const struct restore *r, const FileEntry *e, char *buf, size_t size)
{
	tty_key_of(info_of(r, e), buf, size);
}

FILE_PART(tty, tty)

const struct file_class tty_class = {
	.name = "terminal",
	.type = FD_TYPES__TTY,
	.match = tty_match,
	.dump = tty_dump,
	.has_part = tty_has_part,
	.check = tty_check,
	.open = tty_open,
	.key = tty_key,
	.inherit_kind = S_IFCHR,
	.fown = tty_fown,
	.flags = tty_flags,
};
