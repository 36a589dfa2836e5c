/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Processes and threads at dump: identity and sharing, scheduling, limits, credentials, signals.
 * Images: pstree, core-TID, ids-PID.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "kernel/abi.h"
#include "mem/mem.h"
#include "proc/text.h"
#include "task/collect.h"
#include "task/constants.h"
#include "task/kinplan.h"
#include "task/ldt.h"
#include "task/modes.h"
#include "task/pending.h"
#include "task/registers.h"
#include "task/sched.h"
#include "task/seccomp.h"
#include "task/timers.h"

#define IPC_NAMESPACE 0 /* of these */
static const char *const namespaces[NS_KINDS] = { "ipc", "mnt",	 "net",	   "uts",
						  "pid", "user", "cgroup", "time" };
/* Ids of IPC namespaces: that of criu, that of a tree in another one. */
#define OWN_IPC_NS_ID  3
#define TREE_IPC_NS_ID 9

/*
 * Object ids in images need to be unique and nothing more: the pid serves for all of them. Tasks
 * that share a descriptor table have the id of the first; namespaces are criu's own, as far as
 * check_namespaces does not say otherwise.
 */
static TaskKobjIdsEntry *make_ids(struct arena *a, uint32_t id)
{
	TaskKobjIdsEntry *e = MESSAGE(a, TaskKobjIdsEntry, task_kobj_ids_entry);

	e->vm_id = e->files_id = e->fs_id = e->sighand_id = id;
	e->has_pid_ns_id = e->has_net_ns_id = e->has_ipc_ns_id = e->has_uts_ns_id = true;
	e->has_mnt_ns_id = e->has_user_ns_id = e->has_cgroup_ns_id = e->has_time_ns_id = true;
	e->pid_ns_id = 1;
	e->net_ns_id = 2;
	e->ipc_ns_id = OWN_IPC_NS_ID;
	e->uts_ns_id = 4;
	e->mnt_ns_id = 5;
	e->user_ns_id = 6;
	e->cgroup_ns_id = 7;
	e->time_ns_id = 8;
	return e;
}

TaskKobjIdsEntry *task_own_ids(struct arena *a)
{
	return make_ids(a, 0);
}

static int read_ns_links(int dir, char links[][NS_LINK_MAX])
{
	for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++) {
		char path[32];

		snprintf(path, sizeof(path), "ns/%s", namespaces[i]);
		links[i][0] = '\0';
		int rc = min(read_link_at(dir, path, links[i], NS_LINK_MAX), (ssize_t)0);
		if (rc < 0 && rc != -ENOENT) /* the kernel has no such namespace */
			return fail(-rc, "read the link %s in /proc", path);
	}
	return 0;
}

/* One for the whole tree may be another one than that of criu. */
static void note_ipc_namespace(struct dump *d, struct dump_task *t, const char *link)
{
	const char *of_tree =
		d->ipc_namespace[0] ? d->ipc_namespace : d->own_namespaces[IPC_NAMESPACE];
	bool is_own = !strcmp(link, d->own_namespaces[IPC_NAMESPACE]);

	if (t == d->tasks && !is_own)
		memcpy(d->ipc_namespace, link, sizeof(d->ipc_namespace));
	else if (strcmp(link, of_tree))
		dump_block(d,
			   "pid %d: its IPC namespace (%s) is not that of the root of the tree, "
			   "%d (%s); this cannot be dumped by this version",
			   t->process->pid, link, d->tasks[0].process->pid, of_tree);
	if (!is_own)
		t->ids->ipc_ns_id = TREE_IPC_NS_ID;
}

static int check_namespaces(struct dump *d, struct dump_task *t)
{
	const struct process *p = t->process;
	char links[NS_KINDS][NS_LINK_MAX];

	int rc = read_ns_links(p->proc_fd, links);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++)
		if (i != IPC_NAMESPACE && strcmp(links[i], d->own_namespaces[i]))
			dump_block(d,
				   "pid %d: it is in another %s namespace (%s); namespaces cannot "
				   "be dumped "
				   "by this version",
				   p->pid, namespaces[i], links[i]);
	note_ipc_namespace(d, t, links[IPC_NAMESPACE]);
	return 0;
}

/* What clone(2) may leave shared between two processes. */
static const struct {
	int type;
	const char *what;
} shareable[] = {
	{ KCMP_FILES, "its descriptor table (CLONE_FILES)" },
	{ KCMP_VM, "memory (CLONE_VM, vfork)" },
	{ KCMP_FS, "its working directory (CLONE_FS)" },
	{ KCMP_SIGHAND, "its signal handlers (CLONE_SIGHAND)" },
};

