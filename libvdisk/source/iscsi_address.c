/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iscsi_address.c - iscsi://[user[%secret]@]host[:port]/target/lun[?key=value&...]
 *
 * A secret is better not on a command line, where everybody can read it: it is
 * also looked for in a file and in the environment.  Wherever it came from, it
 * is never part of a disk's name, so no message and no listing has it.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "source/iscsi.h"

#define SCHEME		"iscsi://"
#define NAME_MAX_BYTES	223u	/* RFC 7143, 4.2.7.1 */
#define SECRET_MAX	255u
#define LUN_MAX		16383u	/* flat addressing (SAM-5, 4.7.7) */
#define OWN_NAME	"iqn.2026-11.org.vdisk:initiator"
#define NAME_FILE	"/etc/iscsi/initiatorname.iscsi"

bool vdisk_is_remote(const char *locator)
{
	return locator && vd_iscsi_is(locator);
}

bool vd_iscsi_is(const char *name)
{
	return !strncmp(name, SCHEME, strlen(SCHEME));
}

void iscsi_address_clear(struct iscsi_address *a)
{
	if (a->secret)
		explicit_bzero(a->secret, strlen(a->secret));
	if (a->their_secret)
		explicit_bzero(a->their_secret, strlen(a->their_secret));
	free(a->their_user);
	free(a->their_secret);
	free(a->name);
	free(a->host);
	free(a->port);
	free(a->target);
	free(a->user);
	free(a->secret);
	free(a->initiator);
	*a = (struct iscsi_address) { 0 };
}

static int no_memory(struct vdisk_error *err)
{
	return vd_fail(err, ENOMEM, "out of memory");
}

/* Target and initiator names: letters, digits, '-', '.', ':' (RFC 3722); UTF-8 is let through. */
static bool is_iscsi_name(const char *s)
{
	size_t n = strlen(s);

	if (n < 5 || n > NAME_MAX_BYTES ||
	    (strncmp(s, "iqn.", 4) && strncmp(s, "eui.", 4) && strncmp(s, "naa.", 4)))
		return false;
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == 0x7f || *s == '/' || *s == '%')
			return false;
	return true;
}

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ?
		tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* %XX in place; false: not that. */
static bool unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (*s == '%') {
			int high = hex(s[1]), low = high < 0 ? -1 : hex(s[2]);

			if (low < 0 || (!high && !low))
				return false;
			*out++ = (char)(high << 4 | low);
			s += 2;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
	return true;
}

static int split_user(struct iscsi_address *a, const char *text, size_t len,
		      struct vdisk_error *err)
{
	const char *percent = memchr(text, '%', len);
	size_t user_len = percent ? (size_t)(percent - text) : len;

	if (!user_len || user_len > SECRET_MAX || len - user_len > SECRET_MAX)
		return vd_fail(err, EINVAL, "iscsi: the user's name or secret is empty or too long");
	a->user = strndup(text, user_len);
	if (percent && percent + 1 < text + len)
		a->secret = strndup(percent + 1, len - user_len - 1);
	return !a->user || (percent && percent + 1 < text + len && !a->secret) ?
		no_memory(err) : 0;
}

static bool is_port(const char *s)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	return isdigit((unsigned char)*s) && !*end && n > 0 && n < 65536;
}

/* host, host:port, [v6]:port */
static int split_host(struct iscsi_address *a, const char *text, size_t len,
		      struct vdisk_error *err)
{
	AUTO_FREE char *s = strndup(text, len);
	char *host = s, *rest;

	if (!s)
		return no_memory(err);
	if (*s == '[') {
		host++;
		rest = strchr(host, ']');
		if (!rest)
			return vd_fail(err, EINVAL, "iscsi: '%s' has a '[' without ']'", s);
		*rest++ = '\0';
	} else {
		rest = host + strcspn(host, ":");
	}
	if (*rest == ':') {
		*rest = '\0';
		rest++;
		if (!is_port(rest))
			return vd_fail(err, EINVAL, "iscsi: '%s' is not a port", rest);
	} else if (*rest) {
		return vd_fail(err, EINVAL, "iscsi: '%s' after the host's address", rest);
	} else {
		rest = (char *)(uintptr_t)"3260";
	}
	if (!*host || strlen(host) > 253)
		return vd_fail(err, EINVAL, "iscsi: the host's name is missing or too long");
	a->host = strdup(host);
	a->port = strdup(rest);
	return a->host && a->port ? 0 : no_memory(err);
}

