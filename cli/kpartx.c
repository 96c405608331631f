/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kpartx.c - vdisk kpartx: the options, names and output of kpartx, on any disk
 *
 * A map is made for each partition: a linear device-mapper device, named after
 * the disk's device, on it.  Its UUID, "partN-" and what identifies the disk,
 * tells later to which disk it belongs; scripts and udev rules know this form.
 *
 * What differs on purpose: a file that has a loop device keeps it when it is
 * added again, and -d finds it; busy maps are reported, with who has them.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/running.h"
#include "kernel/host.h"

#define SECTOR 512u
/* What stands for "no device-mapper device" in the UUIDs of maps. */
#define PLAIN_UUID "devnode_%u:%u_Wh5pYvM"

struct kpartx {
	char action;		/* l, a, d, u */
	bool verbose, read_only, nosync, gpt;
	const char *delim;	/* NULL: "p" after a digit */
	const char *disk;	/* as given */
	bool plain;
	struct stat st;		/* of the file or device with the bytes */

	/* the device that the maps are on */
	char device[128];
	char name[128];		/* of the maps, before the delimiter */
	unsigned major, minor;
	char uuid[160];		/* what follows "partN-" */
	struct vd_loop loop;	/* if it was made here */
	bool made_loop;

	struct vdisk_parts *parts;	/* owned */
	int status;
};

static const char usage_text[] =
	"Usage: vdisk kpartx -l|-a|-d|-u [-v] [-r] [-s|-n] [-p DELIM] [-g] [-f] DISK\n"
	"Make a block device of each partition of a disk, as kpartx does.\n"
	"\n"
	"  -l   list the maps that -a would make\n"
	"  -a   add them\n"
	"  -d   delete them, and what was made for them\n"
	"  -u   update them: add, change and delete as the table says now\n"
	"  -v   say what is done\n"
	"  -r   read-only maps\n"
	"  -p DELIM   what stands between the disk's name and the number\n"
	"  -s   return when the names are there (the default)\n"
	"  -n   do not wait for that\n"
	"  -g   take a GPT although the protective MBR is not there\n"
	"  -f   accepted, without effect\n"
	"  -h, --help   this help\n"
	"\n"
	"DISK is a file, a block device, or any other disk: for example a qcow2 image or\n"
	"a logical volume in one (guest.qcow2#vg0/data).\n";

/* ---- the partitions ---- */

static bool has_protective_mbr(struct vdisk *disk)
{
	uint8_t sector[SECTOR];

	if (vdisk_read(disk, sector, sizeof(sector), 0) < 0 || load_le16(sector + 510) != 0xaa55)
		return false;
	for (size_t i = 446; i < 510; i += 16)
		if (sector[i + 4] == 0xee)
			return true;
	return false;
}

static int read_parts(struct kpartx *k, const char *locator)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE,
		.format = k->plain ? "raw" : cli.format, .refs = cli.refs,
	};
	struct vdisk_error err = { 0 };

	if (vdisk_open(&disk, locator, &opts, &err) < 0 ||
	    vdisk_parts_read(&k->parts, disk, &err) < 0)
		return cli_fail(&err);
	if (!strcmp(k->parts->scheme, "gpt")) {
		if (!k->gpt && !has_protective_mbr(disk)) {
			cli_note("%s: there is a GPT without a protective MBR; -g takes it",
				 k->disk);
			k->parts->count = 0;
		} else if (!k->parts->primary_ok) {
			cli_note("%s: the primary GPT is damaged, the backup is used", k->disk);
		}
	}
	return CLI_OK;
}

/* Sectors of a map: an extended partition gets room for its boot record only. */
static uint64_t sectors_of(const struct kpartx *k, const struct vdisk_part *p)
{
	return p->extended ? 2 * (k->parts->sector_size / SECTOR) : p->length / SECTOR;
}

static const char *delim_of(const struct kpartx *k)
{
	size_t n = strlen(k->name);

	if (k->delim)
		return k->delim;
	return n && k->name[n - 1] >= '0' && k->name[n - 1] <= '9' ? "p" : "";
}

