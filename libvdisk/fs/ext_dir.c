/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext_dir.c - directories of ext2/3/4
 *
 * The blocks of a directory are read and parsed here, entry by entry with all
 * lengths checked; libext2fs verifies and sets their checksums.  A hashed
 * directory can be read like a linear one, its index blocks look like empty
 * entries.  Entering a name into a hashed directory, and all that concerns
 * directories kept inside their inode, is libext2fs's work.
 *
 * A linear directory costs a scan for each name.  So a directory that is used
 * more than once in a row gets an index in memory: every name, and from which
 * block on there may be room.
 *
 *   1. A directory is in the index with all its names (but "." and "..") or not
 *      at all.
 *   2. The block that the index remembers for a name is a hint; splitting a
 *      hashed directory moves names.
 *   3. The index is bounded.  Over the bound it starts again from nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/ext.h"

#define INDEX_ENTRIES	300000u		/* rule 3 */
#define INDEX_DIR_BYTES	(64u << 20)	/* larger directories are always scanned */
#define TAIL_SIZE	12u		/* the entry that holds a block's checksum */
#define HEADER_SIZE	8u		/* of an entry, before its name */
#define N_HASH		8192u

struct name {
	struct name *next;
	uint32_t dir, ino;
	uint32_t block;			/* of the directory: rule 2 */
	uint8_t len;
	char text[];
};

struct dir {
	struct dir *next;
	uint32_t ino;
	uint32_t room;			/* blocks before this one are full */
};

struct ext_index {
	struct name *names[N_HASH];	/* owned */
	struct dir *dirs[256];		/* owned */
	unsigned n_names;
};

/* ---- the index ---- */

static struct name **name_slot(struct ext_index *x, uint32_t dir, const char *text, size_t len)
{
	uint32_t h = dir * 2654435761u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)text[i]) * 16777619u;
	return &x->names[(h ^ h >> 15) % N_HASH];
}

static struct name *index_find(struct ext_index *x, uint32_t dir, const char *text, size_t len)
{
	struct name *n = *name_slot(x, dir, text, len);

	while (n && (n->dir != dir || n->len != len || memcmp(n->text, text, len) != 0))
		n = n->next;
	return n;
}

static struct dir *index_dir(struct ext_fs *e, uint64_t ino)
{
	struct dir *d = e->index ? e->index->dirs[ino % 256] : NULL;

	while (d && d->ino != ino)
		d = d->next;
	return d;
}

static int index_add(struct ext_index *x, uint32_t dir, const char *text, size_t len, uint32_t ino,
		     uint32_t block)
{
	struct name **slot = name_slot(x, dir, text, len);
	struct name *n = malloc(sizeof(*n) + len);

	if (!n)
		return -ENOMEM;
	*n = (struct name) { .next = *slot, .dir = dir, .ino = ino, .block = block,
			     .len = (uint8_t)len };
	memcpy(n->text, text, len);
	*slot = n;
	x->n_names++;
	return 0;
}

static void index_remove(struct ext_index *x, uint32_t dir, const char *text, size_t len)
{
	struct name *n = index_find(x, dir, text, len);
	struct name **p = name_slot(x, dir, text, len);

	if (!n)
		return;
	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	free(n);
	x->n_names--;
}

void vd_ext_index_free(struct ext_fs *e)
{
	struct ext_index *x = e->index;

	for (unsigned i = 0; x && i < N_HASH; i++)
		while (x->names[i]) {
			struct name *n = x->names[i];

			x->names[i] = n->next;
			free(n);
		}
	for (unsigned i = 0; x && i < ARRAY_SIZE(x->dirs); i++)
		while (x->dirs[i]) {
			struct dir *d = x->dirs[i];

			x->dirs[i] = d->next;
			free(d);
		}
	free(x);
	e->index = NULL;
}

