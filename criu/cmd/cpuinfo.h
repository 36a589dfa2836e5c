/* SPDX-License-Identifier: GPL-2.0-only */
/* cpuinfo.img: the CPU that a tree was dumped on. */
#ifndef CMD_CPUINFO_H
#define CMD_CPUINFO_H

#include "image/image.h"
#include "model/options.h"

/* 0 or -errno, reported. */
int cpuinfo_write(struct image_dir *d);

/* Compares this CPU with that of the image, as far as --cpu-cap says. 0 or -errno, reported. */
int cpuinfo_check(int dirfd, const struct options *o);

#endif
