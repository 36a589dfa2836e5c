/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/own.h"
#include "ns/enter.h"

#define STACK_SIZE (256u << 10)

struct call {
	int ns_fd, kind;
	int (*fn)(void *arg);
	void *arg;
	bool has_entered;
	int rc;
};

static int visitor_main(void *p)
{
	struct call *c = p;

	if (setns(c->ns_fd, c->kind) < 0) {
		c->rc = -errno;
		return 0;
	}
	c->has_entered = true;
	c->rc = c->fn(c->arg);
	return 0;
}

/*
 * CLONE_VFORK: criu stands still meanwhile, as both have the same state of the C library. No signal
 * when it ends: nobody but us waits for it (__WALL).
 */
int ns_call(int ns_fd, int kind, int (*fn)(void *arg), void *arg, const char **ret_where)
{
	struct call c = { .ns_fd = ns_fd, .kind = kind, .fn = fn, .arg = arg, .rc = -EINTR };
	struct local_map map = { .size = STACK_SIZE };
	int status;

	*ret_where = "start a process for it";
	map.addr = mmap(NULL, map.size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (map.addr == MAP_FAILED)
		return -errno;
	autounmap struct local_map stack = map;
	pid_t pid = clone(visitor_main, (char *)stack.addr + stack.size,
			  CLONE_VM | CLONE_VFORK | CLONE_FILES, &c);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	*ret_where = c.has_entered ? NULL : "enter it";
	return c.rc;
}
