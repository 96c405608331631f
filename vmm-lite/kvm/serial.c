/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * serial.c - a 16550A
 *
 * A byte that the guest sends goes into a ring at once, so the transmitter is
 * always empty and a vCPU never waits for the terminal.  When the reader falls
 * behind by half a ring, the interrupt that asks for more (THRI) is held back:
 * a tty, which sends by interrupt, then waits without losing anything.  Only
 * the kernel's own console, which polls and would spin, can fill the ring; the
 * bytes that find no room are dropped and counted.
 *
 * The interrupt line is level: RX data wanted and there, or THRI wanted and
 * pending.  Reading IIR clears THRI if that is what it reports.
 */
#include "vmm-lite/kvm/serial.h"

#include <linux/serial_reg.h>
#include <string.h>

#include "core/compiler.h"

#define MSR_LINES	(UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

static bool data_interrupt(const struct serial *s)
{
	return s->ier & UART_IER_RDI && tty_in_used(&s->tty);
}

static void update_line(struct serial *s)
{
	bool level = data_interrupt(s) || (s->ier & UART_IER_THRI && s->thri);

	if (level == s->level)
		return;
	s->level = level;
	s->host.interrupt(s->host.arg, level);
}

/* The transmitter ran empty: say so, unless the reader is behind. */
static void transmitter_empty(struct serial *s)
{
	s->thri_held = tty_out_used(&s->tty) >= TTY_OUT_SIZE / 2;
	s->thri = !s->thri_held;
}

static void transmit(struct serial *s, uint8_t v)
{
	if (s->mcr & UART_MCR_LOOP)
		tty_loop_back(&s->tty, v);
	else
		tty_put(&s->tty, &v, 1);
	transmitter_empty(s);
}

static uint8_t receive(struct serial *s)
{
	uint8_t v = 0;

	tty_get(&s->tty, &v, 1);
	return v;
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t fifo = s->fifo ? 0xc0 : 0;

	if (data_interrupt(s))
		return fifo | UART_IIR_RDI;
	if (s->ier & UART_IER_THRI && s->thri) {
		s->thri = false;
		return fifo | UART_IIR_THRI;
	}
	return fifo | UART_IIR_NO_INT;
}

/* In loopback the outputs come back as inputs: DTR as DSR, RTS as CTS, OUT1 RI, OUT2 DCD. */
static uint8_t read_msr(const struct serial *s)
{
	uint8_t v = 0;

	if (!(s->mcr & UART_MCR_LOOP))
		return MSR_LINES;
	if (s->mcr & UART_MCR_DTR)
		v |= UART_MSR_DSR;
	if (s->mcr & UART_MCR_RTS)
		v |= UART_MSR_CTS;
	if (s->mcr & UART_MCR_OUT1)
		v |= UART_MSR_RI;
	if (s->mcr & UART_MCR_OUT2)
		v |= UART_MSR_DCD;
	return v;
}

static uint8_t read_register(struct serial *s, unsigned reg)
{
	bool dlab = s->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_RX:
		return dlab ? s->dll : receive(s);
	case UART_IER:
		return dlab ? s->dlm : s->ier;
	case UART_IIR:
		return read_iir(s);
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		return (uint8_t)(UART_LSR_THRE | UART_LSR_TEMT | (tty_in_used(&s->tty) ? UART_LSR_DR : 0));
	case UART_MSR:
		return read_msr(s);
	default:
		return s->scr;
	}
}

static void write_ier(struct serial *s, uint8_t v)
{
	bool wants = v & ~s->ier & UART_IER_THRI;

	s->ier = v & 0x0f;
	if (wants)
		transmitter_empty(s);
}

static void write_register(struct serial *s, unsigned reg, uint8_t v)
{
	bool dlab = s->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (dlab)
			s->dll = v;
		else
			transmit(s, v);
		break;
	case UART_IER:
		if (dlab)
			s->dlm = v;
		else
			write_ier(s, v);
		break;
	case UART_FCR:
		s->fifo = v & UART_FCR_ENABLE_FIFO;
		if (v & UART_FCR_CLEAR_RCVR)
			tty_clear_input(&s->tty);
		break;
	case UART_LCR:
		s->lcr = v;
		break;
	case UART_MCR:
		s->mcr = v & 0x1f;
		break;
	case UART_SCR:
		s->scr = v;
		break;
	default:
		break;		/* LSR and MSR are read-only */
	}
}

static void no_interrupt(void *arg, bool level)
{
	(void)arg;
	(void)level;
}

/* The terminal took output, or gave input. */
static void tty_changed(struct tty *t)
{
	struct serial *s = container_of(t, struct serial, tty);

	if (s->thri_held && tty_out_used(t) < TTY_OUT_SIZE / 2)
		transmitter_empty(s);
	update_line(s);
}

static const struct serial_host nothing = { .interrupt = no_interrupt };

void serial_init(struct serial *s)
{
	memset(s, 0, sizeof(*s));
	tty_init(&s->tty);
	s->tty.changed = tty_changed;
	s->host = nothing;
}

void serial_destroy(struct serial *s)
{
	tty_destroy(&s->tty);
}

void serial_attach(struct serial *s, const struct serial_host *host)
{
	pthread_mutex_lock(&s->tty.lock);
	s->host = *host;
	s->ier = s->lcr = s->mcr = s->scr = s->dlm = 0;
	s->dll = 1;		/* 115200 */
	s->fifo = s->thri = s->thri_held = s->level = false;
	tty_clear_input(&s->tty);
	pthread_mutex_unlock(&s->tty.lock);
}

void serial_detach(struct serial *s)
{
	pthread_mutex_lock(&s->tty.lock);
	s->host = nothing;
	pthread_mutex_unlock(&s->tty.lock);
}

uint8_t serial_read(struct serial *s, unsigned reg)
{
	uint8_t v;

	pthread_mutex_lock(&s->tty.lock);
	v = read_register(s, reg);
	update_line(s);
	pthread_mutex_unlock(&s->tty.lock);
	return v;
}

void serial_write(struct serial *s, unsigned reg, uint8_t v)
{
	pthread_mutex_lock(&s->tty.lock);
	write_register(s, reg, v);
	update_line(s);
	pthread_mutex_unlock(&s->tty.lock);
}
