/* SPDX-License-Identifier: GPL-2.0-only */
#include "image/pagewire.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/own.h"

void page_wire_prepare(int fd)
{
	static const struct {
		int level, option, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		/* A peer whose machine is gone is noticed, by who waits and by who sends. */
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, PAGE_SILENCE_SEC / 2 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, PAGE_SILENCE_SEC / 6 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, PAGE_SILENCE_SEC * 1000 },
	};

	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].option, &options[i].value,
				 sizeof(options[i].value));
}
