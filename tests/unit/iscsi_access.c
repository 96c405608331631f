/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Networks, names, LUNs; CHAP's digests and binary values, and the exchange itself. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "core/compiler.h"
#include "target/iscsi/server.h"

/* ---- networks ---- */

static void address(uint8_t out[16], const char *text)
{
	struct iscsi_net net;

	assert_int_equal(iscsi_net_parse(&net, text), 0);
	memcpy(out, net.address, 16);
}

static void test_nets(void **state UNUSED)
{
	static const char *const bad[] = {
		"", "!", "/", "192.0.2.0/33", "192.0.2.1/24", "2001:db8::/129", "2001:db8::1/64",
		"192.0.2", "192.0.2.0/", "192.0.2.0/-1", "192.0.2.0/ 24", "192.0.2.0/2 4",
		"192.0.2.0/0024", "host.example", "::1%lo", "!!192.0.2.0/24", "fe80::/10x",
		"1111:2222:3333:4444:5555:6666:7777:8888:9999/1",
	};
	static const struct { const char *nets[3]; const char *address; bool allowed; } cases[] = {
		{ { NULL }, "192.0.2.1", true },
		{ { "192.0.2.0/24" }, "192.0.2.255", true },
		{ { "192.0.2.0/24" }, "192.0.3.0", false },
		{ { "192.0.2.0/24" }, "::ffff:192.0.2.1", true },	/* mapped is the same */
		{ { "192.0.2.0/23" }, "192.0.3.77", true },
		{ { "192.0.2.7" }, "192.0.2.7", true },
		{ { "192.0.2.7" }, "192.0.2.6", false },
		{ { "0.0.0.0/0" }, "203.0.113.1", true },
		{ { "0.0.0.0/0" }, "2001:db8::1", false },	/* all of IPv4 only */
		{ { "::/0" }, "203.0.113.1", true },
		{ { "2001:db8::/33" }, "2001:db8:7fff::1", true },
		{ { "2001:db8::/33" }, "2001:db8:8000::1", false },
		{ { "!192.0.2.66" }, "192.0.2.66", false },
		{ { "!192.0.2.66" }, "192.0.2.67", true },
		{ { "192.0.2.0/24", "!192.0.2.64/26", "10.0.0.0/8" }, "192.0.2.100", false },
		{ { "192.0.2.0/24", "!192.0.2.64/26", "10.0.0.0/8" }, "192.0.2.128", true },
		{ { "192.0.2.0/24", "!192.0.2.64/26", "10.0.0.0/8" }, "10.1.2.3", true },
		{ { "192.0.2.0/24", "!192.0.2.64/26", "10.0.0.0/8" }, "11.1.2.3", false },
	};
	struct iscsi_net nets[3];
	uint8_t a[16];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(iscsi_net_parse(&nets[0], bad[i]), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned n = 0;

		for (; n < 3 && cases[i].nets[n]; n++)
			assert_int_equal(iscsi_net_parse(&nets[n], cases[i].nets[n]), 0);
		address(a, cases[i].address);
		assert_int_equal(iscsi_nets_allow(nets, n, a), cases[i].allowed);
	}
	address(a, "127.3.4.5");
	assert_true(iscsi_address_loopback(a));
	address(a, "::1");
	assert_true(iscsi_address_loopback(a));
	address(a, "::2");
	assert_false(iscsi_address_loopback(a));
}

/* ---- throttle ---- */

