/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unix sockets at dump. Entries in files.img, what waits to be read in sk-queues. sock_diag(7)
 * tells of all sockets at once who is connected to whom; queues are looked at with MSG_PEEK.
 * Descriptors in flight are descriptions like any other: criu gets a copy by peeking, and that
 * is collected as if it were a descriptor of a task.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "proc/text.h"
#include "sockets/diag.h"
#include "sockets/options.h"
#include "sockets/sockets.h"
#include "sockets/unix.h"

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif
#define PEEK_ROOM (64u << 20) /* of one message; only what is used costs memory */

/* A unix socket of the tree. */
struct dump_unix {
	UnixSkEntry *entry;
	pid_t pid;
	int fd;
	const struct unix_info *info;
	struct dump_unix *next;
};

/* A message that waits. */
struct dump_packet {
	SkPacketEntry *entry;
	uint8_t *data;
};

struct dump_sockets {
	struct unix_table table;
	struct cuts cuts;
	struct dump_unix **by_ino; /* all, when all are known */
	size_t n;
	struct dump_unix *first, *looked_into; /* newest first; those behind are done */
	struct dump_packet *packets;
	size_t n_packets;
	uint8_t *room;
};

static struct dump_sockets *state(struct dump *d)
{
	if (d->sockets)
		return d->sockets;
	struct dump_sockets *s = arena_new(&d->arena, struct dump_sockets);
	if (cuts_parse(d->opts, false, &s->cuts) < 0 || unix_table_read(&d->arena, &s->table) < 0)
		return NULL;
	return d->sockets = s;
}

int socket_domain(int fd)
{
	int domain = -1;
	socklen_t len = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ? -1 : domain;
}

static bool unix_match(const struct fd_probe *p)
{
	return S_ISSOCK(p->st.st_mode) && !strncmp(p->link, "socket:[", 8) && p->copy >= 0 &&
	       socket_domain(p->copy) == AF_UNIX;
}

static void put_perms(struct arena *a, UnixSkEntry *e, const struct stat *st)
{
	e->file_perms = MESSAGE(a, FilePermsEntry, file_perms_entry);
	e->file_perms->mode = st->st_mode;
	e->file_perms->uid = st->st_uid;
	e->file_perms->gid = st->st_gid;
}

/* The file has another name by now, while the socket still says the old one. */
static bool is_renamed(const UnixSkEntry *e, const struct stat *file)
{
	char name[UNIX_NAME_MAX + 2] = { 0 };
	struct stat now;

	memcpy(name, e->name.data, min(e->name.len, (size_t)UNIX_NAME_MAX + 1));
	return stat(name, &now) < 0 || now.st_ino != file->st_ino || now.st_dev != file->st_dev;
}

/*
 * The name that was bound may be relative to a directory that is not the current one any more:
 * the file itself tells where it is.
 */