static void map_name(const struct kpartx *k, unsigned number, char out[300])
{
	snprintf(out, 300, "%s%s%u", k->name, delim_of(k), number);
}

/* The extended partition that a logical one is in; its place among the maps. */
static const struct vdisk_part *container_of_part(const struct kpartx *k, unsigned number,
						  unsigned *place)
{
	unsigned n = 0;

	if (strcmp(k->parts->scheme, "dos") != 0 || number < 5)
		return NULL;
	for (unsigned i = 0; i < k->parts->count; i++) {
		*place = n;
		if (k->parts->part[i].extended && k->parts->part[i].number < 5)
			return &k->parts->part[i];
		n += k->parts->part[i].number < 5;
	}
	return NULL;
}

/* ---- the device ---- */

struct by_dev {
	unsigned major, minor;
	struct vd_dm_device found;
};

static int match_dev(void *arg, const struct vd_dm_device *d)
{
	struct by_dev *b = arg;

	if (d->major != b->major || d->minor != b->minor)
		return 0;
	b->found = *d;
	return 1;
}

/* What identifies the disk in the UUIDs of its maps. */
static void disk_uuid(struct kpartx *k)
{
	struct by_dev b = { .major = k->major, .minor = k->minor };

	snprintf(k->uuid, sizeof(k->uuid), PLAIN_UUID, k->major, k->minor);
	if (vd_dm_available(NULL) == 0 && vd_dm_each(match_dev, &b, NULL) == 1 &&
	    b.found.uuid[0])
		snprintf(k->uuid, sizeof(k->uuid), "%s", b.found.uuid);
}

static void use_loop(struct kpartx *k, int number)
{
	snprintf(k->device, sizeof(k->device), "/dev/loop%d", number);
	snprintf(k->name, sizeof(k->name), "loop%d", number);
	k->major = 7;
	k->minor = (unsigned)number;
}

static void use_device(struct kpartx *k)
{
	const char *name = strrchr(k->disk, '/');

	snprintf(k->device, sizeof(k->device), "%s", k->disk);
	snprintf(k->name, sizeof(k->name), "%s", name ? name + 1 : k->disk);
	k->major = major(k->st.st_rdev);
	k->minor = minor(k->st.st_rdev);
}

