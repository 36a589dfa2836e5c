/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unix sockets at restore. criu makes all of them, in this order:
 *  1. opened with all files: sockets, their names, listeners, pairs;
 *  2. in sockets_finish: connections that wait in a backlog (after those that were accepted, or
 *     accept would get the wrong one), then queues, which the peer fills, then shutdown and
 *     options, which might refuse that.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "sockets/author.h"
#include "sockets/options.h"
#include "sockets/sockets.h"
#include "sockets/unix.h"

#define DEPTH_MAX 1000 /* of sockets that are each the peer of the next */

#define COLLECT_POLL_US 500

struct restore_unix {
	const UnixSkEntry *e;
	struct restore_unix *peer; /* in the images; NULL: none */
	int fd;			   /* -1: not made yet; a number of criu's own */
	int spare;		   /* the other end, where no task has it */
	int file;		   /* O_PATH of the socket's file: leads there by any name */
	const char *hidden;	   /* name of the file until all is connected; NULL: none */
	const char *path;	   /* where it goes then, absolute */
	bool is_making;
	bool is_late;	    /* made in its author, when the processes exist */
	bool is_relistened; /* by its author */
};

struct restore_sockets {
	struct restore_unix *sk;
	size_t n;
	struct cuts cuts;
	struct restore_unix **listeners;
	size_t n_listeners;
	struct restore_unix **extra; /* listeners that are closed at the end, as they were */
	size_t n_extra;
	unsigned depth;
	bool has_pairs; /* those that authors make are made */
};

bool socket_is_outside(const FileEntry *e)
{
	return e->usk && e->usk->uflags & UNIX_OUTSIDE;
}

static int by_ino(const void *a, const void *b)
{
	uint32_t x = ((const struct restore_unix *)a)->e->ino,
		 y = ((const struct restore_unix *)b)->e->ino;

	return (x > y) - (x < y);
}

static struct restore_unix *find(const struct restore_sockets *s, uint32_t ino)
{
	const UnixSkEntry e = { .ino = ino };
	const struct restore_unix key = { .e = &e };

	return bsearch(&key, s->sk, s->n, sizeof(key), by_ino);
}

static struct author author_of(const struct restore *r, const UnixSkEntry *e)
{
	return (struct author){ .task = e->has_peer_pid ? author_find(r, e->peer_pid) : NULL,
				.uid = e->peer_uid,
				.gid = e->peer_gid };
}

/* Both are in the images and connected to each other. */
static bool is_mutual(const struct restore_unix *u)
{
	const struct restore_unix *p = u->peer;

	return p && p != u && p->e->peer == u->e->ino && p->e->type == u->e->type &&
	       !(p->e->uflags & UNIX_OUTSIDE);
}

static bool is_half(const struct restore_unix *u)
{
	/* Of one with a name, in images of the established tool, the state tells nothing. */
	return !u->peer && u->e->state == UNIX_ESTABLISHED &&
	       (unix_is_stream(u->e->type) || !u->e->name.len);
}

/* An accepted socket has the name of its listener. */
static struct restore_unix *listener_of(const struct restore_sockets *s, uint32_t type,
					const ProtobufCBinaryData *name)
{
	for (size_t i = 0; i < s->n_listeners; i++) {
		const UnixSkEntry *l = s->listeners[i]->e;

		if (l->type == type && name->len && l->name.len == name->len &&
		    !memcmp(l->name.data, name->data, name->len))
			return s->listeners[i];
	}
	return NULL;
}

/* Connections are made through a listener, and it is its author who has to listen for that. */
static bool has_listener_of_author(const struct restore *r, const struct restore_sockets *s,
				   const UnixSkEntry *e)
{
	const struct restore_unix *server = listener_of(s, e->type, &e->name),
				  *gone = listener_of(s, e->type, &e->peer_name);

	return unix_is_stream(e->type) &&
	       ((server && author_of(r, server->e).task) || (gone && author_of(r, gone->e).task));
}

static bool needs_author(const struct restore *r, const struct restore_sockets *s,
			 const struct restore_unix *u)
{
	if (u->e->state == UNIX_LISTEN || u->e->uflags & UNIX_OUTSIDE)
		return false;
	if (has_listener_of_author(r, s, u->e))
		return true;
	if (is_mutual(u))
		return author_of(r, u->e).task || author_of(r, u->peer->e).task ||
		       has_listener_of_author(r, s, u->peer->e);
	return is_half(u) && author_of(r, u->e).task;
}

static struct restore_sockets *state(struct restore *r)
{
	if (r->sockets)
		return r->sockets;
	struct restore_sockets *s = arena_new(&r->arena, struct restore_sockets);
	for (size_t i = 0; i < r->snapshot.n_files; i++)
		if (r->snapshot.files[i]->usk)
			*ARENA_PUSH(&r->arena, s->sk, s->n) = (struct restore_unix){
				.e = r->snapshot.files[i]->usk, .fd = -1, .spare = -1, .file = -1
			};
	qsort(s->sk, s->n, sizeof(*s->sk), by_ino);
	for (size_t i = 0; i < s->n; i++)
		s->sk[i].peer = s->sk[i].e->peer ? find(s, s->sk[i].e->peer) : NULL;
	for (size_t i = 0; i < s->n; i++)
		if (s->sk[i].e->state == UNIX_LISTEN && !(s->sk[i].e->uflags & UNIX_OUTSIDE))
			*ARENA_PUSH(&r->arena, s->listeners, s->n_listeners) = &s->sk[i];
	for (size_t i = 0; i < s->n; i++)
		s->sk[i].is_late = needs_author(r, s, &s->sk[i]);
	if (cuts_parse(r->opts, true, &s->cuts) < 0)
		return NULL;
	return r->sockets = s;
}

