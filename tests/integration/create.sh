#!/bin/bash
# create, with every option: qemu-img opens it, agrees on what it is, and checks it clean.
. "$(dirname "$0")/../functions.sh"
requires qemu-img python3
qio() { qemu-io "$@" > /dev/null; }

# field FILE PATH: a field of "qemu-img info", "a.b" for nested ones
field() {
    qemu-img info --output=json "$1" | python3 -c '
import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."): v = v.get(k) if isinstance(v, dict) else None
print(v)' "$2"
}

is() { [ "$(field "$1" "$2")" = "$3" ] || fail "$1: $2 is $(field "$1" "$2"), not $3"; }

n=0
make() { # make SIZE OPTIONS: both programs agree
    n=$((n + 1))
    "$VDISK" create -f qcow2 ${2:+-o "${2-}"} "$tmp/$n.qcow2" "$1"
    qemu-img check -q "$tmp/$n.qcow2" || fail "qemu-img check after -o ${2-}"
    expect 0 "$VDISK" check "$tmp/$n.qcow2"
    "$VDISK" create -f raw -y "$tmp/zero.raw" "$1"
    qemu-img compare -q "$tmp/zero.raw" "$tmp/$n.qcow2" || fail "not empty after -o ${2-}"
    last=$tmp/$n.qcow2
    is "$last" virtual-size "$(stat -c %s "$tmp/zero.raw")"
}

D=format-specific.data
make 10M
is "$last" format qcow2
is "$last" virtual-size 10485760
is "$last" cluster-size 65536
is "$last" $D.compat 1.1
is "$last" $D.refcount-bits 16
for bits in 512 4K 64K 2M; do make 10M cluster_size=$bits; done
is "$last" cluster-size 2097152
for w in 1 2 4 8 16 32 64; do make 3M refcount_bits=$w; is "$last" $D.refcount-bits $w; done
make 10M compat=0.10; is "$last" $D.compat 0.10
make 10M compat=1.1,lazy_refcounts=on; is "$last" $D.lazy-refcounts True
make 10M extended_l2=on; is "$last" $D.extended-l2 True
make 10M compression_type=zstd; is "$last" $D.compression-type zstd
make 0
make 512
make 1536
make 1T
for p in metadata falloc full; do make 8M preallocation=$p; done
[ "$(stat -c %b "$last")" -ge 16384 ] || fail "preallocation=full left holes"
make 10M "data_file=$tmp/data.bin,data_file_raw=on"
is "$last" $D.data-file-raw True

# the other way round: what qemu-img makes with these, we call the same
for o in compat=0.10 cluster_size=512 refcount_bits=1 lazy_refcounts=on extended_l2=on \
    compression_type=zstd preallocation=metadata; do
    qemu-img create -q -f qcow2 -o "$o" "$tmp/q.qcow2" 5M
    expect 0 "$VDISK" check "$tmp/q.qcow2"
    "$VDISK" info --json "$tmp/q.qcow2" > "$tmp/info.json"
    python3 - "$tmp/info.json" << 'PY'
import json, sys
i = json.load(open(sys.argv[1]))
assert i['format'] == 'qcow2' and i['virtual-size'] == 5 << 20, i
assert i['cluster-size'] in (512, 65536) and i['actual-size'] > 0 and not i['in-use'], i
PY
done

# backing files: size and format are the backing's unless stated
qemu-img create -q -f raw "$tmp/base.raw" 7M
qio -f raw -c 'write -P 9 1M 2M' "$tmp/base.raw"
(cd "$tmp" && "$VDISK" create -q -f qcow2 -b base.raw -F raw over.qcow2)
is "$tmp/over.qcow2" virtual-size 7340032
is "$tmp/over.qcow2" backing-filename base.raw
is "$tmp/over.qcow2" backing-filename-format raw
qemu-img compare -q "$tmp/base.raw" "$tmp/over.qcow2" || fail "an overlay differs from its base"
(cd "$tmp" && "$VDISK" create -q -f qcow2 -b base.raw over2.qcow2 9M)
is "$tmp/over2.qcow2" virtual-size 9437184
is "$tmp/over2.qcow2" backing-filename-format raw
expect 1 "$VDISK" create -f qcow2 -b missing.raw -F raw "$tmp/over3.qcow2"
[ ! -e "$tmp/over3.qcow2" ] || fail "create left a file behind"

# nonsense is refused and leaves nothing
expect 2 "$VDISK" create -f qcow2 -o nonsense=1 "$tmp/bad.qcow2" 1M
for o in cluster_size=1000 cluster_size=4M refcount_bits=3 compat=2 \
    compression_type=lzma compat=0.10,extended_l2=on compat=0.10,refcount_bits=8; do
    expect 1 "$VDISK" create -f qcow2 -o "$o" "$tmp/bad.qcow2" 1M
    [ ! -e "$tmp/bad.qcow2" ] || fail "-o $o left a file behind"
done
expect 1 "$VDISK" create -f nosuch "$tmp/bad" 1M
expect 2 "$VDISK" create "$tmp/bad"
