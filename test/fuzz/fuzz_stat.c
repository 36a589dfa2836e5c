/* SPDX-License-Identifier: GPL-2.0-only */
/* Any text of stat: the command ends, and an error leaves the result alone. */
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
	struct proc_stat s = { .pid = -7 };

	memcpy(text, data, size);
	text[size] = '\0';
	if (proc_stat_parse(text, &s) == 0)
		check(s.pid >= 0 && s.state && memchr(s.comm, '\0', sizeof(s.comm)));
	else
		check(s.pid == -7);
	return 0;
}