int unix_check(const struct restore *r, const FileEntry *entry)
{
	const UnixSkEntry *e = entry->usk;

	(void)r;
	if (!e->ino || !e->opts || e->name.len > UNIX_NAME_MAX + 1 ||
	    e->peer_name.len > UNIX_NAME_MAX + 1 ||
	    (!unix_is_stream(e->type) && e->type != SOCK_DGRAM))
		return refuse(EINVAL, "image files.img: unix socket %#x makes no sense", e->id);
	if ((e->name_dir && e->name_dir[0] != '/') ||
	    (e->file_path && (e->file_path[0] != '/' || strlen(e->file_path) >= 4096)) ||
	    (e->name.len && e->name.data[0] && e->name.data[0] != '/' && !e->name_dir &&
	     !(e->uflags & UNIX_OUTSIDE)))
		return refuse(EINVAL,
			      "image files.img: unix socket %#x: the directory of its name %s is "
			      "missing or "
			      "not absolute",
			      e->id, unix_name(&e->name).s);
	return 0;
}

static int failed(const struct restore_unix *u, int err, const char *what)
{
	return fail(err, "unix socket %u (%s): %s", u->e->ino, unix_name(&u->e->name).s, what);
}

/* ---- names ---- */

static bool is_path(const UnixSkEntry *e)
{
	return e->name.len && e->name.data[0];
}

static socklen_t address(const void *name, size_t len, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	len = min(len, (size_t)UNIX_NAME_MAX);
	memcpy(ret->sun_path, name, len);
	return offsetof(struct sockaddr_un, sun_path) + len;
}

/* A socket file without a socket behind it refuses connections. */
static bool somebody_listens(const struct restore_unix *u, const char *path)
{
	autoclose int fd = socket(AF_UNIX, u->e->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr;
	socklen_t len = address(path, strlen(path), &addr);

	return fd >= 0 && (connect(fd, (struct sockaddr *)&addr, len) == 0 || errno == EAGAIN ||
			   errno == EPROTOTYPE);
}

bool sockets_may_be_collected(uint64_t give_up_us)
{
	if (now_us() > give_up_us)
		return false;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)close(fd);
	(void)usleep(COLLECT_POLL_US);
	return true;
}

static int bind_when_free(int fd, const struct sockaddr_un *addr, socklen_t len)
{
	uint64_t give_up_us = now_us() + SOCKETS_COLLECT_US;
	int rc;

	do
		rc = bind(fd, (const struct sockaddr *)addr, len) < 0 ? -errno : 0;
	while (rc == -EADDRINUSE && !addr->sun_path[0] && sockets_may_be_collected(give_up_us));
	return rc;
}

/* An old socket file may go, nothing else. */
static int remove_old(const struct restore_unix *u, const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	uint64_t give_up_us = now_us() + SOCKETS_COLLECT_US;
	while (somebody_listens(u, path))
		if (!sockets_may_be_collected(give_up_us))
			return -EADDRINUSE;
	return unlink(path) < 0 ? -errno : 0;
}

/* What stands at the path now: an old socket file goes, another file steps aside. */
static int make_room(const struct restore_unix *u, const char *path, char *aside, size_t size)
{
	struct stat st;

	aside[0] = '\0';
	if (u->e->file_path) {
		int rc = remove_old(u, u->e->file_path);

		if (rc < 0)
			return rc;
	}
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!u->e->deleted && !u->e->file_path)
		return remove_old(u, path);
	snprintf(aside, size, "%s.cr.%x.tmp", path, u->e->id);
	return rename(path, aside) < 0 ? -errno : 0;
}

static int set_perms(const struct restore_unix *u, const char *path)
{
	const FilePermsEntry *p = u->e->file_perms;

	if (!p)
		return 0;
	return chmod(path, p->mode & 07777) < 0 || chown(path, p->uid, p->gid) < 0 ? -errno : 0;
}

/*
 * Until everything is connected nobody else may find the socket: a stranger who connects first
 * would be accepted in place of a client of the images.
 */
static int hide(struct restore *r, struct restore_unix *u, const char *path)
{
	char link[64], now[4096], hidden[4200];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", u->file);
	ssize_t len = read_link_at(AT_FDCWD, link, now, sizeof(now));
	if (len < 0)
		return len;
	if (u->e->file_path)
		snprintf(now, sizeof(now), "%s", u->e->file_path);
	snprintf(hidden, sizeof(hidden), "%s.cr.%x.hid", now, u->e->id);
	if (rename(path, hidden) < 0)
		return -errno;
	u->path = arena_strdup(&r->arena, now);
	u->hidden = arena_strdup(&r->arena, hidden);
	return 0;
}

