#!/bin/bash
# snapshots: ours and qemu-img's are the same ones.
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3
qio() { qemu-io "$@" > /dev/null; }
cd "$tmp"

for o in cluster_size=64K cluster_size=4K extended_l2=on compat=0.10 refcount_bits=8; do
    rm -f ./*
    qemu-img create -q -f qcow2 -o "$o" d.qcow2 16M
    qio -c 'write -P 1 0 4M' -c 'write -P 2 9M 100k' d.qcow2
    qemu-img convert -O raw d.qcow2 one.raw
    "$VDISK" snapshot create d.qcow2 one
    qio -c 'write -P 3 2M 4M' d.qcow2
    qemu-img snapshot -c two d.qcow2
    qemu-img convert -O raw d.qcow2 two.raw
    qio -c 'write -P 4 0 16M' d.qcow2
    qemu-img convert -O raw d.qcow2 now.raw
    qemu-img check -q d.qcow2 || fail "check ($o)"

    "$VDISK" snapshot list --json d.qcow2 | python3 -c '
import json, sys
s = json.load(sys.stdin)
assert [(x["id"], x["name"]) for x in s] == [("1", "one"), ("2", "two")], s
assert all(x["virtual-size"] == 16 << 20 and x["date-sec"] > 1e9 for x in s), s'
    "$VDISK" snapshot list d.qcow2 | grep -q two || fail "no table"
    qemu-img snapshot -l d.qcow2 | grep -q one || fail "qemu-img does not see ours"

    for s in one two; do
        "$VDISK" compare "d.qcow2@$s" $s.raw > /dev/null || fail "@$s ($o)"
        qemu-img convert -l snapshot.name=$s -O raw d.qcow2 x.raw
        cmp x.raw $s.raw || fail "qemu-img reads @$s otherwise ($o)"
    done
    expect 0 "$VDISK" compare d.qcow2 now.raw
    "$VDISK" snapshot apply d.qcow2 one
    qemu-img compare -q d.qcow2 one.raw || fail "apply ($o)"
    qemu-img check -q d.qcow2 || fail "check after apply ($o)"
    qemu-img snapshot -a two d.qcow2
    expect 0 "$VDISK" compare d.qcow2 two.raw
    "$VDISK" snapshot delete d.qcow2 1
    qemu-img check -q d.qcow2 || fail "check after delete ($o)"
    expect 1 "$VDISK" snapshot apply d.qcow2 one
    "$VDISK" snapshot delete d.qcow2 two
    [ -z "$(qemu-img snapshot -l d.qcow2)" ] || fail "snapshots are left"
    qemu-img check -q d.qcow2 || fail "check after the last delete ($o)"
    qemu-img compare -q d.qcow2 two.raw || fail "delete changed the disk ($o)"
done

expect 1 "$VDISK" info d.qcow2@none
expect 2 "$VDISK" snapshot rename d.qcow2 x
expect 2 "$VDISK" snapshot create d.qcow2
"$VDISK" create r.raw 1M
expect 1 "$VDISK" snapshot create r.raw x
qemu-img create -q -f qcow2 -o refcount_bits=1 one.qcow2 1M
expect 1 "$VDISK" snapshot create one.qcow2 x	# one bit cannot count to two
qemu-img check -q one.qcow2
