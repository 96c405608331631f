#!/bin/bash
# convert and compare: both directions, against qemu-img, with odd sizes and chains.
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3
qio() { qemu-io "$@" > /dev/null; }

same() { qemu-img compare -q "$@" || fail "differ: $*"; }

# a disk of an odd size with data at odd places
qemu-img create -q -f raw "$tmp/src.raw" $((37 * 1048576 + 1536))
python3 - "$tmp/src.raw" << 'PY'
import random, sys
random.seed(5)
with open(sys.argv[1], 'r+b') as f:
    end = f.seek(0, 2)
    for i in range(60):
        at, n = random.randrange(end), random.choice((1, 511, 4096, 65536, 300000))
        f.seek(at)
        f.write((random.randbytes(n) if i % 2 else b'text and more text ' * (n // 19 + 1))[:min(n, end - at)])
PY

# raw to every kind of qcow2, and back
for o in '' cluster_size=512 cluster_size=4K cluster_size=2M compat=0.10 extended_l2=on \
    refcount_bits=1 refcount_bits=64 lazy_refcounts=on preallocation=metadata; do
    "$VDISK" convert ${o:+-o "$o"} "$tmp/src.raw" "$tmp/ours.qcow2" -y
    qemu-img check -q "$tmp/ours.qcow2" || fail "check after -o $o"
    same "$tmp/src.raw" "$tmp/ours.qcow2"
    "$VDISK" convert -y -O raw "$tmp/ours.qcow2" "$tmp/back.raw"
    cmp "$tmp/src.raw" "$tmp/back.raw" || fail "back from -o $o"
    qemu-img convert -O qcow2 ${o:+-o "$o"} "$tmp/src.raw" "$tmp/theirs.qcow2"
    "$VDISK" convert -y -O raw "$tmp/theirs.qcow2" "$tmp/back.raw"
    cmp "$tmp/src.raw" "$tmp/back.raw" || fail "from qemu-img's -o $o"
    expect 0 "$VDISK" compare "$tmp/theirs.qcow2" "$tmp/ours.qcow2"
done

# compressed, both codecs, several cluster sizes; the same input gives the same file
for type in zlib zstd; do
    for cs in 4K 64K 2M; do
        "$VDISK" convert -y -c -o "compression_type=$type,cluster_size=$cs" "$tmp/src.raw" "$tmp/c.qcow2"
        qemu-img check -q "$tmp/c.qcow2" || fail "check of $type $cs"
        same "$tmp/src.raw" "$tmp/c.qcow2"
        "$VDISK" convert -y "$tmp/c.qcow2" "$tmp/back.raw"
        cmp "$tmp/src.raw" "$tmp/back.raw" || fail "back from $type $cs"
        "$VDISK" map --json "$tmp/c.qcow2" > "$tmp/map.json"
        grep -q '"compressed": true' "$tmp/map.json" || fail "nothing compressed"
        "$VDISK" convert -y -c -j 4 -o "compression_type=$type,cluster_size=$cs" "$tmp/src.raw" "$tmp/c4.qcow2"
        cmp "$tmp/c.qcow2" "$tmp/c4.qcow2" || fail "-j changes what -c writes"
        qemu-img convert -c -O qcow2 -o "compression_type=$type,cluster_size=$cs" "$tmp/src.raw" "$tmp/t.qcow2"
        "$VDISK" convert -y "$tmp/t.qcow2" "$tmp/back.raw"
        cmp "$tmp/src.raw" "$tmp/back.raw" || fail "from qemu-img's $type $cs"
    done
done
"$VDISK" convert -y -c -o compression_level=best "$tmp/src.raw" "$tmp/best.qcow2"
same "$tmp/src.raw" "$tmp/best.qcow2"
"$VDISK" convert -y -c "$tmp/src.raw" "$tmp/c.qcow2"
[ "$(stat -c %s "$tmp/best.qcow2")" -le "$(stat -c %s "$tmp/c.qcow2")" ] || fail "best is not best"

# holes stay holes, -S 0 fills them
"$VDISK" convert -y "$tmp/src.raw" "$tmp/sparse.raw"
[ "$(stat -c %b "$tmp/sparse.raw")" -le "$(stat -c %b "$tmp/src.raw")" ] || fail "convert is not sparse"
"$VDISK" convert -y -S 0 "$tmp/src.raw" "$tmp/full.raw"
cmp "$tmp/src.raw" "$tmp/full.raw"
[ $(($(stat -c %b "$tmp/full.raw") * 512)) -ge "$(stat -c %s "$tmp/src.raw")" ] || fail "-S 0 left holes"

# backing chains flatten; -B keeps the base
cd "$tmp"
qemu-img create -q -f raw base.raw 20M
qio -f raw -c 'write -P 1 0 8M' -c 'write -P 2 15M 1M' base.raw
qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2 24M
qio -c 'write -P 3 4M 1M' -c 'write -z 6M 64K' -c 'write -P 4 19M 3M' mid.qcow2
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
qio -c 'write -P 5 4608k 64k' -c 'write -z 15M 512K' -c 'discard 0 64k' top.qcow2
qemu-img convert -O raw top.qcow2 want.raw
"$VDISK" convert -y top.qcow2 got.raw
cmp want.raw got.raw || fail "chain of three"
"$VDISK" convert -y -q -O qcow2 -B mid.qcow2 top.qcow2 copy.qcow2
same want.raw copy.qcow2
[ "$(stat -c %b copy.qcow2)" -lt 2000 ] || fail "-B copied the base"
qemu-img check -q copy.qcow2

# snapshots and partitions are sources too; into an existing target with -n
"$VDISK" snapshot create mid.qcow2 one
qio -c 'write -P 77 0 24M' mid.qcow2
qemu-img convert -l snapshot.name=one -O raw mid.qcow2 want.raw
"$VDISK" convert -y mid.qcow2@one got.raw
cmp want.raw got.raw || fail "convert of a snapshot"
"$VDISK" convert -y -n mid.qcow2 full.raw || fail "-n"
qemu-img convert -O raw mid.qcow2 want.raw
cmp -n "$(stat -c %s want.raw)" want.raw full.raw || fail "-n wrote something else"

# compare: 0 same, 3 different, 1 failed; larger is the same if zeroes follow
cp src.raw other.raw
expect 0 "$VDISK" compare src.raw other.raw
truncate -s +1M other.raw
expect 0 "$VDISK" compare src.raw other.raw
expect 3 "$VDISK" compare -s src.raw other.raw
printf x | dd of=other.raw bs=1 seek=$((20 * 1048576 + 77)) conv=notrunc status=none
expect 3 "$VDISK" compare other.raw ours.qcow2
like_output "$((20 * 1048576 + 77))"
"$VDISK" compare --json other.raw src.raw > cmp.json && fail "compare found nothing"
python3 -c "
import json; r = json.load(open('cmp.json'))
assert r == {'identical': False, 'offset': 20 * 1048576 + 77}, r"
expect 1 "$VDISK" compare src.raw none.raw

# memory does not depend on the disk, and --progress says how far it is
truncate -s 64G huge.raw
"$VDISK" create -f qcow2 -o cluster_size=2M huge.qcow2 64G
qio -f raw -c 'write -P 1 30G 64M' huge.raw
for args in 'huge.raw' '-c -o cluster_size=2M huge.raw' '-c -j 4 src.raw'; do
    # shellcheck disable=SC2086 # a list of arguments
    python3 - "$VDISK" convert -y -O qcow2 $args mem.qcow2 << 'PY' || fail "convert $args"
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
if usage.ru_maxrss > 64 << 10:
    sys.exit('it took %d KiB of memory' % usage.ru_maxrss)
sys.exit(status != 0)
PY
done
expect 0 "$VDISK" convert -y --progress src.raw prog.qcow2
like_output '^convert: 100\.0 %'