/* In the directory that the name is relative to. */
static int bind_path(struct restore *r, struct restore_unix *u)
{
	char path[UNIX_NAME_MAX + 2] = { 0 }, aside[UNIX_NAME_MAX + 64];
	struct sockaddr_un addr;
	socklen_t len = address(u->e->name.data, u->e->name.len, &addr);
	int rc;

	memcpy(path, u->e->name.data, u->e->name.len);
	rc = make_room(u, path, aside, sizeof(aside));
	if (rc < 0)
		return rc;
	if (bind(u->fd, (struct sockaddr *)&addr, len) < 0)
		rc = -errno;
	if (rc == 0)
		rc = set_perms(u, path);
	if (rc < 0) {
		if (aside[0])
			(void)rename(aside, path);
		return rc;
	}
	u->file = files_own_number(r, open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	rc = u->file < 0     ? -EIO
	     : u->e->deleted ? (unlink(path) < 0 ? -errno : 0)
			     : hide(r, u, path);
	if (aside[0] && rename(aside, path) < 0)
		return -errno;
	return rc;
}

static int bind_name(struct restore *r, struct restore_unix *u)
{
	struct sockaddr_un addr;
	int rc;

	if (!u->e->name.len)
		return 0;
	if (!is_path(u->e)) {
		socklen_t len = address(u->e->name.data, u->e->name.len, &addr);

		rc = bind_when_free(u->fd, &addr, len);
		return rc < 0 ? failed(u, -rc, "bind it to its name") : 0;
	}
	autoclose int here = u->e->name_dir ? open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (u->e->name_dir && (here < 0 || chdir(u->e->name_dir) < 0))
		return failed(u, errno, "go to the directory of its name");
	char dir[UNIX_NAME_MAX + 2] = { 0 };
	memcpy(dir, u->e->name.data, u->e->name.len);
	if (dir[0] == '/' && files_make_parents(r, dir) < 0)
		return -ENOENT;
	mode_t mask = umask(0);
	rc = bind_path(r, u);
	(void)umask(mask);
	if (here >= 0 && fchdir(here) < 0)
		return failed(u, errno, "go back from the directory of its name");
	return rc < 0 ? failed(u, -rc, "bind it to its path") : 0;
}

/* The address of a socket of the images, by whatever leads there. */
static socklen_t address_of(const struct restore_unix *to, struct sockaddr_un *ret)
{
	char path[64];

	if (to->file < 0)
		return address(to->e->name.data, to->e->name.len, ret);
	/* By our pid, because an author that has not the descriptor may do this. */
	int len = snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), to->file);
	return address(path, len + 1, ret);
}

static int connect_to(int fd, const struct restore_unix *to)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(to, &addr);

	return connect(fd, (struct sockaddr *)&addr, len) < 0 ? -errno : 0;
}

/* ---- making them ---- */

static int make_socket(struct restore *r, struct restore_unix *u)
{
	u->fd = files_own_number(r, socket(AF_UNIX, u->e->type | SOCK_CLOEXEC, 0));
	return u->fd < 0 ? failed(u, errno, "make it") : 0;
}

static int make_pair(struct restore *r, const struct restore_unix *u, int *ret_a, int *ret_b)
{
	int fd[2];

	if (socketpair(AF_UNIX, u->e->type | SOCK_CLOEXEC, 0, fd) < 0)
		return failed(u, errno, "make a pair");
	*ret_a = files_own_number(r, fd[0]);
	*ret_b = files_own_number(r, fd[1]);
	return *ret_a < 0 || *ret_b < 0 ? -EMFILE : 0;
}

static int ensure(struct restore *r, struct restore_unix *u);

static int make_listener(struct restore *r, struct restore_unix *u)
{
	int rc = make_socket(r, u);

	if (rc == 0)
		rc = bind_name(r, u);
	/* Room for all who wait; the true length comes last. */
	if (rc == 0 && listen(u->fd, INT_MAX) < 0)
		rc = failed(u, errno, "listen");
	return rc;
}

/* In its author, so that clients are told of that one. */
static int relisten(struct restore *r, struct restore_unix *u)
{
	const struct author a = author_of(r, u->e);

	if (!a.task || u->is_relistened)
		return 0;
	u->is_relistened = true;
	return author_listen(r, &a, u->fd, INT_MAX);
}

/* What the server is told of its client. */
static int connect_as(struct restore *r, struct author a, int fd, const struct restore_unix *to)
{
	struct sockaddr_un addr;
	socklen_t len = address_of(to, &addr);

	if (!a.task)
		return connect_to(fd, to);
	return author_connect(r, &a, fd, (struct sockaddr *)&addr, len);
}

/* An abstract name cannot be hidden: whoever is not ours is turned away. */
static int accept_from(struct restore *r, const struct restore_unix *listener,
		       const struct restore_task *author)
{
	pid_t pid = author ? author->pid : getpid();

	for (;;) {
		struct ucred cred;
		socklen_t len = sizeof(cred);
		autoclose int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return -errno;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
			return -errno;
		if (cred.pid == pid)
			return files_own_number(r, take_fd(&fd));
	}
}

static int connect_through(struct restore *r, struct restore_unix *listener,
			   struct restore_unix *server, struct restore_unix *client)
{
	int rc = ensure(r, listener);

	if (rc == 0)
		rc = make_socket(r, client);
	if (rc == 0)
		rc = bind_name(r, client);
	if (rc < 0)
		return rc;
	rc = relisten(r, listener);
	if (rc < 0)
		return rc;
	rc = connect_as(r, author_of(r, server->e), client->fd, listener);
	if (rc < 0)
		return failed(client, -rc, "connect it to its listener");
	server->fd = accept_from(r, listener, author_of(r, server->e).task);
	return server->fd < 0 ? failed(server, -server->fd, "accept it") : 0;
}

/*
 * A connection outlives its listener, and has its name: then there is a listener for as long as
 * connections are made. Clients are told of its author.
 */