static void put_file(struct dump *d, const struct fd_probe *p, UnixSkEntry *e)
{
	autoclose int file = ioctl(p->copy, SIOCUNIXFILE);
	char link[64], path[4096];
	struct stat st, now;

	if (file < 0 && errno != EPERM && errno != ENOENT)
		dump_block(d, "pid %d fd %d: %s: open the file it is bound to: %s",
			   p->task->process->pid, p->fd, p->link, strerror(errno));
	if (file < 0 && errno == EPERM && e->name.data[0] != '/')
		dump_block(d,
			   "pid %d fd %d: socket %u is bound to a relative name; only with "
			   "CAP_NET_ADMIN can be told to which directory",
			   p->task->process->pid, p->fd, e->ino);
	/* Without it the name alone has to tell whether the file is gone. */
	if (file < 0 && e->name.data[0] == '/') {
		snprintf(path, sizeof(path), "%.*s", (int)e->name.len, (char *)e->name.data);
		e->has_deleted = e->deleted = lstat(path, &now) < 0;
		if (!e->deleted && S_ISSOCK(now.st_mode))
			put_perms(&d->arena, e, &now);
	}
	if (file < 0)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
	int rc = fstat(file, &st) < 0 ? -errno : read_link_at(AT_FDCWD, link, path, sizeof(path));
	if (rc < 0) {
		dump_block(d, "pid %d fd %d: %s: look at the file it is bound to: %s",
			   p->task->process->pid, p->fd, p->link, strerror(-rc));
		return;
	}
	put_perms(&d->arena, e, &st);
	text_cut_deleted(path);
	if (st.st_nlink == 0 || lstat(path, &now) < 0 || now.st_ino != st.st_ino ||
	    now.st_dev != st.st_dev)
		e->has_deleted = e->deleted = true;
	if (e->name.data[0] == '/') {
		if (!e->deleted && is_renamed(e, &st))
			e->file_path = arena_strdup(&d->arena, path);
		return;
	}
	const char *relative = (char *)e->name.data;
	size_t name = strnlen(relative, e->name.len), len = strlen(path);
	for (; name > 2 && !memcmp(relative, "./", 2); name -= 2)
		relative += 2;
	if (len > name + 1 && !memcmp(path + len - name, relative, name)) {
		path[max(len - name - 1, (size_t)1)] = '\0';
		e->name_dir = arena_strdup(&d->arena, path);
		return;
	}
	dump_block(d,
		   "pid %d fd %d: socket %u is bound to \"%s\", relative to a directory that "
		   "cannot be "
		   "told (its file is %s); this cannot be dumped",
		   p->task->process->pid, p->fd, e->ino, unix_name(&e->name).s, path);
}

static UnixSkEntry *make_entry(struct dump *d, const struct unix_info *u, uint32_t id)
{
	UnixSkEntry *e = MESSAGE(&d->arena, UnixSkEntry, unix_sk_entry);

	e->id = id;
	e->ino = u->ino;
	e->type = u->type;
	/* A datagram socket gets this state also when others connect to it (since Linux 5.15). */
	e->state = u->type == SOCK_DGRAM && !u->has_peer ? UNIX_UNCONNECTED : u->state;
	e->peer = u->peer;
	e->backlog = u->state == UNIX_LISTEN ? u->wqueue : 0;
	e->name.data = u->name;
	e->name.len = u->name_len;
	e->has_shutdown = u->shutdown != 0;
	e->shutdown = u->shutdown;
	e->fown = MESSAGE(&d->arena, FownEntry, fown_entry);
	return e;
}

/* Who made the pair, connected or, of a listener, listened. */
static void put_credentials(struct dump *d, const struct fd_probe *p, UnixSkEntry *e)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);

	if (getsockopt(p->copy, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		dump_block(d, "pid %d fd %d: %s: who its peer is: %s", p->task->process->pid, p->fd,
			   p->link, strerror(errno));
	if (cred.pid <= 0)
		return;
	e->has_peer_pid = e->has_peer_uid = e->has_peer_gid = true;
	e->peer_pid = cred.pid;
	e->peer_uid = cred.uid;
	e->peer_gid = cred.gid;
}

/* That of a peer that is gone is known nowhere else. */
static void put_peer_name(struct dump *d, const struct fd_probe *p, UnixSkEntry *e)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);

	if (e->peer || e->state != UNIX_ESTABLISHED)
		return;
	if (getpeername(p->copy, (struct sockaddr *)&addr, &len) < 0) {
		if (errno != ENOTCONN)
			dump_block(d, "pid %d fd %d: %s: the name of its peer: %s",
				   p->task->process->pid, p->fd, p->link, strerror(errno));
		return;
	}
	if (len <= sizeof(sa_family_t))
		return;
	e->has_peer_name = true;
	e->peer_name.len = min(len, (socklen_t)sizeof(addr)) - sizeof(sa_family_t);
	e->peer_name.data = arena_memdup(&d->arena, addr.sun_path, e->peer_name.len);
}

