#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The demo's Debian boots on real KVM from a qcow2 with a backing file: kernel,
# initrd and command line out of its own /boot, to the login prompt; a command,
# a clean power-off, and afterwards e2fsck finds nothing.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 expect mmdebstrap

guest=$("$TOP/tests/demo" --guest-only | tail -1)
[ -s "$guest" ] || fail 'no guest'
rc=0
in_machine --modules kvm-amd --mem 1536 --limit 800 -- "$TOP/tests/demo-boot" "$guest" --stats \
    --append 'loglevel=3 systemd.show_status=false' > "$tmp/out" 2>&1 || rc=$?
tr -d '\r' < "$tmp/out" | tail -40
[ $rc = 0 ] || fail "the boot ended with $rc"
grep -q 'login: root' "$tmp/out" || fail 'no login'
grep -q 'debian-root: clean' "$tmp/out" || fail 'e2fsck did not call it clean'
grep -q 'vmm-lite: exits' "$tmp/out" || fail 'the VMM did not end by itself'
