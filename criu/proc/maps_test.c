/* SPDX-License-Identifier: GPL-2.0-only */
/* Texts as kernels from 5.10 to 6.18 write them, and texts that no kernel writes. */
#include <fcntl.h>
#include <sys/mman.h>

#include "base/own.h"
#include "base/test.h"
#include "proc/maps.h"

/* Linux 5.10: the vdso follows its data, which is one mapping. */
static const char maps_5_10[] =
	"55d0c1a4e000-55d0c1a50000 r--p 00000000 08:01 1835122                    /usr/bin/cat\n"
	"55d0c1a50000-55d0c1a55000 r-xp 00002000 08:01 1835122                    /usr/bin/cat\n"
	"55d0c1a59000-55d0c1a5a000 rw-p 0000a000 08:01 1835122                    /usr/bin/cat\n"
	"55d0c2c1f000-55d0c2c40000 rw-p 00000000 00:00 0                          [heap]\n"
	"7f1c2a5c5000-7f1c2a5e7000 rw-p 00000000 00:00 0 \n"
	"7f1c2a5e7000-7f1c2a5f7000 rw-s 00000000 00:05 32770                      "
	"/SYSV0000002a (deleted)\n"
	"7f1c2a5f7000-7f1c2a5f8000 rw-s 00000000 00:01 1027                       "
	"/dev/zero (deleted)\n"
	"7ffd7a5d6000-7ffd7a5f7000 rw-p 00000000 00:00 0                          [stack]\n"
	"7ffd7a5fa000-7ffd7a5fe000 r--p 00000000 00:00 0                          [vvar]\n"
	"7ffd7a5fe000-7ffd7a600000 r-xp 00000000 00:00 0                          [vdso]\n"
	"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

/* Linux 6.18: the clocks of hypervisors have a mapping of their own; memory can be named. */
static const char maps_6_18[] =
	"00400000-00401000 r-xp 00000000 103:02 1335                              "
	"/opt/a b/prog (old)\n"
	"15f3f000-15f60000 rw-p 00000000 00:00 0                                  [heap]\n"
	"7fba0a644000-7fba0a744000 rw-p 00000000 00:00 0                          "
	"[anon: my heap: x 1-2]\n"
	"7fba0a744000-7fba0a844000 rw-s 00000000 00:01 1058                       "
	"[anon_shmem:shared]\n"
	"7fba0a844000-7fba0a944000 rw-s 00000000 00:01 1060                       "
	"/dev/zero (deleted)\n"
	"7fba0ac9d000-7fba0ac9f000 rw-s 00000000 00:01 1059                       "
	"/memfd:a b\\012(x) y (deleted)\n"
	"7fba0b7ba000-7fba0b7bb000 rw-s 1000000000000 00:2e 18446744073709551615  "
	"/tmp/new\\012line \\x (deleted)\n"
	"7fba0b7bb000-7fba0b7bc000 ---s 00002000 fd:1a4 9223372036855823890       "
	"/dev/shm/a:b c/\ttab \n"
	"7fba0b7bc000-7fba0b7bd000 rw-s 00000000 00:11 1038                       "
	"anon_inode:[io_uring]\n"
	"7fba0b8f7000-7fba0b8fb000 r--p 00000000 00:00 0                          [vvar]\n"
	"7fba0b8fb000-7fba0b8fd000 r--p 00000000 00:00 0                          [vvar_vclock]\n"
	"7fba0b8fd000-7fba0b8ff000 r-xp 00000000 00:00 0                          [vdso]\n"
	"7ffda5cb7000-7ffda5cd8000 rw-p 00000000 00:00 0                          [stack]\n"
	"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

