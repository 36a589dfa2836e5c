/* SPDX-License-Identifier: GPL-2.0-only */
/* /proc/PID/mountinfo. proc_pid_mountinfo(5). */
#ifndef PROC_MOUNTS_H
#define PROC_MOUNTS_H

#include <stdbool.h>
#include <sys/types.h>

struct proc_mount {
	int id;
	dev_t dev;
	const char *point; /* in the line that was parsed */
};

/*
 * Parses a line, which is changed: spaces and the like in the mount point stand there in octal.
 * False if it is not understood.
 */
bool proc_mount_parse(char *line, struct proc_mount *ret);

#endif
