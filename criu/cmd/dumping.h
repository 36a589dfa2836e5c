/* SPDX-License-Identifier: GPL-2.0-only */
/* What criu dump and criu pre-dump have in common: steps (ctx is a struct dump), begin and end. */
#ifndef CMD_DUMPING_H
#define CMD_DUMPING_H

#include "model/dump.h"

#define DUMP_INIT(o)                                                                               \
	{                                                                                          \
		.opts = (o), .images.fd = -1, .before_fd = -1, .page_server.fd = -1                \
	}

int dumping_open_images(void *ctx);
int dumping_freeze(void *ctx);
void dumping_thaw(void *ctx);
int dumping_judge(void *ctx);
/* The directory may hold an older dump, which stops being one now. */
int dumping_make_room(struct dump *d);
void dumping_discard_images(void *ctx);
/* The fields of the inventory that tell the next dump what it may rely on. */
void dumping_put_run(const struct dump *d, InventoryEntry *e);
int dumping_check_images(void *ctx);
void dumping_done(struct dump *d);

#endif
