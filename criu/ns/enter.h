/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Work in another namespace, done in ordinary C: a visitor, which has memory and descriptors in
 * common with criu, enters it while criu waits.
 */
#ifndef NS_ENTER_H
#define NS_ENTER_H

/*
 * Calls fn(arg) in the namespace behind ns_fd (kind: CLONE_NEWIPC, ...). What it allocates, maps
 * and opens is there afterwards, and it ends its work even if criu is killed. Returns what fn
 * does; or -errno, not reported, with *ret_where set to what failed.
 */
int ns_call(int ns_fd, int kind, int (*fn)(void *arg), void *arg, const char **ret_where);

#endif
