/* SPDX-License-Identifier: GPL-2.0-only */
/* Mappings and pages of the test itself (mem/collect.c). */
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kernel/abi.h"
#include "mem/own_test.h"
#include "model/vma.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif
#define SIZE (4 * PAGE_SIZE_)

/* Memory of its own for each; the neighbours are of another kind. */
static void *map_apart(int prot, int flags, int fd, off_t offset)
{
	char *p = own_pages(SIZE / PAGE_SIZE_);
	void *got = mmap(p, SIZE, prot, flags | MAP_FIXED, fd, offset);

	return got == MAP_FAILED ? NULL : got;
}

static void collect(struct own *o, struct dump_task *t)
{
	own_begin(o);
	own_init_task(o, t, getpid());
	ASSERT_OK(mem_collect(&o->d, t, own_file_id));
}

static const VmaEntry *vma_at(const struct dump_task *t, const void *addr)
{
	for (size_t i = 0; i < t->mm->n_vmas; i++)
		if (t->mm->vmas[i]->start == (uint64_t)addr)
			return t->mm->vmas[i];
	test_fail(__FILE__, __LINE__, "no mapping starts at %p", addr);
}

/* ---- kinds of memory ---- */

enum backing { NOTHING, A_FILE, A_MEMFD };

static int open_backing(enum backing kind)
{
	int fd = -1;

	if (kind == A_FILE)
		fd = ASSERT_OK(openat(test_dir(), "f", O_RDWR | O_CREAT, 0600));
	if (kind == A_MEMFD)
		fd = ASSERT_OK(memfd_create("m", 0));
	if (fd >= 0)
		ASSERT_OK(ftruncate(fd, 8 * SIZE));
	return fd;
}

static const struct {
	enum backing backing;
	int flags;
	off_t offset;
	uint32_t status, expected_flags;
	int64_t fdflags; /* -1: none */
} kinds[] = {
	{ NOTHING, MAP_PRIVATE | MAP_ANONYMOUS, 0, VMA_ANON_PRIVATE, MAP_PRIVATE | MAP_ANONYMOUS,
	  -1 },
	{ NOTHING, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, 0, VMA_ANON_PRIVATE,
	  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1 },
	{ NOTHING, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, 0, VMA_ANON_PRIVATE,
	  MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1 },
	{ NOTHING, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, 0, VMA_ANON_PRIVATE,
	  MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1 },
	{ NOTHING, MAP_SHARED | MAP_ANONYMOUS, 0, VMA_ANON_SHARED, MAP_SHARED | MAP_ANONYMOUS, -1 },
	{ A_FILE, MAP_PRIVATE, 0, VMA_FILE_PRIVATE, MAP_PRIVATE, O_RDWR },
	{ A_FILE, MAP_SHARED, SIZE, VMA_FILE_SHARED, MAP_SHARED, O_RDWR },
	{ A_MEMFD, MAP_PRIVATE, SIZE, VMA_FILE_PRIVATE | VMA_MEMFD, MAP_PRIVATE, O_RDWR },
	{ A_MEMFD, MAP_SHARED, 0, VMA_FILE_SHARED | VMA_MEMFD, MAP_SHARED, O_RDWR },
};

TEST(collect, each_kind_of_memory_is_known)
{
	void *at[ARRAY_SIZE(kinds)];
	struct own o;
	struct dump_task t;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		int fd = open_backing(kinds[i].backing);

		at[i] = map_apart(PROT_READ | PROT_WRITE, kinds[i].flags, fd, kinds[i].offset);
		ASSERT(at[i]);
	}
	collect(&o, &t);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const VmaEntry *v = vma_at(&t, at[i]);

		ASSERT_EQ(v->status, VMA_REGULAR | kinds[i].status);
		ASSERT_EQ(v->flags, kinds[i].expected_flags);
		ASSERT_EQ(v->prot, PROT_READ | PROT_WRITE);
		ASSERT_EQ(v->end - v->start, SIZE);
		ASSERT_EQ(v->has_fdflags, kinds[i].fdflags >= 0);
		if (v->has_fdflags)
			ASSERT_EQ(v->fdflags, kinds[i].fdflags);
		if (kinds[i].backing)
			ASSERT_EQ(v->pgoff, kinds[i].offset);
		ASSERT_EQ(v->shmid != 0, kinds[i].backing || kinds[i].status == VMA_ANON_SHARED);
	}
	ASSERT_EQ(t.mm->exe_file_id, 1); /* it was asked for first */
	ASSERT(t.mm->n_mm_saved_auxv > 10);
	own_end(&o);
}

