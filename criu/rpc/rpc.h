/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests of other programs: one protobuf message (images/rpc.proto) per packet of a
 * SOCK_SEQPACKET unix socket. `criu service` listens; `criu swrk FD` serves the one connection that
 * it was given.
 */
#ifndef RPC_RPC_H
#define RPC_RPC_H

#include "image/messages.h"
#include "model/options.h"

#define RPC_REQUEST_MAX (1u << 20) /* bytes */

/* A connection. */
struct client {
	int fd;
	int pid; /* of the peer */
	unsigned uid;
	bool is_worker;		    /* swrk: its descriptors are ours too */
	bool is_in_sequence;	    /* its last request was a PRE_DUMP */
	const struct options *base; /* of the command line and config files */
};

int cmd_service(const struct options *o);
int cmd_swrk(const struct options *o);

/* Serves the connection until it ends. Returns the exit status. */
int client_serve(struct client *c);

/* Receives one request: 1 with *ret (freed by criu_req__free_unpacked), 0 at the end, -errno. */
int client_receive(const struct client *c, CriuReq **ret);
int client_send(const struct client *c, const CriuResp *resp);

/*
 * Options of a request. Returns 0, or -EBADRQC with the reason in error; the images directory
 * (NULL: it is that which is wrong) and the place of the log are there then, too. The options point
 * into the request and into memory that stays.
 */
int request_options(const struct client *c, const CriuOpts *req, struct options *ret, char *error,
		    size_t size);

/* True if a field of criu_opts is an option, or is looked at in another way. */
bool request_field_is_known(const char *field);

#endif
