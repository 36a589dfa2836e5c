/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that no class knows: what they are, why they prevent a dump, and what helps. */
#ifndef FILES_UNKNOWN_H
#define FILES_UNKNOWN_H

#include "files/files.h"

/* Adds the blocker. */
void unknown_block(struct dump *d, const struct fd_probe *p);

#endif
