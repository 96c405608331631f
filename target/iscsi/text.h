/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * text.h - key=value text, and the negotiation of the operational keys
 *
 * Text (RFC 7143, 6.1) is "key=value" strings, each ended by a NUL.  The input
 * may come in several PDUs (the C bit) and is collected, bounded, in a struct
 * iscsi_text before anyone parses it; the answer is collected in another.
 *
 * Every key has one row in the table of negotiate.c: its rule of result
 * function (6.2), its bounds, when it may come, where its value is kept.
 */
#ifndef ISCSI_TEXT_H
#define ISCSI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "target/iscsi/chap.h"

#define ISCSI_KEY_MAX	63u	/* 6.1 */
#define ISCSI_VALUE_MAX	255u	/* 6.1; longer values exist for authentication only */
#define ISCSI_NAME_MAX	223u	/* 4.2.7.1 */
#define ISCSI_TEXT_MAX	16384u	/* of one request, all its PDUs together */

/* Bytes of text, owned; grows as needed up to ISCSI_TEXT_MAX (or @limit). */
struct iscsi_text {
	char *buf;
	uint32_t len;
	uint32_t size;
};
void iscsi_text_clear(struct iscsi_text *t);
/* -E2BIG over @limit, -ENOMEM */
int iscsi_text_append(struct iscsi_text *t, const void *data, uint32_t len, uint32_t limit);
/* Append "key=value" with its NUL. */
int iscsi_text_put(struct iscsi_text *t, const char *key, const char *value);

/* One pair.  Values of CHAP_C and CHAP_R may be longer than ISCSI_VALUE_MAX. */
struct iscsi_pair {
	char key[ISCSI_KEY_MAX + 1];
	char value[ISCSI_CHAP_VALUE_MAX + 1];
};
/*
 * Take the pair at *@pos and move on.  1 for a pair, 0 at the end, -EINVAL for
 * what is not text: no '=', no NUL at the end, a key or value out of bounds.
 */
int iscsi_text_next(const struct iscsi_text *t, uint32_t *pos, struct iscsi_pair *out);

/* What a connection and its session agreed on, with the defaults of 13. */
struct iscsi_params {
	bool header_digest, data_digest;
	bool initial_r2t, immediate_data;
	bool data_pdu_in_order, data_sequence_in_order;
	uint32_t max_connections;
	uint32_t max_recv;		/* ours */
	uint32_t max_send;		/* the initiator's MaxRecvDataSegmentLength */
	uint32_t max_burst, first_burst;
	uint32_t time_to_wait, time_to_retain;
	uint32_t max_outstanding_r2t;
	uint32_t error_recovery_level;
	uint32_t protocol_level;	/* RFC 7144 */

	/* declared by the initiator */
	bool discovery;
	char initiator_name[ISCSI_NAME_MAX + 1];
	char target_name[ISCSI_NAME_MAX + 1];

	uint32_t seen;			/* keys that came already, a bit a row */
	bool auth_offered;		/* AuthMethod came; the answer is login.c's */
	bool offers_none, offers_chap;	/* what was in it */
};
void iscsi_params_init(struct iscsi_params *p);

/* When text comes; a key that does not belong there is an error. */
enum iscsi_text_phase {
	ISCSI_TEXT_LOGIN_FIRST,		/* the leading login request */
	ISCSI_TEXT_SECURITY,
	ISCSI_TEXT_OPERATIONAL,
	ISCSI_TEXT_FULL,		/* full feature phase */
};

/*
 * Negotiate one pair and append what is to be answered.  0; or an iSCSI login
 * status (class 2) when the initiator broke the rules.
 */
int iscsi_negotiate(struct iscsi_params *p, enum iscsi_text_phase phase,
		    const struct iscsi_pair *pair, struct iscsi_text *answer);

/* A name by the rules of 4.2.7: iqn., eui. or naa., in its character set. */
bool iscsi_name_valid(const char *name);

#endif
