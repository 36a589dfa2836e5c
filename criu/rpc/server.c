/* SPDX-License-Identifier: GPL-2.0-only */
/* Connections: the listening service, and the worker with one. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "cmd/privileges.h"
#include "cmd/stats.h"
#include "proc/text.h"
#include "rpc/rpc.h"

#define DEFAULT_ADDRESS "/tmp/criu_service.socket"
#define BACKLOG		16
#define FIRST_INHERITED 3 /* of LISTEN_FDS */

int client_receive(const struct client *c, CriuReq **ret)
{
	uint8_t probe;
	ssize_t size = recv(c->fd, &probe, 1, MSG_PEEK | MSG_TRUNC);

	if (size <= 0)
		return size < 0 ? -errno : 0;
	if (size > (ssize_t)RPC_REQUEST_MAX) {
		(void)recv(c->fd, &probe, 1, 0);
		return refuse(EMSGSIZE, "a request of %zd bytes is too large", size);
	}
	autofree uint8_t *data = xmalloc(size);
	ssize_t got = recv(c->fd, data, size, 0);
	if (got <= 0)
		return got < 0 ? -errno : 0;
	*ret = criu_req__unpack(NULL, got, data);
	return *ret ? 1 : refuse(EBADMSG, "a request of %zd bytes cannot be parsed", got);
}

int client_send(const struct client *c, const CriuResp *resp)
{
	size_t size = criu_resp__get_packed_size(resp);
	autofree uint8_t *data = xmalloc(size);

	criu_resp__pack(resp, data);
	ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
	return n == (ssize_t)size ? 0 : fail(errno, "send a response to pid %d", c->pid);
}

