/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unpack.c - a compressed file as it is inside
 *
 * Of libarchive's filters only those that work in this process; the result is
 * an unnamed file in memory, so that what reads kernels reads this too.
 *
 * The library is loaded on demand: with all that it brings it is larger than
 * the rest of the program, and few kernels need it.
 */
#include "vmm-lite/kvm/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/driver.h"
#include "core/late.h"

#define CHUNK	65536u

/* libarchive's functions, by their names without archive_. */
static struct {
	__typeof__(archive_read_new) *read_new;
	__typeof__(archive_read_free) *read_free;
	__typeof__(archive_read_open) *read_open;
	__typeof__(archive_read_next_header) *read_next_header;
	__typeof__(archive_read_data) *read_data;
	__typeof__(archive_error_string) *error_string;
	__typeof__(archive_set_error) *set_error;
	__typeof__(archive_read_support_filter_gzip) *read_support_filter_gzip;
	__typeof__(archive_read_support_filter_bzip2) *read_support_filter_bzip2;
	__typeof__(archive_read_support_filter_xz) *read_support_filter_xz;
	__typeof__(archive_read_support_filter_lzma) *read_support_filter_lzma;
	__typeof__(archive_read_support_filter_lz4) *read_support_filter_lz4;
	__typeof__(archive_read_support_filter_zstd) *read_support_filter_zstd;
	__typeof__(archive_read_support_format_raw) *read_support_format_raw;
} lib;

struct input {
	int fd;
	uint64_t off, end;
	uint8_t buf[CHUNK];
};

bool unpack_knows(const uint8_t *head, size_t len)
{
	static const struct {
		uint8_t n, bytes[6];
	} magic[] = {
		{ 2, { 0x1f, 0x8b } },				/* gzip */
		{ 3, { 'B', 'Z', 'h' } },			/* bzip2 */
		{ 6, { 0xfd, '7', 'z', 'X', 'Z', 0 } },		/* xz */
		{ 3, { 0x5d, 0, 0 } },				/* lzma */
		{ 4, { 0x02, 0x21, 0x4c, 0x18 } },		/* lz4, as the kernel uses it */
		{ 4, { 0x04, 0x22, 0x4d, 0x18 } },		/* lz4, as the program writes it */
		{ 4, { 0x28, 0xb5, 0x2f, 0xfd } },		/* zstd */
	};

	for (size_t i = 0; i < ARRAY_SIZE(magic); i++)
		if (len >= magic[i].n && !memcmp(head, magic[i].bytes, magic[i].n))
			return true;
	return false;
}

static la_ssize_t read_input(struct archive *a, void *arg, const void **buf)
{
	struct input *in = arg;
	size_t want = (size_t)MIN(in->end - in->off, (uint64_t)CHUNK);
	ssize_t n;

	do {
		n = want ? pread(in->fd, in->buf, want, (off_t)in->off) : 0;
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		lib.set_error(a, errno, "%s", strerror(errno));
	else
		in->off += (uint64_t)n;
	*buf = in->buf;
	return n;
}

static int copy_out(struct archive *a, int fd, uint64_t max, struct vdisk_error *err)
{
	static uint8_t buf[CHUNK];	/* one caller at a time: there is one guest */
	uint64_t done = 0;

	for (;;) {
		la_ssize_t n = lib.read_data(a, buf, sizeof(buf));
		size_t put = 0;

		if (n == 0)
			return 0;
		if (n < 0)
			return vd_fail(err, EINVAL, "kernel: cannot decompress it: %s",
				       lib.error_string(a));
		done += (uint64_t)n;
		if (done > max)
			return vd_fail(err, EFBIG, "kernel: larger than %" PRIu64
				       " MiB when decompressed", max >> 20);
		while (put < (size_t)n) {
			ssize_t w = write(fd, buf + put, (size_t)n - put);

			if (w < 0 && errno != EINTR)
				return vd_fail(err, errno, "kernel: cannot decompress it: %m");
			put += w > 0 ? (size_t)w : 0;
		}
	}
}

static int support(struct archive *a)
{
	int r = lib.read_support_filter_gzip(a);

	/* one that would run a program says ARCHIVE_WARN; none of these should */
	r = MIN(r, lib.read_support_filter_bzip2(a));
	r = MIN(r, lib.read_support_filter_xz(a));
	r = MIN(r, lib.read_support_filter_lzma(a));
	r = MIN(r, lib.read_support_filter_lz4(a));
	r = MIN(r, lib.read_support_filter_zstd(a));
	return MIN(r, lib.read_support_format_raw(a));
}

int unpack_prepare(struct vdisk_error *err)
{
#define SYMBOL(name) { "archive_" #name, offsetof(__typeof__(lib), name) }
	static const struct vd_late_symbol symbols[] = {
		SYMBOL(read_new), SYMBOL(read_free), SYMBOL(read_open), SYMBOL(read_next_header),
		SYMBOL(read_data), SYMBOL(error_string), SYMBOL(set_error),
		SYMBOL(read_support_filter_gzip), SYMBOL(read_support_filter_bzip2),
		SYMBOL(read_support_filter_xz), SYMBOL(read_support_filter_lzma),
		SYMBOL(read_support_filter_lz4), SYMBOL(read_support_filter_zstd),
		SYMBOL(read_support_format_raw),
	};
#undef SYMBOL
	int r = vd_late_load("libarchive.so.13", symbols, ARRAY_SIZE(symbols), &lib, err);

	return r < 0 ? vd_fail_prefix(err, r, "kernel: to decompress it") : 0;
}

int unpack(int *out_fd, int fd, uint64_t off, uint64_t len, uint64_t max,
	   struct vdisk_error *err)
{
	struct input *in = malloc(sizeof(*in));
	struct archive *a = lib.read_new();
	struct archive_entry *entry;
	AUTO_CLOSE int memory = memfd_create("kernel", MFD_CLOEXEC);
	int r;

	if (memory < 0 || !in || !a) {
		r = vd_fail(err, ENOMEM, "kernel: no memory to decompress it");
	} else {
		in->fd = fd;
		in->off = off;
		in->end = off + len;
		r = support(a) != ARCHIVE_OK || lib.read_open(a, in, NULL, read_input, NULL) ||
		    lib.read_next_header(a, &entry) ?
		    vd_fail(err, EINVAL, "kernel: cannot decompress it: %s",
			    lib.error_string(a)) : copy_out(a, memory, max, err);
	}
	lib.read_free(a);
	free(in);
	if (!r)
		*out_fd = STEAL_FD(memory);
	return r;
}
