/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * words.h - what people write of a guest, from text to checked values
 *
 * The launcher (vdisk boot, its files) and the monitors read the same words, and
 * refuse the same ones, before anything is opened.  Pure functions: 0 or -EINVAL,
 * and what would be right is said in words_..._help.
 */
#ifndef VMM_WORDS_H
#define VMM_WORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "vdisk.h"
#include "vmm-lite/virtio/limiter.h"

#define TIME_LIMIT_MAX		1000000u	/* seconds */
#define CPUS_MAX		64u
#define MEMORY_MIN		(UINT64_C(32) << 20)
#define MEMORY_MAX		(UINT64_C(1) << 40)
#define SERIAL_BYTES		20u

/* "512": MiB; or with K, M, G.  In whole MiB. */
int words_memory(const char *text, uint64_t *out);
#define words_memory_help	"32 MiB to 1 TiB, in whole MiB: 512, 2G"

/* A number, and nothing else, in these bounds. */
int words_number(const char *text, unsigned min, unsigned max, unsigned *out);
#define words_cpus_help		"1 to 64 processors"

enum cache_mode { CACHE_WRITEBACK, CACHE_WRITETHROUGH, CACHE_NONE, CACHE_UNSAFE };

int words_cache(const char *text, enum cache_mode *out);
/* Its name, a constant. */
const char *words_cache_name(enum cache_mode mode);
#define words_cache_help	"writeback, writethrough, none or unsafe"

/* Which other files an image may name.  Its name is a constant; NULL for the default. */
int words_refs(const char *text, enum vdisk_refs *out);
const char *words_refs_name(enum vdisk_refs refs);
#define words_refs_help		"none, dir or any"

/*
 * "bytes=10M,ops=500,burst=200": any of them, sizes with K, M, G; burst in
 * milliseconds.  "none": no limits.
 */
int words_limits(const char *text, struct blk_limits *out);
#define words_limits_help	"bytes=SIZE,ops=N,burst=MS or none"
#define LIMITS_TEXT_MAX		96u
/* The same as text. */
void words_format_limits(char out[LIMITS_TEXT_MAX], const struct blk_limits *l);

/* Up to 20 characters that can be printed, no blanks. */
bool words_serial_ok(const char *text);
#define words_serial_help	"up to 20 printable characters, no blanks"

int words_block_size(const char *text, uint32_t *out);
#define words_block_size_help	"512 or 4096"

/* What follows when a guest ends in one way. */
struct end_action {
	bool reset;		/* it is started again */
	int code;		/* else the exit status; -1: the one of this ending */
};
int words_end(const char *text, struct end_action *out);
#define words_end_help		"reset, exit or exit:N (0 to 255)"

#define DISK_FILES_MAX		64u	/* that a disk consists of */
/* "N=NAME": an open descriptor and the name of its file; cut apart in place. */
int words_file(char *text, struct vdisk_open_file *out);
#define words_file_help		"N=NAME"

/* xx:xx:xx:xx:xx:xx, of one card: no multicast address. */
int words_mac(const char *text, uint8_t out[6]);
#define words_mac_help		"xx:xx:xx:xx:xx:xx of a single card"

/* A network card, of the launcher's --net. */
struct net_words {
	enum { NET_USER, NET_TAP, NET_BRIDGE } kind;
	char dev[16];		/* of the last two */
	bool has_mac;
	uint8_t mac[6];
};
int words_net(const char *text, struct net_words *out);
#define words_net_help		"user, tap:DEV or bridge:DEV, with ,mac=ADDRESS"

#endif
