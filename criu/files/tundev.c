/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interfaces of /dev/net/tun as rtnetlink(7) knows them. Addresses, routes and neighbours are kept
 * as the kernel tells of them, which is how it takes them back: nothing that it knows is lost
 * between.
 */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>

#include "base/log.h"
#include "base/own.h"
#include "files/tun.h"

#define MORE_ROOM 4096 /* for attributes */
#define HEAD_MAX  32   /* what requests begin with */

struct nl_sock *tundev_sock(void)
{
	auto_tun_sock struct nl_sock *sock = nl_socket_alloc();
	int rc = sock ? nl_connect(sock, NETLINK_ROUTE) : -NLE_NOMEM;

	if (rc == 0)
		return take_ptr(sock);
	(void)refuse(EIO, "ask the kernel for network interfaces: %s", nl_geterror(rc));
	return NULL;
}

void tundev_free_sock(struct nl_sock **sock)
{
	nl_socket_free(*sock);
}

struct nl_msg *tundev_request(int type, int flags, const void *body, size_t len)
{
	struct nl_msg *msg = nlmsg_alloc_size(NLMSG_SPACE(len) + MORE_ROOM);

	nlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, type, 0, flags);
	nlmsg_append(msg, (void *)body, len, NLMSG_ALIGNTO);
	return msg;
}

/* ---- questions ---- */

/* Of all interfaces. */
struct question {
	int type;
	size_t head; /* size of what such requests begin with: zeroes ask for everything */
	void (*take)(struct nlmsghdr *head, void *arg);
};

struct asking {
	const struct question *question;
	void *arg;
};

static int take_message(struct nl_msg *msg, void *arg)
{
	const struct asking *a = arg;

	a->question->take(nlmsg_hdr(msg), a->arg);
	return NL_OK;
}

static int ask(const struct question *q, void *arg)
{
	auto_tun_sock struct nl_sock *sock = tundev_sock();
	struct asking asking = { q, arg };
	uint8_t all[HEAD_MAX] = { 0 };

	if (!sock)
		return -EIO;
	int rc = nl_send_simple(sock, q->type, NLM_F_DUMP, all, q->head);
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, take_message, &asking);
	if (rc >= 0)
		rc = nl_recvmsgs_default(sock);
	return rc < 0 ? refuse(EIO, "ask the kernel what it has on interfaces: %s", nl_geterror(rc))
		      : 0;
}

struct link {
	struct arena *arena;
	const char *name;
	struct nlmsghdr *head; /* NULL: not found */
	struct nlattr *attr[IFLA_MAX + 1];
};

static void take_link(struct nlmsghdr *head, void *arg)
{
	struct nlattr *attr[IFLA_MAX + 1];
	struct link *l = arg;

	if (nlmsg_parse(head, sizeof(struct ifinfomsg), attr, IFLA_MAX, NULL) == 0 &&
	    attr[IFLA_IFNAME] && !strcmp(nla_get_string(attr[IFLA_IFNAME]), l->name))
		l->head = arena_memdup(l->arena, head, head->nlmsg_len);
}

/* 0, -ENODEV, or a reported error. */
static int find_link(struct arena *a, const char *name, struct link *ret)
{
	static const struct question links = { RTM_GETLINK, sizeof(struct ifinfomsg), take_link };

	*ret = (struct link){ .arena = a, .name = name };
	int rc = ask(&links, ret);

	if (rc < 0)
		return rc;
	return ret->head && nlmsg_parse(ret->head, sizeof(struct ifinfomsg), ret->attr, IFLA_MAX,
					NULL) == 0
		       ? 0
		       : -ENODEV;
}

static uint32_t get_u32(struct nlattr *attr, uint32_t fallback)
{
	return attr ? nla_get_u32(attr) : fallback;
}

static bool is_set(struct nlattr *attr)
{
	return attr && nla_get_u8(attr);
}

