/* SPDX-License-Identifier: GPL-2.0-only */
#include "base/arena.h"
#include "base/own.h"
#include "base/test.h"
#include "proc/text.h"

#define UNTOUCHED 0x5a5a5a5a5a5a5a5aull

typedef const char *(*reader)(const char *p, uint64_t *ret);

/* The number is read and what follows it is left; or nothing is, and *ret stays as it was. */
static void expect(reader read_it, const char *text, uint64_t value, const char *rest)
{
	uint64_t n = UNTOUCHED;
	const char *p = read_it(text, &n);

	if (!p)
		test_fail(__FILE__, __LINE__, "\"%s\" is no number", text);
	ASSERT_EQ(n, value);
	ASSERT_STR(p, rest);
}

static void expect_none(reader read_it, const char *text)
{
	uint64_t n = UNTOUCHED;

	if (read_it(text, &n))
		test_fail(__FILE__, __LINE__, "\"%s\" is %llu", text, (unsigned long long)n);
	ASSERT_EQ(n, UNTOUCHED);
}

TEST(text, hex_is_read_up_to_64_bits)
{
	expect(text_hex, "0", 0, "");
	expect(text_hex, "55d0c1a4e000-55d0c1a50000", 0x55d0c1a4e000, "-55d0c1a50000");
	expect(text_hex, "ffffffffffffffff", UINT64_MAX, "");
	expect(text_hex, "0000000000ffffffffffffffff ", UINT64_MAX, " ");
	expect(text_hex, "abcdefg", 0xabcdef, "g");
	expect_none(text_hex, "10000000000000000");
	expect_none(text_hex, "fffffffffffffffff");
}

TEST(text, hex_has_the_form_that_the_kernel_writes)
{
	expect(text_hex, "0x12", 0, "x12");
	expect(text_hex, "aB", 0xa, "B");
	expect_none(text_hex, "");
	expect_none(text_hex, "A");
	expect_none(text_hex, " 1");
	expect_none(text_hex, "-1");
	expect_none(text_hex, "+1");
}

TEST(text, dec_is_read_up_to_64_bits)
{
	expect(text_dec, "0", 0, "");
	expect(text_dec, "007 kB", 7, " kB");
	expect(text_dec, "12a", 12, "a");
	expect(text_dec, "18446744073709551615\n", UINT64_MAX, "\n");
	expect(text_dec, "00000000000000000000000000000000018446744073709551615", UINT64_MAX, "");
	expect_none(text_dec, "18446744073709551616");
	expect_none(text_dec, "18446744073709551620");
	expect_none(text_dec, "99999999999999999999");
	expect_none(text_dec, "184467440737095516150");
	expect_none(text_dec, "");
	expect_none(text_dec, "\n");
	expect_none(text_dec, "a");
	expect_none(text_dec, "-1");
}

TEST(text, dec_is_written_up_to_64_bits)
{
	char buf[TEXT_DEC_MAX];

	text_put_dec(buf, 0);
	ASSERT(!strcmp(buf, "0"));
	text_put_dec(buf, 1024);
	ASSERT(!strcmp(buf, "1024"));
	text_put_dec(buf, UINT64_MAX);
	ASSERT(!strcmp(buf, "18446744073709551615"));
}

TEST(text, oct_is_read_up_to_64_bits)
{
	expect(text_oct, "0100002", 0100002, "");
	expect(text_oct, "0022\n", 022, "\n");
	expect(text_oct, "178", 017, "8");
	expect(text_oct, "1777777777777777777777", UINT64_MAX, "");
	expect_none(text_oct, "2000000000000000000000");
	expect_none(text_oct, "8");
	expect_none(text_oct, "");
}

