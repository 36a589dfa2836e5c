/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A checkpoint in memory: every image parsed, every reference resolved. What loads is
 * consistent; loading changes nothing outside.
 */
#ifndef MODEL_SNAPSHOT_H
#define MODEL_SNAPSHOT_H

#include "image/image.h"
#include "image/messages.h"
#include "image/pagemap.h"

struct snapshot_task {
	PstreeEntry *pstree;
	int parent;	   /* index of a task before this one; -1 for the root */
	bool is_zombie;	   /* then only pstree and cores[0]->tc are there */
	CoreEntry **cores; /* one per thread, leader first */
	TaskKobjIdsEntry *ids;
	MmEntry *mm;
	FsEntry *fs;
	FdinfoEntry **fds;
	size_t n_fds;
	struct pagemap pages;
};

struct snapshot {
	struct arena arena;
	struct pagemap_set pages;
	InventoryEntry *inventory;
	FileEntry **files; /* by id */
	size_t n_files;
	struct snapshot_task *tasks; /* as in pstree: the root first */
	size_t n_tasks;
};

/* Loads the images of a directory. Returns 0, or one error that is reported. */
int snapshot_load(struct snapshot *s, int dirfd);
void snapshot_done(struct snapshot *s);

/* The index of a file by its id, or -1. */
int snapshot_file(const struct snapshot *s, uint32_t id);

#endif
