/* SPDX-License-Identifier: GPL-2.0-only */
#include "files/dead.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/own.h"
#include "files/remap.h"
#include "proc/text.h"

struct dead_process {
	uint32_t ino; /* of its pidfds; 0: it has that very pid */
	pid_t pid;    /* of the child in its place */
};

/* ---- dump ---- */

/* A process that idles has these files, too; not those of its descriptors, mappings and threads. */
static bool has_any_process(const char *rest)
{
	static const char *const own[] = { "/fd/", "/fdinfo/", "/map_files/", "/ns/", "/task/" };
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (!strncmp(rest, own[i], strlen(own[i])))
			return false;
	return snprintf(path, sizeof(path), "/proc/self%s", rest) < (int)sizeof(path) &&
	       access(path, F_OK) == 0;
}

static bool is_thread_in_tree(const struct dump *d, pid_t tid)
{
	for (size_t i = 0; i < d->tree.n; i++)
		for (size_t j = 0; j < d->tree.processes[i]->n_threads; j++)
			if (d->tree.processes[i]->threads[j].tid == tid)
				return true;
	return false;
}

void dead_note_file(struct dump *d, const char *who, const char *path, pid_t pid, RegFileEntry *reg)
{
	if (is_thread_in_tree(d, pid)) {
		dump_block(d,
			   "%s: %s belongs to a process that has ended, and a thread of the tree "
			   "has its number now; such a file cannot be dumped",
			   who, path);
		return;
	}
	text_cut_deleted(reg->name);
	if (!has_any_process(reg->name + strcspn(reg->name + 6, "/") + 6)) {
		dump_block(d,
			   "%s: %s belongs to a process that has ended; such a file cannot be "
			   "dumped",
			   who, path);
		return;
	}
	remap_note_process(d, pid, reg);
}

/* ---- restore ---- */

/* With the number that is wanted, or any (0). */
static pid_t start_child(struct restore *r, pid_t number)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = number ? (uint64_t)&number : 0,
		.set_tid_size = number != 0,
	};
	pid_t pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == r->engine.tid)
			pause();
		_exit(0);
	}
	return pid < 0 ? -errno : pid;
}

static pid_t child_for(struct restore *r, uint32_t ino, pid_t number)
{
	for (size_t i = 0; i < r->n_dead; i++)
		if (r->dead[i].ino == ino && (ino || r->dead[i].pid == number))
			return r->dead[i].pid;
	pid_t pid = start_child(r, number);
	if (pid > 0)
		*ARENA_PUSH(&r->arena, r->dead, r->n_dead) = (struct dead_process){ ino, pid };
	return pid;
}

pid_t dead_by_inode(struct restore *r, uint32_t ino)
{
	return child_for(r, ino, 0);
}

pid_t dead_by_pid(struct restore *r, pid_t pid)
{
	return child_for(r, 0, pid);
}

void dead_end_all(struct restore *r)
{
	for (size_t i = 0; i < r->n_dead; i++) {
		(void)kill(r->dead[i].pid, SIGKILL);
		(void)waitpid(r->dead[i].pid, NULL, 0);
	}
	r->n_dead = 0;
}
