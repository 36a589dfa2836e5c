/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Steps: a command is an ordered table of them. The runner times each, names the one that
 * failed, and undoes what was done in reverse order.
 */
#ifndef BASE_STEP_H
#define BASE_STEP_H

#include <stdbool.h>
#include <stddef.h>

struct step {
	const char *name;
	int (*run)(void *ctx);	 /* 0 or -errno, having reported the cause */
	void (*undo)(void *ctx); /* after a failure of this or a later step; may be NULL */
	bool commits; /* cannot fail; what was done before it stands, whatever comes after */
};

/*
 * Runs the steps. Returns 0, or the code of the step that failed after undoing it and all
 * before it. An undo therefore copes with a step that was done in part. The environment
 * variable CRIU_FAIL_STEP names a step that fails after it ran (one that commits: before), for
 * tests.
 */
int steps_run(const char *command, const struct step *steps, size_t n, void *ctx);

#endif
