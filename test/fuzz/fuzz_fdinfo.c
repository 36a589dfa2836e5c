/* SPDX-License-Identifier: GPL-2.0-only */
/* Any text of fdinfo: values in their ranges, and an error leaves the result alone. */
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "proc/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Of the exact size, so that every read beyond the text is seen. */
	autofree char *text = xmalloc(size + 1);
	struct proc_fdinfo i = { .mnt_id = -7 };

	memcpy(text, data, size);
	text[size] = '\0';
	if (proc_fdinfo_parse(text, &i) == 0)
		check(i.mnt_id >= -1 && i.locks <= size / 5);
	else
		check(i.mnt_id == -7);
	return 0;
}
