/* SPDX-License-Identifier: GPL-2.0-only */
#include "cmd/pageserver.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "cmd/commands.h"
#include "cmd/stats.h"
#include "image/pagewire.h"
#include "remote/engine.h"

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

struct page_server {
	struct arena arena;
	int listening; /* or the connection that was given */
	int port;      /* where it listens; 0: the connection is there */
	int dir;
	int signals; /* tells of those that ask it to end; -1: not begun yet */
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

/* Until there is something to be read. A signal that asks to end is an error, reported. */
static int wait_for_peer(struct page_server *s, int fd)
{
	struct pollfd p[] = { { .fd = fd, .events = POLLIN },
			      { .fd = s->signals, .events = POLLIN } };

	while (poll(p, ARRAY_SIZE(p), -1) < 0)
		if (errno != EINTR)
			return fail(errno, "page server: wait for the dump");
	return p[1].revents ? refuse(EINTR, "page server: interrupted") : 0;
}

/* 1, 0 at the end of the connection before the first byte, or an error, reported. */
static int receive(struct page_server *s, void *data, size_t size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = recv(s->fd, (uint8_t *)data + have, size - have, MSG_DONTWAIT);
		int rc = 0;

		if (n < 0 && errno == EAGAIN)
			rc = wait_for_peer(s, s->fd);
		else if (n < 0 && errno != EINTR)
			rc = fail(errno, "page server: receive");
		else if (n == 0 && !have)
			return 0;
		else if (n == 0)
			rc = refuse(EPIPE, "page server: the dump has closed the connection in "
					   "the middle of a message");
		if (rc < 0)
			return rc;
		have += max(n, 0);
	}
	return 1;
}

static int answer(struct page_server *s, const void *data, size_t size)
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
static int find_parent(struct page_server *s, enum image_type type, unsigned long id,
		       struct pagemap *ret)
{
	return s->parent_fd < 0 ? 0 : pagemap_read(&s->set, s->parent_fd, type, id, ret);
}

static int finish(struct page_server *s)
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

static bool is_known(const struct page_server *s, enum image_type type, unsigned long id)
{
	char name[IMAGE_NAME_MAX];

	image_name(type, id, name);
	for (size_t i = 0; i < s->images.n_written; i++)
		if (!strcmp(s->images.written[i], name))
			return true;
	return false;
}

/* ---- commands ---- */

static int do_open(struct page_server *s, const struct page_message *m)
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

static int do_open2(struct page_server *s, const struct page_message *m)
{
	int rc = do_open(s, m);
	uint8_t has_parent = s->in.has_parent;

	return rc < 0 ? rc : answer(s, &has_parent, sizeof(has_parent));
}

/* It can be asked any number of times: nothing of it stays. */
static int do_parent(struct page_server *s, const struct page_message *m)
{
	char name[IMAGE_NAME_MAX];
	enum image_type type;
	unsigned long id;
	int rc = identify(m, &type, &id);

	if (rc < 0)
		return rc;
	image_name(type, id, name);
	int32_t has_parent =
		s->parent_fd >= 0 && faccessat(s->parent_fd, name, R_OK, AT_EACCESS) == 0;
	return answer(s, &has_parent, sizeof(has_parent));
}

static int take_pages(struct page_server *s, uint64_t bytes)
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

static int check_run(const struct page_server *s, const struct page_message *m)
{
	const struct incoming *in = &s->in;

	if (!in->is_open)
		return refuse(EPROTO, "page server: pages come before what they belong to");
	if (!page_run_is_sound(m->vaddr, m->nr_pages, in->after))
		return refuse(
			EINVAL,
			"page server: object %lu: the run at %#lx (%lu pages) is out of order "
			"or range",
			in->id, (long)m->vaddr, (long)m->nr_pages);
	return 0;
}

static int add_run(struct page_server *s, const struct page_message *m, uint32_t flags)
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

static int do_add(struct page_server *s, const struct page_message *m)
{
	return add_run(s, m, PAGEMAP_PRESENT);
}

static int do_hole(struct page_server *s, const struct page_message *m)
{
	return add_run(s, m, PAGEMAP_PARENT);
}

static int do_add_flags(struct page_server *s, const struct page_message *m)
{
	return add_run(s, m, m->command >> PAGE_FLAGS_SHIFT);
}

static int do_get(struct page_server *s, const struct page_message *m)
{
	(void)s, (void)m;
	return refuse(
		EOPNOTSUPP,
		"page server: pages are asked for: lazy pages are not supported by this version");
}

static int do_close(struct page_server *s, const struct page_message *m)
{
	int32_t status = finish(s);

	(void)m;
	s->is_over = true;
	int rc = answer(s, &status, sizeof(status));
	return status < 0 ? status : rc;
}

static const struct {
	uint32_t command;
	int (*run)(struct page_server *s, const struct page_message *m);
} commands[] = {
	{ PAGE_ADD, do_add },	  { PAGE_HOLE, do_hole },     { PAGE_OPEN, do_open },
	{ PAGE_OPEN2, do_open2 }, { PAGE_PARENT, do_parent }, { PAGE_ADD_F, do_add_flags },
	{ PAGE_GET, do_get },	  { PAGE_CLOSE, do_close },   { PAGE_FORCE_CLOSE, do_close },
};

static int serve_message(struct page_server *s)
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

