/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/own.h"
#include "sockets/diag.h"

struct reading {
	struct arena *arena;
	struct unix_table *table;
};

static void put_icons(struct arena *a, struct unix_info *u, struct nlattr *attr)
{
	u->n_icons = nla_len(attr) / sizeof(uint32_t);
	u->icons = arena_memdup(a, nla_data(attr), u->n_icons * sizeof(uint32_t));
}

static int take_message(struct nl_msg *msg, void *arg)
{
	struct reading *reading = arg;
	struct nlmsghdr *head = nlmsg_hdr(msg);
	struct unix_diag_msg *m = nlmsg_data(head);
	struct nlattr *attr[UNIX_DIAG_MAX + 1];

	if (nlmsg_parse(head, sizeof(*m), attr, UNIX_DIAG_MAX, NULL) < 0)
		return NL_SKIP;
	struct unix_info *u = ARENA_PUSH(reading->arena, reading->table->info, reading->table->n);
	*u = (struct unix_info){ .ino = m->udiag_ino,
				 .type = m->udiag_type,
				 .state = m->udiag_state };
	u->has_peer = attr[UNIX_DIAG_PEER];
	if (u->has_peer)
		u->peer = nla_get_u32(attr[UNIX_DIAG_PEER]);
	if (attr[UNIX_DIAG_SHUTDOWN])
		u->shutdown = nla_get_u8(attr[UNIX_DIAG_SHUTDOWN]);
	if (attr[UNIX_DIAG_NAME]) {
		u->name_len = nla_len(attr[UNIX_DIAG_NAME]);
		u->name = arena_memdup(reading->arena, nla_data(attr[UNIX_DIAG_NAME]), u->name_len);
	}
	if (attr[UNIX_DIAG_RQLEN]) {
		const struct unix_diag_rqlen *q = nla_data(attr[UNIX_DIAG_RQLEN]);

		u->rqueue = q->udiag_rqueue;
		u->wqueue = q->udiag_wqueue;
	}
	if (attr[UNIX_DIAG_VFS]) {
		const struct unix_diag_vfs *v = nla_data(attr[UNIX_DIAG_VFS]);

		u->has_file = true;
		u->file_dev = v->udiag_vfs_dev;
		u->file_ino = v->udiag_vfs_ino;
	}
	if (attr[UNIX_DIAG_ICONS])
		put_icons(reading->arena, u, attr[UNIX_DIAG_ICONS]);
	return NL_OK;
}

static int by_ino(const void *a, const void *b)
{
	const struct unix_info *x = a, *y = b;

	return (x->ino > y->ino) - (x->ino < y->ino);
}

static int ask(struct nl_sock *sock, struct reading *reading)
{
	struct unix_diag_req req = {
		.sdiag_family = AF_UNIX,
		.udiag_states = ~0u,
		.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER |
			      UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN,
	};
	int rc = nl_connect(sock, NETLINK_SOCK_DIAG);

	if (rc == 0)
		rc = nl_send_simple(sock, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &req, sizeof(req));
	if (rc < 0)
		return rc;
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, take_message, reading);
	return nl_recvmsgs_default(sock);
}

int unix_table_read(struct arena *a, struct unix_table *ret)
{
	struct reading reading = { a, ret };
	struct nl_sock *sock = nl_socket_alloc();

	*ret = (struct unix_table){ 0 };
	if (!sock)
		return fail(ENOMEM, "ask for unix sockets");
	int rc = ask(sock, &reading);
	nl_socket_free(sock);
	if (rc < 0)
		return refuse(
			EOPNOTSUPP,
			"ask the kernel for its unix sockets: %s (it takes CONFIG_UNIX_DIAG, the "
			"module unix_diag)",
			nl_geterror(rc));
	if (ret->n)
		qsort(ret->info, ret->n, sizeof(*ret->info), by_ino);
	return 0;
}

const struct unix_info *unix_table_find(const struct unix_table *t, uint32_t ino)
{
	const struct unix_info key = { .ino = ino };

	return t->n ? bsearch(&key, t->info, t->n, sizeof(key), by_ino) : NULL;
}
