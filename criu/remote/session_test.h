/* SPDX-License-Identifier: GPL-2.0-only */
/* What tests of remote/ share. */
#ifndef REMOTE_SESSION_TEST_H
#define REMOTE_SESSION_TEST_H

#include "base/test.h"
#include "remote/inject.h"

/* A stopped process with the stub in its leader. */
struct session {
	struct engine engine;
	struct arena arena;
	struct tree tree;
	struct maps maps;
	struct inject in;
};

static inline void session_stop(struct session *s, pid_t pid)
{
	memset(s, 0, sizeof(*s));
	ASSERT_OK(engine_init(&s->engine));
	ASSERT_OK(tree_stop(&s->tree, &s->engine, &s->arena, pid));
}

static inline void session_enter(struct session *s)
{
	struct process *p = s->tree.processes[0];

	ASSERT_OK(maps_read(p->proc_fd, "maps", &s->arena, &s->maps));
	ASSERT_OK(inject_find_site(&s->in, &s->engine, p, &s->maps, false));
	ASSERT_OK(inject_enter(&s->in));
	ASSERT(s->in.is_protected);
}

static inline void session_begin(struct session *s, pid_t pid)
{
	session_stop(s, pid);
	session_enter(s);
}

static inline void session_end(struct session *s)
{
	ASSERT_OK(inject_leave(&s->in));
	tree_end(&s->tree, TREE_RUN);
	inject_done(&s->in);
	tree_done(&s->tree);
	arena_done(&s->arena);
}

#endif
