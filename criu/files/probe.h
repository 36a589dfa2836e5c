/* SPDX-License-Identifier: GPL-2.0-only */
/* Looking at the descriptors of a task from outside. */
#ifndef FILES_PROBE_H
#define FILES_PROBE_H

#include "files/files.h"

/* Where the descriptors of a task are looked at, opened once for all of them. */
struct fd_places {
	int pidfd, fds, infos, own_fds;
	size_t n; /* of the descriptors, if that is known */
};

/* Opens them. 0 or -errno, reported. */
int fd_places_open(const struct process *p, struct fd_places *ret);
void fd_places_close(struct fd_places *at);
#define autoplaces __attribute__((cleanup(fd_places_close)))

/* To look at so many takes the short way. */
#define FD_PLACES_MANY 32

/* Begins to look at a descriptor. False if there seems to be none. To be ended in any case. */
bool probe_begin(struct fd_probe *p, struct dump_task *t, int fd, const struct fd_places *at);
/*
 * Fills in the rest. Where they are many, close-on-exec may stay unknown (is_flag_unknown). 0 or
 * -errno, reported.
 */
int probe_fd(struct dump *d, struct fd_probe *p, const struct fd_places *at);
void probe_done(struct fd_probe *p);
#define autoprobe __attribute__((cleanup(probe_done)))

#endif
