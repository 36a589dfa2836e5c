/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Terminals: dump in ttydump.c, restore in tty.c, the bytes that wait in ttyqueue.c. Images:
 * entries in files.img, one tty-info for each end. pty(7), tty(4), ioctl_tty(2).
 *
 * A pair with its master in the tree is made again under its old index. A slave alone belongs to
 * a terminal outside, as that of a shell: with --shell-job the terminal of criu takes its place.
 * A slave whose master was closed is hung up, and is again. Consoles and serial lines are opened
 * again by their paths; /dev/tty is opened by a process whose terminal it is.
 */
#ifndef FILES_TTY_H
#define FILES_TTY_H

#include <sys/sysmacros.h>

#include "files/files.h"
#include "model/dump.h"
#include "model/restore.h"

#define TTY_AUX_MAJOR 5 /* /dev/tty, console, ptmx */
#define PTMX_MINOR    2

static inline bool tty_is_master(dev_t dev)
{
	return major(dev) == TTY_AUX_MAJOR && minor(dev) == PTMX_MINOR;
}

/* As a class of files (files/files.h). */
bool tty_match(const struct fd_probe *p);
int tty_dump(struct dump *d, struct fd_probe *p, FileEntry *e);

/* The name of a terminal for --external and --inherit-fd: tty[rdev:dev], in hex. */
void tty_key_of(const TtyInfoEntry *info, char *buf, size_t size);

/* Finds sessions of terminals, and slaves whose master is outside. */
void ttys_resolve(struct dump *d);
/* Copies what waits in pairs of the tree, which is stopped; it stays there. 0 or -errno. */
int ttys_save_queues(struct dump *d);
int ttys_write_images(struct dump *d);

/* Puts settings in place if all ends are open, closes what only criu held. 0 or -errno. */
int ttys_finish(struct restore *r, bool are_open);
/*
 * With --shell-job and in the foreground: the terminal of criu gets the settings that the job had,
 * and the job is told of another window size.
 */
void ttys_take_own(const struct restore *r);
/* The foreground group of that terminal, or 0. */
uint32_t ttys_foreground(const struct restore *r, uint32_t sid);

#endif
