/* SPDX-License-Identifier: GPL-2.0-only */
/* --inherit-fd: descriptors of criu take the place of files of the snapshot. */
#ifndef FILES_INHERIT_H
#define FILES_INHERIT_H

#include "model/restore.h"

/* Reads the options; before any descriptor is opened. 0 or -errno, reported. */
int inherit_parse(struct restore *r);
/* Moves them out of the way of the descriptors of tasks. */
int inherit_move(struct restore *r);

/* Was one given for the key? */
bool inherit_has(const struct restore *r, const char *key);
/* The descriptor for a key, or -1. It stays ours; it counts as used then. */
int inherit_by_key(struct restore *r, const char *key);
/* A duplicate for a file, after a check that it is of that kind and can be used with these flags.
 */
int inherit_file(const char *key, int fd, mode_t kind, uint32_t flags);
/* The ends of a pipe that it gives. */
int inherit_pipe(struct restore *r, const char *key, int fd, int end[2], bool is_first[2]);

/* Reports keys that no file had. 0 or -errno. */
int inherit_check_used(struct restore *r);
void inherit_close(struct restore *r);

#endif
