/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Processes that had ended while descriptors still led to them: pidfds and files of /proc/PID. At
 * restore a child of criu takes their place while such descriptors are opened.
 */
#ifndef FILES_DEAD_H
#define FILES_DEAD_H

#include "model/dump.h"
#include "model/restore.h"

/*
 * Notes that a file of a process that has ended (path, in /proc) is to be opened so; adds a blocker
 * where that cannot be. who names the object.
 */
void dead_note_file(struct dump *d, const char *who, const char *path, pid_t pid,
		    RegFileEntry *reg);

/*
 * The child in place of the process that pidfds with that inode number refer to, or of the one with
 * that pid. -errno, not reported.
 */
pid_t dead_by_inode(struct restore *r, uint32_t ino);
pid_t dead_by_pid(struct restore *r, pid_t pid);

/* Ends all of them. */
void dead_end_all(struct restore *r);

#endif
