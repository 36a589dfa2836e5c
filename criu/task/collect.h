/* SPDX-License-Identifier: GPL-2.0-only */
/* What processes and threads have: reading it from a stopped tree, as messages. */
#ifndef TASK_COLLECT_H
#define TASK_COLLECT_H

#include "model/dump.h"

/* What tasks are compared with. Before they are stopped. */
int task_note_own_namespaces(struct dump *d);

/* Makes the dump's tasks from the stopped tree; checks what they share with each other. */
int task_collect_tree(struct dump *d);

/* Everything that /proc and ptrace tell, without code in the task. Its maps are read. */
int task_collect_outside(struct dump *d, struct dump_task *t);

/* Everything that only the task itself can tell: by a program. The stub is in the task. */
int task_collect_inside(struct dump *d, struct dump_task *t);

/* Writes pstree, core and ids images. */
int task_write_images(struct dump *d);

#endif
