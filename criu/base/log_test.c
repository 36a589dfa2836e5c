/* SPDX-License-Identifier: GPL-2.0-only */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/test.h"

/* A standard descriptor that points to a nameless file for a while. */
struct capture {
	int target;
	int saved;
	char path[64];
	char text[32768];
};

static int temporary_file(char *path, size_t size)
{
	snprintf(path, size, "/tmp/criu-log-test-XXXXXX");
	return ASSERT_OK(mkstemp(path));
}

static void capture_begin(struct capture *c, int target)
{
	autoclose int fd = temporary_file(c->path, sizeof(c->path));

	fflush(NULL);
	c->target = target;
	c->saved = ASSERT_OK(dup(target));
	ASSERT_OK(dup2(fd, target));
}

/* Failures can be seen again from here on. */
static const char *capture_end(struct capture *c)
{
	ASSERT_OK(dup2(c->saved, c->target));
	close(c->saved);
	ASSERT_OK(read_small_at(AT_FDCWD, c->path, c->text, sizeof(c->text)));
	unlink(c->path);
	return c->text;
}

/* What the log holds after lines of every level. */
static const char *lines_at_level(struct capture *c, int level)
{
	capture_begin(c, STDERR_FILENO);
	ASSERT_OK(log_init(NULL, level));
	log_line(LOG_LEVEL_ERROR, "f.c", 1, "e");
	log_line(LOG_LEVEL_WARN, "f.c", 2, "w");
	log_line(LOG_LEVEL_INFO, "f.c", 3, "i");
	log_line(LOG_LEVEL_DEBUG, "f.c", 4, "d");
	return capture_end(c);
}

TEST(log, shows_lines_up_to_the_level)
{
	struct capture c;

	ASSERT_STR(lines_at_level(&c, LOG_LEVEL_MSG), "");
	ASSERT_STR(lines_at_level(&c, LOG_LEVEL_ERROR), "Error (f.c:1): e\n");
	ASSERT_STR(lines_at_level(&c, LOG_LEVEL_WARN), "Error (f.c:1): e\nWarn  (f.c:2): w\n");
	ASSERT_EQ(log_get_level(), LOG_LEVEL_WARN);
}

/* "(SS.uuuuuu) " */
static bool is_time(const char *p)
{
	const char *form = "(00.000000) ";

	for (; *form; form++, p++)
		if (*form == '0' ? *p < '0' || *p > '9' : *p != *form)
			return false;
	return true;
}

TEST(log, puts_the_time_before_each_line_from_info_on)
{
	const char *wanted[] = { "Error (f.c:1): e\n", "Warn  (f.c:2): w\n", "i\n", "d\n" };
	struct capture c;

	for (int level = LOG_LEVEL_INFO; level <= LOG_LEVEL_DEBUG; level++) {
		const char *p = lines_at_level(&c, level);

		for (int i = 0; i < level; i++) {
			ASSERT(is_time(p));
			ASSERT(!strncmp(p + 12, wanted[i], strlen(wanted[i])));
			p += 12 + strlen(wanted[i]);
		}
		ASSERT_STR(p, "");
	}
}

TEST(log, names_the_place_of_an_error)
{
	struct capture c;
	char place[64];

	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_WARN);
	error("here"), snprintf(place, sizeof(place), "%s:%d): here\n", __FILE_NAME__, __LINE__);
	capture_end(&c);
	ASSERT(strstr(c.text, place));
}

TEST(log, writes_messages_to_stdout_at_any_level)
{
	struct capture c;

	capture_begin(&c, STDOUT_FILENO);
	message("before %d", 1);
	log_init(NULL, LOG_LEVEL_MSG);
	message("after");
	ASSERT_STR(capture_end(&c), "before 1\nafter\n");
}

TEST(log, ends_every_line_once)
{
	struct capture c;

	capture_begin(&c, STDOUT_FILENO);
	message("one\n");
	message("two");
	message("%s", "");
	message("\n");
	ASSERT_STR(capture_end(&c), "one\ntwo\n\n\n");
}

TEST(log, cuts_lines_that_are_too_long)
{
	static char longest[10000];
	struct capture c;

	memset(longest, 'x', sizeof(longest) - 1);
	for (int len = 4000; len < 4200; len++) {
		capture_begin(&c, STDOUT_FILENO);
		message("%.*s", len, longest);
		const char *text = capture_end(&c);
		size_t n = strlen(text);

		ASSERT_EQ(n, min(len + 1, 4095));
		ASSERT(strchr(text, '\n') == text + n - 1);
	}
}

TEST(log, keeps_early_lines_until_the_level_is_known)
{
	struct capture c;

	log_line(LOG_LEVEL_ERROR, "f.c", 1, "e");
	log_line(LOG_LEVEL_DEBUG, "f.c", 2, "d");
	log_line(LOG_LEVEL_WARN, "f.c", 3, "w");
	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_WARN);
	ASSERT_STR(capture_end(&c), "Error (f.c:1): e\nWarn  (f.c:3): w\n");
}

