/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Open files that have no name any more: regular ones with data, holes, owner
 * and times, two descriptions of one inode, mapped ones, a directory, a fifo,
 * a symbolic link, a file made without a name, one below removed directories,
 * one whose name belongs to another file by now.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "mk.h"

#define MAX_GHOSTS	32
#define MAX_EXTENTS	8
#define MAX_NAMES	32
#define UNIT		65536L	/* data and holes are as large as any file system asks for */
#define LARGE_BYTES	(1L << 20)
#define SPARSE_BYTES	(1LL << 32)
#define MAP_BYTES	(4 * PAGE)
#define XATTR		"user.mk"

enum { HAS_NAME = 1, NO_TIMES = 2 };

struct extent {
	off_t start, end;
};

struct ghost {
	const char *what;
	int fd;
	int how;
	uint64_t seed;		/* of the contents; 0: not looked at */
	long bytes;		/* that the seed is for */
	/* as they were when made */
	struct stat st;
	int status, fd_flags;
	off_t offset;
	char link[512];
	struct extent extents[MAX_EXTENTS];
	int nr_extents;
};

static struct ghost ghosts[MAX_GHOSTS];
static int nr_ghosts;
static int plain, again, reader, doubled, mapped = -1, dead_dir, dead_link, fifo, no_name = -1;
static int old_file, new_file;
static char *map_shared, *map_private;
static bool has_xattr;
static struct heir {
	const char *name;
	int was_dir, is_dir;
	int old, new;		/* descriptors */
} heirs[] = {
	{ "file-then-directory", 0, 1, -1, -1 },
	{ "directory-then-file", 1, 0, -1, -1 },
	{ "directory-then-directory", 1, 1, -1, -1 },
	{ NULL, 0, 0, -1, -1 },
};
static char names[MAX_NAMES][64];
static int nr_names;

/* ---- making ---- */

static struct ghost *remember(const char *what, int fd)
{
	struct ghost *g = &ghosts[nr_ghosts++];

	if (fd < 0)
		die("%s: %s", what, strerror(errno));
	if (nr_ghosts > MAX_GHOSTS)
		die("too many ghosts");
	g->what = what;
	g->fd = fd;
	return g;
}

static int create(const char *name)
{
	int fd = open(dir_path(name), O_RDWR | O_CREAT | O_EXCL, 0600);

	if (fd < 0)
		die("%s: %s", name, strerror(errno));
	return fd;
}

static void drop(const char *name)
{
	if (unlink(dir_path(name)) < 0)
		die("unlink %s: %s", name, strerror(errno));
}

static void write_at(int fd, off_t at, size_t bytes, uint64_t seed)
{
	char *data = malloc(bytes);

	fill(data, bytes, seed);
	if (pwrite(fd, data, bytes, at) != (ssize_t)bytes)
		die("write: %s", strerror(errno));
	free(data);
}

/* Read last in the year 2040: later than any change, so that no reading moves it. */
static void set_times(int fd)
{
	const struct timespec times[2] = { { 2222222222, 222222222 }, { 1000000000, 123456789 } };

	if (futimens(fd, times) < 0)
		die("futimens: %s", strerror(errno));
}

static struct ghost *add_file(const char *what, const char *name, long bytes, uint64_t seed)
{
	int fd = create(name);
	struct ghost *g = remember(what, fd);

	g->seed = seed;
	g->bytes = bytes;
	if (bytes)
		write_at(fd, 0, bytes, seed);
	drop(name);
	return g;
}

static void make_plain(void)
{
	struct ghost *g = add_file("file with data", "plain", 10000, 1);

	plain = g->fd;
	lseek(plain, 1234, SEEK_SET);
	if (fchown(plain, 1234, 5678) < 0 || fchmod(plain, 04640) < 0)
		die("owner and mode: %s", strerror(errno));
	has_xattr = !fsetxattr(plain, XATTR, "kept", 4, 0);
	set_times(plain);
	g = add_file("empty file", "empty", 0, 0);
	if (fchmod(g->fd, 01000) < 0)
		die("mode: %s", strerror(errno));
	set_times(g->fd);
	g = add_file("large file", "large", LARGE_BYTES, 2);
	lseek(g->fd, LARGE_BYTES + 5, SEEK_SET);
	fcntl(g->fd, F_SETFD, FD_CLOEXEC);
}

