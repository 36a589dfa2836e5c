/* SPDX-License-Identifier: GPL-2.0-only */
/* Any text as a config file: either the error names its line, or there are options. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/own.h"
#include "model/options.h"
#include "kept.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoclose int fd = memfd_create("config", MFD_CLOEXEC);
	struct options o = options_default();
	char path[32], error[256] = "";

	if (memmem(data, size, "close", 5))
		return 0; /* it would be done: the fuzzer has descriptors, too */
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	kept_begin();
	int rc = options_read_config(&o, path, error, sizeof(error));
	kept_end();
	if (rc == 0 || (rc < 0 && !strstr(error, path)))
		abort();
	return 0;
}
