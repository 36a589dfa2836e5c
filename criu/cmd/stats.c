/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "cmd/stats.h"

/* The work directory is the current one. Its files are not part of the dump. */
static int write_to_work_dir(const char *name, const StatsEntry *e)
{
	static const uint32_t magics[] = { 0x55105940, 0x57093306 };
	size_t size = stats_entry__get_packed_size(e);
	uint8_t buf[256];
	uint32_t len = size;

	if (size > sizeof(buf))
		return refuse(EINVAL, "%s: statistics do not fit", name);
	autoclose int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return fail(errno, "%s: create in the work directory", name);
	stats_entry__pack(e, buf);
	int rc = write_all(fd, magics, sizeof(magics));
	if (rc == 0)
		rc = write_all(fd, &len, sizeof(len));
	if (rc == 0)
		rc = write_all(fd, buf, size);
	return rc < 0 ? fail(-rc, "%s: write", name) : 0;
}

int stats_write_dump(struct dump *d)
{
	const struct dump_stats *s = &d->stats;
	StatsEntry e = STATS_ENTRY__INIT;
	DumpStatsEntry dump = DUMP_STATS_ENTRY__INIT;

	dump.freezing_time = s->freezing_us;
	dump.frozen_time = s->frozen_us;
	dump.memdump_time = s->memdump_us;
	dump.memwrite_time = s->memwrite_us;
	dump.pages_scanned = s->pages_scanned;
	dump.pages_written = s->pages_written;
	dump.pages_skipped_parent = s->pages_shared;
	e.dump = &dump;
	if (d->opts->display_stats) {
		message("Displaying dump stats:");
		message("Freezing time: %u us", dump.freezing_time);
		message("Frozen time: %u us", dump.frozen_time);
		message("Memory dump time: %u us", dump.memdump_time);
		message("Memory write time: %u us", dump.memwrite_time);
		message("Memory pages scanned: %lu", (unsigned long)dump.pages_scanned);
		message("Memory pages skipped from parent: %lu",
			(unsigned long)dump.pages_skipped_parent);
		message("Memory pages written: %lu", (unsigned long)dump.pages_written);
	}
	return write_to_work_dir("stats-dump", &e);
}

int stats_write_restore(struct restore *r)
{
	const struct restore_stats *s = &r->stats;
	StatsEntry e = STATS_ENTRY__INIT;
	RestoreStatsEntry restore = RESTORE_STATS_ENTRY__INIT;

	restore.forking_time = s->forking_us;
	restore.restore_time = s->restore_us;
	restore.has_pages_restored = true;
	restore.pages_restored = s->pages_restored;
	e.restore = &restore;
	if (r->opts->display_stats) {
		message("Displaying restore stats:");
		message("Forking time: %u us", restore.forking_time);
		message("Restore time: %u us", restore.restore_time);
		message("Pages restored: %lu", (unsigned long)restore.pages_restored);
	}
	return write_to_work_dir("stats-restore", &e);
}

int pidfile_write(const char *path, int pid)
{
	char text[16];
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return fail(errno, "pidfile %s: create (it may not exist yet)", path);
	int rc = write_all(fd, text, snprintf(text, sizeof(text), "%d", pid));
	if (rc == 0)
		return 0;
	(void)unlink(path);
	return fail(-rc, "pidfile %s: write", path);
}

void status_tell_ready(const struct options *o)
{
	if (o->status_fd < 0)
		return;
	if (write(o->status_fd, "", 1) != 1)
		warn("status descriptor %d: write: %s", o->status_fd, strerror(errno));
	(void)close(o->status_fd);
}