static void make_sparse(void)
{
	struct ghost *g = add_file("file with holes", "sparse", 0, 0);

	write_at(g->fd, 2 * UNIT, UNIT, 3);
	write_at(g->fd, SPARSE_BYTES / 2, 2 * UNIT, 3);
	if (ftruncate(g->fd, SPARSE_BYTES) < 0)
		die("ftruncate: %s", strerror(errno));
	set_times(g->fd);
	g = add_file("file that is one hole", "hole", 0, 0);
	if (ftruncate(g->fd, SPARSE_BYTES) < 0)
		die("ftruncate: %s", strerror(errno));
	g = add_file("file with a hole in front", "front", 0, 0);
	write_at(g->fd, 3 * UNIT, 100, 4);
}

/* Two descriptions of one inode, and a second descriptor of the first. */
static void make_twins(void)
{
	struct ghost *g;

	again = create("twins");
	write_at(again, 0, 5000, 5);
	reader = open(dir_path("twins"), O_RDONLY | O_NOATIME | O_CLOEXEC);
	g = remember("first description", again);
	g->how = NO_TIMES;
	g->seed = 5;
	g->bytes = 5000;
	g = remember("second description", reader);
	g->how = NO_TIMES;
	g->seed = 5;
	g->bytes = 5000;
	if (fcntl(again, F_SETFL, O_APPEND | O_NONBLOCK) < 0)
		die("F_SETFL: %s", strerror(errno));
	doubled = dup(again);
	remember("dup of the first", doubled)->how = NO_TIMES;
	lseek(again, 77, SEEK_SET);
	lseek(reader, 4321, SEEK_SET);
	drop("twins");
}

static void make_mapped(void)
{
	struct ghost *g = add_file("mapped file", "mapped", MAP_BYTES, 6);

	mapped = g->fd;
	g->how = NO_TIMES;
	map_shared = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
	map_private = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, mapped, 0);
	if (map_shared == MAP_FAILED || map_private == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	/* one page is not that of the file any more */
	fill(map_private + PAGE, PAGE, 7);
}

static void make_others(void)
{
	if (mkdir(dir_path("folder"), 01750) < 0)
		die("mkdir: %s", strerror(errno));
	dead_dir = open(dir_path("folder"), O_RDONLY | O_DIRECTORY);
	remember("directory", dead_dir);
	if (rmdir(dir_path("folder")) < 0 || mkfifo(dir_path("fifo"), 0620) < 0 ||
	    symlink("to/somewhere", dir_path("symlink")) < 0)
		die("folder, fifo, symlink: %s", strerror(errno));
	fifo = open(dir_path("fifo"), O_PATH);
	remember("fifo", fifo);
	dead_link = open(dir_path("symlink"), O_PATH | O_NOFOLLOW | O_CLOEXEC);
	remember("symbolic link", dead_link);
	drop("fifo");
	drop("symlink");
}

static void make_without_name(void)
{
	struct ghost *g;

	no_name = open(param_str("dir"), O_TMPFILE | O_RDWR, 0640);
	if (no_name < 0)
		return;		/* not all file systems have it */
	g = remember("file made without a name", no_name);
	g->seed = 8;
	g->bytes = 3000;
	write_at(no_name, 0, 3000, 8);
}

static void make_below_removed(void)
{
	if (mkdir(dir_path("p1"), 0755) < 0 || mkdir(dir_path("p1/p2"), 0755) < 0)
		die("mkdir: %s", strerror(errno));
	add_file("file below removed directories", "p1/p2/file", 2000, 9);
	add_file("its sister", "p1/p2/sister", 2000, 10);
	if (rmdir(dir_path("p1/p2")) < 0 || rmdir(dir_path("p1")) < 0)
		die("rmdir: %s", strerror(errno));
}

