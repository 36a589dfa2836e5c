/* SPDX-License-Identifier: GPL-2.0-only */
/* criu page-server: takes the pages of one dump from the network into the images directory. */
#ifndef CMD_PAGESERVER_H
#define CMD_PAGESERVER_H

#include "model/options.h"

/*
 * Makes the socket that the options say (any address, any port), *ret_port is where it listens; or
 * takes --ps-socket, which has no port (0). Returns a descriptor or -errno, reported.
 */
int page_server_open(const struct options *o, int *ret_port);

/*
 * Waits for a dump on that socket, which is closed, and serves it to its end. 0, or an error that
 * is reported: then nothing that it has sent is left.
 */
int page_server_serve(const struct options *o, int fd);

#endif
