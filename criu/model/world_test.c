/* SPDX-License-Identifier: GPL-2.0-only */
#include "model/world_test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/own.h"
#include "model/vma.h"

#define NEW(w, type, name) MESSAGE(&(w)->arena, type, name)

void world_add_raw(struct world *w, enum image_type type, unsigned long id, const void *message,
		   const void *raw, size_t raw_size)
{
	*ARENA_PUSH(&w->arena, w->entries, w->n_entries) = (struct world_entry){
		.type = type, .id = id, .message = message, .raw = raw, .raw_size = raw_size
	};
}

void world_add(struct world *w, enum image_type type, unsigned long id, const void *message)
{
	world_add_raw(w, type, id, message, NULL, 0);
}

static void add_pages(struct world *w, struct world_pages pages)
{
	*ARENA_PUSH(&w->arena, w->pages, w->n_pages) = pages;
}

void world_drop(struct world *w, enum image_type type, unsigned long id)
{
	size_t n = 0, k = 0;

	for (size_t i = 0; i < w->n_entries; i++)
		if (w->entries[i].type != type || w->entries[i].id != id)
			w->entries[n++] = w->entries[i];
	for (size_t i = 0; i < w->n_pages; i++)
		if (w->pages[i].type != type || w->pages[i].id != id)
			w->pages[k++] = w->pages[i];
	ASSERT(n < w->n_entries || k < w->n_pages);
	w->n_entries = n;
	w->n_pages = k;
}

/* ---- files ---- */

FileEntry *world_add_file(struct world *w, uint32_t id, FdTypes type)
{
	FileEntry *e = NEW(w, FileEntry, file_entry);

	e->id = id;
	e->type = type;
	world_add(w, IMG_FILES, 0, e);
	return e;
}

FileEntry *world_add_path(struct world *w, uint32_t id, const char *path)
{
	FileEntry *e = world_add_file(w, id, FD_TYPES__REG);

	e->reg = NEW(w, RegFileEntry, reg_file_entry);
	e->reg->id = id;
	e->reg->fown = NEW(w, FownEntry, fown_entry);
	e->reg->name = arena_strdup(&w->arena, path);
	return e;
}

FdinfoEntry *world_add_fd(struct world *w, uint32_t table, uint32_t fd, const FileEntry *file)
{
	FdinfoEntry *e = NEW(w, FdinfoEntry, fdinfo_entry);

	e->id = file->id;
	e->type = file->type;
	e->fd = fd;
	world_add(w, IMG_FDINFO, table, e);
	return e;
}

static FileEntry *add_socket(struct world *w, uint32_t id)
{
	FileEntry *e = world_add_file(w, id, FD_TYPES__UNIXSK);

	e->usk = NEW(w, UnixSkEntry, unix_sk_entry);
	e->usk->id = id;
	e->usk->ino = 4711;
	e->usk->type = SOCK_DGRAM;
	e->usk->state = 7;
	e->usk->fown = NEW(w, FownEntry, fown_entry);
	e->usk->opts = NEW(w, SkOptsEntry, sk_opts_entry);
	return e;
}

static FileEntry *add_memfd(struct world *w, uint32_t id)
{
	FileEntry *e = world_add_file(w, id, FD_TYPES__MEMFD);

	e->memfd = NEW(w, MemfdFileEntry, memfd_file_entry);
	e->memfd->id = id;
	e->memfd->fown = NEW(w, FownEntry, fown_entry);
	e->memfd->inode_id = 1;
	w->memfd = NEW(w, MemfdInodeEntry, memfd_inode_entry);
	w->memfd->name = arena_strdup(&w->arena, "m");
	w->memfd->size = WORLD_MEMFD_SIZE;
	w->memfd->shmid = WORLD_MEMFD_PAGES;
	w->memfd->inode_id = 1;
	world_add(w, IMG_MEMFD_INODE, 0, w->memfd);
	add_pages(w, (struct world_pages){ .type = IMG_SHMEM_PAGEMAP,
					   .id = WORLD_MEMFD_PAGES,
					   .pages_id = 4,
					   .run = { { .vaddr = 0, .pages = 2 } },
					   .n = 1 });
	return e;
}

