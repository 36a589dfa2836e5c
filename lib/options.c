/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Options of a request: what is set goes straight into the message. The functions come from the
 * table include/criu/functions.h; what is more than one value is written here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib.h"

/* Those of the functions without _local_. */
static criu_opts own = { .rpc = CRIU_OPTS__INIT, .fd = -1 };

/* The message is a part of the options: only what hangs off it is freed. */
static void release(void *message, void *p)
{
	if (p != message)
		free(p);
}

static void reset(criu_opts *o)
{
	ProtobufCAllocator allocator = { .free = release, .allocator_data = &o->rpc };

	criu_opts__free_unpacked(&o->rpc, &allocator);
	free(o->address);
	free(o->binary);
	*o = (criu_opts){ .rpc = CRIU_OPTS__INIT, .fd = -1 };
}

int criu_init_opts(void)
{
	reset(&own);
	return 0;
}

int criu_local_init_opts(criu_opts **opts)
{
	criu_opts *o = malloc(sizeof(*o));

	if (!o)
		return -1;
	*o = (criu_opts){ .rpc = CRIU_OPTS__INIT, .fd = -1 };
	*opts = o;
	return 0;
}

void criu_local_free_opts(criu_opts *opts)
{
	if (!opts)
		return;
	reset(opts);
	if (opts != &own)
		free(opts);
}

static int set_text(char **slot, const char *value)
{
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return -ENOMEM;
	free(*slot);
	*slot = copy;
	return 0;
}

/* Makes room for one more of a repeated field; the caller puts it there and counts it. */
static int make_room(void *list, size_t n)
{
	void *grown = realloc(*(void **)list, (n + 1) * sizeof(void *));

	if (!grown)
		return -ENOMEM;
	*(void **)list = grown;
	return 0;
}

static int add_text(char ***list, size_t *n, const char *value)
{
	if (!value)
		return -EINVAL;
	if (make_room(list, *n) < 0)
		return -ENOMEM;
	char *copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	(*list)[(*n)++] = copy;
	return 0;
}

/* Adds a message of a repeated field; it is freed if rc says that filling it failed. */
static int add_message(void *list, size_t *n, void *message, int rc)
{
	if (rc == 0)
		rc = make_room(list, *n);
	if (rc < 0) {
		protobuf_c_message_free_unpacked(message, NULL);
		return rc;
	}
	(*(void ***)list)[(*n)++] = message;
	return 0;
}

static int set_two(char **first, const char *a, char **second, const char *b)
{
	int rc = set_text(first, a);

	return rc < 0 ? rc : set_text(second, b);
}

#define NEW_MESSAGE(type, prefix)                                                                  \
	({                                                                                         \
		type *new_message = malloc(sizeof(*new_message));                                  \
		if (new_message)                                                                   \
			prefix##__init(new_message);                                               \
		new_message;                                                                       \
	})

void criu_local_set_images_dir_fd(criu_opts *opts, int fd)
{
	opts->rpc.images_dir_fd = fd;
}

void criu_local_set_manage_cgroups_mode(criu_opts *opts, enum criu_cg_mode mode)
{
	opts->rpc.has_manage_cgroups_mode = true;
	opts->rpc.manage_cgroups_mode = (CriuCgMode)mode;
}

int criu_local_set_network_lock(criu_opts *opts, enum criu_network_lock_method method)
{
	if (!protobuf_c_enum_descriptor_get_value(&criu_network_lock_method__descriptor, method))
		return -EINVAL;
	opts->rpc.has_network_lock = true;
	opts->rpc.network_lock = (CriuNetworkLockMethod)method;
	return 0;
}

int criu_local_set_pre_dump_mode(criu_opts *opts, enum criu_pre_dump_mode mode)
{
	if (!protobuf_c_enum_descriptor_get_value(&criu_pre_dump_mode__descriptor, mode))
		return -EINVAL;
	opts->rpc.has_pre_dump_mode = true;
	opts->rpc.pre_dump_mode = (CriuPreDumpMode)mode;
	return 0;
}

int criu_local_set_page_server_address_port(criu_opts *opts, const char *address, int port)
{
	CriuPageServerInfo *ps = opts->rpc.ps;

	if (!ps)
		ps = NEW_MESSAGE(CriuPageServerInfo, criu_page_server_info);
	if (!ps)
		return -ENOMEM;
	opts->rpc.ps = ps;
	ps->has_port = true;
	ps->port = port;
	return set_text(&ps->address, address);
}

int criu_local_set_exec_cmd(criu_opts *opts, int argc, char **argv)
{
	CriuOpts *rpc = &opts->rpc;

	if (argc < 0)
		return -EINVAL;
	while (rpc->n_exec_cmd)
		free(rpc->exec_cmd[--rpc->n_exec_cmd]);
	for (int i = 0; i < argc; i++) {
		int rc = add_text(&rpc->exec_cmd, &rpc->n_exec_cmd, argv[i]);

		if (rc < 0)
			return rc;
	}
	return 0;
}

int criu_local_add_ext_mount(criu_opts *opts, const char *key, const char *val)
{
	ExtMountMap *m = key && val ? NEW_MESSAGE(ExtMountMap, ext_mount_map) : NULL;

	if (!m)
		return key && val ? -ENOMEM : -EINVAL;
	return add_message(&opts->rpc.ext_mnt, &opts->rpc.n_ext_mnt, m,
			   set_two(&m->key, key, &m->val, val));
}

