/* SPDX-License-Identifier: GPL-2.0-only */
/* Unix sockets: their names, what is queued in them, and servers that others connect to. */
#ifndef MK_SK_H
#define MK_SK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* A name as the system calls have it; len 0 stands for none at all. */
struct name {
	union {
		struct sockaddr_un un;
		char bytes[sizeof(struct sockaddr_un) + 8];	/* a zero byte may be added */
	} addr;
	socklen_t len;
};

struct name path_name(const char *path);
/* An abstract one: mk's number and these bytes, zeroes as well. */
struct name abstract_name(const char *bytes, size_t len);
struct name own_name(int fd);
struct name peer_name(int fd);
bool same_name(const char *what, struct name expected, struct name got);

int new_socket(int type);
void bind_name(int fd, struct name name);
void connect_name(int fd, struct name name);

/*
 * Records: an array of lengths that ends with NO_RECORD; number i has the
 * pattern of seed + i. A stream has them one after the other.
 */
#define NO_RECORD	(-1L)
#define MAX_RECORDS	256000L

void put_records(const char *what, int fd, const long *records, uint64_t seed);
/* Takes all there is, and compares; false when it is something else. */
bool take_records(const char *what, int fd, const long *records, uint64_t seed);
/* Looks only, also at what comes behind: the end of file, or nothing yet. No empty records. */
void peek_records(const char *what, int fd, const long *records, uint64_t seed, bool eof);
/* Something comes through, both queues being empty. */
void check_talk(const char *what, int a, int b);
/* As poll() has it, and whether the other side has shut down. */
short socket_events(int fd);
/* Sending must fail. */
void check_send_fails(const char *what, int fd, int error);

/* A listening socket with a connection, both ends in one process, and data on its way. */
struct server {
	const char *what;
	int type;
	int listener, client, accepted;
	struct name name;
};

void start_server(struct server *s, const char *what, int type, struct name name);
/* @reach: the name a new client finds it by; NULL when nobody can. */
void check_server(const struct server *s, const struct name *reach);

#endif
