/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * access.h - who may use a target, and how they prove who they are
 *
 * A struct iscsi_access is made by whoever reads the configuration, and only
 * read afterwards; a reload puts another one in its place.  Nothing of it may be
 * remembered from one PDU to the next.
 *
 * An initiator gets in if its address is in the networks, its name matches one
 * of the rules, and it authenticates if there are users.  Who fails one of the
 * first two is told what strangers are told: there is no such target.
 */
#ifndef ISCSI_ACCESS_H
#define ISCSI_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "target/scsi/scsi.h"

struct sockaddr_storage;

#define ISCSI_SECRET_MIN	12u	/* bytes: 96 bits (RFC 7143, 9.2.1) */
#define ISCSI_SECRET_MAX	255u
#define ISCSI_USER_MAX		255u
#define ISCSI_MAX_GROUPS	16u
#define ISCSI_REDIRECT_MAX	272u	/* "host:port" */

/* An IPv6 network, or an IPv4 one in its mapped form (::ffff:0:0/96). */
struct iscsi_net {
	uint8_t address[16];
	uint8_t prefix;
	bool except;		/* "!": who is in it is refused */
};
/* "192.0.2.0/24", "2001:db8::/32", an address alone; "!" in front.  -EINVAL */
int iscsi_net_parse(struct iscsi_net *out, const char *text);
/* In one of the networks, or there is none to be in; and in none of the exceptions. */
bool iscsi_nets_allow(const struct iscsi_net *nets, unsigned n, const uint8_t address[16]);
/* IPv4 becomes its mapped form; anything else all zeroes. */
void iscsi_address_bytes(uint8_t out[16], const struct sockaddr_storage *sa);
bool iscsi_address_loopback(const uint8_t address[16]);

struct iscsi_user {
	char *name;		/* owned; CHAP_N */
	uint8_t *secret;	/* owned; wiped when it is freed */
	size_t secret_len;
};

struct iscsi_auth {
	struct iscsi_user *users;	/* owned; none: no authentication */
	unsigned n_users;
	struct iscsi_user self;		/* how we prove who we are; no name: we cannot */
	unsigned digests;		/* a bit for each iscsi_chap_digest */
};

/* What initiators whose name matches may see and write. */
struct iscsi_rule {
	char *pattern;		/* owned; with * and ?, without regard to case */
	struct scsi_view view;
};

struct iscsi_access {
	struct iscsi_net *nets;		/* owned */
	unsigned n_nets;
	struct iscsi_rule *rules;	/* owned; the first that matches; none: everyone, everything */
	unsigned n_rules;
	struct iscsi_auth auth;
	uint16_t groups[ISCSI_MAX_GROUPS];	/* portal groups; none: all of them */
	unsigned n_groups;
	char *redirect;			/* owned; "host:port" to go to instead, or NULL */
	bool redirect_permanent;
};
/* Free what it owns; all of it is open to everyone then. */
void iscsi_access_clear(struct iscsi_access *access);
void iscsi_user_clear(struct iscsi_user *user);

/* The rule's view; NULL: the name is not admitted. */
const struct scsi_view *iscsi_access_view(const struct iscsi_access *access, const char *initiator);
bool iscsi_access_group(const struct iscsi_access *access, uint16_t group);
/* Names and addresses are right (authentication is another matter). */
bool iscsi_access_admits(const struct iscsi_access *access, const uint8_t address[16],
			 const char *initiator);
/* NULL: there is none of that name */
const struct iscsi_user *iscsi_auth_user(const struct iscsi_auth *auth, const char *name);

#endif
