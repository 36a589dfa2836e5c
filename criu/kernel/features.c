/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Probes of kernel features. Each tries the thing itself, on this process or a child of its own,
 * and leaves nothing behind. Commands do not run them up front: they try what they need when
 * they need it; this table is for `criu check`.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <linux/kcmp.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "kernel/features.h"
#include "proc/maps.h"
#include "proc/task.h"

static int errno_of(long rc)
{
	return rc < 0 ? -errno : 0;
}

/* Choosing pid 1 cannot succeed; how it fails tells whether we might choose at all. */
static int probe_set_tid(void)
{
	pid_t pid = 1;
	struct clone_args args = { .exit_signal = SIGCHLD,
				   .set_tid = (uint64_t)&pid,
				   .set_tid_size = 1 };

	long rc = syscall(SYS_clone3, &args, sizeof(args));
	if (rc == 0)
		_exit(0);
	return errno == EEXIST ? 0 : -errno;
}

/* Runs a ptrace question on a child that does nothing. */
static int with_tracee(long options, int (*ask)(pid_t pid))
{
	int status, rc;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		for (;;)
			pause();
	}
	rc = errno_of(ptrace(PTRACE_SEIZE, pid, NULL, options));
	if (rc == 0)
		rc = errno_of(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
	if (rc == 0 && waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status) && ask)
		rc = ask(pid);
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, &status, __WALL);
	return rc;
}

static int probe_seize(void)
{
	return with_tracee(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL, NULL);
}

static int probe_suspend_seccomp(void)
{
	return with_tracee(PTRACE_O_SUSPEND_SECCOMP, NULL);
}

static int ask_rseq(pid_t pid)
{
	struct abi_rseq_configuration conf;

	return errno_of(ptrace(ABI_PTRACE_GET_RSEQ_CONFIGURATION, pid, sizeof(conf), &conf));
}

static int probe_rseq_configuration(void)
{
	return with_tracee(0, ask_rseq);
}

static int probe_kcmp(void)
{
	pid_t pid = getpid();

	return errno_of(syscall(SYS_kcmp, pid, pid, KCMP_VM, 0, 0));
}

/* A new one, in which the id of the next object can be chosen. */
static int enter_ipc_namespace(void)
{
	if (unshare(CLONE_NEWIPC) < 0)
		return -errno;
	autoclose int fd = open("/proc/sys/kernel/shm_next_id", O_WRONLY | O_CLOEXEC);
	return errno_of(fd);
}

static int probe_ipc_namespace(void)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(-enter_ipc_namespace());
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

static int probe_map_files(void)
{
	autoclose int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct arena a = { 0 };
	struct maps maps = { 0 };
	int rc = self < 0 ? -errno : maps_read(self, "maps", &a, &maps);

	for (size_t i = 0; rc == 0 && i < maps.n; i++) {
		char path[64];

		if (!maps.m[i].ino)
			continue;
		snprintf(path, sizeof(path), "map_files/%lx-%lx", (long)maps.m[i].start,
			 (long)maps.m[i].end);
		autoclose int fd = openat(self, path, O_RDONLY | O_CLOEXEC);
		rc = errno_of(fd);
		break;
	}
	arena_done(&a);
	return rc;
}

static int probe_children(void)
{
	return access("/proc/thread-self/children", R_OK) < 0 ? -errno : 0;
}

static int probe_mm_map(void)
{
	unsigned size;

	return errno_of(prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0));
}

static int probe_tid_address(void)
{
	int *address;

	return errno_of(prctl(PR_GET_TID_ADDRESS, &address, 0, 0, 0));
}

static int probe_close_range(void)
{
	return errno_of(syscall(SYS_close_range, ~0u, ~0u, 0));
}

static int probe_vm_writev(void)
{
	char from = 1, to = 0;
	struct iovec local = { &from, 1 }, remote = { &to, 1 };

	return process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == 1 ? 0 : -errno;
}

static int probe_pidfd_getfd(void)
{
	autoclose int pidfd = syscall(SYS_pidfd_open, getpid(), 0);

	if (pidfd < 0)
		return -errno;
	autoclose int copy = syscall(SYS_pidfd_getfd, pidfd, pidfd, 0);
	return errno_of(copy);
}

static int probe_userfaultfd(void)
{
	autoclose int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API };

	return fd < 0 ? -errno : errno_of(ioctl(fd, UFFDIO_API, &api));
}

static int probe_pagemap_scan(void)
{
	autoclose int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct abi_page_region region;
	struct abi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.end = 4096,
		.vec = (uint64_t)&region,
		.vec_len = 1,
		.category_anyof_mask = ABI_PAGE_IS_PRESENT,
		.return_mask = ABI_PAGE_IS_PRESENT,
	};

	return fd < 0 ? -errno : errno_of(ioctl(fd, ABI_PAGEMAP_SCAN, &arg));
}