static void test_throttle(void **state UNUSED)
{
	const struct iscsi_limits limits = { .logins_per_second = 10, .failed_logins_per_minute = 3 };
	const struct iscsi_limits none = { 0 };
	struct iscsi_throttle *t = iscsi_throttle_new();
	uint8_t a[16], b[16], neighbour[16], other[16];
	unsigned n;

	address(a, "192.0.2.1");
	address(b, "192.0.2.2");
	/* a burst of two seconds' worth, then one every 100 ms; nobody else is held up */
	for (n = 0; iscsi_throttle_login(t, a, 5000, &limits); n++)
		;
	assert_int_equal(n, 20);
	assert_true(iscsi_throttle_login(t, b, 5000, &limits));
	assert_false(iscsi_throttle_login(t, a, 5099, &limits));
	assert_true(iscsi_throttle_login(t, a, 5100, &limits));
	assert_false(iscsi_throttle_login(t, a, 5100, &limits));
	assert_true(iscsi_throttle_login(t, a, 5100, &none));
	for (n = 0; iscsi_throttle_login(t, a, 1000000, &limits); n++)
		;
	assert_int_equal(n, 20);
	/* failures: three, then one every 20 s */
	for (n = 0; n < 5; n++)
		iscsi_throttle_failed(t, b, 6000, &limits);
	assert_false(iscsi_throttle_login(t, b, 6000, &limits));
	assert_false(iscsi_throttle_login(t, b, 25999, &limits));
	assert_true(iscsi_throttle_login(t, b, 26000, &limits));
	iscsi_throttle_failed(t, b, 26000, &limits);
	assert_false(iscsi_throttle_login(t, b, 26001, &limits));
	/* an IPv6 host has all of its /64 */
	address(a, "2001:db8::1");
	address(neighbour, "2001:db8::ffff:1");
	address(other, "2001:db8:0:1::1");
	for (n = 0; n < 3; n++)
		iscsi_throttle_failed(t, a, 30000, &limits);
	assert_false(iscsi_throttle_login(t, neighbour, 30000, &limits));
	assert_true(iscsi_throttle_login(t, other, 30000, &limits));
	/* any number of addresses is taken; a clock that stands is no harm */
	for (unsigned i = 1; i < 100000; i++) {
		store_be32(a, 0x20010db8 + i);
		assert_true(iscsi_throttle_login(t, a, 0, &limits));
	}
	iscsi_throttle_free(t);
}

/* ---- CHAP ---- */

/*
 * Python: hashlib.new(NAME, bytes([7]) + b"a secret of mine" + bytes(range(32)))
 */
static void test_digests(void **state UNUSED)
{
	static const struct { enum iscsi_chap_digest digest; const char *name, *want; } cases[] = {
		{ ISCSI_CHAP_MD5, "md5", "0x81300ce091fe305692c473b8a811f12f" },
		{ ISCSI_CHAP_SHA1, "sha1", "0x142b2038f47b6336f62c8dd890dbb659c33ede53" },
		{ ISCSI_CHAP_SHA256, "sha256", "0x13ecd91fb4edfa85e0fc57ecc0592be6e6b647a18c022ec3e258fa41c31706b4" },
		{ ISCSI_CHAP_SHA3_256, "sha3-256", "0x9d22efb210367cf5b1ce31d8d1bb96c8776f6a3deec26c8a90727a0ddca82af6" },
	};
	uint8_t challenge[32], out[ISCSI_CHAP_RESPONSE_MAX];
	const char *missing;
	char text[2 * sizeof(out) + 3];

	for (unsigned i = 0; i < sizeof(challenge); i++)
		challenge[i] = (uint8_t)i;
	assert_true(iscsi_chap_init(&missing));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = iscsi_chap_response(out, cases[i].digest, 7, "a secret of mine", 16,
						 challenge, sizeof(challenge));

		assert_int_equal(iscsi_chap_digest_by_name(cases[i].name), cases[i].digest);
		assert_int_equal(len, iscsi_chap_digest_size(cases[i].digest));
		iscsi_binary_encode(text, out, len);
		assert_string_equal(text, cases[i].want);
	}
	assert_int_equal(iscsi_chap_digest_by_name("md4"), 0);
	assert_int_equal(iscsi_chap_response(out, 4, 7, "", 0, "", 0), 0);
	assert_int_equal(iscsi_chap_choose("5,6,7,8", ISCSI_CHAP_ALL), ISCSI_CHAP_SHA3_256);
	assert_int_equal(iscsi_chap_choose("5,6", ISCSI_CHAP_ALL), ISCSI_CHAP_SHA1);
	assert_int_equal(iscsi_chap_choose("5,7", 1u << ISCSI_CHAP_MD5), ISCSI_CHAP_MD5);
	assert_int_equal(iscsi_chap_choose("55,66,77", ISCSI_CHAP_ALL), 0);
	assert_int_equal(iscsi_chap_choose("5,7", 1u << ISCSI_CHAP_SHA1), 0);
	assert_int_equal(iscsi_chap_choose("", ISCSI_CHAP_ALL), 0);
}

