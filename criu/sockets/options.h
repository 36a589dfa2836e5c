/* SPDX-License-Identifier: GPL-2.0-only */
/* Options that all kinds of sockets have: socket(7). */
#ifndef SOCKETS_OPTIONS_H
#define SOCKETS_OPTIONS_H

#include "image/messages.h"
#include "base/arena.h"

/* Reads the options of a socket. 0 or -errno. */
int socket_options_read(struct arena *a, int fd, SkOptsEntry **ret);
/* Sets those that differ. 0 or -errno. */
int socket_options_set(int fd, const SkOptsEntry *e);

#endif
