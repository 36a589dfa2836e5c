/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What remote/ knows of a CPU. One folder below arch/ implements it; nothing else in the
 * program names a register.
 */
#ifndef REMOTE_ARCH_H
#define REMOTE_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include <asm/ldt.h>

/* General registers as PTRACE_GETREGS gives them, of 64-bit and 32-bit tasks. */
struct regs {
	struct user_regs_struct gp;
};

/* Floating-point and vector state: the XSAVE area in standard format (NT_X86_XSTATE). */
#define XSTATE_MAX (16u << 10)
struct xstate {
	uint32_t size;
	uint8_t *data; /* owned by an arena */
};

/*
 * Where the CPU keeps the components of the extended state. Looked up once per run: the
 * instruction that tells (CPUID) costs microseconds in a virtual machine.
 */
struct xstate_layout {
	uint64_t features;	       /* that the CPU and the kernel have; bit N is component N */
	uint16_t offset[20], size[20]; /* of the components from 2 on */
};
#define XSTATE_PKRU 9 /* the component with the rights of protection keys */

void xstate_layout_read(struct xstate_layout *ret);

/* Registers of a stopped thread. Return 0 or -errno. */
int regs_get(pid_t tid, struct regs *ret);
int regs_set(pid_t tid, const struct regs *regs);

/*
 * Segments that a thread has set up for its thread-local storage (set_thread_area(2)): what 32-bit
 * code uses, and hardly any other.
 */
#define TLS_SEGMENTS 3
struct tls {
	struct user_desc segment[TLS_SEGMENTS];
};
/* Of a stopped thread. 0 or -errno; -EIO where the kernel runs no 32-bit code. */
int tls_get(pid_t tid, struct tls *ret);
int tls_set(pid_t tid, const struct tls *tls);
/* False if the thread has none, or 64-bit code that does not use any. */
bool tls_is_used(const struct regs *regs);

/* Reads the extended state into buf of XSTATE_MAX bytes. Returns its size or -errno. */
int xstate_get(pid_t tid, void *buf);
int xstate_set(pid_t tid, const void *data, size_t size);

/*
 * Registers that run one system call at insn with the given stack pointer. A 32-bit task makes the
 * i386 call of that name; only those that stopped tasks are asked for are known (compat.c).
 */
struct regs regs_for_call(const struct regs *orig, uint64_t insn, uint64_t sp, long nr,
			  const uint64_t arg[6]);
int64_t regs_result(const struct regs *regs);

/* Says where a store gadget behind a call puts its result. */
void regs_set_store(struct regs *regs, uint64_t addr);

/* Registers that enter the stub at entry with its slot. */
struct regs regs_for_stub(const struct regs *orig, uint64_t entry, uint64_t slot);

/*
 * Both leave a mark in registers that neither calls nor the stub use. A thread that carries it is
 * not where its program was: it is at work for a criu, or on the way back from one that died.
 * regs_fill_mark: what a gadget pops on that way has to be the mark too.
 */
bool regs_is_marked(const struct regs *regs);
void regs_fill_mark(void *buf, size_t size);

uint64_t regs_pc(const struct regs *regs);
void regs_set_pc(struct regs *regs, uint64_t pc);
uint64_t regs_sp(const struct regs *regs);

/* Where what 32-bit code can reach ends. */
#define COMPAT_END (4ull << 30)

/* Does this kernel run 32-bit code at all? Asked in a child, which that may kill. */
bool compat_is_there(void);
/* The robust list of a 32-bit thread, which a 64-bit call does not tell. 0 or -errno. */
int compat_get_robust_list(pid_t tid, uint64_t *ret_head, uint64_t *ret_len);

/*
 * Opens a file without O_LARGEFILE, which every 64-bit open(2) sets. Only where compat_is_there.
 * Returns the descriptor or -errno.
 */
int compat_open(const char *path, int flags);

/* The number of the system call that the stop interrupted, or -1; of an i386 in a 32-bit task. */
long regs_interrupted_call(const struct regs *regs);
/* Was it restart_syscall(2)? */
bool regs_is_restart(const struct regs *regs);
/*
 * The number by which the task itself made a call that restart_syscall goes on with. An i386 has
 * two of some, for times of 32 and of 64 bits: regs_restarted_time is the address of the time,
 * which tells them apart by its first three words; 0 if that is not needed.
 */
