/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * probe.c - what a volume holds, asked of libblkid
 *
 * libblkid wants a file descriptor, and a disk here is often none: an image in
 * some format, a partition in it.  So it gets a sparse memory file as long as
 * the disk into which the places are copied where signatures and labels live:
 * the first 2 MiB, the last 1 MiB, and those that a boot sector points to
 * (NTFS keeps its label in the $MFT, usually 3 GiB in; FAT32 and exFAT in the
 * root directory; HFS+ in the catalog).  Zeroes are not copied: a large empty
 * disk costs nothing.
 *
 * The extra places come from untrusted numbers.  They are clipped to the disk,
 * and there are at most WINDOWS_MAX of WINDOW_SIZE.
 */
#include <blkid/blkid.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "core/driver.h"

#define HEAD_SIZE	(2u << 20)
#define TAIL_SIZE	(1u << 20)
#define WINDOW_SIZE	(64u << 10)
#define PIECE		(256u << 10)
#define PAGE		4096u

struct probe_window {
	struct vdisk *disk;	/* borrowed */
	int fd;			/* borrowed: the memory file */
	uint64_t size;
	uint8_t *buf;		/* owned: PIECE bytes */
};

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static size_t page_at(size_t at, size_t len)
{
	return MIN((size_t)PAGE, len - at);
}

/* Write the runs of pages that are not zero. */
static int put_pages(const struct probe_window *w, size_t len, uint64_t off)
{
	for (size_t at = 0, end; at < len; at = end) {
		end = at + page_at(at, len);
		if (is_zero(w->buf + at, end - at))
			continue;
		while (end < len && !is_zero(w->buf + end, page_at(end, len)))
			end += page_at(end, len);
		if (pwrite(w->fd, w->buf + at, end - at, (off_t)(off + at)) != (ssize_t)(end - at))
			return -errno;
	}
	return 0;
}

