#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# parts.sh - partition tables: what others make we read the same, what we make they accept
. "$(dirname "$0")/../functions.sh"
requires sfdisk sgdisk fdisk python3 mkfs.fat mkfs.ext4 mkswap qemu-img

cd "$tmp"

# same DISK: sfdisk and we say the same about every partition
same() {
    sfdisk -J "$1" > sfdisk.json
    "$VDISK" parts --json "$1" > ours.json
    python3 - "$1" <<'PY'
import json, sys
theirs = json.load(open('sfdisk.json'))['partitiontable']
ours = json.load(open('ours.json'))
def fail(*a):
    sys.exit(f'{sys.argv[1]}: ' + ' '.join(map(str, a)))
if ours['table']['scheme'] != theirs['label']:
    fail(ours['table'], theirs['label'])
disk_id = theirs['id'].lower()
if disk_id.removeprefix('0x') != ours['table']['id']:
    fail('id', disk_id, ours['table']['id'])
a = {}
for p in theirs.get('partitions', []):
    number = int(p['node'][len(theirs['device']):].lstrip('p'))
    a[number] = (p['start'] * 512, p['size'] * 512, p['type'].lower().rjust(2, '0'),
                 p.get('uuid', '').lower(), p.get('name', ''))
b = {}
for p in ours['partitions']:
    dos = theirs['label'] == 'dos'
    b[p['number']] = (p['start'], p['size'], p['type'].removeprefix('0x'),
                      '' if dos else p['uuid'], p['name'] or '')
if a != b:
    fail('\n', a, '\n', b)
PY
}

# ---- tables of others ----

truncate -s 300M a.raw
sfdisk -q a.raw <<'IN'
label: dos
label-id: 0x1234abcd
start=2048, size=20480, type=83, bootable
start=30000, size=1001, type=82
start=40960, size=400000, type=f
start=41000, size=2000, type=8e
start=50000, size=100, type=83
start=60000, size=12345, type=c
IN
same a.raw

sfdisk -q --wipe always a.raw <<'IN'
label: gpt
first-lba: 34
start=34, size=10, type=21686148-6449-6E6F-744E-656564454649
start=2048, size=20480, type=U, name="EFI Ä€😀 system"
start=40000, type=L, name="rest", attrs="RequiredPartition,GUID:60"
IN
same a.raw
"$VDISK" parts a.raw > out
grep -q 'EFI System' out || fail "no name of a type: $(cat out)"

sgdisk -Zo -S 256 -n 1:0:+10M -t 1:8e00 -n 200:0:+5M -c 200:last a.raw > /dev/null 2>&1
same a.raw
[ "$(python3 -c 'import json; print(json.load(open("ours.json"))["partitions"][1]["number"])')" = 200 ] ||
    fail "entry 200 is not there"

# hybrid, and a table that was moved
sgdisk -o -n 1:0:+10M -n 2:0:0 -h 1 a.raw > /dev/null 2>&1
same a.raw
expect 0 "$VDISK" parts a.raw
like_output hybrid
sgdisk -o -n 1:0:+10M -j 100 a.raw > /dev/null 2>&1
same a.raw

# 4 KiB sectors, found without being told
rm -f b.raw
truncate -s 300M b.raw
printf '%s\n' g n '' '' +10M n '' '' '' t 2 swap w | fdisk -b 4096 b.raw > /dev/null 2>&1
"$VDISK" parts --json b.raw > ours.json
fdisk -b 4096 -o Start,Sectors -l b.raw | awk '/^ *[0-9]+ +[0-9]+$/ { print $1 * 4096, $2 * 4096 }' > theirs
python3 -c '
import json
d = json.load(open("ours.json"))
assert d["table"]["sector-size"] == 4096 and not d["table"]["problem"], d["table"]
for p in d["partitions"]: print(p["start"], p["size"])' > ours
diff theirs ours || fail "4 KiB sectors are read otherwise"
[ "$(wc -l < ours)" = 2 ] || fail "there should be two partitions"

# ---- damage that sgdisk repairs too ----

truncate -s 64M c.raw
sgdisk -o -n 1:0:+10M -n 2:0:+20M c.raw > /dev/null 2>&1
same c.raw
cp ours.json whole.json
parts_equal() {
    "$VDISK" parts --json "$1" > ours.json
    python3 -c '
import json
a, b = (json.load(open(f)) for f in ("whole.json", "ours.json"))
assert a["partitions"] == b["partitions"], (a, b)
t = b["table"]
assert t["problem"], t'
}
cp --sparse=always c.raw d.raw
dd if=/dev/zero of=d.raw bs=512 seek=1 count=1 conv=notrunc status=none
parts_equal d.raw
cp --sparse=always c.raw d.raw
dd if=/dev/urandom of=d.raw bs=512 seek=2 count=1 conv=notrunc status=none
parts_equal d.raw
cp --sparse=always c.raw d.raw
truncate -s 128M d.raw
parts_equal d.raw
dd if=/dev/zero of=d.raw bs=512 seek=1 count=1 conv=notrunc status=none
parts_equal d.raw
# a damaged table is not edited
cp --sparse=always c.raw d.raw
dd if=/dev/zero of=d.raw bs=512 seek=1 count=1 conv=notrunc status=none
dd if=/dev/zero of=d.raw bs=512 seek=131071 count=1 conv=notrunc status=none
cp --sparse=always d.raw e.raw
expect 1 "$VDISK" part add d.raw
like_output damaged
cmp -n 2097152 d.raw e.raw || fail "a refused edit changed the disk"

