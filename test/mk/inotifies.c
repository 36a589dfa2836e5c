/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * inotify: several instances with watches of a directory and of files, whose
 * numbers have gaps because others were removed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define MAX_EVENTS	8
#define TEXT		4096
#define IN_NAMES	(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)

static int first, second, lonely, first_dup;
/* Watches of the first instance, and of the second one. */
static int of_dir, of_a, of_b, of_sub, of_dir_too, of_a_too;
static int nr_made;
static char lines_first[TEXT], lines_second[TEXT], lines_lonely[TEXT];

struct event {
	int wd;
	uint32_t mask, cookie;
	char name[64];
};

static void touch(const char *name)
{
	int fd = need(name, open(dir_path(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));

	close(fd);
}

static int watch(int in, const char *name, uint32_t mask)
{
	return need(name, inotify_add_watch(in, dir_path(name), mask));
}

static long unread(int in)
{
	int n = -1;

	ioctl(in, FIONREAD, &n);
	return n;
}

/* All that wait; never sleeps. */
static int take_events(int in, struct event list[MAX_EVENTS])
{
	char buf[4096] __attribute__((aligned(8)));
	long n = unread(in) > 0 ? read(in, buf, sizeof(buf)) : 0, at = 0;
	int nr = 0;

	while (at < n && nr < MAX_EVENTS) {
		const struct inotify_event *e = (const void *)(buf + at);

		list[nr].wd = e->wd;
		list[nr].mask = e->mask;
		list[nr].cookie = e->cookie;
		snprintf(list[nr].name, sizeof(list[nr].name), "%s", e->len ? e->name : "");
		at += sizeof(*e) + e->len;
		nr++;
	}
	return nr;
}

static void drop(int in, const char *name, uint32_t mask)
{
	struct event ignored[MAX_EVENTS];

	need("inotify_rm_watch", inotify_rm_watch(in, watch(in, name, mask)));
	take_events(in, ignored);
}

static void make_files(void)
{
	touch("a");
	touch("b");
	touch("c");
	need("mkdir", mkdir(dir_path("sub"), 0755));
}

static void read_lines(char *of_first, char *of_second, char *of_lonely)
{
	fdinfo_lines(first, "inotify", NULL, of_first, TEXT);
	fdinfo_lines(second, "inotify", NULL, of_second, TEXT);
	fdinfo_lines(lonely, "inotify", NULL, of_lonely, TEXT);
}

static void make(void)
{
	make_files();
	first = remember_fd("inotify", inotify_init1(0));
	second = remember_fd("inotify without blocking", inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	lonely = remember_fd("inotify of nothing", inotify_init1(IN_NONBLOCK));
	first_dup = remember_fd("dup of an inotify", dup(first));
	drop(first, "c", IN_MODIFY);
	of_dir = watch(first, ".", IN_NAMES | IN_ONLYDIR);
	of_a = watch(first, "a", IN_MODIFY | IN_ATTRIB);
	drop(first, "c", IN_MODIFY);
	drop(first, "b", IN_MODIFY);
	of_b = watch(first, "b", IN_MODIFY | IN_EXCL_UNLINK);
	of_sub = watch(first, "sub", IN_CREATE | IN_ONESHOT);
	of_dir_too = watch(second, ".", IN_DELETE);
	drop(second, "c", IN_MODIFY);
	of_a_too = watch(second, "a", IN_MODIFY);
	drop(lonely, "c", IN_MODIFY);
	read_lines(lines_first, lines_second, lines_lonely);
	note_fds();
}

/* ---- check ---- */

static void check_lines(void)
{
	char of_first[TEXT], of_second[TEXT], of_lonely[TEXT];

	read_lines(of_first, of_second, of_lonely);
	same_str("watches", lines_first, of_first);
	same_str("watches of the second", lines_second, of_second);
	same_str("watches of none", lines_lonely, of_lonely);
}

static void same_event(const char *what, const struct event *e, int wd, uint32_t mask,
		       const char *name)
{
	char text[96];

	snprintf(text, sizeof(text), "%s: watch", what);
	same_long(text, wd, e->wd);
	snprintf(text, sizeof(text), "%s: mask", what);
	same_long(text, mask, e->mask);
	snprintf(text, sizeof(text), "%s: name", what);
	same_str(text, name, e->name);
}

static void check_names(void)
{
	struct event e[MAX_EVENTS];
	char name[32], moved[32];

	snprintf(name, sizeof(name), "new-%d", nr_made);
	snprintf(moved, sizeof(moved), "moved-%d", nr_made++);
	touch(name);
	if (rename(dir_path(name), dir_path(moved)) < 0 || unlink(dir_path(moved)) < 0)
		bad_errno("rename and unlink");
	if (same_long("events of names", 4, take_events(first, e))) {
		same_event("created", &e[0], of_dir, IN_CREATE, name);
		same_event("moved from", &e[1], of_dir, IN_MOVED_FROM, name);
		same_event("moved to", &e[2], of_dir, IN_MOVED_TO, moved);
		same_event("deleted", &e[3], of_dir, IN_DELETE, moved);
		same_long("cookies", e[1].cookie, e[2].cookie);
	}
	if (same_long("events of names, second", 1, take_events(second, e)))
		same_event("deleted, second", &e[0], of_dir_too, IN_DELETE, moved);
}

static void write_byte(const char *name)
{
	int fd = open(dir_path(name), O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) < 0)
		bad_errno(name);
}

static void check_files(void)
{
	struct event e[MAX_EVENTS];

	write_byte("a");
	write_byte("b");
	write_byte("c");
	if (chmod(dir_path("a"), 0600 + nr_made % 2) < 0)
		bad_errno("chmod");
	if (same_long("events of files", 3, take_events(first, e))) {
		same_event("a", &e[0], of_a, IN_MODIFY, "");
		same_event("b", &e[1], of_b, IN_MODIFY, "");
		same_event("mode of a", &e[2], of_a, IN_ATTRIB, "");
	}
	if (same_long("events of files, second", 1, take_events(second, e)))
		same_event("a, second", &e[0], of_a_too, IN_MODIFY, "");
}

/* The watch for one event goes with it; a new one takes its place, under a number never used. */
static void check_one_shot(void)
{
	struct event e[MAX_EVENTS];
	int before = of_sub;

	touch("sub/x");
	if (same_long("events of one shot", 2, take_events(first, e))) {
		same_event("one shot", &e[0], of_sub, IN_CREATE, "x");
		same_event("end of one shot", &e[1], of_sub, IN_IGNORED, "");
	}
	unlink(dir_path("sub/x"));
	of_sub = inotify_add_watch(first, dir_path("sub"), IN_CREATE | IN_ONESHOT);
	if (of_sub <= 0 || of_sub == of_dir || of_sub == of_a || of_sub == of_b)
		bad("new watch has number %d, the last one %d", of_sub, before);
	read_lines(lines_first, lines_second, lines_lonely);
}

static void check(void)
{
	check_fds();
	check_lines();
	same_long("bytes of events nobody made", 0, unread(first));
	same_long("bytes of events nobody made, second", 0, unread(second));
	check_names();
	check_files();
	check_one_shot();
	same_long("bytes of events of nothing", 0, unread(lonely));
	check_same_file("inotify", first, first_dup);
	check_other_file("inotify", second, lonely);
}

struct factory inotifies_factory = {
	.name	= "inotifies",
	.about	= "inotify: watches with gaps in their numbers",
	.params	= {
		{ "dir", NULL, "an empty directory" },
	},
	.make	= make,
	.check	= check,
};
