/* SPDX-License-Identifier: GPL-2.0-only */
/* criu dump: from a running tree to a directory of images. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/step.h"
#include "cmd/actions.h"
#include "cmd/commands.h"
#include "cmd/cpuinfo.h"
#include "cmd/dumping.h"
#include "cmd/stats.h"
#include "files/files.h"
#include "mem/cow.h"
#include "mem/incremental.h"
#include "mem/mem.h"
#include "mem/pageclient.h"
#include "mem/tracking.h"
#include "model/dump.h"
#include "ns/ipc.h"
#include "task/collect.h"
#include "task/constants.h"

int dumping_open_images(void *ctx)
{
	struct dump *d = ctx;

	raise_fd_limit();
	image_dir_init(&d->images, open(d->opts->images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (d->images.fd < 0)
		return fail(errno, "images directory %s: open", d->opts->images_dir);
	if (files_check_options(d->opts) < 0)
		return -EINVAL;
	if (!d->opts->dry_run && faccessat(d->images.fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return fail(errno, "images directory %s: it cannot be written to",
			    d->opts->images_dir);
	int rc = incremental_open(d);
	return rc < 0 ? rc : page_client_connect(d);
}

int dumping_freeze(void *ctx)
{
	struct dump *d = ctx;
	int rc = engine_init(&d->engine);

	if (rc == 0)
		rc = task_note_own_namespaces(d);
	if (rc < 0)
		return rc;
	if (d->opts->timeout)
		d->engine.deadline_us = now_us() + d->opts->timeout * 1000000ull;
	d->freeze_start_us = now_us();
	rc = tree_stop(&d->tree, &d->engine, &d->arena, d->opts->tree);
	d->stats.freezing_us = now_us() - d->freeze_start_us;
	d->engine.deadline_us = 0; /* --timeout is for getting hold of the tree */
	return rc;
}

void dumping_thaw(void *ctx)
{
	struct dump *d = ctx;

	d->engine.is_held = true;
	tree_end(&d->tree, TREE_RUN);
}

static int collect_outside(void *ctx)
{
	struct dump *d = ctx;
	int rc = task_collect_tree(d);

	if (rc == 0)
		rc = ipc_collect(d);
	for (size_t i = 0; i < d->n_tasks && rc == 0; i++) {
		struct dump_task *t = &d->tasks[i];

		rc = task_collect_outside(d, t);
		if (rc < 0 || t->process->is_zombie)
			continue;
		rc = mem_collect(d, t, files_path_id);
		if (rc == 0)
			rc = mem_collect_pages(d, t);
		if (rc == 0)
			rc = files_collect_task(d, t);
		if (rc == 0)
			rc = files_collect_fs(d, t);
	}
	ipc_check_attachments(d);
	if (rc == 0)
		rc = mem_collect_shared(d);
	return rc < 0 ? rc : files_collect_end(d);
}

static int ask_task(struct dump *d, struct dump_task *t)
{
	int rc = inject_find_site(&t->in, &d->engine, t->process, &t->maps,
				  t->threads[0].status.has_shadow_stack);

	if (rc < 0)
		return rc;
	t->has_entered = true;
	rc = inject_enter(&t->in);
	if (rc == 0)
		rc = task_collect_inside(d, t);
	return rc < 0 ? rc : files_ask_task(t);
}

