/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libcriu: checkpoint and restore from C. See libcriu(3).
 *
 * Most functions are there twice. criu_NAME works on options that belong to the process and is for
 * programs with one thread at it; criu_local_NAME takes the options, from criu_local_init_opts, and
 * may be called from any number of threads with options of their own.
 */
#ifndef CRIU_CRIU_H
#define CRIU_CRIU_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* The values are those of the messages. */
enum criu_cg_mode {
	CRIU_CG_MODE_IGNORE,
	CRIU_CG_MODE_NONE,
	CRIU_CG_MODE_PROPS,
	CRIU_CG_MODE_SOFT,
	CRIU_CG_MODE_FULL,
	CRIU_CG_MODE_STRICT,
	CRIU_CG_MODE_DEFAULT,
};

enum criu_network_lock_method {
	CRIU_NETWORK_LOCK_IPTABLES = 1,
	CRIU_NETWORK_LOCK_NFTABLES = 2,
	CRIU_NETWORK_LOCK_SKIP = 3,
};

enum criu_pre_dump_mode {
	CRIU_PRE_DUMP_SPLICE = 1,
	CRIU_PRE_DUMP_READ = 2,
};

/* Set what is asked for; criu_feature_check leaves set what is there. May grow at its end. */
struct criu_feature_check {
	bool mem_track;
	bool lazy_pages;
	bool pidfd_store;
};

typedef struct criu_opts criu_opts;

/* A notification; looked at by criu_notify_pid and criu_notify_action. */
typedef struct criu_notify_arg *criu_notify_arg_t;

/* Returns 0, or anything else to make the dump or restore fail. */
typedef int (*criu_notify_cb_t)(char *action, criu_notify_arg_t na);

/* Says nothing yet: always NULL. */
typedef void *criu_predump_info;

/* Returns 1 for one more pre-dump, 0 for the dump, or a negative error to give up. */
typedef int (*criu_predump_cb_t)(criu_predump_info pi);

/* Back to the defaults: `criu` found by PATH, nothing set. Returns 0. */
int criu_init_opts(void);

/* Returns 0, or -1 if there is no memory. *opts is freed by criu_local_free_opts. */
int criu_local_init_opts(criu_opts **opts);

/* The pid that a notification tells, or 0. */
int criu_notify_pid(criu_notify_arg_t na);

/* The stage that a notification tells of. */
const char *criu_notify_action(criu_notify_arg_t na);

/*
 * The descriptor that came with the notification orphan-pts-master; it now belongs to the caller.
 * -1 if there is none. For the notify callback, in its thread.
 */
int criu_get_orphan_pts_master_fd(void);

#define CRIU_CALL0(result, name)                                                                   \
	result criu_##name(void);                                                                  \
	result criu_local_##name(criu_opts *opts);
#define CRIU_CALL1(result, name, t1, a1)                                                           \
	result criu_##name(t1 a1);                                                                 \
	result criu_local_##name(criu_opts *opts, t1 a1);
#define CRIU_CALL2(result, name, t1, a1, t2, a2)                                                   \
	result criu_##name(t1 a1, t2 a2);                                                          \
	result criu_local_##name(criu_opts *opts, t1 a1, t2 a2);
#define CRIU_CALL3(result, name, t1, a1, t2, a2, t3, a3)                                           \
	result criu_##name(t1 a1, t2 a2, t3 a3);                                                   \
	result criu_local_##name(criu_opts *opts, t1 a1, t2 a2, t3 a3);
#define CRIU_BOOL(name, field) CRIU_CALL1(void, name, bool, field)
#define CRIU_INT(name, field)  CRIU_CALL1(void, name, int, field)
#define CRIU_UINT(name, field) CRIU_CALL1(void, name, unsigned int, field)
#define CRIU_TEXT(name, field) CRIU_CALL1(int, name, const char *, field)
#define CRIU_LIST(name, field) CRIU_CALL1(int, name, const char *, field)
#include "functions.h"

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
