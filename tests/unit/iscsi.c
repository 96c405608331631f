/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iSCSI: the codec, text and its negotiation, and connections driven by bytes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "core/compiler.h"
#include "target/iscsi/server.h"

/* ---- codec ---- */

static void test_crc(void **state UNUSED)
{
	uint8_t buf[512], le[4];
	uint32_t whole;

	/* RFC 7143, A.4 */
	memset(buf, 0, 32);
	store_le32(le, iscsi_crc(0, buf, 32));
	assert_memory_equal(le, "\xaa\x36\x91\x8a", 4);
	memset(buf, 0xff, 32);
	store_le32(le, iscsi_crc(0, buf, 32));
	assert_memory_equal(le, "\x43\xab\xa8\x62", 4);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)i;
	store_le32(le, iscsi_crc(0, buf, 32));
	assert_memory_equal(le, "\x4e\x79\xdd\x46", 4);
	/* the short and the long way agree, in any pieces */
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 7);
	whole = iscsi_crc(0, buf, sizeof(buf));
	for (unsigned cut = 0; cut <= sizeof(buf); cut++)
		assert_int_equal(iscsi_crc(iscsi_crc(0, buf, cut), buf + cut,
					   (uint32_t)sizeof(buf) - cut), whole);
}

/* Every length up to a few lanes' worth, against the definition. */
static void test_crc_lengths(void **state UNUSED)
{
	enum { MAX = 20000 };
	uint8_t *buf = malloc(MAX);
	uint32_t crc = 0xffffffff;

	for (unsigned i = 0; i < MAX; i++)
		buf[i] = (uint8_t)(i * i >> 3 ^ i);
	for (unsigned i = 0; i < MAX; i++) {
		assert_int_equal(iscsi_crc(0, buf, i), ~crc);
		crc ^= buf[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	free(buf);
}

static void test_decode(void **state UNUSED)
{
	uint8_t b[ISCSI_BHS_SIZE] = { 0x41, 0xa1, 0, 0, 0, 0, 2, 1 };
	struct iscsi_request r;

	store_be32(b + 16, 0x1234);
	store_be32(b + 20, 4096);
	b[32] = 0x2a;
	assert_int_equal(iscsi_pdu_decode(&r, b), 0);
	assert_true(r.immediate && r.final && r.command.write && !r.command.read);
	assert_int_equal(r.data_len, 513);
	assert_int_equal(r.itt, 0x1234);
	assert_int_equal(r.command.expected_len, 4096);
	assert_int_equal(r.command.cdb[0], 0x2a);
	b[4] = 255;
	assert_int_equal(iscsi_pdu_decode(&r, b), 0);
	assert_int_equal(r.ahs_len, ISCSI_AHS_MAX);
	b[0] = ISCSI_TEXT_REQUEST;		/* no AHS there */
	assert_int_equal(iscsi_pdu_decode(&r, b), ISCSI_REJECT_PROTOCOL_ERROR);
	b[4] = 0;
	assert_int_equal(iscsi_pdu_decode(&r, b), 0);
	b[1] = 0xc0;				/* F and C */
	assert_int_equal(iscsi_pdu_decode(&r, b), ISCSI_REJECT_PROTOCOL_ERROR);
	b[0] = ISCSI_LOGIN_REQUEST;
	assert_int_equal(iscsi_pdu_decode(&r, b), ISCSI_REJECT_PROTOCOL_ERROR);
	/* all other opcodes, those of a target too */
	for (unsigned op = 0; op < 64; op++) {
		memset(b, 0, sizeof(b));
		b[0] = (uint8_t)op;
		assert_int_equal(iscsi_pdu_decode(&r, b),
				 op <= ISCSI_LOGOUT_REQUEST ? 0 : ISCSI_REJECT_COMMAND_NOT_SUPPORTED);
	}
	memset(b + 16, 0xff, 4);
	b[0] = ISCSI_NOP_OUT;			/* no answer wanted, but numbered */
	assert_int_equal(iscsi_pdu_decode(&r, b), ISCSI_REJECT_PROTOCOL_ERROR);
}

/* Replies write every byte of the header. */
static void test_encode(void **state UNUSED)
{
	const struct iscsi_sn sn = { 1, 2, 3 };
	const struct iscsi_status st = { .status = 2, .residual_flags = 4, .residual = 77 };
	uint8_t a[ISCSI_BHS_SIZE], b[ISCSI_BHS_SIZE];

	memset(a, 0x55, sizeof(a));
	memset(b, 0xaa, sizeof(b));
	iscsi_put_scsi_response(a, &sn, 9, &st, 5, 20);
	iscsi_put_scsi_response(b, &sn, 9, &st, 5, 20);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(a[1], 0x84);
	assert_int_equal(load_be24(a + 5), 20);
	assert_int_equal(load_be32(a + 44), 77);
	iscsi_put_data_in(a, &sn, &(struct iscsi_data_in){ .itt = 9, .offset = 512, .data_sn = 4 });
	assert_int_equal(load_be32(a + 24), 0);	/* no StatSN without a status */
	assert_int_equal(load_be32(a + 40), 512);
	assert_true(iscsi_sn_lt(0xffffffff, 0) && !iscsi_sn_lt(0, 0xffffffff));
}

/* ---- text ---- */

static int parse(const void *text, uint32_t len, unsigned *pairs)
{
	struct iscsi_text t = { 0 };
	struct iscsi_pair pair;
	uint32_t pos = 0;
	int r;

	*pairs = 0;
	assert_int_equal(iscsi_text_append(&t, text, len, ISCSI_TEXT_MAX), 0);
	while ((r = iscsi_text_next(&t, &pos, &pair)) == 1)
		++*pairs;
	iscsi_text_clear(&t);
	return r;
}

static void test_text(void **state UNUSED)
{
	static const struct { const char *text; uint32_t len; int result; unsigned pairs; } cases[] = {
		{ "", 0, 0, 0 },
		{ "A=1\0B=2\0", 8, 0, 2 },
		{ "A=\0", 3, 0, 1 },
		{ "A=b=c\0", 6, 0, 1 },
		{ "\0\0A=1\0\0\0", 8, 0, 1 },
		{ "A=1", 3, -EINVAL, 0 },
		{ "A\0", 2, -EINVAL, 0 },
		{ "=1\0", 3, -EINVAL, 0 },
		{ "1A=1\0", 5, -EINVAL, 0 },
		{ "A B=1\0", 6, -EINVAL, 0 },
		{ "A=1\0\xff=\0", 7, -EINVAL, 1 },
	};
	struct iscsi_text t = { 0 };
	char big[400];
	unsigned pairs;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(cases[i].text, cases[i].len, &pairs), cases[i].result);
		assert_int_equal(pairs, cases[i].pairs);
	}
	memset(big, 'k', sizeof(big));
	big[63] = '=', big[64] = '\0';
	assert_int_equal(parse(big, 65, &pairs), 0);
	big[63] = 'k', big[64] = '=', big[65] = '\0';
	assert_int_equal(parse(big, 66, &pairs), -EINVAL);
	memset(big, 'v', sizeof(big));
	big[0] = 'K', big[1] = '=', big[257] = '\0';
	assert_int_equal(parse(big, 258, &pairs), 0);
	big[257] = 'v', big[258] = '\0';
	assert_int_equal(parse(big, 259, &pairs), -EINVAL);
	assert_int_equal(iscsi_text_append(&t, big, 300, 512), 0);
	assert_int_equal(iscsi_text_append(&t, big, 213, 512), -E2BIG);
	assert_int_equal(iscsi_text_append(&t, big, 212, 512), 0);
	assert_int_equal(t.len, 512);
	iscsi_text_clear(&t);
}

