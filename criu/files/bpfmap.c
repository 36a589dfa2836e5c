/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bpf(2) maps of the kinds array and hash: made again, filled, frozen if they were. Programs of the
 * kernel that use the old map do not know of the new one.
 */
#include "files/bpfmap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"

struct dump_bpfmap {
	const BpfmapFileEntry *entry;
	pid_t pid; /* a descriptor of it */
	int fd;
};

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static bool bpfmap_match(const struct fd_probe *p)
{
	return !strcmp(p->link, "anon_inode:bpf-map");
}

static int read_info(int fd, struct bpf_map_info *ret)
{
	union bpf_attr attr = {
		.info = { .bpf_fd = fd, .info_len = sizeof(*ret), .info = (uint64_t)ret }
	};

	memset(ret, 0, sizeof(*ret));
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) < 0 ? -errno : 0;
}

static void check_map(struct dump *d, const struct fd_probe *p, const struct bpf_map_info *info)
{
	const char *why = NULL;

	if (info->type != BPF_MAP_TYPE_HASH && info->type != BPF_MAP_TYPE_ARRAY)
		why = "is neither an array nor a hash";
	else if (info->ifindex)
		why = "belongs to a network device";
	else if ((probe_flags(p) & O_ACCMODE) == O_WRONLY)
		why = "is open for writing only: it cannot be read";
	if (why)
		dump_block(d,
			   "pid %d fd %d: the bpf map %u (%s, type %u) %s; this cannot be dumped",
			   p->task->process->pid, p->fd, info->id, info->name, info->type, why);
}

static bool is_known_map(const struct dump *d, uint32_t id)
{
	for (size_t i = 0; i < d->n_bpfmaps; i++)
		if (d->bpfmaps[i].entry->map_id == id)
			return true;
	return false;
}

static int bpfmap_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	BpfmapFileEntry *m = MESSAGE(&d->arena, BpfmapFileEntry, bpfmap_file_entry);
	struct bpf_map_info info;
	int rc = read_info(p->copy, &info);

	if (rc < 0)
		return fail(-rc, "pid %d fd %d: ask about the bpf map", p->task->process->pid,
			    p->fd);
	check_map(d, p, &info);
	m->id = e->id;
	m->flags = probe_flags(p);
	m->fown = fown_read(d, p);
	m->map_type = info.type;
	m->key_size = info.key_size;
	m->value_size = info.value_size;
	m->map_id = info.id;
	m->max_entries = info.max_entries;
	m->map_flags = info.map_flags;
	m->memlock = probe_number(p, "memlock", 10, 0);
	m->frozen = probe_number(p, "frozen", 10, 0);
	m->map_name = arena_strdup(&d->arena, info.name);
	m->has_map_extra = info.map_extra;
	m->map_extra = info.map_extra;
	e->bpf = m;
	if (!is_known_map(d, info.id))
		*ARENA_PUSH(&d->arena, d->bpfmaps, d->n_bpfmaps) =
			(struct dump_bpfmap){ m, p->task->process->pid, p->fd };
	return 0;
}

/* Elements, one after the other; what others do to the map meanwhile may be seen or not. */
struct elements {
	uint8_t *keys, *values;
	uint32_t n;
};

/* Where the kernel goes on is as long as a key, or 32 bits; it is read before it is written. */
static int read_elements(int fd, const BpfmapFileEntry *m, struct elements *e)
{
	autofree void *place = xmalloc(max((size_t)m->key_size, sizeof(uint32_t)));
	bool is_first = true;
	int rc = 0;

	while (rc == 0 && e->n < m->max_entries) {
		union bpf_attr attr = {
			.batch = { .map_fd = fd,
				   .in_batch = is_first ? 0 : (uint64_t)place,
				   .out_batch = (uint64_t)place,
				   .keys = (uint64_t)(e->keys + (size_t)e->n * m->key_size),
				   .values = (uint64_t)(e->values + (size_t)e->n * m->value_size),
				   .count = m->max_entries - e->n }
		};

		is_first = false;
		rc = bpf(BPF_MAP_LOOKUP_BATCH, &attr) < 0 ? -errno : 0;
		if (rc == 0 || rc == -ENOENT) /* that was the last */
			e->n += attr.batch.count;
	}
	return rc == -ENOENT ? 0 : rc;
}

static int save_map(struct dump *d, const struct dump_bpfmap *b, struct image_out *out)
{
	const BpfmapFileEntry *m = b->entry;
	autofree uint8_t *keys = xmalloc((size_t)m->max_entries * m->key_size);
	autofree uint8_t *values = xmalloc((size_t)m->max_entries * m->value_size);
	struct elements elements = { .keys = keys, .values = values };
	int fd = files_dump_fd(d, b->pid, b->fd);
	int rc = fd < 0 ? fd : read_elements(fd, m, &elements);

	own_close(&fd);
	if (rc < 0)
		return fail(-rc, "pid %d fd %d: read the bpf map %u (%s)", b->pid, b->fd, m->map_id,
			    m->map_name);
	BpfmapDataEntry e = BPFMAP_DATA_ENTRY__INIT;
	e.map_id = m->map_id;
	e.count = elements.n;
	e.keys_bytes = elements.n * m->key_size;
	e.values_bytes = elements.n * m->value_size;
	image_add(out, &e);
	if (elements.n) {
		memcpy(image_add_raw(out, e.keys_bytes), keys, e.keys_bytes);
		memcpy(image_add_raw(out, e.values_bytes), values, e.values_bytes);
	}
	return 0;
}