TEST(collect, mappings_come_by_address_and_the_special_ones_are_known)
{
	struct own o;
	struct dump_task t;
	uint32_t seen = 0;

	collect(&o, &t);
	for (size_t i = 0; i < t.mm->n_vmas; i++) {
		seen |= t.mm->vmas[i]->status;
		ASSERT(!i || t.mm->vmas[i]->start >= t.mm->vmas[i - 1]->end);
	}
	ASSERT((seen & VMA_STACK) && (seen & VMA_VDSO) && (seen & VMA_VVAR));
	ASSERT(!(seen & VMA_VSYSCALL)); /* every process has it */
	own_end(&o);
}

TEST(collect, where_parts_of_the_program_are_is_told_by_stat)
{
	struct own o;
	struct dump_task t;

	own_begin(&o);
	own_init_task(&o, &t, getpid());
	ASSERT_OK(proc_stat_read(t.process->proc_fd, &t.process->stat));
	ASSERT_OK(mem_collect(&o.d, &t, own_file_id));
	const struct proc_stat *s = &t.process->stat;
	const struct {
		uint64_t in_stat, in_image;
	} fields[] = {
		{ s->start_code, t.mm->mm_start_code },	  { s->end_code, t.mm->mm_end_code },
		{ s->start_data, t.mm->mm_start_data },	  { s->end_data, t.mm->mm_end_data },
		{ s->start_stack, t.mm->mm_start_stack }, { s->start_brk, t.mm->mm_start_brk },
		{ s->arg_start, t.mm->mm_arg_start },	  { s->arg_end, t.mm->mm_arg_end },
		{ s->env_start, t.mm->mm_env_start },	  { s->env_end, t.mm->mm_env_end },
	};
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		ASSERT(fields[i].in_stat);
		ASSERT_EQ(fields[i].in_image, fields[i].in_stat);
	}
	own_end(&o);
}

/* Neighbours of one file are asked for once. */
TEST(collect, a_file_that_is_mapped_in_pieces_is_one)
{
	struct own o;
	struct dump_task t;
	int fd = open_backing(A_FILE);
	char *p = map_apart(PROT_READ, MAP_PRIVATE, fd, 0);

	ASSERT_OK(mprotect(p + PAGE_SIZE_, PAGE_SIZE_, PROT_READ | PROT_WRITE));
	collect(&o, &t);
	const VmaEntry *first = vma_at(&t, p), *second = vma_at(&t, p + PAGE_SIZE_);
	ASSERT_EQ(first->shmid, second->shmid);
	ASSERT_EQ(second->pgoff, PAGE_SIZE_);
	ASSERT_EQ(second->fdflags, O_RDWR);
	own_end(&o);
}

static const int advices[] = {
	MADV_SEQUENTIAL, MADV_RANDOM,	MADV_DONTFORK,	 MADV_DONTDUMP,
	MADV_MERGEABLE,	 MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_WIPEONFORK,
};

TEST(collect, advice_is_remembered)
{
	void *at[ARRAY_SIZE(advices)];
	bool is_known[ARRAY_SIZE(advices)];
	struct own o;
	struct dump_task t;

	for (size_t i = 0; i < ARRAY_SIZE(advices); i++) {
		at[i] = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		is_known[i] = madvise(at[i], SIZE, advices[i]) == 0;
	}
	collect(&o, &t);
	for (size_t i = 0; i < ARRAY_SIZE(advices); i++) {
		const VmaEntry *v = vma_at(&t, at[i]);

		ASSERT(v->has_madv);
		ASSERT_EQ(v->madv, is_known[i] ? 1ull << advices[i] : 0);
	}
	own_end(&o);
}

TEST(collect, locks_on_fault_and_names_are_noted)
{
	struct own o;
	struct dump_task t;
	char *locked = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *named = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *shared = map_apart(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT_OK(syscall(SYS_mlock2, locked, SIZE, MLOCK_ONFAULT));
	bool has_names = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, named, SIZE, "my name:1") == 0;
	(void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, shared, SIZE, "shared");
	collect(&o, &t);
	ASSERT(vma_at(&t, locked)->lock_onfault);
	ASSERT(vma_at(&t, locked)->flags & MAP_LOCKED);
	ASSERT(!vma_at(&t, named)->lock_onfault);
	ASSERT(!vma_at(&t, locked)->name);
	if (has_names) {
		ASSERT_STR(vma_at(&t, named)->name, "my name:1");
		ASSERT_STR(vma_at(&t, shared)->name, "shared");
	}
	ASSERT_EQ(vma_at(&t, shared)->status, VMA_REGULAR | VMA_ANON_SHARED);
	own_end(&o);
}