# ---- file systems straight on the disk ----

rm -f f.raw
truncate -s 40M f.raw
mkfs.fat -n FLOPPY f.raw > /dev/null
"$VDISK" parts --json f.raw > ours.json
python3 -c '
import json
d = json.load(open("ours.json"))
assert d["table"] is None and not d["partitions"], d
assert d["content"]["type"] == "vfat" and d["content"]["label"] == "FLOPPY", d'
rm -f f.raw
truncate -s 40M f.raw
mkfs.ext4 -q -L straight f.raw
printf '\x55\xaa' | dd of=f.raw bs=1 seek=510 conv=notrunc status=none
expect 0 "$VDISK" parts --json f.raw
like_output '"table": null'

# ---- our tables ----

accepted() { sfdisk --verify "$1" > out 2>&1 || fail "sfdisk: $(cat out)"; same "$1"; }

rm -f g.raw
truncate -s 2G g.raw
expect 0 "$VDISK" part init g.raw gpt
accepted g.raw
expect 0 "$VDISK" part add --type esp --size 100M --name 'EFI system' g.raw
[ "$output" = p1 ] || fail "it should have become p1: $output"
expect 0 "$VDISK" part add --type swap --size 512M --start 500M g.raw
expect 0 "$VDISK" part add --type 0fc63daf-8483-4772-8e79-3d69d8477de4 g.raw
expect 0 "$VDISK" part add --json --size 100% g.raw
like_output '"number": 4'
accepted g.raw
expect 0 sgdisk -v g.raw
like_output 'No problems found'
expect 1 "$VDISK" part add --size 1 g.raw
like_output 'no room'
expect 2 "$VDISK" part add --size nonsense g.raw
expect 1 "$VDISK" part add --type nonsense g.raw

# it asks before it destroys
cp --sparse=always g.raw h.raw
expect 1 "$VDISK" part init g.raw mbr
like_output 'partition table with 4 partitions'
cmp -n 2097152 g.raw h.raw || fail "without an answer the disk was changed"
expect 0 "$VDISK" part init -y g.raw mbr
accepted g.raw
for i in 1 2 3; do expect 0 "$VDISK" part add --size 10M --type 8e g.raw; done
expect 0 "$VDISK" part add --type extended g.raw
for i in 5 6 7 8 9; do
    expect 0 "$VDISK" part add --size 10M g.raw
    [ "$output" = "p$i" ] || fail "it should have become p$i: $output"
done
accepted g.raw

# in other formats and sector sizes
qemu-img create -q -f qcow2 i.qcow2 1G
expect 0 "$VDISK" part init i.qcow2 gpt
expect 0 "$VDISK" part add --size 20M i.qcow2
expect 0 "$VDISK" part add --type swap i.qcow2
qemu-img convert -O raw i.qcow2 i.raw
accepted i.raw
rm -f j.raw
truncate -s 1G j.raw
expect 0 "$VDISK" part init --sector-size 4096 j.raw gpt
expect 0 "$VDISK" part add --size 20M j.raw
expect 0 "$VDISK" part add j.raw
expect 0 fdisk -b 4096 j.raw <<< v
like_output 'No errors detected'
[ "$(fdisk -b 4096 -l j.raw | grep -c 'Linux filesystem')" = 2 ] || fail "fdisk sees other partitions"

# ---- what is in them ----

rm -f k.raw
truncate -s 300M k.raw
"$VDISK" part init k.raw gpt
"$VDISK" part add --size 100M --name first k.raw > /dev/null
"$VDISK" part add --size 50M k.raw > /dev/null
mkfs.ext4 -q -L rootfs -U 12345678-1234-1234-1234-123456789abc -E offset=1048576 k.raw 100M
truncate -s 50M swap.raw
mkswap -q -L sw swap.raw
dd if=swap.raw of=k.raw bs=1M seek=101 conv=notrunc,sparse status=none
"$VDISK" parts --json k.raw > ours.json
python3 -c '
import json
d = json.load(open("ours.json"))
a, b = (p["content"] for p in d["partitions"])
assert (a["type"], a["usage"], a["label"], a["uuid"]) == \
    ("ext4", "filesystem", "rootfs", "12345678-1234-1234-1234-123456789abc"), a
assert (b["type"], b["label"]) == ("swap", "sw"), b
assert len(d["free"]) == 1, d["free"]'
for part in p1 label=first label=rootfs uuid=12345678-1234-1234-1234-123456789ABC; do
    expect 0 "$VDISK" parts --json "k.raw#$part"
    like_output '"type": "ext4"'
done
expect 1 "$VDISK" parts "k.raw#p3"
like_output 'there is no partition 3'
expect 1 "$VDISK" parts "k.raw#vg/lv"
like_output 'no volume group'
