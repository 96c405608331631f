/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * msg.h - vhost-user's messages, from bytes to checked host-order values
 *
 * The protocol is QEMU's docs/interop/vhost-user.rst; numbers and names are its
 * own.  Integers are in host byte order on the wire, as both ends are on one
 * host.
 */
#ifndef VMM_VHOST_MSG_H
#define VMM_VHOST_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VHOST_HEADER_BYTES	12u
#define VHOST_CONFIG_MAX	256u
#define VHOST_CONFIG_HEADER	12u
#define VHOST_TABLE_MAX		8u	/* regions in one SET_MEM_TABLE */
#define VHOST_PAYLOAD_MAX	(VHOST_CONFIG_HEADER + VHOST_CONFIG_MAX)
#define VHOST_FDS_MAX		8u

enum vhost_request {
	VHOST_GET_FEATURES = 1, VHOST_SET_FEATURES, VHOST_SET_OWNER, VHOST_RESET_OWNER,
	VHOST_SET_MEM_TABLE, VHOST_SET_LOG_BASE, VHOST_SET_LOG_FD, VHOST_SET_VRING_NUM,
	VHOST_SET_VRING_ADDR, VHOST_SET_VRING_BASE, VHOST_GET_VRING_BASE, VHOST_SET_VRING_KICK,
	VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR, VHOST_GET_PROTOCOL_FEATURES,
	VHOST_SET_PROTOCOL_FEATURES, VHOST_GET_QUEUE_NUM, VHOST_SET_VRING_ENABLE,
	VHOST_SET_BACKEND_REQ_FD = 21, VHOST_GET_CONFIG = 24, VHOST_SET_CONFIG,
	VHOST_GET_INFLIGHT_FD = 31, VHOST_SET_INFLIGHT_FD,
	VHOST_GET_MAX_MEM_SLOTS = 36, VHOST_ADD_MEM_REG, VHOST_REM_MEM_REG,
};

enum vhost_protocol_feature {
	VHOST_F_MQ = 0, VHOST_F_REPLY_ACK = 3, VHOST_F_BACKEND_REQ = 5, VHOST_F_CONFIG = 9,
	VHOST_F_INFLIGHT_SHMFD = 12, VHOST_F_CONFIGURE_MEM_SLOTS = 15,
};

/* Bit of the device features that says: there are protocol features. */
#define VHOST_USER_F_PROTOCOL_FEATURES	30

/* Flags in a message's header: the version is in the two lowest bits. */
#define VHOST_VERSION		1u
#define VHOST_REPLY		4u
#define VHOST_NEED_REPLY	8u

/* What a back end asks of its front end (on the descriptor of SET_BACKEND_REQ_FD). */
#define VHOST_BACKEND_CONFIG_CHANGE	2u

struct vhost_header {
	uint32_t request;
	bool need_reply;
	uint32_t size;		/* of the payload; at most VHOST_PAYLOAD_MAX */
};

struct vhost_region {
	uint64_t gpa, size;
	uint64_t user;		/* where the front end has it */
	uint64_t offset;	/* in the descriptor */
};

struct vhost_msg {
	uint32_t request;	/* enum vhost_request */
	bool need_reply;
	union {
		uint64_t u64;	/* features */
		struct {
			uint32_t index, num;
			uint64_t desc, used, avail;	/* in the front end's addresses */
			bool has_fd;	/* KICK, CALL, ERR: one comes with it */
		} vring;
		struct {
			unsigned n;
			struct vhost_region region[VHOST_TABLE_MAX];
		} mem;
		struct {
			uint32_t offset, size;
			const uint8_t *bytes;	/* SET_CONFIG: in the payload */
		} config;
		struct {
			uint64_t size, offset;
			uint16_t queues, queue_size;
		} inflight;
	};
};

/* -EPROTO: not this protocol, or longer than any message of ours. */
int vhost_decode_header(struct vhost_header *out, const uint8_t bytes[VHOST_HEADER_BYTES]);

/*
 * @payload is h->size bytes.  -EPROTO: of the wrong length, or impossible;
 * -EOPNOTSUPP: a request that is none of the above.
 */
int vhost_decode(struct vhost_msg *out, const struct vhost_header *h, const uint8_t *payload);

#endif