static void test_names(void **state UNUSED)
{
	char name[300] = "iqn.";

	assert_true(iscsi_name_valid("iqn.2026-11.org.vdisk:a"));
	assert_true(iscsi_name_valid("eui.0123456789abcdef"));
	assert_true(iscsi_name_valid("naa.0123456789abcdef"));
	assert_false(iscsi_name_valid("eui.0123"));
	assert_false(iscsi_name_valid("iqn."));
	assert_false(iscsi_name_valid("xyz.2026"));
	assert_false(iscsi_name_valid("iqn.a b"));
	assert_false(iscsi_name_valid("iqn.a,b"));
	assert_false(iscsi_name_valid(""));
	memset(name + 4, 'a', 219);
	assert_true(iscsi_name_valid(name));
	name[223] = 'a';
	assert_false(iscsi_name_valid(name));
}

/* One key against a fresh set of parameters; the answer's text. */
static const char *negotiate(struct iscsi_params *p, enum iscsi_text_phase phase,
			     const char *key, const char *value, int *status)
{
	static char answer[512];
	struct iscsi_text out = { 0 };
	struct iscsi_pair pair;

	snprintf(pair.key, sizeof(pair.key), "%s", key);
	snprintf(pair.value, sizeof(pair.value), "%s", value);
	*status = iscsi_negotiate(p, phase, &pair, &out);
	snprintf(answer, sizeof(answer), "%s", out.len ? strchr(out.buf, '=') + 1 : "");
	iscsi_text_clear(&out);
	return answer;
}

