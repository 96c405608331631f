/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * negotiate.c - the keys of RFC 7143, 13, a row each
 *
 * The initiator offers, we answer with the result of the key's function: the
 * smaller number, the logical OR, the first of its list that we know.  Keys
 * that only declare get no answer, unknown ones "NotUnderstood" (6.2), known
 * ones with a value outside their bounds "Reject".  A key that comes twice, or
 * where it must not, ends the login.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/compiler.h"
#include "target/iscsi/pdu.h"
#include "target/iscsi/text.h"

#define OUR_MAX_RECV		(256u << 10)
#define OUR_MAX_BURST		(1u << 20)
#define OUR_FIRST_BURST		(256u << 10)
#define OUR_MAX_R2T		8u
#define SEGMENT_MIN		512u
#define SEGMENT_MAX		0xffffffu

enum rule {
	NUMBER_MIN,	/* result: the smaller */
	NUMBER_MAX,	/* result: the larger */
	BOOL_AND,
	BOOL_OR,
	DIGEST,		/* list of CRC32C and None */
	DECLARE_NAME,	/* an iSCSI name */
	DECLARE_SEGMENT, /* MaxRecvDataSegmentLength */
	SESSION_TYPE,
	AUTH_METHOD,
	IGNORE,		/* a declaration that changes nothing here */
	TASK_REPORTING,
	OBSOLETE,	/* the markers of RFC 3720: "Reject" (13.25) */
};

/* phases, as bits */
#define IN(phase)	(1u << (phase))
#define FIRST		IN(ISCSI_TEXT_LOGIN_FIRST)
#define SECURITY	(IN(ISCSI_TEXT_SECURITY) | FIRST)
#define OPERATIONAL	IN(ISCSI_TEXT_OPERATIONAL)
#define LOGIN		(SECURITY | OPERATIONAL)
#define FULL		IN(ISCSI_TEXT_FULL)

struct key {
	const char *name;
	enum rule rule;
	uint8_t phases;
	uint16_t member;	/* offset in struct iscsi_params */
	uint32_t min, max;	/* legal offers */
	uint32_t ours;		/* what we bring to the result function */
};

#define MEMBER(m) offsetof(struct iscsi_params, m)

static const struct key keys[] = {
	/* declared once, with the first request (6.3) */
	{ "InitiatorName", DECLARE_NAME, FIRST | OPERATIONAL, MEMBER(initiator_name) },
	{ "TargetName", DECLARE_NAME, FIRST | OPERATIONAL, MEMBER(target_name) },
	{ "SessionType", SESSION_TYPE, FIRST | OPERATIONAL },
	{ "InitiatorAlias", IGNORE, LOGIN | FULL },
	{ "AuthMethod", AUTH_METHOD, SECURITY },

	{ "HeaderDigest", DIGEST, OPERATIONAL, MEMBER(header_digest) },
	{ "DataDigest", DIGEST, OPERATIONAL, MEMBER(data_digest) },
	{ "MaxConnections", NUMBER_MIN, OPERATIONAL, MEMBER(max_connections), 1, 65535, 1 },
	{ "InitialR2T", BOOL_OR, OPERATIONAL, MEMBER(initial_r2t), .ours = false },
	{ "ImmediateData", BOOL_AND, OPERATIONAL, MEMBER(immediate_data), .ours = true },
	{ "MaxRecvDataSegmentLength", DECLARE_SEGMENT, LOGIN | FULL, MEMBER(max_send) },
	{ "MaxBurstLength", NUMBER_MIN, OPERATIONAL, MEMBER(max_burst),
	  SEGMENT_MIN, SEGMENT_MAX, OUR_MAX_BURST },
	{ "FirstBurstLength", NUMBER_MIN, OPERATIONAL, MEMBER(first_burst),
	  SEGMENT_MIN, SEGMENT_MAX, OUR_FIRST_BURST },
	{ "DefaultTime2Wait", NUMBER_MAX, OPERATIONAL, MEMBER(time_to_wait), 0, 3600, 0 },
	{ "DefaultTime2Retain", NUMBER_MIN, OPERATIONAL, MEMBER(time_to_retain), 0, 3600, 0 },
	{ "MaxOutstandingR2T", NUMBER_MIN, OPERATIONAL, MEMBER(max_outstanding_r2t),
	  1, 65535, OUR_MAX_R2T },
	{ "DataPDUInOrder", BOOL_OR, OPERATIONAL, MEMBER(data_pdu_in_order), .ours = true },
	{ "DataSequenceInOrder", BOOL_OR, OPERATIONAL, MEMBER(data_sequence_in_order),
	  .ours = true },
	{ "ErrorRecoveryLevel", NUMBER_MIN, OPERATIONAL, MEMBER(error_recovery_level), 0, 2, 0 },
	{ "TaskReporting", TASK_REPORTING, OPERATIONAL },
	{ "iSCSIProtocolLevel", NUMBER_MIN, OPERATIONAL, MEMBER(protocol_level), 0, 31, 1 },
	{ "IFMarker", OBSOLETE, OPERATIONAL },
	{ "OFMarker", OBSOLETE, OPERATIONAL },
	{ "IFMarkInt", OBSOLETE, OPERATIONAL },
	{ "OFMarkInt", OBSOLETE, OPERATIONAL },
};
_Static_assert(ARRAY_SIZE(keys) <= 32, "iscsi_params.seen has a bit for each row");