void vd_ext_index_drop(struct ext_fs *e, uint64_t dir)
{
	/* an empty directory is the only one that is dropped alone */
	struct dir *d = index_dir(e, dir), **p;

	if (!d)
		return;
	for (p = &e->index->dirs[dir % 256]; *p != d; p = &(*p)->next)
		;
	*p = d->next;
	free(d);
}

/* ---- blocks and entries ---- */

struct dir_ctx {
	struct ext_fs *e;
	uint64_t ino;
	struct ext2_inode_large inode;
	uint8_t *buf;			/* owned: a block */
	uint32_t block;			/* which one of the directory */
	blk64_t disk_block;		/* and of the disk */
};

/* One entry, checked. */
struct entry {
	uint32_t off, len;		/* in the block */
	uint32_t ino;
	uint8_t name_len;
	const char *name;		/* not terminated; in the block */
};

static int dir_open(struct dir_ctx *c, struct ext_fs *e, uint64_t ino, struct vdisk_error *err)
{
	int r = vd_ext_read_inode(e, ino, &c->inode, err);

	if (r < 0)
		return r;
	if (!LINUX_S_ISDIR(c->inode.i_mode))
		return vd_fail(err, ENOTDIR, "not a directory");
	c->e = e;
	c->ino = ino;
	c->buf = malloc(e->fs->blocksize);
	return c->buf ? 0 : vd_fail(err, ENOMEM, "out of memory");
}

static uint64_t dir_size(struct dir_ctx *c)
{
	return EXT2_I_SIZE(small(&c->inode));
}

static bool dir_inline(const struct dir_ctx *c)
{
	return c->inode.i_flags & EXT4_INLINE_DATA_FL;
}

static uint32_t dir_blocks(struct dir_ctx *c)
{
	return (uint32_t)MIN(dir_size(c) / c->e->fs->blocksize, (uint64_t)UINT32_MAX);
}

/* Bytes of a block that hold entries. */
static uint32_t usable(struct dir_ctx *c)
{
	return c->e->fs->blocksize -
	       (ext2fs_has_feature_metadata_csum(c->e->fs->super) ? TAIL_SIZE : 0);
}

/* Read a block; a hole is none, *@holes is how many of them there are from @block on. */
static int dir_read(struct dir_ctx *c, uint32_t block, uint64_t *holes, struct vdisk_error *err)
{
	struct ext_run run;
	errcode_t code;
	int r = vd_ext_map(c->e, c->ino, &c->inode, block, UINT32_MAX, &run, err);

	if (r < 0)
		return r;
	*holes = !run.block || run.unwritten ? run.count : 0;
	if (*holes)
		return 0;
	code = ext2fs_read_dir_block4(c->e->fs, run.block, c->buf, 0, (ext2_ino_t)c->ino);
	if (code)
		return vd_fail(err, vd_ext_errno(code), "directory inode %llu, block %u: %s",
			       (unsigned long long)c->ino, block, error_message(code));
	c->block = block;
	c->disk_block = run.block;
	return 0;
}

static int dir_write(struct dir_ctx *c, struct vdisk_error *err)
{
	return vd_ext_fail(err, ext2fs_write_dir_block4(c->e->fs, c->disk_block, c->buf, 0,
							(ext2_ino_t)c->ino),
			   "cannot write the directory");
}

static struct ext2_dir_entry *dirent_at(struct dir_ctx *c, uint32_t off)
{
	return (void *)(c->buf + off);
}

/* The entry at @off of the block that was read; false: damaged. */
static bool entry_at(struct dir_ctx *c, uint32_t off, struct entry *out)
{
	uint32_t bs = c->e->fs->blocksize, len;
	struct ext2_dir_entry *de = dirent_at(c, off);

	if (bs - off < HEADER_SIZE || ext2fs_get_rec_len(c->e->fs, de, &len))
		return false;
	*out = (struct entry) { .off = off, .len = len, .ino = ext2fs_le32_to_cpu(de->inode),
				.name_len = (uint8_t)ext2fs_dirent_name_len(de),
				.name = de->name };
	return len >= HEADER_SIZE && len % 4 == 0 && len <= bs - off &&
	       (!out->ino || out->name_len + HEADER_SIZE <= len);
}