static int set_option(struct iscsi_address *a, char *text, struct vdisk_error *err)
{
	char *value = strchr(text, '='), *end;
	unsigned long n;

	if (value)
		*value++ = '\0';
	if (!strcmp(text, "header-digest")) {
		a->header_digest = value && !strcmp(value, "crc32c");
		if (a->header_digest || (value && !strcmp(value, "none")))
			return 0;
		return vd_fail(err, EINVAL, "iscsi: header-digest is crc32c or none");
	}
	if (!strcmp(text, "timeout")) {
		n = value && isdigit((unsigned char)*value) ? strtoul(value, &end, 10) : 0;
		if (!n || n > 86400 || *end)
			return vd_fail(err, EINVAL, "iscsi: timeout is a number of seconds from 1 "
				       "to 86400");
		a->limit_s = (unsigned)n;
		return 0;
	}
	if (!strcmp(text, "initiator")) {
		if (!value || !unescape(value) || !is_iscsi_name(value))
			return vd_fail(err, EINVAL, "iscsi: initiator is a name like iqn.2026-11."
				       "org.example:host");
		free(a->initiator);
		a->initiator = strdup(value);
		return a->initiator ? 0 : no_memory(err);
	}
	if (!strcmp(text, "target-user")) {
		if (!value || !unescape(value) || !*value || strlen(value) > SECRET_MAX)
			return vd_fail(err, EINVAL, "iscsi: target-user is the name by which the target "
				       "proves itself");
		free(a->their_user);
		a->their_user = strdup(value);
		return a->their_user ? 0 : no_memory(err);
	}
	return vd_fail(err, EINVAL, "iscsi: there is no option '%s' (header-digest, timeout, "
		       "initiator, target-user)", text);
}

static int split_options(struct iscsi_address *a, char *text, struct vdisk_error *err)
{
	int r = 0;

	for (char *save = NULL, *one = strtok_r(text, "&", &save); !r && one;
	     one = strtok_r(NULL, "&", &save))
		r = set_option(a, one, err);
	return r;
}

static int split_target(struct iscsi_address *a, char *text, struct vdisk_error *err)
{
	char *slash = strrchr(text, '/'), *end;
	unsigned long lun;

	if (!slash || !isdigit((unsigned char)slash[1]))
		return vd_fail(err, EINVAL, "iscsi: '%s' is not TARGET/LUN", text);
	errno = 0;
	lun = strtoul(slash + 1, &end, 10);
	if (*end || errno || lun > LUN_MAX)
		return vd_fail(err, EINVAL, "iscsi: '%s' is not a LUN from 0 to %u", slash + 1, LUN_MAX);
	a->lun = (uint32_t)lun;
	*slash = '\0';
	if (!unescape(text) || !is_iscsi_name(text))
		return vd_fail(err, EINVAL, "iscsi: '%s' is not a target's name (iqn.YYYY-MM.domain"
			       ":name)", text);
	a->target = strdup(text);
	return a->target ? 0 : no_memory(err);
}

/* The name that people see: the same, without the secret. */
static int make_name(struct iscsi_address *a, const char *uri, struct vdisk_error *err)
{
	const char *rest = uri + strlen(SCHEME), *slash = strchr(rest, '/');
	const char *at = memrchr(rest, '@', (size_t)(slash - rest));

	if (asprintf(&a->name, SCHEME "%s%s%s", a->user ? a->user : "", a->user ? "@" : "",
		     at ? at + 1 : rest) < 0) {
		a->name = NULL;
		return no_memory(err);
	}
	return 0;
}

static int split_into(struct iscsi_address *a, const char *uri, char *text, struct vdisk_error *err)
{
	char *slash = strchr(text, '/'), *at, *options;
	int r = 0;

	if (!slash)
		return vd_fail(err, EINVAL, "iscsi: an address is iscsi://[USER@]HOST[:PORT]/TARGET/LUN");
	at = memrchr(text, '@', (size_t)(slash - text));
	if (at) {
		r = split_user(a, text, (size_t)(at - text), err);
		text = at + 1;
	}
	options = strchr(slash, '?');
	if (options)
		*options++ = '\0';
	if (!r)
		r = split_host(a, text, (size_t)(slash - text), err);
	if (!r)
		r = split_target(a, slash + 1, err);
	if (!r && options)
		r = split_options(a, options, err);
	return r ? r : make_name(a, uri, err);
}

int iscsi_address_split(struct iscsi_address *out, const char *uri, struct vdisk_error *err)
{
	struct iscsi_address a = { .limit_s = ISCSI_LIMIT_S };
	AUTO_FREE char *text = NULL;
	int r;

	if (!vd_iscsi_is(uri))
		return vd_fail(err, EINVAL, "not an address that begins with " SCHEME);
	text = strdup(uri + strlen(SCHEME));
	r = text ? split_into(&a, uri, text, err) : no_memory(err);
	if (text)
		explicit_bzero(text, strlen(text));
	if (r < 0) {
		iscsi_address_clear(&a);
		return r;
	}
	*out = a;
	return 0;
}

