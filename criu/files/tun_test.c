/* SPDX-License-Identifier: GPL-2.0-only */
/* Descriptors of /dev/net/tun and their interfaces, in a network namespace of each test. */
#include "files/tun.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/own.h"
#include "files/again_test.h"
#include "files/classes.h"

static void begin(struct again *a)
{
	if (unshare(CLONE_NEWNET) < 0)
		test_skip("a network namespace: %s", strerror(errno));
	again_begin(a);
}

static int open_path(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK);

	if (fd < 0)
		test_skip("%s: %s", path, strerror(errno));
	return fd;
}

static int open_device(void)
{
	return open_path("/dev/net/tun");
}

static int open_node(const char *path)
{
	if (mknod(path, S_IFCHR | 0600, makedev(10, 200)) < 0)
		test_skip("a device file: %s", strerror(errno));
	return open_path(path);
}

static void attach(int fd, const char *name, int flags)
{
	struct ifreq ifr = { .ifr_flags = flags };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ASSERT_OK(ioctl(fd, TUNSETIFF, &ifr));
}

static int open_attached(const char *name, int flags)
{
	int fd = open_device();

	attach(fd, name, flags);
	return fd;
}

static const char *name_of(int fd)
{
	static struct ifreq ifr;

	return ioctl(fd, TUNGETIFF, &ifr) < 0 ? strerror(errno) : ifr.ifr_name;
}

