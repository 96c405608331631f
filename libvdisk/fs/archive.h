/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive.h - libarchive, as far as tar.c uses it, loaded when it does */
#ifndef VD_ARCHIVE_H
#define VD_ARCHIVE_H

#include <archive.h>
#include <archive_entry.h>

#include "vdisk.h"

#define VD_ARCHIVE_FUNCTIONS(F) \
	F(entry_acl_add_entry) F(entry_acl_next) F(entry_acl_reset) F(entry_atime) \
	F(entry_atime_is_set) F(entry_atime_nsec) F(entry_birthtime) \
	F(entry_birthtime_is_set) F(entry_birthtime_nsec) F(entry_copy_hardlink) \
	F(entry_copy_pathname) F(entry_copy_symlink) F(entry_free) F(entry_gid) \
	F(entry_hardlink) F(entry_hardlink_utf8) F(entry_mode) F(entry_mtime) \
	F(entry_mtime_is_set) F(entry_mtime_nsec) F(entry_new) F(entry_pathname) \
	F(entry_pathname_utf8) F(entry_rdevmajor) F(entry_rdevminor) F(entry_set_gid) \
	F(entry_set_mode) F(entry_set_mtime) F(entry_set_nlink) F(entry_set_rdevmajor) \
	F(entry_set_rdevminor) F(entry_set_size) F(entry_set_uid) F(entry_size) \
	F(entry_sparse_add_entry) F(entry_symlink) F(entry_symlink_utf8) F(entry_uid) \
	F(entry_xattr_add_entry) F(entry_xattr_next) F(entry_xattr_reset) \
	F(error_string) F(read_data_block) F(read_free) F(read_new) F(read_next_header) \
	F(read_open_fd) F(read_support_filter_all) F(read_support_format_empty) \
	F(read_support_format_tar) F(write_close) F(write_data) F(write_fail) \
	F(write_free) F(write_header) F(write_new) F(write_open_fd) \
	F(write_set_format_pax) F(write_set_options)

struct vd_archive {
#define VD_ARCHIVE_MEMBER(f) __typeof__(archive_##f) *(f);
	VD_ARCHIVE_FUNCTIONS(VD_ARCHIVE_MEMBER)
	__typeof__(archive_errno) *error_number;	/* errno is a macro */
#undef VD_ARCHIVE_MEMBER
};

/* Nothing of it before vd_archive_load() returned 0; any thread. */
extern struct vd_archive vd_la;

int vd_archive_load(struct vdisk_error *err);

#endif
