/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create.c - new images
 *
 * All grain tables of a sparse file lie in front of the grains, as other programs
 * expect: empty, they are holes in the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "formats/vmdk/state.h"

#define GRAIN		128u		/* sectors */
#define GTES		512u
#define GT_SECTORS	(GTES * 4 / VMDK_SECTOR)
#define DESC_AT		1u
#define DESC_SECTORS	20u
#define SPLIT		4192256u	/* sectors: 2047 MiB, a multiple of the grain */

const char *const vmdk_options[] = {
	"subformat\tmonolithicSparse|monolithicFlat|twoGbMaxExtentSparse|twoGbMaxExtentFlat|"
		"streamOptimized\twhich files it consists of (monolithicSparse)",
	"adapter_type\tide|buslogic|lsilogic|legacyESX\twhat it is attached to (ide)",
	"hwversion\tN\tvirtual hardware version (4)",
	"zeroed_grain\ton|off\tlet grains be told to be zero (off)",
	"backing_file\tNAME\tparent image",
	"backing_fmt\tvmdk\tformat of the parent",
	NULL
};

static const struct subformat {
	const char *name;
	bool sparse, split, stream, alone;	/* alone: the descriptor is in the extent */
	const char *suffix;			/* of an extent's file; %u: its number */
} subformats[] = {
	{ .name = "monolithicSparse", .sparse = true, .alone = true },
	{ .name = "streamOptimized", .sparse = true, .alone = true, .stream = true },
	{ .name = "monolithicFlat", .suffix = "-flat" },
	{ .name = "twoGbMaxExtentSparse", .sparse = true, .split = true, .suffix = "-s" },
	{ .name = "twoGbMaxExtentFlat", .split = true, .suffix = "-f" },
};

struct plan {
	const struct subformat *sub;
	uint64_t sectors;
	const char *adapter;
	unsigned hwversion;
	bool zero_grains;
	uint32_t cid, parent_cid;
	const char *parent;
	char **made;		/* owned, and so are those in it: files made beside the image */
	unsigned n_made;
};

/* ---- what is asked for ---- */

static int parse_adapter(struct plan *p, const char *name, struct vdisk_error *err)
{
	static const char *const known[] = { "ide", "buslogic", "lsilogic", "legacyESX" };

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcasecmp(known[i], name)) {
			p->adapter = known[i];
			return 0;
		}
	return vd_fail(err, EINVAL, "vmdk: adapter_type is ide, buslogic, lsilogic or legacyESX, "
		       "not '%s'", name);
}

static int parse_subformat(struct plan *p, const char *name, struct vdisk_error *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(subformats); i++)
		if (!strcasecmp(subformats[i].name, name)) {
			p->sub = &subformats[i];
			return 0;
		}
	return vd_fail(err, EINVAL, "vmdk: there is no subformat '%s'", name);
}

static int parse_options(struct plan *p, const struct vdisk_option *o, unsigned n,
			 struct vdisk_error *err)
{
	const char *sub = vd_option(o, n, "subformat"), *adapter = vd_option(o, n, "adapter_type");
	const char *hw = vd_option(o, n, "hwversion"), *zero = vd_option(o, n, "zeroed_grain");
	char *end = NULL;
	int r = parse_subformat(p, sub ? sub : "monolithicSparse", err);

	if (r == 0)
		r = parse_adapter(p, adapter ? adapter : "ide", err);
	if (r < 0)
		return r;
	p->hwversion = hw ? (unsigned)strtoul(hw, &end, 10) : 4;
	if (hw && (*end || !p->hwversion || p->hwversion > 99))
		return vd_fail(err, EINVAL, "vmdk: hwversion is a number up to 99, not '%s'", hw);
	if (zero && vd_parse_bool(zero, &p->zero_grains) < 0)
		return vd_fail(err, EINVAL, "vmdk: zeroed_grain is on or off, not '%s'", zero);
	if (zero && p->zero_grains && (!p->sub->sparse || p->sub->stream))
		return vd_fail(err, EINVAL, "vmdk: zeroed_grain is for sparse images");
	return 0;
}