void iscsi_params_init(struct iscsi_params *p)
{
	*p = (struct iscsi_params) {
		.initial_r2t = true,
		.immediate_data = true,
		.data_pdu_in_order = true,
		.data_sequence_in_order = true,
		.max_connections = 1,
		.max_recv = 8192,
		.max_send = 8192,
		.max_burst = 262144,
		.first_burst = 65536,
		.time_to_wait = 2,
		.time_to_retain = 20,
		.max_outstanding_r2t = 1,
		.protocol_level = 1,
	};
}

static uint32_t *number_of(struct iscsi_params *p, const struct key *k)
{
	return (uint32_t *)(void *)((char *)p + k->member);
}

static bool *bool_of(struct iscsi_params *p, const struct key *k)
{
	return (bool *)((char *)p + k->member);
}

/* Numbers are decimal or 0x hexadecimal (6.1); false: not a number or too large. */
static bool parse_number(const char *s, uint32_t *out)
{
	bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
	const char *digits = hex ? s + 2 : s;
	uint64_t v = 0;

	if (!*digits || strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789") !=
	    strlen(digits) || strlen(digits) > 10)
		return false;
	v = strtoull(digits, NULL, hex ? 16 : 10);
	if (v > UINT32_MAX)
		return false;
	*out = (uint32_t)v;
	return true;
}

static bool parse_bool(const char *s, bool *out)
{
	*out = !strcmp(s, "Yes");
	return *out || !strcmp(s, "No");
}

/* Is @word a member of the comma-separated @list? */
static bool list_has(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *s = list; ; s++) {
		size_t n = strcspn(s, ",");

		if (n == len && !memcmp(s, word, n))
			return true;
		s += n;
		if (!*s)
			return false;
	}
}

/* The first member of @list that is @a or @b; NULL if neither. */
static const char *list_first(const char *list, const char *a, const char *b)
{
	for (const char *s = list; ; s++) {
		size_t n = strcspn(s, ",");

		if (n == strlen(a) && !memcmp(s, a, n))
			return a;
		if (n == strlen(b) && !memcmp(s, b, n))
			return b;
		s += n;
		if (!*s)
			return NULL;
	}
}

/* The result of a number's function into @buf; NULL if the offer is illegal. */
static const char *negotiate_number(struct iscsi_params *p, const struct key *k,
				    const char *value, char buf[16])
{
	uint32_t offer, result;

	if (!parse_number(value, &offer) || offer < k->min || offer > k->max)
		return NULL;
	result = k->rule == NUMBER_MIN ? MIN(offer, k->ours) : MAX(offer, k->ours);
	*number_of(p, k) = result;
	snprintf(buf, 16, "%u", result);
	return buf;
}

static const char *negotiate_bool(struct iscsi_params *p, const struct key *k, const char *value)
{
	bool offer, result;

	if (!parse_bool(value, &offer))
		return NULL;
	result = k->rule == BOOL_AND ? offer && k->ours : offer || k->ours;
	*bool_of(p, k) = result;
	return result ? "Yes" : "No";
}