static struct restore_unix *extra_listener(struct restore *r, const struct restore_unix *server,
					   const struct restore_unix *client)
{
	struct restore_sockets *s = r->sockets;
	struct restore_unix *l = arena_new(&r->arena, struct restore_unix);
	UnixSkEntry *e = arena_memdup(&r->arena, server->e, sizeof(*e));

	e->state = UNIX_LISTEN;
	e->peer = 0;
	e->has_peer_pid = client && client->e->has_peer_pid;
	e->peer_pid = e->has_peer_pid ? client->e->peer_pid : 0;
	e->peer_uid = client ? client->e->peer_uid : 0;
	e->peer_gid = client ? client->e->peer_gid : 0;
	*l = (struct restore_unix){ .e = e, .fd = -1, .spare = -1, .file = -1 };
	*ARENA_PUSH(&r->arena, s->listeners, s->n_listeners) = l;
	*ARENA_PUSH(&r->arena, s->extra, s->n_extra) = l;
	return l;
}

/* Both ends are in the images and connected to each other. */
static int make_connected(struct restore *r, struct restore_unix *u)
{
	struct restore_unix *p = u->peer;

	if (unix_is_stream(u->e->type)) {
		struct restore_unix *l = listener_of(r->sockets, u->e->type, &u->e->name);

		if (l)
			return connect_through(r, l, u, p);
		l = listener_of(r->sockets, p->e->type, &p->e->name);
		if (l)
			return connect_through(r, l, p, u);
		if (u->e->name.len)
			return connect_through(r, extra_listener(r, u, p), u, p);
		if (p->e->name.len)
			return connect_through(r, extra_listener(r, p, u), p, u);
	}
	int rc = make_pair(r, u, &u->fd, &p->fd);
	if (rc == 0 && !unix_is_stream(u->e->type))
		rc = bind_name(r, u);
	if (rc == 0 && !unix_is_stream(u->e->type))
		rc = bind_name(r, p);
	return rc;
}

static int make_bound(struct restore *r, struct restore_unix *u)
{
	int rc = make_socket(r, u);

	return rc < 0 ? rc : bind_name(r, u);
}

static int make_half_of_client(struct restore *r, struct restore_unix *u)
{
	UnixSkEntry e = *u->e;
	struct restore_unix server = { .e = &e, .fd = -1, .spare = -1, .file = -1 };

	e.name = u->e->peer_name;
	e.name_dir = NULL;
	e.file_perms = NULL;
	e.has_deleted = e.deleted = true; /* whatever has the path now keeps it */
	e.has_peer_pid = false;
	struct restore_unix *l = listener_of(r->sockets, e.type, &e.name);
	int rc = connect_through(r, l ? l : extra_listener(r, &server, u), &server, u);
	u->spare = server.fd;
	return rc;
}

/* The peer has gone; what it had sent may wait. The other end is closed in sockets_finish. */
static int make_half(struct restore *r, struct restore_unix *u)
{
	UnixSkEntry e = *u->e;
	struct restore_unix client = { .e = &e, .fd = -1, .spare = -1, .file = -1 };

	if (unix_is_stream(e.type) && e.has_peer_name && e.peer_name.len)
		return make_half_of_client(r, u);
	if (!e.name.len || !unix_is_stream(e.type))
		return make_pair(r, u, &u->fd, &u->spare);
	struct restore_unix *l = listener_of(r->sockets, u->e->type, &u->e->name);

	e.name.len = 0;
	e.has_peer_pid = false;
	int rc = connect_through(r, l ? l : extra_listener(r, u, NULL), u, &client);
	u->spare = client.fd;
	return rc;
}

static bool has_queue(const struct restore *r, const struct restore_unix *u, uint64_t *bytes)
{
	bool has = false;

	*bytes = 0;
	for (size_t i = 0; i < r->snapshot.n_packets; i++) {
		if (r->snapshot.packets[i].entry->id_for != u->e->id)
			continue;
		has = true;
		*bytes += r->snapshot.packets[i].entry->length;
	}
	return has;
}

/* Born connected, so that the other end can reach it without a name, and then not any more. */
static int disconnect(struct restore_unix *u, int other)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };
	int error;
	socklen_t len = sizeof(error);

	if (connect(u->fd, &none, sizeof(none)) < 0)
		return failed(u, errno, "disconnect it");
	/* It leaves an error at the other end, which this takes. */
	(void)getsockopt(other, SOL_SOCKET, SO_ERROR, &error, &len);
	return 0;
}

/* Without a name and a peer, but with something in its queue. */
static int make_reached(struct restore *r, struct restore_unix *u)
{
	int rc = make_half(r, u);

	return rc < 0 ? rc : disconnect(u, u->spare);
}

/* A datagram socket whose peer does not answer it, or is itself. */
static int make_one_way(struct restore *r, struct restore_unix *u)
{
	struct restore_unix *p = u->peer;
	int rc;

	if (p != u && !p->e->name.len && p->fd < 0) {
		rc = make_pair(r, u, &u->fd, &p->fd);
		if (rc == 0)
			rc = disconnect(p, u->fd);
		return rc < 0 ? rc : bind_name(r, u);
	}
	rc = p == u ? 0 : ensure(r, p);
	if (rc == 0)
		rc = make_bound(r, u);
	if (rc < 0)
		return rc;
	if (!p->e->name.len)
		return refuse(EOPNOTSUPP,
			      "unix socket %u: its peer %u has no name, and is not its alone; this "
			      "cannot be restored",
			      u->e->ino, p->e->ino);
	rc = connect_to(u->fd, p);
	return rc < 0 ? failed(u, -rc, "connect it to its peer") : 0;
}