/* ---- what cannot be dumped; NULL: this kernel does not have it ---- */

static void *make_sysv(void)
{
	int id = shmget(IPC_PRIVATE, SIZE, 0600);
	void *p = id < 0 ? NULL : shmat(id, NULL, 0);

	if (id >= 0)
		(void)shmctl(id, IPC_RMID, NULL);
	return p == (void *)-1 ? NULL : p;
}

static void *make_secret(void)
{
	int fd = syscall(SYS_memfd_secret, 0);

	return fd < 0 || ftruncate(fd, SIZE) < 0
		       ? NULL
		       : map_apart(PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static void *make_sealed(void)
{
	void *p = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return syscall(462 /* mseal */, p, SIZE, 0) < 0 ? NULL : p;
}

static void *make_watched(void)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	void *p = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = { .range = { (uint64_t)p, SIZE },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	return fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0
		       ? NULL
		       : p;
}

static void *make_keyed(void)
{
	int key = syscall(SYS_pkey_alloc, 0, 0);
	void *p = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return key < 0 || syscall(SYS_pkey_mprotect, p, SIZE, PROT_READ | PROT_WRITE, key) < 0
		       ? NULL
		       : p;
}

static void *make_private_view(void)
{
	char *shared = map_apart(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (long)shared,
		 (long)shared + (long)SIZE);
	int fd = open(path, O_RDWR);
	return fd < 0 ? NULL : map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
}

static const struct {
	void *(*make)(void);
	const char *text;
} refused[] = {
	{ make_sysv, "is System V shared memory" },
	{ make_secret, "is secret memory (memfd_secret)" },
	{ make_sealed, "is sealed (mseal)" },
	{ make_watched, "is watched by a userfaultfd" },
	{ make_keyed, "has a protection key" },
	{ make_private_view, "is a private view of shared anonymous memory" },
};

static bool is_blocked(const struct dump *d, const void *at, const char *text)
{
	char start[32];

	snprintf(start, sizeof(start), "mapping %#lx-", (long)at);
	for (size_t i = 0; i < d->n_blockers; i++)
		if (strstr(d->blockers[i], start) && strstr(d->blockers[i], text))
			return true;
	return false;
}

TEST(collect, what_images_cannot_hold_prevents_the_dump)
{
	void *at[ARRAY_SIZE(refused)];
	struct own o;
	struct dump_task t;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		at[i] = refused[i].make();
		n += at[i] != NULL;
	}
	ASSERT(n > 1);
	collect(&o, &t);
	ASSERT_EQ(o.d.n_blockers, n);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		ASSERT(!at[i] || is_blocked(&o.d, at[i], refused[i].text));
	own_end(&o);
}

TEST(collect, a_plain_program_has_nothing_that_prevents_it)
{
	struct own o;
	struct dump_task t;

	collect(&o, &t);
	ASSERT_EQ(o.d.n_blockers, 0);
	own_end(&o);
}

TEST(collect, that_new_memory_is_locked_shows_in_what_is_new)
{
	struct own o;
	struct dump_task t;
	char *plain = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *locked = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *on_fault = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_OK(syscall(SYS_mlock2, locked, SIZE, 0)); /* sanitizers make mlock do nothing */
	ASSERT_OK(syscall(SYS_mlock2, on_fault, SIZE, MLOCK_ONFAULT));
	collect(&o, &t);
	mem_collect_lock_future(&o.d, &t, (uint64_t)plain);
	ASSERT(!t.mm->has_lock_future);
	mem_collect_lock_future(&o.d, &t, (uint64_t)locked);
	ASSERT_EQ(t.mm->lock_future, MCL_FUTURE);
	mem_collect_lock_future(&o.d, &t, (uint64_t)on_fault);
	ASSERT_EQ(t.mm->lock_future, MCL_FUTURE | MCL_ONFAULT);
	ASSERT_EQ(o.d.n_blockers, 0);
	mem_collect_lock_future(&o.d, &t, 0);
	ASSERT_EQ(o.d.n_blockers, 1);
	own_end(&o);
}

/* ---- pages ---- */

/* Only these mappings of the task are looked at. */
static void collect_pages_at(struct own *o, struct dump_task *t, void *at)
{
	VmaEntry **one = arena_array(&o->d.arena, VmaEntry *, 1);

	one[0] = (VmaEntry *)vma_at(t, at);
	t->mm->vmas = one;
	t->mm->n_vmas = 1;
	ASSERT_OK(mem_collect_pages(&o->d, t));
}

static void expect_runs(const struct dump_task *t, const char *at, const char *pages)
{
	const struct page_run *run = t->pages.runs;
	size_t n = 0;

	for (size_t i = 0; pages[i]; i++) {
		if (pages[i] != '#' || (i && pages[i - 1] == '#'))
			continue;
		ASSERT(n < t->pages.n_runs);
		ASSERT_EQ(run[n].vaddr, (uint64_t)at + i * PAGE_SIZE_);
		ASSERT_EQ(run[n].pages, strspn(pages + i, "#"));
		n++;
	}
	ASSERT_EQ(t->pages.n_runs, n);
}

/* w: written; r: only read, which gives the page of zeroes; -: never touched */
static void touch(char *p, const char *how)
{
	for (size_t i = 0; how[i]; i++) {
		if (how[i] == 'w')
			p[i * PAGE_SIZE_] = 'w';
		if (how[i] == 'r')
			(void)*(volatile char *)(p + i * PAGE_SIZE_);
	}
}

TEST(collect, pages_that_were_written_to_are_stored)
{
	struct own o;
	struct dump_task t;
	char *p = own_pages(12);

	touch(p, "-ww-r-wrwww-");
	collect(&o, &t);
	collect_pages_at(&o, &t, p);
	expect_runs(&t, p, "_##___#_###_");
	ASSERT_EQ(mem_total_pages(&t.pages), 6);
	ASSERT_EQ(o.d.stats.pages_scanned, 6);
	own_end(&o);
}

TEST(collect, of_a_private_file_only_own_pages_are_stored)
{
	struct own o;
	struct dump_task t;
	int fd = open_backing(A_FILE);
	char *p = map_apart(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

	touch(p, "rwrw");
	collect(&o, &t);
	collect_pages_at(&o, &t, p);
	expect_runs(&t, p, "_#_#");
	own_end(&o);
}

TEST(collect, pages_of_shared_memory_are_not_the_tasks)
{
	struct own o;
	struct dump_task t;
	char *p = map_apart(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	touch(p, "wwww");
	collect(&o, &t);
	collect_pages_at(&o, &t, p);
	expect_runs(&t, p, "____");
	own_end(&o);
}

TEST(collect, memory_that_may_be_dropped_is)
{
	struct own o;
	struct dump_task t;
	char *p = own_pages(4);

	if (mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != p)
		test_skip("no MAP_DROPPABLE");
	touch(p, "wwww");
	collect(&o, &t);
	ASSERT_EQ(vma_at(&t, p)->flags & MAP_TYPE, MAP_DROPPABLE);
	collect_pages_at(&o, &t, p);
	expect_runs(&t, p, "____");
	own_end(&o);
}

#define MADV_GUARD_INSTALL_ 102 /* Linux 6.13; seen since 6.15 */

TEST(collect, guards_are_noted_and_not_read)
{
	struct own o;
	struct dump_task t;
	char *p = own_pages(8);

	touch(p, "wwwwwwww");
	if (madvise(p + 2 * PAGE_SIZE_, 2 * PAGE_SIZE_, MADV_GUARD_INSTALL_) < 0)
		test_skip("no guards");
	collect(&o, &t);
	collect_pages_at(&o, &t, p);
	if (!t.mm->n_guards)
		test_skip("guards cannot be seen");
	ASSERT_EQ(t.mm->n_guards, 1);
	ASSERT_EQ(t.mm->guards[0]->start, (uint64_t)p + 2 * PAGE_SIZE_);
	ASSERT_EQ(t.mm->guards[0]->end, (uint64_t)p + 4 * PAGE_SIZE_);
	expect_runs(&t, p, "##__####");
	own_end(&o);
}

TEST(collect, huge_pages_are_noted)
{
	const size_t huge = 2 << 20;
	struct own o;
	struct dump_task t;
	char *room = own_pages(4 * huge / PAGE_SIZE_), *p = room + huge - (uint64_t)room % huge;

	ASSERT_OK(madvise(room, 4 * huge, MADV_HUGEPAGE));
	p[0] = 'h';
	if (madvise(p, huge, 25 /* MADV_COLLAPSE */) < 0)
		test_skip("no huge page could be had");
	p[huge] = 's';
	collect(&o, &t);
	collect_pages_at(&o, &t, room);
	ASSERT(t.mm->n_huge >= 1);
	ASSERT_EQ(t.mm->huge[0]->start, (uint64_t)p);
	ASSERT(t.pages.runs[0].pages >= huge / PAGE_SIZE_);
	own_end(&o);
}
