/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * iscsi.h - the source whose bytes are a LUN of an iSCSI target
 *
 *	iscsi_address.c	  iscsi://[user[%secret]@]host[:port]/target/lun[?option...]
 *	iscsi_answers.c	  what a target says, from bytes to checked values
 *	iscsi_session.c	  the connection, on a thread of its own, through libiscsi
 *	iscsi.c		  the disk: which commands a request becomes
 */
#ifndef VD_ISCSI_H
#define VD_ISCSI_H

#include "core/engine.h"

/* ---- addresses ---- */

#define ISCSI_LIMIT_S	120u	/* default: how long a target may be away */

struct iscsi_address {
	char *name;		/* owned: all of it but the secret, for people */
	char *host, *port;	/* owned */
	char *target;		/* owned: the target's name */
	char *user, *secret;	/* owned, or NULL */
	char *their_user, *their_secret; /* what the target proves itself with; owned, or NULL */
	char *initiator;	/* owned: our own name */
	uint32_t lun;
	bool header_digest;
	unsigned limit_s;	/* requests fail when they could not be done for this long */
};

/* Reads files and environment for what is not in @uri: see vdisk(1). */
int iscsi_address_parse(struct iscsi_address *out, const char *uri, struct vdisk_error *err);
void iscsi_address_clear(struct iscsi_address *a);
/* Only the text; the part that is fuzzed. */
int iscsi_address_split(struct iscsi_address *out, const char *uri, struct vdisk_error *err);

/* ---- answers ---- */

struct iscsi_sense {
	uint8_t key;
	uint16_t code;		/* ASC and ASCQ */
};

/* Both formats (SPC-4, 4.5).  False: there is no sense in it. */
bool iscsi_decode_sense(struct iscsi_sense *out, const uint8_t *p, size_t len);

struct iscsi_capacity {
	uint64_t blocks;
	uint32_t block_size;
	bool provisioned;	/* LBPME: some blocks may have no space */
	bool zeroed;		/* LBPRZ: and read as zeroes then */
};

/* READ CAPACITY(16).  -EINVAL: impossible. */
int iscsi_decode_capacity(struct iscsi_capacity *out, const uint8_t *p, size_t len);

/* VPD page B0h; what is not there is 0: no limit, or not known. */
struct iscsi_limits {
	uint32_t max_transfer;		/* blocks */
	uint32_t max_unmap;		/* blocks in one command */
	uint32_t max_unmap_ranges;	/* in one command */
	uint32_t granularity;		/* of unmapping, blocks */
	uint32_t alignment;		/* of the first granule; only if has_alignment */
	bool has_alignment;
	uint64_t max_write_same;	/* blocks */
	bool no_whole_write_same;	/* WSNZ: a count of 0 is refused */
};
int iscsi_decode_limits(struct iscsi_limits *out, const uint8_t *p, size_t len);

/* VPD page B2h: how space can be given back. */
struct iscsi_provisioning {
	bool unmap;		/* LBPU */
	bool write_same;	/* LBPWS: WRITE SAME(16) with UNMAP */
};
int iscsi_decode_provisioning(struct iscsi_provisioning *out, const uint8_t *p, size_t len);

/* VPD page 83h: what is the same wherever the LUN is met; a hash, 0: it says nothing. */
uint64_t iscsi_decode_identity(const uint8_t *p, size_t len);

struct iscsi_mode {
	bool write_protected, fua;
};
/* MODE SENSE(10) */
int iscsi_decode_mode(struct iscsi_mode *out, const uint8_t *p, size_t len);

/* REPORT SUPPORTED OPERATION CODES, one command: is WRITE SAME(16) there, and NDOB in it? */
void iscsi_decode_write_same(bool *there, bool *no_data_out, const uint8_t *p, size_t len);

/*
 * GET LBA STATUS: whether @block is mapped, and how many blocks from it on are
 * the same, at most @max.  -EINVAL: it does not say.
 */
int iscsi_decode_status(bool *mapped, uint64_t *blocks, uint64_t block, uint64_t max,
			const uint8_t *p, size_t len);

