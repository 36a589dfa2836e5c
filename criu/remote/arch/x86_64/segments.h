/* SPDX-License-Identifier: GPL-2.0-only */
/* x86-64: segments that the kernel gives to all programs (arch/x86/include/asm/segment.h). */
#ifndef REMOTE_ARCH_X86_64_SEGMENTS_H
#define REMOTE_ARCH_X86_64_SEGMENTS_H

#define USER_CS_32 0x23
#define USER_CS_64 0x33
#define USER_DS	   0x2b /* and SS */
#define USER_RPL   3	/* privilege of a selector */

#endif
