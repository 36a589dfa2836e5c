/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/inherit.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/own.h"
#include "base/test.h"
#include "files/external.h"
#include "files/files.h"

#define CLOSED 999 /* a descriptor that is not open */

struct given {
	struct options o;
	struct restore r;
};

static void give(struct given *g, const char *arg)
{
	g->r.opts = &g->o;
	g->o.inherit_fd.item[g->o.inherit_fd.n++] = arg;
}

static const char *const bad_syntax[] = {
	"",
	"fd",
	"fd[",
	"fd[]:k",
	"fd[0]",
	"fd[0]k",
	"fd[0]:",
	"fd[x]:k",
	"fd[-1]:k",
	"fd[0 ]:k",
	"xfd[0]:k",
	"debug[0]",
	"fd[4294967296]:k",
	"fd[2147483648]:k",
};

TEST(inherit, only_a_number_and_a_key_make_an_argument)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_syntax); i++) {
		char text[128];
		struct given g = { 0 };

		give(&g, bad_syntax[i]);
		snprintf(text, sizeof(text), "--inherit-fd %s: not of the form fd[N]:KEY",
			 bad_syntax[i]);
		ASSERT_REFUSED(inherit_parse(&g.r), text);
	}
}

TEST(inherit, a_descriptor_that_is_not_open_cannot_be_given)
{
	struct given g = { 0 };

	give(&g, "fd[999]:k");
	ASSERT_REFUSED(inherit_parse(&g.r), "--inherit-fd fd[999]:k: descriptor 999 of criu is");
}

TEST(inherit, keys_are_what_stands_behind_the_colon)
{
	struct given g = { 0 };

	give(&g, "fd[0]:tty[1:2]");
	give(&g, "fd[1]:pipe:[77]");
	give(&g, "fd[2]:/var/log/x");
	ASSERT_OK(inherit_parse(&g.r));
	ASSERT_EQ(inherit_by_key(&g.r, "tty[1:2]"), 0);
	ASSERT_EQ(inherit_by_key(&g.r, "pipe:[77]"), 1);
	/* A path has its first slash or not. */
	ASSERT_EQ(inherit_by_key(&g.r, "var/log/x"), 2);
	ASSERT_EQ(inherit_by_key(&g.r, "var/log/xy"), -1);
	ASSERT(inherit_has(&g.r, "pipe:[77]"));
	ASSERT(!inherit_has(&g.r, "pipe:[7]"));
	arena_done(&g.r.arena);
}

TEST(inherit, one_key_has_one_descriptor)
{
	struct given g = { 0 };

	give(&g, "fd[0]:var/x");
	give(&g, "fd[1]:/var/x");
	ASSERT_REFUSED(inherit_parse(&g.r), "two descriptors, 0 and 1, for var/x");
	arena_done(&g.r.arena);
}

TEST(inherit, debug_writes_its_text_at_once)
{
	struct given g = { 0 };
	char arg[64], got[16] = { 0 };
	int fd[2];

	ASSERT_OK(pipe(fd));
	snprintf(arg, sizeof(arg), "debug[%d]:/a text", fd[1]);
	give(&g, arg);
	ASSERT_OK(inherit_parse(&g.r));
	ASSERT_EQ(read(fd[0], got, sizeof(got)), 7);
	ASSERT_STR(got, "/a text");
	ASSERT_EQ(g.r.n_inherit, 0);
	snprintf(arg, sizeof(arg), "debug[%d]:x", fd[0]);
	ASSERT_REFUSED(inherit_parse(&g.r), "write to descriptor");
}

TEST(inherit, a_key_that_no_file_had_is_reported)
{
	struct given g = { 0 };

	give(&g, "fd[0]:a");
	give(&g, "fd[1]:b");
	ASSERT_OK(inherit_parse(&g.r));
	(void)inherit_by_key(&g.r, "a");
	(void)inherit_has(&g.r, "b"); /* to ask is not to take */
	ASSERT_REFUSED(inherit_check_used(&g.r), "--inherit-fd fd[1]:b: no file of the images has");
	(void)inherit_by_key(&g.r, "b");
	ASSERT_OK(inherit_check_used(&g.r));
	arena_done(&g.r.arena);
}

