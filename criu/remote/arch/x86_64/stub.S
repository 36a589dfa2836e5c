/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The stub: the only code of ours that ever runs in another task. It executes programs, arrays
 * of system calls (remote/abi.h), and sleeps on its bell between them.
 *
 * rbx = slot, r12 = call, r13d = index of the call, r9d = not 0: it was stopped in its sleep.
 * r14, r15 are the mark of threads that are not at home (arch.h) and stay. No stack is used until
 * the way out.
 * Position independent; copied into the region of the task.
 */
#include <asm/unistd.h>

#include "remote/abi.h"

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define COMPAT_NR_RT_SIGRETURN 173

	.section .rodata
	.globl stub_begin, stub_child, stub_end
	.balign 16

/* A new thread or child: its stack pointer stands on SLOT_SELF of its slot. */
stub_child:
	pop	%rbx

/* Entered with rbx = slot and bell = owner, as if a program had just ended. */
stub_begin:
idle:
	mov	SLOT_OWNER(%rbx), %eax
	mov	%eax, %ecx
	or	SLOT_IDLE(%rbx), %ecx
	xor	%r9d, %r9d
	lock cmpxchg %ecx, SLOT_BELL(%rbx)
	jne	orphaned
	/* Idle before done: criu may ring as soon as it sees done. */
	mov	$1, %eax
	xchg	%eax, SLOT_DONE(%rbx)
	cmp	$2, %eax
	jne	2f
	lea	SLOT_DONE(%rbx), %rdi
	mov	$FUTEX_WAKE, %esi
	mov	$1, %edx
	mov	$__NR_futex, %eax
	syscall
2:	mov	SLOT_SPIN(%rbx), %r8d

wait:
	mov	SLOT_OWNER(%rbx), %edx
	mov	SLOT_BELL(%rbx), %eax
	cmp	%edx, %eax
	je	run
	or	SLOT_IDLE(%rbx), %edx
	cmp	%edx, %eax
	jne	orphaned
	test	%r8d, %r8d
	jz	sleep
	dec	%r8d
	pause
	jmp	wait
sleep:
	/* Untimed: a timed wait would overwrite the task's restart block. */
	lea	SLOT_BELL(%rbx), %rdi
	mov	$FUTEX_WAIT, %esi
	xor	%r10d, %r10d
	mov	$__NR_futex, %eax
	syscall
	xor	%r8d, %r8d
	/* 0: rung. Else it began to sleep anew, after a stop, and the bell was another one by then. */
	mov	%eax, %r9d
	jmp	wait

run:
	mov	SLOT_PROGRAM(%rbx), %r12
	xor	%r13d, %r13d
next:
	cmp	SLOT_COUNT(%rbx), %r13d
	jae	finish
	mov	CALL_ARG+0(%r12), %rdi
	mov	CALL_ARG+8(%r12), %rsi
	mov	CALL_ARG+16(%r12), %rdx
	mov	CALL_ARG+24(%r12), %r10
	mov	CALL_ARG+32(%r12), %r8
	mov	CALL_ARG+40(%r12), %r9
	mov	CALL_REFS(%r12), %al
	test	%al, %al
	jz	3f
	.macro	load bit, reg
	test	$\bit, %al
	jz	9f
	mov	(\reg), \reg
9:
	.endm
	load	1, %rdi
	load	2, %rsi
	load	4, %rdx
	load	8, %r10
	load	16, %r8
	load	32, %r9
3:	mov	CALL_NR(%r12), %eax
	testb	$CALL_COMPAT, CALL_FLAGS(%r12)
	jnz	compat
	syscall
made:
	test	%rax, %rax
	jnz	4f
	testb	$CALL_CLONES, CALL_FLAGS(%r12)
	jz	4f
	/* Parent and child look alike but for the result: only a child gets 0 here. */
	jmp	stub_child
4:	mov	%rax, CALL_RET(%r12)
	cmp	$-4095, %rax
	jae	failed
continue:
	add	$CALL_SIZE, %r12
	inc	%r13d
	jmp	next
failed:
	testb	$CALL_MAY_FAIL, CALL_FLAGS(%r12)
	jnz	continue
finish:
	mov	%r13d, SLOT_INDEX(%rbx)
	jmp	idle

/* Its calls take their arguments from other registers. r8-r15 stay as they are (Linux 4.17). */
compat:
	mov	%rbx, %r11
	mov	%edi, %ebx
	mov	%esi, %ecx
	mov	%r10d, %esi
	mov	%r8d, %edi
	mov	%r9d, %ebp
	int	$0x80
	mov	%r11, %rbx
	jmp	made

/* criu is gone: return through the prepared signal frames. */
orphaned:
	cmpq	$0, SLOT_WAIT(%rbx)
	je	home
	test	%r9d, %r9d
	jnz	home
	/* The stop, once it is over, ends this call with EINTR. */
	lea	SLOT_NONE(%rbx), %rdi
	xor	%esi, %esi
	lea	SLOT_WAIT(%rbx), %rdx
	mov	$8, %r10d
	mov	$__NR_rt_sigtimedwait, %eax
	syscall
home:
	mov	SLOT_FRAME(%rbx), %rsp
	test	%rsp, %rsp
	jz	exit
	cmpl	$0, SLOT_COMPAT(%rbx)
	jne	compat_return
	ret
/* Its frame is read as if a 32-bit ret had taken off the address at its start. */
compat_return:
	add	$4, %rsp
	mov	$COMPAT_NR_RT_SIGRETURN, %eax
	int	$0x80
exit:
	mov	$__NR_exit_group, %eax
	xor	%edi, %edi
	syscall
	hlt
stub_end:
	.section .note.GNU-stack, "", @progbits