static int facts_of(const struct link *l, struct tun_facts *ret)
{
	struct nlattr *info[IFLA_INFO_MAX + 1], *tun[IFLA_TUN_MAX + 1];

	if (!l->attr[IFLA_LINKINFO] ||
	    nla_parse_nested(info, IFLA_INFO_MAX, l->attr[IFLA_LINKINFO], NULL) < 0 ||
	    !info[IFLA_INFO_KIND] || strcmp(nla_get_string(info[IFLA_INFO_KIND]), "tun") ||
	    !info[IFLA_INFO_DATA] ||
	    nla_parse_nested(tun, IFLA_TUN_MAX, info[IFLA_INFO_DATA], NULL) < 0 ||
	    !tun[IFLA_TUN_TYPE])
		return -ENODEV;
	*ret = (struct tun_facts){
		.flags = nla_get_u8(tun[IFLA_TUN_TYPE]) |
			 (is_set(tun[IFLA_TUN_PI]) ? 0 : IFF_NO_PI) |
			 (is_set(tun[IFLA_TUN_VNET_HDR]) ? IFF_VNET_HDR : 0) |
			 (is_set(tun[IFLA_TUN_MULTI_QUEUE]) ? IFF_MULTI_QUEUE : 0),
		.owner = get_u32(tun[IFLA_TUN_OWNER], -1),
		.group = get_u32(tun[IFLA_TUN_GROUP], -1),
		/* Told of only if there can be several. */
		.n_queues = get_u32(tun[IFLA_TUN_NUM_QUEUES], 1) +
			    get_u32(tun[IFLA_TUN_NUM_DISABLED_QUEUES], 0),
		.is_persistent = is_set(tun[IFLA_TUN_PERSIST]),
		.has_carrier = is_set(l->attr[IFLA_CARRIER]),
	};
	return 0;
}

int tundev_facts(const char *name, struct tun_facts *ret)
{
	struct arena a = { 0 };
	struct link l;
	int rc = find_link(&a, name, &l);

	if (rc == 0)
		rc = facts_of(&l, ret);
	arena_done(&a);
	return rc;
}

/* ---- dump ---- */

struct reading {
	struct dump *dump;
	const char *name;
	TunDeviceEntry *e;
	size_t n_ipv4; /* addresses */
};

static void push(const struct reading *r, uint16_t type, const void *body, size_t len)
{
	TunRequestEntry *m = MESSAGE(&r->dump->arena, TunRequestEntry, tun_request_entry);

	m->type = type;
	m->body.data = arena_memdup(&r->dump->arena, body, len);
	m->body.len = len;
	*ARENA_PUSH(&r->dump->arena, r->e->requests, r->e->n_requests) = m;
}

static bool take_address(struct nlmsghdr *head, const struct reading *r, int family)
{
	const struct ifaddrmsg *m = nlmsg_data(head);
	bool is_wanted = m->ifa_family == family && m->ifa_index == r->e->ifindex;

	if (is_wanted)
		push(r, RTM_NEWADDR, m, nlmsg_datalen(head));
	return is_wanted;
}

static void take_ipv4_address(struct nlmsghdr *head, void *arg)
{
	struct reading *r = arg;

	r->n_ipv4 += take_address(head, r, AF_INET);
}

/* The kernel tells of the newest first. */
static void take_ipv6_address(struct nlmsghdr *head, void *arg)
{
	struct reading *r = arg;

	if (!take_address(head, r, AF_INET6))
		return;
	TunRequestEntry **first = r->e->requests + r->n_ipv4;
	size_t n = r->e->n_requests - r->n_ipv4;
	TunRequestEntry *older = first[n - 1];
	memmove(first + 1, first, (n - 1) * sizeof(*first));
	*first = older;
}

/* Others come back by themselves, or are learned again. */
static void take_neighbour(struct nlmsghdr *head, void *arg)
{
	const struct ndmsg *m = nlmsg_data(head);
	struct reading *r = arg;

	if (tundev_is_internet(m->ndm_family) && (uint32_t)m->ndm_ifindex == r->e->ifindex &&
	    m->ndm_state & NUD_PERMANENT)
		push(r, RTM_NEWNEIGH, m, nlmsg_datalen(head));
}

static bool has_hop_through(struct nlattr *multipath, uint32_t index)
{
	const struct rtnexthop *hop = nla_data(multipath);
	int left = nla_len(multipath);

	for (; RTNH_OK(hop, left); left -= RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop))
		if ((uint32_t)hop->rtnh_ifindex == index)
			return true;
	return false;
}

/* IPv6 tells how long a route lasts in ticks, and wants seconds. */
static void put_expiry(struct nl_msg *msg, int family, struct nlattr *cacheinfo)
{
	const struct rta_cacheinfo *c = cacheinfo ? nla_data(cacheinfo) : NULL;

	if (c && family == AF_INET6 && c->rta_expires > 0)
		nla_put_u32(msg, RTA_EXPIRES, c->rta_expires / sysconf(_SC_CLK_TCK));
}

