/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * config_directives.c - what each directive of vdiskd.conf(5) does
 *
 * The table is at the end.  Users have to be defined before they are named, so
 * that a message can point to where the mistake is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "target/config_parse.h"
#include "target/iscsi/chap.h"
#include "target/iscsi/text.h"

#define TARGETS_MAX	4096u
#define PORTALS_MAX	64u
#define USERS_MAX	4096u
#define RULES_MAX	1024u
#define NETS_MAX	1024u

/* Room for one more in the array *@list of @n; the new one, zeroed, or NULL. */
static void *grow(void *list, unsigned *n, size_t size)
{
	void **at = list;
	char *bigger = reallocarray(*at, *n + 1, size);

	if (!bigger)
		return NULL;
	*at = bigger;
	return memset(bigger + size * (*n)++, 0, size);
}

static int set_string(struct parser *p, char **out, const char *value)
{
	free(*out);
	*out = strdup(value);
	return *out ? 0 : config_no_memory(p);
}

/* A decimal number from @min to @max. */
static int number(struct parser *p, const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
	size_t n = strspn(text, "0123456789");
	unsigned long v = n && n < 10 && !text[n] ? strtoul(text, NULL, 10) : ULONG_MAX;

	if (v < min || v > max)
		return config_bad(p, "'%s' is not a number from %u to %u", text, min, max);
	*out = (uint32_t)v;
	return 0;
}

static struct config_target *target_of(struct parser *p)
{
	return &p->config->targets[p->config->n_targets - 1];
}

static struct config_lun *lun_of(struct parser *p)
{
	struct config_target *t = target_of(p);

	return &t->luns[t->n_luns - 1];
}

static struct config_portal *portal_of(struct parser *p)
{
	return &p->config->portals[p->config->n_portals - 1];
}

/* Who may use what the current block is about. */
static struct iscsi_access *access_of(struct parser *p)
{
	return p->scope[1] == DISCOVERY ? &p->config->discovery : &target_of(p)->access;
}

/* ---- addresses ---- */

/* "ADDRESS[:PORT]", "[IPv6][:PORT]", ":PORT" in numbers, to "ADDRESS:PORT"; false if not. */
static bool numeric_address(const char *text, char *out, size_t size)
{
	const char *start = text, *end, *port = "3260";
	bool v6 = text[0] == '[';
	char host[INET6_ADDRSTRLEN] = "";
	uint8_t bytes[16];

	start += v6;
	end = v6 ? strchr(start, ']') : start + strcspn(start, ":");
	if (!end || (size_t)(end - start) >= sizeof(host))
		return false;
	memcpy(host, start, (size_t)(end - start));
	end += v6;
	if (*end == ':')
		port = end + 1;
	else if (*end)
		return false;
	if (strspn(port, "0123456789") != strlen(port) || !*port || strlen(port) > 5 ||
	    strtoul(port, NULL, 10) > 65535)
		return false;
	if (v6 ? inet_pton(AF_INET6, host, bytes) != 1 : *host && inet_pton(AF_INET, host, bytes) != 1)
		return false;
	snprintf(out, size, v6 ? "[%s]:%s" : "%s:%s", host, port);
	return true;
}

/* ---- top level ---- */

static int do_user(struct parser *p, char **arg, unsigned n UNUSED)
{
	return set_string(p, &p->config->user, arg[0]);
}

static int do_state_dir(struct parser *p, char **arg, unsigned n UNUSED)
{
	if (arg[0][0] != '/')
		return config_bad(p, "'%s' is not a whole path", arg[0]);
	return set_string(p, &p->config->state_dir, arg[0]);
}

static int size(struct parser *p, const char *text, uint64_t *out)
{
	if (vdisk_parse_size(text, out) < 0 || *out == 0)
		return config_bad(p, "'%s' is not a size (a number, with K, M, G or T behind it)", text);
	return 0;
}

static int do_sanitize_rate(struct parser *p, char **arg, unsigned n UNUSED)
{
	return size(p, arg[0], &p->config->sanitize_rate);
}

