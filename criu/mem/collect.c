/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address spaces at dump: mappings become vma entries, and the pages that hold something of
 * their own are found. Images: mm-PID, pagemap-PID.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/mem.h"
#include "mem/shared.h"
#include "model/vma.h"

/* What images have no way to say, or this version does not restore. */
static const struct {
	uint32_t flag;
	const char *what;
} refused_flags[] = {
	{ VMF_IO, "is memory of a device" },	   { VMF_PF, "is memory of a device" },
	{ VMF_HT, "has huge pages of hugetlbfs" }, { VMF_UM, "is watched by a userfaultfd" },
	{ VMF_UW, "is watched by a userfaultfd" }, { VMF_UI, "is watched by a userfaultfd" },
	{ VMF_SS, "is a shadow stack" },	   { VMF_SL, "is sealed (mseal)" },
	{ VMF_DP, "is droppable memory" },	   { VMF_GU, "may have guard regions" },
};

/* Advice of madvise(2) that the kernel remembers: bit N of the madv field is advice N. */
static const struct {
	uint32_t flag;
	unsigned advice;
} remembered_advice[] = {
	{ VMF_SR, MADV_SEQUENTIAL }, { VMF_RR, MADV_RANDOM },	  { VMF_DC, MADV_DONTFORK },
	{ VMF_DD, MADV_DONTDUMP },   { VMF_MG, MADV_MERGEABLE },  { VMF_HG, MADV_HUGEPAGE },
	{ VMF_NH, MADV_NOHUGEPAGE }, { VMF_WF, MADV_WIPEONFORK },
};

#define SHARED_ANON_PATH   "/dev/zero (deleted)"
#define SHARED_NAME_PREFIX "[anon_shmem:"

static bool is_special(const struct mapping *m, const char *name)
{
	return !strcmp(m->path, name);
}

static void refuse_mapping(struct dump *d, struct dump_task *t, const struct mapping *m,
			   const char *why)
{
	dump_block(d, "pid %d: its mapping %#lx-%#lx %s %s; this cannot be dumped by this version",
		   t->process->pid, (long)m->start, (long)m->end, m->path, why);
}

static void check_mapping(struct dump *d, struct dump_task *t, const struct mapping *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused_flags); i++) {
		if (m->vm_flags & refused_flags[i].flag) {
			refuse_mapping(d, t, m, refused_flags[i].what);
			return;
		}
	}
	if (m->pkey)
		refuse_mapping(d, t, m, "has a protection key");
	else if (!strncmp(m->path, "/SYSV", 5))
		refuse_mapping(d, t, m, "is System V shared memory");
	else if (is_special(m, "[uprobes]") || !strncmp(m->path, "anon_inode:", 11))
		refuse_mapping(d, t, m, "belongs to a kernel object");
}

/* On tmpfs of the kernel's own; named by prctl(PR_SET_VMA) it has another path. */
static bool is_shared_anon(const struct mapping *m)
{
	return m->shared && m->ino && !m->dev_major &&
	       (!strcmp(m->path, SHARED_ANON_PATH) ||
		!strncmp(m->path, SHARED_NAME_PREFIX, strlen(SHARED_NAME_PREFIX)));
}

static uint64_t advice_of(const struct mapping *m)
{
	uint64_t madv = 0;

	for (size_t i = 0; i < ARRAY_SIZE(remembered_advice); i++)
		if (m->vm_flags & remembered_advice[i].flag)
			madv |= 1ull << remembered_advice[i].advice;
	return madv;
}

