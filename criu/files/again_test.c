/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/again_test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/own.h"
#include "sockets/sockets.h"

#define FDS_END 256 /* above all descriptors of a test */

static void add_files_of_world(struct again *a)
{
	for (size_t i = 0; i < a->world.n_entries; i++)
		if (a->world.entries[i].type == IMG_FILES)
			*files_new_entry(&a->dump) =
				*(const FileEntry *)a->world.entries[i].message;
	world_drop(&a->world, IMG_FILES, 0);
}

void again_begin(struct again *a)
{
	*a = (struct again){ .opts = { .ghost_limit = 1 << 20, .service_fd = -1 } };
	a->dump.opts = &a->opts;
	world_begin(&a->world);
	add_files_of_world(a);
	world_write(&a->world);
	image_dir_init(&a->dump.images, a->world.dir);
}

const char *again_path(struct again *a, const char *name)
{
	return arena_printf(&a->world.arena, "%s/%s", test_path(), name);
}

void again_add(struct again *a, int fd)
{
	ASSERT(fd >= 0 && fd < FDS_END);
	ASSERT(a->n_fds < AGAIN_MAX);
	a->fds[a->n_fds++] = fd;
}

static bool is_added(const struct again *a, int fd)
{
	for (size_t i = 0; i < a->n_fds; i++)
		if (a->fds[i] == fd)
			return true;
	return false;
}

/* A process that has nothing but these descriptors, and is stopped. */
static pid_t start_process(const struct again *a)
{
	int status;
	pid_t pid = ASSERT_OK(fork());

	if (pid == 0) {
		for (int fd = 0; fd < FDS_END; fd++)
			if (!is_added(a, fd))
				(void)close(fd);
		raise(SIGSTOP);
		_exit(0);
	}
	ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
	ASSERT(WIFSTOPPED(status));
	return pid;
}

static struct dump_task *make_task(struct again *a)
{
	struct arena *arena = &a->dump.arena;
	struct dump_task *t = arena_new(arena, struct dump_task);
	char path[32];

	t->process = arena_new(arena, struct process);
	snprintf(path, sizeof(path), "/proc/%d", a->pid);
	t->process->pid = a->pid;
	t->process->mem_fd = -1;
	t->process->proc_fd = ASSERT_OK(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	t->ids = MESSAGE(arena, TaskKobjIdsEntry, task_kobj_ids_entry);
	t->ids->files_id = WORLD_TABLE;
	t->threads = arena_new(arena, struct dump_thread);
	t->n_threads = 1;
	t->fs = MESSAGE(arena, FsEntry, fs_entry);
	return t;
}

void again_collect(struct again *a)
{
	struct dump *d = &a->dump;

	a->pid = start_process(a);
	a->is_running = true;
	d->tasks = make_task(a);
	d->n_tasks = 1;
	*ARENA_PUSH(&d->arena, d->tree.processes, d->tree.n) = d->tasks->process;
	ASSERT_OK(files_collect_task(d, d->tasks));
	ASSERT_OK(files_collect_end(d));
}

static void end_process(struct again *a)
{
	files_dump_done(&a->dump);
	ASSERT_OK(kill(a->pid, SIGKILL));
	ASSERT_EQ(waitpid(a->pid, NULL, 0), a->pid);
	a->is_running = false;
	for (size_t i = 0; i < a->n_fds; i++)
		ASSERT_OK(close(a->fds[i]));
}

void again_save(struct again *a)
{
	if (a->dump.n_blockers)
		test_fail(__FILE__, __LINE__, "%s", a->dump.blockers[0]);
	ASSERT_OK(files_save_contents(&a->dump));
	ASSERT_OK(files_write_images(&a->dump));
	end_process(a);
}

int again_open(struct again *a)
{
	struct restore *r = &a->restore;

	snapshot_done(&r->snapshot); /* of an attempt before */
	arena_done(&r->arena);
	*r = (struct restore){ .opts = &a->opts, .engine.tid = getpid() };
	int rc = snapshot_load(&r->snapshot, a->world.dir);

	if (rc == 0)
		rc = files_open_all(r);
	if (rc == 0)
		rc = files_open_late(r);
	if (rc == 0)
		rc = files_clean_up(r);
	if (rc == 0)
		files_forget_links(r);
	return rc;
}

void again_cycle(struct again *a)
{
	again_collect(a);
	again_save(a);
	if (again_open(a) < 0)
		test_fail(__FILE__, __LINE__, "%s", log_first_error());
}

static const FdinfoEntry *find_fd(const struct again *a, int fd)
{
	const struct snapshot_task *t = &a->restore.snapshot.tasks[0];

	for (size_t i = 0; i < t->n_fds; i++)
		if (t->fds[i]->fd == (uint32_t)fd)
			return t->fds[i];
	test_fail(__FILE__, __LINE__, "descriptor %d is not in the images", fd);
}

int again_fd(const struct again *a, int fd)
{
	return files_fd(&a->restore, find_fd(a, fd)->id);
}

const char *again_link(struct again *a, int fd)
{
	char link[64], *text = arena_alloc(&a->world.arena, 256);

	snprintf(link, sizeof(link), "/proc/self/fd/%d", again_fd(a, fd));
	ASSERT_OK(readlink(link, text, 255));
	return text;
}

const FileEntry *again_entry(const struct again *a, int fd)
{
	const struct snapshot *s = &a->restore.snapshot;

	return s->files[snapshot_file(s, find_fd(a, fd)->id)];
}

void again_end(struct again *a)
{
	if (a->is_running)
		end_process(a);
	file_table_free(a->dump.file_table);
	image_dir_done(&a->dump.images);
	arena_done(&a->dump.arena);
	arena_done(&a->restore.arena);
	world_end(&a->world, &a->restore.snapshot);
}

void again_blocked(struct again *a, const char *text)
{
	again_collect(a);
	ASSERT_EQ(a->dump.n_blockers, 1);
	if (!strstr(a->dump.blockers[0], text))
		test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", a->dump.blockers[0],
			  text);
}
