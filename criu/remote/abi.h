/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Layout of slots and calls: what criu writes and the stub reads, shared by C and assembly.
 *
 * A slot belongs to one thread in the stub. Its bell is a futex word that only two values of
 * criu's make valid: `owner` = a program is there, `owner | idle` = nothing to do. Any other
 * value means that criu died: the kernel wrote FUTEX_OWNER_DIED through criu's robust list.
 *
 * A process that was stopped may not run then before it is continued:
 *  1. the kernel writes that, and wakes who sleeps on the bell if it has FUTEX_WAITERS; 2. it
 *  tears down the memory of criu, which takes a while; 3. only then is criu no tracer any more,
 *  and the group stop takes hold again.
 * So its bell is idle without that bit, and nobody wakes at 1. A sleeper looks at the bell again
 * when it is continued; who finds at another time that criu is gone waits for 3 first.
 */
#ifndef REMOTE_ABI_H
#define REMOTE_ABI_H

#define SLOT_BELL    0	/* u32 futex word */
#define SLOT_DONE    4	/* u32: 0 busy, 1 done, 2 busy and criu sleeps on it */
#define SLOT_OWNER   8	/* u32: thread id of criu */
#define SLOT_SPIN    12 /* u32: times to look at the bell before sleeping */
#define SLOT_PROGRAM 16 /* u64: address of the first call */
#define SLOT_COUNT   24 /* u32: number of calls */
#define SLOT_INDEX   28 /* u32: where the program ended */
#define SLOT_FRAME   32 /* u64: stack pointer of the way out without criu; 0: exit */
#define SLOT_ROBUST  40 /* u64: node of criu's robust list, an address in criu */
#define SLOT_SELF    48 /* u64: address of the slot: what a new thread pops from its stack */
#define SLOT_COMPAT  56 /* u32: the way out is a signal frame of a 32-bit task */
#define SLOT_IDLE    60 /* u32: BELL_IDLE or BELL_IDLE_STOPPED */
#define SLOT_WAIT    64 /* timespec: how long to wait for 3; 0: not at all */
#define SLOT_NONE    80 /* u64: an empty set of signals */
#define SLOT_SIZE    96

#define BELL_IDLE	  0x80000000 /* FUTEX_WAITERS */
#define BELL_IDLE_STOPPED 0x40000000

#define CALL_NR	   0 /* u32 */
#define CALL_REFS  4 /* u8: bit i: argument i is the address of a u64 to load */
#define CALL_FLAGS 5 /* u8 */
#define CALL_ARG   8 /* u64[6] */
#define CALL_RET   56
#define CALL_SIZE  64

#define CALL_MAY_FAIL 1 /* go on after an error */
#define CALL_CLONES   2 /* a child comes back with 0 and enters the slot on its stack */
#define CALL_COMPAT   4 /* the call of an i386: its number, pointers below 4 GiB */

#ifndef __ASSEMBLER__

#include <stddef.h>
#include <stdint.h>

struct slot {
	uint32_t bell;
	uint32_t done;
	uint32_t owner;
	uint32_t spin;
	uint64_t program;
	uint32_t count;
	uint32_t index;
	uint64_t frame;
	uint64_t robust;
	uint64_t self;
	uint32_t is_compat;
	uint32_t idle;
	uint64_t wait_sec, wait_nsec;
	uint64_t none;
	uint64_t unused;
};

struct call {
	uint32_t nr;
	uint8_t refs;
	uint8_t flags;
	uint16_t unused;
	uint64_t arg[6];
	int64_t ret;
};

_Static_assert(sizeof(struct slot) == SLOT_SIZE, "slot size");
_Static_assert(offsetof(struct slot, frame) == SLOT_FRAME, "slot frame");
_Static_assert(offsetof(struct slot, robust) == SLOT_ROBUST, "slot robust");
_Static_assert(offsetof(struct slot, self) == SLOT_SELF, "slot self");
_Static_assert(offsetof(struct slot, is_compat) == SLOT_COMPAT, "slot kind");
_Static_assert(offsetof(struct slot, idle) == SLOT_IDLE, "slot idle");
_Static_assert(offsetof(struct slot, wait_sec) == SLOT_WAIT, "slot patience");
_Static_assert(offsetof(struct slot, none) == SLOT_NONE, "slot signals");
_Static_assert(sizeof(struct call) == CALL_SIZE, "call size");
_Static_assert(offsetof(struct call, arg) == CALL_ARG, "call arguments");
_Static_assert(offsetof(struct call, ret) == CALL_RET, "call result");

#endif
#endif