static int open_socket(struct page_server *s, const struct options *o)
{
	const struct addrinfo hints = { .ai_family = o->address ? AF_UNSPEC : AF_INET,
					.ai_socktype = SOCK_STREAM,
					.ai_flags = AI_PASSIVE };
	const char *address = o->address ? o->address : "any address";
	struct addrinfo *list;
	char port[16];

	if (o->ps_socket >= 0)
		return o->ps_socket;
	snprintf(port, sizeof(port), "%d", o->port);
	int rc = getaddrinfo(o->address, port, &hints, &list);
	if (rc)
		return refuse(EINVAL, "page server: --address %s: %s", address, gai_strerror(rc));
	int fd = listen_at(list, &s->port);
	freeaddrinfo(list);
	return fd < 0 ? fail(-fd, "page server: --address %s, --port %d: listen", address, o->port)
		      : fd;
}

/* The images before these: given, or there already by a link. */
static int open_parent(struct page_server *s, const char *path)
{
	if (path) {
		autoclose int before = openat(s->dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (before < 0)
			return fail(errno,
				    "--prev-images-dir %s: open (relative paths begin in "
				    "the images directory)",
				    path);
		int rc = pagemap_check_chain(before, s->dir, path);
		if (rc == 0)
			rc = pagemap_link_parent(&s->images, before, path);
		if (rc < 0)
			return rc;
	}
	s->parent_fd = openat(s->dir, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->parent_fd < 0)
		return errno == ENOENT ? 0 : fail(errno, "open the link `parent`");
	return path ? 0 : pagemap_check_chain(s->parent_fd, s->dir, "parent");
}

static int open_all(struct page_server *s, const struct options *o)
{
	s->dir = open(o->images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0 || faccessat(s->dir, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return fail(errno, "images directory %s: open for writing", o->images_dir);
	image_dir_init(&s->images, s->dir);
	s->listening = open_socket(s, o);
	return s->listening < 0 ? s->listening : open_parent(s, o->prev_images_dir);
}

struct page_server *page_server_open(const struct options *o)
{
	struct page_server *s = xmalloc(sizeof(*s));

	*s = (struct page_server){ .listening = -1,
				   .dir = -1,
				   .signals = -1,
				   .parent_fd = -1,
				   .fd = -1,
				   .last_pages_id = FIRST_PAGES - 1 };
	s->set.arena = &s->arena;
	if (open_all(s, o) == 0)
		return s;
	image_dir_discard(&s->images);
	page_server_free(s);
	return NULL;
}

int page_server_port(const struct page_server *s)
{
	return s->port;
}

void page_server_free(struct page_server *s)
{
	int *const fds[] = { &s->listening, &s->dir, &s->signals, &s->parent_fd, &s->fd };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		own_close(fds[i]);
	pagemap_set_done(&s->set);
	image_dir_done(&s->images);
	arena_done(&s->arena);
	free(s);
}

/* A socket that listens gives its first connection; another one is the connection. */
static int take_connection(struct page_server *s)
{
	int listens = 0;
	socklen_t size = sizeof(listens);

	if (getsockopt(s->listening, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
		return fail(errno, "page server: descriptor %d: it is no socket", s->listening);
	if (!listens) {
		s->fd = take_fd(&s->listening);
	} else {
		int rc = wait_for_peer(s, s->listening);

		if (rc < 0)
			return rc;
		s->fd = accept4(s->listening, NULL, NULL, SOCK_CLOEXEC);
		if (s->fd < 0)
			return fail(errno, "page server: accept");
		(void)close(take_fd(&s->listening));
	}
	page_wire_prepare(s->fd);
	return 0;
}

/* From here on they end it in an orderly way. */
static int watch_signals(struct page_server *s)
{
	sigset_t set;

	if (s->signals >= 0)
		return 0;
	engine_stop_signals(&set);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return fail(errno, "page server: block signals");
	s->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return s->signals < 0 ? fail(errno, "page server: watch signals") : 0;
}

int page_server_serve(struct page_server *s)
{
	autofree uint8_t *buffer = xmalloc(BUFFER);
	int rc = watch_signals(s);

	s->buffer = buffer;
	if (rc == 0)
		rc = take_connection(s);
	while (rc == 0 && !s->is_over)
		rc = serve_message(s);
	if (s->in.is_open)
		(void)close(s->in.fd);
	if (rc < 0)
		image_dir_discard(&s->images);
	else
		info("Page server: %lu pages received, %lu known", (long)s->pages, (long)s->known);
	return rc;
}

/* What a daemon could only tell its log is found out before. */
static int check(const struct options *o)
{
	if (o->detach && o->ps_socket >= 0 && o->ps_socket <= STDERR_FILENO)
		return refuse(EINVAL, "--ps-socket %d: a daemon has another file there",
			      o->ps_socket);
	if (o->pidfile && access(o->pidfile, F_OK) == 0)
		return refuse(EEXIST, "pidfile %s: it may not exist yet", o->pidfile);
	return 0;
}

static int run(struct page_server *s, const struct options *o)
{
	int rc = watch_signals(s);

	if (rc < 0)
		return rc;
	if (s->port) /* who has not given one has to know */
		message("Page server is at port %d", s->port);
	if (o->detach && daemon(1, 0) < 0)
		return fail(errno, "become a daemon");
	rc = o->pidfile ? pidfile_write(o->pidfile, getpid()) : 0;
	if (rc < 0)
		return rc;
	status_tell_ready(o);
	return page_server_serve(s);
}

int cmd_page_server(const struct options *o)
{
	struct page_server *s = check(o) < 0 ? NULL : page_server_open(o);

	if (!s)
		return 1;
	int rc = run(s, o);
	page_server_free(s);
	return rc < 0;
}