/*
 * Call @each for the entries in use of each block.  It returns 0 to go on.  The
 * block that an entry is in stays in c->buf.
 */
static int dir_entries(struct dir_ctx *c, uint32_t first, uint32_t n,
		       int (*each)(void *arg, struct dir_ctx *c, const struct entry *en),
		       void *arg, struct vdisk_error *err)
{
	uint64_t end = (uint64_t)first + n, holes, seen = 0;
	struct entry en;
	int r;

	for (uint64_t b = first; b < end; b += holes ? holes : 1) {
		r = dir_read(c, (uint32_t)b, &holes, err);
		if (r < 0)
			return r;
		if (seen++ > ext2fs_blocks_count(c->e->fs->super))
			return vd_fail(err, EUCLEAN, "a directory larger than the file system");
		for (uint32_t off = 0; !holes && off < c->e->fs->blocksize; off += en.len) {
			if (!entry_at(c, off, &en))
				return vd_fail(err, EUCLEAN,
					       "directory inode %llu, block %u: a damaged entry at %u",
					       (unsigned long long)c->ino, c->block, off);
			r = en.ino && en.name_len ? each(arg, c, &en) : 0;
			if (r)
				return r;
		}
	}
	return 0;
}

/* The same through libext2fs, for directories inside an inode. */
struct inline_ctx {
	struct dir_ctx *c;
	int (*each)(void *arg, struct dir_ctx *c, const struct entry *en);
	void *arg;
	int r;
};

static int inline_one(ext2_ino_t dir, int which, struct ext2_dir_entry *de, int off, int size,
		      char *buf, void *arg)
{
	struct inline_ctx *i = arg;
	struct entry en = { .ino = de->inode, .name_len = (uint8_t)ext2fs_dirent_name_len(de),
			    .name = de->name };

	(void)dir, (void)which, (void)off, (void)size, (void)buf;
	i->r = en.name_len ? i->each(i->arg, i->c, &en) : 0;
	return i->r ? DIRENT_ABORT : 0;
}

static int each_entry(struct dir_ctx *c,
		      int (*each)(void *arg, struct dir_ctx *c, const struct entry *en),
		      void *arg, struct vdisk_error *err)
{
	struct inline_ctx i = { .c = c, .each = each, .arg = arg };
	errcode_t code;

	if (!dir_inline(c))
		return dir_entries(c, 0, dir_blocks(c), each, arg, err);
	code = ext2fs_dir_iterate2(c->e->fs, (ext2_ino_t)c->ino, 0, NULL, inline_one, &i);
	return code ? vd_ext_fail(err, code, "inline directory") : i.r;
}

/* ---- lookup ---- */

struct find_ctx {
	const char *name;
	size_t len;
	struct entry found;
};

static int find_one(void *arg, struct dir_ctx *c, const struct entry *en)
{
	struct find_ctx *f = arg;

	(void)c;
	if (en->name_len != f->len || memcmp(en->name, f->name, f->len) != 0)
		return 0;
	f->found = *en;
	return 1;
}

static int build_one(void *arg, struct dir_ctx *c, const struct entry *en)
{
	struct ext_index *x = arg;

	if (en->name[0] == '.' && (en->name_len == 1 || (en->name_len == 2 && en->name[1] == '.')))
		return 0;
	return index_add(x, (uint32_t)c->ino, en->name, en->name_len, en->ino, c->block);
}

