#!/bin/bash
# LVM2 makes groups in image files; we read the volumes without it, and it reads what we wrote.
. "$(dirname "$0")/../functions.sh"
requires linux.uml lvm busybox sfdisk mkfs.ext4 e2fsck debugfs

cat > "$tmp/inside.sh" <<'INSIDE'
set -euo pipefail
work=$(mktemp -d)
cd "$work"
mkdir -p /run/lvm /run/lock/lvm
export DM_DISABLE_UDEV=1
config='activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
    devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
    scan_lvs=0 filter=["a|^/dev/loop|","r|.*|"] }
    global { event_activation=0 use_lvmpolld=0 thin_check_executable="" }
    backup { backup=0 archive=0 }'
l() { lvm "$@" --config "$config" > lvm.log 2>&1 || { cat lvm.log; echo "lvm $* failed"; exit 1; }; }
fail() { echo "FAIL: $*"; exit 1; }

# two physical volumes in partitions of one disk, and one on a whole disk
truncate -s 128M disk
truncate -s 32M whole
printf 'label: gpt\nsize=60M, type=lvm\nsize=60M, type=lvm\n' | sfdisk -q disk
a=/dev/loop0 b=/dev/loop1 c=/dev/loop2
give_to_host() {
    losetup -o 1M --sizelimit 60M $a disk
    losetup -o 61M --sizelimit 60M $b disk
    losetup $c whole
}
give_to_host
l pvcreate -q "$a" "$b"
l pvcreate -q --dataalignment 64k --metadatasize 60k --pvmetadatacopies 2 "$c"
l vgcreate -q -s 1M vg0 "$a" "$b"
l vgcreate -q -s 1M --metadatacopies 2 vg1 "$c"

l lvcreate -q -Wn -y -n root -L 8M vg0 "$a"
l lvcreate -q -Wn -y -n stripes -i2 -I 16k -L 8M vg0
l lvcreate -q -Wn -y -n copies --type raid1 -m1 -L 6M vg0
l lvcreate -q -Wn -y -n mirror --type mirror -m1 --mirrorlog core -L 4M vg0
l lvcreate -q -Wn -y -n fast --type raid0 -i2 -L 4M vg0
l lvextend -q -L 12M vg0/root "$b"		# a second segment, on the other disk
l lvcreate -q -y -n snap -s -L 4M vg0/root
l lvcreate -q -y -n pool --type thin-pool -L 8M vg0
l lvcreate -q -y -n thin -V 64M --thinpool pool vg0
l lvcreate -q -Wn -y -n data -L 10M vg1
# change the metadata until its text is in two pieces, at the end and the start of the ring
tags=()
for i in $(seq 8); do tags+=("tag" "$i-$(printf '%0900d' 0)"); done
for i in $(seq 30); do
    l lvchange -q "${tags[@]/#tag/--$([ $((i % 2)) = 1 ] && echo add || echo del)tag}" vg1/data
    read -r size at len < <(echo $(od -An -tu8 -j 4128 -N 24 whole))
    [ $((at + len)) -le "$size" ] || break
done
[ $((at + len)) -gt "$size" ] || fail 'the metadata did not go round'

volumes='stripes copies mirror fast'
for v in $volumes; do
    dd if=/dev/urandom of="/dev/vg0/$v" bs=1M conv=fsync status=none \
        count=$(($(blockdev --getsize64 "/dev/vg0/$v") >> 20))
    cp --sparse=never "/dev/vg0/$v" "$v.raw"
done
mkfs.ext4 -q -L lvroot /dev/vg0/root
mkfs.ext4 -q -L lvdata /dev/vg1/data
echo 'from inside' > note
printf '%s\n' 'mkdir /etc' 'write note /etc/fstab' | debugfs -w /dev/vg0/root > /dev/null 2>&1
cp /dev/vg0/root root.raw
cp /dev/vg1/data data.raw
l vgchange -q -an vg0 vg1
sync

check_all() {	# DISK
    for v in root $volumes; do
        "$VDISK" compare "$1#vg0/$v" "$v.raw" || fail "$1: $v differs"
    done
}
check_all disk
"$VDISK" compare 'whole#vg1/data' data.raw || fail 'data differs'
"$VDISK" compare 'disk#label=lvroot' root.raw || fail 'not found by label'
[ "$("$VDISK" cat disk:/etc/fstab)" = 'from inside' ] || fail 'the root was not found'
"$VDISK" convert -O qcow2 disk disk.qcow2
check_all disk.qcow2

