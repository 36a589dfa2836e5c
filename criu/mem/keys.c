/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/keys.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "mem/mem.h"
#include "model/vma.h"

#define NOWHERE (1ull << 47) /* the kernel lets no mapping be there */

/* A key that is not allocated is found wrong before the mapping that is not there is missed. */
void mem_ask_keys(const struct xstate_layout *l, struct program *p, struct keys_questions *q)
{
	if (!(l->features >> XSTATE_PKRU & 1))
		return;
	for (int key = 1; key < KEYS_MAX; key++) {
		q->key[key] = CALL(p, "look for a protection key", SYS_pkey_mprotect, NOWHERE,
				   PAGE_SIZE_, PROT_NONE, key);
		q->key[key]->flags = CALL_MAY_FAIL;
	}
}

void mem_take_keys(struct dump_task *t, const struct keys_questions *q)
{
	for (int key = 1; key < KEYS_MAX; key++)
		if (q->key[key] && q->key[key]->ret == -ENOMEM)
			t->mm->pkeys |= 1u << key;
	t->mm->has_pkeys = t->mm->pkeys != 0;
}

/* A key may have been freed while mappings still had it. */
static uint32_t keys_in_use(const MmEntry *mm)
{
	uint32_t keys = mm->pkeys;

	for (size_t i = 0; i < mm->n_vmas; i++)
		if (mm->vmas[i]->has_pkey)
			keys |= 1u << mm->vmas[i]->pkey;
	return keys;
}

/* The kernel gives the lowest that is free. */
void keys_add_alloc(const MmEntry *mm, struct program *p)
{
	for (uint32_t keys = keys_in_use(mm) >> 1; keys; keys >>= 1)
		CALL(p, "allocate a protection key", SYS_pkey_alloc, 0, 0);
}

void keys_add_free(const MmEntry *mm, struct program *p)
{
	uint32_t keys = keys_in_use(mm);

	for (int key = 1; key < KEYS_MAX && keys >> key; key++)
		if (!(mm->pkeys >> key & 1))
			CALL(p, "free a protection key", SYS_pkey_free, key);
}