static void make_replaced(void)
{
	struct ghost *g = add_file("file whose name was taken", "taken", 1000, 11);

	old_file = g->fd;
	new_file = create("taken");
	g = remember("file that took the name", new_file);
	g->how = HAS_NAME;
	g->seed = 12;
	g->bytes = 1500;
	write_at(new_file, 0, 1500, 12);
}

static int make_one(const char *name, int is_dir)
{
	if (!is_dir)
		return create(name);
	if (mkdir(dir_path(name), 0700) < 0)
		die("mkdir %s: %s", name, strerror(errno));
	return open(dir_path(name), O_RDONLY | O_DIRECTORY);
}

/* What took the name may be of another kind. */
static void make_heirs(void)
{
	struct heir *h;

	for (h = heirs; h->name; h++) {
		h->old = make_one(h->name, h->was_dir);
		remember(h->name, h->old);
		if ((h->was_dir ? rmdir : unlink)(dir_path(h->name)) < 0)
			die("remove %s: %s", h->name, strerror(errno));
		h->new = make_one(h->name, h->is_dir);
		remember(h->name, h->new)->how = HAS_NAME;
	}
}

/* ---- what there is ---- */

/* Where the data is; whatever lies between is a hole. O_PATH and directories have none. */
static int read_extents(int fd, struct extent *list)
{
	off_t here = lseek(fd, 0, SEEK_CUR), at = 0;
	int nr = 0;

	while (nr < MAX_EXTENTS && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		list[nr].start = at;
		at = lseek(fd, at, SEEK_HOLE);
		list[nr++].end = at;
	}
	lseek(fd, here, SEEK_SET);
	return nr;
}

static void read_state(struct ghost *g)
{
	if (fstat(g->fd, &g->st) < 0)
		bad_errno(g->what);
	/* nobody can open a file by its name with this flag */
	g->status = fcntl(g->fd, F_GETFL);
	if (g->fd == no_name)
		g->status &= ~O_TMPFILE;
	g->fd_flags = fcntl(g->fd, F_GETFD);
	g->offset = lseek(g->fd, 0, SEEK_CUR);
	g->nr_extents = S_ISREG(g->st.st_mode) ? read_extents(g->fd, g->extents) : 0;
	fd_name(g->fd, g->link, sizeof(g->link));
}

static int list_names(char list[][64])
{
	DIR *dir = opendir(param_str("dir"));
	struct dirent *d;
	int nr = 0;

	while (dir && nr < MAX_NAMES && (d = readdir(dir)))
		snprintf(list[nr++], sizeof(list[0]), "%.63s", d->d_name);
	if (dir)
		closedir(dir);
	return nr;
}

static void make(void)
{
	int i;

	make_plain();
	make_sparse();
	make_twins();
	if (param_long("map"))
		make_mapped();
	make_others();
	make_without_name();
	if (param_long("parents"))
		make_below_removed();
	make_replaced();
	make_heirs();
	for (i = 0; i < nr_ghosts; i++)
		read_state(&ghosts[i]);
	nr_names = list_names(names);
}

/* ---- check ---- */

static void same(const struct ghost *g, const char *member, long expected, long got)
{
	char what[96];

	snprintf(what, sizeof(what), "%s: %s", g->what, member);
	same_long(what, expected, got);
}

