/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is not consistent does not load (model/snapshot.c): a test for each fact that can be wrong,
 * and for values at the limits that are right.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "base/own.h"
#include "model/snapshot.h"
#include "model/vma.h"
#include "model/world_test.h"

static void expect_refused(void (*spoil)(struct world *w), const char *text)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	spoil(&w);
	ASSERT_REFUSED(world_try(&w, &s), text);
	world_end(&w, &s);
}

/* A test that spoils one fact of the world, which has to be refused with that text. */
#define REFUSED(what, text)                                                                        \
	static void spoil_##what(struct world *w);                                                 \
	TEST(snapshot, is_refused_if_##what)                                                       \
	{                                                                                          \
		expect_refused(spoil_##what, text);                                                \
	}                                                                                          \
	static void spoil_##what(struct world *w)

/* ---- values at their limits are right ---- */

static char *letters(struct world *w, size_t n)
{
	return memset(arena_alloc(&w->arena, n + 1), 'x', n);
}

static void stretch_thread(struct world *w, ThreadCoreEntry *t)
{
	CredsEntry *e = t->creds = MESSAGE(&w->arena, CredsEntry, creds_entry);

	e->n_cap_inh = e->n_cap_prm = e->n_cap_eff = e->n_cap_bnd = e->n_cap_amb = 2;
	e->n_groups = 65536;
	e->cap_inh = e->cap_prm = e->cap_eff = e->cap_bnd = e->cap_amb = e->groups =
		arena_array(&w->arena, uint32_t, e->n_groups);
	t->n_cpu_affinity = 128;
	t->n_numa_nodes = 16;
	t->cpu_affinity = t->numa_nodes = arena_array(&w->arena, uint64_t, 128);
	t->has_dispatch_selector = t->has_dispatch_offset = t->has_dispatch_len = true;
	t->comm = letters(w, 15);
}

static void stretch_process(struct world *w, TaskCoreEntry *t)
{
	t->comm = letters(w, 64);
	t->task_state = 3;
	t->has_stop_signo = true;
	t->stop_signo = 64;
	t->sigactions = arena_array(&w->arena, SaEntry *, 64);
	for (; t->n_sigactions < 64; t->n_sigactions++)
		t->sigactions[t->n_sigactions] = MESSAGE(&w->arena, SaEntry, sa_entry);
	t->rlimits = MESSAGE(&w->arena, TaskRlimitsEntry, task_rlimits_entry);
	t->rlimits->rlimits = arena_array(&w->arena, RlimitEntry *, 16);
	for (; t->rlimits->n_rlimits < 16; t->rlimits->n_rlimits++)
		t->rlimits->rlimits[t->rlimits->n_rlimits] =
			MESSAGE(&w->arena, RlimitEntry, rlimit_entry);
}

static void stretch_timer(PosixTimerEntry *e)
{
	e->it_id = e->overrun = INT32_MAX;
	e->isec = e->vsec = INT64_MAX / 1000000000 - 1;
	e->insec = e->vnsec = 999999999;
	e->it_sigev_notify = 2;
	e->si_signo = 1;
}

TEST(snapshot, all_limits_may_be_reached)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	stretch_thread(&w, w.thread->thread_core);
	stretch_process(&w, w.child.core->tc);
	stretch_timer(w.timer);
	w.root.mm->vmas[VMA_OF_ANON]->name = letters(&w, 80);
	w.root.mm->vmas[VMA_OF_HUGE]->end = 0x7ffffffff000;
	w.root.mm->has_lock_future = true;
	w.root.mm->lock_future = MCL_FUTURE | MCL_ONFAULT;
	w.tty->pty->index = (1 << 20) - 1;
	w.pipe_data->has_size = true;
	w.pipe_data->size = 1 << 30;
	w.lock->start = INT64_MAX - 5;
	w.lock->len = 5;
	w.fd->fd = INT32_MAX;
	w.dead.pstree->pid = 4194304;
	world_add(&w, IMG_CORE, 4194304, w.dead.core);
	world_load(&w, &s);
	world_end(&w, &s);
}

/* ---- images that have to be there ---- */

static const struct {
	enum image_type type;
	unsigned long id;
	const char *text;
} needed[] = {
	{ IMG_INVENTORY, 0, "image inventory.img is missing" },
	{ IMG_PSTREE, 0, "image pstree.img is missing" },
	{ IMG_FILES, 0, "image files.img is missing" },
	{ IMG_CORE, WORLD_ROOT, "image core-10.img is missing" },
	{ IMG_CORE, WORLD_THREAD, "image core-11.img is missing" },
	{ IMG_CORE, WORLD_DEAD, "image core-13.img is missing" },
	{ IMG_MM, WORLD_CHILD, "image mm-12.img is missing" },
	{ IMG_FS, WORLD_CHILD, "image fs-12.img is missing" },
	{ IMG_PAGEMAP, WORLD_CHILD, "image pagemap-12.img is missing" },
	{ IMG_SHMEM_PAGEMAP, WORLD_SEGMENT, "image pagemap-shmem-900.img is missing" },
	{ IMG_SHMEM_PAGEMAP, WORLD_MEMFD_PAGES, "image pagemap-shmem-500.img is missing" },
	{ IMG_GHOST_FILE, WORLD_GHOST, "image ghost-file-a1.img is missing" },
};

static void expect_needed(const struct world *w, enum image_type type, unsigned long id,
			  const char *text)
{
	char name[IMAGE_NAME_MAX], aside[IMAGE_NAME_MAX + 8];
	struct snapshot s;

	image_name(type, id, name);
	snprintf(aside, sizeof(aside), "%s.aside", name);
	ASSERT_OK(renameat(w->dir, name, w->dir, aside));
	ASSERT_REFUSED(snapshot_load(&s, w->dir), text);
	snapshot_done(&s);
	ASSERT_OK(renameat(w->dir, aside, w->dir, name));
}

TEST(snapshot, is_refused_if_an_image_is_missing)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	world_write(&w);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		expect_needed(&w, needed[i].type, needed[i].id, needed[i].text);
	ASSERT_OK(snapshot_load(&s, w.dir));
	world_end(&w, &s);
}