static int do_portal(struct parser *p, char **arg, unsigned n UNUSED)
{
	struct config *c = p->config;
	struct config_portal *portal;
	char address[64];

	if (!numeric_address(arg[0], address, sizeof(address)))
		return config_bad(p, "'%s' is not ADDRESS[:PORT] in numbers (IPv6 in brackets)", arg[0]);
	for (unsigned i = 0; i < c->n_portals; i++)
		if (!strcmp(c->portals[i].address, address))
			return config_bad(p, "portal %s is there already, in line %u", address,
				   c->portals[i].line);
	if (c->n_portals == PORTALS_MAX)
		return config_bad(p, "more than %u portals", PORTALS_MAX);
	portal = grow(&c->portals, &c->n_portals, sizeof(*portal));
	if (!portal)
		return config_no_memory(p);
	portal->group = 1;
	portal->line = p->line;
	return set_string(p, &portal->address, address);
}

static int do_portal_group(struct parser *p, char **arg, unsigned n UNUSED)
{
	uint32_t group = 0;
	int r = number(p, arg[0], 1, UINT16_MAX, &group);

	if (r == 0)
		portal_of(p)->group = (uint16_t)group;
	return r;
}

static int do_advertise(struct parser *p, char **arg, unsigned n UNUSED)
{
	char address[64];

	if (!strcmp(arg[0], "no"))
		return set_string(p, &portal_of(p)->advertise, "");
	if (!numeric_address(arg[0], address, sizeof(address)) || address[0] == ':')
		return config_bad(p, "'%s' is neither \"no\" nor ADDRESS[:PORT] in numbers", arg[0]);
	return set_string(p, &portal_of(p)->advertise, address);
}

static int do_threads(struct parser *p, char **arg, unsigned n UNUSED)
{
	return number(p, arg[0], 1, REACTOR_MAX, &p->config->reactors.threads);
}

static int do_pin(struct parser *p, char **arg UNUSED, unsigned n UNUSED)
{
	p->config->reactors.pin = true;
	return 0;
}

static int do_busy_poll(struct parser *p, char **arg, unsigned n UNUSED)
{
	return number(p, arg[0], 0, 1000000, &p->config->reactors.busy_us);
}

static struct iscsi_user *find_user(struct config *c, const char *name)
{
	for (unsigned i = 0; i < c->n_users; i++)
		if (!strcmp(c->users[i].name, name))
			return &c->users[i];
	return NULL;
}

static int do_chap_user(struct parser *p, char **arg, unsigned n UNUSED)
{
	struct config *c = p->config;
	struct iscsi_user *u;
	size_t len = strlen(arg[0]);

	if (len == 0 || len > ISCSI_USER_MAX)
		return config_bad(p, "a user's name has 1 to %u bytes", ISCSI_USER_MAX);
	if (find_user(c, arg[0]))
		return config_bad(p, "user \"%s\" is defined twice", arg[0]);
	if (c->n_users == USERS_MAX)
		return config_bad(p, "more than %u users", USERS_MAX);
	u = grow(&c->users, &c->n_users, sizeof(*u));
	return u ? set_string(p, &u->name, arg[0]) : config_no_memory(p);
}

static int do_secret_file(struct parser *p, char **arg, unsigned n UNUSED)
{
	struct iscsi_user *u = &p->config->users[p->config->n_users - 1];
	uint8_t secret[ISCSI_SECRET_MAX];
	struct vdisk_error err = { 0 };
	int len = p->secret(arg[0], secret, &err);

	if (len < 0)
		return config_bad(p, "%s", err.msg);
	if (len < (int)ISCSI_SECRET_MIN) {
		explicit_bzero(secret, sizeof(secret));
		return config_bad(p, "%s: the secret has less than %u bytes", arg[0], ISCSI_SECRET_MIN);
	}
	u->secret = malloc((size_t)len);
	if (u->secret) {
		memcpy(u->secret, secret, (size_t)len);
		u->secret_len = (size_t)len;
	}
	explicit_bzero(secret, sizeof(secret));
	return u->secret ? 0 : config_no_memory(p);
}

static int end_user(struct parser *p)
{
	struct iscsi_user *u = &p->config->users[p->config->n_users - 1];

	return u->secret ? 0 : config_bad(p, "user \"%s\" has no secret-file", u->name);
}