static void test_negotiate(void **state UNUSED)
{
	static const struct { const char *key, *offer, *result; } cases[] = {
		{ "HeaderDigest", "CRC32C,None", "CRC32C" },
		{ "HeaderDigest", "None,CRC32C", "None" },
		{ "DataDigest", "X-other,CRC32C", "CRC32C" },
		{ "DataDigest", "CRC32", "Reject" },
		{ "MaxConnections", "5", "1" },
		{ "MaxConnections", "0", "Reject" },
		{ "InitialR2T", "No", "No" },
		{ "InitialR2T", "Yes", "Yes" },
		{ "InitialR2T", "yes", "Reject" },
		{ "ImmediateData", "Yes", "Yes" },
		{ "ImmediateData", "No", "No" },
		{ "MaxRecvDataSegmentLength", "65536", "262144" },
		{ "MaxBurstLength", "16776192", "1048576" },
		{ "MaxBurstLength", "511", "Reject" },
		{ "MaxBurstLength", "512", "512" },
		{ "MaxBurstLength", "16777216", "Reject" },
		{ "FirstBurstLength", "0x2000", "8192" },
		{ "FirstBurstLength", "12x", "Reject" },
		{ "FirstBurstLength", "", "Reject" },
		{ "FirstBurstLength", "99999999999999999999", "Reject" },
		{ "DefaultTime2Wait", "2", "2" },
		{ "DefaultTime2Retain", "20", "0" },
		{ "MaxOutstandingR2T", "65535", "8" },
		{ "DataPDUInOrder", "No", "Yes" },
		{ "ErrorRecoveryLevel", "2", "0" },
		{ "ErrorRecoveryLevel", "3", "Reject" },
		{ "OFMarkInt", "2048~8192", "Reject" },
		{ "TaskReporting", "FastAbort", "Reject" },
		{ "X-com.example", "1", "NotUnderstood" },
		{ "X-com.example", "NotUnderstood", "" },
	};
	struct iscsi_params p;
	int status;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		iscsi_params_init(&p);
		assert_string_equal(negotiate(&p, ISCSI_TEXT_OPERATIONAL, cases[i].key,
					      cases[i].offer, &status), cases[i].result);
		assert_int_equal(status, 0);
	}
	iscsi_params_init(&p);
	negotiate(&p, ISCSI_TEXT_OPERATIONAL, "MaxBurstLength", "8192", &status);
	assert_int_equal(p.max_burst, 8192);
	negotiate(&p, ISCSI_TEXT_OPERATIONAL, "MaxBurstLength", "8192", &status);
	assert_int_equal(status, ISCSI_LOGIN_INITIATOR_ERROR);	/* twice */
	negotiate(&p, ISCSI_TEXT_SECURITY, "HeaderDigest", "None", &status);
	assert_int_equal(status, ISCSI_LOGIN_INITIATOR_ERROR);	/* not here */
	negotiate(&p, ISCSI_TEXT_FULL, "InitiatorName", "iqn.a:b", &status);
	assert_int_equal(status, ISCSI_LOGIN_INITIATOR_ERROR);
	negotiate(&p, ISCSI_TEXT_FULL, "MaxRecvDataSegmentLength", "1024", &status);
	assert_int_equal(status, 0);
	assert_int_equal(p.max_send, 1024);
	negotiate(&p, ISCSI_TEXT_LOGIN_FIRST, "InitiatorName", "bad name", &status);
	assert_int_equal(status, ISCSI_LOGIN_INITIATOR_ERROR);
	negotiate(&p, ISCSI_TEXT_LOGIN_FIRST, "AuthMethod", "KRB5,CHAP,None", &status);
	assert_true(status == 0 && p.auth_offered && p.offers_chap && p.offers_none);
	iscsi_params_init(&p);
	negotiate(&p, ISCSI_TEXT_SECURITY, "AuthMethod", "CHAPS", &status);
	assert_true(status == 0 && p.auth_offered && !p.offers_chap && !p.offers_none);
}

