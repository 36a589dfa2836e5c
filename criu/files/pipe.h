/* SPDX-License-Identifier: GPL-2.0-only */
/* Pipes and fifos: their ends are open file descriptions, their queue belongs to the inode. */
#ifndef FILES_PIPE_H
#define FILES_PIPE_H

#include "model/dump.h"
#include "model/restore.h"

/* Warns of pipes whose other end is outside of the tree. */
void pipes_check_ends(struct dump *d);
/* Copies the queues into images; nothing is taken out of them. 0 or -errno. */
int pipes_save(struct dump *d);
/* Closes the ends that no task has. */
void pipes_close_rest(struct restore *r);

#endif
