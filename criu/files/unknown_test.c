/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/own.h"
#include "base/test.h"
#include "files/unknown.h"

static const struct {
	const char *link;
	mode_t mode;
	int domain; /* of a socket; 0: none */
	const char *text;
} files[] = {
	{ "anon_inode:[io_uring]", 0600, 0, "UV_USE_IO_URING=0 for node" },
	{ "anon_inode:[userfaultfd]", 0600, 0, "have the program close it first" },
	{ "anon_inode:[of the future]", 0600, 0, "a kind of file that is not known here, which" },
	{ "/dev/other", S_IFCHR, 0, "a device with state of its own" },
	{ "/dev/another", S_IFCHR, 0, "give --external file[1a:ff]" },
	{ "/queue", S_IFREG, 0, "a message queue of POSIX; it cannot be dumped: have the program" },
	{ "socket:[255]", S_IFSOCK, AF_INET, "an internet socket, which cannot be dumped" },
	{ "socket:[255]", S_IFSOCK, AF_NETLINK, "it is a netlink socket, which" },
	{ "socket:[255]", S_IFSOCK, 0, "a socket of a family that is not known here" },
};

TEST(unknown, files_are_refused_with_what_they_are_and_what_helps)
{
	static struct process process = { .pid = 714 };
	static struct dump_task task = { .process = &process };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct dump d = { 0 };
		int domain = files[i].domain;
		autoclose int fd = domain ? ASSERT_OK(socket(domain, SOCK_DGRAM, 0)) : -1;
		struct fd_probe p = {
			.task = &task,
			.fd = 3,
			.copy = fd,
			.st = { .st_mode = files[i].mode, .st_ino = 0xff },
			.info.mnt_id = 0x1a,
		};

		snprintf(p.link, sizeof(p.link), "%s", files[i].link);
		unknown_block(&d, &p);
		ASSERT_EQ(d.n_blockers, 1);
		ASSERT(strstr(d.blockers[0], "pid 714 fd 3: "));
		ASSERT(strstr(d.blockers[0], files[i].text));
		arena_done(&d.arena);
	}
}
