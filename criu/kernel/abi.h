/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernel interfaces newer than the headers of the oldest distribution that we build on. Each
 * names the version that brought it.
 */
#ifndef KERNEL_ABI_H
#define KERNEL_ABI_H

#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

/* Linux 4.3 */
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

/* No header has it. */
#define ABI_MQUEUE_MAGIC 0x19800202

/* Of init's pid namespace: PROC_PID_INIT_INO of the kernel. */
#define ABI_INIT_PID_NS "pid:[4026531836]"

/* Linux 5.8 */
#define ABI_STATX_MNT_ID 0x1000

/* Linux 4.4, 4.16 */
#define ABI_PTRACE_GET_THREAD_AREA 25
#define ABI_PTRACE_SET_THREAD_AREA 26

#define ABI_PTRACE_SECCOMP_GET_FILTER	0x420c
#define ABI_PTRACE_SECCOMP_GET_METADATA 0x420d
struct abi_seccomp_metadata {
	uint64_t filter_off;
	uint64_t flags;
};

/* Linux 5.0, 5.7 */
#ifndef SECCOMP_RET_USER_NOTIF
#define SECCOMP_RET_USER_NOTIF 0x7fc00000U
#endif
#ifndef SECCOMP_FILTER_FLAG_TSYNC_ESRCH
#define SECCOMP_FILTER_FLAG_TSYNC_ESRCH (1UL << 4)
#endif

/* Linux 5.13; C libraries name the structure differently. */
#define ABI_PTRACE_GET_RSEQ_CONFIGURATION 0x420f
struct abi_rseq_configuration {
	uint64_t rseq_abi_pointer;
	uint32_t rseq_abi_size;
	uint32_t signature;
	uint32_t flags;
	uint32_t pad;
};

/* struct rseq: the pointer to the critical section stands behind two CPU numbers. */
#define RSEQ_CS_OFFSET 8
#ifndef RSEQ_CS_FLAG_NO_RESTART_ON_SIGNAL
#define RSEQ_CS_FLAG_NO_RESTART_ON_SIGNAL 2u
#endif

/* Linux 5.6, 6.3, 6.4 */
#define ABI_PR_SET_IO_FLUSHER 57
#define ABI_PR_GET_IO_FLUSHER 58
#define ABI_PR_SET_MDWE	      65
#define ABI_PR_GET_MDWE	      66

/* arch_prctl(2) of x86, Linux 4.12 */
#define ABI_ARCH_MAP_VDSO_32 0x2002
#define ABI_ARCH_GET_CPUID   0x1011
#define ABI_ARCH_SET_CPUID   0x1012

/* Linux 6.4: syscall user dispatch of a tracee */
#define ABI_PTRACE_SET_DISPATCH 0x4210
#define ABI_PTRACE_GET_DISPATCH 0x4211
struct abi_dispatch_config {
	uint64_t mode, selector, offset, len;
};

/* Linux 6.16: timer_create(2) takes the id that it finds at its third argument */
#define ABI_PR_TIMER_CREATE_RESTORE_IDS 77

#define PF_KTHREAD 0x00200000

/* Linux 6.7: PAGEMAP_SCAN, Documentation/admin-guide/mm/pagemap.rst */
struct abi_pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

struct abi_page_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

#define ABI_PAGEMAP_SCAN       _IOWR('f', 16, struct abi_pm_scan_arg)
#define ABI_PAGE_IS_WPALLOWED  (1u << 0)
#define ABI_PAGE_IS_WRITTEN    (1u << 1)
#define ABI_PAGE_IS_FILE       (1u << 2)
#define ABI_PAGE_IS_PRESENT    (1u << 3)
#define ABI_PAGE_IS_SWAPPED    (1u << 4)
#define ABI_PAGE_IS_PFNZERO    (1u << 5)
#define ABI_PAGE_IS_HUGE       (1u << 6)
#define ABI_PAGE_IS_SOFT_DIRTY (1u << 7)
#define ABI_PAGE_IS_GUARD      (1u << 8) /* 6.15 */

/* Entries of /proc/PID/pagemap: proc_pid_pagemap(5) */
#define ABI_PM_PRESENT	  (1ull << 63)
#define ABI_PM_SWAPPED	  (1ull << 62)
#define ABI_PM_FILE	  (1ull << 61)
#define ABI_PM_SOFT_DIRTY (1ull << 55)
#define ABI_PM_EXCLUSIVE  (1ull << 56)	     /* nobody else maps it */
#define ABI_PM_FRAME	  ((1ull << 55) - 1) /* 0 without CAP_SYS_ADMIN */

/* Of /proc/kpageflags. */
#define ABI_KPF_ZERO_PAGE (1ull << 24)

/* Linux 5.14 */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Linux 6.1 */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Linux 6.13 */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

/* Linux 6.11: a type of mapping, like MAP_PRIVATE */
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

/* Linux 6.2, 6.17 */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef TUN_F_UDP_TUNNEL_GSO
#define TUN_F_UDP_TUNNEL_GSO	  0x080
#define TUN_F_UDP_TUNNEL_GSO_CSUM 0x100
#endif

/* Linux 6.4 */
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

/* Linux 5.17 */
#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

#endif
