/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs.h - between the file systems and what is common to all of them
 *
 * A file system driver knows nodes: numbers that stand for a file, directory,
 * link or device as long as it exists.  It never sees a path.  Paths, symbolic
 * links and "..", the rules of open, rename and remove, and the sentences for
 * people are in fs.c, once.
 *
 * A file system belongs to one thread at a time.
 */
#ifndef VD_FS_H
#define VD_FS_H

#include "core/driver.h"

#define VD_NAME_MAX	255
#define VD_PATH_MAX	4096	/* a path with its links expanded */
#define VD_LINK_MAX	40	/* symbolic links followed for one path */
#define VD_FS_HEAD	4096	/* what ->match gets to see */

/* Which members of a struct vdisk_stat ->setattr and ->create shall use. */
enum vd_attr {
	VD_ATTR_MODE = 1 << 0,	/* permissions; ->create takes the type too */
	VD_ATTR_UID = 1 << 1,
	VD_ATTR_GID = 1 << 2,
	VD_ATTR_ATIME = 1 << 3,
	VD_ATTR_MTIME = 1 << 4,
	VD_ATTR_CRTIME = 1 << 5,
	VD_ATTR_CTIME = 1 << 6,	/* else ctime is now */
};

struct vd_fs_run;

/* ->list: non-zero stops, and is returned. */
typedef int vd_fs_each(void *arg, const char *name, uint64_t ino);

/*
 * All return 0 (or what is documented) or -errno, with a sentence in @err that
 * needs no path: fs.c puts it before.  Those that change something are called
 * on a file system open for writing only; members from ->create on may be NULL
 * where a file system is never written.
 */
struct vd_fs_ops {
	const char *name;
	/* Are the first @len bytes (VD_FS_HEAD, less on a smaller disk) ours? */
	bool (*match)(const uint8_t *head, size_t len);
	/* fs->disk and fs->writable are set; set ->priv, ->root, ->type. */
	int (*open)(struct vdisk_fs *fs, struct vdisk_error *err);
	/* Write out what is dirty and free ->priv, in any case. */
	int (*close)(struct vdisk_fs *fs, struct vdisk_error *err);
	int (*sync)(struct vdisk_fs *fs, struct vdisk_error *err);
	int (*usage)(struct vdisk_fs *fs, struct vdisk_fs_usage *out, struct vdisk_error *err);

	/* Find @name in a directory.  -ENOENT leaves @err alone. */
	int (*lookup)(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t *ino,
		      struct vdisk_error *err);
	int (*stat)(struct vdisk_fs *fs, uint64_t ino, struct vdisk_stat *out,
		    struct vdisk_error *err);
	/* Each entry but "." and "..". */
	int (*list)(struct vdisk_fs *fs, uint64_t dir, vd_fs_each *each, void *arg,
		    struct vdisk_error *err);
	/* NUL-terminated; -ENAMETOOLONG if it does not fit.  NULL: there are no links. */
	int (*readlink)(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			struct vdisk_error *err);

	/* Bytes read: less than @len only at the end of the file. */
	ssize_t (*read)(struct vdisk_fs *fs, uint64_t ino, void *buf, size_t len, uint64_t off,
			struct vdisk_error *err);
	/* The next run of data at or after @off; length 0 at the end.  May call zeroes data. */
	int (*next_data)(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t *start,
			 uint64_t *length, struct vdisk_error *err);
	/* As listxattr(2) and getxattr(2).  NULL: no xattrs. */
	ssize_t (*listxattr)(struct vdisk_fs *fs, uint64_t ino, char *buf, size_t size,
			     struct vdisk_error *err);
	ssize_t (*getxattr)(struct vdisk_fs *fs, uint64_t ino, const char *name, void *buf,
			    size_t size, struct vdisk_error *err);

	/*
	 * Make a node of the type st->mode says and enter it in @dir, where no
	 * @name is.  st->rdev_*: of a device.  @target: of a symbolic link.
	 */
	int (*create)(struct vdisk_fs *fs, uint64_t dir, const char *name,
		      const struct vdisk_stat *st, unsigned attrs, const char *target,
		      uint64_t *ino, struct vdisk_error *err);
	int (*setattr)(struct vdisk_fs *fs, uint64_t ino, const struct vdisk_stat *st,
		       unsigned attrs, struct vdisk_error *err);
	ssize_t (*write)(struct vdisk_fs *fs, uint64_t ino, const void *buf, size_t len,
			 uint64_t off, struct vdisk_error *err);
	int (*truncate)(struct vdisk_fs *fs, uint64_t ino, uint64_t size,
			struct vdisk_error *err);
	/* Another name for a node that is no directory; there is no @name yet. */
	int (*link)(struct vdisk_fs *fs, uint64_t ino, uint64_t dir, const char *name,
		    struct vdisk_error *err);
	/* Take a name away, and the node with its last one.  A directory is empty. */
	int (*unlink)(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		      struct vdisk_error *err);
	/* @to_name is not there (any more), and no directory goes below itself. */
	int (*rename)(struct vdisk_fs *fs, uint64_t dir, const char *name, uint64_t ino,
		      uint64_t to_dir, const char *to_name, struct vdisk_error *err);
	/*
	 * Is directory @dir the directory @node, or below it?  1 or 0.  NULL: found
	 * out by looking up "..".
	 */
	int (*below)(struct vdisk_fs *fs, uint64_t dir, uint64_t node, struct vdisk_error *err);
	/* Names differ only in case: ->lookup finds them, and ->rename can change that. */
	bool caseless;
	/* NULL @value: remove. */
	int (*setxattr)(struct vdisk_fs *fs, uint64_t ino, const char *name, const void *value,
			size_t size, struct vdisk_error *err);
	/* The label, and the UUID, of the whole.  NULL: cannot be changed. */
	int (*set_label)(struct vdisk_fs *fs, const char *label, struct vdisk_error *err);
	int (*set_uuid)(struct vdisk_fs *fs, const uint8_t uuid[16], struct vdisk_error *err);
	/* Call @each with the runs of bytes of the disk that hold nothing; non-zero stops. */
	int (*each_free)(struct vdisk_fs *fs, int (*each)(void *arg, uint64_t off, uint64_t len),
			 void *arg, struct vdisk_error *err);
	/* A node is in use from here on: its last name may go, it may not. */
	int (*hold)(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err);
	int (*release)(struct vdisk_fs *fs, uint64_t ino, struct vdisk_error *err);