/* A page that was just written is soft-dirty where the kernel keeps track. */
static int probe_soft_dirty(void)
{
	autoclose int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	volatile char *page =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t entry = 0;

	if (fd < 0 || page == MAP_FAILED)
		return -errno;
	*page = 1;
	int rc = pread_all(fd, &entry, sizeof(entry), (uint64_t)page / 4096 * sizeof(entry));
	(void)munmap((void *)page, 4096);
	return rc < 0 ? rc : entry >> 55 & 1 ? 0 : -EOPNOTSUPP;
}

/* 2: only tell. */
static int probe_timer_ids(void)
{
	return errno_of(prctl(ABI_PR_TIMER_CREATE_RESTORE_IDS, 2, 0, 0, 0));
}

static int probe_sys_resource(void)
{
	autoclose int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct arena a = { 0 };
	struct proc_status status = { 0 };
	int rc = self < 0 ? -errno : proc_status_read(self, &a, &status);

	arena_done(&a);
	return rc < 0 ? rc : status.cap[CAP_SET_EFF] >> CAP_SYS_RESOURCE & 1 ? 0 : -EPERM;
}

static int probe_tun(void)
{
	autoclose int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	unsigned features;

	return fd < 0 ? -errno : errno_of(ioctl(fd, TUNGETFEATURES, &features));
}

/* clang-format off */
const struct kernel_feature kernel_features[] = {
	{ "ptrace-seize",	  true,	 "no process can be stopped (ptrace(2))", probe_seize },
	{ "clone3-set-tid",	  true,	 "no task can get its pid back (Linux 5.5, CAP_CHECKPOINT_RESTORE)", probe_set_tid },
	{ "kcmp",		  true,	 "what tasks share cannot be told (CONFIG_KCMP)", probe_kcmp },
	{ "map-files",		  true,	 "mapped files cannot be looked at (CAP_CHECKPOINT_RESTORE)", probe_map_files },
	{ "children",		  true,	 "children cannot be found (CONFIG_PROC_CHILDREN)", probe_children },
	{ "mm-map",		  true,	 "the executable link cannot be restored (CONFIG_CHECKPOINT_RESTORE)", probe_mm_map },
	{ "tid-address",	  true,	 "clear_child_tid cannot be read (CONFIG_CHECKPOINT_RESTORE)", probe_tid_address },
	{ "close-range",	  true,	 "restored tasks cannot be rid of descriptors (Linux 5.9)", probe_close_range },
	{ "process-vm-writev",	  true,	 "memory cannot be filled (CONFIG_CROSS_MEMORY_ATTACH)", probe_vm_writev },
	{ "rseq-configuration",	  false, "tasks that use restartable sequences lose them (Linux 5.13)", probe_rseq_configuration },
	{ "seccomp-suspend",	  false, "tasks under seccomp cannot be dumped or restored", probe_suspend_seccomp },
	{ "timer-ids",		  false, "ids of POSIX timers are reached by counting, high ones not at all (Linux 6.16)", probe_timer_ids },
	{ "pidfd-getfd",	  false, "owners of files (F_SETOWN) are not noticed, large memory is filled slower (Linux 5.6)", probe_pidfd_getfd },
	{ "ipc-namespace",	  false, "no IPC namespace of a tree can be restored (CONFIG_IPC_NS, CONFIG_CHECKPOINT_RESTORE, CAP_SYS_ADMIN)", probe_ipc_namespace },
	{ "userfaultfd",	  false, "large memory is filled slower (CONFIG_USERFAULTFD)", probe_userfaultfd },
	{ "pagemap-scan",	  false, "pages are found slower (Linux 6.7)", probe_pagemap_scan },
	{ "soft-dirty",		  false, "incremental dumps compare memory with the images before (CONFIG_MEM_SOFT_DIRTY)", probe_soft_dirty },
	{ "tun",		  false, "descriptors of /dev/net/tun cannot be restored (CONFIG_TUN)", probe_tun },
	{ "sys-resource",	  false, "lowered limits cannot be raised again at restore (CAP_SYS_RESOURCE)", probe_sys_resource },
};
/* clang-format on */

const size_t n_kernel_features = ARRAY_SIZE(kernel_features);

int kernel_probe(const char *name)
{
	for (size_t i = 0; i < n_kernel_features; i++)
		if (!strcmp(kernel_features[i].name, name))
			return kernel_features[i].probe();
	return -ENOENT;
}
