/* SPDX-License-Identifier: GPL-2.0-only */
/* Objects of System V in an IPC namespace of the target's own (unshare -i). */
#ifndef MK_IPCNS_H
#define MK_IPCNS_H

#include <stdint.h>
#include <sys/types.h>

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

/* Skips where the namespace is that of everybody. */
void need_own_ipc(void);

/* One limit: a file below /proc/sys. */
void set_ipc_limit(const char *name, const char *value);

/* Limits that are not as usual, and will be checked. */
void change_ipc_limits(void);

/* Ids, owners, modes and sizes of all objects, and the limits: as the kernel tells them. */
void note_ipc(void);
void check_ipc(void);

/* Whoever makes objects meanwhile is that user. */
void be_user(uid_t uid);

/* The id that the next object gets. */
void choose_next_id(const char *kind, int id);

#endif
