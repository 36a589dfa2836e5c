/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names of unix sockets: abstract ones with zero bytes, long paths, a path
 * relative to a directory since left, files that are gone or another's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"
#include "sk.h"

#define LONGEST_PATH	107
#define PATH_SEED	500

struct abstract {
	const char *what;
	const char *bytes;
	size_t len;
};

/* Each of them is another name. */
static const struct abstract abstracts[] = {
	{ "abstract",				"x",		1 },
	{ "abstract, a zero behind",		"x\0",		2 },
	{ "abstract, two zeroes behind",	"x\0\0",	3 },
	{ "abstract, a zero within",		"x\0y",		3 },
	{ "abstract, like a path",		"/x/y",		4 },
	{ "abstract, no text",			"\1\n\xff \"",	5 },
};

static struct server abstract[ARRAY_SIZE(abstracts)];
static struct server longest, full, relative, unlinked, dir_gone, replaced, replacing, renamed;
static int gone_box, gone_sender;	/* datagrams, to a file that is gone */
static struct name gone_name;
static int widow;			/* connected to a datagram socket that was closed */
static struct name widowed_of;
static const long letters[] = { 5, 700, NO_RECORD };

/* ---- abstract, and as long as can be ---- */

static void make_abstract(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(abstracts); i++)
		start_server(&abstract[i], abstracts[i].what, SOCK_STREAM,
			     abstract_name(abstracts[i].bytes, abstracts[i].len));
}

static struct name long_name(size_t wanted)
{
	struct name n = { .addr.un.sun_family = AF_UNIX };
	const char *start = dir_path("");
	size_t len = strlen(start);

	if (len + 2 > wanted)
		skip("dir= is too long");
	memset(n.addr.un.sun_path, 'l', wanted);
	memcpy(n.addr.un.sun_path, start, len);
	n.len = offsetof(struct sockaddr_un, sun_path) + wanted;
	return n;
}

/* ---- paths that lead elsewhere by now ---- */

/* As a daemon does that goes home after it has opened its sockets. */
static void make_relative(void)
{
	int back = need("open", open(".", O_PATH | O_DIRECTORY));

	need("mkdir", mkdir(dir_path("sub"), 0755));
	need("chdir", chdir(dir_path("sub")));
	start_server(&relative, "relative", SOCK_STREAM, path_name("./rel"));
	need("fchdir", fchdir(back));
	close(back);
}

static void make_unlinked(void)
{
	gone_name = path_name(dir_path("box"));
	start_server(&unlinked, "unlinked", SOCK_SEQPACKET, path_name(dir_path("gone")));
	need("unlink", unlink(dir_path("gone")));

	gone_box = remember_fd("unlinked box", new_socket(SOCK_DGRAM));
	bind_name(gone_box, gone_name);
	gone_name = own_name(gone_box);
	gone_sender = remember_fd("its sender", new_socket(SOCK_DGRAM));
	connect_name(gone_sender, gone_name);
	put_records("unlinked box", gone_sender, letters, PATH_SEED);
	need("unlink", unlink(dir_path("box")));
}

static void make_dir_gone(void)
{
	need("mkdir", mkdir(dir_path("lost"), 0755));
	start_server(&dir_gone, "directory gone", SOCK_STREAM, path_name(dir_path("lost/sock")));
	need("unlink", unlink(dir_path("lost/sock")));
	need("rmdir", rmdir(dir_path("lost")));
}

static void make_replaced(void)
{
	start_server(&replaced, "replaced", SOCK_STREAM, path_name(dir_path("swap")));
	need("unlink", unlink(dir_path("swap")));
	start_server(&replacing, "replacing", SOCK_STREAM, path_name(dir_path("swap")));
}