static RemapFilePathEntry *add_remap(struct world *w, uint32_t file, RemapType type, uint32_t to)
{
	RemapFilePathEntry *e = NEW(w, RemapFilePathEntry, remap_file_path_entry);

	e->orig_id = file;
	e->has_remap_type = true;
	e->remap_type = type;
	e->remap_id = to;
	world_add(w, IMG_REMAP_FPATH, 0, e);
	return e;
}

static void add_ghost(struct world *w)
{
	w->ghost = NEW(w, GhostFileEntry, ghost_file_entry);
	w->ghost->mode = S_IFREG | 0600;
	w->ghost->has_size = w->ghost->has_chunks = w->ghost->chunks = true;
	w->ghost->size = 8192;
	world_add(w, IMG_GHOST_FILE, WORLD_GHOST, w->ghost);
	w->chunk = NEW(w, GhostChunkEntry, ghost_chunk_entry);
	w->chunk->off = 4096;
	w->chunk->len = 5;
	world_add_raw(w, IMG_GHOST_FILE, WORLD_GHOST, w->chunk, "ghost", 5);
}

static void add_queues(struct world *w)
{
	w->pipe_data = NEW(w, PipeDataEntry, pipe_data_entry);
	w->pipe_data->pipe_id = 77;
	w->pipe_data->bytes = 5;
	w->pipe_data->n_packets = 2;
	w->pipe_data->packets = arena_array(&w->arena, uint32_t, 2);
	w->pipe_data->packets[0] = 2;
	w->pipe_data->packets[1] = 3;
	world_add_raw(w, IMG_PIPES_DATA, 0, w->pipe_data, "abcde", 5);
	w->packet = NEW(w, SkPacketEntry, sk_packet_entry);
	w->packet->id_for = WORLD_SOCKET;
	w->packet->length = 3;
	w->packet->n_scm = 1;
	w->packet->scm = arena_array(&w->arena, ScmEntry *, 1);
	w->packet->scm[0] = NEW(w, ScmEntry, scm_entry);
	w->packet->scm[0]->type = 1;
	w->packet->scm[0]->n_rights = 1;
	w->packet->scm[0]->rights =
		arena_memdup(&w->arena, &(uint32_t){ WORLD_PROGRAM }, sizeof(uint32_t));
	world_add_raw(w, IMG_SK_QUEUES, 0, w->packet, "xyz", 3);
	w->bpfmap_data = NEW(w, BpfmapDataEntry, bpfmap_data_entry);
	w->bpfmap_data->map_id = 3;
	w->bpfmap_data->count = 1;
	w->bpfmap_data->keys_bytes = 4;
	w->bpfmap_data->values_bytes = 6;
	world_add_raw(w, IMG_BPFMAP_DATA, 0, w->bpfmap_data, "keysvalues", 10);
}

static void add_files(struct world *w)
{
	w->gone = world_add_path(w, WORLD_GONE, "/tmp/gone");
	world_add_path(w, WORLD_HIDDEN, "/tmp/hidden");
	world_add_path(w, WORLD_LINK, "/tmp/link_remap.5");
	w->ghost_remap = add_remap(w, WORLD_GONE, REMAP_TYPE__GHOST, WORLD_GHOST);
	w->link_remap = add_remap(w, WORLD_HIDDEN, REMAP_TYPE__LINKED, WORLD_LINK);
	add_ghost(w);
	w->socket = add_socket(w, WORLD_SOCKET);
	w->fd = world_add_fd(w, WORLD_TABLE, 9, w->gone);
	world_add_fd(w, WORLD_TABLE, 4, w->socket);
	world_add_fd(w, WORLD_TABLE, 5, add_memfd(w, WORLD_MEMFD));
	w->tty = NEW(w, TtyInfoEntry, tty_info_entry);
	w->tty->id = 31;
	w->tty->type = TTY_TYPE__PTY;
	w->tty->pty = NEW(w, TtyPtyEntry, tty_pty_entry);
	w->tty->pty->index = 15;
	world_add(w, IMG_TTY_INFO, 0, w->tty);
	w->tty_data = NEW(w, TtyDataEntry, tty_data_entry);
	w->tty_data->tty_id = 31;
	w->tty_data->data.data = (uint8_t *)"word";
	w->tty_data->data.len = 4;
	w->tty_data->eof_at = arena_array(&w->arena, uint32_t, 2);
	w->tty_data->n_eof_at = 2;
	w->tty_data->eof_at[0] = w->tty_data->eof_at[1] = 4;
	world_add(w, IMG_TTY_DATA, 0, w->tty_data);
	w->lock = NEW(w, FileLockEntry, file_lock_entry);
	w->lock->flag = 1;
	w->lock->pid = WORLD_ROOT;
	w->lock->fd = 9;
	world_add(w, IMG_FILE_LOCKS, 0, w->lock);
}