/* ---- limits: all of them numbers ---- */

static const struct limit {
	const char *name;
	size_t member;
	uint32_t min, max, standard;
} limits[] = {
#define LIMIT(m) offsetof(struct iscsi_limits, m)
	{ "sessions", LIMIT(sessions), 1, 65535, 1024 },
	{ "sessions-per-initiator", LIMIT(sessions_per_initiator), 0, 65535, 0 },
	{ "logins-per-second", LIMIT(logins_per_second), 0, 100000, 100 },
	{ "failed-logins-per-minute", LIMIT(failed_logins_per_minute), 0, 100000, 60 },
	{ "pending-logins", LIMIT(pending_logins), 1, 65535, 64 },
	{ "login-timeout", LIMIT(login_timeout), 1, 3600, 15 },
	{ "nop-interval", LIMIT(nop_interval), 0, 3600, 15 },
	{ "nop-timeout", LIMIT(nop_timeout), 1, 3600, 15 },
};

static uint32_t *limit_member(struct iscsi_limits *l, const struct limit *limit)
{
	return (uint32_t *)(void *)((char *)l + limit->member);
}

static int do_limit(struct parser *p, char **arg, unsigned n UNUSED)
{
	/* arg[-1] is the directive, which the table has only for these names */
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		if (!strcmp(limits[i].name, arg[-1]))
			return number(p, arg[0], limits[i].min, limits[i].max,
				      limit_member(&p->config->limits, &limits[i]));
	return config_bad(p, "no such limit");
}

/* ---- access ---- */

static int do_network(struct parser *p, char **arg, unsigned n)
{
	struct iscsi_access *a = access_of(p);

	for (unsigned i = 0; i < n; i++) {
		struct iscsi_net net, *new;

		if (iscsi_net_parse(&net, arg[i]) < 0)
			return config_bad(p, "'%s' is not a network (192.0.2.0/24, 2001:db8::/32; with a ! "
				   "in front to leave it out)", arg[i]);
		new = a->n_nets < NETS_MAX ? grow(&a->nets, &a->n_nets, sizeof(*new)) : NULL;
		if (!new)
			return config_bad(p, "too many networks");
		*new = net;
	}
	return 0;
}

static bool pattern_valid(const char *s)
{
	size_t len = strlen(s);

	return len > 0 && len <= ISCSI_NAME_MAX && !strpbrk(s, "[]\\ ");
}