int criu_local_add_veth_pair(criu_opts *opts, const char *in, const char *out)
{
	CriuVethPair *m = in && out ? NEW_MESSAGE(CriuVethPair, criu_veth_pair) : NULL;

	if (!m)
		return in && out ? -ENOMEM : -EINVAL;
	return add_message(&opts->rpc.veths, &opts->rpc.n_veths, m,
			   set_two(&m->if_in, in, &m->if_out, out));
}

int criu_local_add_cg_root(criu_opts *opts, const char *ctrl, const char *path)
{
	CgroupRoot *m = path ? NEW_MESSAGE(CgroupRoot, cgroup_root) : NULL;

	if (!m)
		return path ? -ENOMEM : -EINVAL;
	return add_message(&opts->rpc.cg_root, &opts->rpc.n_cg_root, m,
			   set_two(&m->ctrl, ctrl, &m->path, path));
}

int criu_local_add_inherit_fd(criu_opts *opts, int fd, const char *key)
{
	InheritFd *m = key ? NEW_MESSAGE(InheritFd, inherit_fd) : NULL;

	if (!m)
		return key ? -ENOMEM : -EINVAL;
	m->fd = fd;
	return add_message(&opts->rpc.inherit_fd, &opts->rpc.n_inherit_fd, m,
			   set_text(&m->key, key));
}

int criu_local_add_unix_sk(criu_opts *opts, unsigned int inode)
{
	UnixSk *m = NEW_MESSAGE(UnixSk, unix_sk);

	if (!m)
		return -ENOMEM;
	m->inode = inode;
	return add_message(&opts->rpc.unix_sk_ino, &opts->rpc.n_unix_sk_ino, m, 0);
}

int criu_local_join_ns_add(criu_opts *opts, const char *ns, const char *ns_file,
			   const char *extra_opt)
{
	JoinNamespace *m = ns && ns_file ? NEW_MESSAGE(JoinNamespace, join_namespace) : NULL;

	if (!m)
		return ns && ns_file ? -ENOMEM : -EINVAL;
	int rc = set_two(&m->ns, ns, &m->ns_file, ns_file);
	if (rc == 0)
		rc = set_text(&m->extra_opt, extra_opt);
	return add_message(&opts->rpc.join_ns, &opts->rpc.n_join_ns, m, rc);
}

void criu_local_set_notify_cb(criu_opts *opts, criu_notify_cb_t cb)
{
	opts->notify = cb;
	opts->rpc.has_notify_scripts = cb != NULL;
	opts->rpc.notify_scripts = cb != NULL;
}

int criu_local_set_service_address(criu_opts *opts, const char *path)
{
	int rc = set_text(&opts->address, path);

	if (rc == 0)
		opts->transport = BY_ADDRESS;
	return rc;
}

void criu_local_set_service_fd(criu_opts *opts, int fd)
{
	opts->fd = fd;
	opts->transport = BY_FD;
}

int criu_local_set_service_binary(criu_opts *opts, const char *path)
{
	int rc = set_text(&opts->binary, path);

	if (rc == 0)
		opts->transport = BY_BINARY;
	return rc;
}

/* ---- the setters of one field, as criu_local_NAME ---- */

#define SCALAR(name, field, type)                                                                  \
	void criu_local_##name(criu_opts *opts, type value)                                        \
	{                                                                                          \
		opts->rpc.has_##field = true;                                                      \
		opts->rpc.field = value;                                                           \
	}
#define CRIU_BOOL(name, field) SCALAR(name, field, bool)
#define CRIU_INT(name, field)  SCALAR(name, field, int)
#define CRIU_UINT(name, field) SCALAR(name, field, unsigned int)
#define CRIU_TEXT(name, field)                                                                     \
	int criu_local_##name(criu_opts *opts, const char *value)                                  \
	{                                                                                          \
		return set_text(&opts->rpc.field, value);                                          \
	}
#define CRIU_LIST(name, field)                                                                     \
	int criu_local_##name(criu_opts *opts, const char *value)                                  \
	{                                                                                          \
		return add_text(&opts->rpc.field, &opts->rpc.n_##field, value);                    \
	}
#define CRIU_CALL0(...)
#define CRIU_CALL1(...)
#define CRIU_CALL2(...)
#define CRIU_CALL3(...)
#include "criu/functions.h"

/* ---- everything as criu_NAME ---- */

#define CRIU_CALL0(result, name)                                                                   \
	result criu_##name(void)                                                                   \
	{                                                                                          \
		return criu_local_##name(&own);                                                    \
	}
#define CRIU_CALL1(result, name, t1, a1)                                                           \
	result criu_##name(t1 a1)                                                                  \
	{                                                                                          \
		return criu_local_##name(&own, a1);                                                \
	}
#define CRIU_CALL2(result, name, t1, a1, t2, a2)                                                   \
	result criu_##name(t1 a1, t2 a2)                                                           \
	{                                                                                          \
		return criu_local_##name(&own, a1, a2);                                            \
	}
#define CRIU_CALL3(result, name, t1, a1, t2, a2, t3, a3)                                           \
	result criu_##name(t1 a1, t2 a2, t3 a3)                                                    \
	{                                                                                          \
		return criu_local_##name(&own, a1, a2, a3);                                        \
	}
#define CRIU_BOOL(name, field) CRIU_CALL1(void, name, bool, value)
#define CRIU_INT(name, field)  CRIU_CALL1(void, name, int, value)
#define CRIU_UINT(name, field) CRIU_CALL1(void, name, unsigned int, value)
#define CRIU_TEXT(name, field) CRIU_CALL1(int, name, const char *, value)
#define CRIU_LIST(name, field) CRIU_CALL1(int, name, const char *, value)
#include "criu/functions.h"
