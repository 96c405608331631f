PROGS += vdisk
vdisk_SRCS := \
 cli/main.c \
 cli/common.c \
 cli/bench.c \
 cli/create.c \
 cli/export.c \
 cli/info.c \
 cli/check.c \
 cli/convert.c \
 cli/map.c \
 cli/snapshot.c \
 cli/chain.c \
 cli/sibling.c \
 cli/boot.c \
 cli/boot_menu.c \
 cli/guest.c \
 cli/guest_net.c \
 cli/vmfile.c \
 cli/vmfile_xen.c \
 cli/disk_words.c \
 vmm-lite/words.c \
 cli/try.c \
 cli/try_guest.c \
 cli/guest_args.c \
 cli/engine_kvm.c \
 cli/monitor.c \
 cli/vm.c \
 cli/vm_dir.c \
 cli/engine_uml.c \
 cli/uml_initramfs.c \
 cli/inspect.c \
 cli/parts.c \
 cli/parts_lvm.c \
 cli/part.c \
 cli/part_change.c \
 cli/part_table.c
vdisk_SRCS += \
 cli/files.c \
 cli/kernel_fs.c \
 cli/export_fuse.c \
 cli/cp.c \
 cli/tree_guest.c \
 cli/tree_host.c \
 cli/view.c \
 cli/mkfs.c \
 cli/label.c \
 cli/clone.c \
 cli/replace.c \
 cli/rewrite.c \
 cli/rename.c \
 cli/edit.c \
 cli/trim.c \
 cli/ls.c \
 cli/names.c \
 cli/tar.c \
 cli/df.c \
 cli/mount.c \
 cli/steady.c \
 cli/system.c \
 cli/mount_plan.c \
 cli/mount_kernel.c \
 cli/kpartx.c \
 cli/host_view.c \
 cli/attach.c \
 cli/host_disk.c \
 cli/running.c
vdisk_PKGS := jansson smartcols
