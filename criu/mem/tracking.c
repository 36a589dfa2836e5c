/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/tracking.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "kernel/features.h"
#include "proc/text.h"

#define RECORDS	     "/run/criu-tracking"
#define ID_MAX	     64
#define RECORD_MAX   256
#define CLEAR_FILE   "/clear_refs"
#define CLEAR_DIRTY  "4"	      /* written to that */
#define TABLE_SIZE   (2ull << 20)     /* what one page table maps */
#define SAMPLED_SIZE (TABLE_SIZE / 8) /* one page of so much is looked at */

/* The end of the part, of such a size, that holds the address. */
static uint64_t end_of(uint64_t addr, uint64_t size)
{
	return (addr | (size - 1)) + 1;
}

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

/* How a record begins: the process, in this run of the kernel, and the run of criu. */
static int record_text(const struct dump_task *t, const char *run_id, char text[RECORD_MAX])
{
	char boot[ID_MAX];
	int rc = random_file("boot_id", boot);

	if (rc < 0)
		return rc;
	memset(text, 0, RECORD_MAX);
	(void)snprintf(text, RECORD_MAX, "boot %s start %lu run %s\n", boot,
		       (long)t->process->stat.start_time, run_id);
	return 0;
}

/* Whoever may write there could have memory taken from older images than it was in. */
static int open_records(void)
{
	struct stat st;
	autoclose int dir = open(RECORDS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || fstat(dir, &st) < 0)
		return -errno;
	return st.st_uid == geteuid() && !(st.st_mode & 022) ? take_fd(&dir) : -EPERM;
}

/*
 * The frame of a page that is a sample of its page table, or 0: nobody else may have that frame,
 * like a page of zeroes or one that was merged, and nobody may have written to the page since,
 * which could be in a frame that another page has left.
 */
static uint64_t frame_of(int fd, uint64_t addr, bool is_clean)
{
	uint64_t entry;

	if (pread_all(fd, &entry, sizeof(entry), addr / PAGE_SIZE_ * sizeof(entry)) < 0 ||
	    !(entry & ABI_PM_PRESENT) || !(entry & ABI_PM_EXCLUSIVE) ||
	    (is_clean && entry & ABI_PM_SOFT_DIRTY))
		return 0;
	return entry & ABI_PM_FRAME;
}

/* Of each part of a page table that these runs, by address, have a part in: one page. */
static void note_frames(struct arena *a, int fd, const struct page_run *runs, size_t n,
			struct tracking *to)
{
	uint64_t noted = 0; /* up to here */

	for (size_t i = 0; i < n; i++) {
		uint64_t pos = max(runs[i].vaddr, noted), end = page_run_end(&runs[i]);

		for (; pos < end; pos = noted = end_of(pos, SAMPLED_SIZE)) {
			struct tracked_frame f = { pos, frame_of(fd, pos, false) };

			if (f.frame)
				*ARENA_PUSH(a, to->frames, to->n) = f;
		}
	}
}

static int by_address(const void *a, const void *b)
{
	const struct tracked_frame *x = a, *y = b;

	return (x->addr > y->addr) - (x->addr < y->addr);
}

static int write_record(struct dump *d, int dir, const struct dump_task *t, const char *run_id)
{
	struct tracking tr = { 0 };
	char name[128], text[RECORD_MAX] = "";
	autoclose int pagemap = openat(t->process->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);
	int rc = pagemap < 0 ? -errno : record_name(t, name, sizeof(name));

	if (rc == 0)
		rc = record_text(t, run_id, text);
	if (rc < 0)
		return rc;
	note_frames(&d->arena, pagemap, t->pages.runs, t->pages.n_runs, &tr);
	note_frames(&d->arena, pagemap, t->shared, t->n_shared, &tr);
	if (tr.n)
		qsort(tr.frames, tr.n, sizeof(*tr.frames), by_address);
	autoclose int fd =
		openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	rc = fd < 0 ? -errno : write_all(fd, text, sizeof(text));
	return rc < 0 ? rc : write_all(fd, tr.frames, tr.n * sizeof(*tr.frames));
}

