/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files that their path does not lead to any more. One without any name left travels in the
 * images (ghost). One that has another name gets a temporary one at dump (--link-remap).
 */
#ifndef FILES_REMAP_H
#define FILES_REMAP_H

#include <sys/stat.h>

#include "model/dump.h"
#include "model/restore.h"

#define O_TMPFILE_BIT 020000000 /* of O_TMPFILE, which has O_DIRECTORY in it */

/*
 * Notes that the file of entry reg (name set) has to be remapped, or adds a blocker. source is a
 * path in /proc that leads to the file; who names the object. is_mapped: it is a program, a library
 * or data that a task has mapped.
 */
void remap_note(struct dump *d, const char *who, const char *source, const struct stat *st,
		RegFileEntry *reg, bool is_mapped);

/* Notes that a file is one of a process that has ended. */
void remap_note_process(struct dump *d, pid_t pid, const RegFileEntry *reg);

/* True if the path of a file does not lead to it. */
bool remap_is_noted(const struct dump *d, uint32_t file_id);

/* Writes the contents of ghosts and makes the links; the tree is stopped. */
int remap_save(struct dump *d);
/* Writes remap-fpath.img. */
int remap_write_image(struct dump *d);

/* The remap of a file, or NULL. */
const RemapFilePathEntry *remap_of(const struct restore *r, uint32_t file_id);
/* Opens the file under its old name, which exists only for a moment. Descriptor or -errno. */
int remap_open(struct restore *r, const RemapFilePathEntry *remap, const RegFileEntry *e,
	       int flags);

#endif
