/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * table.c - the commands, a row each
 *
 * From a row come the checks of reserved bits, of the LBA range, of write
 * protection, of reservations (SPC-4, table 65; SBC-3, table 13), of what a port
 * in standby, a unit without medium and one that is being sanitized still do;
 * who has the command at all; and the answer of REPORT SUPPORTED OPERATION CODES.
 *
 * Bits of the usage bytes that stay 0 on purpose: the CONTROL byte (no ACA), the
 * protection fields (no protection information), ANCHOR, PMI, SP, and whatever
 * is obsolete.
 */
#include "target/scsi/op.h"

#define NO_SA	SCSI_NO_SERVICE_ACTION
#define NONE	SCSI_DIR_NONE
#define IN	SCSI_DIR_IN
#define OUT	SCSI_DIR_OUT
#define ALLOW	SCSI_RESERVED_ALLOW
#define READS	SCSI_RESERVED_READ
#define DENY	SCSI_RESERVED_DENY
#define NO_LBA	SCSI_LBA_NONE
#define LBA4	0xff, 0xff, 0xff, 0xff
#define LBA8	LBA4, LBA4
#define LEN2	0xff, 0xff
#define LEN4	0xff, 0xff, 0xff, 0xff
#define NO2	0, 0
#define NO4	0, 0, 0, 0
#define GROUP	0x1f
#define DPO	0x10
#define FUA	0x08
#define BYTCHK	0x06
#define SA	0x1f

#define W	SCSI_OP_WRITES
#define TO_END	SCSI_OP_TO_END
#define DISK	SCSI_OP_DISK
#define CDROM	SCSI_OP_CDROM
#define THIN	SCSI_OP_THIN
#define ALONE	SCSI_OP_EXCLUSIVE
#define UNA	SCSI_OP_UNAVAILABLE
#define STANDBY	SCSI_OP_STANDBY
#define EMPTY	SCSI_OP_NO_MEDIUM
#define SAN	SCSI_OP_SANITIZING
#define PAST	SCSI_OP_PAST_RESERVE
/* what tells about the unit, always */
#define ANY_TIME (SCSI_OP_NO_UNIT | SCSI_OP_PAST_ATTENTION | PAST | STANDBY | UNA | EMPTY | SAN)
/* what looks at or sets up the unit and not the medium */
#define SETUP	(STANDBY | EMPTY)

