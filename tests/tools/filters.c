/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* filters.c - print "KIND CALL" for each system call that each filter lets through (tools/reached) */
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/driver.h"
#include "guest/jail.h"
#include "vmm-lite/sandbox.h"
#include "vmm-lite/vhost/sandbox.h"

#define CALLS	462

static void say(const char *kind, int call)
{
	char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);

	if (name)
		printf("%s %s\n", kind, name);
	free(name);
}

int main(void)
{
	static const struct {
		enum sandbox_kind kind;
		const char *name;
	} kinds[] = {
		{ SANDBOX_PROCESS, "process" }, { SANDBOX_VCPU, "vcpu" }, { SANDBOX_DISK, "disk" },
		{ SANDBOX_NET, "net" }, { SANDBOX_FRONT, "front" }, { SANDBOX_PARENT, "parent" },
		{ SANDBOX_UML, "vmm-uml" },
	};

	for (int call = 0; call < CALLS; call++) {
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
			if (sandbox_lists(kinds[i].kind, call))
				say(kinds[i].name, call);
		if (vhost_allows(call, true) || vhost_judges(call))
			say("vhost", call);
		if (jail_verdict(call) == JAIL_ALLOWS || jail_verdict(call) == JAIL_JUDGES)
			say("jail", call);
	}
	return 0;
}
