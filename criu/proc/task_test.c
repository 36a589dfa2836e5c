/* SPDX-License-Identifier: GPL-2.0-only */
/* Texts as kernels from 5.10 to 6.18 write them, and texts that no kernel writes. */
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/io.h"
#include "base/own.h"
#include "base/test.h"
#include "proc/task.h"

/* What stat says of a living process behind its command. */
#define STAT_REST                                                                                  \
	" R 9425 9426 3519 34816 -1 4194560 3125 6567 2 0 3 2 3 1 20 0 1 0 251955 21000192 "       \
	"3642 18446744073709551615 94876342198272 94876342198613 140727385154992 0 0 0 0 "         \
	"16781312 2 0 0 0 17 1 0 0 0 0 0 94876342209968 94876342210584 94876502597632 "            \
	"140727385159842 140727385159888 140727385159889 140727385161679 0\n"
static const char stat_living[] = "9428 (cat)" STAT_REST;
static const char stat_strange[] = "9428 (a) (b\nc d))" STAT_REST;
static const char stat_zombie[] =
	"9470 (true) Z 9428 9425 3519 0 -1 4227148 227 0 0 0 0 0 0 0 20 0 1 0 251966 0 0 "
	"18446744073709551615 0 0 0 0 0 0 0 16781312 2 1 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 768\n";
static const char stat_kthread[] =
	"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 -51 -20 1 0 25 0 0 "
	"18446744073709551615 0 0 0 0 0 0 0 2147483647 0 1 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

static const char status_5_10[] = "Name:\tbash\n"
				  "Umask:\t0022\n"
				  "State:\tS (sleeping)\n"
				  "Tgid:\t1831\n"
				  "Ngid:\t0\n"
				  "Pid:\t1831\n"
				  "PPid:\t1830\n"
				  "TracerPid:\t0\n"
				  "Uid:\t1000\t1001\t1002\t1003\n"
				  "Gid:\t100\t101\t102\t103\n"
				  "FDSize:\t256\n"
				  "Groups:\t4 24 27 1000 4294967294 \n"
				  "NStgid:\t1831\n"
				  "NSpid:\t1831\n"
				  "VmPeak:\t    9012 kB\n"
				  "VmLck:\t      12 kB\n"
				  "VmRSS:\t    5184 kB\n"
				  "CoreDumping:\t0\n"
				  "THP_enabled:\t1\n"
				  "Threads:\t1\n"
				  "SigQ:\t0/63446\n"
				  "SigPnd:\t0000000000000001\n"
				  "ShdPnd:\t8000000000000000\n"
				  "SigBlk:\t0000000000010000\n"
				  "SigIgn:\t0000000000380004\n"
				  "SigCgt:\t000000004b817efb\n"
				  "CapInh:\t0000000000000000\n"
				  "CapPrm:\t0000000000000400\n"
				  "CapEff:\t0000000000000200\n"
				  "CapBnd:\t000000ffffffffff\n"
				  "CapAmb:\t0000000000000100\n"
				  "NoNewPrivs:\t0\n"
				  "Seccomp:\t0\n"
				  "Seccomp_filters:\t0\n"
				  "Speculation_Store_Bypass:\tthread vulnerable\n"
				  "Cpus_allowed:\tff\n"
				  "nonvoluntary_ctxt_switches:\t3\n";

static const char status_6_18[] = "Name:\ta) (b\\nc: d\n"
				  "Umask:\t0777\n"
				  "State:\tt (tracing stop)\n"
				  "Tgid:\t4194303\n"
				  "Ngid:\t0\n"
				  "Pid:\t4194304\n"
				  "PPid:\t1\n"
				  "TracerPid:\t77\n"
				  "Uid:\t4294967295\t0\t0\t0\n"
				  "Gid:\t0\t0\t0\t0\n"
				  "Groups:\t \n"
				  "Kthread:\t0\n"
				  "VmLck:\t       0 kB\n"
				  "VmRSS:\t18014398509481983 kB\n"
				  "THP_enabled:\t0\n"
				  "untag_mask:\t0xffffffffffffffff\n"
				  "Threads:\t40\n"
				  "SigBlk:\tffffffffffffffff\n"
				  "NoNewPrivs:\t1\n"
				  "Seccomp:\t2\n"
				  "Seccomp_filters:\t5\n"
				  "SpeculationIndirectBranch:\talways enabled\n"
				  "x86_Thread_features:\tshstk wrss \n"
				  "x86_Thread_features_locked:\tshstk wrss \n";

static const char fdinfo_locks[] = "pos:\t5\n"
				   "flags:\t02100002\n"
				   "mnt_id:\t27\n"
				   "ino:\t10953073\n"
				   "lock:\t1: FLOCK  ADVISORY  WRITE 9362 fe:00:10953073 0 EOF\n"
				   "lock:\t2: POSIX  ADVISORY  READ 9362 fe:00:10953073 0 9\n"
				   "lock:\t3: OFDLCK ADVISORY  READ -1 fe:00:10953073 100 149\n";

