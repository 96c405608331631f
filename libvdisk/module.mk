LIB_SRCS += \
 libvdisk/core/error.c \
 libvdisk/core/disk.c \
 libvdisk/core/io.c \
 libvdisk/core/pool.c \
 libvdisk/core/queue.c \
 libvdisk/core/locator.c \
 libvdisk/core/lock.c \
 libvdisk/core/control.c \
 libvdisk/core/copy.c \
 libvdisk/core/range.c \
 libvdisk/core/measure.c \
 libvdisk/core/window.c \
 libvdisk/core/overlay.c \
 libvdisk/source/file.c \
 libvdisk/source/iscsi.c \
 libvdisk/source/iscsi_address.c \
 libvdisk/source/iscsi_answers.c \
 libvdisk/source/iscsi_session.c \
 libvdisk/part/parts.c \
 libvdisk/part/mbr.c \
 libvdisk/part/gpt.c \
 libvdisk/part/types.c \
 libvdisk/part/edit.c \
 libvdisk/part/change.c \
 libvdisk/part/repair.c \
 libvdisk/fs/probe.c \
 libvdisk/fs/fat.c \
 libvdisk/fs/fat_dir.c \
 libvdisk/fs/fat_table.c \
 libvdisk/fs/fat_name.c \
 libvdisk/fs/fat_write.c
LIB_SRCS += \
 libvdisk/lvm/label.c \
 libvdisk/lvm/config.c \
 libvdisk/lvm/group.c \
 libvdisk/lvm/scan.c \
 libvdisk/lvm/edit.c \
 libvdisk/lvm/write.c \
 libvdisk/lvm/volume.c \
 libvdisk/part/volumes.c
LIB_SRCS += \
 libvdisk/guest/arena.c \
 libvdisk/guest/version.c \
 libvdisk/guest/grub_script.c \
 libvdisk/guest/grub.c \
 libvdisk/guest/grub_vars.c \
 libvdisk/guest/grub_test.c \
 libvdisk/guest/grub_places.c \
 libvdisk/guest/grub_load.c \
 libvdisk/guest/grub_items.c \
 libvdisk/guest/bls.c \
 libvdisk/guest/loader.c \
 libvdisk/guest/pe.c \
 libvdisk/guest/uki.c \
 libvdisk/guest/syslinux.c \
 libvdisk/guest/grub_legacy.c \
 libvdisk/guest/newest.c \
 libvdisk/guest/menu.c \
 libvdisk/guest/volumes.c \
 libvdisk/guest/jail.c \
 libvdisk/core/landlock.c \
 libvdisk/guest/boot.c \
 libvdisk/guest/packages.c \
 libvdisk/guest/system.c \
 libvdisk/guest/rpm.c \
 libvdisk/guest/rpm_sqlite.c \
 libvdisk/guest/rpm_bdb.c \
 libvdisk/guest/inspect.c
LIB_SRCS += \
 libvdisk/fs/fs.c \
 libvdisk/fs/ext.c \
 libvdisk/fs/ext_io.c \
 libvdisk/fs/ext_dir.c \
 libvdisk/fs/ext_file.c \
 libvdisk/fs/ext_node.c \
 libvdisk/fs/jbd2.c \
 libvdisk/fs/ext_label.c \
 libvdisk/fs/swap.c \
 libvdisk/fs/volume.c \
 libvdisk/kernel/fuse.c \
 libvdisk/kernel/mount.c \
 libvdisk/kernel/loop.c \
 libvdisk/kernel/inuse.c \
 libvdisk/kernel/dm.c \
 libvdisk/kernel/table.c \
 libvdisk/fs/tar.c \
 libvdisk/guest/root.c
