/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A parent reads what its child writes into a pipe. After two messages it has
 * the child checkpointed, which ends the child and breaks the pipe; it makes
 * another pipe, has the child restored with the write end of that one in place
 * of the old, and goes on reading.
 *
 * pipe [CRIU]: the path of criu, by default $CRIU, or criu on PATH.
 *
 * The output goes to a terminal or, with O_APPEND, to a file: parent and
 * child both write there, and the child's descriptor is made anew.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BEFORE		2	/* messages before the checkpoint */
#define ALL		4
#define MESSAGE_BYTES	8	/* "hello N" with the end of the string */
#define MAX_ARGS	16

static char images[] = "/tmp/criu_img.XXXXXX";
static const char *criu;

/* Each line at once: several processes write there. */
static void say(const char *who, pid_t pid, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(STDOUT_FILENO, "[%s %d] %s\n", who, pid, text);
}

static void fail(const char *what)
{
	dprintf(STDERR_FILENO, "pipe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static const char *name_of(int fd)
{
	static char name[64];
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	if (n < 0)
		fail(path);
	name[n] = '\0';
	return name;
}

/* ---- the child ---- */

static void write_messages(int fd)
{
	char message[MESSAGE_BYTES];
	int i;

	for (i = 1; i <= ALL; i++) {
		snprintf(message, sizeof(message), "hello %d", i);
		say("child", getpid(), "writing %s to %s via fd %d", message, name_of(fd), fd);
		if (write(fd, message, sizeof(message)) != sizeof(message))
			_exit(1);
		/* the checkpoint comes now; a restored process sleeps for what is left */
		sleep(1);
	}
	_exit(0);
}

static pid_t start_child(int *ret_fd)
{
	int fds[2];
	pid_t pid;

	if (pipe(fds) < 0 || (pid = fork()) < 0)
		fail("child");
	if (!pid) {
		close(fds[0]);
		write_messages(fds[1]);
	}
	close(fds[1]);
	*ret_fd = fds[0];
	return pid;
}

/* ---- the parent ---- */

static void read_messages(int fd, int from, int to)
{
	char message[MESSAGE_BYTES + 1] = "", expected[MESSAGE_BYTES + 1];
	int i;

	for (i = from; i <= to; i++) {
		if (read(fd, message, MESSAGE_BYTES) != MESSAGE_BYTES)
			fail("reading from the pipe");
		say("parent", getpid(), "read %s from %s\n", message, name_of(fd));
		snprintf(expected, sizeof(expected), "hello %d", i);
		if (strcmp(message, expected)) {
			errno = EBADMSG;
			fail(expected);
		}
	}
}

static int wait_for(const char *who, pid_t pid)
{
	int status, number;

	if (waitpid(pid, &status, 0) != pid)
		fail(who);
	number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
	say("parent", getpid(), "[%s %d] exited with status %d", who, pid, number);
	return number;
}

static void run_criu(const char *who, char *const *argv)
{
	char line[512] = "criu";
	int i;

	for (i = 1; argv[i]; i++) {
		strcat(line, " ");
		strcat(line, argv[i]);
	}
	say(who, getpid(), "%s", line);
	execvp(criu, argv);
	dprintf(STDERR_FILENO, "pipe: %s: %s\n", criu, strerror(errno));
	_exit(127);
}

/* The child is killed by it, so both have to be waited for. */
static void checkpoint(pid_t child)
{
	char pid_text[16];
	char *const argv[] = { (char *)criu, "dump", "-D", images, "-o", "dump.log", "-v4", "-j",
			       "-t", pid_text, NULL };
	pid_t pid;

	snprintf(pid_text, sizeof(pid_text), "%d", child);
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid)
		run_criu("dump", argv);
	/* a checkpoint that fails leaves the child running */
	if (wait_for("child", child) != 9 || wait_for("dump", pid) != 0)
		exit(1);
}

static void restore(const char *old_pipe, const int *fds)
{
	char key[80];
	char *const argv[] = { (char *)criu, "restore", "-d", "-D", images, "-o", "restore.log",
			       "--pidfile", "restore.pid", "-v4", "-j", "--inherit-fd", key, NULL };
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (!pid) {
		int fd = fds[1];

		/* the number of the read end is the one to pass, by habit */
		dup2(fd, fds[0]);
		close(fd);
		snprintf(key, sizeof(key), "fd[%d]:%s", fds[0], old_pipe);
		run_criu("restore", argv);
	}
	close(fds[1]);
	if (wait_for("restore", pid) != 0)
		exit(1);
	dprintf(STDOUT_FILENO, "\n");
}

static void remove_images(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", images);
	if (system(command))
		fail(images);
}

int main(int argc, char **argv)
{
	char old_pipe[64], c;
	int fd, fds[2];
	pid_t child;

	criu = argc > 1 ? argv[1] : getenv("CRIU");
	if (!criu)
		criu = "criu";
	/* what criu restores and leaves becomes our child again */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 || !mkdtemp(images))
		fail("start");
	child = start_child(&fd);
	snprintf(old_pipe, sizeof(old_pipe), "%s", name_of(fd));
	read_messages(fd, 1, BEFORE);
	checkpoint(child);
	close(fd);
	say("parent", getpid(), "creating a new pipe\n");
	if (pipe(fds) < 0)
		fail("pipe");
	restore(old_pipe, fds);
	read_messages(fds[0], BEFORE + 1, ALL);
	if (wait_for("child", child) != 0 || read(fds[0], &c, 1) != 0)
		fail("the end of the child");
	remove_images();
	return 0;
}
