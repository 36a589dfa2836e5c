/* SPDX-License-Identifier: GPL-2.0-only */
/* Every field that a client can set is an option, or known to be none. */
#include "base/test.h"
#include "rpc/rpc.h"

TEST(rpc, every_field_of_the_options_is_known)
{
	const ProtobufCMessageDescriptor *d = &criu_opts__descriptor;

	for (unsigned i = 0; i < d->n_fields; i++)
		ASSERT(request_field_is_known(d->fields[i].name));
}

TEST(rpc, a_field_that_nobody_knows_is_told)
{
	ASSERT(!request_field_is_known("no_such_field"));
}