/* Copy [off, off + len), as far as it lies on the disk. */
static int copy_range(const struct probe_window *w, uint64_t off, uint64_t len)
{
	if (off >= w->size)
		return 0;
	len = MIN(len, w->size - off);
	while (len > 0) {
		size_t n = (size_t)MIN(len, (uint64_t)PIECE);
		struct vdisk_extent ext;
		int r;

		if (vdisk_map(w->disk, off, len, &ext) == 0 &&
		    (ext.kind == VDISK_HOLE || ext.kind == VDISK_ZERO)) {
			off += ext.length;
			len -= MIN(len, ext.length);
			continue;
		}
		r = vd_pread(w->disk, w->buf, n, off);
		if (r == 0)
			r = put_pages(w, n, off);
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

/* ---- places that boot sectors point to ---- */

/* Copy a window at @index * @unit bytes past @base. */
static int copy_at(const struct probe_window *w, uint64_t base, uint64_t index, uint64_t unit)
{
	uint64_t off;

	if (!vd_mul(index, unit, &off) || !vd_add(off, base, &off))
		return 0;
	return copy_range(w, off, WINDOW_SIZE);
}

/* NTFS: the cluster of the $MFT; record 3 holds the label. */
static int copy_ntfs(const struct probe_window *w, const uint8_t *boot)
{
	uint64_t cluster = (uint64_t)load_le16(boot + 11) * boot[13];

	return copy_at(w, 0, load_le64(boot + 48), cluster);
}

/* exFAT 3.1: cluster heap in sectors at 88, first cluster of the root at 96. */
static int copy_exfat(const struct probe_window *w, const uint8_t *boot)
{
	uint8_t sector_shift = boot[108], cluster_shift = boot[109];
	uint32_t root = load_le32(boot + 96);
	int r;

	if (sector_shift < 9 || sector_shift > 12 || cluster_shift > 25 - sector_shift || root < 2)
		return 0;
	/* where its chain goes on is in the FAT */
	r = copy_range(w, ((uint64_t)load_le32(boot + 80) << sector_shift) + 4ull * root, PAGE);
	if (r < 0)
		return r;
	return copy_at(w, (uint64_t)load_le32(boot + 88) << sector_shift, root - 2,
		       1ull << (sector_shift + cluster_shift));
}

/* FAT: the root directory, after the FATs (12, 16) or at a cluster (32). */
static int copy_fat(const struct probe_window *w, const uint8_t *boot)
{
	uint64_t sector = load_le16(boot + 11);
	uint64_t fat_sectors = load_le16(boot + 22) ? load_le16(boot + 22) : load_le32(boot + 36);
	uint64_t data = sector * (load_le16(boot + 14) + boot[16] * fat_sectors);
	uint32_t root = load_le32(boot + 44);
	int r;

	if (!vd_is_pow2(sector) || sector < 512 || sector > 4096 || !boot[13] || !boot[16])
		return 0;
	if (load_le16(boot + 17))
		return copy_at(w, data, 0, 0);
	if (root < 2)
		return 0;
	r = copy_range(w, sector * load_le16(boot + 14) + 4ull * root, PAGE);
	return r < 0 ? r : copy_at(w, data, root - 2, sector * boot[13]);
}

/* HFS+: the first extent of the catalog file; its node with the label is early. */
static int copy_hfsplus(const struct probe_window *w, const uint8_t *volume)
{
	return copy_at(w, 0, load_be32(volume + 272 + 16), load_be32(volume + 40));
}

static int copy_pointed(const struct probe_window *w)
{
	uint8_t head[2048];

	if (w->size < sizeof(head))
		return 0;
	if (vd_pread(w->disk, head, sizeof(head), 0) < 0)
		return -EIO;
	if (memcmp(head + 3, "NTFS    ", 8) == 0)
		return copy_ntfs(w, head);
	if (memcmp(head + 3, "EXFAT   ", 8) == 0)
		return copy_exfat(w, head);
	if (load_be16(head + 1024) == 0x482b || load_be16(head + 1024) == 0x4858)
		return copy_hfsplus(w, head + 1024);
	if (head[510] == 0x55 && head[511] == 0xaa && (head[0] == 0xeb || head[0] == 0xe9))
		return copy_fat(w, head);
	return 0;
}

static int copy_places(const struct probe_window *w)
{
	uint64_t tail = w->size > HEAD_SIZE ? MIN((uint64_t)TAIL_SIZE, w->size - HEAD_SIZE) : 0;
	int r = copy_range(w, 0, HEAD_SIZE);

	if (r == 0)
		r = copy_range(w, w->size - tail, tail);
	return r < 0 ? r : copy_pointed(w);
}

/* ---- libblkid ---- */

static void get(blkid_probe pr, const char *key, char *out, size_t size)
{
	const char *value;

	if (blkid_probe_lookup_value(pr, key, &value, NULL) == 0)
		snprintf(out, size, "%s", value);
}

static int run(struct vdisk_probe *out, blkid_probe pr)
{
	char block[16] = "";

	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID |
					  BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE |
					  BLKID_SUBLKS_VERSION);
	switch (blkid_do_safeprobe(pr)) {
	case 0:
		break;
	case 1:
		return 0;
	case -2:
		snprintf(out->usage, sizeof(out->usage), "ambivalent");
		return 0;
	default:
		return -EIO;
	}
	get(pr, "TYPE", out->type, sizeof(out->type));
	get(pr, "USAGE", out->usage, sizeof(out->usage));
	get(pr, "LABEL", out->label, sizeof(out->label));
	get(pr, "UUID", out->uuid, sizeof(out->uuid));
	get(pr, "VERSION", out->version, sizeof(out->version));
	get(pr, "BLOCK_SIZE", block, sizeof(block));
	out->block_size = (uint32_t)strtoul(block, NULL, 10);
	return 0;
}

static int probe_fd(struct vdisk_probe *out, int fd, uint32_t block_size)
{
	blkid_probe pr = blkid_new_probe();
	int r = -ENOMEM;

	if (!pr)
		return r;
	if (blkid_probe_set_device(pr, fd, 0, 0) == 0) {
		blkid_probe_set_sectorsize(pr, block_size);
		r = run(out, pr);
	}
	blkid_free_probe(pr);
	return r;
}

/* ---- what superblocks tell ---- */

/* Linux, fs/ext4/ext4.h: struct ext4_super_block, at byte 1024. */
static void ext_usage(struct vdisk_probe *p, const uint8_t *s)
{
	uint32_t shift = load_le32(s + 24), incompat = load_le32(s + 96);
	uint64_t blocks = load_le32(s + 4), unused = load_le32(s + 12);

	if (shift > 6)
		return;
	if (incompat & 0x80) {	/* 64bit */
		blocks |= (uint64_t)load_le32(s + 336) << 32;
		unused |= (uint64_t)load_le32(s + 344) << 32;
	}
	p->dirty = incompat & 0x4 || !(load_le16(s + 58) & 1);
	if (blocks > (UINT64_MAX >> (10 + shift)))
		return;
	p->fs_size = blocks << (10 + shift);
	p->fs_free = MIN(unused, blocks) << (10 + shift);
}

/* Linux, fs/xfs/libxfs/xfs_format.h: struct xfs_dsb. */
static void xfs_usage(struct vdisk_probe *p, const uint8_t *s)
{
	uint64_t size;

	if (vd_mul(load_be64(s + 8), (uint64_t)load_be32(s + 4), &size)) {
		p->fs_size = size;
		p->fs_free = MIN(load_be64(s + 144), load_be64(s + 8)) * load_be32(s + 4);
	}
}

/* btrfs: the superblock at 64 KiB. */
static void btrfs_usage(struct vdisk_probe *p, const uint8_t *s)
{
	uint64_t size = load_le64(s + 0x70), used = load_le64(s + 0x78);

	p->fs_size = size;
	p->fs_free = used < size ? size - used : 0;
}

static void fat_dirty(struct vdisk_probe *p, const uint8_t *boot)
{
	unsigned at = load_le16(boot + 22) ? 37 : 65;

	p->dirty = (boot[at + 1] == 0x28 || boot[at + 1] == 0x29) && boot[at] & 1;
}

static void read_usage(struct vdisk_probe *p, int fd)
{
	uint8_t s[1024];
	bool ext = !strncmp(p->type, "ext", 3), btrfs = !strcmp(p->type, "btrfs");

	p->fs_free = UINT64_MAX;
	if (pread(fd, s, sizeof(s), ext ? 1024 : btrfs ? 65536 : 0) != sizeof(s))
		return;
	if (ext)
		ext_usage(p, s);
	else if (btrfs)
		btrfs_usage(p, s);
	else if (!strcmp(p->type, "xfs"))
		xfs_usage(p, s);
	else if (!strcmp(p->type, "vfat"))
		fat_dirty(p, s);
	else if (!strcmp(p->type, "exfat") && s[108] <= 12 && load_le64(s + 72) >> 48 == 0)
		p->fs_size = load_le64(s + 72) << s[108];	/* exFAT 3.1.5, 3.1.14 */
	else if (!strcmp(p->type, "ntfs") && load_le16(s + 11) <= 4096)
		/* NTFS: the number of sectors; 2^63 of them would not be one */
		p->fs_size = load_le64(s + 40) >> 40 ? 0 : load_le64(s + 40) * load_le16(s + 11);
}

int vdisk_probe(struct vdisk *disk, struct vdisk_probe *out, struct vdisk_error *err)
{
	AUTO_CLOSE int fd = -1;
	AUTO_FREE uint8_t *buf = NULL;
	struct vdisk_probe found = { 0 };
	struct probe_window w = { .disk = disk, .size = disk->size };
	int r;

	if (w.size == 0) {
		*out = found;
		return 0;
	}
	fd = memfd_create("vdisk-probe", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)w.size) < 0)
		return vd_fail(err, errno, "%s: a memory file to probe in: %s", disk->name,
			       strerror(errno));
	buf = malloc(PIECE);
	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	w.fd = fd;
	w.buf = buf;
	r = copy_places(&w);
	if (r == 0)
		r = probe_fd(&found, fd, disk->block_size ? disk->block_size : 512);
	if (r < 0)
		return vd_fail(err, -r, "%s: looking for a file system: %s", disk->name,
			       strerror(-r));
	read_usage(&found, fd);
	*out = found;
	return 0;
}
