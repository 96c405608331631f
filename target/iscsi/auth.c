/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * auth.c - the security stage: AuthMethod, and CHAP (RFC 7143, 12.1.3)
 *
 *	initiator			target
 *	AuthMethod=CHAP,None		AuthMethod=CHAP
 *	CHAP_A=7,5			CHAP_A=7 CHAP_I= CHAP_C=
 *	CHAP_N= CHAP_R= [CHAP_I= CHAP_C=]	[CHAP_N= CHAP_R=]
 *
 * Invariants
 *   1. A challenge is of this connection, random, and good for one answer: right
 *      or wrong, none is taken after it.
 *   2. We never answer a challenge that we made ourselves (on any connection),
 *      nor before the initiator has proved who it is.
 *   3. A user that does not exist fails as late as a wrong secret does, and with
 *      the same words.
 */
#include <errno.h>
#include <stdio.h>

#include "target/iscsi/server.h"
#include "target/log.h"

const struct iscsi_auth *iscsi_auth_of(const struct iscsi_conn *c)
{
	return c->login.target ? &c->login.target->access.auth : &c->server->discovery.auth;
}

/* A binary value; false if it is not one, or too long. */
static bool take_binary(struct iscsi_binary *out, const char *text)
{
	int len = iscsi_binary_decode(out->bytes, sizeof(out->bytes), text);

	out->here = true;
	out->len = len > 0 ? (uint32_t)len : 0;
	return len > 0;
}