/* Put a directory into the index; that it cannot be there is no error. */
static int index_build(struct dir_ctx *c, struct vdisk_error *err)
{
	struct ext_fs *e = c->e;
	struct dir *d;
	int r;

	if (dir_inline(c) || dir_size(c) > INDEX_DIR_BYTES || index_dir(e, c->ino))
		return 0;
	if (e->index && e->index->n_names > INDEX_ENTRIES)
		vd_ext_index_free(e);
	if (!e->index)
		e->index = calloc(1, sizeof(*e->index));
	d = malloc(sizeof(*d));
	if (!e->index || !d) {
		free(d);
		return vd_fail(err, ENOMEM, "out of memory");
	}
	r = dir_entries(c, 0, dir_blocks(c), build_one, e->index, err);
	if (r < 0) {	/* rule 1 */
		vd_ext_index_free(e);
		free(d);
		return r == -ENOMEM ? vd_fail(err, ENOMEM, "out of memory") : r;
	}
	*d = (struct dir) { .next = e->index->dirs[c->ino % 256], .ino = (uint32_t)c->ino };
	e->index->dirs[c->ino % 256] = d;
	return 0;
}

static int lookup_scan(struct ext_fs *e, uint64_t dir, const char *name, uint64_t *ino,
		       struct vdisk_error *err)
{
	struct find_ctx f = { .name = name, .len = strlen(name) };
	struct dir_ctx c = { 0 };
	int r = dir_open(&c, e, dir, err);

	if (r == 0 && e->last_dir == dir)
		r = index_build(&c, err);
	e->last_dir = (ext2_ino_t)dir;
	if (r == 0)
		r = each_entry(&c, find_one, &f, err);
	free(c.buf);
	if (r == 0)
		return -ENOENT;
	*ino = f.found.ino;
	return r < 0 ? r : 0;
}

int vd_ext_lookup(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t *ino,
		  struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct name *n;

	if (!index_dir(e, dir) || !strcmp(name, ".."))
		return lookup_scan(e, dir, name, ino, err);
	n = index_find(e->index, (uint32_t)dir, name, strlen(name));
	if (!n)
		return -ENOENT;
	*ino = n->ino;
	return 0;
}

struct list_ctx {
	vd_fs_each *each;
	void *arg;
	struct vdisk_error *err;
};

static int list_one(void *arg, struct dir_ctx *c, const struct entry *en)
{
	struct list_ctx *l = arg;
	char name[VD_NAME_MAX + 1];

	(void)c;
	memcpy(name, en->name, en->name_len);
	name[en->name_len] = '\0';
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	/* such names exist on no honest disk, and would mislead whoever uses them */
	if (memchr(name, '/', en->name_len) || strlen(name) != en->name_len)
		return vd_fail(l->err, EUCLEAN, "a name with \"/\" or NUL in a directory");
	return l->each(l->arg, name, en->ino);
}

int vd_ext_list(struct vdisk_fs *fs, uint64_t dir, vd_fs_each *each, void *arg,
		struct vdisk_error *err)
{
	struct list_ctx l = { .each = each, .arg = arg, .err = err };
	struct dir_ctx c = { 0 };
	int r = dir_open(&c, ext_of(fs), dir, err);

	if (r == 0)
		r = each_entry(&c, list_one, &l, err);
	free(c.buf);
	return r;
}

/* ---- change ---- */

static int type_code(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return EXT2_FT_REG_FILE;
	case S_IFDIR: return EXT2_FT_DIR;
	case S_IFCHR: return EXT2_FT_CHRDEV;
	case S_IFBLK: return EXT2_FT_BLKDEV;
	case S_IFIFO: return EXT2_FT_FIFO;
	case S_IFSOCK: return EXT2_FT_SOCK;
	case S_IFLNK: return EXT2_FT_SYMLINK;
	}
	return EXT2_FT_UNKNOWN;
}

/* What an entry takes at least. */
static uint32_t entry_size(uint32_t name_len)
{
	return (uint32_t)vd_align_up(HEADER_SIZE + name_len, 4);
}

static int set_len(struct dir_ctx *c, uint32_t off, uint32_t len)
{
	return ext2fs_set_rec_len(c->e->fs, len, dirent_at(c, off)) ? -EUCLEAN : 0;
}

