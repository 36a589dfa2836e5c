/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs a fuzz target over the files that are named or that are in the directories that are
 * named, so that its corpus is a test where there is no fuzzer. Prints how many there were.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/own.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int complain(const char *path, int err)
{
	fprintf(stderr, "%s: %s\n", path, strerror(err));
	return -1;
}

/* Returns the number of inputs, or -1 having said why. */
static int replay_file(const char *path)
{
	autofree char *text = NULL;
	ssize_t len = read_file_at(AT_FDCWD, path, &text);

	if (len < 0)
		return complain(path, -len);
	/* Of the exact size, as a fuzzer has it: every read beyond it is to be seen. */
	autofree uint8_t *data = xmalloc(len);
	memcpy(data, text, len);
	LLVMFuzzerTestOneInput(data, len);
	return 1;
}

static int replay(const char *path)
{
	autoclosedir DIR *dir = opendir(path);
	int total = 0;

	if (!dir)
		return errno == ENOTDIR ? replay_file(path) : complain(path, errno);
	for (struct dirent *e; (e = readdir(dir));) {
		struct arena a = { 0 };

		if (e->d_name[0] == '.')
			continue;
		int n = replay(arena_printf(&a, "%s/%s", path, e->d_name));
		arena_done(&a);
		if (n < 0)
			return -1;
		total += n;
	}
	return total;
}

int main(int argc, char **argv)
{
	int total = 0;

	for (int i = 1; i < argc; i++) {
		int n = replay(argv[i]);

		if (n < 0)
			return 1;
		total += n;
	}
	printf("%s: %d inputs\n", argv[0], total);
	return total == 0;
}