static const char fdinfo_epoll[] =
	"pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1038\n"
	"tfd:       12 events:       19 data:                c  pos:0 ino:40e sdev:10\n";

/* A copy that has no byte to spare shows a sanitizer every read beyond its end. */
static char *exact_copy(const char *text, size_t size)
{
	char *copy = xmalloc(size + 1);

	memcpy(copy, text, size);
	copy[size] = '\0';
	return copy;
}

static int parse_stat(const char *text, size_t size, struct proc_stat *ret)
{
	autofree char *copy = exact_copy(text, size);

	return proc_stat_parse(copy, ret);
}

TEST(stat, living_process)
{
	struct proc_stat s;

	ASSERT_OK(parse_stat(stat_living, strlen(stat_living), &s));
	ASSERT_EQ(s.pid, 9428);
	ASSERT_STR(s.comm, "cat");
	ASSERT_EQ(s.state, 'R');
	ASSERT_EQ(s.ppid, 9425);
	ASSERT_EQ(s.pgid, 9426);
	ASSERT_EQ(s.sid, 3519);
	ASSERT_EQ(s.flags, 4194560);
	ASSERT_EQ(s.start_time, 251955);
	ASSERT_EQ(s.start_code, 94876342198272);
	ASSERT_EQ(s.end_code, 94876342198613);
	ASSERT_EQ(s.start_stack, 140727385154992);
	ASSERT_EQ(s.start_data, 94876342209968);
	ASSERT_EQ(s.end_data, 94876342210584);
	ASSERT_EQ(s.start_brk, 94876502597632);
	ASSERT_EQ(s.arg_start, 140727385159842);
	ASSERT_EQ(s.arg_end, 140727385159888);
	ASSERT_EQ(s.env_start, 140727385159889);
	ASSERT_EQ(s.env_end, 140727385161679);
	ASSERT_EQ(s.exit_code, 0);
}

TEST(stat, zombie_has_an_exit_code)
{
	struct proc_stat s;

	ASSERT_OK(proc_stat_parse(stat_zombie, &s));
	ASSERT_EQ(s.state, 'Z');
	ASSERT_EQ(s.exit_code, 768);
	ASSERT_EQ(s.start_code, 0);
	ASSERT_EQ(s.start_time, 251966);
}

TEST(stat, values_may_be_negative)
{
	struct proc_stat s;

	ASSERT_OK(proc_stat_parse(stat_kthread, &s));
	ASSERT_EQ(s.pid, 2);
	ASSERT_EQ(s.ppid, 0);
	ASSERT_EQ(s.flags, 2129984);
	ASSERT_EQ(s.start_time, 25);
}

static void expect_comm(const char *comm, const char *wanted)
{
	struct proc_stat s;
	char text[1024];

	snprintf(text, sizeof(text), "9428 (%s)%s", comm, STAT_REST);
	ASSERT_OK(proc_stat_parse(text, &s));
	ASSERT_STR(s.comm, wanted);
	ASSERT_EQ(s.state, 'R');
	ASSERT_EQ(s.ppid, 9425);
}

TEST(stat, command_may_have_any_characters)
{
	static const char *const names[] = {
		"",
		")",
		"(",
		")) R 1 2",
		"a) R 1 1 1 (",
		"a b",
		" ",
		"\n",
		"a\nb",
		"\t",
		"(sd-pam)",
		"\xff\xfe",
		"-",
		"0 (x) S",
		"%s",
		"kworker/u9:1-",
		"kworker/3:1H-events_highpri",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		expect_comm(names[i], names[i]);
}

/* Kernel workers show what they work on, up to 63 bytes. */
TEST(stat, command_is_cut_to_63_bytes)
{
	char comm[200], wanted[64];

	for (int len = 60; len < 200; len++) {
		memset(comm, ')', len);
		comm[len] = '\0';
		snprintf(wanted, sizeof(wanted), "%.63s", comm);
		expect_comm(comm, wanted);
	}
}

TEST(stat, later_kernels_may_add_fields)
{
	int len = strlen(stat_zombie) - 1;
	char text[1024];
	struct proc_stat s;

	snprintf(text, sizeof(text), "%.*s 17 -4 more\n", len, stat_zombie);
	ASSERT_OK(proc_stat_parse(text, &s));
	ASSERT_EQ(s.exit_code, 768);
}

TEST(stat, text_cut_at_any_byte_is_an_error)
{
	static const char *const texts[] = { stat_living, stat_strange, stat_zombie, stat_kthread };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		size_t whole = strlen(texts[i]) - 1;
		struct proc_stat s = { .pid = 77 };

		/* The last field is as good when it is shorter, but for its first digit. */
		const char *last = strrchr(texts[i], ' ') + 1;
		for (size_t size = 0; size <= (size_t)(last - texts[i]); size++)
			ASSERT_EQ(parse_stat(texts[i], size, &s), -EINVAL);
		ASSERT_EQ(s.pid, 77);
		ASSERT_OK(parse_stat(texts[i], whole, &s));
	}
}

