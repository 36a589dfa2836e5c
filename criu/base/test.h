/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unit tests: TEST(module, what_holds) { ... } in x_test.c beside x.c. Each test runs in a
 * process of its own with a time limit. base/test.c is the main program of a test binary.
 */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

struct test {
	const char *module;
	const char *name;
	void (*run)(void);
	struct test *next;
};

void test_register(struct test *t);
void test_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), noreturn));
void test_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Raises the time limit of the running test (10 s at the start). */
void test_time_limit(unsigned seconds);
/*
 * The test's own directory, which is made when it is asked for, and goes with all in it when the
 * test ends: a new descriptor of it, its path.
 */
int test_dir(void);
const char *test_path(void);

#define TEST(mod, what)                                                                            \
	static void test_##mod##_##what(void);                                                     \
	static struct test test_entry_##mod##_##what = { #mod, #what, test_##mod##_##what, 0 };    \
	__attribute__((constructor)) static void test_add_##mod##_##what(void)                     \
	{                                                                                          \
		test_register(&test_entry_##mod##_##what);                                         \
	}                                                                                          \
	static void test_##mod##_##what(void)

#define ASSERT(cond)                                                                               \
	do {                                                                                       \
		if (!(cond))                                                                       \
			test_fail(__FILE__, __LINE__, "%s", #cond);                                \
	} while (0)
#define ASSERT_EQ(a, b)                                                                            \
	do {                                                                                       \
		long long test_a = (long long)(a), test_b = (long long)(b);                        \
		if (test_a != test_b)                                                              \
			test_fail(__FILE__, __LINE__, "%s == %s: %lld (%#llx), %lld (%#llx)", #a,  \
				  #b, test_a, test_a, test_b, test_b);                             \
	} while (0)
#define ASSERT_STR(a, b)                                                                           \
	do {                                                                                       \
		const char *test_a = (a), *test_b = (b);                                           \
		if (!test_a || strcmp(test_a, test_b))                                             \
			test_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", #a,              \
				  test_a ? test_a : "(null)", test_b);                             \
	} while (0)
/* The expression returned -1 and set errno, or a negative errno. */
#define ASSERT_OK(e)                                                                               \
	({                                                                                         \
		long test_r = (long)(e);                                                           \
		if (test_r < 0)                                                                    \
			test_fail(__FILE__, __LINE__, "%s: %s", #e,                                \
				  strerror(test_r == -1 ? errno : (int)-test_r));                  \
		test_r;                                                                            \
	})
/* The expression is an error, and the text is in what was reported. */
#define ASSERT_REFUSED(e, text)                                                                    \
	do {                                                                                       \
		log_clear_first_error();                                                           \
		if ((long)(e) >= 0)                                                                \
			test_fail(__FILE__, __LINE__, "%s is not refused", #e);                    \
		if (!strstr(log_first_error(), text))                                              \
			test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"",                \
				  log_first_error(), text);                                        \
	} while (0)

#endif
