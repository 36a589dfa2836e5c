/* SPDX-License-Identifier: GPL-2.0-only */
/* Descriptors of /dev/net/tun. See files/tun.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "base/io.h"
#include "base/log.h"
#include "base/own.h"
#include "files/classes.h"
#include "files/files.h"
#include "files/tun.h"
#include "kernel/abi.h"

#define DEVICE_PATH  "/dev/net/tun"
#define DEVICE_MAJOR 10
#define DEVICE_MINOR 200

#define KIND_FLAGS (IFF_TUN | IFF_TAP | IFF_MULTI_QUEUE) /* an interface never changes these */
/* What only TUNGETIFF tells of. */
#define MORE_FLAGS (IFF_ONE_QUEUE | IFF_NAPI | IFF_NAPI_FRAGS | IFF_NO_CARRIER)
#define ALL_FLAGS  (KIND_FLAGS | MORE_FLAGS | IFF_NO_PI | IFF_VNET_HDR)

static bool is_device(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(DEVICE_MAJOR, DEVICE_MINOR);
}

static bool tun_match(const struct fd_probe *p)
{
	return is_device(&p->st) && p->copy >= 0;
}

/* ---- dump ---- */

static void set_path(struct dump *d, const struct fd_probe *p, TunfileEntry *t)
{
	struct stat st;

	if (stat(p->link, &st) < 0 || !is_device(&st))
		dump_block(d,
			   "pid %d fd %d: %s: the device file was deleted; make it again (mknod, "
			   "character device 10:200) before the dump",
			   p->task->process->pid, p->fd, p->link);
	if (strcmp(p->link, DEVICE_PATH))
		t->path = arena_strdup(&d->arena, p->link);
}

/* The network namespace that the ioctl leads to, if it is not that of criu; else 0, or -errno. */
static int64_t other_namespace(int fd, unsigned long question)
{
	autoclose int ns = ioctl(fd, question);
	struct stat st, own;

	if (ns < 0 || fstat(ns, &st) < 0 || stat("/proc/self/ns/net", &own) < 0)
		return -errno;
	return st.st_dev == own.st_dev && st.st_ino == own.st_ino ? 0 : (int64_t)st.st_ino;
}

/*
 * Where the descriptor was opened, and where its interface is now. It takes CAP_NET_ADMIN to ask; a
 * user without that has no descriptors of elsewhere. 1: blocked.
 */
static int check_namespace(struct dump *d, const struct fd_probe *p, const char *name)
{
	int64_t ns = other_namespace(p->copy, SIOCGSKNS);

	if (ns == 0 && *name)
		ns = other_namespace(p->copy, TUNGETDEVNETNS);
	if (ns == 0 || ns == -EPERM)
		return 0;
	if (ns < 0)
		return fail((int)-ns, "pid %d fd %d: ask for its network namespace",
			    p->task->process->pid, p->fd);
	dump_block(
		d,
		"pid %d fd %d: %s%s%s is of another network namespace (net:[%ld]) than its task; "
		"open it in that of the task, or close it before the dump",
		p->task->process->pid, p->fd, p->link, *name ? ": its interface " : "", name,
		(long)ns);
	return 1;
}

/*
 * A filter cannot be read: TUNGETFILTER gives the address at which the program had it. The flag
 * that there is none is that of no packet information; with both, one that was taken off looks the
 * same.
 */
static bool has_filter(int fd, uint16_t told, uint32_t flags)
{
	struct sock_fprog filter = { 0 };
	bool tells_of_none = told & IFF_NOFILTER && !(flags & IFF_NO_PI);

	return flags & IFF_TAP && !tells_of_none && ioctl(fd, TUNGETFILTER, &filter) == 0 &&
	       filter.len;
}

static int read_attached(struct dump *d, const struct fd_probe *p, uint16_t told, TunfileEntry *t)
{
	TunLinkEntry *link = MESSAGE(&d->arena, TunLinkEntry, tun_link_entry);
	struct tun_facts facts;
	int rc = tundev_facts(t->netdev, &facts);

	if (rc == 0)
		rc = tunset_read(p->copy, t->netdev, link);
	if (rc < 0)
		return rc == -ENODEV ? fail(ENODEV, "pid %d fd %d: ask about its interface %s",
					    p->task->process->pid, p->fd, t->netdev)
				     : rc;
	link->flags = facts.flags | (told & MORE_FLAGS);
	link->owner = facts.owner;
	link->group = facts.group;
	link->has_no_carrier = link->no_carrier = !facts.has_carrier;
	t->link = link;
	if (has_filter(p->copy, told, facts.flags))
		dump_block(d,
			   "pid %d fd %d: interface %s has, or had, a filter of packets "
			   "(TUNATTACHFILTER), which cannot be read; close it before the dump",
			   p->task->process->pid, p->fd, t->netdev);
	if (shows_event(p->copy, POLLIN))
		warn("pid %d fd %d: packets of interface %s that wait to be read are not restored",
		     p->task->process->pid, p->fd, t->netdev);
	return 0;
}

