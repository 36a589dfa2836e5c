/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Remaps: see remap.h. Images: remap-fpath, ghost-file-ID.
 *
 * At restore a file gets its old name back for the moment in which it is opened, so that /proc
 * shows that name and "(deleted)" behind it. Where another file has the name by now:
 *  1. the remapped file takes a temporary name beside it; 2. both are exchanged; 3. it is opened
 *  under the old name; 4. the other one is renamed back over it.
 * There is no instant at which the name is missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/dead.h"
#include "files/files.h"
#include "files/remap.h"
#include "proc/text.h"

#define CHUNKS_FROM 12288 /* bytes; smaller files are in one piece, as the format has it */
#define CHUNK_MAX   (1u << 20)
#define BLOCK_SIZE  512 /* of st_blocks */
#define XATTRS_MAX  65536

/* A file that is remapped, once for all that refer to it. */
struct dump_remap {
	dev_t dev;
	ino_t ino;
	const char *who, *path, *source;
	struct stat st;
	uint32_t id; /* of the ghost, or of the file entry of the link */
	RegFileEntry *link_entry;
	bool is_ghost;
	char *link; /* its path while it exists */
	struct dump_remap *next;
};

struct remap_table {
	struct dump_remap *first;
	uint32_t last_ghost;
	RemapFilePathEntry **entries;
	size_t n_entries;
};

static struct remap_table *table(struct dump *d)
{
	if (!d->remap_table)
		d->remap_table = arena_new(&d->arena, struct remap_table);
	return d->remap_table;
}

/* ---- dump ---- */

static struct dump_remap *find(struct dump *d, const struct stat *st)
{
	for (struct dump_remap *m = table(d)->first; m; m = m->next)
		if (m->dev == st->st_dev && m->ino == st->st_ino)
			return m;
	return NULL;
}

static bool is_too_large(struct dump *d, const char *who, const RegFileEntry *reg,
			 const struct stat *st, bool is_mapped)
{
	uint64_t size = (uint64_t)st->st_blocks * BLOCK_SIZE;

	if (!S_ISREG(st->st_mode) || size <= d->opts->ghost_limit ||
	    (is_mapped && d->opts->embed_files))
		return false;
	dump_block(
		d,
		"%s: %s was deleted and has %llu bytes, more than --ghost-limit allows to put into "
		"images; to do so give %s--ghost-limit %llu",
		who, reg->name, (unsigned long long)size, is_mapped ? "--embed-files, or " : "",
		(unsigned long long)size);
	return true;
}

static bool is_overmounted(const char *path, const struct stat *st)
{
	struct stat now;

	return fstatat(AT_FDCWD, path, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev != st->st_dev;
}

/* The folder of the path, or the nearest one above that is still there. */
static void nearest_folder(const char *path, char folder[PATH_MAX])
{
	struct stat st;

	snprintf(folder, PATH_MAX, "%s", path);
	do {
		char *slash = strrchr(folder, '/');

		slash[slash == folder] = '\0';
	} while (folder[1] && (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode)));
}

/* The entry of the link stands for the same file, with nothing of the description. */
static RegFileEntry *add_link_entry(struct dump *d, const RegFileEntry *reg)
{
	FileEntry *e = files_new_entry(d);
	char folder[PATH_MAX], name[PATH_MAX + 32];

	nearest_folder(reg->name, folder);
	snprintf(name, sizeof(name), "%s/link_remap.%u", folder, e->id);
	e->type = FD_TYPES__REG;
	e->reg = MESSAGE(&d->arena, RegFileEntry, reg_file_entry);
	e->reg->id = e->id;
	e->reg->fown = MESSAGE(&d->arena, FownEntry, fown_entry);
	e->reg->name = arena_strdup(&d->arena, name);
	e->reg->has_mode = reg->has_mode;
	e->reg->mode = reg->mode;
	return e->reg;
}

