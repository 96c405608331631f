/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* end.h - why a guest ended; also the exit status of the programs that run guests */
#ifndef VMM_END_H
#define VMM_END_H

enum vmm_end {
	VMM_POWER_OFF = 0,
	VMM_ERROR = 1,
	VMM_USAGE = 2,
	VMM_REBOOT = 16,
	VMM_PANIC = 17,
	VMM_TRIPLE_FAULT = 18,
	VMM_TIME_LIMIT = 19,
	VMM_STOPPED = 20,
	VMM_RUNNING = -1,
};

#endif
