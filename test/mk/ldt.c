/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A local descriptor table: entries of all kinds at both ends of it, and a segment register that
 * leads through one of them to a word in memory.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mk.h"

#define WORD	0x4711beef
#define USED	5	/* the entry that a register leads through */

static const struct user_desc kinds[] = {
	{ .entry_number = 0, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1, .useable = 1 },
	{ .entry_number = USED, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1 },
	{ .entry_number = 6, .base_addr = 0xfedcba98, .limit = 0x12345, .seg_32bit = 1, .contents = 2 },
	{ .entry_number = 7, .base_addr = 0x10, .limit = 1, .seg_32bit = 1, .contents = 1 },
	{ .entry_number = 8, .limit = 9, .seg_32bit = 1, .read_exec_only = 1 },
	{ .entry_number = LDT_ENTRIES - 1, .limit = 0xfffff, .seg_32bit = 1, .seg_not_present = 1 },
};

static unsigned char before[LDT_ENTRIES * LDT_ENTRY_SIZE], now[sizeof(before)];
static unsigned *word;

/* The one that does not lead to thread-local storage. */
#ifdef __i386__
#define SEGMENT	"%%fs"
#else
#define SEGMENT	"%%gs"
#endif

static unsigned selector(void)
{
	unsigned s;

	asm volatile ("mov " SEGMENT ", %0" : "=r" (s));
	return s & 0xffff;
}

static unsigned load(void)
{
	unsigned v;

	asm volatile ("mov " SEGMENT ":0, %0" : "=r" (v));
	return v;
}

static void make(void)
{
	unsigned s = USED << 3 | 7;	/* of this table, for user code */

	word = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (word == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	*word = WORD;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct user_desc e = kinds[i];

		if (e.entry_number == USED)
			e.base_addr = (unsigned long)word;
		if (syscall(SYS_modify_ldt, 0x11, &e, sizeof(e)) < 0) {
			if (errno == ENOSYS)
				skip("this kernel has no modify_ldt");
			die("entry %u: %s", e.entry_number, strerror(errno));
		}
	}
	if (syscall(SYS_modify_ldt, 0, before, sizeof(before)) != sizeof(before))
		die("read the table: %s", strerror(errno));
	asm volatile ("mov %0, " SEGMENT : : "r" (s));
}

static void check(void)
{
	if (syscall(SYS_modify_ldt, 0, now, sizeof(now)) != sizeof(now))
		bad_errno("read the table");
	for (size_t i = 0; i < LDT_ENTRIES; i++)
		if (memcmp(before + i * LDT_ENTRY_SIZE, now + i * LDT_ENTRY_SIZE, LDT_ENTRY_SIZE))
			bad("entry %zu differs", i);
	same_long("selector", USED << 3 | 7, selector());
	same_long("word behind it", WORD, load());
}

struct factory ldt_factory = {
	.name	= "ldt",
	.about	= "a local descriptor table",
	.make	= make,
	.check	= check,
};
