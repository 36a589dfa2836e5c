/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fanotify: groups with marks on a directory, on files and with an ignored
 * mask, and on the mount of the directory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define MAX_EVENTS	16
#define TEXT		4096

static int group, of_mount;
static char lines_group[TEXT], lines_mount[TEXT];

struct event {
	uint64_t mask;
	char path[256];
};

static void touch(const char *name)
{
	int fd = open(dir_path(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, "x", 1) != 1)
		bad_errno(name);
	close(fd);
}

static void mark(int fd, unsigned flags, uint64_t mask, const char *name)
{
	need(name, fanotify_mark(fd, FAN_MARK_ADD | flags, mask, AT_FDCWD, dir_path(name)));
}

/* All that wait and are about our own files; others work on the same mount. */
static int take_events(int fd, struct event list[MAX_EVENTS])
{
	char buf[4096] __attribute__((aligned(8))), link[32];
	struct fanotify_event_metadata *m;
	long n;
	int nr = 0;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (m = (void *)buf; FAN_EVENT_OK(m, n); m = FAN_EVENT_NEXT(m, n)) {
			char path[256];
			ssize_t len;

			snprintf(link, sizeof(link), "/proc/self/fd/%d", m->fd);
			len = readlink(link, path, sizeof(path) - 1);
			close(m->fd);
			path[len < 0 ? 0 : len] = '\0';
			if (nr == MAX_EVENTS || !strstr(path, "fanotified"))
				continue;
			list[nr].mask = m->mask;
			strcpy(list[nr++].path, path);
		}
	}
	return nr;
}

static void read_lines(char *of_group, char *of_the_mount)
{
	fdinfo_lines(group, "fanotify", NULL, of_group, TEXT);
	fdinfo_lines(of_mount, "fanotify", NULL, of_the_mount, TEXT);
}

static int new_group(const char *name, unsigned flags)
{
	int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | flags, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		skip("fanotify_init: %s", strerror(errno));
	return remember_fd(name, need("fanotify_init", fd));
}

static void make(void)
{
	struct event ignored[MAX_EVENTS];

	need("mkdir", mkdir(dir_path("fanotified"), 0755));
	touch("fanotified/a");
	touch("fanotified/b");
	group = new_group("fanotify", FAN_CLOEXEC);
	of_mount = new_group("fanotify of a mount", 0);
	mark(group, FAN_MARK_ONLYDIR, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, "fanotified");
	mark(group, 0, FAN_ACCESS, "fanotified/a");
	mark(group, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_CLOSE_WRITE, "fanotified/b");
	mark(of_mount, FAN_MARK_MOUNT, FAN_CLOSE_WRITE, "fanotified");
	take_events(group, ignored);
	read_lines(lines_group, lines_mount);
	note_fds();
}

/* ---- check ---- */

static void read_byte(const char *name)
{
	int fd = open(dir_path(name), O_RDONLY | O_CLOEXEC);
	char c;

	if (fd < 0 || read(fd, &c, 1) != 1)
		bad_errno(name);
	close(fd);
}

static void same_event(const char *what, const struct event *e, uint64_t mask, const char *name)
{
	const char *base = strrchr(e->path, '/');

	same_long(what, mask, e->mask);
	same_str(what, name, base ? base + 1 : e->path);
}

static void check(void)
{
	char of_group[TEXT], of_the_mount[TEXT];
	struct event e[MAX_EVENTS];

	check_fds();
	read_lines(of_group, of_the_mount);
	same_str("marks", lines_group, of_group);
	same_str("marks of the mount", lines_mount, of_the_mount);
	same_long("events of nothing", 0, take_events(group, e));
	take_events(of_mount, e);
	/* Events of one file that wait are merged into one: each is taken at once. */
	touch("fanotified/a");
	touch("fanotified/b");
	if (same_long("events of writing", 1, take_events(group, e)))
		same_event("written", &e[0], FAN_CLOSE_WRITE, "a");
	read_byte("fanotified/a");
	read_byte("fanotified/b");
	if (same_long("events of reading", 1, take_events(group, e)))
		same_event("read", &e[0], FAN_ACCESS, "a");
	if (same_long("events of the mount", 2, take_events(of_mount, e))) {
		same_event("written, mount", &e[0], FAN_CLOSE_WRITE, "a");
		same_event("written, mount", &e[1], FAN_CLOSE_WRITE, "b");
	}
}

struct factory fanotifies_factory = {
	.name	= "fanotifies",
	.about	= "fanotify: marks of inodes, ignored masks, and of a mount",
	.params	= {
		{ "dir", NULL, "an empty directory" },
	},
	.make	= make,
	.check	= check,
};
