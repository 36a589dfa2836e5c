/* SPDX-License-Identifier: GPL-2.0-only */
/* Attributes that are files of /proc/ID, set from outside. */
#ifndef TASK_PROCFILE_H
#define TASK_PROCFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Sets a number; one that cannot be set is lost with a warning. */
void procfile_write(pid_t id, const char *file, int64_t value);

/* A blank task has what criu has: nothing is written where that is right already. */
bool procfile_differs(const char *file, int64_t value);

#endif
