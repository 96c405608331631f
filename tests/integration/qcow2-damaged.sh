#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# qcow2-damaged.sh - our check and QEMU's agree on damaged images, and on what we repaired
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3

cd "$tmp"

# a version that we do not know makes no raw disk
printf 'QFI\xfb\0\0\0\x09' > future
truncate -s 1M future
qemu-img create -q -f qcow past 1M
for f in future:9 past:1; do
    expect 1 "$VDISK" info "${f%:*}"
    like_output "version ${f#*:} is not supported"
done
expect 0 "$VDISK" info -f raw future
rm future past

# ---- whole images to damage ----

qemu-img create -q -f qcow2 -o cluster_size=4k plain 8M
qemu-io -f qcow2 -c 'write -q -P 1 0 2M' -c 'write -q -P 2 4M 1M' -c 'write -q -z 6M 64k' \
    -c 'write -q -c -P 3 7M 32k' plain > /dev/null
cp plain snap
qemu-img snapshot -c one snap
qemu-io -f qcow2 -c 'write -q -P 4 0 64k' snap > /dev/null
qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k v2 8M
qemu-io -f qcow2 -c 'write -q -P 1 0 2M' v2 > /dev/null
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=16k ext 8M
qemu-io -f qcow2 -c 'write -q -P 1 0 1M' -c 'write -q -P 2 2M 1k' ext > /dev/null
for bits in 1 2 8 32 64; do
    qemu-img create -q -f qcow2 -o refcount_bits=$bits,cluster_size=4k refs$bits 8M
    qemu-io -f qcow2 -c 'write -q -P 1 0 2M' refs$bits > /dev/null
done
qemu-img create -q -f qcow2 -o cluster_size=4k maps 8M
qemu-img bitmap --add -g 4k maps one
qemu-io -f qcow2 -c 'write -q -P 1 0 2M' maps > /dev/null
qemu-img create -q -f qcow2 -o data_file=data.raw,cluster_size=4k data 8M
qemu-io -f qcow2 -c 'write -q -P 1 0 2M' data > /dev/null

cat > damage.py <<'PY'
"""damage.py KIND IMAGE: change some bytes of a qcow2 image"""
import struct, sys
kind, path = sys.argv[1:]
f = open(path, 'r+b')
def get(off, size=8):
    f.seek(off)
    return int.from_bytes(f.read(size), 'big')
def put(off, value, size=8):
    f.seek(off)
    f.write(value.to_bytes(size, 'big'))
bits = get(20, 4)
cs = 1 << bits
order = get(96, 4) if get(4, 4) == 3 else 4
entry = 16 if get(4, 4) == 3 and get(72) & 16 else 8
l1, table, snaps = get(40), get(48), get(64)
mask = 0x00fffffffffffe00
copied = 1 << 63
f.seek(0, 2)
end = (f.tell() + cs - 1) // cs * cs
def l2(i=0):
    return get(l1 + 8 * i) & mask
