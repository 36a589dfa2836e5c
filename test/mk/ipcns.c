/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include "fd.h"
#include "ipcns.h"
#include "mk.h"

#define ROOM 16384

/* Which columns of a table in /proc/sysvipc last: not times, nor who did something last. */
static const struct {
	const char *path;
	const char *lasts;
} tables[] = {
	{ "/proc/sysvipc/shm", "++++--+++++" },
	{ "/proc/sysvipc/sem", "++++++++" },
	{ "/proc/sysvipc/msg", "+++++--++++" },
};

/* name, unusual value (NULL: as it is) */
static const struct {
	const char *path, *value;
} limits[] = {
	{ "/proc/sys/kernel/sem", "100 3000 77 60" },
	{ "/proc/sys/kernel/msgmax", "9000" },
	{ "/proc/sys/kernel/msgmnb", "20000" },
	{ "/proc/sys/kernel/msgmni", "90" },
	{ "/proc/sys/kernel/shmmax", "4096" },
	{ "/proc/sys/kernel/shmall", "100000" },
	{ "/proc/sys/kernel/shmmni", "50" },
	{ "/proc/sys/kernel/shm_rmid_forced", NULL },
	{ "/proc/sys/fs/mqueue/queues_max", "17" },
	{ "/proc/sys/fs/mqueue/msg_max", "12" },
	{ "/proc/sys/fs/mqueue/msgsize_max", "9000" },
	{ "/proc/sys/fs/mqueue/msg_default", "5" },
	{ "/proc/sys/fs/mqueue/msgsize_default", "1000" },
	{ "/proc/sys/kernel/shm_next_id", "4242" },
	{ "/proc/sys/kernel/sem_next_id", NULL },
};

static char *noted;

static void write_line(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

void need_own_ipc(void)
{
	char own[64] = "", parents[64] = "", path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", getppid());
	if (readlink("/proc/self/ns/ipc", own, sizeof(own) - 1) < 0 ||
	    readlink(path, parents, sizeof(parents) - 1) < 0 || !strcmp(own, parents))
		skip("no IPC namespace of its own: start it by unshare -i");
}

void change_ipc_limits(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(limits); i++)
		if (limits[i].value && access(limits[i].path, F_OK) == 0)
			write_line(limits[i].path, limits[i].value);
}

static char *put_table(char *to, char *end, const char *path, const char *lasts)
{
	FILE *f = fopen(path, "r");
	char line[512], *word, *rest;
	size_t i;

	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		for (i = 0, word = strtok_r(line, " \n", &rest); word && lasts[i];
		     i++, word = strtok_r(NULL, " \n", &rest))
			if (lasts[i] == '+')
				to += snprintf(to, end - to, "%s ", word);
		to += snprintf(to, end - to, "\n");
		if (to >= end)
			die("%s is too long", path);
	}
	fclose(f);
	return to;
}

static char *describe(void)
{
	char *text = malloc(ROOM), *to = text, value[128];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(tables); i++)
		to = put_table(to, text + ROOM, tables[i].path, tables[i].lasts);
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		read_line(limits[i].path, value, sizeof(value));
		to += snprintf(to, text + ROOM - to, "%s %s\n", limits[i].path, value);
	}
	return text;
}

void note_ipc(void)
{
	noted = describe();
}

void check_ipc(void)
{
	char *now = describe();
	size_t i = 0, start = 0;

	while (noted[i] && noted[i] == now[i])
		if (now[i++] == '\n')
			start = i;
	if (noted[i] || now[i])
		bad("IPC: \"%.*s\" is \"%.*s\"", (int)strcspn(noted + start, "\n"), noted + start,
		    (int)strcspn(now + start, "\n"), now + start);
	free(now);
}

void be_user(uid_t uid)
{
	if (seteuid(0) < 0 || setegid(uid) < 0 || seteuid(uid) < 0)
		die("become user %d: %s", uid, strerror(errno));
}

void set_ipc_limit(const char *name, const char *value)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	write_line(path, value);
}

void choose_next_id(const char *kind, int id)
{
	char name[32], text[16];

	snprintf(name, sizeof(name), "kernel/%s_next_id", kind);
	snprintf(text, sizeof(text), "%d", id);
	set_ipc_limit(name, text);
}