static bool share(struct dump *d, pid_t a, pid_t b, int type)
{
	long order = syscall(SYS_kcmp, a, b, type, 0, 0);

	/* Into others than the tree we may have no right to look. */
	if (order < 0 && tree_find(&d->tree, b))
		dump_block(d, "pid %d: what it shares with pid %d: %s", a, b, strerror(errno));
	return order == 0;
}

/* An order of processes by the address of their descriptor table. */
static int by_table(const void *a, const void *b)
{
	const struct dump_task *x = *(struct dump_task *const *)a,
			       *y = *(struct dump_task *const *)b;
	long order = syscall(SYS_kcmp, x->process->pid, y->process->pid, KCMP_FILES, 0, 0);

	if (order == 0 || order == 1 || order == 2)
		return order == 0 ? 0 : order == 1 ? -1 : 1;
	return x->process->pid - y->process->pid;
}

/*
 * A descriptor table may be shared by parent and child: a child is created with it. Others got it
 * from a process that is gone.
 */
static void note_table(struct dump *d, struct dump_task *t, bool is_shared_with_parent)
{
	struct dump_task **k = arena_new(&d->arena, struct dump_task *);

	*k = t;
	struct dump_task ***found = tsearch(k, &d->tables, by_table);
	if (!found || *found == k)
		return;
	if (is_shared_with_parent)
		t->ids->files_id = (**found)->ids->files_id;
	else
		dump_block(d, "pid %d: it shares %s with pid %d, which is not its parent",
			   t->process->pid, shareable[0].what, (**found)->process->pid);
}

static void check_sharing(struct dump *d, struct dump_task *t)
{
	const struct process *p = t->process;
	pid_t parent = p->parent ? p->parent->pid : p->stat.ppid;
	bool shares_table = p->parent && share(d, p->pid, parent, KCMP_FILES);

	for (size_t i = shares_table; i < ARRAY_SIZE(shareable); i++)
		if (parent && share(d, p->pid, parent, shareable[i].type))
			dump_block(d,
				   "pid %d: it shares %s with its parent %d; this cannot be dumped",
				   p->pid, shareable[i].what, parent);
	note_table(d, t, shares_table);
}

/* A leader that has ended leaves its session and group behind; its pid is nobody else's then. */
static bool is_leader_outside(const struct dump *d, pid_t leader)
{
	return !tree_find(&d->tree, leader) && (kill(leader, 0) == 0 || errno != ESRCH);
}

static void check_session(struct dump *d, struct process *p)
{
	const struct process *root = d->tree.processes[0];
	bool is_job = d->opts->shell_job && p->stat.sid == root->stat.sid;

	if (is_job && p->stat.pgid == root->stat.pgid)
		return;
	/* Session 0 is one of another pid namespace. */
	if (!is_job && (!p->stat.sid || is_leader_outside(d, p->stat.sid)))
		dump_block(d,
			   "pid %d: the leader of its session, %d, is outside of the tree; give "
			   "--shell-job if it was started from a shell",
			   p->pid, p->stat.sid);
	else if (!p->stat.pgid || is_leader_outside(d, p->stat.pgid))
		dump_block(d, "pid %d: the leader of its process group %d is outside of the tree",
			   p->pid, p->stat.pgid);
}

static PstreeEntry *make_pstree(struct arena *a, const struct process *p)
{
	PstreeEntry *e = MESSAGE(a, PstreeEntry, pstree_entry);

	e->pid = p->pid;
	e->ppid = p->parent ? p->parent->pid : 0;
	e->pgid = p->stat.pgid;
	e->sid = p->stat.sid;
	e->n_threads = max(p->n_threads, (size_t)1);
	e->threads = arena_array(a, uint32_t, e->n_threads);
	e->threads[0] = p->pid;
	for (size_t i = 0; i < p->n_threads; i++)
		e->threads[i] = p->threads[i].tid;
	return e;
}

static int add_task(struct dump *d, struct dump_task *t, struct process *p)
{
	t->process = p;
	t->pstree = make_pstree(&d->arena, p);
	t->ids = make_ids(&d->arena, p->pid);
	check_session(d, p);
	if (p->is_zombie)
		return 0;
	check_sharing(d, t);
	int rc = check_namespaces(d, t);
	if (rc < 0)
		return rc;
	t->threads = arena_array(&d->arena, struct dump_thread, p->n_threads);
	t->n_threads = p->n_threads;
	for (size_t i = 0; i < p->n_threads; i++)
		t->threads[i].thread = &p->threads[i];
	return 0;
}

