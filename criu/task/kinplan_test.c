/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Trees come about by chance in a small model of the kernel; what is planned for them is done in
 * the same model, and must lead to the same tree.
 */
#include <sched.h>

#include "base/test.h"
#include "task/kinplan.h"

#define MAX_PROCS 400 /* with those that are gone, and with helpers */
#define OUTSIDE	  0   /* whoever has started the root, */

struct proc {
	uint32_t pid, sid, pgid;
	int parent;
	bool is_alive, is_zombie, is_subreaper;
	unsigned long born; /* or adopted */
};

static struct proc procs[MAX_PROCS];
static int n_procs;
static unsigned long now;
static uint64_t state;
static uint32_t shell_sid = 5, job_pgid = 6; /* of whoever has started the root */
static bool may_give_up;		     /* being a subreaper */

static long chance(long n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

/* ---- the kernel ---- */

static bool is_there(int i)
{
	return procs[i].is_alive || procs[i].is_zombie;
}

static int find_proc(uint32_t pid)
{
	for (int i = 0; i < n_procs; i++)
		if (is_there(i) && procs[i].pid == pid)
			return i;
	return -1;
}

static bool is_group(uint32_t pgid, uint32_t sid)
{
	for (int i = 0; i < n_procs; i++)
		if (is_there(i) && procs[i].pgid == pgid &&
		    (sid == KIN_NONE || procs[i].sid == sid))
			return true;
	return false;
}

static int make_proc(uint32_t pid, int by, int parent)
{
	struct proc *p = &procs[n_procs];

	ASSERT(n_procs < MAX_PROCS);
	*p = (struct proc){ .pid = pid,
			    .sid = procs[by].sid,
			    .pgid = procs[by].pgid,
			    .parent = parent,
			    .is_alive = true,
			    .born = ++now };
	return n_procs++;
}

static bool become_leader(int i)
{
	if (is_group(procs[i].pid, KIN_NONE))
		return false;
	procs[i].sid = procs[i].pgid = procs[i].pid;
	return true;
}

static bool join_group(int i, uint32_t pgid)
{
	if (procs[i].sid == procs[i].pid)
		return false;
	if (pgid && pgid != procs[i].pid && !is_group(pgid, procs[i].sid))
		return false;
	procs[i].pgid = pgid ? pgid : procs[i].pid;
	return true;
}

static int find_reaper(int i)
{
	do
		i = procs[i].parent;
	while (i != OUTSIDE && !(procs[i].is_alive && procs[i].is_subreaper));
	return i;
}

static void die(int i)
{
	int reaper = find_reaper(i);

	procs[i].is_alive = false;
	procs[i].is_zombie = true;
	/* in their order, and behind all that the reaper has */
	for (;;) {
		int first = -1;

		for (int c = 1; c < n_procs; c++)
			if (is_there(c) && procs[c].parent == i &&
			    (first < 0 || procs[c].born < procs[first].born))
				first = c;
		if (first < 0)
			return;
		procs[first].parent = reaper;
		procs[first].born = ++now;
	}
}

static void boot(void)
{
	n_procs = 1;
	procs[0] = (struct proc){ .pid = 1, .sid = shell_sid, .pgid = job_pgid, .is_alive = true };
}

/* ---- trees by chance ---- */

static void act(int i, uint32_t *next_pid)
{
	long n = chance(100);

	if (n < 40)
		make_proc((*next_pid)++, i, i);
	else if (n < 43 && i != 1)
		make_proc((*next_pid)++, i, procs[i].parent);
	else if (n < 58)
		(void)become_leader(i);
	else if (n < 64 && i != 1)
		(void)join_group(i, 0);
	else if (n < 72 && i != 1)
		(void)join_group(i, procs[1 + chance(n_procs - 1)].pgid);
	else if (n < 86 && i != 1)
		die(i);
	else if (n < 92)
		for (int c = 1; c < n_procs; c++)
			procs[c].is_zombie = procs[c].is_zombie && procs[c].parent != i;
	else if (n < 96)
		procs[i].is_subreaper = true;
	else if (n < 98 && i != 1 && may_give_up)
		procs[i].is_subreaper = false;
}

/* Returns whether the root is still in the session of its shell. */
static void grow(long steps, bool is_job)
{
	uint32_t next_pid = 100;
	int root = make_proc(next_pid++, OUTSIDE, OUTSIDE);

	procs[root].is_subreaper = true;
	if (!is_job)
		become_leader(root);
	while (steps-- > 0 && n_procs < MAX_PROCS / 2) {
		int i = 1 + chance(n_procs - 1);

		if (procs[i].is_alive && !(is_job && i == root && chance(3)))
			act(i, &next_pid);
	}
}

static int by_birth(const void *a, const void *b)
{
	unsigned long x = procs[*(const int *)a].born, y = procs[*(const int *)b].born;

	return (x > y) - (x < y);
}

/* Parents first, each parent's children in their order. */
static size_t list_tree(struct kin_task *tasks)
{
	int order[MAX_PROCS], n = 1;

	order[0] = 1;
	for (int i = 0; i < n; i++) {
		int first = n;

		for (int c = 2; c < n_procs; c++)
			if (is_there(c) && procs[c].parent == order[i])
				order[n++] = c;
		qsort(order + first, n - first, sizeof(*order), by_birth);
		for (int c = first; c < n; c++)
			tasks[c].parent = i;
	}
	for (int i = 0; i < n; i++) {
		tasks[i].pid = procs[order[i]].pid;
		tasks[i].sid = procs[order[i]].sid;
		tasks[i].pgid = procs[order[i]].pgid;
	}
	tasks[0].parent = -1;
	return n;
}

/* ---- what was planned ---- */

static int where[MAX_PROCS * 5]; /* tasks and helpers in the model */

static void do_step(const struct kin_step *s, const struct kin_tree *tree,
		    const struct kin_plan *plan)
{
	static uint32_t free_pid = 1000000;
	int who = where[s->who];

	switch (s->call) {
	case KIN_FORK: {
		uint32_t pid = s->who < (int)tree->n ? tree->tasks[s->who].pid
						     : plan->helpers[s->who - tree->n];
		int by = s->by == KIN_CRIU ? OUTSIDE : where[s->by];

		ASSERT(by == OUTSIDE || procs[by].is_alive);
		ASSERT(find_proc(pid) < 0);
		where[s->who] = make_proc(pid ? pid : free_pid++, by,
					  s->arg & CLONE_PARENT ? procs[by].parent : by);
		break;
	}
	case KIN_SETSID:
		ASSERT(become_leader(who));
		break;
	case KIN_SETPGID:
		ASSERT(join_group(who, s->arg));
		break;
	case KIN_SUBREAPER:
		procs[who].is_subreaper = s->arg;
		break;
	case KIN_END:
		die(who);
		ASSERT_EQ(procs[who].parent, s->by == KIN_CRIU ? OUTSIDE : where[s->by]);
		procs[who].is_zombie = false;
	}
}

static void check_same(const struct kin_tree *tree)
{
	unsigned long last[MAX_PROCS] = { 0 };

	for (size_t i = 0; i < tree->n; i++) {
		const struct kin_task *t = &tree->tasks[i];
		const struct proc *p = &procs[where[i]];

		ASSERT_EQ(p->sid, t->sid);
		ASSERT_EQ(p->pgid, t->pgid);
		ASSERT_EQ(p->parent, t->parent < 0 ? OUTSIDE : where[t->parent]);
		if (t->parent < 0)
			continue;
		ASSERT(p->born > last[t->parent]);
		last[t->parent] = p->born;
	}
	int living = 0;
	for (int i = 1; i < n_procs; i++)
		living += is_there(i);
	ASSERT_EQ(living, tree->n);
}

static int plan_and_do(struct arena *a, const struct kin_tree *tree)
{
	struct kin_plan plan;
	int rc = kin_plan_make(a, tree, &plan);

	if (rc < 0)
		return rc;
	ASSERT(plan.n_helpers <= KIN_HELPERS(tree->n));
	boot();
	for (size_t i = 0; i < plan.n_steps; i++)
		do_step(&plan.steps[i], tree, &plan);
	check_same(tree);
	return 0;
}

/* Returns how many trees have no plan. */
static int try_seeds(long seeds, long steps, bool is_job)
{
	static struct kin_task tasks[MAX_PROCS];
	int refused = 0;

	for (long seed = 1; seed <= seeds; seed++) {
		struct arena a = { 0 };
		struct kin_tree tree = { .tasks = tasks,
					 .outer_sid = KIN_NONE,
					 .outer_pgid = KIN_NONE };

		state = seed * 1000003 + steps;
		boot();
		grow(1 + chance(steps), is_job);
		tree.n = list_tree(tasks);
		if (!shell_sid && (tasks[0].sid || (!job_pgid && tasks[0].pgid)))
			continue; /* the others may be in what cannot be named */
		if (tasks[0].sid == shell_sid) {
			tree.outer_sid = shell_sid;
			tree.outer_pgid = tasks[0].pgid == job_pgid ? job_pgid : KIN_NONE;
		}
		refused += plan_and_do(&a, &tree) < 0;
		arena_done(&a);
	}
	return refused;
}

TEST(kinplan, small_trees_come_out_as_they_were)
{
	ASSERT_EQ(try_seeds(20000, 20, false), 0);
}

TEST(kinplan, large_trees_come_out_as_they_were)
{
	ASSERT_EQ(try_seeds(2000, 300, false), 0);
}

TEST(kinplan, jobs_of_a_shell_come_out_as_they_were)
{
	ASSERT_EQ(try_seeds(5000, 60, true), 0);
}

/* A shell in another pid namespace: its session, and its group perhaps, are called 0. */
TEST(kinplan, jobs_of_a_shell_outside_the_namespace_come_out_as_they_were)
{
	shell_sid = 0;
	ASSERT_EQ(try_seeds(5000, 60, true), 0);
	job_pgid = 0;
	ASSERT_EQ(try_seeds(5000, 60, true), 0);
}

/* Members of a session may have been adopted by processes that are not in one line any more. */
TEST(kinplan, a_tree_without_a_plan_is_refused_and_rare)
{
	may_give_up = true;
	ASSERT(try_seeds(2000, 300, false) <= 2);
}

/* From images: nothing that is planned may be against the rules of the kernel. */
TEST(kinplan, nonsense_is_refused)
{
	static struct kin_task tasks[6];
	int planned = 0;

	for (long seed = 1; seed <= 50000; seed++) {
		struct arena a = { 0 };
		struct kin_tree tree = { .tasks = tasks,
					 .n = 1 + chance(6),
					 .outer_sid = KIN_NONE,
					 .outer_pgid = KIN_NONE };

		state = seed;
		for (size_t i = 0; i < tree.n; i++) {
			tasks[i].pid = 100 + i;
			tasks[i].sid = 100 + chance(7);
			tasks[i].pgid = 100 + chance(7);
			tasks[i].parent = i ? chance(i) : -1;
		}
		planned += plan_and_do(&a, &tree) == 0;
		arena_done(&a);
	}
	ASSERT(planned > 100);
}
