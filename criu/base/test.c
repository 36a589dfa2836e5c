/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs the registered tests: all, or those whose "module.name" contains an argument. Prints a
 * line for each that fails or is skipped, and the counts last.
 */
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
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

static char own_dir[] = "/tmp/criu-unit.XXXXXX";
static pid_t dir_owner;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st, (void)type, (void)where;
	return remove(path);
}

/* Children of the test end, too. */
static void remove_dir(void)
{
	if (getpid() == dir_owner)
		(void)nftw(own_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_path(void)
{
	if (dir_owner)
		return own_dir;
	ASSERT(mkdtemp(own_dir));
	dir_owner = getpid();
	ASSERT_EQ(atexit(remove_dir), 0);
	return own_dir;
}

int test_dir(void)
{
	return ASSERT_OK(open(test_path(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
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
	printf("%s: %d passed, %d failed, %d skipped\n",
	       strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0], passed, failed,
	       skipped);
	return failed != 0;
}
