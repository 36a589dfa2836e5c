/* SPDX-License-Identifier: GPL-2.0-only */
/* Files of /proc/PID that are open while the process has ended: they keep their names and tell nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mk.h"

static struct {
	const char *name;
	int flags;
	int read;	/* bytes before the process ends */
	int fd;
	char link[64];
} files[] = {
	{ "stat", O_RDONLY, 0 },
	{ "status", O_RDONLY | O_NONBLOCK, 10 },
	{ "maps", O_RDONLY, 20 },
	{ "comm", O_RDWR, 0 },
	{ "", O_RDONLY | O_DIRECTORY, 0 },
	{ "cmdline", O_PATH, 0 },
};

/* As the kernel tells it: lseek would ask the process. */
static long position(int fd)
{
	char path[32], line[64];
	long pos = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	read_line(path, line, sizeof(line));
	sscanf(line, "pos: %ld", &pos);
	return pos;
}

/* Two of them: their numbers differ. */
static void open_all(pid_t pid, size_t from, size_t to)
{
	char buf[32];

	for (size_t i = from; i < to; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/%s", pid, files[i].name);
		files[i].fd = open(path, files[i].flags);
		if (files[i].fd < 0)
			die("%s: %s", path, strerror(errno));
		if (read(files[i].fd, buf, files[i].read) != files[i].read && files[i].read)
			die("read %s: %s", path, strerror(errno));
	}
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) != pid)
		die("wait: %s", strerror(errno));
	for (size_t i = from; i < to; i++)
		fd_name(files[i].fd, files[i].link, sizeof(files[i].link));
}

static pid_t start(void)
{
	pid_t pid = fork();

	if (!pid)
		for (;;)
			pause();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	return pid;
}

static void make(void)
{
	pid_t first = start(), second = start();

	open_all(first, 0, 4);
	open_all(second, 4, ARRAY_SIZE(files));
}

static void check(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char link[64], byte;

		fd_name(files[i].fd, link, sizeof(link));
		same_str("name", files[i].link, link);
		same_long("flags", files[i].flags & (O_ACCMODE | O_NONBLOCK | O_PATH),
			  fcntl(files[i].fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_PATH));
		if (files[i].flags & (O_PATH | O_DIRECTORY))
			continue;
		same_long("position", files[i].read, position(files[i].fd));
		if (!strcmp(files[i].name, "maps"))
			continue;	/* who has ended has no mappings: an empty file */
		same_long("read", -1, pread(files[i].fd, &byte, 1, 0));
		same_long("error", ESRCH, errno);
	}
}

struct factory deadfiles_factory = {
	.name	= "deadfiles",
	.about	= "files of processes that have ended",
	.make	= make,
	.check	= check,
};
