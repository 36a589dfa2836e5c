/* SPDX-License-Identifier: GPL-2.0-only */
/* Nothing but a little data: the smallest thing there is to dump. */
#include "mk.h"

#define IDLE_BYTES	(64 * 1024)

static unsigned char data[IDLE_BYTES];

static void make(void)
{
	fill(data, sizeof(data), 1);
}

static void check(void)
{
	ssize_t at = verify(data, sizeof(data), 1);

	if (at >= 0)
		bad("data differs at byte %zd", at);
}

struct factory idle_factory = {
	.name	= "idle",
	.about	= "64 KiB of data, nothing else",
	.make	= make,
	.check	= check,
};