static const char smaps_5_10[] =
	"55d0c2c1f000-55d0c2c40000 rw-p 00000000 00:00 0                          [heap]\n"
	"Size:                132 kB\n"
	"KernelPageSize:        4 kB\n"
	"MMUPageSize:           4 kB\n"
	"Rss:                  12 kB\n"
	"Pss:                  10 kB\n"
	"Shared_Clean:          0 kB\n"
	"Private_Dirty:         8 kB\n"
	"LazyFree:              0 kB\n"
	"Swap:                  4 kB\n"
	"Locked:                0 kB\n"
	"THPeligible:    0\n"
	"ProtectionKey:         3\n"
	"VmFlags: rd wr mr mw me ac sd \n"
	"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
	"Size:                  4 kB\n"
	"Rss:                   0 kB\n"
	"THPeligible:    0\n"
	"VmFlags: ex \n";

static const char smaps_6_18[] =
	"7fba0a644000-7fba0a744000 rw-p 00000000 00:00 0                          "
	"[anon:Rss: 77 kB]\n"
	"Size:               1024 kB\n"
	"KernelPageSize:        4 kB\n"
	"MMUPageSize:           4 kB\n"
	"Rss:                1024 kB\n"
	"Pss:                1024 kB\n"
	"Pss_Dirty:          1024 kB\n"
	"KSM:                   0 kB\n"
	"AnonHugePages:         0 kB\n"
	"THPeligible:           0\n"
	"VmFlags: rd wr mr mw me ac lf lo hg uw zz qq gu \n"
	"7ffda5cb7000-7ffda5cd8000 rw-p 00000000 00:00 0                          [stack]\n"
	"Size:                132 kB\n"
	"Rss:                  12 kB\n"
	"SomethingNew:         12 kB\n"
	"VmFlags: rd wr mr mw me gd ac \n";

/* The texts that other tests cut and spoil. */
static const struct {
	const char *text;
	size_t size;
} samples[] = {
	{ maps_5_10, sizeof(maps_5_10) - 1 },
	{ maps_6_18, sizeof(maps_6_18) - 1 },
	{ smaps_5_10, sizeof(smaps_5_10) - 1 },
	{ smaps_6_18, sizeof(smaps_6_18) - 1 },
};

struct parsed {
	struct arena arena;
	struct maps maps;
	size_t line;
	int rc;
};

/*
 * Parses a copy that has no byte to spare and is gone afterwards, so that a sanitizer sees
 * every read beyond the text and every path that still points into it.
 */
static struct parsed parse_bytes(const char *text, size_t size)
{
	struct parsed p = { 0 };
	autofree char *copy = xmalloc(size + 1);

	memcpy(copy, text, size);
	copy[size] = '\0';
	p.rc = maps_parse(copy, &p.arena, &p.maps, &p.line);
	return p;
}

static struct parsed parse(const char *text)
{
	return parse_bytes(text, strlen(text));
}

static void check_order(const struct maps *maps)
{
	for (size_t i = 0; i < maps->n; i++) {
		const struct mapping *m = &maps->m[i];

		ASSERT(m->start < m->end);
		ASSERT(i == 0 || m[-1].end <= m->start);
		ASSERT(strlen(m->path) < 1000);
		ASSERT((m->prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) == 0);
		ASSERT(maps_find(maps, m->start) == m);
		ASSERT(maps_find(maps, m->end - 1) == m);
	}
}

TEST(maps, linux_5_10)
{
	struct parsed p = parse(maps_5_10);
	const struct mapping *m = p.maps.m;

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 11);
	check_order(&p.maps);
	ASSERT_EQ(m[1].start, 0x55d0c1a50000);
	ASSERT_EQ(m[1].end, 0x55d0c1a55000);
	ASSERT_EQ(m[1].prot, PROT_READ | PROT_EXEC);
	ASSERT_EQ(m[1].pgoff, 0x2000);
	ASSERT_EQ(m[1].dev_major, 8);
	ASSERT_EQ(m[1].dev_minor, 1);
	ASSERT_EQ(m[1].ino, 1835122);
	ASSERT(!m[1].shared);
	ASSERT_STR(m[1].path, "/usr/bin/cat");
	ASSERT_STR(m[4].path, "");
	ASSERT_EQ(m[4].prot, PROT_READ | PROT_WRITE);
	ASSERT_EQ(m[4].ino, 0);
	ASSERT(m[5].shared);
	ASSERT_STR(m[5].path, "/SYSV0000002a (deleted)");
	ASSERT_EQ(m[10].start, 0xffffffffff600000);
	ASSERT_EQ(m[10].prot, PROT_EXEC);
	for (size_t i = 0; i < p.maps.n; i++)
		ASSERT(!m[i].has_vm_flags && !m[i].vm_flags && !m[i].rss_kib && !m[i].pkey);
	arena_done(&p.arena);
}