/* An identifier, 0 to 255, decimal or hexadecimal. */
static bool take_id(struct iscsi_auth_keys *k, const char *text)
{
	char *end;
	unsigned long id;

	if (!*text || strspn(text, "0123456789abcdefxABCDEFX") != strlen(text))
		return false;
	id = strtoul(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
	k->has_id = !*end && id <= 255;
	k->id = (uint8_t)id;
	return k->has_id;
}

bool iscsi_auth_key(struct iscsi_auth_keys *k, const struct iscsi_pair *pair, uint16_t *status)
{
	static const char *const names[] = { "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R" };
	bool ok = false;
	unsigned i = 0;

	while (i < ARRAY_SIZE(names) && strcmp(names[i], pair->key) != 0)
		i++;
	if (i == ARRAY_SIZE(names))
		return false;
	if (!(k->seen & 1u << i)) {
		k->seen |= 1u << i;
		switch (pair->key[5]) {
		case 'A':
			ok = strlen(pair->value) <= ISCSI_VALUE_MAX;
			snprintf(k->algorithms, sizeof(k->algorithms), "%.255s", pair->value);
			break;
		case 'N':
			ok = pair->value[0] != '\0';
			snprintf(k->name, sizeof(k->name), "%.255s", pair->value);
			break;
		case 'I':
			ok = take_id(k, pair->value);
			break;
		case 'C':
			ok = take_binary(&k->challenge, pair->value);
			break;
		case 'R':
			ok = take_binary(&k->response, pair->value);
			break;
		}
	}
	*status = ok ? ISCSI_LOGIN_SUCCESS : ISCSI_LOGIN_INITIATOR_ERROR;
	return true;
}

static uint16_t answer(struct iscsi_conn *c, const char *key, const char *value)
{
	return iscsi_text_put(&c->text_out, key, value) < 0 ? ISCSI_LOGIN_OUT_OF_RESOURCES :
							      ISCSI_LOGIN_SUCCESS;
}

static uint16_t answer_binary(struct iscsi_conn *c, const char *key, const void *bytes, size_t len)
{
	char text[2 * ISCSI_CHAP_CHALLENGE + 3];

	iscsi_binary_encode(text, bytes, len);
	return answer(c, key, text);
}

static uint16_t refuse(struct iscsi_conn *c, const char *why)
{
	log_info("%s: %s", c->peer, why);
	return ISCSI_LOGIN_AUTH_FAILED;
}

/* ---- the steps ---- */

static uint16_t choose_method(struct iscsi_conn *c, const struct iscsi_auth_keys *k)
{
	const struct iscsi_params *p = &c->params;
	bool needed = iscsi_auth_of(c)->n_users;

	if (k->seen)
		return ISCSI_LOGIN_INITIATOR_ERROR;	/* keys of a method not agreed on */
	if (!p->auth_offered)
		return ISCSI_LOGIN_SUCCESS;
	if (needed ? !p->offers_chap : !p->offers_none)
		return refuse(c, "no authentication method in common");
	c->login.auth.step = needed ? ISCSI_AUTH_ALGORITHM : ISCSI_AUTH_DONE;
	return answer(c, "AuthMethod", needed ? "CHAP" : "None");
}

static uint16_t send_challenge(struct iscsi_conn *c, const struct iscsi_auth_keys *k)
{
	struct iscsi_login_auth *a = &c->login.auth;
	char number[16];
	uint16_t r;

	if (!k->algorithms[0] || k->seen & ~1u)
		return ISCSI_LOGIN_INITIATOR_ERROR;
	a->digest = iscsi_chap_choose(k->algorithms, iscsi_auth_of(c)->digests);
	if (!a->digest)
		return refuse(c, "no CHAP algorithm in common");
	iscsi_chap_random(&a->id, sizeof(a->id));
	iscsi_chap_random(a->challenge, sizeof(a->challenge));
	a->step = ISCSI_AUTH_RESPONSE;
	snprintf(number, sizeof(number), "%u", (unsigned)a->digest);
	r = answer(c, "CHAP_A", number);
	snprintf(number, sizeof(number), "%u", a->id);
	if (!r)
		r = answer(c, "CHAP_I", number);
	return r ? r : answer_binary(c, "CHAP_C", a->challenge, sizeof(a->challenge));
}

/* Invariant 3: all of it is done for a user that does not exist, too. */
static bool response_right(struct iscsi_conn *c, const struct iscsi_auth_keys *k,
			   const struct iscsi_user *user)
{
	const struct iscsi_login_auth *a = &c->login.auth;
	uint8_t want[ISCSI_CHAP_RESPONSE_MAX], dummy[ISCSI_SECRET_MIN];
	size_t size = iscsi_chap_digest_size(a->digest), len;
	bool right;

	iscsi_chap_random(dummy, sizeof(dummy));
	len = iscsi_chap_response(want, a->digest, a->id, user ? user->secret : dummy,
				  user ? user->secret_len : sizeof(dummy),
				  a->challenge, sizeof(a->challenge));
	right = len == size && k->response.len == size &&
		iscsi_chap_equal(want, k->response.bytes, size) && user;
	explicit_bzero(want, sizeof(want));
	return right;
}

/* Did we make this challenge, for anybody who is logging in (invariant 2)? */
static bool is_ours(const struct iscsi_conn *c, const struct iscsi_binary *challenge)
{
	const struct iscsi_conn *other;

	if (challenge->len != ISCSI_CHAP_CHALLENGE)
		return false;
	LIST_FOREACH(other, &c->server->conns, link)
		if (!memcmp(other->login.auth.challenge, challenge->bytes, ISCSI_CHAP_CHALLENGE))
			return true;
	return false;
}

static uint16_t prove_ourselves(struct iscsi_conn *c, const struct iscsi_auth_keys *k)
{
	const struct iscsi_user *self = &iscsi_auth_of(c)->self;
	uint8_t response[ISCSI_CHAP_RESPONSE_MAX];
	size_t len;
	uint16_t r;

	if (!k->has_id && !k->challenge.here)
		return ISCSI_LOGIN_SUCCESS;
	if (!k->has_id || !k->challenge.here)
		return ISCSI_LOGIN_INITIATOR_ERROR;
	if (!self->name)
		return refuse(c, "the initiator wants us to authenticate, and we have no secret");
	if (is_ours(c, &k->challenge))
		return refuse(c, "our own challenge was sent back to us");
	len = iscsi_chap_response(response, c->login.auth.digest, k->id, self->secret,
				  self->secret_len, k->challenge.bytes, k->challenge.len);
	if (!len)
		return ISCSI_LOGIN_OUT_OF_RESOURCES;
	r = answer(c, "CHAP_N", self->name);
	return r ? r : answer_binary(c, "CHAP_R", response, len);
}

static uint16_t check_response(struct iscsi_conn *c, const struct iscsi_auth_keys *k)
{
	const struct iscsi_user *user = iscsi_auth_user(iscsi_auth_of(c), k->name);
	char name[64];

	if (!k->name[0] || !k->response.here || k->algorithms[0])
		return ISCSI_LOGIN_INITIATOR_ERROR;
	c->login.auth.step = ISCSI_AUTH_METHOD;		/* invariant 1 */
	if (!response_right(c, k, user)) {
		log_warnx("%s: CHAP of user \"%s\" failed", c->peer,
			  log_safe(name, sizeof(name), k->name));
		return ISCSI_LOGIN_AUTH_FAILED;
	}
	c->login.auth.step = ISCSI_AUTH_DONE;
	c->login.auth.user = strdup(user->name);
	if (!c->login.auth.user)
		return ISCSI_LOGIN_OUT_OF_RESOURCES;
	return prove_ourselves(c, k);
}

uint16_t iscsi_auth_request(struct iscsi_conn *c, const struct iscsi_auth_keys *k)
{
	switch (c->login.auth.step) {
	case ISCSI_AUTH_METHOD:
		return choose_method(c, k);
	case ISCSI_AUTH_ALGORITHM:
		return send_challenge(c, k);
	case ISCSI_AUTH_RESPONSE:
		return check_response(c, k);
	case ISCSI_AUTH_DONE:
		break;
	}
	return k->seen ? ISCSI_LOGIN_INITIATOR_ERROR : ISCSI_LOGIN_SUCCESS;
}

bool iscsi_auth_satisfied(const struct iscsi_conn *c)
{
	return c->login.auth.user || !iscsi_auth_of(c)->n_users;
}