TEST(snapshot, is_refused_if_ids_are_nowhere)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.child.core->ids = NULL;
	ASSERT_REFUSED(world_try(&w, &s), "image ids-12.img is missing");
	world_end(&w, &s);
}

#define MAGICS_SIZE 8

/* What has an image has at least one entry in it. */
static void expect_refused_if_empty(const char *name, const char *text)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	world_write(&w);
	autoclose int fd = ASSERT_OK(openat(w.dir, name, O_WRONLY | O_CLOEXEC));
	ASSERT_OK(ftruncate(fd, MAGICS_SIZE));
	ASSERT_REFUSED(snapshot_load(&s, w.dir), text);
	world_end(&w, &s);
}

TEST(snapshot, is_refused_if_there_is_no_task)
{
	expect_refused_if_empty("pstree.img", "image pstree.img: there is no task in it");
}

TEST(snapshot, is_refused_if_a_ghost_is_empty)
{
	expect_refused_if_empty("ghost-file-a1.img", "image ghost-file-a1.img: it is empty");
}

REFUSED(the_version_is_unknown, "image inventory.img: version 3 of the format")
{
	w->inventory->img_version = 3;
}

REFUSED(descriptors_are_not_by_table, "image inventory.img: the images are of a version that")
{
	w->inventory->fdinfo_per_id = false;
}

REFUSED(tables_are_not_mentioned, "image inventory.img: the images are of a version that")
{
	w->inventory->has_fdinfo_per_id = false;
}

/* ---- pstree ---- */

REFUSED(a_pid_is_0, "image pstree.img: pid 0: its entry makes no sense")
{
	w->child.pstree->pid = 0;
}

REFUSED(a_pid_is_too_large, "image pstree.img: pid 4194305: its entry makes no sense")
{
	w->child.pstree->pid = 4194305;
}

REFUSED(the_first_thread_is_another, "image pstree.img: pid 10: its entry makes no sense")
{
	w->root.pstree->threads[0] = WORLD_THREAD;
}

REFUSED(a_thread_is_0, "image pstree.img: pid 10: a thread has the id 0")
{
	w->root.pstree->threads[1] = 0;
}

REFUSED(a_thread_is_too_large, "image pstree.img: pid 10: a thread has the id 4194305")
{
	w->root.pstree->threads[1] = 4194305;
}

REFUSED(a_parent_comes_later, "image pstree.img: pid 12: its parent 13 is not in the tree")
{
	w->child.pstree->ppid = WORLD_DEAD;
}

REFUSED(there_are_two_roots, "image pstree.img: pid 12: its parent 0 is not in the tree")
{
	w->child.pstree->ppid = 0;
}

REFUSED(an_id_is_used_twice, "image pstree.img: the id 13 is used twice")
{
	w->root.pstree->threads[1] = WORLD_DEAD;
}

REFUSED(there_are_too_many_tasks, "image pstree.img: too many tasks")
{
	PstreeEntry *e = arena_memdup(&w->arena, w->child.pstree, sizeof(*e));

	for (int i = 0; i <= 100000; i++)
		world_add(w, IMG_PSTREE, 0, e);
}

REFUSED(the_root_is_dead, "image pstree.img: the root 10 is dead")
{
	w->root.core->tc->task_state = 2;
	w->root.core->tc->timers = NULL;
	w->root.pstree->n_threads = 1;
}

REFUSED(a_table_is_shared_with_an_uncle, "image ids-14.img: it shares its descriptor table with 10")
{
	w->child.ids->files_id = 21;
	(void)world_add_task(w, 14, WORLD_CHILD, WORLD_TABLE);
	*ARENA_PUSH(&w->arena, w->pages, w->n_pages) =
		(struct world_pages){ .type = IMG_PAGEMAP, .id = 14, .pages_id = 14 };
}

/* ---- cores ---- */

REFUSED(a_thread_has_no_part, "image core-11.img: what belongs to the thread is missing")
{
	w->thread->thread_core = NULL;
}

REFUSED(a_process_has_no_part, "image core-12.img: what belongs to the process is missing")
{
	w->child.core->tc = NULL;
}

REFUSED(a_second_thread_is_a_process, "image core-11.img: it is not that of a second thread")
{
	w->thread->tc = w->root.core->tc;
}

REFUSED(a_second_thread_has_ids, "image core-11.img: it is not that of a second thread")
{
	w->thread->ids = w->root.ids;
}

