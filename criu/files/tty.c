/* SPDX-License-Identifier: GPL-2.0-only */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"
#include "files/tty.h"
#include "files/ttyqueue.h"

#define MASTERS_TRIED 4096

void tty_key_of(const TtyInfoEntry *info, char *buf, size_t size)
{
	snprintf(buf, size, "tty[%x:%x]", info->rdev, info->has_dev ? info->dev : 0);
}

/* A pair: criu holds both ends until all descriptions are open. */
struct restore_tty {
	uint32_t index;
	int master;
	struct restore_tty *next;
};

static const TtyInfoEntry *info_of(const struct restore *r, const FileEntry *e)
{
	return snapshot_tty(&r->snapshot, e->tty->tty_info_id);
}

static bool is_master_info(const TtyInfoEntry *info)
{
	return tty_is_master(info->rdev);
}

static const TtyInfoEntry *end_of(const struct restore *r, uint32_t index, bool master)
{
	for (size_t i = 0; i < r->snapshot.n_ttys; i++)
		if (r->snapshot.ttys[i]->type == TTY_TYPE__PTY &&
		    r->snapshot.ttys[i]->pty->index == index &&
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

/* The terminal that criu was started on: a descriptor, or -1. */
static int own_terminal(const struct restore *r)
{
	for (int fd = 0; fd < 3 && r->opts->shell_job; fd++)
		if (isatty(fd))
			return fd;
	return -1;
}

static int open_own(const struct restore *r, const RegFileEntry *file)
{
	int fd = own_terminal(r);

	if (fd >= 0)
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

static int open_device(const struct restore *r, const FileEntry *e, const TtyInfoEntry *info)
{
	const RegFileEntry *file = file_of(r, e);
	struct stat st;

	/* Without waiting for a carrier. */
	autoclose int fd =
		open(file->name, (e->tty->flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(errno, "terminal %s: open it again", file->name);
	if (!S_ISCHR(st.st_mode) || st.st_rdev != info->rdev)
		return refuse(ENODEV, "terminal %s: it is another device than at dump", file->name);
	return take_fd(&fd);
}

static bool is_late(const struct restore *r, const FileEntry *e)
{
	const TtyInfoEntry *info = info_of(r, e);

	return info && info->type == TTY_TYPE__CTTY;
}

/* Nobody else can open it by this name. Its number in that process is closed with all others. */
static int open_current(struct restore *r, const FileEntry *e, const TtyInfoEntry *info)
{
	const char *name = file_of(r, e)->name;
	struct restore_task *t = NULL;
	struct program p;

	for (size_t i = 0; i < r->n_tasks && !t; i++)
		if (!r->tasks[i].is_zombie && r->tasks[i].image->pstree->sid == info->sid)
			t = &r->tasks[i];
	if (!t)
		return refuse(ENOENT, "terminal %s: no process of its session %u is in the images",
			      name, info->sid);
	int rc = program_begin(&p, task_worker(t), 1);
	if (rc < 0)
		return rc;
	void *path = program_data(&p, name, strlen(name) + 1);
	struct call *call = CALL(&p, "open /dev/tty, its terminal", SYS_openat, AT_FDCWD,
				 path ? program_raddr(&p, path) : 0,
				 (e->tty->flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	rc = program_run(&p);
	int fd = rc < 0 ? rc : copy_fd_of(t->pid, call->ret);
	program_end(&p);
	return rc < 0 || fd >= 0 ? fd : fail(-fd, "pid %d: take its /dev/tty", t->pid);
}

/* A job of a shell on such a terminal continues on that of criu. */
static bool is_for_own(const struct restore *r, const TtyInfoEntry *info)
{
	return info->type == TTY_TYPE__PTY || (r->opts->shell_job && !info->sid);
}

static int tty_open(struct restore *r, const FileEntry *e)
{
	const TtyInfoEntry *info = info_of(r, e);
	int fd;

	if (info->type == TTY_TYPE__EXT_TTY)
		return refuse(ENOENT,
			      "terminal %s: it is external; give what takes its place by "
			      "--inherit-fd 'fd[N]:tty[%x:%x]'",
			      file_of(r, e)->name, info->rdev, info->dev);
	if (info->type == TTY_TYPE__CTTY) {
		fd = open_current(r, e, info);
	} else if (!is_for_own(r, info)) {
		fd = open_device(r, e, info);
	} else if (is_master_info(info)) {
		struct restore_tty *t = pair_of(r, info->pty->index);

		fd = t ? fcntl(t->master, F_DUPFD_CLOEXEC, 0) : -EBUSY;
	} else if (info->pty && (end_of(r, info->pty->index, true) || !info->termios)) {
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

/* A virtual console may refuse any size, even the one that it has (Linux 6.1 without a screen). */
static int set_size(int fd, const WinsizeEntry *e)
{
	const struct winsize size = { e->ws_row, e->ws_col, e->ws_xpixel, e->ws_ypixel };
	struct winsize now;

	if (ioctl(fd, TIOCGWINSZ, &now) == 0 && !memcmp(&now, &size, sizeof(now)))
		return 0;
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

/* The console is the system's, and stays as that has it. */
static int finish_device(const TtyInfoEntry *info, int fd)
{
	struct stat st;
	int rc = 0;

	if ((info->type != TTY_TYPE__VT && info->type != TTY_TYPE__SERIAL) || !info->termios ||
	    fstat(fd, &st) < 0 || st.st_rdev != info->rdev)
		return 0;
	rc = set_alone(fd, info);
	if (rc == 0 && info->exclusive && ioctl(fd, TIOCEXCL) < 0)
		rc = -errno;
	return rc < 0 ? fail(-rc, "terminal %u:%u: set it as it was", major(st.st_rdev),
			     minor(st.st_rdev))
		      : 0;
}

static int finish_all(const struct restore *r)
{
	int rc = 0;

	for (struct restore_tty *t = r->ttys; t && rc == 0; t = t->next)
		rc = finish_pair(r, t);
	for (size_t i = 0; i < r->snapshot.n_files && rc == 0; i++)
		if (r->snapshot.files[i]->tty)
			rc = finish_device(info_of(r, r->snapshot.files[i]), r->file_fds[i]);
	return rc;
}

int ttys_finish(struct restore *r, bool are_open)
{
	int rc = are_open ? finish_all(r) : 0;

	for (struct restore_tty *t = r->ttys; t; t = t->next)
		own_close(&t->master);
	r->ttys = NULL;
	return rc;
}

/* What it is to the program; what the line needs stays as it is here. */
static int take_settings(int own, const TermiosEntry *e)
{
	struct termios2 t, now;

	fill_termios(e, &t);
	if (ioctl(own, TCGETS2, &now) < 0)
		return -errno;
	t.c_cflag = now.c_cflag;
	t.c_ispeed = now.c_ispeed;
	t.c_ospeed = now.c_ospeed;
	return ioctl(own, TCSETS2, &t) < 0 ? -errno : 0;
}

void ttys_take_own(const struct restore *r)
{
	int own = own_terminal(r);
	struct winsize size;

	if (own < 0 || tcgetpgrp(own) != getpgrp())
		return;
	for (size_t i = 0; i < r->snapshot.n_ttys; i++) {
		const TtyInfoEntry *e = r->snapshot.ttys[i];

		if (e->type != TTY_TYPE__PTY || !e->termios || end_of(r, e->pty->index, true))
			continue;
		if (take_settings(own, e->termios) < 0)
			warn("the settings of the terminal are not those of the job: %s",
			     strerror(errno));
		/* All of the group are told, as if somebody had changed its window. */
		if (e->winsize && ioctl(own, TIOCGWINSZ, &size) == 0 &&
		    (size.ws_row != e->winsize->ws_row || size.ws_col != e->winsize->ws_col))
			(void)kill(0, SIGWINCH);
		return;
	}
}

/* Any end will do: what a master is asked is done to its slave. */
int ttys_of_session(const struct restore *r, uint32_t sid)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		const FileEntry *e = r->snapshot.files[i];

		if (e->type == FD_TYPES__TTY && !is_late(r, e) && info_of(r, e)->sid == sid)
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
	.is_late = is_late,
	.key = tty_key,
	.inherit_kind = S_IFCHR,
	.fown = tty_fown,
	.flags = tty_flags,
};
