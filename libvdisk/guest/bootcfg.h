/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bootcfg.h - boot configurations as pure functions over a few files
 *
 * The evaluators (grub.c, loader.c, syslinux.c, grub_legacy.c, newest.c) see a guest
 * through struct boot_env: numbered volumes, and files in them.  They neither open disks nor
 * print; the tests and the fuzzer give them a table of files.  Their results
 * live in the arena of the struct boot_menu.
 */
#ifndef VD_GUEST_BOOTCFG_H
#define VD_GUEST_BOOTCFG_H

#include "core/driver.h"
#include "guest/arena.h"

enum {
	BOOT_CONFIG_MAX = 1 << 20,	/* bytes of one configuration file */
	BOOT_CMDLINE_MAX = 2047,	/* what x86 kernels take */
	BOOT_ENTRIES_MAX = 512,
	BOOT_FALLBACKS_MAX = 8,
	BOOT_MEMORY_MAX = 64 << 20,	/* for one evaluation */
};

struct boot_volume {
	unsigned number;	/* of the partition; 0: none */
	char name[264];		/* in a locator: "p1", "vg0/root"; "": the whole disk */
	char lvm[264];		/* "vg0-root", as below /dev/mapper; "" unless a logical volume */
	char lvmid[80];		/* "VG-UUID/LV-UUID" of that, as LVM writes them */
	char uuid[64];		/* of the file system; "" unknown */
	char label[256];
	char type[32];		/* "ext4" */
	char part_uuid[40];
};

struct boot_env {
	void *arg;
	const struct boot_volume *volumes;
	unsigned n_volumes;
	/* A regular file with a NUL behind it, malloc()ed.  -ENOENT, -EFBIG ... */
	int (*load)(void *arg, unsigned volume, const char *path, size_t max, void **data,
		    size_t *len);
	/* 0 for a regular file, 1 for a directory, -ENOENT. */
	int (*stat)(void *arg, unsigned volume, const char *path, uint64_t *size);
	int (*list)(void *arg, unsigned volume, const char *path,
		    void (*each)(void *ctx, const char *name), void *ctx);
	/* Bytes of a regular file from @off on, at most @len: how many, or -errno. */
	ssize_t (*read)(void *arg, unsigned volume, const char *path, uint64_t off, void *buf,
			size_t len);
};

struct boot_file {
	unsigned volume;
	const char *path;	/* NULL: none */
	uint64_t off, len;	/* a part of the file; len 0: all of it */
};

struct boot_entry {
	const char *title;	/* with the submenus that it is in: "a>b" */
	const char *number;	/* "1>0" */
	const char *id;		/* "" if none */
	struct boot_file kernel; /* path NULL: boots something that is not Linux */
	struct boot_file *initrd;
	unsigned n_initrd;
	const char *cmdline;
};

struct boot_menu {
	struct arena arena;	/* owns everything here */
	struct boot_entry *entries; /* in the order of the menu, submenus flat */
	unsigned n_entries;
	unsigned cap_entries;
	int chosen;		/* index; -1: none */
	int fallback[BOOT_FALLBACKS_MAX]; /* indices, for a chosen entry without a kernel */
	unsigned n_fallback;
	const char *source;	/* for people: what the menu was found in */
	const char *why_not;	/* for people: why a better source was not used; or NULL */
};

/* ---- everything that may boot, best source first: menu.c ---- */

struct boot_wish {
	const char *entry;	/* number, title or id; NULL: the configuration's own default */
	bool recovery;		/* the entry that recovers the system, if the menu has one */
};

/*
 * Read the guest's boot menu.  -ENOENT if nothing boots; -ENOENT with a
 * message for an entry that is not in the menu.  Free @out with boot_menu_free().
 */
int boot_menu_read(struct boot_menu *out, const struct boot_env *env, const struct boot_wish *wish,
		   struct vdisk_error *err);
void boot_menu_free(struct boot_menu *menu);
/* Does the command line ask for a repair shell? */
bool boot_is_recovery(const char *cmdline);

