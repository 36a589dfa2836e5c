/* SPDX-License-Identifier: GPL-2.0-only */
/* x86-64: the table is read as the CPU has it, and written entry by entry. */
#include <asm/ldt.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/own.h"
#include "task/ldt.h"

#define READ_TABLE  0
#define WRITE_ENTRY 0x11 /* with all its bits */

#define TABLE_MAX (LDT_ENTRIES * LDT_ENTRY_SIZE)

int ldt_collect(struct dump *d, struct dump_task *t)
{
	struct program p;
	int rc = program_begin(&p, &t->in.worker, 1);

	if (rc < 0)
		return rc;
	uint8_t *table = program_room(&p, TABLE_MAX);
	if (table)
		CALL(&p, "read the local descriptor table", SYS_modify_ldt, READ_TABLE,
		     program_raddr(&p, table), TABLE_MAX);
	rc = program_run(&p);
	if (rc == 0) {
		TaskCoreEntry *tc = t->threads[0].core->tc;
		size_t size = TABLE_MAX;

		while (size && !table[size - 1])
			size--;
		size = (size + LDT_ENTRY_SIZE - 1) / LDT_ENTRY_SIZE * LDT_ENTRY_SIZE;
		tc->has_ldt = size != 0;
		tc->ldt.len = size;
		tc->ldt.data = arena_memdup(&d->arena, table, size);
	}
	program_end(&p);
	return rc;
}

/* A segment descriptor: Intel SDM volume 3, 3.4.5. */
static struct user_desc entry_of(unsigned number, uint64_t raw)
{
	unsigned type = raw >> 40 & 15;

	return (struct user_desc){
		.entry_number = number,
		.base_addr = (raw >> 16 & 0xffffff) | (raw >> 56 & 0xff) << 24,
		.limit = (raw & 0xffff) | (raw >> 48 & 15) << 16,
		.contents = type >> 2,
		.read_exec_only = !(type & 2),
		.seg_not_present = !(raw >> 47 & 1),
		.useable = raw >> 52 & 1,
		.lm = raw >> 53 & 1,
		.seg_32bit = raw >> 54 & 1,
		.limit_in_pages = raw >> 55 & 1,
	};
}

/* From its end: then the kernel does not make it larger with each entry. */
void ldt_add(const struct restore_task *t, struct program *p)
{
	const TaskCoreEntry *tc = t->image->cores[0]->tc;

	for (size_t i = tc->ldt.len / LDT_ENTRY_SIZE; tc->has_ldt && i-- > 0;) {
		uint64_t raw;

		memcpy(&raw, tc->ldt.data + i * LDT_ENTRY_SIZE, sizeof(raw));
		if (!raw)
			continue;
		struct user_desc e = entry_of(i, raw);
		void *room = program_data(p, &e, sizeof(e));
		if (room)
			CALL(p, "set an entry of the local descriptor table", SYS_modify_ldt,
			     WRITE_ENTRY, program_raddr(p, room), sizeof(e));
	}
}
