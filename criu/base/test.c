/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs the registered tests: all, or those whose "module.name" contains an argument. Prints a
 * line for each that fails or is skipped, and the counts last.
 */
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/test.h"

#define SKIPPED 77

static struct test *all_tests, **last_test = &all_tests;

void test_register(struct test *t)
{
	*last_test = t;
	last_test = &t->next;
}

static void say(const char *file, int line, const char *fmt, va_list args)
{
	if (file)
		fprintf(stderr, "  %s:%d: ", file, line);
	else
		fprintf(stderr, "  skipped: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, "\n");
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(file, line, fmt, args);
	va_end(args);
	exit(1);
}

void test_skip(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(NULL, 0, fmt, args);
	va_end(args);
	exit(SKIPPED);
}

void test_time_limit(unsigned seconds)
{
	alarm(seconds);
}

/* All of the run's directories are in one, which the tests leave to the main program. */
static char run_dir[] = "/tmp/criu-unit.XXXXXX";
static char own_dir[sizeof(run_dir) + 2];

const char *test_path(void)
{
	if (!own_dir[0]) {
		snprintf(own_dir, sizeof(own_dir), "%s/t", run_dir);
		ASSERT_OK(mkdir(own_dir, 0700));
	}
	return own_dir;
}

int test_dir(void)
{
	return ASSERT_OK(open(test_path(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st, (void)type;
	return where->level ? remove(path) : 0;
}

static void empty_run_dir(void)
{
	(void)nftw(run_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Returns the wait status of the test's process. */
static int run_test(const struct test *t)
{
	int status;

	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	if (pid == 0) {
		setpgid(0, 0);
		alarm(10);
		t->run();
		exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	/* What a failed test left running is in its group. */
	kill(-pid, SIGKILL);
	empty_run_dir();
	return status;
}

static bool wanted(const struct test *t, int argc, char **argv)
{
	char name[256];

	snprintf(name, sizeof(name), "%s.%s", t->module, t->name);
	for (int i = 1; i < argc; i++)
		if (strstr(name, argv[i]))
			return true;
	return argc < 2;
}

int main(int argc, char **argv)
{
	int passed = 0, failed = 0, skipped = 0;

	if (!mkdtemp(run_dir)) {
		perror(run_dir);
		return 1;
	}
	for (struct test *t = all_tests; t; t = t->next) {
		if (!wanted(t, argc, argv))
			continue;
		int status = run_test(t);

		if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			passed++;
			continue;
		}
		if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
			skipped++;
			printf("SKIP %s.%s\n", t->module, t->name);
			continue;
		}
		failed++;
		if (WIFSIGNALED(status))
			printf("FAIL %s.%s: killed by signal %d (%s)\n", t->module, t->name,
			       WTERMSIG(status), strsignal(WTERMSIG(status)));
		else
			printf("FAIL %s.%s\n", t->module, t->name);
	}
	(void)rmdir(run_dir);
	printf("%s: %d passed, %d failed, %d skipped\n",
	       strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0], passed, failed,
	       skipped);
	return failed != 0;
}
