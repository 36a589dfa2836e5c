/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Regular files, directories, and character devices like /dev/null: everything that its path
 * opens again. Entry: reg_file_entry. What changed between dump and restore is recognised by
 * size and mode, executables and libraries by the build id that their linker gave them.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/dead.h"
#include "files/files.h"
#include "files/locks.h"
#include "files/regular.h"
#include "files/remap.h"
#include "kernel/abi.h"
#include "proc/text.h"
#include "remote/arch.h"

#define MEM_MAJOR    1 /* /dev/null, zero, full, random, urandom */
#define NO_POS_FLAGS (O_PATH)

static bool is_plain_device(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && major(st->st_rdev) == MEM_MAJOR;
}

/* It looks like a file that may be deleted. */
static bool is_posix_queue(const struct fd_probe *p)
{
	return p->fs_type == ABI_MQUEUE_MAGIC;
}

static bool regular_match(const struct fd_probe *p)
{
	if (S_ISREG(p->st.st_mode) && is_posix_queue(p))
		return false;
	return S_ISREG(p->st.st_mode) || S_ISDIR(p->st.st_mode) || is_plain_device(&p->st) ||
	       (p->info.flags & O_PATH && p->link[0] == '/');
}

/* Copies the build id of the notes in [at, at + size) of the file. Returns its words. */
static size_t build_id_in_notes(int fd, uint64_t at, uint64_t size, struct arena *a, uint32_t **ret)
{
	uint8_t notes[4096];

	size = min(size, (uint64_t)sizeof(notes));
	if (pread_all(fd, notes, size, at) < 0)
		return 0;
	for (size_t pos = 0; pos + sizeof(Elf64_Nhdr) <= size;) {
		Elf64_Nhdr n;

		memcpy(&n, notes + pos, sizeof(n));
		uint64_t name = (n.n_namesz + 3ull) & ~3ull, desc = (n.n_descsz + 3ull) & ~3ull;
		uint64_t data = pos + sizeof(n) + name;
		if (data + desc > size)
			return 0;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 &&
		    !memcmp(notes + pos + sizeof(n), "GNU", 4) && n.n_descsz) {
			*ret = arena_alloc(a, desc);
			memcpy(*ret, notes + data, n.n_descsz);
			return desc / 4;
		}
		pos = data + desc;
	}
	return 0;
}

/* The build id of an ELF file as 32-bit words, 0 of them if it has none. */
static size_t read_build_id(int fd, struct arena *a, uint32_t **ret)
{
	Elf64_Ehdr h;
	Elf64_Phdr ph[64];

	if (pread_all(fd, &h, sizeof(h), 0) < 0 || memcmp(h.e_ident, ELFMAG, SELFMAG) ||
	    h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_phentsize != sizeof(ph[0]) ||
	    h.e_phnum > ARRAY_SIZE(ph) ||
	    pread_all(fd, ph, h.e_phnum * sizeof(ph[0]), h.e_phoff) < 0)
		return 0;
	for (unsigned i = 0; i < h.e_phnum; i++) {
		size_t n = ph[i].p_type == PT_NOTE
				   ? build_id_in_notes(fd, ph[i].p_offset, ph[i].p_filesz, a, ret)
				   : 0;
		if (n)
			return n;
	}
	return 0;
}

/* Only programs and libraries have a build id: those that may be executed or are so named. */
static bool may_have_build_id(const RegFileEntry *e)
{
	return S_ISREG(e->mode) && (e->mode & 0111 || strstr(e->name, ".so"));
}

/*
 * Later than the rest, when nobody waits for us. Where the path leads to another file, such as a
 * program that was replaced, there is nothing to recognise: the images or a link hold the file.
 */