/*
 * Binds to a path for a moment. What stands there now, perhaps the file that the first socket of
 * that name has left, steps aside. ret_file leads there later.
 */
static int bind_for_now(int fd, const struct sockaddr_un *addr, socklen_t len, uint32_t id,
			int *ret_file)
{
	char path[UNIX_NAME_MAX + 2] = { 0 }, aside[UNIX_NAME_MAX + 64];

	memcpy(path, addr->sun_path, sizeof(addr->sun_path));
	snprintf(aside, sizeof(aside), "%s.cr.%x.tmp", path, id);
	bool is_aside = rename(path, aside) == 0;
	if (!is_aside && errno != ENOENT)
		return -errno;
	int rc = bind(fd, (const struct sockaddr *)addr, len) < 0 ? -errno : 0;
	if (rc == 0) {
		*ret_file = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		(void)unlink(path);
	}
	if (is_aside && rename(aside, path) < 0)
		return -errno;
	return rc;
}

/* A relative name may be bound in any directory. */
static int bind_relative(int fd, const struct sockaddr_un *addr, socklen_t len, uint32_t id,
			 int *ret_file)
{
	char dir[] = "/tmp/criu.XXXXXX";
	autoclose int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (here < 0 || !mkdtemp(dir))
		return -errno;
	int rc = chdir(dir) < 0 ? -errno : bind_for_now(fd, addr, len, id, ret_file);
	if (fchdir(here) < 0 && rc == 0)
		rc = -errno;
	(void)rmdir(dir);
	return rc;
}

/* Gives a socket the name of one that is gone; ret_file: its file, or -1. */
static int bind_as_gone(int fd, const ProtobufCBinaryData *name, uint32_t id, int *ret_file)
{
	struct sockaddr_un addr;
	socklen_t len = address(name->data, name->len, &addr);

	*ret_file = -1;
	if (!addr.sun_path[0])
		return bind_when_free(fd, &addr, len);
	if (addr.sun_path[0] == '/')
		return bind_for_now(fd, &addr, len, id, ret_file);
	return bind_relative(fd, &addr, len, id, ret_file);
}

/* Its peer is closed, which a datagram socket notices only when it sends: until then it has a name.
 */
static int make_with_gone_peer(struct restore *r, struct restore_unix *u)
{
	UnixSkEntry e = *u->e;
	struct restore_unix gone = { .e = &e, .fd = -1, .spare = -1, .file = -1 };
	int rc = make_bound(r, u);

	if (rc < 0)
		return rc;
	autoclose int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	autoclose int file = -1;
	e.name = e.peer_name;
	rc = fd < 0 ? -errno : bind_as_gone(fd, &e.peer_name, e.id, &file);
	gone.file = file;
	if (rc == 0)
		rc = connect_to(u->fd, &gone);
	if (rc < 0)
		warn("unix socket %u: its peer %s was gone; now it has none: %s", u->e->ino,
		     unix_name(&e.name).s, strerror(-rc));
	return 0;
}

/* ---- the other end was outside ---- */

static int connect_outside(struct restore_unix *u, const char *path)
{
	struct sockaddr_un addr;
	const ProtobufCBinaryData *name = &u->peer->e->name;
	socklen_t len = path ? address(path, strlen(path) + 1, &addr)
			     : address(name->data, name->len, &addr);

	if (connect(u->fd, (struct sockaddr *)&addr, len) == 0)
		return 0;
	return fail(
		errno,
		"unix socket %u: connect it again to %s%s (another path: --ext-unix-sk=%u=PATH; "
		"without: --ext-unix-sk=%u=close)",
		u->e->ino, path ? path : unix_name(name).s,
		errno == EPROTOTYPE ? ", a socket of another type" : "", u->e->ino, u->e->ino);
}

static int make_outside(struct restore *r, struct restore_unix *u)
{
	struct restore_sockets *s = r->sockets;
	struct cut *cut = cuts_find(&s->cuts, u->e->ino);
	bool is_plain = s->cuts.all_datagrams && u->e->type == SOCK_DGRAM;
	uint64_t bytes;

	if (cut)
		cut->is_used = true;
	if (!cut && !is_plain)
		return refuse(
			ENOTCONN,
			"unix socket %u: external socket is used: it was connected to %s, outside "
			"the tree; to connect it again give --ext-unix-sk=%u",
			u->e->ino, unix_name(&u->peer->e->name).s, u->e->ino);
	if (cut && cut->is_closed)
		return make_half(r, u);
	if (!u->peer->e->name.len && !(cut && cut->path))
		return refuse(
			EINVAL,
			"unix socket %u: its peer outside had no name; give --inherit-fd "
			"'fd[N]:socket:[%u]', --ext-unix-sk=%u=PATH or --ext-unix-sk=%u=close",
			u->e->ino, u->e->ino, u->e->ino, u->e->ino);
	if (has_queue(r, u, &bytes) && unix_is_stream(u->e->type))
		return refuse(
			EOPNOTSUPP,
			"unix socket %u: %llu bytes that its peer outside had sent are unread; "
			"they cannot be put before what a new peer sends (without one: "
			"--ext-unix-sk=%u=close)",
			u->e->ino, (unsigned long long)bytes, u->e->ino);
	int rc = make_bound(r, u);
	return rc < 0 ? rc : connect_outside(u, cut ? cut->path : NULL);
}

