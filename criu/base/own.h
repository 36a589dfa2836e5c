/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ownership: variables that release what they hold at the end of their scope, and the
 * functions that hand it over. A descriptor variable without a descriptor holds -1.
 */
#ifndef BASE_OWN_H
#define BASE_OWN_H

#include <dirent.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A mapping of this process; addr is NULL when there is none. */
struct local_map {
	void *addr;
	size_t size;
};

static inline void own_free(void *p)
{
	free(*(void **)p);
}

static inline void own_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void own_closedir(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

static inline void own_unmap(struct local_map *map)
{
	if (map->addr)
		(void)munmap(map->addr, map->size);
}

#define autofree     __attribute__((cleanup(own_free)))
#define autoclose    __attribute__((cleanup(own_close)))
#define autoclosedir __attribute__((cleanup(own_closedir)))
#define autounmap    __attribute__((cleanup(own_unmap)))

/* Hands the descriptor over: returns it and leaves the variable empty. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define take_ptr(p)                                                                                \
	({                                                                                         \
		__typeof__(p) taken = p;                                                           \
		(p) = NULL;                                                                        \
		taken;                                                                             \
	})

#define ARRAY_SIZE(a)		      (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))
#define min(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) min_a = (a);                                                         \
		__typeof__(b) min_b = (b);                                                         \
		min_a < min_b ? min_a : min_b;                                                     \
	})
#define max(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) max_a = (a);                                                         \
		__typeof__(b) max_b = (b);                                                         \
		max_a > max_b ? max_a : max_b;                                                     \
	})

#endif