/* Enter a name into the block that was read: 1 done, 0 no room. */
static int enter_block(struct dir_ctx *c, const char *name, uint32_t ino, int type,
		       struct vdisk_error *err)
{
	uint32_t len = (uint32_t)strlen(name), need = entry_size(len), have, room;
	struct ext2_dir_entry *de;
	struct entry en;

	for (uint32_t off = 0; off < usable(c); off += en.len) {
		if (!entry_at(c, off, &en))
			return vd_fail(err, EUCLEAN, "a damaged entry at %u of block %u", off,
				       c->block);
		have = en.ino ? entry_size(en.name_len) : 0;
		if (en.len < have + need)
			continue;
		room = en.len - have;
		if ((have && set_len(c, off, have) < 0) || set_len(c, off + have, room) < 0)
			return vd_fail(err, EUCLEAN, "an entry of %u bytes", en.len);
		de = dirent_at(c, off + have);
		de->inode = ext2fs_cpu_to_le32(ino);
		ext2fs_dirent_set_name_len(de, (int)len);
		ext2fs_dirent_set_file_type(de, ext2fs_has_feature_filetype(c->e->fs->super) ?
					    type : 0);
		memcpy(de->name, name, len);
		return 1;
	}
	return 0;
}

static int enter_linear(struct dir_ctx *c, const char *name, uint32_t ino, int type,
			struct vdisk_error *err)
{
	struct dir *d = index_dir(c->e, c->ino);
	uint32_t n = dir_blocks(c), b = d ? d->room : n ? n - 1 : 0;
	uint64_t holes;
	errcode_t code;
	int r = 0;

	for (; b < n; b++) {
		r = dir_read(c, b, &holes, err);
		if (r == 0 && holes) {
			b += (uint32_t)MIN(holes, (uint64_t)n - b) - 1;
			continue;
		}
		if (r == 0)
			r = enter_block(c, name, ino, type, err);
		if (r)
			break;
	}
	if (r == 0) {
		code = ext2fs_expand_dir(c->e->fs, (ext2_ino_t)c->ino);
		if (code)
			return vd_ext_fail(err, code, "cannot enlarge the directory");
		r = vd_ext_read_inode(c->e, c->ino, &c->inode, err);
		if (r == 0)
			r = dir_read(c, b, &holes, err);
		if (r == 0)
			r = holes ? 0 : enter_block(c, name, ino, type, err);
		if (r == 0)
			r = vd_fail(err, EUCLEAN, "a new directory block has no room");
	}
	if (r < 0)
		return r;
	if (d)
		d->room = b;
	return dir_write(c, err);
}

static int enter_lib(struct dir_ctx *c, const char *name, uint32_t ino, int type,
		     struct vdisk_error *err)
{
	ext2_filsys fs = c->e->fs;
	errcode_t code = ext2fs_link(fs, (ext2_ino_t)c->ino, name, ino, type);

	if (code == EXT2_ET_DIR_NO_SPACE) {
		code = ext2fs_expand_dir(fs, (ext2_ino_t)c->ino);
		if (!code)
			code = ext2fs_link(fs, (ext2_ino_t)c->ino, name, ino, type);
	}
	c->block = 0;
	return vd_ext_fail(err, code, "cannot enter the name");
}

static int enter(struct dir_ctx *c, const char *name, uint32_t ino, uint32_t mode,
		 struct vdisk_error *err)
{
	int type = type_code(mode), r = index_build(c, err);

	if (r < 0)
		return r;
	if (dir_inline(c) || (c->inode.i_flags & EXT2_INDEX_FL))
		r = enter_lib(c, name, ino, type, err);
	else
		r = enter_linear(c, name, ino, type, err);
	if (r == 0 && index_dir(c->e, c->ino) &&
	    index_add(c->e->index, (uint32_t)c->ino, name, strlen(name), ino, c->block) < 0)
		vd_ext_index_free(c->e);
	return r;
}

