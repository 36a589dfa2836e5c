/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "sockets/author.h"

#define CALLS_MAX (3 * AUTHOR_PAIRS_MAX)
#define KEEP	  -1ull /* setresuid(2): leave it as it is */

struct restore_task *author_find(const struct restore *r, uint32_t pid)
{
	struct restore_task *t = restore_find(r, pid);

	return t && !t->is_zombie ? t : NULL;
}

static int begin(struct program *p, const struct author *a)
{
	if (!a->task->threads[0].exists)
		return refuse(EINVAL, "pid %d: a unix socket needs it before it exists",
			      a->task->pid);
	int rc = program_begin(p, &a->task->threads[0].worker, CALLS_MAX);

	if (rc == 0)
		program_set_long(p);
	return rc;
}

static bool is_own(uint32_t uid, uint32_t gid)
{
	return uid == geteuid() && gid == getegid();
}

/* Real and saved ids stay those of criu, so that there is a way back. */
static void become(struct program *p, uint32_t uid, uint32_t gid)
{
	if (is_own(uid, gid))
		return;
	CALL(p, "take the group of the author", SYS_setresgid, KEEP, gid, KEEP);
	CALL(p, "take the user of the author", SYS_setresuid, KEEP, uid, KEEP);
}

static void become_own(struct program *p, uint32_t uid, uint32_t gid)
{
	if (is_own(uid, gid))
		return;
	CALL(p, "be the user of criu again", SYS_setresuid, KEEP, geteuid(), KEEP);
	CALL(p, "be the group of criu again", SYS_setresgid, KEEP, getegid(), KEEP);
}

static bool is_other(const struct author *a)
{
	return a->uid || a->gid;
}

static int close_pairs(const struct author *a, int (*theirs)[2], size_t n)
{
	struct program p;
	int rc = begin(&p, a);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < 2; k++)
			CALL(&p, "close its end of a pair", SYS_close, theirs[i][k]);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

static int take_pairs(const struct author *a, int (*theirs)[2], int (*fds)[2], size_t n)
{
	autoclose int pidfd = syscall(SYS_pidfd_open, a->task->pid, 0);

	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < 2; k++) {
			fds[i][k] = syscall(SYS_pidfd_getfd, pidfd, theirs[i][k], 0);
			if (fds[i][k] < 0)
				return fail(errno, "pid %d: take a socket that it made",
					    a->task->pid);
		}
	return 0;
}

int author_make_pairs(const struct author *a, const uint32_t *types, size_t n, int (*fds)[2])
{
	struct program p;
	int rc = begin(&p, a);

	if (rc < 0)
		return rc;
	int(*theirs)[2] = program_room(&p, n * sizeof(*theirs));
	if (theirs && is_other(a))
		become(&p, a->uid, a->gid);
	for (size_t i = 0; theirs && i < n; i++)
		CALL(&p, "make a pair of sockets", SYS_socketpair, AF_UNIX, types[i] | SOCK_CLOEXEC,
		     0, program_raddr(&p, theirs[i]));
	if (is_other(a))
		become_own(&p, a->uid, a->gid);
	rc = program_run(&p);
	if (rc == 0)
		rc = take_pairs(a, theirs, fds, n);
	int copy[AUTHOR_PAIRS_MAX][2];
	if (rc == 0)
		memcpy(copy, theirs, n * sizeof(*theirs));
	program_end(&p);
	return rc < 0 ? rc : close_pairs(a, copy, n);
}

/* Gets a descriptor of criu into the task for one call. */
static int call_on(const struct restore *r, const struct author *a, int fd, const char *what,
		   long nr, const void *data, uint64_t second, uint64_t third)
{
	struct program p;
	int rc = begin(&p, a);

	if (rc < 0)
		return rc;
	void *room = data ? program_data(&p, data, third) : NULL;
	struct call *criu = CALL(&p, "open criu", SYS_pidfd_open, r->engine.tid, 0);
	struct call *get = CALL(&p, "take a socket from criu", SYS_pidfd_getfd, 0, fd, 0);
	call_use(&p, get, 0, criu);
	if (is_other(a))
		become(&p, a->uid, a->gid);
	struct call *call = CALL(&p, what, nr, 0, room ? program_raddr(&p, room) : second, third);
	call_use(&p, call, 0, get);
	if (is_other(a))
		become_own(&p, a->uid, a->gid);
	struct call *close = CALL(&p, "close the socket", SYS_close, 0);
	call_use(&p, close, 0, get);
	close = CALL(&p, "close criu", SYS_close, 0);
	call_use(&p, close, 0, criu);
	rc = program_run(&p);
	program_end(&p);
	return rc;
}

int author_listen(const struct restore *r, const struct author *a, int fd, uint32_t backlog)
{
	return call_on(r, a, fd, "listen", SYS_listen, NULL, backlog, 0);
}

int author_connect(const struct restore *r, const struct author *a, int fd,
		   const struct sockaddr *addr, socklen_t len)
{
	return call_on(r, a, fd, "connect a unix socket", SYS_connect, addr, 0, len);
}