static int tun_dump(struct dump *d, struct fd_probe *p, FileEntry *e)
{
	TunfileEntry *t = MESSAGE(&d->arena, TunfileEntry, tunfile_entry);
	struct ifreq ifr = { 0 };

	e->tunf = t;
	t->id = e->id;
	t->has_flags = true;
	t->flags = probe_flags(p);
	t->fown = fown_read(d, p);
	set_path(d, p, t);
	bool is_attached = ioctl(p->copy, TUNGETIFF, &ifr) == 0;
	if (!is_attached && errno != EBADFD)
		return fail(errno, "pid %d fd %d: ask for its interface", p->task->process->pid,
			    p->fd);
	int rc = check_namespace(d, p, ifr.ifr_name);
	if (rc || !is_attached)
		return min(rc, 0);
	t->netdev = arena_strdup(&d->arena, ifr.ifr_name);
	t->has_detached = t->detached = ifr.ifr_flags & IFF_DETACH_QUEUE;
	return read_attached(d, p, ifr.ifr_flags, t);
}

static bool is_of(const FileEntry *e, const char *name)
{
	return e->tunf && e->tunf->netdev && !strcmp(e->tunf->netdev, name);
}

/* Others can have it open, too, or it was made to last. */
static int resolve(struct dump *d, TunfileEntry *t, unsigned n_known)
{
	struct tun_facts facts;
	int rc = tundev_facts(t->netdev, &facts);

	if (rc < 0)
		return rc == -ENODEV ? fail(ENODEV, "interface %s: ask about it", t->netdev) : rc;
	if (facts.is_persistent || facts.n_queues > n_known) {
		info("interface %s outlives the tree; it is to be there at restore", t->netdev);
		return 0;
	}
	return tundev_read(d, t->netdev, &t->device);
}

static unsigned count_before(const struct dump *d, size_t end, const char *name)
{
	unsigned n = 0;

	for (size_t i = 0; i < end; i++)
		n += is_of(d->files[i], name);
	return n;
}

int tuns_resolve(struct dump *d)
{
	int rc = 0;

	for (size_t i = 0; i < d->n_files && rc == 0; i++) {
		TunfileEntry *t = d->files[i]->tunf;

		if (t && t->netdev && count_before(d, i, t->netdev) == 0)
			rc = resolve(d, t, count_before(d, d->n_files, t->netdev));
	}
	return rc;
}

/* ---- restore ---- */

/* The entry that makes the interface, or NULL if it is to be there already. */
static const TunfileEntry *maker_of(const struct restore *r, const char *name)
{
	for (size_t i = 0; i < r->snapshot.n_files; i++)
		if (is_of(r->snapshot.files[i], name) && r->snapshot.files[i]->tunf->device)
			return r->snapshot.files[i]->tunf;
	return NULL;
}

/* The first of its descriptors makes it. */
static bool is_first(const struct restore *r, const TunfileEntry *t)
{
	for (size_t i = 0; r->snapshot.files[i]->tunf != t; i++)
		if (is_of(r->snapshot.files[i], t->netdev))
			return false;
	return true;
}

static bool is_name(const char *name)
{
	size_t len = strlen(name);

	return len && len < IFNAMSIZ && strcspn(name, "/:% \t\n") == len && strcmp(name, ".") &&
	       strcmp(name, "..");
}

static int check_entry(const struct restore *r, const TunfileEntry *t)
{
	uint32_t kind = t->link->flags & (IFF_TUN | IFF_TAP);

	if (!is_name(t->netdev))
		return refuse(EINVAL, "image files.img: tun %#x: \"%s\" is no name of an interface",
			      t->id, t->netdev);
	if ((kind != IFF_TUN && kind != IFF_TAP) || t->link->flags & ~ALL_FLAGS)
		return refuse(EINVAL, "image files.img: interface %s: its flags %#x make no sense",
			      t->netdev, t->link->flags);
	if (t->device && !is_first(r, t))
		return refuse(EINVAL,
			      "image files.img: interface %s: it is not its first descriptor that "
			      "tells of it",
			      t->netdev);
	return t->device ? tunmake_check(t->netdev, t->device) : 0;
}

/* An interface that outlived the tree is as it was, as far as a descriptor can see. */
static int check_there(const TunfileEntry *t)
{
	const char *kind = t->link->flags & IFF_TAP ? "tap" : "tun";
	const char *queues = t->link->flags & IFF_MULTI_QUEUE ? " multi_queue" : "";
	struct tun_facts facts;
	int rc = tundev_facts(t->netdev, &facts);

	if (rc == -ENODEV)
		return refuse(
			ENODEV,
			"interface %s: there is none of that name, or it is of another kind; make "
			"it again (ip tuntap add dev %s mode %s%s)",
			t->netdev, t->netdev, kind, queues);
	if (rc == 0 && (facts.flags & KIND_FLAGS) != (t->link->flags & KIND_FLAGS))
		return refuse(
			EINVAL,
			"interface %s: it is of another kind than it was; delete it and make it "
			"again (ip tuntap add dev %s mode %s%s)",
			t->netdev, t->netdev, kind, queues);
	return rc;
}

