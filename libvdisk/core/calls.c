/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* calls.c - see calls.h */
#include "core/calls.h"

int vd_allow_call(scmp_filter_ctx filter, int call, unsigned arg, uint64_t mask, uint64_t value)
{
	if (!mask)
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
				SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, mask, value));
}