/* ---- what is not in it ---- */

/* The first line of a file that nobody else can read. */
static int read_secret(char **out, const char *path, struct vdisk_error *err)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char line[SECRET_MAX + 2] = "";
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return vd_fail(err, errno, "%s: cannot read the iSCSI secret: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_mode & (S_IRWXO | S_IWGRP))
		return vd_fail(err, EPERM, "%s: its mode is %04o: a secret must not be accessible by "
			       "others, nor its file writable by the group", path,
			       (unsigned)st.st_mode & 07777);
	n = read(fd, line, sizeof(line) - 1);
	if (n < 0)
		return vd_fail(err, errno, "%s: %s", path, strerror(errno));
	line[strcspn(line, "\r\n")] = '\0';
	if (!line[0] || strlen(line) > SECRET_MAX)
		return vd_fail(err, EINVAL, "%s: its first line is not a secret of 1 to %u bytes", path,
			       SECRET_MAX);
	*out = strdup(line);
	explicit_bzero(line, sizeof(line));
	return *out ? 0 : no_memory(err);
}

static const char *env(const char *name)
{
	const char *v = getenv(name);

	return v && v[0] ? v : NULL;
}

/* One side of CHAP: a user that the address names or the environment, and its secret. */
static int find_side(const struct iscsi_address *a, char **user, char **secret,
		     const char *const names[3], struct vdisk_error *err)
{
	const char *other = env(names[0]), *file = env(names[1]), *given = env(names[2]);

	if (!*user && other) {
		*user = strdup(other);
		if (!*user)
			return no_memory(err);
	}
	if (!*user || *secret)
		return 0;
	if (file)
		return read_secret(secret, file, err);
	if (!given)
		return vd_fail(err, EACCES, "%s: user '%s' has no secret: set %s to the name of a file "
			       "that has it", a->name, *user, names[1]);
	*secret = strdup(given);
	return *secret ? 0 : no_memory(err);
}

static int find_secrets(struct iscsi_address *a, struct vdisk_error *err)
{
	static const char *const ours[] = { "VDISK_ISCSI_USER", "VDISK_ISCSI_SECRET_FILE",
					    "VDISK_ISCSI_SECRET" };
	static const char *const theirs[] = { "VDISK_ISCSI_TARGET_USER",
		"VDISK_ISCSI_TARGET_SECRET_FILE", "VDISK_ISCSI_TARGET_SECRET" };
	int r = find_side(a, &a->user, &a->secret, ours, err);

	if (!r)
		r = find_side(a, &a->their_user, &a->their_secret, theirs, err);
	if (r || !a->their_user)
		return r;
	/* RFC 7143, 12.1.3: the target is only asked for its proof by one who gives his own */
	if (!a->user)
		return vd_fail(err, EINVAL, "%s: a target proves itself to a user only: there is none "
			       "(iscsi://USER@..., or VDISK_ISCSI_USER)", a->name);
	/* ... and a secret for both could be had from the target by asking it */
	if (!strcmp(a->secret, a->their_secret))
		return vd_fail(err, EINVAL, "%s: the target's secret must be another one than ours",
			       a->name);
	return 0;
}

/* What this host calls itself, so that its access at the target is its own. */
static char *host_name(void)
{
	FILE *f = fopen(NAME_FILE, "re");
	char line[512], *name = NULL;

	while (f && !name && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "InitiatorName=", 14))
			continue;
		line[strcspn(line, " \t\r\n")] = '\0';
		if (is_iscsi_name(line + 14))
			name = strdup(line + 14);
	}
	if (f)
		fclose(f);
	return name;
}

static int find_initiator(struct iscsi_address *a, struct vdisk_error *err)
{
	const char *name = env("VDISK_ISCSI_INITIATOR");

	if (a->initiator)
		return 0;
	if (name && !is_iscsi_name(name))
		return vd_fail(err, EINVAL, "VDISK_ISCSI_INITIATOR: '%s' is not an iSCSI name", name);
	a->initiator = name ? strdup(name) : host_name();
	if (!a->initiator && !name)
		a->initiator = strdup(OWN_NAME);
	return a->initiator ? 0 : no_memory(err);
}

int iscsi_address_parse(struct iscsi_address *out, const char *uri, struct vdisk_error *err)
{
	struct iscsi_address a;
	int r = iscsi_address_split(&a, uri, err);

	if (r < 0)
		return r;
	r = find_secrets(&a, err);
	if (!r)
		r = find_initiator(&a, err);
	if (r < 0) {
		iscsi_address_clear(&a);
		return r;
	}
	*out = a;
	return 0;
}