/* ---- tasks ---- */

static CoreEntry *add_core(struct world *w, uint32_t tid, bool is_leader)
{
	CoreEntry *e = NEW(w, CoreEntry, core_entry);

	e->mtype = CORE_ENTRY__MARCH__X86_64;
	e->thread_core = NEW(w, ThreadCoreEntry, thread_core_entry);
	if (is_leader) {
		e->tc = NEW(w, TaskCoreEntry, task_core_entry);
		e->tc->task_state = 1;
		e->tc->comm = arena_strdup(&w->arena, "task");
	}
	world_add(w, IMG_CORE, tid, e);
	return e;
}

static PstreeEntry *add_pstree(struct world *w, uint32_t pid, uint32_t parent)
{
	PstreeEntry *e = NEW(w, PstreeEntry, pstree_entry);

	e->pid = e->pgid = e->sid = pid;
	e->ppid = parent;
	e->n_threads = 1;
	e->threads = arena_memdup(&w->arena, &pid, sizeof(pid));
	world_add(w, IMG_PSTREE, 0, e);
	return e;
}

struct world_task world_add_task(struct world *w, uint32_t pid, uint32_t parent, uint32_t table)
{
	struct world_task t = { .pstree = add_pstree(w, pid, parent),
				.core = add_core(w, pid, true),
				.ids = NEW(w, TaskKobjIdsEntry, task_kobj_ids_entry),
				.mm = NEW(w, MmEntry, mm_entry),
				.fs = NEW(w, FsEntry, fs_entry) };

	t.core->ids = t.ids;
	t.ids->files_id = table;
	t.mm->exe_file_id = WORLD_PROGRAM;
	t.fs->cwd_id = t.fs->root_id = WORLD_SLASH;
	world_add(w, IMG_MM, pid, t.mm);
	world_add(w, IMG_FS, pid, t.fs);
	return t;
}

static VmaEntry *add_vma(struct world *w, MmEntry *mm, uint64_t start, uint64_t size,
			 uint32_t status)
{
	VmaEntry *v = NEW(w, VmaEntry, vma_entry);

	v->start = start;
	v->end = start + size;
	v->status = VMA_REGULAR | status;
	v->flags = status & VMA_ANON_SHARED ? MAP_SHARED | MAP_ANONYMOUS : MAP_PRIVATE;
	v->prot = PROT_READ;
	v->fd = -1;
	*ARENA_PUSH(&w->arena, mm->vmas, mm->n_vmas) = v;
	return v;
}

static void add_segment_vma(struct world *w, uint64_t start, uint64_t size, uint64_t pgoff)
{
	VmaEntry *v = add_vma(w, w->root.mm, start, size, VMA_ANON_SHARED);

	v->shmid = WORLD_SEGMENT;
	v->pgoff = pgoff;
}

static RangeEntry **one_range(struct world *w, uint64_t start, uint64_t size)
{
	RangeEntry **list = arena_array(&w->arena, RangeEntry *, 1);

	list[0] = NEW(w, RangeEntry, range_entry);
	list[0]->start = start;
	list[0]->end = start + size;
	return list;
}

