/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* config_file.c - files that a configuration is read from, and its end */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/compiler.h"
#include "target/config.h"
#include "target/log.h"

/* All of it, with a NUL behind it. */
static int read_file(const char *path, size_t max, char **out, size_t *len, struct stat *st,
		     struct vdisk_error *err)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	AUTO_FREE char *buf = NULL;
	size_t have = 0;
	ssize_t n = 1;

	if (fd < 0 || fstat(fd, st) < 0)
		return fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st->st_mode))
		return fail(err, EINVAL, "%s: not a regular file", path);
	if ((uint64_t)st->st_size > max)
		return fail(err, EFBIG, "%s: larger than %zu bytes", path, max);
	buf = malloc(max + 2);
	while (buf && have <= max && n > 0) {
		n = read(fd, buf + have, max + 1 - have);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n < 0)
			return fail(err, errno, "%s: %s", path, strerror(errno));
		else
			have += (size_t)n;
	}
	if (!buf)
		return fail(err, ENOMEM, "out of memory");
	if (have > max)
		return fail(err, EFBIG, "%s: larger than %zu bytes", path, max);
	buf[have] = '\0';
	*out = STEAL(buf);
	*len = have;
	return 0;
}

int config_read_secret(const char *path, uint8_t out[ISCSI_SECRET_MAX], struct vdisk_error *err)
{
	enum { FILE_MAX = 1024 };
	char *text;
	struct stat st;
	size_t len, n;
	int r;

	if (path[0] != '/')
		return fail(err, EINVAL, "%s: a secret's file is named by its whole path", path);
	r = read_file(path, FILE_MAX, &text, &len, &st, err);
	if (r < 0)
		return r;
	n = strcspn(text, "\r\n");
	r = (int)n;
	if (st.st_mode & 027)
		r = fail(err, EPERM, "%s: its mode is %04o: others may read it, or its group may "
			 "write it", path, (unsigned)st.st_mode & 07777);
	else if (n > ISCSI_SECRET_MAX)
		r = fail(err, EINVAL, "%s: the secret has more than %u bytes", path, ISCSI_SECRET_MAX);
	else
		memcpy(out, text, n);
	explicit_bzero(text, len);
	free(text);
	return r;
}

int config_load(struct config **out, const char *path, struct vdisk_error *err)
{
	AUTO_FREE char *text = NULL;
	struct stat st;
	size_t len;
	int r = read_file(path, CONFIG_SIZE_MAX, &text, &len, &st, err);

	if (r < 0)
		return r;
	if (st.st_mode & 022)
		return fail(err, EPERM, "%s: its mode is %04o: others than its owner may write it",
			    path, (unsigned)st.st_mode & 07777);
	return config_parse(out, path, text, len, config_read_secret, err);
}

/* ---- */

static void free_target(struct config_target *t)
{
	for (unsigned i = 0; i < t->n_luns; i++) {
		free(t->luns[i].disk);
		free(t->luns[i].format);
		free(t->luns[i].serial);
	}
	free(t->luns);
	free(t->name);
	free(t->alias);
	iscsi_access_clear(&t->access);
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->n_portals; i++) {
		free(c->portals[i].address);
		free(c->portals[i].advertise);
	}
	for (unsigned i = 0; i < c->n_users; i++)
		iscsi_user_clear(&c->users[i]);
	for (unsigned i = 0; i < c->n_targets; i++)
		free_target(&c->targets[i]);
	iscsi_access_clear(&c->discovery);
	free(c->portals);
	free(c->users);
	free(c->targets);
	free(c->user);
	free(c->state_dir);
	free(c->path);
	free(c);
}

static bool same_string(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

bool config_lun_same(const struct config_lun *a, const struct config_lun *b)
{
	return a->lun == b->lun && same_string(a->disk, b->disk) &&
	       same_string(a->format, b->format) && same_string(a->serial, b->serial) &&
	       a->read_only == b->read_only && a->removable == b->removable &&
	       a->physical_size == b->physical_size && a->share == b->share && a->block_size == b->block_size && a->refs == b->refs;
}

struct vdisk_open_opts config_lun_opts(const struct config_lun *l)
{
	return (struct vdisk_open_opts) {
		.size = sizeof(struct vdisk_open_opts),
		.format = l->format,
		.refs = l->refs,
		.block_size = l->block_size,
		.flags = (l->read_only ? 0 : VDISK_OPEN_WRITE) | (l->share ? VDISK_OPEN_SHARE : 0),
	};
}
