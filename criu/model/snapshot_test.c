/* SPDX-License-Identifier: GPL-2.0-only */
/* What is consistent loads, with all that refers to something else resolved. */
#include "model/snapshot.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/own.h"
#include "model/vma.h"
#include "model/world_test.h"

TEST(snapshot, one_task_without_descriptors_is_enough)
{
	struct world w;
	struct snapshot s;

	world_begin(&w);
	world_load(&w, &s);
	ASSERT_EQ(s.n_tasks, 1);
	ASSERT_EQ(s.n_files, 2);
	ASSERT_EQ(s.tasks[0].n_fds, 0);
	ASSERT_EQ(s.tasks[0].pages.n, 0);
	ASSERT(!snapshot_pipe(&s, false, 77));
	ASSERT(!snapshot_pipe(&s, true, 77));
	ASSERT(!snapshot_bpfmap(&s, 3));
	ASSERT(!snapshot_tty(&s, 31));
	ASSERT_EQ(snapshot_memfd(&s, 1), -1);
	ASSERT_EQ(snapshot_shared(&s, WORLD_SEGMENT), -1);
	world_end(&w, &s);
}

TEST(snapshot, tasks_have_their_parents_threads_and_pages)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	world_load(&w, &s);
	ASSERT_EQ(s.n_tasks, 3);
	ASSERT_EQ(s.tasks[0].parent, -1);
	ASSERT_EQ(s.tasks[1].parent, 0);
	ASSERT_EQ(s.tasks[2].parent, 1);
	ASSERT(!s.tasks[1].is_zombie);
	ASSERT(s.tasks[2].is_zombie);
	ASSERT(!s.tasks[2].mm && !s.tasks[2].ids && !s.tasks[2].fs);
	ASSERT_EQ(s.tasks[0].cores[1]->thread_core->seccomp_filter, 1);
	ASSERT(!s.tasks[0].cores[1]->tc);
	ASSERT_EQ(s.tasks[0].pages.n, 2);
	ASSERT_EQ(s.tasks[0].pages.run[1].vaddr, WORLD_FILE_START);
	ASSERT_EQ(s.tasks[0].pages.run[1].offset, 2 * PAGE_SIZE_);
	ASSERT_EQ(s.tasks[1].pages.n, 0);
	world_end(&w, &s);
}

TEST(snapshot, descriptors_come_by_number_and_files_by_id)
{
	static const uint32_t fds[] = { 4, 5, 9 };
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	world_add_path(&w, 0x80000000, "/last");
	world_load(&w, &s);
	/* The child has the table of its parent. */
	for (size_t t = 0; t < 2; t++) {
		ASSERT_EQ(s.tasks[t].n_fds, ARRAY_SIZE(fds));
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			ASSERT_EQ(s.tasks[t].fds[i]->fd, fds[i]);
	}
	for (size_t i = 0; i < s.n_files; i++)
		ASSERT_EQ(snapshot_file(&s, s.files[i]->id), i);
	ASSERT_EQ(s.files[s.n_files - 1]->id, 0x80000000);
	ASSERT_EQ(snapshot_file(&s, 0), -1);
	ASSERT_EQ(snapshot_file(&s, 0x7fffffff), -1);
	ASSERT_EQ(snapshot_file(&s, ~0u), -1);
	world_end(&w, &s);
}

TEST(snapshot, only_a_child_shares_the_table_of_its_parent)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	(void)world_add_task(&w, 14, WORLD_ROOT, 21);
	*ARENA_PUSH(&w.arena, w.pages, w.n_pages) =
		(struct world_pages){ .type = IMG_PAGEMAP, .id = 14, .pages_id = 14 };
	world_load(&w, &s);
	ASSERT(!snapshot_shares_table(&s, &s.tasks[0]));
	ASSERT(snapshot_shares_table(&s, &s.tasks[1]));
	ASSERT(!snapshot_shares_table(&s, &s.tasks[2])); /* a zombie */
	ASSERT(!snapshot_shares_table(&s, &s.tasks[3])); /* it has one of its own */
	world_end(&w, &s);
}