TEST(stat, what_is_no_stat_is_an_error)
{
	static const char *const bad[] = {
		"",
		"\n",
		"1",
		"1 ",
		"1 (",
		"1 (a",
		"1 (a)",
		"1 (a) ",
		"1 (a) S",
		"1)a( S 1 1",
		")1 (a S 1 1",
		"(a)" STAT_REST,
		" 1 (a)" STAT_REST,
		"-1 (a)" STAT_REST,
		"x (a)" STAT_REST,
		"1 a)" STAT_REST,
		"1  (a)" STAT_REST,
		"1\t(a)" STAT_REST,
		"2147483648 (a)" STAT_REST,
		"18446744073709551616 (a)" STAT_REST,
		"1 (a)x" STAT_REST,
		"1 (a) R x" STAT_REST,
		"1 (a) R -" STAT_REST,
		"1 (a) R 18446744073709551616" STAT_REST,
		"1 (a) R -9223372036854775809" STAT_REST,
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct proc_stat s;

		if (parse_stat(bad[i], strlen(bad[i]), &s) != -EINVAL)
			test_fail(__FILE__, __LINE__, "\"%s\" is a stat", bad[i]);
	}
}

TEST(stat, text_spoilt_at_any_byte_has_a_command_that_ends)
{
	static const char bytes[] = { '\0', '\n', ' ', '-', '(', ')', '9', 'x', (char)0xff };

	for (size_t at = 0; at < strlen(stat_strange); at++) {
		for (size_t b = 0; b < sizeof(bytes); b++) {
			char text[sizeof(stat_strange)];
			struct proc_stat s;

			memcpy(text, stat_strange, sizeof(text));
			text[at] = bytes[b];
			if (parse_stat(text, sizeof(text) - 1, &s) == 0)
				ASSERT(memchr(s.comm, '\0', sizeof(s.comm)) && s.state);
		}
	}
}

struct parsed {
	struct arena arena;
	struct proc_status s;
	int rc;
};

static struct parsed parse_status(const char *text, size_t size)
{
	struct parsed p = { 0 };
	autofree char *copy = exact_copy(text, size);

	p.rc = proc_status_parse(copy, &p.arena, &p.s);
	return p;
}

TEST(status, linux_5_10)
{
	struct parsed p = parse_status(status_5_10, strlen(status_5_10));
	const struct proc_status *s = &p.s;

	ASSERT_OK(p.rc);
	ASSERT_EQ(s->state, 'S');
	ASSERT_EQ(s->tgid, 1831);
	ASSERT_EQ(s->ppid, 1830);
	ASSERT_EQ(s->tracer, 0);
	ASSERT_EQ(s->umask, 022);
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(s->uid[i], 1000 + i);
		ASSERT_EQ(s->gid[i], 100 + i);
	}
	ASSERT_EQ(s->n_groups, 5);
	ASSERT_EQ(s->groups[0], 4);
	ASSERT_EQ(s->groups[4], 4294967294);
	ASSERT_EQ(s->threads, 1);
	ASSERT_EQ(s->vm_lck_kib, 12);
	ASSERT_EQ(s->vm_rss_kib, 5184);
	ASSERT(s->thp_enabled);
	ASSERT(!s->has_shadow_stack);
	arena_done(&p.arena);
}

static struct proc_status speculation(const char *store_bypass, const char *indirect_branch)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "Speculation_Store_Bypass:\t%s\nSpeculationIndirectBranch:\t%s\n", store_bypass,
		 indirect_branch);
	return parse_status(text, strlen(text)).s;
}

TEST(status, what_a_thread_forbids_the_cpu)
{
	struct proc_status s = speculation("thread vulnerable", "conditional enabled");

	ASSERT_EQ(s.spec_store_bypass, 0);
	ASSERT_EQ(s.spec_indirect_branch, 0);
	s = speculation("thread mitigated", "conditional disabled");
	ASSERT_EQ(s.spec_store_bypass, 4);
	ASSERT_EQ(s.spec_indirect_branch, 4);
	s = speculation("thread force mitigated", "conditional force disabled");
	ASSERT_EQ(s.spec_store_bypass, 8);
	ASSERT_EQ(s.spec_indirect_branch, 8);
	s = speculation("globally mitigated", "always disabled");
	ASSERT_EQ(s.spec_store_bypass, 0);
	ASSERT_EQ(s.spec_indirect_branch, 0);
}

TEST(status, tags_of_addresses)
{
	static const char lam[] = "untag_mask:\t0x81ffffffffffffff\n", bad[] = "untag_mask:\t1\n";

	ASSERT_EQ(parse_status("State:\tS\n", 8).s.untag_mask, ~0ull);
	ASSERT_EQ(parse_status(lam, strlen(lam)).s.untag_mask, 0x81ffffffffffffff);
	ASSERT_EQ(parse_status(bad, strlen(bad)).rc, -EINVAL);
}

