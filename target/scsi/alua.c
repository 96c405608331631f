/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alua.c - asymmetric access of target ports (SPC-4, 5.15, 6.37 and 6.45)
 *
 * Each target port is a group of its own, with its number.  All of them lead to
 * the same process and are equally good, so every group starts out active and
 * optimized.  The configuration may say otherwise, at any time (implicit), and so may
 * a cluster, by SET TARGET PORT GROUPS (explicit); who spoke last is right.  The
 * command table says what a port in standby or unavailable state still does.
 */
#include "target/scsi/op.h"

/* states that can be set, as REPORT TARGET PORT GROUPS has them: U, S, AN, AO */
#define SUPPORTED 0x0f

int scsi_find_port(const struct scsi_target *target, uint16_t id)
{
	for (int i = 0; i < target->n_ports; i++)
		if (target->ports[i].id == id)
			return i;
	return -1;
}

bool scsi_target_add_port(struct scsi_target *target, uint16_t id)
{
	if (scsi_find_port(target, id) >= 0)
		return true;
	if (target->n_ports == SCSI_MAX_PORTS)
		return false;
	target->ports[target->n_ports++].id = id;
	return true;
}

enum { EXPLICIT = 1, IMPLICIT = 2 };	/* target->access_why, as it is reported */

static void tell(struct scsi_target *target, const struct scsi_nexus *except)
{
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++)
		if (target->units[lun])
			scsi_attention_all(target->units[lun], except, SCSI_ASC_ACCESS_STATE_CHANGED);
}

bool scsi_target_set_access(struct scsi_target *target, uint16_t port, enum scsi_access_state state)
{
	int i;

	if (!scsi_target_add_port(target, port))
		return false;
	i = scsi_find_port(target, port);
	if (target->ports[i].access == state)
		return true;
	target->ports[i].access = (uint8_t)state;
	target->access_why = IMPLICIT;
	tell(target, NULL);
	return true;
}

static uint8_t *put_group(const struct scsi_target *target, unsigned port, uint8_t *p)
{
	p[0] = target->ports[port].access;
	p[1] = SUPPORTED;
	store_be16(p + 2, target->ports[port].id);
	p[5] = target->access_why;
	p[7] = 1;		/* one port */
	store_be16(p + 10, target->ports[port].id);
	return p + 12;
}

enum scsi_step scsi_report_groups(struct scsi_task *t)
{
	const struct scsi_target *target = t->nexus->target;
	uint8_t format = t->cdb[1] >> 5;
	uint32_t alloc = load_be32(t->cdb + 6);
	uint8_t *p;

	if (format > 1)
		return scsi_bad_cdb(t, 1, 7);
	if (!scsi_get_buf(t, 8 + 12 * SCSI_MAX_PORTS))
		return scsi_no_buf(t);
	memset(t->buf, 0, 8 + 12 * SCSI_MAX_PORTS);
	p = t->buf + 4;
	if (format == 1) {
		p[0] = 0x10;	/* extended header; a transition takes no time */
		p += 4;
	}
	for (unsigned i = 0; i < target->n_ports; i++)
		p = put_group(target, i, p);
	store_be32(t->buf, (uint32_t)(p - t->buf) - 4);
	return scsi_reply(t, (uint32_t)(p - t->buf), alloc);
}

enum { LIST = SCSI_STATE_START + 1 };

/* All descriptors are right, or nothing changes. */
static enum scsi_step check_groups(struct scsi_task *t, bool *ok)
{
	*ok = false;
	for (uint32_t at = 4; at < t->transfer; at += 4) {
		uint8_t state = t->buf[at] & 0x0f;
		uint16_t group = load_be16(t->buf + at + 2);

		if (t->transfer - at < 4)
			return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
		if (state > SCSI_UNAVAILABLE)
			return scsi_bad_list(t, (uint16_t)at);
		if (scsi_find_port(t->nexus->target, group) < 0)
			return scsi_bad_list(t, (uint16_t)(at + 2));
	}
	*ok = true;
	return SCSI_DONE;
}

static enum scsi_step set_groups(struct scsi_task *t)
{
	struct scsi_target *target = t->nexus->target;
	enum scsi_step step;
	bool ok, changed = false;

	if (t->transfer < 4)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	step = check_groups(t, &ok);
	if (!ok)
		return step;
	for (uint32_t at = 4; at < t->transfer; at += 4) {
		int port = scsi_find_port(target, load_be16(t->buf + at + 2));

		changed |= target->ports[port].access != (t->buf[at] & 0x0f);
		target->ports[port].access = t->buf[at] & 0x0f;
	}
	target->access_why = EXPLICIT;
	if (changed)
		tell(target, t->nexus);
	return scsi_good(t);
}

enum scsi_step scsi_set_groups(struct scsi_task *t)
{
	uint32_t len = load_be32(t->cdb + 6);

	if (t->state == LIST)
		return set_groups(t);
	if (len == 0)
		return scsi_good(t);
	if (len > 4 + 4 * SCSI_MAX_PORTS)
		return scsi_check(t, SCSI_ILLEGAL_REQUEST, SCSI_ASC_PARAMETER_LIST_LENGTH);
	return scsi_want_list(t, len, LIST);
}
