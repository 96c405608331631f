/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lent.c - see lent.h: questions about a file system, and their answers */
#include "guest/lent.h"

#include <errno.h>
#include <stdio.h>

#include "guest/jail.h"

/* ---- in the parent ---- */

struct page {
	uint8_t *buf;
	size_t size, used;
	uint64_t skip;
};

static int put_entry(void *arg, const char *name, uint64_t node)
{
	struct page *p = arg;
	uint16_t len = (uint16_t)strlen(name);

	if (p->skip) {
		p->skip--;
		return 0;
	}
	if (p->size - p->used < sizeof(node) + sizeof(len) + len)
		return 1;
	memcpy(p->buf + p->used, &node, sizeof(node));
	memcpy(p->buf + p->used + sizeof(node), &len, sizeof(len));
	memcpy(p->buf + p->used + sizeof(node) + sizeof(len), name, len);
	p->used += sizeof(node) + sizeof(len) + len;
	return 0;
}

static ssize_t answer_lookup(struct vdisk_fs *fs, const struct vd_lent_question *q, uint8_t *buf,
			     size_t size)
{
	uint64_t node = 0;
	int r;

	if (size < sizeof(node) || !memchr(q->name, '\0', sizeof(q->name)) || !q->name[0] ||
	    strchr(q->name, '/'))
		return -EINVAL;
	r = fs->ops->lookup(fs, q->node, q->name, &node, NULL);
	memcpy(buf, &node, sizeof(node));
	return r < 0 ? r : (ssize_t)sizeof(node);
}

static ssize_t answer_stat(struct vdisk_fs *fs, const struct vd_lent_question *q, uint8_t *buf,
			   size_t size)
{
	struct vdisk_stat st = { 0 };
	int r = size < sizeof(st) ? -EINVAL : fs->ops->stat(fs, q->node, &st, NULL);

	if (r < 0)
		return r;
	memcpy(buf, &st, sizeof(st));
	return sizeof(st);
}

ssize_t vd_lent_answer(const struct vd_lent_fs *lent, unsigned n_lent,
		       const struct vd_lent_question *q, void *buf, size_t size)
{
	struct page page = { .buf = buf, .size = MIN(size, (size_t)q->len), .skip = q->off };
	struct vdisk_fs *fs;
	int r;

	if (q->fs >= n_lent)
		return -EINVAL;
	fs = lent[q->fs].fs;
	switch (q->what) {
	case LENT_LOOKUP:
		return answer_lookup(fs, q, buf, page.size);
	case LENT_STAT:
		return answer_stat(fs, q, buf, page.size);
	case LENT_LIST:
		r = fs->ops->list(fs, q->node, put_entry, &page, NULL);
		return r < 0 ? r : (ssize_t)page.used;
	case LENT_READLINK:
		r = fs->ops->readlink && page.size ?
		    fs->ops->readlink(fs, q->node, buf, page.size, NULL) : -EINVAL;
		return r < 0 ? r : (ssize_t)strlen(buf);
	case LENT_READ:
		return fs->ops->read(fs, q->node, buf, page.size, q->off, NULL);
	default:
		return -EINVAL;
	}
}

/* ---- in the child: a file system whose every answer comes from there ---- */

struct lent {
	struct jail *jail;
	uint32_t index;
};

static ssize_t ask(struct vdisk_fs *fs, enum vd_lent_what what, uint64_t node, const char *name,
		   uint64_t off, void *buf, size_t size, struct vdisk_error *err)
{
	const struct lent *l = fs->priv;
	struct vd_lent_question q = {
		.fs = l->index, .what = what, .node = node, .off = off,
		.len = (uint32_t)MIN(size, (size_t)JAIL_ANSWER_MAX),
	};
	ssize_t n;

	if (name && strlen(name) > VD_NAME_MAX)
		return vd_fail(err, ENAMETOOLONG, "a name of more than %d bytes", VD_NAME_MAX);
	snprintf(q.name, sizeof(q.name), "%s", name ? name : "");
	n = jail_ask(l->jail, &q, sizeof(q), buf, q.len);
	if (n < 0 && n != -ENOENT)
		vd_fail(err, (int)-n, "%s", strerror((int)-n));
	return n;
}

static int lent_lookup(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t *ino,
		       struct vdisk_error *err)
{
	ssize_t n = ask(fs, LENT_LOOKUP, dir, name, 0, ino, sizeof(*ino), err);

	return n < 0 ? (int)n : 0;
}

static int lent_stat(struct vdisk_fs *fs, uint64_t ino, struct vdisk_stat *out,
		     struct vdisk_error *err)
{
	ssize_t n = ask(fs, LENT_STAT, ino, NULL, 0, out, sizeof(*out), err);