void regular_add_build_id(struct dump *d, FileEntry *e)
{
	struct stat st;

	if (d->opts->file_validation != VALIDATE_BUILDID || !e->reg || !may_have_build_id(e->reg) ||
	    remap_is_noted(d, e->id))
		return;
	if (d->n_locks && (stat(e->reg->name, &st) < 0 || locks_have_lease(d, &st)))
		return;
	autoclose int fd = open(e->reg->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		e->reg->n_build_id = read_build_id(fd, &d->arena, &e->reg->build_id);
}

/* True if the path leads to this very file, so that a restore can open it. */
static bool is_reachable(const char *path, const struct stat *st)
{
	struct stat now;

	return path[0] == '/' && fstatat(AT_FDCWD, path, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
	       now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}

/* The process whose /proc folder a path is in, or 0. */
static pid_t task_of_path(const char *path)
{
	uint64_t pid;
	const char *rest = strncmp(path, "/proc/", 6) ? NULL : text_dec(path + 6, &pid);

	return rest && (*rest == '/' || !*rest || *rest == ' ') && pid <= INT32_MAX ? pid : 0;
}

/* A file of /proc/PID can be opened again when that process is there again. */
static void check_task_file(struct dump *d, const char *who, const char *path, RegFileEntry *reg)
{
	pid_t pid = task_of_path(path);
	bool is_there = kill(pid, 0) == 0 || errno != ESRCH;

	if (!is_there)
		dead_note_file(d, who, path, pid, reg);
	else if (strstr(path, " (deleted)") || !tree_find(&d->tree, pid))
		dump_block(d,
			   "%s: %s belongs to a process that is outside of the tree, or had the "
			   "number of another one; such a file cannot be dumped",
			   who, path);
	else if (strstr(path, "/task/"))
		dump_block(d, "%s: %s belongs to a thread; such a file cannot be dumped", who,
			   path);
}

/* The path that the kernel's own name of a device gives it, if that is the device. */
static bool find_device(const struct stat *st, char *path, size_t size)
{
	autofree char *text = NULL;
	char sys[64], name[200];
	struct stat now;

	snprintf(sys, sizeof(sys), "/sys/dev/char/%u:%u/uevent", major(st->st_rdev),
		 minor(st->st_rdev));
	const char *line = read_file_at(AT_FDCWD, sys, &text) < 0 ? NULL : strstr(text, "DEVNAME=");
	if (!line || sscanf(line, "DEVNAME=%199s", name) != 1)
		return false;
	snprintf(path, size, "/dev/%s", name);
	return stat(path, &now) == 0 && S_ISCHR(now.st_mode) && now.st_rdev == st->st_rdev;
}

/* --evasive-devices: another node of the same device. */
static bool evade(struct dump *d, const char *who, const struct stat *st, RegFileEntry *reg)
{
	char path[256];

	if (!d->opts->evasive_devices || !S_ISCHR(st->st_mode) ||
	    !find_device(st, path, sizeof(path)))
		return false;
	info("%s: %s is gone; it will be %s", who, reg->name, path);
	reg->name = arena_strdup(&d->arena, path);
	reg->has_mode = false;
	return true;
}

/* Memory that has the looks of a deleted file: on a tmpfs of the kernel's own, as memfds are. */
static bool is_kernel_memory(const char *path, const struct stat *st)
{
	struct stat own;

	if (!S_ISREG(st->st_mode) || major(st->st_dev))
		return false;
	if (!strncmp(path, "/secretmem", strlen("/secretmem")))
		return true;
	autoclose int fd = memfd_create("", MFD_CLOEXEC);
	return fd >= 0 && fstat(fd, &own) == 0 && own.st_dev == st->st_dev;
}

static bool is_huge(const char *source)
{
	struct statfs fs;

	return statfs(source, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC;
}

/* Not even its own path leads to it. */
static void note_unreachable(struct dump *d, const char *who, const char *source,
			     const struct stat *st, RegFileEntry *reg, bool is_mapped)
{
	struct stat now;

	if (lstat(reg->name, &now) < 0 && errno == EACCES) {
		dump_block(d, "%s: %s: criu has no permission to look there", who, reg->name);
	} else if (is_kernel_memory(reg->name, st)) {
		dump_block(d,
			   "%s: %s is memory of the kernel's making; it cannot be dumped as a file",
			   who, reg->name);
	} else if (!st->st_nlink && is_huge(source)) {
		dump_block(d, "%s: %s: a deleted file of huge pages cannot be dumped", who,
			   reg->name);
	} else {
		text_cut_deleted(reg->name);
		remap_note(d, who, source, st, reg, is_mapped);
	}
}

/* True if no more has to be done: a restore finds it by its path. */
static bool fill_entry(struct dump *d, const char *path, const struct stat *st, RegFileEntry *reg)
{
	reg->name = arena_strdup(&d->arena, path);
	reg->has_mode = true;
	reg->mode = st->st_mode;
	if (S_ISREG(st->st_mode)) {
		reg->has_size = true;
		reg->size = st->st_size;
	}
	return !task_of_path(path) && is_reachable(path, st);
}

/*
 * What follows from a path that leads elsewhere, or nowhere. source is a path in /proc that leads
 * to the file whatever its name is by now; who names the object for a blocker.
 */
static void fill_in_rest(struct dump *d, const char *who, const char *path, const char *source,
			 const struct stat *st, RegFileEntry *reg, bool is_mapped)
{
	if (path[0] != '/') {
		dump_block(d, "%s: %s is outside of what the tree can reach; it cannot be dumped",
			   who, path);
	} else if (task_of_path(path)) {
		reg->has_size = false;
		check_task_file(d, who, path, reg);
	} else if (!evade(d, who, st, reg)) {
		note_unreachable(d, who, source, st, reg, is_mapped);
	}
}

static RegFileEntry *new_part(struct dump *d, FileEntry *e)
{
	RegFileEntry *reg = MESSAGE(&d->arena, RegFileEntry, reg_file_entry);

	reg->id = e->id;
	e->type = FD_TYPES__REG;
	e->reg = reg;
	return reg;
}

void regular_name_entry(struct dump *d, const struct fd_probe *p, FileEntry *e)
{
	RegFileEntry *reg = new_part(d, e);

	reg->flags = probe_flags(p);
	reg->fown = MESSAGE(&d->arena, FownEntry, fown_entry);
	reg->name = arena_strdup(&d->arena, p->link);
	text_cut_deleted(reg->name);
	reg->has_mode = true;
	reg->mode = p->st.st_mode;
}

int regular_path_entry(struct dump *d, const char *who, const char *path, const char *source,
		       const struct stat *st, int flags, FileEntry *e)
{
	RegFileEntry *reg = new_part(d, e);

	reg->flags = flags;
	reg->fown = MESSAGE(&d->arena, FownEntry, fown_entry);
	if (!fill_entry(d, path, st, reg))
		fill_in_rest(d, who, path, source, st, reg, true);
	return 0;
}

int regular_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	RegFileEntry *reg = new_part(d, e);
	char who[64], source[64];

	reg->flags = probe_flags(p);
	reg->pos = reg->flags & NO_POS_FLAGS ? 0 : p->info.pos;
	reg->fown = fown_read(d, p);
	if (fill_entry(d, p->link, &p->st, reg))
		return 0;
	snprintf(who, sizeof(who), "pid %d fd %d", p->task->process->pid, p->fd);
	snprintf(source, sizeof(source), "/proc/%d/fd/%d", p->task->process->pid, p->fd);
	fill_in_rest(d, who, p->link, source, &p->st, reg, false);
	return 0;
}

static int regular_check(const struct restore *r, const FileEntry *e)
{
	(void)r;
	if (e->reg->name[0] != '/')
		return refuse(EINVAL, "image files.img: file %#x: its path \"%s\" is not absolute",
			      e->id, e->reg->name);
	return 0;
}

static bool has_same_build_id(struct restore *r, int fd, const RegFileEntry *e)
{
	uint32_t *words = NULL;
	size_t n = read_build_id(fd, &r->arena, &words);

	return n == e->n_build_id && !memcmp(words, e->build_id, n * sizeof(*words));
}

static int validate(struct restore *r, int fd, const RegFileEntry *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(errno, "file %s: stat", e->name);
	if (e->has_mode && (st.st_mode ^ e->mode) & S_IFMT)
		return refuse(EINVAL,
			      "file %s: it is of another kind than at dump (mode %#o, then %#o)",
			      e->name, st.st_mode, e->mode);
	if (e->has_mode && !r->opts->skip_rwx_check && (st.st_mode ^ e->mode) & 07777)
		return refuse(
			EINVAL,
			"file %s: its permissions are %#o, at dump %#o; to restore all the same "
			"give --skip-file-rwx-check",
			e->name, st.st_mode & 07777, e->mode & 07777);
	if (e->has_size && (uint64_t)st.st_size != e->size)
		return refuse(EINVAL,
			      "file %s: its size is %lld, at dump %lld; put the old content back",
			      e->name, (long long)st.st_size, (long long)e->size);
	if (r->opts->file_validation == VALIDATE_BUILDID && e->n_build_id && !(e->flags & O_PATH) &&
	    !has_same_build_id(r, fd, e))
		return refuse(EINVAL,
			      "file %s: its build id differs from that at dump: it is another "
			      "program; put the old one back",
			      e->name);
	return 0;
}

/* Flags that would change the file or the open itself, and those that only dup sets. */
#define OPEN_FLAGS_LEFT_OUT (O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | FASYNC)

int regular_open_part(struct restore *r, const RegFileEntry *e, int flags)
{
	const RemapFilePathEntry *remap = remap_of(r, e->id);

	if (e->ext)
		return refuse(ENOENT,
			      "file %s: it is external; give what takes its place by --inherit-fd "
			      "'fd[N]:%s'",
			      e->name + 1, e->name + 1);

	flags = (flags & ~OPEN_FLAGS_LEFT_OUT) | O_CLOEXEC | O_NOCTTY;
	if (flags & O_TMPFILE_BIT) /* it is there by now, though without a name */
		flags &= ~O_TMPFILE;
	/* A symbolic link can only be held by O_PATH; never follow one that took a file's place. */
	if (e->has_mode && S_ISLNK(e->mode))
		flags |= O_NOFOLLOW;
	/* Should a fifo have taken its place, opening it may not wait. */
	bool is_plain = e->has_mode && S_ISREG(e->mode) && !(flags & (O_NONBLOCK | O_PATH));
	if (is_plain)
		flags |= O_NONBLOCK;
	autoclose int fd = remap ? remap_open(r, remap, e, flags) : open(e->name, flags);
	if (fd < 0)
		return remap ? fd : fail(errno, "file %s: open again", e->name);
	int rc = validate(r, fd, e);
	int now = is_plain ? fcntl(fd, F_GETFL) : 0;
	if (rc == 0 && is_plain && (now < 0 || fcntl(fd, F_SETFL, now & ~O_NONBLOCK) < 0))
		rc = fail(errno, "file %s: set its flags", e->name);
	return rc < 0 ? rc : take_fd(&fd);
}

/* A 32-bit program may have opened it with no more than 2 GiB in view. */
static bool is_small(const struct restore *r, const RegFileEntry *e)
{
	return r->has_compat && !(e->flags & (O_LARGEFILE_BIT | O_PATH)) && e->has_mode &&
	       (S_ISREG(e->mode) || S_ISDIR(e->mode));
}

static int open_small(const RegFileEntry *e, int fd)
{
	char path[32];
	int flags = e->flags & ~(OPEN_FLAGS_LEFT_OUT | O_TMPFILE_BIT | O_NOFOLLOW);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int small = compat_open(path, flags | O_CLOEXEC | O_NOCTTY);
	return small < 0 ? fail(-small, "file %s: open without O_LARGEFILE", e->name) : small;
}

static int open_of_size(struct restore *r, const RegFileEntry *e)
{
	autoclose int fd = regular_open_part(r, e, e->flags);

	return fd < 0 ? fd : is_small(r, e) ? open_small(e, fd) : take_fd(&fd);
}

static int regular_open(struct restore *r, const FileEntry *entry)
{
	const RegFileEntry *e = entry->reg;
	autoclose int fd = open_of_size(r, e);

	if (fd < 0)
		return fd;
	/* A directory that was removed cannot be read any more, from wherever. */
	bool is_gone = S_ISDIR(e->mode) && remap_of(r, e->id);
	if (!(e->flags & O_PATH) && e->pos && lseek(fd, e->pos, SEEK_SET) < 0 && !is_gone)
		return fail(errno, "file %s: seek to %lld", e->name, (long long)e->pos);
	return take_fd(&fd);
}

static bool regular_is_late(const struct restore *r, const FileEntry *e)
{
	return task_of_path(e->reg->name) && !remap_of(r, e->id);
}

/* As seen from the root of the task, without the first slash. */
static void regular_key(const struct restore *r, const FileEntry *e, char *buf, size_t size)
{
	(void)r;
	snprintf(buf, size, "%s", e->reg->name + 1);
}

FILE_PART(regular, reg)

const struct file_class regular_class = {
	.name = "file",
	.type = FD_TYPES__REG,
	.match = regular_match,
	.dump = regular_dump,
	.has_part = regular_has_part,
	.check = regular_check,
	.open = regular_open,
	.is_late = regular_is_late,
	.key = regular_key,
	.fown = regular_fown,
	.flags = regular_flags,
};
