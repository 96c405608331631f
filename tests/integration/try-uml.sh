#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk try without KVM: the demo's Debian on User-Mode Linux; its systemd starts the command.
. "$(dirname "$0")/../functions.sh"
requires linux.uml mmdebstrap qemu-img

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
