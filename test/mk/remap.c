/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Open files whose own name is gone while another hard link, in another
 * directory, keeps them. A tool can give them a name for a while; none of
 * these names may be left.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mk.h"

#define DATA_BYTES	(3 * PAGE)
#define MAX_OPEN	8

struct open_file {
	const char *name;	/* the one that is left is elsewhere/NAME */
	int fd;
	uint64_t seed;
	/* as they were when made */
	struct stat st;
	int status;
	off_t offset;
	char link[512];
};

static struct open_file files[MAX_OPEN];
static int nr_files;
static int first, second, mapped;
static char *map;

static const char *elsewhere(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "elsewhere/%s", name);
	return dir_path(path);
}

static int remember(const char *name, int fd, uint64_t seed)
{
	if (fd < 0)
		die("%s: %s", name, strerror(errno));
	if (nr_files == MAX_OPEN)
		die("too many files");
	files[nr_files].name = name;
	files[nr_files].seed = seed;
	files[nr_files++].fd = fd;
	return fd;
}

/* In the directory @from: a file with another name in elsewhere/. */
static int create(const char *from, const char *name, uint64_t seed)
{
	char path[128], data[DATA_BYTES];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", from, name);
	fd = open(dir_path(path), O_RDWR | O_CREAT | O_EXCL, 0640);
	fill(data, sizeof(data), seed);
	if (fd < 0 || write(fd, data, sizeof(data)) != sizeof(data) ||
	    link(dir_path(path), elsewhere(name)) < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static void drop(const char *path)
{
	if (unlink(dir_path(path)) < 0)
		die("unlink %s: %s", path, strerror(errno));
}

static void read_state(struct open_file *f)
{
	if (fstat(f->fd, &f->st) < 0)
		bad_errno(f->name);
	f->status = fcntl(f->fd, F_GETFL);
	f->offset = lseek(f->fd, 0, SEEK_CUR);
	fd_name(f->fd, f->link, sizeof(f->link));
}

static void make_twins(void)
{
	first = remember("twins", create("here", "twins", 2), 2);
	second = remember("twins", open(dir_path("here/twins"), O_WRONLY | O_APPEND), 2);
	lseek(first, 5, SEEK_SET);
	drop("here/twins");
}

static void make_mapped(void)
{
	mapped = remember("mapped", create("here", "mapped", 3), 3);
	map = mmap(NULL, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
	if (map == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	drop("here/mapped");
}

/* Where it was opened is no place for another name. */
static void make_without_parent(void)
{
	if (mkdir(dir_path("gone"), 0755) < 0)
		die("mkdir: %s", strerror(errno));
	remember("orphan", create("gone", "orphan", 4), 4);
	drop("gone/orphan");
	if (rmdir(dir_path("gone")) < 0)
		die("rmdir: %s", strerror(errno));
}

static void make(void)
{
	int i;

	if (mkdir(dir_path("here"), 0755) < 0 || mkdir(dir_path("elsewhere"), 0755) < 0)
		die("mkdir: %s", strerror(errno));
	remember("single", create("here", "single", 1), 1);
	drop("here/single");
	make_twins();
	make_mapped();
	if (param_long("parents"))
		make_without_parent();
	for (i = 0; i < nr_files; i++)
		read_state(&files[i]);
}

/* ---- check ---- */

static void same(const struct open_file *f, const char *member, long expected, long got)
{
	char what[96];

	snprintf(what, sizeof(what), "%s (fd %d): %s", f->name, f->fd, member);
	same_long(what, expected, got);
}

static void check_data(const struct open_file *f)
{
	char data[DATA_BYTES];
	int fd = open(elsewhere(f->name), O_RDONLY | O_CLOEXEC);
	ssize_t n = pread(fd, data, sizeof(data), 0);

	if (n != sizeof(data) || verify(data, sizeof(data), f->seed) >= 0)
		bad("%s: wrong data behind the other name", f->name);
	close(fd);
}

static void check_file(const struct open_file *f)
{
	struct open_file now = { .name = f->name, .fd = f->fd };
	struct stat other = { 0 };

	read_state(&now);
	same(f, "links", f->st.st_nlink, now.st.st_nlink);
	same(f, "device", f->st.st_dev, now.st.st_dev);
	same(f, "inode", f->st.st_ino, now.st.st_ino);
	same(f, "mode", f->st.st_mode, now.st.st_mode);
	same(f, "size", f->st.st_size, now.st.st_size);
	same(f, "flags", f->status, now.status);
	same(f, "offset", f->offset, now.offset);
	same_str(f->name, f->link, now.link);
	if (stat(elsewhere(f->name), &other) < 0)
		bad_errno(f->name);
	same(f, "inode behind the other name", f->st.st_ino, other.st_ino);
	check_data(f);
}

static void check_twins(void)
{
	char c = 0;

	if (write(second, "x", 1) != 1 || pread(first, &c, 1, DATA_BYTES) != 1 || c != 'x')
		bad("the descriptions of one file do not see each other");
	if (ftruncate(first, DATA_BYTES) < 0)
		bad_errno("ftruncate");
	lseek(second, 0, SEEK_SET);
}

static void check_mapped(void)
{
	char old = map[100], c = 0;

	if (verify(map, DATA_BYTES, 3) >= 0)
		bad("the mapping differs");
	map[100] = ~old;
	if (pread(mapped, &c, 1, 100) != 1 || c != (char)~old)
		bad("the mapping is not of the open file");
	map[100] = old;
}

static void check_names(const char *where, int expected)
{
	DIR *dir = opendir(dir_path(where));
	struct dirent *d;
	int nr = 0;

	while (dir && (d = readdir(dir))) {
		nr++;
		if (!strncmp(d->d_name, "link_remap", 10))
			bad("left over in %s: %s", where, d->d_name);
	}
	if (dir)
		closedir(dir);
	same_long(where, expected, nr);
}

static void check(void)
{
	int parents = param_long("parents") ? 1 : 0, i;

	for (i = 0; i < nr_files; i++)
		check_file(&files[i]);
	check_twins();
	check_mapped();
	/* with . and .. */
	check_names(".", 2 + 2);
	check_names("here", 2);
	check_names("elsewhere", 2 + 3 + parents);
}

struct factory remap_factory = {
	.name	= "remap",
	.about	= "open files whose name is gone while another hard link is left",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "parents", "0", "1: one in a directory that is gone, too" },
	},
	.make	= make,
	.check	= check,
};