/* What images have no place for. */
static void check_rest(struct dump *d, const struct fd_probe *p)
{
	socklen_t filter = 0;
	char byte;

	int rc = getsockopt(p->copy, SOL_SOCKET, SO_GET_FILTER, NULL, &filter);
	if ((rc < 0 && errno != ENOPROTOOPT) || filter)
		dump_block(d, "pid %d fd %d: %s: %s", p->task->process->pid, p->fd, p->link,
			   filter ? "a filter is attached to the socket; this cannot be dumped"
				  : strerror(errno));
	if (recv(p->copy, &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) == 1)
		dump_block(d,
			   "pid %d fd %d: %s: urgent data (MSG_OOB) waits in the socket; this "
			   "cannot be "
			   "dumped",
			   p->task->process->pid, p->fd, p->link);
}

static int unix_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	struct dump_sockets *s = state(d);
	struct dump_unix *u = arena_new(&d->arena, struct dump_unix);
	int peek_off = -1;
	socklen_t len = sizeof(peek_off);

	if (!s)
		return -EIO;
	u->info = unix_table_find(&s->table, p->st.st_ino);
	if (!u->info)
		return refuse(EIO, "pid %d fd %d: %s: the kernel does not know this unix socket",
			      p->task->process->pid, p->fd, p->link);
	e->usk = make_entry(d, u->info, e->id);
	e->usk->flags = probe_flags(p);
	e->usk->fown = fown_read(d, p);
	int rc = socket_options_read(&d->arena, p->copy, &e->usk->opts);
	if (rc == 0 && getsockopt(p->copy, SOL_SOCKET, SO_PEEK_OFF, &peek_off, &len) < 0)
		rc = -errno;
	if (rc < 0)
		return fail(-rc, "pid %d fd %d: %s: read its options", p->task->process->pid, p->fd,
			    p->link);
	if (peek_off >= 0) {
		e->usk->has_peek_off = true;
		e->usk->peek_off = peek_off;
	}
	if (u->info->name_len && u->info->name[0])
		put_file(d, p, e->usk);
	put_credentials(d, p, e->usk);
	put_peer_name(d, p, e->usk);
	check_rest(d, p);
	u->entry = e->usk;
	u->pid = p->task->process->pid;
	u->fd = p->fd;
	u->next = s->first;
	s->first = u;
	return 0;
}

/* ---- queues ---- */

/* There if the socket asks for them (SO_PASSCRED). */
static void take_credentials(struct msghdr *msg, SkPacketEntry *e)
{
	struct ucred cred;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
			continue;
		memcpy(&cred, CMSG_DATA(c), sizeof(cred));
		if (!cred.pid) /* sent before anybody asked for them */
			continue;
		e->has_cred_pid = e->has_cred_uid = e->has_cred_gid = true;
		e->cred_pid = cred.pid;
		e->cred_uid = cred.uid;
		e->cred_gid = cred.gid;
	}
}

static int take_rights(struct dump *d, const struct dump_unix *u, struct msghdr *msg,
		       SkPacketEntry *e)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		const size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		ScmEntry *scm = MESSAGE(&d->arena, ScmEntry, scm_entry);

		scm->type = SCM_RIGHTS_TYPE;
		for (size_t i = 0; i < n; i++) {
			uint32_t id;
			int fd, rc;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			rc = files_add_own(d, fd, &id);
			if (rc < 0)
				return fail(-rc, "pid %d fd %d: look at a descriptor in flight",
					    u->pid, u->fd);
			*ARENA_PUSH(&d->arena, scm->rights, scm->n_rights) = id;
		}
		*ARENA_PUSH(&d->arena, e->scm, e->n_scm) = scm;
	}
	return 0;
}