TEST(status, sets_of_signals_and_capabilities)
{
	struct parsed p = parse_status(status_5_10, strlen(status_5_10));
	const struct proc_status *s = &p.s;

	ASSERT_EQ(s->sig_pending, 1);
	ASSERT_EQ(s->shared_pending, 1ull << 63);
	ASSERT_EQ(s->sig_blocked, 0x10000);
	ASSERT_EQ(s->sig_ignored, 0x380004);
	ASSERT_EQ(s->sig_caught, 0x4b817efb);
	ASSERT_EQ(s->cap[CAP_SET_INH], 0);
	ASSERT_EQ(s->cap[CAP_SET_PRM], 0x400);
	ASSERT_EQ(s->cap[CAP_SET_EFF], 0x200);
	ASSERT_EQ(s->cap[CAP_SET_BND], 0xffffffffff);
	ASSERT_EQ(s->cap[CAP_SET_AMB], 0x100);
	arena_done(&p.arena);
}

TEST(status, linux_6_18)
{
	struct parsed p = parse_status(status_6_18, strlen(status_6_18));
	const struct proc_status *s = &p.s;

	ASSERT_OK(p.rc);
	ASSERT_EQ(s->state, 't');
	ASSERT_EQ(s->tgid, 4194303);
	ASSERT_EQ(s->tracer, 77);
	ASSERT_EQ(s->umask, 0777);
	ASSERT_EQ(s->uid[0], UINT32_MAX);
	ASSERT_EQ(s->n_groups, 0);
	ASSERT_EQ(s->threads, 40);
	ASSERT_EQ(s->sig_blocked, UINT64_MAX);
	ASSERT_EQ(s->no_new_privs, 1);
	ASSERT_EQ(s->seccomp, 2);
	ASSERT_EQ(s->seccomp_filters, 5);
	ASSERT_EQ(s->vm_rss_kib, 18014398509481983);
	ASSERT(!s->thp_enabled);
	ASSERT(s->has_shadow_stack);
	arena_done(&p.arena);
}

/* Zombies have no mask, kernel threads no memory, and old kernels fewer lines. */
TEST(status, missing_lines_leave_defaults)
{
	static const char text[] = "Name:\tx\nState:\tZ (zombie)\nTgid:\t3\n";
	struct parsed p = parse_status(text, strlen(text));

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.s.state, 'Z');
	ASSERT_EQ(p.s.umask, 0);
	ASSERT_EQ(p.s.vm_rss_kib, 0);
	ASSERT_EQ(p.s.n_groups, 0);
	ASSERT(p.s.thp_enabled);
	ASSERT(!p.s.has_shadow_stack);
}

TEST(status, other_lines_are_ignored)
{
	static const char *const lines[] = {
		"",
		"x",
		":",
		"Uid",
		"Uid 1 2 3 4",
		" Uid:\tx",
		"uid:\tx",
		"Uids:\tx",
		"Seccomp_filter:\tx",
		"VmRSS2:\tx",
		"Groups_more:x",
		"Name:\tUid:\tx",
		"\xff\xfe:",
		"NoNewPrivs\t1",
	};
	char text[64];

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int size = snprintf(text, sizeof(text), "\n%s\nTgid:\t3", lines[i]);
		struct parsed p = parse_status(text, size);

		ASSERT_OK(p.rc);
		ASSERT_EQ(p.s.tgid, 3);
		ASSERT_EQ(p.s.uid[0] + p.s.no_new_privs + p.s.n_groups, 0);
	}
}

TEST(status, known_line_without_its_value_is_an_error)
{
	static const char *const bad[] = {
		"State:",
		"State:\t",
		"Tgid:",
		"Tgid:\tx",
		"Tgid:\t-1",
		"Tgid:\t4294967296",
		"Umask:\t",
		"Umask:\t8",
		"Umask:\t10000",
		"Umask:\t2000000000000000000000",
		"Uid:\t1\t2\t3",
		"Uid:\t1\t2\t3\tx",
		"Uid:\t1\t2\t3\t4294967296",
		"Gid:",
		"Groups:\tx",
		"Groups:\t1 2 x",
		"Groups:\t1,2",
		"Groups:\t1 -1",
		"Groups:\t1 4294967296",
		"Groups:\t18446744073709551616",
		"SigBlk:\t",
		"SigBlk:\t10000000000000000",
		"CapEff:\tX",
		"VmRSS:\t18446744073709551616 kB",
		"VmLck:\tkB",
		"Seccomp:\t",
		"Threads:\t99999999999",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct parsed p = parse_status(bad[i], strlen(bad[i]));

		if (p.rc != -EINVAL)
			test_fail(__FILE__, __LINE__, "\"%s\" is accepted", bad[i]);
		ASSERT(!p.s.groups);
		arena_done(&p.arena);
	}
}

