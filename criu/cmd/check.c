/* SPDX-License-Identifier: GPL-2.0-only */
/* criu check: what of the kernel is missing, and what that would disable. */
#include <stdbool.h>
#include <string.h>

#include "base/log.h"
#include "cmd/commands.h"
#include "kernel/features.h"

int cmd_check(const struct options *o)
{
	bool looks_good = true;

	for (size_t i = 0; i < n_kernel_features; i++) {
		const struct kernel_feature *f = &kernel_features[i];
		int rc = f->probe();

		info("check: %s: %s", f->name, rc == 0 ? "there" : strerror(-rc));
		if (rc == 0)
			continue;
		if (f->is_required) {
			(void)refuse(-rc, "%s is missing (%s): %s", f->name, strerror(-rc),
				     f->without);
			looks_good = false;
		} else {
			warn("%s is missing (%s): %s", f->name, strerror(-rc), f->without);
		}
	}
	if (looks_good && o->service_fd >= 0) /* stdout belongs to the client */
		info("Looks good.");
	else if (looks_good)
		message("Looks good.");
	else
		warn("Does not look good.");
	return !looks_good;
}
