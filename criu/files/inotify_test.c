/* SPDX-License-Identifier: GPL-2.0-only */
/* Inotify and fanotify, dumped and made again (files/inotify.c, fanotify.c). */
#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/own.h"
#include "files/again_test.h"

#define FIRST_WD 3 /* not 1: numbers are not merely counted again */

struct watching {
	struct again again;
	int fd;
	int wd[2];
};

/* Two watches, below a directory in which paths are looked for if there are no handles. */
static void watch(struct watching *w)
{
	struct again *a = &w->again;

	again_begin(a);
	a->opts.irmap_scan_path.item[a->opts.irmap_scan_path.n++] = test_path();
	w->fd = ASSERT_OK(inotify_init1(IN_NONBLOCK));
	ASSERT_OK(mkdir(again_path(a, "dir"), 0700));
	close(ASSERT_OK(open(again_path(a, "file"), O_CREAT | O_WRONLY, 0600)));
	for (int i = 1; i < FIRST_WD; i++)
		ASSERT_OK(inotify_rm_watch(w->fd, inotify_add_watch(w->fd, "/", IN_OPEN)));
	w->wd[0] = ASSERT_OK(inotify_add_watch(w->fd, again_path(a, "dir"), IN_CREATE));
	w->wd[1] =
		ASSERT_OK(inotify_add_watch(w->fd, again_path(a, "file"), IN_MODIFY | IN_ONESHOT));
	char events[256];
	ASSERT(read(w->fd, events, sizeof(events)) > 0); /* of the watches that are gone */
	again_add(a, w->fd);
}

TEST(inotify, watches_have_their_numbers_and_events_again)
{
	struct watching w;
	struct {
		struct inotify_event event;
		char name[64];
	} got;

	watch(&w);
	again_cycle(&w.again);
	ASSERT_EQ(w.wd[0], FIRST_WD);
	int fd = again_fd(&w.again, w.fd);
	ASSERT(read(fd, &got, sizeof(got)) < 0 && errno == EAGAIN);
	close(ASSERT_OK(open(again_path(&w.again, "dir/new"), O_CREAT | O_WRONLY, 0600)));
	ASSERT(read(fd, &got, sizeof(got)) > 0);
	ASSERT_EQ(got.event.wd, w.wd[0]);
	ASSERT_EQ(got.event.mask, IN_CREATE);
	ASSERT_STR(got.name, "new");
	int file = ASSERT_OK(open(again_path(&w.again, "file"), O_WRONLY));
	ASSERT_EQ(write(file, "x", 1), 1);
	ASSERT(read(fd, &got, sizeof(got.event)) > 0);
	ASSERT_EQ(got.event.wd, w.wd[1]);
	ASSERT_EQ(got.event.mask, IN_MODIFY);
	/* What comes next is numbered behind them. */
	ASSERT_EQ(inotify_add_watch(fd, "/", IN_CREATE), FIRST_WD + 2);
	again_end(&w.again);
}

TEST(inotify, what_the_restore_does_is_no_event)
{
	struct watching w;
	char events[256];

	watch(&w);
	again_cycle(&w.again);
	close(ASSERT_OK(open(again_path(&w.again, "dir/made"), O_CREAT | O_WRONLY, 0600)));
	watches_drain(&w.again.restore);
	ASSERT(read(again_fd(&w.again, w.fd), events, sizeof(events)) < 0 && errno == EAGAIN);
	again_end(&w.again);
}

TEST(inotify, a_watched_file_that_was_deleted_prevents_the_dump)
{
	struct again a;

	again_begin(&a);
	int fd = ASSERT_OK(inotify_init1(0));
	int file = ASSERT_OK(open(again_path(&a, "file"), O_CREAT | O_WRONLY, 0600));
	ASSERT_OK(inotify_add_watch(fd, again_path(&a, "file"), IN_MODIFY));
	ASSERT_OK(unlink(again_path(&a, "file"))); /* it is there as long as it is open */
	again_add(&a, fd);
	again_collect(&a);
	ASSERT_EQ(a.dump.n_blockers, 1);
	ASSERT(strstr(a.dump.blockers[0], "no path leads to inode"));
	close(file);
	again_end(&a);
}

TEST(fanotify, marks_are_made_again)
{
	struct again a;
	struct fanotify_event_metadata event;

	again_begin(&a);
	a.opts.irmap_scan_path.item[a.opts.irmap_scan_path.n++] = test_path();
	int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY);
	if (fd < 0)
		test_skip("no fanotify");
	close(ASSERT_OK(open(again_path(&a, "file"), O_CREAT | O_WRONLY, 0600)));
	ASSERT_OK(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, again_path(&a, "file")));
	again_add(&a, fd);
	again_cycle(&a);
	int new = again_fd(&a, fd);
	ASSERT(read(new, &event, sizeof(event)) < 0 && errno == EAGAIN);
	int file = ASSERT_OK(open(again_path(&a, "file"), O_WRONLY));
	ASSERT_EQ(write(file, "x", 1), 1);
	ASSERT_EQ(read(new, &event, sizeof(event)), sizeof(event));
	ASSERT_EQ(event.mask, FAN_MODIFY);
	again_end(&a);
}

TEST(fanotify, a_group_that_is_asked_for_permission_prevents_the_dump)
{
	struct again a;

	again_begin(&a);
	int fd = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
	if (fd < 0)
		test_skip("no fanotify");
	again_add(&a, fd);
	again_collect(&a);
	ASSERT_EQ(a.dump.n_blockers, 1);
	ASSERT(strstr(a.dump.blockers[0], "it is asked for permission to open files"));
	again_end(&a);
}
