/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "image/image.h"
#include "image/messages.h"

#define COMMON_MAGIC  0x54564319u
#define SERVICE_MAGIC 0x55105940u
#define IMAGE_MODE    0644
#define IMAGE_MAX     (1ull << 30) /* of an image that is read into memory */

#define none__descriptor (*(const ProtobufCMessageDescriptor *)NULL)

/* clang-format off */
const struct image_info image_table[IMAGE_TYPES] = {
#define IMAGE(name, file, magic, framing, message) \
	[IMG_##name] = { file, magic, framing, &message##__descriptor },
#include "image/types.def"
#undef IMAGE
};
/* clang-format on */

void image_name(enum image_type type, unsigned long id, char name[IMAGE_NAME_MAX])
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
	const char *format = image_table[type].file, *percent = strchr(format, '%');
	char wide[IMAGE_NAME_MAX];

	if (!percent) {
		snprintf(name, IMAGE_NAME_MAX, "%s", format);
		return;
	}
	/* The table has %u and %x; the numbers are wider. */
	snprintf(wide, sizeof(wide), "%.*s%%l%s", (int)(percent - format), format, percent + 1);
	snprintf(name, IMAGE_NAME_MAX, wide, id);
#pragma GCC diagnostic pop
}

void image_dir_init(struct image_dir *d, int fd)
{
	*d = (struct image_dir){ .fd = fd };
}