static int make(struct restore *r, struct restore_unix *u)
{
	const UnixSkEntry *e = u->e;
	struct restore_unix *p = u->peer;

	if (e->state == UNIX_LISTEN)
		return make_listener(r, u);
	if (p && p->e->uflags & UNIX_OUTSIDE)
		return make_outside(r, u);
	if (is_mutual(u))
		return make_connected(r, u);
	if (p && unix_is_stream(e->type)) /* it waits in the backlog of p: sockets_finish */
		return make_bound(r, u);
	if (p)
		return make_one_way(r, u);
	if (e->type == SOCK_DGRAM && e->has_peer_name && e->peer_name.len)
		return make_with_gone_peer(r, u);
	if (is_half(u))
		return make_half(r, u);
	uint64_t bytes;
	if (!e->name.len && has_queue(r, u, &bytes))
		return make_reached(r, u);
	return make_bound(r, u);
}

static int ensure(struct restore *r, struct restore_unix *u)
{
	if (u->fd >= 0)
		return 0;
	if (u->is_making || r->sockets->depth > DEPTH_MAX)
		return refuse(
			EINVAL,
			"image files.img: unix sockets are connected in a circle or chain at %u",
			u->e->ino);
	u->is_making = true;
	r->sockets->depth++;
	int rc = make(r, u);
	r->sockets->depth--;
	u->is_making = false;
	return rc;
}

static int by_author(const void *a, const void *b)
{
	const UnixSkEntry *x = (*(struct restore_unix *const *)a)->e,
			  *y = (*(struct restore_unix *const *)b)->e;

	if (x->peer_pid != y->peer_pid)
		return x->peer_pid < y->peer_pid ? -1 : 1;
	if (x->peer_uid != y->peer_uid)
		return x->peer_uid < y->peer_uid ? -1 : 1;
	return (x->peer_gid > y->peer_gid) - (x->peer_gid < y->peer_gid);
}

/* Pairs of one author, as many as go into a program. */
static int make_some_pairs(struct restore *r, struct restore_unix **list, size_t n)
{
	const struct author author = author_of(r, list[0]->e);
	uint32_t types[AUTHOR_PAIRS_MAX];
	int fds[AUTHOR_PAIRS_MAX][2];

	for (size_t i = 0; i < n; i++)
		types[i] = list[i]->e->type;
	int rc = author_make_pairs(&author, types, n, fds);
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct restore_unix *u = list[i];
		int other = files_own_number(r, fds[i][1]);

		u->fd = files_own_number(r, fds[i][0]);
		*(is_mutual(u) ? &u->peer->fd : &u->spare) = other;
		rc = u->fd < 0 ? u->fd : min(other, 0);
		if (rc == 0 && u->e->type == SOCK_DGRAM)
			rc = bind_name(r, u);
		if (rc == 0 && u->e->type == SOCK_DGRAM && is_mutual(u))
			rc = bind_name(r, u->peer);
	}
	return rc;
}

/* Of the two that are connected, the one with the lower inode stands for the pair. */
static bool is_pair_of_author(const struct restore *r, const struct restore_unix *u)
{
	if (!u->is_late || !author_of(r, u->e).task)
		return false;
	if (!is_mutual(u))
		return !unix_is_stream(u->e->type) || (!u->e->name.len && !u->e->peer_name.len);
	if (author_of(r, u->peer->e).task && u->peer->e->ino < u->e->ino)
		return false;
	return !unix_is_stream(u->e->type) || (!u->e->name.len && !u->peer->e->name.len);
}

static int make_pairs_in_authors(struct restore *r)
{
	struct restore_sockets *s = r->sockets;
	struct restore_unix **list = arena_array(&r->arena, struct restore_unix *, s->n);
	size_t n = 0;
	int rc = 0;

	for (size_t i = 0; i < s->n; i++)
		if (is_pair_of_author(r, &s->sk[i]))
			list[n++] = &s->sk[i];
	qsort(list, n, sizeof(*list), by_author);
	for (size_t i = 0, end; i < n && rc == 0; i = end) {
		end = i + 1;
		while (end < n && end - i < AUTHOR_PAIRS_MAX &&
		       by_author(&list[i], &list[end]) == 0)
			end++;
		rc = make_some_pairs(r, list + i, end - i);
	}
	return rc;
}

