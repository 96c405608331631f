/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine_kvm.c - guests on KVM, by vmm-lite
 *
 * A reset ends vmm-lite, so that the disk is looked at again; what became of the disks
 * meanwhile goes from one life to the next through a socket pair (vmm-lite/carry.c).
 */
#include "cli/guest.h"

static int kvm_check(const struct guest *g)
{
	AUTO_FREE char *vmm = NULL;
	const char *argv[4];

	if (cli_sibling(&vmm, "vmm-lite") != CLI_OK)
		return CLI_FAILED;
	argv[0] = vmm;
	argv[1] = "--check";
	argv[2] = g->force ? "--force" : NULL;
	argv[3] = NULL;
	return guest_process(argv, NULL, 0);
}

static int kvm_run(const struct guest *g)
{
	return guest_monitor(g, "vmm-lite", NULL);
}

const struct engine engine_kvm = {
	.name = "kvm",
	.check = kvm_check,
	.run = kvm_run,
};