TEST(maps, linux_6_18)
{
	struct parsed p = parse(maps_6_18);
	const struct mapping *m = p.maps.m;

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 14);
	check_order(&p.maps);
	ASSERT_EQ(m[0].start, 0x400000);
	ASSERT_EQ(m[0].dev_major, 0x103);
	ASSERT_EQ(m[0].dev_minor, 2);
	ASSERT_STR(m[0].path, "/opt/a b/prog (old)");
	ASSERT_STR(m[2].path, "[anon: my heap: x 1-2]");
	ASSERT_STR(m[3].path, "[anon_shmem:shared]");
	ASSERT_STR(m[5].path, "/memfd:a b\\012(x) y (deleted)");
	ASSERT_STR(m[6].path, "/tmp/new\\012line \\x (deleted)");
	ASSERT_EQ(m[6].ino, UINT64_MAX);
	ASSERT_EQ(m[6].pgoff, 0x1000000000000);
	ASSERT_EQ(m[7].dev_minor, 0x1a4);
	ASSERT_EQ(m[7].ino, 9223372036855823890ull);
	ASSERT_EQ(m[7].prot, PROT_NONE);
	ASSERT_STR(m[7].path, "/dev/shm/a:b c/\ttab ");
	ASSERT_STR(m[8].path, "anon_inode:[io_uring]");
	ASSERT_STR(m[10].path, "[vvar_vclock]");
	arena_done(&p.arena);
}

TEST(maps, smaps_of_linux_5_10)
{
	struct parsed p = parse(smaps_5_10);
	const struct mapping *m = p.maps.m;

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 2);
	ASSERT_EQ(m[0].rss_kib, 12);
	ASSERT_EQ(m[0].pss_kib, 10);
	ASSERT_EQ(m[0].swap_kib, 4);
	ASSERT_EQ(m[0].pkey, 3);
	ASSERT(m[0].has_vm_flags);
	ASSERT_EQ(m[0].vm_flags, VMF_AC);
	ASSERT_EQ(m[0].page_kib, 4);
	ASSERT_EQ(m[1].page_kib, 0);
	ASSERT_EQ(m[1].rss_kib, 0);
	ASSERT_EQ(m[1].pkey, 0);
	ASSERT(m[1].has_vm_flags);
	ASSERT_STR(m[1].path, "[vsyscall]");
	arena_done(&p.arena);
}

TEST(maps, smaps_of_linux_6_18)
{
	struct parsed p = parse(smaps_6_18);
	const struct mapping *m = p.maps.m;

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 2);
	ASSERT_STR(m[0].path, "[anon:Rss: 77 kB]");
	ASSERT_EQ(m[0].rss_kib, 1024);
	ASSERT_EQ(m[0].vm_flags, VMF_LF | VMF_LO | VMF_HG | VMF_UW | VMF_GU | VMF_AC);
	ASSERT_EQ(m[0].huge_kib, 0);
	ASSERT_EQ(m[1].rss_kib, 12);
	ASSERT_EQ(m[1].vm_flags, VMF_GD | VMF_AC);
	arena_done(&p.arena);
}

static uint32_t flags_of(const char *value)
{
	char text[256];

	snprintf(text, sizeof(text), "1000-2000 r--p 0 0:0 0\nVmFlags:%s", value);
	struct parsed p = parse(text);
	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 1);
	ASSERT(p.maps.m[0].has_vm_flags);
	uint32_t flags = p.maps.m[0].vm_flags;
	arena_done(&p.arena);
	return flags;
}

