/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Arenas: memory that lives as long as one command and is freed as a whole. Most of what a
 * dump learns hangs together in messages, so nobody tracks single pieces.
 *
 * Allocation does not fail: without memory the process ends with an error. That is safe at any
 * instant, because tracees survive the death of criu (remote/engine.h) and blank tasks do not.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena {
	struct arena_block *last;
	size_t size; /* of all blocks */
};

/* Returns size zeroed bytes, aligned to 16, owned by the arena. */
void *arena_alloc(struct arena *a, size_t size);
char *arena_strdup(struct arena *a, const char *s);
void *arena_memdup(struct arena *a, const void *p, size_t size);
char *arena_printf(struct arena *a, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), nonnull(2)));
void arena_done(struct arena *a);

/* For tdestroy(3) of a tree whose elements are in an arena: leaves them there. */
void arena_leave_node(void *node);

#define arena_new(a, type)	((type *)arena_alloc(a, sizeof(type)))
#define arena_array(a, type, n) ((type *)arena_alloc(a, sizeof(type) * (n)))

/*
 * A growing array in the arena: makes room for one more element at the end of array and returns
 * where it goes; *n counts. Old copies stay in the arena until it ends (at most as much again).
 */
void *arena_push(struct arena *a, void **array, size_t *n, size_t elem_size);
#define ARENA_PUSH(a, array, n)                                                                    \
	((__typeof__(array))arena_push(a, (void **)&(array), &(n), sizeof(*(array))))

/* malloc that ends the process when there is no memory. */
void *xmalloc(size_t size);
void *xrealloc(void *p, size_t size);

#endif
