/* SPDX-License-Identifier: GPL-2.0-only */
/* criu restore: from a directory of images to a running tree. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/step.h"
#include "cmd/actions.h"
#include "cmd/commands.h"
#include "cmd/cpuinfo.h"
#include "cmd/pidns.h"
#include "cmd/stats.h"
#include "files/files.h"
#include "files/locks.h"
#include "files/memfd.h"
#include "files/tty.h"
#include "mem/aio.h"
#include "mem/cow.h"
#include "mem/huge.h"
#include "mem/mem.h"
#include "mem/vdso.h"
#include "ns/ipc.h"
#include "sockets/sockets.h"
#include "task/creds.h"
#include "task/registers.h"
#include "task/restore.h"
#include "task/timers.h"
#include "task/usual.h"

#define REGION_BASE (8u << 20) /* for programs and their data; only what is used costs memory */

static int load(void *ctx)
{
	struct restore *r = ctx;
	autoclose int dir = open(r->opts->images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return fail(errno, "images directory %s: open", r->opts->images_dir);
	raise_fd_limit();
	int rc = engine_init(&r->engine);
	if (rc == 0 && r->opts->cpu_cap > CPU_CAP_NONE)
		rc = cpuinfo_check(dir, r->opts);
	if (rc == 0)
		rc = snapshot_load(&r->snapshot, dir);
	/* Scripts are told where the images are. */
	r->images_fd = rc == 0 && actions_any(r->opts) ? take_fd(&dir) : -1;
	return rc;
}

static int run_actions(struct restore *r, const char *stage)
{
	int pid = r->tasks ? r->tasks[0].pid : 0;
	int rc = actions_run(r->opts, stage, r->images_fd, pid);

	return rc > 0 ? -ECANCELED : rc;
}

static int before_restore(void *ctx)
{
	return run_actions(ctx, "pre-restore");
}

static int after_restore(void *ctx)
{
	return run_actions(ctx, "post-restore");
}

static struct restore_task *task_of(struct restore *r, int index)
{
	return index < 0 ? NULL : &r->tasks[index];
}

static size_t make_tasks(struct restore *r)
{
	size_t n_threads = 0;

	r->n_tasks = r->snapshot.n_tasks;
	r->tasks = arena_array(&r->arena, struct restore_task, r->n_tasks);
	for (size_t i = 0; i < r->n_tasks; i++) {
		const struct snapshot_task *image = &r->snapshot.tasks[i];
		struct restore_task *t = &r->tasks[i];

		t->image = image;
		t->parent = task_of(r, image->parent);
		t->pid = image->pstree->pid;
		t->uffd = t->uffd_there = -1;
		t->is_zombie = image->is_zombie;
		t->is_compat = !image->is_zombie && registers_are_compat(image->cores[0]);
		r->has_compat |= t->is_compat;
		t->n_threads = image->is_zombie ? 1 : image->pstree->n_threads;
		t->threads = arena_array(&r->arena, struct restore_thread, t->n_threads);
		for (size_t j = 0; j < t->n_threads; j++)
			t->threads[j] = (struct restore_thread){ .core = image->cores[j],
								 .tid = image->pstree->threads[j] };
		n_threads += t->n_threads;
	}
	return n_threads;
}

static int map_region(struct restore *r, size_t size)
{
	uint64_t addr;
	int rc = mem_choose(r, &addr, size);

	if (rc < 0)
		return rc;
	void *p = mmap((void *)addr, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return fail(errno, "map the shared region at %#lx", (long)addr);
	region_init(&r->region, addr, p, size);
	if (mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0)
		return fail(errno, "make the stub executable");
	return 0;
}

/* --log-pid: a file for each task, empty at first. */
static void split_log(struct restore *r)
{
	char name[PATH_MAX];

	if (!r->opts->log_pid || !r->opts->log_file || !strcmp(r->opts->log_file, "-"))
		return;
	for (size_t i = 0; i < r->n_tasks; i++) {
		snprintf(name, sizeof(name), "%s.%d", r->opts->log_file, r->tasks[i].pid);
		if (unlink(name) < 0 && errno != ENOENT)
			warn("log file %s: remove the old one: %s", name, strerror(errno));
	}
	log_split(r->opts->log_file);
}

static int plan(void *ctx)
{
	struct restore *r = ctx;
	size_t n_threads = make_tasks(r);
	autoclose int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	r->is_huge_for_all = mem_is_huge_for_all();
	int rc = self < 0 ? -errno : maps_read(self, "maps", &r->arena, &r->own_maps);
	if (rc < 0)
		return fail(-rc, "read the mappings of criu");
	rc = creds_read_own(&r->arena, &r->own_creds);
	if (rc == 0)
		rc = task_check(r);
	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		if (!r->tasks[i].is_zombie)
			rc = vdso_check(r, &r->tasks[i]);
	if (rc < 0)
		return rc;
	split_log(r);
	size_t size = REGION_BASE + (n_threads + r->n_helpers) * sizeof(struct slot);
	return map_region(r, (size + 0xffff) & ~(size_t)0xffff);
}

static int open_files(void *ctx)
{
	int rc = files_open_all(ctx);

	return rc < 0 ? rc : mem_make_shared(ctx);
}

static void clean_files(void *ctx)
{
	sockets_undo(ctx);
	(void)files_clean_up(ctx);
}

static int open_late_files(void *ctx)
{
	int rc = files_open_late(ctx);

	return rc < 0 ? rc : files_clean_up(ctx);
}

static int set_owners(void *ctx)
{
	int rc = fown_restore_all(ctx);

	watches_drain(ctx);

	return rc < 0 ? rc : memfds_seal(ctx);
}

static int create_tree(void *ctx)
{
	struct restore *r = ctx;
	uint64_t start = now_us();

	usual_make();
	cow_unify(r);
	cow_plan(r);
	int rc = task_create_all(r);
	cow_done(r);

	r->stats.forking_us = now_us() - start;
	return rc;
}

static void kill_tree(void *ctx)
{
	task_kill_all(ctx);
}

static int lay_out(struct restore *r, struct restore_task *t, struct program *p)
{
	info("mapping %zu areas", t->image->mm->n_vmas);
	return mem_add_layout(r, t, p);
}

static int fill(struct restore *r, struct restore_task *t)
{
	const MmEntry *mm = t->image->mm;
	int rc = mem_make_huge(r, t, mm, mm->vmas, mm->n_vmas);

	info("filling %zu runs of pages", t->image->pages.n);
	if (rc == 0)
		rc = mem_fill(r, t, &t->image->pages, mm->vmas);
	if (rc == 0)
		rc = aio_restore(r, t);
	return rc < 0 ? rc : vdso_fill(r, t);
}

static int finish(struct restore *r, struct restore_task *t, struct program *p)
{
	/* First, or a lock would wait for somebody to fill the pages that are missing. */
	mem_add_end_fill(t, p);
	mem_add_finish(r, t, p);
	vdso_add_finish(t, p);
	files_restore_task(r, t, p);
	info("%zu descriptors", t->image->n_fds);
	return 0;
}

/* Runs one part of the work for all tasks that live. */
static int for_all(struct restore *r, int (*part)(struct restore *r, struct restore_task *t))
{
	for (size_t i = 0; i < r->n_tasks; i++) {
		if (r->tasks[i].is_zombie)
			continue;
		log_set_task(r->tasks[i].pid);
		int rc = part(r, &r->tasks[i]);
		log_set_task(0);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The same by a program in each of them, as many at a time as it makes sense. */
static int run_in_all(struct restore *r,
		      int (*add)(struct restore *r, struct restore_task *t, struct program *p))
{
	struct batch batch = { 0 };

	for (size_t i = 0; i < r->n_tasks && !batch.error; i++) {
		struct restore_task *t = &r->tasks[i];

		if (t->is_zombie)
			continue;
		/* In one descriptor table all have their turn: the last one closes what is left. */
		if (snapshot_shares_table(&r->snapshot, t->image))
			batch_wait(&batch);
		struct program *p = batch_begin(&batch, task_worker(t), 512);
		if (!p)
			break;
		program_set_long(p);
		log_set_task(t->pid);
		batch.error = add(r, t, p);
		log_set_task(0);
		batch_start(&batch);
	}
	return batch_end(&batch);
}

static int make_ipc(void *ctx)
{
	return ipc_make(ctx);
}

static void drop_ipc(void *ctx)
{
	ipc_drop(ctx);
}

static int memory(void *ctx)
{
	int rc = run_in_all(ctx, lay_out);

	mem_close_shared(ctx);
	if (rc == 0)
		rc = ipc_finish(ctx);
	if (rc == 0)
		rc = for_all(ctx, fill);
	return rc < 0 ? rc : run_in_all(ctx, finish);
}

static int zombies(void *ctx)
{
	return task_bury_zombies(ctx);
}

static int attributes(void *ctx)
{
	int rc = run_in_all(ctx, task_add_attributes);

	return rc < 0 ? rc : locks_break_leases(ctx);
}

static int restore_threads(struct restore *r)
{
	struct batch batch = { 0 };
	int rc = 0;

	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		if (!r->tasks[i].is_zombie)
			rc = task_restore_threads(r, &r->tasks[i], &batch);
	int rest = batch_end(&batch);
	return rc < 0 ? rc : rest;
}

static int threads(void *ctx)
{
	int rc = for_all(ctx, task_create_threads);

	if (rc == 0)
		rc = for_all(ctx, timers_create);
	return rc < 0 ? rc : restore_threads(ctx);
}

static int timers(void *ctx)
{
	return for_all(ctx, task_start_timers);
}

static int registers(void *ctx)
{
	int rc = for_all(ctx, task_interrupt);

	return rc < 0 ? rc : for_all(ctx, task_set_registers);
}

static int write_pidfile(void *ctx)
{
	struct restore *r = ctx;
	int rc = 0;

	if (r->opts->pidfile)
		rc = pidfile_write(r->opts->pidfile, pidns_outer_pid(r->opts, r->tasks[0].pid));

	r->has_pidfile = r->opts->pidfile && rc == 0;
	return rc;
}

static void remove_pidfile(void *ctx)
{
	struct restore *r = ctx;

	if (r->has_pidfile)
		(void)unlink(r->opts->pidfile);
}

static int let_go(void *ctx)
{
	struct restore *r = ctx;

	if (run_actions(r, "pre-resume") < 0)
		warn("the failure of stage pre-resume changes nothing");
	ttys_take_own(r);
	files_close_all(r);
	task_let_go(r, r->opts->leave_stopped);
	files_forget_links(r);
	r->stats.restore_us = now_us() - r->start_us;
	return 0;
}

static const struct step restore_steps[] = {
	{ "load", load, NULL },
	{ "plan", plan, NULL },
	{ "pre-restore", before_restore, NULL },
	{ "files", open_files, clean_files },
	{ "create", create_tree, kill_tree },
	{ "ipc", make_ipc, drop_ipc },
	{ "late-files", open_late_files, NULL },
	{ "memory", memory, NULL },
	{ "zombies", zombies, NULL },
	{ "attributes", attributes, NULL },
	{ "threads", threads, NULL },
	{ "timers", timers, NULL },
	{ "registers", registers, NULL },
	{ "owners", set_owners, NULL },
	{ "post-restore", after_restore, NULL },
	{ "pidfile", write_pidfile, remove_pidfile },
	{ "let-go", let_go, NULL, .commits = true },
};

/* Without --restore-detached criu stays until the tree is gone. */
static void wait_for_tree(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	while (waitpid(-1, NULL, __WALL) >= 0 || errno == EINTR)
		;
}

static int restore_here(const struct options *o)
{
	struct restore r = { .opts = o, .start_us = now_us(), .images_fd = -1 };

	if (o->tree)
		warn("--tree has no meaning at restore and is ignored");
	int rc = steps_run("restore", restore_steps, ARRAY_SIZE(restore_steps), &r);
	if (rc == 0 && stats_write_restore(&r) < 0)
		warn("the restored tree runs, but its statistics could not be written");
	int pid = rc == 0 ? r.tasks[0].pid : 0;
	snapshot_done(&r.snapshot);
	arena_done(&r.arena);
	if (rc < 0) {
		own_close(&r.images_fd);
		error("Restoring FAILED.");
		return 1;
	}
	if (rc == 0 && actions_run(o, "post-resume", r.images_fd, pid) != 0)
		warn("the failure of stage post-resume changes nothing");
	own_close(&r.images_fd);
	info("Restore finished successfully. Tasks resumed.");
	if (o->outcome)
		o->outcome->pid = pid;
	status_tell_ready(o);
	if (!o->detach)
		wait_for_tree();
	return 0;
}

int cmd_restore(const struct options *o)
{
	return pidns_is_wanted(o) ? pidns_restore(o, restore_here) : restore_here(o);
}