const struct scsi_op scsi_ops[] = {
	/* TEST UNIT READY */
	{ 0x00, NO_SA, NONE, NO_LBA, ALLOW, 0,
	  { 0x00, 0, 0, 0, 0, 0 }, scsi_test_unit_ready },
	/* REQUEST SENSE */
	{ 0x03, NO_SA, IN, NO_LBA, ALLOW, ANY_TIME,
	  { 0x03, 0x01, 0, 0, 0xff, 0 }, scsi_request_sense },
	/* READ (6) */
	{ 0x08, NO_SA, IN, SCSI_LBA_6, READS, DISK,
	  { 0x08, 0x1f, 0xff, 0xff, 0xff, 0 }, scsi_read },
	/* WRITE (6) */
	{ 0x0a, NO_SA, OUT, SCSI_LBA_6, DENY, DISK | W,
	  { 0x0a, 0x1f, 0xff, 0xff, 0xff, 0 }, scsi_write },
	/* INQUIRY */
	{ 0x12, NO_SA, IN, NO_LBA, ALLOW, ANY_TIME,
	  { 0x12, 0x01, 0xff, LEN2, 0 }, scsi_inquiry },
	/* MODE SELECT (6) */
	{ 0x15, NO_SA, OUT, NO_LBA, DENY, SETUP,
	  { 0x15, 0x10, 0, 0, 0xff, 0 }, scsi_mode_select },
	/* RESERVE (6) */
	{ 0x16, NO_SA, NONE, NO_LBA, ALLOW, EMPTY,
	  { 0x16, 0, 0, 0, 0, 0 }, scsi_reserve },
	/* RELEASE (6) */
	{ 0x17, NO_SA, NONE, NO_LBA, ALLOW, EMPTY | PAST | SAN,
	  { 0x17, 0, 0, 0, 0, 0 }, scsi_release },
	/* MODE SENSE (6) */
	{ 0x1a, NO_SA, IN, NO_LBA, DENY, SETUP | SAN,
	  { 0x1a, 0x08, 0xff, 0xff, 0xff, 0 }, scsi_mode_sense },
	/* START STOP UNIT; what a reservation lets through is the handler's matter */
	{ 0x1b, NO_SA, NONE, NO_LBA, ALLOW, EMPTY,
	  { 0x1b, 0x01, 0, 0x0f, 0xf7, 0 }, scsi_start_stop },
	/* PREVENT ALLOW MEDIUM REMOVAL; likewise */
	{ 0x1e, NO_SA, NONE, NO_LBA, ALLOW, EMPTY | SCSI_OP_REMOVABLE,
	  { 0x1e, 0, 0, 0, 0x01, 0 }, scsi_prevent_allow },
	/* READ CAPACITY (10) */
	{ 0x25, NO_SA, IN, NO_LBA, ALLOW, 0,
	  { 0x25, 0, NO4, 0, 0, 0, 0 }, scsi_read_capacity_10 },
	/* READ (10) */
	{ 0x28, NO_SA, IN, SCSI_LBA_10, READS, 0,
	  { 0x28, DPO | FUA, LBA4, GROUP, LEN2, 0 }, scsi_read },
	/* WRITE (10) */
	{ 0x2a, NO_SA, OUT, SCSI_LBA_10, DENY, DISK | W,
	  { 0x2a, DPO | FUA, LBA4, GROUP, LEN2, 0 }, scsi_write },
	/* WRITE AND VERIFY (10) */
	{ 0x2e, NO_SA, OUT, SCSI_LBA_10, DENY, DISK | W,
	  { 0x2e, DPO | BYTCHK, LBA4, GROUP, LEN2, 0 }, scsi_write_verify },
	/* VERIFY (10) */
	{ 0x2f, NO_SA, OUT, SCSI_LBA_10, READS, 0,
	  { 0x2f, DPO | BYTCHK, LBA4, GROUP, LEN2, 0 }, scsi_verify },
	/* PRE-FETCH (10) */
	{ 0x34, NO_SA, NONE, SCSI_LBA_10, READS, DISK | TO_END,
	  { 0x34, 0x02, LBA4, GROUP, LEN2, 0 }, scsi_prefetch },
	/* SYNCHRONIZE CACHE (10) */
	{ 0x35, NO_SA, NONE, SCSI_LBA_10, DENY, TO_END,
	  { 0x35, 0x06, LBA4, GROUP, LEN2, 0 }, scsi_sync_cache },
	/* READ DEFECT DATA (10) */
	{ 0x37, NO_SA, IN, NO_LBA, ALLOW, DISK,
	  { 0x37, 0, 0x1f, NO4, LEN2, 0 }, scsi_read_defects },
	/* WRITE SAME (10) */
	{ 0x41, NO_SA, OUT, SCSI_LBA_10, DENY, DISK | W | TO_END,
	  { 0x41, 0x08, LBA4, GROUP, LEN2, 0 }, scsi_write_same },
	/* UNMAP */
	{ 0x42, NO_SA, OUT, NO_LBA, DENY, DISK | THIN | W,
	  { 0x42, 0, NO4, GROUP, LEN2, 0 }, scsi_unmap },
	/* READ TOC/PMA/ATIP */
	{ 0x43, NO_SA, IN, NO_LBA, READS, CDROM,
	  { 0x43, 0x02, 0x0f, 0, 0, 0, 0xff, LEN2, 0 }, scsi_read_toc },
	/* GET CONFIGURATION */
	{ 0x46, NO_SA, IN, NO_LBA, ALLOW, CDROM | EMPTY | SCSI_OP_PAST_ATTENTION,
	  { 0x46, 0x03, LEN2, 0, 0, 0, LEN2, 0 }, scsi_get_configuration },
	/* SANITIZE, OVERWRITE */
	{ 0x48, 0x01, OUT, NO_LBA, DENY, DISK | W | SCSI_OP_BACKGROUND,
	  { 0x48, 0xa0 | SA, NO4, 0, LEN2, 0 }, scsi_sanitize },
	/* SANITIZE, BLOCK ERASE */
	{ 0x48, 0x02, NONE, NO_LBA, DENY, DISK | THIN | W | SCSI_OP_BACKGROUND,
	  { 0x48, 0xa0 | SA, NO4, 0, LEN2, 0 }, scsi_sanitize },
	/* SANITIZE, EXIT FAILURE MODE */
	{ 0x48, 0x1f, NONE, NO_LBA, DENY, DISK | W | SAN | SCSI_OP_BACKGROUND,
	  { 0x48, 0xa0 | SA, NO4, 0, LEN2, 0 }, scsi_sanitize },
	/* GET EVENT STATUS NOTIFICATION */
	{ 0x4a, NO_SA, IN, NO_LBA, ALLOW, CDROM | EMPTY | SCSI_OP_PAST_ATTENTION,
	  { 0x4a, 0x01, 0, 0, 0xff, 0, 0, LEN2, 0 }, scsi_event_status },
	/* LOG SENSE */
	{ 0x4d, NO_SA, IN, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x4d, 0, 0xff, 0xff, 0, LEN2, LEN2, 0 }, scsi_log_sense },
	/* READ DISC INFORMATION */
	{ 0x51, NO_SA, IN, NO_LBA, READS, CDROM,
	  { 0x51, 0x07, NO4, 0, LEN2, 0 }, scsi_disc_information },
	/* MODE SELECT (10) */
	{ 0x55, NO_SA, OUT, NO_LBA, DENY, SETUP,
	  { 0x55, 0x10, 0, 0, 0, 0, 0, LEN2, 0 }, scsi_mode_select },
	/* RESERVE (10) */
	{ 0x56, NO_SA, NONE, NO_LBA, ALLOW, EMPTY,
	  { 0x56, 0, NO4, 0, 0, 0, 0 }, scsi_reserve },
	/* RELEASE (10) */
	{ 0x57, NO_SA, NONE, NO_LBA, ALLOW, EMPTY | PAST | SAN,
	  { 0x57, 0, NO4, 0, 0, 0, 0 }, scsi_release },
	/* MODE SENSE (10) */
	{ 0x5a, NO_SA, IN, NO_LBA, DENY, SETUP | SAN,
	  { 0x5a, 0x18, 0xff, 0xff, 0, 0, 0, LEN2, 0 }, scsi_mode_sense },
	/* PERSISTENT RESERVE IN: READ KEYS, READ RESERVATION, REPORT CAPABILITIES,
	 * READ FULL STATUS */
	{ 0x5e, 0x00, IN, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5e, SA, NO4, 0, LEN2, 0 }, scsi_pr_in },
	{ 0x5e, 0x01, IN, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5e, SA, NO4, 0, LEN2, 0 }, scsi_pr_in },
	{ 0x5e, 0x02, IN, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5e, SA, NO4, 0, LEN2, 0 }, scsi_pr_in },
	{ 0x5e, 0x03, IN, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5e, SA, NO4, 0, LEN2, 0 }, scsi_pr_in },
	/* PERSISTENT RESERVE OUT: REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT
	 * AND ABORT, REGISTER AND IGNORE EXISTING KEY, REGISTER AND MOVE; what a
	 * reservation lets through is the handler's matter */
	{ 0x5f, 0x00, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },	/* (scope and type are ignored) */
	{ 0x5f, 0x01, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },
	{ 0x5f, 0x02, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },
	{ 0x5f, 0x03, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },
	{ 0x5f, 0x04, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },
	{ 0x5f, 0x05, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },
	{ 0x5f, 0x06, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },
	{ 0x5f, 0x07, OUT, NO_LBA, ALLOW, SETUP | SAN,
	  { 0x5f, SA, 0xff, 0, 0, LEN4, 0 }, scsi_pr_out },
	/* EXTENDED COPY (LID1) */
	{ 0x83, 0x00, OUT, NO_LBA, DENY, DISK,
	  { 0x83, SA, NO4, NO4, LEN4, 0, 0 }, scsi_extended_copy },
	/* RECEIVE COPY STATUS (LID1), RECEIVE COPY OPERATING PARAMETERS, RECEIVE COPY
	 * FAILURE DETAILS (LID1) */
	{ 0x84, 0x00, IN, NO_LBA, DENY, DISK,
	  { 0x84, SA, 0xff, NO4, 0, 0, 0, LEN4, 0, 0 }, scsi_receive_copy },
	{ 0x84, 0x03, IN, NO_LBA, DENY, DISK,
	  { 0x84, SA, 0xff, NO4, 0, 0, 0, LEN4, 0, 0 }, scsi_receive_copy },
	{ 0x84, 0x04, IN, NO_LBA, DENY, DISK,
	  { 0x84, SA, 0xff, NO4, 0, 0, 0, LEN4, 0, 0 }, scsi_receive_copy },
	/* READ (16) */
	{ 0x88, NO_SA, IN, SCSI_LBA_16, READS, DISK,
	  { 0x88, DPO | FUA, LBA8, LEN4, GROUP, 0 }, scsi_read },
	/* COMPARE AND WRITE */
	{ 0x89, NO_SA, OUT, SCSI_LBA_16_8, DENY, DISK | W | ALONE,
	  { 0x89, DPO | FUA, LBA8, 0, 0, 0, 0xff, GROUP, 0 }, scsi_compare_and_write },
	/* WRITE (16) */
	{ 0x8a, NO_SA, OUT, SCSI_LBA_16, DENY, DISK | W,
	  { 0x8a, DPO | FUA, LBA8, LEN4, GROUP, 0 }, scsi_write },
	/* ORWRITE (16) */
	{ 0x8b, NO_SA, OUT, SCSI_LBA_16, DENY, DISK | W | ALONE,
	  { 0x8b, DPO | FUA, LBA8, LEN4, GROUP, 0 }, scsi_orwrite },
	/* WRITE AND VERIFY (16) */
	{ 0x8e, NO_SA, OUT, SCSI_LBA_16, DENY, DISK | W,
	  { 0x8e, DPO | BYTCHK, LBA8, LEN4, GROUP, 0 }, scsi_write_verify },
	/* VERIFY (16) */
	{ 0x8f, NO_SA, OUT, SCSI_LBA_16, READS, DISK,
	  { 0x8f, DPO | BYTCHK, LBA8, LEN4, GROUP, 0 }, scsi_verify },
	/* PRE-FETCH (16) */
	{ 0x90, NO_SA, NONE, SCSI_LBA_16, READS, DISK | TO_END,
	  { 0x90, 0x02, LBA8, LEN4, GROUP, 0 }, scsi_prefetch },
	/* SYNCHRONIZE CACHE (16) */
	{ 0x91, NO_SA, NONE, SCSI_LBA_16, DENY, DISK | TO_END,
	  { 0x91, 0x06, LBA8, LEN4, GROUP, 0 }, scsi_sync_cache },
	/* WRITE SAME (16) */
	{ 0x93, NO_SA, OUT, SCSI_LBA_16, DENY, DISK | W | TO_END,
	  { 0x93, 0x09, LBA8, LEN4, GROUP, 0 }, scsi_write_same },
	/* WRITE ATOMIC (16) */
	{ 0x9c, NO_SA, OUT, SCSI_LBA_16_16, DENY, DISK | W | ALONE,
	  { 0x9c, DPO | FUA, LBA8, LEN2, LEN2, GROUP, 0 }, scsi_write_atomic },
	/* READ CAPACITY (16) */
	{ 0x9e, 0x10, IN, NO_LBA, ALLOW, DISK,
	  { 0x9e, SA, NO4, NO4, LEN4, 0, 0 }, scsi_read_capacity_16 },
	/* GET LBA STATUS */
	{ 0x9e, 0x12, IN, NO_LBA, READS, DISK,
	  { 0x9e, SA, LBA8, LEN4, 0, 0 }, scsi_get_lba_status },
	/* REPORT LUNS */
	{ 0xa0, NO_SA, IN, NO_LBA, ALLOW, ANY_TIME,
	  { 0xa0, 0, 0xff, 0, 0, 0, LEN4, 0, 0 }, scsi_report_luns },
	/* REPORT TARGET PORT GROUPS */
	{ 0xa3, 0x0a, IN, NO_LBA, ALLOW, SETUP | UNA | PAST | SAN,
	  { 0xa3, 0xe0 | SA, NO4, LEN4, 0, 0 }, scsi_report_groups },
	/* REPORT SUPPORTED OPERATION CODES */
	{ 0xa3, 0x0c, IN, NO_LBA, ALLOW, SETUP | SAN,
	  { 0xa3, SA, 0x87, 0xff, LEN2, LEN4, 0, 0 }, scsi_report_opcodes },
	/* REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS */
	{ 0xa3, 0x0d, IN, NO_LBA, ALLOW, SETUP | SAN,
	  { 0xa3, SA, 0x80, 0, 0, 0, LEN4, 0, 0 }, scsi_report_tmfs },
	/* SET TARGET PORT GROUPS */
	{ 0xa4, 0x0a, OUT, NO_LBA, DENY, SETUP | UNA,
	  { 0xa4, SA, NO4, LEN4, 0, 0 }, scsi_set_groups },
	/* READ (12) */
	{ 0xa8, NO_SA, IN, SCSI_LBA_12, READS, 0,
	  { 0xa8, DPO | FUA, LBA4, LEN4, GROUP, 0 }, scsi_read },
	/* WRITE (12) */
	{ 0xaa, NO_SA, OUT, SCSI_LBA_12, DENY, DISK | W,
	  { 0xaa, DPO | FUA, LBA4, LEN4, GROUP, 0 }, scsi_write },
	/* WRITE AND VERIFY (12) */
	{ 0xae, NO_SA, OUT, SCSI_LBA_12, DENY, DISK | W,
	  { 0xae, DPO | BYTCHK, LBA4, LEN4, GROUP, 0 }, scsi_write_verify },
	/* VERIFY (12) */
	{ 0xaf, NO_SA, OUT, SCSI_LBA_12, READS, DISK,
	  { 0xaf, DPO | BYTCHK, LBA4, LEN4, GROUP, 0 }, scsi_verify },
	/* READ DEFECT DATA (12) */
	{ 0xb7, NO_SA, IN, NO_LBA, ALLOW, DISK,
	  { 0xb7, 0x1f, LBA4, LEN4, 0, 0 }, scsi_read_defects },
	/* MECHANISM STATUS */
	{ 0xbd, NO_SA, IN, NO_LBA, ALLOW, CDROM | EMPTY,
	  { 0xbd, 0, NO4, 0, 0, LEN2, 0, 0 }, scsi_mechanism_status },
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
_Static_assert(ARRAY_SIZE(scsi_ops) < 255, "first_row is too narrow");

