/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/io.h"
#include "base/own.h"
#include "proc/maps.h"
#include "proc/text.h"

/* clang-format off */
static const struct {
	char name[3];
	uint32_t flag;
} vm_flag_names[] = {
	{ "lo", VMF_LO }, { "lf", VMF_LF }, { "io", VMF_IO }, { "pf", VMF_PF }, { "gd", VMF_GD },
	{ "nr", VMF_NR }, { "ht", VMF_HT }, { "sr", VMF_SR }, { "rr", VMF_RR }, { "dc", VMF_DC },
	{ "dd", VMF_DD }, { "wf", VMF_WF }, { "hg", VMF_HG }, { "nh", VMF_NH }, { "mg", VMF_MG },
	{ "um", VMF_UM }, { "uw", VMF_UW }, { "ui", VMF_UI }, { "ss", VMF_SS }, { "sl", VMF_SL },
	{ "dp", VMF_DP }, { "gu", VMF_GU }, { "ac", VMF_AC }, { "??", VMF_QQ },
};
/* clang-format on */

static uint32_t parse_vm_flags(const char *p)
{
	uint32_t flags = 0;

	for (p = text_skip_blanks(p); p[0] && p[1]; p = text_skip_blanks(p + 2))
		for (size_t i = 0; i < ARRAY_SIZE(vm_flag_names); i++)
			if (!memcmp(p, vm_flag_names[i].name, 2))
				flags |= vm_flag_names[i].flag;
	return flags;
}

static bool parse_perms(const char *p, struct mapping *m)
{
	if (strnlen(p, 5) < 5 || p[4] != ' ')
		return false;
	m->prot = (p[0] == 'r' ? PROT_READ : 0) | (p[1] == 'w' ? PROT_WRITE : 0) |
		  (p[2] == 'x' ? PROT_EXEC : 0);
	m->shared = p[3] == 's';
	return true;
}

/* "start-end perms offset major:minor inode path"; false if the line is something else. */
static bool parse_mapping(const char *line, struct mapping *m)
{
	uint64_t major, minor;
	const char *p = text_hex(line, &m->start);

	if (!p || *p != '-' || !(p = text_hex(p + 1, &m->end)) || *p != ' ' ||
	    !parse_perms(p + 1, m))
		return false;
	if (!(p = text_hex(p + 6, &m->pgoff)) || *p != ' ')
		return false;
	if (!(p = text_hex(p + 1, &major)) || *p != ':' || !(p = text_hex(p + 1, &minor)))
		return false;
	if (*p != ' ' || !(p = text_dec(p + 1, &m->ino)))
		return false;
	m->dev_major = major;
	m->dev_minor = minor;
	m->path = text_skip_blanks(p);
	return true;
}

static void parse_field(const char *line, struct mapping *m)
{
	const char *value;
	uint64_t n;

	if ((value = text_field(line, "VmFlags"))) {
		m->has_vm_flags = true;
		m->vm_flags = parse_vm_flags(value);
	} else if ((value = text_field(line, "Rss")) && text_dec(value, &n)) {
		m->rss_kib = n;
	} else if ((value = text_field(line, "Pss")) && text_dec(value, &n)) {
		m->pss_kib = n;
	} else if ((value = text_field(line, "Swap")) && text_dec(value, &n)) {
		m->swap_kib = n;
	} else if ((value = text_field(line, "AnonHugePages")) && text_dec(value, &n)) {
		m->huge_kib = n;
	} else if ((value = text_field(line, "KernelPageSize")) && text_dec(value, &n)) {
		m->page_kib = n;
	} else if ((value = text_field(line, "ProtectionKey")) && text_dec(value, &n)) {
		m->pkey = n;
	}
}

int maps_parse(char *text, struct arena *a, struct maps *ret_maps, size_t *ret_line)
{
	struct maps maps = { 0 };
	const char *path = "";
	size_t number = 0;

	for (char *line = text, *next; line && *line; line = next) {
		struct mapping m = { 0 };

		number++;
		next = text_cut_line(line);
		if (!parse_mapping(line, &m)) {
			if (maps.n)
				parse_field(line, &maps.m[maps.n - 1]);
			continue;
		}
		if (m.start >= m.end || (maps.n && m.start < maps.m[maps.n - 1].end)) {
			*ret_line = number;
			return -EINVAL;
		}
		if (strcmp(m.path, path)) /* neighbours often map the same file */
			path = arena_strdup(a, m.path);
		m.path = path;
		*ARENA_PUSH(a, maps.m, maps.n) = m;
	}
	*ret_maps = maps;
	return 0;
}

int maps_read(int proc_fd, const char *name, struct arena *a, struct maps *ret_maps)
{
	autofree char *text = NULL;
	ssize_t len = read_file_at(proc_fd, name, &text);
	size_t line;

	if (len < 0)
		return len;
	return maps_parse(text, a, ret_maps, &line);
}

const struct mapping *maps_find(const struct maps *maps, uint64_t addr)
{
	size_t lo = 0, hi = maps->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (addr < maps->m[mid].start)
			hi = mid;
		else if (addr >= maps->m[mid].end)
			lo = mid + 1;
		else
			return &maps->m[mid];
	}
	return NULL;
}

const struct mapping *maps_named(const struct maps *maps, const char *name)
{
	for (size_t i = 0; i < maps->n; i++)
		if (!strcmp(maps->m[i].path, name))
			return &maps->m[i];
	return NULL;
}

#define LOWEST	 0x10000000ull	   /* above what a small non-PIE program may still want */
#define HIGHEST	 0x7ffffffff000ull /* 47 bits: every task can map it */
#define DISTANCE (16ull << 20)	   /* room for neighbours to grow while we are there */

static uint64_t hole_with_distance(const struct maps *maps, uint64_t size, uint64_t distance)
{
	uint64_t end = LOWEST;

	for (size_t i = 0; i <= maps->n; i++) {
		uint64_t next = i < maps->n ? min(maps->m[i].start, HIGHEST) : HIGHEST;
		uint64_t addr = (end + distance + 0xfff) & ~0xfffull;

		if (next > end && addr + distance <= next && next - distance - addr >= size)
			return addr;
		if (i < maps->n)
			end = max(end, maps->m[i].end);
	}
	return 0;
}

uint64_t maps_hole(const struct maps *maps, uint64_t size)
{
	uint64_t addr = hole_with_distance(maps, size, DISTANCE);

	return addr ? addr : hole_with_distance(maps, size, 0);
}