	/*
	 * For callers that move the bytes themselves, outside the lock that guards
	 * the file system: up to @max runs of fs->disk for [off, off + len), until
	 * the end of the file.  Returns how many.  With @write, @off and @len are
	 * whole blocks (->block_size of usage), the file is as long now as the runs
	 * reach, and the caller owes their bytes before the next sync.
	 * -EAGAIN, without a message: use ->read, ->write for this.  NULL: always.
	 */
	int (*map)(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t len, bool write,
		   struct vd_fs_run *runs, unsigned max, struct vdisk_error *err);
	/* Bytes owed to ->map did not arrive: write no more, it is not consistent. */
	void (*fail)(struct vdisk_fs *fs, int r);
	/* Make [off, off + len) read as zeroes and give the space back; the size stays. */
	int (*punch)(struct vdisk_fs *fs, uint64_t ino, uint64_t off, uint64_t len,
		     struct vdisk_error *err);
	/* As ->sync, for a file system that stays in use: its mark may stay too.
	 * NULL: ->sync. */
	int (*commit)(struct vdisk_fs *fs, struct vdisk_error *err);
	/* Has so much changed that a commit is due?  NULL: never. */
	bool (*commit_due)(struct vdisk_fs *fs);
};

#define VD_FS_RUN_ZERO UINT64_MAX

struct vd_fs_run {
	uint64_t at;		/* on fs->disk; VD_FS_RUN_ZERO: reads as zeroes */
	uint64_t len;		/* bytes */
};

struct vdisk_fs {
	const struct vd_fs_ops *ops;
	void *priv;		/* the driver's */
	struct vdisk *disk;	/* owned reference; the driver may put an overlay over it */
	bool writable;
	bool journal;		/* changes shall go through the journal, if there is one */
	uint64_t root;
	char type[16];

	/* the directory that was found last, and under which path; see walk */
	uint64_t last_root, last_dir;
	char last_path[VD_PATH_MAX];
};

/* Where a path ends. */
struct vd_place {
	uint64_t dir;			/* 0 for the root itself */
	uint64_t ino;			/* 0: no such name in dir */
	char name[VD_NAME_MAX + 1];
};

/*
 * Follow @path from @root, which it cannot leave: ".." stops there, and an
 * absolute link starts there.  With @follow, a link at the end is followed too.
 * That the last name does not exist is no error: place->ino is 0 then.
 */
int vd_fs_walk(struct vdisk_fs *fs, uint64_t root, const char *path, bool follow,
	       struct vd_place *out, struct vdisk_error *err);
/* The same for a path that must exist; "PATH: " is before the message. */
int vd_fs_find(struct vdisk_fs *fs, const char *path, bool follow, uint64_t *ino,
	       struct vdisk_error *err);
/* -EROFS with a sentence where the file system is not open for writing. */
int vd_fs_may_write(struct vdisk_fs *fs, struct vdisk_error *err);
/* -EMEDIUMTYPE for a member of a RAID array whose files cannot be had from it alone. */
int vd_fs_check_member(struct vdisk *disk, bool write, struct vdisk_error *err);
/* Forget what walk remembers: a name is about to go or change its meaning. */
void vd_fs_forget(struct vdisk_fs *fs);
/* Remove @place, with all that is below it if it is a directory and @recursive. */
int vd_fs_remove_at(struct vdisk_fs *fs, const struct vd_place *place, bool recursive,
		    struct vdisk_error *err);

/* As rename(2), from and to places that vd_fs_walk() or a caller with nodes found. */
int vd_fs_rename_at(struct vdisk_fs *fs, const struct vd_place *from, const struct vd_place *to,
		    struct vdisk_error *err);

extern const struct vd_fs_ops vd_ext_ops;
extern const struct vd_fs_ops vd_fat_ops;

#endif
