/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* commands.h - the commands in main.c's table, one line each, by their files */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

/* images */
int cmd_bench(int argc, char **argv);
int cmd_amend(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_commit(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_map(int argc, char **argv);
int cmd_measure(int argc, char **argv);
int cmd_rebase(int argc, char **argv);
int cmd_resize(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);

/* partitions and volumes */
int cmd_part(int argc, char **argv);
int cmd_parts(int argc, char **argv);


/* volumes */
int cmd_fsck(int argc, char **argv);
int cmd_label(int argc, char **argv);
int cmd_trim(int argc, char **argv);
int cmd_mkfs(int argc, char **argv);
int cmd_rename(int argc, char **argv);
int cmd_uuid(int argc, char **argv);

/* files */
int cmd_inspect(int argc, char **argv);

/* volumes */

/* files */
int cmd_cat(int argc, char **argv);
int cmd_chmod(int argc, char **argv);
int cmd_chown(int argc, char **argv);
int cmd_cp(int argc, char **argv);
int cmd_edit(int argc, char **argv);
int cmd_df(int argc, char **argv);
int cmd_ln(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_mkdir(int argc, char **argv);
int cmd_mv(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_tar(int argc, char **argv);
int cmd_untar(int argc, char **argv);

/* this host */
int cmd_attach(int argc, char **argv);
int cmd_attached(int argc, char **argv);
int cmd_detach(int argc, char **argv);
int cmd_kpartx(int argc, char **argv);
int cmd_mount(int argc, char **argv);
int cmd_umount(int argc, char **argv);

/* serving and running */
int cmd_boot(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_try(int argc, char **argv);
int cmd_vm(int argc, char **argv);

#endif
