/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/own.h"

#define BLOCK_SIZE (32u << 10)
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

void *arena_alloc(struct arena *a, size_t size)
{
	size_t need = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	struct arena_block *b = a->last;

	if (need < size || need > SIZE_MAX - sizeof(*b))
		return or_die(NULL, size);
	if (!b || b->size - b->used < need) {
		size_t room = max(need, (size_t)BLOCK_SIZE);

		b = or_die(calloc(1, sizeof(*b) + room), room);
		b->prev = a->last;
		b->size = room;
		a->last = b;
	}
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

		free(a->last);
		a->last = prev;
	}
}

void arena_leave_node(void *node)
{
	(void)node;
}
