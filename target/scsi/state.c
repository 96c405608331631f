/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * state.c - persistent reservations in a file, through the loss of power (APTPL)
 *
 * The file has two slots.  A save goes to the slot with the older copy and is
 * synced; a load takes the newest whole one.  So at every instant the file holds
 * either the state before a save or the one after it, as a rename would have it,
 * but with one descriptor that is open from the start: the daemon needs no right
 * to open or rename files while it serves.
 *
 *	 0  magic	 8  sequence	16  length of the body	20  0
 *	24  CRC-64 of bytes 0 to 23 and of the body	32  body
 *
 * Body: generation (4), type, flags, holder (2), number of registrants (2), then of
 * each the key (8), target port (2), length of its TransportID (2) and that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <isa-l/crc64.h>

#include "target/log.h"
#include "target/scsi/op.h"

#define MAGIC		0x5644534b50525356ull	/* "VDSKPRSV" */
#define SLOT		(64u << 10)
#define HEADER		32u
#define BODY		10u
#define REGISTRANT	12u	/* and the TransportID */
#define APTPL		0x01

_Static_assert(HEADER + BODY + SCSI_MAX_REGISTRANTS *
	       (REGISTRANT + sizeof(((struct scsi_port *)0)->id)) <= SLOT, "slots are too small");

size_t scsi_pr_encode(const struct scsi_pr *pr, uint8_t *out, size_t size)
{
	size_t n = BODY;

	if (size < BODY)
		return 0;
	store_be32(out, pr->generation);
	out[4] = pr->type;
	out[5] = pr->aptpl ? APTPL : 0;
	store_be16(out + 6, pr->holder);
	store_be16(out + 8, pr->n);
	for (unsigned i = 0; i < pr->n; i++) {
		const struct scsi_registrant *r = &pr->reg[i];

		if (size - n < REGISTRANT + r->port.len)
			return 0;
		store_be64(out + n, r->key);
		store_be16(out + n + 8, r->target_port);
		store_be16(out + n + 10, r->port.len);
		memcpy(out + n + 12, r->port.id, r->port.len);
		n += REGISTRANT + r->port.len;
	}
	return n;
}

static int decode_registrant(struct scsi_registrant *r, const uint8_t *p, size_t len, size_t *used)
{
	size_t port;

	if (len < REGISTRANT || load_be16(p + 10) > len - REGISTRANT)
		return -EUCLEAN;
	r->key = load_be64(p);
	r->target_port = load_be16(p + 8);
	if (r->key == 0 || scsi_port_decode(&r->port, p + REGISTRANT, load_be16(p + 10), &port) < 0 ||
	    port != load_be16(p + 10))
		return -EUCLEAN;
	*used = REGISTRANT + port;
	return 0;
}

int scsi_pr_decode(struct scsi_pr *out, const uint8_t *p, size_t len)
{
	struct scsi_pr pr = { 0 };
	size_t at = BODY, used;
	int r = 0;

	if (len < BODY || load_be16(p + 8) > SCSI_MAX_REGISTRANTS)
		return -EUCLEAN;
	pr.generation = load_be32(p);
	pr.type = p[4];
	pr.aptpl = p[5] & APTPL;
	pr.holder = load_be16(p + 6);
	pr.n = load_be16(p + 8);
	if (pr.type > 8 || (pr.type && pr.holder >= pr.n))
		return -EUCLEAN;
	pr.reg = calloc(pr.n + 1u, sizeof(*pr.reg));
	if (!pr.reg)
		return -ENOMEM;
	for (unsigned i = 0; i < pr.n && r == 0; i++) {
		r = decode_registrant(&pr.reg[i], p + at, len - at, &used);
		if (r == 0)
			at += used;
	}
	if (r == 0 && at != len)
		r = -EUCLEAN;
	if (r < 0) {
		scsi_pr_clear(&pr);
		return r;
	}
	*out = pr;
	return 0;
}

static uint64_t checksum(const uint8_t *slot, uint32_t body)
{
	uint64_t crc = crc64_ecma_refl(0, slot, 24);

	return crc64_ecma_refl(crc, slot + HEADER, body);
}

int scsi_pr_save(struct scsi_unit *u, const struct scsi_pr *pr)
{
	static const struct scsi_pr nothing;
	uint64_t seq = u->state_seq + 1;
	AUTO_FREE uint8_t *slot = calloc(1, SLOT);
	uint32_t body;
	ssize_t n;

	if (!slot)
		return -ENOMEM;
	/* without APTPL a loss of power takes it all */
	body = (uint32_t)scsi_pr_encode(pr->aptpl ? pr : &nothing, slot + HEADER, SLOT - HEADER);
	store_be64(slot, MAGIC);
	store_be64(slot + 8, seq);
	store_be32(slot + 16, body);
	store_be64(slot + 24, checksum(slot, body));
	n = pwrite(u->state_fd, slot, HEADER + body, (off_t)(seq % 2 * SLOT));
	if (n < 0)
		return -errno;
	if ((size_t)n != HEADER + body)
		return -EIO;
	if (fdatasync(u->state_fd) < 0)
		return -errno;
	u->state_seq = seq;
	return 0;
}

/* The body's length of a slot that is whole; 0 if it is not. */
static uint32_t slot_body(const uint8_t *slot)
{
	uint32_t body = load_be32(slot + 16);

	if (load_be64(slot) != MAGIC || body < BODY || body > SLOT - HEADER ||
	    load_be64(slot + 24) != checksum(slot, body))
		return 0;
	return body;
}

int scsi_unit_restore(struct scsi_unit *u, int fd, struct vdisk_error *err)
{
	AUTO_FREE uint8_t *file = calloc(2, SLOT);
	const uint8_t *best = NULL;
	struct scsi_pr pr = { 0 };
	ssize_t n;
	int r = 0;

	if (!file)
		return fail(err, ENOMEM, "out of memory");
	n = pread(fd, file, 2 * SLOT, 0);
	if (n < 0)
		return fail(err, errno, "reading the state of LUN %u: %s", u->lun, strerror(errno));
	for (uint8_t *slot = file; slot < file + 2 * SLOT; slot += SLOT)
		if (slot_body(slot) && (!best || load_be64(slot + 8) > load_be64(best + 8)))
			best = slot;
	if (best)
		r = scsi_pr_decode(&pr, best + HEADER, slot_body(best));
	else if (n > 0)
		r = -EUCLEAN;
	if (r < 0)
		return fail(err, -r, "the state file of LUN %u does not hold reservations, or they "
			    "are damaged; without it, nobody is kept from the disk any more", u->lun);
	if (u->state_fd >= 0)
		close(u->state_fd);
	scsi_pr_clear(&u->pr);
	u->pr = pr;
	u->state_fd = fd;
	u->state_seq = best ? load_be64(best + 8) : 0;
	return 0;
}