REFUSED(a_zombie_has_threads, "image core-11.img: it is not that of a second thread")
{
	w->root.core->tc->task_state = 2;
}

static CredsEntry *give_creds(struct world *w)
{
	return w->thread->thread_core->creds = MESSAGE(&w->arena, CredsEntry, creds_entry);
}

static uint32_t *zeroes(struct world *w, size_t n)
{
	return arena_array(&w->arena, uint32_t, n);
}

#define REFUSED_CREDS(set, n)                                                                      \
	REFUSED(there_are_too_many_of_##set, "image core-11.img: its credentials make no sense")   \
	{                                                                                          \
		CredsEntry *e = give_creds(w);                                                     \
                                                                                                   \
		e->n_##set = n;                                                                    \
		e->set = zeroes(w, n);                                                             \
	}

REFUSED_CREDS(cap_inh, 3)
REFUSED_CREDS(cap_prm, 3)
REFUSED_CREDS(cap_eff, 3)
REFUSED_CREDS(cap_bnd, 3)
REFUSED_CREDS(cap_amb, 3)
REFUSED_CREDS(groups, 65537)

REFUSED(there_are_too_many_cpus, "image core-11.img: its CPUs, nodes or modes make no sense")
{
	w->thread->thread_core->n_cpu_affinity = 129;
	w->thread->thread_core->cpu_affinity = arena_array(&w->arena, uint64_t, 129);
}

REFUSED(there_are_too_many_nodes, "image core-11.img: its CPUs, nodes or modes make no sense")
{
	w->thread->thread_core->n_numa_nodes = 17;
	w->thread->thread_core->numa_nodes = arena_array(&w->arena, uint64_t, 17);
}

REFUSED(a_dispatch_has_no_offset, "image core-11.img: its CPUs, nodes or modes make no sense")
{
	w->thread->thread_core->has_dispatch_selector = true;
	w->thread->thread_core->has_dispatch_len = true;
}

REFUSED(a_dispatch_has_no_length, "image core-11.img: its CPUs, nodes or modes make no sense")
{
	w->thread->thread_core->has_dispatch_selector = true;
	w->thread->thread_core->has_dispatch_offset = true;
}

REFUSED(the_name_of_a_thread_is_too_long, "image core-11.img: its name is too long")
{
	w->thread->thread_core->comm = (char *)"sixteen letters!";
}

REFUSED(the_name_of_a_task_is_too_long, "image core-12.img: its name is too long")
{
	w->child.core->tc->comm = arena_printf(&w->arena, "%065d", 0);
}

REFUSED(a_state_is_0, "image core-12.img: unknown task state 0")
{
	w->child.core->tc->task_state = 0;
}

REFUSED(a_state_is_unknown, "image core-12.img: unknown task state 4")
{
	w->child.core->tc->task_state = 4;
}

REFUSED(a_signal_stops_that_is_none, "image core-12.img: signal actions or limits make no sense")
{
	w->child.core->tc->has_stop_signo = true;
	w->child.core->tc->stop_signo = 65;
}

REFUSED(there_are_more_keys_than_there_can_be,
	"image mm-10.img: its protection keys (0x10000) make no sense")
{
	w->root.mm->pkeys = 1u << 16;
	w->root.mm->has_pkeys = true;
}

REFUSED(a_mapping_has_a_key_that_there_is_not, "has a protection key 16, which there is not")
{
	w->root.mm->vmas[0]->has_pkey = true;
	w->root.mm->vmas[0]->pkey = 16;
}

REFUSED(a_descriptor_table_is_cut,
	"image core-12.img: a local descriptor table of 12 bytes cannot be")
{
	TaskCoreEntry *tc = w->child.core->tc;

	tc->has_ldt = true;
	tc->ldt.len = 12;
	tc->ldt.data = arena_alloc(&w->arena, 12);
}

REFUSED(there_are_too_many_actions, "image core-12.img: signal actions or limits make no sense")
{
	TaskCoreEntry *tc = w->child.core->tc;

	tc->sigactions = arena_array(&w->arena, SaEntry *, 65);
	for (; tc->n_sigactions < 65; tc->n_sigactions++)
		tc->sigactions[tc->n_sigactions] = MESSAGE(&w->arena, SaEntry, sa_entry);
}

REFUSED(there_are_too_many_limits, "image core-12.img: signal actions or limits make no sense")
{
	TaskRlimitsEntry *e = w->child.core->tc->rlimits =
		MESSAGE(&w->arena, TaskRlimitsEntry, task_rlimits_entry);

	e->rlimits = arena_array(&w->arena, RlimitEntry *, 17);
	for (; e->n_rlimits < 17; e->n_rlimits++)
		e->rlimits[e->n_rlimits] = MESSAGE(&w->arena, RlimitEntry, rlimit_entry);
}

/* The format itself requires them. */
REFUSED(an_interval_timer_is_missing, "image core-10.img: the entry at offset 8 cannot be parsed")
{
	w->root.core->tc->timers->virt = NULL;
}

/* ---- timers ---- */

#define REFUSED_TIMER(what, member, value)                                                         \
	REFUSED(what, "image core-10.img: POSIX timer ")                                           \
	{                                                                                          \
		w->timer->member = value;                                                          \
	}

REFUSED_TIMER(the_id_of_a_timer_is_too_large, it_id, 1u << 31)
REFUSED_TIMER(the_overruns_of_a_timer_are_too_many, overrun, 1u << 31)
REFUSED_TIMER(the_way_of_a_timer_is_unknown, it_sigev_notify, 3)
REFUSED_TIMER(the_way_of_a_timer_is_behind_all, it_sigev_notify, 5)
REFUSED_TIMER(the_signal_of_a_timer_is_0, si_signo, 0)
REFUSED_TIMER(the_signal_of_a_timer_is_none, si_signo, 65)
REFUSED_TIMER(the_interval_of_a_timer_is_too_long, isec, INT64_MAX / 1000000000)
REFUSED_TIMER(the_rest_of_a_timer_is_too_long, vsec, INT64_MAX / 1000000000)
REFUSED_TIMER(the_interval_of_a_timer_is_no_time, insec, 1000000000)
REFUSED_TIMER(the_rest_of_a_timer_is_no_time, vnsec, 1000000000)
REFUSED_TIMER(a_timer_is_for_a_foreign_thread, notify_thread_id, WORLD_CHILD)
REFUSED_TIMER(a_timer_counts_for_a_foreign_thread, clock_thread_id, WORLD_CHILD)

REFUSED(two_timers_have_one_id, "image core-10.img: there are two POSIX timers 6")
{
	TaskTimersEntry *timers = w->root.core->tc->timers;
	PosixTimerEntry *between = arena_memdup(&w->arena, w->timer, sizeof(*between));

	between->it_id = 7;
	timers->n_posix = 3;
	timers->posix = arena_array(&w->arena, PosixTimerEntry *, 3);
	timers->posix[0] = timers->posix[2] = w->timer;
	timers->posix[1] = between;
}

/* Who sends no signal has none. */
TEST(snapshot, a_timer_without_a_signal_needs_no_number_of_one)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.timer->it_sigev_notify = 1;
	w.timer->si_signo = 0;
	world_load(&w, &s);
	ASSERT_EQ(s.tasks[0].cores[0]->tc->timers->n_posix, 1);
	world_end(&w, &s);
}