TEST(maps, each_vm_flag_has_its_name)
{
	static const char names[][3] = { "lo", "lf", "io", "pf", "gd", "nr", "ht", "sr",
					 "rr", "dc", "dd", "wf", "hg", "nh", "mg", "um",
					 "uw", "ui", "ss", "sl", "dp", "gu" };
	char all[128] = "";

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char value[] = { ' ', names[i][0], names[i][1], ' ', 0 };

		ASSERT_EQ(flags_of(value), 1u << i);
		strcat(all, value);
	}
	ASSERT_EQ(flags_of(all), (1u << ARRAY_SIZE(names)) - 1);
}

TEST(maps, unknown_vm_flags_are_left_out)
{
	ASSERT_EQ(flags_of(""), 0);
	ASSERT_EQ(flags_of(" \n"), 0);
	ASSERT_EQ(flags_of(" rd wr ex sh mr mw me ms sf ar sd mm bt mt de ? \n"), 0);
	ASSERT_EQ(flags_of(" zz lo yy"), VMF_LO);
	ASSERT_EQ(flags_of(" lo l"), VMF_LO);
	ASSERT_EQ(flags_of("lo\tgd"), VMF_LO | VMF_GD);
}

/* What Linux 6.1 writes for mlock2(MLOCK_ONFAULT), and for other memory. */
TEST(maps, lock_on_fault_has_no_name_in_linux_6_1)
{
	static const struct {
		const char *value;
		bool expected;
	} cases[] = {
		{ " rd wr mr mw me lo ?? ac sd ", true }, { " rd wr mr mw me lo lf ac ", true },
		{ " rd wr mr mw me lo ac sd ", false },	  { " rd wr mr mw me ?? ac sd ", false },
		{ " rd wr mr mw me lf ac sd ", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mapping m = { .vm_flags = flags_of(cases[i].value) };

		ASSERT_EQ(is_locked_on_fault(&m), cases[i].expected);
	}
}

TEST(maps, text_may_be_empty_or_have_empty_lines)
{
	static const char *const none[] = { "", "\n", "\n\n\n", "   ", "Rss: 4 kB\nVmFlags: lo\n" };

	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		struct parsed p = parse(none[i]);

		ASSERT_OK(p.rc);
		ASSERT_EQ(p.maps.n, 0);
	}
	struct parsed p = parse("\n1000-2000 r--p 0 0:0 0\n\nRss: 4 kB\n\n3000-4000 r--p 0 0:0 0");
	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 2);
	ASSERT_EQ(p.maps.m[0].rss_kib, 4);
	arena_done(&p.arena);
}

TEST(maps, last_line_needs_no_newline)
{
	struct parsed p = parse_bytes(maps_5_10, sizeof(maps_5_10) - 2);

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 11);
	ASSERT_STR(p.maps.m[10].path, "[vsyscall]");
	arena_done(&p.arena);
}

TEST(maps, range_that_cannot_be_right_is_an_error)
{
	static const struct {
		const char *text;
		size_t line;
	} bad[] = {
		{ "2000-1000 r--p 0 0:0 0\n", 1 },
		{ "1000-1000 r--p 0 0:0 0\n", 1 },
		{ "ffffffffffffffff-0 r--p 0 0:0 0\n", 1 },
		{ "1000-3000 r--p 0 0:0 0\n2000-4000 r--p 0 0:0 0\n", 2 },
		{ "1000-3000 r--p 0 0:0 0\n\nRss: 4 kB\n2fff-4000 r--p 0 0:0 0\n", 4 },
		{ "1000-2000 r--p 0 0:0 0\n1000-2000 r--p 0 0:0 0\n", 2 },
		{ "3000-4000 r--p 0 0:0 0\n1000-2000 r--p 0 0:0 0", 2 },
		{ "0-ffffffffffffffff r--p 0 0:0 0\n1000-2000 r--p 0 0:0 0\n", 2 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct parsed p = parse(bad[i].text);

		ASSERT_EQ(p.rc, -EINVAL);
		ASSERT_EQ(p.line, bad[i].line);
		ASSERT(!p.maps.m && !p.maps.n);
		arena_done(&p.arena);
	}
}

TEST(maps, neighbours_may_touch)
{
	struct parsed p = parse("0-1000 r--p 0 0:0 0\n1000-2000 r--p 0 0:0 0\n"
				"2000-ffffffffffffffff r--p 0 0:0 0\n");

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.n, 3);
	check_order(&p.maps);
	ASSERT(!maps_find(&p.maps, UINT64_MAX));
	arena_done(&p.arena);
}

