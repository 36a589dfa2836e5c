/* SPDX-License-Identifier: GPL-2.0-only */
/* Rings of asynchronous I/O: io_setup(2). */
#ifndef MEM_AIO_H
#define MEM_AIO_H

#include "model/dump.h"
#include "model/restore.h"

#define AIO_PREFIX "/[aio]" /* of the path of its mapping */

/* Notes the ring in the mapping; a blocker if it is none that could be made again. */
void aio_collect(struct dump *d, struct dump_task *t, const struct mapping *m);

/* Makes the rings of a task whose other memory is mapped, and fills them. 0 or an error. */
int aio_restore(struct restore *r, struct restore_task *t);

#endif