int task_note_own_namespaces(struct dump *d)
{
	autoclose int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (self < 0)
		return fail(errno, "open /proc/self");
	return read_ns_links(self, d->own_namespaces);
}

/* Mostly the parent of the task before, or a later one. */
static int find_parent(const struct dump *d, const struct process *p, size_t guess)
{
	for (size_t i = 0; p->parent && i < d->n_tasks; i++)
		if (d->tasks[(guess + i) % d->n_tasks].process == p->parent)
			return (guess + i) % d->n_tasks;
	return -1;
}

/* Is there a way to make such a tree again? */
static void check_kinship(struct dump *d)
{
	const struct process *root = d->tree.processes[0];
	struct kin_task *tasks = arena_array(&d->arena, struct kin_task, d->n_tasks);
	struct kin_tree tree = {
		.tasks = tasks, .n = d->n_tasks, .outer_sid = KIN_NONE, .outer_pgid = KIN_NONE
	};
	bool is_job = d->opts->shell_job && !tree_find(&d->tree, root->stat.sid);
	struct kin_plan plan;

	for (size_t i = 0; i < d->n_tasks; i++) {
		const struct dump_task *t = &d->tasks[i];
		bool is_in_job = is_job && t->process->stat.pgid == root->stat.pgid;
		int parent = find_parent(d, t->process, i ? max(tasks[i - 1].parent, 0) : 0);

		d->tasks[i].parent = parent < 0 ? NULL : &d->tasks[parent];

		tasks[i] = (struct kin_task){
			.pid = t->pstree->pid,
			.sid = t->pstree->sid,
			.pgid = is_in_job ? KIN_JOB : t->pstree->pgid,
			.parent = parent,
			.shares_table =
				parent >= 0 && t->ids->files_id == d->tasks[parent].ids->files_id,
		};
	}
	if (is_job) {
		tree.outer_sid = root->stat.sid;
		tree.outer_pgid = KIN_JOB;
	}
	if (kin_plan_make(&d->arena, &tree, &plan) < 0)
		dump_block(d, "pid %u: it could not be restored (session %u, process group %u): %s",
			   tasks[plan.blamed].pid, tasks[plan.blamed].sid,
			   d->tasks[plan.blamed].pstree->pgid, plan.reason);
}

int task_collect_tree(struct dump *d)
{
	d->n_cpus = get_nprocs();
	d->n_tasks = d->tree.n;
	d->tasks = arena_array(&d->arena, struct dump_task, d->n_tasks);
	int rc = 0;
	for (size_t i = 0; i < d->n_tasks && rc == 0; i++)
		rc = add_task(d, &d->tasks[i], d->tree.processes[i]);
	tdestroy(d->tables, arena_leave_node);
	if (rc == 0)
		check_kinship(d);
	return rc;
}

static void put_caps(struct arena *a, uint32_t **field, size_t *n, uint64_t caps)
{
	*field = arena_array(a, uint32_t, 2);
	*n = 2;
	(*field)[0] = caps;
	(*field)[1] = caps >> 32;
}

static CredsEntry *make_creds(struct arena *a, const struct proc_status *s)
{
	CredsEntry *e = MESSAGE(a, CredsEntry, creds_entry);

	e->uid = s->uid[0];
	e->euid = s->uid[1];
	e->suid = s->uid[2];
	e->fsuid = s->uid[3];
	e->gid = s->gid[0];
	e->egid = s->gid[1];
	e->sgid = s->gid[2];
	e->fsgid = s->gid[3];
	put_caps(a, &e->cap_inh, &e->n_cap_inh, s->cap[CAP_SET_INH]);
	put_caps(a, &e->cap_prm, &e->n_cap_prm, s->cap[CAP_SET_PRM]);
	put_caps(a, &e->cap_eff, &e->n_cap_eff, s->cap[CAP_SET_EFF]);
	put_caps(a, &e->cap_bnd, &e->n_cap_bnd, s->cap[CAP_SET_BND]);
	put_caps(a, &e->cap_amb, &e->n_cap_amb, s->cap[CAP_SET_AMB]);
	e->groups = s->groups;
	e->n_groups = s->n_groups;
	e->has_no_new_privs = true;
	e->no_new_privs = s->no_new_privs;
	return e;
}

static RseqEntry *make_rseq(struct arena *a, const struct rseq_conf *conf)
{
	RseqEntry *e = MESSAGE(a, RseqEntry, rseq_entry);

	e->rseq_abi_pointer = conf->pointer;
	e->rseq_abi_size = conf->size;
	e->signature = conf->signature;
	if (conf->cs_pointer) {
		e->has_rseq_cs_pointer = true;
		e->rseq_cs_pointer = conf->cs_pointer;
	}
	return e;
}

