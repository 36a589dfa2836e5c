/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that are opened again by their path. */
#ifndef FILES_REGULAR_H
#define FILES_REGULAR_H

#include <sys/stat.h>

#include "model/dump.h"
#include "model/restore.h"

/* The entry of a file that is no descriptor: mapped, executed, a directory of a task. */
int regular_path_entry(struct dump *d, const char *who, const char *path, const char *source,
		       const struct stat *st, int flags, FileEntry *e);

struct fd_probe;
/* The entry of a descriptor that is opened again by its path. */
int regular_dump(struct dump *d, struct fd_probe *p, FileEntry *e);

/* The entry of a file that is only known by its name and mode: a device behind another class. */
void regular_name_entry(struct dump *d, const struct fd_probe *p, FileEntry *e);

/* Opens the file of an entry with these flags. A descriptor or -errno, reported. */
int regular_open_part(struct restore *r, const RegFileEntry *e, int flags);

/* Adds the build id of a program or library to its entry. */
void regular_add_build_id(struct dump *d, FileEntry *e);

#endif
