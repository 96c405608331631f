/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/driver.h"

const struct vd_driver *const vd_formats[] = {
	&vd_qcow2,
	&vd_vmdk,
	&vd_raw,
	NULL,
};