static char *status_with_groups(uint32_t n)
{
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);

	ASSERT(f);
	fprintf(f, "Tgid:\t3\nGroups:\t");
	for (uint32_t i = 0; i < n; i++)
		fprintf(f, "%u ", 4294967295u - i);
	fprintf(f, "\nThreads:\t2\n");
	ASSERT_EQ(fclose(f), 0);
	return text;
}

TEST(status, as_many_groups_as_a_task_may_have)
{
	static const uint32_t numbers[] = { 0, 1, 7, 8, 9, 16, 17, 65535, 65536 };

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		autofree char *text = status_with_groups(numbers[i]);
		struct parsed p = parse_status(text, strlen(text));

		ASSERT_OK(p.rc);
		ASSERT_EQ(p.s.n_groups, numbers[i]);
		for (uint32_t j = 0; j < numbers[i]; j++)
			ASSERT_EQ(p.s.groups[j], 4294967295u - j);
		ASSERT_EQ(p.s.threads, 2);
		arena_done(&p.arena);
	}
}

static void check_status(const struct parsed *p)
{
	uint64_t sum = 0;

	ASSERT(p->rc == 0 || p->rc == -EINVAL);
	for (size_t i = 0; i < p->s.n_groups; i++)
		sum += p->s.groups[i]; /* a sanitizer sees it if they cannot be read */
	ASSERT(sum <= p->s.n_groups * UINT32_MAX);
	ASSERT(p->s.umask <= 07777);
}

TEST(status, text_may_be_cut_at_any_byte)
{
	static const char *const texts[] = { status_5_10, status_6_18 };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		for (size_t size = 0; size < strlen(texts[i]); size++) {
			struct parsed p = parse_status(texts[i], size);

			check_status(&p);
			if (size && texts[i][size - 1] == '\n')
				ASSERT_OK(p.rc);
			arena_done(&p.arena);
		}
	}
}

TEST(status, text_may_be_spoilt_at_any_byte)
{
	static const char bytes[] = { '\0', '\n', ' ', ':', '9', 'f', (char)0xff };
	char text[sizeof(status_5_10)];

	memcpy(text, status_5_10, sizeof(text));
	for (size_t at = 0; at < sizeof(text) - 1; at++) {
		for (size_t b = 0; b < sizeof(bytes); b++) {
			text[at] = bytes[b];
			struct parsed p = parse_status(text, sizeof(text) - 1);

			check_status(&p);
			arena_done(&p.arena);
		}
		text[at] = status_5_10[at];
	}
}

static int parse_fdinfo(const char *text, size_t size, struct proc_fdinfo *ret)
{
	autofree char *copy = exact_copy(text, size);

	return proc_fdinfo_parse(copy, ret);
}

TEST(fdinfo, file_with_locks)
{
	struct proc_fdinfo i;

	ASSERT_OK(parse_fdinfo(fdinfo_locks, strlen(fdinfo_locks), &i));
	ASSERT_EQ(i.pos, 5);
	ASSERT_EQ(i.flags, 02100002);
	ASSERT_EQ(i.mnt_id, 27);
	ASSERT_EQ(i.ino, 10953073);
	ASSERT_EQ(i.locks, 3);
}

/* Such as the line of epoll, which has the same words in it. */
TEST(fdinfo, lines_of_special_files_are_ignored)
{
	static const char *const lines[] = {
		"tfd:       12 events:       19 data:                c  pos:0 ino:40e sdev:10",
		"inotify wd:1 ino:a7216f sdev:fe00000 mask:fff ignored_mask:0 fhandle-bytes:8",
		"fanotify flags:0 event-flags:8000",
		"fanotify ino:a7216f sdev:fe00000 mflags:0 mask:20 ignored_mask:0",
		"eventfd-count:                5",
		"sigmask:\t0000000000000200",
		"clockid: 1",
		"settime flags: 00",
		"Pid:\t-1",
		"scm_fds: 0",
		"mnt_ids:\tx",
		"locks:\t1",
		"pos",
	};

	for (size_t j = 0; j < ARRAY_SIZE(lines); j++) {
		struct proc_fdinfo i;
		char text[512];
		int size = snprintf(text, sizeof(text),
				    "pos:\t7\nflags:\t02\nmnt_id:\t17\n%s\nino:\t9", lines[j]);

		ASSERT_OK(parse_fdinfo(text, size, &i));
		ASSERT_EQ(i.pos, 7);
		ASSERT_EQ(i.flags, 2);
		ASSERT_EQ(i.mnt_id, 17);
		ASSERT_EQ(i.ino, 9);
		ASSERT_EQ(i.locks, 0);
	}
}

