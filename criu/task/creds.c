/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Credentials at restore. The order matters: no step may take away what a later one needs.
 *   securebits that keep capabilities over changes of ids; groups, ids; bounding set; permitted
 *   kept, inheritable set; ambient; final securebits; final sets; no_new_privs.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <fcntl.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "proc/text.h"
#include "task/creds.h"

int creds_read_own(struct arena *a, struct own_creds *ret)
{
	autoclose int self = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = self < 0 ? -errno : proc_status_read(self, a, &ret->status);
	char text[16];
	uint64_t n;

	if (rc < 0)
		return fail(-rc, "read the credentials of criu");
	ret->securebits = prctl(PR_GET_SECUREBITS);
	ret->last_cap = CAP_LAST_CAP;
	if (read_small_at(self, "../sys/kernel/cap_last_cap", text, sizeof(text)) > 0 &&
	    text_dec(text, &n) && n < 64)
		ret->last_cap = n;
	return 0;
}

/* Capabilities that this kernel does not know are left out. */
static uint64_t caps(const struct own_creds *own, const uint32_t *words, size_t n)
{
	uint64_t all = (n > 0 ? words[0] : 0) | (n > 1 ? (uint64_t)words[1] << 32 : 0);

	return all & ((2ull << own->last_cap) - 1);
}

struct wanted {
	uint64_t inh, prm, eff, bnd, amb;
};

static bool has_same_ids(const struct proc_status *s, const CredsEntry *e)
{
	const uint32_t uid[4] = { e->uid, e->euid, e->suid, e->fsuid };
	const uint32_t gid[4] = { e->gid, e->egid, e->sgid, e->fsgid };

	return !memcmp(s->uid, uid, sizeof(uid)) && !memcmp(s->gid, gid, sizeof(gid)) &&
	       s->n_groups == e->n_groups &&
	       (!e->n_groups || !memcmp(s->groups, e->groups, e->n_groups * sizeof(*e->groups)));
}

static bool has_same_caps(const struct proc_status *s, const struct wanted *w)
{
	return s->cap[CAP_SET_INH] == w->inh && s->cap[CAP_SET_PRM] == w->prm &&
	       s->cap[CAP_SET_EFF] == w->eff && s->cap[CAP_SET_BND] == w->bnd &&
	       s->cap[CAP_SET_AMB] == w->amb;
}

static void add_ids(const CredsEntry *e, struct program *p)
{
	const uint32_t *groups =
		e->n_groups ? program_data(p, e->groups, e->n_groups * sizeof(*groups)) : NULL;

	CALL(p, "set supplementary groups", SYS_setgroups, groups ? e->n_groups : 0,
	     groups ? program_raddr(p, groups) : 0);
	CALL(p, "set group ids", SYS_setresgid, e->gid, e->egid, e->sgid);
	CALL(p, "set user ids", SYS_setresuid, e->uid, e->euid, e->suid);
	/* These two report the old id, never an error. */
	CALL(p, "set the file system's group id", SYS_setfsgid, e->fsgid);
	CALL(p, "set the file system's user id", SYS_setfsuid, e->fsuid);
}

static void add_capset(struct program *p, uint64_t eff, uint64_t prm, uint64_t inh)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ eff, prm, inh },
		{ eff >> 32, prm >> 32, inh >> 32 },
	};
	void *h = program_data(p, &head, sizeof(head)), *d = program_data(p, data, sizeof(data));

	if (h && d)
		CALL(p, "set capabilities", SYS_capset, program_raddr(p, h), program_raddr(p, d));
}

/* bits: the securebits by now. */
static void add_caps(const struct own_creds *own, const CredsEntry *e, const struct wanted *w,
		     uint32_t bits, struct program *p)
{
	uint64_t prm = own->status.cap[CAP_SET_PRM];

	for (unsigned cap = 0; cap <= own->last_cap; cap++)
		if (own->status.cap[CAP_SET_BND] >> cap & 1 && !(w->bnd >> cap & 1))
			CALL(p, "drop a capability from the bounding set", SYS_prctl,
			     PR_CAPBSET_DROP, cap);
	add_capset(p, prm, prm, w->inh);
	for (unsigned cap = 0; cap <= own->last_cap; cap++)
		if (w->amb >> cap & 1)
			CALL(p, "raise an ambient capability", SYS_prctl, PR_CAP_AMBIENT,
			     PR_CAP_AMBIENT_RAISE, cap, 0, 0);
	/* This takes CAP_SETPCAP even where nothing changes. */
	if (bits != e->secbits)
		CALL(p, "set securebits", SYS_prctl, PR_SET_SECUREBITS, e->secbits);
	add_capset(p, w->eff, w->prm, w->inh);
}

static struct wanted wanted_caps(const struct own_creds *own, const CredsEntry *e)
{
	return (struct wanted){
		.inh = caps(own, e->cap_inh, e->n_cap_inh),
		.prm = caps(own, e->cap_prm, e->n_cap_prm),
		.eff = caps(own, e->cap_eff, e->n_cap_eff),
		.bnd = caps(own, e->cap_bnd, e->n_cap_bnd),
		.amb = caps(own, e->cap_amb, e->n_cap_amb),
	};
}

bool creds_differ(const struct own_creds *own, const CredsEntry *e)
{
	struct wanted w = wanted_caps(own, e);

	return !has_same_ids(&own->status, e) || !has_same_caps(&own->status, &w) ||
	       (uint32_t)own->securebits != e->secbits;
}

int creds_check(const struct own_creds *own, const CredsEntry *e, uint32_t tid)
{
	struct wanted w = wanted_caps(own, e);
	const struct proc_status *s = &own->status;
	const uint64_t ids = 1ull << CAP_SETUID | 1ull << CAP_SETGID;

	if (!has_same_ids(s, e) && (s->cap[CAP_SET_EFF] & ids) != ids)
		return refuse(EPERM,
			      "pid %u: it had other user or group ids (uid %u, gid %u) than criu "
			      "has; to restore it run criu as root",
			      tid, e->uid, e->gid);
	uint64_t lacking = (w.prm | w.inh) & ~s->cap[CAP_SET_PRM];
	if (lacking)
		return refuse(EPERM,
			      "pid %u: it had capabilities that criu has not (%#lx); to restore it "
			      "run criu as root",
			      tid, (long)lacking);
	if (w.bnd & ~s->cap[CAP_SET_BND])
		warn("pid %u: capabilities %#lx of its bounding set are lost: criu has not got "
		     "them",
		     tid, (long)(w.bnd & ~s->cap[CAP_SET_BND]));
	bool drops = s->cap[CAP_SET_BND] & ~w.bnd;
	if ((drops || (uint32_t)own->securebits != e->secbits) && !creds_have(own, CAP_SETPCAP))
		return refuse(
			EPERM,
			"pid %u: its bounding set or securebits differ from those of criu; to "
			"restore it run criu as root",
			tid);
	return 0;
}

void creds_add(const struct own_creds *own, const CredsEntry *e, struct program *p)
{
	struct wanted w = wanted_caps(own, e);
	uint32_t bits = own->securebits;

	if (!has_same_ids(&own->status, e)) {
		bits = SECBIT_NO_SETUID_FIXUP;
		CALL(p, "keep capabilities", SYS_prctl, PR_SET_SECUREBITS, bits);
		add_ids(e, p);
	}
	if (creds_differ(own, e))
		add_caps(own, e, &w, bits, p);
	if (e->has_no_new_privs && e->no_new_privs)
		CALL(p, "set no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
