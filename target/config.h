/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * config.h - vdiskd.conf(5), read and checked
 *
 * A configuration is made in one go and only read afterwards.  What is in it is
 * consistent: names are iSCSI names and there once, LUNs that are spoken of
 * exist, secrets were read from their files.  Whether disks can be opened and
 * addresses be listened on is not known before someone tries.
 */
#ifndef TARGET_CONFIG_H
#define TARGET_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "target/iscsi/access.h"
#include "target/iscsi/throttle.h"
#include "target/reactor/reactor.h"
#include "vdisk.h"

#define CONFIG_FILE		"/etc/vdiskd.conf"
#define CONFIG_SIZE_MAX		(4u << 20)

struct config_portal {
	char *address;		/* owned: "ADDRESS:PORT", in numbers */
	uint16_t group;
	char *advertise;	/* owned: told in discovery instead; "": not told; NULL: as it is */
	unsigned line;
};

struct config_lun {
	uint16_t lun;
	char *disk;		/* owned: a locator */
	char *format;		/* owned, or NULL */
	char *serial;		/* owned, or NULL */
	bool read_only, removable, share;
	uint32_t block_size;	/* 0: the disk's own */
	uint32_t physical_size;	/* likewise */
	uint64_t size;		/* to grow it to; 0: as it is */
	uint8_t threshold;	/* tell initiators when no more percent of it are left; 0: never */
	enum vdisk_refs refs;
	unsigned line;
};

/* How good the ways through a portal group are (SPC-4, 5.15). */
struct config_access_state {
	uint16_t group;
	uint8_t state;		/* enum scsi_access_state */
};

struct config_target {
	char *name;		/* owned */
	char *alias;		/* owned, or NULL */
	struct config_lun *luns;
	unsigned n_luns;
	struct iscsi_access access;
	struct config_access_state states[SCSI_MAX_PORTS];	/* of those that are not optimized */
	unsigned n_states;
	unsigned line;
};

struct config {
	char *path;		/* owned: of the file */
	char *user;		/* owned, or NULL: who to become */
	char *state_dir;	/* owned, or NULL: of persistent reservations */
	uint64_t sanitize_rate;	/* bytes a second; 0: as fast as it goes */
	struct iscsi_user *users;	/* chap-user; owned */
	unsigned n_users;
	struct config_portal *portals;
	unsigned n_portals;
	struct config_target *targets;
	unsigned n_targets;
	struct iscsi_access discovery;
	struct iscsi_limits limits;
	struct reactor_opts reactors;	/* counts at the start only */
};

/* Get the secret in this file, up to ISCSI_SECRET_MAX bytes; its length, or -errno. */
typedef int config_secret_fn(const char *path, uint8_t out[ISCSI_SECRET_MAX],
			     struct vdisk_error *err);

/* Messages begin with "path:line: ".  @text need not end in NUL. */
int config_parse(struct config **out, const char *path, const char *text, size_t len,
		 config_secret_fn *secret, struct vdisk_error *err);
int config_load(struct config **out, const char *path, struct vdisk_error *err);
void config_free(struct config *c);	/* wipes the secrets */

/* The first line of a file that nobody but its owner and group may read. */
int config_read_secret(const char *path, uint8_t out[ISCSI_SECRET_MAX], struct vdisk_error *err);
/* enum scsi_access_state of a group */
uint8_t config_access_state(const struct config_target *t, uint16_t group);
/* The same disk, served in the same way?  (It may grow.) */
bool config_lun_same(const struct config_lun *a, const struct config_lun *b);
/* How to open it. */
struct vdisk_open_opts config_lun_opts(const struct config_lun *lun);

#endif
