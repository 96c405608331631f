#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The kernel's own initiator, in the throw-away machine, on a qcow2 that vdisk exports
# there: mkfs, mount, write, fio's verification, fsck, growing while it is mounted; two
# paths with dm-multipath, one of them dead under load; one initiator fenced off by
# another.  And the kernel's own target (LIO), whose answers ours are compared with,
# command by command.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 iscsiadm iscsid mkfs.ext4 fsck.ext4 resize2fs qemu-img fio dmsetup sg_persist \
    python3 ip

"$VDISK" create -f qcow2 "$tmp/disk.qcow2" 256M
truncate -s 64M "$tmp/shared.img" "$tmp/ours.img" "$tmp/lio.img"
mkdir "$tmp/state"
chmod 777 "$tmp" "$tmp/state"
cat > "$tmp/conf" <<END
portal 127.0.0.1
portal 192.0.2.1
user root
state-directory $tmp/state
limits {
    nop-interval 1
    nop-timeout 2
}
target iqn.2026-11.test:kernel {
    lun 0 $tmp/disk.qcow2 {
        size 256M
    }
}
target iqn.2026-11.test:shared {
    lun 0 $tmp/shared.img
}
target iqn.2026-11.test:ours {
    lun 0 $tmp/ours.img
}
END

cat > "$tmp/inside" <<'INSIDE'
set -eu
trap 'echo "failed at line $LINENO: $BASH_COMMAND"; tail -n 5 log iscsid.log; dmesg | tail -5' ERR
cd "$1"
ip addr add 192.0.2.1/32 dev lo
"$O/vdiskd" -v -c conf 2> log &
server=$!
mkdir -p /run/lock/iscsi /etc/iscsi
echo 'InitiatorName=iqn.2026-11.test:rig' > /etc/iscsi/initiatorname.iscsi
{ echo 'iscsid.startup = /sbin/iscsid'
  echo 'node.conn[0].iscsi.HeaderDigest = CRC32C,None'
  echo 'node.conn[0].iscsi.DataDigest = CRC32C,None'
  echo 'node.conn[0].timeo.noop_out_interval = 1'
  echo 'node.conn[0].timeo.noop_out_timeout = 2'
  echo 'node.session.timeo.replacement_timeout = 1'; } > /etc/iscsi/iscsid.conf
iscsid -f > iscsid.log 2>&1 &
wait_for() { for _ in $(seq 600); do "$@" > /dev/null 2>&1 && return; sleep 0.05; done; echo "timed out: $*"; false; }
wait_for grep -q 'listening on 192' log

