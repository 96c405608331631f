/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text is a configuration of vdiskd or an error. */
#include <assert.h>
#include <string.h>

#include "core/compiler.h"
#include "target/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int secret(const char *path, uint8_t out[ISCSI_SECRET_MAX], struct vdisk_error *err)
{
	size_t len = strlen(path);

	(void)err;
	memcpy(out, path, MIN(len, (size_t)ISCSI_SECRET_MAX));
	return (int)MIN(len, (size_t)ISCSI_SECRET_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vdisk_error err = { 0 };
	struct config *c = NULL;

	if (config_parse(&c, "conf", (const char *)data, size, secret, &err) < 0) {
		assert(!c && !strncmp(err.msg, "conf:", 5));
		return 0;
	}
	assert(c->n_portals);
	for (unsigned i = 0; i < c->n_targets; i++) {
		const struct config_target *t = &c->targets[i];

		assert(t->n_luns || t->access.redirect);
		assert(!t->access.auth.self.name || t->access.auth.n_users);
		iscsi_access_view(&t->access, "iqn.2026-11.test:fuzz");
	}
	config_free(c);
	return 0;
}