static int look_at_parent(struct plan *p, struct vdisk *file, const struct vdisk_create_opts *opts,
			  uint64_t *length, struct vdisk_error *err)
{
	const char *given = vd_option(opts->options, opts->n_options, "backing_file");
	const char *format = vd_option(opts->options, opts->n_options, "backing_fmt");
	struct vdisk_open_opts o = { .size = sizeof(o), .refs = opts->refs };
	struct vd_open_ctx ctx = { .disk = file, .opts = &o };
	struct vdisk *parent = NULL;
	int r;

	p->parent = opts->backing ? opts->backing : given;
	format = opts->backing_format ? opts->backing_format : format;
	p->parent_cid = VMDK_NO_PARENT;
	if (!p->parent)
		return *length == UINT64_MAX ?
		       vd_fail(err, EINVAL, "%s: a size or a backing file is needed", file->name) : 0;
	if (strchr(p->parent, '"') || strchr(p->parent, '\n'))
		return vd_fail(err, EINVAL, "vmdk: a parent cannot have such a name");
	if (format && strcasecmp(format, "vmdk"))
		return vd_fail(err, EINVAL, "vmdk: the parent has to be a vmdk, not %s", format);
	if (!p->sub->sparse || p->sub->stream)
		return vd_fail(err, EINVAL, "vmdk: %s images have no parent", p->sub->name);
	file->refs = opts->refs;
	r = vd_open_ref(&ctx, &parent, p->parent, "vmdk", false, err);
	if (r < 0)
		return r;
	p->parent_cid = ((struct vmdk *)parent->priv)->d.cid;
	if (*length == UINT64_MAX)
		*length = parent->size;
	vdisk_close(parent, NULL);
	return 0;
}

static int new_cid(struct plan *p, struct vdisk_error *err)
{
	do
		if (getrandom(&p->cid, sizeof(p->cid), 0) != sizeof(p->cid))
			return vd_fail(err, EIO, "vmdk: no random numbers: %s", strerror(errno));
	while (p->cid == VMDK_NO_PARENT || p->cid == p->parent_cid);
	return 0;
}

/* ---- sparse files ---- */

static struct vmdk_header plan_header(const struct plan *p, uint64_t sectors)
{
	struct vmdk_header h = {
		.version = p->zero_grains ? 2 : 1,
		.flags = VMDK_FLAG_NEWLINES,
		.capacity = sectors,
		.grain = GRAIN, .gtes = GTES,
		.desc_at = p->sub->alone ? DESC_AT : 0,
		.desc_len = p->sub->alone ? DESC_SECTORS : 0,
	};
	uint64_t at = DESC_AT + h.desc_len, n = vmdk_gd_entries(&h);
	uint64_t one = vd_div_up(n * 4, VMDK_SECTOR) + n * GT_SECTORS;

	if (p->sub->stream) {
		h.flags |= VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS;
		h.algorithm = VMDK_DEFLATE;
		h.gd_at = VMDK_GD_AT_END;
	} else {
		h.flags |= VMDK_FLAG_REDUNDANT | (p->zero_grains ? VMDK_FLAG_ZERO_GRAINS : 0);
		h.rgd_at = at;
		h.gd_at = at + one;
		at += 2 * one;
	}
	h.overhead = vd_align_up(at, GRAIN);
	return h;
}

/* A directory whose tables follow it. */
static int write_directory(struct vdisk *file, uint64_t at, uint32_t n)
{
	uint64_t first = at + vd_div_up((uint64_t)n * 4, VMDK_SECTOR);
	AUTO_FREE uint8_t *gd = malloc((size_t)n * 4 + 1);

	if (!gd)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		store_le32(gd + (size_t)i * 4, (uint32_t)(first + (uint64_t)i * GT_SECTORS));
	return vd_pwrite(file, gd, (size_t)n * 4, at * VMDK_SECTOR);
}

static int write_sparse(const struct plan *p, struct vdisk *file, uint64_t sectors,
			const char *text, struct vdisk_error *err)
{
	struct vmdk_header h = plan_header(p, sectors);
	uint64_t end = h.overhead * VMDK_SECTOR;
	uint8_t *head = calloc(DESC_AT + DESC_SECTORS, VMDK_SECTOR);
	int r = head ? 0 : -ENOMEM;

	if (r == 0)
		r = vd_truncate(file, end);
	if (r == -EOPNOTSUPP)	/* a device: as large as it is */
		r = file->size >= end ? 0 : -ENOSPC;
	if (r == 0)
		r = vd_zero_range(file, 0, end);
	if (r == 0 && p->sub->stream)
		r = vmdk_stream_empty(file, &h, end);
	if (r == 0 && !p->sub->stream)
		r = write_directory(file, h.rgd_at, vmdk_gd_entries(&h));
	if (r == 0 && !p->sub->stream)
		r = write_directory(file, h.gd_at, vmdk_gd_entries(&h));
	if (r == 0) {
		vmdk_header_encode(&h, head);
		memcpy(head + VMDK_SECTOR, text, strlen(text));
		r = vd_pwrite(file, head, (DESC_AT + h.desc_len) * VMDK_SECTOR, 0);
	}
	free(head);
	if (r == 0)
		r = vd_flush(file);
	return r < 0 ? vd_fail(err, -r, "%s: vmdk: writing the metadata: %s", file->name,
			       strerror(-r)) : 0;
}

