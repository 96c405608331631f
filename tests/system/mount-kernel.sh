#!/bin/bash
# vdisk mount as root: the kernel's file systems on any image, read-only and not, and
# nothing left behind; through FUSE, read by the kernel's ext4 afterwards.
. "$(dirname "$0")/../functions.sh"

if [ "${1:-}" != inside ]; then
    requires linux.uml mke2fs e2fsck mkfs.xfs mkfs.vfat busybox
    in_machine --engine uml --mem 1280 --limit 300 \
        --modules 'loop dm-mod ext4 xfs vfat nls_cp437 nls_ascii nls_iso8859-1 fuse' -- bash "$(readlink -f "$0")" inside
    exit
fi

mount -t tmpfs tmpfs /mnt
cd /mnt
mkdir m tree
head -c 1500000 /dev/urandom >tree/data
nothing_left() {
    [ -z "$(losetup -a)" ] && [ -z "$(ls /run/vdisk 2>/dev/null)" ] || fail "left: $(losetup -a; ls /run/vdisk)"
}

for fs in 'mke2fs -q -F -t ext4' 'mkfs.xfs -q -f' 'mkfs.vfat'; do
    rm -f d.*
    truncate -s 330M vol d.raw
    $fs vol >/dev/null
    printf 'label: gpt\nstart=1MiB, size=328M\n' | sfdisk -q d.raw
    dd if=vol of=d.raw bs=1M seek=1 count=328 conv=notrunc status=none
    # the file system is to be as large as its partition
    l=$(losetup -f --show -o 1M --sizelimit 328M d.raw)
    $fs "$l" >/dev/null
    losetup -d "$l"
    for d in d.raw d.qcow2; do
        [ $d = d.raw ] || "$VDISK" convert -q -O qcow2 d.raw d.qcow2
        expect 0 "$VDISK" mount "$d#p1" m
        cp tree/data m/data
        grep -q ' /mnt/m .*nosuid,nodev' /proc/mounts || fail "$fs: $(grep /mnt/m /proc/mounts)"
        expect 1 "$VDISK" mkfs -y "$d#p1"
        like_output 'in use'
        expect 0 "$VDISK" umount m
        nothing_left
        expect 0 "$VDISK" mount -r "$d#p1" m
        cmp tree/data m/data || fail "$fs on $d: lost"
        expect 1 touch m/x
        (cd m && exec sleep 60) &
        holder=$!
        wait_for 10 test "/proc/$holder/cwd" -ef m
        expect 1 "$VDISK" umount m
        like_output "busy .*pid $holder"
        kill "$holder"
        wait "$holder" 2>/dev/null || true
        # unmounted by another program: our process ends, too
        umount m
        wait_for 20 test -z "$(losetup -a)"
        wait_for 20 sh -c '[ -z "$(ls /run/vdisk)" ]'
    done
done
expect 1 "$VDISK" mount 'd.raw#p7' m
nothing_left

# FUSE writes, the kernel reads
truncate -s 200M e.img
mke2fs -q -F -t ext4 e.img
expect 0 "$VDISK" mount --fuse e.img m
cp -a /usr/include/linux m/
ln m/linux/fs.h m/hard
mkfifo m/fifo
mknod m/null c 1 3
expect 2 sh -c 'echo x >m/null'		# no devices of a guest's
expect 0 "$VDISK" umount m
e2fsck -fn e.img >fsck.log 2>&1 || { cat fsck.log; fail e2fsck; }
mount -o loop e.img m
diff -r /usr/include/linux m/linux || fail "the kernel reads something else"
[ "$(stat -c '%h %t:%T' m/hard m/null | tr '\n' ' ')" = '2 0:0 1 1:3 ' ] || fail "$(stat m/hard m/null)"
rm -r m/linux/*
cp -a /usr/include/asm-generic m/
umount m
expect 0 "$VDISK" mount --fuse -r e.img m
diff -r /usr/include/asm-generic m/asm-generic || fail "we read something else"
expect 0 "$VDISK" umount m