/* ---- between the evaluators ---- */

/*
 * A family of configurations: reads @path on @volume, with @selector (NULL:
 * its own default) sets menu->chosen.  0 or -errno; may stop the menu's arena.
 */
typedef int boot_menu_fn(struct boot_menu *menu, const struct boot_env *env, unsigned volume,
			 const char *path, const char *selector);
boot_menu_fn grub_menu, loader_menu, syslinux_menu, legacy_menu;
int newest_menu(struct boot_menu *menu, const struct boot_env *env, const char *selector);

/* Entries of a Boot Loader Specification directory, newest first. */
struct bls_entry {
	struct boot_entry boot;	/* title without submenus, ->number NULL */
	const char *sort_key, *machine_id, *version; /* "" if not there */
	int tries_left;		/* -1: not counted */
};
struct bls_entries {
	struct bls_entry *entry;
	unsigned n, cap;
};
/* @expand replaces $name in what may have it; the copy is in the arena. */
int bls_read(struct bls_entries *out, struct arena *a, const struct boot_env *env,
	     unsigned volume, const char *dir,
	     const char *(*expand)(void *ctx, const char *text), void *ctx);

/*
 * A unified kernel image: fill in kernel, initrds, and, where they are still
 * empty, title, version and command line.  0; -EMEDIUMTYPE if the file is a PE program
 * without a kernel in it, or none at all.
 */
int uki_read(struct bls_entry *e, struct arena *a, const struct boot_env *env,
	     struct boot_file file);

/*
 * A tree of titles for selectors ("0", "title", "id", "1>0"), as GRUB reads
 * them.  ->entry is the index in the flat menu, -1 for a submenu.
 */
struct boot_item {
	const char *title, *id;
	int entry;
	struct boot_item *child; /* the first one */
	struct boot_item *next;
};
/* The entry's index, -1 if there is none. */
int boot_select(const struct boot_item *first, const char *selector);
/* The same for a menu without submenus. */
int boot_select_flat(struct boot_menu *menu, const char *selector);

struct boot_entry *boot_menu_add(struct boot_menu *menu);

/* Compare versions as rpm does: runs of digits and of letters; ~ sorts before the end. */
int version_cmp(const char *a, const char *b);

/* The volume with the system on it, -1 if there is none. */
int boot_find_root(const struct boot_env *env);
/* The version in a kernel's file name ("vmlinuz-6.1"); NULL if there is none. */
const char *boot_kernel_version(const char *name);
/* Where "/" comes from in an fstab: the first field in the arena, or NULL. */
const char *fstab_root(struct arena *a, const char *fstab);
/* The value of "root=" for a guest whose root file system is on @volume. */
const char *boot_root_arg(struct arena *a, const struct boot_env *env, unsigned volume,
			  bool has_initrd);

/*
 * The next line of @text that is neither empty nor a comment: its first word
 * and the rest, without the spaces around, in the arena.  @separators end the word.
 */
struct boot_line {
	char *key, *value;	/* value "" if there is no more */
};
bool boot_next_line(struct boot_line *out, struct arena *a, const char **text,
		    const char *separators);
/* The next word of @text, in the arena, and @text behind it; NULL: no more. */
char *boot_next_word(struct arena *a, const char **text, const char *separators);

/* Load a text into the arena; NULL if it is not there or not readable. */
char *boot_load_text(struct arena *a, const struct boot_env *env, unsigned volume,
		     const char *path, size_t *len);
/* The names in a directory that @wanted wants, at most BOOT_ENTRIES_MAX, in the
 * arena; how many, or -errno. */
int boot_list(struct arena *a, const struct boot_env *env, unsigned volume, const char *dir,
	      bool (*wanted)(const char *name), const char ***names);
/* Clean text for a terminal in place: no controls, no broken UTF-8. */
void boot_clean_text(char *text, size_t size);
bool boot_is_file(const struct boot_env *env, unsigned volume, const char *path);

#endif
