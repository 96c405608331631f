/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sense.c - sense data in both formats (SPC-4, 4.5) */
#include <string.h>

#include "core/compiler.h"
#include "target/scsi/scsi.h"

/* SPC-4, 4.5.2.4.2: where the error is, in the CDB or the parameter list */
static void put_field(uint8_t *p, const struct scsi_sense *s)
{
	p[0] = (uint8_t)(0x80 | (s->field_in_cdb ? 0x40 : 0) |
			 (s->bit >= 0 ? 0x08 | s->bit : 0));
	store_be16(p + 1, s->field);
}

/* 4.5.2.4.4: how far something is */
static void put_progress(uint8_t *p, const struct scsi_sense *s)
{
	p[0] = 0x80;
	store_be16(p + 1, s->progress);
}

static uint8_t encode_fixed(uint8_t *p, const struct scsi_sense *s)
{
	p[0] = 0x70;
	p[2] = s->key;
	if (s->has_info && s->info <= UINT32_MAX) {
		p[0] |= 0x80;
		store_be32(p + 3, (uint32_t)s->info);
	}
	p[7] = 10;
	store_be16(p + 12, s->asc);
	if (s->has_field)
		put_field(p + 15, s);
	else if (s->has_progress)
		put_progress(p + 15, s);
	return 18;
}

static uint8_t encode_descriptor(uint8_t *p, const struct scsi_sense *s)
{
	uint8_t len = 8;

	p[0] = 0x72;
	p[1] = s->key;
	store_be16(p + 2, s->asc);
	if (s->has_info) {
		p[len + 1] = 0x0a;
		p[len + 2] = 0x80;
		store_be64(p + len + 4, s->info);
		len += 12;
	}
	if (s->has_field) {
		p[len] = 0x02;
		p[len + 1] = 0x06;
		put_field(p + len + 4, s);
		len += 8;
	} else if (s->has_progress) {
		p[len] = 0x02;
		p[len + 1] = 0x06;
		put_progress(p + len + 4, s);
		len += 8;
	}
	p[7] = (uint8_t)(len - 8);
	return len;
}

uint8_t scsi_sense_encode(uint8_t out[SCSI_SENSE_MAX], const struct scsi_sense *s,
			  bool descriptor)
{
	memset(out, 0, SCSI_SENSE_MAX);
	return descriptor ? encode_descriptor(out, s) : encode_fixed(out, s);
}
