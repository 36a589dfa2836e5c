/* SPDX-License-Identifier: GPL-2.0-only */
/* Settings of an interface under /proc/sys/net: those that differ from what new ones get. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/tun.h"

static const char *const trees[] = { "ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh" };

/* One that makes addresses when it is written to; it is set by rtnetlink. */
#define ADDRESS_MODE "addr_gen_mode"

static int open_conf(const char *tree, const char *name)
{
	char path[64 + IFNAMSIZ];

	snprintf(path, sizeof(path), "/proc/sys/net/%s/%s", tree, name);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Without the newline; "" where it cannot be read: a secret that is not set. */
static void read_value(int dir, const char *key, char value[TUN_VALUE_ROOM])
{
	if (read_small_at(dir, key, value, TUN_VALUE_ROOM) < 0)
		value[0] = '\0';
	value[strcspn(value, "\n")] = '\0';
}

/* The defaults for neighbours show in the first network namespace only; lo has them everywhere. */
static int open_usual(const char *tree)
{
	int dir = open_conf(tree, "default");

	return dir < 0 ? open_conf(tree, "lo") : dir;
}

static void read_tree(struct arena *a, const char *tree, const char *name, TunDeviceEntry *e)
{
	int dir = open_conf(tree, name);
	autoclose int usual = open_usual(tree);
	autoclosedir DIR *list = dir < 0 ? NULL : fdopendir(dir);
	char value[TUN_VALUE_ROOM], usual_value[TUN_VALUE_ROOM];

	for (struct dirent *f; list && (f = readdir(list));) {
		if (f->d_type != DT_REG || !strcmp(f->d_name, ADDRESS_MODE))
			continue;
		read_value(dir, f->d_name, value);
		read_value(usual, f->d_name, usual_value);
		if (strcmp(value, usual_value))
			*ARENA_PUSH(a, e->settings, e->n_settings) =
				arena_printf(a, "%s/%s=%s", tree, f->d_name, value);
	}
}

void tunconf_read(struct arena *a, const char *name, TunDeviceEntry *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
		read_tree(a, trees[i], name, e);
}

bool tunconf_parse(const char *text, struct tun_setting *ret)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
	const char *equals = strchr(text, '=');

	for (size_t i = 0; equals && i < ARRAY_SIZE(trees); i++) {
		size_t len = strlen(trees[i]);
		const char *key = text + len + 1;

		if (strncmp(text, trees[i], len) || text[len] != '/')
			continue;
		ret->tree = trees[i];
		int n = snprintf(ret->key, sizeof(ret->key), "%.*s", (int)(equals - key), key);
		int n_value = snprintf(ret->value, sizeof(ret->value), "%s", equals + 1);
		return n > 0 && n < (int)sizeof(ret->key) && n_value < (int)sizeof(ret->value) &&
		       strspn(ret->key, letters) == (size_t)n && strcmp(ret->key, ADDRESS_MODE) &&
		       !strchr(ret->value, '\n');
	}
	return false;
}

/* What it has already may be another view of one that was set: of the same time in milliseconds. */
static int set(const char *name, const struct tun_setting *s)
{
	autoclose int dir = open_conf(s->tree, name);
	autoclose int fd = dir < 0 ? -1 : openat(dir, s->key, O_WRONLY | O_CLOEXEC);
	char now[TUN_VALUE_ROOM];

	if (fd < 0)
		return fail(errno, "interface %s: open its setting %s/%s", name, s->tree, s->key);
	read_value(dir, s->key, now);
	int rc = strcmp(now, s->value) ? write_all(fd, s->value, strlen(s->value)) : 0;
	return rc < 0 ? fail(-rc, "interface %s: set %s/%s to %s", name, s->tree, s->key, s->value)
		      : 0;
}

int tunconf_set(const char *name, const TunDeviceEntry *e)
{
	struct tun_setting s;
	int rc = 0;

	for (size_t i = 0; i < e->n_settings && rc == 0; i++)
		if (tunconf_parse(e->settings[i], &s))
			rc = set(name, &s);
	return rc;
}
