/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * --external: files of the tree that belong to something outside of it. A dump notes only what
 * they are; at restore --inherit-fd gives what takes their place.
 */
#ifndef FILES_EXTERNAL_H
#define FILES_EXTERNAL_H

#include "files/files.h"

/* Checks the options that are for files; those of sockets are the sockets' business. */
int external_check(const struct options *o);

/* Is this one of them? It counts as used then. */
bool external_has(struct dump *d, const char *key);

/* The name of a descriptor for that: file[MOUNT:INODE]. */
void external_file_key(const struct fd_probe *p, char *buf, size_t size);
/* A descriptor that is external by mount and inode, as file[MOUNT:INODE]. */
bool external_has_file(struct dump *d, const struct fd_probe *p);
void external_dump_file(struct dump *d, const struct fd_probe *p, FileEntry *e);

/* Reports those that no file of the tree was. 0 or -errno. */
int external_check_used(const struct dump *d);

/* At restore each needs a descriptor. 0 or -errno, reported. */
int external_check_given(const struct restore *r);

#endif
