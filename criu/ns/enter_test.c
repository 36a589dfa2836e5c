/* SPDX-License-Identifier: GPL-2.0-only */
#include "ns/enter.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/msg.h>
#include <sys/wait.h>

#include "base/own.h"
#include "base/test.h"

/* Of an IPC namespace that nobody is in. */
static int new_namespace(void)
{
	int own = ASSERT_OK(open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));

	if (unshare(CLONE_NEWIPC) < 0)
		test_skip("no new IPC namespace: %s", strerror(errno));
	int fd = ASSERT_OK(open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));
	ASSERT_OK(setns(own, CLONE_NEWIPC));
	ASSERT_OK(close(own));
	return fd;
}

static void own_link(char link[PATH_MAX])
{
	link[ASSERT_OK(readlink("/proc/self/ns/ipc", link, PATH_MAX - 1))] = '\0';
}

struct look {
	char link[PATH_MAX];
	char *text; /* allocated there */
	int fd;	    /* opened there */
};

static int look_around(void *arg)
{
	struct look *l = arg;

	own_link(l->link);
	l->text = strdup("from there");
	l->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 42;
}

TEST(enter, what_is_made_there_is_here_afterwards)
{
	autoclose int ns = new_namespace();
	char before[PATH_MAX], after[PATH_MAX];
	struct look l;
	const char *where;

	own_link(before);
	ASSERT_EQ(ns_call(ns, CLONE_NEWIPC, look_around, &l, &where), 42);
	own_link(after);
	ASSERT_STR(after, before);
	ASSERT(strcmp(l.link, before));
	ASSERT_STR(l.text, "from there");
	ASSERT_OK(fcntl(l.fd, F_GETFD));
	ASSERT_OK(close(l.fd));
	free(l.text);
	ASSERT_EQ(waitpid(-1, NULL, __WALL), -1);
	ASSERT_EQ(errno, ECHILD);
}

static int fail_there(void *arg)
{
	(void)arg;
	return -EBADMSG;
}

TEST(enter, an_error_is_told_where_it_was)
{
	autoclose int ns = new_namespace();
	autoclose int null = ASSERT_OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
	const char *where;

	ASSERT_EQ(ns_call(null, CLONE_NEWIPC, fail_there, NULL, &where), -EINVAL);
	ASSERT_STR(where, "enter it");
	ASSERT_EQ(ns_call(ns, CLONE_NEWIPC, fail_there, NULL, &where), -EBADMSG);
	ASSERT(!where);
}
