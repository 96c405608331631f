/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tty.c - the bytes on their way between a guest's console device and the terminal */
#include "vmm-lite/tty.h"

#include <string.h>

#include "core/compiler.h"

void tty_init(struct tty *t)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
}

void tty_destroy(struct tty *t)
{
	pthread_mutex_destroy(&t->lock);
}

static void wake(struct tty *t)
{
	if (t->wake)
		t->wake(t->wake_arg);
}

static void changed(struct tty *t)
{
	if (t->changed)
		t->changed(t);
}

/* ---- the device's side ---- */

void tty_put(struct tty *t, const uint8_t *data, size_t len)
{
	size_t n = MIN(len, (size_t)(TTY_OUT_SIZE - tty_out_used(t)));
	bool first = !tty_out_used(t);

	if (t->unread || !len)
		return;
	for (size_t i = 0; i < n; i++)
		t->out[t->out_head++ % TTY_OUT_SIZE] = data[i];
	t->lost += len - n;
	if (first)
		wake(t);
}

size_t tty_get(struct tty *t, uint8_t *data, size_t max)
{
	size_t n = MIN(max, (size_t)tty_in_used(t));

	for (size_t i = 0; i < n; i++)
		data[i] = t->in[t->in_tail++ % TTY_IN_SIZE];
	if (t->in_full && !tty_in_used(t)) {
		t->in_full = false;
		wake(t);
	}
	return n;
}

void tty_loop_back(struct tty *t, uint8_t v)
{
	if (tty_in_used(t) < TTY_IN_SIZE)
		t->in[t->in_head++ % TTY_IN_SIZE] = v;
}

void tty_clear_input(struct tty *t)
{
	t->in_tail = t->in_head;
	if (t->in_full) {
		t->in_full = false;
		wake(t);
	}
}

/* ---- the terminal's side ---- */

size_t tty_input(struct tty *t, const uint8_t *data, size_t len)
{
	size_t n;

	pthread_mutex_lock(&t->lock);
	n = MIN(len, (size_t)(TTY_IN_SIZE - tty_in_used(t)));
	for (size_t i = 0; i < n; i++)
		t->in[t->in_head++ % TTY_IN_SIZE] = data[i];
	changed(t);
	pthread_mutex_unlock(&t->lock);
	return n;
}

size_t tty_room(struct tty *t)
{
	size_t n;

	pthread_mutex_lock(&t->lock);
	n = TTY_IN_SIZE - tty_in_used(t);
	if (!n)
		t->in_full = true;
	pthread_mutex_unlock(&t->lock);
	return n;
}

size_t tty_peek(struct tty *t, uint8_t *data, size_t max)
{
	size_t n;

	pthread_mutex_lock(&t->lock);
	n = MIN(max, (size_t)tty_out_used(t));
	for (size_t i = 0; i < n; i++)
		data[i] = t->out[(t->out_tail + i) % TTY_OUT_SIZE];
	pthread_mutex_unlock(&t->lock);
	return n;
}

void tty_consume(struct tty *t, size_t len)
{
	pthread_mutex_lock(&t->lock);
	t->out_tail += (uint32_t)MIN(len, (size_t)tty_out_used(t));
	changed(t);
	pthread_mutex_unlock(&t->lock);
}

uint64_t tty_lost(struct tty *t)
{
	uint64_t n;

	pthread_mutex_lock(&t->lock);
	n = t->lost;
	t->lost = 0;
	pthread_mutex_unlock(&t->lock);
	return n;
}
