#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# qcow2-peers.sh - QEMU writes and we read, we write and QEMU reads, in every kind of image
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3 "$VDISK"
cd "$tmp"


same() { cmp "$1" "$2" >&2 || fail "$3: the contents differ"; }
clean() { qemu-img check -q "$1" >&2 || fail "$2: qemu-img check finds something"; }

# ---- the contents: data, zeroes, compressible things, odd places ----
python3 - <<'PY'
import random
r = random.Random(7)
d = bytearray(5 * 1024 * 1024 + 512)
for i in range(60):
    n = r.choice([100, 512, 4096, 65536, 200000])
    at = r.randrange(len(d) - n)
    kind = r.randrange(3)
    d[at:at + n] = bytes(n) if kind == 0 else r.randbytes(n) if kind == 1 else bytes([r.randrange(256)]) * n
open('data.raw', 'wb').write(d)
b = bytearray(r.randbytes(3 * 1024 * 1024))
open('base.raw', 'wb').write(b)
PY
qemu-img convert -O qcow2 base.raw base.qcow2

# What QEMU makes of an image: writes, zeroes, discards, in place and new
script() {
    printf '%s\n' 'write -P 1 0 100k' 'write -P 2 777k 3k' 'write -z 64k 128k' \
        'write -z -u 1M 300k' 'discard 512k 128k' 'write -P 3 520k 1k' 'write -P 4 2M 700k' \
        'write -z 2100k 33k' 'write -P 5 3145000 1000' 'write -z 2200k 2k'
}

# by_qemu NAME CREATE-OPTIONS...: made and changed by QEMU, read by us, then changed by us too
by_qemu() {
    local name=$1
    shift
    rm -f i.qcow2 data.bin
    qemu-img create -q -f qcow2 "$@" i.qcow2 5243392 || fail "$name: qemu-img create"
    script | qemu-io -t unsafe -f qcow2 i.qcow2 > io.log 2>&1 || fail "$name: $(cat io.log)"
    qemu-img convert -O raw i.qcow2 want.raw
    "$VDISK" convert -q -y -O raw i.qcow2 got.raw
    same want.raw got.raw "$name, written by QEMU"
    "$VDISK" check -q i.qcow2 || fail "$name: our check of QEMU's image"
    "$VDISK" convert -q -y -n data.raw i.qcow2 || fail "$name: writing into QEMU's image"
    clean i.qcow2 "$name"
    qemu-img compare -q data.raw i.qcow2 || fail "$name, written by us over QEMU: differs"
    script | qemu-io -t unsafe -f qcow2 i.qcow2 > io.log 2>&1 || fail "$name: $(cat io.log)"
    clean i.qcow2 "$name, once more"
    qemu-img convert -O raw i.qcow2 want.raw
    "$VDISK" convert -q -y -O raw i.qcow2 got.raw
    same want.raw got.raw "$name, written by both"
}

# by_us NAME CONVERT-OPTIONS...: ours from the start, read and then changed by QEMU
by_us() {
    local name=$1
    shift
    rm -f i.qcow2 data.bin
    "$VDISK" convert -q -O qcow2 "$@" data.raw i.qcow2 || fail "$name: convert"
    clean i.qcow2 "$name"
    qemu-img compare -q data.raw i.qcow2 || fail "$name: QEMU reads something else"
    script | qemu-io -t unsafe -f qcow2 i.qcow2 > io.log 2>&1 || fail "$name: $(cat io.log)"
    clean i.qcow2 "$name, changed by QEMU"
    qemu-img convert -O raw i.qcow2 want.raw
    "$VDISK" convert -q -y -O raw i.qcow2 got.raw
    same want.raw got.raw "$name, changed by QEMU"
}

for o in cluster_size=512 cluster_size=1k cluster_size=4k cluster_size=64k cluster_size=2M \
    refcount_bits=1 refcount_bits=2 refcount_bits=4 refcount_bits=8 refcount_bits=32 \
    refcount_bits=64,cluster_size=512 compat=0.10 compat=0.10,cluster_size=512 \
    lazy_refcounts=on extended_l2=on extended_l2=on,cluster_size=16k \
    extended_l2=on,cluster_size=2M preallocation=metadata preallocation=falloc \
    extended_l2=on,preallocation=metadata compression_type=zstd \
    data_file=data.bin data_file=data.bin,data_file_raw=on \
    data_file=data.bin,extended_l2=on; do
    by_qemu "$o" -o "$o"
    by_us "$o" -o "$o"