static uint32_t status_of(const struct mapping *m)
{
	if (is_special(m, "[vdso]"))
		return VMA_REGULAR | VMA_VDSO | VMA_ANON_PRIVATE;
	if (is_shared_anon(m))
		return VMA_REGULAR | VMA_ANON_SHARED;
	if (m->ino)
		return VMA_REGULAR | (m->shared ? VMA_FILE_SHARED : VMA_FILE_PRIVATE) |
		       (strncmp(m->path, "/memfd:", 7) ? 0 : VMA_MEMFD);
	if (is_special(m, "[heap]"))
		return VMA_REGULAR | VMA_HEAP | VMA_ANON_PRIVATE;
	if (is_special(m, "[stack]"))
		return VMA_REGULAR | VMA_STACK | VMA_ANON_PRIVATE;
	return VMA_REGULAR | (m->shared ? VMA_ANON_SHARED : VMA_ANON_PRIVATE);
}

/*
 * The link in map_files is the authority for what is mapped: it works for files that are gone,
 * and its mode tells how the file was opened.
 */
static int put_file(struct dump *d, struct dump_task *t, const struct mapping *m, VmaEntry *e,
		    mem_file_id_fn file_id)
{
	char link[64], what[80];
	struct stat st;
	uint32_t id;

	snprintf(link, sizeof(link), "map_files/%lx-%lx", (long)m->start, (long)m->end);
	if (fstatat(t->process->proc_fd, link, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(errno, "pid %d: look at /proc/%d/%s", t->process->pid, t->process->pid,
			    link);
	int flags = st.st_mode & S_IWUSR ? O_RDWR : O_RDONLY;
	snprintf(what, sizeof(what), "mapping %#lx-%#lx", (long)m->start, (long)m->end);
	int rc = file_id(d, t, link, flags, what, &id);
	if (rc < 0)
		return rc;
	e->shmid = id;
	e->pgoff = m->pgoff;
	e->has_fdflags = true;
	e->fdflags = flags;
	return 0;
}

/* Most neighbours map the same file: what was found for one holds for the next. */
static bool same_file(const struct mapping *m, const struct mapping *before)
{
	return before && before->ino && before->ino == m->ino &&
	       before->dev_major == m->dev_major && before->dev_minor == m->dev_minor &&
	       !strcmp(before->path, m->path) && before->shared == m->shared && !m->shared;
}

static int add_vma(struct dump *d, struct dump_task *t, const struct mapping *m,
		   const struct mapping *before, const VmaEntry *last, mem_file_id_fn file_id)
{
	VmaEntry *e = MESSAGE(&d->arena, VmaEntry, vma_entry);

	e->start = m->start;
	e->end = m->end;
	e->prot = m->prot;
	e->status = status_of(m);
	e->flags = m->shared ? MAP_SHARED : MAP_PRIVATE;
	e->fd = -1;
	if (!m->ino || is_shared_anon(m))
		e->flags |= MAP_ANONYMOUS;
	if (m->vm_flags & VMF_GD)
		e->flags |= MAP_GROWSDOWN;
	if (m->vm_flags & VMF_NR)
		e->flags |= MAP_NORESERVE;
	if (m->vm_flags & VMF_LO)
		e->flags |= MAP_LOCKED;
	if (m->vm_flags & VMF_LF)
		e->has_lock_onfault = e->lock_onfault = true;
	if (!(e->status & VMA_VDSO)) {
		e->has_madv = true;
		e->madv = advice_of(m);
		check_mapping(d, t, m);
	}
	*ARENA_PUSH(&d->arena, t->mm->vmas, t->mm->n_vmas) = e;
	if (is_shared_anon(m)) {
		e->shmid = m->ino;
		e->pgoff = m->pgoff;
		shared_note(d, t, e);
		return 0;
	}
	if (!m->ino)
		return 0;
	if (!same_file(m, before))
		return put_file(d, t, m, e, file_id);
	e->shmid = last->shmid;
	e->pgoff = m->pgoff;
	e->has_fdflags = true;
	e->fdflags = last->fdflags;
	return 0;
}

/* [vvar] and [vvar_vclock] (since 6.13) are one entry, as before they were split. */
static void add_vvar(struct dump *d, struct dump_task *t, const struct mapping *m)
{
	VmaEntry *last = t->mm->n_vmas ? t->mm->vmas[t->mm->n_vmas - 1] : NULL;

	if (last && last->status & VMA_VVAR && last->end == m->start) {
		last->end = m->end;
		return;
	}
	VmaEntry *e = MESSAGE(&d->arena, VmaEntry, vma_entry);
	e->start = m->start;
	e->end = m->end;
	e->prot = m->prot;
	e->flags = MAP_PRIVATE | MAP_ANONYMOUS;
	e->status = VMA_REGULAR | VMA_VVAR | VMA_ANON_PRIVATE;
	e->fd = -1;
	*ARENA_PUSH(&d->arena, t->mm->vmas, t->mm->n_vmas) = e;
}

static int add_vmas(struct dump *d, struct dump_task *t, mem_file_id_fn file_id)
{
	const struct mapping *before = NULL;

	for (size_t i = 0; i < t->maps.n; i++) {
		const struct mapping *m = &t->maps.m[i];
		const VmaEntry *last = t->mm->n_vmas ? t->mm->vmas[t->mm->n_vmas - 1] : NULL;
		int rc = 0;

		if (is_special(m, "[vsyscall]"))
			continue;
		if (is_special(m, "[vvar]") || is_special(m, "[vvar_vclock]"))
			add_vvar(d, t, m);
		else
			rc = add_vma(d, t, m, before, last, file_id);
		if (rc < 0)
			return rc;
		before = m;
	}
	return 0;
}

static int put_auxv(struct dump *d, struct dump_task *t)
{
	autofree char *auxv = NULL;
	ssize_t len = read_file_at(t->process->proc_fd, "auxv", &auxv);

	if (len < 0)
		return fail(-len, "pid %d: read auxv", t->process->pid);
	t->mm->mm_saved_auxv = arena_memdup(&d->arena, auxv, len);
	t->mm->n_mm_saved_auxv = len / sizeof(uint64_t);
	return 0;
}

int mem_collect(struct dump *d, struct dump_task *t, mem_file_id_fn file_id)
{
	const struct proc_stat *s = &t->process->stat;
	int rc = maps_read(t->process->proc_fd, "smaps", &d->arena, &t->maps);

	if (rc < 0)
		return fail(-rc, "pid %d: read smaps", t->process->pid);
	t->mm = MESSAGE(&d->arena, MmEntry, mm_entry);
	t->mm->mm_start_code = s->start_code;
	t->mm->mm_end_code = s->end_code;
	t->mm->mm_start_data = s->start_data;
	t->mm->mm_end_data = s->end_data;
	t->mm->mm_start_stack = s->start_stack;
	t->mm->mm_start_brk = s->start_brk;
	t->mm->mm_arg_start = s->arg_start;
	t->mm->mm_arg_end = s->arg_end;
	t->mm->mm_env_start = s->env_start;
	t->mm->mm_env_end = s->env_end;
	rc = put_auxv(d, t);
	if (rc == 0)
		rc = file_id(d, t, "exe", O_RDONLY, "executable", &t->mm->exe_file_id);
	if (rc == 0)
		rc = add_vmas(d, t, file_id);
	return rc;
}

/* The page table of one task, read by the best way that the kernel has. */
struct page_scan {
	int fd; /* /proc/PID/pagemap */
	bool last_is_file;
	bool has_ioctl;
	struct dump *d;
	struct dump_task *t;
};

/* Runs of private files and of anonymous memory stay apart: zero pages mean something there. */
static void add_run(struct page_scan *s, bool is_file, uint64_t start, uint64_t end)
{
	struct dump_task *t = s->t;
	struct page_run *last = t->pages.n_runs ? &t->pages.runs[t->pages.n_runs - 1] : NULL;

	if (last && last->vaddr + last->pages * PAGE_SIZE_ == start && s->last_is_file == is_file)
		last->pages += (end - start) / PAGE_SIZE_;
	else
		*ARENA_PUSH(&s->d->arena, t->pages.runs, t->pages.n_runs) =
			(struct page_run){ .vaddr = start, .pages = (end - start) / PAGE_SIZE_ };
	s->last_is_file = is_file;
}

/*
 * Linux 6.7. Asking for PAGE_IS_FILE makes the kernel look every page up (four times slower), so
 * that is done only where the answer matters: private file mappings, for pages of their own.
 */
static int scan_by_ioctl(struct page_scan *s, const VmaEntry *e)
{
	struct abi_page_region regions[512];
	bool is_file = e->status & VMA_FILE_PRIVATE;
	struct abi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = e->start,
		.end = e->end,
		.vec = (uint64_t)regions,
		.vec_len = ARRAY_SIZE(regions),
		.category_inverted = ABI_PAGE_IS_PFNZERO | (is_file ? ABI_PAGE_IS_FILE : 0),
		.category_mask = ABI_PAGE_IS_PFNZERO | (is_file ? ABI_PAGE_IS_FILE : 0),
		.category_anyof_mask = ABI_PAGE_IS_PRESENT | ABI_PAGE_IS_SWAPPED,
		.return_mask = ABI_PAGE_IS_PRESENT,
	};

	while (arg.start < arg.end) {
		int n = ioctl(s->fd, ABI_PAGEMAP_SCAN, &arg);

		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++)
			add_run(s, is_file, regions[i].start, regions[i].end);
		arg.start = arg.walk_end;
	}
	return 0;
}

