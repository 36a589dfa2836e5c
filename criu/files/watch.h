/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What inotify and fanotify watch: fdinfo names it by a file handle, and the handle leads to a
 * path, which goes into the image with it. Not every file system knows handles (overlayfs does
 * not): --irmap-scan-path says where to look for the inode then.
 */
#ifndef FILES_WATCH_H
#define FILES_WATCH_H

#include "files/files.h"

/* The hexadecimal number behind `name` in a line of fdinfo. */
bool watch_hex(const char *line, const char *name, uint64_t *ret);

/* The next line that begins with kind and a blank, behind it; line as for probe_next. */
const char *watch_next(const struct fd_probe *p, const char *kind, const char *line);

/* The file handle in a line. Empty if there is none. */
FhEntry *watch_handle(struct dump *d, const char *line);

/* The device number in fdinfo is the kernel's own. */
dev_t watch_device(uint32_t sdev);

/*
 * Fills e->path with a path of the inode; if none is found, blocks the dump in the name of who.
 * sdev and ino are as fdinfo has them.
 */
void watch_find_path(struct dump *d, const char *who, uint32_t sdev, uint64_t ino, FhEntry *e);

/* Says if a loaded watch has a path. what names it. 0 or -errno, reported. */
int watch_check(const char *what, uint32_t id, const FhEntry *e);

/* Takes the events that wait in a fanotify group. */
void fanotify_drain(int fd);

/* A path of the inode below the directories of --irmap-scan-path; NULL: none. */
const char *irmap_find(struct dump *d, uint32_t sdev, uint64_t ino);

#endif
