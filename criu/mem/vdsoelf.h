/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vDSO of another kernel (x86-64): its functions, and how they are led to those of this one.
 * Pure; the bytes come from images and are not trusted.
 */
#ifndef MEM_VDSOELF_H
#define MEM_VDSOELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VDSO_SYMBOLS_MAX 64
#define VDSO_PATCH_SIZE	 12 /* bytes at the start of a function that are replaced */

struct vdso_symbol {
	const char *name; /* without __vdso_; in the image */
	uint64_t offset;
};

struct vdso_symbols {
	struct vdso_symbol s[VDSO_SYMBOLS_MAX];
	size_t n;
};

/* Finds the functions; those at one place once. Returns 0, or -EINVAL if it is not such a file. */
int vdso_symbols_read(const uint8_t *image, size_t size, struct vdso_symbols *ret);

/*
 * Writes over the start of each function: a jump to that of the same name at base, or the system
 * call itself if there is none. Functions that are neither stay. Returns how many were replaced.
 */
size_t vdso_redirect(uint8_t *image, const struct vdso_symbols *own,
		     const struct vdso_symbols *there, uint64_t base);

/*
 * The mark of a vDSO that was redirected, in the padding of its ELF header: so many pages of its
 * data lay before or behind it. False if it has none.
 */
struct vdso_mark {
	uint8_t data_pages;
	bool is_data_before;
};
void vdso_mark_put(uint8_t *image, struct vdso_mark mark);
bool vdso_mark_get(const uint8_t *image, size_t size, struct vdso_mark *ret);

#endif