TEST(snapshot, what_waits_in_queues_is_found_by_its_owner)
{
	struct world w;
	struct snapshot s;
	PipeDataEntry other = PIPE_DATA_ENTRY__INIT;
	BpfmapDataEntry map = BPFMAP_DATA_ENTRY__INIT;

	world_furnish(&w);
	other.pipe_id = 5;
	other.bytes = 2;
	world_add_raw(&w, IMG_PIPES_DATA, 0, &other, "AB", 2);
	world_add_raw(&w, IMG_FIFO_DATA, 0, &other, "xy", 2);
	map.map_id = 1;
	world_add(&w, IMG_BPFMAP_DATA, 0, &map);
	world_load(&w, &s);
	ASSERT_EQ(snapshot_pipe(&s, false, 77)->entry->n_packets, 2);
	ASSERT(!memcmp(snapshot_pipe(&s, false, 77)->data, "abcde", 5));
	ASSERT(!memcmp(snapshot_pipe(&s, false, 5)->data, "AB", 2));
	ASSERT(!memcmp(snapshot_pipe(&s, true, 5)->data, "xy", 2));
	ASSERT(!snapshot_pipe(&s, true, 77));
	ASSERT(!memcmp(snapshot_bpfmap(&s, 3)->keys, "keysvalues", 10));
	ASSERT_EQ(snapshot_bpfmap(&s, 1)->entry->count, 0);
	ASSERT_EQ(s.n_packets, 1);
	ASSERT(!memcmp(s.packets[0].data, "xyz", 3));
	ASSERT_EQ(snapshot_tty(&s, 31)->pty->index, 15);
	ASSERT_EQ(snapshot_memfd(&s, 1), 0);
	ASSERT_EQ(s.memfd_pages[0].run[0].pages, 2);
	world_end(&w, &s);
}

/* Each socket's own messages come in the order in which they were written. */
TEST(snapshot, messages_of_sockets_stay_in_order)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	for (uint32_t i = 0; i < 3; i++) {
		SkPacketEntry *e = MESSAGE(&w.arena, SkPacketEntry, sk_packet_entry);

		e->id_for = WORLD_SOCKET;
		e->length = i;
		world_add_raw(&w, IMG_SK_QUEUES, 0, e, "12", i);
	}
	world_load(&w, &s);
	ASSERT_EQ(s.n_packets, 4);
	for (uint32_t i = 0; i < 3; i++) {
		ASSERT_EQ(s.packets[i + 1].entry->length, i);
		ASSERT(!memcmp(s.packets[i + 1].data, "12", i));
	}
	world_end(&w, &s);
}

TEST(snapshot, a_ghost_is_chunks_and_holes)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	/* One more name of the same file; the image is read once. */
	FileEntry *again = world_add_path(&w, 8, "/tmp/gone2");
	RemapFilePathEntry *e = MESSAGE(&w.arena, RemapFilePathEntry, remap_file_path_entry);
	e->orig_id = again->id;
	e->has_remap_type = true;
	e->remap_type = REMAP_TYPE__GHOST;
	e->remap_id = WORLD_GHOST;
	world_add(&w, IMG_REMAP_FPATH, 0, e);
	GhostChunkEntry c = GHOST_CHUNK_ENTRY__INIT;
	c.len = 3;
	c.off = 8189;
	world_add_raw(&w, IMG_GHOST_FILE, WORLD_GHOST, &c, "end", 3);
	world_load(&w, &s);
	ASSERT_EQ(s.n_remaps, 3);
	ASSERT_EQ(s.n_ghosts, 1);
	ASSERT_EQ(s.ghosts[0].size, 8192);
	ASSERT_EQ(s.ghosts[0].n_chunks, 2);
	ASSERT_EQ(s.ghosts[0].chunks[0].off, 4096);
	ASSERT(!memcmp(s.ghosts[0].chunks[0].data, "ghost", 5));
	ASSERT_EQ(s.ghosts[0].chunks[1].off, 8189);
	ASSERT(!memcmp(s.ghosts[0].chunks[1].data, "end", 3));
	world_end(&w, &s);
}

static const mode_t kinds_of_ghosts[] = { S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK,
					  S_IFCHR, S_IFBLK, S_IFLNK };

