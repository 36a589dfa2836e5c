/* SPDX-License-Identifier: GPL-2.0-only */
#include "cmd/pageserver.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "cmd/commands.h"
#include "cmd/stats.h"
#include "image/pagewire.h"

#define BUFFER	     (256u << 10)
#define FIRST_PAGES  0x10001 /* ids of pages files; those of the dump itself are lower */
#define OBJECT_TYPES 8	     /* bits of an object that say what it is */

/* The pagemap that is open. */
struct incoming {
	bool is_open;
	enum image_type type;
	unsigned long id;
	uint32_t pages_id;
	int fd;		/* of the pages file */
	uint64_t after; /* the next run begins here at the earliest */
	struct page_run *runs;
	size_t n_runs;
	struct pagemap parent; /* of the same object */
	bool has_parent;
};

struct server {
	struct arena arena;
	struct image_dir images;
	int parent_fd; /* directory of earlier images; -1: none */
	struct pagemap_set set;
	struct incoming in;
	uint32_t last_pages_id;
	int fd; /* connection */
	uint8_t *buffer;
	bool is_over;
	uint64_t pages, known;
};

/* ---- connection ---- */

/* 1, 0 at the end of the connection before the first byte, or an error, reported. */
static int receive(struct server *s, void *data, size_t size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = recv(s->fd, (uint8_t *)data + have, size - have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(errno, "page server: receive");
		if (n == 0 && !have)
			return 0;
		if (n == 0)
			return refuse(EPIPE, "page server: the dump has closed the connection in "
					     "the middle of a message");
		have += n;
	}
	return 1;
}

static int answer(struct server *s, const void *data, size_t size)
{
	ssize_t n = send(s->fd, data, size, MSG_NOSIGNAL);

	return n == (ssize_t)size ? 0 : fail(n < 0 ? errno : EIO, "page server: answer");
}

/* ---- objects ---- */

/* The numbers that older versions of the established tool use are taken, too. */
static bool is_of_task(unsigned type)
{
	return type == PAGES_OF_TASK || type == 10 || type == 11 || type == 16 || type == 17;
}

static bool is_of_segment(unsigned type)
{
	return type == PAGES_OF_SEGMENT || (type >= 27 && type <= 29) || (type >= 32 && type <= 34);
}

static int identify(const struct page_message *m, enum image_type *ret_type, unsigned long *ret_id)
{
	unsigned type = m->object & ((1u << OBJECT_TYPES) - 1);

	*ret_id = m->object >> OBJECT_TYPES;
	if (is_of_task(type))
		*ret_type = IMG_PAGEMAP;
	else if (is_of_segment(type))
		*ret_type = IMG_SHMEM_PAGEMAP;
	else
		return refuse(EINVAL, "page server: pages of an unknown kind of object (%u)", type);
	return *ret_type == IMG_PAGEMAP && *ret_id > INT32_MAX
		       ? refuse(EINVAL, "page server: pages of pid %lu", *ret_id)
		       : 0;
}

/* What there is of it in the earlier images. 1, 0 for nothing, or an error. */
static int find_parent(struct server *s, enum image_type type, unsigned long id,
		       struct pagemap *ret)
{
	return s->parent_fd < 0 ? 0 : pagemap_read(&s->set, s->parent_fd, type, id, ret);
}

static int finish(struct server *s)
{
	struct incoming *in = &s->in;

	if (!in->is_open)
		return 0;
	in->is_open = false;
	int rc = close(in->fd) < 0 ? fail(errno, "image pages-%u.img: close", in->pages_id) : 0;
	pagemap_set_done(&s->set);
	return rc < 0 ? rc
		      : pagemap_write(&s->images, in->type, in->id, in->pages_id, in->runs,
				      in->n_runs);
}

static bool is_known(const struct server *s, enum image_type type, unsigned long id)
{
	char name[IMAGE_NAME_MAX];

	image_name(type, id, name);
	for (size_t i = 0; i < s->images.n_written; i++)
		if (!strcmp(s->images.written[i], name))
			return true;
	return false;
}

static int open_object(struct server *s, const struct page_message *m)
{
	struct incoming in = { .is_open = true, .fd = -1 };
	int rc = finish(s);

	if (rc == 0)
		rc = identify(m, &in.type, &in.id);
	if (rc == 0 && is_known(s, in.type, in.id))
		rc = refuse(EEXIST, "page server: object %lu is sent twice", in.id);
	if (rc == 0)
		rc = find_parent(s, in.type, in.id, &in.parent);
	if (rc < 0)
		return rc;
	in.has_parent = rc > 0;
	in.pages_id = ++s->last_pages_id;
	in.fd = image_create_raw(&s->images, IMG_PAGES, in.pages_id);
	if (in.fd < 0)
		return in.fd;
	s->in = in;
	return 0;
}

/* ---- commands ---- */

