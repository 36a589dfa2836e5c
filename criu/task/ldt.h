/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Local descriptor tables: segments of a process's own making, as emulators of older programs have
 * them (modify_ldt(2)).
 */
#ifndef TASK_LDT_H
#define TASK_LDT_H

#include "model/dump.h"
#include "model/restore.h"

/* Asks the leader for the table of a process that has one. 0 or -errno, reported. */
int ldt_collect(struct dump *d, struct dump_task *t);

/* Restore: adds the calls that fill the table. */
void ldt_add(const struct restore_task *t, struct program *p);

#endif
