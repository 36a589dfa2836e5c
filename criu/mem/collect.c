/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Address spaces at dump: mappings become vma entries, and the pages that hold something of
 * their own are found. Images: mm-PID, pagemap-PID.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
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
#include "mem/aio.h"
#include "mem/mem.h"
#include "mem/shared.h"
#include "mem/vdsoelf.h"
#include "model/vma.h"
#include "ns/ipc.h"
#include "proc/text.h"

/* What images have no way to say, or this version does not restore. */
static const struct {
	uint32_t flag;
	const char *what;
} refused_flags[] = {
	{ VMF_IO, "is memory of a device" },	   { VMF_PF, "is memory of a device" },
	{ VMF_UM, "is watched by a userfaultfd" }, { VMF_UW, "is watched by a userfaultfd" },
	{ VMF_UI, "is watched by a userfaultfd" }, { VMF_SS, "is a shadow stack" },
	{ VMF_SL, "is sealed (mseal)" },
};

/* Kernel objects whose mappings look like files. */
static const struct {
	const char *prefix;
	const char *what;
} refused_names[] = {
	{ "[uprobes]", "belongs to a debugger (uprobes)" },
	{ "anon_inode:", "belongs to a kernel object" },
	{ "/secretmem", "is secret memory (memfd_secret), which nobody else can read" },
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
#define MEMFD_PREFIX	   "/memfd:"
#define NAME_PREFIX	   "[anon:"
#define HUGE_ANON_PATH	   "/anon_hugepage (deleted)"
#define SYSV_PREFIX	   "/SYSV"
#define HUGE_ID		   (1ull << 32) /* sets inodes of hugetlbfs apart from those of tmpfs, */
#define NOT_SYSV_ID	   (1ull << 33) /* and those from ids of System V shared memory */
#define LINK_MAX_	   64		/* of a name in map_files */

static bool is_special(const struct mapping *m, const char *name)
{
	return !strcmp(m->path, name);
}

static void refuse_mapping(struct dump *d, struct dump_task *t, const struct mapping *m,
			   const char *why)
{
	dump_block(d, "pid %d: its mapping %#lx-%#lx %s%s%s; this cannot be dumped by this version",
		   t->process->pid, (long)m->start, (long)m->end, m->path, *m->path ? " " : "",
		   why);
}

static void put_link(char link[LINK_MAX_], const struct mapping *m)
{
	snprintf(link, LINK_MAX_, "map_files/%lx-%lx", (long)m->start, (long)m->end);
}

static bool is_sysv(const struct mapping *m)
{
	return !strncmp(m->path, SYSV_PREFIX, strlen(SYSV_PREFIX)) && !m->dev_major && m->shared;
}

/* Others may use the segment, and it outlives the tree. */
static void refuse_sysv(struct dump *d, struct dump_task *t, const struct mapping *m)
{
	char link[LINK_MAX_];
	struct stat st = { 0 };

	put_link(link, m);
	(void)fstatat(t->process->proc_fd, link, &st, 0);
	dump_block(d,
		   "pid %d: its mapping %#lx-%#lx is System V shared memory (key 0x%.8s, id %lu, "
		   "%lld bytes), which belongs to an IPC namespace that is not the tree's; let the "
		   "program detach it (shmdt) for the dump, or run the tree in an IPC namespace of "
		   "its own",
		   t->process->pid, (long)m->start, (long)m->end, m->path + strlen(SYSV_PREFIX),
		   (long)m->ino, (long long)st.st_size);
}

/* Returns true if the mapping can be dumped. */
static bool check_mapping(struct dump *d, struct dump_task *t, const struct mapping *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused_flags); i++) {
		if (m->vm_flags & refused_flags[i].flag) {
			refuse_mapping(d, t, m, refused_flags[i].what);
			return false;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(refused_names); i++) {
		if (!strncmp(m->path, refused_names[i].prefix, strlen(refused_names[i].prefix))) {
			refuse_mapping(d, t, m, refused_names[i].what);
			return false;
		}
	}
	if (is_sysv(m) && !d->ipc)
		refuse_sysv(d, t, m);
	else if (is_sysv(m) && !ipc_has_segment(d, m->ino))
		refuse_mapping(d, t, m,
			       "is of System V shared memory, but not of its IPC namespace");
	else if (!m->shared && is_special(m, SHARED_ANON_PATH) && !m->dev_major)
		refuse_mapping(d, t, m, "is a private view of shared anonymous memory");
	else
		return true;
	return false;
}

