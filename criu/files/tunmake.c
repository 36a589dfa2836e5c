/* SPDX-License-Identifier: GPL-2.0-only */
/* A new interface of /dev/net/tun becomes what the image tells of, by requests to rtnetlink(7). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stddef.h>
#include <string.h>

#include "base/log.h"
#include "base/own.h"
#include "files/tun.h"

#define HWADDR_MAX 32
#define ALIAS_MAX  256
#define BODY_MAX   65536
#define ATTR_MAX   64 /* above the types of all attributes that are looked for */

/*
 * The requests of an entry. Each is about the interface that was made, whatever the image says:
 * other interfaces and namespaces may not be named.
 */
static const struct kind {
	uint32_t type;
	const char *what;
	size_t head, index_at; /* where the head has the interface; 0: nowhere */
	int flags;
	int forbidden[5]; /* attributes; ended by 0 */
} kinds[] = {
	{ RTM_NEWADDR,
	  "address",
	  sizeof(struct ifaddrmsg),
	  offsetof(struct ifaddrmsg, ifa_index),
	  NLM_F_CREATE | NLM_F_EXCL,
	  { IFA_TARGET_NETNSID } },
	{ RTM_NEWROUTE,
	  "route",
	  sizeof(struct rtmsg),
	  0,
	  NLM_F_CREATE | NLM_F_APPEND,
	  { RTA_OIF, RTA_IIF, RTA_MULTIPATH, RTA_NH_ID } },
	{ RTM_NEWNEIGH,
	  "neighbour",
	  sizeof(struct ndmsg),
	  offsetof(struct ndmsg, ndm_ifindex),
	  NLM_F_CREATE | NLM_F_REPLACE,
	  { NDA_IFINDEX, NDA_MASTER, NDA_NH_ID } },
};

static const struct kind *kind_of(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].type == type)
			return &kinds[i];
	return NULL;
}

static bool parse_body(const struct kind *k, const ProtobufCBinaryData *body, struct nlattr **attr)
{
	size_t head = NLMSG_ALIGN(k->head);

	return body->len >= head && body->len <= BODY_MAX && tundev_is_internet(body->data[0]) &&
	       nla_parse(attr, ATTR_MAX, (struct nlattr *)(body->data + head), body->len - head,
			 NULL) == 0;
}

static bool is_sound(const TunRequestEntry *m)
{
	struct nlattr *attr[ATTR_MAX + 1];
	const struct kind *k = kind_of(m->type);

	if (!k || !parse_body(k, &m->body, attr))
		return false;
	for (const int *f = k->forbidden; *f; f++)
		if (attr[*f])
			return false;
	return true;
}

int tunmake_check(const char *name, const TunDeviceEntry *e)
{
	struct tun_setting setting;

	for (size_t i = 0; i < e->n_settings; i++)
		if (!tunconf_parse(e->settings[i], &setting))
			return refuse(EINVAL, "image files.img: interface %s: it has no setting %s",
				      name, e->settings[i]);
	for (size_t i = 0; i < e->n_requests; i++)
		if (!is_sound(e->requests[i]))
			return refuse(EINVAL,
				      "image files.img: interface %s: its address, route or "
				      "neighbour %zu makes no sense",
				      name, i);
	if (e->address.len > HWADDR_MAX || (e->alias && strlen(e->alias) >= ALIAS_MAX) ||
	    e->flags & ~TUN_SET_FLAGS || e->ifindex > INT32_MAX || !e->ifindex)
		return refuse(EINVAL, "image files.img: interface %s: its settings make no sense",
			      name);
	return 0;
}

/* An address, or where a route leads, for people: the first attribute of each kind. */
static void describe(const struct kind *k, const TunRequestEntry *m, char *text, size_t size)
{
	struct nlattr *attr[ATTR_MAX + 1];
	int family = m->body.data[0], len = family == AF_INET ? 4 : 16;
	char address[INET6_ADDRSTRLEN];

	if (!parse_body(k, &m->body, attr) || !attr[1] || nla_len(attr[1]) != len ||
	    !inet_ntop(family, nla_data(attr[1]), address, sizeof(address)))
		snprintf(text, size, "default");
	else if (k->type == RTM_NEWNEIGH)
		snprintf(text, size, "%s", address);
	else
		snprintf(text, size, "%s/%u", address, m->body.data[1]);
}

static struct nl_msg *make_request(const struct kind *k, const TunRequestEntry *m, uint32_t index,
				   int flags)
{
	struct nl_msg *msg = tundev_request(k->type, flags, m->body.data, m->body.len);

	if (k->index_at)
		memcpy((char *)nlmsg_data(nlmsg_hdr(msg)) + k->index_at, &index, sizeof(index));
	else
		nla_put_u32(msg, RTA_OIF, index);
	return msg;
}