def l2_entry(i):
    per = cs // entry
    return l2(i // per) + i % per * entry
def refcount(cluster, value):
    width = 1 << order
    block = get(table + (cluster * width // 8 // cs) * 8)
    bit = cluster * width % (cs * 8)
    if width >= 8:
        put(block + bit // 8, value, width // 8)
    else:
        old = get(block + bit // 8, 1)
        m = ((1 << width) - 1) << bit % 8
        put(block + bit // 8, old & ~m | value << bit % 8, 1)
def data(i):
    return get(l2_entry(i)) & mask
compressed = 7 * 1024 * 1024 // cs
kinds = {
    'refcount-zero': lambda: refcount(data(5) // cs, 0),
    'refcount-high': lambda: refcount(data(5) // cs, 3),
    'refcount-l1-zero': lambda: refcount(l1 // cs, 0),
    'refcount-l2-zero': lambda: refcount(l2() // cs, 0),
    'refcount-compressed-low': lambda: refcount((get(l2_entry(compressed)) & (1 << 54) - 1) // cs, 1),
    'leaked-cluster': lambda: (f.truncate(end + 2 * cs), refcount(end // cs + 1, 1)),
    'leaked-by-entry': lambda: put(l2_entry(5), 0),
    'not-copied': lambda: put(l2_entry(5), data(5)),
    'copied-shared': lambda: put(l2_entry(100), get(l2_entry(100)) | copied),
    'l1-not-copied': lambda: put(l1, l2()),
    'l1-reserved': lambda: put(l1, get(l1) | 1 << 60),
    'l1-unaligned': lambda: put(l1, get(l1) + 512),
    'l1-outside': lambda: put(l1, end + 64 * cs | copied),
    'l2-reserved': lambda: put(l2_entry(5), get(l2_entry(5)) | 2),
    'l2-unaligned': lambda: put(l2_entry(5), get(l2_entry(5)) + 512),
    'l2-outside': lambda: put(l2_entry(5), end + 64 * cs | copied),
    'two-entries': lambda: put(l2_entry(6), get(l2_entry(5))),
    'two-l1-entries': lambda: put(l1 + 8, get(l1)),
    'data-in-l1': lambda: put(l2_entry(5), l1 | copied),
    'data-in-refblock': lambda: put(l2_entry(5), get(table) | copied),
    'data-in-header': lambda: put(l2_entry(5), copied | l2()),
    'compressed-copied': lambda: put(l2_entry(compressed), get(l2_entry(compressed)) | copied),
    'compressed-outside': lambda: put(l2_entry(compressed), 1 << 62 | end + 64 * cs),
    'reftable-zero': lambda: put(table, 0),
    'reftable-reserved': lambda: put(table, get(table) | 1),
    'reftable-unaligned': lambda: put(table, get(table) + 512),
    'reftable-outside': lambda: put(table, end + 64 * cs),
    'reftable-twice': lambda: put(table + 8, get(table)),
    'refblock-zeroes': lambda: (f.seek(get(table)), f.write(bytes(cs))),
    'refblock-garbage': lambda: (f.seek(get(table)), f.write(b'\x5a' * cs)),
    'cut-off': lambda: f.truncate(data(3 * 1024 * 1024 // 2 // cs)),
    'no-snapshots': lambda: put(60, 0, 4),
    'snapshot-l1-entry': lambda: put(get(snaps), 0),
    'snapshot-l1-unaligned': lambda: put(snaps, get(snaps) + 8),
    'dirty': lambda: put(72, get(72) | 1),
    'corrupt': lambda: put(72, get(72) | 2),
    'dirty-refcount': lambda: (put(72, get(72) | 1), refcount(data(5) // cs, 0)),
    'bitmaps-unmarked': lambda: put(88, 0),
    'ext-both': lambda: put(l2_entry(3) + 8, 0x00000001ffffffff),
    'ext-no-cluster': lambda: put(l2_entry(300) + 8, 1),
}
kinds[kind]()
PY

# ---- comparing verdicts ----

# clean, leaks or corrupt; what was said is in the file "said"
theirs() {
    local status=0
    qemu-img check -f qcow2 "$1" > said 2>&1 || status=$?
    case $status in 0) verdict=clean ;; 3) verdict=leaks ;; *) verdict=corrupt ;; esac
}
ours() {
    local status=0
    "$VDISK" check -f qcow2 --json "${@:2}" "$1" > said 2>&1 || status=$?
    verdict=corrupt
    ! grep -qE '"(corruptions|check-errors)": 0*[1-9]' said || return 0
    verdict=leaks
    if grep -q '"leaks": 0' said; then verdict=clean; fi
    [ "$status" = "$([ $verdict = clean ] && echo 0 || echo 3)" ] || fail "exit status $status: $(head said)"
}
# both NAME IMAGE VERDICT WHEN
both() {
    theirs "$2"
    [ "$verdict" = "$3" ] || fail "$1: qemu-img says $verdict, not $3, $4: $(head said)"
    ours "$2"
    [ "$verdict" = "$3" ] || fail "$1: we say $verdict, not $3, $4: $(head said)"
}
quiet() { "$@" > said 2>&1 && [ ! -s said ]; }

kinds=0
# try BASE KIND VERDICT [lost]: damage, compare verdicts, repair, compare again.
# "lost": the damage took data with it, so only readability is asked for.
try() {
    local base=$1 kind=$2 want=$3 lost=${4:-} name="$1 $2"
    kinds=$((kinds + 1))
    cp "$base" x
    python3 damage.py "$kind" x
    both "$name" x "$want" "when damaged"
    if [ "$want" = leaks ]; then
        cp x y
        ours y --repair=leaks
        both "$name" y clean "with leaks repaired"
        qemu-img compare -q -f qcow2 -F qcow2 x y 2> /dev/null ||
            fail "$name: freeing leaks changed the data"
    fi
    ours x --repair
    [ "$verdict" = clean ] || fail "$name: the repair did not succeed: $(head said)"
    both "$name" x clean "when repaired"
    if [ -n "$lost" ]; then
        quiet qemu-io -f qcow2 -r -c 'read -q 0 8M' x || fail "$name: unreadable: $(head said)"
    else
        qemu-img compare -q -f qcow2 -F qcow2 "$base" x || fail "$name: the repair changed the data"
    fi
    # and it can be used again
    quiet qemu-io -f qcow2 -c 'write -q -P 9 0 4M' -c 'read -q -P 9 0 4M' x ||
        fail "$name: cannot be written: $(head said)"
    theirs x
    [ "$verdict" = clean ] || fail "$name: damaged after writing: $(head said)"
}

for base in plain snap v2 ext refs1 refs2 refs8 refs32 refs64 maps data; do
    both "$base" "$base" clean "when whole"
done
try plain refcount-zero corrupt
try plain refcount-high corrupt
try plain refcount-l1-zero corrupt
try plain refcount-l2-zero corrupt
try plain refcount-compressed-low corrupt
try plain leaked-cluster leaks
try plain leaked-by-entry leaks lost
try plain not-copied corrupt
try snap copied-shared corrupt
try plain l1-not-copied corrupt
try plain l1-reserved corrupt
try plain l1-unaligned corrupt lost
try plain l2-reserved corrupt
try plain l2-unaligned corrupt lost
try plain l2-outside corrupt lost
try plain two-entries corrupt lost
try plain two-l1-entries corrupt lost
try plain data-in-l1 corrupt lost
try plain data-in-refblock corrupt lost
try plain data-in-header corrupt lost
try plain compressed-copied corrupt
try plain compressed-outside corrupt lost
try plain reftable-zero corrupt
try plain reftable-reserved corrupt
try plain reftable-unaligned corrupt
try plain reftable-outside corrupt
try plain reftable-twice corrupt
try plain refblock-zeroes corrupt
try plain refblock-garbage corrupt
try plain cut-off corrupt lost
try plain dirty clean
try plain corrupt clean
try plain dirty-refcount corrupt
try snap no-snapshots leaks
try snap snapshot-l1-entry leaks
try v2 refcount-zero corrupt
try v2 l2-unaligned corrupt lost
try ext ext-both corrupt lost
try ext ext-no-cluster corrupt lost
try maps bitmaps-unmarked leaks
for bits in 2 8 32 64; do
    try refs$bits refcount-high corrupt
    try refs$bits refcount-zero corrupt
    try refs$bits reftable-zero corrupt
done
try refs1 refcount-zero corrupt
try refs1 leaked-cluster leaks
try refs1 refblock-zeroes corrupt
echo "$kinds damaged images"
