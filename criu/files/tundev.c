/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interfaces of /dev/net/tun as rtnetlink(7) knows them. Addresses, routes and neighbours are kept
 * as the kernel tells of them, which is how it takes them back: nothing that it knows is lost
 * between.
 */
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

/* What an administrator sets; the rest of the flags tells how things are. */
#define SET_FLAGS                                                                                  \
	(IFF_UP | IFF_DEBUG | IFF_NOTRAILERS | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI |            \
	 IFF_MULTICAST | IFF_PORTSEL | IFF_AUTOMEDIA | IFF_DYNAMIC)

#define HWADDR_MAX  32
#define ALIAS_MAX   256
#define REQUEST_MAX 2048
#define ATTR_MAX    64 /* above the types of all attributes that are looked for */

static void free_sock(struct nl_sock **sock)
{
	nl_socket_free(*sock);
}

#define autosock __attribute__((cleanup(free_sock)))

/* NULL: reported. */
static struct nl_sock *open_sock(void)
{
	autosock struct nl_sock *sock = nl_socket_alloc();
	int rc = sock ? nl_connect(sock, NETLINK_ROUTE) : -NLE_NOMEM;

	if (rc == 0)
		return take_ptr(sock);
	(void)refuse(EIO, "ask the kernel for network interfaces: %s", nl_geterror(rc));
	return NULL;
}

/* ---- questions ---- */

struct question {
	void (*take)(struct nlmsghdr *head, void *arg);
	void *arg;
};

static int take_message(struct nl_msg *msg, void *arg)
{
	const struct question *q = arg;

	q->take(nlmsg_hdr(msg), q->arg);
	return NL_OK;
}

/* Of all interfaces and families. */
static int ask(int type, void (*take)(struct nlmsghdr *head, void *arg), void *arg)
{
	autosock struct nl_sock *sock = open_sock();
	struct question q = { take, arg };
	struct rtgenmsg all = { .rtgen_family = AF_UNSPEC };

	if (!sock)
		return -EIO;
	int rc = nl_send_simple(sock, type, NLM_F_DUMP, &all, sizeof(all));
	nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, take_message, &q);
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
	*ret = (struct link){ .arena = a, .name = name };
	int rc = ask(RTM_GETLINK, take_link, ret);

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

