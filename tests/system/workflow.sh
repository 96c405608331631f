#!/bin/bash
# A guest disk on a logical volume, its snapshot, looked into and changed from the host,
# ours beside kpartx; the same on a copy in a file, and on qcow2.
. "$(dirname "$0")/../functions.sh"

if [ "${1:-}" != inside ]; then
    requires linux.uml kpartx dmsetup sfdisk lvm mke2fs e2fsck mkfs.xfs busybox
    in_machine --engine uml --mem 1024 --limit 800 \
        --modules 'loop dm-mod dm-snapshot ext4 xfs fuse' -- bash "$(readlink -f "$0")" inside
    exit
fi

export DM_DISABLE_UDEV=1
mount -t tmpfs tmpfs /mnt
cd /mnt
mkdir -p /run/lvm /run/lock/lvm m tree/etc
config='activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
    devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
    scan_lvs=0 filter=["a|^/dev/loop|","r|.*|"] }
    global { event_activation=0 use_lvmpolld=0 } backup { backup=0 archive=0 }'
l() { lvm "$@" --config "$config" >lvm.log 2>&1 || { cat lvm.log; fail "lvm $*"; }; }
echo 'LABEL=root / ext3 defaults 1 1' >tree/etc/fstab
head -c 2000000 /dev/urandom >tree/data

truncate -s 400M pv
loop=$(losetup -f --show pv)
l pvcreate -q "$loop"
l vgcreate -q DiskStore "$loop"
l lvcreate -q -Wn -y -n guest -L 128M DiskStore
lv=/dev/DiskStore/guest
printf 'label: dos\nsize=64M, bootable\nsize=32M, type=82\n' | sfdisk -q --no-reread --no-tell-kernel $lv
kpartx -a $lv
mke2fs -q -j -L root /dev/mapper/DiskStore-guest1
kpartx -d $lv

# look, add, mount, put files in, unmount, check, delete: with the program named
change() {	# DISK PARTITION-DEVICE PROGRAM...
    local disk=$1 part=$2
    shift 2
    "$@" -l "$disk"
    "$@" -v -a "$disk"
    mount "$part" m
    mkdir -p m/etc
    cp tree/etc/fstab m/etc/fstab
    cp tree/data m/data
    umount m
    e2fsck -fn "$part" >fsck.log 2>&1 || { cat fsck.log; fail "e2fsck: $disk, $*"; }
    "$@" -d "$disk"
}
holds() {	# LOCATOR
    [ "$("$VDISK" cat "$1:/etc/fstab")" = "$(cat tree/etc/fstab)" ] || fail "$1: fstab"
    [ "$("$VDISK" cat "$1:/data" | sha256sum)" = "$(sha256sum <tree/data)" ] || fail "$1: data"
}

# a snapshot of the volume, changed by kpartx and by us: the same words, and no trace in the origin
for who in theirs ours; do
    l lvcreate -q -y -s -n snap -L 32M DiskStore/guest
    program=(kpartx)
    [ $who = theirs ] || program=("$VDISK" kpartx)
    [ -b /dev/DiskStore/snap ] || fail "no snapshot"
    change /dev/DiskStore/snap /dev/mapper/DiskStore-snap1 "${program[@]}" >$who.out
    holds '/dev/DiskStore/snap#p1'
    expect 1 "$VDISK" cat "$lv#p1:/data"
    l lvremove -q -y DiskStore/snap
done
diff theirs.out ours.out || fail "the words differ"
cat ours.out

# a copy as a file
dd if=$lv of=guest.img bs=1M status=none
change "$PWD/guest.img" /dev/mapper/loop1p1 "$VDISK" kpartx
holds 'guest.img#p1'
dd if=$lv of=guest.img bs=1M status=none
# and as qcow2
"$VDISK" convert -q -O qcow2 guest.img guest.qcow2
change "$PWD/guest.qcow2" /dev/mapper/loop1p1 "$VDISK" kpartx
holds 'guest.qcow2#p1'
"$VDISK" check -q guest.qcow2 >/dev/null || fail "check"
# a snapshot in qcow2 is looked into read-only
"$VDISK" snapshot create guest.qcow2 clean
"$VDISK" rm 'guest.qcow2#p1:/data'
expect 0 "$VDISK" kpartx -a -r guest.qcow2@clean
mount -o ro,noload /dev/mapper/loop1p1 m
cmp m/data tree/data || fail "the snapshot"
umount m
expect 0 "$VDISK" kpartx -d guest.qcow2@clean
# with the volume itself attached, the guest is kept off its disk, and the other way round
expect 0 "$VDISK" kpartx -a $lv
mount /dev/mapper/DiskStore-guest1 m
expect 1 "$VDISK" rm "$lv#p1:/etc/fstab"
like_output 'held by device-mapper DiskStore-guest1, mounted at /mnt/m'
umount m
expect 0 "$VDISK" kpartx -d $lv

