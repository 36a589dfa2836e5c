/* SPDX-License-Identifier: GPL-2.0-only */
/* File locks: flock(2), POSIX and OFD locks, leases of fcntl(2). Image: filelocks. */
#ifndef FILES_LOCKS_H
#define FILES_LOCKS_H

#include "files/files.h"

/* Notes the locks that belong to a descriptor, or adds a blocker. file_id: its description. */
int locks_collect(struct dump *d, const struct fd_probe *p, uint32_t file_id);
int locks_write_image(struct dump *d);
/* False if no lock is on any file with this inode number: /proc/locks says so. */
bool locks_may_be_on(struct dump *d, ino_t ino);
/* The inode of a line of /proc/locks; 0: it is not understood. Pure. */
uint64_t locks_inode_of_line(const char *line);
/* True if a task has a lease on the file: opening it would break that. */
bool locks_have_lease(const struct dump *d, const struct stat *st);

/* Adds to a program, when the descriptors are in place: the task takes its locks. */
void locks_add(struct restore *r, const struct restore_task *t, struct program *p);
/*
 * When tasks have their locks, before their signals: leases that were being broken are so again.
 * 0 or -errno.
 */
int locks_break_leases(struct restore *r);

#endif