static int collect_robust_list(const struct dump_thread *th, ThreadCoreEntry *e)
{
	pid_t tid = th->thread->tid;
	uint64_t head = 0, len = 0;
	int rc;

	if (regs_is_compat(&th->thread->regs))
		rc = compat_get_robust_list(tid, &head, &len);
	else
		rc = syscall(SYS_get_robust_list, tid, &head, &len) < 0 ? -errno : 0;
	if (rc < 0)
		return fail(-rc, "pid %d: read its robust list", tid);
	e->futex_rla = head;
	e->futex_rla_len = len;
	return 0;
}

static int collect_tls(struct dump *d, struct dump_thread *th)
{
	struct tls tls;

	if (!tls_is_used(&th->thread->regs))
		return 0;
	int rc = tls_get(th->thread->tid, &tls);
	if (rc == -EIO)
		return 0; /* such a kernel lets nobody have any */
	if (rc < 0)
		return fail(-rc, "pid %d: read its segments for thread-local storage",
			    th->thread->tid);
	th->tls = arena_memdup(&d->arena, &tls, sizeof(tls));
	return 0;
}

static int collect_thread(struct dump *d, struct dump_task *t, struct dump_thread *th)
{
	struct thread *thread = th->thread;
	char path[32];

	snprintf(path, sizeof(path), "task/%d/status", thread->tid);
	int rc = proc_status_read_at(t->process->proc_fd, path, &d->arena, &th->status);
	if (rc < 0)
		return fail(-rc, "pid %d: read status", thread->tid);

	ThreadCoreEntry *e = MESSAGE(&d->arena, ThreadCoreEntry, thread_core_entry);
	th->core = MESSAGE(&d->arena, CoreEntry, core_entry);
	th->core->thread_core = e;
	e->comm = th->status.comm;
	rc = collect_robust_list(th, e);
	if (rc == 0)
		rc = collect_tls(d, th);
	if (rc < 0)
		return rc;
	e->has_blk_sigset = true;
	e->blk_sigset = thread->mask;
	e->creds = make_creds(&d->arena, &th->status);
	if (thread->rseq.pointer)
		e->rseq_entry = make_rseq(&d->arena, &thread->rseq);
	if (thread->rseq.is_unknown)
		dump_block(d,
			   "pid %d: this kernel cannot tell whether it uses restartable sequences "
			   "(rseq); "
			   "that takes Linux 5.13",
			   thread->tid);
	rc = seccomp_collect(d, th);
	if (rc < 0)
		return rc;
	rc = modes_collect(d, t, th);
	return rc < 0 ? rc : sched_collect(d, th);
}

/* Some kernels are built without one of these files. *ret is not changed then. */
static int read_number(const struct process *p, const char *file, bool is_hex, int64_t *ret)
{
	char text[32] = "";
	uint64_t hex;
	int rc = min(read_small_at(p->proc_fd, file, text, sizeof(text)), (ssize_t)0);

	if (rc == 0 && (is_hex ? !text_hex(text, &hex) : !text_int(text, ret)))
		rc = -EINVAL;
	if (rc == 0 && is_hex)
		*ret = hex;
	return rc < 0 && rc != -ENOENT ? fail(-rc, "pid %d: read %s", p->pid, file) : 0;
}

static TaskCoreEntry *make_zombie_core(struct dump *d, struct process *p)
{
	TaskCoreEntry *e = MESSAGE(&d->arena, TaskCoreEntry, task_core_entry);

	e->comm = p->stat.comm;
	e->flags = p->stat.flags;
	e->task_state = TASK_STATE_DEAD;
	e->exit_code = p->stat.exit_code;
	return e;
}

static int make_task_core(struct dump *d, struct dump_task *t)
{
	struct process *p = t->process;
	TaskCoreEntry *e = MESSAGE(&d->arena, TaskCoreEntry, task_core_entry);
	int64_t personality = 0, oom_score_adj = 0, loginuid = ~0u;
	int64_t filter = DEFAULT_COREDUMP_FILTER;
	int rc = read_number(p, "personality", true, &personality);

	if (rc == 0)
		rc = read_number(p, "oom_score_adj", false, &oom_score_adj);
	if (rc == 0)
		rc = read_number(p, "loginuid", false, &loginuid);
	if (rc == 0)
		rc = read_number(p, "coredump_filter", true, &filter);
	if (rc < 0)
		return rc;
	e->comm = p->stat.comm;
	e->flags = p->stat.flags;
	e->task_state = p->stop_signal ? TASK_STATE_STOPPED : TASK_STATE_ALIVE;
	if (p->stop_signal) {
		e->has_stop_signo = true;
		e->stop_signo = p->stop_signal;
		/* The kernel forgets the signal when the parent has been told (Linux 5.16). */
		e->has_stop_is_news = e->stop_is_news =
			p->stat.exit_code == (uint32_t)p->stop_signal;
	}
	e->blk_sigset = p->threads[0].mask;
	e->personality = personality;
	e->has_oom_score_adj = e->has_loginuid = true;
	e->oom_score_adj = oom_score_adj;
	e->loginuid = loginuid;
	e->has_coredump_filter = filter != DEFAULT_COREDUMP_FILTER;
	e->coredump_filter = e->has_coredump_filter ? filter : 0;
	t->threads[0].core->tc = e;
	t->threads[0].core->ids = t->ids;
	return 0;
}

