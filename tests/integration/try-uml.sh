#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk try without KVM: the demo's Debian on User-Mode Linux; its systemd starts the command.
. "$(dirname "$0")/../functions.sh"
requires linux.uml mmdebstrap qemu-img busybox mke2fs sfdisk

guest=$("$TOP/tests/demo" --guest-only | tail -1)
[ -s "$guest" ] || fail 'no guest'
mkdir "$tmp/scratch"
export TMPDIR=$tmp/scratch
qemu-img create -q -f qcow2 -b "$guest" -F qcow2 "$tmp/disk.qcow2"
sum=$(sha256sum < "$tmp/disk.qcow2")
rc=0
vdisk try --engine uml --time-limit 300 "$tmp/disk.qcow2" -- \
    sh -c 'echo "on $(uname -s) as $(id -un)"; cat /proc/1/comm; exit 6' > "$tmp/out" 2> "$tmp/err" || rc=$?
[ "$rc" = 6 ] || fail "status $rc: $(cat "$tmp/err")"
[ "$(cat "$tmp/out")" = $'on Linux as root\nsystemd' ] || fail "output: $(cat "$tmp/out")"
[ "$(sha256sum < "$tmp/disk.qcow2")" = "$sum" ] || fail 'the disk has changed'
[ -z "$(ls -A "$TMPDIR")" ] || fail "left: $(ls -A "$TMPDIR")"

# ---- what no image could name: a snapshot, a partition; a small guest, whose init is the command ----

guest_root "$tmp/root" small
mkdir "$tmp/root/boot"
for f in sh cat mount sync mv poweroff sleep mkfifo stty grep uname; do ln -s busybox "$tmp/root/bin/$f"; done
echo '/dev/vda1 / ext4 defaults 0 1' > "$tmp/root/etc/fstab"
truncate -s 40M "$tmp/small.raw"
echo 'start=2048' | sfdisk -q "$tmp/small.raw"
mke2fs -q -t ext4 -d "$tmp/root" -E offset=1048576 "$tmp/small.raw" 39M
qemu-img convert -O qcow2 "$tmp/small.raw" "$tmp/small.qcow2"
try() { # STATUS ARGUMENT...: its output is in $output
    rc=0
    output=$(vdisk try --engine uml --time-limit 100 "${@:2}" 2> "$tmp/err" < /dev/null) || rc=$?
    [ "$rc" = "$1" ] || fail "try ${*:2}: status $rc: $output $(cat "$tmp/err")"
}
expect 0 vdisk snapshot create "$tmp/small.qcow2" clean
expect 0 vdisk rm "$tmp/small.qcow2:/bin/sh"
sum=$(sha256sum < "$tmp/small.qcow2")
try 125 "$tmp/small.qcow2" -- uname
try 3 "$tmp/small.qcow2@clean" -- sh -c 'uname; echo new > /root/new; exit 3'
[ "$output" = Linux ] || fail "output: $output"
[ "$(sha256sum < "$tmp/small.qcow2")" = "$sum" ] || fail 'the disk has changed'
try 0 --commit "$tmp/small.raw#p1" -- sh -c 'echo new > /root/new'
[ "$(vdisk cat "$tmp/small.raw#p1:/root/new")" = new ] || fail 'not committed to the partition'
expect 0 vdisk fsck -n -F "$tmp/small.raw#p1"
[ "$(sfdisk -d "$tmp/small.raw" | grep -c start=)" = 1 ] || fail 'the partition table is gone'
[ -z "$(ls -A "$TMPDIR")" ] || fail "left: $(ls -A "$TMPDIR")"