TEST(maps, line_that_is_no_mapping_is_left_out)
{
	static const char *const lines[] = {
		"-",
		"1000",
		"1000-",
		"1000-2000",
		"1000-2000 ",
		"1000-2000 r",
		"1000-2000 r--p",
		"1000-2000 r--p ",
		"1000-2000 r--px 0 0:0 0",
		"1000-2000 r--p\t0 0:0 0",
		"1000-2000 r--p 0",
		"1000-2000 r--p 0 ",
		"1000-2000 r--p 0 0",
		"1000-2000 r--p 0 0:",
		"1000-2000 r--p 0 0:0",
		"1000-2000 r--p 0 0:0 ",
		"1000-2000 r--p 0 0:0 x",
		"1000-2000 r--p 0 :0 0",
		"1000-2000 r--p  0 0:0 0",
		"1000 -2000 r--p 0 0:0 0",
		" 1000-2000 r--p 0 0:0 0",
		"1000--2000 r--p 0 0:0 0",
		"0x1000-0x2000 r--p 0 0:0 0",
		"1000-20000000000000000 r--p 0 0:0 0",
		"10000000000000000-2000 r--p 0 0:0 0",
		"1000-2000 r--p fffffffffffffffff 0:0 0",
		"1000-2000 r--p 0 fffffffffffffffff:0 0",
		"1000-2000 r--p 0 0:fffffffffffffffff 0",
		"1000-2000 r--p 0 0:0 18446744073709551616",
		"1000-2000 r--p 0 0:0 -1",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct parsed p = parse(lines[i]);

		ASSERT_OK(p.rc);
		if (p.maps.n)
			test_fail(__FILE__, __LINE__, "\"%s\" is a mapping", lines[i]);
	}
}

TEST(maps, field_without_a_number_changes_nothing)
{
	struct parsed p = parse("1000-2000 r--p 0 0:0 0\n"
				"Rss: 8 kB\nRss:\nRss: x\nRss: -1 kB\nRss\n"
				"Rss: 18446744073709551616 kB\n"
				"ProtectionKey: 5\nProtectionKey:\nProtectionKey: \tkey\n"
				"VmFlagsX: lo\nVmFlags\n");

	ASSERT_OK(p.rc);
	ASSERT_EQ(p.maps.m[0].rss_kib, 8);
	ASSERT_EQ(p.maps.m[0].pkey, 5);
	ASSERT(!p.maps.m[0].has_vm_flags);
	arena_done(&p.arena);
}

TEST(maps, text_cut_at_any_byte_gives_the_whole_lines)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct parsed whole = parse_bytes(samples[i].text, samples[i].size);

		for (size_t size = 0; size < samples[i].size; size++) {
			struct parsed p = parse_bytes(samples[i].text, size);

			ASSERT_OK(p.rc);
			ASSERT(p.maps.n <= whole.maps.n);
			check_order(&p.maps);
			/* What comes after the last is what the cut can have changed. */
			for (size_t j = 0; j + 1 < p.maps.n; j++) {
				ASSERT_EQ(p.maps.m[j].end, whole.maps.m[j].end);
				ASSERT_EQ(p.maps.m[j].ino, whole.maps.m[j].ino);
				ASSERT_EQ(p.maps.m[j].rss_kib, whole.maps.m[j].rss_kib);
				ASSERT_STR(p.maps.m[j].path, whole.maps.m[j].path);
			}
			arena_done(&p.arena);
		}
		arena_done(&whole.arena);
	}
}