/* Looks at the next message. Returns its bytes and one, 0 at the end, or an error. */
static int peek(struct dump *d, struct dump_sockets *s, const struct dump_unix *u, int fd,
		uint32_t seen)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(SCM_RIGHTS_MAX * sizeof(int)) + 256];
	struct iovec iov = { s->room, PEEK_ROOM };
	/* The kernel counts a zero byte behind a path, even if that is as long as can be. */
	struct {
		struct sockaddr_un un;
		char zero;
	} source;
	struct msghdr msg = { .msg_name = &source,
			      .msg_namelen = sizeof(source),
			      .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	/* EINVAL: a stream that is not connected. */
	if (n < 0 &&
	    (errno == EAGAIN || errno == ECONNRESET || errno == ENOTCONN || errno == EINVAL))
		return 0;
	if (n < 0)
		return fail(errno, "pid %d fd %d: look into the queue of the socket", u->pid,
			    u->fd);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return refuse(EMSGSIZE, "pid %d fd %d: a message in its queue is too large", u->pid,
			      u->fd);
	/*
	 * The end of a stream, or of records of which none can come any more; else it is an empty
	 * message. Datagrams have no end.
	 */
	if (n == 0 &&
	    (u->entry->type == SOCK_STREAM || (u->entry->type == SOCK_SEQPACKET &&
					       u->info->shutdown & 1 && seen >= u->info->rqueue)))
		return 0;
	SkPacketEntry *e = MESSAGE(&d->arena, SkPacketEntry, sk_packet_entry);
	e->id_for = u->entry->id;
	e->length = n;
	take_credentials(&msg, e);
	if (u->entry->type == SOCK_DGRAM && msg.msg_namelen > sizeof(sa_family_t)) {
		e->has_source = true;
		e->source.len =
			min((size_t)msg.msg_namelen, sizeof(source.un)) - sizeof(sa_family_t);
		e->source.data = arena_memdup(&d->arena, source.un.sun_path, e->source.len);
	}
	int rc = take_rights(d, u, &msg, e);
	if (rc < 0)
		return rc;
	*ARENA_PUSH(&d->arena, s->packets, s->n_packets) =
		(struct dump_packet){ e, arena_memdup(&d->arena, s->room, n) };
	return n + 1;
}

/* Message after message: with SO_PEEK_OFF each look starts where the one before ended. */
static int peek_all(struct dump *d, struct dump_sockets *s, const struct dump_unix *u, int fd,
		    bool stops_at_last)
{
	const int from_start = 0;
	uint32_t seen = 0;
	int before = -1, rc;
	socklen_t len = sizeof(before);

	if (u->entry->type == SOCK_STREAM && !u->entry->has_peek_off) {
		/* Most streams show all that they have at once, and nothing has to be set. */
		size_t n = s->n_packets;

		rc = peek(d, s, u, fd, 0);
		if (rc <= 0 || (uint32_t)rc - 1 >= u->info->rqueue)
			return min(rc, 0);
		s->n_packets = n;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, &len) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &from_start, sizeof(from_start)) < 0)
		return fail(errno, "pid %d fd %d: look into its queue (SO_PEEK_OFF)", u->pid,
			    u->fd);
	do {
		rc = peek(d, s, u, fd, seen);
		seen += max(rc - 1, 0);
	} while (rc > 0 && !(stops_at_last && seen >= u->info->rqueue));
	(void)setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof(before));
	return rc;
}

/*
 * SO_PEEK_OFF is touched only where there is something. Where an error waits (the peer closed
 * with data unread) a look behind the last byte would take it. Sockets with records give it out
 * even before them.
 */