/* Garbage collectors use the bits, too: who has the file open that clears them has them alone. */
static bool has_bits_of_its_own(const struct dump_task *t)
{
	int fd = openat(t->process->proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autoclosedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char link[PATH_MAX];

	for (struct dirent *e; dir && (e = readdir(dir));) {
		ssize_t len = read_link_at(fd, e->d_name, link, sizeof(link));

		if (len > (ssize_t)strlen(CLEAR_FILE) &&
		    !strcmp(link + len - strlen(CLEAR_FILE), CLEAR_FILE))
			return true;
	}
	return !dir;
}

static bool may_be_tracked(const struct dump *d)
{
	for (size_t i = 0; i < d->n_tasks; i++) {
		if (d->tasks[i].process->is_zombie || !has_bits_of_its_own(&d->tasks[i]))
			continue;
		info("pid %d: it keeps track of its own pages (/proc/PID/clear_refs), which is not "
		     "to be disturbed: the next dump compares memory with these images",
		     d->tasks[i].process->pid);
		return false;
	}
	return true;
}

/* Records of processes of our pid namespace that are gone. */
static void remove_old_records(int dir)
{
	int fd = dup(dir);
	autoclosedir DIR *list = fd < 0 ? NULL : fdopendir(fd);
	char own[64];
	uint64_t pid;
	ssize_t len = read_link_at(AT_FDCWD, "/proc/self/ns/pid", own, sizeof(own));

	for (struct dirent *e; len > 0 && list && (e = readdir(list));) {
		const char *number = e->d_name + len + 1;

		if (strncmp(e->d_name, own, len) || e->d_name[len] != '-' ||
		    !text_dec(number, &pid) || kill(pid, 0) == 0 || errno != ESRCH)
			continue;
		(void)unlinkat(dir, e->d_name, 0);
	}
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
static int begin_one(struct dump *d, int dir, const struct dump_task *t, const char *run_id)
{
	int rc = write_record(d, dir, t, run_id);

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
	if (!may_be_tracked(d))
		return;
	rc = mkdir(RECORDS, 0700) < 0 && errno != EEXIST ? -errno : 0;
	autoclose int dir = rc < 0 ? rc : open_records();
	rc = dir < 0 ? dir : random_file("uuid", id);
	if (dir >= 0)
		remove_old_records(dir);
	for (size_t i = 0; i < d->n_tasks && rc >= 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = begin_one(d, dir, &d->tasks[i], id);
	if (rc < 0)
		warn("directory " RECORDS ": what the tree writes cannot be kept track of: %s; the "
		     "next dump compares memory with these images",
		     strerror(-rc));
	else
		d->run_id = arena_strdup(&d->arena, id);
}

static int read_record(struct arena *a, int dir, const struct dump_task *t, const char *run_id,
		       struct tracking *ret)
{
	char name[128], expected[RECORD_MAX], text[RECORD_MAX];
	struct stat st;

	if (record_name(t, name, sizeof(name)) < 0 || record_text(t, run_id, expected) < 0)
		return -ENOENT;
	autoclose int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || read_all(fd, text, sizeof(text)) < 0 ||
	    memcmp(text, expected, sizeof(text)) != 0)
		return -ENOENT;
	ret->n = (st.st_size - sizeof(text)) / sizeof(*ret->frames);
	ret->frames = arena_array(a, struct tracked_frame, ret->n);
	return read_all(fd, ret->frames, ret->n * sizeof(*ret->frames));
}

bool tracking_load(struct arena *a, const struct dump_task *t, const char *run_id, int fd,
		   struct tracking *ret)
{
	autoclose int dir = open_records();

	*ret = (struct tracking){ .fd = fd };
	return run_id && dir >= 0 && kernel_probe("soft-dirty") == 0 && !has_bits_of_its_own(t) &&
	       read_record(a, dir, t, run_id, ret) == 0;
}

static size_t first_from(const struct tracking *tr, uint64_t addr)
{
	size_t lo = 0, hi = tr->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (tr->frames[mid].addr < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool tracking_has_stayed(struct tracking *tr, uint64_t addr)
{
	uint64_t end = end_of(addr, TABLE_SIZE);

	if (end == tr->table_end)
		return tr->table_has_stayed;
	tr->table_end = end;
	tr->table_has_stayed = false;
	for (size_t i = first_from(tr, end - TABLE_SIZE); i < tr->n && tr->frames[i].addr < end;
	     i++)
		if (frame_of(tr->fd, tr->frames[i].addr, true) == tr->frames[i].frame)
			tr->table_has_stayed = true;
	return tr->table_has_stayed;
}

void tracking_forget(const struct dump_task *t)
{
	char name[128];
	autoclose int dir = open(RECORDS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir >= 0 && record_name(t, name, sizeof(name)) == 0)
		(void)unlinkat(dir, name, 0);
}