done
cmp -n 5243392 data.raw data.bin >/dev/null 2>&1 || [ -s data.bin ] || fail "no data file"
for base in base.raw base.qcow2; do
    for o in cluster_size=64k cluster_size=4k extended_l2=on compat=0.10; do
        by_qemu "backing $base, $o" -b $base -F "${base##*.}" -o "$o"
    done
done

# ---- compressed clusters ----
for o in cluster_size=512 cluster_size=4k cluster_size=64k cluster_size=2M \
    cluster_size=64k,refcount_bits=1 cluster_size=4k,refcount_bits=2 compat=0.10 \
    extended_l2=on compression_type=zstd compression_type=zstd,cluster_size=2M; do
    qemu-img convert -c -O qcow2 -o "$o" data.raw q.qcow2
    "$VDISK" convert -q -y -O raw q.qcow2 got.raw
    same data.raw got.raw "compressed by QEMU, $o"
    "$VDISK" check -q q.qcow2 || fail "compressed by QEMU, $o: our check"
    by_us "compressed, $o" -c -o "$o"
done
"$VDISK" convert -q -y -c -o compression_level=best -O qcow2 data.raw i.qcow2
qemu-img compare -q data.raw i.qcow2 || fail "compression_level=best differs"

# a reader that inflates 4 KiB at a time, with the window that QEMU has
"$VDISK" convert -q -y -c -O qcow2 "$(command -v qemu-io)" small.qcow2
python3 - <<'PY' || fail "a stream looks back further than 4 KiB"
import struct, zlib
f = open('small.qcow2', 'rb').read()
bits, = struct.unpack('>I', f[20:24])
l1n, l1 = struct.unpack('>IQ', f[36:48])
seen = 0
for i in range(l1n):
    l2 = struct.unpack('>Q', f[l1 + 8 * i:l1 + 8 * i + 8])[0] & 0x00fffffffffffe00
    for j in range(0, 1 << bits if l2 else 0, 8):
        e, = struct.unpack('>Q', f[l2 + j:l2 + j + 8])
        if not e >> 62 & 1:
            continue
        x = 62 - (bits - 8)
        off = e & ((1 << x) - 1)
        end = off + ((e & ((1 << 62) - 1)) >> x) * 512 + 512 - off % 512
        z, out, data = zlib.decompressobj(-12), 0, f[off:end]
        while not z.eof:
            piece = z.decompress(data, 4096)
            data = z.unconsumed_tail
            out += len(piece)
            if not piece and not data:
                break
        assert z.eof and out == 1 << bits, (i, j, out)
        seen += 1
assert seen > 3, seen
PY

# ---- snapshots, in both directions ----
for o in cluster_size=64k cluster_size=4k,refcount_bits=8 extended_l2=on compat=0.10; do
    rm -f s.qcow2
    qemu-img convert -O qcow2 -o "$o" data.raw s.qcow2
    qemu-img snapshot -c theirs s.qcow2
    script | qemu-io -t unsafe -f qcow2 s.qcow2 >/dev/null
    qemu-img convert -O raw s.qcow2 second.raw
    "$VDISK" snapshot -q create s.qcow2 ours
    clean s.qcow2 "$o: snapshot create"
    "$VDISK" convert -q -y -n base.raw s.qcow2
    clean s.qcow2 "$o: writing after a snapshot"
    qemu-img convert -l ours -O raw s.qcow2 got.raw
    same second.raw got.raw "$o: our snapshot, read by QEMU"
    "$VDISK" convert -q -y -O raw s.qcow2@theirs got.raw
    same data.raw got.raw "$o: QEMU's snapshot, read by us"
    "$VDISK" snapshot -q -y apply s.qcow2 theirs
    clean s.qcow2 "$o: snapshot apply"
    qemu-img compare -q data.raw s.qcow2 || fail "$o: applied, QEMU reads something else"
    qemu-img snapshot -a ours s.qcow2
    "$VDISK" convert -q -y -O raw s.qcow2 got.raw
    same second.raw got.raw "$o: QEMU applied our snapshot"
    "$VDISK" snapshot -q -y delete s.qcow2 theirs
    clean s.qcow2 "$o: snapshot delete"
    qemu-img snapshot -d ours s.qcow2
    "$VDISK" check -q s.qcow2 || fail "$o: our check after QEMU's delete"
    qemu-img compare -q second.raw s.qcow2 || fail "$o: after the deletes"
