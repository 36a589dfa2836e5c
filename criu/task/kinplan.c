/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Planning a tree of processes. A process gets its session from its creator when it is born; it
 * may make one of its own later, and whoever is born before that stays in the old one. It is
 * listed last among the children of its creator, or, when it has lost that, of who adopts it.
 *
 *  1. Births: the session each process is born in. That of a session leader matters only if it has
 *     children from before (find_births).
 *  2. Ways: who is not born by its parent, because that is never in its session or because its
 *     place in the list is behind that of somebody adopted, is born by a stand-in (find_ways).
 *  3. Families: each process has its early children, makes its session, has the others. A stand-in
 *     is forked by a member of the session, below the parent to be. The first member of a session
 *     whose leader is gone is a helper with its pid (make_families).
 *  4. Groups: those that leave their own group while others are in it leave a helper behind, and a
 *     group whose leader is gone is made by a helper with its pid (make_groups).
 *  5. Stand-ins end in the order of the lists, while the parent to be is the only subreaper
 *     (end_stand_ins); then all other helpers.
 *
 * The planner follows what its calls do, and looks at the end whether all is as it has to be.
 */
#include "task/kinplan.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#define LIFTS_MAX 1000 /* of leaders, one at a time; only made-up trees need many */

/* Tasks first, then helpers. */
struct node {
	uint32_t pid, sid, pgid;
	int parent;
	bool exists;
	uint64_t born; /* or adopted: the order among siblings */
};

enum way { EARLY, LATE, BY_STAND_IN, FROM_SESSION };

struct member {
	uint32_t birth; /* the session that it has to be born in; KIN_NONE: any */
	enum way way;
	bool is_early; /* of a stand-in: forked before the parent makes its session */
	bool has_family;
	int stand_in;	/* 0: none */
	int last_early; /* the last child that has to be born early, or -1 */
	int first_child, next_sibling, last_child;
};

struct by_pid {
	uint32_t pid;
	int index;
};

/* A session or group whose leader is not in the tree. */
struct lost {
	uint32_t id;
	int helper;  /* 0: none as yet */
	int deepest; /* of those that adopt its members */
};

struct planner {
	struct arena *a;
	const struct kin_tree *tree;
	struct kin_plan *plan;
	struct node *nodes;
	struct member *members;
	struct by_pid *index;
	struct lost *lost; /* by id, all that are not in the tree */
	size_t n, n_lost;
	uint64_t now;
};

static int give_up(struct planner *p, int task, const char *reason)
{
	p->plan->blamed = task;
	p->plan->reason = reason;
	return -EOPNOTSUPP;
}

static const struct kin_task *task(const struct planner *p, int i)
{
	return &p->tree->tasks[i];
}

static bool is_leader(const struct planner *p, int i)
{
	return task(p, i)->sid == task(p, i)->pid;
}

static int compare_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Index of a task by its pid, or -1. */
static int find(const struct planner *p, uint32_t pid)
{
	struct by_pid *found = bsearch(&pid, p->index, p->n, sizeof(*p->index), compare_number);

	return found ? found->index : -1;
}

static struct lost *find_lost(const struct planner *p, uint32_t id)
{
	return p->n_lost ? bsearch(&id, p->lost, p->n_lost, sizeof(*p->lost), compare_number)
			 : NULL;
}

static bool is_below(const struct planner *p, int i, int ancestor)
{
	while (i >= 0 && i != ancestor)
		i = task(p, i)->parent;
	return i == ancestor;
}

/* ---- 1. births ---- */

/* Can a leader be born in that session, as the child of others that have to be, too? */
static bool can_inherit(const struct planner *p, int i, uint32_t session)
{
	do
		i = task(p, i)->parent;
	while (i >= 0 && task(p, i)->sid != session && is_leader(p, i));
	return i >= 0 && task(p, i)->sid == session;
}

static bool is_born_before(const struct planner *p, int leader, uint32_t session)
{
	int other = find(p, session);

	return other >= 0 ? !is_below(p, other, leader) : can_inherit(p, leader, session);
}

/* From the leaves up: children from before decide where a leader is born. */
static void find_births(struct planner *p)
{
	for (int i = p->n - 1; i >= 0; i--) {
		struct member *m = &p->members[i];

		if (!is_leader(p, i))
			m->birth = task(p, i)->sid;
		int parent = task(p, i)->parent;
		if (parent < 0 || m->birth == KIN_NONE || !is_leader(p, parent) ||
		    m->birth == task(p, parent)->sid || p->members[parent].birth != KIN_NONE)
			continue;
		if (is_born_before(p, parent, m->birth))
			p->members[parent].birth = m->birth;
	}
}

