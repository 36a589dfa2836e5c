/* SPDX-License-Identifier: GPL-2.0-only */
#include "sockets/unix.h"

#include <sys/un.h>

#include "base/own.h"
#include "base/test.h"

/* ---- names ---- */

static void expect_name(const void *bytes, size_t len, const char *text)
{
	const ProtobufCBinaryData name = { len, (uint8_t *)bytes };

	ASSERT_STR(unix_name(&name).s, text);
}

TEST(unix, names_are_shown_as_people_write_them)
{
	expect_name("", 0, "no name");
	expect_name("/run/a.sock", 11, "/run/a.sock");
	expect_name("/run/a.sock", 12, "/run/a.sock"); /* with its zero byte */
	expect_name("relative", 8, "relative");
	expect_name("\0abstract", 9, "@abstract");
	expect_name("\0", 1, "@");
	expect_name("\0a\0b\0", 5, "@a@b@"); /* of an abstract one every byte counts */
	expect_name("/a\0b", 4, "/a");
}

TEST(unix, a_name_may_fill_all_bytes_of_an_address)
{
	char name[UNIX_NAME_MAX + 2], text[UNIX_NAME_MAX + 1];

	memset(name, 'x', sizeof(name));
	memset(text, 'x', UNIX_NAME_MAX);
	text[UNIX_NAME_MAX] = '\0';
	name[0] = text[0] = '/';
	expect_name(name, UNIX_NAME_MAX, text);
	expect_name(name, UNIX_NAME_MAX + 1, text); /* the kernel counts a zero byte behind */
	text[UNIX_NAME_MAX - 1] = '\0';
	expect_name(name, UNIX_NAME_MAX - 1, text);
	name[0] = '\0';
	text[0] = '@';
	text[UNIX_NAME_MAX - 1] = 'x';
	expect_name(name, UNIX_NAME_MAX, text);
}

TEST(unix, streams_and_records_have_connections)
{
	ASSERT(unix_is_stream(SOCK_STREAM));
	ASSERT(unix_is_stream(SOCK_SEQPACKET));
	ASSERT(!unix_is_stream(SOCK_DGRAM));
}

/* ---- --ext-unix-sk, --external unix[] ---- */

static struct options with(const char *ext_unix_sk, const char *external)
{
	struct options o = { 0 };

	if (ext_unix_sk)
		o.ext_unix_sk.item[o.ext_unix_sk.n++] = ext_unix_sk;
	if (external)
		o.external.item[o.external.n++] = external;
	return o;
}

TEST(unix, sockets_to_cut_are_a_list_of_numbers)
{
	const struct options o = with("5,4294967295", "unix[77]");
	struct cuts c;

	ASSERT_OK(cuts_parse(&o, false, &c));
	ASSERT_EQ(c.n, 3);
	ASSERT_EQ(cuts_find(&c, 5)->ino, 5);
	ASSERT_EQ(cuts_find(&c, ~0u)->ino, ~0u);
	ASSERT(!cuts_find(&c, 77)->path && !cuts_find(&c, 77)->is_closed);
	ASSERT(!cuts_find(&c, 6));
	ASSERT(!c.all_datagrams);
}

TEST(unix, the_option_alone_is_for_all_datagrams)
{
	struct options o = with(NULL, "file[1:2]");
	struct cuts c;

	o.ext_unix_sk.n = 1; /* without a value */
	ASSERT_OK(cuts_parse(&o, false, &c));
	ASSERT(c.all_datagrams);
	ASSERT_EQ(c.n, 0);
}

TEST(unix, at_restore_a_socket_may_be_led_elsewhere_or_closed)
{
	const struct options path = with("3,5=/run/x=y,z", NULL), close = with("5=close", NULL);
	struct cuts c;

	ASSERT_OK(cuts_parse(&path, true, &c));
	ASSERT(!cuts_find(&c, 3)->path);
	ASSERT_STR(cuts_find(&c, 5)->path, "/run/x=y,z"); /* all that follows is the path */
	ASSERT(!cuts_find(&c, 5)->is_closed);
	ASSERT_OK(cuts_parse(&close, true, &c));
	ASSERT(!cuts_find(&c, 5)->path);
	ASSERT(cuts_find(&c, 5)->is_closed);
}

