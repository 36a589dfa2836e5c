/* SPDX-License-Identifier: GPL-2.0-only */
#include "base/log.h"
#include "base/own.h"
#include "base/step.h"
#include "base/test.h"

/* What was called, in order, and which of the steps fails. */
struct trace {
	char calls[32];
	char failing;
};

static int called(void *ctx, char c)
{
	struct trace *t = ctx;

	t->calls[strlen(t->calls)] = c;
	return c == t->failing ? -EIO : 0;
}

static int run_a(void *ctx)
{
	return called(ctx, 'a');
}

static int run_b(void *ctx)
{
	return called(ctx, 'b');
}

static int run_c(void *ctx)
{
	return called(ctx, 'c');
}

static int run_d(void *ctx)
{
	return called(ctx, 'd');
}

static void undo_a(void *ctx)
{
	called(ctx, 'A');
}

static void undo_c(void *ctx)
{
	called(ctx, 'C');
}

static void undo_d(void *ctx)
{
	called(ctx, 'D');
}

/* b has nothing to undo. */
static const struct step steps[] = {
	{ .name = "first", .run = run_a, .undo = undo_a },
	{ .name = "second", .run = run_b },
	{ .name = "third", .run = run_c, .undo = undo_c },
};

static const struct step committing[] = {
	{ .name = "first", .run = run_a, .undo = undo_a },
	{ .name = "second", .run = run_b, .commits = true },
	{ .name = "third", .run = run_c, .undo = undo_c },
	{ .name = "fourth", .run = run_d, .undo = undo_d },
};

static void expect_of(const struct step *s, size_t n, char failing, int rc, const char *calls)
{
	struct trace t = { .failing = failing };

	ASSERT_EQ(steps_run("test", s, n, &t), rc);
	ASSERT_STR(t.calls, calls);
}

static void expect(char failing, int rc, const char *calls)
{
	expect_of(steps, ARRAY_SIZE(steps), failing, rc, calls);
}

static void expect_committing(char failing, int rc, const char *calls)
{
	expect_of(committing, ARRAY_SIZE(committing), failing, rc, calls);
}

TEST(step, runs_in_order_and_undoes_nothing_on_success)
{
	expect(0, 0, "abc");
}

TEST(step, failure_undoes_it_and_all_before_in_reverse)
{
	expect('a', -EIO, "aA");
	expect('b', -EIO, "abA");
	expect('c', -EIO, "abcCA");
}

TEST(step, no_steps_are_a_success)
{
	ASSERT_EQ(steps_run("test", steps, 0, NULL), 0);
}

TEST(step, variable_fails_a_step_that_was_done)
{
	ASSERT_OK(log_init("/dev/null", LOG_LEVEL_WARN));
	setenv("CRIU_FAIL_STEP", "first", 1);
	expect(0, -ECANCELED, "aA");
	setenv("CRIU_FAIL_STEP", "second", 1);
	expect(0, -ECANCELED, "abA");
	setenv("CRIU_FAIL_STEP", "third", 1);
	expect(0, -ECANCELED, "abcCA");
	ASSERT_STR(log_first_error(), "test: step first fails as CRIU_FAIL_STEP asks");
}

TEST(step, variable_names_a_whole_step)
{
	setenv("CRIU_FAIL_STEP", "thir", 1);
	expect(0, 0, "abc");
	setenv("CRIU_FAIL_STEP", "thirds", 1);
	expect(0, 0, "abc");
	setenv("CRIU_FAIL_STEP", "", 1);
	expect(0, 0, "abc");
	unsetenv("CRIU_FAIL_STEP");
	expect(0, 0, "abc");
}

TEST(step, variable_does_not_hide_a_real_failure)
{
	setenv("CRIU_FAIL_STEP", "second", 1);
	expect('b', -EIO, "abA");
	ASSERT_STR(log_first_error(), "");
}

TEST(step, failure_after_a_commit_leaves_what_was_before_it)
{
	expect_committing(0, 0, "abcd");
	expect_committing('a', -EIO, "aA");
	expect_committing('c', -EIO, "abcC");
	expect_committing('d', -EIO, "abcdDC");
}

TEST(step, variable_fails_a_commit_before_it_runs)
{
	setenv("CRIU_FAIL_STEP", "second", 1);
	expect_committing(0, -ECANCELED, "aA");
	setenv("CRIU_FAIL_STEP", "third", 1);
	expect_committing(0, -ECANCELED, "abcC");
}

TEST(step, debug_log_names_each_with_its_time)
{
	char path[] = "/tmp/criu-step-test-XXXXXX", text[1024] = "";
	autoclose int fd = ASSERT_OK(mkstemp(path));

	ASSERT_OK(log_init(path, LOG_LEVEL_DEBUG));
	expect('b', -EIO, "abA");
	unlink(path);
	ASSERT(pread(fd, text, sizeof(text) - 1, 0) > 0);
	ASSERT(strstr(text, ") test: step first: done, "));
	ASSERT(strstr(text, ") test: step second: failed, "));
	ASSERT(strstr(text, " us\n"));
	ASSERT(!strstr(text, "third"));
}
