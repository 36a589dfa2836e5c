/* SPDX-License-Identifier: GPL-2.0-only */
/* Statistics of a run: stats-dump and stats-restore in the work directory, and on stdout. */
#ifndef CMD_STATS_H
#define CMD_STATS_H

#include "model/dump.h"
#include "model/restore.h"

int stats_write_dump(struct dump *d);
int stats_write_restore(struct restore *r);

/* --status-fd: tells whoever waits there that the command has done its work. */
void status_tell_ready(const struct options *o);

#endif
