/* SPDX-License-Identifier: GPL-2.0-only */
/* Terminals: pseudo terminals of the tree, and the one that criu itself runs on. */
#ifndef FILES_TTY_H
#define FILES_TTY_H

#include "model/dump.h"
#include "model/restore.h"

/* Finds sessions of terminals, and slaves whose master is outside. */
void ttys_resolve(struct dump *d);
/* Copies what waits in pairs of the tree, which is stopped; it stays there. 0 or -errno. */
int ttys_save_queues(struct dump *d);
int ttys_write_images(struct dump *d);

/* Puts settings in place when all ends are open, closes what only criu held. 0 or -errno. */
int ttys_finish(struct restore *r);
/* The foreground group of that terminal, or 0. */
uint32_t ttys_foreground(const struct restore *r, uint32_t sid);

#endif
