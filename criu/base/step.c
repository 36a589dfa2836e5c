/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/step.h"

static int fail_as_asked(const char *command, const struct step *s)
{
	return refuse(ECANCELED, "%s: step %s fails as CRIU_FAIL_STEP asks", command, s->name);
}

static int run_one(const char *command, const struct step *s, void *ctx)
{
	const char *failing = getenv("CRIU_FAIL_STEP");
	bool fails = failing && !strcmp(failing, s->name);
	uint64_t start = now_us();

	if (fails && s->commits)
		return fail_as_asked(command, s);
	int rc = s->run(ctx);
	if (rc == 0 && fails)
		rc = fail_as_asked(command, s);
	debug("%s: step %s: %s, %lu us", command, s->name, rc < 0 ? "failed" : "done",
	      (unsigned long)(now_us() - start));
	return rc;
}

int steps_run(const char *command, const struct step *steps, size_t n, void *ctx)
{
	size_t first_to_undo = 0;

	for (size_t i = 0; i < n; i++) {
		int rc = run_one(command, &steps[i], ctx);

		if (rc < 0) {
			for (size_t j = i + 1; j-- > first_to_undo;)
				if (steps[j].undo)
					steps[j].undo(ctx);
			return rc;
		}
		if (steps[i].commits)
			first_to_undo = i + 1;
	}
	return 0;
}