static void test_binary(void **state UNUSED)
{
	static const struct { const char *text; int len; const char *bytes; } cases[] = {
		{ "0x00ff", 2, "\x00\xff" },
		{ "0XaBc", 2, "\x0a\xbc" },
		{ "0bAP8=", 2, "\x00\xff" },
		{ "0BAA==", 1, "\x00" },
		{ "0bYWJj", 3, "abc" },
		{ "0bYWJjZA==", 4, "abcd" },
		{ "0x", -EINVAL, NULL },
		{ "0b", -EINVAL, NULL },
		{ "", -EINVAL, NULL },
		{ "12", -EINVAL, NULL },
		{ "0xg0", -EINVAL, NULL },
		{ "0x0011223344", -E2BIG, NULL },
		{ "0bAAAAAAA=", -E2BIG, NULL },
		{ "0bAAA", -EINVAL, NULL },
		{ "0bA===", -EINVAL, NULL },
		{ "0bAB==", -EINVAL, NULL },	/* bits left over */
		{ "0bAA=A", -EINVAL, NULL },
		{ "0bA A=", -EINVAL, NULL },
		{ "0b====", -EINVAL, NULL },
	};
	uint8_t out[4 + 4];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(out, 0x5a, sizeof(out));
		assert_int_equal(iscsi_binary_decode(out, 4, cases[i].text), cases[i].len);
		if (cases[i].len > 0)
			assert_memory_equal(out, cases[i].bytes, cases[i].len);
		assert_memory_equal(out + 4, "\x5a\x5a\x5a\x5a", 4);	/* not past the end */
	}
}

static void test_keys(void **state UNUSED)
{
	static const struct { const char *key, *value; bool ours, good; } cases[] = {
		{ "CHAP_A", "5,6", true, true }, { "CHAP_I", "0", true, true },
		{ "CHAP_I", "255", true, true }, { "CHAP_I", "0xfe", true, true },
		{ "CHAP_I", "256", true, false }, { "CHAP_I", "-1", true, false },
		{ "CHAP_I", "", true, false }, { "CHAP_I", "1x", true, false },
		{ "CHAP_I", "99999999999999999999999", true, false },
		{ "CHAP_N", "", true, false }, { "CHAP_N", "0x41", true, true },
		{ "CHAP_C", "0x00", true, true }, { "CHAP_C", "junk", true, false },
		{ "CHAP_R", "0b=", true, false }, { "CHAP_X", "1", false, false },
		{ "chap_a", "5", false, false },
	};
	struct iscsi_pair pair;
	uint16_t status;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct iscsi_auth_keys k = { 0 };

		snprintf(pair.key, sizeof(pair.key), "%s", cases[i].key);
		snprintf(pair.value, sizeof(pair.value), "%s", cases[i].value);
		assert_int_equal(iscsi_auth_key(&k, &pair, &status), cases[i].ours);
		if (cases[i].ours)
			assert_int_equal(!status, cases[i].good);
		if (cases[i].ours) {		/* no key twice */
			assert_true(iscsi_auth_key(&k, &pair, &status));
			assert_int_not_equal(status, 0);
		}
	}
	/* the longest challenge there may be, and one byte more */
	memset(pair.value, 'a', sizeof(pair.value));
	memcpy(pair.value, "0x", 2);
	strcpy(pair.key, "CHAP_C");
	for (unsigned more = 0; more < 2; more++) {
		struct iscsi_auth_keys k = { 0 };
		struct iscsi_text text = { 0 }, copy = { 0 };
		uint32_t pos = 0;
		struct iscsi_pair got;

		pair.value[ISCSI_CHAP_VALUE_MAX] = '\0';
		assert_int_equal(iscsi_text_put(&text, "CHAP_C", pair.value), 0);
		if (more) {
			iscsi_text_append(&copy, text.buf, text.len - 1, ISCSI_TEXT_MAX);
			iscsi_text_append(&copy, "a", 2, ISCSI_TEXT_MAX);
			assert_int_equal(iscsi_text_next(&copy, &pos, &got), -EINVAL);
		} else {
			assert_int_equal(iscsi_text_next(&text, &pos, &got), 1);
			assert_true(iscsi_auth_key(&k, &got, &status));
			assert_int_equal(status, 0);
			assert_int_equal(k.challenge.len, ISCSI_CHAP_BINARY_MAX);
		}
		iscsi_text_clear(&text);
		iscsi_text_clear(&copy);
	}
}