#define PM_PRESENT (1ull << 63)
#define PM_SWAPPED (1ull << 62)
#define PM_FILE	   (1ull << 61)

static int scan_by_read(struct page_scan *s, const VmaEntry *e)
{
	uint64_t entry[512];
	bool is_file = e->status & VMA_FILE_PRIVATE;

	for (uint64_t pos = e->start; pos < e->end;) {
		size_t n = min((e->end - pos) / PAGE_SIZE_, (uint64_t)ARRAY_SIZE(entry));
		int rc = pread_all(s->fd, entry, n * sizeof(entry[0]),
				   pos / PAGE_SIZE_ * sizeof(entry[0]));

		if (rc < 0)
			return rc;
		for (size_t i = 0; i < n; i++, pos += PAGE_SIZE_)
			if (entry[i] & (PM_PRESENT | PM_SWAPPED) &&
			    !(is_file && entry[i] & PM_FILE))
				add_run(s, is_file, pos, pos + PAGE_SIZE_);
	}
	return 0;
}

static bool has_pages(const VmaEntry *e)
{
	return e->status & (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE) &&
	       !(e->status & (VMA_VVAR | VMA_VSYSCALL));
}

int mem_collect_pages(struct dump *d, struct dump_task *t)
{
	autoclose int fd = openat(t->process->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);
	struct page_scan s = { .fd = fd, .has_ioctl = true, .d = d, .t = t };

	if (fd < 0)
		return fail(errno, "pid %d: open pagemap", t->process->pid);
	for (size_t i = 0; i < t->mm->n_vmas; i++) {
		const VmaEntry *e = t->mm->vmas[i];
		int rc;

		if (!has_pages(e))
			continue;
		if (e->status & VMA_VDSO) {
			add_run(&s, false, e->start, e->end);
			continue;
		}
		rc = s.has_ioctl ? scan_by_ioctl(&s, e) : scan_by_read(&s, e);
		if (s.has_ioctl && (rc == -ENOTTY || rc == -EINVAL)) {
			s.has_ioctl = false;
			rc = scan_by_read(&s, e);
		}
		if (rc < 0)
			return fail(-rc, "pid %d: read pagemap of %#lx-%#lx", t->process->pid,
				    (long)e->start, (long)e->end);
	}
	for (size_t i = 0; i < t->pages.n_runs; i++)
		d->stats.pages_scanned += t->pages.runs[i].pages;
	return 0;
}
