#!/bin/bash
# map and measure: the same answers as qemu-img's, in the same JSON fields.
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3
qio() { qemu-io "$@" > /dev/null; }
cd "$tmp"

# same_map FILE: the same runs of data, in the same layers and places.  Where a
# cluster lies on a hole of the image file we see the hole, and qemu-img does not:
# such bytes must be zeroes.
same_map() {
    qemu-img map --output=json "$1" > theirs.json
    "$VDISK" map --json "$1" > ours.json
    qemu-img convert -O raw "$1" flat.raw
    python3 - "$1" << 'PY'
import json, sys

def data(name):
    runs = []
    for e in json.load(open(name)):
        if not e['data']:
            continue
        start, end, depth, at = e['start'], e['start'] + e['length'], e['depth'], e.get('offset')
        last = runs[-1] if runs else None
        if last and last[1] == start and last[2] == depth and (
                at is None and last[3] is None or
                None not in (at, last[3]) and last[3] + start - last[0] == at):
            last[1] = end
        else:
            runs.append([start, end, depth, at])
    return runs

ours, theirs, flat = data('ours.json'), data('theirs.json'), open('flat.raw', 'rb').read()
def bad(why, run):
    sys.exit('%s: %s %s\nours   %s\ntheirs %s' % (sys.argv[1], why, run, ours[:12], theirs[:12]))
for r in ours:
    if not any(t[0] <= r[0] and r[1] <= t[1] and r[2] == t[2] and
               (r[3] is None and t[3] is None or r[3] - t[3] == r[0] - t[0]) for t in theirs):
        bad('qemu-img does not have', r)
for t in theirs:
    at = t[0]
    for r in [r for r in ours if t[0] <= r[0] < t[1]] + [[t[1], t[1]]]:
        if any(flat[at:r[0]]):
            bad('we do not have', [at, r[0]])
        at = r[1]
PY
}

truncate -s 5M a.raw
qio -f raw -c 'write 1M 64k' -c 'write 3M 128k' a.raw
"$VDISK" map a.raw | grep -q data || fail "no table"
same_map a.raw
for o in cluster_size=4K cluster_size=64K cluster_size=2M extended_l2=on compat=0.10; do
    qemu-img create -q -f qcow2 -o "$o" m.qcow2 64M
    qio -c 'write -P 1 3M 100k' -c 'write -P 2 10M 5M' -c 'write -P 3 63M 1M' m.qcow2
    [ "$o" = compat=0.10 ] || qio -c 'write -z 11M 1M' -c 'write -z 40M 64k' m.qcow2
    same_map m.qcow2
done
qemu-img create -q -f qcow2 -b m.qcow2 -F qcow2 top.qcow2
qio -c 'write -P 9 10M 64k' -c 'write -P 9 30M 1M' top.qcow2
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