static int do_open(struct server *s, const struct page_message *m)
{
	return open_object(s, m);
}

static int do_open2(struct server *s, const struct page_message *m)
{
	int rc = open_object(s, m);
	uint8_t has_parent = s->in.has_parent;

	return rc < 0 ? rc : answer(s, &has_parent, sizeof(has_parent));
}

static int do_parent(struct server *s, const struct page_message *m)
{
	struct pagemap parent;
	enum image_type type;
	unsigned long id;
	int rc = identify(m, &type, &id);

	if (rc == 0)
		rc = find_parent(s, type, id, &parent);
	if (rc < 0)
		return rc;
	int32_t has_parent = rc > 0;
	return answer(s, &has_parent, sizeof(has_parent));
}

static int take_pages(struct server *s, uint64_t bytes)
{
	while (bytes) {
		size_t n = min(bytes, (uint64_t)BUFFER);
		int rc = receive(s, s->buffer, n);

		if (rc <= 0)
			return rc < 0 ? rc
				      : refuse(EPIPE, "page server: the dump has closed the "
						      "connection where pages should come");
		rc = write_all(s->in.fd, s->buffer, n);
		if (rc < 0)
			return fail(-rc, "image pages-%u.img: write pages", s->in.pages_id);
		bytes -= n;
	}
	return 0;
}

static int check_run(const struct server *s, const struct page_message *m)
{
	const struct incoming *in = &s->in;
	uint64_t end;

	if (!in->is_open)
		return refuse(EPROTO, "page server: pages come before what they belong to");
	if (m->vaddr % PAGE_SIZE_ || m->vaddr < in->after || !m->nr_pages ||
	    __builtin_mul_overflow(m->nr_pages, PAGE_SIZE_, &end) ||
	    __builtin_add_overflow(end, m->vaddr, &end))
		return refuse(
			EINVAL,
			"page server: object %lu: the run at %#lx (%lu pages) is out of order "
			"or range",
			in->id, (long)m->vaddr, (long)m->nr_pages);
	return 0;
}

static int add_run(struct server *s, const struct page_message *m, uint32_t flags)
{
	struct incoming *in = &s->in;
	struct page_run run = { .vaddr = m->vaddr,
				.pages = m->nr_pages,
				.in_parent = !(flags & PAGEMAP_PRESENT) };
	int rc = check_run(s, m);

	if (rc < 0)
		return rc;
	if (flags & PAGEMAP_LAZY || !(flags & (PAGEMAP_PRESENT | PAGEMAP_PARENT)))
		return refuse(EOPNOTSUPP,
			      "page server: object %lu: the run at %#lx has flags %#x; lazy pages "
			      "are not supported by this version",
			      in->id, (long)m->vaddr, flags);
	if (run.in_parent && !pagemap_has(&in->parent, run.vaddr, page_run_end(&run)))
		return refuse(
			ENOENT,
			"page server: object %lu: the run at %#lx (%lu pages) should be in the "
			"earlier images (the link `parent`), which lack it",
			in->id, (long)m->vaddr, (long)m->nr_pages);
	in->after = page_run_end(&run);
	*ARENA_PUSH(&s->arena, in->runs, in->n_runs) = run;
	*(run.in_parent ? &s->known : &s->pages) += run.pages;
	return run.in_parent ? 0 : take_pages(s, run.pages * PAGE_SIZE_);
}

static int do_add(struct server *s, const struct page_message *m)
{
	return add_run(s, m, PAGEMAP_PRESENT);
}

static int do_hole(struct server *s, const struct page_message *m)
{
	return add_run(s, m, PAGEMAP_PARENT);
}

static int do_add_flags(struct server *s, const struct page_message *m)
{
	return add_run(s, m, m->command >> PAGE_FLAGS_SHIFT);
}

static int do_get(struct server *s, const struct page_message *m)
{
	(void)s, (void)m;
	return refuse(
		EOPNOTSUPP,
		"page server: pages are asked for: lazy pages are not supported by this version");
}

static int do_close(struct server *s, const struct page_message *m)
{
	int32_t status = finish(s);

	(void)m;
	s->is_over = true;
	int rc = answer(s, &status, sizeof(status));
	return status < 0 ? status : rc;
}

static const struct {
	uint32_t command;
	int (*run)(struct server *s, const struct page_message *m);
} commands[] = {
	{ PAGE_ADD, do_add },	  { PAGE_HOLE, do_hole },     { PAGE_OPEN, do_open },
	{ PAGE_OPEN2, do_open2 }, { PAGE_PARENT, do_parent }, { PAGE_ADD_F, do_add_flags },
	{ PAGE_GET, do_get },	  { PAGE_CLOSE, do_close },   { PAGE_FORCE_CLOSE, do_close },
};

