/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fields of criu_opts become options by the table of all options: most have the name of their
 * option, with '_' for '-'. The rest is listed here: other names, and fields that are more than one
 * value.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/own.h"
#include "rpc/rpc.h"

/* Fields with a name of their own. NULL: looked at below, or of no consequence. */
static const struct {
	const char *field, *option;
} names[] = {
	{ "images_dir_fd", NULL },
	{ "images_dir", NULL },
	{ "work_dir_fd", NULL },
	{ "pid", NULL },
	{ "notify_scripts", NULL },
	{ "inherit_fd", NULL },
	{ "unix_sk_ino", NULL },
	{ "config_file", NULL },
	{ "log_to_stderr", NULL },
	{ "log_file", NULL },
	{ "status_fd", NULL },
	{ "orphan_pts_master", NULL }, /* only asks to be told of it */
	{ "log_level", "verbosity" },
	{ "rst_sibling", "restore-sibling" },
	{ "tcp_skip_in_flight", "skip-in-flight" },
	{ "parent_img", "prev-images-dir" },
	{ "ps", NULL },
	{ "veths", "veth-pair" },
	{ "ext_mnt", "ext-mount-map" },
	{ "auto_ext_mnt", "ext-mount-map" },
	{ "ext_sharing", "enable-external-sharing" },
	{ "ext_masters", "enable-external-masters" },
	{ "cg_root", "cgroup-root" },
	{ "manage_cgroups_mode", "manage-cgroups" },
	{ "irmap_scan_paths", "irmap-scan-path" },
	{ "pre_dump_mode", NULL },
	{ "pidfd_store_sk", NULL },
};

/* Sets the option of a field. Returns false if it has none of its own. */
static bool option_of(const char *field, char *name, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i].field, field))
			continue;
		if (names[i].option)
			snprintf(name, size, "%s", names[i].option);
		return names[i].option;
	}
	snprintf(name, size, "%s", field);
	for (char *p = name; *p; p++)
		if (*p == '_')
			*p = '-';
	return true;
}

bool request_field_is_known(const char *field)
{
	struct options o = options_default();
	char name[64], why[256];

	if (!option_of(field, name, sizeof(name)))
		return true;
	return options_apply(&o, name, NULL, why, sizeof(why)) ||
	       !strstr(why, "there is no option");
}

static const void *member(const CriuOpts *o, size_t offset)
{
	return (const char *)o + offset;
}

/* How often the field is there. */
static size_t count(const CriuOpts *o, const ProtobufCFieldDescriptor *f)
{
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)member(o, f->quantifier_offset);
	if (f->label == PROTOBUF_C_LABEL_REQUIRED)
		return 1;
	if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE)
		return *(const void *const *)member(o, f->offset) != NULL;
	return *(const protobuf_c_boolean *)member(o, f->quantifier_offset);
}

/* A number as text that lives as long as the process: options keep pointers. */
static char *text_of(long long n)
{
	char *text = xmalloc(24);

	snprintf(text, 24, "%lld", n);
	return text;
}

static bool apply_scalar(struct options *o, const CriuOpts *req, const ProtobufCFieldDescriptor *f,
			 const char *name, char *error, size_t size)
{
	char no[80];

	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		if (*(const protobuf_c_boolean *)member(req, f->offset))
			return options_apply(o, name, NULL, error, size);
		snprintf(no, sizeof(no), "no-%s", name);
		(void)options_apply(o, no, NULL, error, size); /* not every switch can be off */
		return true;
	case PROTOBUF_C_TYPE_STRING:
		return options_apply(o, name, *(const char *const *)member(req, f->offset), error,
				     size);
	case PROTOBUF_C_TYPE_UINT32:
		return options_apply(o, name, text_of(*(const uint32_t *)member(req, f->offset)),
				     error, size);
	case PROTOBUF_C_TYPE_INT32:
		return options_apply(o, name, text_of(*(const int32_t *)member(req, f->offset)),
				     error, size);
	default:
		return options_apply(o, name, "", error, size);
	}
}

static bool apply_field(struct options *o, const CriuOpts *req, const ProtobufCFieldDescriptor *f,
			char *error, size_t size)
{
	size_t n = count(req, f);
	char name[64];

	if (!n || !option_of(f->name, name, sizeof(name)))
		return true;
	if (f->label != PROTOBUF_C_LABEL_REPEATED)
		return apply_scalar(o, req, f, name, error, size);
	for (size_t i = 0; i < n; i++) {
		const char *value = f->type == PROTOBUF_C_TYPE_STRING
					    ? (*(char *const *const *)member(req, f->offset))[i]
					    : "";

		if (!options_apply(o, name, value, error, size))
			return false;
	}
	return true;
}