static void add_memory(struct world *w)
{
	MmEntry *mm = w->root.mm;

	add_vma(w, mm, WORLD_ANON_START, 0x4000, VMA_ANON_PRIVATE);
	add_vma(w, mm, WORLD_FILE_START, 0x2000, VMA_FILE_PRIVATE)->shmid = WORLD_PROGRAM;
	add_segment_vma(w, WORLD_SHARED_START, 0x2000, 0);
	add_segment_vma(w, WORLD_SHARED_START + 0x4000, 0x2000, 0x1000);
	add_vma(w, mm, WORLD_MEMFD_START, 0x1000, VMA_FILE_SHARED | VMA_MEMFD)->shmid = WORLD_MEMFD;
	add_vma(w, mm, WORLD_RING_START, 0x1000, VMA_AIO_RING);
	add_vma(w, mm, WORLD_HUGE_START, 0x400000, VMA_ANON_PRIVATE);
	add_vma(w, mm, WORLD_VSYSCALL_START, 0x1000, VMA_VSYSCALL);
	ASSERT_EQ(mm->n_vmas, WORLD_VMAS);
	mm->aios = arena_array(&w->arena, AioRingEntry *, 1);
	mm->aios[mm->n_aios++] = NEW(w, AioRingEntry, aio_ring_entry);
	mm->aios[0]->id = WORLD_RING_START;
	mm->aios[0]->ring_len = 0x1000;
	mm->aios[0]->nr_req = 0x1000 / 32;
	mm->guards = one_range(w, WORLD_ANON_START, 0x1000);
	mm->huge = one_range(w, WORLD_HUGE_START, 0x200000);
	mm->n_guards = mm->n_huge = 1;
	add_pages(w, (struct world_pages){ .type = IMG_SHMEM_PAGEMAP,
					   .id = WORLD_SEGMENT,
					   .pages_id = 3,
					   .run = { { .vaddr = 0x1000, .pages = 2 } },
					   .n = 1 });
}

static void add_filters(struct world *w)
{
	static uint8_t insns[2 * 8];

	w->seccomp = NEW(w, SeccompEntry, seccomp_entry);
	w->seccomp->n_seccomp_filters = 2;
	w->seccomp->seccomp_filters = arena_array(&w->arena, SeccompFilter *, 2);
	for (size_t i = 0; i < 2; i++) {
		SeccompFilter *f = NEW(w, SeccompFilter, seccomp_filter);

		f->filter = (ProtobufCBinaryData){ (i + 1) * 8, insns };
		w->seccomp->seccomp_filters[i] = f;
	}
	w->seccomp->seccomp_filters[1]->has_prev = true;
	world_add(w, IMG_SECCOMP, 0, w->seccomp);
	w->thread->thread_core->has_seccomp_mode = true;
	w->thread->thread_core->seccomp_mode = SECCOMP_MODE__filter;
	w->thread->thread_core->has_seccomp_filter = true;
	w->thread->thread_core->seccomp_filter = 1;
}

static void add_timer(struct world *w)
{
	TaskTimersEntry *timers = NEW(w, TaskTimersEntry, task_timers_entry);

	timers->real = NEW(w, ItimerEntry, itimer_entry);
	timers->virt = NEW(w, ItimerEntry, itimer_entry);
	timers->prof = NEW(w, ItimerEntry, itimer_entry);
	timers->posix = arena_array(&w->arena, PosixTimerEntry *, 1);
	w->timer = timers->posix[timers->n_posix++] = NEW(w, PosixTimerEntry, posix_timer_entry);
	w->timer->it_id = 6;
	w->timer->it_sigev_notify = 4;
	w->timer->si_signo = 64;
	w->timer->has_notify_thread_id = w->timer->has_clock_thread_id = true;
	w->timer->notify_thread_id = w->timer->clock_thread_id = WORLD_THREAD;
	w->root.core->tc->timers = timers;
}

static void add_thread(struct world *w)
{
	static const uint32_t tids[] = { WORLD_ROOT, WORLD_THREAD };

	w->thread = add_core(w, WORLD_THREAD, false);
	w->root.pstree->threads = arena_memdup(&w->arena, tids, sizeof(tids));
	w->root.pstree->n_threads = ARRAY_SIZE(tids);
}

