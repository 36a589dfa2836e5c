/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/pageclient.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "image/pagewire.h"

#define PATIENCE_MS 200 /* between two looks whether criu is to end */

static int server_failed(const struct dump *d, int err, const char *what)
{
	return fail(err, "page server %s: %s", d->page_server.name, what);
}

/*
 * Waits until the socket is ready, if that is all that is missing. The tree may be stopped
 * meanwhile: a server from which nothing comes and to which nothing goes is given up.
 */
static int wait_for(struct dump *d, short event, uint64_t since_us, const char *what)
{
	struct pollfd p = { .fd = d->page_server.fd, .events = event };

	if (errno == ECONNRESET || errno == EPIPE)
		return refuse(errno,
			      "page server %s: %s: it has closed the connection; its log tells why",
			      d->page_server.name, what);
	if (errno != EAGAIN && errno != EINTR)
		return server_failed(d, errno, what);
	if (now_us() - since_us > PAGE_SILENCE_SEC * 1000000ull)
		return server_failed(d, ETIMEDOUT, what);
	(void)poll(&p, 1, PATIENCE_MS);
	return engine_check(&d->engine);
}

static int send_all(struct dump *d, struct iovec *v, int n, const char *what)
{
	uint64_t since = now_us();

	while (n) {
		struct msghdr m = { .msg_iov = v, .msg_iovlen = min(n, 512) };
		ssize_t done = sendmsg(d->page_server.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (done < 0) {
			int rc = wait_for(d, POLLOUT, since, what);

			if (rc < 0)
				return rc;
			continue;
		}
		since = now_us();
		iov_skip(&v, &n, done);
	}
	return 0;
}

static int receive(struct dump *d, void *data, size_t size, const char *what)
{
	uint64_t since = now_us();
	size_t have = 0;

	while (have < size) {
		ssize_t n =
			recv(d->page_server.fd, (uint8_t *)data + have, size - have, MSG_DONTWAIT);
		int rc = 0;

		if (n == 0)
			errno = ECONNRESET;
		if (n <= 0)
			rc = wait_for(d, POLLIN, since, what);
		if (rc < 0)
			return rc;
		have += max(n, 0);
	}
	return 0;
}

static uint64_t object_of(const struct saved_pages *p)
{
	return p->id << 8 | (p->type == IMG_PAGEMAP ? PAGES_OF_TASK : PAGES_OF_SEGMENT);
}

static int ask(struct dump *d, enum page_command command, const struct saved_pages *p, void *answer,
	       size_t size, const char *what)
{
	struct page_message m = { .command = command, .object = p ? object_of(p) : 0 };
	struct iovec v = { &m, sizeof(m) };
	int rc = send_all(d, &v, 1, what);

	return rc < 0 ? rc : receive(d, answer, size, what);
}

int page_client_has_parent(struct dump *d, const struct saved_pages *p, bool *ret)
{
	int32_t answer = 0;
	int rc = ask(d, PAGE_PARENT, p, &answer, sizeof(answer), "ask for earlier images");

	*ret = answer > 0;
	return rc;
}

int page_client_open(struct dump *d, const struct saved_pages *p)
{
	uint8_t has_parent;

	return ask(d, PAGE_OPEN2, p, &has_parent, sizeof(has_parent), "begin a pagemap");
}

int page_client_add(struct dump *d, const struct saved_pages *p, const struct page_run *run,
		    struct iovec *v, int n)
{
	uint32_t flags = run->in_parent ? PAGEMAP_PARENT : PAGEMAP_PRESENT;
	struct page_message m = { .command = PAGE_ADD_F | flags << PAGE_FLAGS_SHIFT,
				  .nr_pages = run->pages,
				  .vaddr = run->vaddr,
				  .object = object_of(p) };
	struct iovec head = { &m, sizeof(m) };
	int rc = send_all(d, &head, 1, "send pages");

	return rc < 0 ? rc : send_all(d, v, n, "send pages");
}

int page_client_close(struct dump *d)
{
	const char *what = "wait until all pages are written";
	int32_t status;

	if (!d->opts->page_server)
		return 0;
	int rc = ask(d, d->opts->ps_socket < 0 ? PAGE_CLOSE : PAGE_FORCE_CLOSE, NULL, &status,
		     sizeof(status), what);
	if (rc == 0 && status)
		rc = refuse(EIO, "page server %s: %s: it has failed with %d; its log tells why",
			    d->page_server.name, what, status);
	return rc;
}

static int connect_to(const struct dump *d)
{
	const struct options *o = d->opts;
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	char port[16];
	int fd = -1, err = 0;

	if (!o->port)
		return refuse(EINVAL, "--page-server: give its --port");
	snprintf(port, sizeof(port), "%d", o->port);
	int rc = getaddrinfo(o->address, port, &hints, &list);
	if (rc)
		return refuse(EINVAL, "page server %s: look up the address: %s",
			      d->page_server.name, gai_strerror(rc));
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) == 0)
			continue;
		err = errno;
		(void)close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd < 0 ? server_failed(d, err ? err : errno, "connect") : fd;
}

/* What the caller has connected for us. */
static int take_socket(const struct dump *d)
{
	int fd = d->opts->ps_socket, type = 0;
	socklen_t size = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return server_failed(d, errno, "look at its socket");
	if (type != SOCK_STREAM)
		return refuse(EPROTOTYPE, "page server %s: it is no stream socket",
			      d->page_server.name);
	return fd;
}

int page_client_connect(struct dump *d)
{
	const struct options *o = d->opts;

	if (!o->page_server && (o->port || o->ps_socket >= 0))
		return refuse(EINVAL, "%s is of a page server; give --page-server, too",
			      o->port ? "--port" : "--ps-socket");
	if (!o->page_server || o->dry_run)
		return 0;
	d->page_server.name = o->ps_socket < 0
				      ? arena_printf(&d->arena, "%s port %d",
						     o->address ? o->address : "localhost", o->port)
				      : arena_printf(&d->arena, "--ps-socket %d", o->ps_socket);
	int fd = o->ps_socket < 0 ? connect_to(d) : take_socket(d);
	if (fd < 0)
		return fd;
	d->page_server.fd = fd;
	page_wire_prepare(fd);
	return 0;
}
