/* SPDX-License-Identifier: GPL-2.0-only */
/* x86-64: the XSAVE area in standard format (Intel SDM volume 1, chapter 13). */
#ifndef REMOTE_ARCH_X86_64_XSAVE_H
#define REMOTE_ARCH_X86_64_XSAVE_H

#include <stdint.h>

/* Legacy area of FXSAVE. */
struct fxsave {
	uint16_t cwd, swd, twd, fop;
	uint64_t rip, rdp;
	uint32_t mxcsr, mxcsr_mask;
	uint32_t st[32];
	uint32_t xmm[64];
	uint32_t padding[12];
	uint32_t software[12];
};

_Static_assert(sizeof(struct fxsave) == 512, "FXSAVE area");

#define XSTATE_BV_AT 512
#define HEADER_END   576
#define X87_AND_SSE  3u

/* The initial state, which the CPU does not store when its bit in xstate_bv is clear. */
#define FCW_INIT   0x37f
#define MXCSR_INIT 0x1f80

#endif
