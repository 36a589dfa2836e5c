/* SPDX-License-Identifier: GPL-2.0-only */
/* Settings of a descriptor of /dev/net/tun, and of the packets that go through it. */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/own.h"
#include "files/tun.h"
#include "kernel/abi.h"

/*
 * What a program can handle (TUNSETOFFLOAD) shows only in the features of the interface. Both kinds
 * of UDP are one there; TUN_F_UFO is nowhere, and has had no effect since Linux 4.14.
 */
static const struct {
	const char *feature;
	unsigned offload;
} offloads[] = {
	{ "tx-checksum-ip-generic", TUN_F_CSUM },
	{ "tx-tcp-segmentation", TUN_F_TSO4 },
	{ "tx-tcp6-segmentation", TUN_F_TSO6 },
	{ "tx-tcp-ecn-segmentation", TUN_F_TSO_ECN },
	{ "tx-udp-segmentation", TUN_F_USO4 | TUN_F_USO6 },
	{ "tx-udp_tnl-segmentation", TUN_F_UDP_TUNNEL_GSO },
	{ "tx-udp_tnl-csum-segmentation", TUN_F_UDP_TUNNEL_GSO_CSUM },
};

static unsigned offload_of(const char *feature)
{
	for (size_t i = 0; i < ARRAY_SIZE(offloads); i++)
		if (!strncmp(offloads[i].feature, feature, ETH_GSTRING_LEN))
			return offloads[i].offload;
	return 0;
}

static int ask_ethtool(int sock, const char *name, void *question)
{
	struct ifreq ifr = { .ifr_data = question };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	return ioctl(sock, SIOCETHTOOL, &ifr) < 0 ? -errno : 0;
}

/* How many features the kernel knows, in *ret. */
static int count_features(int sock, const char *name, uint32_t *ret)
{
	autofree struct ethtool_sset_info *question = xmalloc(sizeof(*question) + sizeof(*ret));

	*question = (struct ethtool_sset_info){ .cmd = ETHTOOL_GSSET_INFO,
						.sset_mask = 1ull << ETH_SS_FEATURES };
	question->data[0] = 0; /* it stays so if the kernel knows no such set */
	int rc = ask_ethtool(sock, name, question);
	*ret = question->data[0];
	return rc;
}

static int read_features(int sock, const char *name, unsigned *ret_offload)
{
	uint32_t n;
	int rc = count_features(sock, name, &n);

	if (rc < 0)
		return rc;
	autofree struct ethtool_gstrings *names =
		xmalloc(sizeof(*names) + (size_t)n * ETH_GSTRING_LEN);
	*names = (struct ethtool_gstrings){ ETHTOOL_GSTRINGS, ETH_SS_FEATURES, n };
	rc = ask_ethtool(sock, name, names);
	size_t words = (n + 31) / 32;
	autofree struct ethtool_gfeatures *features =
		xmalloc(sizeof(*features) + words * sizeof(features->features[0]));
	*features = (struct ethtool_gfeatures){ ETHTOOL_GFEATURES, words };
	if (rc == 0)
		rc = ask_ethtool(sock, name, features);
	*ret_offload = 0;
	for (uint32_t i = 0; i < n && rc == 0; i++)
		if (features->features[i / 32].active & 1u << i % 32)
			*ret_offload |= offload_of((char *)names->data + i * ETH_GSTRING_LEN);
	return rc;
}

static int read_offload(const char *name, unsigned *ret)
{
	autoclose int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = sock < 0 ? -errno : read_features(sock, name, ret);

	return rc < 0 ? fail(-rc, "interface %s: read its offloads (ethtool)", name) : 0;
}

enum value { HEADER, SEND_BUFFER, LITTLE_ENDIAN_HEADER, BIG_ENDIAN_HEADER, N_VALUES };

/* A kernel that cannot change the byte order from what it is says so when it is asked (EINVAL). */
static const struct {
	unsigned long get, set;
	const char *what;
	bool is_optional;
} values[N_VALUES] = {
	[HEADER] = { TUNGETVNETHDRSZ, TUNSETVNETHDRSZ, "the size of headers", false },
	[SEND_BUFFER] = { TUNGETSNDBUF, TUNSETSNDBUF, "its send buffer", false },
	[LITTLE_ENDIAN_HEADER] = { TUNGETVNETLE, TUNSETVNETLE, "little-endian headers", false },
	[BIG_ENDIAN_HEADER] = { TUNGETVNETBE, TUNSETVNETBE, "big-endian headers", true },
};

static int get_values(int fd, const char *name, int now[N_VALUES])
{
	for (size_t i = 0; i < N_VALUES; i++) {
		now[i] = 0;
		if (ioctl(fd, values[i].get, &now[i]) < 0 &&
		    !(values[i].is_optional && errno == EINVAL))
			return fail(errno, "interface %s: read %s", name, values[i].what);
	}
	return 0;
}

int tunset_read(int fd, const char *name, TunLinkEntry *e)
{
	int now[N_VALUES], rc = get_values(fd, name, now);

	if (rc == 0)
		rc = read_offload(name, &e->offload);
	if (rc < 0)
		return rc;
	e->vnethdr = now[HEADER];
	e->sndbuf = now[SEND_BUFFER];
	e->has_little_endian = e->little_endian = now[LITTLE_ENDIAN_HEADER];
	e->has_big_endian = e->big_endian = now[BIG_ENDIAN_HEADER];
	e->has_offload = e->offload;
	return 0;
}

/* Only what differs is set: an interface that outlives its descriptors has most of it. */
int tunset_set(int fd, const char *name, const TunLinkEntry *e)
{
	const int wanted[N_VALUES] = {
		[HEADER] = e->vnethdr,
		[SEND_BUFFER] = e->sndbuf,
		[LITTLE_ENDIAN_HEADER] = e->little_endian,
		[BIG_ENDIAN_HEADER] = e->big_endian,
	};
	unsigned offload;
	int now[N_VALUES], rc = get_values(fd, name, now);

	for (size_t i = 0; i < N_VALUES && rc == 0; i++)
		if (now[i] != wanted[i] && ioctl(fd, values[i].set, &wanted[i]) < 0)
			rc = fail(errno, "interface %s: set %s to %d", name, values[i].what,
				  wanted[i]);
	if (rc == 0)
		rc = read_offload(name, &offload);
	if (rc == 0 && offload != e->offload && ioctl(fd, TUNSETOFFLOAD, e->offload) < 0)
		rc = fail(errno, "interface %s: set its offloads %#x", name, e->offload);
	return rc;
}