int vd_ext_enter(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino, uint32_t mode,
		 struct vdisk_error *err)
{
	struct dir_ctx c = { 0 };
	int r = dir_open(&c, ext_of(fs), dir, err);

	if (r == 0 && (c.inode.i_flags & EXT2_IMMUTABLE_FL))
		r = vd_fail(err, EPERM, "the directory is marked immutable");
	if (r == 0)
		r = enter(&c, name, (uint32_t)ino, mode, err);
	free(c.buf);
	return r;
}

/* Take the entry out of the block in c->buf: the one before it grows over it. */
static int leave_block(struct dir_ctx *c, const struct entry *gone, struct vdisk_error *err)
{
	uint32_t prev = gone->off;
	struct entry en;

	for (uint32_t off = 0; off < gone->off; off += en.len) {
		if (!entry_at(c, off, &en))
			return vd_fail(err, EUCLEAN, "a damaged entry at %u", off);
		prev = off;
	}
	if (prev == gone->off)
		dirent_at(c, prev)->inode = 0;
	else if (set_len(c, prev, gone->off + gone->len - prev) < 0)
		return vd_fail(err, EUCLEAN, "an entry of %u bytes", gone->len);
	return dir_write(c, err);
}

static int leave_linear(struct dir_ctx *c, const char *name, struct vdisk_error *err)
{
	struct find_ctx f = { .name = name, .len = strlen(name) };
	struct dir *d = index_dir(c->e, c->ino);
	struct name *hint = d ? index_find(c->e->index, d->ino, name, f.len) : NULL;
	int r = 0;

	if (hint && hint->block < dir_blocks(c))
		r = dir_entries(c, hint->block, 1, find_one, &f, err);
	if (r == 0)
		r = dir_entries(c, 0, dir_blocks(c), find_one, &f, err);
	if (r < 0)
		return r;
	if (r == 0)
		return vd_fail(err, ENOENT, "the name is not in its directory");
	if (d)
		d->room = MIN(d->room, c->block);
	return leave_block(c, &f.found, err);
}

static int leave(struct dir_ctx *c, const char *name, uint64_t ino, struct vdisk_error *err)
{
	int r;

	if (dir_inline(c))
		r = vd_ext_fail(err, ext2fs_unlink(c->e->fs, (ext2_ino_t)c->ino, name,
						   (ext2_ino_t)ino, 0),
				"cannot remove the name");
	else
		r = leave_linear(c, name, err);
	if (r == 0 && index_dir(c->e, c->ino))
		index_remove(c->e->index, (uint32_t)c->ino, name, strlen(name));
	return r;
}

int vd_ext_leave(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		 struct vdisk_error *err)
{
	struct dir_ctx c = { 0 };
	int r = dir_open(&c, ext_of(fs), dir, err);

	if (r == 0)
		r = leave(&c, name, ino, err);
	free(c.buf);
	return r;
}

static int parent_one(ext2_ino_t dir, int which, struct ext2_dir_entry *de, int off, int size,
		      char *buf, void *arg)
{
	uint32_t *parent = arg;

	(void)dir, (void)off, (void)size, (void)buf;
	if (which != DIRENT_DOT_DOT_FILE)
		return 0;
	de->inode = *parent;
	*parent = 0;
	return DIRENT_CHANGED | DIRENT_ABORT;
}

int vd_ext_set_parent(struct vdisk_fs *fs, uint64_t dir, uint64_t parent, struct vdisk_error *err)
{
	uint32_t left = (uint32_t)parent;
	errcode_t code = ext2fs_dir_iterate2(ext_of(fs)->fs, (ext2_ino_t)dir, 0, NULL, parent_one,
					     &left);

	if (code)
		return vd_ext_fail(err, code, "cannot change \"..\"");
	if (left)
		return vd_fail(err, EUCLEAN, "a directory without \"..\"");
	return 0;
}
