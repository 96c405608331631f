/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pdu.h - iSCSI PDUs as bytes and as values (RFC 7143, 11)
 *
 * A PDU is a 48-byte basic header segment (BHS), additional headers (AHS), an
 * optional header digest, and a data segment padded to four bytes with an
 * optional digest.  iscsi_pdu_decode() turns the BHS of a request into host
 * values once; nothing else looks into the bytes of a request.  Replies are
 * made by the iscsi_put_ functions, which write every byte of the header.
 */
#ifndef ISCSI_PDU_H
#define ISCSI_PDU_H

#include <stdbool.h>
#include <stdint.h>

#define ISCSI_BHS_SIZE		48u
#define ISCSI_AHS_MAX		(255u * 4u)
#define ISCSI_DIGEST_SIZE	4u
#define ISCSI_RESERVED_TAG	0xffffffffu

enum iscsi_opcode {
	ISCSI_NOP_OUT = 0x00,
	ISCSI_SCSI_COMMAND = 0x01,
	ISCSI_TASK_REQUEST = 0x02,
	ISCSI_LOGIN_REQUEST = 0x03,
	ISCSI_TEXT_REQUEST = 0x04,
	ISCSI_DATA_OUT = 0x05,
	ISCSI_LOGOUT_REQUEST = 0x06,
	ISCSI_SNACK_REQUEST = 0x10,

	ISCSI_NOP_IN = 0x20,
	ISCSI_SCSI_RESPONSE = 0x21,
	ISCSI_TASK_RESPONSE = 0x22,
	ISCSI_LOGIN_RESPONSE = 0x23,
	ISCSI_TEXT_RESPONSE = 0x24,
	ISCSI_DATA_IN = 0x25,
	ISCSI_LOGOUT_RESPONSE = 0x26,
	ISCSI_R2T = 0x31,
	ISCSI_ASYNC_MESSAGE = 0x32,
	ISCSI_REJECT = 0x3f,
};

/* 11.17.1 */
enum iscsi_reject_reason {
	ISCSI_REJECT_DATA_DIGEST = 0x02,
	ISCSI_REJECT_PROTOCOL_ERROR = 0x04,
	ISCSI_REJECT_COMMAND_NOT_SUPPORTED = 0x05,
	ISCSI_REJECT_TOO_MANY_IMMEDIATE = 0x06,
	ISCSI_REJECT_TASK_IN_PROGRESS = 0x07,
	ISCSI_REJECT_INVALID_FIELD = 0x09,
};

/* 11.5.1 */
enum iscsi_task_function {
	ISCSI_ABORT_TASK = 1,
	ISCSI_ABORT_TASK_SET = 2,
	ISCSI_CLEAR_ACA = 3,
	ISCSI_CLEAR_TASK_SET = 4,
	ISCSI_LUN_RESET = 5,
	ISCSI_TARGET_WARM_RESET = 6,
	ISCSI_TARGET_COLD_RESET = 7,
	ISCSI_TASK_REASSIGN = 8,
};

/* 11.6.1 */
enum iscsi_task_response {
	ISCSI_TASK_COMPLETE = 0,
	ISCSI_TASK_NOT_FOUND = 1,
	ISCSI_TASK_NO_LUN = 2,
	ISCSI_TASK_REASSIGN_NOT_SUPPORTED = 4,
	ISCSI_TASK_NOT_SUPPORTED = 5,
	ISCSI_TASK_REJECTED = 255,
};

enum iscsi_stage {		/* 11.12.3 */
	ISCSI_STAGE_SECURITY = 0,
	ISCSI_STAGE_OPERATIONAL = 1,
	ISCSI_STAGE_FULL = 3,
};

/* status class in the high byte, detail in the low one (11.13.5) */
enum iscsi_login_status {
	ISCSI_LOGIN_SUCCESS = 0x0000,
	ISCSI_LOGIN_MOVED_TEMPORARILY = 0x0101,
	ISCSI_LOGIN_MOVED_PERMANENTLY = 0x0102,
	ISCSI_LOGIN_INITIATOR_ERROR = 0x0200,
	ISCSI_LOGIN_AUTH_FAILED = 0x0201,
	ISCSI_LOGIN_FORBIDDEN = 0x0202,
	ISCSI_LOGIN_NOT_FOUND = 0x0203,
	ISCSI_LOGIN_VERSION = 0x0205,
	ISCSI_LOGIN_TOO_MANY_CONNECTIONS = 0x0206,
	ISCSI_LOGIN_MISSING_PARAMETER = 0x0207,
	ISCSI_LOGIN_SESSION_TYPE = 0x0209,
	ISCSI_LOGIN_NO_SESSION = 0x020a,
	ISCSI_LOGIN_INVALID = 0x020b,
	ISCSI_LOGIN_UNAVAILABLE = 0x0301,
	ISCSI_LOGIN_OUT_OF_RESOURCES = 0x0302,
};

