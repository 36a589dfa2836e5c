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

#define VALUE_ROOM 256

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
static void read_value(int dir, const char *key, char value[VALUE_ROOM])
{
	if (read_small_at(dir, key, value, VALUE_ROOM) < 0)
		value[0] = '\0';
	value[strcspn(value, "\n")] = '\0';
}

static void read_tree(struct arena *a, const char *tree, const char *name, TunDeviceEntry *e)
{
	int dir = open_conf(tree, name);
	autoclose int usual = open_conf(tree, "default");
	autoclosedir DIR *list = dir < 0 ? NULL : fdopendir(dir);
	char value[VALUE_ROOM], usual_value[VALUE_ROOM];

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

bool tunconf_split(char *text, char **ret_key, char **ret_value)
{
	char *equals = strchr(text, '=');
	bool is_known = false;

	if (!equals || strchr(equals, '\n'))
		return false;
	*equals = '\0';
	char *slash = strrchr(text, '/');
	if (!slash)
		return false;
	*slash = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
		is_known |= !strcmp(text, trees[i]);
	*ret_key = slash + 1;
	*ret_value = equals + 1;
	size_t len = strlen(*ret_key);
	return is_known && len &&
	       strspn(*ret_key, "abcdefghijklmnopqrstuvwxyz0123456789_") == len &&
	       strcmp(*ret_key, ADDRESS_MODE);
}

static int set_value(const char *tree, const char *name, const char *key, const char *value)
{
	autoclose int dir = open_conf(tree, name);
	autoclose int fd = dir < 0 ? -1 : openat(dir, key, O_WRONLY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : write_all(fd, value, strlen(value));

	return rc < 0 ? fail(-rc, "interface %s: set %s/%s to %s", name, tree, key, value) : 0;
}

int tunconf_set(const char *name, const TunDeviceEntry *e)
{
	for (size_t i = 0; i < e->n_settings; i++) {
		autofree char *text = strdup(e->settings[i]);
		char *key, *value;

		if (!text || !tunconf_split(text, &key, &value))
			return refuse(EINVAL, "interface %s: there is no setting %s", name,
				      e->settings[i]);
		int rc = set_value(text, name, key, value);
		if (rc < 0)
			return rc;
	}
	return 0;
}