static void make_renamed(void)
{
	int gone = need("socket", new_socket(SOCK_DGRAM));

	start_server(&renamed, "renamed", SOCK_STREAM, path_name(dir_path("old")));
	need("rename", rename(dir_path("old"), dir_path("new")));

	bind_name(gone, path_name(dir_path("dead")));
	widowed_of = own_name(gone);
	widow = remember_fd("widow", new_socket(SOCK_DGRAM));
	connect_name(widow, widowed_of);
	close(gone);
}

static void expect_no_file(const char *name)
{
	struct stat st;

	if (!lstat(dir_path(name), &st))
		bad("%s is there again", name);
}

static void expect_socket(const char *path)
{
	struct stat st = { 0 };

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
		bad("%s is no socket: mode %#o", path, st.st_mode);
}

static void check_relative(void)
{
	struct name reach = path_name(dir_path("sub/rel"));
	struct stat st;

	check_server(&relative, &reach);
	expect_socket(dir_path("sub/rel"));
	if (!lstat("rel", &st))
		bad("the relative socket is in the present directory, too");
}

static void check_unlinked(void)
{
	check_server(&unlinked, NULL);
	expect_no_file("gone");
	expect_no_file("box");
	same_name("unlinked box", gone_name, own_name(gone_box));
	same_name("name its sender sees", gone_name, peer_name(gone_sender));
	if (take_records("unlinked box", gone_box, letters, PATH_SEED))
		put_records("unlinked box", gone_sender, letters, PATH_SEED);
}

static void check_dir_gone(void)
{
	check_server(&dir_gone, NULL);
	expect_no_file("lost");
}

static void check_replaced(void)
{
	check_server(&replaced, NULL);
	check_server(&replacing, &replacing.name);
	if (socket_events(replaced.listener))
		bad("the client of the replacing socket reaches the replaced one");
	expect_socket(dir_path("swap"));
}

static void check_renamed(void)
{
	struct name now = path_name(dir_path("new"));

	check_server(&renamed, &now);
	expect_no_file("old");
	expect_socket(dir_path("new"));
	expect_socket(dir_path("dead"));
	same_name("peer that is gone", widowed_of, peer_name(widow));
}

/* ---- all of it ---- */

static void make(void)
{
	make_abstract();
	start_server(&longest, "long path", SOCK_STREAM, long_name(LONGEST_PATH));
	if (param_long("full"))
		start_server(&full, "no room for a zero", SOCK_STREAM, long_name(LONGEST_PATH + 1));
	if (param_long("relative"))
		make_relative();
	if (param_long("unlinked"))
		make_unlinked();
	if (param_long("parents"))
		make_dir_gone();
	if (param_long("replaced"))
		make_replaced();
	if (param_long("renamed"))
		make_renamed();
	note_fds();
}

static void check(void)
{
	struct name reach;
	size_t i;

	check_fds();
	for (i = 0; i < ARRAY_SIZE(abstracts); i++)
		check_server(&abstract[i], &abstract[i].name);
	check_server(&longest, &longest.name);
	if (param_long("full")) {
		reach = long_name(LONGEST_PATH + 1);
		check_server(&full, &reach);
	}
	if (param_long("relative"))
		check_relative();
	if (param_long("unlinked"))
		check_unlinked();
	if (param_long("parents"))
		check_dir_gone();
	if (param_long("replaced"))
		check_replaced();
	if (param_long("renamed"))
		check_renamed();
}

struct factory unixnames_factory = {
	.name	= "unixnames",
	.about	= "names of unix sockets: zero bytes, long, relative, unlinked, replaced",
	.params	= {
		{ "dir", NULL, "an empty directory" },
		{ "full", "0", "1: a path of 108 bytes, without room for a zero" },
		{ "relative", "0", "1: bound in a directory it has left" },
		{ "unlinked", "0", "1: files that are gone" },
		{ "parents", "0", "1: the directory of the file is gone, too" },
		{ "replaced", "0", "1: the path belongs to another socket" },
		{ "renamed", "0", "1: the file has another name; and a peer that is gone" },
	},
	.make	= make,
	.check	= check,
};
