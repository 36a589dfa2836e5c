/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "ns/ipcvars.h"
#include "proc/text.h"

#define SEM_LIMITS 4
#define TEXT_MAX   128

enum kind {
	NUMBER,
	LONG,
	FOUR, /* numbers in one file */
	NEXT, /* of an id: -1, and not in the image, unless a program has chosen one */
};

static const struct var {
	const char *path;
	enum kind kind;
	size_t offset; /* in the entry */
	size_t has;    /* of the field's mark; 0: it is required */
	const char *wide;
} vars[] = {
#define REQUIRED(field) offsetof(IpcVarEntry, field), 0
#define OPTIONAL(field) offsetof(IpcVarEntry, field), offsetof(IpcVarEntry, has_##field)
	{ "kernel/sem", FOUR, REQUIRED(sem_ctls), "2147483647 2147483647 500 32768" },
	{ "kernel/msgmax", NUMBER, REQUIRED(msg_ctlmax), "2147483647" },
	{ "kernel/msgmnb", NUMBER, REQUIRED(msg_ctlmnb), "2147483647" },
	{ "kernel/msgmni", NUMBER, REQUIRED(msg_ctlmni), "32768" },
	{ "kernel/auto_msgmni", NUMBER, REQUIRED(auto_msgmni), NULL },
	{ "kernel/shmmax", LONG, REQUIRED(shm_ctlmax), "18446744073709551615" },
	{ "kernel/shmall", LONG, REQUIRED(shm_ctlall), "18446744073709551615" },
	{ "kernel/shmmni", NUMBER, REQUIRED(shm_ctlmni), "32768" },
	{ "kernel/shm_rmid_forced", NUMBER, REQUIRED(shm_rmid_forced), NULL },
	{ "fs/mqueue/queues_max", NUMBER, REQUIRED(mq_queues_max), NULL },
	{ "fs/mqueue/msg_max", NUMBER, REQUIRED(mq_msg_max), NULL },
	{ "fs/mqueue/msgsize_max", NUMBER, REQUIRED(mq_msgsize_max), NULL },
	{ "fs/mqueue/msg_default", NUMBER, OPTIONAL(mq_msg_default), NULL },
	{ "fs/mqueue/msgsize_default", NUMBER, OPTIONAL(mq_msgsize_default), NULL },
	{ "kernel/msg_next_id", NEXT, OPTIONAL(msg_next_id), NULL },
	{ "kernel/sem_next_id", NEXT, OPTIONAL(sem_next_id), NULL },
	{ "kernel/shm_next_id", NEXT, OPTIONAL(shm_next_id), NULL },
};

static void *field_of(const IpcVarEntry *e, const struct var *v)
{
	return (char *)e + v->offset;
}

static protobuf_c_boolean *has_of(const IpcVarEntry *e, const struct var *v)
{
	return (protobuf_c_boolean *)((char *)e + v->has);
}

/* Without its newline. Length or -errno. */
static ssize_t read_var(const struct var *v, char text[TEXT_MAX])
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/sys/%s", v->path);
	ssize_t len = read_small_at(AT_FDCWD, path, text, TEXT_MAX);
	if (len > 0)
		(void)text_cut_line(text);
	return len;
}

static int write_var(const char *name, const char *text)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(errno, "IPC namespace: open %s", path);
	int rc = write_all(fd, text, strlen(text));
	return rc < 0 ? fail(-rc, "IPC namespace: write %s to %s", text, path) : 0;
}

static bool parse_four(uint32_t to[SEM_LIMITS], const char *text)
{
	int64_t n = 0;

	for (int i = 0; i < SEM_LIMITS && text; i++) {
		text = text_int(text_skip_blanks(text), &n);
		to[i] = n;
	}
	return text;
}

static bool parse(IpcVarEntry *e, const struct var *v, const char *text)
{
	uint64_t n = 0;
	int64_t next = -1;

	if (v->kind == FOUR)
		return parse_four(e->sem_ctls, text);
	if (v->kind == NEXT ? !text_int(text, &next) : !text_dec(text, &n))
		return false;
	if (v->kind == LONG)
		*(uint64_t *)field_of(e, v) = n;
	else
		*(uint32_t *)field_of(e, v) = v->kind == NEXT ? (uint32_t)max(next, (int64_t)0) : n;
	if (v->has)
		*has_of(e, v) = next >= 0 || v->kind != NEXT;
	return true;
}

/* As the file has it. */
static void print(const IpcVarEntry *e, const struct var *v, char text[TEXT_MAX])
{
	if (v->kind == FOUR)
		snprintf(text, TEXT_MAX, "%d\t%d\t%d\t%d", e->sem_ctls[0], e->sem_ctls[1],
			 e->sem_ctls[2], e->sem_ctls[3]);
	else if (v->kind == LONG)
		snprintf(text, TEXT_MAX, "%lu", (long)*(uint64_t *)field_of(e, v));
	else
		snprintf(text, TEXT_MAX, "%u", *(uint32_t *)field_of(e, v));
}

IpcVarEntry *ipcvars_read(struct arena *a)
{
	IpcVarEntry *e = MESSAGE(a, IpcVarEntry, ipc_var_entry);
	char text[TEXT_MAX];

	e->n_sem_ctls = SEM_LIMITS;
	e->sem_ctls = arena_array(a, uint32_t, SEM_LIMITS);
	for (size_t i = 0; i < ARRAY_SIZE(vars); i++) {
		ssize_t len = read_var(&vars[i], text);

		if (len == -ENOENT)
			continue;
		if (len < 0 || !parse(e, &vars[i], text)) {
			(void)fail(len < 0 ? -len : EINVAL, "IPC namespace: read /proc/sys/%s",
				   vars[i].path);
			return NULL;
		}
	}
	return e;
}

int ipcvars_widen(void)
{
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(vars) && rc == 0; i++)
		if (vars[i].wide)
			rc = write_var(vars[i].path, vars[i].wide);
	return rc;
}

/* The kernel of the dump had no message queues of POSIX. */
static bool is_unknown(const IpcVarEntry *e, const struct var *v)
{
	return (v->has && !*has_of(e, v)) ||
	       (!e->mq_msg_max && !strncmp(v->path, "fs/mqueue/", strlen("fs/mqueue/")));
}

static int set_var(const IpcVarEntry *e, const struct var *v)
{
	char text[TEXT_MAX], now[TEXT_MAX];

	if (is_unknown(e, v))
		return 0;
	print(e, v, text);
	ssize_t len = read_var(v, now);
	if (len == -ENOENT) {
		warn("IPC namespace: this kernel has no /proc/sys/%s, which was %s", v->path, text);
		return 0;
	}
	return len >= 0 && !strcmp(now, text) ? 0 : write_var(v->path, text);
}

int ipcvars_set(const IpcVarEntry *e)
{
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(vars) && rc == 0; i++)
		rc = set_var(e, &vars[i]);
	return rc;
}

int ipcvars_set_next_id(const char *kind, uint32_t id)
{
	char name[32], text[16];

	snprintf(name, sizeof(name), "kernel/%s_next_id", kind);
	snprintf(text, sizeof(text), "%u", id);
	return write_var(name, text);
}