static int look_into(struct dump *d, struct dump_sockets *s, const struct dump_unix *u)
{
	struct pollfd p = { .events = POLLIN };

	if (u->entry->state == UNIX_LISTEN ||
	    (u->entry->type == SOCK_STREAM && !u->info->rqueue && u->entry->peer))
		return 0;
	autoclose int fd = files_dump_fd(d, u->pid, u->fd);
	if (fd < 0)
		return fail(-fd, "pid %d fd %d: get a copy of the socket", u->pid, u->fd);
	p.fd = fd;
	if (poll(&p, 1, 0) < 0)
		return fail(errno, "pid %d fd %d: look at the state of the socket", u->pid, u->fd);
	bool has_error = p.revents & POLLERR;
	if (has_error && unix_is_stream(u->entry->type) && !u->entry->peer)
		u->entry->has_was_reset = u->entry->was_reset = true;
	if (!(p.revents & POLLIN) || (has_error && !u->info->rqueue))
		return 0;
	if (has_error && u->entry->type != SOCK_STREAM) {
		dump_block(d,
			   "pid %d fd %d: an error waits in the socket before %u unread bytes; let "
			   "the program read it first",
			   u->pid, u->fd, u->info->rqueue);
		return 0;
	}
	return peek_all(d, s, u, fd, has_error);
}