static void check_stat(const struct ghost *g, const struct stat *now)
{
	const struct stat *st = &g->st;

	same(g, "links", !(g->how & HAS_NAME) ? 0 : S_ISDIR(st->st_mode) ? st->st_nlink : 1,
	     now->st_nlink);
	same(g, "mode", st->st_mode, now->st_mode);
	same(g, "uid", st->st_uid, now->st_uid);
	same(g, "gid", st->st_gid, now->st_gid);
	same(g, "device", st->st_dev, now->st_dev);
	if (S_ISREG(st->st_mode))
		same(g, "size", st->st_size, now->st_size);
	if (!(g->how & NO_TIMES)) {
		same(g, "mtime", st->st_mtim.tv_sec, now->st_mtim.tv_sec);
		same(g, "nanoseconds of mtime", st->st_mtim.tv_nsec, now->st_mtim.tv_nsec);
	}
	if (st->st_atim.tv_sec == 2222222222) {
		same(g, "atime", st->st_atim.tv_sec, now->st_atim.tv_sec);
		same(g, "nanoseconds of atime", st->st_atim.tv_nsec, now->st_atim.tv_nsec);
	}
	/* a file system may need a block more to remember where the others are */
	if (now->st_blocks > st->st_blocks + 64)
		bad("%s: uses %ld blocks instead of %ld", g->what, (long)now->st_blocks,
		    (long)st->st_blocks);
}

/* The kernel makes the name of such a file of the inode's number. */
static void check_link(const struct ghost *g, const char *now)
{
	const char *slash = strrchr(g->link, '/');

	if (g->fd != no_name)
		same_str(g->what, g->link, now);
	else if (!slash || strncmp(g->link, now, slash + 2 - g->link))
		bad("%s, expected '%s', got '%s'", g->what, g->link, now);
	if (!(g->how & HAS_NAME) &&
	    (strlen(now) < 10 || strcmp(now + strlen(now) - 10, " (deleted)")))
		bad("%s is not deleted: '%s'", g->what, now);
}

static void check_extents(const struct ghost *g, const struct ghost *now)
{
	int i;

	same(g, "number of extents", g->nr_extents, now->nr_extents);
	for (i = 0; i < g->nr_extents && i < now->nr_extents; i++) {
		same(g, "start of data", g->extents[i].start, now->extents[i].start);
		same(g, "end of data", g->extents[i].end, now->extents[i].end);
	}
}

static void check_bytes(const char *what, int fd, off_t at, size_t bytes, uint64_t seed)
{
	char *data = malloc(bytes);
	ssize_t n = pread(fd, data, bytes, at), wrong;

	if (n != (ssize_t)bytes)
		bad("%s: read %zd bytes of %zu at %#lx", what, n, bytes, (long)at);
	else if ((wrong = verify(data, bytes, seed)) >= 0)
		bad("%s: wrong data at %#lx", what, (long)(at + wrong));
	free(data);
}

static void check_ghost(const struct ghost *g)
{
	struct ghost now = { .what = g->what, .fd = g->fd };

	read_state(&now);
	check_stat(g, &now.st);
	same(g, "flags", g->status, now.status);
	same(g, "flags of the descriptor", g->fd_flags, now.fd_flags);
	same(g, "offset", g->offset, now.offset);
	check_link(g, now.link);
	check_extents(g, &now);
	if (g->seed)
		check_bytes(g->what, g->fd, 0, g->bytes, g->seed);
}

static int find(const char *what)
{
	int i;

	for (i = 0; i < nr_ghosts; i++)
		if (!strcmp(ghosts[i].what, what))
			return ghosts[i].fd;
	return -1;
}

static void check_sparse(void)
{
	static const char zeroes[64];
	char data[64];
	int fd = find("file with holes");

	check_bytes("file with holes", fd, 2 * UNIT, UNIT, 3);
	check_bytes("file with holes", fd, SPARSE_BYTES / 2, 2 * UNIT, 3);
	check_bytes("file with a hole in front", find("file with a hole in front"), 3 * UNIT, 100,
		    4);
	if (pread(fd, data, sizeof(data), UNIT) != sizeof(data) || memcmp(data, zeroes, 64))
		bad("file with holes: no zeroes in a hole");
}

static ino_t inode(int fd)
{
	struct stat st = { 0 };

	fstat(fd, &st);
	return st.st_ino;
}

