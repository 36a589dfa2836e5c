/* SPDX-License-Identifier: GPL-2.0-only */
/* x86-64: what signal frames of 64-bit and 32-bit tasks have in common. */
#ifndef REMOTE_ARCH_X86_64_FRAME_H
#define REMOTE_ARCH_X86_64_FRAME_H

#include "remote/arch.h"

#define UC_FP_XSTATE 1

/* The XSAVE area in a frame, of frame_size's size at most, from a thread's state. */
void frame_put_xstate(const struct xstate_layout *l, uint8_t *out, const struct xstate *x);

#endif
