/* SPDX-License-Identifier: GPL-2.0-only */
/* Entries of files.img are checked before anything is opened (files/restore.c and the classes). */
#include <fcntl.h>
#include <linux/bpf.h>

#include "base/own.h"
#include "files/again_test.h"

struct fake {
	struct world world;
	struct options opts;
	struct restore r;
	FileEntry *file; /* a regular one that is good */
};

#define ID 9

static void fake_begin(struct fake *f)
{
	*f = (struct fake){ .r = { 0 } };
	f->r.opts = &f->opts;
	world_begin(&f->world);
	f->file = world_add_path(&f->world, ID, "/dev/null");
}

static struct arena *arena_of(struct fake *f)
{
	return &f->world.arena;
}

static FownEntry *no_owner(struct fake *f)
{
	return MESSAGE(arena_of(f), FownEntry, fown_entry);
}

/* ---- what makes no sense: each gets a new entry with the id 9 ---- */

static void of_unknown_type(struct fake *f)
{
	f->file->type = FD_TYPES__INETSK;
}

static void without_part(struct fake *f)
{
	f->file->reg = NULL;
}

static void of_another_type(struct fake *f)
{
	f->file->type = FD_TYPES__PIPE;
}

static void with_another_id(struct fake *f)
{
	f->file->reg->id = ID + 1;
}

static void of_two_types(struct fake *f)
{
	f->file->efd = MESSAGE(arena_of(f), EventfdFileEntry, eventfd_file_entry);
	f->file->efd->fown = no_owner(f);
}

static void of_relative_path(struct fake *f)
{
	f->file->reg->name = (char *)"dev/null";
}

static FileEntry *become(struct fake *f, FdTypes type)
{
	f->file->reg = NULL;
	f->file->type = type;
	return f->file;
}

static void timer_without_end(struct fake *f)
{
	TimerfdEntry *e = become(f, FD_TYPES__TIMERFD)->tfd =
		MESSAGE(arena_of(f), TimerfdEntry, timerfd_entry);

	e->id = ID;
	e->fown = no_owner(f);
	e->vnsec = 1000000000;
}

static void fifo_without_file(struct fake *f)
{
	FifoEntry *e = become(f, FD_TYPES__FIFO)->fifo =
		MESSAGE(arena_of(f), FifoEntry, fifo_entry);

	e->id = ID;
	e->has_regf_id = true;
	e->regf_id = 0x63;
}

static void tty_without_info(struct fake *f)
{
	TtyFileEntry *e = become(f, FD_TYPES__TTY)->tty =
		MESSAGE(arena_of(f), TtyFileEntry, tty_file_entry);

	e->id = ID;
	e->fown = no_owner(f);
	e->tty_info_id = 0x63;
}

static void pidfd_of_stranger(struct fake *f)
{
	PidfdEntry *e = become(f, FD_TYPES__PIDFD)->pidfd =
		MESSAGE(arena_of(f), PidfdEntry, pidfd_entry);

	e->id = ID;
	e->fown = no_owner(f);
	e->nspid = 4711;
}

static void memfd_without_inode(struct fake *f)
{
	MemfdFileEntry *e = become(f, FD_TYPES__MEMFD)->memfd =
		MESSAGE(arena_of(f), MemfdFileEntry, memfd_file_entry);

	e->id = ID;
	e->fown = no_owner(f);
	e->inode_id = 0x63;
}

static void inotify_without_path(struct fake *f)
{
	InotifyFileEntry *e = become(f, FD_TYPES__INOTIFY)->ify =
		MESSAGE(arena_of(f), InotifyFileEntry, inotify_file_entry);
	InotifyWdEntry *w = MESSAGE(arena_of(f), InotifyWdEntry, inotify_wd_entry);

	e->id = ID;
	e->fown = no_owner(f);
	w->f_handle = MESSAGE(arena_of(f), FhEntry, fh_entry);
	*ARENA_PUSH(arena_of(f), e->wd, e->n_wd) = w;
}

static void fanotify_of_nothing(struct fake *f)
{
	FanotifyFileEntry *e = become(f, FD_TYPES__FANOTIFY)->ffy =
		MESSAGE(arena_of(f), FanotifyFileEntry, fanotify_file_entry);
	FanotifyMarkEntry *m = MESSAGE(arena_of(f), FanotifyMarkEntry, fanotify_mark_entry);

	e->id = ID;
	e->fown = no_owner(f);
	m->type = MARK_TYPE__MOUNT;
	*ARENA_PUSH(arena_of(f), e->mark, e->n_mark) = m;
}

static BpfmapFileEntry *become_map(struct fake *f)
{
	BpfmapFileEntry *e = become(f, FD_TYPES__BPFMAP)->bpf =
		MESSAGE(arena_of(f), BpfmapFileEntry, bpfmap_file_entry);

	e->id = ID;
	e->fown = no_owner(f);
	e->map_id = 3;
	e->map_type = BPF_MAP_TYPE_HASH;
	e->key_size = 4;
	e->value_size = 6;
	e->max_entries = 1;
	e->map_name = (char *)"";
	return e;
}

static void map_of_programs(struct fake *f)
{
	become_map(f)->map_type = BPF_MAP_TYPE_PROG_ARRAY;
}

static void map_without_keys(struct fake *f)
{
	become_map(f)->key_size = 0;
}

static void map_without_values(struct fake *f)
{
	become_map(f)->value_size = 0;
}

/* One element of four and six bytes waits in the image; the map is as the test says. */
static void add_elements(struct fake *f)
{
	BpfmapDataEntry *e = MESSAGE(arena_of(f), BpfmapDataEntry, bpfmap_data_entry);

	e->map_id = 3;
	e->count = 1;
	e->keys_bytes = 4;
	e->values_bytes = 6;
	world_add_raw(&f->world, IMG_BPFMAP_DATA, 0, e, "keysvalues", 10);
}

