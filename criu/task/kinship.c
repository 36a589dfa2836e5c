/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who is whose child, and in which session and process group: what kinplan.c has planned is done
 * by blank tasks. Helpers are blank tasks, too, that live only while the tree is created.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/files.h"
#include "proc/task.h"
#include "proc/text.h"
#include "mem/mem.h"
#include "task/create.h"
#include "task/kinplan.h"
#include "task/restore.h"

#define PID_TRIES 1000

static uint32_t sid(const struct restore_task *t)
{
	return t->image->pstree->sid;
}

static uint32_t pgid(const struct restore_task *t)
{
	return t->image->pstree->pgid;
}

/*
 * With --shell-job the tree is in the session of criu, and the group of the root is that of criu,
 * even if its leader is in the tree: so it is what the shell has in the foreground, and what it is
 * told of when Control-Z stops it.
 */
static bool is_outer_session(const struct restore *r, uint32_t id)
{
	return r->opts->shell_job && id == sid(&r->tasks[0]) && !restore_find(r, id);
}

static bool is_outer_group(const struct restore *r, uint32_t id)
{
	return id == pgid(&r->tasks[0]) && is_outer_session(r, sid(&r->tasks[0]));
}

/* ---- plan ---- */

static bool is_in_images(const struct restore *r, uint32_t pid)
{
	for (size_t i = 0; i < r->n_tasks; i++) {
		const PstreeEntry *e = r->tasks[i].image->pstree;

		if (e->sid == pid || e->pgid == pid)
			return true;
		for (size_t j = 0; j < e->n_threads; j++)
			if (e->threads[j] == pid)
				return true;
	}
	return false;
}

static void add_helper(struct restore *r, uint32_t pid)
{
	struct restore_task *h = &r->helpers[r->n_helpers++];

	h->pid = pid;
	h->uffd = h->uffd_there = -1;
	h->n_threads = 1;
	h->threads = arena_new(&r->arena, struct restore_thread);
	h->threads[0].tid = pid;
}

static struct kin_tree make_tree(struct restore *r)
{
	struct kin_task *tasks = arena_array(&r->arena, struct kin_task, r->n_tasks);
	const struct restore_task *root = &r->tasks[0];
	bool is_job = is_outer_session(r, sid(root));

	for (size_t i = 0; i < r->n_tasks; i++) {
		const struct restore_task *t = &r->tasks[i];

		tasks[i] = (struct kin_task){
			.pid = t->pid,
			.sid = sid(t),
			.pgid = is_job && pgid(t) == pgid(root) ? KIN_JOB : pgid(t),
			.parent = t->image->parent,
			.shares_table = snapshot_shares_table(&r->snapshot, t->image),
		};
	}
	return (struct kin_tree){
		.tasks = tasks,
		.n = r->n_tasks,
		.outer_sid = is_job ? sid(root) : KIN_NONE,
		.outer_pgid = is_job ? KIN_JOB : KIN_NONE,
	};
}

static int check_helper(struct restore *r, uint32_t pid)
{
	const struct restore_task *root = &r->tasks[0];

	if ((pid == sid(root) || pid == pgid(root)) && kill(pid, 0) == 0)
		return refuse(EINVAL,
			      "pid %d: its session %u is not in the images and another process has "
			      "this pid; give --shell-job to join the session of criu",
			      root->pid, pid);
	return pid_check_free(r, pid);
}

int kin_plan(struct restore *r)
{
	const struct kin_tree tree = make_tree(r);
	struct kin_plan *plan = arena_new(&r->arena, struct kin_plan);
	int first_error = 0;

	if (kin_plan_make(&r->arena, &tree, plan) < 0)
		return refuse(EOPNOTSUPP,
			      "pid %d: it cannot be restored (session %u, group %u): %s",
			      r->tasks[plan->blamed].pid, sid(&r->tasks[plan->blamed]),
			      pgid(&r->tasks[plan->blamed]), plan->reason);
	r->kinship = plan;
	r->helpers = arena_array(&r->arena, struct restore_task, plan->n_helpers);
	for (size_t i = 0; i < plan->n_helpers; i++) {
		int rc = plan->helpers[i] ? check_helper(r, plan->helpers[i]) : 0;

		first_error = first_error ? first_error : rc;
		add_helper(r, plan->helpers[i]);
	}
	r->creators = arena_array(&r->arena, int, r->n_tasks + plan->n_helpers);
	for (size_t i = 0; i < plan->n_steps; i++)
		if (plan->steps[i].call == KIN_FORK)
			r->creators[plan->steps[i].who] = plan->steps[i].by;
	return first_error;
}

/* ---- the calls ---- */

static uint32_t pid_max(void)
{
	char text[32];
	uint64_t n;

	if (read_small_at(AT_FDCWD, "/proc/sys/kernel/pid_max", text, sizeof(text)) <= 0 ||
	    !text_dec(text, &n) || n > INT32_MAX)
		return 32768;
	return n;
}

/* A pid from the far end, which nothing of the images has and no process. */
static int find_free_pid(struct restore *r, struct restore_task *h)
{
	uint32_t pid = r->last_helper_pid ? r->last_helper_pid : pid_max();

	for (int i = 0; i < PID_TRIES && pid > 1; i++) {
		pid--;
		if (is_in_images(r, pid) || kill(pid, 0) == 0 || errno != ESRCH)
			continue;
		h->pid = h->threads[0].tid = r->last_helper_pid = pid;
		return 0;
	}
	return refuse(EAGAIN, "no free pid is found for a helper");
}

