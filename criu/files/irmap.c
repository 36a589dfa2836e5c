/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From an inode to a path, by looking at every file below some directories: for what inotify and
 * fanotify watch on file systems that have no file handles.
 *
 * stat(2) and fdinfo disagree about devices and inodes on overlayfs. So the kernel itself is
 * asked: criu watches a candidate for a moment, and compares what fdinfo says of both.
 */
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/watch.h"

static bool is_watched_as(int fd, uint32_t sdev, uint64_t ino)
{
	autofree char *text = NULL;
	char path[64];
	uint64_t now_ino, now_sdev;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	if (read_file_at(AT_FDCWD, path, &text) < 0)
		return false;
	const char *line = strstr(text, "inotify wd:");
	return line && watch_hex(line, " ino:", &now_ino) && watch_hex(line, "sdev:", &now_sdev) &&
	       now_ino == ino && now_sdev == sdev;
}

static bool is_it(int fd, const char *path, uint32_t sdev, uint64_t ino)
{
	int wd = inotify_add_watch(fd, path, IN_DELETE_SELF | IN_DONT_FOLLOW);
	bool is = wd >= 0 && is_watched_as(fd, sdev, ino);

	if (wd >= 0)
		(void)inotify_rm_watch(fd, wd);
	return is;
}

const char *irmap_find(struct dump *d, uint32_t sdev, uint64_t ino)
{
	static const char *const everywhere[] = { "/", NULL };
	const char *roots[OPTION_LIST_MAX + 1] = { 0 };
	autoclose int fd = inotify_init1(IN_CLOEXEC);
	const char *found = NULL;
	FTSENT *e;

	memcpy(roots, d->opts->irmap_scan_path.item, d->opts->irmap_scan_path.n * sizeof(*roots));
	if (fd < 0 || (!roots[0] && !d->opts->force_irmap))
		return NULL;
	FTS *walk = fts_open((char *const *)(roots[0] ? roots : everywhere),
			     FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	while (walk && !found && (e = fts_read(walk))) {
		if (e->fts_info == FTS_DP || e->fts_info == FTS_NS || e->fts_info == FTS_ERR)
			continue;
		/* Elsewhere than on overlayfs the inode is the same in both. */
		if (e->fts_statp->st_ino != ino && e->fts_statp->st_dev == watch_device(sdev))
			continue;
		if (is_it(fd, e->fts_path, sdev, ino))
			found = arena_strdup(&d->arena, e->fts_path);
	}
	if (walk)
		(void)fts_close(walk);
	return found;
}