static struct world_pages *pages_of_task(struct world *w, uint32_t pid, uint32_t pages_id)
{
	add_pages(w, (struct world_pages){ .type = IMG_PAGEMAP, .id = pid, .pages_id = pages_id });
	return &w->pages[w->n_pages - 1];
}

void world_begin(struct world *w)
{
	*w = (struct world){ 0 };
	w->inventory = NEW(w, InventoryEntry, inventory_entry);
	w->inventory->img_version = 2;
	w->inventory->has_fdinfo_per_id = w->inventory->fdinfo_per_id = true;
	world_add(w, IMG_INVENTORY, 0, w->inventory);
	w->root = world_add_task(w, WORLD_ROOT, 0, WORLD_TABLE);
	world_add_path(w, WORLD_SLASH, "/");
	w->program = world_add_path(w, WORLD_PROGRAM, "/proc/self/exe");
	(void)pages_of_task(w, WORLD_ROOT, 1);
}

void world_furnish(struct world *w)
{
	world_begin(w);
	struct world_pages *pages = &w->pages[0];

	pages->run[0] = (struct page_run){ .vaddr = WORLD_ANON_START + 0x1000, .pages = 2 };
	pages->run[1] = (struct page_run){ .vaddr = WORLD_FILE_START, .pages = 1 };
	pages->n = 2;
	add_thread(w);
	add_timer(w);
	add_files(w);
	add_queues(w);
	add_memory(w);
	add_filters(w);
	w->child = world_add_task(w, WORLD_CHILD, WORLD_ROOT, WORLD_TABLE);
	(void)pages_of_task(w, WORLD_CHILD, 2);
	w->dead.pstree = add_pstree(w, WORLD_DEAD, WORLD_CHILD);
	w->dead.core = add_core(w, WORLD_DEAD, true);
	w->dead.core->tc->task_state = 2;
}

static bool is_first_of_image(const struct world *w, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (w->entries[k].type == w->entries[i].type &&
		    w->entries[k].id == w->entries[i].id)
			return false;
	return true;
}

static void write_image(struct world *w, struct image_dir *d, const struct world_entry *first)
{
	struct image_out out;

	image_begin(&out, d, first->type, first->id);
	for (const struct world_entry *e = first; e < w->entries + w->n_entries; e++) {
		if (e->type != first->type || e->id != first->id)
			continue;
		image_add_message(&out, e->message);
		if (e->raw_size)
			memcpy(image_add_raw(&out, e->raw_size), e->raw, e->raw_size);
	}
	ASSERT_OK(image_commit(&out));
}

/* Page i of a pages file is full of the byte i + 1. */
static void write_pages(struct image_dir *d, const struct world_pages *p)
{
	autoclose int fd = ASSERT_OK(image_create_raw(d, IMG_PAGES, p->pages_id));
	int byte = 1;

	for (size_t i = 0; i < p->n; i++)
		for (uint64_t k = 0; k < p->run[i].pages; k++) {
			char page[PAGE_SIZE_];

			memset(page, byte++, sizeof(page));
			ASSERT_OK(write_all(fd, page, sizeof(page)));
		}
	ASSERT_OK(pagemap_write(d, p->type, p->id, p->pages_id, p->run, p->n));
}

void world_write(struct world *w)
{
	struct image_dir d;

	w->dir = test_dir();
	image_dir_init(&d, w->dir);
	for (size_t i = 0; i < w->n_entries; i++)
		if (is_first_of_image(w, i))
			write_image(w, &d, &w->entries[i]);
	for (size_t i = 0; i < w->n_pages; i++)
		write_pages(&d, &w->pages[i]);
	image_dir_done(&d);
}

int world_try(struct world *w, struct snapshot *ret)
{
	world_write(w);
	return snapshot_load(ret, w->dir);
}

void world_load(struct world *w, struct snapshot *ret)
{
	if (world_try(w, ret) < 0)
		test_fail(__FILE__, __LINE__, "%s", log_first_error());
}

void world_end(struct world *w, struct snapshot *s)
{
	snapshot_done(s);
	own_close(&w->dir);
	arena_done(&w->arena);
}