/* ---- the exchange ---- */

#define TARGET "iqn.2026-11.test:u"

struct world {
	struct reactor *reactor;
	struct iscsi_server server;
	struct scsi_target *scsi;
	struct iscsi_target *target;
	struct vdisk *disk;
	struct iscsi_conn *conn;
	unsigned freed;
	char answer[8192];	/* the text of the last answer */
	uint8_t flags;
	uint16_t status;
};
static struct world *world;

static void wire_output(struct iscsi_conn *c UNUSED)
{
}

static void wire_pause(struct iscsi_conn *c UNUSED, bool paused UNUSED)
{
}

static void wire_free(struct iscsi_conn *c)
{
	world->freed++;
	free(c);
}

static const struct iscsi_wire wire = {
	.output = wire_output, .pause = wire_pause, .close = wire_output, .free = wire_free,
};

static struct iscsi_user user(const char *name, const char *secret)
{
	return (struct iscsi_user) {
		.name = strdup(name), .secret = (uint8_t *)strdup(secret),
		.secret_len = strlen(secret),
	};
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	const char *missing;
	struct iscsi_auth *a;

	world = w;
	assert_true(iscsi_chap_init(&missing));
	assert_int_equal(vdisk_open_memory(&w->disk, 1u << 20, NULL), 0);
	assert_int_equal(reactor_new(&w->reactor, 8u << 20, NULL), 0);
	w->scsi = scsi_target_new(TARGET);
	assert_int_equal(scsi_target_add(w->scsi, 0, w->disk, false, NULL), 0);
	iscsi_server_init(&w->server, w->reactor);
	w->target = iscsi_server_add_target(&w->server, w->scsi);
	a = &w->target->access.auth;
	a->users = calloc(2, sizeof(*a->users));
	a->users[0] = user("other", "some other secret");
	a->users[1] = user("alice", "the secret of alice");
	a->n_users = 2;
	a->self = user("server", "the server's own secret");
	a->digests = ISCSI_CHAP_ALL;
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
	scsi_target_free(w->scsi, NULL);
	vdisk_close(w->disk, NULL);
	free(w);
	return 0;
}

static void connect_peer(struct world *w, const char *from)
{
	w->conn = calloc(1, sizeof(*w->conn));
	address(w->conn->peer_address, from);
	iscsi_conn_init(w->conn, &w->server, &wire);
}

/* One request with this text, its '|' for NULs; the answer in @w. */
static void say(struct world *w, uint8_t flags, const char *text)
{
	uint8_t pdu[ISCSI_BHS_SIZE + 4096] = { 0x43, flags };
	uint32_t len = (uint32_t)strlen(text);
	struct iscsi_run run;
	struct iovec iov[8];
	unsigned n;
	size_t total = 0;

	pdu[8] = 0x80;
	store_be24(pdu + 5, len);
	for (uint32_t i = 0; i < len; i++)
		pdu[ISCSI_BHS_SIZE + i] = text[i] == '|' ? 0 : (uint8_t)text[i];
	iscsi_conn_input(w->conn, pdu, ISCSI_BHS_SIZE + len + iscsi_pad(len));
	w->status = 0xffff;
	w->answer[0] = '\0';
	if (w->conn->closed)
		return;
	n = iscsi_conn_output(w->conn, iov, 8, &run);
	assert_true(n > 0);
	w->flags = ((const uint8_t *)iov[0].iov_base)[1];
	w->status = load_be16((const uint8_t *)iov[0].iov_base + 36);
	if (n > 1 && iov[1].iov_len >= 8) {
		memcpy(w->answer, iov[1].iov_base, iov[1].iov_len);
		for (size_t i = 0; i < iov[1].iov_len; i++)
			if (!w->answer[i])
				w->answer[i] = '|';
		w->answer[iov[1].iov_len] = '\0';
	}
	for (unsigned i = 0; i < n; i++)
		total += iov[i].iov_len;
	iscsi_conn_sent(w->conn, total);
}

