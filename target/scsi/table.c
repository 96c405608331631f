/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * table.c - the commands, a row each
 *
 * From a row come the checks of reserved bits, of the LBA range and of write
 * protection, the answer of REPORT SUPPORTED OPERATION CODES, and (the
 * "reserved" column) what a reservation of another initiator lets through.
 *
 * Bits of the usage bytes that stay 0 on purpose: the CONTROL byte (no ACA), the
 * protection fields (no protection information), ANCHOR, PMI, SP, and whatever
 * is obsolete.
 */
#include "target/scsi/op.h"

#define NO_SA	SCSI_NO_SERVICE_ACTION
#define ALLOW	SCSI_RESERVED_ALLOW
#define READS	SCSI_RESERVED_READ
#define DENY	SCSI_RESERVED_DENY
#define LBA4	0xff, 0xff, 0xff, 0xff
#define LBA8	LBA4, LBA4
#define LEN2	0xff, 0xff
#define LEN4	0xff, 0xff, 0xff, 0xff
#define GROUP	0x1f
#define DPO	0x10
#define FUA	0x08
#define BYTCHK	0x06
#define SA	0x1f
#define ANY_TIME (SCSI_OP_NO_UNIT | SCSI_OP_PAST_ATTENTION)

const struct scsi_op scsi_ops[] = {
	/* TEST UNIT READY */
	{ 0x00, NO_SA, SCSI_LBA_NONE, ALLOW, 0,
	  { 0x00, 0, 0, 0, 0, 0 }, scsi_test_unit_ready },
	/* REQUEST SENSE */
	{ 0x03, NO_SA, SCSI_LBA_NONE, ALLOW, ANY_TIME,
	  { 0x03, 0x01, 0, 0, 0xff, 0 }, scsi_request_sense },
	/* READ (6) */
	{ 0x08, NO_SA, SCSI_LBA_6, READS, 0,
	  { 0x08, 0x1f, 0xff, 0xff, 0xff, 0 }, scsi_read },
	/* WRITE (6) */
	{ 0x0a, NO_SA, SCSI_LBA_6, DENY, SCSI_OP_WRITES,
	  { 0x0a, 0x1f, 0xff, 0xff, 0xff, 0 }, scsi_write },
	/* INQUIRY */
	{ 0x12, NO_SA, SCSI_LBA_NONE, ALLOW, ANY_TIME,
	  { 0x12, 0x01, 0xff, LEN2, 0 }, scsi_inquiry },
	/* MODE SELECT (6) */
	{ 0x15, NO_SA, SCSI_LBA_NONE, DENY, 0,
	  { 0x15, 0x10, 0, 0, 0xff, 0 }, scsi_mode_select },
	/* MODE SENSE (6) */
	{ 0x1a, NO_SA, SCSI_LBA_NONE, DENY, 0,
	  { 0x1a, 0x08, 0xff, 0xff, 0xff, 0 }, scsi_mode_sense },
	/* START STOP UNIT */
	{ 0x1b, NO_SA, SCSI_LBA_NONE, DENY, 0,
	  { 0x1b, 0x01, 0, 0x0f, 0xf7, 0 }, scsi_start_stop },
	/* READ CAPACITY (10) */
	{ 0x25, NO_SA, SCSI_LBA_NONE, ALLOW, 0,
	  { 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, scsi_read_capacity_10 },
	/* READ (10) */
	{ 0x28, NO_SA, SCSI_LBA_10, READS, 0,
	  { 0x28, DPO | FUA, LBA4, GROUP, LEN2, 0 }, scsi_read },
	/* WRITE (10) */
	{ 0x2a, NO_SA, SCSI_LBA_10, DENY, SCSI_OP_WRITES,
	  { 0x2a, DPO | FUA, LBA4, GROUP, LEN2, 0 }, scsi_write },
	/* WRITE AND VERIFY (10) */
	{ 0x2e, NO_SA, SCSI_LBA_10, DENY, SCSI_OP_WRITES,
	  { 0x2e, DPO | BYTCHK, LBA4, GROUP, LEN2, 0 }, scsi_write_verify },
	/* VERIFY (10) */
	{ 0x2f, NO_SA, SCSI_LBA_10, READS, 0,
	  { 0x2f, DPO | BYTCHK, LBA4, GROUP, LEN2, 0 }, scsi_verify },
	/* PRE-FETCH (10) */
	{ 0x34, NO_SA, SCSI_LBA_10, READS, SCSI_OP_TO_END,
	  { 0x34, 0x02, LBA4, GROUP, LEN2, 0 }, scsi_prefetch },
	/* SYNCHRONIZE CACHE (10) */
	{ 0x35, NO_SA, SCSI_LBA_10, DENY, SCSI_OP_TO_END,
	  { 0x35, 0x02, LBA4, GROUP, LEN2, 0 }, scsi_sync_cache },
	/* WRITE SAME (10) */
	{ 0x41, NO_SA, SCSI_LBA_10, DENY, SCSI_OP_WRITES | SCSI_OP_TO_END,
	  { 0x41, 0x08, LBA4, GROUP, LEN2, 0 }, scsi_write_same },
	/* UNMAP */
	{ 0x42, NO_SA, SCSI_LBA_NONE, DENY, SCSI_OP_WRITES,
	  { 0x42, 0, 0, 0, 0, 0, GROUP, LEN2, 0 }, scsi_unmap },
	/* MODE SELECT (10) */
	{ 0x55, NO_SA, SCSI_LBA_NONE, DENY, 0,
	  { 0x55, 0x10, 0, 0, 0, 0, 0, LEN2, 0 }, scsi_mode_select },
	/* MODE SENSE (10) */
	{ 0x5a, NO_SA, SCSI_LBA_NONE, DENY, 0,
	  { 0x5a, 0x18, 0xff, 0xff, 0, 0, 0, LEN2, 0 }, scsi_mode_sense },
	/* READ (16) */
	{ 0x88, NO_SA, SCSI_LBA_16, READS, 0,
	  { 0x88, DPO | FUA, LBA8, LEN4, GROUP, 0 }, scsi_read },
	/* WRITE (16) */
	{ 0x8a, NO_SA, SCSI_LBA_16, DENY, SCSI_OP_WRITES,
	  { 0x8a, DPO | FUA, LBA8, LEN4, GROUP, 0 }, scsi_write },
	/* WRITE AND VERIFY (16) */
	{ 0x8e, NO_SA, SCSI_LBA_16, DENY, SCSI_OP_WRITES,
	  { 0x8e, DPO | BYTCHK, LBA8, LEN4, GROUP, 0 }, scsi_write_verify },
	/* VERIFY (16) */
	{ 0x8f, NO_SA, SCSI_LBA_16, READS, 0,
	  { 0x8f, DPO | BYTCHK, LBA8, LEN4, GROUP, 0 }, scsi_verify },
	/* PRE-FETCH (16) */
	{ 0x90, NO_SA, SCSI_LBA_16, READS, SCSI_OP_TO_END,
	  { 0x90, 0x02, LBA8, LEN4, GROUP, 0 }, scsi_prefetch },
	/* SYNCHRONIZE CACHE (16) */
	{ 0x91, NO_SA, SCSI_LBA_16, DENY, SCSI_OP_TO_END,
	  { 0x91, 0x02, LBA8, LEN4, GROUP, 0 }, scsi_sync_cache },
	/* WRITE SAME (16) */
	{ 0x93, NO_SA, SCSI_LBA_16, DENY, SCSI_OP_WRITES | SCSI_OP_TO_END,
	  { 0x93, 0x09, LBA8, LEN4, GROUP, 0 }, scsi_write_same },
	/* READ CAPACITY (16) */
	{ 0x9e, 0x10, SCSI_LBA_NONE, ALLOW, 0,
	  { 0x9e, SA, 0, 0, 0, 0, 0, 0, 0, 0, LEN4, 0, 0 }, scsi_read_capacity_16 },
	/* GET LBA STATUS */
	{ 0x9e, 0x12, SCSI_LBA_NONE, READS, 0,
	  { 0x9e, SA, LBA8, LEN4, 0, 0 }, scsi_get_lba_status },
	/* REPORT LUNS */
	{ 0xa0, NO_SA, SCSI_LBA_NONE, ALLOW, ANY_TIME,
	  { 0xa0, 0, 0xff, 0, 0, 0, LEN4, 0, 0 }, scsi_report_luns },
	/* REPORT SUPPORTED OPERATION CODES */
	{ 0xa3, 0x0c, SCSI_LBA_NONE, ALLOW, 0,
	  { 0xa3, SA, 0x87, 0xff, LEN2, LEN4, 0, 0 }, scsi_report_opcodes },
	/* REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS */
	{ 0xa3, 0x0d, SCSI_LBA_NONE, ALLOW, 0,
	  { 0xa3, SA, 0x80, 0, 0, 0, LEN4, 0, 0 }, scsi_report_tmfs },
	/* READ (12) */
	{ 0xa8, NO_SA, SCSI_LBA_12, READS, 0,
	  { 0xa8, DPO | FUA, LBA4, LEN4, GROUP, 0 }, scsi_read },
	/* WRITE (12) */
	{ 0xaa, NO_SA, SCSI_LBA_12, DENY, SCSI_OP_WRITES,
	  { 0xaa, DPO | FUA, LBA4, LEN4, GROUP, 0 }, scsi_write },
	/* WRITE AND VERIFY (12) */
	{ 0xae, NO_SA, SCSI_LBA_12, DENY, SCSI_OP_WRITES,
	  { 0xae, DPO | BYTCHK, LBA4, LEN4, GROUP, 0 }, scsi_write_verify },
	/* VERIFY (12) */
	{ 0xaf, NO_SA, SCSI_LBA_12, READS, 0,
	  { 0xaf, DPO | BYTCHK, LBA4, LEN4, GROUP, 0 }, scsi_verify },
};
const unsigned scsi_n_ops = ARRAY_SIZE(scsi_ops);

/* By the group code (SPC-4, 4.3.5.1); 0 for groups without a fixed length. */
unsigned scsi_cdb_len(uint8_t opcode)
{
	static const uint8_t len[8] = { 6, 10, 10, 0, 16, 12, 0, 0 };

	return len[opcode >> 5];
}

/* rows by opcode: the first one, plus 1; the rows are in order */
static uint8_t first_row[256];

__attribute__((constructor))
static void index_rows(void)
{
	for (unsigned i = scsi_n_ops; i-- > 0; )
		first_row[scsi_ops[i].opcode] = (uint8_t)(i + 1);
}

bool scsi_opcode_known(uint8_t opcode, bool *has_actions)
{
	unsigned row = first_row[opcode];

	*has_actions = row && scsi_ops[row - 1].service_action != NO_SA;
	return row;
}

const struct scsi_op *scsi_op_find(uint8_t opcode, uint8_t service_action)
{
	unsigned row = first_row[opcode];

	if (!row)
		return NULL;
	for (const struct scsi_op *op = &scsi_ops[row - 1];
	     op < scsi_ops + scsi_n_ops && op->opcode == opcode; op++)
		if (op->service_action == NO_SA || op->service_action == service_action)
			return op;
	return NULL;
}
