/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel tells of all unix sockets of the network namespace, asked once: sock_diag(7). */
#ifndef SOCKETS_DIAG_H
#define SOCKETS_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

struct unix_info {
	uint32_t ino, peer; /* peer 0: none, or one that is not accepted yet */
	uint8_t type, state;
	uint8_t shutdown; /* bits: 1 for reading, 2 for writing */
	uint32_t rqueue;  /* bytes unread; listening: connections not accepted */
	uint32_t wqueue;  /* memory for what the peer has not read; listening: the backlog */
	uint8_t *name;	  /* a path, or abstract with a zero byte first */
	size_t name_len;
	uint32_t *icons; /* clients whose connections wait */
	size_t n_icons;
	uint32_t file_dev, file_ino; /* of a path */
	bool has_file;
	bool has_peer; /* also one that is dead or not accepted */
};

struct unix_table {
	struct unix_info *info; /* by inode */
	size_t n;
};

/* Returns 0, or an error that is reported. Everything is in the arena. */
int unix_table_read(struct arena *a, struct unix_table *ret);
const struct unix_info *unix_table_find(const struct unix_table *t, uint32_t ino);

#endif