/* Let a connection that was refused go. */
static void gone(struct world *w)
{
	unsigned before = w->freed;

	for (int i = 0; i < 100 && w->freed == before; i++)
		reactor_turn(w->reactor, 1);
	assert_int_equal(w->freed, before + 1);
}

#define NAMES "InitiatorName=iqn.2026-11.test:i|TargetName=" TARGET "|"

static const char *value_of(const struct world *w, const char *key)
{
	static char value[512];
	const char *at = strstr(w->answer, key);

	assert_non_null(at);
	at += strlen(key) + 1;
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "|"), at);
	return value;
}

/* As far as the challenge. */
static void to_challenge(struct world *w, const char *algorithms)
{
	char text[64];

	connect_peer(w, "192.0.2.1");
	say(w, 0x81, NAMES "AuthMethod=CHAP,None|");
	assert_int_equal(w->status, 0);
	assert_int_equal(w->flags, 0x00);		/* no transition yet */
	assert_string_equal(value_of(w, "AuthMethod"), "CHAP");
	snprintf(text, sizeof(text), "CHAP_A=%s|", algorithms);
	say(w, 0x00, text);
}

/* CHAP_N and CHAP_R to the challenge in the last answer. */
static void make_response(const struct world *w, char *out, size_t size, const char *name,
			  const char *secret)
{
	uint8_t challenge[64], response[ISCSI_CHAP_RESPONSE_MAX];
	enum iscsi_chap_digest digest = (unsigned)atoi(value_of(w, "CHAP_A"));
	uint8_t id = (uint8_t)atoi(value_of(w, "CHAP_I"));
	int len = iscsi_binary_decode(challenge, sizeof(challenge), value_of(w, "CHAP_C"));
	char hex[2 * ISCSI_CHAP_RESPONSE_MAX + 3];
	size_t n;

	assert_int_equal(len, ISCSI_CHAP_CHALLENGE);
	n = iscsi_chap_response(response, digest, id, secret, strlen(secret), challenge, (size_t)len);
	iscsi_binary_encode(hex, response, n);
	snprintf(out, size, "CHAP_N=%s|CHAP_R=%s|", name, hex);
}

static void test_one_way(void **state)
{
	struct world *w = *state;
	char text[256];

	for (char a = '5'; a <= '8'; a++) {
		to_challenge(w, (const char[]){ a, '\0' });
		assert_int_equal(w->status, 0);
		make_response(w, text, sizeof(text), "alice", "the secret of alice");
		say(w, 0x87 & ~4, text);
		assert_int_equal(w->status, 0);
		assert_int_equal(w->conn->state, ISCSI_LOGGED_IN);
		assert_string_equal(w->conn->session->user, "alice");
		iscsi_conn_close(w->conn, NULL);
		gone(w);
	}
}