TEST(tun, a_descriptor_that_is_attached_to_nothing_is_opened_again)
{
	struct again a;

	begin(&a);
	int fd = open_device();
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_STR(name_of(again_fd(&a, fd)), strerror(EBADFD));
	ASSERT_EQ(fcntl(again_fd(&a, fd), F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	attach(again_fd(&a, fd), "t0", IFF_TUN);
	again_end(&a);
}

TEST(tun, what_has_the_path_now_has_to_be_the_device)
{
	struct again a;

	begin(&a);
	const char *path = again_path(&a, "tun");
	int fd = open_node(path);
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT_STR(again_link(&a, fd), path);
	ASSERT_OK(unlink(path));
	ASSERT_REFUSED(again_open(&a), "/tun: No such file or directory");
	ASSERT_OK(mknod(path, S_IFCHR | 0600, makedev(1, 3)));
	ASSERT_REFUSED(again_open(&a), "/tun is not the device of TUN and TAP (10:200)");
	again_end(&a);
}

TEST(tun, a_device_file_that_is_gone_prevents_a_dump)
{
	struct again a;

	begin(&a);
	const char *path = again_path(&a, "tun");
	int fd = open_node(path);
	ASSERT_OK(unlink(path));
	again_add(&a, fd);
	again_blocked(&a, "(deleted): the device file was deleted; make it again");
	again_end(&a);
}

TEST(tun, an_interface_without_another_descriptor_is_made_again)
{
	struct again a;

	begin(&a);
	int fd = open_device(), index = 77;
	ASSERT_OK(ioctl(fd, TUNSETIFINDEX, &index));
	attach(fd, "t0", IFF_TAP | IFF_NO_PI | IFF_NAPI);
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	ASSERT_EQ(if_nametoindex("t0"), 0);
	ASSERT_OK(again_open(&a));
	ASSERT_STR(name_of(again_fd(&a, fd)), "t0");
	ASSERT_EQ(if_nametoindex("t0"), 77);
	ASSERT_EQ(again_entry(&a, fd)->tunf->link->flags, IFF_TAP | IFF_NO_PI | IFF_NAPI);
	again_end(&a);
}

TEST(tun, an_interface_gets_another_index_if_its_own_is_taken)
{
	struct again a;

	begin(&a);
	int fd = open_attached("t0", IFF_TUN), index = if_nametoindex("t0");
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	int other = open_device();
	ASSERT_OK(ioctl(other, TUNSETIFINDEX, &index));
	attach(other, "t1", IFF_TUN);
	ASSERT_OK(again_open(&a));
	ASSERT_STR(name_of(again_fd(&a, fd)), "t0");
	ASSERT(if_nametoindex("t0") != (unsigned)index);
	again_end(&a);
}

TEST(tun, a_name_that_is_taken_is_refused_before_anything_is_made)
{
	struct again a;

	begin(&a);
	again_add(&a, open_attached("t0", IFF_TUN));
	again_add(&a, open_attached("t1", IFF_TUN));
	again_collect(&a);
	again_save(&a);
	int other = open_attached("t1", IFF_TAP);
	ASSERT_REFUSED(again_open(&a), "interface t1: it is to be made again, but there is one");
	ASSERT_EQ(if_nametoindex("t0"), 0);
	ASSERT_OK(close(other));
	ASSERT_OK(again_open(&a));
	again_end(&a);
}

TEST(tun, a_persistent_interface_is_attached_to)
{
	struct again a;

	begin(&a);
	int fd = open_attached("t0", IFF_TUN), kept, size = 123456;
	ASSERT_OK(ioctl(fd, TUNSETPERSIST, 1));
	ASSERT_OK(ioctl(fd, TUNSETSNDBUF, &size));
	again_add(&a, fd);
	again_collect(&a);
	again_save(&a);
	ASSERT(if_nametoindex("t0"));
	kept = open_attached("t0", IFF_TUN);
	ASSERT_REFUSED(again_open(&a), "interface t0: attach to it (one that is in use");
	ASSERT_OK(ioctl(kept, TUNSETPERSIST, 0));
	ASSERT_OK(close(kept));
	ASSERT_REFUSED(again_open(&a), "make it again (ip tuntap add dev t0 mode tun)");
	kept = open_attached("t0", IFF_TAP);
	ASSERT_REFUSED(again_open(&a), "interface t0: it is of another kind than it was");
	ASSERT_OK(close(kept));
	kept = open_attached("t0", IFF_TUN);
	ASSERT_OK(ioctl(kept, TUNSETPERSIST, 1));
	ASSERT_OK(close(kept));
	ASSERT_OK(again_open(&a));
	ASSERT_STR(name_of(again_fd(&a, fd)), "t0");
	ASSERT_OK(ioctl(again_fd(&a, fd), TUNGETSNDBUF, &size));
	ASSERT_EQ(size, 123456);
	again_end(&a);
}

TEST(tun, an_interface_that_others_have_open_outlives_the_tree)
{
	struct again a;

	begin(&a);
	int fd = open_attached("t0", IFF_TUN | IFF_MULTI_QUEUE);
	int other = open_attached("t0", IFF_TUN | IFF_MULTI_QUEUE);
	again_add(&a, fd);
	again_cycle(&a);
	ASSERT(!again_entry(&a, fd)->tunf->device);
	ASSERT_STR(name_of(again_fd(&a, fd)), "t0");
	ASSERT_OK(close(other));
	again_end(&a);
}

TEST(tun, queues_are_attached_to_one_interface_or_detached_as_they_were)
{
	const int flags = IFF_TUN | IFF_MULTI_QUEUE;
	struct ifreq ifr = { .ifr_flags = IFF_DETACH_QUEUE };
	struct again a;

	begin(&a);
	int first = open_attached("t0", flags), second = open_attached("t0", flags);
	ASSERT_OK(ioctl(first, TUNSETQUEUE, &ifr));
	again_add(&a, first);
	again_add(&a, second);
	again_cycle(&a);
	ASSERT(again_entry(&a, first)->tunf->device && !again_entry(&a, second)->tunf->device);
	ASSERT_OK(ioctl(again_fd(&a, first), TUNGETIFF, &ifr));
	ASSERT(ifr.ifr_flags & IFF_DETACH_QUEUE);
	ASSERT_OK(ioctl(again_fd(&a, second), TUNGETIFF, &ifr));
	ASSERT(!(ifr.ifr_flags & IFF_DETACH_QUEUE));
	again_end(&a);
}

TEST(tun, an_interface_of_another_network_namespace_prevents_a_dump)
{
	struct again a;

	begin(&a);
	again_add(&a, open_attached("t0", IFF_TUN));
	ASSERT_OK(unshare(CLONE_NEWNET));
	again_blocked(&a, "/dev/net/tun: its interface t0 is of another network namespace (net:[");
	again_end(&a);
}

TEST(tun, a_descriptor_of_another_network_namespace_prevents_a_dump)
{
	struct again a;

	begin(&a);
	again_add(&a, open_device());
	ASSERT_OK(unshare(CLONE_NEWNET));
	again_blocked(&a, "/dev/net/tun is of another network namespace (net:[");
	again_end(&a);
}

TEST(tun, a_filter_of_packets_prevents_a_dump)
{
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, ~0u);
	const struct sock_fprog filter = { 1, &all };
	struct again a;

	begin(&a);
	int fd = open_attached("t0", IFF_TAP), other = open_attached("t1", IFF_TAP);
	ASSERT_OK(ioctl(fd, TUNATTACHFILTER, &filter));
	ASSERT_OK(ioctl(other, TUNATTACHFILTER, &filter));
	ASSERT_OK(ioctl(other, TUNDETACHFILTER, &filter));
	again_add(&a, fd);
	again_add(&a, other);
	again_blocked(&a, "interface t0 has, or had, a filter of packets (TUNATTACHFILTER)");
	again_end(&a);
}

TEST(tun, an_interface_of_a_bridge_prevents_a_dump)
{
	struct ifreq ifr = { .ifr_name = "bridge" };
	struct again a;

	begin(&a);
	int fd = open_attached("t0", IFF_TAP);
	autoclose int sock = ASSERT_OK(socket(AF_INET, SOCK_DGRAM, 0));
	if (ioctl(sock, SIOCBRADDBR, "bridge") < 0)
		test_skip("a bridge: %s", strerror(errno));
	ifr.ifr_ifindex = if_nametoindex("t0");
	ASSERT_OK(ioctl(sock, SIOCBRADDIF, &ifr));
	again_add(&a, fd);
	again_blocked(&a, "interface t0: it is part of another one");
	again_end(&a);
}

/* ---- entries of images ---- */

static TunfileEntry entry = { PROTOBUF_C_MESSAGE_INIT(&tunfile_entry__descriptor) };
static TunLinkEntry link_entry = { PROTOBUF_C_MESSAGE_INIT(&tun_link_entry__descriptor) };
static TunDeviceEntry device = { PROTOBUF_C_MESSAGE_INIT(&tun_device_entry__descriptor),
				 .ifindex = 7 };

static int check_entries(TunfileEntry *first, TunfileEntry *second)
{
	FileEntry e[2] = { FILE_ENTRY__INIT, FILE_ENTRY__INIT }, *files[] = { &e[0], &e[1] };
	struct restore r = { .snapshot = { .files = files, .n_files = 2 } };

	e[0].tunf = first;
	e[1].tunf = second;
	return tun_class.check(&r, &e[second ? 1 : 0]);
}

static void reset_entry(void)
{
	link_entry.flags = IFF_TUN;
	entry.netdev = "no-such-one";
	entry.link = &link_entry;
	entry.device = &device;
}

TEST(tun, entries_that_make_no_sense_are_refused)
{
	static char *const names[] = { "", ".", "..", "a/b", "tun%d", "a b", "sixteen-letters-" };

	reset_entry();
	ASSERT_OK(check_entries(&entry, NULL));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		entry.netdev = names[i];
		ASSERT_REFUSED(check_entries(&entry, NULL), "is no name of an interface");
	}
	reset_entry();
	entry.link = NULL;
	ASSERT_REFUSED(check_entries(&entry, NULL), "nothing tells of what kind");
	reset_entry();
	link_entry.flags = IFF_TUN | IFF_TAP;
	ASSERT_REFUSED(check_entries(&entry, NULL), "its flags 0x3 make no sense");
	link_entry.flags = IFF_TUN | IFF_PERSIST;
	ASSERT_REFUSED(check_entries(&entry, NULL), "its flags 0x801 make no sense");
	reset_entry();
	TunfileEntry second = entry;
	ASSERT_REFUSED(check_entries(&entry, &second), "it is not its first descriptor");
	entry.device = NULL;
	ASSERT_REFUSED(check_entries(&entry, &second), "it is not its first descriptor");
}
