/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Protection keys of memory (pkeys(7)): which of them the process has allocated, and which of them
 * a mapping has. The rights that a thread has by them are a register (PKRU).
 */
#ifndef MEM_KEYS_H
#define MEM_KEYS_H

#include "model/dump.h"
#include "model/restore.h"

#define KEYS_MAX 16 /* of x86; key 0 is that of all other memory */

struct keys_questions {
	struct call *key[KEYS_MAX];
};

/* Asks the leader, where the CPU has keys. */
void keys_ask(const struct xstate_layout *l, struct program *p, struct keys_questions *q);
void keys_take(struct dump_task *t, const struct keys_questions *q);

/* Restore: adds the calls before and behind those that give mappings their keys. */
void keys_add_alloc(const MmEntry *mm, struct program *p);
void keys_add_free(const MmEntry *mm, struct program *p);

#endif
