/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors of /dev/net/tun. Each check sends packets both ways and compares what ip(8) tells of
 * the interface: address, routes and all that. The network namespace is one for this test alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "mk.h"

#define MAX_QUEUES	4
#define STATE_ROOM	16384
#define PACKET_ROOM	2048
#define PORT		4321
#define TAP_ADDRESS	"02:00:00:00:00:77"
#define PEER_ADDRESS	"02:00:00:00:00:99"

/* Of the interface that the row asks for; its addresses are 10.9.0.1 here, 10.9.0.2 at the other end. */
static const struct kind {
	const char *name;
	short flags;
	int header;		/* bytes before each packet, besides those of ethernet */
	int nr_queues;
	void (*more)(int fd);	/* ioctls before there are addresses */
	const char *addresses, *routes;	/* commands of ip(8) */
	bool is_up, is_persistent;
} *kind;

static struct {
	int fds[MAX_QUEUES];
	int in_flight[2];	/* a queue that only a socket has */
	int plain;		/* attached to nothing */
	pid_t child;
	char state[STATE_ROOM];
	long settings[8];
} made;

/* ---- state ---- */

static void read_state(char *text)
{
	FILE *f = popen("PATH=$PATH:/sbin:/usr/sbin; i=mk; { ip -d -o link show dev $i; ip -o addr show dev $i; "
			"ip -4 route show table all dev $i; ip -6 route show table all dev $i; "
			"ip neigh show dev $i nud permanent; "
			"cd /proc/sys/net; grep -H . ipv4/conf/$i/rp_filter ipv6/conf/$i/hop_limit ipv6/neigh/$i/retrans_time_ms; } 2>&1 | "
			/* said only of addresses that the kernel made itself; and of carriers that were lost once */
			"sed 's/ stable-privacy//; s/ state [A-Z]* / /'", "r");
	size_t len = f ? fread(text, 1, STATE_ROOM - 1, f) : 0;

	text[len] = '\0';
	if (!f || pclose(f))
		bad("ip(8) fails");
}

static long ask_ethtool(unsigned command)
{
	struct ethtool_value v = { .cmd = command };
	struct ifreq ifr = { .ifr_name = "mk", .ifr_data = (char *)&v };
	int sock = socket(AF_INET, SOCK_DGRAM, 0);

	if (ioctl(sock, SIOCETHTOOL, &ifr) < 0)
		bad_errno("ethtool");
	close(sock);
	return v.data;
}

static long ask_int(int fd, unsigned long question)
{
	int value = 0;

	return ioctl(fd, question, &value) < 0 ? -errno : value;
}

static void read_settings(long *s)
{
	struct ifreq ifr = { 0 };
	int fd = made.fds[0];

	ioctl(fd, TUNGETIFF, &ifr);
	s[0] = (unsigned short)ifr.ifr_flags;
	s[1] = ask_int(fd, TUNGETVNETHDRSZ);
	s[2] = ask_int(fd, TUNGETSNDBUF);
	s[3] = ask_int(fd, TUNGETVNETLE);
	s[4] = ask_ethtool(ETHTOOL_GTXCSUM);
	s[5] = ask_ethtool(ETHTOOL_GTSO);
	s[6] = if_nametoindex("mk");
	s[7] = fcntl(fd, F_GETFL);
}

/* ---- packets ---- */

static uint16_t checksum(const uint16_t *p, size_t words)
{
	uint32_t sum = 0;

	while (words--)
		sum += *p++;
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

static size_t ethernet(void)
{
	return kind->flags & IFF_TAP ? 14 : 0;
}

/* From the other end, to our port. Returns its length. */
static size_t make_packet(unsigned char *p, uint32_t number)
{
	static const unsigned char macs[] = { 2, 0, 0, 0, 0, 0x77, 2, 0, 0, 0, 0, 0x99, 8, 0 };
	size_t len = kind->header + ethernet();
	uint16_t ip[10] = { htons(0x4500), htons(32), 0, 0, htons(0x4011), 0, htons(0x0a09), htons(2),
			    htons(0x0a09), htons(1) };
	uint16_t udp[4] = { htons(PORT), htons(PORT), htons(12), 0 };

	memset(p, 0, len);
	if (!(kind->flags & IFF_NO_PI))
		memcpy(p + kind->header - 2, "\10", 2);
	memcpy(p + kind->header, macs, ethernet());
	ip[5] = checksum(ip, 10);
	memcpy(p + len, ip, sizeof(ip));
	memcpy(p + len + sizeof(ip), udp, sizeof(udp));
	memcpy(p + len + sizeof(ip) + sizeof(udp), &number, sizeof(number));
	return len + sizeof(ip) + sizeof(udp) + sizeof(number);
}

static int open_port(void)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(PORT),
				    .sin_addr.s_addr = htonl(0x0a090001) };
	struct timeval patience = { .tv_sec = 10 };
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (bind(sock, (struct sockaddr *)&here, sizeof(here)) < 0)
		bad_errno("an address of the interface");
	return sock;
}

