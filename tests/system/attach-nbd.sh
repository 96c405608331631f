#!/bin/bash
# vdisk attach of images by NBD; and, without device-mapper, the partitions that the kernel finds.
. "$(dirname "$0")/../functions.sh"

if [ "${1:-}" != inside ]; then
    requires linux.uml sfdisk mkfs.ext4 e2fsck busybox blockdev dmsetup
    in_machine --engine uml --mem 768 --limit 600 \
        --modules 'loop nbd ext4 fuse' -- bash "$(readlink -f "$0")" inside
    exit
fi

mount -t tmpfs tmpfs /mnt
cd /mnt
export DM_DISABLE_UDEV=1
# device-mapper is part of this kernel: without its control device there is none
mkdir -p /dev/mapper
mount -t tmpfs -o ro tmpfs /dev/mapper
mkdir m
truncate -s 96M d
printf '%s\n' 'label: gpt' size=16M size=60M | sfdisk -q d
head -c 5000000 /dev/urandom >data
nothing_left() { [ -z "$(losetup -a)$(ls /run/vdisk 2>/dev/null)" ] && [ ! -e /sys/block/nbd0/pid ] || fail "left: $(losetup -a; ls /run/vdisk)"; }

# a raw file has a loop device, and the kernel's partitions
expect 0 "$VDISK" attach d
[ "$output" = '/dev/loop0
/dev/loop0p1  p1
/dev/loop0p2  p2' ] || fail "$output"
mkfs.ext4 -q /dev/loop0p2
mount /dev/loop0p2 m
cp data m/data
expect 1 "$VDISK" detach d
like_output 'its partition loop0p2 is mounted at /mnt/m'
expect 1 "$VDISK" mkfs -y 'd#p1'
like_output 'attached to /dev/loop0|vdisk attach'
umount m
expect 0 "$VDISK" detach d
nothing_left
[ "$("$VDISK" cat 'd#p2:/data' | sha256sum)" = "$(sha256sum <data)" ] || fail "raw: not saved"

# an image is an NBD device
"$VDISK" convert -q -y -O qcow2 d q
expect 0 "$VDISK" attach q
[ "$(head -n 1 <<<"$output")" = /dev/nbd0 ] || fail "$output"
[ "$(blockdev --getsize64 /dev/nbd0)" = 100663296 ] || fail "its size"
cmp d /dev/nbd0 || fail "reads something else"
part=$(grep 'p2$' <<<"$output" | cut -d' ' -f1)
[ -b "$part" ] || fail "no partition: $output"
mount "$part" m
cmp data m/data || fail "contents"
for i in 1 2 3 4; do cp data "m/copy$i" & done
wait
for i in 1 2 3 4; do cmp data "m/copy$i" || fail "copies"; done
expect 1 "$VDISK" detach q
like_output 'mounted at /mnt/m'
expect 1 "$VDISK" rm 'q#p2:/data'
like_output 'vdisk attach q, pid'
rm m/data m/copy2
fstrim m 2>/dev/null || true
umount m
expect 0 "$VDISK" detach q
nothing_left
[ -z "$(dmsetup ls | grep -v 'No dev')" ] || fail "maps are left: $(dmsetup ls)"
"$VDISK" check -q q >/dev/null || fail "check"
[ "$("$VDISK" cat 'q#p2:/copy1' | sha256sum)" = "$(sha256sum <data)" ] || fail "qcow2: not saved"
"$VDISK" convert -q -y -O raw q r
dd if=r of=p bs=1M skip=17 count=60 status=none
e2fsck -fn p >fsck.log 2>&1 || { cat fsck.log; fail e2fsck; }
# read-only; two at a time; killed; with device-mapper
umount /dev/mapper
cp q q2
expect 0 "$VDISK" attach -r q
expect 1 mkfs.ext4 -q -F /dev/nbd0
expect 0 "$VDISK" attach q2
[ "$(head -n 1 <<<"$output")" = /dev/nbd1 ] || fail "$output"
expect 0 "$VDISK" detach q
expect 0 "$VDISK" detach /dev/nbd1
nothing_left
expect 0 "$VDISK" attach q
like_output '^/dev/mapper/nbd0p2  p2'
pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' /run/vdisk/view-*.json)
kill -9 "$pid"
wait_for 20 test ! -d "/proc/$pid"
expect 1 "$VDISK" detach q
like_output 'was killed; its remains are cleared'
wait_for 20 test ! -e /sys/block/nbd0/pid
nothing_left
[ -z "$(dmsetup ls | grep -v 'No dev')" ] || fail "maps are left: $(dmsetup ls)"
"$VDISK" check -q q >/dev/null || "$VDISK" check -q --repair=leaks q >/dev/null || fail "check after a kill"
