/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * types.c - what the types of partitions are called
 *
 * libfdisk knows all of them; added are the short names that people type, the
 * same for both schemes.
 */
#include <ctype.h>
#include <errno.h>
#include <libfdisk/libfdisk.h>
#include <stdio.h>
#include <strings.h>

#include "part/part.h"

static const struct {
	const char *alias;
	const char *dos;
	const char *gpt;
} aliases[] = {
	{ "linux", "0x83", "0fc63daf-8483-4772-8e79-3d69d8477de4" },
	{ "swap", "0x82", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" },
	{ "linux-swap", "0x82", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" },
	{ "esp", "0xef", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" },
	{ "efi", "0xef", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" },
	{ "lvm", "0x8e", "e6d6d379-f507-44c2-a23c-238f2a3df928" },
	{ "linux-lvm", "0x8e", "e6d6d379-f507-44c2-a23c-238f2a3df928" },
	{ "raid", "0xfd", "a19d880f-05fc-4d3b-a006-743f0f84911e" },
	{ "linux-raid", "0xfd", "a19d880f-05fc-4d3b-a006-743f0f84911e" },
	{ "home", "0x83", "933ac7e1-2eb4-4f13-b844-0e14e2aef915" },
	{ "boot", "0x83", "bc13c2ff-59e6-4262-a352-b275fd6f7172" },
	{ "root", "0x83", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" },
	{ "bios", NULL, "21686148-6449-6e6f-744e-656564454649" },
	{ "data", "0x07", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" },
	{ "ntfs", "0x07", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" },
	{ "fat32", "0x0c", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" },
	{ "extended", "0x05", NULL },
	/* only their bytes, as types of an MBR that a GPT has too */
	{ "fat16", "0x06", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" },
	{ "fat32-chs", "0x0b", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" },
	{ "fat16-lba", "0x0e", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" },
};

struct part_types {
	struct fdisk_context *cxt;	/* owned */
};

struct part_types *part_types_new(void)
{
	AUTO_FREE struct part_types *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->cxt = fdisk_new_context();
	return t->cxt ? STEAL(t) : NULL;
}

void part_types_free(struct part_types *t)
{
	if (!t)
		return;
	fdisk_unref_context(t->cxt);
	free(t);
}

void part_type_name(struct part_types *t, const char *scheme, const char *type, char *out,
		    size_t size)
{
	struct fdisk_label *label = fdisk_get_label(t->cxt, scheme);
	struct fdisk_parttype *pt = NULL;
	const char *name;

	*out = '\0';
	if (!label)
		return;
	if (strcmp(scheme, "dos") == 0)
		pt = fdisk_label_get_parttype_from_code(label,
							(unsigned)strtoul(type, NULL, 16));
	else
		pt = fdisk_label_get_parttype_from_string(label, type);
	name = pt ? fdisk_parttype_get_name(pt) : NULL;
	if (name)
		snprintf(out, size, "%s", name);
}

static bool is_guid(const char *s)
{
	if (strlen(s) != 36)
		return false;
	for (unsigned i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return true;
}

/* One or two hexadecimal digits, with or without 0x; -1 if it is not. */
static int parse_byte(const char *s)
{
	if (strncasecmp(s, "0x", 2) == 0)
		s += 2;
	if (!isxdigit((unsigned char)s[0]) ||
	    (s[1] && (!isxdigit((unsigned char)s[1]) || s[2])))
		return -1;
	return (int)strtoul(s, NULL, 16);
}

static const char *find_alias(const char *text, bool dos)
{
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (strcasecmp(text, aliases[i].alias) == 0)
			return dos ? aliases[i].dos : aliases[i].gpt;
	return NULL;
}

/* The GUID that stands for what an MBR type byte says: "83" means Linux on a GPT too. */
static const char *guid_of_byte(int byte)
{
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (aliases[i].dos && aliases[i].gpt && parse_byte(aliases[i].dos) == byte)
			return aliases[i].gpt;
	return NULL;
}

void part_type_convert(char out[40], const char *scheme, const char *type)
{
	bool dos = strcmp(scheme, "dos") == 0;
	const char *other = dos ? NULL : guid_of_byte(parse_byte(type));

	for (size_t i = 0; dos && !other && i < ARRAY_SIZE(aliases); i++)
		if (aliases[i].gpt && strcmp(aliases[i].gpt, type) == 0)
			other = aliases[i].dos;
	snprintf(out, 40, "%s", other ? other : dos ? "0x83" :
		 "0fc63daf-8483-4772-8e79-3d69d8477de4");
}

/* By a name that libfdisk knows: "Linux RAID", "FreeBSD UFS". */
static bool find_name(char out[40], const char *scheme, const char *text)
{
	struct part_types *t = part_types_new();
	struct fdisk_label *label = t ? fdisk_get_label(t->cxt, scheme) : NULL;
	bool found = false;

	for (size_t i = 0; label && !found && i < fdisk_label_get_nparttypes(label); i++) {
		const struct fdisk_parttype *pt = fdisk_label_get_parttype(label, i);
		const char *name = fdisk_parttype_get_name(pt);

		if (!name || strcasecmp(name, text) != 0 ||
		    (!fdisk_parttype_get_string(pt) && !fdisk_parttype_get_code(pt)))
			continue;
		found = true;
		if (fdisk_parttype_get_string(pt))
			for (unsigned k = 0; k < 37; k++)
				out[k] = (char)tolower((unsigned char)fdisk_parttype_get_string(pt)[k]);
		else
			snprintf(out, 40, "0x%02x", fdisk_parttype_get_code(pt));
	}
	part_types_free(t);
	return found;
}

int vdisk_part_type(char out[40], const char *scheme, const char *text, struct vdisk_error *err)
{
	bool dos = strcmp(scheme, "dos") == 0;
	const char *known = find_alias(text, dos);
	int byte = parse_byte(text);

	if (known) {
		snprintf(out, 40, "%s", known);
		return 0;
	}
	if (dos && byte > 0) {
		snprintf(out, 40, "0x%02x", byte);
		return 0;
	}
	if (!dos && byte > 0 && guid_of_byte(byte)) {
		snprintf(out, 40, "%s", guid_of_byte(byte));
		return 0;
	}
	if (!dos && is_guid(text)) {
		for (unsigned i = 0; i < 37; i++)
			out[i] = (char)tolower((unsigned char)text[i]);
		return 0;
	}
	if (find_name(out, scheme, text))
		return 0;
	return vd_fail(err, EINVAL, "'%s' is no partition type of a %s table: give a name (linux, "
		       "swap, esp, lvm, raid, home, boot, root, data, ...) or %s", text,
		       dos ? "DOS" : "GPT", dos ? "a hexadecimal byte" : "a GUID");
}