static void test_wrong(void **state)
{
	struct world *w = *state;
	char text[600], first[256];

	/* the secret, the name, another user's secret, an empty or long response */
	static const struct { const char *name, *secret; } wrong[] = {
		{ "alice", "the secret of alicf" }, { "alic", "the secret of alice" },
		{ "nobody", "" }, { "Alice", "the secret of alice" },
		{ "alice", "some other secret" }, { "server", "the server's own secret" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		to_challenge(w, "7");
		make_response(w, text, sizeof(text), wrong[i].name, wrong[i].secret);
		say(w, 0x81, text);
		assert_int_equal(w->status, ISCSI_LOGIN_AUTH_FAILED);
		assert_string_equal(w->answer, "");
		gone(w);
	}
	to_challenge(w, "7");
	say(w, 0x81, "CHAP_N=alice|CHAP_R=0x00|");
	assert_int_equal(w->status, ISCSI_LOGIN_AUTH_FAILED);
	gone(w);
	/* an old answer: every challenge is another one */
	to_challenge(w, "7");
	make_response(w, first, sizeof(first), "alice", "the secret of alice");
	iscsi_conn_close(w->conn, NULL);
	gone(w);
	to_challenge(w, "7");
	make_response(w, text, sizeof(text), "alice", "the secret of alice");
	assert_string_not_equal(text, first);
	say(w, 0x81, first);
	assert_int_equal(w->status, ISCSI_LOGIN_AUTH_FAILED);
	gone(w);
	/* nothing in common; leaving without; not even offering it; skipping the stage */
	to_challenge(w, "4,9");
	assert_int_equal(w->status, ISCSI_LOGIN_AUTH_FAILED);
	gone(w);
	static const struct { uint8_t flags; const char *text; uint16_t status; } refused[] = {
		{ 0x81, NAMES "AuthMethod=None|", ISCSI_LOGIN_AUTH_FAILED },
		{ 0x81, NAMES, ISCSI_LOGIN_AUTH_FAILED },
		{ 0x87, NAMES, ISCSI_LOGIN_AUTH_FAILED },
		{ 0x83, NAMES "AuthMethod=None|", ISCSI_LOGIN_AUTH_FAILED },
		{ 0x81, NAMES "CHAP_A=5|", ISCSI_LOGIN_INITIATOR_ERROR },
		{ 0x81, NAMES "CHAP_N=alice|CHAP_R=0x00|", ISCSI_LOGIN_INITIATOR_ERROR },
	};
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		connect_peer(w, "192.0.2.1");
		say(w, refused[i].flags, refused[i].text);
		assert_int_equal(w->status, refused[i].status);
		gone(w);
	}
	/* a transition is not granted before the end, however often it is asked for */
	connect_peer(w, "192.0.2.1");
	say(w, 0x83, NAMES "AuthMethod=CHAP|");
	assert_int_equal(w->flags, 0x00);
	say(w, 0x83, "CHAP_A=5|");
	assert_int_equal(w->flags, 0x00);
	say(w, 0x83, "");
	assert_int_equal(w->status, ISCSI_LOGIN_INITIATOR_ERROR);
	gone(w);
}

static void test_mutual(void **state)
{
	struct world *w = *state;
	uint8_t want[ISCSI_CHAP_RESPONSE_MAX];
	char text[600], more[1200], hex[2 * sizeof(want) + 3], ours[128];
	size_t len;

	to_challenge(w, "5,8");
	make_response(w, text, sizeof(text), "alice", "the secret of alice");
	snprintf(more, sizeof(more), "%sCHAP_I=9|CHAP_C=0b%s|", text, "YWJjZGVmZ2hpamtsbW5vcA==");
	say(w, 0x81, more);
	assert_int_equal(w->status, 0);
	assert_int_equal(w->flags, 0x81);
	assert_string_equal(value_of(w, "CHAP_N"), "server");
	len = iscsi_chap_response(want, ISCSI_CHAP_SHA3_256, 9, "the server's own secret", 23,
				  "abcdefghijklmnop", 16);
	iscsi_binary_encode(hex, want, len);
	assert_string_equal(value_of(w, "CHAP_R"), hex);
	iscsi_conn_close(w->conn, NULL);
	gone(w);
	/* our own challenge comes back: of this connection, or of another one */
	for (int other = 0; other < 2; other++) {
		struct iscsi_conn *first = NULL;

		to_challenge(w, "7");
		snprintf(ours, sizeof(ours), "%s", value_of(w, "CHAP_C"));
		if (other) {
			first = w->conn;
			to_challenge(w, "7");
		}
		make_response(w, text, sizeof(text), "alice", "the secret of alice");
		snprintf(more, sizeof(more), "%sCHAP_I=9|CHAP_C=%s|", text, ours);
		say(w, 0x81, more);
		assert_int_equal(w->status, ISCSI_LOGIN_AUTH_FAILED);
		assert_string_equal(w->answer, "");
		gone(w);
		if (first) {
			iscsi_conn_close(first, NULL);
			gone(w);
		}
	}
	/* half of it; we answer nobody who has not proved who they are */
	to_challenge(w, "7");
	make_response(w, text, sizeof(text), "alice", "the secret of alice");
	snprintf(more, sizeof(more), "%sCHAP_I=9|", text);
	say(w, 0x81, more);
	assert_int_equal(w->status, ISCSI_LOGIN_INITIATOR_ERROR);
	gone(w);
	to_challenge(w, "7");
	say(w, 0x81, "CHAP_N=alice|CHAP_R=0x0011|CHAP_I=9|CHAP_C=0x00112233|");
	assert_int_equal(w->status, ISCSI_LOGIN_AUTH_FAILED);
	assert_string_equal(w->answer, "");
	gone(w);
	/* and to one who asks when we have no secret, we say so */
	iscsi_user_clear(&w->target->access.auth.self);
	to_challenge(w, "7");
	make_response(w, text, sizeof(text), "alice", "the secret of alice");
	snprintf(more, sizeof(more), "%sCHAP_I=9|CHAP_C=0x00112233|", text);
	say(w, 0x81, more);
	assert_int_equal(w->status, ISCSI_LOGIN_AUTH_FAILED);
	gone(w);
}

