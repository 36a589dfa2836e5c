/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a dump and a page server say to each other: pagemaps and pages over a stream socket, in the
 * byte order of the machine. A dump opens one pagemap after the other and adds its runs by address.
 */
#ifndef IMAGE_PAGEWIRE_H
#define IMAGE_PAGEWIRE_H

#include "image/pagemap.h"

enum page_command {
	PAGE_ADD = 1,	     /* runs that are present; PAGE_ADD_F is newer */
	PAGE_HOLE = 2,	     /* runs in the parent image; the same */
	PAGE_OPEN = 3,	     /* begin a pagemap */
	PAGE_OPEN2 = 4,	     /* the same; the answer is one byte: is there a parent image? */
	PAGE_PARENT = 5,     /* only that question; the answer is an int32_t */
	PAGE_ADD_F = 6,	     /* a run, its flags in the upper half; bytes follow if it is present */
	PAGE_GET = 7,	     /* of lazy pages: asks for some */
	PAGE_CLOSE = 0x1023, /* the end; the answer is an int32_t: 0 if all is written */
	PAGE_FORCE_CLOSE = 0x1024, /* the same over a socket that was inherited */
};

struct page_message {
	uint32_t command; /* and flags (enum pagemap_flag) << PAGE_FLAGS_SHIFT */
	uint32_t unused;
	uint64_t nr_pages;
	uint64_t vaddr;
	uint64_t object; /* id << 8 | enum page_object */
};

#define PAGE_FLAGS_SHIFT 16

#define PAGE_SILENCE_SEC 60 /* after which a peer counts as gone */

/* Makes a connection notice that. Of a unix socket, which has no such options, nothing changes. */
void page_wire_prepare(int fd);

enum page_object { PAGES_OF_TASK = 1, PAGES_OF_SEGMENT = 2 };

#endif