static int collect_zombie(struct dump *d, struct dump_task *t)
{
	t->n_threads = 1;
	t->threads = arena_new(&d->arena, struct dump_thread);
	t->threads[0].core = MESSAGE(&d->arena, CoreEntry, core_entry);
	t->threads[0].core->mtype = REGISTERS_MACHINE;
	t->threads[0].core->tc = make_zombie_core(d, t->process);
	return 0;
}

/* Threads that io_uring made in the task: they have nothing of their own to ask for. */
static bool is_io_worker(const struct dump_thread *th)
{
	return !strncmp(th->core->thread_core->comm, "iou-", 4);
}

static int collect_threads(struct dump *d, struct dump_task *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n_threads; i++) {
		int rc = collect_thread(d, t, &t->threads[i]);

		if (rc < 0)
			return rc;
		if (i && is_io_worker(&t->threads[i]))
			dump_block(d,
				   "pid %d: io_uring is in use (thread %d); this cannot be dumped",
				   t->process->pid, t->threads[i].thread->tid);
		else
			t->threads[n++] = t->threads[i];
	}
	t->n_threads = n;
	return 0;
}

/* All calls for criu are made as the leader's program makes them. */
static void check_code(struct dump *d, const struct dump_task *t)
{
	const struct process *p = t->process;

	for (size_t i = 0; i < p->n_threads; i++) {
		const struct thread *th = &p->threads[i];

		if (!regs_is_in_known_code(&th->regs))
			dump_block(d,
				   "pid %d: it is in a code segment of its own (modify_ldt), as "
				   "emulators of 16-bit programs are, which cannot be dumped",
				   th->tid);
		else if (regs_is_compat(&th->regs) != regs_is_compat(&p->threads[0].regs))
			dump_block(d,
				   "pid %d: it is in %s code while thread %d is not; a process "
				   "that mixes both cannot be dumped",
				   th->tid, regs_is_compat(&th->regs) ? "32-bit" : "64-bit",
				   p->pid);
	}
}

int task_collect_outside(struct dump *d, struct dump_task *t)
{
	if (t->process->is_zombie)
		return collect_zombie(d, t);
	int rc = collect_threads(d, t);
	if (rc == 0)
		rc = make_task_core(d, t);
	if (rc < 0)
		return rc;
	pending_collect(d, t);
	rc = timers_collect(d, t);
	if (rc < 0)
		return rc;
	check_code(d, t);
	return 0;
}

/* As the kernel has it: struct kernel_sigaction. */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

/* Room in the region for all answers. */
struct answers {
	struct kernel_sigaction action[SIGNALS + 1];
	stack_t altstack;
	uint64_t clear_tid_addr;
	int32_t pdeath_sig;
	int32_t child_subreaper;
	struct itimerval itimer[3];
	uint64_t pending;
	struct modes_of_thread modes;
	struct rlimit64 limit[RLIM_NLIMITS];
};

struct questions {
	struct program p;
	struct answers *answers;
	struct call *securebits, *dumpable, *slack, *brk, *numa, *cold;
	struct modes_questions modes;
	struct keys_questions keys;
};

#define AT(q, member) program_raddr(&(q)->p, &(q)->answers->member)

