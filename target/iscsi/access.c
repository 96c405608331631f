/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* access.c - see access.h */
#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <netinet/in.h>
#include <stdio.h>

#include "core/compiler.h"
#include "target/iscsi/access.h"

/* ---- networks ---- */

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

static void map_v4(uint8_t out[16], const void *v4)
{
	memcpy(out, mapped, sizeof(mapped));
	memcpy(out + 12, v4, 4);
}

/* A prefix length in decimal, at most @max; false otherwise. */
static bool parse_prefix(const char *text, unsigned max, unsigned *out)
{
	size_t n = strspn(text, "0123456789");

	if (n == 0 || n > 3 || text[n])
		return false;
	*out = (unsigned)strtoul(text, NULL, 10);
	return *out <= max;
}

static bool bits_zero_from(const uint8_t a[16], unsigned prefix)
{
	for (unsigned i = prefix; i < 128; i++)
		if (a[i / 8] >> (7 - i % 8) & 1)
			return false;
	return true;
}

int iscsi_net_parse(struct iscsi_net *out, const char *text)
{
	struct iscsi_net net = { .except = text[0] == '!' };
	const char *start = text + net.except, *slash = strchr(start, '/');
	size_t len = slash ? (size_t)(slash - start) : strlen(start);
	char address[INET6_ADDRSTRLEN];
	uint8_t v4[4];
	unsigned max = 128, prefix;

	if (len >= sizeof(address))
		return -EINVAL;
	memcpy(address, start, len);
	address[len] = '\0';
	if (inet_pton(AF_INET, address, v4) == 1) {
		map_v4(net.address, v4);
		max = 32;
	} else if (inet_pton(AF_INET6, address, net.address) != 1) {
		return -EINVAL;
	}
	prefix = max;
	if (slash && !parse_prefix(slash + 1, max, &prefix))
		return -EINVAL;
	net.prefix = (uint8_t)(128 - max + prefix);
	/* 192.0.2.7/24 is more likely a slip than a wish */
	if (!bits_zero_from(net.address, net.prefix))
		return -EINVAL;
	*out = net;
	return 0;
}

static bool net_has(const struct iscsi_net *net, const uint8_t address[16])
{
	unsigned whole = net->prefix / 8, rest = net->prefix % 8;

	if (memcmp(net->address, address, whole) != 0)
		return false;
	return !rest || (net->address[whole] ^ address[whole]) >> (8 - rest) == 0;
}

bool iscsi_nets_allow(const struct iscsi_net *nets, unsigned n, const uint8_t address[16])
{
	bool some = false, in = false;

	for (unsigned i = 0; i < n; i++) {
		bool has = net_has(&nets[i], address);

		if (nets[i].except && has)
			return false;
		some |= !nets[i].except;
		in |= !nets[i].except && has;
	}
	return in || !some;
}

void iscsi_address_bytes(uint8_t out[16], const struct sockaddr_storage *sa)
{
	memset(out, 0, 16);
	if (sa->ss_family == AF_INET6)
		memcpy(out, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	else if (sa->ss_family == AF_INET)
		map_v4(out, &((const struct sockaddr_in *)(const void *)sa)->sin_addr);
}

bool iscsi_address_loopback(const uint8_t address[16])
{
	static const uint8_t v6[16] = { [15] = 1 };

	return !memcmp(address, v6, 16) ||
	       (!memcmp(address, mapped, sizeof(mapped)) && address[12] == 127);
}

/* ---- access ---- */

void iscsi_user_clear(struct iscsi_user *user)
{
	if (user->secret)
		explicit_bzero(user->secret, user->secret_len);
	free(user->secret);
	free(user->name);
	*user = (struct iscsi_user) { 0 };
}

void iscsi_access_clear(struct iscsi_access *a)
{
	for (unsigned i = 0; i < a->auth.n_users; i++)
		iscsi_user_clear(&a->auth.users[i]);
	free(a->auth.users);
	iscsi_user_clear(&a->auth.self);
	for (unsigned i = 0; i < a->n_rules; i++)
		free(a->rules[i].pattern);
	free(a->rules);
	free(a->nets);
	free(a->redirect);
	*a = (struct iscsi_access) { 0 };
}

const struct scsi_view *iscsi_access_view(const struct iscsi_access *a, const char *initiator)
{
	static const struct scsi_view all = SCSI_VIEW_ALL;

	if (a->n_rules == 0)
		return &all;
	for (unsigned i = 0; i < a->n_rules; i++)
		if (fnmatch(a->rules[i].pattern, initiator, FNM_NOESCAPE | FNM_CASEFOLD) == 0)
			return &a->rules[i].view;
	return NULL;
}

bool iscsi_access_group(const struct iscsi_access *a, uint16_t group)
{
	for (unsigned i = 0; i < a->n_groups; i++)
		if (a->groups[i] == group)
			return true;
	return a->n_groups == 0;
}

bool iscsi_access_admits(const struct iscsi_access *a, const uint8_t address[16],
			 const char *initiator)
{
	return iscsi_nets_allow(a->nets, a->n_nets, address) && iscsi_access_view(a, initiator);
}

const struct iscsi_user *iscsi_auth_user(const struct iscsi_auth *auth, const char *name)
{
	for (unsigned i = 0; i < auth->n_users; i++)
		if (!strcmp(auth->users[i].name, name))
			return &auth->users[i];
	return NULL;
}