/* 11.9.1 */
enum iscsi_async_event {
	ISCSI_ASYNC_LOGOUT_REQUEST = 1,
};

struct iscsi_request {
	uint8_t opcode;
	bool immediate;
	bool final;		/* F; of a login request: T */
	uint32_t ahs_len;
	uint32_t data_len;	/* without padding */
	uint8_t lun[8];
	uint32_t itt;
	uint32_t ttt;		/* NOP-Out, Data-Out, Text */
	uint32_t cmd_sn;	/* not of Data-Out and SNACK */
	uint32_t exp_stat_sn;
	union {
		struct {
			bool read, write;
			uint8_t attribute;
			uint32_t expected_len;
			uint8_t cdb[16];
		} command;
		struct {
			uint8_t function;
			uint32_t ref_itt;
			uint32_t ref_cmd_sn;
		} task;
		struct {
			bool more;		/* C */
			uint8_t current, next;	/* CSG, NSG */
			uint8_t version_max, version_min;
			uint8_t isid[6];
			uint16_t tsih;
			uint16_t cid;
		} login;
		struct {
			bool more;		/* C */
		} text;
		struct {
			uint32_t data_sn;
			uint32_t offset;
		} data;
		struct {
			uint8_t reason;
			uint16_t cid;
		} logout;
	};
};

/*
 * Decode a request's BHS.  0, or the reject reason: an opcode that only a
 * target sends, an unknown one, or fields that contradict each other.  Opcode,
 * lengths and ITT in @out are valid in any case.
 */
int iscsi_pdu_decode(struct iscsi_request *out, const uint8_t bhs[ISCSI_BHS_SIZE]);

/* The counters that every reply of a connection carries. */
struct iscsi_sn {
	uint32_t stat_sn;
	uint32_t exp_cmd_sn;
	uint32_t max_cmd_sn;
};

/* How the data moved differs from what the initiator expected (11.4.1). */
#define ISCSI_RESIDUAL_OVERFLOW		0x04
#define ISCSI_RESIDUAL_UNDERFLOW	0x02

struct iscsi_status {
	uint8_t status;
	uint8_t residual_flags;
	uint32_t residual;
};

void iscsi_put_scsi_response(uint8_t *bhs, const struct iscsi_sn *sn, uint32_t itt,
			     const struct iscsi_status *st, uint32_t exp_data_sn,
			     uint32_t data_len);

struct iscsi_data_in {
	uint32_t itt;
	uint32_t data_len;
	uint32_t data_sn;
	uint32_t offset;
	bool final;
	const struct iscsi_status *status;	/* NULL: none in this one */
};
void iscsi_put_data_in(uint8_t *bhs, const struct iscsi_sn *sn, const struct iscsi_data_in *d);
void iscsi_put_r2t(uint8_t *bhs, const struct iscsi_sn *sn, const uint8_t lun[8], uint32_t itt,
		   uint32_t ttt, uint32_t r2t_sn, uint32_t offset, uint32_t len);
void iscsi_put_nop_in(uint8_t *bhs, const struct iscsi_sn *sn, const uint8_t lun[8],
		      uint32_t itt, uint32_t ttt, uint32_t data_len);
void iscsi_put_task_response(uint8_t *bhs, const struct iscsi_sn *sn, uint32_t itt,
			     uint8_t response);
void iscsi_put_text(uint8_t *bhs, const struct iscsi_sn *sn, uint32_t itt, uint32_t ttt,
		    bool final, bool more, uint32_t data_len);

struct iscsi_login_reply {
	bool transit, more;
	uint8_t current, next;
	uint8_t isid[6];
	uint16_t tsih;
	uint32_t itt;
	uint16_t status;
	uint32_t data_len;
};
void iscsi_put_login(uint8_t *bhs, const struct iscsi_sn *sn, const struct iscsi_login_reply *l);
void iscsi_put_logout(uint8_t *bhs, const struct iscsi_sn *sn, uint32_t itt, uint8_t response);
void iscsi_put_reject(uint8_t *bhs, const struct iscsi_sn *sn, uint8_t reason, uint32_t data_len);
void iscsi_put_async(uint8_t *bhs, const struct iscsi_sn *sn, uint8_t event, uint16_t p1,
		     uint16_t p2, uint16_t p3);

/* Serial number arithmetic (RFC 1982), as 4.2.2.1 asks. */
static inline bool iscsi_sn_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline uint32_t iscsi_pad(uint32_t len)
{
	return -len & 3;
}

/* CRC32C as the digests use it (13.1): start with 0, feed what follows. */
uint32_t iscsi_crc(uint32_t crc, const void *buf, uint32_t len);

#endif
