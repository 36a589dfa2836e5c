/* SPDX-License-Identifier: GPL-2.0-only */
#include <sys/sysmacros.h>

#include "base/test.h"
#include "proc/mounts.h"

static bool parse(const char *line, struct proc_mount *ret)
{
	static char copy[256];

	snprintf(copy, sizeof(copy), "%s", line);
	return proc_mount_parse(copy, ret);
}

TEST(mounts, a_line_is_read)
{
	struct proc_mount m;

	ASSERT(parse("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw", &m));
	ASSERT_EQ(m.id, 36);
	ASSERT_EQ(m.dev, makedev(98, 0));
	ASSERT_STR(m.point, "/mnt2");
}

TEST(mounts, names_are_as_they_were_given)
{
	struct proc_mount m;

	ASSERT(parse("1 0 0:52 / /a\\040b\\011c\\134040 rw - tmpfs none rw", &m));
	ASSERT_STR(m.point, "/a b\tc\\040");
	ASSERT(parse("1 0 0:52 / /end\\04 rw - tmpfs none rw", &m));
	ASSERT_STR(m.point, "/end\\04");
}

TEST(mounts, other_lines_are_not_understood)
{
	static const char *const lines[] = { "",
					     "36",
					     "36 35",
					     "36 35 98",
					     "36 35 98:",
					     "36 35 98:0",
					     "36 35 98:0 /",
					     "36 35 98:0 / /point",
					     "36 35 98:0 / point rw",
					     "99999999999 35 98:0 / /point rw",
					     "x 35 98:0 / /point rw" };
	struct proc_mount m;

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		ASSERT(!parse(lines[i], &m));
}