TEST(snapshot, ghosts_may_be_of_any_kind)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	for (uint32_t i = 0; i < ARRAY_SIZE(kinds_of_ghosts); i++) {
		RemapFilePathEntry *r =
			MESSAGE(&w.arena, RemapFilePathEntry, remap_file_path_entry);
		GhostFileEntry *e = MESSAGE(&w.arena, GhostFileEntry, ghost_file_entry);

		r->orig_id = world_add_path(&w, 100 + i, "/gone")->id;
		r->has_remap_type = true;
		r->remap_type = REMAP_TYPE__GHOST;
		r->remap_id = i;
		world_add(&w, IMG_REMAP_FPATH, 0, r);
		e->mode = kinds_of_ghosts[i];
		e->has_rdev = S_ISCHR(e->mode) || S_ISBLK(e->mode);
		e->symlnk_target = S_ISLNK(e->mode) ? (char *)"target" : NULL;
		world_add(&w, IMG_GHOST_FILE, i, e);
	}
	world_load(&w, &s);
	ASSERT_EQ(s.n_ghosts, 1 + ARRAY_SIZE(kinds_of_ghosts));
	for (uint32_t i = 0; i < ARRAY_SIZE(kinds_of_ghosts); i++) {
		ASSERT_EQ(s.ghosts[1 + i].id, i);
		ASSERT_EQ(s.ghosts[1 + i].entry->mode, kinds_of_ghosts[i]);
		ASSERT_EQ(s.ghosts[1 + i].n_chunks, 0);
	}
	world_end(&w, &s);
}

static void expect_in_one_piece(uint64_t size, uint64_t expected)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	world_drop(&w, IMG_GHOST_FILE, WORLD_GHOST);
	w.ghost->chunks = false;
	w.ghost->has_size = size;
	w.ghost->size = size;
	world_add_raw(&w, IMG_GHOST_FILE, WORLD_GHOST, w.ghost, "whole", 5);
	world_load(&w, &s);
	ASSERT_EQ(s.ghosts[0].size, expected);
	ASSERT_EQ(s.ghosts[0].n_chunks, 1);
	ASSERT_EQ(s.ghosts[0].chunks[0].off, 0);
	ASSERT(!memcmp(s.ghosts[0].chunks[0].data, "whole", 5));
	world_end(&w, &s);
}

TEST(snapshot, a_ghost_in_one_piece_is_as_long_as_its_bytes)
{
	expect_in_one_piece(0, 5);
}

TEST(snapshot, a_ghost_in_one_piece_may_end_in_a_hole)
{
	expect_in_one_piece(70, 70);
}

TEST(snapshot, mappings_of_one_segment_make_it_up)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.root.mm->vmas[VMA_OF_SHARED]->flags |= MAP_NORESERVE;
	world_load(&w, &s);
	ASSERT_EQ(s.n_shared, 1);
	const struct snapshot_shared *m = &s.shared[snapshot_shared(&s, WORLD_SEGMENT)];
	ASSERT_EQ(m->size, WORLD_SEGMENT_SIZE); /* where the last mapping ends */
	ASSERT(m->is_reserved);			/* by one of them */
	ASSERT(!m->is_private);
	ASSERT_EQ(m->pages.n, 1);
	ASSERT_EQ(snapshot_shared(&s, WORLD_SEGMENT + 1), -1);
	world_end(&w, &s);
}

TEST(snapshot, a_segment_may_be_shorter_than_its_mappings)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	for (int i = VMA_OF_SHARED; i <= VMA_OF_SHARED_AGAIN; i++) {
		w.root.mm->vmas[i]->flags |= MAP_NORESERVE;
		w.root.mm->vmas[i]->has_segment_size = true;
		w.root.mm->vmas[i]->segment_size = 0x2001;
	}
	world_load(&w, &s);
	ASSERT_EQ(s.shared[0].size, 0x2001);
	ASSERT_EQ(s.shared[0].mapped, WORLD_SEGMENT_SIZE);
	ASSERT(!s.shared[0].is_reserved);
	world_end(&w, &s);
}