static bool has_session_of(const struct planner *p, int parent, uint32_t birth)
{
	return parent < 0 || birth == KIN_NONE || birth == task(p, parent)->sid ||
	       birth == p->members[parent].birth;
}

/*
 * All that adopt members of one session have to be in one line, with the first member of it below.
 * Where they are not, leaders among them had these children before they made their sessions.
 */
static bool note_adopter(struct planner *p, struct lost *l, int adopter)
{
	if (l->deepest < 0 || is_below(p, adopter, l->deepest))
		l->deepest = adopter;
	return is_below(p, l->deepest, adopter);
}

static bool lift_leader(struct planner *p, int i, uint32_t session)
{
	if (i < 0 || !is_leader(p, i) || p->members[i].birth != KIN_NONE)
		return false;
	p->members[i].birth = session;
	return true;
}

static bool note_adopters(struct planner *p)
{
	bool has_changed = false;

	for (size_t i = 0; i < p->n_lost; i++)
		p->lost[i].deepest = -1;
	for (size_t i = 0; i < p->n && !has_changed; i++) {
		int parent = task(p, i)->parent;
		uint32_t birth = p->members[i].birth;
		struct lost *l = find_lost(p, birth);

		if (!l || has_session_of(p, parent, birth) || note_adopter(p, l, parent))
			continue;
		has_changed = lift_leader(p, parent, birth) || lift_leader(p, l->deepest, birth);
	}
	return has_changed;
}

/* ---- 2. ways ---- */

static void link_children(struct planner *p)
{
	for (size_t i = 0; i < p->n; i++)
		p->members[i].first_child = p->members[i].last_child = p->members[i].next_sibling =
			p->members[i].last_early = -1;
	for (size_t i = 1; i < p->n; i++) {
		struct member *parent = &p->members[task(p, i)->parent];

		if (parent->last_child >= 0)
			p->members[parent->last_child].next_sibling = i;
		else
			parent->first_child = i;
		parent->last_child = i;
	}
}

static bool must_be_early(const struct planner *p, int parent, int child)
{
	uint32_t birth = p->members[child].birth;

	return is_leader(p, parent) && birth != KIN_NONE && birth != task(p, parent)->sid &&
	       birth == p->members[parent].birth;
}

/* The list is in the order of birth, unless somebody was adopted; from then on all have to be. */
static void find_ways(struct planner *p, int parent)
{
	struct member *m = &p->members[parent];
	enum way now = EARLY;

	for (int c = m->first_child; c >= 0; c = p->members[c].next_sibling)
		if (must_be_early(p, parent, c))
			m->last_early = c;
	for (int c = m->first_child; c >= 0; c = p->members[c].next_sibling) {
		struct member *child = &p->members[c];
		bool early = must_be_early(p, parent, c);

		/* Parents and their lists come in order: so do indexes of siblings. */
		if (child->birth == KIN_NONE && now == EARLY && c < m->last_early)
			early = true;
		enum way wanted = early ? EARLY : LATE;
		if (!has_session_of(p, parent, child->birth))
			wanted = FROM_SESSION;
		if (wanted < now)
			wanted = BY_STAND_IN;
		child->is_early = early;
		child->way = wanted;
		now = wanted > LATE ? BY_STAND_IN : wanted;
	}
}

/* ---- calls, and what they do ---- */

static void add_step(struct planner *p, enum kin_call call, int who, int by, uint32_t arg)
{
	*ARENA_PUSH(p->a, p->plan->steps, p->plan->n_steps) =
		(struct kin_step){ .call = call, .who = who, .by = by, .arg = arg };
}

static void fork_node(struct planner *p, int who, int by, uint32_t flags)
{
	struct node *n = &p->nodes[who];

	n->exists = true;
	n->born = ++p->now;
	n->parent = by == KIN_CRIU || flags & CLONE_PARENT ? -1 : by;
	n->sid = by == KIN_CRIU ? p->tree->outer_sid : p->nodes[by].sid;
	n->pgid = by == KIN_CRIU ? p->tree->outer_pgid : p->nodes[by].pgid;
	add_step(p, KIN_FORK, who, by, flags);
}

static void make_session(struct planner *p, int who)
{
	p->nodes[who].sid = p->nodes[who].pgid = p->nodes[who].pid;
	add_step(p, KIN_SETSID, who, who, 0);
}

static void set_group(struct planner *p, int who, uint32_t group)
{
	p->nodes[who].pgid = group ? group : p->nodes[who].pid;
	add_step(p, KIN_SETPGID, who, who, group);
}

static int new_helper(struct planner *p, uint32_t pid)
{
	int i = p->n + p->plan->n_helpers++;

	p->plan->helpers[i - p->n] = pid;
	p->nodes[i].pid = pid;
	return i;
}