/* A digest that we can compute is taken when the initiator prefers it. */
static const char *negotiate_digest(struct iscsi_params *p, const struct key *k,
				    const char *value)
{
	const char *chosen = list_first(value, "CRC32C", "None");

	if (chosen)
		*bool_of(p, k) = !strcmp(chosen, "CRC32C");
	return chosen;
}

static int declare_name(struct iscsi_params *p, const struct key *k, const char *value)
{
	if (!iscsi_name_valid(value))
		return k->member == MEMBER(target_name) ? ISCSI_LOGIN_NOT_FOUND :
							  ISCSI_LOGIN_INITIATOR_ERROR;
	memcpy((char *)p + k->member, value, strlen(value) + 1);	/* valid: it fits */
	return 0;
}

static int declare_session(struct iscsi_params *p, const char *value)
{
	if (!strcmp(value, "Discovery"))
		p->discovery = true;
	else if (strcmp(value, "Normal") != 0)
		return ISCSI_LOGIN_SESSION_TYPE;
	return 0;
}

static int answer_key(struct iscsi_text *answer, const char *key, const char *value)
{
	return iscsi_text_put(answer, key, value) < 0 ? ISCSI_LOGIN_OUT_OF_RESOURCES : 0;
}

static int declare_segment(struct iscsi_params *p, const struct key *k, const char *value,
			   enum iscsi_text_phase phase, struct iscsi_text *answer)
{
	char buf[16];
	uint32_t offer;

	if (!parse_number(value, &offer) || offer < SEGMENT_MIN || offer > SEGMENT_MAX)
		return ISCSI_LOGIN_INITIATOR_ERROR;
	*number_of(p, k) = offer;
	if (phase == ISCSI_TEXT_FULL)
		return 0;
	/* ours is declared on the same occasion */
	p->max_recv = OUR_MAX_RECV;
	snprintf(buf, sizeof(buf), "%u", OUR_MAX_RECV);
	return answer_key(answer, k->name, buf);
}

static int negotiate_known(struct iscsi_params *p, const struct key *k,
			   enum iscsi_text_phase phase, const char *value,
			   struct iscsi_text *answer)
{
	const char *result = NULL;
	char buf[16];

	switch (k->rule) {
	case NUMBER_MIN:
	case NUMBER_MAX:
		result = negotiate_number(p, k, value, buf);
		break;
	case BOOL_AND:
	case BOOL_OR:
		result = negotiate_bool(p, k, value);
		break;
	case DIGEST:
		result = negotiate_digest(p, k, value);
		break;
	case TASK_REPORTING:	/* 13.23; the others need fast multi-task abort */
		result = list_has(value, "RFC3720") ? "RFC3720" : NULL;
		break;
	case AUTH_METHOD:
		p->auth_offered = true;
		p->offers_none = list_has(value, "None");
		p->offers_chap = list_has(value, "CHAP");
		return 0;
	case DECLARE_NAME:
		return declare_name(p, k, value);
	case DECLARE_SEGMENT:
		return declare_segment(p, k, value, phase, answer);
	case SESSION_TYPE:
		return declare_session(p, value);
	case IGNORE:
		return 0;
	case OBSOLETE:
		break;
	}
	return answer_key(answer, k->name, result ? result : "Reject");
}

int iscsi_negotiate(struct iscsi_params *p, enum iscsi_text_phase phase,
		    const struct iscsi_pair *pair, struct iscsi_text *answer)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const struct key *k = &keys[i];

		if (strcmp(k->name, pair->key) != 0)
			continue;
		if (!(k->phases & IN(phase)))
			return ISCSI_LOGIN_INITIATOR_ERROR;
		/* 6.2: no key is negotiated twice in a login */
		if (phase != ISCSI_TEXT_FULL && (p->seen & 1u << i))
			return ISCSI_LOGIN_INITIATOR_ERROR;
		p->seen |= 1u << i;
		return negotiate_known(p, k, phase, pair->value, answer);
	}
	/* an answer to nothing that we asked ends the exchange (6.2) */
	if (!strcmp(pair->value, "NotUnderstood") || !strcmp(pair->value, "Reject") ||
	    !strcmp(pair->value, "Irrelevant"))
		return 0;
	return answer_key(answer, pair->key, "NotUnderstood");
}
