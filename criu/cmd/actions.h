/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stages of a dump or restore that others are told of: first the RPC client, then the scripts of
 * --action-script, with CRTOOLS_SCRIPT_ACTION, CRTOOLS_IMAGE_DIR and CRTOOLS_INIT_PID.
 */
#ifndef CMD_ACTIONS_H
#define CMD_ACTIONS_H

#include "model/options.h"

/* True if there is anybody to tell. */
bool actions_any(const struct options *o);

/*
 * Runs a stage; images_fd is the images directory, pid the root (0: not known). Returns 0, the exit
 * status of a script that failed (positive), or -errno; both are reported.
 */
int actions_run(const struct options *o, const char *stage, int images_fd, int pid);

#endif
