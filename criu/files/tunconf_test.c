/* SPDX-License-Identifier: GPL-2.0-only */
#include "base/own.h"
#include "base/test.h"
#include "files/tun.h"

TEST(tunconf, a_setting_is_split_into_tree_key_and_value)
{
	struct tun_setting s;

	ASSERT(tunconf_parse("ipv6/conf/hop_limit=77", &s));
	ASSERT_STR(s.tree, "ipv6/conf");
	ASSERT_STR(s.key, "hop_limit");
	ASSERT_STR(s.value, "77");
}

TEST(tunconf, what_could_lead_elsewhere_is_refused)
{
	static const char *const bad[] = { "",
					   "ipv4",
					   "ipv4/conf/rp_filter",
					   "ipv4/conf/=1",
					   "rp_filter=1/2",
					   "ipv4/rp_filter=1",
					   "ipx/conf/rp_filter=1",
					   "ipv4/conf/../conf/all/rp_filter=1",
					   "ipv4/conf/..=1",
					   "ipv4/conf/rp_filter=1\n2",
					   "ipv6/conf/addr_gen_mode=1" };

	struct tun_setting s;
	char text[400];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (tunconf_parse(bad[i], &s))
			test_fail(__FILE__, __LINE__, "\"%s\" is taken", bad[i]);
	snprintf(text, sizeof(text), "ipv4/conf/%0*d=1", (int)sizeof(s.key), 0);
	ASSERT(!tunconf_parse(text, &s));
	snprintf(text, sizeof(text), "ipv4/conf/rp_filter=%0*d", (int)sizeof(s.value), 0);
	ASSERT(!tunconf_parse(text, &s));
}