static struct dump_remap *add(struct dump *d, const char *who, const char *source,
			      const struct stat *st, const RegFileEntry *reg, bool is_mapped)
{
	bool is_ghost = st->st_nlink == 0;

	if (is_ghost && is_too_large(d, who, reg, st, is_mapped))
		return NULL;
	if (!is_ghost && S_ISDIR(st->st_mode)) {
		dump_block(d,
			   "%s: the directory %s was moved or is hidden by a mount; this cannot "
			   "be dumped",
			   who, reg->name);
		return NULL;
	}
	if (!is_ghost && !d->opts->link_remap) {
		dump_block(d,
			   "%s: %s was deleted, but has %lu other link(s); to hold it by a "
			   "temporary link beside it give --link-remap",
			   who, reg->name, (unsigned long)st->st_nlink);
		return NULL;
	}
	struct dump_remap *m = arena_new(&d->arena, struct dump_remap);
	*m = (struct dump_remap){ .dev = st->st_dev,
				  .ino = st->st_ino,
				  .who = arena_strdup(&d->arena, who),
				  .path = reg->name,
				  .source = arena_strdup(&d->arena, source),
				  .st = *st,
				  .is_ghost = is_ghost,
				  .next = table(d)->first };
	m->link_entry = is_ghost ? NULL : add_link_entry(d, reg);
	m->id = is_ghost ? ++table(d)->last_ghost : m->link_entry->id;
	return table(d)->first = m;
}

bool remap_is_noted(const struct dump *d, uint32_t file_id)
{
	const struct remap_table *t = d->remap_table;

	for (size_t i = 0; t && i < t->n_entries; i++)
		if (t->entries[i]->orig_id == file_id)
			return true;
	return false;
}

static void add_entry(struct dump *d, const RegFileEntry *reg, uint32_t remap_id, RemapType type)
{
	RemapFilePathEntry *e = MESSAGE(&d->arena, RemapFilePathEntry, remap_file_path_entry);

	e->orig_id = reg->id;
	e->remap_id = remap_id;
	e->has_remap_type = true;
	e->remap_type = type;
	*ARENA_PUSH(&d->arena, table(d)->entries, table(d)->n_entries) = e;
}

void remap_note(struct dump *d, const char *who, const char *source, const struct stat *st,
		RegFileEntry *reg, bool is_mapped)
{
	struct dump_remap *m = find(d, st);

	if (!m && st->st_nlink && is_overmounted(reg->name, st)) {
		dump_block(d, "%s: %s is hidden by a mount; unmount that first", who, reg->name);
		return;
	}
	if (!m)
		m = add(d, who, source, st, reg, is_mapped);
	if (!m)
		return;
	add_entry(d, reg, m->id, m->is_ghost ? REMAP_TYPE__GHOST : REMAP_TYPE__LINKED);
}

void remap_note_process(struct dump *d, pid_t pid, const RegFileEntry *reg)
{
	add_entry(d, reg, pid, REMAP_TYPE__PROCFS);
}

static Timeval *make_time(struct arena *a, const struct timespec *t)
{
	Timeval *v = MESSAGE(a, Timeval, timeval);

	v->tv_sec = t->tv_sec;
	v->tv_usec = t->tv_nsec / 1000;
	return v;
}

static int add_xattr(struct arena *a, GhostFileEntry *e, const char *source, const char *name)
{
	char value[XATTRS_MAX];
	ssize_t len = getxattr(source, name, value, sizeof(value));

	if (len < 0)
		return errno == ENODATA || errno == EOPNOTSUPP ? 0 : -errno;
	GhostXattrEntry *x = MESSAGE(a, GhostXattrEntry, ghost_xattr_entry);
	x->name = arena_strdup(a, name);
	x->value.data = arena_memdup(a, value, len);
	x->value.len = len;
	*ARENA_PUSH(a, e->xattrs, e->n_xattrs) = x;
	return 0;
}

static int add_xattrs(struct arena *a, GhostFileEntry *e, const char *source)
{
	char names[XATTRS_MAX];
	ssize_t len = listxattr(source, names, sizeof(names));
	int rc = len < 0 && errno != EOPNOTSUPP ? -errno : 0;

	for (ssize_t pos = 0; pos < len && rc == 0; pos += strlen(names + pos) + 1)
		rc = add_xattr(a, e, source, names + pos);
	return rc;
}

