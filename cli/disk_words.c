/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk_words.c - see disk_words.h */
#include "cli/disk_words.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/driver.h"

enum { NO_OPTION = 1 };

static bool has_key(const char *word, const char *key, const char **value)
{
	size_t len = strlen(key);

	*value = word + len;
	return !strncmp(word, key, len);
}

/* bytes=, ops= and burst= add up, as options come one by one. */
static int add_limit(struct guest_disk *d, const char *text, struct vdisk_error *err)
{
	struct blk_limits l;
	char all[LIMITS_TEXT_MAX];
	int n = snprintf(all, sizeof(all), "%s%s%s", text, d->limits[0] ? "," : "", d->limits);

	/* a burst may come before what it is a burst of */
	if (n >= (int)sizeof(all) ||
	    (words_limits(all, &l) < 0 && !(has_key(text, "burst=", &text) && !d->limits[0])))
		return vd_fail(err, EINVAL, "a disk's limits are " words_limits_help ", not '%.80s'",
			       all);
	memcpy(d->limits, all, sizeof(all));
	return 0;
}

static int set_word(struct guest_disk *d, const char *word, struct vdisk_error *err)
{
	enum cache_mode cache;
	const char *value;
	uint32_t size;

	if (!strcmp(word, "read-only") || !strcmp(word, "ro"))
		d->read_only = true;
	else if (!strcmp(word, "snapshot"))
		d->snapshot = true;
	else if (has_key(word, "format=", &value))
		d->format = value;
	else if (has_key(word, "limit=", &value))
		return add_limit(d, value, err);
	else if (has_key(word, "bytes=", &value) || has_key(word, "ops=", &value) ||
		 has_key(word, "burst=", &value))
		return add_limit(d, word, err);
	else if (has_key(word, "cache=", &value) && words_cache(value, &cache) == 0)
		d->cache = value;
	else if (has_key(word, "serial=", &value) && words_serial_ok(value))
		d->serial = value;
	else if (has_key(word, "block-size=", &value) && words_block_size(value, &size) == 0)
		d->block_size = value;
	else if (has_key(word, "cache=", &value))
		return vd_fail(err, EINVAL, "a disk's cache is " words_cache_help ", not '%.40s'", value);
	else if (has_key(word, "serial=", &value))
		return vd_fail(err, EINVAL, "a disk's serial is " words_serial_help ", not '%.40s'",
			       value);
	else if (has_key(word, "block-size=", &value))
		return vd_fail(err, EINVAL, "a disk's block-size is " words_block_size_help
			       ", not '%.40s'", value);
	else
		return NO_OPTION;
	return 0;
}

int guest_disk_check(const struct guest_disk *d, struct vdisk_error *err)
{
	struct blk_limits l;

	if (d->limits[0] && words_limits(d->limits, &l) < 0)
		return vd_fail(err, EINVAL, "a disk's limits are " words_limits_help ", not '%.80s'",
			       d->limits);
	return 0;
}

int guest_disk_word(struct guest_disk *d, const char *word, struct vdisk_error *err)
{
	int r = set_word(d, word, err);

	if (r == NO_OPTION)
		return vd_fail(err, EINVAL, "a disk has no option '%.64s' (format=, cache=, serial=, "
			       "limit=, block-size=, read-only, snapshot)", word);
	return r;
}

int guest_disk_parse(struct guest_disk *d, char *text, struct vdisk_error *err)
{
	char *comma;
	int r = 0;

	d->locator = text;
	while (!r && (comma = strrchr(text, ',')) && comma != text) {
		if (!comma[1]) {
			*comma = '\0';
			break;
		}
		r = set_word(d, comma + 1, err);
		if (!r)
			*comma = '\0';
	}
	return r < 0 ? r : guest_disk_check(d, err);
}