int bpfmaps_save(struct dump *d)
{
	struct image_out out;
	int rc = 0;

	image_begin(&out, &d->images, IMG_BPFMAP_DATA, 0);
	for (size_t i = 0; i < d->n_bpfmaps && rc == 0; i++)
		rc = save_map(d, &d->bpfmaps[i], &out);
	if (rc == 0)
		return image_commit(&out);
	image_cancel(&out);
	return rc;
}

/* ---- restore ---- */

static int bpfmap_check(const struct restore *r, const FileEntry *entry)
{
	const BpfmapFileEntry *e = entry->bpf;
	const struct snapshot_bpfmap *data = snapshot_bpfmap(&r->snapshot, e->map_id);

	if (e->map_type != BPF_MAP_TYPE_HASH && e->map_type != BPF_MAP_TYPE_ARRAY)
		return refuse(EOPNOTSUPP,
			      "image files.img: bpf map %#x: it is neither an array nor a hash",
			      e->id);
	if (!e->key_size || !e->value_size ||
	    (data && (data->entry->count > e->max_entries ||
		      data->entry->keys_bytes != (uint64_t)data->entry->count * e->key_size ||
		      data->entry->values_bytes != (uint64_t)data->entry->count * e->value_size)))
		return refuse(EINVAL, "image files.img: bpf map %#x: its sizes make no sense",
			      e->id);
	return 0;
}

static int fill_map(struct restore *r, int fd, const BpfmapFileEntry *e)
{
	const struct snapshot_bpfmap *data = snapshot_bpfmap(&r->snapshot, e->map_id);
	union bpf_attr attr = { .batch = { .map_fd = fd } };
	union bpf_attr freeze = { .map_fd = fd };

	if (data && data->entry->count) {
		attr.batch.keys = (uint64_t)data->keys;
		attr.batch.values = (uint64_t)(data->keys + data->entry->keys_bytes);
		attr.batch.count = data->entry->count;
		if (bpf(BPF_MAP_UPDATE_BATCH, &attr) < 0)
			return fail(errno, "bpf map %#x (%s): fill it", e->id, e->map_name);
	}
	if (e->frozen && bpf(BPF_MAP_FREEZE, &freeze) < 0)
		return fail(errno, "bpf map %#x (%s): freeze it", e->id, e->map_name);
	return 0;
}

static int make_map(struct restore *r, const BpfmapFileEntry *e)
{
	union bpf_attr attr = {
		.map_type = e->map_type,
		.key_size = e->key_size,
		.value_size = e->value_size,
		.max_entries = e->max_entries,
		.map_flags = e->map_flags,
		.map_extra = e->map_extra,
	};

	strncpy(attr.map_name, e->map_name, sizeof(attr.map_name) - 1);
	autoclose int fd = bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0)
		return fail(errno, "bpf map %#x (%s): make it", e->id, e->map_name);
	int rc = fill_map(r, fd, e);
	return rc < 0 ? rc : take_fd(&fd);
}

/* Another description of the map, with the access that it has. */
static int open_again(int fd, const BpfmapFileEntry *e)
{
	uint32_t access = e->flags & O_ACCMODE;
	union bpf_attr attr = { .open_flags = access == O_RDONLY   ? BPF_F_RDONLY
					      : access == O_WRONLY ? BPF_F_WRONLY
								   : 0 };
	struct bpf_map_info info;
	int rc = read_info(fd, &info);

	attr.map_id = info.id;
	int other = rc < 0 ? -1 : (int)bpf(BPF_MAP_GET_FD_BY_ID, &attr);
	return other < 0 ? fail(rc < 0 ? -rc : errno, "bpf map %#x (%s): open it once more", e->id,
				e->map_name)
			 : other;
}

/* The description of the same map that was opened before, or -1. */
static int opened_before(struct restore *r, const BpfmapFileEntry *e)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++) {
		const BpfmapFileEntry *other = r->snapshot.files[i]->bpf;

		if (other == e)
			return -1;
		if (other && other->map_id == e->map_id && r->file_fds[i] >= 0)
			return r->file_fds[i];
	}
	return -1;
}

static int bpfmap_open(struct restore *r, const FileEntry *entry)
{
	const BpfmapFileEntry *e = entry->bpf;
	int before = opened_before(r, e);
	int fd = before >= 0 ? open_again(before, e) : make_map(r, e);

	if (fd >= 0 && before < 0 && (e->flags & O_ACCMODE) != O_RDWR) {
		autoclose int made = fd;
		fd = open_again(made, e);
	}
	return fd < 0 ? fd : file_finish(fd, e->flags, "bpf map");
}

FILE_PART(bpfmap, bpf)

const struct file_class bpfmap_class = {
	.name = "bpf map",
	.type = FD_TYPES__BPFMAP,
	.match = bpfmap_match,
	.dump = bpfmap_dump,
	.has_part = bpfmap_has_part,
	.check = bpfmap_check,
	.open = bpfmap_open,
	.fown = bpfmap_fown,
	.flags = bpfmap_flags,
};