static int ask(struct questions *q, struct worker *w)
{
	int rc = program_begin(&q->p, w, SIGNALS + RLIM_NLIMITS + 32 + KEYS_MAX);

	if (rc < 0)
		return rc;
	q->answers = program_room(&q->p, sizeof(*q->answers));
	if (!q->answers)
		return -ENOSPC;
	for (int sig = 1; sig <= SIGNALS; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			CALL(&q->p, "read a signal action", SYS_rt_sigaction, sig, 0,
			     AT(q, action[sig]), 8);
	CALL(&q->p, "read the alternate stack", SYS_sigaltstack, 0, AT(q, altstack));
	CALL(&q->p, "read clear_child_tid", SYS_prctl, PR_GET_TID_ADDRESS, AT(q, clear_tid_addr));
	CALL(&q->p, "read the parent death signal", SYS_prctl, PR_GET_PDEATHSIG, AT(q, pdeath_sig));
	CALL(&q->p, "read the subreaper flag", SYS_prctl, PR_GET_CHILD_SUBREAPER,
	     AT(q, child_subreaper));
	q->securebits = CALL(&q->p, "read securebits", SYS_prctl, PR_GET_SECUREBITS);
	q->slack = CALL(&q->p, "read the timer slack", SYS_prctl, PR_GET_TIMERSLACK);
	q->dumpable = CALL(&q->p, "read dumpable", SYS_prctl, PR_GET_DUMPABLE);
	CALL(&q->p, "see whether RDTSC faults", SYS_prctl, PR_GET_TSC, AT(q, modes.tsc));
	q->numa = CALL(&q->p, "read the NUMA policy", SYS_get_mempolicy, AT(q, modes.numa_mode),
		       AT(q, modes.numa_nodes), MODES_NUMA_WORDS * 64, 0, 0);
	q->numa->flags = CALL_MAY_FAIL; /* then it has none */
	modes_ask(&q->p, &q->modes);
	mem_ask_keys(&w->engine->layout, &q->p, &q->keys);
	q->brk = CALL(&q->p, "read the program break", SYS_brk, 0);
	q->cold = CALL(&q->p, "see whether new memory is locked", SYS_madvise, w->region->raddr,
		       4096, MADV_COLD);
	q->cold->flags = CALL_MAY_FAIL;
	for (int i = 0; i < 3; i++)
		CALL(&q->p, "read an interval timer", SYS_getitimer, i, AT(q, itimer[i]));
	/* After the timers: one of them may just have expired. */
	CALL(&q->p, "see which signals are pending", SYS_rt_sigpending, AT(q, pending), 8);
	/* Inside the task, because limits of another user's task take CAP_SYS_RESOURCE. */
	for (int i = 0; i < RLIM_NLIMITS; i++)
		CALL(&q->p, "read a limit", SYS_prlimit64, 0, i, 0, AT(q, limit[i]));
	return 0;
}

static SaEntry **make_actions(struct arena *a, const struct answers *answers, bool is_compat,
			      size_t *ret_n)
{
	SaEntry **list = arena_array(a, SaEntry *, SIGNALS);
	size_t n = 0;

	for (int sig = 1; sig <= SIGNALS; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		SaEntry *e = MESSAGE(a, SaEntry, sa_entry);
		e->sigaction = answers->action[sig].handler;
		e->flags = answers->action[sig].flags;
		e->restorer = answers->action[sig].restorer;
		e->mask = answers->action[sig].mask;
		e->has_compat_sigaction = e->compat_sigaction = is_compat;
		list[n++] = e;
	}
	*ret_n = n;
	return list;
}

static TaskRlimitsEntry *make_limits(struct arena *a, const struct answers *answers)
{
	TaskRlimitsEntry *e = MESSAGE(a, TaskRlimitsEntry, task_rlimits_entry);

	e->n_rlimits = RLIM_NLIMITS;
	e->rlimits = arena_array(a, RlimitEntry *, RLIM_NLIMITS);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		e->rlimits[i] = MESSAGE(a, RlimitEntry, rlimit_entry);
		e->rlimits[i]->cur = answers->limit[i].rlim_cur;
		e->rlimits[i]->max = answers->limit[i].rlim_max;
	}
	return e;
}

static ItimerEntry *make_itimer(struct arena *a, const struct itimerval *v)
{
	ItimerEntry *e = MESSAGE(a, ItimerEntry, itimer_entry);

	e->isec = v->it_interval.tv_sec;
	e->iusec = v->it_interval.tv_usec;
	e->vsec = v->it_value.tv_sec;
	e->vusec = v->it_value.tv_usec;
	return e;
}

static TaskTimersEntry *make_timers(struct arena *a, const struct answers *answers)
{
	TaskTimersEntry *e = MESSAGE(a, TaskTimersEntry, task_timers_entry);

	e->real = make_itimer(a, &answers->itimer[ITIMER_REAL]);
	e->virt = make_itimer(a, &answers->itimer[ITIMER_VIRTUAL]);
	e->prof = make_itimer(a, &answers->itimer[ITIMER_PROF]);
	return e;
}

/* As an i386 has it. */
struct compat_stack {
	uint32_t sp;
	int32_t flags;
	uint32_t size;
};