	return n == -ENOENT ? vd_fail(err, ENOENT, "no such file or directory") : n < 0 ? (int)n : 0;
}

/* Call @each for the entries of one answer; their number, or what @each returned in @result. */
static uint64_t give(const uint8_t *p, size_t len, vd_fs_each *each, void *arg, int *result)
{
	char name[VD_NAME_MAX + 1];
	uint64_t node, n = 0;
	uint16_t name_len;

	while (*result == 0 && len >= sizeof(node) + sizeof(name_len)) {
		memcpy(&node, p, sizeof(node));
		memcpy(&name_len, p + sizeof(node), sizeof(name_len));
		p += sizeof(node) + sizeof(name_len);
		len -= sizeof(node) + sizeof(name_len);
		if (name_len > len || name_len > VD_NAME_MAX)
			break;
		memcpy(name, p, name_len);
		name[name_len] = '\0';
		p += name_len;
		len -= name_len;
		*result = each(arg, name, node);
		n++;
	}
	return n;
}

static int lent_list(struct vdisk_fs *fs, uint64_t dir, vd_fs_each *each, void *arg,
		     struct vdisk_error *err)
{
	AUTO_FREE uint8_t *buf = malloc(JAIL_ANSWER_MAX);
	uint64_t done = 0, n = 1;
	int result = 0;

	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	while (result == 0 && n > 0) {
		ssize_t len = ask(fs, LENT_LIST, dir, NULL, done, buf, JAIL_ANSWER_MAX, err);

		if (len < 0)
			return (int)len;
		n = give(buf, (size_t)len, each, arg, &result);
		done += n;
	}
	return result;
}

static int lent_readlink(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			 struct vdisk_error *err)
{
	ssize_t n = ask(fs, LENT_READLINK, ino, NULL, 0, buf, size, err);

	if (n < 0)
		return (int)n;
	if ((size_t)n >= size)
		return vd_fail(err, ENAMETOOLONG, "the target of a link is too long");
	buf[n] = '\0';
	return 0;
}

static ssize_t lent_read(struct vdisk_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off,
			 struct vdisk_error *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = ask(fs, LENT_READ, ino, NULL, off + done, (char *)buf + done, len - done,
				err);

		if (n < 0)
			return n;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* All of a file counts as data. */
static int lent_next_data(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t *start,
			  uint64_t *length, struct vdisk_error *err)
{
	struct vdisk_stat st = { 0 };
	int r = lent_stat(fs, ino, &st, err);

	*start = off;
	*length = r == 0 && off < st.size ? st.size - off : 0;
	return r;
}

static int lent_close(struct vdisk_fs *fs, struct vdisk_error *err)
{
	(void)err;
	free(fs->priv);
	return 0;
}

static int lent_sync(struct vdisk_fs *fs, struct vdisk_error *err)
{
	(void)fs, (void)err;
	return 0;
}

static int lent_usage(struct vdisk_fs *fs, struct vdisk_fs_usage *out, struct vdisk_error *err)
{
	(void)fs;
	*out = (struct vdisk_fs_usage) { 0 };
	return vd_fail(err, ENOTSUP, "not known here");
}

static const struct vd_fs_ops lent_ops = {
	.name = "lent",
	.close = lent_close,
	.sync = lent_sync,
	.usage = lent_usage,
	.lookup = lent_lookup,
	.stat = lent_stat,
	.list = lent_list,
	.readlink = lent_readlink,
	.read = lent_read,
	.next_data = lent_next_data,
};

int vd_lent_open(struct vdisk_fs **out, const char **inside, struct vdisk *disk,
		 struct jail *jail, const char *volume)
{
	unsigned n = 0;
	const struct vd_lent_fs *lent = jail_lent(jail, &n);
	struct vdisk_fs *fs;
	struct lent *l;

	for (unsigned i = 0; i < n; i++) {
		if (strcmp(lent[i].volume, volume) != 0)
			continue;
		fs = calloc(1, sizeof(*fs));
		l = calloc(1, sizeof(*l));
		if (!fs || !l) {
			free(fs);
			free(l);
			return -ENOMEM;
		}
		*l = (struct lent) { .jail = jail, .index = i };
		fs->ops = &lent_ops;
		fs->priv = l;
		fs->disk = vdisk_ref(disk);
		fs->root = lent[i].fs->root;
		memcpy(fs->type, lent[i].fs->type, sizeof(fs->type));
		*out = fs;
		*inside = lent[i].inside;
		return 0;
	}
	return -ENOENT;
}