static int do_initiator(struct parser *p, char **arg, unsigned n)
{
	struct iscsi_access *a = access_of(p);

	p->rule_first = a->n_rules;
	p->rule_luns = p->rule_read_only = false;
	for (unsigned i = 0; i < n; i++) {
		struct iscsi_rule *rule;

		if (!pattern_valid(arg[i]))
			return config_bad(p, "'%s' is not an initiator's name or a pattern for it", arg[i]);
		rule = a->n_rules < RULES_MAX ? grow(&a->rules, &a->n_rules, sizeof(*rule)) : NULL;
		if (!rule)
			return config_bad(p, "too many initiators");
		rule->view = SCSI_VIEW_ALL;
		if (set_string(p, &rule->pattern, arg[i]) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* "3", "0-7" */
static int parse_luns(struct parser *p, const char *text, uint32_t *first, uint32_t *last)
{
	const char *dash = strchr(text, '-');
	char start[16];
	int r;

	snprintf(start, sizeof(start), "%.*s", dash ? (int)(dash - text) : 15, text);
	r = number(p, start, 0, SCSI_MAX_LUNS - 1, first);
	if (r < 0 || !dash) {
		*last = *first;
		return r;
	}
	return number(p, dash + 1, *first, SCSI_MAX_LUNS - 1, last);
}

static int mask_of(struct parser *p, char **arg, unsigned n, uint32_t mask[SCSI_MAX_LUNS / 32])
{
	for (unsigned i = 0; i < n; i++) {
		uint32_t first = 0, last = 0;
		int r = parse_luns(p, arg[i], &first, &last);

		if (r < 0)
			return r;
		for (uint32_t lun = first; lun <= last; lun++)
			scsi_view_add(mask, lun);
	}
	return 0;
}

static int do_rule_luns(struct parser *p, char **arg, unsigned n)
{
	struct iscsi_access *a = access_of(p);
	uint32_t mask[SCSI_MAX_LUNS / 32] = { 0 };
	int r = mask_of(p, arg, n, mask);

	for (unsigned i = p->rule_first; r == 0 && i < a->n_rules; i++)
		memcpy(a->rules[i].view.visible, mask, sizeof(mask));
	return r;
}

static int do_rule_read_only(struct parser *p, char **arg, unsigned n)
{
	struct iscsi_access *a = access_of(p);
	uint32_t mask[SCSI_MAX_LUNS / 32] = { 0 };
	int r = mask_of(p, arg, n, mask);

	if (n == 0)
		memset(mask, 0xff, sizeof(mask));
	for (unsigned i = p->rule_first; r == 0 && i < a->n_rules; i++)
		for (unsigned w = 0; w < ARRAY_SIZE(mask); w++)
			a->rules[i].view.writable[w] &= ~mask[w];
	return r;
}

static int copy_user(struct parser *p, struct iscsi_user *to, const char *name)
{
	const struct iscsi_user *from = find_user(p->config, name);

	if (!from)
		return config_bad(p, "no chap-user \"%s\" was defined before this line", name);
	to->name = strdup(from->name);
	to->secret = malloc(from->secret_len);
	if (!to->name || !to->secret)
		return config_no_memory(p);
	memcpy(to->secret, from->secret, from->secret_len);
	to->secret_len = from->secret_len;
	return 0;
}

static int do_chap(struct parser *p, char **arg, unsigned n)
{
	struct iscsi_auth *a = &access_of(p)->auth;

	for (unsigned i = 0; i < n; i++) {
		struct iscsi_user *u;
		int r;

		if (iscsi_auth_user(a, arg[i]))
			return config_bad(p, "user \"%s\" is named twice", arg[i]);
		u = grow(&a->users, &a->n_users, sizeof(*u));
		if (!u)
			return config_no_memory(p);
		r = copy_user(p, u, arg[i]);
		if (r < 0) {
			iscsi_user_clear(u);
			a->n_users--;
			return r;
		}
	}
	return 0;
}

static int do_chap_mutual(struct parser *p, char **arg, unsigned n UNUSED)
{
	return copy_user(p, &access_of(p)->auth.self, arg[0]);
}

static int do_chap_digests(struct parser *p, char **arg, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		enum iscsi_chap_digest d = iscsi_chap_digest_by_name(arg[i]);

		if (!d)
			return config_bad(p, "'%s' is none of md5, sha1, sha256, sha3-256", arg[i]);
		access_of(p)->auth.digests |= 1u << d;
	}
	return 0;
}

static int end_access(struct parser *p)
{
	struct iscsi_auth *a = &access_of(p)->auth;

	if (!a->n_users && (a->self.name || a->digests))
		return config_bad(p, "chap-mutual and chap-digests need chap users");
	if (!a->digests)
		a->digests = ISCSI_CHAP_ALL;
	for (unsigned i = 0; a->self.name && i < a->n_users; i++)
		if (a->users[i].secret_len == a->self.secret_len &&
		    !memcmp(a->users[i].secret, a->self.secret, a->self.secret_len))
			return config_bad(p, "user \"%s\" has the same secret as chap-mutual \"%s\": each "
				   "direction needs its own", a->users[i].name, a->self.name);
	return 0;
}

/* ---- targets ---- */

static int do_target(struct parser *p, char **arg, unsigned n UNUSED)
{
	struct config *c = p->config;
	struct config_target *t;

	if (!iscsi_name_valid(arg[0]))
		return config_bad(p, "'%s' is not an iSCSI name (RFC 7143, 4.2.7)", arg[0]);
	for (unsigned i = 0; i < c->n_targets; i++)
		if (!strcasecmp(c->targets[i].name, arg[0]))
			return config_bad(p, "target %s is there already, in line %u", arg[0],
				   c->targets[i].line);
	if (c->n_targets == TARGETS_MAX)
		return config_bad(p, "more than %u targets", TARGETS_MAX);
	t = grow(&c->targets, &c->n_targets, sizeof(*t));
	if (!t)
		return config_no_memory(p);
	t->line = p->line;
	return set_string(p, &t->name, arg[0]);
}

static int do_alias(struct parser *p, char **arg, unsigned n UNUSED)
{
	if (strlen(arg[0]) > ISCSI_VALUE_MAX)
		return config_bad(p, "an alias has at most %u bytes", ISCSI_VALUE_MAX);
	return set_string(p, &target_of(p)->alias, arg[0]);
}

static int do_group(struct parser *p, char **arg, unsigned n)
{
	struct iscsi_access *a = access_of(p);

	for (unsigned i = 0; i < n; i++) {
		uint32_t group = 0;
		int r = number(p, arg[i], 1, UINT16_MAX, &group);

		if (r < 0)
			return r;
		if (a->n_groups == ISCSI_MAX_GROUPS)
			return config_bad(p, "more than %u portal groups", ISCSI_MAX_GROUPS);
		a->groups[a->n_groups++] = (uint16_t)group;
	}
	return 0;
}

static int do_access(struct parser *p, char **arg, unsigned n UNUSED)
{
	static const char *const names[] = {
		[SCSI_OPTIMIZED] = "optimized", [SCSI_NON_OPTIMIZED] = "non-optimized",
		[SCSI_STANDBY] = "standby", [SCSI_UNAVAILABLE] = "unavailable",
	};
	struct config_target *t = target_of(p);
	uint32_t group = 0;
	uint8_t state = 0;
	int r = number(p, arg[0], 1, UINT16_MAX, &group);

	if (r < 0)
		return r;
	while (state < ARRAY_SIZE(names) && strcmp(names[state], arg[1]) != 0)
		state++;
	if (state == ARRAY_SIZE(names))
		return config_bad(p, "'%s' is none of optimized, non-optimized, standby, unavailable", arg[1]);
	for (unsigned i = 0; i < t->n_states; i++)
		if (t->states[i].group == group)
			return config_bad(p, "group %u has its access already", group);
	if (t->n_states == SCSI_MAX_PORTS)
		return config_bad(p, "more than %u groups", SCSI_MAX_PORTS);
	t->states[t->n_states++] = (struct config_access_state) { (uint16_t)group, state };
	return 0;
}

static int do_redirect(struct parser *p, char **arg, unsigned n)
{
	struct iscsi_access *a = access_of(p);
	char address[64];

	if (!numeric_address(arg[0], address, sizeof(address)) || address[0] == ':')
		return config_bad(p, "'%s' is not ADDRESS[:PORT] in numbers (IPv6 in brackets)", arg[0]);
	if (n == 2 && strcmp(arg[1], "permanent") != 0 && strcmp(arg[1], "temporary") != 0)
		return config_bad(p, "'%s' is neither \"temporary\" nor \"permanent\"", arg[1]);
	a->redirect_permanent = n == 2 && arg[1][0] == 'p';
	return set_string(p, &a->redirect, address);
}

static bool has_lun(const struct config_target *t, unsigned lun)
{
	for (unsigned i = 0; i < t->n_luns; i++)
		if (t->luns[i].lun == lun)
			return true;
	return false;
}

static int do_lun(struct parser *p, char **arg, unsigned n UNUSED)
{
	struct config_target *t = target_of(p);
	struct config_lun *l;
	uint32_t lun = 0;
	int r = number(p, arg[0], 0, SCSI_MAX_LUNS - 1, &lun);

	if (r < 0)
		return r;
	if (has_lun(t, lun))
		return config_bad(p, "LUN %u is there already", lun);
	l = grow(&t->luns, &t->n_luns, sizeof(*l));
	if (!l)
		return config_no_memory(p);
	l->lun = (uint16_t)lun;
	l->line = p->line;
	return set_string(p, &l->disk, arg[1]);
}

static int do_lun_flag(struct parser *p, char **arg, unsigned n UNUSED)
{
	struct config_lun *l = lun_of(p);

	if (!strcmp(arg[-1], "read-only"))
		l->read_only = true;
	else if (!strcmp(arg[-1], "removable"))
		l->removable = true;
	else
		l->share = true;
	return 0;
}

static int do_threshold(struct parser *p, char **arg, unsigned n UNUSED)
{
	uint32_t percent = 0;
	int r = number(p, arg[0], 1, 99, &percent);

	lun_of(p)->threshold = (uint8_t)percent;
	return r;
}

static int do_format(struct parser *p, char **arg, unsigned n UNUSED)
{
	return set_string(p, &lun_of(p)->format, arg[0]);
}

static int do_serial(struct parser *p, char **arg, unsigned n UNUSED)
{
	size_t len = strlen(arg[0]);

	if (len == 0 || len > SCSI_SERIAL_MAX)
		return config_bad(p, "a serial number has 1 to %u characters", SCSI_SERIAL_MAX);
	for (size_t i = 0; i < len; i++)
		if (arg[0][i] <= ' ' || arg[0][i] > '~')
			return config_bad(p, "a serial number is printable ASCII without blanks");
	return set_string(p, &lun_of(p)->serial, arg[0]);
}

static int do_size(struct parser *p, char **arg, unsigned n UNUSED)
{
	return size(p, arg[0], &lun_of(p)->size);
}

static int do_block_size(struct parser *p, char **arg, unsigned n UNUSED)
{
	if (strcmp(arg[0], "512") != 0 && strcmp(arg[0], "4096") != 0)
		return config_bad(p, "'%s': blocks have 512 or 4096 bytes", arg[0]);
	*(arg[-1][0] == 'b' ? &lun_of(p)->block_size : &lun_of(p)->physical_size) =
		arg[0][0] == '5' ? 512 : 4096;
	return 0;
}

static int do_refs(struct parser *p, char **arg, unsigned n UNUSED)
{
	static const struct { const char *name; enum vdisk_refs refs; } names[] = {
		{ "none", VDISK_REFS_NONE }, { "dir", VDISK_REFS_DIR }, { "any", VDISK_REFS_ANY },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i].name, arg[0])) {
			lun_of(p)->refs = names[i].refs;
			return 0;
		}
	return config_bad(p, "'%s' is none of none, dir, any", arg[0]);
}

