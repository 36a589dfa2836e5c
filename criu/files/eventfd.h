/* SPDX-License-Identifier: GPL-2.0-only */
/* eventfd, signalfd, timerfd: their classes are in files/classes.h. */
#ifndef FILES_EVENTFD_H
#define FILES_EVENTFD_H

#include "model/dump.h"

/* Looks once more at timers that seemed to be off. 0 or -errno, reported. */
int timerfds_resolve(struct dump *d);

#endif