TEST(fdinfo, linux_5_10_has_no_inode)
{
	static const char text[] = "pos:\t4096\nflags:\t0100000\nmnt_id:\t29\n";
	struct proc_fdinfo i = { .ino = 3 };

	ASSERT_OK(parse_fdinfo(text, strlen(text), &i));
	ASSERT_EQ(i.pos, 4096);
	ASSERT_EQ(i.flags, 0100000);
	ASSERT_EQ(i.mnt_id, 29);
	ASSERT_EQ(i.ino, 0);
}

static void expect_pos(const char *value, int64_t wanted)
{
	struct proc_fdinfo i;
	char text[64];
	int size = snprintf(text, sizeof(text), "pos:\t%s\nflags:\t02100000\n", value);

	ASSERT_OK(parse_fdinfo(text, size, &i));
	ASSERT_EQ(i.pos, wanted);
	ASSERT_EQ(i.flags, 02100000);
}

/* The memory of a process is read at addresses, and the upper half of them is negative. */
TEST(fdinfo, position_may_be_negative)
{
	expect_pos("-10485760", -10485760);
	expect_pos("-1", -1);
	expect_pos("9223372036854775807", INT64_MAX);
	expect_pos("-9223372036854775808", INT64_MIN);
}

TEST(fdinfo, empty_text_has_no_mount)
{
	struct proc_fdinfo i;

	ASSERT_OK(parse_fdinfo("", 0, &i));
	ASSERT_EQ(i.mnt_id, -1);
	ASSERT_EQ(i.pos, 0);
	ASSERT_OK(parse_fdinfo("\n\n", 2, &i));
	ASSERT_EQ(i.mnt_id, -1);
}

TEST(fdinfo, values_are_as_wide_as_the_kernel_has_them)
{
	static const char text[] = "flags:\t037777777777\nmnt_id:\t2147483647\n"
				   "ino:\t18446744073709551615";
	struct proc_fdinfo i;

	ASSERT_OK(parse_fdinfo(text, strlen(text), &i));
	ASSERT_EQ(i.flags, UINT32_MAX);
	ASSERT_EQ(i.mnt_id, INT32_MAX);
	ASSERT_EQ(i.ino, UINT64_MAX);
}

TEST(fdinfo, value_that_does_not_fit_is_an_error)
{
	static const char *const bad[] = {
		"pos:",	     "pos:\tx",	    "pos:\t9223372036854775808",
		"flags:\t",  "flags:\t9",   "flags:\t040000000000",
		"mnt_id:\t", "mnt_id:\t-1", "mnt_id:\t2147483648",
		"ino:\t",    "ino:\tx",	    "ino:\t18446744073709551616",
		"pos:\t-",   "pos:\t--1",   "pos:\t-9223372036854775809",
	};

	for (size_t j = 0; j < ARRAY_SIZE(bad); j++) {
		struct proc_fdinfo i = { .mnt_id = 77 };

		if (parse_fdinfo(bad[j], strlen(bad[j]), &i) != -EINVAL)
			test_fail(__FILE__, __LINE__, "\"%s\" is accepted", bad[j]);
		ASSERT_EQ(i.mnt_id, 77);
	}
}

TEST(fdinfo, text_may_be_cut_and_spoilt_at_any_byte)
{
	static const char bytes[] = { '\0', '\n', ' ', ':', '-', '9', (char)0xff };
	static const char *const texts[] = { fdinfo_locks, fdinfo_epoll };

	for (size_t j = 0; j < ARRAY_SIZE(texts); j++) {
		size_t size = strlen(texts[j]);
		autofree char *text = exact_copy(texts[j], size);

		for (size_t at = 0; at < size; at++) {
			struct proc_fdinfo i;
			int rc = parse_fdinfo(text, at, &i);

			ASSERT(rc == 0 || rc == -EINVAL);
			for (size_t b = 0; b < sizeof(bytes); b++) {
				text[at] = bytes[b];
				rc = parse_fdinfo(text, size, &i);
				ASSERT(rc == 0 || rc == -EINVAL);
			}
			text[at] = texts[j][at];
		}
	}
}

static int open_self(void)
{
	return ASSERT_OK(proc_open(getpid()));
}

TEST(proc, open_needs_a_process)
{
	autoclose int self = open_self();

	ASSERT_EQ(fcntl(self, F_GETFD), FD_CLOEXEC);
	ASSERT_EQ(proc_open(INT32_MAX), -ENOENT);
	ASSERT_EQ(proc_open(-1), -ENOENT);
}

TEST(proc, stat_of_ourselves)
{
	autoclose int self = open_self();
	struct proc_stat s;

	ASSERT_OK(prctl(PR_SET_NAME, "a) (b\nc d", 0, 0, 0));
	ASSERT_OK(proc_stat_read(self, &s));
	ASSERT_EQ(s.pid, getpid());
	ASSERT_EQ(s.ppid, getppid());
	ASSERT_EQ(s.pgid, getpgrp());
	ASSERT_EQ(s.sid, getsid(0));
	ASSERT_EQ(s.state, 'R');
	ASSERT_STR(s.comm, "a) (b\nc d");
	ASSERT(s.start_code && s.start_stack);
}