/* Standard INQUIRY.  -ENXIO: no such LUN, -EMEDIUMTYPE: not a disk; @product has 26 bytes. */
int iscsi_decode_inquiry(char product[26], const uint8_t *p, size_t len);

/* What a command's end means. */
struct iscsi_verdict {
	int result;		/* 0 or -errno; of no meaning if again */
	bool again;		/* send it again ... */
	unsigned delay_ms;	/* ... after this time */
	bool patient;		/* and go on doing so for as long as requests may take */
	uint16_t attention;	/* ASC and ASCQ of a unit attention, or 0 */
};
/* @status as SAM has it; @sense may be NULL. */
struct iscsi_verdict iscsi_judge(unsigned status, const struct iscsi_sense *sense);

/*
 * Has the target of a login with mutual CHAP been asked for its proof?  It is, by
 * libiscsi, only if it goes the whole way: the method, the challenge, the answer (RFC
 * 7143, 12.1.3); a target that leaves the security stage before that is believed.  So
 * its login responses are looked at, one after the other, before libiscsi has them.
 */
enum iscsi_proof { ISCSI_PROOF_METHOD, ISCSI_PROOF_CHALLENGE, ISCSI_PROOF_ANSWER, ISCSI_PROOF_DONE };

#define ISCSI_BHS	48u	/* bytes of a PDU's basic header */
/* How long the PDU is that begins with these ISCSI_BHS bytes, without digests. */
size_t iscsi_pdu_length(const uint8_t *p);
/* The next login response, a whole PDU; -EACCES: the target does not prove itself. */
int iscsi_proof_step(enum iscsi_proof *step, const uint8_t *p, size_t len);

/* ---- sessions ---- */

enum iscsi_direction { ISCSI_NONE, ISCSI_READ, ISCSI_WRITE };

/* A SCSI command: the submitter's memory until it is done. */
struct iscsi_session;

struct iscsi_command {
	struct iscsi_command *next;
	uint8_t cdb[16];
	uint8_t cdb_len;
	uint8_t direction;	/* enum iscsi_direction */
	uint32_t length;	/* of its data, bytes */
	/* The data's buffers, not changed, though written to for moments; or NULL:
	 * READ then puts what has come into ->buf */
	struct iovec *iov;
	unsigned iovcnt;
	uint8_t *buf;
	uint32_t got;		/* how much has come (->buf) */
	bool exact;		/* a residual is an error: all of ->length must move */
	/* Once, on the session's thread (or the one that closes it); does not block. */
	void (*done)(struct iscsi_command *cmd, int result);
	void *user;		/* the submitter's */

	/* the session's */
	struct iscsi_session *session;
	void *task;
	int64_t since, not_before;
	unsigned tries;
	struct iscsi_command *prev_sent, *next_sent;
	bool is_check;
};

struct iscsi_hooks {
	/*
	 * There is a new connection.  What is to be asked before anything else is
	 * sent, at most @max commands; they have no ->done.
	 */
	unsigned (*questions)(void *arg, struct iscsi_command *cmds, unsigned max);
	/* Is it what it was?  -errno: no, never use it again. */
	int (*answers)(void *arg, const struct iscsi_command *cmds, const int *results, unsigned n);
	/* A unit attention has come. */
	void (*attention)(void *arg, uint16_t code);
	void *arg;
};
#define ISCSI_QUESTIONS_MAX	4u

/* Connects and logs in; fails at once if that is not possible. @address is borrowed. */
int iscsi_session_open(struct iscsi_session **out, const struct iscsi_address *address,
		       struct vdisk_error *err);
/* From now on, new connections are asked. */
void iscsi_session_set_hooks(struct iscsi_session *s, const struct iscsi_hooks *hooks);
/* Never blocks. */
void iscsi_session_submit(struct iscsi_session *s, struct iscsi_command *list);
/* Submit one and wait; its ->done is not used. */
int iscsi_session_run(struct iscsi_session *s, struct iscsi_command *cmd);
/* All commands are done. */
void iscsi_session_close(struct iscsi_session *s);

#endif