static int serve_message(struct server *s)
{
	struct page_message m;
	int rc = receive(s, &m, sizeof(m));

	if (rc <= 0)
		return rc < 0 ? rc
			      : refuse(EPIPE, "page server: the dump has closed the connection "
					      "before it was complete");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].command == (m.command & ((1u << PAGE_FLAGS_SHIFT) - 1)))
			return commands[i].run(s, &m);
	return refuse(EPROTO, "page server: unknown command %#x", m.command);
}

/* ---- from the socket to the end ---- */

static int listen_at(const struct addrinfo *list, int *ret_port)
{
	const int on = 1;
	struct sockaddr_storage addr;
	socklen_t size = sizeof(addr);
	int err = EADDRNOTAVAIL;

	for (const struct addrinfo *a = list; a; a = a->ai_next) {
		autoclose int fd =
			socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

		if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		    bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 1) < 0 ||
		    getsockname(fd, (struct sockaddr *)&addr, &size) < 0) {
			err = errno;
			continue;
		}
		*ret_port =
			ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
							 : ((struct sockaddr_in *)&addr)->sin_port);
		return take_fd(&fd);
	}
	return -err;
}

int page_server_open(const struct options *o, int *ret_port)
{
	const struct addrinfo hints = { .ai_family = o->address ? AF_UNSPEC : AF_INET,
					.ai_socktype = SOCK_STREAM,
					.ai_flags = AI_PASSIVE };
	const char *address = o->address ? o->address : "any address";
	struct addrinfo *list;
	char port[16];

	*ret_port = 0;
	if (o->ps_socket >= 0)
		return o->ps_socket;
	snprintf(port, sizeof(port), "%d", o->port);
	int rc = getaddrinfo(o->address, port, &hints, &list);
	if (rc)
		return refuse(EINVAL, "page server: --address %s: %s", address, gai_strerror(rc));
	int fd = listen_at(list, ret_port);
	freeaddrinfo(list);
	return fd < 0 ? fail(-fd, "page server: --address %s, --port %d: listen", address, o->port)
		      : fd;
}

/* A socket that listens gives its first connection; another one is the connection. */
static int connection(int fd)
{
	int listens = 0;
	socklen_t size = sizeof(listens);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
		return fail(errno, "page server: descriptor %d: it is no socket", fd);
	if (!listens)
		return fd;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	int err = errno;

	(void)close(fd);
	return client < 0 ? fail(err, "page server: accept") : client;
}

/* The images before these: given, or there already by a link. */
static int open_parent(struct server *s, const struct options *o)
{
	const char *path = o->prev_images_dir;
	int rc = path ? image_dir_link(&s->images, "parent", path) : 0;

	if (rc < 0)
		return rc;
	s->parent_fd = openat(s->images.fd, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->parent_fd >= 0 || (!path && errno == ENOENT))
		return 0;
	return fail(errno, "%s%s: open the earlier images", path ? "--prev-images-dir " : "link ",
		    path ? path : "parent");
}

static int serve(struct server *s, const struct options *o)
{
	int rc = open_parent(s, o);

	while (rc == 0 && !s->is_over)
		rc = serve_message(s);
	if (s->in.is_open)
		(void)close(s->in.fd);
	return rc;
}

int page_server_serve(const struct options *o, int fd)
{
	struct server s = { .parent_fd = -1, .last_pages_id = FIRST_PAGES - 1 };
	autoclose int dir = open(o->images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autofree uint8_t *buffer = xmalloc(BUFFER);
	autoclose int client = dir < 0 ? -1 : connection(fd);
	int rc = client;

	if (dir < 0)
		return fail(errno, "images directory %s: open", o->images_dir);
	s.fd = client;
	s.buffer = buffer;
	s.set.arena = &s.arena;
	image_dir_init(&s.images, dir);
	if (client >= 0)
		rc = serve(&s, o);
	if (rc < 0)
		image_dir_discard(&s.images);
	else
		info("Page server: %lu pages received, %lu known", (long)s.pages, (long)s.known);
	pagemap_set_done(&s.set);
	own_close(&s.parent_fd);
	image_dir_done(&s.images);
	arena_done(&s.arena);
	return rc;
}

int cmd_page_server(const struct options *o)
{
	int port, fd;

	if (o->detach && o->ps_socket >= 0 && o->ps_socket <= STDERR_FILENO) {
		(void)refuse(EINVAL, "--ps-socket %d: a daemon has another file there",
			     o->ps_socket);
		return 1;
	}
	fd = page_server_open(o, &port);
	if (fd < 0)
		return 1;
	if (port) /* who has not given one has to know */
		message("Page server is at port %d", port);
	if (o->detach && daemon(1, 0) < 0) {
		(void)fail(errno, "become a daemon");
		return 1;
	}
	if (o->pidfile && pidfile_write(o->pidfile, getpid()) < 0)
		return 1;
	status_tell_ready(o);
	return page_server_serve(o, fd) < 0;
}
