/* SPDX-License-Identifier: GPL-2.0-only */
/* The content of bpf maps. Image: bpfmap-data. */
#ifndef FILES_BPFMAP_H
#define FILES_BPFMAP_H

#include "model/dump.h"

/* Reads the maps into their image. 0 or an error. */
int bpfmaps_save(struct dump *d);

#endif
