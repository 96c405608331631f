#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vmdk.sh - VMware's images: QEMU writes and we read, we write and QEMU reads
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3 mke2fs sfdisk "$VDISK"
cd "$tmp"

same() { qemu-img compare -q "$1" "$2" >&2 || fail "$3: the contents differ"; }
clean() {
    qemu-img check -q "$1" >&2 || fail "$2: qemu-img check finds something"
    "$VDISK" check -q "$1" >&2 || fail "$2: our check finds something"
}
refuses() {	# WORDS COMMAND...: it fails, and says so
    local words=$1
    shift
    "$@" > out 2>&1 && fail "not refused: $*"
    grep -q -- "$words" out || fail "not '$words': $(cat out)"
}

# ---- a disk with a partition, files, compressible and other things ----
truncate -s 70M fs
head -c 3000000 /dev/urandom > blob
mkdir tree && cp blob tree/ && seq 200000 > tree/numbers
mke2fs -q -F -t ext4 -d tree fs
truncate -s 80M disk.raw
sfdisk -q disk.raw <<< '2048,143360,L'
dd if=fs of=disk.raw bs=1M seek=1 conv=notrunc status=none

script() {
    printf '%s\n' 'write -P 1 0 100k' 'write -P 2 777k 3k' 'write -z 64k 128k' \
        'write -z -u 1M 300k' 'discard 512k 128k' 'write -P 3 520k 1k' 'write -P 4 2M 700k' \
        'write -z 2100k 33k' 'write -P 5 3145000 1000' 'write -P 6 40M 1M'
}

for sub in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
    # QEMU's, written by QEMU, then by us
    qemu-img convert -O vmdk -o subformat=$sub disk.raw q.vmdk
    "$VDISK" compare -q disk.raw q.vmdk || fail "$sub, made by QEMU"
    script | qemu-io -f vmdk q.vmdk > io.log 2>&1 || fail "$sub: $(cat io.log)"
    qemu-img convert -O raw q.vmdk want.raw
    "$VDISK" compare -q want.raw q.vmdk || fail "$sub, written by QEMU"
    clean q.vmdk "$sub, written by QEMU"
    "$VDISK" convert -q -y -n disk.raw q.vmdk || fail "$sub: writing into QEMU's image"
    same disk.raw q.vmdk "$sub, written by both"
    clean q.vmdk "$sub, written by both"
    # an extent by itself is read only
    if [ $sub = twoGbMaxExtentSparse ]; then
        "$VDISK" compare -q disk.raw q-s001.vmdk || fail 'an extent by itself'
        refuses 'can only be read' "$VDISK" convert -y -n disk.raw q-s001.vmdk
    fi
    # ours, written by QEMU
    "$VDISK" convert -q -O vmdk -o subformat=$sub disk.raw v.vmdk || fail "$sub: convert"
    same disk.raw v.vmdk "$sub, made by us"
    script | qemu-io -f vmdk v.vmdk > io.log 2>&1 || fail "$sub: $(cat io.log)"
    same want.raw v.vmdk "$sub, made by us, written by QEMU"
    clean v.vmdk "$sub, made by us, written by QEMU"
    rm -f q*.vmdk v*.vmdk
done

# ---- stream-optimized: written once, with the end that makes it whole ----
qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw q.vmdk
"$VDISK" compare -q disk.raw q.vmdk || fail 'streamOptimized, made by QEMU'
"$VDISK" convert -q -O vmdk -o subformat=streamOptimized disk.raw s.vmdk
same disk.raw s.vmdk 'streamOptimized, made by us'
clean s.vmdk 'streamOptimized'
[ "$(stat -c %s s.vmdk)" -lt 7000000 ] || fail "it is not compressed: $(stat -c %s s.vmdk)"
python3 - <<'PY' || fail 'the stream is not as it should be'
# from front to back, as a reader that cannot seek has to take it
import struct, zlib
f = open('s.vmdk', 'rb').read()
raw = open('disk.raw', 'rb').read()
assert f[:4] == b'KDMV' and struct.unpack_from('<I', f, 4)[0] == 1
assert struct.unpack_from('<Q', f, 56)[0] == 2**64 - 1
at = struct.unpack_from('<Q', f, 64)[0] * 512
got, kinds = bytearray(len(raw)), []
while True:
    val, size, kind = struct.unpack_from('<QII', f, at)
    if size:
        data = zlib.decompress(f[at + 12:at + 12 + size])
        assert len(data) == 65536 and val % 128 == 0
        got[val * 512:val * 512 + 65536] = data
        at = (at + 12 + size + 511) // 512 * 512
        continue
    kinds.append(kind)
    at += 512 + val * 512
    if kind == 0:
        break
assert at == len(f), (at, len(f))
assert kinds[-3:] == [2, 3, 0] and set(kinds[:-3]) == {1}, kinds
assert bytes(got) == raw
PY
refuses 'written once' "$VDISK" convert -y -n disk.raw s.vmdk
head -c 2000000 s.vmdk > cut.vmdk
refuses 'end of the file is missing' "$VDISK" info cut.vmdk

