/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * criu pre-dump: the private memory of a tree that goes on, ahead of a dump of it, which stores
 * only what has been written since. The tree is stopped for as long as it takes to find its pages.
 */
#include <errno.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "base/step.h"
#include "cmd/commands.h"
#include "cmd/dumping.h"
#include "cmd/stats.h"
#include "mem/incremental.h"
#include "mem/mem.h"
#include "mem/pageclient.h"
#include "mem/tracking.h"
#include "ns/ipc.h"
#include "task/collect.h"

/* Files are for the dump. */
static int no_file(struct dump *d, struct dump_task *t, const char *link, int flags,
		   const char *what, uint32_t *ret_id)
{
	(void)d, (void)t, (void)link, (void)flags, (void)what;
	*ret_id = 0;
	return 0;
}

/* Mappings that no dump can have are told of now rather than at the end. */
static int collect(void *ctx)
{
	struct dump *d = ctx;
	int rc = task_collect_tree(d);

	if (rc == 0)
		rc = ipc_collect(d);
	for (size_t i = 0; i < d->n_tasks && rc == 0; i++) {
		struct dump_task *t = &d->tasks[i];

		if (t->process->is_zombie)
			continue;
		rc = mem_collect(d, t, no_file);
		if (rc == 0)
			rc = mem_collect_pages(d, t);
	}
	ipc_check_attachments(d);
	return rc;
}

/*
 * What is written from now on is found by the next dump, also while these pages are read. What
 * tasks share (mem/cow.h) is stored for each: before it is read, one may write to it and the other
 * not.
 */
static int track(void *ctx)
{
	struct dump *d = ctx;
	int rc = 0;

	for (size_t i = 0; i < d->n_tasks && rc >= 0; i++) {
		struct dump_task *t = &d->tasks[i];

		if (t->process->is_zombie)
			continue;
		rc = process_mem(t->process);
		if (rc >= 0 && d->opts->prev_images_dir)
			rc = incremental_find(d, t);
	}
	if (rc >= 0)
		tracking_begin(d);
	return min(rc, 0);
}

static int let_go(void *ctx)
{
	struct dump *d = ctx;

	d->engine.is_held = true;
	tree_end(&d->tree, d->opts->leave_stopped ? TREE_STOP : TREE_RUN);
	d->engine.is_held = false;
	d->stats.frozen_us = now_us() - d->freeze_start_us - d->stats.freezing_us;
	return 0;
}

static int save_pages(void *ctx)
{
	struct dump *d = ctx;
	int rc = dumping_make_room(d);

	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		if (!d->tasks[i].process->is_zombie)
			rc = mem_save_live(d, &d->tasks[i]);
	return rc;
}

static int write_images(void *ctx)
{
	struct dump *d = ctx;
	int rc = 0;

	for (size_t i = 0; i < d->n_tasks && rc == 0; i++) {
		struct dump_task *t = &d->tasks[i];

		if (!t->process->is_zombie)
			rc = mem_write_pages(d, &t->pages);
	}
	return rc < 0 ? rc : page_client_close(d);
}

/* It has no version: nothing can be restored from here. */
static int write_inventory(void *ctx)
{
	struct dump *d = ctx;
	InventoryEntry e = INVENTORY_ENTRY__INIT;

	dumping_put_run(d, &e);
	e.has_pre_dump_mode = true;
	e.pre_dump_mode = d->opts->pre_dump_mode == PRE_DUMP_READ ? CRIU_PRE_DUMP_MODE__VM_READ
								  : CRIU_PRE_DUMP_MODE__SPLICE;
	return image_write_one(&d->images, IMG_INVENTORY, 0, &e);
}

static const struct step steps[] = {
	{ "open-images", dumping_open_images, NULL },
	{ "freeze", dumping_freeze, dumping_thaw },
	{ "collect", collect, NULL },
	{ "judge", dumping_judge, NULL },
	{ "track", track, NULL },
	{ "let-go", let_go, NULL },
	{ "pages", save_pages, dumping_discard_images },
	{ "images", write_images, NULL },
	{ "inventory", write_inventory, NULL },
	{ "check-images", dumping_check_images, NULL },
};

/* A tree that is to stay stopped does so in the end: if that is not reached, it goes on. */
static const struct step leave_stopped_steps[] = {
	{ "open-images", dumping_open_images, NULL },
	{ "freeze", dumping_freeze, dumping_thaw },
	{ "collect", collect, NULL },
	{ "judge", dumping_judge, NULL },
	{ "track", track, NULL },
	{ "pages", save_pages, dumping_discard_images },
	{ "images", write_images, NULL },
	{ "inventory", write_inventory, NULL },
	{ "check-images", dumping_check_images, NULL },
	{ "let-go", let_go, NULL, .commits = true },
};

static int check_options(const struct options *o)
{
	if (!o->tree)
		return refuse(EINVAL, "no process to pre-dump; give --tree PID");
	if (o->dry_run)
		return refuse(EINVAL, "--dry-run is for dump, not for pre-dump");
	if (o->snapshot)
		return refuse(EINVAL,
			      "--snapshot is for dump; a pre-dump lets the tree go on anyway");
	return 0;
}

int cmd_pre_dump(const struct options *o)
{
	struct options tracked = *o;
	struct dump d = DUMP_INIT(&tracked);

	tracked.track_mem = true;
	if (check_options(o) < 0)
		return 1;
	int rc = o->leave_stopped ? steps_run("pre-dump", leave_stopped_steps,
					      ARRAY_SIZE(leave_stopped_steps), &d)
				  : steps_run("pre-dump", steps, ARRAY_SIZE(steps), &d);
	if (rc == 0 && stats_write_dump(&d) < 0)
		warn("the pre-dump is complete, but its statistics could not be written");
	dumping_done(&d);
	if (rc < 0)
		error("Pre-dumping FAILED.");
	else
		info("Pre-dumping finished successfully");
	if (rc == 0)
		status_tell_ready(o);
	return rc < 0;
}
