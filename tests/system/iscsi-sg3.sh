#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# sg3_utils against us through the kernel's initiator, in the throw-away machine: its
# decoders find no fault in any page, and its programs do with the commands what they
# should: opcodes, reservations, COMPARE AND WRITE, copies, provisioning, SANITIZE.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 iscsiadm iscsid sg_inq sg_vpd sg_opcodes sg_persist sg_xcopy

"$VDISK" create -f qcow2 "$tmp/a.qcow2" 64M
"$VDISK" create -f qcow2 "$tmp/b.qcow2" 64M
mkdir "$tmp/state"
chmod 777 "$tmp/state"

cat > "$tmp/inside" <<'INSIDE'
set -eu
trap 'echo "failed at line $LINENO: $BASH_COMMAND"; tail -5 served.err' ERR
cd "$1"
target=iqn.2026-11.test:sg3
"$2" export -p 127.0.0.1:3260 -n "$target" --state-dir state a.qcow2 b.qcow2 > served 2> served.err &
server=$!
for _ in $(seq 200); do grep -q Interrupt served && break; sleep 0.05; done
mkdir -p /run/lock/iscsi /etc/iscsi
echo 'InitiatorName=iqn.2026-11.test:rig' > /etc/iscsi/initiatorname.iscsi
echo 'iscsid.startup = /sbin/iscsid' >> /etc/iscsi/iscsid.conf
iscsid -f > iscsid.log 2>&1 &
sleep 0.3
iscsiadm -m discovery -t sendtargets -p 127.0.0.1 > log
iscsiadm -m node -T "$target" -p 127.0.0.1 --login > log
disk() { ls -d /sys/class/iscsi_session/session*/device/target*/*:"$1"/block/* 2> ls.err; }
for _ in $(seq 200); do disk 0 > log && disk 1 > log && break; sleep 0.05; done
a=/dev/$(basename "$(disk 0)") b=/dev/$(basename "$(disk 1)")

# every page decodes; nothing is said to be wrong, and nothing is left over in hex
decode() { "$@" > page 2>&1 || { echo "$*: $(cat page)"; exit 1; }
    ! grep -iE 'warn|malformed|invalid|too short|truncat|unexpected|bad |unable|response length' page ||
        { echo "$*: $(cat page)"; exit 1; }; }
decode sg_inq -d "$a"
grep -q 'SAM-5' page
for page in 0x00 0x80 0x83 0x86 0x87 0xb0 0xb1 0xb2 0xb4; do decode sg_vpd -p "$page" "$a"; done
decode sg_vpd -p di "$a"
grep -qi 'naa' page
decode sg_opcodes -t "$a"
decode sg_opcodes "$a"
grep -qi 'Compare and write' page && grep -qi 'Persistent reserve out' page
decode sg_opcodes --mask "$a"
decode sg_readcap -l "$a"
grep -q 'lbpme=1' page && grep -q 'lbprz=1' page
decode sg_luns "$a"
decode sg_rtpg -d "$a"
grep -q 'active/optimized' page
decode sg_logs -a "$a"
decode sg_modes -a "$a"
decode sg_requests "$a"
decode sg_get_lba_status "$a"
decode sg_persist -c "$a"
grep -q '(PTPL_C): 1' page

# COMPARE AND WRITE
head -c 512 /dev/zero > zero
head -c 512 /dev/urandom > random
cat zero random > pair
sg_compare_and_write --lba=8 --in=pair "$a" > log 2>&1
! sg_compare_and_write --lba=8 --in=pair "$a" > log 2>&1
dd if="$a" bs=512 skip=8 count=1 iflag=direct 2> log | cmp - random

# (it looks the device up by number, as udev has it)
mkdir -p /dev/block
for d in "$a" "$b"; do ln -sf "$d" "/dev/block/$(cat "/sys/block/${d##*/}/dev")"; done
# a copy inside the server, and what is unmapped reads as zeroes
dd if=/dev/urandom of="$a" bs=1M count=8 oflag=direct 2> log
sg_xcopy if="$a" of="$b" bs=512 count=16384 > log 2>&1 || { cat log; exit 1; }
blockdev --flushbufs "$b"
cmp -n 8388608 "$a" "$b"
sg_unmap --force --lba=0 --num=2048 "$b"
blockdev --flushbufs "$b"
cmp -n 1048576 "$b" /dev/zero
decode sg_get_lba_status --lba=0 "$b"
grep -qi 'deallocated' page
sg_write_same --lba=4096 --num=128 --in=random "$b" > log 2>&1
dd if="$b" bs=512 skip=4223 count=1 iflag=direct 2> log | cmp - random
sg_verify --lba=4096 --count=128 "$b"

# reservations
sg_persist --out --register --param-sark=0xabc --param-aptpl "$a" > log
sg_persist --out --reserve --param-rk=0xabc --prout-type=5 "$a" > log
sg_persist -s "$a" > page
grep -q 'Reservation holder' page || grep -q 'holder' page
grep -q 'iqn.2026-11.test:rig' page
sg_persist --out --release --param-rk=0xabc --prout-type=5 "$a" > log
sg_persist --out --clear --param-rk=0xabc "$a" > log
sg_persist -k "$a" > page
grep -qiE 'there are no|0 registered' page

# SANITIZE, overwriting, to its end
sg_sanitize --overwrite --zero --quick --wait "$b" > log 2>&1 || { cat log; exit 1; }
blockdev --flushbufs "$b"
cmp -n 8388608 "$b" /dev/zero

iscsiadm -m node -T "$target" -p 127.0.0.1 --logout > log
kill -TERM "$server"
wait "$server"
echo 'all is well'
INSIDE

expect 0 in_machine --mem 1024 --limit 110 --modules 'iscsi_tcp sd_mod sg' -- \
    bash "$tmp/inside" "$tmp" "$O/vdiskd"
like_output 'all is well'
