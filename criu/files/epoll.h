/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FILES_EPOLL_H
#define FILES_EPOLL_H

#include "model/dump.h"

/* Finds which descriptions epolls watch. 0 or -errno; one that no task has adds a blocker. */
int epolls_resolve(struct dump *d);

#endif