/* As huge pages that one task has shared and another one for itself. */
TEST(snapshot, a_segment_that_one_mapping_shares_has_pages)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.root.mm->vmas[VMA_OF_SHARED]->status = VMA_REGULAR | VMA_ANON_PRIVATE;
	w.root.mm->vmas[VMA_OF_SHARED]->flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
	w.root.mm->vmas[VMA_OF_SHARED_AGAIN]->flags |= MAP_HUGETLB;
	world_load(&w, &s);
	ASSERT(!s.shared[0].is_private);
	ASSERT_EQ(s.shared[0].pages.n, 1);
	world_end(&w, &s);
}

TEST(snapshot, mappings_of_several_segments_may_lie_in_any_order)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	for (uint32_t i = 0; i < 3; i++) {
		VmaEntry *v = arena_memdup(&w.arena, w.root.mm->vmas[VMA_OF_SHARED], sizeof(*v));

		v->shmid = i == 1 ? 5 : WORLD_SEGMENT; /* 900, 5, 900 */
		v->start = WORLD_SHARED_START + i * 0x2000;
		v->end = v->start + 0x2000;
		*ARENA_PUSH(&w.arena, w.child.mm->vmas, w.child.mm->n_vmas) = v;
	}
	*ARENA_PUSH(&w.arena, w.pages, w.n_pages) =
		(struct world_pages){ .type = IMG_SHMEM_PAGEMAP, .id = 5, .pages_id = 5 };
	world_load(&w, &s);
	ASSERT_EQ(s.n_shared, 2);
	ASSERT_EQ(s.shared[snapshot_shared(&s, 5)].size, 0x2000);
	ASSERT_EQ(s.shared[snapshot_shared(&s, WORLD_SEGMENT)].size, WORLD_SEGMENT_SIZE);
	world_end(&w, &s);
}

/* The file behind it holds nothing: there is no pagemap of it. */
TEST(snapshot, a_segment_that_all_have_private_has_no_pages)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	world_drop(&w, IMG_SHMEM_PAGEMAP, WORLD_SEGMENT);
	for (int i = VMA_OF_SHARED; i <= VMA_OF_SHARED_AGAIN; i++) {
		w.root.mm->vmas[i]->status = VMA_REGULAR | VMA_ANON_PRIVATE;
		w.root.mm->vmas[i]->flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
	}
	world_load(&w, &s);
	ASSERT_EQ(s.n_shared, 1);
	ASSERT(s.shared[0].is_private);
	ASSERT_EQ(s.shared[0].huge_flags, MAP_HUGETLB);
	world_end(&w, &s);
}

static void expect_flags_after_mapping(uint32_t mapped, bool is_told, uint32_t expected)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	for (int i = VMA_OF_FILE; i <= VMA_OF_MEMFD; i++) {
		w.root.mm->vmas[i]->has_fdflags = is_told;
		w.root.mm->vmas[i]->fdflags = mapped;
	}
	world_load(&w, &s);
	ASSERT_EQ(s.files[snapshot_file(&s, WORLD_PROGRAM)]->reg->flags, expected);
	ASSERT_EQ(s.files[snapshot_file(&s, WORLD_MEMFD)]->memfd->flags, expected);
	ASSERT_EQ(s.files[snapshot_file(&s, WORLD_SLASH)]->reg->flags, O_RDONLY);
	world_end(&w, &s);
}

TEST(snapshot, a_file_that_is_mapped_for_writing_is_opened_for_it)
{
	expect_flags_after_mapping(O_RDWR, true, O_RDWR);
}

TEST(snapshot, a_file_that_is_mapped_for_reading_is_not_opened_for_writing)
{
	expect_flags_after_mapping(O_RDONLY, true, O_RDONLY);
}

TEST(snapshot, a_file_is_opened_as_it_was_if_mappings_do_not_say_otherwise)
{
	expect_flags_after_mapping(O_RDWR, false, O_RDONLY);
}

/* ---- images of other versions ---- */