TEST(maps, text_spoilt_at_any_byte_is_never_out_of_order)
{
	static const char bytes[] = { '\0', '\n', ' ', '-', ':', '0', 'f', 'V', (char)0xff };

	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		char text[2048];

		memcpy(text, samples[i].text, samples[i].size);
		for (size_t at = 0; at < samples[i].size; at++) {
			/* A third of the bytes each time: it has to be quick. */
			for (size_t b = at % 3; b < sizeof(bytes); b += 3) {
				text[at] = bytes[b];
				struct parsed p = parse_bytes(text, samples[i].size);

				check_order(&p.maps);
				ASSERT(p.rc == 0 || (p.rc == -EINVAL && p.line > 0));
				arena_done(&p.arena);
			}
			text[at] = samples[i].text[at];
		}
	}
}

#define MANY 65530 /* what vm.max_map_count allows */

static char *text_of_many(void)
{
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);

	ASSERT(f);
	for (unsigned i = 0; i < MANY; i++)
		fprintf(f, "%x000-%x000 rw-p 00000000 08:01 %u /lib/%u.so\n", 3 * i + 1, 3 * i + 3,
			i, i / 3);
	ASSERT_EQ(fclose(f), 0);
	return text;
}

TEST(maps, as_many_as_a_process_may_have)
{
	autofree char *text = text_of_many();
	struct arena a = { 0 };
	struct maps maps;
	size_t line;

	ASSERT_OK(maps_parse(text, &a, &maps, &line));
	ASSERT_EQ(maps.n, MANY);
	check_order(&maps);
	ASSERT(maps.m[0].path == maps.m[2].path);
	ASSERT_STR(maps.m[MANY - 1].path, "/lib/21843.so");
	arena_done(&a);
}

TEST(maps, find_looks_at_both_ends_of_each)
{
	struct parsed p = parse("1000-2000 r--p 0 0:0 0\n2000-3000 r--p 0 0:0 0\n"
				"5000-9000 r--p 0 0:0 0\n"
				"ffffffffff600000-ffffffffff601000 --xp 0 0:0 0 [vsyscall]\n");
	const struct mapping *m = p.maps.m;

	ASSERT(!maps_find(&p.maps, 0));
	ASSERT(!maps_find(&p.maps, 0xfff));
	ASSERT(maps_find(&p.maps, 0x1000) == &m[0]);
	ASSERT(maps_find(&p.maps, 0x1fff) == &m[0]);
	ASSERT(maps_find(&p.maps, 0x2000) == &m[1]);
	ASSERT(!maps_find(&p.maps, 0x3000));
	ASSERT(!maps_find(&p.maps, 0x4fff));
	ASSERT(maps_find(&p.maps, 0x5000) == &m[2]);
	ASSERT(maps_find(&p.maps, 0x8fff) == &m[2]);
	ASSERT(!maps_find(&p.maps, 0x9000));
	ASSERT(maps_find(&p.maps, 0xffffffffff600fff) == &m[3]);
	ASSERT(!maps_find(&p.maps, 0xffffffffff601000));
	ASSERT(!maps_find(&p.maps, UINT64_MAX));
	arena_done(&p.arena);
}

TEST(maps, find_among_none_and_one)
{
	struct maps none = { 0 };
	struct mapping m = { .start = 0x1000, .end = 0x2000, .path = "" };
	struct maps one = { &m, 1 };

	ASSERT(!maps_find(&none, 0));
	ASSERT(!maps_find(&none, UINT64_MAX));
	ASSERT(!maps_named(&none, ""));
	ASSERT(maps_find(&one, 0x1000) == &m);
	ASSERT(!maps_find(&one, 0x2000));
}