/* ---- files beside the image ---- */

/* "disk.vmdk", "-s", 1 is "disk-s001.vmdk".  The caller frees; NULL: no memory. */
static char *extent_path(const struct plan *p, const char *image, unsigned number)
{
	size_t len = strlen(image);
	char *path = NULL;
	int n;

	if (len > 5 && !strcasecmp(image + len - 5, ".vmdk"))
		len -= 5;
	n = p->sub->split ?
	    asprintf(&path, "%.*s%s%03u.vmdk", (int)len, image, p->sub->suffix, number) :
	    asprintf(&path, "%.*s%s.vmdk", (int)len, image, p->sub->suffix);
	return n < 0 ? NULL : path;
}

/* Make @path, which is kept in mind in case that something fails. */
static int make_file(struct plan *p, char *path, bool overwrite, struct vdisk_error *err)
{
	char **more = reallocarray(p->made, p->n_made + 1, sizeof(char *));
	AUTO_CLOSE int fd = -1;

	if (!more) {
		free(path);
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	}
	p->made = more;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (overwrite ? O_TRUNC : O_EXCL), 0666);
	if (fd < 0) {
		int r = vd_fail(err, errno, "%s: vmdk: creating an extent: %s", path,
				strerror(errno));

		free(path);
		return r;
	}
	p->made[p->n_made++] = path;
	return 0;
}

static int fill_file(const struct plan *p, const char *path, uint64_t sectors,
		     struct vdisk_error *err)
{
	struct vdisk_open_opts o = {
		.size = sizeof(o), .format = "raw", .flags = VDISK_OPEN_WRITE,
	};
	struct vdisk *raw = NULL;
	int r = vdisk_open(&raw, path, &o, err);

	if (r < 0)
		return r;
	if (p->sub->sparse) {
		r = write_sparse(p, vdisk_below(raw), sectors, "", err);
	} else {
		r = vd_truncate(vdisk_below(raw), sectors * VMDK_SECTOR);
		if (r < 0)
			vd_fail(err, -r, "%s: vmdk: sizing an extent: %s", path, strerror(-r));
	}
	if (r < 0)
		vdisk_close(raw, NULL);
	else
		r = vdisk_close(raw, err);
	return r;
}

static int make_extents(struct plan *p, const char *image, bool overwrite, struct vdisk_error *err)
{
	uint64_t left = p->sectors;
	int r = 0;

	for (unsigned i = 1; left && r == 0; i++) {
		uint64_t n = p->sub->split ? MIN(left, (uint64_t)SPLIT) : left;
		char *path = extent_path(p, image, i);

		if (!path || i > VMDK_MAX_EXTENTS)
			r = vd_fail(err, path ? EFBIG : ENOMEM, "vmdk: %s",
				    path ? "too many extents" : "out of memory");
		if (r < 0) {
			free(path);
			return r;
		}
		r = make_file(p, path, overwrite, err);
		if (r == 0)
			r = fill_file(p, path, n, err);
		left -= n;
	}
	return r;
}

/* ---- the descriptor ---- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void put_extents(const struct plan *p, FILE *f, const char *image)
{
	uint64_t left = p->sectors;

	if (p->sub->alone) {
		fprintf(f, "RW %" PRIu64 " SPARSE \"%s\"\n", p->sectors, base_name(image));
		return;
	}
	for (unsigned i = 0; i < p->n_made; i++) {
		uint64_t n = p->sub->split ? MIN(left, (uint64_t)SPLIT) : left;

		fprintf(f, "RW %" PRIu64 " %s \"%s\"%s\n", n, p->sub->sparse ? "SPARSE" : "FLAT",
			base_name(p->made[i]), p->sub->sparse ? "" : " 0");
		left -= n;
	}
}

/* IDE disks have 16 heads; SCSI ones what their adapters made of them. */
static void put_geometry(const struct plan *p, FILE *f)
{
	bool ide = !strcmp(p->adapter, "ide");
	unsigned heads = ide ? 16 : p->sectors < 2 * 1024 * 1024 ? 64 : 255;
	unsigned sectors = ide || heads == 255 ? 63 : 32;
	uint64_t cylinders = MIN(p->sectors / (heads * sectors), (uint64_t)(ide ? 16383 : 65535));

	fprintf(f, "ddb.geometry.cylinders = \"%" PRIu64 "\"\n", MAX(cylinders, UINT64_C(1)));
	fprintf(f, "ddb.geometry.heads = \"%u\"\n", heads);
	fprintf(f, "ddb.geometry.sectors = \"%u\"\n", sectors);
}