static int end_lun(struct parser *p)
{
	const struct config_lun *l = lun_of(p);

	if (l->share && !l->read_only)
		return config_bad(p, "force-share is for LUNs that are read-only");
	if (l->size && l->read_only)
		return config_bad(p, "a LUN that is read-only cannot get a size");
	return 0;
}

static int end_target(struct parser *p)
{
	const struct config_target *t = target_of(p);

	if (!t->n_luns && !t->access.redirect)
		return config_bad(p, "target %s has no LUN", t->name);
	for (unsigned i = 0; i < t->access.n_rules; i++) {
		const struct iscsi_rule *rule = &t->access.rules[i];
		unsigned lun = 0;

		while (lun < SCSI_MAX_LUNS && !(scsi_view_has(rule->view.visible, lun) && has_lun(t, lun)))
			lun++;
		if (lun == SCSI_MAX_LUNS && t->n_luns)
			return config_bad(p, "initiator %s: none of its LUNs is there", rule->pattern);
	}
	return end_access(p);
}

/* ---- the whole ---- */

void config_begin(struct parser *p)
{
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		*limit_member(&p->config->limits, &limits[i]) = limits[i].standard;
}

int config_finish(struct parser *p)
{
	struct config *c = p->config;

	if (!c->n_portals)
		return config_bad(p, "no portal: say where to listen");
	if (!c->discovery.auth.digests)
		c->discovery.auth.digests = ISCSI_CHAP_ALL;
	for (unsigned i = 0; i < c->n_targets; i++) {
		const struct config_target *t = &c->targets[i];
		bool reachable = false;

		for (unsigned k = 0; k < c->n_portals; k++)
			reachable |= iscsi_access_group(&t->access, c->portals[k].group);
		p->line = t->line;
		if (!reachable)
			return config_bad(p, "no portal is in a group of target %s", t->name);
	}
	return 0;
}