TEST(maps, named_is_the_first_of_that_whole_name)
{
	struct parsed p = parse(maps_5_10);
	const struct mapping *m = p.maps.m;

	ASSERT(maps_named(&p.maps, "/usr/bin/cat") == &m[0]);
	ASSERT(maps_named(&p.maps, "[heap]") == &m[3]);
	ASSERT(maps_named(&p.maps, "") == &m[4]);
	ASSERT(!maps_named(&p.maps, "[vvar_vclock]"));
	ASSERT(!maps_named(&p.maps, "[stack"));
	ASSERT(!maps_named(&p.maps, "[stack]2"));
	arena_done(&p.arena);
}

#define LOWEST	 0x10000000ull
#define HIGHEST	 0x7ffffffff000ull
#define DISTANCE 0x1000000ull

static bool is_free(const struct maps *maps, uint64_t addr, uint64_t size)
{
	for (size_t i = 0; i < maps->n; i++)
		if (addr < maps->m[i].end && addr + size > maps->m[i].start)
			return false;
	return addr >= LOWEST && size <= HIGHEST - addr && addr % 4096 == 0;
}

TEST(maps, hole_of_real_processes)
{
	for (size_t i = 0; i < 2; i++) {
		struct parsed p = parse(samples[i].text);
		uint64_t addr = maps_hole(&p.maps, 0x10000);

		ASSERT(is_free(&p.maps, addr - DISTANCE, 0x10000 + 2 * DISTANCE));
		arena_done(&p.arena);
	}
}

TEST(maps, hole_in_empty_space)
{
	struct maps none = { 0 };
	uint64_t all = HIGHEST - LOWEST;

	ASSERT_EQ(maps_hole(&none, 4096), LOWEST + DISTANCE);
	ASSERT_EQ(maps_hole(&none, all - 2 * DISTANCE), LOWEST + DISTANCE);
	ASSERT_EQ(maps_hole(&none, all - 2 * DISTANCE + 1), LOWEST);
	ASSERT_EQ(maps_hole(&none, all), LOWEST);
	ASSERT_EQ(maps_hole(&none, all + 1), 0);
}

TEST(maps, hole_of_impossible_size_is_none)
{
	static const uint64_t sizes[] = { UINT64_MAX,	      UINT64_MAX - 2 * DISTANCE,
					  UINT64_MAX - 0xfff, UINT64_MAX - 2 * DISTANCE + 1,
					  1ull << 63,	      HIGHEST };
	struct maps none = { 0 };
	struct parsed p = parse(maps_6_18);

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_EQ(maps_hole(&none, sizes[i]), 0);
		ASSERT_EQ(maps_hole(&p.maps, sizes[i]), 0);
	}
	arena_done(&p.arena);
}

/* Everything that may be used is mapped, except for one hole. */
static void check_one_hole(uint64_t start, uint64_t end, uint64_t size, uint64_t wanted)
{
	struct mapping m[] = { { .start = 0x1000, .end = start, .path = "" },
			       { .start = end, .end = HIGHEST, .path = "" } };
	struct maps maps = { m, 2 };

	ASSERT_EQ(maps_hole(&maps, size), wanted);
}

TEST(maps, hole_keeps_its_distance_only_where_there_is_room)
{
	uint64_t start = 0x500000000000, size = 0x10000;

	check_one_hole(start, start + size + 2 * DISTANCE + 4096, size, start + DISTANCE);
	check_one_hole(start, start + size + 2 * DISTANCE, size, start + DISTANCE);
	check_one_hole(start, start + size + 2 * DISTANCE - 4096, size, start);
	check_one_hole(start, start + size, size, start);
	check_one_hole(start, start + size - 4096, size, 0);
	check_one_hole(start, start, size, 0);
	check_one_hole(start, start + 4096, 1, start);
}