/* The flags of an IPv6 address, or NULL. */
static uint32_t *flags_in(struct nl_msg *msg)
{
	const struct ifaddrmsg *m = nlmsg_data(nlmsg_hdr(msg));
	struct nlattr *attr[ATTR_MAX + 1];

	return nlmsg_hdr(msg)->nlmsg_type == RTM_NEWADDR && m->ifa_family == AF_INET6 &&
			       nlmsg_parse(nlmsg_hdr(msg), sizeof(*m), attr, ATTR_MAX, NULL) == 0 &&
			       attr[IFA_FLAGS] && nla_len(attr[IFA_FLAGS]) == sizeof(uint32_t)
		       ? nla_data(attr[IFA_FLAGS])
		       : NULL;
}

/*
 * An IPv6 address that was in use needs no second proof that nobody else has it; until then it
 * could be nobody's source. The mark that says so is taken off by a second request.
 */
static int send_request(struct nl_sock *sock, const struct kind *k, const TunRequestEntry *m,
			uint32_t index)
{
	const uint32_t not_proved = IFA_F_NODAD | IFA_F_TENTATIVE | IFA_F_DADFAILED;
	struct nl_msg *msg = make_request(k, m, index, k->flags);
	uint32_t *flags = flags_in(msg);

	if (!flags || *flags & not_proved)
		return nl_send_sync(sock, msg);
	*flags |= IFA_F_NODAD;
	int rc = nl_send_sync(sock, msg);
	return rc < 0 ? rc
		      : nl_send_sync(sock, make_request(k, m, index, NLM_F_CREATE | NLM_F_REPLACE));
}

static int add(struct nl_sock *sock, const char *name, uint32_t index, const TunRequestEntry *m)
{
	const struct kind *k = kind_of(m->type);
	char text[INET6_ADDRSTRLEN + sizeof("/255")];
	int rc = send_request(sock, k, m, index);

	describe(k, m, text, sizeof(text));
	return rc < 0 ? refuse(EIO, "interface %s: add the %s %s again: %s", name, k->what, text,
			       nl_geterror(rc))
		      : 0;
}

static struct nl_msg *change_link(uint32_t index, unsigned flags, unsigned change)
{
	const struct ifinfomsg m = { .ifi_index = index, .ifi_flags = flags, .ifi_change = change };

	return tundev_request(RTM_NEWLINK, 0, &m, sizeof(m));
}

static int set_link(struct nl_sock *sock, const char *name, uint32_t index, const TunDeviceEntry *e)
{
	struct nl_msg *msg = change_link(index, 0, 0);

	nla_put_u32(msg, IFLA_MTU, e->mtu);
	nla_put_u32(msg, IFLA_TXQLEN, e->tx_queue_len);
	if (e->has_address)
		nla_put(msg, IFLA_ADDRESS, e->address.len, e->address.data);
	if (e->alias)
		nla_put_string(msg, IFLA_IFALIAS, e->alias);
	if (e->has_group)
		nla_put_u32(msg, IFLA_GROUP, e->group);
	int rc = nl_send_sync(sock, msg);
	return rc < 0 ? refuse(EIO, "interface %s: set MTU %u, queue length, hardware address: %s",
			       name, e->mtu, nl_geterror(rc))
		      : 0;
}

static int set_flags(struct nl_sock *sock, const char *name, uint32_t index,
		     const TunDeviceEntry *e)
{
	int rc = nl_send_sync(sock, change_link(index, e->flags, TUN_SET_FLAGS));

	return rc < 0 ? refuse(EIO, "interface %s: set its flags %#x: %s", name, e->flags,
			       nl_geterror(rc))
		      : 0;
}

static int set_address_mode(struct nl_sock *sock, const char *name, uint32_t index, uint8_t mode)
{
	struct nl_msg *msg = change_link(index, 0, 0);
	struct nlattr *families = nla_nest_start(msg, IFLA_AF_SPEC);
	struct nlattr *inet6 = nla_nest_start(msg, AF_INET6);

	nla_put_u8(msg, IFLA_INET6_ADDR_GEN_MODE, mode);
	nla_nest_end(msg, inet6);
	nla_nest_end(msg, families);
	int rc = nl_send_sync(sock, msg);
	return rc < 0 ? refuse(EIO, "interface %s: set how it gets IPv6 addresses: %s", name,
			       nl_geterror(rc))
		      : 0;
}

/* While it is set up, the kernel may not make IPv6 addresses of its own: it had some already. */
int tunmake_set(const char *name, const TunDeviceEntry *e)
{
	auto_tun_sock struct nl_sock *sock = tundev_sock();
	uint32_t index = if_nametoindex(name);

	if (!sock)
		return -EIO;
	int rc = set_link(sock, name, index, e);
	if (rc == 0)
		rc = tunconf_set(name, e);
	if (rc == 0 && e->has_addr_gen_mode)
		rc = set_address_mode(sock, name, index, IN6_ADDR_GEN_MODE_NONE);
	if (rc == 0)
		rc = set_flags(sock, name, index, e);
	for (size_t i = 0; i < e->n_requests && rc == 0; i++)
		rc = add(sock, name, index, e->requests[i]);
	if (rc == 0 && e->has_addr_gen_mode)
		rc = set_address_mode(sock, name, index, e->addr_gen_mode);
	return rc;
}
