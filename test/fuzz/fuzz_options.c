/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any options by name and value, and what they say of sockets and inherited descriptors. An input
 * is a list of strings: name, value, name, value.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "files/inherit.h"
#include "model/options.h"
#include "model/restore.h"
#include "sockets/unix.h"
#include "kept.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Takes a string off the text, or NULL at its end. */
static const char *next(char **text, const char *end)
{
	const char *s = *text;

	if (s >= end)
		return NULL;
	*text += strlen(s) + 1;
	return s;
}

static void apply_all(struct options *o, char *text, const char *end)
{
	const char *name, *value;

	while ((name = next(&text, end))) {
		char error[256] = "";

		value = next(&text, end);
		/* What would be done at once to descriptors of the fuzzer. */
		if (!strcmp(name, "close") || (value && strstr(value, "debug")))
			continue;
		if (!options_apply(o, name, value, error, sizeof(error)) && !error[0])
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct options o = options_default();
	struct restore r = { .opts = &o };
	struct cuts cuts = { 0 };
	autofree char *text = xmalloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	kept_begin();
	apply_all(&o, text, text + size);
	(void)cuts_parse(&o, false, &cuts);
	(void)cuts_parse(&o, true, &cuts);
	(void)inherit_parse(&r);
	kept_end();
	arena_done(&r.arena);
	return 0;
}