TEST(log, gives_early_lines_the_time_zero)
{
	struct capture c;

	log_line(LOG_LEVEL_ERROR, "f.c", 1, "e");
	log_line(LOG_LEVEL_INFO, "f.c", 2, "i");
	log_line(LOG_LEVEL_DEBUG, "f.c", 3, "d");
	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_INFO);
	ASSERT_STR(capture_end(&c), "(00.000000) Error (f.c:1): e\n(00.000000) i\n");
}

TEST(log, writes_early_lines_once)
{
	struct capture c;

	log_line(LOG_LEVEL_ERROR, "f.c", 1, "e");
	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_WARN);
	log_flush_early();
	log_done();
	log_flush_early();
	ASSERT_STR(capture_end(&c), "Error (f.c:1): e\n");
}

TEST(log, shows_early_lines_without_a_log)
{
	struct capture c;

	log_line(LOG_LEVEL_INFO, "f.c", 1, "i");
	log_line(LOG_LEVEL_ERROR, "f.c", 2, "e");
	capture_begin(&c, STDERR_FILENO);
	log_flush_early();
	log_flush_early();
	ASSERT_STR(capture_end(&c), "Error (f.c:2): e\n");
}

TEST(log, keeps_all_of_an_early_text_of_several_lines)
{
	struct capture c;

	log_line(LOG_LEVEL_ERROR, "f.c", 1, "open a\nb\n\nc");
	log_line(LOG_LEVEL_WARN, "f.c", 2, "w");
	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_WARN);
	ASSERT_STR(capture_end(&c), "Error (f.c:1): open a\nb\n\nc\nWarn  (f.c:2): w\n");
}

TEST(log, keeps_as_many_early_lines_as_fit)
{
	struct capture c;
	char wanted[64];
	int n = 0;

	for (int i = 0; i < 1000; i++)
		log_line(LOG_LEVEL_WARN, "f.c", i, "%d", i);
	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_WARN);
	for (const char *p = capture_end(&c); *p; p += strlen(wanted), n++) {
		snprintf(wanted, sizeof(wanted), "Warn  (f.c:%d): %d\n", n, n);
		ASSERT(!strncmp(p, wanted, strlen(wanted)));
	}
	ASSERT(n > 20 && n < 100);
}

TEST(log, survives_early_lines_of_any_length)
{
	static char longest[3000];

	memset(longest, 'x', sizeof(longest) - 1);
	for (int len = 0; len < (int)sizeof(longest); len++) {
		struct capture c;

		log_line(LOG_LEVEL_DEBUG, "f.c", 1, "%.*s", len, longest);
		if (len % 100) {
			log_done();
			continue;
		}
		capture_begin(&c, STDERR_FILENO);
		log_init(NULL, LOG_LEVEL_DEBUG);
		const char *text = capture_end(&c);
		ASSERT(!*text || strlen(text) == (size_t)len + 13);
		log_done();
	}
}

TEST(log, done_forgets_what_was_not_written)
{
	struct capture c;

	error("lost");
	log_done();
	capture_begin(&c, STDERR_FILENO);
	log_flush_early();
	log_init(NULL, LOG_LEVEL_DEBUG);
	ASSERT_STR(capture_end(&c), "");
}

TEST(log, file_is_private_and_starts_empty)
{
	char path[64], text[64];
	autoclose int fd = temporary_file(path, sizeof(path));
	struct stat st;

	ASSERT_OK(write_all(fd, "old text that is longer than a line", 35));
	umask(0);
	ASSERT_OK(log_init(path, LOG_LEVEL_WARN));
	log_line(LOG_LEVEL_WARN, "f.c", 1, "w");
	ASSERT_OK(read_small_at(AT_FDCWD, path, text, sizeof(text)));
	ASSERT_STR(text, "Warn  (f.c:1): w\n");
	log_done();

	unlink(path);
	ASSERT_OK(log_init(path, LOG_LEVEL_WARN));
	ASSERT_OK(stat(path, &st));
	ASSERT_EQ(st.st_mode & 07777, 0600);
	unlink(path);
}

static int lowest_free_fd(void)
{
	int fd = ASSERT_OK(dup(STDIN_FILENO));

	close(fd);
	return fd;
}

TEST(log, file_stays_clear_of_low_descriptors)
{
	int before = lowest_free_fd();

	close(100);
	ASSERT_OK(log_init("/dev/null", LOG_LEVEL_WARN));
	ASSERT_EQ(lowest_free_fd(), before);
	ASSERT_EQ(fcntl(100, F_GETFD), FD_CLOEXEC);
	log_done();
	ASSERT_EQ(fcntl(100, F_GETFD), -1);
}

TEST(log, file_takes_a_low_descriptor_when_there_is_no_high_one)
{
	struct rlimit few = { 64, 64 };
	int before = lowest_free_fd();

	ASSERT_OK(setrlimit(RLIMIT_NOFILE, &few));
	ASSERT_OK(log_init("/dev/null", LOG_LEVEL_WARN));
	ASSERT_EQ(fcntl(before, F_GETFD), FD_CLOEXEC);
	log_done();
	ASSERT_EQ(lowest_free_fd(), before);
}

