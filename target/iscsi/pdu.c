/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pdu.c - decode requests, encode replies (RFC 7143, 11) */
#include <string.h>

#include "core/compiler.h"
#include "target/iscsi/pdu.h"

#define FINAL 0x80

static void decode_command(struct iscsi_request *r, const uint8_t *b)
{
	r->command.read = b[1] & 0x40;
	r->command.write = b[1] & 0x20;
	r->command.attribute = b[1] & 7;
	r->command.expected_len = load_be32(b + 20);
	memcpy(r->command.cdb, b + 32, sizeof(r->command.cdb));
}

static int decode_login(struct iscsi_request *r, const uint8_t *b)
{
	r->login.more = b[1] & 0x40;
	r->login.current = b[1] >> 2 & 3;
	r->login.next = b[1] & 3;
	r->login.version_max = b[2];
	r->login.version_min = b[3];
	memcpy(r->login.isid, b + 8, sizeof(r->login.isid));
	r->login.tsih = load_be16(b + 14);
	r->login.cid = load_be16(b + 20);
	/* 11.12.2: T must not be set together with C */
	return r->final && r->login.more ? ISCSI_REJECT_PROTOCOL_ERROR : 0;
}

int iscsi_pdu_decode(struct iscsi_request *out, const uint8_t b[ISCSI_BHS_SIZE])
{
	struct iscsi_request r = {
		.opcode = b[0] & 0x3f,
		.immediate = b[0] & 0x40,
		.final = b[1] & FINAL,
		.ahs_len = b[4] * 4u,
		.data_len = load_be24(b + 5),
		.itt = load_be32(b + 16),
		.ttt = load_be32(b + 20),
		.cmd_sn = load_be32(b + 24),
		.exp_stat_sn = load_be32(b + 28),
	};
	int reject = 0;

	memcpy(r.lun, b + 8, sizeof(r.lun));
	switch (r.opcode) {
	case ISCSI_NOP_OUT:
		/* 11.18.1: a ping that asks for nothing must be immediate */
		if (r.itt == ISCSI_RESERVED_TAG && !r.immediate)
			reject = ISCSI_REJECT_PROTOCOL_ERROR;
		break;
	case ISCSI_SCSI_COMMAND:
		decode_command(&r, b);
		break;
	case ISCSI_TASK_REQUEST:
		r.task.function = b[1] & 0x7f;
		r.task.ref_itt = load_be32(b + 20);
		r.task.ref_cmd_sn = load_be32(b + 32);
		break;
	case ISCSI_LOGIN_REQUEST:
		reject = decode_login(&r, b);
		break;
	case ISCSI_TEXT_REQUEST:
		r.text.more = b[1] & 0x40;
		/* 11.10.2: F and C together are an error */
		if (r.final && r.text.more)
			reject = ISCSI_REJECT_PROTOCOL_ERROR;
		break;
	case ISCSI_DATA_OUT:
		r.data.data_sn = load_be32(b + 36);
		r.data.offset = load_be32(b + 40);
		break;
	case ISCSI_LOGOUT_REQUEST:
		r.logout.reason = b[1] & 0x7f;
		r.logout.cid = load_be16(b + 20);
		break;
	default:
		/* SNACK: only with an ErrorRecoveryLevel that we never agree to (11.16) */
		reject = ISCSI_REJECT_COMMAND_NOT_SUPPORTED;
	}
	if (reject == 0 && r.ahs_len && r.opcode != ISCSI_SCSI_COMMAND)
		reject = ISCSI_REJECT_PROTOCOL_ERROR;
	*out = r;
	return reject;
}

static void start(uint8_t *b, uint8_t opcode, uint8_t flags, uint32_t data_len, uint32_t itt)
{
	memset(b, 0, ISCSI_BHS_SIZE);
	b[0] = opcode;
	b[1] = flags;
	store_be24(b + 5, data_len);
	store_be32(b + 16, itt);
}

static void put_sn(uint8_t *b, const struct iscsi_sn *sn)
{
	store_be32(b + 24, sn->stat_sn);
	store_be32(b + 28, sn->exp_cmd_sn);
	store_be32(b + 32, sn->max_cmd_sn);
}

