/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/own.h"
#include "proc/text.h"
#include "sockets/unix.h"

struct unix_text unix_name(const ProtobufCBinaryData *name)
{
	struct unix_text text = { "no name" };
	size_t n = min(name->len, (size_t)UNIX_NAME_MAX);

	if (!n)
		return text;
	for (size_t i = 0; i < n; i++)
		text.s[i] = name->data[i] ? name->data[i] : '@';
	text.s[n] = '\0';
	if (name->data[0]) /* a path may end with a zero byte */
		text.s[strnlen((const char *)name->data, n)] = '\0';
	return text;
}

bool unix_is_stream(uint32_t type)
{
	return type == SOCK_STREAM || type == SOCK_SEQPACKET;
}

struct cut *cuts_find(struct cuts *c, uint32_t ino)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->cut[i].ino == ino)
			return &c->cut[i];
	return NULL;
}

static int add(struct cuts *c, const char *option, const char *text, uint64_t ino, const char *path)
{
	if (!ino || ino > UINT32_MAX)
		return refuse(EINVAL, "%s%s: not the inode of a socket", option, text);
	if (cuts_find(c, ino))
		return refuse(EINVAL, "%s%s: socket %u is given twice", option, text,
			      (unsigned)ino);
	if (c->n == OPTION_LIST_MAX)
		return refuse(E2BIG, "%s%s: too many sockets", option, text);
	if (path && (!*path || strlen(path) >= UNIX_NAME_MAX))
		return refuse(EINVAL, "%s%s: the path of a socket has 1 to %d bytes", option, text,
			      UNIX_NAME_MAX - 1);
	bool is_closed = path && !strcmp(path, "close");
	c->cut[c->n++] =
		(struct cut){ .ino = ino, .path = is_closed ? NULL : path, .is_closed = is_closed };
	return 0;
}

/* INO[,INO...], at restore also INO=PATH and INO=close. */
static int parse(struct cuts *c, bool is_restore, const char *text)
{
	static const char option[] = "--ext-unix-sk=";
	const char *p = text;

	for (;;) {
		uint64_t ino;

		p = text_dec(p, &ino);
		bool has_path = p && *p == '=';
		if (has_path && !is_restore)
			return refuse(EINVAL, "%s%s: a path is given at restore, not at dump",
				      option, text);
		if (!p || (*p && *p != ',' && !has_path))
			return refuse(EINVAL, "%s%s: not of the form INODE[,INODE...]%s", option,
				      text, is_restore ? " or INODE=PATH or INODE=close" : "");
		int rc = add(c, option, text, ino, has_path ? p + 1 : NULL);
		if (rc < 0 || has_path || !*p)
			return rc;
		p++;
	}
}

/* Of --external only unix[INO] is for sockets. */
static int parse_external(struct cuts *c, const char *text)
{
	uint64_t ino;

	if (strncmp(text, "unix[", 5))
		return 0;
	const char *p = text_dec(text + 5, &ino);
	if (!p || strcmp(p, "]"))
		return refuse(EINVAL, "--external %s: not of the form unix[INODE]", text);
	return add(c, "--external ", text, ino, NULL);
}

int cuts_parse(const struct options *o, bool is_restore, struct cuts *ret)
{
	int rc = 0;

	*ret = (struct cuts){ 0 };
	for (size_t i = 0; i < o->ext_unix_sk.n && rc == 0; i++) {
		if (o->ext_unix_sk.item[i])
			rc = parse(ret, is_restore, o->ext_unix_sk.item[i]);
		else
			ret->all_datagrams = true;
	}
	for (size_t i = 0; i < o->external.n && rc == 0; i++)
		rc = parse_external(ret, o->external.item[i]);
	return rc;
}

int cuts_check_used(const struct cuts *c)
{
	int rc = 0;

	for (size_t i = 0; i < c->n; i++)
		if (!c->cut[i].is_used)
			rc = refuse(
				EINVAL,
				"--ext-unix-sk=%u: no unix socket of the tree has this inode and a "
				"peer outside",
				c->cut[i].ino);
	return rc;
}