TEST(log, init_that_fails_keeps_early_lines)
{
	struct capture c;

	log_line(LOG_LEVEL_ERROR, "f.c", 1, "e");
	ASSERT_EQ(log_init("/nonexistent/log", LOG_LEVEL_WARN), -ENOENT);
	ASSERT_EQ(log_init("/", LOG_LEVEL_WARN), -EISDIR);
	capture_begin(&c, STDERR_FILENO);
	log_flush_early();
	ASSERT_STR(capture_end(&c), "Error (f.c:1): e\n");
}

TEST(log, knows_whether_the_user_sees_it)
{
	ASSERT(log_is_stderr());
	ASSERT_OK(log_init(NULL, LOG_LEVEL_WARN));
	ASSERT(log_is_stderr());
	ASSERT_OK(log_init("-", LOG_LEVEL_WARN));
	ASSERT(!log_is_stderr());
	ASSERT_OK(log_init("/dev/null", LOG_LEVEL_WARN));
	ASSERT(!log_is_stderr());
	log_done();
	ASSERT(log_is_stderr());
}

TEST(log, dash_is_stdout)
{
	struct capture c;

	capture_begin(&c, STDOUT_FILENO);
	log_init("-", LOG_LEVEL_WARN);
	log_line(LOG_LEVEL_WARN, "f.c", 1, "w");
	log_done(); /* leaves stdout open */
	message("m");
	ASSERT_STR(capture_end(&c), "Warn  (f.c:1): w\nm\n");
}

TEST(log, gives_up_when_it_cannot_be_written)
{
	ASSERT_OK(log_init("/dev/full", LOG_LEVEL_WARN));
	warn("nowhere to go");
	log_done();
	close(STDERR_FILENO);
	ASSERT_OK(log_init(NULL, LOG_LEVEL_WARN));
	warn("nowhere to go");
}

TEST(log, fail_returns_the_code_and_says_why)
{
	struct capture c;
	int rc[4];

	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_WARN);
	rc[0] = log_fail(ENOENT, true, "f.c", 1, "pid %d: open", 7);
	rc[1] = log_fail(EPERM, false, "f.c", 2, "not a dump");
	rc[2] = log_fail(0, true, "f.c", 3, "no code");
	rc[3] = log_fail(0, false, "f.c", 4, "no code either");
	capture_end(&c);
	ASSERT_EQ(rc[0], -ENOENT);
	ASSERT_EQ(rc[1], -EPERM);
	ASSERT_EQ(rc[2], -EINVAL);
	ASSERT_EQ(rc[3], -EINVAL);
	ASSERT_STR(c.text, "Error (f.c:1): pid 7: open: No such file or directory\n"
			   "Error (f.c:2): not a dump\n"
			   "Error (f.c:3): no code\n"
			   "Error (f.c:4): no code either\n");
}

TEST(log, remembers_the_first_error_only)
{
	ASSERT_OK(log_init("/dev/null", LOG_LEVEL_DEBUG));
	ASSERT_STR(log_first_error(), "");
	error("not one that a function returns");
	ASSERT_STR(log_first_error(), "");
	(void)fail(EBADF, "fd %d", 5);
	(void)refuse(EINVAL, "a consequence");
	ASSERT_STR(log_first_error(), "fd 5: Bad file descriptor");
	ASSERT_EQ(log_first_errno(), EBADF);
	log_clear_first_error();
	ASSERT_STR(log_first_error(), "");
	(void)refuse(EINVAL, "another run");
	ASSERT_STR(log_first_error(), "another run");
}

TEST(log, remembers_the_first_error_that_it_does_not_show)
{
	struct capture c;

	capture_begin(&c, STDERR_FILENO);
	log_init(NULL, LOG_LEVEL_MSG);
	(void)refuse(EINVAL, "quiet");
	ASSERT_STR(capture_end(&c), "");
	ASSERT_STR(log_first_error(), "quiet");
}

TEST(log, remembers_an_error_from_before_init)
{
	(void)refuse(EINVAL, "early");
	ASSERT_OK(log_init("/dev/null", LOG_LEVEL_WARN));
	ASSERT_STR(log_first_error(), "early");
	log_done();
	ASSERT_STR(log_first_error(), "early");
}

TEST(log, cuts_errors_that_are_too_long)
{
	static char longest[10000];

	memset(longest, 'x', sizeof(longest) - 1);
	ASSERT_OK(log_init("/dev/null", LOG_LEVEL_WARN));
	for (int len = 900; len < 10000; len += len < 1100 || (len > 4000 && len < 4200) ? 1 : 50) {
		log_clear_first_error();
		ASSERT_EQ(fail(ENOENT, "%.*s", len, longest), -ENOENT);
		ASSERT_EQ(strlen(log_first_error()), min(len + 27, 1000));
	}
}
