/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "proc/text.h"
#include "task/procfile.h"

void procfile_write(pid_t id, const char *file, int64_t value)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "/proc/%d/%s", id, file);
	autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
	int len = snprintf(text, sizeof(text), "%ld", value);
	if (fd < 0 || write(fd, text, len) != len)
		warn("pid %d: %s could not be set to %ld: %s", id, file, value, strerror(errno));
}

bool procfile_differs(const char *file, int64_t value)
{
	char path[64], text[32];
	int64_t now;

	snprintf(path, sizeof(path), "/proc/self/%s", file);
	return read_small_at(AT_FDCWD, path, text, sizeof(text)) <= 0 || !text_int(text, &now) ||
	       now != value;
}
