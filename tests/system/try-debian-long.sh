#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk try on real KVM: a command in the demo's Debian, started by its systemd; what
# it prints and its status come back, what it writes does not stay, or where it is to.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 mmdebstrap

guest=$("$TOP/tests/demo" --guest-only | tail -1)
[ -s "$guest" ] || fail 'no guest'
cat > "$tmp/inside" <<'END'
set -eu
disk=$1
export TMPDIR=/tmp/scratch
mkdir "$TMPDIR"
cd "$(mktemp -d -p /tmp try.XXXXXX)"
vdisk create -q -f qcow2 -b "$disk" -F qcow2 base.qcow2
sum=$(sha256sum < base.qcow2)
quiet='loglevel=3 systemd.show_status=false'
rc=0
vdisk try -m 512M --append "$quiet" --keep tried base.qcow2 -- \
    sh -c 'echo "on $(uname -s) as $(id -un)"; echo kept > /root/kept; echo oops >&2; exit 6' \
    > out 2> err || rc=$?
cat err >&2
[ "$rc" = 6 ] || { echo "status $rc"; exit 1; }
grep -x 'on Linux as root' out
grep -qx oops err
[ "$(vdisk cat base.qcow2@tried:/root/kept)" = kept ]
! vdisk cat base.qcow2:/root/kept 2>/dev/null
# the snapshot can be tried in its turn
[ "$(vdisk try -m 512M --append "$quiet" base.qcow2@tried -- cat /root/kept)" = kept ]
vdisk check base.qcow2
vdisk snapshot apply base.qcow2 tried
vdisk fsck -n base.qcow2#p1
[ -z "$(ls -A "$TMPDIR")" ] || { ls -A "$TMPDIR"; exit 1; }
echo tried
END
rc=0
in_machine --modules kvm-amd --mem 1536 --limit 800 -- bash "$tmp/inside" "$guest" > "$tmp/out" 2>&1 || rc=$?
tr -d '\r' < "$tmp/out" | tail -40
[ $rc = 0 ] || fail "it ended with $rc"
grep -qx tried "$tmp/out" || fail 'it did not come to its end'
