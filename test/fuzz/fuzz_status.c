/* SPDX-License-Identifier: GPL-2.0-only */
/* Any text of status: a list of groups that is there, and values in their ranges. */
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
	struct proc_status s = { .tgid = 7 };
	struct arena a = { 0 };
	uint64_t sum = 0;

	memcpy(text, data, size);
	text[size] = '\0';
	int rc = proc_status_parse(text, &a, &s);
	check(rc == 0 || s.tgid == 7); /* an error leaves the result alone */
	check(s.n_groups <= size / 2 && s.umask <= 07777);
	for (size_t i = 0; i < s.n_groups; i++)
		sum += s.groups[i];
	check(sum <= s.n_groups * UINT32_MAX);
	arena_done(&a);
	return 0;
}
