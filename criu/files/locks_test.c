/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/locks.h"

#include <fcntl.h>
#include <sys/file.h>

#include "base/own.h"
#include "files/again_test.h"

static int open_file(struct again *a, int flags)
{
	return ASSERT_OK(open(again_path(a, "file"), flags | O_CREAT, 0600));
}

static void lock_range(int fd, int type, off_t start, off_t len)
{
	const struct flock l = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len
	};

	ASSERT_OK(fcntl(fd, F_OFD_SETLK, &l));
}

static void begin(struct again *a)
{
	again_begin(a);
	a->opts.file_locks = true;
}

static const struct expected {
	uint32_t flag, type;
	int64_t start, len;
} ranges[] = {
	{ 4, F_RDLCK, 0, 1 },
	{ 4, F_WRLCK, 5, 10 },
	{ 4, F_WRLCK, 1ll << 40, 0 }, /* to the end, wherever that will be */
};

static void expect_lock(const struct again *a, const struct expected *want, int fd)
{
	const struct snapshot *s = &a->restore.snapshot;

	for (size_t i = 0; i < s->n_locks; i++) {
		const FileLockEntry *e = s->locks[i];

		if (e->flag == want->flag && e->type == want->type && e->start == want->start &&
		    e->len == want->len && e->pid == a->pid && e->fd == fd)
			return;
	}
	test_fail(__FILE__, __LINE__, "no lock %u of type %u from %ld", want->flag, want->type,
		  (long)want->start);
}

TEST(locks, ranges_are_noted_with_their_type)
{
	struct again a;

	begin(&a);
	int fd = open_file(&a, O_RDWR);
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		lock_range(fd, ranges[i].type, ranges[i].start, ranges[i].len);
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_EQ(a.restore.snapshot.n_locks, ARRAY_SIZE(ranges));
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		expect_lock(&a, &ranges[i], fd);
	again_end(&a);
}

TEST(locks, a_lock_that_shows_at_two_descriptors_is_noted_once)
{
	struct again a;

	begin(&a);
	int fd = open_file(&a, O_RDWR), twin = dup(fd);
	ASSERT_OK(flock(fd, LOCK_EX));
	lock_range(twin, F_WRLCK, 0, 0);
	again_add(&a, fd);
	again_add(&a, twin);
	again_cycle(&a);
	ASSERT_EQ(a.restore.snapshot.n_locks, 2);
	expect_lock(&a, &(struct expected){ 2, F_WRLCK, 0, 0 }, fd);
	expect_lock(&a, &(struct expected){ 4, F_WRLCK, 0, 0 }, fd);
	again_end(&a);
}

TEST(locks, two_descriptions_of_a_file_may_both_have_one)
{
	struct again a;

	begin(&a);
	int fd = open_file(&a, O_RDWR), other = open_file(&a, O_RDONLY);
	ASSERT_OK(flock(fd, LOCK_SH));
	ASSERT_OK(flock(other, LOCK_SH));
	again_add(&a, fd);
	again_add(&a, other);
	again_cycle(&a);
	ASSERT_EQ(a.restore.snapshot.n_locks, 2);
	expect_lock(&a, &(struct expected){ 2, F_RDLCK, 0, 0 }, fd);
	expect_lock(&a, &(struct expected){ 2, F_RDLCK, 0, 0 }, other);
	again_end(&a);
}

static void expect_blocked(struct again *a, const char *text)
{
	again_collect(a);
	ASSERT_EQ(a->dump.n_blockers, 1);
	ASSERT(strstr(a->dump.blockers[0], text));
	ASSERT_EQ(a->dump.n_locks, 0);
}

TEST(locks, prevent_the_dump_without_the_option)
{
	struct again a;

	again_begin(&a);
	int fd = open_file(&a, O_RDWR);
	ASSERT_OK(flock(fd, LOCK_EX));
	again_add(&a, fd);
	expect_blocked(&a, "a lock is held on it; to dump it with its locks give --file-locks");
	again_end(&a);
}

TEST(locks, a_lease_is_noted_and_known_by_its_file)
{
	struct again a;
	struct stat st;

	begin(&a);
	int fd = open_file(&a, O_RDONLY);
	ASSERT_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	again_add(&a, fd);
	again_collect(&a);
	ASSERT_OK(fstat(fd, &st));
	ASSERT(locks_have_lease(&a.dump, &st));
	st.st_ino++;
	ASSERT(!locks_have_lease(&a.dump, &st));
	ASSERT_EQ(a.dump.n_locks, 1);
	ASSERT_EQ(a.dump.locks[0].entry->flag, 8);
	ASSERT_EQ(a.dump.locks[0].entry->type, F_RDLCK);
	again_end(&a);
}

TEST(locks, a_lease_on_a_deleted_file_prevents_the_dump)
{
	struct again a;

	begin(&a);
	int fd = open_file(&a, O_RDONLY);
	ASSERT_OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	ASSERT_OK(unlink(again_path(&a, "file")));
	again_add(&a, fd);
	expect_blocked(&a, "there is a lease on the deleted file, which reading it would break");
	again_end(&a);
}

/* ---- lines of fdinfo ---- */