__attribute__((constructor))
static void index_rows(void)
{
	for (unsigned i = scsi_n_ops; i-- > 0; )
		first_row[scsi_ops[i].opcode] = (uint8_t)(i + 1);
}

bool scsi_op_supported(const struct scsi_op *op, const struct scsi_unit *u)
{
	uint16_t types = op->flags & (DISK | CDROM);

	if (likely(types == DISK && u->type == SCSI_DISK) || types == 0)
		;
	else if (!(types & (u->type == SCSI_CDROM ? CDROM : DISK)))
		return false;
	if (op->flags & THIN && !u->limits.can_discard)
		return false;
	if (op->flags & SCSI_OP_BACKGROUND && !u->target->ops)
		return false;
	return !(op->flags & SCSI_OP_REMOVABLE) || u->removable;
}

bool scsi_opcode_known(uint8_t opcode, bool *has_actions, const struct scsi_unit *unit)
{
	unsigned row = first_row[opcode];

	*has_actions = row && scsi_ops[row - 1].service_action != NO_SA;
	if (!row)
		return false;
	for (const struct scsi_op *op = &scsi_ops[row - 1];
	     op < scsi_ops + scsi_n_ops && op->opcode == opcode; op++)
		if (!unit || scsi_op_supported(op, unit))
			return true;
	return false;
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