# ---- everything else works on it as on any disk ----
"$VDISK" convert -q disk.raw d.vmdk
"$VDISK" info d.vmdk | grep -q 'format *vmdk' || fail 'the name decides about the format'
[ "$("$VDISK" parts --json d.vmdk | python3 -c '
import json, sys
text = json.dumps(json.load(sys.stdin))
print("ext4" in text, "dos" in text or "mbr" in text)')" = 'True True' ] || fail 'parts of a vmdk'
"$VDISK" cat s.vmdk#p1:/blob | cmp - blob || fail 'a file on a stream-optimized image'


"$VDISK" rm d.vmdk#p1:/numbers && "$VDISK" cp blob d.vmdk#p1:/second
"$VDISK" fsck -n d.vmdk#p1 > out 2>&1 || fail "fsck: $(cat out)"
clean d.vmdk 'after files were changed'
"$VDISK" kpartx -l d.vmdk | grep -q 'p1 : 0 143360 .* 2048' || fail "kpartx: $("$VDISK" kpartx -l d.vmdk)"
before=$(du -k d.vmdk | cut -f1)
"$VDISK" rm d.vmdk#p1:/blob d.vmdk#p1:/second && "$VDISK" trim d.vmdk#p1 > /dev/null
[ "$(du -k d.vmdk | cut -f1)" -lt $((before - 4000)) ] || fail 'trim gives nothing back'
clean d.vmdk 'after trim'

# ---- parents ----
qemu-img create -q -f vmdk -b s.vmdk -F vmdk q1.vmdk
script | qemu-io -f vmdk q1.vmdk > io.log 2>&1 || fail "child: $(cat io.log)"
"$VDISK" convert -q -O raw q1.vmdk got.raw
same got.raw q1.vmdk "QEMU's child"
"$VDISK" create -q -f vmdk -b q1.vmdk -F vmdk -o zeroed_grain=on v2.vmdk || fail 'create -b'
script | qemu-io -f vmdk v2.vmdk > io.log 2>&1 || fail "our child: $(cat io.log)"
"$VDISK" convert -q -y -n disk.raw v2.vmdk || fail 'writing into our child'
same disk.raw v2.vmdk 'our child, written'
"$VDISK" convert -q -y -O raw v2.vmdk got.raw
same got.raw v2.vmdk 'our child on top of it'
# (QEMU loses a grain where it writes zeroes)
"$VDISK" check -q --repair v2.vmdk > out 2>&1 || fail "repairing our child: $(cat out)"
clean v2.vmdk 'our child'
"$VDISK" create -q -f vmdk p.vmdk 10M
"$VDISK" create -q -f vmdk -b p.vmdk -F vmdk c.vmdk
"$VDISK" convert -q -O raw c.vmdk yes.raw || fail 'a child of a new parent'
truncate -s 1M one.raw && printf x | dd of=one.raw conv=notrunc status=none
"$VDISK" convert -q -y -n one.raw p.vmdk
refuses 'has changed since' "$VDISK" convert -O raw c.vmdk no.raw

# ---- a child's contents go to its parent ----
"$VDISK" create -q -f vmdk base.vmdk 10M
"$VDISK" create -q -f vmdk -b base.vmdk -F vmdk top.vmdk
"$VDISK" convert -q -y -n one.raw top.vmdk
refuses 'cannot be left as it is' "$VDISK" commit -d top.vmdk
"$VDISK" commit -q top.vmdk || fail 'commit'
truncate -s 10M one.raw
for i in base top; do
    same one.raw $i.vmdk "$i.vmdk after commit"
    "$VDISK" compare -q one.raw $i.vmdk || fail "$i.vmdk after commit"
    clean $i.vmdk "$i.vmdk after commit"
done
"$VDISK" check top.vmdk | grep -q '^0 of' || fail 'the child is not empty'

# ---- hostile and broken ones ----
printf '# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd"\n' > bad.vmdk
refuses 'refers to' "$VDISK" info --refs dir bad.vmdk
printf '# Disk DescriptorFile\nCID=1\ncreateType="x"\nRW 8 SESPARSE "a"\n' > bad.vmdk
refuses 'SESPARSE' "$VDISK" info bad.vmdk
printf '# Disk DescriptorFile\r\ncid = 1\r\nPARENTCID=ffffffff\r\nCreateType = "twoGbMaxExtentFlat"\r\nRW 16 FLAT "part a.bin" 8\r\nRDONLY 8 ZERO\r\n' > odd.vmdk
head -c 12288 /dev/urandom > 'part a.bin'
"$VDISK" convert -q -O raw odd.vmdk odd.raw || fail 'a descriptor of an odd kind'
{ tail -c 8192 'part a.bin'; head -c 4096 /dev/zero; } | cmp - odd.raw || fail 'its extents'
"$VDISK" convert -q disk.raw h.vmdk
cp h.vmdk cut.vmdk
truncate -s 3M cut.vmdk		# what is lost is not zeroes
refuses 'Input/output error' "$VDISK" convert -O raw cut.vmdk cut.raw
refuses 'behind the end' "$VDISK" convert -y -n disk.raw cut.vmdk
printf '\xff\xff\xff\xff' | dd of=h.vmdk bs=1 seek=$((21 * 512)) conv=notrunc status=none
refuses 'vdisk check' "$VDISK" convert -y -n disk.raw h.vmdk
"$VDISK" compare -q disk.raw h.vmdk || fail 'reading with one directory'
"$VDISK" check -q --repair h.vmdk > out 2>&1 || fail "repair: $(cat out)"
clean h.vmdk 'after a repair'
same disk.raw h.vmdk 'after a repair'
