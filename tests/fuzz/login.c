/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A login: its text in pieces, to a target that asks for CHAP both ways.
 *
 * The input is a row of requests: a byte of flags (T, C, CSG and NSG), two of the
 * length, and the text, in which '|' stands for NUL.  The headers are made here,
 * so that every byte of the input counts.  Challenges are always the same in a
 * build for fuzzing, so that the seeds can have right answers.  Nobody gets in
 * who has not given one.
 */
#include <assert.h>
#include <stdio.h>

#include "core/compiler.h"
#include "target/iscsi/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool conn_freed;

static void nothing(struct iscsi_conn *c)
{
	(void)c;
}

static void pause_input(struct iscsi_conn *c, bool paused)
{
	(void)c, (void)paused;
}

static void free_conn(struct iscsi_conn *c)
{
	free(c);
	conn_freed = true;
}

static const struct iscsi_wire wire = {
	.output = nothing, .pause = pause_input, .close = nothing, .free = free_conn,
};

static struct iscsi_user user(const char *name, const char *secret)
{
	return (struct iscsi_user) {
		.name = strdup(name), .secret = (uint8_t *)strdup(secret),
		.secret_len = strlen(secret),
	};
}

static struct iscsi_server *server_new(void)
{
	static struct iscsi_server server;
	struct scsi_target *scsi = scsi_target_new("iqn.2026-11.test:t");
	struct iscsi_target *t;
	struct reactor *reactor;
	struct vdisk *disk;
	const char *missing;
	int r = vdisk_open_memory(&disk, 1u << 20, NULL);

	assert(r == 0 && scsi && iscsi_chap_init(&missing));
	r = reactor_new(&reactor, 8u << 20, NULL);
	assert(r == 0);
	scsi_target_add(scsi, 0, disk, false, NULL);
	iscsi_server_init(&server, reactor);
	t = iscsi_server_add_target(&server, scsi);
	t->access.auth.users = calloc(1, sizeof(struct iscsi_user));
	t->access.auth.users[0] = user("alice", "the secret of alice");
	t->access.auth.n_users = 1;
	t->access.auth.self = user("server", "the server's own secret");
	t->access.auth.digests = ISCSI_CHAP_ALL;
	return &server;
}

static void drain(struct iscsi_conn *c)
{
	struct iovec iov[64];
	struct iscsi_run run;
	unsigned n;

	while (!c->closed && (n = iscsi_conn_output(c, iov, 64, &run))) {
		size_t total = 0;

		for (unsigned i = 0; i < n; i++)
			total += iov[i].iov_len;
		iscsi_conn_sent(c, total);
	}
}

/* One request; false at the end of the input or of the connection. */
static bool request(struct iscsi_conn *c, const uint8_t **data, size_t *size)
{
	static uint8_t pdu[ISCSI_BHS_SIZE + 8192 + 4];
	uint32_t len;

	if (*size < 3)
		return false;
	len = (uint32_t)MIN((size_t)load_be16(*data + 1), *size - 3);
	len = MIN(len, 8192u);
	memset(pdu, 0, sizeof(pdu));
	pdu[0] = 0x43;
	pdu[1] = **data;
	pdu[8] = 0x80;
	store_be24(pdu + 5, len);
	for (uint32_t i = 0; i < len; i++)
		pdu[ISCSI_BHS_SIZE + i] = (*data)[3 + i] == '|' ? 0 : (*data)[3 + i];
	*data += 3 + len;
	*size -= 3 + len;
	return iscsi_conn_input(c, pdu, ISCSI_BHS_SIZE + len + iscsi_pad(len)) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct iscsi_server *server;
	struct iscsi_conn *c = calloc(1, sizeof(*c));

	if (!server)
		server = server_new();
	assert(c);
	conn_freed = false;
	snprintf(c->peer, sizeof(c->peer), "fuzz");
	snprintf(c->local, sizeof(c->local), "127.0.0.1:3260");
	iscsi_conn_init(c, server, &wire);
	while (c->state != ISCSI_LOGGED_IN && request(c, &data, &size))
		drain(c);
	if (c->state == ISCSI_LOGGED_IN && c->session->target)
		assert(!strcmp(c->session->user, "alice"));
	if (!c->closed)
		iscsi_conn_close(c, NULL);
	for (int i = 0; i < 1000 && !conn_freed; i++)
		reactor_turn(server->reactor, 0);
	assert(conn_freed && server->n_conns == 0);
	return 0;
}
