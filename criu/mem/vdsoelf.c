/* SPDX-License-Identifier: GPL-2.0-only */
#include "mem/vdsoelf.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/own.h"

#define PREFIX	  "__vdso_"
#define MARK	  "criu" /* in e_ident, then the number of pages, then the side */
#define MARK_AT	  EI_PAD
#define MARK_SIZE 4

static bool is_inside(uint64_t offset, uint64_t need, size_t size)
{
	return offset <= size && need <= size - offset;
}

static bool read_section(const uint8_t *image, size_t size, unsigned i, Elf64_Shdr *ret)
{
	Elf64_Ehdr e;

	memcpy(&e, image, sizeof(e));
	uint64_t at = e.e_shoff + (uint64_t)i * sizeof(*ret);
	if (i >= e.e_shnum || e.e_shentsize != sizeof(*ret) || e.e_shoff > size ||
	    !is_inside(at, sizeof(*ret), size))
		return false;
	memcpy(ret, image + at, sizeof(*ret));
	return true;
}

static bool find_symbols(const uint8_t *image, size_t size, Elf64_Shdr *ret)
{
	for (unsigned i = 0; read_section(image, size, i, ret); i++)
		if (ret->sh_type == SHT_DYNSYM)
			return true;
	return false;
}

static bool has_magic(const uint8_t *image, size_t size)
{
	static const uint8_t magic[] = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64 };

	return size >= sizeof(Elf64_Ehdr) && !memcmp(image, magic, sizeof(magic));
}

static bool is_known_place(const struct vdso_symbols *s, uint64_t offset)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->s[i].offset == offset)
			return true;
	return false;
}

int vdso_symbols_read(const uint8_t *image, size_t size, struct vdso_symbols *ret)
{
	Elf64_Shdr syms, names;

	ret->n = 0;
	if (!has_magic(image, size) || !find_symbols(image, size, &syms) ||
	    !read_section(image, size, syms.sh_link, &names) ||
	    !is_inside(syms.sh_offset, syms.sh_size, size) ||
	    !is_inside(names.sh_offset, names.sh_size, size))
		return -EINVAL;
	for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= syms.sh_size; at += sizeof(Elf64_Sym)) {
		Elf64_Sym s;

		memcpy(&s, image + syms.sh_offset + at, sizeof(s));
		if (ELF64_ST_TYPE(s.st_info) != STT_FUNC || s.st_size < VDSO_PATCH_SIZE ||
		    !is_inside(s.st_value, VDSO_PATCH_SIZE, size) || s.st_name >= names.sh_size ||
		    is_known_place(ret, s.st_value) || ret->n == VDSO_SYMBOLS_MAX)
			continue;
		const char *name = (const char *)image + names.sh_offset + s.st_name;
		if (!memchr(name, '\0', names.sh_size - s.st_name))
			continue;
		if (!strncmp(name, PREFIX, strlen(PREFIX)))
			name += strlen(PREFIX);
		ret->s[ret->n++] = (struct vdso_symbol){ name, s.st_value };
	}
	return ret->n ? 0 : -EINVAL;
}

/* Their arguments are those of the system calls. */
static const struct {
	const char *name;
	uint32_t nr;
} calls[] = {
	{ "clock_gettime", SYS_clock_gettime },
	{ "gettimeofday", SYS_gettimeofday },
	{ "time", SYS_time },
	{ "clock_getres", SYS_clock_getres },
	{ "getcpu", SYS_getcpu },
	{ "getrandom", SYS_getrandom },
};

/* movabs $to, %rax; jmp *%rax: it belongs to nobody at the start of a function. */
static void put_jump(uint8_t *at, uint64_t to)
{
	memcpy(at, "\x48\xb8", 2);
	memcpy(at + 2, &to, 8);
	memcpy(at + 10, "\xff\xe0", 2);
}

/* mov $nr, %eax; syscall; ret */
static bool put_call(uint8_t *at, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		if (strcmp(calls[i].name, name))
			continue;
		at[0] = 0xb8;
		memcpy(at + 1, &calls[i].nr, 4);
		memcpy(at + 5, "\x0f\x05\xc3", 3);
		return true;
	}
	return false;
}

size_t vdso_redirect(uint8_t *image, const struct vdso_symbols *own,
		     const struct vdso_symbols *there, uint64_t base)
{
	size_t n = 0;

	for (size_t i = 0; i < own->n; i++) {
		size_t k = 0;

		while (k < there->n && strcmp(there->s[k].name, own->s[i].name))
			k++;
		if (k < there->n)
			put_jump(image + own->s[i].offset, base + there->s[k].offset);
		n += k < there->n || put_call(image + own->s[i].offset, own->s[i].name);
	}
	return n;
}

void vdso_mark_put(uint8_t *image, struct vdso_mark mark)
{
	memcpy(image + MARK_AT, MARK, MARK_SIZE);
	image[MARK_AT + MARK_SIZE] = mark.data_pages;
	image[MARK_AT + MARK_SIZE + 1] = mark.is_data_before;
}

bool vdso_mark_get(const uint8_t *image, size_t size, struct vdso_mark *ret)
{
	if (!has_magic(image, size) || memcmp(image + MARK_AT, MARK, MARK_SIZE) != 0)
		return false;
	ret->data_pages = image[MARK_AT + MARK_SIZE];
	ret->is_data_before = image[MARK_AT + MARK_SIZE + 1];
	return true;
}