/* Who wants criu to stop waits until the threads of a task have made their calls. */
static int collect_inside(void *ctx)
{
	struct dump *d = ctx;

	for (size_t i = 0; i < d->n_tasks; i++) {
		struct dump_task *t = &d->tasks[i];

		if (t->process->is_zombie)
			continue;
		d->engine.is_held = true;
		int rc = ask_task(d, t);
		d->engine.is_held = false;
		if (rc == 0)
			rc = engine_check(&d->engine);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int leave_all(struct dump *d)
{
	int rc = 0;

	d->engine.is_held = true;
	for (size_t i = 0; i < d->n_tasks; i++) {
		int one = d->tasks[i].has_entered ? inject_leave(&d->tasks[i].in) : 0;

		if (one < 0)
			warn("pid %d: it could not be left as it was", d->tasks[i].process->pid);
		rc = rc < 0 ? rc : one;
		d->tasks[i].has_entered = false;
	}
	return rc;
}

static void leave_tasks(void *ctx)
{
	(void)leave_all(ctx);
}

int dumping_judge(void *ctx)
{
	struct dump *d = ctx;

	for (size_t i = 0; i < d->n_blockers; i++) {
		if (d->opts->dry_run)
			message("%s", d->blockers[i]);
		else
			(void)refuse(EOPNOTSUPP, "%s", d->blockers[i]);
	}
	if (d->opts->dry_run && !d->n_blockers)
		message("Nothing prevents a dump of pid %d.", d->opts->tree);
	return d->n_blockers ? -EOPNOTSUPP : 0;
}

int dumping_make_room(struct dump *d)
{
	if (unlinkat(d->images.fd, "inventory.img", 0) < 0 && errno != ENOENT)
		return fail(errno, "image inventory.img: remove that of an older dump");
	int rc = cow_remove_old(d);
	return rc < 0 ? rc : incremental_link(d);
}

static int save_pages(void *ctx)
{
	struct dump *d = ctx;
	int rc = dumping_make_room(d);

	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = mem_save_pages(d, &d->tasks[i]);
	if (rc == 0)
		rc = mem_save_shared(d);
	if (rc == 0)
		rc = ipc_save(d);
	return rc < 0 ? rc : files_save_contents(d);
}

static int track(void *ctx)
{
	struct dump *d = ctx;

	if (d->opts->track_mem && (d->opts->leave_running || d->opts->leave_stopped))
		tracking_begin(d);
	return 0;
}

static int make_copies(void *ctx)
{
	struct dump *d = ctx;

	return d->opts->snapshot ? mem_make_copies(d) : 0;
}

static void end_copies(void *ctx)
{
	mem_end_copies(ctx);
}

static int save_copied(void *ctx)
{
	struct dump *d = ctx;
	int rc = 0;

	d->engine.is_held = false; /* the tree has been let go */
	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		rc = mem_save_copied(d, &d->tasks[i]);
	if (rc == 0)
		mem_end_copies(d);
	return rc;
}

void dumping_discard_images(void *ctx)
{
	struct dump *d = ctx;

	files_remove_links(d);
	cow_discard_levels(d);
	image_dir_discard(&d->images);
}

static int write_timens(struct dump *d)
{
	TimensEntry e = TIMENS_ENTRY__INIT;
	Timespec monotonic = TIMESPEC__INIT, boottime = TIMESPEC__INIT;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	monotonic.tv_sec = now.tv_sec;
	monotonic.tv_nsec = now.tv_nsec;
	clock_gettime(CLOCK_BOOTTIME, &now);
	boottime.tv_sec = now.tv_sec;
	boottime.tv_nsec = now.tv_nsec;
	e.monotonic = &monotonic;
	e.boottime = &boottime;
	return image_write_one(&d->images, IMG_TIMENS, 0, &e);
}

static int write_images(void *ctx)
{
	struct dump *d = ctx;
	int rc = 0;

	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = mem_write_images(d, &d->tasks[i]);
	if (rc == 0)
		rc = mem_write_shared(d);
	if (rc == 0)
		rc = ipc_write_images(d);
	if (rc == 0)
		rc = files_write_images(d);
	if (rc == 0)
		rc = write_timens(d);
	if (rc == 0 && d->opts->cpu_cap > CPU_CAP_NONE)
		rc = cpuinfo_write(&d->images);
	if (rc == 0)
		rc = task_write_images(d);
	return rc < 0 ? rc : page_client_close(d);
}

void dumping_put_run(const struct dump *d, InventoryEntry *e)
{
	struct timespec now;

	if (!d->run_id)
		return;
	clock_gettime(CLOCK_BOOTTIME, &now);
	e->has_dump_uptime = true;
	e->dump_uptime = now.tv_sec * 1000000ull + now.tv_nsec / 1000;
	e->dump_criu_run_id = (char *)d->run_id;
}

/* The last image: with it the directory is a dump. */
static int write_inventory(void *ctx)
{
	struct dump *d = ctx;
	InventoryEntry e = INVENTORY_ENTRY__INIT;

	e.img_version = 2;
	e.has_fdinfo_per_id = e.fdinfo_per_id = true;
	e.has_ns_per_id = e.ns_per_id = true;
	e.root_ids = task_own_ids(&d->arena);
	e.has_lsmtype = true;
	e.lsmtype = LSMTYPE__NO_LSM;
	dumping_put_run(d, &e);
	return image_write_one(&d->images, IMG_INVENTORY, 0, &e);
}

/* A directory may be removed, or its file system unmounted, while we hold it open. */
int dumping_check_images(void *ctx)
{
	struct dump *d = ctx;

	return image_dir_check(&d->images, d->opts->images_dir);
}

static void forget_tracking(const struct dump *d)
{
	for (size_t i = 0; i < d->n_tasks; i++)
		tracking_forget(&d->tasks[i]);
}

static int let_go(void *ctx)
{
	struct dump *d = ctx;
	int rc = 0;

	d->engine.is_held = true;
	/* What was in flight may not be held by us when the tree goes on. */
	files_dump_done(d);
	/* A task that is killed needs no way back. */
	if (d->opts->leave_running || d->opts->leave_stopped) {
		rc = leave_all(d);
		files_remove_links(d);
	} else {
		forget_tracking(d);
	}
	tree_end(&d->tree, d->opts->leave_stopped   ? TREE_STOP
			   : d->opts->leave_running ? TREE_RUN
						    : TREE_KILL);
	d->stats.frozen_us = now_us() - d->freeze_start_us - d->stats.freezing_us;
	return rc;
}

static int run_actions(struct dump *d, const char *stage)
{
	int rc = actions_run(d->opts, stage, d->images.fd, d->opts->tree);

	if (rc > 0)
		d->script_status = rc;
	return rc > 0 ? -ECANCELED : rc;
}

static int before_dump(void *ctx)
{
	return run_actions(ctx, "pre-dump");
}

static int after_dump(void *ctx)
{
	return run_actions(ctx, "post-dump");
}

static const struct step dry_run_steps[] = {
	{ "open-images", dumping_open_images, NULL },
	{ "freeze", dumping_freeze, dumping_thaw },
	{ "collect", collect_outside, NULL },
	{ "ask", collect_inside, leave_tasks },
	{ "judge", dumping_judge, NULL },
};

/*
 * A tree that goes on is let go before the images are written: it need not wait for that. With
 * --snapshot much memory is written later, too, from copies.
 */
static const struct step leave_running_steps[] = {
	{ "open-images", dumping_open_images, NULL },
	{ "freeze", dumping_freeze, dumping_thaw },
	{ "collect", collect_outside, NULL },
	{ "ask", collect_inside, leave_tasks },
	{ "judge", dumping_judge, NULL },
	{ "copies", make_copies, end_copies },
	{ "pages", save_pages, dumping_discard_images },
	{ "track", track, NULL },
	{ "let-go", let_go, NULL },
	{ "copied-pages", save_copied, dumping_discard_images },
	{ "images", write_images, dumping_discard_images },
	{ "inventory", write_inventory, NULL },
	{ "check-images", dumping_check_images, NULL },
};

static const struct step dump_steps[] = {
	{ "open-images", dumping_open_images, NULL },
	{ "pre-dump", before_dump, NULL },
	{ "freeze", dumping_freeze, dumping_thaw },
	{ "collect", collect_outside, NULL },
	{ "ask", collect_inside, leave_tasks },
	{ "judge", dumping_judge, NULL },
	{ "pages", save_pages, dumping_discard_images },
	{ "track", track, NULL },
	{ "images", write_images, NULL },
	{ "inventory", write_inventory, NULL },
	{ "check-images", dumping_check_images, NULL },
	{ "post-dump", after_dump, NULL },
	{ "let-go", let_go, NULL, .commits = true },
};

static int run(struct dump *d)
{
	const struct options *o = d->opts;

	/* Those who are told of the end want the tree to be still then. */
	if (o->leave_running && !o->dry_run && !actions_any(o))
		return steps_run("dump", leave_running_steps, ARRAY_SIZE(leave_running_steps), d);
	if (o->snapshot && o->leave_running && !o->dry_run)
		warn("--snapshot: the tree stays stopped until the last action script has run");
	if (!o->dry_run)
		return steps_run("dump", dump_steps, ARRAY_SIZE(dump_steps), d);
	int rc = steps_run("dump", dry_run_steps, ARRAY_SIZE(dry_run_steps), d);
	if (rc == 0) {
		leave_tasks(d);
		dumping_thaw(d);
	}
	return rc;
}

void dumping_done(struct dump *d)
{
	for (size_t i = 0; i < d->n_tasks; i++)
		inject_done(&d->tasks[i].in);
	incremental_done(d);
	tree_done(&d->tree);
	files_dump_done(d);
	file_table_free(d->file_table);
	cow_close_levels(d);
	image_dir_done(&d->images);
	own_close(&d->images.fd);
	own_close(&d->page_server.fd);
	arena_done(&d->arena);
}

int cmd_dump(const struct options *o)
{
	struct dump d = DUMP_INIT(o);

	if (!o->tree) {
		(void)refuse(EINVAL, "no process to dump; give --tree PID");
		return 1;
	}
	if (o->snapshot && !o->leave_running) {
		(void)refuse(EINVAL,
			     "--snapshot is for a tree that goes on; give --leave-running, too");
		return 1;
	}
	int rc = run(&d);
	if (rc == 0 && !o->dry_run && stats_write_dump(&d) < 0)
		warn("the dump is complete, but its statistics could not be written");
	dumping_done(&d);
	if (rc < 0)
		error("Dumping FAILED.");
	else if (!o->dry_run)
		info("Dumping finished successfully");
	if (rc == 0)
		status_tell_ready(o);
	return rc < 0 && d.script_status ? d.script_status : rc < 0;
}
