/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection that is fed anything at all, in one go or in pieces.
 *
 * The first byte of the input chooses: bit 0, log in first (so that the rest
 * reaches the full feature phase), bit 1, with digests, bit 2, feed byte by byte,
 * bit 3, the initiator never takes the answers.  Digests are made right where
 * the input has them wrong, or nothing behind them would ever be reached.
 */
#include <assert.h>
#include <stdio.h>

#include "core/compiler.h"
#include "target/iscsi/server.h"

#define DISK_SIZE (1u << 20)

static bool conn_freed;

static void output(struct iscsi_conn *c)
{
	(void)c;
}

static void pause_input(struct iscsi_conn *c, bool paused)
{
	(void)c, (void)paused;
}

static void close_wire(struct iscsi_conn *c)
{
	(void)c;
}

static void free_conn(struct iscsi_conn *c)
{
	free(c);
	conn_freed = true;
}

static const struct iscsi_wire wire = {
	.output = output, .pause = pause_input, .close = close_wire, .free = free_conn,
};

/* Take all output, as a socket would. */
static void drain(struct iscsi_conn *c)
{
	struct iovec iov[64];
	struct iscsi_run run;
	unsigned n;

	while (!c->closed && (n = iscsi_conn_output(c, iov, 64, &run))) {
		size_t total = 0;
		volatile uint8_t sum = 0;

		for (unsigned i = 0; i < n; i++) {
			total += iov[i].iov_len;
			for (size_t k = 0; k < iov[i].iov_len; k += 64)
				sum = (uint8_t)(sum + ((const uint8_t *)iov[i].iov_base)[k]);
		}
		iscsi_conn_sent(c, total);
	}
}

static void login(struct iscsi_conn *c, bool digests)
{
	static const char names[] = "InitiatorName=iqn.2026-11.test:fuzz\0"
				    "TargetName=iqn.2026-11.test:t\0InitialR2T=No\0"
				    "MaxRecvDataSegmentLength=4096\0";
	static const char digest_keys[] = "HeaderDigest=CRC32C\0DataDigest=CRC32C\0";
	uint8_t pdu[512] = { 0x43, 0x87 };
	uint32_t len = sizeof(names) - 1;

	memcpy(pdu + 48, names, len);
	if (digests) {
		memcpy(pdu + 48 + len, digest_keys, sizeof(digest_keys) - 1);
		len += sizeof(digest_keys) - 1;
	}
	store_be24(pdu + 5, len);
	iscsi_conn_input(c, pdu, 48 + len + iscsi_pad(len));
	drain(c);
	assert(c->state == ISCSI_LOGGED_IN);
}

static int feed(struct iscsi_conn *c, const uint8_t *data, size_t size, bool bytewise)
{
	if (!bytewise)
		return iscsi_conn_input(c, data, size);
	for (size_t i = 0; i < size; i++)
		if (iscsi_conn_input(c, data + i, 1) < 0)
			return -1;
	return 0;
}

/* With digests: PDU by PDU, each with the digests that it should have. */
static int feed_digested(struct iscsi_conn *c, const uint8_t *data, size_t size)
{
	while (size >= ISCSI_BHS_SIZE) {
		uint32_t head = ISCSI_BHS_SIZE + data[4] * 4u, len = load_be24(data + 5);
		uint32_t padded = len + iscsi_pad(len);
		uint8_t crc[4];

		if (head > size || padded > size - head)
			return iscsi_conn_input(c, data, size);
		store_le32(crc, iscsi_crc(0, data, head));
		if (iscsi_conn_input(c, data, head) < 0 || iscsi_conn_input(c, crc, 4) < 0)
			return -1;
		store_le32(crc, iscsi_crc(0, data + head, padded));
		if (len && (iscsi_conn_input(c, data + head, padded) < 0 ||
			    iscsi_conn_input(c, crc, 4) < 0))
			return -1;
		data += head + padded;
		size -= head + padded;
	}
	return 0;
}

static void run(struct iscsi_server *server, uint8_t mode, const uint8_t *data, size_t size)
{
	struct iscsi_conn *c = calloc(1, sizeof(*c));
	bool takes = !(mode & 8);

	assert(c);
	conn_freed = false;
	snprintf(c->peer, sizeof(c->peer), "fuzz");
	snprintf(c->local, sizeof(c->local), "127.0.0.1:3260");
	iscsi_conn_init(c, server, &wire);
	if (mode & 1)
		login(c, mode & 2);
	if ((mode & 3) == 3)
		feed_digested(c, data, size);
	else
		feed(c, data, size, mode & 4);
	/* disk requests come back over a few turns, answers make more */
	for (int i = 0; i < 50 && !conn_freed; i++) {
		reactor_turn(server->reactor, 0);
		if (!conn_freed && takes)
			drain(c);
	}
	if (!conn_freed)
		iscsi_conn_close(c, NULL);
	for (int i = 0; i < 1000 && !conn_freed; i++)
		reactor_turn(server->reactor, 1);
	assert(conn_freed && server->n_conns == 0);
	assert(server->tasks.live == 0 && server->outs.live == 0 && server->tmfs.live == 0);
	assert(pool_used(reactor_pool(server->reactor)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct iscsi_server server;
	static struct reactor *reactor;

	if (!reactor) {
		struct scsi_target *target = scsi_target_new("iqn.2026-11.test:t");
		struct vdisk *disk;

		assert(target && vdisk_open_memory(&disk, DISK_SIZE, NULL) == 0);
		assert(scsi_target_add(target, 0, disk, false, NULL) == 0);
		assert(scsi_target_add(target, 3, disk, true, NULL) == 0);
		assert(reactor_new(&reactor, 64u << 20, NULL) == 0);
		vdisk_close(disk, NULL);
		iscsi_server_init(&server, reactor);
		assert(iscsi_server_add_target(&server, target));
	}
	if (size > 1)
		run(&server, data[0], data + 1, size - 1);
	return 0;
}
