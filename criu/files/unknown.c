/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/own.h"
#include "files/external.h"
#include "files/unknown.h"
#include "sockets/sockets.h"

/* What the link in /proc starts with. Without advice another file may take its place. */
static const struct {
	const char *start, *what, *advice;
} kinds[] = {
	{ "anon_inode:[io_uring]",
	  "an io_uring, whose rings, registered files and requests on their way cannot be read",
	  "have the program close it first, or run it without (sysctl kernel.io_uring_disabled=2; "
	  "UV_USE_IO_URING=0 for node)" },
	{ "anon_inode:[userfaultfd]",
	  "a userfaultfd: the memory that it watches would wait for ever to be filled",
	  "have the program close it first" },
	{ "anon_inode:[perf_event]", "a performance counter, which cannot be set",
	  "end the profiler first" },
	{ "anon_inode:bpf-", "a bpf object in the kernel", "have the program close it first" },
	{ "anon_inode:bpf_", "a bpf object in the kernel", "have the program close it first" },
	{ "anon_inode:kvm", "a virtual machine of KVM",
	  "let the program that runs it save the machine" },
	{ "anon_inode:seccomp notify", "the listener of a seccomp filter: calls would wait for it",
	  "end the tasks that it supervises first" },
	{ "/dev/fuse", "the server of a FUSE file system, whose users would hang",
	  "unmount the file system first" },
	{ "/dev/kvm", "the device of virtual machines",
	  "let the program that runs them save them" },
	{ "/dev/dri/", "a graphics device with state of its own", NULL },
	{ "/dev/nvidia", "a graphics device with state of its own", NULL },
	{ "/dev/snd/", "a sound device with state of its own", NULL },
	{ "/dev/input/", "an input device, which cannot be read again from where it was", NULL },
};

static const struct {
	int domain;
	const char *what;
} sockets[] = {
	{ AF_INET, "an internet socket" },
	{ AF_INET6, "an internet socket (IPv6)" },
	{ AF_NETLINK, "a netlink socket" },
	{ AF_PACKET, "a packet socket" },
	{ AF_VSOCK, "a socket to a virtual machine or its host (vsock)" },
	{ AF_ALG, "a socket of the kernel's crypto interface" },
	{ AF_BLUETOOTH, "a Bluetooth socket" },
	{ AF_CAN, "a CAN socket" },
	{ AF_XDP, "an XDP socket" },
};

static const char *kind_of_socket(const struct fd_probe *p)
{
	int domain = socket_domain(p->copy);

	for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
		if (sockets[i].domain == domain)
			return sockets[i].what;
	return "a socket of a family that is not known here";
}

void unknown_block(struct dump *d, const struct fd_probe *p)
{
	const char *what = S_ISSOCK(p->st.st_mode)  ? kind_of_socket(p)
			   : S_ISCHR(p->st.st_mode) ? "a device with state of its own"
			   : S_ISBLK(p->st.st_mode) ? "a block device"
			   : S_ISREG(p->st.st_mode) ? "a message queue of POSIX"
						    : "a kind of file that is not known here";
	const char *advice = S_ISREG(p->st.st_mode) ? "have the program close it first" : NULL;
	char key[64];

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strncmp(p->link, kinds[i].start, strlen(kinds[i].start))) {
			what = kinds[i].what;
			advice = kinds[i].advice;
			break;
		}
	if (advice) {
		dump_block(d, "pid %d fd %d: %s: it is %s; it cannot be dumped: %s",
			   p->task->process->pid, p->fd, p->link, what, advice);
		return;
	}
	external_file_key(p, key, sizeof(key));
	dump_block(d,
		   "pid %d fd %d: %s: it is %s, which cannot be dumped by this version; to put "
		   "another one in its place at restore (--inherit-fd) give --external %s",
		   p->task->process->pid, p->fd, p->link, what, key);
}
