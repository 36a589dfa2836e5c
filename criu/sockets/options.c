/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/log.h"
#include "base/own.h"
#include "image/image.h"
#include "sockets/options.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76 /* Linux 6.5 */
#endif

/* Options that are one number, and optional in the image. */
#define NUMBER(option, member)                                                                     \
	{                                                                                          \
		option, offsetof(SkOptsEntry, has_##member), offsetof(SkOptsEntry, member),        \
			sizeof(((SkOptsEntry *)0)->member)                                         \
	}

static const struct number {
	int option;
	size_t has, offset, size;
} numbers[] = {
	NUMBER(SO_PRIORITY, so_priority),   NUMBER(SO_RCVLOWAT, so_rcvlowat),
	NUMBER(SO_MARK, so_mark),	    NUMBER(SO_PASSCRED, so_passcred),
	NUMBER(SO_PASSSEC, so_passsec),	    NUMBER(SO_DONTROUTE, so_dontroute),
	NUMBER(SO_NO_CHECK, so_no_check),   NUMBER(SO_KEEPALIVE, so_keepalive),
	NUMBER(SO_BROADCAST, so_broadcast), NUMBER(SO_OOBINLINE, so_oobinline),
	NUMBER(SO_PASSPIDFD, so_passpidfd), NUMBER(SO_TIMESTAMP, so_timestamp),
};

/* Not every kernel, nor every kind of socket, has all options. */
static bool is_missing(int err)
{
	return err == ENOPROTOOPT || err == EOPNOTSUPP;
}

static int get(int fd, int option, void *value, socklen_t len)
{
	return getsockopt(fd, SOL_SOCKET, option, value, &len) == 0 || is_missing(errno) ? 0
											 : -errno;
}

/* What the socket has already is not for everybody to set. */
static bool is_to_be_set(int fd, int option, int value)
{
	int now = 0;
	socklen_t len = sizeof(now);

	return getsockopt(fd, SOL_SOCKET, option, &now, &len) == 0 ? now != value
								   : !is_missing(errno);
}

static void put(SkOptsEntry *e, const struct number *n, int value)
{
	char *at = (char *)e;

	memcpy(at + n->has, &(protobuf_c_boolean){ true }, sizeof(protobuf_c_boolean));
	memcpy(at + n->offset, &value, n->size);
}

static int value_of(const SkOptsEntry *e, const struct number *n)
{
	int value = 0;

	memcpy(&value, (const char *)e + n->offset, n->size);
	return value;
}

static bool has(const SkOptsEntry *e, const struct number *n)
{
	protobuf_c_boolean has;

	memcpy(&has, (const char *)e + n->has, sizeof(has));
	return has;
}

int socket_options_read(struct arena *a, int fd, SkOptsEntry **ret)
{
	SkOptsEntry *e = MESSAGE(a, SkOptsEntry, sk_opts_entry);
	struct timeval send = { 0 }, receive = { 0 };
	struct linger linger = { 0 };
	int rc = get(fd, SO_SNDTIMEO, &send, sizeof(send));

	if (rc == 0)
		rc = get(fd, SO_RCVTIMEO, &receive, sizeof(receive));
	if (rc == 0)
		rc = get(fd, SO_LINGER, &linger, sizeof(linger));
	if (rc == 0)
		rc = get(fd, SO_SNDBUF, &e->so_sndbuf, sizeof(e->so_sndbuf));
	if (rc == 0)
		rc = get(fd, SO_RCVBUF, &e->so_rcvbuf, sizeof(e->so_rcvbuf));
	e->so_snd_tmo_sec = send.tv_sec;
	e->so_snd_tmo_usec = send.tv_usec;
	e->so_rcv_tmo_sec = receive.tv_sec;
	e->so_rcv_tmo_usec = receive.tv_usec;
	for (size_t i = 0; i < ARRAY_SIZE(numbers) && rc == 0; i++) {
		int value = 0;

		rc = get(fd, numbers[i].option, &value, sizeof(value));
		if (value)
			put(e, &numbers[i], value);
	}
	if (linger.l_onoff) {
		e->has_so_linger = true;
		e->so_linger = linger.l_linger;
	}
	*ret = e;
	return rc;
}

static int set(int fd, int option, const void *value, socklen_t len)
{
	return setsockopt(fd, SOL_SOCKET, option, value, len) < 0 ? -errno : 0;
}

/* The kernel keeps twice the value; more than the limit takes CAP_NET_ADMIN. */
static int set_buffer(int fd, int option, int force, uint32_t value)
{
	int half = value / 2;

	if (!value || !is_to_be_set(fd, option, value))
		return 0;
	return set(fd, force, &half, sizeof(half)) == 0 ? 0 : set(fd, option, &half, sizeof(half));
}

static int set_times(int fd, const SkOptsEntry *e)
{
	const struct timeval send = { e->so_snd_tmo_sec, e->so_snd_tmo_usec };
	const struct timeval receive = { e->so_rcv_tmo_sec, e->so_rcv_tmo_usec };
	int rc = 0;

	if (send.tv_sec || send.tv_usec)
		rc = set(fd, SO_SNDTIMEO, &send, sizeof(send));
	if (rc == 0 && (receive.tv_sec || receive.tv_usec))
		rc = set(fd, SO_RCVTIMEO, &receive, sizeof(receive));
	return rc;
}

int socket_options_set(int fd, const SkOptsEntry *e)
{
	int rc = set_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, e->so_sndbuf);

	if (rc == 0)
		rc = set_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, e->so_rcvbuf);
	if (rc == 0)
		rc = set_times(fd, e);
	for (size_t i = 0; i < ARRAY_SIZE(numbers) && rc == 0; i++) {
		int value = has(e, &numbers[i]) ? value_of(e, &numbers[i]) : 0;

		if (value && is_to_be_set(fd, numbers[i].option, value))
			rc = set(fd, numbers[i].option, &value, sizeof(value));
	}
	if (rc == 0 && e->has_so_linger) {
		const struct linger linger = { 1, e->so_linger };

		rc = set(fd, SO_LINGER, &linger, sizeof(linger));
	}
	return rc;
}