/* Huge pages of hugetlbfs without a file that the program could see. */
static bool is_huge_anon(const struct mapping *m)
{
	return m->vm_flags & VMF_HT && !strcmp(m->path, HUGE_ANON_PATH);
}

/* On tmpfs of the kernel's own; named by prctl(PR_SET_VMA) it has another path. */
static bool is_shared_anon(const struct mapping *m)
{
	return m->shared && m->ino && !m->dev_major &&
	       (is_huge_anon(m) || !strcmp(m->path, SHARED_ANON_PATH) ||
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

static bool is_aio_ring(const struct mapping *m)
{
	return m->shared && !strncmp(m->path, AIO_PREFIX, strlen(AIO_PREFIX));
}

static uint32_t status_of(const struct mapping *m)
{
	if (is_aio_ring(m))
		return VMA_REGULAR | VMA_AIO_RING;
	if (is_sysv(m))
		return VMA_REGULAR | VMA_ANON_SHARED | VMA_SYSVIPC;
	if (is_shared_anon(m))
		return VMA_REGULAR | VMA_ANON_SHARED;
	if (m->ino && !is_huge_anon(m))
		return VMA_REGULAR | (m->shared ? VMA_FILE_SHARED : VMA_FILE_PRIVATE) |
		       (strncmp(m->path, MEMFD_PREFIX, strlen(MEMFD_PREFIX)) ? 0 : VMA_MEMFD);
	if (is_special(m, "[heap]"))
		return VMA_REGULAR | VMA_HEAP | VMA_ANON_PRIVATE;
	if (is_special(m, "[stack]"))
		return VMA_REGULAR | VMA_STACK | VMA_ANON_PRIVATE;
	return VMA_REGULAR | (m->shared ? VMA_ANON_SHARED : VMA_ANON_PRIVATE);
}

/* How the file behind a mapping was opened: the mode of its link in map_files tells. */
static int link_flags(const struct dump_task *t, const char *link, uint32_t *ret_flags)
{
	pid_t pid = t->process->pid;
	struct stat st;

	if (fstatat(t->process->proc_fd, link, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(errno, "pid %d: look at /proc/%d/%s", pid, pid, link);
	*ret_flags = st.st_mode & S_IWUSR ? O_RDWR : O_RDONLY;
	return 0;
}

/* The link is the authority for what is mapped: it works for files that are gone. */
static int put_file(struct dump *d, struct dump_task *t, const struct mapping *m, VmaEntry *e,
		    mem_file_id_fn file_id)
{
	char link[LINK_MAX_], what[80];
	uint32_t id, flags;

	put_link(link, m);
	int rc = link_flags(t, link, &flags);
	if (rc < 0)
		return rc;
	snprintf(what, sizeof(what), "mapping %#lx-%#lx", (long)m->start, (long)m->end);
	rc = file_id(d, t, link, flags, what, &id);
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

static uint32_t map_flags_of(const struct mapping *m)
{
	uint32_t flags = m->shared		? MAP_SHARED
			 : m->vm_flags & VMF_DP ? MAP_DROPPABLE
						: MAP_PRIVATE;

	if (!m->ino || is_huge_anon(m) || is_shared_anon(m) || is_sysv(m))
		flags |= MAP_ANONYMOUS;
	if (is_huge_anon(m) && m->page_kib)
		flags |= MAP_HUGETLB | (10 + __builtin_ctz(m->page_kib)) << MAP_HUGE_SHIFT;
	if (m->vm_flags & VMF_GD)
		flags |= MAP_GROWSDOWN;
	if (m->vm_flags & VMF_NR)
		flags |= MAP_NORESERVE;
	if (m->vm_flags & VMF_LO)
		flags |= MAP_LOCKED;
	return flags;
}

/* A name that a program gave its anonymous memory (PR_SET_VMA), or NULL. */
static char *name_of(struct arena *a, const struct mapping *m)
{
	const char *prefix = m->shared ? SHARED_NAME_PREFIX : NAME_PREFIX;

	if (strncmp(m->path, prefix, strlen(prefix)))
		return NULL;
	char *name = arena_strdup(a, m->path + strlen(prefix));
	size_t len = strlen(name);
	if (len && name[len - 1] == ']')
		name[len - 1] = '\0';
	return name;
}

static void note_segment(struct dump *d, struct dump_task *t, const struct mapping *m, VmaEntry *e)
{
	e->shmid = m->ino | (is_huge_anon(m) ? HUGE_ID : 0);
	if (ipc_has_segment(d, e->shmid))
		e->shmid |= NOT_SYSV_ID;
	e->pgoff = m->pgoff;
	shared_note(d, t, e);
}

/* Whether it is to be written to tells how it was attached, whatever its protection is by now. */
static int note_attachment(struct dump *d, struct dump_task *t, const struct mapping *m,
			   VmaEntry *e)
{
	char link[LINK_MAX_];
	uint64_t key = 0;

	e->shmid = m->ino;
	e->pgoff = m->pgoff;
	put_link(link, m);
	int rc = link_flags(t, link, &e->fdflags);
	if (rc < 0)
		return rc;
	e->has_fdflags = true;
	(void)text_hex(m->path + strlen(SYSV_PREFIX), &key);
	ipc_note_attachment(d, t, e, key);
	return 0;
}

/*
 * The vDSO, as a task knows it: of this kernel, or plain memory if it has been restored from
 * another one (mem/vdso.c). That of this kernel is only in its service then, and is not dumped.
 */
struct vdso_parts {
	const struct mapping *old_code, *old_data;
};

static bool is_kernel_data(const struct mapping *m)
{
	return is_special(m, "[vvar]") || is_special(m, "[vvar_vclock]");
}

static bool is_vdso_code(const struct vdso_parts *p, const struct mapping *m)
{
	return p->old_code ? m == p->old_code : is_special(m, "[vdso]");
}

static bool is_vdso_data(const struct vdso_parts *p, const struct mapping *m)
{
	return p->old_code ? m == p->old_data : is_kernel_data(m);
}

static bool is_in_service(const struct vdso_parts *p, const struct mapping *m)
{
	return p->old_code && (is_special(m, "[vdso]") || is_kernel_data(m));
}

/* Threads in that of this kernel have to find it again: it is dumped, and the old one, too. */
static bool is_running_in_service(const struct dump_task *t)
{
	const struct mapping *m = maps_named(&t->maps, "[vdso]");

	for (size_t i = 0; m && i < t->process->n_threads; i++) {
		uint64_t ip = regs_pc(&t->process->threads[i].regs);

		if (ip >= m->start && ip < m->end)
			return true;
	}
	return false;
}

/* It is where AT_SYSINFO_EHDR says, and has the mark. */
static struct vdso_parts find_old_vdso(struct dump_task *t)
{
	struct vdso_parts parts = { 0 };
	const struct mapping *m = NULL;
	uint8_t head[64];
	struct vdso_mark mark;

	for (size_t i = 0; i + 1 < t->mm->n_mm_saved_auxv; i += 2)
		if (t->mm->mm_saved_auxv[i] == AT_SYSINFO_EHDR)
			m = maps_find(&t->maps, t->mm->mm_saved_auxv[i + 1]);
	if (!m || m->ino || m->shared || m->path[0] || m->prot != (PROT_READ | PROT_EXEC) ||
	    pread_all(process_mem(t->process), head, sizeof(head), m->start) < 0 ||
	    !vdso_mark_get(head, sizeof(head), &mark) || is_running_in_service(t))
		return parts;
	parts.old_code = m;
	uint64_t size = mark.data_pages * PAGE_SIZE_;
	const struct mapping *data =
		size ? maps_find(&t->maps, mark.is_data_before ? m->start - size : m->end) : NULL;
	if (data && data->end - data->start == size && !data->ino && data->prot == PROT_READ)
		parts.old_data = data;
	return parts;
}

static int add_vma(struct dump *d, struct dump_task *t, const struct mapping *m, bool is_vdso,
		   const struct mapping *before, const VmaEntry *last, mem_file_id_fn file_id)
{
	VmaEntry *e = MESSAGE(&d->arena, VmaEntry, vma_entry);

	e->start = m->start;
	e->end = m->end;
	e->prot = m->prot;
	e->status = is_vdso ? VMA_REGULAR | VMA_VDSO | VMA_ANON_PRIVATE : status_of(m);
	e->flags = map_flags_of(m);
	e->fd = -1;
	e->name = name_of(&d->arena, m);
	if (m->vm_flags & VMF_AC && !(m->prot & PROT_WRITE) && !(e->status & VMA_VDSO))
		e->has_is_reserved = e->is_reserved = true;
	if (is_locked_on_fault(m))
		e->has_lock_onfault = e->lock_onfault = true;
	/* The kernel itself gives a key to what can only be executed. */
	e->has_pkey = m->pkey && m->prot != PROT_EXEC;
	e->pkey = e->has_pkey ? m->pkey : 0;
	*ARENA_PUSH(&d->arena, t->mm->vmas, t->mm->n_vmas) = e;
	if (e->status & VMA_VDSO)
		return 0;
	e->has_madv = true;
	e->madv = advice_of(m);
	if (!check_mapping(d, t, m))
		return 0;
	if (is_aio_ring(m))
		aio_collect(d, t, m);
	if (is_sysv(m))
		return note_attachment(d, t, m, e);
	if (is_shared_anon(m) || is_huge_anon(m))
		note_segment(d, t, m, e);
	if (!(e->status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED)))
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
	const struct vdso_parts vdso = find_old_vdso(t);
	const struct mapping *before = NULL;

	for (size_t i = 0; i < t->maps.n; i++) {
		const struct mapping *m = &t->maps.m[i];
		const VmaEntry *last = t->mm->n_vmas ? t->mm->vmas[t->mm->n_vmas - 1] : NULL;
		int rc = 0;

		if (is_special(m, "[vsyscall]") || is_in_service(&vdso, m))
			continue;
		if (is_vdso_data(&vdso, m))
			add_vvar(d, t, m);
		else
			rc = add_vma(d, t, m, is_vdso_code(&vdso, m), before, last, file_id);
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

void mem_collect_lock_future(struct dump *d, struct dump_task *t, uint64_t raddr)
{
	struct maps maps;
	int rc = maps_read(t->process->proc_fd, "smaps", &d->arena, &maps);
	const struct mapping *m = rc < 0 ? NULL : maps_find(&maps, raddr);

	if (!m)
		dump_block(d, "pid %d: whether it locks new memory (mlockall) cannot be told",
			   t->process->pid);
	if (!m || !(m->vm_flags & VMF_LO))
		return;
	t->mm->has_lock_future = true;
	t->mm->lock_future = MCL_FUTURE | (is_locked_on_fault(m) ? MCL_ONFAULT : 0);
}

/* The page table of one task, read by the best way that the kernel has. */
struct page_scan {
	int fd; /* /proc/PID/pagemap */
	bool last_is_file;
	bool has_ioctl;
	bool tells_guards; /* 6.15 */
	struct dump *d;
	struct dump_task *t;
	size_t vma;	  /* the one that is looked at */
	uint64_t *window; /* entries that were read, of the addresses below; NULL: none yet */
	uint64_t window_start, window_end;
};

static void end_scan(struct page_scan *s)
{
	free(s->window);
}

#define autoscan __attribute__((cleanup(end_scan)))

/* Runs of private files and of anonymous memory stay apart: zero pages mean something there. */
static void add_run(struct page_scan *s, bool is_file, uint64_t start, uint64_t end)
{
	struct saved_pages *p = &s->t->pages;
	struct page_run *last = p->n_runs ? &p->runs[p->n_runs - 1] : NULL;

	if (last && page_run_end(last) == start && s->last_is_file == is_file)
		last->pages += (end - start) / PAGE_SIZE_;
	else
		*ARENA_PUSH(&s->d->arena, p->runs, p->n_runs) =
			(struct page_run){ .vaddr = start, .pages = (end - start) / PAGE_SIZE_ };
	s->last_is_file = is_file;
}

void mem_add_range(struct arena *a, RangeEntry ***list, size_t *n, uint64_t start, uint64_t end)
{
	RangeEntry *last = *n ? (*list)[*n - 1] : NULL;

	if (last && last->end == start) {
		last->end = end;
		return;
	}
	RangeEntry *e = MESSAGE(a, RangeEntry, range_entry);
	e->start = start;
	e->end = end;
	*ARENA_PUSH(a, *list, *n) = e;
}

static bool is_private(const VmaEntry *e)
{
	return e->status & (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE);
}

/* Droppable memory comes back empty: it holds what must not be used twice, like random state. */
static bool has_pages(const VmaEntry *e)
{
	return is_private(e) && (e->flags & MAP_TYPE) != MAP_DROPPABLE &&
	       !(e->status & (VMA_VVAR | VMA_VSYSCALL));
}

static void add_region(struct page_scan *s, const VmaEntry *e, const struct abi_page_region *region)
{
	MmEntry *mm = s->t->mm;
	struct arena *a = &s->d->arena;

	if (s->tells_guards && region->categories & ABI_PAGE_IS_GUARD) {
		mem_add_range(a, &mm->guards, &mm->n_guards, region->start, region->end);
		return;
	}
	add_run(s, e->status & VMA_FILE_PRIVATE, region->start, region->end);
	if (region->categories & ABI_PAGE_IS_HUGE && vma_may_be_huge(e))
		mem_add_range(a, &mm->huge, &mm->n_huge, region->start, region->end);
}

/*
 * Linux 6.7. Asking for PAGE_IS_FILE makes the kernel look every page up (four times slower), so
 * that is done only where the answer matters: private file mappings, for pages of their own.
 * A guard looks like a page that is swapped out, and must not be read.
 */
static int scan_by_ioctl(struct page_scan *s, const VmaEntry *e)
{
	struct abi_page_region regions[512];
	bool is_file = e->status & VMA_FILE_PRIVATE;
	uint32_t guard = s->tells_guards ? ABI_PAGE_IS_GUARD : 0;
	struct abi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = e->start,
		.end = e->end,
		.vec = (uint64_t)regions,
		.vec_len = ARRAY_SIZE(regions),
		.category_inverted = ABI_PAGE_IS_PFNZERO | (is_file ? ABI_PAGE_IS_FILE : 0),
		.category_mask = ABI_PAGE_IS_PFNZERO | (is_file ? ABI_PAGE_IS_FILE : 0),
		.category_anyof_mask =
			guard | (has_pages(e) ? ABI_PAGE_IS_PRESENT | ABI_PAGE_IS_SWAPPED : 0),
		.return_mask = guard | ABI_PAGE_IS_PRESENT | ABI_PAGE_IS_HUGE,
	};

	while (arg.start < arg.end) {
		int n = ioctl(s->fd, ABI_PAGEMAP_SCAN, &arg);

		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++)
			add_region(s, e, &regions[i]);
		arg.start = arg.walk_end;
	}
	return 0;
}

#define HUGE_PAGES 512ull

/* Do these entries of the page table look like one huge page: is the memory behind them in one
 * piece? */
static bool is_huge(const uint64_t *entry, size_t n)
{
	uint64_t first = entry[0] & ABI_PM_FRAME;

	if (n != HUGE_PAGES || !first || first % HUGE_PAGES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(entry[i] & ABI_PM_PRESENT) || (entry[i] & ABI_PM_FRAME) != first + i)
			return false;
	return true;
}

#define WINDOW_PAGES 4096ull
#define WINDOW_GAP   64ull /* pages that are read in vain rather than by another call */

/* Where a read that starts at pos in mapping e had better end: behind others that are near. */
static uint64_t window_end(const struct page_scan *s, const VmaEntry *e, uint64_t pos)
{
	const MmEntry *mm = s->t->mm;
	uint64_t limit = pos + WINDOW_PAGES * PAGE_SIZE_, end = min(e->end, limit);

	for (size_t i = s->vma + 1; i < mm->n_vmas && end < limit; i++) {
		if (mm->vmas[i]->start > end + WINDOW_GAP * PAGE_SIZE_)
			break;
		end = min(max(mm->vmas[i]->end, end), limit);
	}
	return end;
}

/* The entries of n pages, HUGE_PAGES at most, of mapping e. NULL and errno. */
static const uint64_t *entries_at(struct page_scan *s, const VmaEntry *e, uint64_t pos, size_t n)
{
	if (pos < s->window_start || pos + n * PAGE_SIZE_ > s->window_end) {
		uint64_t end = window_end(s, e, pos);

		if (!s->window)
			s->window = xmalloc(WINDOW_PAGES * sizeof(*s->window));
		s->window_end = 0;
		int rc = pread_all(s->fd, s->window, (end - pos) / PAGE_SIZE_ * sizeof(uint64_t),
				   pos / PAGE_SIZE_ * sizeof(uint64_t));
		if (rc < 0) {
			errno = -rc;
			return NULL;
		}
		s->window_start = pos;
		s->window_end = end;
	}
	return s->window + (pos - s->window_start) / PAGE_SIZE_;
}

/*
 * This takes a second for each TiB of addresses, so what has no pages at all is left out (pages of
 * hugetlb are not in these sums). Entries are read for one huge page at a time: that it is one
 * shows only in their frames.
 */
static int scan_by_read(struct page_scan *s, const VmaEntry *e)
{
	const struct mapping *m = maps_find(&s->t->maps, e->start);
	bool is_file = e->status & VMA_FILE_PRIVATE;

	if (!m->rss_kib && !m->swap_kib && !(m->vm_flags & VMF_HT))
		return 0;
	for (uint64_t pos = e->start; pos < e->end;) {
		size_t n = min((e->end - pos) / PAGE_SIZE_,
			       HUGE_PAGES - pos / PAGE_SIZE_ % HUGE_PAGES);
		const uint64_t *entry = entries_at(s, e, pos, n);

		if (!entry)
			return -errno;
		if (m->huge_kib && vma_may_be_huge(e) && is_huge(entry, n))
			mem_add_range(&s->d->arena, &s->t->mm->huge, &s->t->mm->n_huge, pos,
				      pos + n * PAGE_SIZE_);
		for (size_t i = 0; i < n; i++, pos += PAGE_SIZE_)
			if (entry[i] & (ABI_PM_PRESENT | ABI_PM_SWAPPED) &&
			    !(is_file && entry[i] & ABI_PM_FILE))
				add_run(s, is_file, pos, pos + PAGE_SIZE_);
	}
	return 0;
}

/* Kernels before 6.15 do not know guards here, those before 6.7 not the ioctl. */
static int scan(struct page_scan *s, const VmaEntry *e)
{
	int rc = s->has_ioctl ? scan_by_ioctl(s, e) : -ENOTTY;

	if (rc == -EINVAL && s->tells_guards) {
		s->tells_guards = false;
		rc = has_pages(e) ? scan_by_ioctl(s, e) : 0;
	}
	if (rc != -ENOTTY && rc != -EINVAL)
		return rc;
	s->has_ioctl = s->tells_guards = false;
	return has_pages(e) ? scan_by_read(s, e) : 0;
}

/*
 * The kernel marks mappings that may have guards (gu in smaps) since 6.18. Shared ones without
 * the mark are looked at all the same: their guards are lost otherwise on kernels before.
 */
static bool has_to_be_scanned(const struct page_scan *s, const VmaEntry *e)
{
	return has_pages(e) || (s->tells_guards && !(e->status & (VMA_VVAR | VMA_VSYSCALL)));
}

int mem_collect_pages(struct dump *d, struct dump_task *t)
{
	autoclose int fd = openat(t->process->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);
	autoscan struct page_scan s = {
		.fd = fd, .has_ioctl = true, .tells_guards = true, .d = d, .t = t
	};

	if (fd < 0)
		return fail(errno, "pid %d: open pagemap", t->process->pid);
	t->pages.type = IMG_PAGEMAP;
	t->pages.id = t->process->pid;
	for (size_t i = 0; i < t->mm->n_vmas; i++) {
		const VmaEntry *e = t->mm->vmas[i];

		s.vma = i;
		if (e->status & (VMA_VDSO | VMA_AIO_RING))
			add_run(&s, false, e->start, e->end);
		else if (has_to_be_scanned(&s, e)) {
			int rc = scan(&s, e);

			if (rc < 0)
				return fail(-rc, "pid %d: read pagemap of %#lx-%#lx",
					    t->process->pid, (long)e->start, (long)e->end);
		}
	}
	d->stats.pages_scanned += mem_total_pages(&t->pages);
	return 0;
}
