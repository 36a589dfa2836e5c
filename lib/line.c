/* SPDX-License-Identifier: GPL-2.0-only */
/* The connection to the service: by a worker of our own, by an address, by a descriptor. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib.h"

#define DEFAULT_ADDRESS "/tmp/criu_service.socket"
#define DEFAULT_BINARY	"criu"

extern char **environ;

static int refused(int err)
{
	errno = err;
	return -ECONNREFUSED;
}

static int connect_to(const char *path, struct line *ret)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		return refused(ENAMETOOLONG);
	strcpy(addr.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return refused(errno);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int err = errno;

		close(fd);
		return refused(err);
	}
	*ret = (struct line){ .fd = fd, .is_ours = true };
	return 0;
}

/*
 * What a worker has from us: its end, what is to be inherited, ordinary signals. One that dumps us
 * has a session of its own: as a member of ours it would hold our pid when we are restored.
 */
static int arrange(const criu_opts *o, enum kinship kinship, int end,
		   posix_spawn_file_actions_t *files, posix_spawnattr_t *attr)
{
	short session = kinship == ORPHAN ? POSIX_SPAWN_SETSID : 0;
	sigset_t none, defaults;

	/* A descriptor that takes its own place loses its close-on-exec flag. */
	int rc = posix_spawn_file_actions_adddup2(files, end, end);
	for (size_t i = 0; rc == 0 && i < o->rpc.n_inherit_fd; i++)
		rc = posix_spawn_file_actions_adddup2(files, o->rpc.inherit_fd[i]->fd,
						      o->rpc.inherit_fd[i]->fd);
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGCHLD); /* ignored, it would have no children to wait for */
	sigaddset(&defaults, SIGTERM);
	posix_spawnattr_setsigmask(attr, &none);
	posix_spawnattr_setsigdefault(attr, &defaults);
	posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | session);
	return rc;
}

/* 0 or an errno. */
static int spawn_worker(const criu_opts *o, enum kinship kinship, int end, pid_t *ret)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	char number[16];
	char *binary = o->binary ? o->binary : DEFAULT_BINARY,
	     *argv[] = { binary, "swrk", number, NULL };

	snprintf(number, sizeof(number), "%d", end);
	int rc = posix_spawn_file_actions_init(&files);
	if (rc != 0)
		return rc;
	rc = posix_spawnattr_init(&attr);
	if (rc == 0) {
		rc = arrange(o, kinship, end, &files, &attr);
		if (rc == 0)
			rc = posix_spawnp(ret, binary, &files, &attr, argv, environ);
		posix_spawnattr_destroy(&attr);
	}
	posix_spawn_file_actions_destroy(&files);
	return rc;
}

static int wait_for(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* A process in between, which goes at once, makes the worker an orphan. */
static int spawn_orphan(const criu_opts *o, int end)
{
	pid_t between = fork(), worker;

	if (between < 0)
		return errno;
	if (between == 0)
		_exit(spawn_worker(o, ORPHAN, end, &worker));
	int status = wait_for(between);
	return WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
}

int line_open_worker(const criu_opts *o, enum kinship kinship, struct line *ret)
{
	pid_t worker = 0;
	int end[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, end) < 0)
		return refused(errno);
	int rc = kinship == ORPHAN ? spawn_orphan(o, end[1])
				   : spawn_worker(o, CHILD, end[1], &worker);
	close(end[1]);
	if (rc != 0) {
		close(end[0]);
		return refused(rc);
	}
	*ret = (struct line){ .fd = end[0], .is_ours = true, .worker = worker };
	return 0;
}

int line_open(const criu_opts *o, enum kinship kinship, struct line *ret)
{
	switch (o->transport) {
	case BY_FD:
		*ret = (struct line){ .fd = o->fd };
		return 0;
	case BY_ADDRESS:
		return connect_to(o->address ? o->address : DEFAULT_ADDRESS, ret);
	case BY_BINARY:
		break;
	}
	return line_open_worker(o, kinship, ret);
}

void line_close(struct line *l)
{
	int err = errno;

	if (l->is_ours)
		close(l->fd);
	if (l->worker)
		wait_for(l->worker);
	errno = err;
}

/* After a call that failed: true if it is to be made again, once the descriptor is ready. */
static bool is_again(int fd, short event)
{
	struct pollfd p = { .fd = fd, .events = event };

	if (errno == EAGAIN) /* the descriptor came from the caller and does not block */
		return poll(&p, 1, -1) >= 0 || errno == EINTR;
	return errno == EINTR;
}

int line_send(const struct line *l, const CriuReq *req)
{
	size_t size = criu_req__get_packed_size(req);
	uint8_t *data = malloc(size);
	ssize_t n;

	if (!data)
		return -ECOMM;
	criu_req__pack(req, data);
	do
		n = send(l->fd, data, size, MSG_NOSIGNAL);
	while (n < 0 && is_again(l->fd, POLLOUT));
	free(data);
	return n == (ssize_t)size ? 0 : -ECOMM;
}

/* Size of the next packet; -1 with errno, ECONNRESET if there will be none. */
static ssize_t next_size(int fd)
{
	uint8_t probe;
	ssize_t n;

	do
		n = recv(fd, &probe, 1, MSG_PEEK | MSG_TRUNC);
	while (n < 0 && is_again(fd, POLLIN));
	if (n == 0) {
		errno = ECONNRESET;
		return -1;
	}
	return n;
}

/* The descriptor in a message, or -1; those that nobody asked for are closed. */
static int take_descriptor(struct msghdr *m)
{
	int first = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (first < 0)
				first = fd;
			else
				close(fd);
		}
	}
	return first;
}

int line_receive(const struct line *l, CriuResp **ret, int *ret_fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	ssize_t size = next_size(l->fd), n;
	uint8_t *data = size < 0 ? NULL : malloc(size);
	struct iovec iov = { data, size };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };

	if (!data)
		return -ECOMM;
	do
		n = recvmsg(l->fd, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && is_again(l->fd, POLLIN));
	int fd = n < 0 ? -1 : take_descriptor(&m);
	CriuResp *resp = n < 0 ? NULL : criu_resp__unpack(NULL, n, data);
	free(data);
	if (!resp) {
		if (fd >= 0)
			close(fd);
		return n < 0 ? -ECOMM : -EBADMSG;
	}
	*ret = resp;
	*ret_fd = fd;
	return 0;
}
