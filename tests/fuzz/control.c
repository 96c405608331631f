/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any line on the control socket gets one answer, a JSON object with "ok".  The
 * commands behind it open a disk of files that were passed, as attach-disk
 * does: by any names, in any format.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/compiler.h"
#include "vmm-lite/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int serve(void *arg, const char *command, struct control_call *call,
		 struct vdisk_error *err)
{
	const char *locator = json_string_value(json_object_get(call->request, "locator"));
	json_t *names = json_object_get(call->request, "files");
	struct vdisk_open_file files[4];
	struct vdisk_open_opts opts = { .size = sizeof(opts), .files = files };
	struct vdisk *disk = NULL;
	int r;

	(void)arg;
	assert(command);
	for (size_t i = 0; i < json_array_size(names) && i < call->n_fds; i++) {
		files[i] = (struct vdisk_open_file) {
			.path = json_string_value(json_array_get(names, i)), .fd = call->fds[i],
		};
		if (!files[i].path)
			return -EINVAL;
		opts.n_files++;
	}
	opts.format = json_string_value(json_object_get(call->request, "format"));
	call->console = json_is_true(json_object_get(call->request, "console"));
	if (!locator || !opts.n_files)
		return locator ? -EINVAL : 0;
	r = vdisk_open(&disk, locator, &opts, err);
	if (r == 0)
		vdisk_close(disk, NULL);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fds[2] = { -1, -1 };
	struct control c;
	bool console = false;
	json_t *answer;
	char *text;

	for (int i = 0; i < 2; i++)
		if (fds[i] < 0) {
			fds[i] = memfd_create("file", MFD_CLOEXEC);
			assert(fds[i] >= 0 && ftruncate(fds[i], 1 << 20) == 0);
		}
	control_init(&c, -1);
	c.serve = serve;
	text = control_line(&c, (const char *)data, size, fds, 2, &console);
	assert(text && !strchr(text, '\n'));
	answer = json_loads(text, 0, NULL);
	assert(json_is_object(answer) && json_is_boolean(json_object_get(answer, "ok")));
	assert(!console || json_is_true(json_object_get(answer, "ok")));
	json_decref(answer);
	free(text);
	return 0;
}