int image_dir_check(const struct image_dir *d, const char *path)
{
	struct stat st, now;

	if (fstat(d->fd, &st) < 0 || stat(path, &now) < 0)
		return fail(errno, "images directory %s", path);
	if (st.st_nlink == 0 || st.st_dev != now.st_dev || st.st_ino != now.st_ino)
		return refuse(ENOENT,
			      "images directory %s: it is not the one any more that the images "
			      "were written to",
			      path);
	for (size_t i = 0; i < d->n_written; i++)
		if (fstatat(d->fd, d->written[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			return fail(errno, "image %s: look whether it is still there",
				    d->written[i]);
	return 0;
}

void image_dir_discard(struct image_dir *d)
{
	for (size_t i = 0; i < d->n_written; i++)
		if (unlinkat(d->fd, d->written[i], 0) < 0 && errno != ENOENT)
			warn("image %s of the failed dump stays behind: %s", d->written[i],
			     strerror(errno));
	d->n_written = 0;
}

void image_dir_done(struct image_dir *d)
{
	arena_done(&d->arena);
	d->n_written = 0;
}

static int create(struct image_dir *d, const char *name)
{
	int fd = openat(d->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, IMAGE_MODE);

	if (fd < 0)
		return fail(errno, "image %s: create (see --images-dir)", name);
	*ARENA_PUSH(&d->arena, d->written, d->n_written) = arena_strdup(&d->arena, name);
	return fd;
}

int image_dir_link(struct image_dir *d, const char *name, const char *target)
{
	if (symlinkat(target, d->fd, name) == 0)
		*ARENA_PUSH(&d->arena, d->written, d->n_written) = arena_strdup(&d->arena, name);
	else if (errno != EEXIST)
		return fail(errno, "image %s: make it a link to %s", name, target);
	return 0;
}

int image_link(struct image_dir *d, enum image_type type, unsigned long id, const char *target)
{
	char name[IMAGE_NAME_MAX];

	image_name(type, id, name);
	return image_dir_link(d, name, target);
}

int image_create_raw(struct image_dir *d, enum image_type type, unsigned long id)
{
	char name[IMAGE_NAME_MAX];

	image_name(type, id, name);
	return create(d, name);
}

bool image_is_on_disk(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC;
}

static void *room(struct image_out *out, size_t need)
{
	if (out->size - out->len < need) {
		out->size = max(out->size * 2, out->len + need);
		out->size = max(out->size, (size_t)1024);
		out->data = xrealloc(out->data, out->size);
	}
	void *p = out->data + out->len;
	out->len += need;
	return p;
}

static void add_u32(struct image_out *out, uint32_t v)
{
	memcpy(room(out, sizeof(v)), &v, sizeof(v));
}

void image_begin(struct image_out *out, struct image_dir *d, enum image_type type, unsigned long id)
{
	const struct image_info *t = &image_table[type];

	*out = (struct image_out){ .dir = d, .type = type, .id = id };
	if (t->framing == COMMON)
		add_u32(out, COMMON_MAGIC);
	if (t->framing == SERVICE)
		add_u32(out, SERVICE_MAGIC);
	add_u32(out, t->magic);
}

void image_add_message(struct image_out *out, const ProtobufCMessage *message)
{
	size_t size = protobuf_c_message_get_packed_size(message);

	add_u32(out, size);
	protobuf_c_message_pack(message, room(out, size));
	out->n_entries++;
}

void image_add(struct image_out *out, const void *message)
{
	image_add_message(out, message);
}

void *image_add_raw(struct image_out *out, size_t size)
{
	return room(out, size);
}

void image_cancel(struct image_out *out)
{
	free(out->data);
	out->data = NULL;
}

int image_commit(struct image_out *out)
{
	char name[IMAGE_NAME_MAX];
	autofree char *data = take_ptr(out->data);

	image_name(out->type, out->id, name);
	if (!out->n_entries) {
		if (unlinkat(out->dir->fd, name, 0) < 0 && errno != ENOENT)
			return fail(errno, "image %s: remove the stale one", name);
		return 0;
	}
	autoclose int fd = create(out->dir, name);
	if (fd < 0)
		return fd;
	int rc = write_all(fd, data, out->len);
	if (rc < 0)
		return fail(-rc, "image %s: write %zu bytes", name, out->len);
	return 0;
}

int image_write_one(struct image_dir *d, enum image_type type, unsigned long id,
		    const void *message)
{
	struct image_out out;

	image_begin(&out, d, type, id);
	image_add(&out, message);
	return image_commit(&out);
}

static int read_u32(struct image_in *in, uint32_t *ret)
{
	if (in->len - in->pos < sizeof(*ret))
		return -ENODATA;
	memcpy(ret, in->data + in->pos, sizeof(*ret));
	in->pos += sizeof(*ret);
	return 0;
}

static int check_magics(struct image_in *in)
{
	const struct image_info *t = &image_table[in->type];
	uint32_t magic = 0;

	if (t->framing != SINGLE) {
		uint32_t want = t->framing == COMMON ? COMMON_MAGIC : SERVICE_MAGIC;

		if (read_u32(in, &magic) < 0)
			return refuse(EINVAL, "image %s: too short (%zu bytes) to be an image",
				      in->name, in->len);
		if (magic == t->magic && want == COMMON_MAGIC) /* version 1 has one magic only */
			return 0;
		if (magic != want)
			return refuse(EINVAL,
				      "image %s: not an image: it starts with %#x instead of %#x",
				      in->name, magic, want);
	}
	if (read_u32(in, &magic) < 0)
		return refuse(EINVAL, "image %s: too short (%zu bytes) to be an image", in->name,
			      in->len);
	if (magic != t->magic)
		return refuse(EINVAL,
			      "image %s: its content is of another type: magic %#x instead of %#x",
			      in->name, magic, t->magic);
	return 0;
}

int image_open(struct image_in *in, int dirfd, enum image_type type, unsigned long id)
{
	struct stat st;

	*in = (struct image_in){ .type = type };
	image_name(type, id, in->name);
	autoclose int fd = openat(dirfd, in->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(errno, "image %s: open", in->name);
	if (!S_ISREG(st.st_mode))
		return refuse(EINVAL, "image %s: not a regular file", in->name);
	if ((uint64_t)st.st_size > IMAGE_MAX)
		return refuse(EFBIG, "image %s: %lld bytes are too many for its type", in->name,
			      (long long)st.st_size);
	in->len = st.st_size;
	in->data = xmalloc(in->len);
	int rc = read_all(fd, in->data, in->len);
	if (rc < 0)
		rc = fail(-rc, "image %s: read", in->name);
	else
		rc = check_magics(in);
	if (rc < 0)
		image_close(in);
	return rc < 0 ? rc : 1;
}

void image_close(struct image_in *in)
{
	free(in->data);
	in->data = NULL;
}

static void *unpack_alloc(void *arena, size_t size)
{
	return arena_alloc(arena, size);
}

static void unpack_free(void *arena, void *p)
{
	(void)arena, (void)p;
}

int image_next(struct image_in *in, struct arena *a, const ProtobufCMessageDescriptor *desc,
	       void *ret_message)
{
	ProtobufCAllocator allocator = { unpack_alloc, unpack_free, a };
	size_t start = in->pos;
	uint32_t size;

	if (in->pos == in->len)
		return 0;
	if (read_u32(in, &size) < 0 || in->len - in->pos < size)
		return refuse(EINVAL, "image %s: truncated in the entry at offset %zu", in->name,
			      start);
	ProtobufCMessage *m = protobuf_c_message_unpack(desc ? desc : image_table[in->type].message,
							&allocator, size, in->data + in->pos);
	if (!m)
		return refuse(EINVAL, "image %s: the entry at offset %zu cannot be parsed",
			      in->name, start);
	in->pos += size;
	*(void **)ret_message = m;
	return 1;
}

int image_take_raw(struct image_in *in, size_t size, const uint8_t **ret)
{
	if (in->len - in->pos < size)
		return refuse(EINVAL, "image %s: truncated: %zu bytes at offset %zu are missing",
			      in->name, size - (in->len - in->pos), in->pos);
	*ret = in->data + in->pos;
	in->pos += size;
	return 0;
}

int image_read_one(int dirfd, enum image_type type, unsigned long id, struct arena *a,
		   void *ret_message)
{
	struct image_in in;
	int rc = image_open(&in, dirfd, type, id);

	if (rc <= 0)
		return rc;
	rc = image_next(&in, a, NULL, ret_message);
	image_close(&in);
	return rc == 0 ? refuse(EINVAL, "image %s: it is empty", in.name) : rc;
}

int image_need_one(int dirfd, enum image_type type, unsigned long id, struct arena *a,
		   void *ret_message)
{
	char name[IMAGE_NAME_MAX];
	int rc = image_read_one(dirfd, type, id, a, ret_message);

	image_name(type, id, name);
	return rc == 0 ? refuse(ENOENT, "image %s is missing from the images directory", name) : rc;
}
