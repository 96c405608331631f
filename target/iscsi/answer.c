/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * answer.c - text answers, which go out in pieces when the initiator takes less
 * (RFC 7143, 6.2; for login and full feature phase alike)
 */
#include "core/compiler.h"
#include "target/iscsi/server.h"

void iscsi_answer_begin(struct iscsi_conn *c)
{
	iscsi_text_clear(&c->text_out);
	c->text_sent = 0;
}

bool iscsi_answer_pending(const struct iscsi_conn *c)
{
	return c->text_sent < c->text_out.len;
}

struct iscsi_out *iscsi_answer_next(struct iscsi_conn *c, uint32_t segment)
{
	uint32_t len = MIN(c->text_out.len - c->text_sent, segment);
	struct iscsi_out *o = iscsi_out_new(c);

	if (!o || !len)
		return o;
	o->own = pool_get(reactor_pool(c->reactor), len);
	o->own_size = len;
	if (!o->own) {
		slab_put(&c->server->outs, o);
		iscsi_conn_close(c, "no buffer free");
		return NULL;
	}
	memcpy(o->own, c->text_out.buf + c->text_sent, len);
	o->data = o->own;
	o->data_len = len;
	c->text_sent += len;
	if (!iscsi_answer_pending(c))
		iscsi_answer_begin(c);
	return o;
}