static stack_t stack_of_compat(const struct compat_stack *c)
{
	return (stack_t){ (void *)(uint64_t)c->sp, c->flags, c->size };
}

static void put_altstack(struct arena *a, ThreadCoreEntry *e, const stack_t *ss)
{
	e->sas = MESSAGE(a, ThreadSasEntry, thread_sas_entry);
	e->sas->ss_sp = (uint64_t)ss->ss_sp;
	e->sas->ss_size = ss->ss_size;
	e->sas->ss_flags = ss->ss_flags;
}

static void put_registers(struct dump *d, struct dump_thread *th, uint64_t clear_tid_addr)
{
	struct regs regs = thread_regs_alone(th->thread);

	registers_to_core(&d->arena, &d->engine.layout, th->core, &regs, &th->thread->xstate,
			  clear_tid_addr, th->tls);
}

static void take_answers(struct dump *d, struct dump_task *t, const struct questions *q)
{
	const struct answers *answers = q->answers;
	CoreEntry *core = t->threads[0].core;
	ThreadCoreEntry *e = core->thread_core;

	core->tc->sigactions =
		make_actions(&d->arena, answers, t->in.is_compat, &core->tc->n_sigactions);
	core->tc->rlimits = make_limits(&d->arena, answers);
	core->tc->timers = make_timers(&d->arena, answers);
	core->tc->timers->posix = t->posix_timers;
	core->tc->timers->n_posix = t->n_posix_timers;
	core->tc->has_child_subreaper = true;
	core->tc->child_subreaper = answers->child_subreaper;
	e->has_pdeath_sig = answers->pdeath_sig != 0;
	e->pdeath_sig = answers->pdeath_sig;
	e->creds->secbits = q->securebits->ret;
	put_altstack(&d->arena, e, &answers->altstack);
	t->mm->has_dumpable = true;
	t->mm->dumpable = q->dumpable->ret;
	sched_take_timer_slack(&t->threads[0], q->slack->ret);
	modes_take(t, &q->modes);
	mem_take_keys(t, &q->keys);
	modes_take_thread(d, &t->threads[0], &answers->modes);
	t->mm->mm_brk = q->brk->ret;
	/* Our region is new memory: the kernel refuses this advice for what is locked. */
	if (q->cold->ret == -EINVAL)
		mem_collect_lock_future(d, t, q->p.worker->region->raddr);
	put_registers(d, &t->threads[0], answers->clear_tid_addr);
}

struct thread_answers {
	union {
		stack_t altstack;
		struct compat_stack compat_altstack;
	};
	uint64_t clear_tid_addr;
	int32_t pdeath_sig;
	struct modes_of_thread modes;
};

/* The few questions that only the thread itself can answer. */
enum {
	ASK_SECUREBITS,
	ASK_TIMERSLACK, /* cannot fail: a large one looks as if it had */
	ASK_CPUID,
	ASK_ALTSTACK,
	ASK_TID_ADDRESS,
	ASK_PDEATHSIG,
	ASK_TSC,
	ASK_NUMA, /* a kernel without NUMA has no such call */
	N_ASKED
};

struct thread_questions {
	struct dump_thread *thread;
	struct thread_answers *answers;
	struct thread_call calls[N_ASKED];
};

static void prepare_questions(const struct region *r, struct thread_questions *q)
{
	const struct thread_call calls[N_ASKED] = {
		[ASK_ALTSTACK] = { .nr = SYS_sigaltstack,
				   .arg = { 0, region_raddr(r, &q->answers->altstack) } },
		[ASK_TID_ADDRESS] = { .nr = SYS_prctl,
				      .arg = { PR_GET_TID_ADDRESS,
					       region_raddr(r, &q->answers->clear_tid_addr) } },
		[ASK_PDEATHSIG] = { .nr = SYS_prctl,
				    .arg = { PR_GET_PDEATHSIG,
					     region_raddr(r, &q->answers->pdeath_sig) } },
		[ASK_TSC] = { .nr = SYS_prctl,
			      .arg = { PR_GET_TSC, region_raddr(r, &q->answers->modes.tsc) } },
		[ASK_NUMA] = { .nr = SYS_get_mempolicy,
			       .arg = { region_raddr(r, &q->answers->modes.numa_mode),
					region_raddr(r, &q->answers->modes.numa_nodes),
					MODES_NUMA_WORDS * 64 } },
		[ASK_SECUREBITS] = { .nr = SYS_prctl, .arg = { PR_GET_SECUREBITS } },
		[ASK_TIMERSLACK] = { .nr = SYS_prctl, .arg = { PR_GET_TIMERSLACK } },
		[ASK_CPUID] = { .nr = SYS_arch_prctl, .arg = { ABI_ARCH_GET_CPUID } },
	};

	memcpy(q->calls, calls, sizeof(calls));
}