static void end_helper(struct planner *p, int helper)
{
	p->nodes[helper].exists = false;
	add_step(p, KIN_END, helper, p->nodes[helper].parent, 0);
}

/* ---- 3. families ---- */

static uint32_t table_flag(const struct planner *p, int i)
{
	return task(p, i)->shares_table ? CLONE_FILES : 0;
}

static void be_born_by_stand_in(struct planner *p, int i, int creator)
{
	int s = p->members[i].stand_in = new_helper(p, 0);

	fork_node(p, s, creator, table_flag(p, i));
	fork_node(p, i, s, table_flag(p, i));
}

static void have_children(struct planner *p, int parent, bool early)
{
	for (int c = p->members[parent].first_child; c >= 0; c = p->members[c].next_sibling) {
		const struct member *m = &p->members[c];

		if (m->way == FROM_SESSION || m->is_early != early)
			continue;
		if (m->way == BY_STAND_IN)
			be_born_by_stand_in(p, c, parent);
		else
			fork_node(p, c, parent, table_flag(p, c));
	}
}

/* Families of all that exist, and of those that come to be thereby: parents come first. */
static void make_families(struct planner *p)
{
	for (size_t i = 0; i < p->n; i++) {
		if (!p->nodes[i].exists || p->members[i].has_family)
			continue;
		p->members[i].has_family = true;
		have_children(p, i, true);
		if (is_leader(p, i))
			make_session(p, i);
		have_children(p, i, false);
	}
}

static int make_lost_leader(struct planner *p, struct lost *l, int parent)
{
	if (!l->helper) {
		l->helper = new_helper(p, l->id);
		fork_node(p, l->helper, parent, 0);
		make_session(p, l->helper);
	}
	return l->helper;
}

/* A member of the session below the parent to be: its leader, or any that is. -1: none as yet. */
static int find_creator(struct planner *p, uint32_t session, int parent)
{
	int leader = find(p, session);
	struct lost *l = find_lost(p, session);

	if (leader >= 0 && p->nodes[leader].sid == session && is_below(p, leader, parent))
		return leader;
	if (l && !l->helper && l->deepest >= 0 && p->members[l->deepest].has_family)
		(void)make_lost_leader(p, l, l->deepest);
	if (l && l->helper && p->nodes[l->helper].parent >= 0 &&
	    is_below(p, p->nodes[l->helper].parent, parent))
		return l->helper;
	for (size_t i = 0; i < p->n; i++)
		if (p->nodes[i].exists && p->nodes[i].sid == session && is_below(p, i, parent))
			return i;
	return -1;
}

static int make_all_families(struct planner *p)
{
	bool goes_on = true;

	make_families(p);
	while (goes_on) {
		goes_on = false;
		for (size_t i = 1; i < p->n; i++) {
			int parent = task(p, i)->parent;

			if (p->nodes[i].exists || p->members[i].way != FROM_SESSION ||
			    !p->members[parent].has_family)
				continue;
			if (task(p, i)->shares_table)
				return give_up(p, i,
					       "it shares the descriptor table of a parent that "
					       "adopted it");
			int creator = find_creator(p, p->members[i].birth, parent);
			if (creator < 0)
				continue;
			be_born_by_stand_in(p, i, creator);
			make_families(p);
			goes_on = true;
		}
	}
	for (size_t i = 0; i < p->n; i++)
		if (!p->nodes[i].exists)
			return give_up(p, i, "no other member of its session is below its parent");
	return 0;
}

/* The root of a tree whose session has lost its leader is created by a helper of that pid. */
static void make_root(struct planner *p)
{
	struct lost *l = find_lost(p, p->members[0].birth);

	if (!l)
		fork_node(p, 0, KIN_CRIU, 0);
	else
		fork_node(p, 0, make_lost_leader(p, l, KIN_CRIU), CLONE_PARENT);
}

/* ---- 4. groups ---- */

/* A group exists as long as it has members. */
static void make_group(struct planner *p, int i)
{
	uint32_t group = task(p, i)->pgid;
	int leader = find(p, group);
	struct lost *l = find_lost(p, group);

	if (leader < 0 && !l) /* that of criu; or of its shell, which cannot be had */
		return;
	if (l && !l->helper) {
		l->helper = new_helper(p, l->id);
		fork_node(p, l->helper, i, 0);
	}
	leader = leader < 0 ? l->helper : leader;
	if (p->nodes[leader].pgid == group)
		return;
	set_group(p, leader, 0);
	if (leader < (int)p->n && task(p, leader)->pgid != group)
		fork_node(p, new_helper(p, 0), leader, 0);
}

