/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Image files: framing, magics, and the directory that holds them.
 *
 *   u32 magic(s), then entries: u32 size, packed message, for some types raw bytes behind it.
 *
 * An image without entries has no file. Errors name file and offset and are reported here.
 */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"

enum image_type {
#define IMAGE(name, file, magic, framing, message) IMG_##name,
#include "image/types.def"
#undef IMAGE
	IMAGE_TYPES,
};

enum image_framing { SINGLE, COMMON, SERVICE, RAW };

struct image_info {
	const char *file; /* printf format for one unsigned number, or none */
	uint32_t magic;
	enum image_framing framing;
	const ProtobufCMessageDescriptor *message; /* NULL for raw ones */
};

extern const struct image_info image_table[IMAGE_TYPES];

#define IMAGE_NAME_MAX 64
void image_name(enum image_type type, unsigned long id, char name[IMAGE_NAME_MAX]);

/* A directory that images are written to. It remembers them, for a dump that fails. */
struct image_dir {
	int fd;
	struct arena arena;
	const char **written;
	size_t n_written;
};

void image_dir_init(struct image_dir *d, int fd); /* fd stays the caller's */
void image_dir_discard(struct image_dir *d);	  /* removes what was written */
void image_dir_done(struct image_dir *d);

/* Whether all that was written can be found under the path. 0 or -errno, reported. */
int image_dir_check(const struct image_dir *d, const char *path);

/* An image being written. Nothing is on disk before image_commit. */
struct image_out {
	struct image_dir *dir;
	enum image_type type;
	unsigned long id;
	char *data;
	size_t len, size;
	size_t n_entries;
};

void image_begin(struct image_out *out, struct image_dir *d, enum image_type type,
		 unsigned long id);
void image_add(struct image_out *out, const void *message);
/* Appends a message of another type than the image's own (pagemap_head). */
void image_add_message(struct image_out *out, const ProtobufCMessage *message);
/* Room for raw bytes behind an entry; valid until the next call. */
void *image_add_raw(struct image_out *out, size_t size);
/* Writes the file (or removes a stale one if there is no entry) and frees the buffer. */
int image_commit(struct image_out *out);
void image_cancel(struct image_out *out);

/* A whole image of one entry. */
int image_write_one(struct image_dir *d, enum image_type type, unsigned long id,
		    const void *message);

/* Makes a symbolic link, if there is nothing of that name. 0 or -errno, reported. */
int image_dir_link(struct image_dir *d, const char *name, const char *target);

/* Makes a symbolic link in place of an image, if it is not there. 0 or an error, reported. */
int image_link(struct image_dir *d, enum image_type type, unsigned long id, const char *target);

/* Creates a raw image. Returns its descriptor or -errno. */
int image_create_raw(struct image_dir *d, enum image_type type, unsigned long id);

/*
 * Tells whether a file is on a disk file system where reserving its space first pays (not on
 * tmpfs, where it costs).
 */
bool image_is_on_disk(int fd);

/* An image being read. */
struct image_in {
	enum image_type type;
	char name[IMAGE_NAME_MAX];
	uint8_t *data;
	size_t len, pos;
};

/*
 * Reads the image into memory and checks its magics. Returns 1; 0 if there is no such file; an
 * error that is reported.
 */
int image_open(struct image_in *in, int dirfd, enum image_type type, unsigned long id);
void image_close(struct image_in *in);

/*
 * Unpacks the next entry into the arena. Returns 1 with a message, 0 at the end, or an error.
 * desc NULL: the image's own message.
 */
int image_next(struct image_in *in, struct arena *a, const ProtobufCMessageDescriptor *desc,
	       void *ret_message);

/*
 * Takes raw bytes that stand behind an entry; they stay in the image's buffer. Returns 0 with
 * *ret, or an error that is reported if there are not so many.
 */
int image_take_raw(struct image_in *in, size_t size, const uint8_t **ret);

/* Reads the only entry of an image: 1, 0 if there is no such file, or an error. */
int image_read_one(int dirfd, enum image_type type, unsigned long id, struct arena *a,
		   void *ret_message);
/* The same where the image has to exist. */
int image_need_one(int dirfd, enum image_type type, unsigned long id, struct arena *a,
		   void *ret_message);

/* Makes an empty message in the arena: MESSAGE(a, MmEntry, mm_entry). */
#define MESSAGE(a, type, name)                                                                     \
	({                                                                                         \
		type *message_new = arena_new((a), type);                                          \
		name##__init(message_new);                                                         \
		message_new;                                                                       \
	})

#endif
