/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/actions.h"

bool actions_any(const struct options *o)
{
	return o->listener || o->action_script.n;
}

static void run_script(const char *script, const char *stage, int images_fd, int pid)
{
	char dir[64], init[16];
	sigset_t none;

	snprintf(dir, sizeof(dir), "/proc/%d/fd/%d", getppid(), images_fd);
	snprintf(init, sizeof(init), "%d", pid);
	(void)setenv("CRTOOLS_SCRIPT_ACTION", stage, 1);
	(void)setenv("CRTOOLS_IMAGE_DIR", dir, 1);
	if (pid)
		(void)setenv("CRTOOLS_INIT_PID", init, 1);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)execl("/bin/sh", "sh", "-c", script, (char *)NULL);
	_exit(127);
}

static int script(const char *path, const char *stage, int images_fd, int pid)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		run_script(path, stage, images_fd, pid);
	if (child < 0)
		return fail(errno, "action script %s: fork", path);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return fail(errno, "action script %s: wait for it", path);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		(void)refuse(EPERM, "action script %s: stage %s: it exited with status %d", path,
			     stage, WEXITSTATUS(status));
	else
		(void)refuse(EPERM, "action script %s: stage %s: killed by signal %d", path, stage,
			     WTERMSIG(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int actions_run(const struct options *o, const char *stage, int images_fd, int pid)
{
	int result = o->listener ? o->listener->tell(o->listener, stage, pid) : 0;

	if (result)
		return result;
	for (size_t i = 0; i < o->action_script.n; i++) {
		int rc = script(o->action_script.item[i], stage, images_fd, pid);

		if (rc < 0)
			return rc;
		result |= rc;
	}
	return result;
}