# the same group on two disks, which are given together
dd if=disk of=a.img bs=1M skip=1 count=60 conv=sparse status=none
dd if=disk of=b.img bs=1M skip=61 count=60 conv=sparse status=none
"$VDISK" convert -q -O qcow2 b.img b.qcow2
for other in b.img b.qcow2; do
    for v in root stripes; do
        "$VDISK" compare --with $other "a.img#vg0/$v" "$v.raw" || fail "$v on two disks differs"
    done
    [ "$("$VDISK" cat --with a.img "$other:/etc/fstab")" = 'from inside' ] || fail 'the root on two disks'
    "$VDISK" inspect --with a.img $other > tree 2> why || { cat why; fail 'inspect on two disks'; }
    "$VDISK" df --with a.img $other | grep -q "$other#vg0/root" || fail 'df on two disks'
done
"$VDISK" parts a.img b.qcow2 > tree
cat tree
[ "$(grep -Ec 'vg0/root +12 MiB .* ext4' tree)" = 2 ] || fail 'parts of two disks'
"$VDISK" parts --json a.img b.img | grep -c '"disk": "b.img"' | grep -qx '[4-9]' || fail 'parts of two disks, as JSON'
"$VDISK" parts a.img > tree
grep -q 'missing: physical volume' tree || { cat tree; fail 'a missing disk is not named'; }
! "$VDISK" cat 'a.img#vg0/root:/etc/fstab' 2> why || fail 'read without its other disk'
grep -q 'missing' why || { cat why; fail 'why not'; }
"$VDISK" mkfs -y --with b.img -t ext4 -L both 'a.img#vg0/stripes'
[ "$("$VDISK" label --with a.img 'b.img#vg0/stripes')" = both ] || fail 'written on two disks'
rm a.img b.img b.qcow2

for v in snap thin pool; do
    ! "$VDISK" compare "disk#vg0/$v" root.raw 2> why || fail "$v was read"
    cat why
done
"$VDISK" parts disk > tree
cat tree
grep -Eq 'vg0/root +12 MiB .* ext4 +([0-9]+% +)?lvroot' tree || fail 'parts'
"$VDISK" parts --json disk > parts.json
for want in '"locator": "vg0/root"' '"type": "raid1"' '"label": "lvroot"' '"seqno": ' \
        'snapshots are not supported'; do
    grep -qF "$want" parts.json || fail "no $want in $(cat parts.json)"
done
"$VDISK" df disk | grep -q 'disk#vg0/root' || fail 'df'

# what we write, LVM reads: an ext4 made on the striped volume, a file put into the linear one;
# not while the host has the disk
! "$VDISK" mkfs -y -t ext4 'disk#vg0/stripes' 2> why || fail 'a disk in use was written'
cat why
grep -q 'loop0' why || fail 'it does not say who uses it'
losetup -d $a $b $c
"$VDISK" mkfs -y -t ext4 -L ours 'disk#vg0/stripes'
echo 'from outside' > message
"$VDISK" cp message 'whole#vg1/data:/message'
! "$VDISK" mkfs -y -t ext4 'disk#vg0/root' 2> why || fail 'an origin was written'
cat why
! "$VDISK" mkfs -y -t ext4 'disk#vg0/copies' 2> why || fail 'a raid1 was written'
cat why
give_to_host
l vgchange -q -ay vg0 vg1
e2fsck -fn /dev/vg0/stripes > fsck.log 2>&1 || { cat fsck.log; fail 'e2fsck of ours'; }
[ "$(e2label /dev/vg0/stripes)" = ours ] || fail 'the label'
mkdir m
mount -t ext4 -o ro /dev/vg1/data m
cmp message m/message || fail 'the file'
umount m
l vgck vg0
l vgck vg1
l vgchange -q -an vg0 vg1

# a raid1 that went on without its first copy: the second one is the one to read
from='filter=[' to="filter=[\"r|$a\$|\","
half=${config/"$from"/"$to"}
lvm lvchange -q -ay --activationmode degraded vg0/copies --config "$half" > lvm.log 2>&1 ||
    { cat lvm.log; fail 'degraded activation'; }
dd if=/dev/urandom of=/dev/vg0/copies bs=1M count=6 conv=fsync status=none
cp /dev/vg0/copies later.raw
lvm lvchange -q -an vg0/copies --config "$half" > lvm.log 2>&1
sync
"$VDISK" compare 'disk#vg0/copies' later.raw || fail 'the stale copy was read'