/* ---- connections ---- */

struct world {
	struct reactor *reactor;
	struct iscsi_server server;
	struct scsi_target *target;
	struct vdisk *disk;
};

struct peer {
	struct iscsi_conn conn;
	uint8_t out[8192];	/* what the target sent and nobody looked at */
	size_t out_len;
	bool *freed;
};

static void wire_output(struct iscsi_conn *c UNUSED)
{
}

static void wire_pause(struct iscsi_conn *c UNUSED, bool paused UNUSED)
{
}

static void wire_close(struct iscsi_conn *c UNUSED)
{
}

static void wire_free(struct iscsi_conn *c)
{
	struct peer *p = container_of(c, struct peer, conn);

	*p->freed = true;
	free(p);
}

static const struct iscsi_wire wire = {
	.output = wire_output, .pause = wire_pause, .close = wire_close, .free = wire_free,
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_int_equal(vdisk_open_memory(&w->disk, 1u << 20, NULL), 0);
	assert_int_equal(reactor_new(&w->reactor, 8u << 20, NULL), 0);
	w->target = scsi_target_new("iqn.2026-11.test:u");
	assert_int_equal(scsi_target_add(w->target, 0, w->disk, false, NULL), 0);
	iscsi_server_init(&w->server, w->reactor);
	assert_non_null(iscsi_server_add_target(&w->server, w->target));
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	iscsi_server_drop(&w->server);
	for (int i = 0; i < 100 && w->server.n_conns; i++)
		reactor_turn(w->reactor, 10);
	iscsi_server_fini(&w->server);
	reactor_free(w->reactor);
	assert_int_equal(scsi_target_free(w->target, NULL), 0);
	vdisk_close(w->disk, NULL);
	free(w);
	return 0;
}

static struct peer *connect_peer(struct world *w, bool *freed)
{
	struct peer *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	*freed = false;
	p->freed = freed;
	iscsi_conn_init(&p->conn, &w->server, &wire);
	assert_int_equal(p->conn.state, ISCSI_XPT_UP);
	return p;
}

/* Send one PDU, a byte at a time if @bytewise; what it brings, in p->out. */
static int send_pdu(struct world *w, struct peer *p, const uint8_t *bhs, const char *text,
		    uint32_t len, bool bytewise)
{
	uint8_t pdu[2048] = { 0 };
	uint32_t size = ISCSI_BHS_SIZE + len + iscsi_pad(len);
	struct iscsi_run run;
	struct iovec iov[32];
	unsigned n;
	int r = 0;

	memcpy(pdu, bhs, ISCSI_BHS_SIZE);
	store_be24(pdu + 5, len);
	if (len)
		memcpy(pdu + ISCSI_BHS_SIZE, text, len);
	for (uint32_t i = 0; i < size && r == 0; i += bytewise ? 1 : size)
		r = iscsi_conn_input(&p->conn, pdu + i, bytewise ? 1 : size);
	if (r < 0)
		return r;
	p->out_len = 0;
	while ((n = iscsi_conn_output(&p->conn, iov, 32, &run))) {
		size_t total = 0;

		for (unsigned i = 0; i < n; i++) {
			assert_true(p->out_len + iov[i].iov_len <= sizeof(p->out));
			memcpy(p->out + p->out_len, iov[i].iov_base, iov[i].iov_len);
			p->out_len += iov[i].iov_len;
			total += iov[i].iov_len;
		}
		if (p->conn.close_when_sent)
			break;		/* to look at it before it is gone */
		iscsi_conn_sent(&p->conn, total);
	}
	(void)w;
	return 0;
}

#define NAMES "InitiatorName=iqn.a:b\0TargetName=iqn.2026-11.test:u\0"

static int login_pdu(struct world *w, struct peer *p, uint8_t flags, const char *text, uint32_t len,
		     bool bytewise)
{
	uint8_t bhs[ISCSI_BHS_SIZE] = { 0x43, flags };

	bhs[8] = 0x80;
	store_be32(bhs + 24, 100);
	return send_pdu(w, p, bhs, text, len, bytewise);
}

