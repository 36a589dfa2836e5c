/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pages for a page server (criu page-server) in place of files: --page-server. A signal that ends
 * criu ends waiting for the server, too; so does a minute in which nothing came or went.
 */
#ifndef MEM_PAGECLIENT_H
#define MEM_PAGECLIENT_H

#include "model/dump.h"

/* Connects, if pages are for a server. 0 or an error, reported; so all of them. */
int page_client_connect(struct dump *d);

/* Does the server have these pages of an earlier dump? */
int page_client_has_parent(struct dump *d, const struct saved_pages *p, bool *ret);

/* Begins the pagemap of that object. */
int page_client_open(struct dump *d, const struct saved_pages *p);

/* Sends a run, with its bytes if they are not in the parent image. The pieces are used up. */
int page_client_add(struct dump *d, const struct saved_pages *p, const struct page_run *run,
		    struct iovec *v, int n);

/* Waits until the server has written all. */
int page_client_close(struct dump *d);

#endif
