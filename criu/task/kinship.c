/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who is whose child, and in which session and process group.
 *
 * A child gets both from its parent, and mostly that is enough: it is created by its parent, before
 * or after the parent made a session of its own. But a session outlives its leader, a process group
 * too, and who loses its parent is adopted. For these there are helpers, blank tasks that live only
 * while the tree is created:
 *
 *  1. A helper with the pid of the lost leader makes the session, or the group.
 *  2. Who was adopted is created by a member of its session: by that helper, or by one that the
 *     living leader creates for it. Its adopter is a subreaper meanwhile.
 *  3. The helper ends, and the adopter gets its children (prctl(2), PR_SET_CHILD_SUBREAPER).
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
#include "task/create.h"
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

static bool is_leader(const struct restore_task *t)
{
	return sid(t) == (uint32_t)t->pid;
}

static struct restore_task *find(const struct restore *r, uint32_t pid)
{
	for (size_t i = 0; i < r->n_tasks; i++)
		if ((uint32_t)r->tasks[i].pid == pid)
			return &r->tasks[i];
	return NULL;
}

static struct restore_task *find_helper(const struct restore *r, uint32_t pid)
{
	for (size_t i = 0; i < r->n_helpers; i++)
		if ((uint32_t)r->helpers[i].pid == pid)
			return &r->helpers[i];
	return NULL;
}

/* With --shell-job the tree is in the session, and perhaps the group, of criu. */
static bool is_outer_session(const struct restore *r, uint32_t id)
{
	return r->opts->shell_job && id == sid(&r->tasks[0]) && !find(r, id);
}

static bool is_outer_group(const struct restore *r, uint32_t id)
{
	return r->opts->shell_job && id == pgid(&r->tasks[0]) && !find(r, id);
}

/* A child in its parent's old session was born before the parent made its own. */
static bool is_born_early(const struct restore_task *t)
{
	const struct restore_task *p = t->parent;

	return p && is_leader(p) && !is_leader(t) && sid(t) != sid(p) && p->parent &&
	       sid(t) == sid(p->parent);
}

