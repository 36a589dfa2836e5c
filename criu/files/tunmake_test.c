/* SPDX-License-Identifier: GPL-2.0-only */
/* What images may ask of rtnetlink (files/tunmake.c). */
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "base/own.h"
#include "base/test.h"
#include "files/tun.h"

static int check(uint32_t type, void *body, size_t len)
{
	TunRequestEntry request = TUN_REQUEST_ENTRY__INIT, *requests[] = { &request };
	TunDeviceEntry e = TUN_DEVICE_ENTRY__INIT;

	request.type = type;
	request.body = (ProtobufCBinaryData){ len, body };
	e.ifindex = 7;
	e.requests = requests;
	e.n_requests = 1;
	return tunmake_check("t0", &e);
}

TEST(tunmake, requests_may_not_lead_to_other_interfaces_or_namespaces)
{
	struct {
		struct ifaddrmsg head;
		struct rtattr attr;
		uint8_t value[4];
	} address = { { .ifa_family = AF_INET }, { 8, IFA_LOCAL }, { 10, 0, 0, 1 } };
	struct {
		struct rtmsg head;
		struct rtattr attr;
		uint8_t value[4];
	} route = { { .rtm_family = AF_INET }, { 8, RTA_DST }, { 10, 0, 0, 0 } };

	ASSERT_OK(check(RTM_NEWADDR, &address, sizeof(address)));
	ASSERT_OK(check(RTM_NEWROUTE, &route, sizeof(route)));
	ASSERT_REFUSED(check(RTM_DELADDR, &address, sizeof(address)), "makes no sense");
	ASSERT_REFUSED(check(RTM_NEWADDR, &address, sizeof(address.head) - 1), "makes no sense");
	address.attr.rta_type = IFA_TARGET_NETNSID;
	ASSERT_REFUSED(check(RTM_NEWADDR, &address, sizeof(address)), "makes no sense");
	address.head.ifa_family = AF_PACKET;
	address.attr.rta_type = IFA_LOCAL;
	ASSERT_REFUSED(check(RTM_NEWADDR, &address, sizeof(address)), "makes no sense");
	static const int forbidden[] = { RTA_OIF, RTA_IIF, RTA_MULTIPATH, RTA_NH_ID };
	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
		route.attr.rta_type = forbidden[i];
		ASSERT_REFUSED(check(RTM_NEWROUTE, &route, sizeof(route)), "makes no sense");
	}
}

TEST(tunmake, an_interface_of_nonsense_is_refused)
{
	static uint8_t address[33];
	TunDeviceEntry e = TUN_DEVICE_ENTRY__INIT;

	ASSERT_REFUSED(tunmake_check("t0", &e), "its settings make no sense");
	e.ifindex = 7;
	ASSERT_OK(tunmake_check("t0", &e));
	e.flags = IFF_RUNNING;
	ASSERT_REFUSED(tunmake_check("t0", &e), "its settings make no sense");
	e.flags = 0;
	e.address = (ProtobufCBinaryData){ sizeof(address), address };
	ASSERT_REFUSED(tunmake_check("t0", &e), "its settings make no sense");
}
