/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An IPC namespace of the tree: its limits, and System V shared memory, semaphores and message
 * queues with what they hold. Everything here does nothing if the tree is in that of criu.
 * Images: ipcns-var-ID, ipcns-shm-ID, ipcns-sem-ID, ipcns-msg-ID.
 */
#ifndef NS_IPC_H
#define NS_IPC_H

#include "model/dump.h"
#include "model/restore.h"

/* Reads what is in the namespace of the tree, before its mappings are looked at. */
int ipc_collect(struct dump *d);

/* Is there a segment of shared memory with that id? */
bool ipc_has_segment(const struct dump *d, uint64_t id);

/* Notes a mapping of a segment that there is; key: the one in its name. */
void ipc_note_attachment(struct dump *d, const struct dump_task *t, const VmaEntry *v,
			 uint32_t key);

/* When all mappings are known: segments that somebody else has, or that cannot be read. */
void ipc_check_attachments(struct dump *d);

/* Saves the contents of segments, writes the images. */
int ipc_save(struct dump *d);
int ipc_write_images(struct dump *d);

/* Makes all objects in the namespace of the root, which is new. */
int ipc_make(struct restore *r);

/* When all tasks have attached what they had: limits, and what was marked for removal. */
int ipc_finish(struct restore *r);

/* Detaches criu from what it still holds. */
void ipc_drop(struct restore *r);

#endif