/* Tasks have descriptors with low numbers: what is given moves out of their way. */
TEST(inherit, given_descriptors_move_to_numbers_that_no_task_has)
{
	uint8_t used[CLOSED];
	struct given g = { .r = { .fd_is_used = used, .n_fd_is_used = CLOSED, .next_fd = 3 } };
	struct stat before, after;
	char arg[64];
	int fd[2];

	ASSERT_OK(pipe(fd));
	snprintf(arg, sizeof(arg), "fd[%d]:k", fd[0]);
	give(&g, arg);
	memset(used, 1, sizeof(used));
	used[500] = 0;
	ASSERT_OK(inherit_parse(&g.r));
	ASSERT_OK(inherit_move(&g.r));
	int moved = inherit_by_key(&g.r, "k");
	ASSERT_EQ(moved, 500);
	ASSERT_OK(fstat(fd[0], &before));
	ASSERT_OK(fstat(moved, &after));
	ASSERT_EQ(before.st_ino, after.st_ino);
	inherit_close(&g.r);
	ASSERT(fcntl(moved, F_GETFD) < 0);
	ASSERT_OK(fcntl(fd[0], F_GETFD)); /* the user's own stays */
	ASSERT(!inherit_has(&g.r, "k"));
	arena_done(&g.r.arena);
}

enum given_kind { A_FILE, A_DIR, A_PIPE_END, A_SOCKET, A_NULL, AN_EPOLL };

static int open_kind(enum given_kind kind, int flags)
{
	int fd[2];

	switch (kind) {
	case A_FILE:
		return open("/proc/self/exe", flags);
	case A_DIR:
		return open("/", flags | O_DIRECTORY);
	case A_PIPE_END:
		ASSERT_OK(pipe(fd));
		return fd[flags == O_WRONLY];
	case A_SOCKET:
		return socket(AF_UNIX, SOCK_STREAM, 0);
	case A_NULL:
		return open("/dev/null", flags);
	default:
		return epoll_create1(0);
	}
}

static const struct {
	enum given_kind given;
	mode_t was;
	const char *text;
} wrong_kinds[] = {
	{ A_FILE, S_IFIFO, "k was a pipe, its descriptor is a regular file" },
	{ A_DIR, S_IFREG, "k was a regular file, its descriptor is a directory" },
	{ A_PIPE_END, S_IFSOCK, "k was a socket, its descriptor is a pipe" },
	{ A_SOCKET, S_IFCHR, "k was a character device, its descriptor is a socket" },
	{ A_NULL, S_IFDIR, "k was a directory, its descriptor is a character device" },
	{ AN_EPOLL, S_IFREG, "k was a regular file, its descriptor is an anonymous file" },
};

TEST(inherit, what_is_given_is_of_the_same_kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(wrong_kinds); i++) {
		autoclose int fd = ASSERT_OK(open_kind(wrong_kinds[i].given, O_RDONLY));

		ASSERT_REFUSED(inherit_file("k", fd, wrong_kinds[i].was, O_RDONLY),
			       wrong_kinds[i].text);
		autoclose int any = ASSERT_OK(inherit_file("k", fd, 0, O_RDONLY));
		ASSERT(any != fd);
		ASSERT_EQ(fcntl(any, F_GETFD), FD_CLOEXEC);
	}
}

static const struct {
	int given;
	uint32_t was;
	const char *text; /* NULL: it will do */
} accesses[] = {
	{ O_RDONLY, O_RDONLY, NULL },
	{ O_WRONLY, O_WRONLY | O_APPEND, NULL },
	{ O_RDWR, O_RDONLY, NULL },
	{ O_RDWR, O_WRONLY, NULL },
	{ O_RDWR, O_RDWR, NULL },
	{ O_RDONLY, O_PATH | O_RDWR, NULL },
	{ O_RDONLY, O_WRONLY, "k was open for writing, its descriptor is for reading only" },
	{ O_RDONLY, O_RDWR, "k was open for both, its descriptor is for reading only" },
	{ O_WRONLY, O_RDONLY, "k was open for reading, its descriptor is for writing only" },
	{ O_WRONLY, O_RDWR, "k was open for both, its descriptor is for writing only" },
};

TEST(inherit, what_is_given_can_be_read_and_written_as_before)
{
	for (size_t i = 0; i < ARRAY_SIZE(accesses); i++) {
		autoclose int fd = ASSERT_OK(open_kind(A_NULL, accesses[i].given));

		if (accesses[i].text)
			ASSERT_REFUSED(inherit_file("k", fd, S_IFCHR, accesses[i].was),
				       accesses[i].text);
		else
			close(ASSERT_OK(inherit_file("k", fd, S_IFCHR, accesses[i].was)));
	}
}