/* Does it get its session from its parent, or make one? */
static bool is_own_child(const struct restore_task *t)
{
	return is_leader(t) || !t->parent || sid(t) == sid(t->parent) || is_born_early(t);
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

static struct restore_task *new_helper(struct restore *r, uint32_t pid)
{
	struct restore_task *h = &r->helpers[r->n_helpers++];

	h->pid = pid;
	h->uffd = -1;
	h->n_threads = 1;
	h->threads = arena_new(&r->arena, struct restore_thread);
	h->threads[0].tid = pid;
	return h;
}

static int plan_leader(struct restore *r, const struct restore_task *t, uint32_t id)
{
	if (find(r, id) || find_helper(r, id))
		return 0;
	if (t == &r->tasks[0] && kill(id, 0) == 0)
		return refuse(EINVAL,
			      "pid %d: its session %u is not in the images and another process has "
			      "this pid; give --shell-job to join the session of criu",
			      t->pid, id);
	int rc = pid_check_free(r, id);
	(void)new_helper(r, id);
	return rc;
}

int kin_plan(struct restore *r)
{
	int first_error = 0;

	/* At most two leaders for each task, and one that creates it. */
	r->helpers = arena_array(&r->arena, struct restore_task, 3 * r->n_tasks);
	for (size_t i = 0; i < r->n_tasks; i++) {
		const struct restore_task *t = &r->tasks[i];
		int rc = is_outer_session(r, sid(t)) ? 0 : plan_leader(r, t, sid(t));

		if (rc == 0 && !is_outer_group(r, pgid(t)))
			rc = plan_leader(r, t, pgid(t));
		first_error = first_error ? first_error : rc;
		if (!is_own_child(t))
			t->parent->is_adopter = true;
	}
	return first_error;
}

/* ---- create ---- */

static int set_subreaper(struct restore_task *t, bool on)
{
	return blank_call(t, "be a subreaper for the time being", SYS_prctl, PR_SET_CHILD_SUBREAPER,
			  on);
}

/* Children get the controlling terminal by being born: the leader takes it before. */
static int make_session(struct restore *r, struct restore_task *t)
{
	int rc = blank_call(t, "become a session leader", SYS_setsid, 0, 0);
	int tty = ttys_of_session(r, t->pid);

	if (rc == 0 && tty >= 0)
		rc = blank_call(t, "take its controlling terminal", SYS_ioctl, tty, TIOCSCTTY);
	return rc;
}

static bool exists(const struct restore_task *t)
{
	return t->threads[0].exists;
}

static int create_children(struct restore *r, struct restore_task *parent, bool early)
{
	for (size_t i = 0; i < r->n_tasks; i++) {
		struct restore_task *t = &r->tasks[i];

		if (t->parent != parent || !is_own_child(t) || is_born_early(t) != early)
			continue;
		bool shares = snapshot_shares_table(&r->snapshot, t->image);
		int rc = blank_create(r, parent, t, shares ? CLONE_FILES : 0);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int create_family(struct restore *r, struct restore_task *t)
{
	int rc = t->is_adopter ? set_subreaper(t, true) : 0;

	t->has_family = true;
	if (rc == 0)
		rc = create_children(r, t, true);
	if (rc == 0 && is_leader(t))
		rc = make_session(r, t);
	return rc < 0 ? rc : create_children(r, t, false);
}

/* Families of all tasks that exist, and of those that come to be thereby: parents come first. */
static int create_families(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		if (exists(&r->tasks[i]) && !r->tasks[i].has_family)
			rc = create_family(r, &r->tasks[i]);
	return rc;
}

/* A helper with a lost leader's pid, made when it is first needed, as a child of parent. */
static int make_leader(struct restore *r, struct restore_task *h, struct restore_task *parent)
{
	if (exists(h))
		return 0;
	h->parent = parent;
	int rc = blank_create(r, parent, h, 0);
	return rc < 0 ? rc : blank_call(h, "become a session leader", SYS_setsid, 0, 0);
}

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
static uint32_t find_free_pid(struct restore *r)
{
	uint32_t pid = r->last_helper_pid ? r->last_helper_pid : pid_max();

	for (int i = 0; i < PID_TRIES; i++) {
		pid--;
		if (!is_in_images(r, pid) && kill(pid, 0) < 0 && errno == ESRCH)
			return r->last_helper_pid = pid;
	}
	return 0;
}

/* A helper that some member of a session creates for one task. */
static struct restore_task *make_stand_in(struct restore *r, struct restore_task *member)
{
	uint32_t pid = find_free_pid(r);
	struct restore_task *h = pid ? new_helper(r, pid) : NULL;

	if (!h) {
		(void)refuse(EAGAIN, "no free pid is found for a helper");
		return NULL;
	}
	h->parent = member;
	return blank_create(r, member, h, 0) < 0 ? NULL : h;
}

/* Returns 1 if the task exists now, 0 if its session does not exist yet, or -errno. */
static int adopt(struct restore *r, struct restore_task *t)
{
	struct restore_task *leader = find(r, sid(t)), *creator = find_helper(r, sid(t));

	if (snapshot_shares_table(&r->snapshot, t->image))
		return refuse(EINVAL,
			      "pid %d: it cannot share the descriptor table of a parent that "
			      "adopted it",
			      t->pid);
	if (leader && !(exists(leader) && leader->has_family))
		return 0;
	if (leader)
		creator = make_stand_in(r, leader);
	if (!creator)
		return -EAGAIN;
	int rc = make_leader(r, creator, t->parent);
	if (rc == 0)
		rc = blank_create(r, creator, t, 0);
	return rc < 0 ? rc : 1;
}

static int create_adopted(struct restore *r)
{
	bool goes_on = true;

	while (goes_on) {
		goes_on = false;
		for (size_t i = 0; i < r->n_tasks; i++) {
			struct restore_task *t = &r->tasks[i];

			if (exists(t) || is_own_child(t) || !exists(t->parent))
				continue;
			int rc = adopt(r, t);
			if (rc > 0)
				rc = create_families(r);
			else if (rc == 0)
				continue;
			if (rc < 0)
				return rc;
			goes_on = true;
		}
	}
	for (size_t i = 0; i < r->n_tasks; i++)
		if (!exists(&r->tasks[i]))
			return refuse(EINVAL,
				      "pid %d: session %u, which it is in, cannot be restored",
				      r->tasks[i].pid, sid(&r->tasks[i]));
	return 0;
}

/* The root of a tree whose session has lost its leader is created by a helper of that pid. */
static int create_root(struct restore *r)
{
	struct restore_task *root = &r->tasks[0], *h = find_helper(r, sid(root));

	if (!h)
		return blank_create_first(r, root, r->opts->sibling);
	if (r->opts->sibling)
		return refuse(EOPNOTSUPP,
			      "pid %d: the leader of its session %u is gone; such a tree cannot be "
			      "restored with --restore-sibling",
			      root->pid, sid(root));
	int rc = blank_create_first(r, h, false);
	if (rc == 0)
		rc = blank_call(h, "become a session leader", SYS_setsid, 0, 0);
	return rc < 0 ? rc : blank_create(r, h, root, CLONE_PARENT);
}

/* ---- process groups ---- */

/* A group exists as long as it has members: its leader, or a helper for it, is the first one. */
static int make_group(struct restore *r, struct restore_task *t)
{
	struct restore_task *leader = find(r, pgid(t)), *h = find_helper(r, pgid(t));

	if (is_outer_group(r, pgid(t)) || (leader && is_leader(leader)))
		return 0;
	if (!leader && h && !exists(h)) {
		h->parent = t;
		int rc = blank_create(r, t, h, 0);
		if (rc < 0)
			return rc;
	}
	leader = leader ? leader : h;
	if (getpgid(leader->pid) == leader->pid)
		return 0;
	return blank_call(leader, "make a process group", SYS_setpgid, 0, 0);
}

static int join_group(struct restore *r, struct restore_task *t)
{
	if (is_leader(t) || is_outer_group(r, pgid(t)) || getpgid(t->pid) == (pid_t)pgid(t))
		return 0;
	return blank_call(t, "join its process group", SYS_setpgid, 0, pgid(t));
}

static int set_groups(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		rc = make_group(r, &r->tasks[i]);
	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		rc = join_group(r, &r->tasks[i]);
	return rc;
}

/* ---- helpers end ---- */

static int end_helper(struct restore *r, struct restore_task *h)
{
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
	return h->parent ? blank_call(h->parent, "reap a helper", SYS_wait4, h->pid, 0) : 0;
}

/* In the order of the tasks they made, which is that of the adopter's children then. */
static int end_helpers(struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->n_helpers && rc == 0; i++)
		if (exists(&r->helpers[i]))
			rc = end_helper(r, &r->helpers[i]);
	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		if (r->tasks[i].is_adopter)
			rc = set_subreaper(&r->tasks[i], false);
	return rc;
}

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

int kin_create(struct restore *r)
{
	sigset_t all, before;

	/* Blank tasks may not be interrupted by anything but us. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	int rc = create_root(r);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (rc == 0)
		rc = create_families(r);
	if (rc == 0)
		rc = create_adopted(r);
	if (rc == 0)
		rc = set_groups(r);
	if (rc == 0)
		rc = end_helpers(r);
	for (size_t i = 0; i < r->n_tasks && rc == 0; i++)
		rc = check_one(r, &r->tasks[i]);
	return rc;
}
