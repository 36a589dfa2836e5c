/* SPDX-License-Identifier: GPL-2.0-only */
/* What the running kernel (and our rights) can do, asked by trying it. */
#ifndef KERNEL_FEATURES_H
#define KERNEL_FEATURES_H

#include <stdbool.h>
#include <stddef.h>

struct kernel_feature {
	const char *name;
	bool is_required;    /* without it nothing can be dumped or restored */
	const char *without; /* what does not work, or works otherwise, without it */
	int (*probe)(void);  /* 0: it is there; -errno: what the kernel said */
};

extern const struct kernel_feature kernel_features[];
extern const size_t n_kernel_features;

/* Probes the feature of that name, which is in the table. 0 or -errno. */
int kernel_probe(const char *name);

#endif