static void map_with_longer_keys(struct fake *f)
{
	become_map(f)->key_size = 5;
	add_elements(f);
}

static void map_with_shorter_values(struct fake *f)
{
	become_map(f)->value_size = 5;
	add_elements(f);
}

static void map_without_room(struct fake *f)
{
	become_map(f)->max_entries = 0;
	add_elements(f);
}

static const struct {
	void (*spoil)(struct fake *f);
	const char *text;
} bad_entries[] = {
	{ of_unknown_type, "file 0x9 is of type 4, which this version cannot restore" },
	{ without_part, "file 0x9: its entry does not fit its type" },
	{ of_another_type, "pipe 0x9: its entry does not fit its type" },
	{ with_another_id, "file 0x9: its entry does not fit its type" },
	{ of_two_types, "file 0x9: its entry is of two types" },
	{ of_relative_path, "file 0x9: its path \"dev/null\" is not absolute" },
	{ timer_without_end, "timerfd 0x9: its times make no sense" },
	{ fifo_without_file, "fifo 0x9: there is no file of it" },
	{ tty_without_info, "terminal 0x9: tty-info.img has no 0x63" },
	{ pidfd_of_stranger, "pidfd 0x9: there is no process 4711" },
	{ memfd_without_inode, "memfd 0x9: memfd.img has no inode 99" },
	{ inotify_without_path, "inotify 0x9: a watch has no path" },
	{ fanotify_of_nothing, "fanotify 0x9: a mark has neither inode nor mount" },
	{ map_of_programs, "bpf map 0x9: it is neither an array nor a hash" },
	{ map_without_keys, "bpf map 0x9: its sizes make no sense" },
	{ map_without_values, "bpf map 0x9: its sizes make no sense" },
	{ map_with_longer_keys, "bpf map 0x9: its sizes make no sense" },
	{ map_with_shorter_values, "bpf map 0x9: its sizes make no sense" },
	{ map_without_room, "bpf map 0x9: its sizes make no sense" },
};

TEST(files, entries_that_make_no_sense_are_refused_before_anything_is_opened)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_entries); i++) {
		struct fake f;
		char text[128];

		fake_begin(&f);
		bad_entries[i].spoil(&f);
		world_load(&f.world, &f.r.snapshot);
		snprintf(text, sizeof(text), "image files.img: %s", bad_entries[i].text);
		ASSERT_REFUSED(files_open_all(&f.r), text);
		ASSERT(!f.r.file_fds);
		(void)unlinkat(f.world.dir, "bpfmap-data.img",
			       0); /* the next has its own, or none */
		arena_done(&f.r.arena);
		world_end(&f.world, &f.r.snapshot);
	}
}

TEST(files, an_entry_that_makes_sense_is_opened)
{
	struct fake f;

	fake_begin(&f);
	world_load(&f.world, &f.r.snapshot);
	ASSERT_OK(files_open_all(&f.r));
	ASSERT(files_fd(&f.r, ID) >= 0);
	ASSERT_EQ(files_fd(&f.r, 0x63), -1);
	arena_done(&f.r.arena);
	world_end(&f.world, &f.r.snapshot);
}

TEST(files, numbers_of_tasks_are_not_used_by_criu)
{
	struct fake f;

	fake_begin(&f);
	int free_fd = dup(0);
	close(free_fd);
	for (int fd = 0; fd < 40; fd++)
		world_add_fd(&f.world, WORLD_TABLE, free_fd + fd, f.file);
	world_load(&f.world, &f.r.snapshot);
	ASSERT_OK(files_open_all(&f.r));
	for (size_t i = 0; i < f.r.snapshot.n_files; i++)
		ASSERT(f.r.file_fds[i] >= free_fd + 40 || f.r.file_fds[i] < free_fd);
	arena_done(&f.r.arena);
	world_end(&f.world, &f.r.snapshot);
}

/* ---- file_finish, file_reopen ---- */

TEST(files, flags_are_set_as_far_as_they_can_be)
{
	int fd = ASSERT_OK(open("/dev/null", O_RDWR));

	fd = ASSERT_OK(file_finish(fd, O_RDONLY | O_APPEND | O_NONBLOCK | O_CREAT, "x"));
	ASSERT_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK),
		  O_RDWR | O_APPEND | O_NONBLOCK);
	fd = ASSERT_OK(file_finish(fd, 0, "x"));
	ASSERT_EQ(fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK), 0);
	close(fd);
	ASSERT_REFUSED(file_finish(fd, 0, "x"), "x: read its flags");
}

TEST(files, a_descriptor_is_opened_once_more_with_other_access)
{
	int fd = ASSERT_OK(open("/dev/null", O_RDONLY));
	int other = ASSERT_OK(file_reopen(fd, O_WRONLY | O_CREAT | O_EXCL | O_TRUNC | O_NONBLOCK));

	ASSERT_EQ(fcntl(other, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
	ASSERT_EQ(fcntl(other, F_GETFD), FD_CLOEXEC);
	ASSERT_EQ(file_reopen(999, O_RDONLY), -ENOENT);
}

/* ---- classes ---- */

TEST(files, each_type_has_one_class)
{
	for (size_t i = 0; i < n_file_classes; i++) {
		ASSERT(file_class_of(file_classes[i]->type) == file_classes[i]);
		ASSERT(file_classes[i]->name && file_classes[i]->match && file_classes[i]->dump);
		ASSERT(file_classes[i]->has_part && file_classes[i]->open);
	}
	ASSERT(!file_class_of(FD_TYPES__INETSK));
}
