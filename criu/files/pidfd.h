/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FILES_PIDFD_H
#define FILES_PIDFD_H

#include "model/restore.h"

/* Ends the children that stood for dead processes while their pidfds were opened. */
void pidfds_end_children(struct restore *r);

#endif