static void check_way_in(int fd, int sock, uint32_t number)
{
	unsigned char packet[PACKET_ROOM];
	size_t len = make_packet(packet, number);
	uint32_t got = 0;

	if (write(fd, packet, len) != (ssize_t)len)
		bad_errno("a packet into the interface");
	else if (recv(sock, &got, sizeof(got), 0) < 0)
		bad_errno("no packet comes out of the interface");
	else
		same_long("the packet", number, got);
}

struct wanted {
	const int *fds;
	int nr;
	uint32_t number;
};

/* The kernel sends packets of its own, too. */
static bool has_come(void *arg)
{
	const struct wanted *w = arg;
	unsigned char packet[PACKET_ROOM];
	size_t at = kind->header + ethernet() + 28;
	int i;

	for (i = 0; i < w->nr; i++)
		while (ready_events(w->fds[i]) & POLLIN) {
			ssize_t n = read(w->fds[i], packet, sizeof(packet));

			if (n >= (ssize_t)(at + 4) && !memcmp(packet + at, &w->number, 4))
				return true;
		}
	return false;
}

static void check_way_out(const int *fds, int nr, int sock, uint32_t number)
{
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(PORT),
				     .sin_addr.s_addr = htonl(0x0a090002) };
	struct wanted w = { fds, nr, number };

	if (sendto(sock, &number, sizeof(number), 0, (struct sockaddr *)&there, sizeof(there)) < 0)
		bad_errno("send through the interface");
	else if (!wait_until(has_come, &w))
		bad("no packet comes to the descriptor");
}

/* ---- making ---- */

static int open_device(int flags)
{
	int fd = open("/dev/net/tun", O_RDWR | flags);

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == EPERM || errno == EACCES))
		skip("/dev/net/tun: %s", strerror(errno));
	return need("/dev/net/tun", fd);
}

static int attach(void)
{
	struct ifreq ifr = { .ifr_name = "mk", .ifr_flags = kind->flags };
	int fd = open_device(O_NONBLOCK);

	need("attach", ioctl(fd, TUNSETIFF, &ifr));
	return fd;
}

static void detach(int fd)
{
	struct ifreq ifr = { .ifr_flags = IFF_DETACH_QUEUE };

	need("detach a queue", ioctl(fd, TUNSETQUEUE, &ifr));
}

static void set_many(int fd)
{
	const int header = 12, buffer = 123456, little = 1;

	need("TUNSETOFFLOAD", ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4));
	need("TUNSETVNETHDRSZ", ioctl(fd, TUNSETVNETHDRSZ, &header));
	need("TUNSETSNDBUF", ioctl(fd, TUNSETSNDBUF, &buffer));
	need("TUNSETVNETLE", ioctl(fd, TUNSETVNETLE, &little));
	need("TUNSETOWNER", ioctl(fd, TUNSETOWNER, 1234));
	need("TUNSETGROUP", ioctl(fd, TUNSETGROUP, 2345));
}

static void set_carrier_off(int fd)
{
	const int no = 0;

	need("TUNSETLINK", ioctl(fd, TUNSETLINK, 512)); /* ARPHRD_PPP */
	need("TUNSETCARRIER", ioctl(fd, TUNSETCARRIER, &no));
}

#define TUN_ADDRESSES						\
	"addr add 10.9.0.1 peer 10.9.0.2 dev mk\n"		\
	"addr add 10.9.3.1/24 dev mk\n"				\
	"addr add 10.9.3.2/24 dev mk\n"				\
	"addr add fd09::1/64 dev mk\n"				\
	"addr add fd09:1::1 peer fd09:1::2 dev mk\n"		\
	"addr add fd09:2::1/64 dev mk noprefixroute\n"
