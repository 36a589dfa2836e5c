/* SPDX-License-Identifier: GPL-2.0-only */
/* unix(7): what dump and restore of unix sockets share. */
#ifndef SOCKETS_UNIX_H
#define SOCKETS_UNIX_H

#include <sys/socket.h>

#include "files/files.h"

/* Values of unix_sk_entry.state: TCP_ESTABLISHED, TCP_CLOSE, TCP_LISTEN of the kernel. */
enum { UNIX_ESTABLISHED = 1, UNIX_UNCONNECTED = 7, UNIX_LISTEN = 10 };

/* unix_sk_entry.uflags: it is outside of the tree, and has its entry for its name. */
#define UNIX_OUTSIDE 1
/* It led to the service that dumped: the answer waits in it when it is restored. */
#define UNIX_SERVICE 2

#define UNIX_NAME_MAX 108 /* bytes of sun_path; the kernel puts a zero byte behind a full one */

#define SCM_RIGHTS_TYPE 1 /* scm_entry.type */

/* The name for people: a path, @abstract, or "no name". */
struct unix_text {
	char s[UNIX_NAME_MAX + 2];
};
struct unix_text unix_name(const ProtobufCBinaryData *name);

bool unix_is_stream(uint32_t type); /* stream or seqpacket: with connections */

/* --ext-unix-sk and --external unix[]: which sockets may be cut off, and what becomes of them. */
struct cut {
	uint32_t ino;
	const char *path; /* at restore: connect there; NULL: where it was */
	bool is_closed;	  /* at restore: as if the peer had closed it */
	bool is_used;
};

struct cuts {
	bool all_datagrams; /* the option without a number */
	struct cut cut[OPTION_LIST_MAX];
	size_t n;
};

/* Reads the options. 0 or -errno, reported. */
int cuts_parse(const struct options *o, bool is_restore, struct cuts *ret);
struct cut *cuts_find(struct cuts *c, uint32_t ino);
/* Reports numbers that no socket had. */
int cuts_check_used(const struct cuts *c);

/* Parts of the class that belong to the restore. */
int unix_check(const struct restore *r, const FileEntry *e);
int unix_open(struct restore *r, const FileEntry *e);
bool unix_is_late(const struct restore *r, const FileEntry *e);

#endif
