/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* words.c - see words.h */
#include "vmm-lite/words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/compiler.h"

#define MIB	(UINT64_C(1) << 20)

int words_memory(const char *text, uint64_t *out)
{
	uint64_t n;

	if (vdisk_parse_size(text, &n) < 0)
		return -EINVAL;
	if (n < MIB)
		n *= MIB;	/* nobody means bytes */
	if (n < MEMORY_MIN || n > MEMORY_MAX || n % MIB)
		return -EINVAL;
	*out = n;
	return 0;
}

int words_number(const char *text, unsigned min, unsigned max, unsigned *out)
{
	unsigned long n;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || *end || n < min || n > max)
		return -EINVAL;
	*out = (unsigned)n;
	return 0;
}

/* ---- disks ---- */

static const char *const cache_names[] = {
	[CACHE_WRITEBACK] = "writeback", [CACHE_WRITETHROUGH] = "writethrough",
	[CACHE_NONE] = "none", [CACHE_UNSAFE] = "unsafe",
};

int words_cache(const char *text, enum cache_mode *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cache_names); i++) {
		if (strcmp(text, cache_names[i]))
			continue;
		*out = (enum cache_mode)i;
		return 0;
	}
	return -EINVAL;
}

const char *words_cache_name(enum cache_mode mode)
{
	return cache_names[mode];
}

static const char *const refs_names[] = {
	[VDISK_REFS_NONE] = "none", [VDISK_REFS_DIR] = "dir", [VDISK_REFS_ANY] = "any",
};

int words_refs(const char *text, enum vdisk_refs *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(refs_names); i++) {
		if (!refs_names[i] || strcmp(text, refs_names[i]))
			continue;
		*out = (enum vdisk_refs)i;
		return 0;
	}
	return -EINVAL;
}

const char *words_refs_name(enum vdisk_refs refs)
{
	return refs_names[refs];
}

/* One KEY=VALUE of @len bytes. */
static int one_limit(const char *word, size_t len, struct blk_limits *l)
{
	const struct { const char *key; uint64_t *to, max; } known[] = {
		{ "bytes=", &l->bytes, UINT64_MAX }, { "ops=", &l->ops, UINT64_MAX },
		{ "burst=", &l->burst_ms, 60000 },
	};
	char value[32];

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
		size_t key = strlen(known[i].key);
		uint64_t n;

		if (len <= key || len - key >= sizeof(value) || strncmp(word, known[i].key, key))
			continue;
		memcpy(value, word + key, len - key);
		value[len - key] = '\0';
		if (vdisk_parse_size(value, &n) < 0 || !n || n > known[i].max)
			return -EINVAL;
		*known[i].to = n;
		return 0;
	}
	return -EINVAL;
}

int words_limits(const char *text, struct blk_limits *out)
{
	struct blk_limits l = { 0 };
	bool none = !strcmp(text, "none");

	while (!none) {
		size_t len = strcspn(text, ",");

		if (one_limit(text, len, &l) < 0)
			return -EINVAL;
		text += len;
		if (!*text++)
			break;
	}
	/* a burst of what? */
	if (l.burst_ms && !l.bytes && !l.ops)
		return -EINVAL;
	*out = l;
	return 0;
}

void words_format_limits(char out[LIMITS_TEXT_MAX], const struct blk_limits *l)
{
	int n = 0;

	if (!l->bytes && !l->ops) {
		snprintf(out, LIMITS_TEXT_MAX, "none");
		return;
	}
	if (l->bytes)
		n += snprintf(out, LIMITS_TEXT_MAX, "bytes=%" PRIu64 ",", l->bytes);
	if (l->ops)
		n += snprintf(out + n, LIMITS_TEXT_MAX - (size_t)n, "ops=%" PRIu64 ",", l->ops);
	snprintf(out + n, LIMITS_TEXT_MAX - (size_t)n, "burst=%" PRIu64,
		 l->burst_ms ? l->burst_ms : LIMITER_BURST_MS);
}

bool words_serial_ok(const char *text)
{
	size_t n = 0;

	while (text[n] > ' ' && text[n] <= '~')
		n++;
	return n && n <= SERIAL_BYTES && !text[n];
}

int words_block_size(const char *text, uint32_t *out)
{
	if (strcmp(text, "512") && strcmp(text, "4096"))
		return -EINVAL;
	*out = text[0] == '5' ? 512 : 4096;
	return 0;
}

/* ---- the rest ---- */

int words_end(const char *text, struct end_action *out)
{
	struct end_action a = { .reset = !strcmp(text, "reset"), .code = -1 };
	unsigned code;

	if (!strncmp(text, "exit:", 5)) {
		if (words_number(text + 5, 0, 255, &code) < 0)
			return -EINVAL;
		a.code = (int)code;
	} else if (!a.reset && strcmp(text, "exit")) {
		return -EINVAL;
	}
	*out = a;
	return 0;
}

int words_file(char *text, struct vdisk_open_file *out)
{
	char *name = strchr(text, '=');
	unsigned fd;

	if (!name || !name[1])
		return -EINVAL;
	*name++ = '\0';
	if (words_number(text, 3, 65535, &fd) < 0)
		return -EINVAL;
	*out = (struct vdisk_open_file) { .path = name, .fd = (int)fd };
	return 0;
}

int words_mac(const char *text, uint8_t out[6])
{
	unsigned b[6];
	int end = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end) != 6 || end != 17 || text[end] || b[0] & 1)
		return -EINVAL;
	for (unsigned i = 0; i < 6; i++)
		out[i] = (uint8_t)b[i];
	return 0;
}

int words_net(const char *text, struct net_words *out)
{
	static const char *const kinds[] = { "user", "tap:", "bridge:" };
	struct net_words w = { .kind = NET_USER };
	const char *p = NULL;
	size_t len;

	for (unsigned i = 0; !p && i < ARRAY_SIZE(kinds); i++) {
		if (strncmp(text, kinds[i], strlen(kinds[i])))
			continue;
		w.kind = i;
		p = text + strlen(kinds[i]);
	}
	if (!p)
		return -EINVAL;
	len = strcspn(p, ",");
	/* an interface has a name of 1 to 15 characters */
	if ((w.kind == NET_USER) != !len || len >= sizeof(w.dev) || memchr(p, '/', len))
		return -EINVAL;
	memcpy(w.dev, p, len);
	p += len;
	if (*p) {
		if (strncmp(p, ",mac=", 5) || words_mac(p + 5, w.mac) < 0)
			return -EINVAL;
		w.has_mac = true;
	}
	*out = w;
	return 0;
}