/* The text; the caller frees.  NULL: no memory. */
static char *write_text(const struct plan *p, const char *image)
{
	uint32_t more[3] = { 0 };
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	(void)!getrandom(more, sizeof(more), GRND_NONBLOCK);
	fprintf(f, "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\n");
	fprintf(f, "CID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n", p->cid, p->parent_cid,
		p->sub->name);
	if (p->parent)
		fprintf(f, "parentFileNameHint=\"%s\"\n", p->parent);
	fputs("\n# Extent description\n", f);
	put_extents(p, f, image);
	fprintf(f, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%u\"\n", p->hwversion);
	fprintf(f, "ddb.longContentID = \"%08x%08x%08x%08x\"\n", more[0], more[1], more[2], p->cid);
	put_geometry(p, f);
	fprintf(f, "ddb.adapterType = \"%s\"\n", p->adapter);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

static int write_image(struct plan *p, struct vdisk *file, bool overwrite, struct vdisk_error *err)
{
	AUTO_FREE char *text = NULL;
	int r = p->sub->alone ? 0 : make_extents(p, file->name, overwrite, err);

	if (r < 0)
		return r;
	text = write_text(p, file->name);
	if (!text)
		return vd_fail(err, ENOMEM, "vmdk: out of memory");
	if (p->sub->alone && strlen(text) > DESC_SECTORS * VMDK_SECTOR)
		return vd_fail(err, ENAMETOOLONG, "%s: vmdk: the names are too long", file->name);
	if (p->sub->alone)
		return write_sparse(p, file, p->sectors, text, err);
	r = vd_pwrite(file, text, strlen(text), 0);
	if (r == 0)
		r = vd_flush(file);
	return r < 0 ? vd_fail(err, -r, "%s: vmdk: writing the descriptor: %s", file->name,
			       strerror(-r)) : 0;
}

static int plan(struct plan *p, struct vdisk *file, uint64_t length,
		const struct vdisk_create_opts *opts, struct vdisk_error *err)
{
	int r = parse_options(p, opts->options, opts->n_options, err);

	if (r == 0)
		r = look_at_parent(p, file, opts, &length, err);
	if (r == 0)
		r = new_cid(p, err);
	if (r < 0)
		return r;
	if (length % VMDK_SECTOR)
		return vd_fail(err, EINVAL, "vmdk: a size is a multiple of %u bytes, not %" PRIu64,
			       VMDK_SECTOR, length);
	p->sectors = length / VMDK_SECTOR;
	/* (entries are sectors of the file, in 32 bits) */
	if (p->sub->alone && (p->sectors > UINT32_MAX ||
			      plan_header(p, p->sectors).overhead + p->sectors > UINT32_MAX - GRAIN))
		return vd_fail(err, EFBIG, "vmdk: a %s image cannot be of 2 TiB; "
			       "twoGbMaxExtentSparse can", p->sub->name);
	if (!p->sub->alone && vdisk_fd(file) < 0)
		return vd_fail(err, EINVAL, "vmdk: a %s image consists of several files",
			       p->sub->name);
	return 0;
}

int vmdk_create(struct vdisk *file, uint64_t length, const struct vdisk_create_opts *opts,
		struct vdisk_error *err)
{
	struct plan p = { .sub = NULL };
	int r = plan(&p, file, length, opts, err);

	if (r == 0)
		r = write_image(&p, file, opts->overwrite, err);
	for (unsigned i = 0; i < p.n_made; i++) {
		if (r < 0)
			unlink(p.made[i]);
		free(p.made[i]);
	}
	free(p.made);
	return r;
}

int vmdk_measure(uint64_t length, uint64_t data, const struct vdisk_option *options, unsigned n,
		 uint64_t *required, uint64_t *full, struct vdisk_error *err)
{
	struct plan p = { .sub = NULL };
	struct vmdk_header h;
	uint64_t grains;
	int r = parse_options(&p, options, n, err);

	if (r < 0)
		return r;
	if (length > INT64_MAX / 2)
		return vd_fail(err, EFBIG, "vmdk: a disk of %" PRIu64 " bytes is too large", length);
	if (!p.sub->sparse) {
		*required = *full = length;
		return 0;
	}
	grains = vd_div_up(length, GRAIN * VMDK_SECTOR);
	h = plan_header(&p, vd_div_up(length, VMDK_SECTOR));
	*full = (h.overhead + grains * GRAIN) * VMDK_SECTOR;
	*required = MIN(*full, h.overhead * VMDK_SECTOR + vd_align_up(data, GRAIN * VMDK_SECTOR));
	return 0;
}