#define TUN_ROUTES						\
	"route add 10.10.0.0/16 via 10.9.0.2 src 10.9.3.2\n"	\
	"route add 10.11.0.0/16 dev mk table 1234 metric 7 mtu 900\n"	\
	"route add default via 10.9.0.2 dev mk table 1234 onlink\n"	\
	"route add 10.12.0.0/16 via 10.9.0.2 mtu lock 1200 initcwnd 4\n"	\
	"route add 10.13.0.0/16 dev mk tos 0x10 proto static realm 5\n"	\
	"route add 10.14.0.0/16 via inet6 fe80::5 dev mk\n"	\
	"route add fd10::/64 via fd09::2 dev mk src fd09:1::1\n"	\
	"route add default via fe80::77 dev mk metric 10 pref high\n"	\
	"route add fd11::/64 dev mk table 1234 metric 77\n"
#define TAP_ADDRESSES						\
	"addr add 10.9.0.1/24 brd + dev mk\n"			\
	"addr add fd09::1/64 dev mk\n"
#define TAP_ROUTES						\
	"neigh add 10.9.0.2 lladdr " PEER_ADDRESS " dev mk\n"	\
	"neigh add fd09::2 lladdr " PEER_ADDRESS " dev mk\n"	\
	"route add fd10::/64 via fd09::2 dev mk src fd09::1\n"
#define DOWN_COMMANDS						\
	"link set mk alias of-the-test group 7\n"		\
	"addr add 10.9.0.1/24 dev mk\n"

static const struct kind kinds[] = {
	{ "tun", IFF_TUN | IFF_NO_PI, 0, 1, NULL, TUN_ADDRESSES, TUN_ROUTES, true, false },
	{ "info", IFF_TUN, 4, 1, NULL, TUN_ADDRESSES, TUN_ROUTES, true, false },
	{ "tap", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 12, 1, set_many, TAP_ADDRESSES, TAP_ROUTES, true, false },
	{ "down", IFF_TUN | IFF_NO_PI, 0, 1, set_carrier_off, DOWN_COMMANDS, "", false, false },
	{ "queues", IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE, 0, 3, NULL, TUN_ADDRESSES, TUN_ROUTES, true, false },
	{ "kept", IFF_TUN | IFF_NO_PI, 0, 1, NULL, TUN_ADDRESSES, TUN_ROUTES, true, true },
	{ "kept-tap", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 12, 1, set_many, TAP_ADDRESSES, TAP_ROUTES, true, true },
	{ "kept-queues", IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE, 0, 3, NULL, TUN_ADDRESSES, TUN_ROUTES, true, true },
};

static void choose_kind(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds) && !kind; i++)
		if (!strcmp(kinds[i].name, param_str("kind")))
			kind = &kinds[i];
	if (!kind)
		die("there is no kind %s", param_str("kind"));
}

/* ip(8) on the interface mk. */
static void run_ip(const char *lines)
{
	char script[4096];

	snprintf(script, sizeof(script), "PATH=$PATH:/sbin:/usr/sbin ip -batch - <<end\n%s\nend", lines);
	if (system(script))
		die("ip(8) fails");
}

/* That IPv6 addresses are nobody else's. */
static bool has_proof(void *arg)
{
	FILE *f = fopen("/proc/net/if_inet6", "r");
	char line[128];
	unsigned flags;
	bool all = true;

	(void)arg;
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %*s %*s %x", &flags) == 1 && flags & 0x40)
			all = false;
	if (f)
		fclose(f);
	return all;
}

static void set_conf(const char *path, const char *value)
{
	int fd = need(path, open(path, O_WRONLY));

	need(path, write(fd, value, strlen(value)));
	close(fd);
}