uint64_t regs_restarted_time(const struct regs *regs, long nr);
long regs_restarted_number(const struct regs *regs, long nr, const uint32_t time[3]);
/* Says which call it really was, where the kernel has put restart_syscall in its place. */
void regs_set_interrupted_call(struct regs *regs, long nr);

/* Argument i of a system call. */
uint64_t regs_argument(const struct regs *regs, int i);

/*
 * True if the thread may be about to make restart_syscall(2), should code hold a system call
 * instruction at its place: the kernel has set that up, and it has not happened yet.
 */
bool regs_may_restart(const struct regs *regs);
/* Puts them back to where the interrupted call has just ended with the wish to be restarted. */
void regs_before_restart(struct regs *regs);

/*
 * True if the interrupted call goes on from state that the kernel keeps for the thread
 * (restart_syscall(2)). Loading a signal frame would lose that state: the call would fail.
 */
bool regs_need_restart_block(const struct regs *regs);

/*
 * Makes a call that a bare stop turns into EINTR (epoll_wait, sigtimedwait, ...) restart
 * instead. The kernel still returns EINTR if a handler really runs. See signal(7).
 */
void regs_fix_resume(struct regs *regs);

/*
 * Makes an interrupted call be made again from its start, where the kernel's own restart state
 * is not at hand (in images and signal frames). nanosleep goes on with the remaining
 * time that the kernel stored for the caller.
 */
void regs_redo_call(struct regs *regs);

/* Is the thread in 32-bit (i386) code, whose calls are those of an i386? */
bool regs_is_compat(const struct regs *regs);

/* False in a code segment of the program's own making (modify_ldt). */
bool regs_is_in_known_code(const struct regs *regs);

/*
 * Signal frames: contexts that a task loads with rt_sigreturn, so that it finds back alone.
 * frame_size: room for a frame with that extended state (0: none) at any address.
 */
size_t frame_size(const struct xstate_layout *l, const struct xstate *x);

/*
 * Builds in buf the frame that will stand at address at (16-byte aligned), with `restorer` as
 * its return address: a `ret` with the stack pointer there loads regs, mask, and the extended
 * state (x may be NULL: reset). Returns its size, or -EOPNOTSUPP if x cannot be in a frame.
 */
ssize_t frame_build(const struct xstate_layout *l, void *buf, uint64_t at, uint64_t restorer,
		    const struct regs *regs, const struct xstate *x, uint64_t mask);

/*
 * Finds in the code of a vDSO a system call instruction that reaches a return with no harm on
 * the way. Returns its offset and sets *ret_pops to the bytes taken off the stack between;
 * or -ENOENT.
 */
ssize_t find_call_gadget(const uint8_t *code, size_t size, bool is_compat, size_t *ret_pops);

/*
 * Finds code of 64-bit tasks that stores the result of the call before it where regs_set_store
 * said, and reaches a return, as above. What it stores are 32 bits.
 */
ssize_t find_store_gadget(const uint8_t *code, size_t size, size_t *ret_pops);

/* The words below a frame, which nobody reads, hold an address of such code and what it pops. */
#define FRAME_STORE_POPS_MAX 112

/* Any system call instruction. Offset or -ENOENT. */
ssize_t find_syscall(const uint8_t *code, size_t size, bool is_compat);

/* The instructions by which a signal handler returns: rt_sigreturn. Offset or -ENOENT. */
ssize_t find_sigreturn(const uint8_t *code, size_t size, bool is_compat);

/* The address of this process's own such instructions (the C library's), or 0. */
uint64_t own_sigreturn(void);

/* The stub. child is where new threads start. */
extern const uint8_t stub_begin[], stub_child[], stub_end[];

/*
 * clone3 whose child starts at entry in the stub with stack pointer args->stack + stack_size.
 * Returns the child's pid or -errno.
 */
struct clone_args;
long clone3_into_stub(struct clone_args *args, size_t size, uint64_t entry);

#endif
