/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that are opened again by their path. */
#ifndef FILES_REGULAR_H
#define FILES_REGULAR_H

#include <sys/stat.h>

#include "model/dump.h"

/*
 * Makes the entry of a file by its path as /proc shows it; who names the object for a blocker.
 * Returns 0 or -errno.
 */
int regular_entry(struct dump *d, const char *who, const char *path, const struct stat *st,
		  int flags, int64_t pos, FileEntry *e);

/* Adds the build id of a program or library to its entry. */
void regular_add_build_id(struct dump *d, FileEntry *e);

#endif
