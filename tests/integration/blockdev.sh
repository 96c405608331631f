#!/bin/bash
# Block devices as sources: size, sectors, exclusive use, conversion onto and from, discard.
. "$(dirname "$0")/../functions.sh"
requires losetup mke2fs qemu-img
[ "$(id -u)" = 0 ] || skip 'loop devices need root'
[ -e /dev/loop-control ] || skip 'the kernel has no loop devices'

# attach FILE [OPTION...]: a loop device in $loop
attach() {
    local file=$1
    shift
    loop=$(losetup -f --show "$@" "$file")
    cleanup_fn losetup -d "$loop"
}

cd "$tmp"
mkdir tree mnt
seq 100000 > tree/numbers
mke2fs -q -t ext4 -d tree fs.raw 40M

# an image onto a device and back
truncate -s 48M dev.img
attach "$tmp/dev.img"
dev=$loop
expect 0 "$VDISK" info --json "$dev"
like_output '"virtual-size": 50331648'
"$VDISK" create -q -f qcow2 -b fs.raw -F raw over.qcow2
expect 0 "$VDISK" convert -y -O raw over.qcow2 "$dev"
cmp -n $((40 << 20)) fs.raw "$dev"
expect 0 "$VDISK" convert -O qcow2 "$dev" back.qcow2
expect 0 "$VDISK" compare fs.raw back.qcow2
qemu-img check -q back.qcow2

# larger than the device: refused before anything is written
truncate -s 64M large.raw
expect 1 "$VDISK" convert -y -O raw large.raw "$dev"
like_output 'smaller|cannot grow'
cmp -n $((40 << 20)) fs.raw "$dev"

# mounted here: not for writing by anyone else
mount -o ro,noload "$dev" mnt
cleanup_fn umount -q "$tmp/mnt"
expect 1 "$VDISK" part init -y "$dev" gpt
like_output "$dev"
expect 1 "$VDISK" convert -y -O raw fs.raw "$dev"
# nor is it read without a word about that
expect 0 "$VDISK" ls "$dev:/"
like_output 'mounted at .*mnt: read is what is there at each moment'
umount mnt
expect 0 "$VDISK" ls "$dev:/"
! grep 'at each moment' <<< "$output" || fail 'it is not mounted any more'
cmp -n $((40 << 20)) fs.raw "$dev"

# qcow2 straight on a device: new clusters there are not zero by themselves
tr '\0' '\377' < /dev/zero | head -c $((48 << 20)) > "$dev" || true
expect 0 "$VDISK" create -y -f qcow2 "$dev" 32M
qemu-io -f qcow2 -c 'read -P 0 0 32M' "$dev" | grep -q 'read 33554432'
expect 0 "$VDISK" part init -y -f qcow2 "$dev" gpt
[ "$(qemu-io -f qcow2 -c 'read -P 0 64k 1M' -c 'read -P 0 8M 8M' "$dev" | grep -c 'read .*bytes at')" = 2 ]
! qemu-io -f qcow2 -c 'read -P 0 64k 1M' -c 'read -P 0 8M 8M' "$dev" | grep -i 'pattern verification failed'
qemu-img check -q -f qcow2 "$dev"

# a VMDK as well; it does not grow behind the device's end
tr '\0' '\377' < /dev/zero | head -c $((48 << 20)) > "$dev" || true
expect 0 "$VDISK" create -y -f vmdk "$dev" 40M
"$VDISK" convert -q -y -n -f raw -O vmdk fs.raw "$dev"
qemu-img compare -q -f raw -F vmdk fs.raw "$dev" || fail 'a VMDK on a device'
expect 0 "$VDISK" check -f vmdk "$dev"
expect 0 "$VDISK" create -y -f vmdk "$dev" 80M
tr '\0' '\252' < /dev/zero | head -c $((60 << 20)) > full.raw || true
expect 1 "$VDISK" convert -q -y -n -f raw -O vmdk full.raw "$dev"
like_output 'No space'

# 4096-byte sectors
truncate -s 32M 4k.img
attach "$tmp/4k.img" --sector-size 4096
expect 0 "$VDISK" part init -y "$loop" gpt
expect 0 "$VDISK" part add "$loop" --size 100%
expect 0 "$VDISK" parts --json "$loop"
like_output '"sector-size": 4096'
sfdisk --verify "$loop" 2>&1 | grep -q 'No errors'
