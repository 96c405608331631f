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
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "cli/attached.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/running.h"
#include "cli/steady.h"
#include "part/part.h"

#define SECTOR 512u

struct kpartx {
	char action;		/* l, a, d, u */
	bool verbose, read_only, nosync, gpt, raw;
	const char *delim;	/* NULL: "p" after a digit */
	struct host_disk disk;
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

/* With -g a GPT behind an MBR that does not protect it counts, too. */
static void force_gpt(struct kpartx *k, struct vdisk *disk)
{
	struct vdisk_parts *gpt = NULL;

	if (part_gpt_read(&gpt, disk, NULL) < 0 || strcmp(gpt->scheme, "gpt") != 0) {
		free(gpt);
		return;
	}
	free(k->parts);
	k->parts = gpt;
}

static int read_parts(struct kpartx *k)
{
	AUTO_DISK struct vdisk *disk = NULL;
	struct vdisk_open_opts opts = {
		.size = sizeof(opts), .flags = VDISK_OPEN_SHARE,
		.format = k->raw ? "raw" : cli.format, .refs = cli.refs,
	};
	struct vdisk_error err = { 0 };

	/* the cache of a device with maps on it may be older than what lies below */
	if (k->raw && S_ISBLK(k->disk.st.st_mode))
		opts.flags |= VDISK_OPEN_DIRECT;
	if (vdisk_open(&disk, k->disk.locator, &opts, &err) < 0 ||
	    vdisk_parts_read(&k->parts, disk, &err) < 0)
		return cli_fail(&err);
	if (k->gpt && strcmp(k->parts->scheme, "gpt") != 0)
		force_gpt(k, disk);
	if (!strcmp(k->parts->scheme, "gpt")) {
		if (!k->gpt && !has_protective_mbr(disk)) {
			cli_note("%s: there is a GPT without a protective MBR; -g takes it",
				 k->disk.locator);
			k->parts->count = 0;
		} else if (!k->parts->primary_ok) {
			cli_note("%s: the primary GPT is damaged, the backup is used",
				 k->disk.locator);
		}
	}
	return CLI_OK;
}

/* Sectors of a map: an extended partition gets room for its boot record only. */
static uint64_t sectors_of(const struct kpartx *k, const struct vdisk_part *p)
{
	return p->extended ? MAX(2u, k->parts->sector_size / SECTOR) : p->length / SECTOR;
}

static void map_name(const struct kpartx *k, unsigned number, char out[300])
{
	snprintf(out, 300, "%s%s%u", k->disk.name,
		 k->delim ? k->delim : host_delimiter(&k->disk), number);
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
				       sectors_of(k, p), k->disk.device, p->offset / SECTOR);
		}
	}
}

static void add_one(struct kpartx *k, const struct vdisk_part *p)
{
	struct vd_dm_segment s = { .length = sectors_of(k, p), .target = "linear" };
	struct vd_dm_device d = { 0 };
	char name[300], id[32];

	if (!s.length)
		return;
	map_name(k, p->number, name);
	snprintf(id, sizeof(id), "part%u", p->number);
	snprintf(s.params, sizeof(s.params), "%u:%u %" PRIu64, k->disk.major, k->disk.minor,
		 p->offset / SECTOR);
	if (host_map_set(&d, &k->disk, name, id, &s, 1, k->read_only, !k->nosync) != CLI_OK)
		k->status = CLI_FAILED;
	else if (k->verbose)
		printf("add map %s (%u:%u): 0 %" PRIu64 " linear %s\n", name, d.major, d.minor,
		       s.length, s.params);
}

/* Delete a map, unless (-u) the table still has its partition. */
static int delete_one(void *arg, const struct vd_dm_device *d)
{
	struct kpartx *k = arg;
	struct vdisk_error err = { 0 };
	unsigned number = 0;

	if (sscanf(d->uuid, "part%u-", &number) == 1 && k->action == 'u')
		for (unsigned i = 0; i < k->parts->count; i++)
			if (k->parts->part[i].number == number && sectors_of(k, &k->parts->part[i]))
				return 0;
	if (vd_dm_remove(d->name, VD_DM_RETRY | (k->nosync ? VD_DM_NOWAIT : 0), &err) < 0)
		k->status = cli_fail(&err);
	else if (k->verbose)
		printf("del devmap : %s\n", d->name);
	return 0;
}

static int kpartx_list(struct kpartx *k)
{
	if (read_parts(k) != CLI_OK)
		return CLI_FAILED;
	if (!host_disk_find(&k->disk))
		host_disk_guess(&k->disk);
	list(k);
	return CLI_OK;
}

static int kpartx_add(struct kpartx *k)
{
	struct vdisk_error err = { 0 };

	if (vd_dm_available(&err) < 0)
		return cli_fail(&err);
	/* of a file that somebody writes, the maps are on a view of a snapshot */
	if (k->read_only && k->disk.plain && S_ISREG(k->disk.st.st_mode) &&
	    steady_needed(k->disk.locator))
		k->disk.plain = false;
	if (read_parts(k) != CLI_OK || host_disk_make(&k->disk, k->read_only, false) != CLI_OK)
		return CLI_FAILED;
	vd_dm_hold();
	for (unsigned i = 0; i < k->parts->count; i++)
		add_one(k, &k->parts->part[i]);
	if (k->action == 'u' && host_each_map(&k->disk, delete_one, k) < 0)
		k->status = CLI_FAILED;
	vd_dm_settle();
	return k->status;
}

static int kpartx_delete(struct kpartx *k)
{
	struct vdisk_error err = { 0 };

	if (vd_dm_available(&err) < 0)
		return cli_fail(&err);
	vd_dm_hold();
	if (host_disk_find(&k->disk) && host_each_map(&k->disk, delete_one, k) < 0)
		k->status = CLI_FAILED;
	vd_dm_settle();
	return k->status == CLI_OK ? host_disk_drop(&k->disk, k->verbose) : k->status;
}

static NORETURN void usage(void)
{
	fputs(usage_text, stderr);
	exit(1);	/* as kpartx has it */
}

static const char *parse(struct kpartx *k, int argc, char **argv)
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
	if (!k->action)
		k->action = 'l';
	return argv[optind];
}

int cmd_kpartx(int argc, char **argv)
{
	struct kpartx k = { 0 };
	const char *locator = parse(&k, argc, argv);
	int status;

	if (host_disk_open(&k.disk, locator) != CLI_OK)
		return CLI_FAILED;
	k.raw = k.disk.plain;
	running_sweep();
	status = k.action == 'l' ? kpartx_list(&k) :
		 k.action == 'd' ? kpartx_delete(&k) : kpartx_add(&k);
	free(k.parts);
	return status;
}