/* ---- seccomp ---- */

REFUSED(a_filter_is_empty, "image seccomp.img: filter 0 makes no sense")
{
	w->seccomp->seccomp_filters[0]->filter.len = 0;
}

REFUSED(a_filter_ends_in_an_instruction, "image seccomp.img: filter 1 makes no sense")
{
	w->seccomp->seccomp_filters[1]->filter.len--;
}

static void lengthen(struct world *w, size_t filter, size_t insns)
{
	w->seccomp->seccomp_filters[filter]->filter =
		(ProtobufCBinaryData){ insns * 8, arena_alloc(&w->arena, insns * 8) };
}

REFUSED(a_filter_is_too_long, "image seccomp.img: filter 0 makes no sense")
{
	lengthen(w, 0, 4097);
}

REFUSED(a_filter_is_behind_none, "image seccomp.img: filter 1 makes no sense")
{
	w->seccomp->seccomp_filters[1]->prev = 2;
}

REFUSED(filters_go_round, "image seccomp.img: the filters of thread 11 are more than one can have")
{
	w->seccomp->seccomp_filters[1]->prev = 1;
}

REFUSED(a_thread_has_no_filter, "image core-11.img: it refers to a seccomp filter that")
{
	w->thread->thread_core->has_seccomp_filter = false;
}

REFUSED(a_thread_has_an_unknown_filter, "image core-11.img: it refers to a seccomp filter that")
{
	w->thread->thread_core->seccomp_filter = 2;
}

REFUSED(there_are_no_filters, "image core-11.img: it refers to a seccomp filter that")
{
	world_drop(w, IMG_SECCOMP, 0);
}

REFUSED(a_mode_of_seccomp_is_unknown, "image core-11.img: unknown seccomp mode 3")
{
	w->thread->thread_core->seccomp_mode = 3;
}

/* Each filter counts four instructions more: 7 * 4100 + 4064 + 4. */
static void make_long_chain(struct world *w, size_t last)
{
	SeccompEntry *e = w->seccomp;

	e->n_seccomp_filters = 8;
	e->seccomp_filters = arena_array(&w->arena, SeccompFilter *, 8);
	for (size_t i = 0; i < 8; i++) {
		e->seccomp_filters[i] = MESSAGE(&w->arena, SeccompFilter, seccomp_filter);
		e->seccomp_filters[i]->has_prev = i;
		e->seccomp_filters[i]->prev = i - 1;
		lengthen(w, i, i < 7 ? 4096 : last);
	}
	w->thread->thread_core->seccomp_filter = 7;
}

REFUSED(a_chain_of_filters_is_too_long, "image seccomp.img: the filters of thread 11 are more")
{
	make_long_chain(w, 4065);
}

TEST(snapshot, a_chain_of_filters_may_be_as_long_as_the_kernel_allows)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	make_long_chain(&w, 4064);
	world_load(&w, &s);
	world_end(&w, &s);
}

/* ---- files ---- */

REFUSED(two_files_have_one_id, "image files.img: two files have the id 0x6")
{
	world_add_path(w, WORLD_SOCKET, "/twice");
}

