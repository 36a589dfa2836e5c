/* SPDX-License-Identifier: GPL-2.0-only */
/* criu page-server: takes the pages of one dump from the network into the images directory. */
#ifndef CMD_PAGESERVER_H
#define CMD_PAGESERVER_H

#include "model/options.h"

struct page_server;

/*
 * Opens the images directory, the earlier one, and the socket that the options say: any address,
 * any port, or --ps-socket. NULL: an error, reported. page_server_free ends that, whoever serves.
 */
struct page_server *page_server_open(const struct options *o);
void page_server_free(struct page_server *s);

/* Where it listens; 0: nowhere, the connection is there. */
int page_server_port(const struct page_server *s);

/*
 * Waits for a dump, and serves it to its end, or until a signal asks to end. 0, or an error that is
 * reported: then nothing that the dump has sent is left.
 */
int page_server_serve(struct page_server *s);

#endif