static const struct {
	const char *line;
	struct expected expected;
} lines[] = {
	{ "lock:\t1: POSIX  ADVISORY  READ 714 00:1e:12345 0 EOF", { 1, F_RDLCK, 0, 0 } },
	{ "lock:\t2: POSIX  ADVISORY  WRITE 714 00:1e:1 5 5", { 1, F_WRLCK, 5, 1 } },
	{ "lock:\t3: OFDLCK ADVISORY  WRITE -1 00:1e:1 5 9", { 4, F_WRLCK, 5, 5 } },
	{ "lock:\t4: FLOCK  ADVISORY  WRITE 714 00:1e:1 0 EOF", { 2, F_WRLCK, 0, 0 } },
	{ "lock:\t5: LEASE  ACTIVE    READ 714 00:1e:1 0 EOF", { 8, F_RDLCK, 0, 0 } },
};

static int collect_line(struct dump *d, const char *line)
{
	static const struct options opts = { .file_locks = true };
	static struct process process = { .pid = 714 };
	static struct dump_task task = { .process = &process };
	const struct fd_probe p = { .task = &task,
				    .fd = 3,
				    .st.st_nlink = 1,
				    .lines = (char *)line,
				    .lines_size = strlen(line) + 1 };

	d->opts = &opts;
	return locks_collect(d, &p, 1);
}

TEST(locks, lines_of_fdinfo_tell_them)
{
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct dump d = { 0 };

		ASSERT_OK(collect_line(&d, lines[i].line));
		ASSERT_EQ(d.n_locks, 1);
		ASSERT_EQ(d.locks[0].entry->flag, lines[i].expected.flag);
		ASSERT_EQ(d.locks[0].entry->type, lines[i].expected.type);
		ASSERT_EQ(d.locks[0].entry->start, lines[i].expected.start);
		ASSERT_EQ(d.locks[0].entry->len, lines[i].expected.len);
		arena_done(&d.arena);
	}
}

TEST(locks, one_that_only_waits_is_none)
{
	struct dump d = { 0 };

	ASSERT_OK(collect_line(&d, "lock:\t1: -> POSIX  ADVISORY  READ 714 00:1e:12345 0 EOF"));
	ASSERT_EQ(d.n_locks, 0);
	ASSERT_EQ(d.n_blockers, 0);
}

/* The line has what it becomes, not what it is. The descriptor here is one that only reads. */
TEST(locks, a_lease_that_is_being_broken_is_what_could_become_that)
{
	static const struct {
		const char *line;
		uint32_t type, breaking_to;
	} broken[] = {
		{ "lock:\t5: LEASE  BREAKING  READ 714 00:1e:1 0 EOF", F_WRLCK, F_RDLCK },
		{ "lock:\t5: LEASE  BREAKING  UNLCK 714 00:1e:1 0 EOF", F_RDLCK, F_UNLCK },
	};

	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		struct dump d = { 0 };

		ASSERT_OK(collect_line(&d, broken[i].line));
		ASSERT_OK(collect_line(&d, broken[i].line));
		ASSERT_EQ(d.n_blockers, 0);
		ASSERT_EQ(d.n_locks, 1);
		ASSERT_EQ(d.locks[0].entry->type, broken[i].type);
		ASSERT(d.locks[0].entry->has_breaking_to);
		ASSERT_EQ(d.locks[0].entry->breaking_to, broken[i].breaking_to);
		arena_done(&d.arena);
	}
}

static const char *const bad_lines[] = {
	"lock:\t",
	"lock:\t1: POSIX",
	"lock:\t1: OTHER  ADVISORY  READ 714 00:1e:1 0 EOF",
	"lock:\t1: POSIXX ADVISORY  READ 714 00:1e:1 0 EOF",
	"lock:\t1: POSIX  ADVISORY  REA 714 00:1e:1 0 EOF",
	"lock:\t1: POSIX  ADVISORY  READ x 00:1e:1 0 EOF",
	"lock:\t1: POSIX  ADVISORY  READ 714 00:1e:1 x EOF",
	"lock:\t1: POSIX  ADVISORY  READ 714 00:1e:1 0",
	"lock:\t1: POSIX  ADVISORY  READ 714 00:1e:1 5 4",
};

TEST(locks, what_is_no_line_of_a_lock_is_refused)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_lines); i++) {
		struct dump d = { 0 };

		ASSERT_REFUSED(collect_line(&d, bad_lines[i]),
			       "pid 714 fd 3: unknown line of fdinfo: lock:");
	}
}

TEST(locks, the_inode_of_a_line_is_found)
{
	static const struct {
		const char *line;
		uint64_t inode;
	} lines[] = {
		{ "1: POSIX  ADVISORY  WRITE 714 00:1e:12345 0 EOF", 12345 },
		{ "31: -> FLOCK  ADVISORY  WRITE 714 fe:00:18446744073709551615 0 EOF",
		  UINT64_MAX },
		{ "2: LEASE  BREAKING  UNLCK 7 08:01:9 0 EOF", 9 },
		{ "3: OFDLCK ADVISORY  READ -1 00:0d:77 5 9", 77 },
		{ "4: FLOCK  ADVISORY  WRITE 714 <none>:0 0 EOF", 0 },
		{ "5: FLOCK  ADVISORY  WRITE 714", 0 },
		{ "6: FLOCK  ADVISORY  WRITE 714 00:1e:12x 0 EOF", 0 },
		{ "", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		ASSERT_EQ(locks_inode_of_line(lines[i].line), lines[i].inode);
}