TEST(text, int_has_both_signs_and_both_ends)
{
	static const struct {
		const char *text;
		int64_t value;
		const char *rest;
	} good[] = {
		{ "0", 0, "" },
		{ "-0", 0, "" },
		{ "-1 0", -1, " 0" },
		{ "-10485760", -0xa00000, "" },
		{ "9223372036854775807", INT64_MAX, "" },
		{ "-9223372036854775807x", -INT64_MAX, "x" },
		{ "-9223372036854775808", INT64_MIN, "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		int64_t n = 5;

		ASSERT_STR(text_int(good[i].text, &n), good[i].rest);
		ASSERT_EQ(n, good[i].value);
	}
}

TEST(text, int_refuses_what_does_not_fit)
{
	static const char *const bad[] = { "9223372036854775808",
					   "-9223372036854775809",
					   "18446744073709551615",
					   "-18446744073709551615",
					   "99999999999999999999",
					   "",
					   "-",
					   "--1",
					   "- 1",
					   "+1",
					   " 1" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int64_t n = 5;

		if (text_int(bad[i], &n))
			test_fail(__FILE__, __LINE__, "\"%s\" is %lld", bad[i], (long long)n);
		ASSERT_EQ(n, 5);
	}
}

TEST(text, numbers_survive_a_round_trip)
{
	uint64_t n = 1;
	char text[64];

	for (int i = 0; i < 2000; i++) {
		n = n * 6364136223846793005ull + 1442695040888963407ull;
		uint64_t v = n >> (i % 64);

		snprintf(text, sizeof(text), "%llx", (unsigned long long)v);
		expect(text_hex, text, v, "");
		snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
		expect(text_dec, text, v, "");
		snprintf(text, sizeof(text), "%llo", (unsigned long long)v);
		expect(text_oct, text, v, "");
	}
}

TEST(text, blanks_are_spaces_and_tabs)
{
	ASSERT_STR(text_skip_blanks(" \t \tx "), "x ");
	ASSERT_STR(text_skip_blanks("x"), "x");
	ASSERT_STR(text_skip_blanks("\n x"), "\n x");
	ASSERT_STR(text_skip_blanks(" \t"), "");
	ASSERT_STR(text_skip_blanks(""), "");
}

TEST(text, field_needs_its_whole_name)
{
	ASSERT_STR(text_field("Seccomp:\t2", "Seccomp"), "2");
	ASSERT_STR(text_field("Rss:      4 kB", "Rss"), "4 kB");
	ASSERT_STR(text_field("pos:0", "pos"), "0");
	ASSERT_STR(text_field("Groups:\t", "Groups"), "");
	ASSERT_STR(text_field("Name:\ta: b", "Name"), "a: b");
	ASSERT(!text_field("Seccomp_filters:\t2", "Seccomp"));
	ASSERT(!text_field("Seccomp", "Seccomp"));
	ASSERT(!text_field("Seccom", "Seccomp"));
	ASSERT(!text_field(" Seccomp:\t2", "Seccomp"));
	ASSERT(!text_field("seccomp:\t2", "Seccomp"));
	ASSERT(!text_field("Seccomp :\t2", "Seccomp"));
	ASSERT(!text_field("", "Seccomp"));
	ASSERT(!text_field(":", "Seccomp"));
}

/* A copy of its exact size, so that a sanitizer sees every read beyond its end. */
TEST(text, field_does_not_read_beyond_a_short_line)
{
	static const char line[] = "Seccomp:\t2";

	for (size_t len = 0; len < sizeof(line); len++) {
		autofree char *copy = xmalloc(len + 1);

		memcpy(copy, line, len);
		copy[len] = '\0';
		ASSERT(!text_field(copy, "Seccomp") == (len < 8));
	}
}

TEST(text, lines_are_cut_one_by_one)
{
	char text[] = "a\n\nb\nc";
	char *second = text_cut_line(text), *third = text_cut_line(second);
	char *last = text_cut_line(third);

	ASSERT_STR(text, "a");
	ASSERT_STR(second, "");
	ASSERT_STR(third, "b");
	ASSERT_STR(last, "c");
	ASSERT(!text_cut_line(last));
	ASSERT_STR(last, "c");
}

TEST(text, newline_at_the_end_leaves_an_empty_line)
{
	char text[] = "a\n", empty[] = "", newline[] = "\n";

	ASSERT_STR(text_cut_line(text), "");
	ASSERT_STR(text, "a");
	ASSERT(!text_cut_line(empty));
	ASSERT_STR(text_cut_line(newline), "");
}