/* Before anything is made. */
static int tun_check(const struct restore *r, const FileEntry *e)
{
	const TunfileEntry *t = e->tunf;

	if (!t->netdev)
		return 0;
	if (!t->link)
		return refuse(
			EOPNOTSUPP,
			"image files.img: tun %#x: nothing tells of what kind the interface %s "
			"was",
			t->id, t->netdev);
	int rc = check_entry(r, t);
	if (rc < 0)
		return rc;
	if (!maker_of(r, t->netdev))
		return check_there(t);
	if (t->device && if_nametoindex(t->netdev))
		return refuse(
			EEXIST,
			"interface %s: it is to be made again, but there is one of that name; "
			"rename or delete that (ip link del %s)",
			t->netdev, t->netdev);
	return 0;
}

/* Others can have the number now. */
static int choose_index(int fd, const char *name, uint32_t index)
{
	char other[IF_NAMESIZE];

	if (if_indextoname(index, other)) {
		warn("interface %s: its index was %u, which %s has now; it gets another one", name,
		     index, other);
		return 0;
	}
	return ioctl(fd, TUNSETIFINDEX, &index) < 0
		       ? fail(errno, "interface %s: give it the index %u", name, index)
		       : 0;
}

static int attach(int fd, const TunfileEntry *t)
{
	struct ifreq ifr = { .ifr_flags = t->link->flags | (t->device ? IFF_TUN_EXCL : 0) };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", t->netdev);
	if (ioctl(fd, TUNSETIFF, &ifr) == 0)
		return 0;
	return t->device ? fail(errno, "interface %s: make it (CAP_NET_ADMIN)", t->netdev)
			 : fail(errno,
				"interface %s: attach to it (one that is in use has to be "
				"left by others first)",
				t->netdev);
}

/* What can be set as long as it is down; then all the rest. */
static int set_device(int fd, const TunfileEntry *t)
{
	if (t->link->owner != -1 && ioctl(fd, TUNSETOWNER, t->link->owner) < 0)
		return fail(errno, "interface %s: set its owner %d", t->netdev, t->link->owner);
	if (t->link->group != -1 && ioctl(fd, TUNSETGROUP, t->link->group) < 0)
		return fail(errno, "interface %s: set its group %d", t->netdev, t->link->group);
	if (ioctl(fd, TUNSETLINK, t->device->type) < 0)
		return fail(errno, "interface %s: set its link type %u", t->netdev,
			    t->device->type);
	return tunmake_set(t->netdev, t->device);
}

static int set_state(int fd, const TunfileEntry *t)
{
	const int carrier = !t->link->no_carrier;
	struct ifreq ifr = { .ifr_flags = IFF_DETACH_QUEUE };

	if ((t->link->no_carrier || t->link->flags & IFF_NO_CARRIER) &&
	    ioctl(fd, TUNSETCARRIER, &carrier) < 0)
		return fail(errno, "interface %s: set its carrier %d", t->netdev, carrier);
	if (t->detached && ioctl(fd, TUNSETQUEUE, &ifr) < 0)
		return fail(errno, "interface %s: detach a queue", t->netdev);
	return 0;
}

/* Other devices do things when they are opened: it is looked at before. */
static int open_device(const TunfileEntry *t, uint32_t flags)
{
	const char *path = t->path ? t->path : DEVICE_PATH;
	autoclose int place = open(path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (place < 0 || fstat(place, &st) < 0)
		return fail(errno, "tun %#x: look at %s", t->id, path);
	if (!is_device(&st))
		return refuse(ENODEV, "tun %#x: %s is not the device of TUN and TAP (%d:%d)", t->id,
			      path, DEVICE_MAJOR, DEVICE_MINOR);
	int fd = file_reopen(place, (flags & O_ACCMODE) | O_NONBLOCK);
	return fd < 0 ? fail(-fd, "tun %#x: open %s", t->id, path) : fd;
}

/* All that needs an interface. */
static int set_up(int fd, const TunfileEntry *t)
{
	int rc = t->device ? choose_index(fd, t->netdev, t->device->ifindex) : 0;

	if (rc == 0)
		rc = attach(fd, t);
	if (rc == 0)
		rc = tunset_set(fd, t->netdev, t->link);
	if (rc == 0 && t->device)
		rc = set_device(fd, t);
	return rc < 0 ? rc : set_state(fd, t);
}

static int tun_open(struct restore *r, const FileEntry *e)
{
	uint32_t flags = e->tunf->has_flags ? e->tunf->flags : O_RDWR;
	autoclose int fd = open_device(e->tunf, flags);
	int rc = fd < 0 ? fd : 0;

	(void)r;
	if (rc == 0 && e->tunf->netdev)
		rc = set_up(fd, e->tunf);
	return rc < 0 ? rc : file_finish(take_fd(&fd), flags, "tun");
}

FILE_PART(tun, tunf)

const struct file_class tun_class = {
	.name = "tun",
	.type = FD_TYPES__TUNF,
	.match = tun_match,
	.dump = tun_dump,
	.has_part = tun_has_part,
	.check = tun_check,
	.open = tun_open,
	.fown = tun_fown,
	.flags = tun_flags,
};
