/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* control.c - the socket by which a running guest is asked and told */
#include "vmm-lite/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/driver.h"
#include "core/fds.h"
#include "vmm-lite/log.h"

void control_init(struct control *c, int listen_fd)
{
	*c = (struct control) { .listen_fd = listen_fd, .asked = VMM_RUNNING };
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		c->client[i].fd = -1;
}

static void drop_fds(struct control_client *k)
{
	for (unsigned i = 0; i < k->n_fds; i++)
		if (k->fds[i] >= 0)
			close(k->fds[i]);
	k->n_fds = 0;
}

static void client_close(struct control_client *k)
{
	if (k->fd >= 0)
		close(k->fd);
	drop_fds(k);
	free(k->line);
	*k = (struct control_client) { .fd = -1 };
}

void control_destroy(struct control *c)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		client_close(&c->client[i]);
}

/* ---- a request ---- */

static int serve(struct control *c, struct control_call *call, struct vdisk_error *err)
{
	const char *command = json_string_value(json_object_get(call->request, "do"));
	json_int_t version = json_integer_value(json_object_get(call->request, "vdisk-vm"));

	if (version != CONTROL_VERSION)
		return vd_fail(err, EPROTO, "this guest speaks version %d of the protocol, not %d",
			       CONTROL_VERSION, (int)version);
	if (!command)
		return vd_fail(err, EINVAL, "the request has no \"do\"");
	/* what is the same for any guest */
	if (!strcmp(command, "kill"))
		c->asked = VMM_STOPPED;
	else if (!strcmp(command, "reset"))
		c->asked = VMM_REBOOT;
	else if (!strcmp(command, "console"))
		call->console = true;
	else
		return c->serve(c->arg, command, call, err);
	return 0;
}

int control_serve(const struct control_command *table, size_t n, void *arg, const char *command,
		  struct control_call *call, struct vdisk_error *err)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(table[i].name, command))
			return table[i].serve(arg, call, err);
	return vd_fail(err, ENOTSUP, "unknown command '%.40s'", command);
}

char *control_line(struct control *c, const char *line, size_t len, int *fds, unsigned n_fds,
		   bool *console)
{
	struct vdisk_error err = { 0 };
	json_error_t where;
	struct control_call call = {
		.request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where),
		.answer = json_object(), .fds = fds, .n_fds = n_fds,
	};
	char *text;
	int r;

	if (json_is_object(call.request))
		r = serve(c, &call, &err);
	else
		r = vd_fail(&err, EINVAL, "not a request: %s",
			    call.request ? "no object" : where.text);
	json_object_set_new(call.answer, "ok", json_boolean(!r));
	if (r < 0) {
		json_t *why = json_string(err.msg);

		/* a name in it may not be UTF-8 */
		json_object_set_new(call.answer, "error", why ? why : json_string(strerror(-r)));
	}
	*console = !r && call.console;
	text = json_dumps(call.answer, JSON_COMPACT);
	json_decref(call.request);
	json_decref(call.answer);
	return text;
}

/* ---- clients ---- */

static void client_new(struct control *c)
{
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned i = 0; fd >= 0 && i < CONTROL_CLIENTS_MAX; i++) {
		struct control_client *k = &c->client[i];

		if (k->fd >= 0)
			continue;
		k->line = malloc(CONTROL_LINE_MAX);
		if (!k->line)
			break;
		k->fd = fd;
		return;
	}
	if (fd >= 0)
		close(fd);	/* too many at once */
}

static ssize_t receive(struct control_client *k)
{
	unsigned n_fds;
	ssize_t n = vd_recv_fds(k->fd, k->line + k->used, CONTROL_LINE_MAX - k->used, k->fds + k->n_fds,
				CONTROL_FDS_MAX - k->n_fds, &n_fds, 0);

	k->n_fds += n_fds;
	return n;
}

/* An answer that does not fit into the socket's buffer was not waited for. */
static bool answer(struct control_client *k, const char *text)
{
	size_t len = text ? strlen(text) : 0;
	struct iovec iov[] = { { (void *)(uintptr_t)text, len }, { (void *)(uintptr_t)"\n", 1 } };

	return text && vd_send_fds(k->fd, iov, 2, NULL, 0, MSG_DONTWAIT) == (ssize_t)len + 1;
}

/* Serve the lines that are complete; false: the client goes. */
static bool serve_lines(struct control *c, struct control_client *k)
{
	char *end;

	while ((end = memchr(k->line, '\n', k->used))) {
		size_t len = (size_t)(end - k->line);
		bool console = false, sent;
		char *text = control_line(c, k->line, len, k->fds, k->n_fds, &console);

		sent = answer(k, text);
		free(text);
		drop_fds(k);
		k->used -= len + 1;
		memmove(k->line, end + 1, k->used);
		if (console && sent) {
			c->console(c->arg, STEAL_FD(k->fd));
			return false;
		}
		if (!sent)
			return false;
	}
	return k->used < CONTROL_LINE_MAX;
}

static void client_readable(struct control *c, struct control_client *k)
{
	ssize_t n = receive(k);

	if (n == -EAGAIN)
		return;
	k->used += n > 0 ? (size_t)n : 0;
	if (n <= 0 || !serve_lines(c, k))
		client_close(k);
}

void control_poll(const struct control *c, struct pollfd *fds)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		fds[i] = (struct pollfd) { .fd = c->client[i].fd, .events = POLLIN };
	fds[CONTROL_CLIENTS_MAX] = (struct pollfd) { .fd = c->listen_fd, .events = POLLIN };
}

void control_handle(struct control *c, const struct pollfd *fds)
{
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (fds[i].revents && c->client[i].fd == fds[i].fd && fds[i].fd >= 0)
			client_readable(c, &c->client[i]);
	if (fds[CONTROL_CLIENTS_MAX].revents)
		client_new(c);
}
