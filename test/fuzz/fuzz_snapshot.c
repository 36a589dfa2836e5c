/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The image loader on a whole directory. An input is a list of files: u8 length of the name,
 * name, u32 length, content. `make fuzz-corpus` packs directories of real images this way.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "model/snapshot.h"

#define NAME_MAX_ 63

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int open_dir(void)
{
	char path[] = "/dev/shm/criu-fuzz.XXXXXX";

	if (!mkdtemp(path))
		abort();
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Nobody needs the name; files in a removed directory are impossible, so it stays. */
	if (fd < 0)
		abort();
	return fd;
}

static void write_file(int dir, const char *name, const uint8_t *data, size_t size)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return;
	if (write(fd, data, size) < 0)
		abort();
	close(fd);
}

/* Writes the files of the input, or removes them again. */
static void for_files(int dir, const uint8_t *data, size_t size, int is_write)
{
	while (size > 5) {
		char name[NAME_MAX_ + 1];
		size_t len = data[0] & NAME_MAX_;
		uint32_t content;

		if (size < 1 + len + 4)
			return;
		memcpy(name, data + 1, len);
		name[len] = '\0';
		memcpy(&content, data + 1 + len, sizeof(content));
		data += 1 + len + 4;
		size -= 1 + len + 4;
		if (content > size)
			content = size;
		/* Only files right in the directory, and no name that is one already there. */
		if (len && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..")) {
			if (is_write)
				write_file(dir, name, data, content);
			else
				unlinkat(dir, name, 0);
		}
		data += content;
		size -= content;
	}
}

static void remove_dir(int dir)
{
	char path[64], name[128];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
	ssize_t n = readlink(path, name, sizeof(name) - 1);
	if (n > 0) {
		name[n] = '\0';
		rmdir(name);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int is_quiet;
	struct snapshot s;
	int dir = open_dir();

	if (!is_quiet) {
		log_init("/dev/null", 0);
		is_quiet = 1;
	}
	for_files(dir, data, size, 1);
	int rc = snapshot_load(&s, dir);
	/* Either it is consistent or the reason was told. */
	if (rc < 0 && !log_first_error()[0])
		abort();
	log_clear_first_error();
	snapshot_done(&s);
	for_files(dir, data, size, 0);
	remove_dir(dir);
	close(dir);
	return 0;
}
