/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dump --leave-running --snapshot: a hidden copy of each task holds its private memory as it was,
 * and is written while the task goes on. Shared memory is written before.
 *
 * What a task writes meanwhile costs memory and time: the first write to each page copies it, and
 * splits the huge page that it lies in.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/huge.h"
#include "mem/mem.h"
#include "model/vma.h"

/* The number in a small file; ~0 if there is none ("max"). */
static uint64_t number_in(const char *path)
{
	char text[64];

	if (read_small_at(AT_FDCWD, path, text, sizeof(text)) <= 0 || text[0] < '0' ||
	    text[0] > '9')
		return ~0ull;
	return strtoull(text, NULL, 10);
}

/* Both generations of cgroups: how the line in /proc/PID/cgroup starts, and where the files are. */
static const struct {
	const char *controllers, *mount, *limit, *usage;
} hierarchies[] = {
	{ "", "/sys/fs/cgroup", "memory.max", "memory.current" },
	{ "memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes" },
};

/* What the limits of the group and of those above leave. */
static uint64_t room_in_group(const char *mount, char *group, const char *limit, const char *usage)
{
	uint64_t room = ~0ull;
	char path[PATH_MAX];

	for (;;) {
		snprintf(path, sizeof(path), "%s%s/%s", mount, group, limit);
		uint64_t most = number_in(path);
		snprintf(path, sizeof(path), "%s%s/%s", mount, group, usage);
		uint64_t used = number_in(path);

		if (most != ~0ull && used != ~0ull)
			room = min(room, most > used ? most - used : 0);
		char *slash = strrchr(group, '/');
		if (!slash)
			return room;
		*slash = '\0';
	}
}

/* Lines are "ID:CONTROLLER,CONTROLLER:/PATH". */
static uint64_t room_in_groups(const struct dump_task *t)
{
	autofree char *text = NULL;
	uint64_t room = ~0ull;
	char *save = NULL;

	if (read_file_at(t->process->proc_fd, "cgroup", &text) < 0)
		return room;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!group)
			continue;
		*group++ = '\0';
		for (size_t i = 0; i < ARRAY_SIZE(hierarchies); i++)
			if (!strcmp(controllers + 1, hierarchies[i].controllers))
				room = min(room, room_in_group(hierarchies[i].mount, group,
							       hierarchies[i].limit,
							       hierarchies[i].usage));
	}
	return room;
}

static uint64_t available_memory(void)
{
	autofree char *text = NULL;

	if (read_file_at(AT_FDCWD, "/proc/meminfo", &text) < 0)
		return 0;
	const char *line = strstr(text, "MemAvailable:");
	return line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) << 10 : 0;
}

/* Pages that the kernel copies from a small store, and takes from the copy if that is empty. */
static bool has_huge_private(const struct dump_task *t)
{
	for (size_t i = 0; i < t->maps.n; i++)
		if (t->maps.m[i].vm_flags & VMF_HT && !t->maps.m[i].shared)
			return true;
	return false;
}

/* Copies get this parent in place of the one that made them. */
static bool is_subreaper(const struct dump_task *t)
{
	const TaskCoreEntry *tc = t->threads[0].core->tc;

	return tc->has_child_subreaper && tc->child_subreaper;
}

/* Private memory is forked in any case, attachments are not: each counts, and leaves its time. */
static size_t list_ranges(const struct dump_task *t, struct copy_range *ranges)
{
	size_t n = 0;

	for (size_t i = 0; i < t->mm->n_vmas && n <= COPY_RANGES_MAX; i++) {
		const VmaEntry *v = t->mm->vmas[i];

		if (v->status & VMA_SYSVIPC && !(v->madv >> MADV_DONTFORK & 1) &&
		    n++ < COPY_RANGES_MAX)
			ranges[n - 1] =
				(struct copy_range){ v->start, v->end, MADV_DONTFORK, MADV_DOFORK };
	}
	for (size_t i = 0; i < t->maps.n && n <= COPY_RANGES_MAX; i++) {
		const struct mapping *m = &t->maps.m[i];

		if (m->shared || m->vm_flags & VMF_DP)
			continue;
		if (m->vm_flags & VMF_DC && n++ < COPY_RANGES_MAX)
			ranges[n - 1] =
				(struct copy_range){ m->start, m->end, MADV_DOFORK, MADV_DONTFORK };
		if (m->vm_flags & VMF_WF && n++ < COPY_RANGES_MAX)
			ranges[n - 1] = (struct copy_range){ m->start, m->end, MADV_KEEPONFORK,
							     MADV_WIPEONFORK };
	}
	return n;
}