int unix_open(struct restore *r, const FileEntry *e)
{
	struct restore_sockets *s = state(r);
	struct restore_unix *u = s ? find(s, e->usk->ino) : NULL;
	int rc = u ? 0 : -EINVAL;

	if (rc == 0 && u->is_late && !s->has_pairs) {
		s->has_pairs = true;
		rc = make_pairs_in_authors(r);
	}
	if (rc == 0)
		rc = ensure(r, u);
	if (rc < 0)
		return rc;
	if (u->e != e->usk)
		return refuse(EINVAL, "image files.img: two unix sockets have the inode %u",
			      e->usk->ino);
	/* What is opened late is moved by the caller, while queues have to be filled yet. */
	if (!u->is_late)
		return u->fd;
	int fd = fcntl(u->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? fail(errno, "unix socket %u: duplicate it", e->usk->ino) : fd;
}

bool unix_is_late(const struct restore *r, const FileEntry *e)
{
	/* The state is made by the first question. */
	const struct restore_sockets *s = state((struct restore *)r);
	const struct restore_unix *u = s ? find(s, e->usk->ino) : NULL;

	return u && u->is_late;
}

/* ---- when all files are open ---- */

/* The kernel puts descriptors of a message into one control message. */
static void add_rights(const struct restore *r, const ScmEntry *scm, struct msghdr *msg)
{
	struct cmsghdr *c = msg->msg_control;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(scm->n_rights * sizeof(int));
	for (size_t k = 0; k < scm->n_rights; k++) {
		int file = files_fd(r, scm->rights[k]);

		memcpy(CMSG_DATA(c) + k * sizeof(int), &file, sizeof(file));
	}
	msg->msg_controllen = CMSG_SPACE(scm->n_rights * sizeof(int));
}

static void add_credentials(const SkPacketEntry *e, struct msghdr *msg)
{
	const struct ucred cred = { e->cred_pid, e->cred_uid, e->cred_gid };
	struct cmsghdr *c = (struct cmsghdr *)((uint8_t *)msg->msg_control + msg->msg_controllen);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_CREDENTIALS;
	c->cmsg_len = CMSG_LEN(sizeof(cred));
	memcpy(CMSG_DATA(c), &cred, sizeof(cred));
	msg->msg_controllen += CMSG_SPACE(sizeof(cred));
}

static int send_packet(struct restore *r, const struct snapshot_packet *p, int fd,
		       struct sockaddr_un *to, socklen_t to_len)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(SCM_RIGHTS_MAX * sizeof(int)) +
						 CMSG_SPACE(sizeof(struct ucred))];
	struct iovec iov = { (void *)p->data, p->entry->length };
	struct msghdr msg = { .msg_name = to_len ? to : NULL,
			      .msg_namelen = to_len,
			      .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control };

	if (p->entry->n_scm)
		add_rights(r, p->entry->scm[0], &msg);
	/* A sender that is no more cannot be named. */
	if (p->entry->has_cred_pid && kill(p->entry->cred_pid, 0) == 0)
		add_credentials(p->entry, &msg);
	ssize_t n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	return n == (ssize_t)p->entry->length ? 0 : -ENOBUFS;
}

