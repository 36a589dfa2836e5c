/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef MEM_HUGE_H
#define MEM_HUGE_H

#include "model/restore.h"

/*
 * Makes huge pages where the task had them, as far as they can be had; they are empty then. Its
 * memory is mapped and nothing of it is filled. t->huge tells where. 0 or -errno, reported.
 */
int mem_make_huge(struct restore *r, struct restore_task *t);

#endif