TEST(maps, hole_may_be_the_first_or_the_last)
{
	uint64_t size = 0x10000;

	check_one_hole(0x2000, LOWEST + size, size, LOWEST);
	check_one_hole(LOWEST, LOWEST + size, size, LOWEST);
	check_one_hole(HIGHEST - size, HIGHEST, size, HIGHEST - size);
	check_one_hole(0x2000, LOWEST, size, 0);
}

/* With five levels of page tables there are mappings above what every task can map. */
TEST(maps, hole_is_below_the_limit_of_47_bits)
{
	struct mapping m[] = {
		{ .start = 0x1000, .end = HIGHEST - 0x20000, .path = "" },
		{ .start = HIGHEST + 0x100000, .end = HIGHEST + 0x200000, .path = "" },
		{ .start = 0xffffffffff600000, .end = 0xffffffffff601000, .path = "[vsyscall]" },
	};
	struct maps maps = { m, ARRAY_SIZE(m) };

	ASSERT_EQ(maps_hole(&maps, 0x20000), HIGHEST - 0x20000);
	ASSERT_EQ(maps_hole(&maps, 0x21000), 0);
	m[0].end = HIGHEST;
	ASSERT_EQ(maps_hole(&maps, 0x1000), 0);
	m[0].end = HIGHEST + 0x1000;
	ASSERT_EQ(maps_hole(&maps, 0x1000), 0);
}

TEST(maps, hole_is_free_in_any_layout)
{
	uint64_t seed = 1;

	for (int round = 0; round < 3000; round++) {
		struct mapping m[20];
		struct maps maps = { m, 0 };
		uint64_t at = 0, size;

		while (maps.n < ARRAY_SIZE(m)) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			at += (seed >> 40) << (seed >> 32) % 24;
			size = ((seed >> 20) & 0xffffff) + 1;
			m[maps.n++] = (struct mapping){ .start = at, .end = at + size, .path = "" };
			at += size;
		}
		size = (seed >> 25) & ~0xfffull;
		uint64_t addr = maps_hole(&maps, size);

		ASSERT(!addr || is_free(&maps, addr, size));
	}
}

static int open_self(void)
{
	int fd = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return ASSERT_OK(fd);
}

TEST(maps, read_finds_a_mapping_of_ours)
{
	autoclose int proc = open_self();
	struct arena a = { 0 };
	struct maps maps;
	void *p = mmap(NULL, 8192, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT(p != MAP_FAILED);
	ASSERT_OK(maps_read(proc, "maps", &a, &maps));
	check_order(&maps);
	const struct mapping *m = maps_find(&maps, (uintptr_t)p + 4096);
	ASSERT(m);
	ASSERT(m->shared);
	ASSERT_EQ(m->prot, PROT_READ);
	ASSERT_STR(m->path, "/dev/zero (deleted)");
	ASSERT(maps_named(&maps, "[stack]"));
	arena_done(&a);
}

TEST(maps, read_finds_the_advice_that_smaps_has)
{
	autoclose int proc = open_self();
	struct arena a = { 0 };
	struct maps maps;
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT(p != MAP_FAILED);
	ASSERT_OK(madvise(p, 8192, MADV_DONTFORK));
	p[0] = p[4096] = 1;
	int rc = maps_read(proc, "smaps", &a, &maps);
	if (rc == -ENOENT)
		test_skip("no smaps in this kernel");
	ASSERT_OK(rc);
	const struct mapping *m = maps_find(&maps, (uintptr_t)p);
	ASSERT(m && m->has_vm_flags);
	ASSERT_EQ(m->vm_flags & (VMF_DC | VMF_GD), VMF_DC);
	ASSERT_EQ(m->rss_kib, 8);
	arena_done(&a);
}

TEST(maps, read_returns_errors)
{
	autoclose int proc = open_self();
	struct arena a = { 0 };
	struct maps maps;

	ASSERT_EQ(maps_read(proc, "none", &a, &maps), -ENOENT);
	ASSERT_EQ(maps_read(proc, "fd", &a, &maps), -EISDIR);
	ASSERT_EQ(maps_read(-1, "maps", &a, &maps), -EBADF);
}
