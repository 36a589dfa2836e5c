/* SPDX-License-Identifier: GPL-2.0-only */
/* Limits and switches of an IPC namespace: files below /proc/sys, of the namespace one is in. */
#ifndef NS_IPCVARS_H
#define NS_IPCVARS_H

#include "image/image.h"
#include "image/messages.h"

/* Reads all of them. What this kernel lacks is 0. NULL: an error, reported. */
IpcVarEntry *ipcvars_read(struct arena *a);

/* Takes away the limits of what can be made, whatever they will be in the end. 0 or an error. */
int ipcvars_widen(void);

/* Makes all as the entry says, where they are not. 0 or an error, reported. */
int ipcvars_set(const IpcVarEntry *e);

/* The id that the next object gets; kind: "shm", "sem", "msg". 0 or an error, reported. */
int ipcvars_set_next_id(const char *kind, uint32_t id);

#endif
