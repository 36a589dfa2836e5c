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

/* A deleted file. */
struct snapshot_ghost {
	uint32_t id;
	GhostFileEntry *entry;
	struct {
		const uint8_t *data;
		uint64_t off, len;
	} * chunks; /* of its content; the rest is holes */
	size_t n_chunks;
	uint64_t size;
	struct image_in image;	      /* holds the data */
	const char *path;	      /* where it is made again, while it is there */
	int kept_fd;		      /* one more than a descriptor of it; 0: none */
	const RegFileEntry *nameless; /* whose description kept_fd is; NULL: nobody's */
};

/* The queue of a pipe or fifo. */
struct snapshot_pipe {
	PipeDataEntry *entry;
	const uint8_t *data;
};

/* The elements of a bpf map: all keys, all values. */
struct snapshot_bpfmap {
	BpfmapDataEntry *entry;
	const uint8_t *keys;
};

#define SCM_RIGHTS_MAX 253 /* descriptors in one message: SCM_MAX_FD of the kernel */

/* Bytes that wait at one end of a terminal: the kernel keeps some 12 KiB, more are no harm. */
#define TTY_DATA_MAX (64u << 10)

/* A message that waits in a socket. */
struct snapshot_packet {
	SkPacketEntry *entry;
	const uint8_t *data;
};

/* Shared anonymous memory that mappings refer to by shmid. */
struct snapshot_shared {
	uint64_t id;
	uint64_t size;
	uint64_t mapped; /* where the last mapping of it ends */
	bool has_size, is_reserved;
	bool is_private;     /* all mappings are: it holds no pages */
	uint32_t huge_flags; /* of mmap: the size of its pages, 0 for plain ones */
	struct pagemap pages;
};

/* Objects of System V in an IPC namespace of the tree's own. */
struct snapshot_shm {
	IpcShmEntry *entry;
	struct pagemap pages;
};

struct snapshot_sem {
	IpcSemEntry *entry;
	uint16_t *values;
};

struct snapshot_msg {
	IpcMsg *entry;
	const uint8_t *data;
};

struct snapshot_queue {
	IpcMsgEntry *entry;
	struct snapshot_msg *messages; /* in their order */
	size_t n;
};

struct snapshot_ipc {
	IpcVarEntry *var;
	struct snapshot_shm *shm; /* by id */
	size_t n_shm;
	struct snapshot_sem *sem;
	size_t n_sem;
	struct snapshot_queue *msg;
	size_t n_msg;
	struct image_in msg_image; /* holds the data */
};

struct snapshot {
	struct arena arena;
	struct pagemap_set pages;
	InventoryEntry *inventory;
	FileEntry **files; /* by id */
	size_t n_files;
	RemapFilePathEntry **remaps;
	size_t n_remaps;
	struct snapshot_ghost *ghosts;
	size_t n_ghosts;
	struct snapshot_pipe *pipes[2]; /* queues of pipes, of fifos */
	size_t n_pipes[2];
	struct image_in pipe_images[2]; /* hold the data */
	struct snapshot_bpfmap *bpfmaps;
	size_t n_bpfmaps;
	struct image_in bpfmap_image;	 /* holds the data */
	struct snapshot_packet *packets; /* each socket's own in order */
	size_t n_packets;
	struct image_in packet_image; /* holds the data */
	TtyInfoEntry **ttys;
	size_t n_ttys;
	TtyDataEntry **tty_data; /* what waits in them */
	size_t n_tty_data;
	FileLockEntry **locks;
	size_t n_locks;
	MemfdInodeEntry **memfds;
	struct pagemap *memfd_pages; /* of each */
	size_t n_memfds;
	struct snapshot_shared *shared; /* segments of shared memory, by id */
	size_t n_shared;
	SeccompEntry *seccomp;	     /* NULL: nobody has filters */
	struct snapshot_ipc *ipc;    /* NULL: the tree is in the IPC namespace of criu */
	struct snapshot_task *tasks; /* as in pstree: the root first */
	size_t n_tasks;
};

/* Loads the images of a directory. Returns 0, or one error that is reported. */
int snapshot_load(struct snapshot *s, int dirfd);
void snapshot_done(struct snapshot *s);

/* True if the task has the descriptor table of its parent (CLONE_FILES). */
bool snapshot_shares_table(const struct snapshot *s, const struct snapshot_task *t);

/* The queue of a pipe (or fifo) by its id, or NULL. */
const struct snapshot_pipe *snapshot_pipe(const struct snapshot *s, bool is_fifo, uint32_t id);

/* The elements of the map with that id at dump; NULL if there is nothing about it. */
const struct snapshot_bpfmap *snapshot_bpfmap(const struct snapshot *s, uint32_t map_id);

/* One end of a terminal by its id, or NULL. */
const TtyInfoEntry *snapshot_tty(const struct snapshot *s, uint32_t id);

/* The index of a memfd by its id, or -1. */
int snapshot_memfd(const struct snapshot *s, uint64_t inode_id);

/* The index of a shared segment by its id, or -1. */
int snapshot_shared(const struct snapshot *s, uint64_t id);

/* A segment of System V shared memory by its id, or NULL. */
const struct snapshot_shm *snapshot_shm(const struct snapshot *s, uint64_t id);

/* The size of its pages, and its own in whole ones. */
uint64_t snapshot_shm_page(const struct snapshot_shm *m);
uint64_t snapshot_shm_room(const struct snapshot_shm *m);

/* The index of a file by its id, or -1. */
int snapshot_file(const struct snapshot *s, uint32_t id);

#endif
