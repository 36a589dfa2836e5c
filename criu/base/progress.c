/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdio.h>
#include <unistd.h>

#include "base/io.h"
#include "base/own.h"
#include "base/progress.h"

#define FIRST_US 500000
#define EACH_US	 200000

void progress_begin(struct progress *p, const char *what, uint64_t total)
{
	*p = (struct progress){ .what = what, .total = total };
	p->is_on = isatty(STDERR_FILENO);
	if (p->is_on)
		p->next_us = now_us() + FIRST_US;
}

void progress_add(struct progress *p, uint64_t bytes)
{
	p->done = min(p->done + bytes, p->total);
	if (!p->is_on || now_us() < p->next_us)
		return;
	p->next_us = now_us() + EACH_US;
	p->is_shown = true;
	fprintf(stderr, "\r%s: %lu of %lu MiB", p->what, (unsigned long)(p->done >> 20),
		(unsigned long)(p->total >> 20));
}

void progress_end(struct progress *p)
{
	if (p->is_shown)
		fprintf(stderr, "\r\033[K");
	p->is_shown = false;
}
