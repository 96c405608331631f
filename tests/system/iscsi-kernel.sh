#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The kernel's own initiator, in the throw-away machine, on a qcow2 that vdisk
# exports there: log in, mkfs, mount, write, unmount, fsck, log out.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 iscsiadm iscsid mkfs.ext4 fsck.ext4 qemu-img

"$VDISK" create -f qcow2 "$tmp/disk.qcow2" 256M

cat > "$tmp/inside" <<'INSIDE'
set -eu
cd "$1"
target=iqn.2026-11.test:kernel
"$2" export --iscsi 127.0.0.1:3260 --iqn "$target" -v disk.qcow2 > served 2> served.err &
server=$!
for _ in $(seq 200); do grep -q Interrupt served && break; sleep 0.05; done

mkdir -p /run/lock/iscsi /etc/iscsi
echo 'InitiatorName=iqn.2026-11.test:rig' > /etc/iscsi/initiatorname.iscsi
{ echo 'iscsid.startup = /sbin/iscsid'
  echo 'node.conn[0].iscsi.HeaderDigest = CRC32C,None'
  echo 'node.conn[0].iscsi.DataDigest = CRC32C,None'; } >> /etc/iscsi/iscsid.conf
iscsid -f > iscsid.log 2>&1 &
sleep 0.3
iscsiadm -m discovery -t sendtargets -p 127.0.0.1
iscsiadm -m node -T "$target" -p 127.0.0.1 --login
disk=
for _ in $(seq 200); do
    disk=$(ls -d /sys/class/iscsi_session/session*/device/target*/*:0/block/* 2> ls.err) && break
    sleep 0.05
done
[ -n "$disk" ] || { echo 'no disk appeared'; cat served.err iscsid.log; exit 1; }
sys=$disk
disk=/dev/${disk##*/}
[ "$(cat "$sys/size")" = 524288 ]
[ "$(cat "$sys/queue/discard_max_bytes")" -gt 0 ]
grep -q 'write back' "$sys/device/scsi_disk"/*/cache_type || grep -q 'write back' "$sys/queue/write_cache"
iscsiadm -m session -P1

mkfs.ext4 -q "$disk"
mkdir -p m
mount -o discard "$disk" m
head -c 32M /dev/urandom > m/data
sum=$(md5sum < m/data)
cp m/data m/copy
sync
rm m/data
umount m
fsck.ext4 -fn "$disk"
mount "$disk" m
[ "$(md5sum < m/copy)" = "$sum" ]
umount m
iscsiadm -m node -T "$target" -p 127.0.0.1 --logout
# after the logout and the end of the server, the image has it all
kill -TERM "$server"
wait "$server"
qemu-img check disk.qcow2
qemu-img convert -O raw disk.qcow2 raw
fsck.ext4 -fn raw
echo 'all is well'
INSIDE

expect 0 in_machine --mem 1024 --limit 110 --modules 'iscsi_tcp sd_mod ext4 crc32c_generic' -- \
    bash "$tmp/inside" "$tmp" "$VDISK"
like_output 'all is well'
echo "$output" | grep -E 'Digest|clean|check' || true