# names that we change, LVM reads; the guest's files go with them
losetup -d $a $b $c
printf '%s\n' '/dev/vg1/data / ext4 defaults 0 1' '/dev/mapper/vg1-data /a ext4 x 0 0' \
    '/dev/vg1/data.old /b ext4 x 0 0' > fstab
"$VDISK" mkdir 'whole#vg1/data:/etc'
"$VDISK" cp fstab 'whole#vg1/data:/etc/fstab'
"$VDISK" rename -n 'whole#vg1' gamma-1 > plan
grep -q 'vg1/data:/etc/fstab: 2 places' plan || { cat plan; fail 'the plan'; }
"$VDISK" cat 'whole#vg1/data:/etc/fstab' | cmp - fstab || fail 'a plan wrote'
"$VDISK" rename 'whole#vg1' gamma-1
"$VDISK" rename 'whole#gamma-1/data' d.at
"$VDISK" cat 'whole#gamma-1/d.at:/etc/fstab' > now
printf '%s\n' '/dev/gamma-1/d.at / ext4 defaults 0 1' '/dev/mapper/gamma--1-d.at /a ext4 x 0 0' \
    '/dev/vg1/data.old /b ext4 x 0 0' | diff - now || fail 'the fstab'
for i in $(seq 20); do	# round the ring with long metadata
    "$VDISK" rename -q -F "whole#gamma-1/$([ "$i" = 1 ] && echo d.at || echo "t$((i - 1))")" "t$i"
done
for pair in copies:twins mirror:glass pool:lake snap:shot root:top; do
    "$VDISK" rename -q -F "disk#vg0/${pair%:*}" "${pair#*:}"
done
"$VDISK" rename -q -F 'disk#vg0' alpha
! "$VDISK" rename 'disk#alpha/lake_tdata' x 2> why || fail 'a piece was renamed'
cp --sparse=always disk clone
give_to_host
l vgck alpha
l vgck gamma-1
lvm lvs --config "$config" --noheadings -a -o vg_name,lv_name,origin,pool_lv 2> /dev/null | sort |
    sed 's/  */ /g;s/ $//' > names
diff - names <<'NAMES' || fail 'the names'
 alpha [fast_rimage_0]
 alpha [fast_rimage_1]
 alpha [glass_mimage_0]
 alpha [glass_mimage_1]
 alpha [lake_tdata]
 alpha [lake_tmeta]
 alpha [lvol0_pmspare]
 alpha [twins_rimage_0]
 alpha [twins_rimage_1]
 alpha [twins_rmeta_0]
 alpha [twins_rmeta_1]
 alpha fast
 alpha glass
 alpha lake
 alpha shot top
 alpha stripes
 alpha thin lake
 alpha top
 alpha twins
 gamma-1 t20
NAMES
l vgcfgbackup -f backup alpha
grep -q '^alpha {' backup || fail 'vgcfgbackup'
l vgchange -q -ay alpha gamma-1
cmp /dev/alpha/top root.raw || fail 'top'
cmp /dev/alpha/glass mirror.raw || fail 'glass'
cmp /dev/alpha/fast fast.raw || fail 'fast'
cmp -n 1048576 /dev/alpha/shot /dev/zero || fail 'the snapshot'	# from before mkfs
l lvrename -q alpha fast slow		# and LVM goes on from there
l vgchange -q -an alpha gamma-1
"$VDISK" compare 'disk#alpha/slow' fast.raw || fail 'after LVM'

# a copy with UUIDs of its own, beside the original
"$VDISK" uuid --clone -y clone > did 2>&1 || { cat did; fail 'clone'; }
grep -q 'alpha/top.*stays' did || { cat did; fail 'an origin'; }
"$VDISK" rename -q -F 'clone#alpha' beta
losetup -o 1M --sizelimit 60M /dev/loop3 clone
losetup -o 61M --sizelimit 60M /dev/loop4 clone
lvm pvs --config "$config" --noheadings -o pv_name,vg_name > pvs 2> log
[ "$(awk '$2 == "alpha"' pvs | wc -l) $(awk '$2 == "beta"' pvs | wc -l)" = '2 2' ] && ! grep -qi duplicate log ||
    { cat pvs log; fail 'the copy beside the original'; }
[ "$(lvm lvs --config "$config" --noheadings -o lv_uuid 2> /dev/null | sort | uniq -d | wc -l)" = 0 ] ||
    fail 'volumes with the same UUID'
l vgck beta
INSIDE

in_machine --engine uml --mem 768 --limit 200 \
    --modules 'loop dm-mod dm-snapshot dm-mirror dm-raid dm-thin-pool ext4 fuse' -- bash "$tmp/inside.sh"
