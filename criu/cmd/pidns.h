/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * restore --pidns: the tree goes into a new pid namespace, with a /proc of its own, where all pids
 * are free. criu is the first process there.
 */
#ifndef CMD_PIDNS_H
#define CMD_PIDNS_H

#include <stdbool.h>
#include <sys/types.h>

#include "model/options.h"

/* Asked for; or asked for if a pid of the images is taken, and one is. */
bool pidns_is_wanted(const struct options *o);

/*
 * Runs the restore in a new namespace. Without --restore-detached it stays: signals that are sent
 * to criu go to the root of the tree, and the exit status is its own (128 + signal). Returns the
 * exit status of criu.
 */
int pidns_restore(const struct options *o, int (*restore)(const struct options *o));

/* The pid that a process of the new namespace has outside; the same one if there is none. */
pid_t pidns_outer_pid(const struct options *o, pid_t pid);

#endif
