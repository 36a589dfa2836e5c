/* SPDX-License-Identifier: GPL-2.0-only */
/* Any packet of a client: either it is told what is wrong, or there are options. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/own.h"
#include "rpc/rpc.h"
#include "kept.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct options base = options_default();
	struct client c = { .fd = -1, .pid = getpid(), .uid = 0, .base = &base };
	struct options o;
	char error[256] = "";

	if (!size)
		return 0;
	c.is_worker = data[0] & 1;
	CriuReq *req = criu_req__unpack(NULL, size - 1, data + 1);
	if (!req)
		return 0;
	kept_begin();
	if (req->opts && request_options(&c, req->opts, &o, error, sizeof(error)) < 0 && !error[0])
		abort();
	kept_end();
	criu_req__free_unpacked(req, NULL);
	return 0;
}
