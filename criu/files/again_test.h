/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors of a test, dumped from a process that has nothing else, and opened again as criu
 * does that for a restore. What tasks do themselves is left out: locks, targets of epolls.
 */
#ifndef FILES_AGAIN_TEST_H
#define FILES_AGAIN_TEST_H

#include "files/files.h"
#include "model/world_test.h"

#define AGAIN_MAX 16

struct again {
	struct options opts;
	struct dump dump;
	struct restore restore;
	struct world world; /* the tree around them */
	pid_t pid;	    /* of the process that had them */
	bool is_running;
	int fds[AGAIN_MAX];
	size_t n_fds;
};

void again_begin(struct again *a);
/* A path in the test's directory. */
const char *again_path(struct again *a, const char *name);
/* The descriptor is to be dumped. It is not the caller's any more. */
void again_add(struct again *a, int fd);
/* Looks at all of them. Some can have blockers then. */
void again_collect(struct again *a);
/* The same, but there is one blocker, whose text holds this one. */
void again_blocked(struct again *a, const char *text);
/* Writes the images; there may be no blocker. The descriptors and their process are gone then. */
void again_save(struct again *a);
/* Loads the images and opens everything. 0 or -errno. */
int again_open(struct again *a);
/* All of it. */
void again_cycle(struct again *a);
/* The new descriptor of what was fd. */
int again_fd(const struct again *a, int fd);
/* Its link in /proc. */
const char *again_link(struct again *a, int fd);
/* What the image says of it. */
const FileEntry *again_entry(const struct again *a, int fd);
void again_end(struct again *a);

#endif