TEST(proc, status_of_ourselves)
{
	autoclose int self = open_self();
	struct arena a = { 0 };
	struct proc_status s;

	umask(0123);
	ASSERT_OK(prctl(PR_SET_NAME, "x\nUid:\t7", 0, 0, 0));
	ASSERT_OK(proc_status_read(self, &a, &s));
	ASSERT_EQ(s.tgid, getpid());
	ASSERT_EQ(s.ppid, getppid());
	ASSERT_EQ(s.state, 'R');
	ASSERT_EQ(s.uid[0], getuid());
	ASSERT_EQ(s.uid[1], geteuid());
	ASSERT_EQ(s.gid[0], getgid());
	ASSERT_EQ(s.gid[1], getegid());
	ASSERT_EQ(s.n_groups, getgroups(0, NULL));
	ASSERT_EQ(s.umask, 0123);
	ASSERT_EQ(s.threads, 1);
	ASSERT(s.vm_rss_kib > 100);
	arena_done(&a);
}

TEST(proc, status_of_a_zombie)
{
	struct arena a = { 0 };
	struct proc_status s;
	struct proc_stat st;
	siginfo_t info;
	pid_t pid = ASSERT_OK(fork());

	if (pid == 0)
		_exit(3);
	ASSERT_OK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	autoclose int dir = ASSERT_OK(proc_open(pid));
	ASSERT_OK(proc_status_read(dir, &a, &s));
	ASSERT_EQ(s.state, 'Z');
	ASSERT_EQ(s.tgid, pid);
	ASSERT_OK(proc_stat_read(dir, &st));
	ASSERT_EQ(st.state, 'Z');
	ASSERT_OK(waitpid(pid, NULL, 0));
	/* The directory of a process that is gone stays, but it says so. */
	ASSERT_EQ(proc_stat_read(dir, &st), -ESRCH);
	ASSERT_EQ(proc_status_read(dir, &a, &s), -ESRCH);
	arena_done(&a);
}

static int read_fdinfo(int dirfd, int fd, struct proc_fdinfo *ret)
{
	autofree char *text = NULL;
	char path[32];

	snprintf(path, sizeof(path), "fdinfo/%d", fd);
	ssize_t len = read_file_at(dirfd, path, &text);
	return len < 0 ? (int)len : proc_fdinfo_parse(text, ret);
}

TEST(proc, fdinfo_of_ourselves)
{
	autoclose int self = open_self(), fd = ASSERT_OK(open("/proc/self/stat", O_RDONLY));
	struct proc_fdinfo i;
	char buf[5];

	ASSERT_EQ(read(fd, buf, 5), 5);
	ASSERT_OK(read_fdinfo(self, fd, &i));
	ASSERT_EQ(i.pos, 5);
	ASSERT_EQ(i.flags & (O_ACCMODE | O_APPEND | O_CLOEXEC), O_RDONLY);
	ASSERT(i.mnt_id >= 0);
	ASSERT_EQ(i.locks, 0);
	ASSERT_EQ(read_fdinfo(self, 123456, &i), -ENOENT);
	ASSERT_EQ(read_fdinfo(self, -1, &i), -ENOENT);
}

TEST(proc, fdinfo_at_an_address_of_the_upper_half)
{
	autoclose int self = open_self(), fd = ASSERT_OK(open("/proc/self/mem", O_RDONLY));
	struct proc_fdinfo i;

	ASSERT(lseek(fd, (off_t)0xffffffffff600000, SEEK_SET) == (off_t)0xffffffffff600000);
	ASSERT_OK(read_fdinfo(self, fd, &i));
	ASSERT_EQ(i.pos, 0xffffffffff600000);
	lseek(fd, (off_t)(1ull << 63), SEEK_SET);
	ASSERT_OK(read_fdinfo(self, fd, &i));
	ASSERT_EQ(i.pos, 1ull << 63);
}

/* A directory that has these files in it, for as long as it is open. */
static int directory_of(const char *const *names, size_t n)
{
	char path[] = "/tmp/criu-task-test-XXXXXX";

	ASSERT(mkdtemp(path));
	int dir = ASSERT_OK(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	ASSERT_OK(mkdirat(dir, "list", 0700));
	for (size_t i = 0; i < n; i++) {
		char name[128];

		snprintf(name, sizeof(name), "list/%s", names[i]);
		close(ASSERT_OK(openat(dir, name, O_WRONLY | O_CREAT, 0600)));
	}
	return dir;
}

static void remove_directory(int dir, const char *const *names, size_t n)
{
	char name[128];

	for (size_t i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "list/%s", names[i]);
		unlinkat(dir, name, 0);
	}
	unlinkat(dir, "list", AT_REMOVEDIR);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", dir);
	autofree char *path = realpath(name, NULL);
	rmdir(path);
}