/*
 * Without the interface, which can have another number at restore; and without the nexthop object
 * that it may come from: the kernel deletes that with the interface.
 */
static void push_route(const struct reading *r, struct nlmsghdr *head, struct nlattr **attr)
{
	struct rtmsg m = *(struct rtmsg *)nlmsg_data(head);

	m.rtm_flags &= RTNH_F_ONLINK;
	struct nl_msg *msg = tundev_request(RTM_NEWROUTE, 0, &m, sizeof(m));
	for (int i = 1; i <= RTA_MAX; i++)
		if (attr[i] && i != RTA_OIF && i != RTA_NH_ID && i != RTA_CACHEINFO)
			nla_put(msg, i, nla_len(attr[i]), nla_data(attr[i]));
	put_expiry(msg, m.rtm_family, attr[RTA_CACHEINFO]);
	push(r, RTM_NEWROUTE, nlmsg_data(nlmsg_hdr(msg)), nlmsg_datalen(nlmsg_hdr(msg)));
	nlmsg_free(msg);
}

/* Those of the kernel's own come with addresses. */
static bool parse_route(const struct reading *r, struct nlmsghdr *head, struct nlattr **attr)
{
	const struct rtmsg *m = nlmsg_data(head);

	return tundev_is_internet(m->rtm_family) && m->rtm_protocol != RTPROT_KERNEL &&
	       !(m->rtm_flags & RTM_F_CLONED) &&
	       nlmsg_parse(head, sizeof(*m), attr, RTA_MAX, NULL) == 0 &&
	       (attr[RTA_MULTIPATH] ? has_hop_through(attr[RTA_MULTIPATH], r->e->ifindex)
				    : get_u32(attr[RTA_OIF], 0) == r->e->ifindex);
}

static bool has_gateway(struct nlattr **attr)
{
	return attr[RTA_GATEWAY] || attr[RTA_VIA];
}

static void take_direct_route(struct nlmsghdr *head, void *arg)
{
	struct nlattr *attr[RTA_MAX + 1];
	struct reading *r = arg;

	if (!parse_route(r, head, attr) || has_gateway(attr))
		return;
	if (!attr[RTA_MULTIPATH])
		push_route(r, head, attr);
	else
		dump_block(r->dump,
			   "interface %s: it is one of several ways of a route (table %u), which "
			   "cannot "
			   "be dumped: delete the route (ip route show table all)",
			   r->name, get_u32(attr[RTA_TABLE], 0));
}

static void take_gateway_route(struct nlmsghdr *head, void *arg)
{
	struct nlattr *attr[RTA_MAX + 1];
	struct reading *r = arg;

	if (parse_route(r, head, attr) && has_gateway(attr))
		push_route(r, head, attr);
}

/* A VLAN, for example. */
static void take_upper_link(struct nlmsghdr *head, void *arg)
{
	struct nlattr *attr[IFLA_MAX + 1];
	struct reading *r = arg;

	if (nlmsg_parse(head, sizeof(struct ifinfomsg), attr, IFLA_MAX, NULL) < 0 ||
	    attr[IFLA_LINK_NETNSID] || get_u32(attr[IFLA_LINK], 0) != r->e->ifindex)
		return;
	const char *upper = nla_get_string(attr[IFLA_IFNAME]);
	dump_block(
		r->dump,
		"interface %s: the interface %s is made of it, and cannot be dumped: delete that "
		"(ip link del %s), or make %s persistent",
		r->name, upper, upper, r->name);
}

/* What interfaces get without being asked. */
static bool is_usual_discipline(const char *name)
{
	static const char *const usual[] = { "noop", "noqueue", "mq", "pfifo_fast", "fq_codel" };

	for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
		if (!strcmp(usual[i], name))
			return true;
	return false;
}

static void take_discipline(struct nlmsghdr *head, void *arg)
{
	const struct tcmsg *m = nlmsg_data(head);
	struct nlattr *attr[TCA_MAX + 1];
	struct reading *r = arg;

	if ((uint32_t)m->tcm_ifindex == r->e->ifindex &&
	    nlmsg_parse(head, sizeof(*m), attr, TCA_MAX, NULL) == 0 && attr[TCA_KIND] &&
	    !is_usual_discipline(nla_get_string(attr[TCA_KIND])))
		warn("interface %s: its queueing discipline %s is not restored; set it again (tc)",
		     r->name, nla_get_string(attr[TCA_KIND]));
}