static int make_ghost_entry(struct arena *a, const struct dump_remap *m, GhostFileEntry **ret)
{
	GhostFileEntry *e = MESSAGE(a, GhostFileEntry, ghost_file_entry);
	char target[PATH_MAX];

	e->uid = m->st.st_uid;
	e->gid = m->st.st_gid;
	e->mode = m->st.st_mode;
	e->has_dev = e->has_ino = true;
	e->dev = m->st.st_dev;
	e->ino = m->st.st_ino;
	e->has_rdev = S_ISCHR(m->st.st_mode) || S_ISBLK(m->st.st_mode);
	e->rdev = e->has_rdev ? m->st.st_rdev : 0;
	e->atim = make_time(a, &m->st.st_atim);
	e->mtim = make_time(a, &m->st.st_mtim);
	/* Below the microseconds of the format. */
	e->atim_nsec = m->st.st_atim.tv_nsec % 1000;
	e->has_atim_nsec = e->atim_nsec != 0;
	e->mtim_nsec = m->st.st_mtim.tv_nsec % 1000;
	e->has_mtim_nsec = e->mtim_nsec != 0;
	if (S_ISREG(m->st.st_mode)) {
		e->has_chunks = m->st.st_size >= CHUNKS_FROM;
		e->chunks = e->has_chunks;
		e->has_size = true;
		e->size = m->st.st_size;
	}
	*ret = e;
	if (!S_ISLNK(m->st.st_mode))
		return add_xattrs(a, e, m->source);
	autoclose int fd = open(m->source, O_PATH | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : readlinkat(fd, "", target, sizeof(target) - 1);
	if (len < 0)
		return -errno;
	target[len] = '\0';
	e->symlnk_target = arena_strdup(a, target);
	return 0;
}

static int copy_in(struct image_out *out, int fd, off_t pos, size_t len)
{
	int rc = pread_all(fd, image_add_raw(out, len), len, pos);

	return rc < 0 ? rc : 0;
}

/* Only what is not a hole. */
static int add_chunks(struct image_out *out, int fd, off_t size)
{
	off_t end = 0;

	while (end < size) {
		off_t start = lseek(fd, end, SEEK_DATA);
		if (start < 0 && errno == ENXIO)
			return 0;
		end = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			return -errno;
		end = min(end, size);
		for (off_t pos = start; pos < end; pos += CHUNK_MAX) {
			GhostChunkEntry e = GHOST_CHUNK_ENTRY__INIT;

			e.off = pos;
			e.len = min(end - pos, (off_t)CHUNK_MAX);
			image_add_message(out, &e.base);
			int rc = copy_in(out, fd, pos, e.len);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

static int save_ghost(struct dump *d, const struct dump_remap *m)
{
	GhostFileEntry *e;
	struct image_out out;
	int rc = make_ghost_entry(&d->arena, m, &e);

	if (rc < 0)
		return fail(-rc, "%s: read what the deleted file %s is", m->who, m->path);
	image_begin(&out, &d->images, IMG_GHOST_FILE, m->id);
	image_add(&out, e);
	if (S_ISREG(m->st.st_mode) && m->st.st_size) {
		autoclose int fd = open(m->source, O_RDONLY | O_CLOEXEC | O_NOATIME);

		rc = fd < 0	 ? -errno
		     : e->chunks ? add_chunks(&out, fd, m->st.st_size)
				 : copy_in(&out, fd, 0, m->st.st_size);
	}
	if (rc < 0) {
		image_cancel(&out);
		return fail(-rc, "%s: read the deleted file %s", m->who, m->path);
	}
	return image_commit(&out);
}

static int make_link(struct dump *d, struct dump_remap *m)
{
	char folder[PATH_MAX], link[PATH_MAX + 32];

	nearest_folder(m->path, folder);
	snprintf(link, sizeof(link), "%s/link_remap.%u", folder, m->id);
	/* A number may be taken by another dump that waits for its restore. */
	for (uint32_t n = m->id;
	     linkat(AT_FDCWD, m->source, AT_FDCWD, link, AT_SYMLINK_FOLLOW) < 0;) {
		if (errno != EEXIST)
			return fail(errno, "%s: %s: make a temporary link to the deleted file %s",
				    m->who, link, m->path);
		snprintf(link, sizeof(link), "%s/link_remap.%u", folder, ++n);
	}
	m->link_entry->name = arena_strdup(&d->arena, link);
	m->link = arena_strdup(&d->arena, link);
	info("%s: %s holds the deleted file %s", m->who, link, m->path);
	return 0;
}

int remap_save(struct dump *d)
{
	int rc = 0;

	for (struct dump_remap *m = table(d)->first; m && rc == 0; m = m->next)
		rc = m->is_ghost ? save_ghost(d, m) : make_link(d, m);
	return rc;
}

void files_remove_links(struct dump *d)
{
	for (struct dump_remap *m = d->remap_table ? d->remap_table->first : NULL; m; m = m->next) {
		if (m->link && unlink(m->link) < 0)
			warn("%s: remove the temporary link: %s", m->link, strerror(errno));
		m->link = NULL;
	}
}

int remap_write_image(struct dump *d)
{
	struct image_out out;

	image_begin(&out, &d->images, IMG_REMAP_FPATH, 0);
	for (size_t i = 0; i < table(d)->n_entries; i++)
		image_add(&out, table(d)->entries[i]);
	return image_commit(&out);
}

/* ---- restore ---- */

const RemapFilePathEntry *remap_of(const struct restore *r, uint32_t file_id)
{
	const struct snapshot *s = &r->snapshot;

	for (size_t i = 0; i < s->n_remaps; i++)
		if (s->remaps[i]->orig_id == file_id)
			return s->remaps[i];
	return NULL;
}

static int write_content(struct snapshot_ghost *g, int fd)
{
	int rc = 0;

	for (size_t i = 0; i < g->n_chunks && rc == 0; i++)
		rc = pwrite_all(fd, g->chunks[i].data, g->chunks[i].len, g->chunks[i].off);
	if (rc == 0 && ftruncate(fd, g->size) < 0)
		rc = -errno;
	return rc;
}

static int make_node(struct snapshot_ghost *g, const char *path)
{
	const GhostFileEntry *e = g->entry;

	if (S_ISDIR(e->mode))
		return mkdir(path, 0700) < 0 ? -errno : 0;
	if (S_ISLNK(e->mode))
		return symlink(e->symlnk_target, path) < 0 ? -errno : 0;
	if (!S_ISREG(e->mode))
		return mknod(path, e->mode, e->rdev) < 0 ? -errno : 0;
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : write_content(g, fd);
}

/* Owner, mode, attributes and times; a link in /proc is followed, one that is a ghost is not. */
static int dress(struct snapshot_ghost *g, const char *path, bool follow)
{
	const GhostFileEntry *e = g->entry;
	const struct timespec times[2] = {
		{ e->atim ? e->atim->tv_sec : 0,
		  e->atim ? (long)e->atim->tv_usec * 1000 + e->atim_nsec : UTIME_OMIT },
		{ e->mtim ? e->mtim->tv_sec : 0,
		  e->mtim ? (long)e->mtim->tv_usec * 1000 + e->mtim_nsec : UTIME_OMIT },
	};

	if (fchownat(AT_FDCWD, path, e->uid, e->gid, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISLNK(e->mode) && chmod(path, e->mode & 07777) < 0)
		return -errno;
	for (size_t i = 0; i < e->n_xattrs; i++) {
		const GhostXattrEntry *x = e->xattrs[i];

		if ((follow ? setxattr : lsetxattr)(path, x->name, x->value.data, x->value.len,
						    0) == 0)
			continue;
		/* Labels and the like are not for everybody, nor for every file system. */
		if ((errno != EPERM && errno != EOPNOTSUPP) || !strncmp(x->name, "user.", 5))
			return -errno;
		warn("file %s: set its attribute %s: %s", path, x->name, strerror(errno));
	}
	return utimensat(AT_FDCWD, path, times, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* files_clean_up removes it. */
static void note_name(struct restore *r, const char *path)
{
	*ARENA_PUSH(&r->arena, r->made, r->n_made) = arena_strdup(&r->arena, path);
}

static bool is_made(const struct restore *r, const char *path)
{
	for (size_t i = 0; i < r->n_made; i++)
		if (!strcmp(r->made[i], path))
			return true;
	return false;
}

/* Directories on the way that are gone too; files_clean_up removes them again. */
int files_make_parents(struct restore *r, const char *path)
{
	char part[PATH_MAX];

	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(part, 0755) == 0)
			note_name(r, part);
		else if (errno != EEXIST)
			return fail(errno, "file %s: make the directory %s again", path, part);
		*slash = '/';
	}
	return 0;
}

static int rename_how(const char *a, const char *b, unsigned how)
{
	return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, how) < 0 ? -errno : 0;
}

static int exchange(const char *a, const char *b)
{
	return rename_how(a, b, RENAME_EXCHANGE);
}

static bool is_same_file(const char *a, const char *b)
{
	struct stat x, y;

	return lstat(a, &x) == 0 && lstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

/* Where nobody else has taken the name meanwhile. */
static int rename_back(const char *from, const char *to)
{
	int rc = rename_how(from, to, RENAME_NOREPLACE);

	if (rc < 0 && rc != -EEXIST)
		rc = rename(from, to) < 0 ? -errno : 0;
	return rc;
}

static void spare_name(char name[PATH_MAX + 32], const char *path, uint32_t remap_id)
{
	snprintf(name, PATH_MAX + 32, "%s.cr.%x.tmp", path, remap_id);
}

/*
 * A restore that was killed in the middle of open_file has left names of our file: the old one, or
 * the spare one; or, after the exchange, the spare name is that of the other file. The old name of
 * a link stays: somebody may have given it back to the file.
 */
static void undo_killed_open(const char *source, const char *path, uint32_t remap_id)
{
	char spare[PATH_MAX + 32];
	struct stat st;

	spare_name(spare, path, remap_id);
	if (lstat(spare, &st) < 0)
		return;
	if (is_same_file(spare, source)) {
		(void)unlink(spare);
		return;
	}
	if (is_same_file(path, source))
		(void)unlink(path);
	(void)rename_back(spare, path);
}

/*
 * A directory has no second name: it goes to its old place itself, where it looks like any other.
 * Until it is removed there a link beside it tells its inode, in case that criu is killed.
 */
static void name_of_note(char name[PATH_MAX + 32], const char *path, uint32_t id)
{
	snprintf(name, PATH_MAX + 32, "%s.cr.%x.moved", path, id);
}

static void make_note(const char *note, const char *ghost)
{
	struct stat st;
	char ino[24];

	if (lstat(ghost, &st) < 0)
		return;
	snprintf(ino, sizeof(ino), "%lu", st.st_ino);
	(void)symlink(ino, note);
}

static bool is_noted(const char *note, const char *path)
{
	struct stat st;
	uint64_t ino;
	char text[24];

	return read_link_at(AT_FDCWD, note, text, sizeof(text)) > 0 && text_dec(text, &ino) &&
	       lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_ino == ino;
}

/* Who had the name may have got that of the ghost for it. */
static void undo_killed_move(const char *note, const char *ghost, const char *path)
{
	struct stat st;

	if (is_noted(note, path))
		(void)rmdir(exchange(ghost, path) < 0 ? path : ghost);
	else if (lstat(note, &st) < 0 || is_noted(note, ghost))
		(void)rmdir(ghost);
	else
		(void)rename_how(ghost, path, RENAME_NOREPLACE);
	(void)unlink(note);
}

static void remove_killed_ghost(struct snapshot_ghost *g, const char *name, const char *path)
{
	char note[PATH_MAX + 32];
	struct stat st;

	name_of_note(note, path, g->id);
	if (lstat(name, &st) < 0 && lstat(note, &st) < 0)
		return;
	warn("file %s: a restore that was killed has left it; it is made anew", name);
	if (S_ISDIR(g->entry->mode)) {
		undo_killed_move(note, name, path);
		return;
	}
	undo_killed_open(name, path, g->id);
	if (is_same_file(path, name))
		(void)unlink(path);
	(void)unlink(name);
}

static int make_ghost(struct restore *r, struct snapshot_ghost *g, const char *path)
{
	char name[PATH_MAX + 32];
	int rc = files_make_parents(r, path);

	if (rc < 0)
		return rc;
	snprintf(name, sizeof(name), "%s.cr.%x.ghost", path, g->id);
	remove_killed_ghost(g, name, path);
	if (access(name, F_OK) < 0) /* what is made, in part even, is removed at the end */
		g->path = arena_strdup(&r->arena, name);
	rc = make_node(g, name);
	if (rc == -EROFS)
		return refuse(
			EROFS,
			"file %s: it was deleted and has to be made again, but its file system "
			"is mounted read-only; remount it for the restore",
			path);
	if (rc < 0)
		return fail(-rc, "file %s: make the deleted file again", name);
	rc = dress(g, name, false);
	return rc < 0 ? fail(-rc, "file %s: set its owner, mode and times", name) : 0;
}

static struct snapshot_ghost *ghost_of(struct restore *r, uint32_t id)
{
	for (size_t i = 0; i < r->snapshot.n_ghosts; i++)
		if (r->snapshot.ghosts[i].id == id)
			return &r->snapshot.ghosts[i];
	return NULL;
}

/* The ghost itself goes to the old place, and is then no more. */
static int move_dir(const char *ghost, const char *path)
{
	int rc = rename_how(ghost, path, RENAME_NOREPLACE);

	if (rc != -EINVAL && rc != -ENOSYS)
		return rc;
	if (mkdir(path, 0700) < 0) /* such a file system cannot */
		return -errno;
	rc = rename(ghost, path) < 0 ? -errno : 0;
	if (rc < 0)
		(void)rmdir(path);
	return rc;
}

/* Opens under a name that another file has; spare is a name of our file. Eats the spare name. */
static int open_in_place_of(struct restore *r, const char *spare, const char *path, int flags,
			    bool is_dir)
{
	int rc = exchange(spare, path);

	if (rc < 0) { /* not every file system can: the name in /proc is another one then */
		autoclose int fd = rc == -EINVAL || rc == -ENOSYS ? open(spare, flags) : -1;

		if (rc == -EINVAL || rc == -ENOSYS)
			rc = fd < 0 ? -errno : 0;
		(void)(is_dir ? rmdir(spare) : unlink(spare));
		return rc < 0 ? rc : take_fd(&fd);
	}
	autoclose int fd = open(path, flags);
	rc = fd < 0 ? -errno : 0;
	if (rename(spare, path) == 0)
		return rc < 0 ? rc : take_fd(&fd);
	/* A file cannot be renamed over a directory, nor that over a file. */
	int gone = (is_dir ? rmdir(path) : unlink(path)) < 0 ? -errno : 0;
	if (gone == 0) {
		gone = rename_back(spare, path);
	} else {
		(void)exchange(spare, path);
		note_name(r, spare);
	}
	rc = rc < 0 ? rc : gone;
	return rc < 0 ? rc : take_fd(&fd);
}

static int open_moved(struct restore *r, struct snapshot_ghost *g, const char *path, int flags,
		      off_t pos)
{
	int rc = move_dir(g->path, path);

	if (rc == -EEXIST)
		return open_in_place_of(r, g->path, path, flags, true);
	if (rc < 0)
		return rc;
	autoclose int fd = open(path, flags);
	rc = fd < 0 ? -errno : 0;
	/* Some file systems let nobody seek in a directory that is removed. */
	if (fd >= 0 && !(flags & O_PATH))
		(void)lseek(fd, pos, SEEK_SET);
	if (rmdir(path) < 0) {
		note_name(r, path);
		return -errno;
	}
	return rc < 0 ? rc : take_fd(&fd);
}

static int open_dir(struct restore *r, struct snapshot_ghost *g, const char *path, int flags,
		    off_t pos)
{
	char note[PATH_MAX + 32];

	name_of_note(note, path, g->id);
	make_note(note, g->path);
	int rc = open_moved(r, g, path, flags, pos);
	if (unlink(note) < 0 && errno != ENOENT)
		note_name(r, note);
	return rc;
}

static int open_file(struct restore *r, const char *source, const char *path, uint32_t remap_id,
		     int flags)
{
	undo_killed_open(source, path, remap_id);
	/* It has the name yet if that could not be taken away again. */
	if (link(source, path) == 0 || (errno == EEXIST && is_made(r, path))) {
		autoclose int fd = open(path, flags);
		int rc = fd < 0 ? -errno : 0;

		if (unlink(path) < 0) {
			rc = -errno;
			note_name(r, path);
		}
		return rc < 0 ? rc : take_fd(&fd);
	}
	if (errno != EEXIST)
		return -errno;
	char spare[PATH_MAX + 32];
	spare_name(spare, path, remap_id);
	if (link(source, spare) < 0)
		return -errno;
	return open_in_place_of(r, spare, path, flags, false);
}

/* The entry of a ghost that was made with O_TMPFILE; only its description shows that. */
static const RegFileEntry *nameless_entry(const struct restore *r, uint32_t ghost)
{
	const struct snapshot *s = &r->snapshot;

	for (size_t i = 0; i < s->n_remaps; i++) {
		const RegFileEntry *e = s->files[snapshot_file(s, s->remaps[i]->orig_id)]->reg;

		if (s->remaps[i]->remap_id == ghost &&
		    s->remaps[i]->remap_type == REMAP_TYPE__GHOST && e->flags & O_TMPFILE_BIT &&
		    (e->flags & O_ACCMODE) != O_RDONLY)
			return e;
	}
	return NULL;
}

/* Such a file can still be given a name (linkat), which a deleted one cannot: made in the same way.
 */
static int make_nameless(struct restore *r, struct snapshot_ghost *g, uint32_t id)
{
	const RegFileEntry *e = nameless_entry(r, id);
	char dir[PATH_MAX], link[64];

	if (!e)
		return 0;
	int rc = files_make_parents(r, e->name);
	if (rc < 0)
		return rc;
	nearest_folder(e->name, dir);
	int flags = O_TMPFILE | (e->flags & (O_ACCMODE | O_SYNC | O_DSYNC)) | O_CLOEXEC;
	int fd = open(dir, flags, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) /* not every file system can */
		return 0;
	if (fd < 0)
		return -errno;
	fd = files_own_number(r, fd);
	if (fd < 0)
		return fd;
	g->kept_fd = fd + 1;
	g->nameless = e;
	rc = write_content(g, fd);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return rc < 0 ? rc : dress(g, link, true);
}

/* What is kept open leads to a file without a name as often as it is needed. */
static int open_kept(const struct snapshot_ghost *g, const RegFileEntry *e, int flags)
{
	int fd = g->nameless == e ? fcntl(g->kept_fd - 1, F_DUPFD_CLOEXEC, 0)
				  : file_reopen(g->kept_fd - 1, flags);

	if (fd < 0)
		return fail(g->nameless == e ? errno : -fd, "file %s: open the deleted file again",
			    e->name);
	return flags & O_PATH ? fd : file_finish(fd, e->flags, e->name);
}

/* Returns the descriptor. */
static int keep(struct restore *r, struct snapshot_ghost *g, int fd)
{
	autoclose int opened = fd;
	int kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	kept = kept < 0 ? -errno : files_own_number(r, kept);
	if (kept < 0)
		return kept;
	g->kept_fd = kept + 1;
	return take_fd(&opened);
}

/* The kernel itself opens a file of the process that has the number. */
static int open_of_process(struct restore *r, pid_t pid, const RegFileEntry *e, int flags)
{
	pid_t child = dead_by_pid(r, pid);

	if (child == -EEXIST)
		return refuse(
			EEXIST,
			"file %s: it is of a process that had ended, whose pid %d is needed for a "
			"moment, and is taken; end that process, or restore into a new pid "
			"namespace (--pidns=new)",
			e->name, pid);
	if (child < 0)
		return fail(-child, "file %s: make a process with pid %d for a moment", e->name,
			    pid);
	int fd = open(e->name, flags);
	return fd < 0 ? fail(errno, "file %s: open again", e->name) : fd;
}

int remap_open(struct restore *r, const RemapFilePathEntry *remap, const RegFileEntry *e, int flags)
{
	int rc;

	if (remap->remap_type == REMAP_TYPE__PROCFS)
		return open_of_process(r, remap->remap_id, e, flags);

	if (remap->remap_type == REMAP_TYPE__LINKED) {
		int i = snapshot_file(&r->snapshot, remap->remap_id);

		rc = files_make_parents(r, e->name);
		if (rc == 0)
			rc = open_file(r, r->snapshot.files[i]->reg->name, e->name, remap->remap_id,
				       flags);
		return rc < 0 ? fail(-rc, "file %s: open it through %s", e->name,
				     r->snapshot.files[i]->reg->name)
			      : rc;
	}
	struct snapshot_ghost *g = ghost_of(r, remap->remap_id);
	bool is_dir = S_ISDIR(g->entry->mode);
	if (g->kept_fd <= 0 && S_ISREG(g->entry->mode)) {
		rc = make_nameless(r, g, remap->remap_id);
		if (rc < 0)
			return fail(-rc, "file %s: make the file without a name again", e->name);
	}
	if (g->kept_fd > 0)
		return open_kept(g, e, flags);
	if (!g->path || is_dir) {
		rc = make_ghost(r, g, e->name);
		if (rc < 0)
			return rc;
	}
	rc = files_make_parents(r, e->name);
	if (rc == 0)
		rc = is_dir ? open_dir(r, g, e->name, flags, e->pos)
			    : open_file(r, g->path, e->name, g->id, flags);
	if (is_dir && (rc >= 0 || access(g->path, F_OK) < 0))
		g->path = NULL;
	if (is_dir && rc >= 0)
		rc = keep(r, g, rc);
	return rc < 0 ? fail(-rc, "file %s: open the deleted file again", e->name) : rc;
}

int files_clean_up(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->snapshot.n_ghosts; i++) {
		struct snapshot_ghost *g = &r->snapshot.ghosts[i];

		if (g->path && remove(g->path) < 0 && errno != ENOENT)
			rc = fail(errno, "file %s: remove it again", g->path);
		else
			g->path = NULL;
		if (g->kept_fd > 0)
			(void)close(g->kept_fd - 1);
		g->kept_fd = 0;
	}
	/* Somebody else may use the directories by now. */
	for (; r->n_made && rc == 0; r->n_made -= rc == 0)
		if (remove(r->made[r->n_made - 1]) < 0 && errno != ENOENT && errno != ENOTEMPTY)
			rc = fail(errno, "file %s: remove it again", r->made[r->n_made - 1]);
	return rc;
}

void files_forget_links(struct restore *r)
{
	const struct snapshot *s = &r->snapshot;

	for (size_t i = 0; i < s->n_remaps; i++) {
		if (s->remaps[i]->remap_type != REMAP_TYPE__LINKED)
			continue;
		const RegFileEntry *e = s->files[snapshot_file(s, s->remaps[i]->remap_id)]->reg;
		const char *name = strrchr(e->name, '/');
		if (strncmp(name, "/link_remap.", 12)) /* NFS made it, or somebody else */
			continue;
		if (unlink(e->name) < 0 && errno != ENOENT)
			warn("%s: remove the temporary link: %s", e->name, strerror(errno));
	}
}
