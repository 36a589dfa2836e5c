/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef TASK_USUAL_H
#define TASK_USUAL_H

/*
 * Before the first task is created: takes from criu what is unusual of it and would pass on. What
 * cannot be undone is warned of.
 */
void usual_make(void);

#endif