static void make_groups(struct planner *p)
{
	for (size_t i = 0; i < p->n; i++)
		make_group(p, i);
	for (size_t i = 0; i < p->n; i++)
		if (p->nodes[i].pgid != task(p, i)->pgid)
			set_group(p, i, task(p, i)->pgid);
}

/* ---- 5. the end of helpers ---- */

static void end_stand_ins(struct planner *p, int parent)
{
	bool is_reaper = false;

	for (int c = p->members[parent].first_child; c >= 0; c = p->members[c].next_sibling) {
		int s = p->members[c].stand_in;

		if (!s)
			continue;
		if (!is_reaper)
			add_step(p, KIN_SUBREAPER, parent, parent, 1);
		is_reaper = true;
		end_helper(p, s);
		p->nodes[c].parent = parent;
		p->nodes[c].born = ++p->now;
	}
	if (is_reaper)
		add_step(p, KIN_SUBREAPER, parent, parent, 0);
}

static void end_helpers(struct planner *p)
{
	for (size_t i = 0; i < p->n; i++)
		end_stand_ins(p, i);
	for (size_t i = p->n; i < p->n + p->plan->n_helpers; i++)
		if (p->nodes[i].exists)
			end_helper(p, i);
}

/* ---- all ---- */

/* A group lies in one session, and a session leader stays in its own. */
static bool is_group_right(const struct planner *p, int i)
{
	const struct kin_task *t = task(p, i);
	const struct lost *l = find_lost(p, t->pgid);
	int leader = find(p, t->pgid);

	if (p->nodes[i].pgid != t->pgid || (is_leader(p, i) && t->pgid != t->pid))
		return false;
	if (leader < 0 && !l)
		return t->pgid == p->tree->outer_pgid && t->sid == p->tree->outer_sid;
	return p->nodes[leader < 0 ? l->helper : leader].sid == t->sid;
}

static int check_result(struct planner *p)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct node *n = &p->nodes[i];
		int next = p->members[i].next_sibling;

		if (n->sid != task(p, i)->sid)
			return give_up(p, i, "its session cannot be had where it is in the tree");
		if (!is_group_right(p, i))
			return give_up(p, i, "its process group cannot be had");
		if (n->parent != task(p, i)->parent)
			return give_up(p, i, "it cannot be adopted by its parent");
		if (next >= 0 && n->born > p->nodes[next].born)
			return give_up(p, next, "its place among its siblings cannot be had");
	}
	return 0;
}

static void note_lost(struct planner *p, uint32_t id)
{
	if (id && find(p, id) < 0 && id != p->tree->outer_sid && id != p->tree->outer_pgid)
		*ARENA_PUSH(p->a, p->lost, p->n_lost) = (struct lost){ .id = id };
}

static void note_all(struct planner *p)
{
	size_t kept = 0;

	p->index = arena_array(p->a, struct by_pid, p->n);
	for (size_t i = 0; i < p->n; i++)
		p->index[i] = (struct by_pid){ .pid = task(p, i)->pid, .index = i };
	qsort(p->index, p->n, sizeof(*p->index), compare_number);
	for (size_t i = 0; i < p->n; i++) {
		p->nodes[i].pid = task(p, i)->pid;
		p->members[i].birth = KIN_NONE;
		note_lost(p, task(p, i)->sid);
		note_lost(p, task(p, i)->pgid);
	}
	if (p->n_lost)
		qsort(p->lost, p->n_lost, sizeof(*p->lost), compare_number);
	for (size_t i = 0; i < p->n_lost; i++)
		if (!kept || p->lost[kept - 1].id != p->lost[i].id)
			p->lost[kept++] = p->lost[i];
	p->n_lost = kept;
}

int kin_plan_make(struct arena *a, const struct kin_tree *tree, struct kin_plan *ret_plan)
{
	size_t n = tree->n;
	struct planner p = { .a = a, .tree = tree, .plan = ret_plan, .n = n };

	*ret_plan = (struct kin_plan){ .helpers = arena_array(a, uint32_t, KIN_HELPERS(n)) };
	p.nodes = arena_array(a, struct node, n + KIN_HELPERS(n));
	p.members = arena_array(a, struct member, n);
	note_all(&p);
	find_births(&p);
	for (int i = 0; i < LIFTS_MAX && note_adopters(&p); i++)
		;
	link_children(&p);
	for (size_t i = 0; i < n; i++)
		find_ways(&p, i);
	make_root(&p);
	int rc = make_all_families(&p);
	if (rc < 0)
		return rc;
	make_groups(&p);
	end_helpers(&p);
	return check_result(&p);
}
