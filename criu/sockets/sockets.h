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

/*
 * What of the tree that was killed a moment ago was in flight in sockets that are in flight in each
 * other lives, with all that it stands for, until the kernel has collected them. It does that, in
 * its own time, when a socket is closed. Has that go on for a moment; false: it is too late, past
 * that time (which may well be SOCKETS_COLLECT_US from the first look).
 */
#define SOCKETS_COLLECT_US 1000000
bool sockets_may_be_collected(uint64_t give_up_us);

/* Its family (AF_UNIX, ...), or -1. */
int socket_domain(int fd);

/* An entry that only names a socket outside of the tree. */
bool socket_is_outside(const FileEntry *e);

#endif
