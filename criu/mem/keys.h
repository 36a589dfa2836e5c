/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Protection keys of memory (pkeys(7)): which of them the process has allocated, and which of them
 * a mapping has. The rights that a thread has by them are a register (PKRU).
 */
#ifndef MEM_KEYS_H
#define MEM_KEYS_H

#include "model/restore.h"

/* Restore: adds the calls before and behind those that give mappings their keys. */
void keys_add_alloc(const MmEntry *mm, struct program *p);
void keys_add_free(const MmEntry *mm, struct program *p);

#endif