TEST(proc, numbers_are_sorted_and_whole)
{
	static const char *const names[] = {
		"10", "9",  "2147483647", "2147483648", "99999999999999999999999",
		"0",  "x",  "7x",	  "-1",		"100",
		"1",  "x7", "5.old",	  "3 ",		"+4",
	};
	static const int wanted[] = { 0, 1, 9, 10, 100, 2147483647 };
	autoclose int dir = directory_of(names, ARRAY_SIZE(names));
	struct arena a = { 0 };
	int *list, rc;
	size_t n = 0;

	rc = proc_numbers(dir, "list", &a, &list, &n);
	remove_directory(dir, names, ARRAY_SIZE(names));
	ASSERT_OK(rc);
	ASSERT_EQ(n, ARRAY_SIZE(wanted));
	ASSERT(!memcmp(list, wanted, sizeof(wanted)));
	arena_done(&a);
}

TEST(proc, numbers_may_be_none)
{
	autoclose int dir = directory_of(NULL, 0);
	struct arena a = { 0 };
	int *list;
	size_t n = 5;

	int rc = proc_numbers(dir, "list", &a, &list, &n);
	remove_directory(dir, NULL, 0);
	ASSERT_OK(rc);
	ASSERT_EQ(n, 0);
}

TEST(proc, numbers_of_descriptors_and_threads)
{
	autoclose int self = open_self();
	struct arena a = { 0 };
	int *list;
	size_t n, found = 0;

	ASSERT_OK(proc_numbers(self, "fd", &a, &list, &n));
	for (size_t i = 0; i < n; i++) {
		ASSERT(i == 0 || list[i - 1] < list[i]);
		found += list[i] == self;
	}
	ASSERT_EQ(found, 1);
	ASSERT_OK(proc_numbers(self, "task", &a, &list, &n));
	ASSERT_EQ(n, 1);
	ASSERT_EQ(list[0], getpid());
	arena_done(&a);
}

TEST(proc, numbers_need_a_directory)
{
	autoclose int self = open_self();
	int before = dup(self), *list;
	struct arena a = { 0 };
	size_t n;

	close(before);
	ASSERT_EQ(proc_numbers(self, "stat", &a, &list, &n), -ENOTDIR);
	ASSERT_EQ(proc_numbers(self, "none", &a, &list, &n), -ENOENT);
	ASSERT_EQ(proc_numbers(-1, "fd", &a, &list, &n), -EBADF);
	for (int i = 0; i < 3; i++)
		ASSERT_OK(proc_numbers(self, "fd", &a, &list, &n));
	ASSERT_EQ(dup(self), before); /* none was left open */
	close(before);
	arena_done(&a);
}

TEST(proc, children_are_listed)
{
	autoclose int self = open_self();
	struct arena a = { 0 };
	pid_t pids[40];
	char path[64];
	int *list;
	size_t n;

	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = ASSERT_OK(fork());
		if (pids[i] == 0) {
			pause();
			_exit(0);
		}
	}
	snprintf(path, sizeof(path), "task/%d/children", getpid());
	int rc = proc_children(self, path, &a, &list, &n);
	if (rc == -ENOENT)
		test_skip("no children in /proc of this kernel");
	ASSERT_OK(rc);
	ASSERT_EQ(n, ARRAY_SIZE(pids));
	ASSERT(!memcmp(list, pids, sizeof(pids)));
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++)
		kill(pids[i], SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	ASSERT_OK(proc_children(self, path, &a, &list, &n));
	ASSERT_EQ(n, 0);
	arena_done(&a);
}

static void expect_children(const char *text, const int *wanted, size_t n_wanted)
{
	char path[] = "/tmp/criu-task-test-XXXXXX";
	autoclose int fd = ASSERT_OK(mkstemp(path));
	struct arena a = { 0 };
	size_t n = 77;
	int *list;

	ASSERT_EQ(write(fd, text, strlen(text)), strlen(text));
	int rc = proc_children(AT_FDCWD, path, &a, &list, &n);
	unlink(path);
	ASSERT_OK(rc);
	ASSERT_EQ(n, n_wanted);
	for (size_t i = 0; i < n; i++)
		ASSERT_EQ(list[i], wanted[i]);
	arena_done(&a);
}

TEST(proc, children_in_any_order_and_form)
{
	expect_children("", NULL, 0);
	expect_children(" ", NULL, 0);
	expect_children("7", (int[]){ 7 }, 1);
	expect_children("10 9 2147483647 ", (int[]){ 10, 9, 2147483647 }, 3);
	expect_children("\t10  9\n", (int[]){ 10, 9 }, 2);
}

TEST(proc, children_errors)
{
	autoclose int self = open_self();
	struct arena a = { 0 };
	int *list;
	size_t n;

	ASSERT_EQ(proc_children(self, "none", &a, &list, &n), -ENOENT);
	ASSERT_EQ(proc_children(self, "fd", &a, &list, &n), -EISDIR);
}