static int take_thread_answers(struct dump *d, const struct thread_questions *q)
{
	const struct thread_answers *answers = q->answers;
	ThreadCoreEntry *e = q->thread->core->thread_core;

	for (size_t i = 0; i < N_ASKED; i++)
		if (q->calls[i].ret < 0 && i != ASK_NUMA && i != ASK_TIMERSLACK)
			return fail(-q->calls[i].ret, "pid %d: ask the thread (system call %ld)",
				    q->thread->thread->tid, q->calls[i].nr);
	e->has_pdeath_sig = answers->pdeath_sig != 0;
	e->pdeath_sig = answers->pdeath_sig;
	e->creds->secbits = q->calls[ASK_SECUREBITS].ret;
	stack_t ss = regs_is_compat(&q->thread->thread->regs)
			     ? stack_of_compat(&answers->compat_altstack)
			     : answers->altstack;
	put_altstack(&d->arena, e, &ss);
	sched_take_low_timer_slack(q->thread, q->calls[ASK_TIMERSLACK].ret);
	modes_take_cpuid(q->thread, q->calls[ASK_CPUID].ret);
	modes_take_thread(d, q->thread, &answers->modes);
	put_registers(d, q->thread, answers->clear_tid_addr);
	return 0;
}

/* Asks some threads at once. */
static int ask_threads(struct dump *d, struct dump_task *t, size_t first, size_t n)
{
	struct thread_questions q[INJECT_THREADS_MAX];
	struct thread_calls batch[INJECT_THREADS_MAX];
	size_t mark = t->in.region.used;
	int rc;

	for (size_t i = 0; i < n; i++) {
		q[i].thread = &t->threads[first + i];
		q[i].answers = region_alloc(&t->in.region, sizeof(*q[i].answers));
		if (!q[i].answers)
			return -ENOSPC;
		prepare_questions(&t->in.region, &q[i]);
		batch[i] = (struct thread_calls){ q[i].thread->thread, q[i].calls };
	}
	rc = inject_thread_calls(&t->in, batch, n, N_ASKED);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = take_thread_answers(d, &q[i]);
	t->in.region.used = mark;
	return rc;
}

/* Has an interval timer expired since pending signals were read? */
static bool has_timer_expired(const struct dump_task *t, const struct answers *answers)
{
	const uint64_t of_timers =
		1ull << (SIGALRM - 1) | 1ull << (SIGVTALRM - 1) | 1ull << (SIGPROF - 1);

	return answers->pending & ~t->threads[0].status.shared_pending & of_timers;
}

int task_collect_inside(struct dump *d, struct dump_task *t)
{
	struct questions q = { 0 };
	uint64_t start = now_us();
	bool has_expired = false;
	int rc = ask(&q, &t->in.worker);

	if (rc == 0)
		rc = program_run(&q.p);
	if (rc == 0) {
		take_answers(d, t, &q);
		has_expired = has_timer_expired(t, q.answers);
	}
	program_end(&q.p);
	if (rc == 0 && t->has_ldt)
		rc = ldt_collect(d, t);
	if (rc == 0)
		rc = timers_ask(t);
	if (rc == 0 && (t->n_posix_timers || has_expired))
		rc = pending_collect_again(d, t, start);
	for (size_t first = 1; first < t->n_threads && rc == 0; first += INJECT_THREADS_MAX)
		rc = ask_threads(d, t, first,
				 min(t->n_threads - first, (size_t)INJECT_THREADS_MAX));
	return rc;
}

static int write_cores(struct dump *d, struct dump_task *t)
{
	for (size_t i = 0; i < t->n_threads; i++) {
		pid_t tid = t->pstree->threads[i];
		int rc = image_write_one(&d->images, IMG_CORE, tid, t->threads[i].core);

		if (rc < 0)
			return rc;
	}
	return t->process->is_zombie
		       ? 0
		       : image_write_one(&d->images, IMG_IDS, t->process->pid, t->ids);
}

int task_write_images(struct dump *d)
{
	struct image_out out;

	for (size_t i = 0; i < d->n_tasks; i++) {
		int rc = write_cores(d, &d->tasks[i]);

		if (rc < 0)
			return rc;
	}
	image_begin(&out, &d->images, IMG_PSTREE, 0);
	for (size_t i = 0; i < d->n_tasks; i++)
		image_add(&out, d->tasks[i].pstree);
	int rc = image_commit(&out);
	return rc < 0 ? rc : seccomp_write_image(d);
}
