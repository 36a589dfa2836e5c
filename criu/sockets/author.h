/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SO_PEERCRED tells who made a pair, connected or listened, and the kernel takes that down when it
 * is done. So such calls are made in the very process that had made them: its author.
 */
#ifndef SOCKETS_AUTHOR_H
#define SOCKETS_AUTHOR_H

#include <sys/socket.h>

#include "model/restore.h"

struct author {
	struct restore_task *task; /* NULL: criu itself has to do */
	uint32_t uid, gid;
};

/* The process with that pid, if it is in the tree and can work. */
struct restore_task *author_find(const struct restore *r, uint32_t pid);

/* Makes n pairs; fds[i] are descriptors of criu, which the caller closes. 0 or -errno, reported. */
int author_make_pairs(const struct author *a, const uint32_t *types, size_t n, int (*fds)[2]);

/* listen(2) or connect(2) on a socket that criu has. 0 or -errno, reported. */
int author_listen(const struct restore *r, const struct author *a, int fd, uint32_t backlog);
int author_connect(const struct restore *r, const struct author *a, int fd,
		   const struct sockaddr *addr, socklen_t len);

#define AUTHOR_PAIRS_MAX 64

#endif
