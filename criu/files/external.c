/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "files/external.h"
#include "files/inherit.h"
#include "files/regular.h"
#include "proc/text.h"

/* NAME[x:y], two hexadecimal numbers. */
static bool is_pair(const char *text, const char *name)
{
	size_t len = strlen(name);
	uint64_t n;

	if (strncmp(text, name, len) || text[len] != '[')
		return false;
	const char *p = text_hex(text + len + 1, &n);
	p = p && *p == ':' ? text_hex(p + 1, &n) : NULL;
	return p && !strcmp(p, "]");
}

static bool is_for_files(const char *item)
{
	return !strncmp(item, "file[", 5) || !strncmp(item, "tty[", 4);
}

int external_check(const struct options *o)
{
	for (size_t i = 0; i < o->external.n; i++) {
		const char *item = o->external.item[i];

		if (is_for_files(item) && !is_pair(item, "file") && !is_pair(item, "tty"))
			return refuse(EINVAL,
				      "--external %s: not of the form file[MOUNT:INODE] or "
				      "tty[RDEV:DEV], with hexadecimal numbers",
				      item);
		if (!is_for_files(item) && strncmp(item, "unix[", 5))
			return refuse(EOPNOTSUPP,
				      "--external %s: this version knows only unix[INODE], "
				      "file[MOUNT:INODE] and tty[RDEV:DEV]",
				      item);
	}
	return 0;
}

bool external_has(struct dump *d, const char *key)
{
	for (size_t i = 0; i < d->opts->external.n; i++) {
		if (strcmp(d->opts->external.item[i], key))
			continue;
		d->external_is_used[i] = true;
		return true;
	}
	return false;
}

void external_file_key(const struct fd_probe *p, char *buf, size_t size)
{
	snprintf(buf, size, "file[%x:%lx]", p->info.mnt_id, (long)p->st.st_ino);
}

bool external_has_file(struct dump *d, const struct fd_probe *p)
{
	char key[64];

	if (!d->opts->external.n)
		return false;
	external_file_key(p, key, sizeof(key));
	return external_has(d, key);
}

/* Its name is its key: that is how --inherit-fd finds it. */
void external_dump_file(struct dump *d, const struct fd_probe *p, FileEntry *e)
{
	char name[65] = "/";

	external_file_key(p, name + 1, sizeof(name) - 1);
	regular_name_entry(d, p, e);
	e->reg->name = arena_strdup(&d->arena, name);
	e->reg->has_ext = true;
	e->reg->ext = true;
	e->reg->has_mode = false;
	info("pid %d fd %d: %s is external; restore it with --inherit-fd fd[N]:%s",
	     p->task->process->pid, p->fd, p->link, name + 1);
}

int external_check_used(const struct dump *d)
{
	int rc = 0;

	for (size_t i = 0; i < d->opts->external.n; i++)
		if (is_for_files(d->opts->external.item[i]) && !d->external_is_used[i])
			rc = refuse(ENOENT, "--external %s: no file of the tree is this one",
				    d->opts->external.item[i]);
	return rc;
}

int external_check_given(const struct restore *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->opts->external.n; i++) {
		const char *item = r->opts->external.item[i];

		if (is_for_files(item) && !inherit_has(r, item))
			rc = refuse(EINVAL,
				    "--external %s: give what takes its place by --inherit-fd "
				    "'fd[N]:%s'",
				    item, item);
	}
	return rc;
}