# ---- -r while somebody writes: from a snapshot, and how fresh is said ----
export LVM_SYSTEM_DIR=$PWD/lvm
mkdir lvm out
printf '%s\n' "$config" >lvm/lvm.conf
kpartx -a $lv
mount /dev/mapper/DiskStore-guest1 m
echo 'written just now' >m/fresh
sync -f m
expect 0 "$VDISK" mount -r "$lv#p1" out
like_output 'held by device-mapper DiskStore-guest1, mounted at /mnt/m: read is an LVM snapshot of [0-9:]+ .DiskStore/vdisk_read_'
[ "$(cat out/fresh)" = 'written just now' ] || fail "not fresh"
echo later >m/later
sync -f m
[ ! -e out/later ] || fail "not steady"
expect 0 "$VDISK" umount out
[ -z "$(lvm lvs --noheadings -o name 2>/dev/null | grep vdisk_read)" ] || fail "a snapshot is left"
# and after a kill
expect 0 "$VDISK" mount -r "$lv#p1" out
kill -9 "$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' /run/vdisk/mount-*.json)"
sleep 1
expect 1 "$VDISK" umount out
like_output 'was killed; its remains are cleared'
[ -z "$(lvm lvs --noheadings -o name 2>/dev/null | grep vdisk_read)" ] || fail "a snapshot is left by a kill"
umount m
kpartx -d $lv
l vgchange -q -an DiskStore
losetup -d "$loop"
rm pv guest.img
# a file on a file system that shares blocks
truncate -s 320M share
mkfs.xfs -q -m reflink=1 share
mkdir x
mount -o loop share x
truncate -s 64M x/d
mke2fs -q -F -t ext4 x/d
"$VDISK" convert -q -O qcow2 x/d x/q
cp --reflink=never guest.qcow2 here.qcow2
for d in x/d x/q; do
    expect 0 "$VDISK" mount --fuse $d m
    echo one >m/one
    sync m/one
    expect 0 "$VDISK" mount -r $d out
    like_output "$d: open for writing in another program .*mount --fuse $d.*: read is how it was at [0-9:]+, as after a power cut"
    [ "$(cat out/one)" = one ] || fail "$d: not fresh"
    echo two >m/two
    sync m/two
    [ ! -e out/two ] || fail "$d: not steady"
    expect 0 "$VDISK" umount out
    expect 0 "$VDISK" attach -r $d
    like_output 'read is how it was'
    dev=$(head -n 2 <<<"$output" | grep ^/dev)
    mount -o ro,noload "$dev" out
    [ "$(cat out/two)" = two ] || fail "$d: attach -r"
    umount out
    expect 0 "$VDISK" detach $d
    expect 0 "$VDISK" kpartx -a -r $d		# (no table: nothing to map)
    expect 0 "$VDISK" kpartx -d $d
    # those who only look have it from a snapshot, too
    expect 0 "$VDISK" cat $d:/two
    like_output 'mount --fuse.*: read is how it was at [0-9:]+, as after a power cut'
    like_output '^two$'
    expect 0 "$VDISK" df $d
    like_output '^x/. .*ext4'
    expect 0 "$VDISK" parts $d
    like_output 'mount --fuse.*: read is how it was at'
    expect 1 "$VDISK" cp $d:/two $d:/three
    like_output 'another program'
    start "$VDISK" export --fuse $d.view -r $d
    wait_for 30 mountpoint -q $d.view
    cp --sparse=always $d.view copy
    [ "$("$VDISK" cat copy:/two)" = two ] || fail "$d: export -r"
    kill "$started"
    wait "$started" || true
    expect 0 "$VDISK" umount m
done
umount x
# elsewhere: refused, unless asked for; a snapshot in the image is read, with its age
expect 0 "$VDISK" mount --fuse here.qcow2 m
expect 0 "$VDISK" mount -r 'here.qcow2#p1' out
like_output "read is its snapshot 'clean', [0-9]+ (s|min) old"
cmp out/data tree/data || fail "the snapshot in the image"
expect 0 "$VDISK" umount out
expect 0 "$VDISK" stat 'here.qcow2#p1:/data'
like_output "read is its snapshot 'clean', [0-9]+ (s|min) old"
expect 0 "$VDISK" kpartx -a -r here.qcow2
like_output "read is its snapshot 'clean'"
mount -o ro,noload /dev/mapper/loop0p1 out
cmp out/data tree/data || fail "kpartx -r"
umount out
expect 0 "$VDISK" kpartx -d here.qcow2
expect 0 "$VDISK" umount m
"$VDISK" snapshot delete here.qcow2 clean
expect 0 "$VDISK" mount --fuse here.qcow2 m
expect 1 "$VDISK" mount -r 'here.qcow2#p1' out
like_output 'no snapshot to read, and none can be made; --force-share'
expect 1 "$VDISK" ls 'here.qcow2#p1:/'
like_output 'no snapshot to read, and none can be made; --force-share'
expect 0 "$VDISK" ls -U 'here.qcow2#p1:/'
expect 0 "$VDISK" mount -r -U 'here.qcow2#p1' out
like_output 'may be torn'
expect 0 "$VDISK" umount out
expect 0 "$VDISK" umount m
[ -z "$(losetup -a)$(ls /run/vdisk)" ] || fail "left: $(losetup -a; ls /run/vdisk)"