void iscsi_put_scsi_response(uint8_t *b, const struct iscsi_sn *sn, uint32_t itt,
			     const struct iscsi_status *st, uint32_t exp_data_sn,
			     uint32_t data_len)
{
	start(b, ISCSI_SCSI_RESPONSE, (uint8_t)(FINAL | st->residual_flags), data_len, itt);
	b[2] = 0;		/* command completed at target */
	b[3] = st->status;
	put_sn(b, sn);
	store_be32(b + 36, exp_data_sn);
	store_be32(b + 44, st->residual);
}

void iscsi_put_data_in(uint8_t *b, const struct iscsi_sn *sn, const struct iscsi_data_in *d)
{
	start(b, ISCSI_DATA_IN, d->final ? FINAL : 0, d->data_len, d->itt);
	store_be32(b + 20, ISCSI_RESERVED_TAG);
	put_sn(b, sn);
	if (d->status) {
		b[1] |= (uint8_t)(d->status->residual_flags | 0x01);
		b[3] = d->status->status;
		store_be32(b + 44, d->status->residual);
	} else {
		store_be32(b + 24, 0);	/* StatSN goes with a status only (11.7.4) */
	}
	store_be32(b + 36, d->data_sn);
	store_be32(b + 40, d->offset);
}

void iscsi_put_r2t(uint8_t *b, const struct iscsi_sn *sn, const uint8_t lun[8], uint32_t itt,
		   uint32_t ttt, uint32_t r2t_sn, uint32_t offset, uint32_t len)
{
	start(b, ISCSI_R2T, FINAL, 0, itt);
	memcpy(b + 8, lun, 8);
	store_be32(b + 20, ttt);
	put_sn(b, sn);
	store_be32(b + 36, r2t_sn);
	store_be32(b + 40, offset);
	store_be32(b + 44, len);
}

void iscsi_put_nop_in(uint8_t *b, const struct iscsi_sn *sn, const uint8_t lun[8],
		      uint32_t itt, uint32_t ttt, uint32_t data_len)
{
	start(b, ISCSI_NOP_IN, FINAL, data_len, itt);
	memcpy(b + 8, lun, 8);
	store_be32(b + 20, ttt);
	put_sn(b, sn);
}

void iscsi_put_task_response(uint8_t *b, const struct iscsi_sn *sn, uint32_t itt,
			     uint8_t response)
{
	start(b, ISCSI_TASK_RESPONSE, FINAL, 0, itt);
	b[2] = response;
	put_sn(b, sn);
}

void iscsi_put_text(uint8_t *b, const struct iscsi_sn *sn, uint32_t itt, uint32_t ttt,
		    bool final, bool more, uint32_t data_len)
{
	start(b, ISCSI_TEXT_RESPONSE, (uint8_t)((final ? FINAL : 0) | (more ? 0x40 : 0)),
	      data_len, itt);
	store_be32(b + 20, ttt);
	put_sn(b, sn);
}

void iscsi_put_login(uint8_t *b, const struct iscsi_sn *sn, const struct iscsi_login_reply *l)
{
	uint8_t flags = (uint8_t)((l->transit ? 0x80 : 0) | (l->more ? 0x40 : 0) |
				  l->current << 2 | (l->transit ? l->next : 0));

	start(b, ISCSI_LOGIN_RESPONSE, flags, l->data_len, l->itt);
	memcpy(b + 8, l->isid, sizeof(l->isid));	/* the versions, in 2 and 3, are 0 */
	store_be16(b + 14, l->tsih);
	put_sn(b, sn);
	store_be16(b + 36, l->status);
}

void iscsi_put_logout(uint8_t *b, const struct iscsi_sn *sn, uint32_t itt, uint8_t response)
{
	start(b, ISCSI_LOGOUT_RESPONSE, FINAL, 0, itt);
	b[2] = response;
	put_sn(b, sn);
	/* Time2Wait and Time2Retain stay 0: nothing is retained at level 0 */
}

void iscsi_put_reject(uint8_t *b, const struct iscsi_sn *sn, uint8_t reason, uint32_t data_len)
{
	start(b, ISCSI_REJECT, FINAL, data_len, ISCSI_RESERVED_TAG);
	b[2] = reason;
	put_sn(b, sn);
}

void iscsi_put_async(uint8_t *b, const struct iscsi_sn *sn, uint8_t event, uint16_t p1,
		     uint16_t p2, uint16_t p3)
{
	start(b, ISCSI_ASYNC_MESSAGE, FINAL, 0, ISCSI_RESERVED_TAG);
	put_sn(b, sn);
	b[36] = event;
	store_be16(b + 38, p1);
	store_be16(b + 40, p2);
	store_be16(b + 42, p3);
}
