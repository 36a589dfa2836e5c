/* SPDX-License-Identifier: GPL-2.0-only */
/* x86-64: how a child of criu itself gets into the stub. */
#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "remote/arch.h"

long clone3_into_stub(struct clone_args *args, size_t size, uint64_t entry)
{
	long ret;
	register uint64_t to __asm__("r12") = entry;

	/* The child has another stack: it may not run a single instruction of C. */
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "jmp *%%r12\n"
			 "1:"
			 : "=a"(ret)
			 : "a"(SYS_clone3), "D"(args), "S"(size), "r"(to)
			 : "rcx", "r11", "memory");
	return ret;
}
