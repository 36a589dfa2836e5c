/* SPDX-License-Identifier: GPL-2.0-only */
/* Progress of long work, on stderr if that is a terminal. */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *what;
	uint64_t done, total; /* bytes */
	uint64_t next_us;
	bool is_on, is_shown;
};

/* Nothing is shown in the first half second. */
void progress_begin(struct progress *p, const char *what, uint64_t total);
void progress_add(struct progress *p, uint64_t bytes);
void progress_end(struct progress *p);

#endif
