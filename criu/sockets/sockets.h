/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets, as files/ and the commands see them. */
#ifndef SOCKETS_SOCKETS_H
#define SOCKETS_SOCKETS_H

#include "model/dump.h"
#include "model/restore.h"

/* Looks into queues (what is in flight are files too), then finds peers. 0 or -errno. */
int sockets_collect_end(struct dump *d);
int sockets_write_image(struct dump *d);

/* When every file is open: connections that are not accepted, queues, options. 0 or -errno. */
int sockets_finish(struct restore *r);

/* Removes the files of sockets again, for a restore that fails. */
void sockets_undo(struct restore *r);

/* Its family (AF_UNIX, ...), or -1. */
int socket_domain(int fd);

/* An entry that only names a socket outside of the tree. */
bool socket_is_outside(const FileEntry *e);

#endif
