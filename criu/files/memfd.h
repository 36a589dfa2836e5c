/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FILES_MEMFD_H
#define FILES_MEMFD_H

#include "model/dump.h"
#include "model/restore.h"

struct stat;
/* True for a path that /proc shows for a memfd. */
bool memfd_is_path(const char *path);
/* The entry of a memfd that is mapped; source is a path in /proc that leads to it. */
int memfd_path_entry(struct dump *d, const char *who, const char *path, const char *source,
		     const struct stat *st, int flags, FileEntry *e);

/* Saves the contents of memfds; the tree is stopped. 0 or -errno. */
int memfds_save(struct dump *d);
/* Writes memfd.img and what was saved. */
int memfds_write(struct dump *d);

/* Adds the seals, when nothing is written any more. Closes what criu held. */
int memfds_seal(struct restore *r);

#endif