/* Addresses, names and portal groups; who fails is told that there is nothing. */
static void test_admission(void **state)
{
	struct world *w = *state;
	struct iscsi_access *a = &w->target->access;

	iscsi_access_clear(a);
	a->nets = calloc(1, sizeof(*a->nets));
	a->n_nets = 1;
	iscsi_net_parse(a->nets, "192.0.2.0/24");
	a->rules = calloc(2, sizeof(*a->rules));
	a->n_rules = 2;
	a->rules[0] = (struct iscsi_rule) { .pattern = strdup("iqn.*.test:none") };
	a->rules[1] = (struct iscsi_rule) { .pattern = strdup("IQN.2026-11.test:?") };
	scsi_view_add(a->rules[1].view.visible, 0);
	connect_peer(w, "192.0.3.1");
	say(w, 0x83, NAMES);
	assert_int_equal(w->status, ISCSI_LOGIN_NOT_FOUND);
	gone(w);
	connect_peer(w, "192.0.2.1");
	say(w, 0x83, "InitiatorName=iqn.2026-11.test:ii|TargetName=" TARGET "|");
	assert_int_equal(w->status, ISCSI_LOGIN_NOT_FOUND);
	gone(w);
	connect_peer(w, "192.0.2.1");
	say(w, 0x83, NAMES);
	assert_int_equal(w->status, 0);
	assert_true(scsi_view_has(w->conn->session->nexus.view.visible, 0));
	assert_false(scsi_view_has(w->conn->session->nexus.view.writable, 0));
	assert_false(scsi_view_has(w->conn->session->nexus.view.visible, 1));
	iscsi_conn_close(w->conn, NULL);
	gone(w);
	/* on another portal group the target is not there */
	a->groups[0] = 7;
	a->n_groups = 1;
	connect_peer(w, "192.0.2.1");
	say(w, 0x83, NAMES);
	assert_int_equal(w->status, ISCSI_LOGIN_NOT_FOUND);
	gone(w);
	connect_peer(w, "192.0.2.1");
	w->conn->group = 7;
	say(w, 0x81, NAMES);
	assert_string_equal(value_of(w, "TargetPortalGroupTag"), "7");
	iscsi_conn_close(w->conn, NULL);
	gone(w);
	/* sent elsewhere */
	a->n_groups = 0;
	a->redirect = strdup("192.0.2.99:3260");
	connect_peer(w, "192.0.2.1");
	say(w, 0x83, NAMES);
	assert_int_equal(w->status, ISCSI_LOGIN_MOVED_TEMPORARILY);
	assert_string_equal(w->answer, "TargetAddress=192.0.2.99:3260|");
	gone(w);
}

int main(void)
{
#define WITH_WORLD(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nets),
		cmocka_unit_test(test_throttle),
		cmocka_unit_test(test_digests),
		cmocka_unit_test(test_binary),
		cmocka_unit_test(test_keys),
		WITH_WORLD(test_one_way),
		WITH_WORLD(test_wrong),
		WITH_WORLD(test_mutual),
		WITH_WORLD(test_admission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