TEST(inherit, the_end_of_a_pipe_that_is_given_is_that_end)
{
	for (int mode = O_RDONLY; mode <= O_WRONLY; mode++) {
		struct restore r = { 0 };
		int end[2] = { -1, -1 };
		bool is_first[2] = { 0 };
		autoclose int fd = ASSERT_OK(open_kind(A_PIPE_END, mode));

		ASSERT_OK(inherit_pipe(&r, "k", fd, end, is_first));
		ASSERT(end[mode] >= 0 && end[!mode] < 0);
		ASSERT(is_first[mode] && !is_first[!mode]);
		close(end[mode]);
	}
	struct restore r = { 0 };
	int end[2] = { -1, -1 };
	bool is_first[2];
	autoclose int file = ASSERT_OK(open_kind(A_FILE, O_RDONLY));
	ASSERT_REFUSED(inherit_pipe(&r, "k", file, end, is_first), "k was a pipe, its descriptor");
}

/* ---- --external ---- */

static const struct {
	const char *item, *text; /* NULL: it is good */
} externals[] = {
	{ "file[1f:2]", NULL },
	{ "file[0:ffffffffffffffff]", NULL },
	{ "tty[8803:1a]", NULL },
	{ "unix[5]", NULL },
	{ "unix[whatever", NULL }, /* the sockets' business */
	{ "file[1:2", "--external file[1:2: not of the form file[MOUNT:INODE]" },
	{ "file[1:2]x", "--external file[1:2]x: not of the form" },
	{ "file[1:]", "--external file[1:]: not of the form" },
	{ "file[:1]", "--external file[:1]: not of the form" },
	{ "file[1]", "--external file[1]: not of the form" },
	{ "file[x:1]", "--external file[x:1]: not of the form" },
	{ "tty[8803,1]", "--external tty[8803,1]: not of the form" },
	{ "mnt[/]:x", "--external mnt[/]:x: this version knows only" },
	{ "file", "--external file: this version knows only" },
};

TEST(external, only_files_terminals_and_sockets_can_be)
{
	for (size_t i = 0; i < ARRAY_SIZE(externals); i++) {
		struct options o = { .external = { .item = { externals[i].item }, .n = 1 } };

		if (externals[i].text)
			ASSERT_REFUSED(external_check(&o), externals[i].text);
		else
			ASSERT_OK(external_check(&o));
	}
}

TEST(external, what_no_file_was_is_reported)
{
	const struct options o = { .external = { .item = { "file[1:2]", "unix[5]", "tty[3:4]" },
						 .n = 3 } };
	struct dump d = { .opts = &o };

	ASSERT(!external_has(&d, "file[1:3]"));
	ASSERT(external_has(&d, "file[1:2]"));
	ASSERT_REFUSED(external_check_used(&d), "--external tty[3:4]: no file of the tree is this");
	ASSERT(external_has(&d, "tty[3:4]"));
	ASSERT_OK(external_check_used(&d)); /* of the socket others have to care */
}

TEST(external, a_file_is_known_by_its_mount_and_inode)
{
	struct options o = { .external = { .item = { "file[1a:ff]" }, .n = 1 } };
	struct dump d = { .opts = &o };
	struct fd_probe p = { .info.mnt_id = 0x1a, .st.st_ino = 0xff };

	ASSERT(external_has_file(&d, &p));
	p.info.mnt_id = 0x1b;
	ASSERT(!external_has_file(&d, &p));
	p.info.mnt_id = 0x1a;
	p.st.st_ino = 0xfe;
	ASSERT(!external_has_file(&d, &p));
}

TEST(external, each_needs_a_descriptor_at_restore)
{
	struct given g = { .o = { .external = { .item = { "unix[5]", "file[1:2]" }, .n = 2 } } };

	give(&g, "fd[0]:file[1:3]");
	ASSERT_OK(inherit_parse(&g.r));
	ASSERT_REFUSED(external_check_given(&g.r),
		       "--external file[1:2]: give what takes its place");
	give(&g, "fd[0]:file[1:2]");
	g.r.n_inherit = 0;
	ASSERT_OK(inherit_parse(&g.r));
	ASSERT_OK(external_check_given(&g.r));
	arena_done(&g.r.arena);
}
