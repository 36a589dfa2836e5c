/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/tracking.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/features.h"
#include "proc/text.h"

#define RECORDS	    "/run/criu-tracking"
#define ID_MAX	    64
#define RECORD_MAX  256
#define CLEAR_DIRTY "4" /* to clear_refs */

/*
 * A process is known by its pid namespace and its pid there: that is the same from wherever criu
 * looks at it.
 */
static int record_name(const struct dump_task *t, char *name, size_t size)
{
	char ns[64];
	autofree char *status = NULL;
	const char *last = NULL;
	uint64_t pid;

	int rc = read_link_at(t->process->proc_fd, "ns/pid", ns, sizeof(ns));
	if (rc >= 0)
		rc = read_file_at(t->process->proc_fd, "status", &status);
	if (rc < 0)
		return rc;
	for (char *line = status, *next; line && !last; line = next) {
		next = text_cut_line(line);
		last = text_field(line, "NSpid");
	}
	if (last && strrchr(last, '\t'))
		last = strrchr(last, '\t') + 1;
	if (!last || !text_dec(last, &pid))
		return -EPROTO;
	return snprintf(name, size, "%s-%lu", ns, (long)pid) < (int)size ? 0 : -ENAMETOOLONG;
}

static int random_file(const char *file, char id[ID_MAX])
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/sys/kernel/random/%s", file);
	ssize_t len = read_small_at(AT_FDCWD, path, id, ID_MAX);
	if (len > 0 && id[len - 1] == '\n')
		id[--len] = '\0';
	return len > 0 ? 0 : -EIO;
}

/* What a record says: the process, in this run of the kernel, and the run of criu. */
static int record_text(const struct dump_task *t, const char *run_id, char *text, size_t size)
{
	char boot[ID_MAX];
	int rc = random_file("boot_id", boot);

	if (rc < 0)
		return rc;
	return snprintf(text, size, "boot %s start %lu run %s\n", boot,
			(long)t->process->stat.start_time, run_id);
}

/* Whoever may write there could have memory taken from older images than it was in. */
static int open_records(void)
{
	struct stat st;

	if (mkdir(RECORDS, 0700) < 0 && errno != EEXIST)
		return -errno;
	autoclose int dir = open(RECORDS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || fstat(dir, &st) < 0)
		return -errno;
	return st.st_uid == geteuid() && !(st.st_mode & 022) ? take_fd(&dir) : -EPERM;
}

static int write_record(int dir, const struct dump_task *t, const char *run_id)
{
	char name[128], text[RECORD_MAX];
	int rc = record_name(t, name, sizeof(name));
	int len = rc < 0 ? rc : record_text(t, run_id, text, sizeof(text));

	if (len < 0)
		return len;
	autoclose int fd =
		openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : write_all(fd, text, len);
}

static int clear_bits(const struct dump_task *t)
{
	autoclose int fd = openat(t->process->proc_fd, "clear_refs", O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : write_all(fd, CLEAR_DIRTY, strlen(CLEAR_DIRTY));
}

/*
 * The record comes first: should criu be killed between the two, it names a run that has no images,
 * and bits that are cleared without a record would be taken for those of an older run.
 */
static int begin_one(int dir, const struct dump_task *t, const char *run_id)
{
	int rc = write_record(dir, t, run_id);

	return rc < 0 ? rc : clear_bits(t);
}

void tracking_begin(struct dump *d)
{
	char id[ID_MAX];
	int rc = kernel_probe("soft-dirty");

	if (rc < 0) {
		info("the kernel does not note which pages are written (CONFIG_MEM_SOFT_DIRTY): "
		     "the "
		     "next dump compares memory with these images");
		return;
	}
	autoclose int dir = open_records();
	rc = dir < 0 ? dir : random_file("uuid", id);
	for (size_t i = 0; i < d->n_tasks && rc >= 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = begin_one(dir, &d->tasks[i], id);
	if (rc < 0)
		warn("directory " RECORDS ": what the tree writes cannot be kept track of: %s; the "
		     "next dump compares memory with these images",
		     strerror(-rc));
	else
		d->run_id = arena_strdup(&d->arena, id);
}

bool tracking_holds(const struct dump_task *t, const char *run_id)
{
	char name[128], expected[RECORD_MAX], text[RECORD_MAX];
	autoclose int dir = open_records();

	return run_id && dir >= 0 && kernel_probe("soft-dirty") == 0 &&
	       record_name(t, name, sizeof(name)) == 0 &&
	       record_text(t, run_id, expected, sizeof(expected)) > 0 &&
	       read_small_at(dir, name, text, sizeof(text)) > 0 && !strcmp(text, expected);
}

void tracking_forget(const struct dump_task *t)
{
	char name[128];
	autoclose int dir = open(RECORDS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir >= 0 && record_name(t, name, sizeof(name)) == 0)
		(void)unlinkat(dir, name, 0);
}