/* ---- the table ---- */

const struct directive config_directives[] = {
	{ "user", TOP, 1, 1, 0, false, do_user, NULL },
	{ "state-directory", TOP, 1, 1, 0, false, do_state_dir, NULL },
	{ "sanitize-rate", TOP, 1, 1, 0, false, do_sanitize_rate, NULL },
	{ "threads", TOP, 1, 1, THREADS, false, do_threads, NULL },
	{ "pin", THREADS, 0, 0, 0, false, do_pin, NULL },
	{ "busy-poll", THREADS, 1, 1, 0, false, do_busy_poll, NULL },
	{ "portal", TOP, 1, 1, PORTAL, true, do_portal, NULL },
	{ "group", PORTAL, 1, 1, 0, false, do_portal_group, NULL },
	{ "advertise", PORTAL, 1, 1, 0, false, do_advertise, NULL },
	{ "chap-user", TOP, 1, 1, USER, true, do_chap_user, end_user },
	{ "secret-file", USER, 1, 1, 0, false, do_secret_file, NULL },
	{ "limits", TOP, 0, 0, LIMITS, false, NULL, NULL },
	{ "sessions", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "sessions-per-initiator", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "logins-per-second", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "failed-logins-per-minute", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "pending-logins", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "login-timeout", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "nop-interval", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "nop-timeout", LIMITS, 1, 1, 0, false, do_limit, NULL },
	{ "discovery", TOP, 0, 0, DISCOVERY, false, NULL, end_access },
	{ "target", TOP, 1, 1, TARGET, true, do_target, end_target },
	{ "network", DISCOVERY | TARGET, 1, CONFIG_WORDS_MAX, 0, true, do_network, NULL },
	{ "initiator", DISCOVERY, 1, CONFIG_WORDS_MAX, 0, true, do_initiator, NULL },
	{ "initiator", TARGET, 1, CONFIG_WORDS_MAX, INITIATOR, true, do_initiator, NULL },
	{ "luns", INITIATOR, 1, CONFIG_WORDS_MAX, 0, false, do_rule_luns, NULL },
	{ "read-only", INITIATOR, 0, CONFIG_WORDS_MAX, 0, false, do_rule_read_only, NULL },
	{ "chap", DISCOVERY | TARGET, 1, CONFIG_WORDS_MAX, 0, true, do_chap, NULL },
	{ "chap-mutual", DISCOVERY | TARGET, 1, 1, 0, false, do_chap_mutual, NULL },
	{ "chap-digests", DISCOVERY | TARGET, 1, 4, 0, false, do_chap_digests, NULL },
	{ "alias", TARGET, 1, 1, 0, false, do_alias, NULL },
	{ "group", TARGET, 1, ISCSI_MAX_GROUPS, 0, false, do_group, NULL },
	{ "access", TARGET, 2, 2, 0, true, do_access, NULL },
	{ "redirect", TARGET, 1, 2, 0, false, do_redirect, NULL },
	{ "lun", TARGET, 2, 2, LUN, true, do_lun, end_lun },
	{ "read-only", LUN, 0, 0, 0, false, do_lun_flag, NULL },
	{ "force-share", LUN, 0, 0, 0, false, do_lun_flag, NULL },
	{ "block-size", LUN, 1, 1, 0, false, do_block_size, NULL },
	{ "physical-block-size", LUN, 1, 1, 0, false, do_block_size, NULL },
	{ "removable", LUN, 0, 0, 0, false, do_lun_flag, NULL },
	{ "serial", LUN, 1, 1, 0, false, do_serial, NULL },
	{ "threshold", LUN, 1, 1, 0, false, do_threshold, NULL },
	{ "size", LUN, 1, 1, 0, false, do_size, NULL },
	{ "format", LUN, 1, 1, 0, false, do_format, NULL },
	{ "refs", LUN, 1, 1, 0, false, do_refs, NULL },
};
_Static_assert(ARRAY_SIZE(config_directives) <= 64, "parser.seen has a bit for each");
const unsigned config_n_directives = ARRAY_SIZE(config_directives);
