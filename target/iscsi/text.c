/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* text.c - key=value strings (RFC 7143, 6.1) */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "core/compiler.h"
#include "target/iscsi/text.h"

void iscsi_text_clear(struct iscsi_text *t)
{
	free(t->buf);
	*t = (struct iscsi_text) { 0 };
}

int iscsi_text_append(struct iscsi_text *t, const void *data, uint32_t len, uint32_t limit)
{
	if (t->len > limit || len > limit - t->len)
		return -E2BIG;
	if (len > t->size - t->len) {
		uint32_t size = MAX(t->size * 2, (uint32_t)vd_align_up(t->len + len, 512));
		char *buf = realloc(t->buf, size);

		if (!buf)
			return -ENOMEM;
		t->buf = buf;
		t->size = size;
	}
	if (len)
		memcpy(t->buf + t->len, data, len);
	t->len += len;
	return 0;
}

int iscsi_text_put(struct iscsi_text *t, const char *key, const char *value)
{
	int r = iscsi_text_append(t, key, (uint32_t)strlen(key), UINT32_MAX / 4);

	if (r == 0)
		r = iscsi_text_append(t, "=", 1, UINT32_MAX / 4);
	if (r == 0)
		r = iscsi_text_append(t, value, (uint32_t)strlen(value) + 1, UINT32_MAX / 4);
	return r;
}

static bool key_valid(const char *key, size_t len)
{
	/* 6.1: letters, digits and a few marks, the first a letter; X- and X#
	 * extension keys have the rest of what is printable */
	if (len == 0 || len > ISCSI_KEY_MAX || !isalpha((unsigned char)key[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (key[i] <= ' ' || key[i] > '~')
			return false;
	return true;
}

/* 12.1.3: binary values of authentication are longer than all others */
static size_t value_max(const char *key, size_t key_len)
{
	bool binary = key_len == 6 && (!memcmp(key, "CHAP_C", 6) || !memcmp(key, "CHAP_R", 6));

	return binary ? ISCSI_CHAP_VALUE_MAX : ISCSI_VALUE_MAX;
}

int iscsi_text_next(const struct iscsi_text *t, uint32_t *pos, struct iscsi_pair *out)
{
	const char *s, *end, *eq;
	size_t key_len, value_len;

	/* some initiators pad with NULs inside the segment */
	while (*pos < t->len && t->buf[*pos] == '\0')
		++*pos;
	if (*pos == t->len)
		return 0;
	s = t->buf + *pos;
	end = memchr(s, '\0', t->len - *pos);
	if (!end)
		return -EINVAL;
	eq = memchr(s, '=', (size_t)(end - s));
	if (!eq)
		return -EINVAL;
	key_len = (size_t)(eq - s);
	value_len = (size_t)(end - eq) - 1;
	if (!key_valid(s, key_len) || value_len > value_max(s, key_len))
		return -EINVAL;
	memcpy(out->key, s, key_len);
	out->key[key_len] = '\0';
	memcpy(out->value, eq + 1, value_len + 1);
	*pos += (uint32_t)(end - s) + 1;
	return 1;
}

bool iscsi_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len > ISCSI_NAME_MAX)
		return false;
	if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:") != len) {
		/* 4.2.7.2: UTF-8 in its normalised form is allowed too; printable, no space */
		for (const char *c = name; *c; c++)
			if ((uint8_t)*c <= ' ' || *c == 0x7f || strchr(",/<>\"'%&*\\", *c))
				return false;
	}
	return (!strncmp(name, "iqn.", 4) && len > 4) ||
	       (!strncmp(name, "eui.", 4) && len == 20) ||
	       (!strncmp(name, "naa.", 4) && (len == 20 || len == 36));
}