done

# ---- features ----
# poke OFFSET BITS FILE: set bits in a byte
poke() {
    python3 -c 'import sys
f = open(sys.argv[3], "r+b"); f.seek(int(sys.argv[1])); b = f.read(1)[0] | int(sys.argv[2], 0)
f.seek(int(sys.argv[1])); f.write(bytes([b]))' "$1" "$2" "$3"
}
peek() { python3 -c 'import sys; print(open(sys.argv[2], "rb").read()[int(sys.argv[1])])' "$1" "$2"; }

qemu-img convert -O qcow2 data.raw f.qcow2
poke 79 0x40 f.qcow2
expect 1 "$VDISK" info f.qcow2
like_output 'incompatible feature bit 6'
python3 - <<'PY'
# give the unknown bit a name in the table
f = open('f.qcow2', 'r+b'); d = bytearray(f.read(65536))
at = d.index(b'\x68\x03\xf8\x57') + 8
d[at:at + 48] = bytes([0, 6]) + b'time travel'.ljust(46, b'\0')
f.seek(0); f.write(d)
PY
expect 1 "$VDISK" info f.qcow2
like_output 'time travel'

qemu-img convert -O qcow2 data.raw f.qcow2
poke 95 0x80 f.qcow2			# an autoclear bit nobody knows
"$VDISK" convert -q -y -O raw f.qcow2 got.raw
[ "$(peek 95 f.qcow2)" = 128 ] || fail "reading cleared an autoclear bit"
"$VDISK" convert -q -y -n base.raw f.qcow2
[ "$(peek 95 f.qcow2)" = 0 ] || fail "writing left an unknown autoclear bit"

poke 79 2 f.qcow2			# corrupt
"$VDISK" convert -q -y -O raw f.qcow2 got.raw || fail "a corrupt image cannot be read"
expect 1 "$VDISK" convert -q -y -n base.raw f.qcow2
like_output 'corrupt'
"$VDISK" check -q --repair -y f.qcow2 || true
"$VDISK" convert -q -y -n base.raw f.qcow2 || fail "after the repair it cannot be written"

# dirty: what qemu-io leaves when it is killed
qemu-img create -q -f qcow2 -o lazy_refcounts=on f.qcow2 4M
qemu-io -f qcow2 -c 'write -P 9 0 1M' -c flush -c 'sigraise 9' f.qcow2 >/dev/null 2>&1 || true
[ "$(peek 79 f.qcow2)" = 1 ] || fail "QEMU left no dirty bit"
"$VDISK" convert -q -y -n data.raw f.qcow2 2>/dev/null && fail "a small disk took a larger one"
head -c 2M data.raw > part.raw
"$VDISK" convert -q -y -n part.raw f.qcow2 || fail "a dirty image cannot be written"
[ "$(peek 79 f.qcow2)" = 0 ] || fail "the dirty bit stays"
clean f.qcow2 "dirty image"

# what we do not know of a header survives
qemu-img convert -O qcow2 data.raw f.qcow2
python3 - <<'PY'
import struct
f = open('f.qcow2', 'r+b'); d = bytearray(f.read(65536))
at = 112
while d[at:at + 4] != b'\0\0\0\0':
    at += 8 + (struct.unpack('>I', d[at + 4:at + 8])[0] + 7) // 8 * 8
