/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Descriptors of /dev/net/tun: the kind of file in tun.c, settings of the descriptor in tunset.c,
 * the interface that it is attached to in tundev.c and tunmake.c, settings of that in tunconf.c.
 * Images: entries in files.img. The interfaces are those of the network namespace of criu, which is
 * that of the tree.
 *
 * An interface that outlives its descriptors, or has others outside of the tree, is expected to be
 * there at restore. One that does not is made again by the first of its descriptors, whose entry
 * tells of it; if the restore fails, it goes with them.
 */
#ifndef FILES_TUN_H
#define FILES_TUN_H

#include <net/if.h>
#include <linux/if_tun.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/arena.h"
#include "image/messages.h"
#include "model/dump.h"

/* What rtnetlink(7) tells of an interface of tun as such. */
struct tun_facts {
	uint32_t flags; /* as for TUNSETIFF: kind, packet information, header, queues */
	int owner, group;
	unsigned n_queues; /* those that are detached, too */
	bool is_persistent;
	bool has_carrier;
};

/* Returns 0, -ENODEV if there is no such interface, or is one of another kind, or a reported error.
 */
int tundev_facts(const char *name, struct tun_facts *ret);

/* Reads what is to be made again; adds blockers for what cannot. 0 or -errno. */
int tundev_read(struct dump *d, const char *name, TunDeviceEntry **ret);

/* What an administrator sets of the flags of an interface; others tell how things are. */
#define TUN_SET_FLAGS                                                                              \
	(IFF_UP | IFF_DEBUG | IFF_NOTRAILERS | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI |            \
	 IFF_MULTICAST | IFF_PORTSEL | IFF_AUTOMEDIA | IFF_DYNAMIC)

static inline bool tundev_is_internet(int family)
{
	return family == AF_INET || family == AF_INET6;
}

/* A connection to rtnetlink, or NULL, reported. */
struct nl_sock *tundev_sock(void);
void tundev_free_sock(struct nl_sock **sock);
#define auto_tun_sock __attribute__((cleanup(tundev_free_sock)))

/* A request that begins with body; there is room for some attributes more. */
struct nl_msg *tundev_request(int type, int flags, const void *body, size_t len);

/* Is it of an image in order? 0 or -errno, reported. */
int tunmake_check(const char *name, const TunDeviceEntry *e);
/* Makes a new interface what it was. 0 or -errno, reported. */
int tunmake_set(const char *name, const TunDeviceEntry *e);

/* Settings under /proc/sys/net that differ from those of new interfaces. */
void tunconf_read(struct arena *a, const char *name, TunDeviceEntry *e);
#define TUN_VALUE_ROOM 256
struct tun_setting {
	const char *tree;
	char key[64], value[TUN_VALUE_ROOM];
};

/* Of "ipv4/conf/rp_filter=2"; false if it is no such setting. */
bool tunconf_parse(const char *text, struct tun_setting *ret);
/* Those that are in order. 0 or -errno, reported. */
int tunconf_set(const char *name, const TunDeviceEntry *e);

/* Settings of the descriptor and of packets: all of the entry but flags, owner and group. 0 or
 * -errno. */
int tunset_read(int fd, const char *name, TunLinkEntry *e);
int tunset_set(int fd, const char *name, const TunLinkEntry *e);

/* All descriptors are known: finds out which interfaces are to be made again. 0 or -errno. */
int tuns_resolve(struct dump *d);

#endif
