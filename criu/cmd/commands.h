/* SPDX-License-Identifier: GPL-2.0-only */
/* The subcommands. Each takes the options and returns the exit status. */
#ifndef CMD_COMMANDS_H
#define CMD_COMMANDS_H

#include "model/options.h"

int cmd_dump(const struct options *o);
int cmd_pre_dump(const struct options *o);
int cmd_restore(const struct options *o);
int cmd_page_server(const struct options *o);
int cmd_check(const struct options *o);

/* criu cpuinfo dump, criu cpuinfo check: 255 if nothing could be written, 1 if it does not fit. */
int cmd_cpuinfo(const struct options *o);

#endif
