/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine_uml.c - guests on User-Mode Linux, where KVM cannot run them
 *
 * The kernel is UML's, an ordinary program; vmm-uml runs it, with a process for each disk.
 * The initramfs is ours: uml_initramfs.c looks into the disks and writes down what
 * there is to do.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/guest.h"
#include "cli/uml.h"

/* What UML has no use for is said, as the choice of the engine may not be the user's. */
static void tell_left_out(const struct guest *g)
{
	if (g->cpus && strcmp(g->cpus, "1"))
		cli_note("User-Mode Linux has one processor, not %s", g->cpus);
	if (g->fast_kernel)
		cli_note("User-Mode Linux has nothing to decompress: --fast-kernel is left out");
}

static int uml_run(const struct guest *g)
{
	AUTO_FREE char *kernel = NULL;
	AUTO_CLOSE int initramfs = -1;
	struct guest own = *g;

	if (uml_kernel(&kernel) != CLI_OK || uml_initramfs(&initramfs, g) != CLI_OK)
		return CLI_FAILED;
	tell_left_out(g);
	own.isolate = true;	/* each disk is opened by its own process */
	own.cpus = NULL;
	own.fast_kernel = false;
	own.kernel_fd = -1;
	own.initrd_fd = initramfs;
	return guest_monitor(&own, "vmm-uml", kernel);
}

static int uml_check(const struct guest *g)
{
	AUTO_FREE char *kernel = NULL, *monitor = NULL, *shim = NULL, *init = NULL;

	if (g->kernel || g->initrd) {
		cli_error("--engine uml brings its own kernel: --kernel and --initrd are for kvm");
		return CLI_FAILED;
	}
	if (g->virtio_console) {
		cli_error("--engine uml has a console of its own: --console virtio is for kvm");
		return CLI_FAILED;
	}
	if (g->huge_pages) {
		cli_error("--engine uml cannot use the host's pool of huge pages: --huge-pages is for kvm");
		return CLI_FAILED;
	}
	if (uml_kernel(&kernel) != CLI_OK || cli_sibling(&shim, "vdisk-uml.so") != CLI_OK ||
	    cli_sibling(&monitor, "vmm-uml") != CLI_OK)
		return CLI_FAILED;
	return cli_sibling(&init, "vdisk-uml-init");
}

const struct engine engine_uml = {
	.name = "uml",
	.own_kernel = true,
	.check = uml_check,
	.run = uml_run,
};