static bool is_internet(int family)
{
	return family == AF_INET || family == AF_INET6;
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

	if (is_internet(m->ndm_family) && (uint32_t)m->ndm_ifindex == r->e->ifindex &&
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
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_NEWROUTE, 0);
	struct rtmsg m = *(struct rtmsg *)nlmsg_data(head);

	m.rtm_flags &= RTNH_F_ONLINK;
	nlmsg_append(msg, &m, sizeof(m), NLMSG_ALIGNTO);
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

	return is_internet(m->rtm_family) && m->rtm_protocol != RTPROT_KERNEL &&
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

/* In the order in which they can be made: a gateway has to be reachable. */
static const struct {
	int type;
	void (*take)(struct nlmsghdr *head, void *arg);
} questions[] = {
	{ RTM_GETADDR, take_ipv4_address },  { RTM_GETADDR, take_ipv6_address },
	{ RTM_GETROUTE, take_direct_route }, { RTM_GETROUTE, take_gateway_route },
	{ RTM_GETNEIGH, take_neighbour },
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
	e->flags = m->ifi_flags & SET_FLAGS;
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

/* What interfaces get without being asked, by the number of their queues and whether they are up.
 */
static bool is_usual_discipline(const char *name)
{
	static const char *const usual[] = { "noop", "noqueue", "mq", "pfifo_fast", "fq_codel" };

	for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
		if (!strcmp(usual[i], name))
			return true;
	return false;
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
	if (attr[IFLA_QDISC] && !is_usual_discipline(nla_get_string(attr[IFLA_QDISC])))
		warn("interface %s: its queueing discipline %s is not restored; set it again (tc)",
		     l->name, nla_get_string(attr[IFLA_QDISC]));
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
		rc = ask(questions[i].type, questions[i].take, &reading);
	*ret = e;
	return rc;
}

/* ---- restore ---- */

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

	return body->len >= head && body->len <= REQUEST_MAX && is_internet(body->data[0]) &&
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

int tundev_check(const char *name, const TunDeviceEntry *e)
{
	for (size_t i = 0; i < e->n_requests; i++)
		if (!is_sound(e->requests[i]))
			return refuse(EINVAL,
				      "image files.img: interface %s: its address, route or "
				      "neighbour %zu makes no sense",
				      name, i);
	if (e->address.len > HWADDR_MAX || (e->alias && strlen(e->alias) >= ALIAS_MAX) ||
	    e->flags & ~SET_FLAGS || e->ifindex > INT32_MAX || !e->ifindex)
		return refuse(EINVAL, "image files.img: interface %s: its settings make no sense",
			      name);
	return 0;
}

/* An address, or where a route leads, for people. The attribute is the first of each kind. */
static void describe(const struct kind *k, const TunRequestEntry *m, char *text, size_t size)
{
	struct nlattr *attr[ATTR_MAX + 1];
	int family = m->body.data[0], len = family == AF_INET ? 4 : 16;

	if (!parse_body(k, &m->body, attr) || !attr[1] || nla_len(attr[1]) != len ||
	    !inet_ntop(family, nla_data(attr[1]), text, size))
		snprintf(text, size, "default");
}

static struct nl_msg *make_request(const struct kind *k, const TunRequestEntry *m, uint32_t index,
				   int flags)
{
	struct nl_msg *msg = nlmsg_alloc_simple(k->type, flags);

	nlmsg_append(msg, m->body.data, m->body.len, NLMSG_ALIGNTO);
	if (k->index_at)
		memcpy((char *)nlmsg_data(nlmsg_hdr(msg)) + k->index_at, &index, sizeof(index));
	else
		nla_put_u32(msg, RTA_OIF, index);
	return msg;
}

static uint32_t *flags_of_address(struct nl_msg *msg)
{
	struct nlattr *attr = nlmsg_find_attr(nlmsg_hdr(msg), sizeof(struct ifaddrmsg), IFA_FLAGS);

	return attr && nla_len(attr) == sizeof(uint32_t) ? nla_data(attr) : NULL;
}

/*
 * An IPv6 address that was in use needs no second proof that nobody else has it; until then it
 * could be nobody's source. The mark that says so is taken off by a second request.
 */
static int add_without_proof(struct nl_sock *sock, const struct kind *k, const TunRequestEntry *m,
			     uint32_t index)
{
	struct nl_msg *msg = make_request(k, m, index, k->flags);

	*flags_of_address(msg) |= IFA_F_NODAD;
	int rc = nl_send_sync(sock, msg);
	return rc < 0 ? rc
		      : nl_send_sync(sock, make_request(k, m, index, NLM_F_CREATE | NLM_F_REPLACE));
}

static bool is_in_use(const struct kind *k, const TunRequestEntry *m)
{
	const uint32_t not_proved = IFA_F_NODAD | IFA_F_TENTATIVE | IFA_F_DADFAILED;
	struct nlattr *attr[ATTR_MAX + 1];

	return k->type == RTM_NEWADDR && m->body.data[0] == AF_INET6 &&
	       parse_body(k, &m->body, attr) && attr[IFA_FLAGS] &&
	       nla_len(attr[IFA_FLAGS]) == sizeof(uint32_t) &&
	       !(nla_get_u32(attr[IFA_FLAGS]) & not_proved);
}

static int add(struct nl_sock *sock, const char *name, uint32_t index, const TunRequestEntry *m)
{
	const struct kind *k = kind_of(m->type);
	char text[INET6_ADDRSTRLEN];
	int rc = is_in_use(k, m) ? add_without_proof(sock, k, m, index)
				 : nl_send_sync(sock, make_request(k, m, index, k->flags));

	describe(k, m, text, sizeof(text));
	return rc < 0 ? refuse(EIO, "interface %s: add the %s %s/%u again: %s", name, k->what, text,
			       m->body.data[1], nl_geterror(rc))
		      : 0;
}

static struct nl_msg *change_link(uint32_t index, unsigned flags, unsigned change)
{
	const struct ifinfomsg m = { .ifi_index = index, .ifi_flags = flags, .ifi_change = change };
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_NEWLINK, 0);

	nlmsg_append(msg, (void *)&m, sizeof(m), NLMSG_ALIGNTO);
	return msg;
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
	int rc = nl_send_sync(sock, change_link(index, e->flags, SET_FLAGS));

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
int tundev_set(const char *name, const TunDeviceEntry *e)
{
	autosock struct nl_sock *sock = open_sock();
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