/* Where the page server is; of the requests for one: where it is to be. */
static bool apply_server(struct options *o, const CriuPageServerInfo *ps, char *error, size_t size)
{
	if (!options_apply(o, "page-server", NULL, error, size))
		return false;
	if (ps->address && !options_apply(o, "address", ps->address, error, size))
		return false;
	if (ps->has_port && ps->port && !options_apply(o, "port", text_of(ps->port), error, size))
		return false;
	return !ps->has_fd || options_apply(o, "ps-socket", text_of(ps->fd), error, size);
}

static bool apply_lists(struct options *o, const CriuOpts *req, char *error, size_t size)
{
	if (req->has_pre_dump_mode)
		o->pre_dump_mode = req->pre_dump_mode == CRIU_PRE_DUMP_MODE__VM_READ
					   ? PRE_DUMP_READ
					   : PRE_DUMP_SPLICE;
	if (req->ps && !apply_server(o, req->ps, error, size))
		return false;
	for (size_t i = 0; i < req->n_inherit_fd; i++) {
		const InheritFd *e = req->inherit_fd[i];
		size_t room = strlen(e->key) + 32;
		char *text = xmalloc(room);

		snprintf(text, room, "fd[%d]:%s", e->fd, e->key);
		if (!options_apply(o, "inherit-fd", text, error, size))
			return false;
	}
	for (size_t i = 0; i < req->n_unix_sk_ino; i++)
		if (!options_apply(o, "ext-unix-sk", text_of(req->unix_sk_ino[i]->inode), error,
				   size))
			return false;
	return true;
}

static char *path_of_fd(const struct client *c, int fd)
{
	char *path = xmalloc(64);

	snprintf(path, 64, "/proc/%d/fd/%d", c->pid, fd);
	return path;
}

static bool says(char *error, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static bool says(char *error, size_t size, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(error, size, fmt, args);
	va_end(args);
	return false;
}

static bool put_places(const struct client *c, const CriuOpts *req, struct options *o, char *error,
		       size_t size)
{
	if (req->images_dir_fd != -1)
		o->images_dir = path_of_fd(c, req->images_dir_fd);
	else if (req->images_dir)
		o->images_dir = req->images_dir;
	else
		return says(error, size, "neither images_dir_fd nor images_dir is given");
	o->work_dir = req->has_work_dir_fd ? path_of_fd(c, req->work_dir_fd) : o->images_dir;
	if (req->log_file && strchr(req->log_file, '/'))
		return says(error, size, "log_file %s: it may not contain a slash", req->log_file);
	o->log_file = req->log_to_stderr ? NULL : req->log_file;
	if (req->has_pidfd_store_sk)
		return says(error, size,
			    "pidfd_store_sk: pids that are used again are recognised without it");
	return !req->has_status_fd || says(error, size, "status_fd is obsolete; use notifications");
}

/* One that is not there is passed over, as on the command line; not one that may not be read. */
static bool read_config(const char *path, struct options *ret, char *error, size_t size)
{
	int rc = options_read_config(ret, path, error, size);

	if (rc == 0 && errno == EACCES) {
		snprintf(error, size, "config file %s: %s", path, strerror(EACCES));
		return false;
	}
	return rc >= 0;
}

int request_options(const struct client *c, const CriuOpts *req, struct options *ret, char *error,
		    size_t size)
{
	const ProtobufCMessageDescriptor *d = &criu_opts__descriptor;

	*ret = *c->base;
	ret->service_fd = c->fd;
	ret->detach = true;
	ret->verbosity = 2;
	ret->images_dir = NULL;
	if (!put_places(c, req, ret, error, size))
		return -EBADRQC;
	if (!c->is_worker &&
	    (req->n_inherit_fd || req->rst_sibling || (req->ps && req->ps->has_fd))) {
		snprintf(error, size, "inherit_fd, rst_sibling and ps.fd are for criu swrk only");
		return -EBADRQC;
	}
	for (unsigned i = 0; i < d->n_fields; i++)
		if (!apply_field(ret, req, &d->fields[i], error, size))
			return -EBADRQC;
	if (!apply_lists(ret, req, error, size))
		return -EBADRQC;
	if (req->config_file && !read_config(req->config_file, ret, error, size))
		return -EBADRQC;
	ret->tree = req->has_pid ? req->pid : 0;
	return 0;
}