/* What is found in a queue may be a socket with a queue. */
static int look_into_all(struct dump *d, struct dump_sockets *s)
{
	while (s->looked_into != s->first) {
		struct dump_unix *end = s->looked_into, *first = s->first;

		s->looked_into = first;
		for (struct dump_unix *u = first; u != end; u = u->next) {
			int rc = look_into(d, s, u);

			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

/* ---- peers ---- */

static int by_ino(const void *a, const void *b)
{
	uint32_t x = (*(struct dump_unix *const *)a)->info->ino,
		 y = (*(struct dump_unix *const *)b)->info->ino;

	return (x > y) - (x < y);
}

static void make_index(struct dump *d, struct dump_sockets *s)
{
	for (struct dump_unix *u = s->first; u; u = u->next)
		*ARENA_PUSH(&d->arena, s->by_ino, s->n) = u;
	if (s->n)
		qsort(s->by_ino, s->n, sizeof(*s->by_ino), by_ino);
}

static struct dump_unix *find(struct dump_sockets *s, uint32_t ino)
{
	const struct unix_info info = { .ino = ino };
	struct dump_unix key = { .info = &info }, *p = &key;
	struct dump_unix **found = bsearch(&p, s->by_ino, s->n, sizeof(p), by_ino);

	return found ? *found : NULL;
}

/* The socket in whose backlog the connection of ino waits, and its position there; or NULL. */
static const struct unix_info *listener_of(const struct dump_sockets *s, uint32_t ino,
					   uint32_t *ret_position)
{
	for (size_t i = 0; i < s->table.n; i++)
		for (size_t k = 0; k < s->table.info[i].n_icons; k++)
			if (s->table.info[i].icons[k] == ino) {
				*ret_position = k;
				return &s->table.info[i];
			}
	return NULL;
}

/* Which process outside has the socket: "pid 301 (redis-server) fd 5", or "" if none was found. */
static void find_outside(uint32_t ino, char *text, size_t size)
{
	DIR *proc = opendir("/proc");
	char want[32];

	text[0] = '\0';
	snprintf(want, sizeof(want), "socket:[%u]", ino);
	for (struct dirent *e; proc && !text[0] && (e = readdir(proc));) {
		char path[600], link[64], comm[64];
		struct dirent *f;

		snprintf(path, sizeof(path), "/proc/%s/fd", e->d_name);
		DIR *fds = e->d_name[0] >= '0' && e->d_name[0] <= '9' ? opendir(path) : NULL;
		while (fds && (f = readdir(fds))) {
			if (read_link_at(dirfd(fds), f->d_name, link, sizeof(link)) < 0 ||
			    strcmp(link, want))
				continue;
			snprintf(path, sizeof(path), "/proc/%s/comm", e->d_name);
			if (read_small_at(AT_FDCWD, path, comm, sizeof(comm)) < 0)
				comm[0] = '\0';
			comm[strcspn(comm, "\n")] = '\0';
			snprintf(text, size, "pid %s (%s) fd %s", e->d_name, comm, f->d_name);
			break;
		}
		if (fds)
			closedir(fds);
	}
	if (proc)
		closedir(proc);
}

static const char *type_name(uint32_t type)
{
	return type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "datagram" : "seqpacket";
}

static void block(struct dump *d, const struct dump_unix *u, const struct unix_info *peer)
{
	ProtobufCBinaryData name = { peer ? peer->name_len : 0, peer ? peer->name : NULL };
	char outside[700];
	uint32_t ino = peer ? peer->ino : u->entry->peer;

	find_outside(ino, outside, sizeof(outside));
	dump_block(d,
		   "pid %d fd %d: external socket is used: %s socket %u is connected to socket %u "
		   "(%s) of %s, outside the tree; to cut it off and reconnect on restore give "
		   "--ext-unix-sk=%u",
		   u->pid, u->fd, type_name(u->entry->type), u->entry->ino, ino, unix_name(&name).s,
		   outside[0] ? outside : "a process that was not found", u->entry->ino);
}

/* The entry of a socket outside: what remains of it is the name. */
static void add_outside(struct dump *d, const struct unix_info *peer)
{
	FileEntry *e;

	for (size_t i = 0; i < d->n_files; i++)
		if (d->files[i]->usk && d->files[i]->usk->ino == peer->ino)
			return;
	e = files_new_entry(d);
	e->type = FD_TYPES__UNIXSK;
	e->usk = make_entry(d, peer, e->id);
	e->usk->uflags = UNIX_OUTSIDE;
	e->usk->peer = 0;
	e->usk->opts = MESSAGE(&d->arena, SkOptsEntry, sk_opts_entry);
}

static void report_cut(const struct dump_unix *u, const struct unix_info *peer)
{
	ProtobufCBinaryData name = { peer->name_len, peer->name };

	warn("pid %d fd %d: socket %u is cut off from %s, outside the tree", u->pid, u->fd,
	     u->entry->ino, unix_name(&name).s);
	if (u->info->wqueue && unix_is_stream(u->entry->type))
		warn("pid %d fd %d: not all that it has sent is read by %s yet", u->pid, u->fd,
		     unix_name(&name).s);
}

/*
 * The connection over which a task asked to be dumped. Restored, it has the answer in it, and no
 * peer: `restored` tells the task which of both it is.
 */
static void add_answer(struct dump *d, struct dump_sockets *s, struct dump_unix *u)
{
	CriuResp resp = CRIU_RESP__INIT;
	CriuDumpResp dump = CRIU_DUMP_RESP__INIT;
	SkPacketEntry *e = MESSAGE(&d->arena, SkPacketEntry, sk_packet_entry);

	resp.type = CRIU_REQ_TYPE__DUMP;
	resp.success = true;
	resp.dump = &dump;
	dump.has_restored = dump.restored = true;
	e->id_for = u->entry->id;
	e->length = criu_resp__get_packed_size(&resp);
	uint8_t *data = arena_alloc(&d->arena, e->length);
	criu_resp__pack(&resp, data);
	*ARENA_PUSH(&d->arena, s->packets, s->n_packets) = (struct dump_packet){ e, data };
	u->entry->uflags = UNIX_SERVICE;
	u->entry->peer = 0;
}

static bool is_service(const struct dump *d, uint32_t ino)
{
	struct stat st;

	return d->opts->service_fd >= 0 && fstat(d->opts->service_fd, &st) == 0 && st.st_ino == ino;
}

static void look_outside(struct dump *d, struct dump_sockets *s, struct dump_unix *u)
{
	const struct unix_info *peer = unix_table_find(&s->table, u->entry->peer);
	struct cut *cut = cuts_find(&s->cuts, u->entry->ino);
	bool is_plain = s->cuts.all_datagrams && u->entry->type == SOCK_DGRAM && peer &&
			peer->name_len && peer->peer != u->entry->ino;

	if (cut)
		cut->is_used = true;
	if (is_service(d, u->entry->peer)) {
		add_answer(d, s, u);
		return;
	}
	if (!peer || (!cut && !is_plain)) {
		block(d, u, peer);
		return;
	}
	report_cut(u, peer);
	add_outside(d, peer);
}

static void find_peer(struct dump *d, struct dump_sockets *s, struct dump_unix *u)
{
	const struct unix_info *listener;
	uint32_t position;

	if (u->entry->peer && !find(s, u->entry->peer))
		look_outside(d, s, u);
	if (u->entry->peer || !unix_is_stream(u->entry->type) ||
	    u->entry->state != UNIX_ESTABLISHED ||
	    !(listener = listener_of(s, u->entry->ino, &position)))
		return;
	u->entry->peer = listener->ino;
	u->entry->has_backlog_pos = true;
	u->entry->backlog_pos = position;
	if (!find(s, listener->ino))
		look_outside(d, s, u);
	if (u->info->wqueue)
		dump_block(d,
			   "pid %d fd %d: socket %u has sent data over a connection that is not "
			   "accepted yet; it cannot be dumped",
			   u->pid, u->fd, u->entry->ino);
}

/* Who waits in the backlog of a socket of the tree, and is not in the tree, would be lost. */
static void block_client(struct dump *d, const struct dump_unix *u, uint32_t ino)
{
	/* The kernel tells 0 of who has closed its end. */
	if (ino)
		dump_block(d,
			   "pid %d fd %d: external socket is used: socket %u, outside the tree, "
			   "waits to be accepted by socket %u (%s)",
			   u->pid, u->fd, ino, u->entry->ino, unix_name(&u->entry->name).s);
	else
		dump_block(d,
			   "pid %d fd %d: a connection whose client has closed it again waits to "
			   "be accepted by socket %u (%s); what it has sent cannot be seen: dump "
			   "again when the program has accepted it",
			   u->pid, u->fd, u->entry->ino, unix_name(&u->entry->name).s);
}

static void check_backlog(struct dump *d, struct dump_sockets *s, const struct dump_unix *u)
{
	for (size_t i = 0; i < u->info->n_icons; i++)
		if (!find(s, u->info->icons[i]))
			block_client(d, u, u->info->icons[i]);
}

int sockets_collect_end(struct dump *d)
{
	/* The options are looked at even if there is no socket. */
	bool is_needed = d->sockets || d->opts->ext_unix_sk.n || d->opts->external.n;
	struct dump_sockets *s = is_needed ? state(d) : NULL;

	if (!s)
		return is_needed ? -EINVAL : 0;
	s->room = mmap(NULL, PEEK_ROOM, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->room == MAP_FAILED)
		return fail(errno, "map room for messages");
	int rc = look_into_all(d, s);
	(void)munmap(s->room, PEEK_ROOM);
	make_index(d, s);
	for (struct dump_unix *u = s->first; u && rc == 0; u = u->next) {
		find_peer(d, s, u);
		check_backlog(d, s, u);
	}
	return rc < 0 ? rc : cuts_check_used(&s->cuts);
}

int sockets_write_image(struct dump *d)
{
	const struct dump_sockets *s = d->sockets;
	struct image_out out;

	image_begin(&out, &d->images, IMG_SK_QUEUES, 0);
	for (size_t i = 0; s && i < s->n_packets; i++) {
		const struct dump_packet *p = &s->packets[i];

		image_add(&out, p->entry);
		if (p->entry->length)
			memcpy(image_add_raw(&out, p->entry->length), p->data, p->entry->length);
	}
	return image_commit(&out);
}

static void unix_key(const struct restore *r, const FileEntry *e, char *buf, size_t size)
{
	(void)r;
	snprintf(buf, size, "socket:[%u]", e->usk->ino);
}

FILE_PART(unix, usk)

const struct file_class unix_class = {
	.name = "unix socket",
	.type = FD_TYPES__UNIXSK,
	.match = unix_match,
	.dump = unix_dump,
	.has_part = unix_has_part,
	.check = unix_check,
	.open = unix_open,
	.is_late = unix_is_late,
	.key = unix_key,
	.inherit_kind = S_IFSOCK,
	.fown = unix_fown,
	.flags = unix_flags,
};
