/* SPDX-License-Identifier: GPL-2.0-only */
/* What can be seen of descriptors, of any kind, without changing what is behind them. */
#ifndef MK_LOOK_H
#define MK_LOOK_H

#include <stdbool.h>
#include <sys/types.h>

#define MAX_LOOKS	96
#define LOOK_TEXT	480

struct look {
	int fd;
	int carrier;		/* index of the socket it is in flight in, or -1 */
	bool anew;		/* has an inode number that a restore changes */
	dev_t dev;
	ino_t ino;
	char text[LOOK_TEXT];	/* words with what must not change */
};

/* All the descriptors of a process, and what is in flight in its sockets. */
struct looks {
	pid_t pid;
	int nr;
	struct look all[MAX_LOOKS];
};

void start_looks(struct looks *l);
void look_at(struct looks *l, int fd);
/* Descriptors in flight are open here until now. */
void end_looks(struct looks *l);

/* Reports the first word that differs. */
void compare_looks(int process, const struct looks *expected, const struct looks *got);

/* How two descriptors are related; other inodes are without meaning after a restore. */
enum relation { STRANGERS, SAME_INODE, SAME_DESCRIPTION, PEERS };

/* Peers of all unix sockets, for relate(). */
void read_peers(void);
enum relation relate(pid_t pid_a, const struct look *a, pid_t pid_b, const struct look *b);

#endif
