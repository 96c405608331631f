#!/bin/bash
# vdisk mount as root: the kernel's file systems on any image, read-only and not, and
# nothing left behind; through FUSE, read by the kernel's ext4 afterwards.
. "$(dirname "$0")/../functions.sh"

if [ "${1:-}" != inside ]; then
    requires linux.uml mke2fs e2fsck mkfs.xfs mkfs.btrfs mkfs.vfat busybox
    in_machine --engine uml --mem 1280 --limit 800 \
        --modules 'loop dm-mod ext4 xfs btrfs vfat nls_cp437 nls_ascii nls_iso8859-1 fuse' -- bash "$(readlink -f "$0")" inside
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

# ---- a snapshot that nobody unmounted, read-only: its journal is replayed beside it ----
for fs in ext4 xfs btrfs; do
    rm -f d.*
    case $fs in
    ext4) truncate -s 48M d.raw && mke2fs -q -F -t ext4 d.raw ;;
    xfs) truncate -s 330M d.raw && mkfs.xfs -q -f d.raw ;;
    btrfs) truncate -s 128M d.raw && mkfs.btrfs -q -f d.raw >/dev/null ;;
    esac
    mount -o loop d.raw m
    echo old >m/old
    sync -f m
    echo new >m/new
    sync m/new			# (fsync: for btrfs in its log tree)
    "$VDISK" convert -q -U -O qcow2 d.raw d.qcow2
    cp --sparse=always d.raw copy.raw
    umount m
    "$VDISK" snapshot create d.qcow2 unclean
    [ $fs = xfs ] || sum=$(sha256sum <copy.raw)	# (it is large)
    for d in copy.raw d.qcow2@unclean d.qcow2; do
        expect 0 "$VDISK" mount -r $d m
        [ "$(cat m/old m/new 2>&1 | tr '\n' ' ')" = 'old new ' ] || fail "$fs: $d: $(ls m)"
        expect 1 touch m/x
        expect 0 "$VDISK" umount m
        nothing_left
    done
    [ $fs = xfs ] || [ "$(sha256sum <copy.raw)" = "$sum" ] || fail "$fs: -r wrote"
    expect 1 "$VDISK" mount d.qcow2@unclean m
    like_output 'd.qcow2@unclean: it can be mounted read-only, with -r'
    for how in '' --all; do
        [ $fs = ext4 ] || [ -z "$how" ] || continue
        expect 1 "$VDISK" mount --fuse $how d.qcow2@unclean m
        like_output 'with -r'
    done
    nothing_left
done

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

# ---- the guest's whole tree, by its fstab ----
mkdir -p t/etc t/boot t/data t/opt t/mnt/out/x out/x
cat >t/etc/fstab <<'FSTAB'
LABEL=root	/		ext4	defaults 0 1
/data/opt	/opt		none	bind 0 0
LABEL=data	/data		xfs	defaults 0 2
LABEL=BOOT	/boot		vfat	ro,suid,dev 0 2
LABEL=extra	/escape/x	ext4	defaults 0 2
LABEL=none	/none		ext4	nofail 0 2
FSTAB
ln -s /mnt/out t/escape		# to this host's, if a link were followed there
truncate -s 32M p1
mkfs.vfat -n BOOT p1 >/dev/null
truncate -s 64M p2 p4
mke2fs -q -F -t ext4 -L root -d t p2
truncate -s 310M p3
mkfs.xfs -q -L data p3
mke2fs -q -F -t ext4 -L extra p4
mount -o loop p3 m
mkdir m/opt
umount m
rm -f d.*
truncate -s 480M d.raw
printf '%s\n' 'label: gpt' size=32M size=64M size=310M size=64M | sfdisk -q d.raw
at=1
for i in 1 2 3 4; do
    dd if=p$i of=d.raw bs=1M seek=$at conv=notrunc,sparse status=none
    at=$((at + $(stat -c %s p$i) / 1048576))
done
"$VDISK" convert -q -O qcow2 d.raw d.qcow2
rm p?
for d in d.raw d.qcow2; do
    expect 0 "$VDISK" mount --all $d m
    like_output '/none: left out: its device is not on this disk .nofail'
    [ "$(awk '$2 ~ "^/mnt/m" { print $2, $3, ($4 ~ /nosuid,nodev/) }' /proc/mounts | tr '\n' ' ')" = \
        '/mnt/m ext4 1 /mnt/m/boot vfat 1 /mnt/m/data xfs 1 /mnt/m/mnt/out/x ext4 1 /mnt/m/opt xfs 1 ' ] ||
        [ "$(grep -c ' /mnt/m.*nosuid,nodev' /proc/mounts)" = 5 ] || fail "$(cat /proc/mounts)"
    ! mountpoint -q out/x || fail "mounted outside"
    echo "$d" >m/opt/file
    echo "$d" >m/data/file
    expect 1 touch m/boot/x
    like_output 'Read-only'
    (cd m/opt && exec sleep 60) &
    holder=$!
    wait_for 10 test "/proc/$holder/cwd" -ef m/opt
    expect 1 "$VDISK" umount m
    like_output "busy .*pid $holder"
    kill "$holder"
    wait "$holder" 2>/dev/null || true
    expect 0 "$VDISK" umount m
    [ -z "$(grep /mnt/m /proc/mounts)" ] || fail "$(cat /proc/mounts)"
    nothing_left
    # killed: what is left is said, and cleared
    expect 0 "$VDISK" mount --all -r $d m
    [ "$(cat m/opt/file)" = "$d" ] || fail "$d: not saved"
    pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' /run/vdisk/mount-*.json)
    kill -9 "$pid"
    wait_for 20 test ! -d "/proc/$pid"
    expect 1 "$VDISK" umount m
    like_output 'was killed; its remains are cleared'
    [ -z "$(grep /mnt/m /proc/mounts)" ] || fail "killed: $(cat /proc/mounts)"
    wait_for 20 test -z "$(losetup -a)"
    nothing_left
done
