/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit.c - see unit.h */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "core/compiler.h"
#include "target/log.h"
#include "target/unit.h"

bool unit_is_cdrom(const char *locator, struct vdisk *disk)
{
	size_t n = strlen(locator);

	return n > 4 && !strcasecmp(locator + n - 4, ".iso") && scsi_looks_like_cdrom(disk);
}

char *unit_state_file(const char *dir, const char *target, unsigned lun)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s,%u.pr", dir, target, lun) < 0 ? NULL : path;
}

int unit_restore(struct scsi_unit *unit, const char *dir, uid_t owner, struct vdisk_error *err)
{
	AUTO_FREE char *path = unit_state_file(dir, unit->target->name, unit->lun);
	AUTO_CLOSE int fd = -1;
	int r;

	if (!path)
		return fail(err, ENOMEM, "out of memory");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(err, errno, "%s: %s", path, strerror(errno));
	if (geteuid() == 0 && fchown(fd, owner, (gid_t)-1) < 0)
		return fail(err, errno, "%s: cannot be given to user %u: %s", path, (unsigned)owner,
			    strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return fail(err, errno, "%s: another server uses it", path);
	r = scsi_unit_restore(unit, fd, err);
	if (r == 0)
		STEAL_FD(fd);
	return r;
}