static int attach_loop(struct kpartx *k, const char *file)
{
	struct vdisk_error err = { 0 };
	AUTO_CLOSE int fd = open(file, (k->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	AUTO_FREE char *real = realpath(file, NULL);

	if (fd < 0 && !k->read_only && (errno == EROFS || errno == EACCES)) {
		k->read_only = true;
		fd = open(file, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0) {
		cli_error("%s: %m", file);
		return CLI_FAILED;
	}
	if (vd_loop_attach(&k->loop, fd, real ? real : file, 0, 0, 0,
			   k->read_only ? VD_LOOP_READ_ONLY : 0, &err) < 0)
		return cli_fail(&err);
	k->made_loop = true;
	use_loop(k, k->loop.number);
	return CLI_OK;
}

/* A writer that holds the image's lock keeps us off. */
static int check_unused(const char *file)
{
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_WRITE, .format = "raw",
	};
	struct vdisk_error err = { 0 };
	struct vdisk *disk;

	if (access(file, W_OK) < 0)
		return CLI_OK;
	if (vdisk_open(&disk, file, &opts, &err) < 0)
		return cli_fail(&err);
	vdisk_close(disk, NULL);
	return CLI_OK;
}

/* Find the device, or (@make) make one. */
static int find_device(struct kpartx *k, bool make)
{
	AUTO_FREE char *view = NULL;
	const char *file = k->disk;
	int n;

	if (k->plain && S_ISBLK(k->st.st_mode)) {
		use_device(k);
		return CLI_OK;
	}
	if (!k->plain) {
		view = make ? view_start(k->disk, k->read_only) : view_find(k->disk);
		if (make && !view)
			return CLI_FAILED;
		if (view && stat(view, &k->st) < 0) {
			cli_error("%s: %m", view);
			return CLI_FAILED;
		}
		file = view;
	}
	n = file ? vd_loop_of(&k->st, 0) : -1;
	if (n >= 0) {
		use_loop(k, n);
		return CLI_OK;
	}
	if (!make) {
		use_loop(k, vd_loop_next());
		k->loop.number = -1;	/* there is none */
		return CLI_OK;
	}
	if (k->plain && !k->read_only && check_unused(file) != CLI_OK)
		return CLI_FAILED;
	return attach_loop(k, file);
}

/* ---- list, add, delete ---- */

static void list(const struct kpartx *k)
{
	char name[300];

	for (int inner = 0; inner < 2; inner++) {
		for (unsigned i = 0; i < k->parts->count; i++) {
			const struct vdisk_part *p = &k->parts->part[i], *in;
			unsigned place = 0;

			in = container_of_part(k, p->number, &place);
			if (!sectors_of(k, p) || (in != NULL) != (inner == 1))
				continue;
			map_name(k, p->number, name);
			if (in)
				printf("%s : 0 %" PRIu64 " /dev/dm-%u %" PRIu64 "\n", name,
				       sectors_of(k, p), place, (p->offset - in->offset) / SECTOR);
			else
				printf("%s : 0 %" PRIu64 " %s %" PRIu64 "\n", name,
				       sectors_of(k, p), k->device, p->offset / SECTOR);
		}
	}
}

static int fail(struct kpartx *k, const struct vdisk_error *err)
{
	cli_fail(err);
	return k->status = CLI_FAILED;
}

struct wanted {
	const char *name, *uuid;
};

static int name_taken(void *arg, const struct vd_dm_device *d)
{
	const struct wanted *want = arg;

	return !strcmp(d->name, want->name) && strcmp(d->uuid, want->uuid) != 0;
}

static void add_one(struct kpartx *k, const struct vdisk_part *p)
{
	struct vd_dm_segment s = { .length = sectors_of(k, p), .target = "linear" };
	struct vd_dm_device d = { 0 };
	struct vdisk_error err = { 0 };
	char name[300], uuid[200];
	struct wanted want = { .name = name, .uuid = uuid };

	if (!s.length)
		return;
	map_name(k, p->number, name);
	snprintf(uuid, sizeof(uuid), "part%u-%s", p->number, k->uuid);
	snprintf(s.params, sizeof(s.params), "%u:%u %" PRIu64, k->major, k->minor,
		 p->offset / SECTOR);
	if (vd_dm_each(name_taken, &want, &err)) {
		cli_error("%s: a device of that name belongs to another disk", name);
		k->status = CLI_FAILED;
		return;
	}
	if (vd_dm_set(&d, name, uuid, &s, 1, k->read_only, !k->nosync, &err) < 0)
		fail(k, &err);
	else if (k->verbose)
		printf("add map %s (%u:%u): 0 %" PRIu64 " linear %s\n", name, d.major, d.minor,
		       s.length, s.params);
}

struct doomed {
	struct kpartx *k;
	bool keep_current;	/* only what the table no longer has */
	struct vd_dm_device *v;	/* owned */
	size_t n;
};

/* Is it one of the maps of this disk? */
static int collect(void *arg, const struct vd_dm_device *d)
{
	struct doomed *c = arg;
	struct kpartx *k = c->k;
	struct vd_dm_device *v;
	unsigned number = 0;
	int used = 0;

	if (sscanf(d->uuid, "part%u-%n", &number, &used) != 1 || !used ||
	    strcmp(d->uuid + used, k->uuid) != 0 ||
	    !vd_dm_is_linear_on(d->name, k->major, k->minor))
		return 0;
	for (unsigned i = 0; c->keep_current && i < k->parts->count; i++)
		if (k->parts->part[i].number == number && sectors_of(k, &k->parts->part[i]))
			return 0;
	v = reallocarray(c->v, c->n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	c->v = v;
	v[c->n++] = *d;
	return 0;
}

static void delete_maps(struct kpartx *k, bool keep_current)
{
	struct doomed c = { .k = k, .keep_current = keep_current };
	struct vdisk_error err = { 0 };

	if (vd_dm_each(collect, &c, &err) < 0)
		fail(k, &err);
	for (size_t i = 0; i < c.n; i++) {
		if (vd_dm_remove(c.v[i].name, VD_DM_RETRY | (k->nosync ? VD_DM_NOWAIT : 0),
				 &err) < 0)
			fail(k, &err);
		else if (k->verbose)
			printf("del devmap : %s\n", c.v[i].name);
	}
	free(c.v);
}

static int kpartx_list(struct kpartx *k)
{
	if (read_parts(k, k->disk) != CLI_OK || find_device(k, false) != CLI_OK)
		return CLI_FAILED;
	list(k);
	return CLI_OK;
}

static int kpartx_add(struct kpartx *k)
{
	struct vdisk_error err = { 0 };

	if (vd_dm_available(&err) < 0)
		return cli_fail(&err);
	if (read_parts(k, k->disk) != CLI_OK || find_device(k, true) != CLI_OK)
		return CLI_FAILED;
	disk_uuid(k);
	for (unsigned i = 0; i < k->parts->count; i++)
		add_one(k, &k->parts->part[i]);
	if (k->action == 'u')
		delete_maps(k, true);
	if (k->made_loop)
		close(k->loop.fd);
	return k->status;
}

static int kpartx_delete(struct kpartx *k)
{
	struct vdisk_error err = { 0 };

	if (vd_dm_available(&err) < 0)
		return cli_fail(&err);
	k->loop.number = 0;
	if (find_device(k, false) != CLI_OK)
		return CLI_FAILED;
	if (k->loop.number < 0)		/* nothing is there */
		return k->plain ? CLI_OK : view_stop(k->disk);
	disk_uuid(k);
	delete_maps(k, false);
	if (k->status != CLI_OK || (k->plain && S_ISBLK(k->st.st_mode)))
		return k->status;
	if (vd_loop_detach((int)k->minor, &err) < 0)
		return fail(k, &err);
	if (k->verbose)
		printf("loop deleted : %s\n", k->device);
	return k->plain ? CLI_OK : view_stop(k->disk);
}

static NORETURN void usage(void)
{
	fputs(usage_text, stderr);
	exit(1);	/* as kpartx has it */
}

static void parse(struct kpartx *k, int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	cli.name = argv[0] = (char *)(uintptr_t)"vdisk kpartx";
	while ((c = getopt_long(argc, argv, "ladurvsnfghp:", options, NULL)) != -1) {
		switch (c) {
		case 'l': case 'a': case 'd': case 'u':
			k->action = (char)c;
			break;
		case 'v':
			k->verbose = true;
			break;
		case 'r':
			k->read_only = true;
			break;
		case 'n':
			k->nosync = true;
			break;
		case 's':
			k->nosync = false;
			break;
		case 'g':
			k->gpt = true;
			break;
		case 'f':
			break;
		case 'p':
			k->delim = optarg;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(fflush(stdout) == 0 ? CLI_OK : CLI_FAILED);
		default:
			usage();
		}
	}
	if (optind >= argc)
		usage();
	k->disk = argv[optind];
	if (!k->action)
		k->action = 'l';
}

int cmd_kpartx(int argc, char **argv)
{
	struct kpartx k = { 0 };
	struct vdisk_locator loc = { 0 };
	struct vdisk_error err = { 0 };
	int status;

	parse(&k, argc, argv);
	if (vdisk_locator_parse(&loc, k.disk, &err) < 0)
		return cli_fail(&err);
	if (stat(loc.source, &k.st) < 0) {
		cli_error("%s: %m", loc.source);
		vdisk_locator_clear(&loc);
		return CLI_FAILED;
	}
	vdisk_locator_clear(&loc);
	if (!S_ISREG(k.st.st_mode) && !S_ISBLK(k.st.st_mode)) {
		cli_error("%s: neither a file nor a block device", k.disk);
		return CLI_FAILED;
	}
	k.plain = host_is_plain(k.disk, &k.st);
	running_sweep();
	status = k.action == 'l' ? kpartx_list(&k) :
		 k.action == 'd' ? kpartx_delete(&k) : kpartx_add(&k);
	free(k.parts);
	return status;
}