/* Somebody who is connected to the socket, or nobody. */
static int sender_for(struct restore *r, const struct restore_unix *u, bool has_name,
		      bool *is_temporary)
{
	const struct restore_sockets *s = r->sockets;

	*is_temporary = false;
	if (u->spare >= 0)
		return u->spare;
	if (u->peer && u->peer->peer == u && u->peer->fd >= 0 &&
	    (has_name || !u->peer->e->name.len || !u->e->name.len || unix_is_stream(u->e->type)))
		return u->peer->fd;
	for (size_t i = 0; i < s->n; i++)
		if (s->sk[i].peer == u && s->sk[i].fd >= 0 &&
		    (has_name || !s->sk[i].e->name.len || !u->e->name.len))
			return s->sk[i].fd;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	*is_temporary = true;
	if (fd >= 0 && u->e->name.len && connect_to(fd, u) == 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return -ENOTCONN;
}

/* The socket of the images by which a datagram says that it was sent. */
static struct restore_unix *find_source(const struct restore_sockets *s, const SkPacketEntry *e,
					const struct restore_unix *target)
{
	if (!e->has_source)
		return NULL;
	for (size_t i = 0; i < s->n; i++) {
		struct restore_unix *u = &s->sk[i];

		if (u->fd >= 0 && u->e->type == SOCK_DGRAM && u->e->name.len == e->source.len &&
		    !memcmp(u->e->name.data, e->source.data, e->source.len) &&
		    (target->e->name.len || u->peer == target))
			return u;
	}
	return NULL;
}

/* Gives a socket the name of a sender that is gone. */
static int name_sender(int fd, const struct restore_unix *to, const SkPacketEntry *e)
{
	autoclose int file = -1;
	int rc = bind_as_gone(fd, &e->source, to->e->id, &file);

	if (rc < 0)
		warn("unix socket %u: a datagram that waits in it loses the name of its sender %s: "
		     "%s",
		     to->e->ino, unix_name(&e->source).s, strerror(-rc));
	return rc;
}

/* One that exists for as long as the datagram takes. -1: none. */
static int sender_named(const struct restore_unix *to, const SkPacketEntry *e)
{
	autoclose int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 || name_sender(fd, to, e) < 0 ? -1 : take_fd(&fd);
}

/* Whoever reaches a socket without a name is the other end of a pair: all is from one sender. */
static void name_spare(struct restore_unix *u, const SkPacketEntry *e)
{
	struct sockaddr_un now;
	socklen_t len = sizeof(now);

	if (u->spare >= 0 && getsockname(u->spare, (struct sockaddr *)&now, &len) == 0 &&
	    len <= sizeof(sa_family_t))
		(void)name_sender(u->spare, u, e);
}

static int fill_queue(struct restore *r, const struct snapshot_packet *p)
{
	const int room = 64 << 20;
	int k = snapshot_file(&r->snapshot, p->entry->id_for);
	struct restore_unix *u = find(r->sockets, r->snapshot.files[k]->usk->ino);
	if (u->fd < 0) { /* --inherit-fd has given another one */
		warn("unix socket %u: %u bytes that were unread are not put into the inherited one",
		     u->e->ino, p->entry->length);
		return 0;
	}
	struct restore_unix *source = find_source(r->sockets, p->entry, u);
	struct sockaddr_un to;
	socklen_t to_len = source && source->peer != u ? address_of(u, &to) : 0;
	bool is_temporary = false;
	autoclose int gone =
		p->entry->has_source && !source && u->e->name.len ? sender_named(u, p->entry) : -1;

	if (gone >= 0) {
		to_len = address_of(u, &to);
		int rc = send_packet(r, p, gone, &to, to_len);
		return rc < 0 ? failed(u, -rc, "put back what waited in it") : 0;
	}

	if (p->entry->has_source && !source)
		name_spare(u, p->entry);
	int fd = source ? source->fd : sender_for(r, u, p->entry->has_source, &is_temporary);
	if (fd < 0)
		return failed(u, -fd, "find a sender for what waits in it");
	/* The options come last; until then its own buffer may not limit what it sends. */
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	int rc = send_packet(r, p, fd, &to, to_len);
	if (is_temporary)
		(void)close(fd);
	return rc < 0 ? failed(u, -rc, "put back what waited in it") : 0;
}

/* The kernel takes down who listens each time: so it is the author again, if there is one. */
static int set_backlog(struct restore *r, struct restore_unix *u)
{
	const struct author a = author_of(r, u->e);

	if (u->e->state != UNIX_LISTEN || u->fd < 0)
		return 0;
	if (a.task)
		return author_listen(r, &a, u->fd, u->e->backlog);
	return listen(u->fd, u->e->backlog) < 0 ? failed(u, errno, "set its backlog") : 0;
}

static int finish_one(struct restore *r, struct restore_unix *u)
{
	static const int how[] = { 0, SHUT_RD, SHUT_WR, SHUT_RDWR };

	/* The peer closed while something was unread: that it will find. */
	if (u->e->was_reset && u->spare >= 0)
		(void)send(u->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (u->hidden && rename(u->hidden, u->path) < 0)
		return failed(u, errno, "give its file its name");
	u->hidden = NULL;
	int rc = set_backlog(r, u);
	if (rc < 0)
		return rc;
	own_close(&u->spare);
	own_close(&u->file);
	u->spare = u->file = -1;
	if (u->fd < 0)
		return 0;
	/* An end whose peer is closed is shut down by that. */
	if (u->e->has_shutdown && u->e->shutdown && u->e->shutdown <= 3 &&
	    shutdown(u->fd, how[u->e->shutdown]) < 0 && errno != ENOTCONN)
		return failed(u, errno, "shut it down");
	rc = socket_options_set(u->fd, u->e->opts);
	if (rc < 0)
		return failed(u, -rc, "set its options");
	if (u->e->has_peek_off) {
		const int offset = u->e->peek_off;

		if (setsockopt(u->fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0)
			return failed(u, errno, "set where a look starts (SO_PEEK_OFF)");
	}
	const int settable = O_APPEND | O_NONBLOCK | O_NOATIME;
	if (u->e->flags & settable && fcntl(u->fd, F_SETFL, u->e->flags & settable) < 0)
		return failed(u, errno, "set its flags");
	if (u->is_late) { /* a copy: the tasks take theirs from another number */
		own_close(&u->fd);
		u->fd = -1;
	}
	return 0;
}

static int connect_waiting(struct restore *r, struct restore_unix *u)
{
	struct restore_unix *p = u->peer;

	if (u->fd < 0 || !p || p->e->state != UNIX_LISTEN || !unix_is_stream(u->e->type) ||
	    p->e->uflags & UNIX_OUTSIDE)
		return 0;
	int rc = relisten(r, p);
	if (rc < 0)
		return rc;
	rc = connect_to(u->fd, p);
	return rc < 0 ? failed(u, -rc, "connect it; the other end has not accepted it yet") : 0;
}

/* Its file stays: that of a listener that was closed does, too. */
static int end_extra(struct restore_unix *l)
{
	int rc = 0;

	if (l->hidden && rename(l->hidden, l->path) < 0)
		rc = failed(l, errno, "give its file its name");
	l->hidden = NULL;
	own_close(&l->fd);
	own_close(&l->file);
	l->fd = l->file = -1;
	return rc;
}

static int by_position(const void *a, const void *b)
{
	uint32_t x = (*(struct restore_unix *const *)a)->e->backlog_pos,
		 y = (*(struct restore_unix *const *)b)->e->backlog_pos;

	return (x > y) - (x < y);
}

/* In the order in which they wait. */
static int connect_all_waiting(struct restore *r, struct restore_sockets *s)
{
	struct restore_unix **list = arena_array(&r->arena, struct restore_unix *, s->n);
	int rc = 0;

	for (size_t i = 0; i < s->n; i++)
		list[i] = &s->sk[i];
	qsort(list, s->n, sizeof(*list), by_position);
	for (size_t i = 0; i < s->n && rc == 0; i++)
		rc = connect_waiting(r, list[i]);
	return rc;
}

void sockets_undo(struct restore *r)
{
	const struct restore_sockets *s = r->sockets;

	for (size_t i = 0; s && i < s->n; i++)
		if (s->sk[i].path)
			(void)unlink(s->sk[i].hidden ? s->sk[i].hidden : s->sk[i].path);
}

int sockets_finish(struct restore *r)
{
	struct restore_sockets *s = r->sockets;
	int rc;

	if (!s) {
		struct cuts cuts;

		rc = cuts_parse(r->opts, true, &cuts);
		return rc < 0 ? rc : cuts_check_used(&cuts);
	}
	rc = connect_all_waiting(r, s);
	for (size_t i = 0; i < r->snapshot.n_packets && rc == 0; i++)
		rc = fill_queue(r, &r->snapshot.packets[i]);
	for (size_t i = 0; i < s->n && rc == 0; i++)
		rc = finish_one(r, &s->sk[i]);
	for (size_t i = 0; i < s->n_extra && rc == 0; i++)
		rc = end_extra(s->extra[i]);
	return rc < 0 ? rc : cuts_check_used(&s->cuts);
}
