/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/watch.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/own.h"
#include "base/test.h"

#define INOTIFY_LINE                                                                               \
	"wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 "    \
	"f_handle:7e9e0000640d1b6d"

TEST(watch, numbers_are_found_by_their_names)
{
	uint64_t n;

	ASSERT(watch_hex(INOTIFY_LINE, " ino:", &n));
	ASSERT_EQ(n, 0x9e7e);
	ASSERT(watch_hex(INOTIFY_LINE, " mask:", &n));
	ASSERT_EQ(n, 0x800afce);
	ASSERT(watch_hex(INOTIFY_LINE, "ignored_mask:", &n));
	ASSERT_EQ(n, 0);
	ASSERT(!watch_hex(INOTIFY_LINE, "mnt_id:", &n));
	ASSERT(!watch_hex("wd:", "wd:", &n));
	ASSERT(!watch_hex("wd:x", "wd:", &n));
}

TEST(watch, lines_of_a_kind_come_one_after_the_other)
{
	static char lines[] = "pos:\t0\0inotify wd:1 a\0inotifyx wd:9\0inotify wd:2 b\0tfd: 3";
	const struct fd_probe p = { .lines = lines, .lines_size = sizeof(lines) - 1 };
	const char *line = watch_next(&p, "inotify", NULL);

	ASSERT_STR(line, "wd:1 a");
	line = watch_next(&p, "inotify", line);
	ASSERT_STR(line, "wd:2 b");
	ASSERT(!watch_next(&p, "inotify", line));
	ASSERT(!watch_next(&p, "fanotify", NULL));
	ASSERT(!watch_next(&(struct fd_probe){ 0 }, "inotify", NULL));
}

TEST(watch, a_handle_is_bytes_in_their_order)
{
	static const uint8_t bytes[] = { 0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6d };
	struct dump d = { 0 };
	const FhEntry *e = watch_handle(&d, INOTIFY_LINE);

	ASSERT_EQ(e->bytes, 8);
	ASSERT_EQ(e->type, 1);
	ASSERT_EQ(e->n_handle, 16);
	ASSERT(!memcmp(e->handle, bytes, sizeof(bytes)));
	ASSERT_EQ(e->handle[1], 0);
	arena_done(&d.arena);
}

static const char *const no_handles[] = {
	"wd:1 ino:1 sdev:1",
	"fhandle-bytes:1 fhandle-type:1",
	"fhandle-type:1 f_handle:00",
	"fhandle-bytes:1 f_handle:00",
	"fhandle-bytes:2 fhandle-type:1 f_handle:00", /* too short */
	"fhandle-bytes:1 fhandle-type:1 f_handle:0",
	"fhandle-bytes:1 fhandle-type:1 f_handle:0g",
	"fhandle-bytes:1 fhandle-type:1 f_handle:A0",
	"fhandle-bytes:81 fhandle-type:1 f_handle:00", /* more than the kernel has */
};

TEST(watch, a_line_without_a_whole_handle_has_none)
{
	struct dump d = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(no_handles); i++)
		ASSERT_EQ(watch_handle(&d, no_handles[i])->bytes, 0);
	arena_done(&d.arena);
}

TEST(watch, a_handle_may_be_as_long_as_the_kernel_allows)
{
	char line[64 + 256 + 1] = "fhandle-bytes:80 fhandle-type:1 f_handle:";
	struct dump d = { 0 };

	memset(line + strlen(line), 'f', 256);
	const FhEntry *e = watch_handle(&d, line);
	ASSERT_EQ(e->bytes, 128);
	ASSERT_EQ(e->handle[15], ~0ull);
	arena_done(&d.arena);
}

TEST(watch, the_number_of_a_device_is_the_kernels_own)
{
	ASSERT_EQ(watch_device(0x800013), makedev(8, 0x13));
	ASSERT_EQ(watch_device(0xfffff), makedev(0, 0xfffff));
	ASSERT_EQ(watch_device(0xfff00000), makedev(0xfff, 0));
}

TEST(watch, only_what_has_an_absolute_path_can_be_watched_again)
{
	FhEntry e = FH_ENTRY__INIT;

	ASSERT_REFUSED(watch_check("inotify", 0x12, NULL), "inotify 0x12: a watch has no path");
	ASSERT_REFUSED(watch_check("inotify", 0x12, &e), "inotify 0x12: a watch has no path");
	e.path = (char *)"relative";
	ASSERT_REFUSED(watch_check("fanotify", 1, &e), "fanotify 0x1: a watch has no path");
	e.path = (char *)"/tmp";
	ASSERT_OK(watch_check("inotify", 1, &e));
}

struct watched {
	char path[64];
	uint64_t sdev, ino;
};

/* A file that an inotify of ours watches, and what fdinfo says of it. */
static void watch_file(struct watched *w)
{
	char info[64];
	autofree char *text = NULL;
	size_t size = 0;

	snprintf(w->path, sizeof(w->path), "%s/sub", test_path());
	ASSERT_OK(mkdir(w->path, 0700));
	strcat(w->path, "/file");
	close(ASSERT_OK(open(w->path, O_CREAT | O_WRONLY, 0600)));
	int fd = ASSERT_OK(inotify_init1(0));
	ASSERT_OK(inotify_add_watch(fd, w->path, IN_MODIFY));
	snprintf(info, sizeof(info), "/proc/self/fdinfo/%d", fd);
	FILE *f = fopen(info, "r");
	while (f && getline(&text, &size, f) > 0 && !strstr(text, "inotify wd:"))
		;
	ASSERT(f && watch_hex(text, " ino:", &w->ino) && watch_hex(text, "sdev:", &w->sdev));
	fclose(f);
}

TEST(irmap, a_path_is_found_below_the_directories_that_are_given)
{
	struct options o = { 0 };
	struct dump d = { .opts = &o };
	struct watched w;

	watch_file(&w);
	ASSERT(!irmap_find(&d, w.sdev, w.ino)); /* nobody has asked for a search */
	o.irmap_scan_path.item[o.irmap_scan_path.n++] = test_path();
	ASSERT_STR(irmap_find(&d, w.sdev, w.ino), w.path);
	ASSERT(!irmap_find(&d, w.sdev, ~0ull));
	ASSERT(!irmap_find(&d, w.sdev + 1, w.ino));
	arena_done(&d.arena);
}

TEST(watch, a_file_without_a_path_prevents_the_dump)
{
	struct options o = { 0 };
	struct dump d = { .opts = &o };
	struct watched w;
	FhEntry e = FH_ENTRY__INIT;

	watch_file(&w);
	watch_find_path(&d, "pid 1 fd 2", w.sdev, w.ino, &e);
	ASSERT_EQ(d.n_blockers, 1);
	ASSERT(strstr(d.blockers[0], "pid 1 fd 2: no path leads to inode"));
	ASSERT(!e.path);
	o.irmap_scan_path.item[o.irmap_scan_path.n++] = test_path();
	watch_find_path(&d, "pid 1 fd 2", w.sdev, w.ino, &e);
	ASSERT_EQ(d.n_blockers, 1);
	ASSERT_STR(e.path, w.path);
	arena_done(&d.arena);
}