/* In the order in which all can be made: a gateway has to be reachable. */
static const struct question questions[] = {
	{ RTM_GETLINK, sizeof(struct ifinfomsg), take_upper_link },
	{ RTM_GETQDISC, sizeof(struct tcmsg), take_discipline },
	{ RTM_GETADDR, sizeof(struct ifaddrmsg), take_ipv4_address },
	{ RTM_GETADDR, sizeof(struct ifaddrmsg), take_ipv6_address },
	{ RTM_GETROUTE, sizeof(struct rtmsg), take_direct_route },
	{ RTM_GETROUTE, sizeof(struct rtmsg), take_gateway_route },
	{ RTM_GETNEIGH, sizeof(struct ndmsg), take_neighbour },
};

static void read_address_mode(struct nlattr *families, TunDeviceEntry *e)
{
	struct nlattr *family[AF_MAX + 1], *inet6[IFLA_INET6_MAX + 1];

	if (!families || nla_parse_nested(family, AF_MAX, families, NULL) < 0 ||
	    !family[AF_INET6] ||
	    nla_parse_nested(inet6, IFLA_INET6_MAX, family[AF_INET6], NULL) < 0 ||
	    !inet6[IFLA_INET6_ADDR_GEN_MODE])
		return;
	e->has_addr_gen_mode = true;
	e->addr_gen_mode = nla_get_u8(inet6[IFLA_INET6_ADDR_GEN_MODE]);
}

static void read_link(struct arena *a, const struct link *l, TunDeviceEntry *e)
{
	const struct ifinfomsg *m = nlmsg_data(l->head);
	struct nlattr *const *attr = l->attr;

	e->ifindex = m->ifi_index;
	e->flags = m->ifi_flags & TUN_SET_FLAGS;
	e->type = m->ifi_type;
	e->mtu = get_u32(attr[IFLA_MTU], 0);
	e->tx_queue_len = get_u32(attr[IFLA_TXQLEN], 0);
	e->has_address = attr[IFLA_ADDRESS] && nla_len(attr[IFLA_ADDRESS]);
	if (e->has_address) {
		e->address.len = nla_len(attr[IFLA_ADDRESS]);
		e->address.data = arena_memdup(a, nla_data(attr[IFLA_ADDRESS]), e->address.len);
	}
	if (attr[IFLA_IFALIAS])
		e->alias = arena_strdup(a, nla_get_string(attr[IFLA_IFALIAS]));
	e->group = get_u32(attr[IFLA_GROUP], 0);
	e->has_group = e->group;
	read_address_mode(attr[IFLA_AF_SPEC], e);
}

static void check_link(struct dump *d, const struct link *l)
{
	struct nlattr *xdp[IFLA_XDP_MAX + 1], *const *attr = l->attr;

	if (attr[IFLA_MASTER])
		dump_block(d,
			   "interface %s: it is part of another one (of a bridge, a bond), which "
			   "cannot "
			   "be dumped: take it out of that (ip link set %s nomaster), or make it "
			   "persistent",
			   l->name, l->name);
	if (attr[IFLA_XDP] && nla_parse_nested(xdp, IFLA_XDP_MAX, attr[IFLA_XDP], NULL) == 0 &&
	    is_set(xdp[IFLA_XDP_ATTACHED]))
		dump_block(d,
			   "interface %s: it has an XDP program, which cannot be dumped: take that "
			   "off "
			   "(ip link set %s xdp off), or make the interface persistent",
			   l->name, l->name);
	if (attr[IFLA_PROP_LIST])
		warn("interface %s: its other names are not restored; add them again (ip link "
		     "property)",
		     l->name);
}

int tundev_read(struct dump *d, const char *name, TunDeviceEntry **ret)
{
	TunDeviceEntry *e = MESSAGE(&d->arena, TunDeviceEntry, tun_device_entry);
	struct reading reading = { .dump = d, .name = name, .e = e };
	struct link l;
	int rc = find_link(&d->arena, name, &l);

	if (rc < 0)
		return rc == -ENODEV ? fail(ENODEV, "interface %s: ask about it", name) : rc;
	read_link(&d->arena, &l, e);
	check_link(d, &l);
	tunconf_read(&d->arena, name, e);
	for (size_t i = 0; i < ARRAY_SIZE(questions) && rc == 0; i++)
		rc = ask(&questions[i], &reading);
	*ret = e;
	return rc;
}
