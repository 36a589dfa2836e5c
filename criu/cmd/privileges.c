/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/privileges.h"

#define OUR_CAP (1ull << CAP_CHECKPOINT_RESTORE)

static const struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

static bool has_cap(void)
{
	struct __user_cap_data_struct data[2];

	return syscall(SYS_capget, &head, data) == 0 &&
	       ((uint64_t)data[1].effective << 32 | data[0].effective) & OUR_CAP;
}

static int keep_one_cap(void)
{
	const struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)OUR_CAP, .permitted = (uint32_t)OUR_CAP },
		{ .effective = OUR_CAP >> 32, .permitted = OUR_CAP >> 32 },
	};

	return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

int privileges_become(uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setgroups(n, groups) < 0 ||
	    setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 ||
	    prctl(PR_SET_KEEPCAPS, 0) < 0)
		return fail(errno, "become the user %u", uid);
	int rc = keep_one_cap();
	if (rc < 0)
		return fail(-rc, "keep CAP_CHECKPOINT_RESTORE for the user %u", uid);
	/* Our own files in /proc would belong to root otherwise. */
	if (prctl(PR_SET_DUMPABLE, 1) < 0)
		return fail(errno, "become dumpable");
	return 0;
}

int privileges_leave_setuid(void)
{
	gid_t groups[NGROUPS_MAX];

	if (geteuid() == getuid() || geteuid() != 0)
		return 0;
	int n = getgroups(NGROUPS_MAX, groups);
	if (n < 0)
		return fail(errno, "read the groups of criu");
	return privileges_become(getuid(), getgid(), groups, n);
}

int privileges_check(const struct options *o)
{
	if (geteuid() == 0)
		return 0;
	if (!has_cap())
		return refuse(EPERM,
			      "criu has to run as root, or with the capability "
			      "CAP_CHECKPOINT_RESTORE (setcap cap_checkpoint_restore+eip) and "
			      "--unprivileged");
	if (!o->unprivileged)
		return refuse(EPERM,
			      "criu does not run as root; give --unprivileged if it shall "
			      "work with the rights of the user %u",
			      geteuid());
	(void)prctl(PR_SET_DUMPABLE, 1); /* a file capability has made us undumpable */
	return 0;
}