static void test_login(void **state)
{
	struct world *w = *state;
	static bool freed;
	struct peer *p = connect_peer(w, &freed);
	uint8_t bhs[ISCSI_BHS_SIZE] = { ISCSI_SCSI_COMMAND, 0x80 };

	assert_int_equal(login_pdu(w, p, 0x81, NAMES, sizeof(NAMES) - 1, true), 0);
	assert_int_equal(p->conn.state, ISCSI_IN_LOGIN);		/* T4 */
	assert_int_equal(p->out[0], ISCSI_LOGIN_RESPONSE);
	assert_int_equal(p->out[1], 0x81);
	assert_int_equal(load_be16(p->out + 36), 0);
	assert_int_equal(login_pdu(w, p, 0x87, "MaxBurstLength=4096", 20, true), 0);
	assert_int_equal(p->conn.state, ISCSI_LOGGED_IN);		/* T5 */
	assert_int_equal(p->conn.session->state, ISCSI_SESSION_LOGGED_IN);	/* N1, N2 */
	assert_int_not_equal(load_be16(p->out + 14), 0);
	assert_memory_equal(p->out + 48, "MaxBurstLength=4096", 20);
	/* the first command carries the login's number */
	store_be32(bhs + 24, 100);
	assert_int_equal(send_pdu(w, p, bhs, NULL, 0, true), 0);
	assert_int_equal(p->out[0], ISCSI_SCSI_RESPONSE);
	assert_int_equal(p->out[3], SCSI_CHECK_CONDITION);
	assert_int_equal(p->out[48 + 2 + 2], SCSI_UNIT_ATTENTION);
	assert_int_equal(load_be32(p->out + 28), 101);
	assert_int_equal(load_be32(p->out + 32), 101 + ISCSI_WINDOW - 1);
	/* logout: T9, T13, and nothing is left */
	bhs[0] = ISCSI_LOGOUT_REQUEST;
	store_be32(bhs + 24, 101);
	assert_int_equal(send_pdu(w, p, bhs, NULL, 0, false), 0);
	assert_int_equal(p->out[0], ISCSI_LOGOUT_RESPONSE);
	assert_int_equal(p->conn.state, ISCSI_FREE);
	iscsi_conn_sent(&p->conn, 48);
	reactor_turn(w->reactor, 0);
	assert_true(freed);
	assert_true(LIST_EMPTY(&w->server.sessions));
}

static void test_login_refused(void **state)
{
	static const struct { uint8_t flags; const char *text; uint32_t len; uint16_t status; } cases[] = {
		{ 0x81, "TargetName=iqn.2026-11.test:u", 30, ISCSI_LOGIN_MISSING_PARAMETER },
		{ 0x81, "InitiatorName=iqn.a:b", 22, ISCSI_LOGIN_MISSING_PARAMETER },
		{ 0x81, "InitiatorName=iqn.a:b\0TargetName=iqn.x:y", 41, ISCSI_LOGIN_NOT_FOUND },
		{ 0x81, "InitiatorName=iqn.a:b\0SessionType=x", 36, ISCSI_LOGIN_SESSION_TYPE },
		{ 0x80, NAMES, sizeof(NAMES) - 1, ISCSI_LOGIN_INVALID },
		{ 0x8b, NAMES, sizeof(NAMES) - 1, ISCSI_LOGIN_INVALID },
		{ 0x81, NAMES "AuthMethod=CHAP", sizeof(NAMES) + 15, ISCSI_LOGIN_AUTH_FAILED },
		{ 0x81, NAMES "CHAP_A=5", sizeof(NAMES) + 8, ISCSI_LOGIN_INITIATOR_ERROR },
		{ 0x81, "nonsense", 9, ISCSI_LOGIN_INITIATOR_ERROR },
	};
	struct world *w = *state;
	static bool freed;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct peer *p = connect_peer(w, &freed);

		assert_int_equal(login_pdu(w, p, cases[i].flags, cases[i].text, cases[i].len, false), 0);
		assert_int_equal(p->out[0], ISCSI_LOGIN_RESPONSE);
		assert_int_equal(load_be16(p->out + 36), cases[i].status);
		assert_int_equal(p->conn.state, ISCSI_IN_LOGIN);
		iscsi_conn_sent(&p->conn, p->out_len);		/* T7 */
		reactor_turn(w->reactor, 0);
		assert_true(freed);
	}
}

