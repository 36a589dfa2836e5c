/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "model/dump.h"

void dump_block(struct dump *d, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	*ARENA_PUSH(&d->arena, d->blockers, d->n_blockers) = arena_strdup(&d->arena, text);
}