TEST(snapshot, mappings_and_ids_may_have_images_of_their_own)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	for (size_t i = 0; i < WORLD_VMAS; i++)
		world_add(&w, IMG_VMAS, WORLD_ROOT, w.root.mm->vmas[i]);
	w.root.mm->n_vmas = 0;
	w.root.core->ids = NULL;
	world_add(&w, IMG_IDS, WORLD_ROOT, w.root.ids);
	world_load(&w, &s);
	ASSERT_EQ(s.tasks[0].mm->n_vmas, WORLD_VMAS);
	ASSERT_EQ(s.tasks[0].mm->vmas[VMA_OF_HUGE]->start, WORLD_HUGE_START);
	ASSERT_EQ(s.tasks[0].ids->files_id, WORLD_TABLE);
	world_end(&w, &s);
}

TEST(snapshot, the_only_thread_has_the_id_of_its_process)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.dead.pstree->threads[0] = 4711;
	w.child.pstree->n_threads = 0;
	world_load(&w, &s);
	ASSERT_EQ(s.tasks[2].pstree->threads[0], WORLD_DEAD);
	ASSERT_EQ(s.tasks[1].pstree->n_threads, 1);
	ASSERT_EQ(s.tasks[1].pstree->threads[0], WORLD_CHILD);
	world_end(&w, &s);
}

TEST(snapshot, what_was_said_of_a_process_holds_for_its_threads)
{
	struct world w;
	struct snapshot s;
	TaskCoreEntry *tc;

	world_furnish(&w);
	tc = w.root.core->tc;
	tc->blk_sigset = 0x123;
	tc->has_old_seccomp_mode = tc->has_old_seccomp_filter = true;
	tc->old_seccomp_mode = SECCOMP_MODE__filter;
	tc->old_seccomp_filter = 1;
	w.thread->thread_core->seccomp_filter = 0;
	world_load(&w, &s);
	const ThreadCoreEntry *leader = s.tasks[0].cores[0]->thread_core;
	ASSERT(leader->has_blk_sigset);
	ASSERT_EQ(leader->blk_sigset, 0x123);
	ASSERT(leader->has_seccomp_mode);
	ASSERT_EQ(leader->seccomp_mode, SECCOMP_MODE__filter);
	ASSERT_EQ(leader->seccomp_filter, 1);
	/* A thread that says it itself knows better. */
	ASSERT_EQ(s.tasks[0].cores[1]->thread_core->seccomp_filter, 0);
	ASSERT(!s.tasks[0].cores[1]->thread_core->has_blk_sigset);
	world_end(&w, &s);
}

TEST(snapshot, what_a_thread_says_of_its_signals_is_not_replaced)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.root.core->tc->blk_sigset = 0x123;
	w.root.core->thread_core->has_blk_sigset = true;
	w.root.core->thread_core->blk_sigset = 0x456;
	world_load(&w, &s);
	ASSERT_EQ(s.tasks[0].cores[0]->thread_core->blk_sigset, 0x456);
	world_end(&w, &s);
}

TEST(snapshot, a_remap_without_type_is_a_ghost_by_its_highest_bit)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.ghost_remap->has_remap_type = w.link_remap->has_remap_type = false;
	w.ghost_remap->remap_type = w.link_remap->remap_type = 0;
	w.ghost_remap->remap_id |= 1u << 31;
	world_load(&w, &s);
	ASSERT_EQ(s.remaps[0]->remap_type, REMAP_TYPE__GHOST);
	ASSERT_EQ(s.remaps[0]->remap_id, WORLD_GHOST);
	ASSERT_EQ(s.remaps[1]->remap_type, REMAP_TYPE__LINKED);
	ASSERT_EQ(s.remaps[1]->remap_id, WORLD_LINK);
	world_end(&w, &s);
}

static void expect_personality(uint32_t in_image, uint32_t expected)
{
	struct world w;
	struct snapshot s;

	world_furnish(&w);
	w.root.core->tc->personality = in_image;
	world_load(&w, &s);
	ASSERT_EQ(s.tasks[0].cores[0]->tc->personality, expected);
	world_end(&w, &s);
}

TEST(snapshot, a_personality_is_a_number)
{
	expect_personality(0x40008, 0x40008);
}

TEST(snapshot, a_personality_may_be_hexadecimal_digits_in_decimal)
{
	expect_personality(40008, 0x40008);
}