static void make_interface(void)
{
	int i, fd;

	for (i = 0; i < kind->nr_queues; i++)
		made.fds[i] = remember_fd("attached", attach());
	fd = made.fds[0];
	if (kind->is_persistent)
		need("TUNSETPERSIST", ioctl(fd, TUNSETPERSIST, 1));
	if (kind->more)
		kind->more(fd);
	set_conf("/proc/sys/net/ipv4/conf/mk/rp_filter", "2");
	set_conf("/proc/sys/net/ipv6/conf/mk/hop_limit", "77");
	set_conf("/proc/sys/net/ipv6/neigh/mk/retrans_time_ms", "1234");
	if (kind->flags & IFF_TAP)
		run_ip("link set mk address " TAP_ADDRESS " txqueuelen 99");
	run_ip("link set mk mtu 1400");
	run_ip(kind->is_up ? "link set lo up\nlink set mk up" : "link set mk down");
	run_ip(kind->addresses);
	if (!wait_until(has_proof, NULL))
		die("IPv6 addresses stay tentative");
	run_ip(kind->routes);
}

/* The last one only a socket has. */
static void make_queues(void)
{
	int last = attach();

	detach(made.fds[2]);
	need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, made.in_flight));
	send_fd(made.in_flight[0], last);
	close(last);
}

static void nothing(void)
{
}

static void leave(void)
{
	_exit(3);
}

static void make(void)
{
	choose_kind();
	made.plain = remember_fd("attached to nothing", open_device(O_NONBLOCK));
	need("F_SETOWN", fcntl(made.plain, F_SETOWN, getpid()));
	need("O_ASYNC", fcntl(made.plain, F_SETFL, O_ASYNC | O_NONBLOCK));
	make_interface();
	if (kind->nr_queues > 1)
		make_queues();
	made.child = need("fork", fork());
	if (!made.child)
		serve_signals(nothing, leave);
	note_fds();
	read_settings(made.settings);
	read_state(made.state);
}

/* ---- check ---- */

static void check_settings(void)
{
	long now[ARRAY_SIZE(made.settings)];
	char what[32];
	size_t i;

	read_settings(now);
	for (i = 0; i < ARRAY_SIZE(now); i++) {
		snprintf(what, sizeof(what), "setting %zu", i);
		same_long(what, made.settings[i], now[i]);
	}
}

/* The first line that differs is enough. */
static void check_state(void)
{
	static char now[STATE_ROOM];
	char *was_next, *now_next, was[STATE_ROOM];
	char *a, *b;

	read_state(now);
	strcpy(was, made.state);
	a = strtok_r(was, "\n", &was_next);
	b = strtok_r(now, "\n", &now_next);
	while (a && b && same_str("ip(8) says", a, b)) {
		a = strtok_r(NULL, "\n", &was_next);
		b = strtok_r(NULL, "\n", &now_next);
	}
	if (!a != !b)
		bad("ip(8) says: expected %s, got %s", a ? a : "nothing", b ? b : "nothing");
}

static void check_packets(void)
{
	static uint32_t number;
	int sock = open_port();

	check_way_in(made.fds[0], sock, ++number);
	check_way_out(made.fds, 1, sock, ++number);
	close(sock);
}

/* All that are attached, as packets come out of any. */
static void check_queues(void)
{
	static uint32_t number = 1000;
	int last = receive_fd(made.in_flight[1]), sock = open_port();
	const int attached[] = { made.fds[0], made.fds[1], last };
	struct ifreq ifr = { 0 };

	check_way_in(last, sock, ++number);
	check_way_out(attached, ARRAY_SIZE(attached), sock, ++number);
	close(sock);
	ioctl(made.fds[2], TUNGETIFF, &ifr);
	same_long("detached", IFF_DETACH_QUEUE, ifr.ifr_flags & IFF_DETACH_QUEUE);
	send_fd(made.in_flight[0], last);
	close(last);
}

static void check(void)
{
	struct ifreq ifr = { 0 };

	check_fds();
	same_long("owner", getpid(), fcntl(made.plain, F_GETOWN));
	if (ioctl(made.plain, TUNGETIFF, &ifr) == 0 || errno != EBADFD)
		bad("it is attached to %s", ifr.ifr_name);
	if (!is_same_file(getpid(), made.fds[0], made.child, made.fds[0]))
		bad("the child has another description");
	check_settings();
	check_state();
	if (kind->nr_queues > 1)
		check_queues();
	else if (kind->is_up)
		check_packets();
}

static void stop(void)
{
	end_child(made.child, 3);
}

struct factory tuns_factory = {
	.name = "tuns",
	.about = "descriptors of /dev/net/tun",
	.params = {
		{ "kind", "tun", "of interface: a row of kinds[]" },
		{ NULL },
	},
	.make = make,
	.check = check,
	.stop = stop,
};
