/* SPDX-License-Identifier: GPL-2.0-only */
/* Inside libcriu: options, and the line to the service. */
#ifndef LIB_LIB_H
#define LIB_LIB_H

#include <sys/types.h>

#include "criu/criu.h"
#include "images/rpc.pb-c.h"

enum transport {
	BY_BINARY, /* a worker of our own: `BINARY swrk FD` */
	BY_ADDRESS,
	BY_FD,
};

struct criu_opts {
	CriuOpts rpc;
	enum transport transport;
	char *address, *binary; /* NULL: the default */
	int fd;
	criu_notify_cb_t notify;
};

/* Whose child a worker is. */
enum kinship {
	CHILD,	/* waited for when the line is closed */
	ORPHAN, /* not below us: we are what it dumps */
};

/* A connection to the service. */
struct line {
	int fd;
	bool is_ours; /* to be closed */
	pid_t worker; /* to be waited for; 0: none */
};

/* 0, or -ECONNREFUSED with the cause in errno. */
int line_open(const criu_opts *opts, enum kinship kinship, struct line *ret);

/* The same with a worker whatever the transport; the restored task becomes our child. */
int line_open_worker(const criu_opts *opts, enum kinship kinship, struct line *ret);

/* Closes it, and waits until the worker has gone. Keeps errno. */
void line_close(struct line *l);

/* 0, or -ECOMM with the cause in errno. */
int line_send(const struct line *l, const CriuReq *req);

/*
 * 0 with a response (criu_resp__free_unpacked) and the descriptor that came with it or -1; -ECOMM,
 * or -EBADMSG if it is no response.
 */
int line_receive(const struct line *l, CriuResp **ret, int *ret_fd);

#endif
