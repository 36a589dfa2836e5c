/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a run leaves for others: stats-dump and stats-restore in the work directory, statistics on
 * stdout, the pidfile, a byte for who waits.
 */
#ifndef CMD_STATS_H
#define CMD_STATS_H

#include "model/dump.h"
#include "model/restore.h"

int stats_write_dump(struct dump *d);
int stats_write_restore(struct restore *r);

/*
 * --pidfile: creates the file, which may not exist yet, with a pid in it. 0 or -errno, reported;
 * after an error there is no file of ours.
 */
int pidfile_write(const char *path, int pid);

/* --status-fd: tells whoever waits there that the command has done its work. */
void status_tell_ready(const struct options *o);

#endif