# disk TARGET PORTAL [INITIATOR]: its name below /sys/block, empty if there is none
disk() {
    local s
    for s in /sys/class/iscsi_session/session*; do
        [ "$(cat "$s/targetname" 2> err)" = "$1" ] || continue
        [ "$(cat "$s/device/connection"*/iscsi_connection/*/persistent_address 2> err)" = "$2" ] || continue
        [ "$(cat "$s/initiatorname")" = "${3:-iqn.2026-11.test:rig}" ] || continue
        (cd "$s/device" && ls -d target*/*:0/block/*) 2> err | sed 's|.*/||'
        return
    done
}
there() { [ -n "$(disk "$@")" ] && [ -b "/dev/$(disk "$@")" ]; }
kernel=iqn.2026-11.test:kernel shared=iqn.2026-11.test:shared

# ---- a file system on a qcow2, which grows
iscsiadm -m discovery -t sendtargets -p 127.0.0.1 > found
cat found
iscsiadm -m node -T $kernel -p 127.0.0.1 --login > out
wait_for there $kernel 127.0.0.1
disk=$(disk $kernel 127.0.0.1) sys=/sys/block/$(disk $kernel 127.0.0.1)
[ "$(cat "$sys/size")" = 524288 ]
[ "$(cat "$sys/queue/discard_max_bytes")" -gt 0 ]
grep -q 'write back' "$sys/queue/write_cache"
iscsiadm -m session -P1 | grep -q 'DataDigest: CRC32C' || iscsiadm -m session -P2 | grep -q 'DataDigest: CRC32C'
mkfs.ext4 -q "/dev/$disk"
mkdir -p m
mount -o discard "/dev/$disk" m
head -c 16M /dev/urandom > m/data
sum=$(md5sum < m/data)
cp m/data m/copy
sync
rm m/data
fio --name=verify --filename=m/fio --size=8M --rw=randwrite --bsrange=4k-64k --verify=crc32c --direct=1 \
    --ioengine=libaio --iodepth=8 --end_fsync=1 --minimal > fio.out 2>&1 || { cat fio.out; false; }
# live: the server grows the disk, the initiator looks again, the file system follows
sed -i 's/size 256M/size 384M/' conf
kill -HUP $server
wait_for grep -q 'is in force' log
iscsiadm -m node -T $kernel -R > out
larger() { [ "$(cat "$sys/size")" = 786432 ]; }
wait_for larger
resize2fs "/dev/$disk" > out 2>&1
[ "$(stat -f -c %b m)" -gt 65536 ]
umount m
fsck.ext4 -fn "/dev/$disk" > out
mount "/dev/$disk" m
[ "$(md5sum < m/copy)" = "$sum" ]
umount m
iscsiadm -m node -T $kernel -p 127.0.0.1 --logout > out
echo 'file system: well'

# ---- two paths; one dies under load, comes back, and the other one dies
for p in 127.0.0.1 192.0.2.1; do
    iscsiadm -m node -T $shared -p $p --login > out
    wait_for there $shared $p
done
a=$(disk $shared 127.0.0.1) b=$(disk $shared 192.0.2.1)
[ "$a" != "$b" ]
# the same unit, through two ports
for p in "$a" "$b"; do sg_vpd -p di "/dev/$p" > "pages.$p"; done
sed -n '/logical unit/,/Target port/p' "pages.$a" | grep -v -i port > "unit.$a"
sed -n '/logical unit/,/Target port/p' "pages.$b" | grep -v -i port > "unit.$b"
cmp "unit.$a" "unit.$b"
echo "0 131072 multipath 1 queue_if_no_path 0 1 1 round-robin 0 2 1" \
    "/dev/$a 1 /dev/$b 1" | dmsetup create --noudevsync both
dmsetup mknodes
paths() { [ "$(dmsetup status both | grep -oE '[0-9]+:[0-9]+ [AF]' | cut -d' ' -f2 | tr -d '\n')" = "$1" ]; }
wait_for paths AA
load() {
    fio --name=load --filename=/dev/mapper/both --size=4M --rw=randwrite --bs=16k --verify=crc32c --direct=1 \
        --ioengine=libaio --iodepth=4 "$@" --minimal > fio.out 2>&1
}
load --time_based --runtime=12 &
load=$!
sleep 1
ip addr del 192.0.2.1/32 dev lo
wait_for paths AF
wait $load || { cat fio.out; false; }
ip addr add 192.0.2.1/32 dev lo
back() { dmsetup message both 0 "reinstate_path $(cat "/sys/block/$b/dev")" && dd if="/dev/$b" of=/dev/null bs=4k count=1 iflag=direct; }
wait_for back
dmsetup message both 0 "fail_path $(cat "/sys/block/$a/dev")"
load
paths FA
dmsetup remove --noudevsync both
iscsiadm -m node -T $shared -p 192.0.2.1 --logout > out
echo 'two paths: well'

# ---- fencing: another initiator takes the disk away
iscsiadm -m iface -I other -o new > out
iscsiadm -m iface -I other -o update -n iface.initiatorname -v iqn.2026-11.test:other > out
iscsiadm -m discovery -t sendtargets -p 127.0.0.1 -I other -o new > out
iscsiadm -m node -T $shared -p 127.0.0.1 -I other --login > out
wait_for there $shared 127.0.0.1 iqn.2026-11.test:other
b=$(disk $shared 127.0.0.1 iqn.2026-11.test:other)
pr() { sg_persist -n --out "$@" > out 2>&1 || { cat out; false; }; }
writes() { dd if=/dev/zero of="/dev/$1" bs=4k count=1 oflag=direct 2> err; }
reads() { dd if="/dev/$1" of=/dev/null bs=4k count=1 iflag=direct 2> err; }
pr --register --param-sark=0xa "/dev/$a"
pr --register --param-sark=0xb "/dev/$b"
pr --reserve --param-rk=0xa --prout-type=5 "/dev/$a"
writes "$a" && writes "$b"
pr --preempt --param-rk=0xb --param-sark=0xa --prout-type=5 "/dev/$b"
! writes "$a"
reads "$a"
writes "$b"
sg_persist -n -k "/dev/$b" | grep -q '0xb'
! sg_persist -n -k "/dev/$b" | grep -q '0xa$'
sg_persist -n -s "/dev/$b" | grep -q 'iqn.2026-11.test:other'
pr --clear --param-rk=0xb "/dev/$b"
writes "$a"
iscsiadm -m node -T $shared -p 127.0.0.1 --logout > out
echo 'fencing: well'

# ---- beside the kernel's target
mount -t configfs none /sys/kernel/config
mkdir -p /var/target/pr
core=/sys/kernel/config/target/core/fileio_0/disk
tpg=/sys/kernel/config/target/iscsi/iqn.2026-11.test:lio/tpgt_1
mkdir -p $core
echo "fd_dev_name=$1/lio.img,fd_dev_size=67108864,fd_buffered_io=1" > $core/control
echo 1 > $core/enable
echo reference > $core/wwn/vpd_unit_serial
echo 1 > $core/attrib/emulate_tpu
echo 1 > $core/attrib/emulate_tpws
mkdir -p $tpg/lun/lun_0 $tpg/np/127.0.0.1:3261
ln -s $core $tpg/lun/lun_0/disk
echo 0 > $tpg/attrib/authentication
echo 1 > $tpg/attrib/generate_node_acls
echo 0 > $tpg/attrib/demo_mode_write_protect
echo 1 > $tpg/enable
python3 "$TOP/tests/system/iscsi-compare.py" 127.0.0.1:3260 iqn.2026-11.test:ours \
    127.0.0.1:3261 iqn.2026-11.test:lio

# after the end of the server, the image has it all
kill -TERM "$server"
wait "$server"
qemu-img check disk.qcow2
qemu-img convert -O raw disk.qcow2 raw
fsck.ext4 -fn raw
echo 'all is well'
INSIDE

expect 0 in_machine --mem 1024 --limit 300 --modules 'iscsi_tcp sd_mod ext4 crc32c_generic dm_multipath
    dm_round_robin iscsi_target_mod target_core_file configfs' -- bash "$tmp/inside" "$tmp"
like_output 'all is well'
grep -E 'well|clean|compared' <<< "$output"