/* Blank tasks may not be interrupted by anything but us. */
static int fork_first(struct restore *r, struct restore_task *t)
{
	bool is_root = t == &r->tasks[0];
	sigset_t all, before;

	sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, &before) < 0)
		return fail(errno, "block signals");
	int rc = blank_create_first(r, t, is_root && r->opts->sibling);
	if (sigprocmask(SIG_SETMASK, &before, NULL) < 0 && rc == 0)
		rc = fail(errno, "unblock signals");
	return rc;
}

static int prepare_birth(struct restore *r, const struct kin_step *s)
{
	struct restore_task *t = restore_node(r, s->who);
	int rc = t->pid ? 0 : find_free_pid(r, t);

	if (rc == 0 && s->by != KIN_CRIU && s->arg & CLONE_PARENT && r->opts->sibling)
		return refuse(EOPNOTSUPP,
			      "pid %d: the leader of its session %u is gone; such a tree cannot be "
			      "restored with --restore-sibling",
			      t->pid, sid(t));
	return rc;
}

/* All children that one has one after the other are born by one program. */
static int do_forks(struct restore *r, const struct kin_step *s, size_t n)
{
	struct birth births[BIRTHS_MAX];
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		births[i] = (struct birth){ .child = restore_node(r, s[i].who), .flags = s[i].arg };
		rc = prepare_birth(r, &s[i]);
	}
	if (rc < 0 || s->by == KIN_CRIU)
		return rc < 0 ? rc : fork_first(r, births[0].child);
	rc = cow_before_fork(r, s->by);
	if (rc == 0)
		rc = blank_create(r, restore_node(r, s->by), births, n);
	for (size_t i = 0; i < n && rc == 0; i++)
		cow_inherit(r, births[i].child, restore_node(r, s->by));
	return rc;
}

/* Children get the controlling terminal by being born: the leader takes it before. */
static int do_setsid(struct restore *r, const struct kin_step *s)
{
	struct restore_task *t = restore_node(r, s->who);
	int rc = blank_call(t, "become a session leader", SYS_setsid, 0, 0);
	int tty = (size_t)s->who < r->n_tasks ? ttys_of_session(r, t->pid) : -1;

	if (rc == 0 && tty >= 0)
		rc = blank_call(t, "take its controlling terminal", SYS_ioctl, tty, TIOCSCTTY);
	return rc;
}

static int do_setpgid(struct restore *r, const struct kin_step *s)
{
	return blank_call(restore_node(r, s->who), "join its process group", SYS_setpgid, 0,
			  s->arg);
}

static int do_subreaper(struct restore *r, const struct kin_step *s)
{
	return blank_call(restore_node(r, s->who), "be a subreaper for the time being", SYS_prctl,
			  PR_SET_CHILD_SUBREAPER, s->arg);
}

static int do_end(struct restore *r, const struct kin_step *s)
{
	struct restore_task *h = restore_node(r, s->who);
	struct program p;
	int status, rc = program_begin(&p, task_worker(h), 1);

	if (rc < 0)
		return rc;
	CALL(&p, "end a helper", SYS_exit_group, 0);
	rc = program_start(&p);
	if (rc == 0)
		rc = engine_wait(&r->engine, h->pid, &status);
	program_end(&p);
	if (rc == 0 && WIFSTOPPED(status))
		rc = refuse(EINTR, "pid %d: a helper stopped instead of ending", h->pid);
	if (rc < 0)
		return rc;
	h->is_gone = true;
	/* That of criu is reaped by now. */
	return s->by == KIN_CRIU
		       ? 0
		       : blank_call(restore_node(r, s->by), "reap a helper", SYS_wait4, h->pid, 0);
}

static int (*const calls[])(struct restore *r, const struct kin_step *s) = {
	[KIN_SETSID] = do_setsid,
	[KIN_SETPGID] = do_setpgid,
	[KIN_SUBREAPER] = do_subreaper,
	[KIN_END] = do_end,
};

/* ---- all ---- */

static int check_one(struct restore *r, const struct restore_task *t)
{
	struct proc_stat s;
	autoclose int fd = proc_open(t->pid);

	if (fd < 0 || proc_stat_read(fd, &s) < 0)
		return refuse(ESRCH, "pid %d: it is gone", t->pid);
	if (!is_outer_session(r, sid(t)) && s.sid != (pid_t)sid(t))
		return refuse(EINVAL, "pid %d: session %u cannot be restored (it would be %d)",
			      t->pid, sid(t), s.sid);
	if (!is_outer_group(r, pgid(t)) && s.pgid != (pid_t)pgid(t))
		return refuse(EINVAL,
			      "pid %d: process group %u cannot be restored (it would be %d)",
			      t->pid, pgid(t), s.pgid);
	if (t->parent && s.ppid != t->parent->pid)
		return refuse(EINVAL, "pid %d: it cannot be a child of %d (it would be of %d)",
			      t->pid, t->parent->pid, s.ppid);
	return 0;
}

/* How many steps from this one on are births by the same process. */
static size_t count_births(const struct kin_plan *plan, size_t first)
{
	const struct kin_step *s = &plan->steps[first];
	size_t n = 0;

	while (first + n < plan->n_steps && n < (s->by == KIN_CRIU ? 1 : BIRTHS_MAX) &&
	       s[n].call == KIN_FORK && s[n].by == s->by)
		n++;
	return n;
}

int task_create_all(struct restore *r)
{
	const struct kin_plan *plan = r->kinship;
	size_t n;
	int rc = 0;

	for (size_t i = 0; i < plan->n_steps && rc == 0; i += n) {
		const struct kin_step *s = &plan->steps[i];

		n = s->call == KIN_FORK ? count_births(plan, i) : 1;
		rc = s->call == KIN_FORK ? do_forks(r, s, n) : calls[s->call](r, s);
	}
	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		rc = check_one(r, &r->tasks[i]);
	return rc;
}
