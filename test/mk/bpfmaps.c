/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bpf(2) maps: full, with some elements, empty, frozen; opened twice, for reading only. Each check
 * reads all of them and changes those that can be changed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

static struct {
	const char *name;
	unsigned type, value_size, max, n; /* n elements of a hash */
	int is_frozen;
	int fd;
	unsigned long seed;
} maps[] = {
	{ "array", BPF_MAP_TYPE_ARRAY, 24, 1000, 1000, 0 },
	{ "hash", BPF_MAP_TYPE_HASH, 13, 500, 77, 0 },
	{ "full_hash", BPF_MAP_TYPE_HASH, 8, 64, 64, 0 },
	{ "empty_hash", BPF_MAP_TYPE_HASH, 8, 64, 0, 0 },
	{ "frozen", BPF_MAP_TYPE_ARRAY, 8, 3, 3, 1 },
};

static int again, for_reading; /* of the first */

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static void element(size_t i, unsigned key, unsigned char *value)
{
	fill(value, maps[i].value_size, maps[i].seed + key);
}

static int set(size_t i, int fd, unsigned key)
{
	unsigned char value[64];
	union bpf_attr attr = { .map_fd = fd, .key = (unsigned long)&key,
				.value = (unsigned long)value };

	element(i, key, value);
	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static void set_all(size_t i)
{
	for (unsigned key = 0; key < maps[i].n; key++)
		if (set(i, maps[i].fd, key) < 0)
			bad("map %s: set %u: %s", maps[i].name, key, strerror(errno));
}

static void compare(size_t i, int fd)
{
	unsigned found = 0, key, *before = NULL;
	unsigned char value[64], expected[64];

	for (;; before = &key, found++) {
		unsigned next;
		union bpf_attr step = { .map_fd = fd, .key = (unsigned long)before,
					.next_key = (unsigned long)&next };
		union bpf_attr get = { .map_fd = fd, .key = (unsigned long)&next,
				       .value = (unsigned long)value };

		if (bpf(BPF_MAP_GET_NEXT_KEY, &step) < 0)
			break;
		key = next;
		if (bpf(BPF_MAP_LOOKUP_ELEM, &get) < 0)
			bad("map %s: get %u: %s", maps[i].name, key, strerror(errno));
		element(i, key, expected);
		if (memcmp(value, expected, maps[i].value_size))
			bad("map %s: element %u has changed", maps[i].name, key);
	}
	same_long(maps[i].name, maps[i].n, found);
}

static int open_again(int fd, unsigned flags)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr attr = { .info = { .bpf_fd = fd, .info_len = sizeof(info),
					  .info = (unsigned long)&info } };
	union bpf_attr open = { .open_flags = flags };

	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) < 0)
		die("ask about a map: %s", strerror(errno));
	open.map_id = info.id;
	return bpf(BPF_MAP_GET_FD_BY_ID, &open);
}

static void make(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		union bpf_attr attr = { .map_type = maps[i].type, .key_size = 4,
					.value_size = maps[i].value_size,
					.max_entries = maps[i].max };
		union bpf_attr freeze = { 0 };

		strncpy(attr.map_name, maps[i].name, sizeof(attr.map_name) - 1);
		maps[i].fd = bpf(BPF_MAP_CREATE, &attr);
		if (maps[i].fd < 0 && (errno == ENOSYS || errno == EPERM))
			skip("bpf maps: %s", strerror(errno));
		if (maps[i].fd < 0)
			die("make map %s: %s", maps[i].name, strerror(errno));
		maps[i].seed = 1000 * (i + 1);
		set_all(i);
		freeze.map_fd = maps[i].fd;
		if (maps[i].is_frozen && bpf(BPF_MAP_FREEZE, &freeze) < 0)
			die("freeze a map: %s", strerror(errno));
	}
	again = open_again(maps[0].fd, 0);
	for_reading = open_again(maps[0].fd, BPF_F_RDONLY);
	if (again < 0 || for_reading < 0)
		die("open a map again: %s", strerror(errno));
}

static void check(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		compare(i, maps[i].fd);
		if (maps[i].is_frozen) {
			if (!set(i, maps[i].fd, 0))
				bad("map %s can be written to", maps[i].name);
			continue;
		}
		maps[i].seed++;
		set_all(i);
		compare(i, maps[i].fd);
	}
	compare(0, again);
	compare(0, for_reading);
	if (!set(0, for_reading, 0))
		bad("what was opened for reading can be written to");
}

struct factory bpfmaps_factory = {
	.name = "bpfmaps",
	.about = "maps of bpf(2)",
	.params = { { NULL } },
	.make = make,
	.check = check,
};