/* Who is at the other end. */
static int identify(struct client *c)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int type;

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return fail(errno, "descriptor %d: it is no unix socket", c->fd);
	len = sizeof(type);
	if (getsockopt(c->fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
		return refuse(EPROTOTYPE, "descriptor %d: it is no SOCK_SEQPACKET socket", c->fd);
	c->pid = cred.pid;
	c->uid = cred.uid;
	return 0;
}

int cmd_swrk(const struct options *o)
{
	struct client c = { .is_worker = true, .base = o };
	uint64_t fd;
	const char *end = o->n_args == 1 ? text_dec(o->args[0], &fd) : NULL;

	if (!end || *end || fd > INT32_MAX) {
		(void)refuse(EINVAL, "swrk takes the number of a descriptor");
		return 1;
	}
	c.fd = fd;
	(void)fcntl(c.fd, F_SETFD, FD_CLOEXEC);
	return identify(&c) < 0 ? 1 : client_serve(&c);
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	autoclose int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct stat st;

	if (fd < 0)
		return fail(errno, "make the socket of the service");
	if (strlen(path) >= sizeof(addr.sun_path))
		return refuse(ENAMETOOLONG, "--address %s: a socket's path has at most %zu bytes",
			      path, sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return refuse(EEXIST, "--address %s: there is a file that is no socket", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return fail(errno, "--address %s: remove the old socket", path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return fail(errno, "--address %s: bind", path);
	if (chmod(path, 0666) < 0 || listen(fd, BACKLOG) < 0)
		return fail(errno, "--address %s: listen", path);
	return take_fd(&fd);
}

/* From here on we are the client, as far as rights go. */
static int become_client(const struct client *c)
{
	gid_t groups[NGROUPS_MAX];
	socklen_t size = sizeof(groups), len = sizeof(struct ucred);
	struct ucred cred;

	if (geteuid() != 0 || c->uid == 0)
		return 0;
	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    getsockopt(c->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return fail(errno, "read the groups of pid %d", c->pid);
	return privileges_become(c->uid, cred.gid, groups, size / sizeof(*groups));
}

/* A number in the environment, or -1. */
static int number_from_environment(const char *name)
{
	const char *text = getenv(name);
	uint64_t n;
	const char *end = text ? text_dec(text, &n) : NULL;

	return end && !*end && n <= INT32_MAX ? (int)n : -1;
}

/*
 * A socket that a service manager made and listens on for us: LISTEN_FDS tells how many
 * descriptors begin at 3, LISTEN_PID for whom. Returns it, -ENOENT if there is none, or an error.
 */
static int inherited_socket(const struct options *o)
{
	int n = number_from_environment("LISTEN_FDS"), listens = 0, type = 0;
	socklen_t len = sizeof(listens);

	if (n < 1 || number_from_environment("LISTEN_PID") != getpid())
		return -ENOENT;
	(void)unsetenv("LISTEN_FDS"); /* it is not for those that we start */
	(void)unsetenv("LISTEN_PID");
	(void)unsetenv("LISTEN_FDNAMES");
	if (n > 1)
		return refuse(EINVAL, "LISTEN_FDS: one socket is wanted, there are %d", n);
	if (o->address)
		return refuse(EINVAL, "--address %s: there is a socket already, by LISTEN_FDS",
			      o->address);
	if (getsockopt(FIRST_INHERITED, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 ||
	    getsockopt(FIRST_INHERITED, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return fail(errno, "LISTEN_FDS: descriptor %d", FIRST_INHERITED);
	if (!listens || type != SOCK_SEQPACKET)
		return refuse(EPROTOTYPE,
			      "LISTEN_FDS: descriptor %d is no SOCK_SEQPACKET socket that listens",
			      FIRST_INHERITED);
	(void)fcntl(FIRST_INHERITED, F_SETFD, FD_CLOEXEC);
	return FIRST_INHERITED;
}

/*
 * The process of the next client is there before the client: its fork would be most of what a small
 * request costs. It and the service hold the ends of a leash, and each sees the other let go: the
 * process when it has a client, the service when it ends.
 */
static void await_client(const struct options *o, int listening, int leash)
{
	struct pollfd p[2] = { { .fd = listening, .events = POLLIN }, { .fd = leash } };
	struct client c = { .fd = -1, .base = o };

	(void)signal(SIGCHLD, SIG_DFL);
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	while (c.fd < 0) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			exit(0);
		c.fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	}
	(void)close(listening);
	(void)close(leash);
	exit(identify(&c) < 0 || become_client(&c) < 0 ? 1 : client_serve(&c));
}

/* Returns our end of the leash, or an error. */
static int new_worker(const struct options *o, int listening, const sigset_t *signals)
{
	int end[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end) < 0)
		return -errno;
	pid_t pid = fork();
	int err = errno;
	if (pid == 0) {
		(void)close(end[0]);
		(void)sigprocmask(SIG_SETMASK, signals, NULL);
		await_client(o, listening, end[1]);
	}
	(void)close(end[1]);
	if (pid > 0)
		return end[0];
	(void)close(end[0]);
	return -err;
}

#define FORK_AGAIN_MS 100

static int accept_until_told(const struct options *o, int listening)
{
	autoclose int leash = -1;
	sigset_t ends, old;

	/* The end comes as a signal, which a descriptor makes something to poll for. */
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &ends, &old);
	autoclose int signals = signalfd(-1, &ends, SFD_CLOEXEC);
	for (;;) {
		if (leash < 0)
			leash = new_worker(o, listening, &old);
		if (leash < 0)
			warn("clients have to wait: fork: %s", strerror(-leash));
		struct pollfd p[3] = { { .fd = listening },
				       { .fd = signals, .events = POLLIN },
				       { .fd = leash } };

		if (poll(p, 3, leash < 0 ? FORK_AGAIN_MS : -1) < 0 && errno != EINTR)
			return fail(errno, "wait for clients");
		if (p[1].revents)
			return 0;
		if (p[0].revents)
			return refuse(EPIPE, "the socket of the service was shut down");
		if (p[2].revents) {
			own_close(&leash);
			leash = -1;
		}
	}
}

int cmd_service(const struct options *o)
{
	const char *path = o->address ? o->address : DEFAULT_ADDRESS;
	autoclose int listening = inherited_socket(o);
	bool is_inherited = listening >= 0;

	if (listening == -ENOENT)
		listening = listen_at(path);
	if (listening < 0)
		return 1;
	if (o->detach && daemon(1, 0) < 0) {
		(void)fail(errno, "become a daemon");
		return 1;
	}
	(void)signal(SIGCHLD, SIG_IGN); /* children are reaped by the kernel */
	int rc = o->pidfile ? pidfile_write(o->pidfile, getpid()) : 0;
	if (rc == 0) {
		info("The service is at %s", is_inherited ? "the socket of LISTEN_FDS" : path);
		status_tell_ready(o);
		rc = accept_until_told(o, listening);
	}
	if (!is_inherited)
		(void)unlink(path);
	if (o->pidfile && rc == 0)
		(void)unlink(o->pidfile);
	return rc < 0;
}
