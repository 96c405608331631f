/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* msg.c - vhost-user's messages, from bytes to checked host-order values */
#include "vmm-lite/vhost/msg.h"

#include <errno.h>

#include "core/compiler.h"
#include "vmm-lite/vhost/wire.h"

#define REGION_BYTES	32u
#define VRING_INDEX	0xffu
#define VRING_NO_FD	0x100u

int vhost_decode_header(struct vhost_header *out, const uint8_t bytes[VHOST_HEADER_BYTES])
{
	uint32_t flags = get32(bytes + 4);

	*out = (struct vhost_header) {
		.request = get32(bytes), .need_reply = flags & VHOST_NEED_REPLY,
		.size = get32(bytes + 8),
	};
	if ((flags & 3) != VHOST_VERSION || flags & VHOST_REPLY || out->size > VHOST_PAYLOAD_MAX)
		return -EPROTO;
	return 0;
}

static int decode_region(struct vhost_region *out, const uint8_t *p)
{
	uint64_t end;

	*out = (struct vhost_region) {
		.gpa = get64(p), .size = get64(p + 8), .user = get64(p + 16), .offset = get64(p + 24),
	};
	/* none of the three address spaces may wrap */
	if (!out->size || !vd_add(out->gpa, out->size, &end) ||
	    !vd_add(out->user, out->size, &end) || !vd_add(out->offset, out->size, &end) ||
	    end > INT64_MAX)
		return -EPROTO;
	return 0;
}

static int decode_table(struct vhost_msg *m, const uint8_t *p, uint32_t size)
{
	if (size < 8)
		return -EPROTO;
	m->mem.n = get32(p);
	/* UML sends a table with room for one more than it counts */
	if (m->mem.n > VHOST_TABLE_MAX || size < 8 + m->mem.n * REGION_BYTES)
		return -EPROTO;
	for (unsigned i = 0; i < m->mem.n; i++)
		if (decode_region(&m->mem.region[i], p + 8 + i * REGION_BYTES) < 0)
			return -EPROTO;
	return 0;
}

/* GET_CONFIG carries as many bytes as it asks for; some front ends send none. */
static int decode_config(struct vhost_msg *m, const uint8_t *p, uint32_t size)
{
	if (size < VHOST_CONFIG_HEADER)
		return -EPROTO;
	m->config.offset = get32(p);
	m->config.size = get32(p + 4);
	m->config.bytes = p + VHOST_CONFIG_HEADER;
	if (m->config.size > VHOST_CONFIG_MAX ||
	    m->config.offset > VHOST_CONFIG_MAX - m->config.size)
		return -EPROTO;
	if (size != VHOST_CONFIG_HEADER + m->config.size &&
	    !(m->request == VHOST_GET_CONFIG && size == VHOST_CONFIG_HEADER))
		return -EPROTO;
	return 0;
}

static int decode_inflight(struct vhost_msg *m, const uint8_t *p, uint32_t size)
{
	/* with or without the padding at the structure's end */
	if (size != 20 && size != 24)
		return -EPROTO;
	m->inflight.size = get64(p);
	m->inflight.offset = get64(p + 8);
	m->inflight.queues = get16(p + 16);
	m->inflight.queue_size = get16(p + 18);
	return 0;
}

static int decode_addr(struct vhost_msg *m, const uint8_t *p, uint32_t size)
{
	if (size != 40)
		return -EPROTO;
	m->vring.index = get32(p);
	/* flags: bit 0 is logging, which was not offered */
	m->vring.desc = get64(p + 8);
	m->vring.used = get64(p + 16);
	m->vring.avail = get64(p + 24);
	return 0;
}

int vhost_decode(struct vhost_msg *out, const struct vhost_header *h, const uint8_t *payload)
{
	*out = (struct vhost_msg) { .request = h->request, .need_reply = h->need_reply };
	switch (h->request) {
	case VHOST_GET_FEATURES:
	case VHOST_SET_OWNER:
	case VHOST_RESET_OWNER:
	case VHOST_GET_PROTOCOL_FEATURES:
	case VHOST_GET_QUEUE_NUM:
	case VHOST_SET_BACKEND_REQ_FD:
	case VHOST_GET_MAX_MEM_SLOTS:
		return 0;	/* nothing of the payload, if there is one, matters */
	case VHOST_SET_FEATURES:
	case VHOST_SET_PROTOCOL_FEATURES:
		out->u64 = h->size == 8 ? get64(payload) : 0;
		return h->size == 8 ? 0 : -EPROTO;
	case VHOST_SET_MEM_TABLE:
		return decode_table(out, payload, h->size);
	case VHOST_ADD_MEM_REG:
	case VHOST_REM_MEM_REG:
		if (h->size != 8 + REGION_BYTES)
			return -EPROTO;
		out->mem.n = 1;
		return decode_region(&out->mem.region[0], payload + 8);
	case VHOST_SET_VRING_NUM:
	case VHOST_SET_VRING_BASE:
	case VHOST_GET_VRING_BASE:
	case VHOST_SET_VRING_ENABLE:
		if (h->size != 8)
			return -EPROTO;
		out->vring.index = get32(payload);
		out->vring.num = get32(payload + 4);
		return 0;
	case VHOST_SET_VRING_ADDR:
		return decode_addr(out, payload, h->size);
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR:
		if (h->size != 8)
			return -EPROTO;
		out->vring.index = (uint32_t)get64(payload) & VRING_INDEX;
		out->vring.has_fd = !(get64(payload) & VRING_NO_FD);
		return 0;
	case VHOST_GET_CONFIG:
	case VHOST_SET_CONFIG:
		return decode_config(out, payload, h->size);
	case VHOST_GET_INFLIGHT_FD:
	case VHOST_SET_INFLIGHT_FD:
		return decode_inflight(out, payload, h->size);
	default:
		return -EOPNOTSUPP;
	}
}
