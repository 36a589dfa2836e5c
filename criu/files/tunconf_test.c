/* SPDX-License-Identifier: GPL-2.0-only */
#include "base/own.h"
#include "base/test.h"
#include "files/tun.h"

TEST(tunconf, a_setting_is_split_into_tree_key_and_value)
{
	char text[] = "ipv6/conf/hop_limit=77", *key, *value;

	ASSERT(tunconf_split(text, &key, &value));
	ASSERT_STR(text, "ipv6/conf");
	ASSERT_STR(key, "hop_limit");
	ASSERT_STR(value, "77");
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

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char text[64], *key, *value;

		snprintf(text, sizeof(text), "%s", bad[i]);
		if (tunconf_split(text, &key, &value))
			test_fail(__FILE__, __LINE__, "\"%s\" is taken", bad[i]);
	}
}
