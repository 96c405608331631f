/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext_node.c - inodes of ext2/3/4: their attributes, making, naming, freeing
 *
 * The order of steps is such that an error between them leaves at worst a node
 * without a name, which is then freed again: a node is complete before its name
 * is entered; a new name stands before the old one goes; a name goes before the
 * node does.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "fs/ext.h"

#define LINK_MAX_EXT	65000u		/* EXT4_LINK_MAX */
#define XATTRS_MAX	65536u		/* bytes of names in a list, as in the kernel */

/* ---- time ---- */

/* Does the inode on the medium reach over this member? */
#define HAS(inode, member) \
	((size_t)EXT2_GOOD_OLD_INODE_SIZE + (inode)->i_extra_isize >= \
	 offsetof(struct ext2_inode_large, member) + sizeof((inode)->member))

/* ext4: 30 bits of nanoseconds, and two more for the seconds (Documentation, "Inode Timestamps"). */
static struct timespec time_get(uint32_t sec, uint32_t extra, bool has_extra)
{
	struct timespec t = { .tv_sec = (int32_t)sec };

	if (has_extra) {
		t.tv_sec += (time_t)(extra & EXT4_EPOCH_MASK) << 32;
		t.tv_nsec = (long)MIN(extra >> EXT4_EPOCH_BITS, 999999999u);
	}
	return t;
}

static uint32_t time_sec(struct timespec t, bool has_extra)
{
	if (!has_extra)
		t.tv_sec = t.tv_sec > INT32_MAX ? INT32_MAX :
			   t.tv_sec < INT32_MIN ? INT32_MIN : t.tv_sec;
	return (uint32_t)t.tv_sec;
}

static uint32_t time_extra(struct timespec t)
{
	uint32_t epoch = (uint32_t)(((uint64_t)t.tv_sec - (uint64_t)(int32_t)t.tv_sec) >> 32);

	return (epoch & EXT4_EPOCH_MASK) | (uint32_t)t.tv_nsec << EXT4_EPOCH_BITS;
}