static const struct {
	bool is_restore;
	const char *ext_unix_sk, *external;
	const char *text;
} bad_cuts[] = {
	{ false, "", NULL, "--ext-unix-sk=: not of the form INODE[,INODE...]" },
	{ false, "x", NULL, "--ext-unix-sk=x: not of the form" },
	{ false, "5,", NULL, "--ext-unix-sk=5,: not of the form" },
	{ false, "5;6", NULL, "--ext-unix-sk=5;6: not of the form" },
	{ false, "-5", NULL, "--ext-unix-sk=-5: not of the form" },
	{ false, "0", NULL, "--ext-unix-sk=0: not the inode of a socket" },
	{ false, "4294967296", NULL, "--ext-unix-sk=4294967296: not the inode of a socket" },
	{ false, "5,5", NULL, "--ext-unix-sk=5,5: socket 5 is given twice" },
	{ false, "5", "unix[5]", "--external unix[5]: socket 5 is given twice" },
	{ false, NULL, "unix[5", "--external unix[5: not of the form unix[INODE]" },
	{ false, NULL, "unix[]", "--external unix[]: not of the form unix[INODE]" },
	{ false, NULL, "unix[5]x", "--external unix[5]x: not of the form unix[INODE]" },
	{ false, "5=/run/x", NULL, "--ext-unix-sk=5=/run/x: a path is given at restore, not at" },
	{ true, "5=", NULL, "--ext-unix-sk=5=: the path of a socket has 1 to 107 bytes" },
	{ true, "5/", NULL, "--ext-unix-sk=5/: not of the form INODE[,INODE...] or INODE=PATH or" },
};

TEST(unix, what_is_no_list_of_sockets_is_refused)
{
	struct cuts c;

	for (size_t i = 0; i < ARRAY_SIZE(bad_cuts); i++) {
		const struct options o = with(bad_cuts[i].ext_unix_sk, bad_cuts[i].external);

		ASSERT_REFUSED(cuts_parse(&o, bad_cuts[i].is_restore, &c), bad_cuts[i].text);
	}
}

TEST(unix, a_path_for_a_socket_has_to_fit_into_an_address)
{
	char text[2 + UNIX_NAME_MAX + 1] = "5=";
	const struct options o = with(text, NULL);
	struct cuts c;

	memset(text + 2, 'x', UNIX_NAME_MAX);
	ASSERT_REFUSED(cuts_parse(&o, true, &c), "the path of a socket has 1 to 107 bytes");
	text[2 + UNIX_NAME_MAX - 1] = '\0';
	ASSERT_OK(cuts_parse(&o, true, &c));
	ASSERT_EQ(strlen(cuts_find(&c, 5)->path), UNIX_NAME_MAX - 1);
}

TEST(unix, there_is_an_end_to_the_sockets_to_cut)
{
	char text[OPTION_LIST_MAX * 5];
	struct options o = with(text, NULL);
	size_t len = 0;
	struct cuts c;

	for (int i = 1; i <= OPTION_LIST_MAX; i++)
		len += sprintf(text + len, "%s%d", i > 1 ? "," : "", i);
	ASSERT_OK(cuts_parse(&o, false, &c));
	ASSERT_EQ(c.n, OPTION_LIST_MAX);
	o.external.item[o.external.n++] = "unix[1000]";
	ASSERT_REFUSED(cuts_parse(&o, false, &c), "--external unix[1000]: too many sockets");
}

TEST(unix, a_socket_that_was_not_there_is_reported)
{
	const struct options o = with("5,6", NULL);
	struct cuts c;

	ASSERT_OK(cuts_parse(&o, false, &c));
	cuts_find(&c, 5)->is_used = true;
	ASSERT_REFUSED(cuts_check_used(&c), "--ext-unix-sk=6: no unix socket of the tree");
	cuts_find(&c, 6)->is_used = true;
	ASSERT_OK(cuts_check_used(&c));
}
