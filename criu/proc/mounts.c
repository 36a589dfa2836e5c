/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdint.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "proc/mounts.h"
#include "proc/text.h"

/* `\040` and the like become what they stand for. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *p = text; *p; to++) {
		bool is_octal = p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' &&
				p[2] <= '7' && p[3] >= '0' && p[3] <= '7';

		*to = is_octal ? (p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0') : *p;
		p += is_octal ? 4 : 1;
	}
	*to = '\0';
}

/* `36 35 98:0 /root /the/point rw,noatime master:1 - ext3 /dev/sda errors=continue` */
bool proc_mount_parse(char *line, struct proc_mount *ret)
{
	uint64_t id, parent, major, minor;
	const char *p = text_dec(line, &id);

	p = p ? text_dec(text_skip_blanks(p), &parent) : NULL;
	p = p ? text_dec(text_skip_blanks(p), &major) : NULL;
	p = p && *p == ':' ? text_dec(p + 1, &minor) : NULL;
	if (!p || id > INT32_MAX || *p != ' ')
		return false;
	const char *root = text_skip_blanks(p);
	char *point = strchr(root, ' ');
	char *end = point ? strchr(point + 1, ' ') : NULL;
	if (!end || point[1] != '/')
		return false;
	*end = '\0';
	unescape(point + 1);
	*ret = (struct proc_mount){ .id = id, .dev = makedev(major, minor), .point = point + 1 };
	return true;
}
