/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lines.c - see lines.h */
#include "vmm-lite/vhost/lines.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/driver.h"
#include "vmm-lite/words.h"

#define ANSWER_S	5
#define STALE_MAX	16u	/* answers that came too late, of a process that means well */

void vhost_lines_init(struct vhost_lines *l, int fd, const char *name)
{
	l->fd = fd;
	l->name = name;
	pthread_mutex_init(&l->lock, NULL);
}

void vhost_lines_destroy(struct vhost_lines *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	pthread_mutex_destroy(&l->lock);
}

/* "ok", or -EINVAL and the error that the answer tells. */
static int ask(struct vhost_lines *l, const char *line, char *answer, size_t room)
{
	struct pollfd p = { .fd = l->fd, .events = POLLIN };
	ssize_t n;

	pthread_mutex_lock(&l->lock);
	/* an answer that came too late is none to this question */
	for (unsigned i = 0; i < STALE_MAX; i++)
		if (recvfrom(l->fd, answer, room, MSG_DONTWAIT, NULL, NULL) <= 0)
			break;
	n = sendto(l->fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
	if (n > 0 && poll(&p, 1, ANSWER_S * 1000) > 0)
		n = recvfrom(l->fd, answer, room - 1, MSG_DONTWAIT, NULL, NULL);
	else
		n = -1;
	pthread_mutex_unlock(&l->lock);
	if (n <= 0)
		return -ETIMEDOUT;
	answer[n] = '\0';
	return strncmp(answer, "ok", 2) ? -EINVAL : 0;
}

static uint64_t number_of(const char *answer, const char *key)
{
	const char *at = strstr(answer, key);

	return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

int vhost_lines_stats(struct vhost_lines *l, struct blk_stats *out, uint64_t *bytes)
{
	char a[1024];
	int r = ask(l, "stats", a, sizeof(a));

	*out = (struct blk_stats) { 0 };
	if (r < 0)
		return r;
	*out = (struct blk_stats) {
		.reads = number_of(a, " reads="), .writes = number_of(a, " writes="),
		.flushes = number_of(a, " flushes="), .discards = number_of(a, " discards="),
		.errors = number_of(a, " errors="), .read_bytes = number_of(a, " read-bytes="),
		.written_bytes = number_of(a, " written-bytes="),
		.interrupts = number_of(a, " interrupts="), .sleeps = number_of(a, " sleeps="),
		.batches = number_of(a, " batches="), .enters = number_of(a, " enters="),
	};
	if (bytes)
		*bytes = number_of(a, " size=");
	return 0;
}

static int tell(struct vhost_lines *l, const char *line, struct vdisk_error *err)
{
	char a[1024];
	int r = ask(l, line, a, sizeof(a));

	if (r == -ETIMEDOUT)
		return vd_fail(err, ETIMEDOUT, "%s: its process does not answer", l->name);
	return r ? vd_fail(err, -r, "%s", strncmp(a, "error ", 6) ? a : a + 6) : 0;
}

int vhost_lines_limit(struct vhost_lines *l, const struct blk_limits *limits,
		      struct vdisk_error *err)
{
	char text[LIMITS_TEXT_MAX], line[LIMITS_TEXT_MAX + 8];

	words_format_limits(text, limits);
	snprintf(line, sizeof(line), "limit %s", text);
	return tell(l, line, err);
}

int vhost_lines_resize(struct vhost_lines *l, uint64_t bytes, struct vdisk_error *err)
{
	char line[64];

	snprintf(line, sizeof(line), "resize %" PRIu64, bytes);
	return tell(l, line, err);
}
