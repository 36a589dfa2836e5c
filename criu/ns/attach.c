/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/shm.h>

#include "base/log.h"
#include "base/own.h"
#include "ns/attach.h"
#include "proc/maps.h"

/* The mapping may be longer than the segment: its pages may be huge. */
static int open_at(int id, int flags, const void *addr, struct arena *a)
{
	autoclose int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct maps maps;
	char path[64];
	int rc = self < 0 ? -errno : maps_read(self, "maps", a, &maps);
	const struct mapping *m = rc < 0 ? NULL : maps_find(&maps, (uint64_t)addr);

	if (!m)
		return fail(rc < 0 ? -rc : ENOENT, "shared memory segment %d: find it in memory",
			    id);
	snprintf(path, sizeof(path), "map_files/%lx-%lx", (long)m->start, (long)m->end);
	int fd = openat(self, path, flags | O_CLOEXEC);
	return fd < 0 ? fail(errno, "shared memory segment %d: open /proc/self/%s", id, path) : fd;
}

int attach_open(int id, int flags, void **ret_addr)
{
	struct arena arena = { 0 };
	void *addr = shmat(id, NULL, flags == O_RDONLY ? SHM_RDONLY : 0);

	if (addr == (void *)-1)
		return fail(errno, "shared memory segment %d: attach it", id);
	int fd = open_at(id, flags, addr, &arena);
	arena_done(&arena);
	if (fd < 0)
		(void)shmdt(addr);
	else
		*ret_addr = addr;
	return fd;
}