/* What goes in through one description comes out of the other; the dup shares its offset. */
static void check_twins(void)
{
	char c = 0;

	same_long("inodes of two descriptions", inode(again), inode(reader));
	same_long("inodes of a dup", inode(again), inode(doubled));
	if (write(doubled, "x", 1) != 1 || pread(reader, &c, 1, 5000) != 1 || c != 'x')
		bad("the descriptions of one file do not see each other");
	same_long("offset after append", 5001, lseek(again, 0, SEEK_CUR));
	if (ftruncate(again, 5000) < 0)
		bad_errno("ftruncate");
	lseek(doubled, 77, SEEK_SET);
	same_long("offset of a dup", 77, lseek(again, 0, SEEK_CUR));
	same_long("offset of the second description", 4321, lseek(reader, 0, SEEK_CUR));
}

static void check_mapped(void)
{
	char old = map_shared[100], c = 0;

	if (verify(map_shared, MAP_BYTES, 6) >= 0)
		bad("shared mapping differs at %zd", verify(map_shared, MAP_BYTES, 6));
	if (verify(map_private, PAGE, 6) >= 0)
		bad("private mapping differs");
	if (verify(map_private + PAGE, PAGE, 7) >= 0)
		bad("changed page of the private mapping differs");
	map_shared[100] = ~old;
	if (pread(mapped, &c, 1, 100) != 1 || c != (char)~old)
		bad("the shared mapping is not of the open file");
	if (map_private[100] != (char)~old)
		bad("the private mapping is not of the open file");
	map_shared[100] = old;
}

static void check_others(void)
{
	char target[64] = "";

	if (mkdirat(dead_dir, "new", 0700) != -1 || errno != ENOENT)
		bad("the removed directory takes new names");
	if (readlinkat(dead_link, "", target, sizeof(target) - 1) < 0)
		bad_errno("readlinkat");
	same_str("symbolic link", "to/somewhere", target);
	if (read(fifo, target, 1) != -1 || errno != EBADF)
		bad("the fifo held by O_PATH can be read");
}

static void check_xattr(void)
{
	char value[8] = "";

	if (!has_xattr)
		return;
	if (fgetxattr(plain, XATTR, value, sizeof(value) - 1) < 0)
		bad_errno("fgetxattr");
	same_str("extended attribute", "kept", value);
}

static bool is_known(const char *name)
{
	int i;

	for (i = 0; i < nr_names; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

static void check_names(void)
{
	char now[MAX_NAMES][64];
	int nr = list_names(now), i;

	same_long("names in the directory", nr_names, nr);
	for (i = 0; i < nr; i++)
		if (!is_known(now[i]))
			bad("left over in the directory: '%s'", now[i]);
}

/* The name leads to the file that took it. */
static void check_replaced(void)
{
	struct stat st = { 0 };

	if (stat(dir_path("taken"), &st) < 0)
		bad_errno("taken");
	same_long("inode behind the name", st.st_ino, inode(new_file));
	if (inode(old_file) == inode(new_file))
		bad("the deleted file and the one that took its name are one");
}

static void check_heirs(void)
{
	struct heir *h;
	struct stat st = { 0 };

	for (h = heirs; h->name; h++) {
		if (lstat(dir_path(h->name), &st) < 0)
			bad_errno(h->name);
		same_long(h->name, st.st_ino, inode(h->new));
		if (inode(h->old) == inode(h->new))
			bad("%s: what is deleted and what took its name are one", h->name);
	}
}

static void check(void)
{
	int i;

	for (i = 0; i < nr_ghosts; i++)
		check_ghost(&ghosts[i]);
	check_sparse();
	check_twins();
	if (mapped >= 0)
		check_mapped();
	check_others();
	check_xattr();
	check_replaced();
	check_heirs();
	check_names();
}

struct factory ghost_factory = {
	.name	= "ghost",
	.about	= "open files, directories, fifos, symbolic links without a name",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "map", "1", "1: one of them is mapped, too" },
		{ "parents", "1", "1: some in directories that are gone, too" },
	},
	.make	= make,
	.check	= check,
};
