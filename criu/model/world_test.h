/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A world for tests: the messages of a directory of images that is consistent. A test changes what
 * it likes, and has it written and loaded.
 */
#ifndef MODEL_WORLD_TEST_H
#define MODEL_WORLD_TEST_H

#include "base/test.h"
#include "model/snapshot.h"

#define WORLD_ROOT   10 /* pids and thread ids */
#define WORLD_THREAD 11
#define WORLD_CHILD  12
#define WORLD_DEAD   13

#define WORLD_SLASH   1 /* ids of files, */
#define WORLD_PROGRAM 2
#define WORLD_GONE    3 /* a ghost */
#define WORLD_HIDDEN  4 /* with a link, which is */
#define WORLD_LINK    5
#define WORLD_SOCKET  6
#define WORLD_MEMFD   7

#define WORLD_TABLE	     20 /* of descriptors that root and child share, */
#define WORLD_GHOST	     0xa1
#define WORLD_MEMFD_PAGES    500
#define WORLD_SEGMENT	     900
#define WORLD_SEGMENT_SIZE   0x3000
#define WORLD_MEMFD_SIZE     5000
#define WORLD_ANON_START     0x10000ull
#define WORLD_FILE_START     0x20000ull
#define WORLD_SHARED_START   0x30000ull
#define WORLD_MEMFD_START    0x40000ull
#define WORLD_RING_START     0x50000ull
#define WORLD_HUGE_START     0x200000ull
#define WORLD_VSYSCALL_START 0xffffffffff600000ull

/* The mappings of the root, in this order. */
enum world_vma {
	VMA_OF_ANON,
	VMA_OF_FILE,
	VMA_OF_SHARED,
	VMA_OF_SHARED_AGAIN, /* the same segment, a page further on */
	VMA_OF_MEMFD,
	VMA_OF_RING,
	VMA_OF_HUGE,
	VMA_OF_VSYSCALL,
	WORLD_VMAS,
};

/* An entry of an image: a message, and the bytes behind it. */
struct world_entry {
	enum image_type type;
	unsigned long id;
	const ProtobufCMessage *message;
	const void *raw;
	size_t raw_size;
};

struct world_pages {
	enum image_type type;
	unsigned long id;
	uint32_t pages_id;
	struct page_run run[2];
	size_t n;
};

struct world_task {
	PstreeEntry *pstree;
	CoreEntry *core;
	TaskKobjIdsEntry *ids;
	MmEntry *mm;
	FsEntry *fs;
};

struct world {
	struct arena arena;
	int dir;
	struct world_entry *entries;
	size_t n_entries;
	struct world_pages *pages;
	size_t n_pages;
	InventoryEntry *inventory;
	struct world_task root, child, dead; /* of the dead one only pstree and core */
	CoreEntry *thread;
	FdinfoEntry *fd; /* the first one of the shared table */
	FileEntry *program, *gone, *socket;
	RemapFilePathEntry *ghost_remap, *link_remap;
	GhostFileEntry *ghost;
	GhostChunkEntry *chunk;
	PipeDataEntry *pipe_data;
	BpfmapDataEntry *bpfmap_data;
	MemfdInodeEntry *memfd;
	TtyInfoEntry *tty;
	TtyDataEntry *tty_data;
	SkPacketEntry *packet;
	FileLockEntry *lock;
	SeccompEntry *seccomp;
	PosixTimerEntry *timer;
};

/* Only what is always there: a root without any descriptor, its program and its directories. */
void world_begin(struct world *w);
/* Begins with something of everything. */
void world_furnish(struct world *w);

/* A new entry at the end of an image. */
void world_add(struct world *w, enum image_type type, unsigned long id, const void *message);
void world_add_raw(struct world *w, enum image_type type, unsigned long id, const void *message,
		   const void *raw, size_t raw_size);
/* The world is without that image. */
void world_drop(struct world *w, enum image_type type, unsigned long id);
struct world_task world_add_task(struct world *w, uint32_t pid, uint32_t parent, uint32_t table);
FileEntry *world_add_file(struct world *w, uint32_t id, FdTypes type);
FileEntry *world_add_path(struct world *w, uint32_t id, const char *path);
FdinfoEntry *world_add_fd(struct world *w, uint32_t table, uint32_t fd, const FileEntry *file);

/* Writes the images into the test's directory, w->dir. */
void world_write(struct world *w);
/* Writes and loads them: how that ended, or only if it did well. */
int world_try(struct world *w, struct snapshot *ret);
void world_load(struct world *w, struct snapshot *ret);
void world_end(struct world *w, struct snapshot *s);

#endif
