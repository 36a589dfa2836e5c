/* SPDX-License-Identifier: GPL-2.0-only */
/* The vDSO: code and data that the kernel maps into every task, at restore. */
#ifndef MEM_VDSO_H
#define MEM_VDSO_H

#include "model/restore.h"

#define VDSO_ROOM (64u << 10) /* for [vvar], [vvar_vclock] and [vdso] while they wait */

/* Sees whether the task's vDSO is that of this kernel, or can be led there. 0 or -errno, reported.
 */
int vdso_check(const struct restore *r, struct restore_task *t);

/* Adds the moves of the blank task's pieces to r->vdso_tmp, and from there to their places. */
void vdso_add_park(struct restore *r, struct program *p);
int vdso_add_place(struct restore *r, struct restore_task *t, struct program *p);

/* Writes the code of that of another kernel, and protects it. 0 or -errno, reported. */
int vdso_fill(struct restore *r, struct restore_task *t);
void vdso_add_finish(const struct restore_task *t, struct program *p);

/* Address of a system call instruction in the vDSO of the restored task. */
uint64_t vdso_call_insn(const struct restore *r, const struct restore_task *t);

#endif