#define REFUSED_REFERENCE(what, place, text)                                                       \
	REFUSED(what##_is_nowhere,                                                                 \
		"pid 10: its " text " refers to the file 0x63, which files.img")                   \
	{                                                                                          \
		place = 0x63;                                                                      \
	}                                                                                          \
	REFUSED(what##_is_a_socket, "pid 10: its " text " refers to the file 0x6, which is none")  \
	{                                                                                          \
		place = WORLD_SOCKET;                                                              \
	}

REFUSED_REFERENCE(the_working_directory, w->root.fs->cwd_id, "working directory")
REFUSED_REFERENCE(the_root_directory, w->root.fs->root_id, "root directory")
REFUSED_REFERENCE(the_executable, w->root.mm->exe_file_id, "executable")
REFUSED_REFERENCE(a_mapped_file, w->root.mm->vmas[VMA_OF_FILE]->shmid, "mapping")

REFUSED(the_id_of_a_mapped_file_is_too_large, "pid 10: its mapping refers to the file 0x100000002")
{
	w->root.mm->vmas[VMA_OF_FILE]->shmid = (1ull << 32) + WORLD_PROGRAM;
}

REFUSED(a_mapped_memfd_is_nowhere, "pid 10: a mapping refers to the memfd 0x63")
{
	w->root.mm->vmas[VMA_OF_MEMFD]->shmid = 0x63;
}

REFUSED(a_mapped_memfd_is_a_file, "pid 10: a mapping refers to the memfd 0x2")
{
	w->root.mm->vmas[VMA_OF_MEMFD]->shmid = WORLD_PROGRAM;
}

REFUSED(a_descriptor_is_there_twice, "image fdinfo-20.img: descriptor 4 is there twice")
{
	w->fd->fd = 4;
}

REFUSED(a_descriptor_is_too_large, "image fdinfo-20.img: descriptor 2147483648 is there twice or")
{
	w->fd->fd = 1u << 31;
}

REFUSED(a_descriptor_leads_nowhere, "image fdinfo-20.img: descriptor 9 refers to the file 0x63")
{
	w->fd->id = 0x63;
}

REFUSED(a_descriptor_has_another_type, "image fdinfo-20.img: descriptor 9 refers to the file 0x3")
{
	w->fd->type = FD_TYPES__PIPE;
}

/* ---- remaps and ghosts ---- */

REFUSED(a_remap_is_of_no_file, "image remap-fpath.img: there is no file 0x63")
{
	w->ghost_remap->orig_id = 0x63;
}

REFUSED(a_remap_is_of_a_socket, "image remap-fpath.img: there is no file 0x6")
{
	w->ghost_remap->orig_id = WORLD_SOCKET;
}

REFUSED(a_remap_is_of_a_relative_path, "image remap-fpath.img: there is no file 0x3")
{
	w->gone->reg->name = (char *)"tmp/gone";
}

REFUSED(a_remap_is_of_no_process, "image remap-fpath.img: file 0x4: 0 is no pid")
{
	w->link_remap->remap_type = REMAP_TYPE__PROCFS;
	w->link_remap->remap_id = 0;
}

REFUSED(a_remap_is_of_a_process_that_lives,
	"image remap-fpath.img: file 0x4: it is of a process that had ended, and 12 is in the tree")
{
	w->link_remap->remap_type = REMAP_TYPE__PROCFS;
	w->link_remap->remap_id = 12;
}

REFUSED(a_remap_is_of_an_unknown_type,
	"image remap-fpath.img: file 0x4: 5 is no type of a remap that is known here")
{
	w->link_remap->remap_type = (RemapType)5;
}

REFUSED(a_link_is_nowhere, "image remap-fpath.img: file 0x4: there is no link 0x63")
{
	w->link_remap->remap_id = 0x63;
}

REFUSED(a_link_is_a_socket, "image remap-fpath.img: file 0x4: there is no link 0x6")
{
	w->link_remap->remap_id = WORLD_SOCKET;
}

REFUSED(a_link_is_a_relative_path, "image remap-fpath.img: file 0x4: there is no link 0x2")
{
	w->link_remap->remap_id = WORLD_PROGRAM;
	w->program->reg->name = (char *)"program";
}

#define REFUSED_MODE(what, value)                                                                  \
	REFUSED(what, "image ghost-file-a1.img: its mode 0" #value " makes no sense")              \
	{                                                                                          \
		w->ghost->mode = 0##value;                                                         \
	}

REFUSED_MODE(a_ghost_is_of_no_kind, 600)
REFUSED_MODE(a_ghost_is_of_two_kinds, 170600)
REFUSED_MODE(a_link_that_is_a_ghost_leads_nowhere, 120777)
REFUSED_MODE(a_terminal_that_is_a_ghost_has_no_number, 20600)
REFUSED_MODE(a_disk_that_is_a_ghost_has_no_number, 60600)

REFUSED(the_size_of_a_ghost_is_too_large, "image ghost-file-a1.img: its size makes no sense")
{
	w->ghost->size = 1ull << 63;
}

REFUSED(a_chunk_begins_behind_the_end, "image ghost-file-a1.img: content at 0x2001 is behind the")
{
	w->chunk->off = 8193;
}

REFUSED(a_chunk_ends_behind_the_end, "image ghost-file-a1.img: content at 0x1ffc is behind the end")
{
	w->chunk->off = 8188;
}

REFUSED(a_chunk_is_cut, "image ghost-file-a1.img: truncated: 1 bytes at offset")
{
	w->chunk->len = 6;
}

REFUSED(a_ghost_has_more_than_its_size, "image ghost-file-a1.img: content at 0 is behind the end")
{
	w->ghost->chunks = false;
	w->ghost->size = 3;
}

/* ---- queues ---- */

#define REFUSED_PIPE(what, statement)                                                              \
	REFUSED(what, "image pipes-data.img: pipe 0x4d: its sizes make no sense")                  \
	{                                                                                          \
		statement;                                                                         \
	}

REFUSED_PIPE(a_pipe_has_other_packets, w->pipe_data->packets[1]++)
REFUSED_PIPE(a_pipe_has_too_many_bytes, w->pipe_data->n_packets = 0;
	     w->pipe_data->bytes = (1u << 30) + 1)
static uint32_t some_buffers[] = { 4096, 1 };

REFUSED_PIPE(a_pipe_has_other_buffers, w->pipe_data->buffers = some_buffers;
	     w->pipe_data->n_buffers = 1)
REFUSED_PIPE(a_pipe_has_more_buffers_than_room, w->pipe_data->n_packets = 0;
	     w->pipe_data->bytes = 4097; w->pipe_data->has_size = true; w->pipe_data->size = 4096;
	     w->pipe_data->buffers = some_buffers; w->pipe_data->n_buffers = 2)
REFUSED_PIPE(a_pipe_is_too_large, w->pipe_data->has_size = w->pipe_data->size = (1u << 30) + 1)

REFUSED(a_pipe_is_cut, "image pipes-data.img: truncated: 1 bytes")
{
	w->pipe_data->n_packets = 0;
	w->pipe_data->bytes = 6;
}

REFUSED(a_fifo_is_cut, "image fifo-data.img: truncated: 6 bytes")
{
	PipeDataEntry *e = MESSAGE(&w->arena, PipeDataEntry, pipe_data_entry);

	e->bytes = 6;
	world_add(w, IMG_FIFO_DATA, 0, e);
}

/* Also if the sum of both has more than 32 bits. */
REFUSED(a_map_is_cut, "image bpfmap-data.img: truncated: 4294967296 bytes")
{
	w->bpfmap_data->keys_bytes = ~0u;
	w->bpfmap_data->values_bytes = 11;
}

REFUSED(a_message_is_for_no_socket, "image sk-queues.img: there is no unix socket 0x63")
{
	w->packet->id_for = 0x63;
}

REFUSED(a_message_is_for_a_file, "image sk-queues.img: there is no unix socket 0x3")
{
	w->packet->id_for = WORLD_GONE;
}

REFUSED(a_message_is_cut, "image sk-queues.img: truncated: 1 bytes")
{
	w->packet->length = 4;
}

REFUSED(a_file_in_flight_is_nowhere, "image sk-queues.img: socket 0x6: there is no file 0x63 that")
{
	w->packet->scm[0]->rights[0] = 0x63;
}

static void add_rights(struct world *w, size_t n)
{
	ScmEntry *e = w->packet->scm[0];

	e->rights = zeroes(w, n);
	for (e->n_rights = 0; e->n_rights < n; e->n_rights++)
		e->rights[e->n_rights] = WORLD_PROGRAM;
}

REFUSED(too_many_files_are_in_flight, "image sk-queues.img: socket 0x6: a message with 254 desc")
{
	add_rights(w, 254);
}

TEST(snapshot, a_message_may_carry_as_many_files_as_the_kernel_allows)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	add_rights(&w, 253);
	world_load(&w, &s);
	ASSERT_EQ(s.packets[0].entry->scm[0]->n_rights, 253);
	world_end(&w, &s);
}

/* ---- terminals, memfds, locks ---- */

REFUSED(a_terminal_is_no_pty, "image tty-info.img: terminal 0x1f has no number")
{
	w->tty->pty = NULL;
}

REFUSED(a_terminal_is_of_an_unknown_type,
	"image tty-info.img: terminal 0x1f is of no type that is known here (7)")
{
	w->tty->type = (TtyType)7;
}

REFUSED(the_number_of_a_terminal_is_too_large, "image tty-info.img: terminal 0x1f has no number")
{
	w->tty->pty->index = 1u << 20;
}

REFUSED(a_memfd_is_too_large, "image memfd.img: a size makes no sense")
{
	w->memfd->size = 1ull << 63;
}

/* Of each list not only the first is looked at. */
REFUSED(the_last_memfd_is_too_large, "image memfd.img: a size makes no sense")
{
	MemfdInodeEntry *e = arena_memdup(&w->arena, w->memfd, sizeof(*e));

	world_add(w, IMG_MEMFD_INODE, 0, e);
	e->inode_id = 2;
	e->size = 1ull << 63;
}

REFUSED(the_last_terminal_is_no_pty, "image tty-info.img: terminal 0x20 has no number")
{
	TtyInfoEntry *e = arena_memdup(&w->arena, w->tty, sizeof(*e));

	world_add(w, IMG_TTY_INFO, 0, e);
	e->id = 32;
	e->pty = NULL;
}

REFUSED(bytes_wait_in_no_terminal, "image tty-data.img: there is no terminal 0x20")
{
	w->tty_data->tty_id = 32;
}

REFUSED(too_many_bytes_wait, "image tty-data.img: terminal 0x1f: 65537 bytes are too many")
{
	w->tty_data->data.len = (64 << 10) + 1;
	w->tty_data->data.data = (uint8_t *)letters(w, w->tty_data->data.len);
}

REFUSED(an_end_of_file_is_behind_the_bytes,
	"image tty-data.img: terminal 0x1f: an end of file at 5 makes no sense")
{
	w->tty_data->eof_at[1] = 5;
}

REFUSED(ends_of_file_go_backwards,
	"image tty-data.img: terminal 0x1f: an end of file at 3 makes no sense")
{
	w->tty_data->eof_at[1] = 3;
}

REFUSED(a_lock_that_is_no_lease_is_being_broken,
	"image filelocks.img: a lock of pid 10 is being broken to 2, which makes no sense")
{
	w->lock->has_breaking_to = true;
	w->lock->breaking_to = F_UNLCK;
}

REFUSED(a_lease_is_being_broken_to_more,
	"image filelocks.img: a lock of pid 10 is being broken to 1, which makes no sense")
{
	w->lock->flag = 8;
	w->lock->has_breaking_to = true;
	w->lock->breaking_to = F_WRLCK;
}

REFUSED(the_last_lock_is_of_no_kind, "image filelocks.img: a lock of pid 10 is of the unknown kind")
{
	FileLockEntry *e = arena_memdup(&w->arena, w->lock, sizeof(*e));

	world_add(w, IMG_FILE_LOCKS, 0, e);
	e->flag = 0;
}

REFUSED(pages_are_behind_a_memfd, "image pagemap-shmem-500.img: the pages at 0 are behind the end")
{
	w->memfd->size = 4096;
}

#define REFUSED_LOCK(what, from, bytes)                                                            \
	REFUSED(what, "image filelocks.img: the lock of pid 10 from " #from ", " #bytes " bytes")  \
	{                                                                                          \
		w->lock->start = from;                                                             \
		w->lock->len = bytes;                                                              \
	}

REFUSED_LOCK(a_lock_begins_before_the_file, -1, 5)
REFUSED_LOCK(a_lock_is_negative, 5, -1)
REFUSED_LOCK(a_lock_ends_nowhere, 9223372036854775807, 1)

REFUSED(a_lock_is_of_two_kinds, "image filelocks.img: a lock of pid 10 is of the unknown kind 0x3")
{
	w->lock->flag = 3;
}

REFUSED(a_lock_is_of_no_kind, "image filelocks.img: a lock of pid 10 is of the unknown kind 0")
{
	w->lock->flag = 0;
}

/* ---- mappings ---- */

#define REFUSED_VMA(what, which, statement)                                                        \
	REFUSED(what, "is out of order or range")                                                  \
	{                                                                                          \
		VmaEntry *v = w->root.mm->vmas[which];                                             \
                                                                                                   \
		statement;                                                                         \
	}

REFUSED_VMA(a_mapping_starts_in_a_page, VMA_OF_ANON, v->start++)
REFUSED_VMA(a_mapping_ends_in_a_page, VMA_OF_ANON, v->end++)
REFUSED_VMA(a_mapping_is_empty, VMA_OF_ANON, v->end = v->start)
REFUSED_VMA(a_mapping_ends_before_it_starts, VMA_OF_ANON, v->end = v->start - 0x1000)
REFUSED_VMA(mappings_overlap, VMA_OF_ANON, v->end = WORLD_FILE_START + 0x1000)
REFUSED_VMA(a_mapping_is_out_of_reach, VMA_OF_HUGE, v->end = 0x800000000000)
REFUSED_VMA(a_mapping_shows_a_part_of_a_page, VMA_OF_FILE, v->pgoff = 1)
REFUSED_VMA(a_call_page_is_plain_memory, VMA_OF_VSYSCALL, v->status = VMA_ANON_PRIVATE)

REFUSED(the_name_of_a_mapping_is_too_long, "image mm-10.img: the name of the mapping 0x10000 is")
{
	w->root.mm->vmas[VMA_OF_ANON]->name = arena_printf(&w->arena, "%081d", 0);
}

#define REFUSED_SEGMENT(what, statement)                                                           \
	REFUSED(what, "image mm-10.img: the mapping 0x30000-0x32000 of shared memory makes no")    \
	{                                                                                          \
		VmaEntry *v = w->root.mm->vmas[VMA_OF_SHARED];                                     \
                                                                                                   \
		statement;                                                                         \
	}

REFUSED_SEGMENT(shared_memory_is_private, v->flags = MAP_PRIVATE)
REFUSED_SEGMENT(shared_memory_goes_round, v->pgoff = -0x1000ull)
REFUSED_SEGMENT(shared_memory_ends_too_far, v->pgoff = (1ull << 63) - 0x1000)
REFUSED_SEGMENT(shared_memory_is_too_large, v->has_segment_size = true;
		v->segment_size = 1ull << 63)

REFUSED(mappings_disagree_about_a_size, "shared memory 900: its mappings disagree about its size")
{
	VmaEntry *v = w->root.mm->vmas[VMA_OF_SHARED];

	v->has_segment_size = true;
	v->segment_size = WORLD_SEGMENT_SIZE;
}

REFUSED(mappings_differ_about_a_size, "shared memory 900: its mappings disagree about its size")
{
	for (int i = VMA_OF_SHARED; i <= VMA_OF_SHARED_AGAIN; i++) {
		w->root.mm->vmas[i]->has_segment_size = true;
		w->root.mm->vmas[i]->segment_size = WORLD_SEGMENT_SIZE + i;
	}
}

REFUSED(mappings_disagree_about_huge_pages, "shared memory 900: its mappings disagree about its")
{
	w->root.mm->vmas[VMA_OF_SHARED]->flags |= MAP_HUGETLB;
}

REFUSED(pages_are_behind_shared_memory, "image pagemap-shmem-900.img: the pages at 0x1000 are beh")
{
	for (int i = VMA_OF_SHARED; i <= VMA_OF_SHARED_AGAIN; i++) {
		w->root.mm->vmas[i]->has_segment_size = true;
		w->root.mm->vmas[i]->segment_size = 0x2000;
	}
}

REFUSED(memory_is_locked_in_an_unknown_way, "image mm-10.img: it locks memory in an unknown way")
{
	w->root.mm->has_lock_future = true;
	w->root.mm->lock_future = MCL_CURRENT;
}

#define REFUSED_RANGE(what, list, text, from, to)                                                  \
	REFUSED(what, "image mm-10.img: the " text)                                                \
	{                                                                                          \
		w->root.mm->list[0]->start = from;                                                 \
		w->root.mm->list[0]->end = to;                                                     \
	}

REFUSED_RANGE(a_guard_starts_in_a_page, guards, "guard 0x10001-0x11000", 0x10001, 0x11000)
REFUSED_RANGE(a_guard_ends_in_a_page, guards, "guard 0x10000-0x10fff", 0x10000, 0x10fff)
REFUSED_RANGE(a_guard_is_empty, guards, "guard 0x10000-0x10000", 0x10000, 0x10000)
REFUSED_RANGE(a_guard_is_before_all_mappings, guards, "guard 0xf000-0x11000", 0xf000, 0x11000)
REFUSED_RANGE(a_guard_is_between_mappings, guards, "guard 0x15000-0x16000", 0x15000, 0x16000)
REFUSED_RANGE(a_guard_ends_between_mappings, guards, "guard 0x13000-0x15000", 0x13000, 0x15000)
REFUSED_RANGE(a_guard_goes_on_behind_a_gap, guards, "guard 0x13000-0x21000", 0x13000, 0x21000)
REFUSED_RANGE(a_guard_is_behind_all_mappings, guards, "guard 0xffffffffff601000",
	      0xffffffffff601000, 0xffffffffff602000)
REFUSED_RANGE(huge_pages_are_of_a_file, huge, "huge page 0x20000-0x21000", 0x20000, 0x21000)
REFUSED_RANGE(huge_pages_are_shared, huge, "huge page 0x30000-0x31000", 0x30000, 0x31000)

REFUSED(guards_overlap, "image mm-10.img: the guard 0x10000-0x11000 is out of order")
{
	RangeEntry *e = w->root.mm->guards[0];

	w->root.mm->guards = arena_array(&w->arena, RangeEntry *, 2);
	w->root.mm->guards[0] = w->root.mm->guards[1] = e;
	w->root.mm->n_guards = 2;
}

/* Neighbours that have no gap between them may hold a guard together. */
TEST(snapshot, a_guard_may_reach_over_a_border)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.root.mm->vmas[VMA_OF_ANON]->end = WORLD_FILE_START;
	w.root.mm->guards[0]->start = WORLD_FILE_START - 0x1000;
	w.root.mm->guards[0]->end = WORLD_FILE_START + 0x1000;
	world_load(&w, &s);
	world_end(&w, &s);
}

#define REFUSED_RING(what, statement)                                                              \
	REFUSED(what, "image mm-10.img: the mapping 0x50000 does not fit to a ring")               \
	{                                                                                          \
		AioRingEntry *e = w->root.mm->aios[0];                                             \
                                                                                                   \
		statement;                                                                         \
	}

REFUSED_RING(a_ring_is_elsewhere, e->id += 0x1000)
REFUSED_RING(a_ring_has_another_length, e->ring_len = 0x2000)
REFUSED_RING(a_ring_is_for_no_request, e->nr_req = 0)
REFUSED_RING(a_ring_is_for_too_many_requests, e->nr_req = 0x1000 / 32 + 1)

REFUSED(a_ring_has_no_mapping, "image mm-10.img: a ring of asynchronous I/O without a mapping")
{
	w->root.mm->vmas[VMA_OF_RING]->status = VMA_REGULAR | VMA_ANON_PRIVATE;
}

/* ---- pages ---- */

#define REFUSED_PAGE(what, start, text)                                                            \
	REFUSED(what, "image pagemap-10.img: the page " text)                                      \
	{                                                                                          \
		w->pages[0].run[1].vaddr = start;                                                  \
	}

REFUSED_PAGE(a_page_is_between_mappings, 0x14000, "0x14000 is in no mapping")
REFUSED_PAGE(a_page_is_behind_all_mappings, 0xffffffffff601000, "0xffffffffff601000 is in no")
REFUSED_PAGE(a_page_is_in_shared_memory, 0x30000, "0x30000 is in a mapping that is not private")

REFUSED(pages_go_on_behind_a_mapping, "image pagemap-10.img: the page 0x14000 is in no mapping")
{
	w->pages[0].run[0].pages = 4;
}
