#!/bin/bash
# map and measure: the same answers as qemu-img's, in the same JSON fields.
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3
cd "$tmp"

same_map() { # same_map FILE: equal where it matters: data or not, depth, where
    qemu-img map --output=json "$1" > theirs.json
    "$VDISK" map --json "$1" > ours.json
    python3 - "$1" << 'PY'
import json, sys
def norm(name):
    out = []
    for e in json.load(open(name)):
        # qemu gives every file hole an offset; where nothing is, there is no place
        k = [e['data'], e['depth'] if e['data'] else None, e.get('offset') if e['data'] else None]
        if out and out[-1][2][0] == k[0] and (not k[0] or (out[-1][2][1] == k[1] and
           (k[2] is None and out[-1][2][2] is None or
            (None not in (k[2], out[-1][2][2]) and out[-1][2][2] + out[-1][1] == k[2])))):
            out[-1][1] += e['length']
        else:
            out.append([e['start'], e['length'], k])
    return out
a, b = norm('ours.json'), norm('theirs.json')
if a != b:
    sys.exit('%s: maps differ\nours   %s\ntheirs %s' % (sys.argv[1], a[:12], b[:12]))
PY
}

truncate -s 5M a.raw
qemu-io -q -f raw -c 'write 1M 64k' -c 'write 3M 128k' a.raw
"$VDISK" map a.raw | grep -q data || fail "no table"
same_map a.raw
for o in cluster_size=4K cluster_size=64K cluster_size=2M extended_l2=on compat=0.10; do
    qemu-img create -q -f qcow2 -o "$o" m.qcow2 64M
    qemu-io -q -c 'write -P 1 3M 100k' -c 'write -P 2 10M 5M' -c 'write -P 3 63M 1M' m.qcow2
    [ "$o" = compat=0.10 ] || qemu-io -q -c 'write -z 11M 1M' -c 'write -z 40M 64k' m.qcow2
    same_map m.qcow2
done
qemu-img create -q -f qcow2 -b m.qcow2 -F qcow2 top.qcow2
qemu-io -q -c 'write -P 9 10M 64k' -c 'write -P 9 30M 1M' top.qcow2
same_map top.qcow2
qemu-img convert -c -O qcow2 top.qcow2 packed.qcow2
same_map packed.qcow2

same_measure() {
    local ours theirs
    ours=$("$VDISK" measure --json "$@" | python3 -c 'import json, sys; d = json.load(sys.stdin); print(d["required"], d["fully-allocated"])')
    theirs=$(qemu-img measure --output=json "$@" | python3 -c 'import json, sys; d = json.load(sys.stdin); print(d["required"], d["fully-allocated"])')
    [ "$ours" = "$theirs" ] || fail "measure $*: $ours, qemu-img says $theirs"
}
for o in cluster_size=64K cluster_size=4K cluster_size=2M refcount_bits=1 refcount_bits=64 extended_l2=on; do
    same_measure -O qcow2 -o "$o" m.qcow2
    same_measure -O qcow2 -o "$o" top.qcow2
    for size in 0 1M 100G 1T; do same_measure -O qcow2 -o "$o" --size "$size"; done
done
same_measure -O raw top.qcow2
same_measure -O raw --size 5M
"$VDISK" measure -O qcow2 m.qcow2 | grep -q '^required size: [0-9]' || fail "no text"
