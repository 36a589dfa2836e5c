/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/own.h"

#define BLOCK_MIN  (32u << 10)
#define BLOCK_MAX  (4u << 20)
#define MAPPED_MIN (256u << 10) /* of a block that is mapped */
#define ALIGN	   16u

struct arena_block {
	struct arena_block *prev;
	size_t used;
	size_t size;
	_Alignas(16) char data[];
};

static void *or_die(void *p, size_t size)
{
	if (p)
		return p;
	(void)fail(ENOMEM, "allocate %zu bytes", size);
	log_flush_early();
	/* Nobody will be told in the usual way. */
	(void)dprintf(STDERR_FILENO, "criu: out of memory: cannot allocate %zu bytes\n", size);
	_exit(1);
}

void *xmalloc(size_t size)
{
	return or_die(malloc(size ? size : 1), size);
}

void *xrealloc(void *p, size_t size)
{
	return or_die(realloc(p, size ? size : 1), size);
}

/*
 * Blocks grow with the arena. The pages of large ones are made all at once: one by one, as they are
 * touched, they cost more than all else that is done with them.
 */
static struct arena_block *new_block(struct arena *a, size_t need)
{
	size_t size = min(max(a->size / 2, (size_t)BLOCK_MIN), (size_t)BLOCK_MAX);
	struct arena_block *b;

	size = max(need + sizeof(*b), size);
	if (size < MAPPED_MIN) {
		b = or_die(calloc(1, size), size);
	} else {
		b = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		b = or_die(b == MAP_FAILED ? NULL : b, size);
	}
	b->prev = a->last;
	b->size = size - sizeof(*b);
	a->last = b;
	a->size += size;
	return b;
}

static void free_block(struct arena_block *b)
{
	size_t size = b->size + sizeof(*b);

	if (size < MAPPED_MIN)
		free(b);
	else
		(void)munmap(b, size);
}

void *arena_alloc(struct arena *a, size_t size)
{
	size_t need = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	struct arena_block *b = a->last;

	if (need < size || need > SIZE_MAX - sizeof(*b))
		return or_die(NULL, size);
	if (!b || b->size - b->used < need)
		b = new_block(a, need);
	void *p = b->data + b->used;
	b->used += need;
	return p;
}

void *arena_memdup(struct arena *a, const void *p, size_t size)
{
	void *copy = arena_alloc(a, size);

	if (size)
		memcpy(copy, p, size);
	return copy;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_memdup(a, s, strlen(s) + 1);
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list args, again;

	va_start(args, fmt);
	va_copy(again, args);
	int len = vsnprintf(NULL, 0, fmt, args);
	char *text = arena_alloc(a, len + 1);
	vsnprintf(text, len + 1, fmt, again);
	va_end(again);
	va_end(args);
	return text;
}

/* Capacity is not stored: it is always the power of two that holds n, and at least 8. */
void *arena_push(struct arena *a, void **array, size_t *n, size_t elem_size)
{
	bool full = *n == 0 || (*n >= 8 && (*n & (*n - 1)) == 0);

	if (full) {
		size_t cap = *n ? *n * 2 : 8;
		void *bigger = arena_alloc(a, cap * elem_size);

		if (*n)
			memcpy(bigger, *array, *n * elem_size);
		*array = bigger;
	}
	return (char *)*array + (*n)++ * elem_size;
}

void arena_done(struct arena *a)
{
	while (a->last) {
		struct arena_block *prev = a->last->prev;

		free_block(a->last);
		a->last = prev;
	}
	a->size = 0;
}

void arena_leave_node(void *node)
{
	(void)node;
}