d[at:at + 24] = struct.pack('>II', 0x12345678, 11) + b'hello world\0\0\0\0\0'
f.seek(0); f.write(d)
PY
"$VDISK" rebase -q -y -u -b base.raw -F raw f.qcow2 2>/dev/null ||
    "$VDISK" amend -q -o backing_file=base.raw,backing_fmt=raw f.qcow2
grep -q 'hello world' f.qcow2 || fail "an unknown header extension is gone"
qemu-img info f.qcow2 | grep -q 'base.raw' || fail "the backing file is not set"

# bitmaps: in use once we have written, and still there
qemu-img convert -O qcow2 data.raw b.qcow2
qemu-img bitmap --add b.qcow2 one
qemu-img bitmap --add --disable b.qcow2 two
"$VDISK" convert -q -y -n base.raw b.qcow2
qemu-img info --output=json b.qcow2 | python3 -c '
import json, sys
b = {x["name"]: x["flags"] for x in json.load(sys.stdin)["format-specific"]["data"]["bitmaps"]}
assert "in-use" in b["one"] and "in-use" not in b["two"], b' || fail "bitmaps are not marked"
clean b.qcow2 "bitmaps"
expect 1 "$VDISK" resize b.qcow2 1G
like_output 'bitmaps'

# encrypted: refused, with the reason
# (qemu-img times its key derivation, and gives up where the processor's clock did not advance
# between its two looks at it, so now and then on a busy virtual machine: ask again)
luks_image() {
    qemu-img create -q -f qcow2 --object secret,id=s,data=abc \
        -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 e.qcow2 1M
}
wait_for 30 luks_image
expect 1 "$VDISK" convert -O raw e.qcow2 got.raw
like_output 'LUKS'

# ---- resize and amend ----
for o in cluster_size=64k cluster_size=512 extended_l2=on compat=0.10 refcount_bits=64,cluster_size=512; do
    qemu-img convert -O qcow2 -o "$o" data.raw r.qcow2
    "$VDISK" resize -q -y r.qcow2 40M
    clean r.qcow2 "$o: grown"
    cp data.raw want.raw
    truncate -s 40M want.raw
    qemu-img compare -q want.raw r.qcow2 || fail "$o: grown, differs"
    "$VDISK" resize -q -y r.qcow2 1000448
    clean r.qcow2 "$o: shrunk"
    "$VDISK" resize -q -y r.qcow2 3M
    clean r.qcow2 "$o: grown again"
    truncate -s 1000448 want.raw
    truncate -s 3M want.raw
    cmp want.raw <("$VDISK" convert -q -y -O raw r.qcow2 got.raw; cat got.raw) ||
        fail "$o: old data came back"
done
qemu-img create -q -f qcow2 -b base.raw -F raw r.qcow2 1M
"$VDISK" resize -q r.qcow2 4M
head -c 1M base.raw > want.raw
truncate -s 4M want.raw
qemu-img compare -q want.raw r.qcow2 || fail "the backing file shows behind the old end"

qemu-img convert -O qcow2 data.raw a.qcow2
for o in refcount_bits=64 refcount_bits=1 refcount_bits=16 lazy_refcounts=on lazy_refcounts=off \
    compat=0.10 compat=1.1 refcount_bits=8; do
    "$VDISK" amend -q -y -o "$o" a.qcow2 || fail "amend $o"
    clean a.qcow2 "amend $o"
    qemu-img compare -q data.raw a.qcow2 || fail "amend $o: differs"
done
expect 1 "$VDISK" amend -o cluster_size=4k a.qcow2

# ---- measure ----
for o in cluster_size=64k cluster_size=512 cluster_size=2M refcount_bits=1 refcount_bits=64 \
    extended_l2=on compat=0.10 preallocation=full; do
    for size in 0 1M 1000000 10G 64G; do
        qemu-img measure --output=json -O qcow2 -o "$o" --size $size > q.json
        "$VDISK" measure --json -O qcow2 -o "$o" --size $size > v.json
        python3 - <<'PY' || fail "measure $o --size $size: $(cat q.json v.json)"
import json
q, v = json.load(open('q.json')), json.load(open('v.json'))
assert q['required'] == v['required'] and q['fully-allocated'] == v['fully-allocated']
PY
    done
done
