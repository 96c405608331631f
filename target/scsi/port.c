/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* port.c - initiator ports by their TransportIDs (SPC-4, 7.6.4) */
#include <ctype.h>
#include <errno.h>

#include "target/scsi/op.h"

#define ISCSI_PROTOCOL	0x05
#define WITH_ISID	0x40	/* format 01b: the name and the session's identifier */
#define OTHER_LEN	24u	/* of every protocol but iSCSI */

/* Names compare in small letters; what follows ",i,0x" is a number. */
int scsi_port_iscsi(struct scsi_port *out, const char *text)
{
	size_t n = strlen(text), padded = MAX(vd_align_up(n + 1, 4), 20ul);

	if (4 + padded > sizeof(out->id))
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	out->id[0] = WITH_ISID | ISCSI_PROTOCOL;
	store_be16(out->id + 2, (uint16_t)padded);
	for (size_t i = 0; i < n; i++)
		out->id[4 + i] = (uint8_t)tolower((unsigned char)text[i]);
	out->len = (uint16_t)(4 + padded);
	return 0;
}

/* 7.6.4.6: additional length, a multiple of four and at least 20; a string with its NUL */
static int decode_iscsi(struct scsi_port *out, const uint8_t *p, size_t len, size_t *used)
{
	char text[sizeof(out->id)];
	size_t n = len < 4 ? 0 : load_be16(p + 2);

	if (n < 20 || n % 4 || n > len - 4 || n > sizeof(text))
		return -EINVAL;
	if ((p[0] & 0xc0) != WITH_ISID || !memchr(p + 4, 0, n))
		return -EINVAL;
	memcpy(text, p + 4, n);
	if (!strstr(text, ",i,0x"))
		return -EINVAL;
	*used = 4 + n;
	return scsi_port_iscsi(out, text);
}

int scsi_port_decode(struct scsi_port *out, const uint8_t *p, size_t len, size_t *used)
{
	if (len == 0)
		return -EINVAL;
	if ((p[0] & 0x0f) == ISCSI_PROTOCOL)
		return decode_iscsi(out, p, len, used);
	if (len < OTHER_LEN)
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	memcpy(out->id, p, OTHER_LEN);
	out->len = OTHER_LEN;
	*used = OTHER_LEN;
	return 0;
}