#define SET_TIME(inode, which, t) do { \
	(inode)->i_##which = time_sec(t, HAS(inode, i_##which##_extra)); \
	if (HAS(inode, i_##which##_extra)) \
		(inode)->i_##which##_extra = time_extra(t); \
} while (0)

#define GET_TIME(inode, which) \
	time_get((inode)->i_##which, (inode)->i_##which##_extra, \
		 HAS(inode, i_##which##_extra))

static struct timespec now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t;
}

void vd_ext_touch(struct ext_fs *e, struct ext2_inode_large *inode, bool mtime)
{
	struct timespec t = now();

	(void)e;
	SET_TIME(inode, ctime, t);
	if (mtime)
		SET_TIME(inode, mtime, t);
}

/* ---- stat and setattr ---- */

/* Devices: the old way in i_block[0], 8 bits each, or the new way in i_block[1]. */
static void device_get(const struct ext2_inode_large *inode, struct vdisk_stat *st)
{
	uint32_t v = inode->i_block[0];

	if (v) {
		st->rdev_major = v >> 8 & 0xff;
		st->rdev_minor = v & 0xff;
		return;
	}
	v = inode->i_block[1];
	st->rdev_major = v >> 8 & 0xfff;
	st->rdev_minor = (v & 0xff) | (v >> 12 & 0xfff00);
}

static int device_set(struct ext2_inode_large *inode, const struct vdisk_stat *st)
{
	uint32_t major = st->rdev_major, minor = st->rdev_minor;

	if (major > 0xfff || minor > 0xfffff)
		return -EINVAL;
	if (major < 256 && minor < 256)
		inode->i_block[0] = major << 8 | minor;
	else
		inode->i_block[1] = (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
	return 0;
}

int vd_ext_stat(struct vdisk_fs *fs, uint64_t ino, struct vdisk_stat *out,
		struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large inode = { 0 };
	int r = vd_ext_read_inode(e, ino, &inode, err);

	if (r < 0)
		return r;
	*out = (struct vdisk_stat) {
		.ino = ino,
		.size = EXT2_I_SIZE(small(&inode)),
		.allocated = ext2fs_get_stat_i_blocks(e->fs, small(&inode)) * 512,
		.mode = inode.i_mode,
		.uid = inode_uid(inode),
		.gid = inode_gid(inode),
		.nlink = inode.i_links_count,
		.atime = GET_TIME(&inode, atime),
		.mtime = GET_TIME(&inode, mtime),
		.ctime = GET_TIME(&inode, ctime),
	};
	if (HAS(&inode, i_crtime))
		out->crtime = GET_TIME(&inode, crtime);
	if (S_ISCHR(inode.i_mode) || S_ISBLK(inode.i_mode))
		device_get(&inode, out);
	return 0;
}

static void set_attrs(struct ext2_inode_large *inode, const struct vdisk_stat *st, unsigned attrs)
{
	if (attrs & VD_ATTR_MODE)
		inode->i_mode = (uint16_t)((inode->i_mode & S_IFMT) | (st->mode & 07777));
	if (attrs & VD_ATTR_UID) {
		inode->i_uid = (uint16_t)st->uid;
		ext2fs_set_i_uid_high(*inode, (uint16_t)(st->uid >> 16));
	}
	if (attrs & VD_ATTR_GID) {
		inode->i_gid = (uint16_t)st->gid;
		ext2fs_set_i_gid_high(*inode, (uint16_t)(st->gid >> 16));
	}
	if (attrs & VD_ATTR_ATIME)
		SET_TIME(inode, atime, st->atime);
	if (attrs & VD_ATTR_MTIME)
		SET_TIME(inode, mtime, st->mtime);
	if (attrs & VD_ATTR_CTIME)
		SET_TIME(inode, ctime, st->ctime);
	if ((attrs & VD_ATTR_CRTIME) && HAS(inode, i_crtime))
		SET_TIME(inode, crtime, st->crtime);
}

static int read_for_change(struct vdisk_fs *fs, uint64_t ino, struct ext2_inode_large *inode,
			   struct vdisk_error *err)
{
	int r = vd_ext_begin(fs, err);

	return r < 0 ? r : vd_ext_read_inode(ext_of(fs), ino, inode, err);
}

int vd_ext_setattr(struct vdisk_fs *fs, uint64_t ino, const struct vdisk_stat *st,
		   unsigned attrs, struct vdisk_error *err)
{
	struct ext2_inode_large inode = { 0 };
	int r = read_for_change(fs, ino, &inode, err);

	if (r < 0)
		return r;
	vd_ext_touch(ext_of(fs), &inode, false);
	set_attrs(&inode, st, attrs);
	return vd_ext_write_inode(ext_of(fs), ino, &inode, err);
}

/* Something happened in a directory; @links is added to its link count. */
static int touch_dir(struct ext_fs *e, uint64_t dir, int links, struct vdisk_error *err)
{
	struct ext2_inode_large inode = { 0 };
	int r = vd_ext_read_inode(e, dir, &inode, err);

	if (r < 0)
		return r;
	/* ext4 with dir_nlink: 1 stands for "more than can be counted" */
	if (links > 0 && inode.i_links_count != 1) {
		if (inode.i_links_count >= LINK_MAX_EXT)
			inode.i_links_count = 1;
		else
			inode.i_links_count++;
	} else if (links < 0 && inode.i_links_count > 2) {
		inode.i_links_count--;
	}
	vd_ext_touch(e, &inode, true);
	return vd_ext_write_inode(e, dir, &inode, err);
}

static int may_link_dir(struct ext_fs *e, const struct ext2_inode_large *dir,
			struct vdisk_error *err)
{
	if (dir->i_links_count >= LINK_MAX_EXT && !ext2fs_has_feature_dir_nlink(e->fs->super))
		return vd_fail(err, EMLINK, "the directory has %u subdirectories, no more fit",
			       dir->i_links_count - 2u);
	return 0;
}

/* ---- free ---- */

/* Values that live in inodes of their own are counted there (feature ea_inode). */
struct key_ctx {
	char key[VD_NAME_MAX + 16];
};

static int first_key(char *name, char *value, size_t len, void *arg)
{
	struct key_ctx *k = arg;

	(void)value, (void)len;
	snprintf(k->key, sizeof(k->key), "%s", name);
	return XATTR_ABORT;
}

static errcode_t drop_xattrs(struct ext_fs *e, uint64_t ino)
{
	struct ext2_xattr_handle *h = NULL;
	errcode_t code = ext2fs_xattrs_open(e->fs, (ext2_ino_t)ino, &h);
	size_t n = 0;

	if (code)
		return code;
	code = ext2fs_xattrs_read(h);
	while (!code) {
		struct key_ctx k;

		code = ext2fs_xattrs_count(h, &n);
		if (code || !n)
			break;
		code = ext2fs_xattrs_iterate(h, first_key, &k);
		if (!code)
			code = ext2fs_xattr_remove(h, k.key);
	}
	ext2fs_xattrs_close(&h);
	return code;
}

int vd_ext_free_node(struct vdisk_fs *fs, uint64_t ino, struct ext2_inode_large *inode,
		     struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	bool is_dir = S_ISDIR(inode->i_mode);
	errcode_t code = 0;
	int r;

	if (ext2fs_has_feature_ea_inode(e->fs->super)) {
		code = drop_xattrs(e, ino);
		if (code)
			return vd_ext_fail(err, code, "cannot free its attributes");
		r = vd_ext_read_inode(e, ino, inode, err);
		if (r < 0)
			return r;
	}
	if (ext2fs_file_acl_block(e->fs, small(inode)))
		code = ext2fs_free_ext_attr(e->fs, (ext2_ino_t)ino, inode);
	if (code)
		return vd_ext_fail(err, code, "cannot free its attributes");
	if (!(inode->i_flags & EXT4_INLINE_DATA_FL) &&
	    ext2fs_inode_has_valid_blocks2(e->fs, small(inode))) {
		r = vd_ext_punch(e, ino, inode, 0, err);
		if (r < 0)
			return r;
	}
	inode->i_links_count = 0;
	inode->i_dtime = (uint32_t)now().tv_sec;
	r = vd_ext_write_inode(e, ino, inode, err);
	if (r < 0)
		return r;
	ext2fs_inode_alloc_stats2(e->fs, (ext2_ino_t)ino, -1, is_dir);
	if (is_dir)
		vd_ext_index_drop(e, ino);
	return 0;
}

/* ---- create ---- */

static errcode_t init_extents(ext2_filsys fs, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	ext2_extent_handle_t h;
	errcode_t code;

	if (!ext2fs_has_feature_extents(fs->super))
		return 0;
	inode->i_flags |= EXT4_EXTENTS_FL;
	code = ext2fs_extent_open2(fs, ino, small(inode), &h);	/* writes the header */
	if (!code)
		ext2fs_extent_free(h);
	return code;
}

/* The first block of a new directory, with "." and "..". */
static errcode_t fill_dir(ext2_filsys fs, ext2_ino_t ino, ext2_ino_t parent,
			  struct ext2_inode_large *inode)
{
	char *buf = NULL;
	blk64_t block;
	errcode_t code = ext2fs_new_block2(fs, ext2fs_find_inode_goal(fs, ino, small(inode), 0),
					   NULL, &block);

	if (code)
		return code;
	code = ext2fs_new_dir_block(fs, ino, parent, &buf);
	if (code)
		return code;
	ext2fs_block_alloc_stats2(fs, block, +1);
	ext2fs_iblk_set(fs, small(inode), 1);
	inode->i_size = fs->blocksize;
	code = ext2fs_bmap2(fs, ino, small(inode), NULL, BMAP_SET, 0, NULL, &block);
	if (!code)
		code = ext2fs_write_dir_block4(fs, block, buf, 0, ino);
	ext2fs_free_mem(&buf);
	return code;
}

static int fill_link(struct ext_fs *e, uint64_t ino, struct ext2_inode_large *inode,
		     const char *target, struct vdisk_error *err)
{
	size_t len = strlen(target);
	ssize_t n;

	if (len < sizeof(inode->i_block)) {	/* a fast link, in the inode */
		memcpy(inode->i_block, target, len);
		inode->i_size = (uint32_t)len;
		return 0;
	}
	if (len >= e->fs->blocksize)
		return vd_fail(err, ENAMETOOLONG, "a link of %zu bytes", len);
	if (init_extents(e->fs, (ext2_ino_t)ino, inode))
		return vd_fail(err, EIO, "cannot make a link");
	n = vd_ext_write_blocks(e, ino, inode, (const uint8_t *)target, len, 0, err);
	return n < 0 ? (int)n : 0;
}

/* A new inode as it is before it has contents, in @buf of the size on the medium. */
static void init_inode(struct ext_fs *e, struct ext2_inode_large *inode,
		       const struct vdisk_stat *st, unsigned attrs)
{
	uint32_t size = EXT2_INODE_SIZE(e->fs->super), extra = 0, generation = 0;
	struct vdisk_stat all = *st;
	struct timespec t = now();

	if (size > EXT2_GOOD_OLD_INODE_SIZE) {
		extra = MIN((uint32_t)sizeof(*inode), size) - EXT2_GOOD_OLD_INODE_SIZE;
		inode->i_extra_isize = (uint16_t)extra;
	}
	(void)!getrandom(&generation, sizeof(generation), GRND_NONBLOCK);
	inode->i_generation = generation;
	inode->i_mode = (uint16_t)(st->mode & S_IFMT);
	inode->i_links_count = S_ISDIR(st->mode) ? 2 : 1;
	if (!(attrs & VD_ATTR_ATIME))
		all.atime = t;
	if (!(attrs & VD_ATTR_MTIME))
		all.mtime = t;
	if (!(attrs & VD_ATTR_CRTIME))
		all.crtime = t;
	if (!(attrs & VD_ATTR_CTIME))
		all.ctime = t;
	set_attrs(inode, &all, attrs | VD_ATTR_MODE | VD_ATTR_ATIME | VD_ATTR_MTIME |
		  VD_ATTR_CTIME | VD_ATTR_CRTIME);
}

static int fill_node(struct ext_fs *e, uint64_t ino, uint64_t dir, struct ext2_inode_large *inode,
		     const struct vdisk_stat *st, const char *target, struct vdisk_error *err)
{
	errcode_t code = 0;

	switch (st->mode & S_IFMT) {
	case S_IFREG:
		code = init_extents(e->fs, (ext2_ino_t)ino, inode);
		break;
	case S_IFDIR:
		code = init_extents(e->fs, (ext2_ino_t)ino, inode);
		if (!code)
			code = fill_dir(e->fs, (ext2_ino_t)ino, (ext2_ino_t)dir, inode);
		break;
	case S_IFLNK:
		return fill_link(e, ino, inode, target, err);
	case S_IFCHR:
	case S_IFBLK:
		if (device_set(inode, st) < 0)
			return vd_fail(err, EINVAL, "device number %u:%u", st->rdev_major,
				       st->rdev_minor);
		break;
	}
	return vd_ext_fail(err, code, "cannot make the node");
}

/* Allocate and fill; the inode is complete on the medium, and has no name. */
static int make_node(struct ext_fs *e, uint64_t dir, const struct vdisk_stat *st, unsigned attrs,
		     const char *target, ext2_ino_t *out, struct ext2_inode_large *inode,
		     struct vdisk_error *err)
{
	uint32_t size = EXT2_INODE_SIZE(e->fs->super);
	AUTO_FREE void *blank = calloc(1, MAX(size, (uint32_t)sizeof(*inode)));
	ext2_ino_t ino;
	errcode_t code;
	int r;

	if (!blank)
		return vd_fail(err, ENOMEM, "out of memory");
	code = ext2fs_new_inode(e->fs, (ext2_ino_t)dir, (int)st->mode, NULL, &ino);
	if (code)
		return vd_ext_fail(err, code, "cannot make the node");
	memset(inode, 0, sizeof(*inode));
	init_inode(e, inode, st, attrs);
	/* all of it once, so that no attribute of a former owner stays behind */
	memcpy(blank, inode, sizeof(*inode));
	code = ext2fs_write_inode_full(e->fs, ino, blank, (int)size);
	if (code)
		return vd_ext_fail(err, code, "cannot write the new inode");
	ext2fs_inode_alloc_stats2(e->fs, ino, +1, S_ISDIR(st->mode));
	*out = ino;
	r = fill_node(e, ino, dir, inode, st, target, err);
	if (r == 0 && S_ISLNK(st->mode))
		set_attrs(inode, st, attrs & ~(unsigned)VD_ATTR_MODE);
	return r < 0 ? r : vd_ext_write_inode(e, ino, inode, err);
}

int vd_ext_create(struct vdisk_fs *fs, uint64_t dir, const char *name,
		  const struct vdisk_stat *st, unsigned attrs, const char *target, uint64_t *out,
		  struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large parent = { 0 }, inode = { 0 };
	struct vdisk_stat s = *st;
	bool is_dir = S_ISDIR(st->mode);
	ext2_ino_t ino = 0;
	int r = read_for_change(fs, dir, &parent, err);

	if (r == 0 && is_dir)
		r = may_link_dir(e, &parent, err);
	if (r < 0)
		return r;
	if ((parent.i_mode & S_ISGID) && !(attrs & VD_ATTR_GID)) {
		s.gid = inode_gid(parent);
		attrs |= VD_ATTR_GID;
		s.mode |= is_dir ? S_ISGID : 0;
	}
	r = make_node(e, dir, &s, attrs, target, &ino, &inode, err);
	if (r == 0)
		r = vd_ext_enter(fs, dir, name, ino, st->mode, err);
	if (r < 0) {
		if (ino && vd_ext_free_node(fs, ino, &inode, NULL) < 0)
			e->failed = r;
		return r;
	}
	*out = ino;
	return touch_dir(e, dir, is_dir, err);
}

/* ---- names ---- */

int vd_ext_link(struct vdisk_fs *fs, uint64_t ino, uint64_t dir, const char *name,
		struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large inode = { 0 };
	int r = read_for_change(fs, ino, &inode, err);

	if (r < 0)
		return r;
	if (inode.i_links_count >= LINK_MAX_EXT)
		return vd_fail(err, EMLINK, "the file has %u names, no more fit",
			       inode.i_links_count);
	r = vd_ext_enter(fs, dir, name, ino, inode.i_mode, err);
	if (r == 0)
		r = touch_dir(e, dir, 0, err);
	if (r < 0)
		return r;
	inode.i_links_count++;
	vd_ext_touch(e, &inode, false);
	return vd_ext_write_inode(e, ino, &inode, err);
}

static struct ext_held *held(struct ext_fs *e, uint64_t ino)
{
	for (unsigned i = 0; i < e->n_held; i++)
		if (e->held[i].ino == ino)
			return &e->held[i];
	return NULL;
}

int vd_ext_unlink(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		  struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large inode = { 0 };
	struct ext_held *h = held(e, ino);
	bool is_dir;
	int r = read_for_change(fs, ino, &inode, err);

	if (r < 0)
		return r;
	if (inode.i_flags & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return vd_fail(err, EPERM, "marked immutable or append-only");
	is_dir = S_ISDIR(inode.i_mode);
	r = vd_ext_leave(fs, dir, name, ino, err);
	if (r == 0)
		r = touch_dir(e, dir, is_dir ? -1 : 0, err);
	if (r < 0)
		return r;
	if (is_dir || inode.i_links_count <= 1) {
		inode.i_links_count = 0;
		if (!h)
			return vd_ext_free_node(fs, ino, &inode, err);
		h->orphan = true;
	} else {
		inode.i_links_count--;
	}
	vd_ext_touch(e, &inode, false);
	return vd_ext_write_inode(e, ino, &inode, err);
}

int vd_ext_rename(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		  uint64_t to_dir, const char *to_name, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_inode_large inode = { 0 }, parent = { 0 };
	int moves, r = read_for_change(fs, ino, &inode, err);

	if (r == 0)
		r = vd_ext_read_inode(e, to_dir, &parent, err);
	if (r < 0)
		return r;
	moves = S_ISDIR(inode.i_mode) && dir != to_dir;
	if (moves)
		r = may_link_dir(e, &parent, err);
	if (r == 0)
		r = vd_ext_enter(fs, to_dir, to_name, ino, inode.i_mode, err);
	if (r == 0)
		r = vd_ext_leave(fs, dir, name, ino, err);
	if (r == 0 && moves)
		r = vd_ext_set_parent(fs, ino, to_dir, err);
	if (r == 0)
		r = touch_dir(e, dir, -moves, err);
	if (r == 0 && dir != to_dir)
		r = touch_dir(e, to_dir, moves, err);
	if (r == 0)
		r = vd_ext_read_inode(e, ino, &inode, err);
	if (r < 0)
		return r;
	vd_ext_touch(e, &inode, false);
	return vd_ext_write_inode(e, ino, &inode, err);
}

/* ---- open nodes ---- */

int vd_ext_hold(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext_held *h = held(e, ino), *v;

	if (h) {
		h->count++;
		return 0;
	}
	v = reallocarray(e->held, e->n_held + 1, sizeof(*v));
	if (!v)
		return vd_fail(err, ENOMEM, "out of memory");
	e->held = v;
	v[e->n_held++] = (struct ext_held) { .ino = (ext2_ino_t)ino, .count = 1 };
	return 0;
}

int vd_ext_release(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext_held *h = held(e, ino);
	struct ext2_inode_large inode = { 0 };
	bool orphan;
	int r;

	if (!h || --h->count)
		return 0;
	orphan = h->orphan;
	*h = e->held[--e->n_held];
	if (!orphan)
		return 0;
	r = read_for_change(fs, ino, &inode, err);
	return r < 0 ? r : vd_ext_free_node(fs, ino, &inode, err);
}

/* ---- what a crash left ---- */

static int orphan_one(struct vdisk_fs *fs, uint32_t ino, uint32_t *next, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	uint32_t bs = e->fs->blocksize;
	struct ext2_inode_large inode = { 0 };
	uint64_t size;
	int r;

	if (ino < EXT2_FIRST_INO(e->fs->super) || ino > e->fs->super->s_inodes_count ||
	    !ext2fs_test_inode_bitmap2(e->fs->inode_map, ino))
		return vd_fail(err, EUCLEAN,
			       "a bad list of deleted files: check the file system first (vdisk fsck)");
	r = vd_ext_read_inode(e, ino, &inode, err);
	if (r < 0)
		return r;
	*next = inode.i_dtime;
	if (!inode.i_links_count)
		return vd_ext_free_node(fs, ino, &inode, err);
	inode.i_dtime = 0;
	size = EXT2_I_SIZE(small(&inode));
	if (S_ISREG(inode.i_mode) && !(inode.i_flags & EXT4_INLINE_DATA_FL))
		r = vd_ext_punch(e, ino, &inode, size / bs + (size % bs != 0), err);
	return r < 0 ? r : vd_ext_write_inode(e, ino, &inode, err);
}

int vd_ext_orphans(struct vdisk_fs *fs, struct vdisk_error *err)
{
	struct ext2_super_block *sb = ext_of(fs)->fs->super;
	int r;

	if (ext2fs_has_feature_orphan_present(sb))
		return vd_fail(err, ENOTSUP,
			       "deleted files stand in an orphan file: check the file system first (vdisk fsck)");
	r = vd_ext_begin(fs, err);
	for (uint32_t n = 0; r == 0 && sb->s_last_orphan; n++) {
		uint32_t next = 0;

		if (n > sb->s_inodes_count)
			return vd_fail(err, EUCLEAN, "an endless list of deleted files");
		r = orphan_one(fs, sb->s_last_orphan, &next, err);
		if (r == 0)
			sb->s_last_orphan = next;
	}
	return r;
}

/* ---- extended attributes ---- */

static int xattrs_load(struct ext_fs *e, uint64_t ino, struct ext2_xattr_handle **out,
		       struct vdisk_error *err)
{
	struct ext2_inode_large inode = { 0 };
	struct ext2_xattr_handle *h = NULL;
	errcode_t code;
	int r = vd_ext_read_inode(e, ino, &inode, err);

	if (r < 0)
		return r;
	code = ext2fs_xattrs_open(e->fs, (ext2_ino_t)ino, &h);
	if (code)
		return vd_ext_fail(err, code, "extended attributes");
	code = ext2fs_xattrs_read(h);
	if (code) {
		ext2fs_xattrs_close(&h);
		return vd_ext_fail(err, code, "extended attributes");
	}
	*out = h;
	return 0;
}

struct list_ctx {
	char *buf;
	size_t size, used;
	bool too_small;
};

static int list_one(char *name, char *value, size_t len, void *arg)
{
	struct list_ctx *l = arg;
	size_t n = strlen(name) + 1;

	(void)value, (void)len;
	if (!strcmp(name, "system.data"))	/* the contents of a small file */
		return 0;
	if (l->size && n > l->size - l->used)
		l->too_small = true;
	else if (l->size)
		memcpy(l->buf + l->used, name, n);
	l->used += n;
	return l->used > XATTRS_MAX || l->too_small ? XATTR_ABORT : 0;
}

ssize_t vd_ext_listxattr(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			 struct vdisk_error *err)
{
	struct list_ctx l = { .buf = buf, .size = size };
	struct ext2_xattr_handle *h = NULL;
	errcode_t code;
	int r = xattrs_load(ext_of(fs), ino, &h, err);

	if (r == -ENOTSUP)
		return 0;
	if (r < 0)
		return r;
	code = ext2fs_xattrs_iterate(h, list_one, &l);
	ext2fs_xattrs_close(&h);
	if (code)
		return vd_ext_fail(err, code, "extended attributes");
	if (l.too_small)
		return vd_fail(err, ERANGE, "the names do not fit into %zu bytes", size);
	return (ssize_t)l.used;
}

/*
 * libext2fs turns access control lists into the form of xattr(7), but leaves the
 * ids of entries that have none zero, where the kernel has -1.
 */
static void finish_acl(uint8_t *value, size_t len)
{
	for (size_t at = 4; at + 8 <= len; at += 8) {
		uint16_t tag = load_le16(value + at);

		if (tag != 2 && tag != 8)	/* ACL_USER, ACL_GROUP */
			store_le32(value + at + 4, UINT32_MAX);
	}
}

ssize_t vd_ext_getxattr(struct vdisk_fs *fs, uint64_t ino, const char *name, void *buf,
			size_t size, struct vdisk_error *err)
{
	struct ext2_xattr_handle *h = NULL;
	void *value = NULL;
	size_t len = 0;
	errcode_t code;
	ssize_t r = xattrs_load(ext_of(fs), ino, &h, err);

	if (r == -ENOTSUP)
		return vd_fail(err, ENODATA, "%s: no such attribute", name);
	if (r < 0)
		return r;
	code = ext2fs_xattr_get(h, name, &value, &len);
	ext2fs_xattrs_close(&h);
	if (code == EXT2_ET_EA_KEY_NOT_FOUND)
		return vd_fail(err, ENODATA, "%s: no such attribute", name);
	if (code)
		return vd_ext_fail(err, code, name);
	if (!strncmp(name, "system.posix_acl_", strlen("system.posix_acl_")))
		finish_acl(value, len);
	r = (ssize_t)len;
	if (size && len > size)
		r = vd_fail(err, ERANGE, "%s has %zu bytes, more than fit into %zu", name, len,
			    size);
	else if (size && len)
		memcpy(buf, value, len);
	ext2fs_free_mem(&value);
	return r;
}

static bool xattr_name_ok(const char *name)
{
	static const char *const prefixes[] = { "user.", "trusted.", "security.", "system.posix_acl_" };

	if (strlen(name) > VD_NAME_MAX)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])) && name[strlen(prefixes[i])])
			return true;
	return false;
}

int vd_ext_setxattr(struct vdisk_fs *fs, uint64_t ino, const char *name, const void *value,
		    size_t size, struct vdisk_error *err)
{
	struct ext_fs *e = ext_of(fs);
	struct ext2_xattr_handle *h = NULL;
	struct ext2_inode_large inode = { 0 };
	ssize_t have;
	errcode_t code;
	int r;

	if (!xattr_name_ok(name))
		return vd_fail(err, ENOTSUP, "%s: no name of an attribute that can be set", name);
	if (!value) {
		have = vd_ext_getxattr(fs, ino, name, NULL, 0, err);
		if (have < 0)
			return (int)have;
	}
	r = vd_ext_begin(fs, err);
	if (r == 0)
		r = xattrs_load(e, ino, &h, err);
	if (r < 0)
		return r;
	code = value ? ext2fs_xattr_set(h, name, value, size) : ext2fs_xattr_remove(h, name);
	ext2fs_xattrs_close(&h);
	if (code)
		return vd_ext_fail(err, code, name);
	r = vd_ext_read_inode(e, ino, &inode, err);
	if (r < 0)
		return r;
	vd_ext_touch(e, &inode, false);
	return vd_ext_write_inode(e, ino, &inode, err);
}