/* What it costs at most when all private pages are written to while there is a copy. */
static uint64_t cost_of(const struct dump_task *t)
{
	uint64_t kib = 0;

	for (size_t i = 0; i < t->maps.n; i++)
		kib += t->maps.m[i].shared ? 0 : t->maps.m[i].pss_kib;
	return kib << 10;
}

/* Why there can be no copy of the task, or NULL. All that the tree costs is taken to be in one
 * cgroup. */
static const char *why_not(const struct dump_task *t, uint64_t cost)
{
	struct copy_range ranges[COPY_RANGES_MAX];

	if (is_subreaper(t))
		return "it would become the parent of copies (PR_SET_CHILD_SUBREAPER)";
	if (has_huge_private(t))
		return "it has private memory of huge pages (hugetlb)";
	if (list_ranges(t, ranges) > COPY_RANGES_MAX)
		return "too many of its mappings are not forked (MADV_DONTFORK), or attached "
		       "(shmat)";
	if (room_in_groups(t) < cost)
		return "its memory cgroup leaves no room for a copy of the tree";
	return NULL;
}

static void say_stopped(const struct dump_task *t, const char *why)
{
	warn("pid %d: %s: the tree stays stopped while its memory is written", t->process->pid,
	     why);
}

/* 0, 1 if there can be none, or an error. */
static int make_one(struct dump_task *t)
{
	struct copy_range ranges[COPY_RANGES_MAX];
	char why[128];
	int err = 0;

	t->pidfd = pidfd_open(t->process->pid, 0);
	if (t->pidfd < 0)
		return fail(errno, "pid %d: open a pidfd", t->process->pid);
	struct engine *e = t->in.engine;
	e->is_held = true;
	int rc = copy_make(&t->in, ranges, list_ranges(t, ranges), &t->copy, &err);
	e->is_held = false;
	if (rc == 0)
		rc = engine_check(e);
	if (rc <= 0)
		return rc;
	snprintf(why, sizeof(why), "no copy can be made of it (%s)", strerror(err));
	say_stopped(t, why);
	return 1;
}

static bool is_possible(const struct dump *d)
{
	uint64_t total = 0, cost = 0;

	for (size_t i = 0; i < d->n_tasks; i++) {
		total += mem_total_pages(&d->tasks[i].pages) * PAGE_SIZE_;
		cost += cost_of(&d->tasks[i]);
	}
	for (size_t i = 0; i < d->n_tasks; i++) {
		const struct dump_task *t = &d->tasks[i];
		const char *why = t->process->is_zombie ? NULL : why_not(t, cost);

		if (why) {
			say_stopped(t, why);
			return false;
		}
	}
	if (total <= MEM_HOLD_MAX) {
		info("no copies are needed: %lu KiB are held in memory", (long)(total >> 10));
		return false;
	}
	if (available_memory() < cost) {
		say_stopped(&d->tasks[0], "too little memory is available for a copy of the tree");
		return false;
	}
	return true;
}

/* Block by block: of some there may be nothing any more. */
static void collapse(int pidfd, const RangeEntry *r)
{
	for (uint64_t at = r->start; at + HUGE_SIZE <= r->end; at += HUGE_SIZE) {
		struct iovec v = { (void *)at, HUGE_SIZE };

		(void)syscall(SYS_process_madvise, pidfd, &v, 1, MADV_COLLAPSE, 0);
	}
}

void mem_end_copies(struct dump *d)
{
	/* As long as a copy lives, it has a share in the pages. */
	for (size_t i = 0; i < d->n_tasks; i++) {
		struct dump_task *t = &d->tasks[i];
		bool had_copy = t->copy.pid;

		copy_end(&t->copy);
		for (size_t j = 0; had_copy && j < t->mm->n_huge; j++)
			collapse(t->pidfd, t->mm->huge[j]);
		if (t->pidfd > 0)
			(void)close(t->pidfd);
		t->pidfd = 0;
	}
}

int mem_make_copies(struct dump *d)
{
	int rc = 0;

	if (!is_possible(d))
		return 0;
	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = make_one(&d->tasks[i]);
	if (rc != 0)
		mem_end_copies(d);
	return min(rc, 0);
}