/* What is not a login closes the connection, wherever it comes (T6, T7). */
static void test_not_a_login(void **state)
{
	struct world *w = *state;
	static bool freed;

	for (unsigned op = 0; op < 64; op++) {
		uint8_t bhs[ISCSI_BHS_SIZE] = { (uint8_t)op, 0x80 };
		struct peer *p = connect_peer(w, &freed);

		if (op == ISCSI_LOGIN_REQUEST)
			store_be24(bhs + 5, 8193);	/* over the limit of the phase */
		if (op % 2)
			assert_int_equal(login_pdu(w, p, 0x81, NAMES, sizeof(NAMES) - 1, false), 0);
		assert_int_equal(iscsi_conn_input(&p->conn, bhs, sizeof(bhs)), -EPIPE);
		assert_int_equal(p->conn.state, ISCSI_FREE);
		reactor_turn(w->reactor, 0);
		assert_true(freed);
	}
}

/* How a session ends: by a logout, or by the loss of its connection. */
static void test_session_ends(void **state)
{
	struct world *w = *state;
	static bool freed, lost_freed;
	struct peer *p = connect_peer(w, &freed);
	uint8_t bhs[ISCSI_BHS_SIZE] = { ISCSI_LOGOUT_REQUEST | 0x40, 0x80 };

	assert_int_equal(login_pdu(w, p, 0x87 & ~4, NAMES, sizeof(NAMES) - 1, true), 0);
	assert_int_equal(p->conn.session->state, ISCSI_SESSION_LOGGED_IN);
	store_be32(bhs + 24, 100);
	send_pdu(w, p, bhs, NULL, 0, true);
	assert_int_equal(p->out[0], ISCSI_LOGOUT_RESPONSE);
	assert_int_equal(p->conn.state, ISCSI_FREE);				/* T9, T13 */
	assert_int_equal(p->conn.session->state, ISCSI_SESSION_FREE);		/* N3 */
	iscsi_conn_close(&p->conn, NULL);
	reactor_turn(w->reactor, 0);
	assert_true(freed);
	assert_int_equal(w->server.n_sessions, 0);

	p = connect_peer(w, &lost_freed);
	assert_int_equal(login_pdu(w, p, 0x87 & ~4, NAMES, sizeof(NAMES) - 1, true), 0);
	iscsi_conn_close(&p->conn, "lost");
	assert_int_equal(p->conn.session->state, ISCSI_SESSION_FREE);		/* N5, N6 */
	reactor_turn(w->reactor, 0);
	assert_true(lost_freed);
	assert_int_equal(w->server.n_sessions, 0);
}

/* The same initiator port logs in again: the old session goes first. */
static void test_reinstatement(void **state)
{
	struct world *w = *state;
	static bool old_freed, new_freed;	/* the teardown frees the rest */
	struct peer *old = connect_peer(w, &old_freed), *new;
	struct iscsi_session *s;

	assert_int_equal(login_pdu(w, old, 0x87 & ~4, NAMES, sizeof(NAMES) - 1, false), 0);
	assert_int_equal(old->conn.state, ISCSI_LOGGED_IN);
	new = connect_peer(w, &new_freed);
	assert_int_equal(login_pdu(w, new, 0x87 & ~4, NAMES, sizeof(NAMES) - 1, false), 0);
	assert_true(new->conn.login.waiting);
	assert_int_equal(new->out_len, 0);
	reactor_turn(w->reactor, 0);
	assert_true(old_freed);
	assert_int_equal(new->conn.state, ISCSI_LOGGED_IN);
	s = LIST_FIRST(&w->server.sessions);
	assert_ptr_equal(s->conn, &new->conn);
	assert_null(LIST_NEXT(s, link));
}

int main(void)
{
#define WITH_WORLD(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc),
		cmocka_unit_test(test_crc_lengths),
		cmocka_unit_test(test_decode),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_negotiate),
		WITH_WORLD(test_login),
		WITH_WORLD(test_login_refused),
		WITH_WORLD(test_not_a_login),
		WITH_WORLD(test_session_ends),
		WITH_WORLD(test_reinstatement),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
