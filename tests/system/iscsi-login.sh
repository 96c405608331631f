#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The kernel's initiator and iscsid against vdiskd with a configuration file: CHAP
# with none, one way and both ways, each of its digests; header and data digests;
# IPv6; LUNs by the initiator's name; a reload under the session; cycles of login
# and logout under load.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 iscsiadm iscsid

truncate -s 64M "$tmp/a.img" "$tmp/b.img"
head -c 1M /dev/urandom > "$tmp/data"
cat > "$tmp/conf" <<END
portal 127.0.0.1
portal [::1]
chap-user alice {
    secret-file $tmp/alice
}
chap-user server {
    secret-file $tmp/server
}
target iqn.2026-11.test:open {
    lun 0 $tmp/a.img
}
target iqn.2026-11.test:chap {
    chap alice
    chap-mutual server
    lun 0 $tmp/b.img
    initiator iqn.2026-11.test:nobody
    initiator iqn.2026-11.test:rig {
        luns 0-7
    }
}
target iqn.2026-11.test:hidden {
    lun 0 $tmp/none.img
    initiator iqn.2026-11.test:other
}
END
truncate -s 8M "$tmp/none.img"

cat > "$tmp/inside" <<'INSIDE'
set -eu
cd "$1"
server=$2 cycles=$3
chmod 755 .
chmod 666 ./*.img
printf 'the secret of alice' > alice
printf 'what a server knows' > server
chown 0:65534 alice server
chmod 640 alice server conf
chmod 644 conf
"$server" -v -c conf 2> log &
pid=$!
mkdir -p /run/lock/iscsi /etc/iscsi
echo 'InitiatorName=iqn.2026-11.test:rig' > /etc/iscsi/initiatorname.iscsi
echo 'iscsid.startup = /sbin/iscsid' > /etc/iscsi/iscsid.conf
iscsid -f > iscsid.log 2>&1 &
trap 'status=$?; [ $status = 0 ] || cat log iscsid.log; exit $status' EXIT
for _ in $(seq 400); do grep -q 'listening on \[::1\]' log && break; sleep 0.05; done

open=iqn.2026-11.test:open chap=iqn.2026-11.test:chap
iscsiadm -m discovery -t sendtargets -p 127.0.0.1 | tee found
grep -q "^127.0.0.1:3260,1 $open" found
grep -q "^\[::1\]:3260,1 $open" found
! grep -q hidden found

disk_of() { ls -d /sys/class/iscsi_session/session*/device/target*/*:0/block/* 2> ls.err; }
# login TARGET PORTAL: $disk
login() {
    iscsiadm -m node -T "$1" -p "$2" --login > login.out 2>&1 || return 1
    for _ in $(seq 400); do disk=$(disk_of) && break; sleep 0.05; done
    disk=/dev/${disk##*/}
    [ -b "$disk" ]
}
logout() { iscsiadm -m node -T "$1" -p "$2" --logout > logout.out; }
# set_to TARGET PORTAL NAME VALUE...
set_to() {
    local t=$1 p=$2
    shift 2
    while [ $# -gt 1 ]; do iscsiadm -m node -T "$t" -p "$p" -o update -n "$1" -v "$2"; shift 2; done
}

# digests: in each direction and both, with data through them
for digests in CRC32C,None None,CRC32C CRC32C,CRC32C; do
    set_to $open 127.0.0.1 'node.conn[0].iscsi.HeaderDigest' ${digests%,*} \
        'node.conn[0].iscsi.DataDigest' ${digests#*,}
    login $open 127.0.0.1
    iscsiadm -m session -P2 > session
    grep -q "HeaderDigest: ${digests%,*}" session
    grep -q "DataDigest: ${digests#*,}" session
    dd if=data of="$disk" bs=64k oflag=direct status=none
    dd if="$disk" bs=64k count=16 iflag=direct status=none | cmp - data
    logout $open 127.0.0.1
done
echo 'digests are well'

# IPv6
login $open '[::1]:3260,1'
iscsiadm -m session | grep -q '\[::1\]:3260,1 '"$open"
dd if="$disk" bs=64k count=16 iflag=direct status=none | cmp - data
logout $open '[::1]:3260,1'
echo 'IPv6 is well'

# CHAP
! login $chap 127.0.0.1
grep -qi 'authoriz\|authenti' login.out
set_to $chap 127.0.0.1 node.session.auth.authmethod CHAP node.session.auth.chap_algs MD5 \
    node.session.auth.username alice node.session.auth.password 'the secret of alice'
login $chap 127.0.0.1
dd if=data of="$disk" bs=64k oflag=direct status=none
logout $chap 127.0.0.1
set_to $chap 127.0.0.1 node.session.auth.username_in server \
    node.session.auth.password_in 'what a server knows'
for alg in SHA1 SHA256 SHA3-256; do
    set_to $chap 127.0.0.1 node.session.auth.chap_algs $alg
    login $chap 127.0.0.1
    dd if="$disk" bs=64k count=16 iflag=direct status=none | cmp - data
    logout $chap 127.0.0.1
done
set_to $chap 127.0.0.1 node.session.auth.password_in 'what no server knows'
! login $chap 127.0.0.1
set_to $chap 127.0.0.1 node.session.auth.password_in 'what a server knows' \
    node.session.auth.password 'the secret of alicE'
! login $chap 127.0.0.1
set_to $chap 127.0.0.1 node.session.auth.password 'the secret of alice'
echo 'CHAP is well'

# a reload leaves the session alone; then the initiator is asked to go
login $open 127.0.0.1
dd if=/dev/zero of="$disk" bs=64k count=400 oflag=direct status=none &
dd=$!
sed -i '/^target iqn.2026-11.test:hidden/,/^}/d' conf
kill -HUP $pid
for _ in $(seq 400); do grep -q 'is in force' log && break; sleep 0.05; done
grep -q 'is in force' log
wait $dd
[ "$(grep -c 'closed: session' log)" = 0 ]
logout $open 127.0.0.1
echo 'reload is well'

# cycles, while another session is busy
login $open 127.0.0.1
while dd if=data of="$disk" bs=64k oflag=direct status=none 2> dd.err && [ ! -e stop ]; do :; done &
busy=$!
for i in $(seq "$cycles"); do
    iscsiadm -m node -T $chap -p 127.0.0.1 --login > login.out
    iscsiadm -m node -T $chap -p 127.0.0.1 --logout > logout.out
done
touch stop
wait $busy
dd if="$disk" bs=64k count=16 iflag=direct status=none | cmp - data
logout $open 127.0.0.1
echo "$cycles cycles are well"

kill -TERM $pid
wait $pid
! grep -q 'secret of' log
echo 'all is well'
INSIDE

cycles=4
[ -z "${LONG:-}" ] || cycles=20
expect 0 in_machine --mem 1024 --limit 240 --modules 'iscsi_tcp sd_mod crc32c_generic' -- \
    bash "$tmp/inside" "$tmp" "$O/vdiskd" "$cycles"
like_output 'all is well'
grep 'well' <<< "$output"
