#!/bin/bash
# vdisk part: every change on MBR and GPT, 512 and 4096 bytes, raw and qcow2, judged by sfdisk.
. "$(dirname "$0")/../functions.sh"
requires sfdisk fdisk python3 qemu-img
cd "$tmp"

# (GPTs of 4096-byte sectors are found without being told)
part() { "$VDISK" part "$1" --sector-size $sector "${@:2}"; }
sector=512
# table IMAGE: "number start size type ..." of each partition, as sfdisk sees it, or fdisk where
# sectors have 4096 bytes
table() {
    if [ $sector = 4096 ]; then
        fdisk -b 4096 -l -o Device,Start,Sectors,Type-UUID,Name "$1" > f.out 2>/dev/null &&
            grep -q 'type: gpt' f.out || fdisk -b 4096 -l -o Device,Start,Sectors,Id,Boot "$1" > f.out
        sed -n "s/^$1\([0-9]\)/\1/p" f.out | awk '{ $4 = tolower($4); print }'
        return
    fi
    sfdisk -J "$1" 2>/dev/null | python3 -c '
import json, re, sys
t = json.load(sys.stdin)["partitiontable"]
for p in t.get("partitions", []):
    n = re.search(r"(\d+)$", p["node"]).group(1)
    print(n, p["start"], p["size"], p["type"].lower(), p.get("name", "-"), p.get("attrs", "-"), "*" if p.get("bootable") else "-")'
}
row() { table "$1" | awk -v n="$2" '$1 == n'; }
is() { [ "$1" = "$2" ] || fail "'$1' is not '$2' ($3)"; }
sound() { printf 'v\nq\n' | fdisk -b $sector "$1" > v.out 2>&1
          grep -q 'No errors detected' v.out || { cat v.out; fail "fdisk's verify of $1: $2"; }
          part verify "$1" > v.out || { cat v.out; fail "verify $1: $2"; }; }
linux=0fc63daf-8483-4772-8e79-3d69d8477de4

# ---- a GPT ----
truncate -s 200M g
part init g gpt
for i in 1 2 3; do part add g --size 20M --name n$i > /dev/null; done
expect 1 part add g --name "$(printf '%037d' 0)"
like_output 'at most 36'
part delete 'g#p2'
is "$(table g | cut -d' ' -f1 | paste -sd,)" 1,3 delete
part resize 'g#p1' 100%
is "$(row g 1)" "1 2048 81920 $linux n1 - -" 'resize to what comes next'
part resize 'g#p3' +10M
is "$(row g 3 | cut -d' ' -f2,3)" '83968 61440' '+10M'
part resize 'g#p1' -10M
is "$(row g 1 | cut -d' ' -f3)" 61440 '-10M'
part resize 'g#p1' 15M
expect 1 "$VDISK" part resize 'g#p1' 50M
like_output 'room for'
expect 2 "$VDISK" part resize 'g#p1' -50M
part type 'g#p1' linux-lvm
is "$(row g 1 | cut -d' ' -f4)" e6d6d379-f507-44c2-a23c-238f2a3df928 'type by name'
part type 'g#p1' fd
is "$(row g 1 | cut -d' ' -f4)" a19d880f-05fc-4d3b-a006-743f0f84911e 'type by hex'
part type 'g#p1' 'FreeBSD UFS'
is "$(row g 1 | cut -d' ' -f4)" 516e7cb6-6ecf-11d6-8ff8-00022d09712b "type by fdisk's name"
part type 'g#p1' C12A7328-F81F-11D2-BA4B-00A0C93EC93B
is "$(row g 1 | cut -d' ' -f4)" c12a7328-f81f-11d2-ba4b-00a0c93ec93b 'type by GUID'
expect 1 "$VDISK" part type 'g#p1' nonsense
part name 'g#p1' 'Größe'
is "$(row g 1 | cut -d' ' -f5)" Größe name
is "$(part name 'g#p1')" Größe 'name shown'
part uuid 'g#p1' 11111111-2222-3333-4444-555555555555
is "$(part uuid 'g#p1')" 11111111-2222-3333-4444-555555555555 uuid
expect 1 "$VDISK" part uuid 'g#p3' 11111111-2222-3333-4444-555555555555
part uuid 'g#p1' random
part uuid g 99999999-2222-3333-4444-555555555555
is "$(sfdisk --disk-id g | tr A-F a-f)" 99999999-2222-3333-4444-555555555555 'the disk GUID'
part flag 'g#p1' legacy-boot
part flag 'g#p1' read-only on
part flag 'g#p1' 50
is "$(part flag 'g#p1' | paste -sd,)" legacy-boot,read-only,50 flags
is "$(row g 1 | cut -d' ' -f6-)" 'LegacyBIOSBootable GUID:50,60 -' 'flags in sfdisk'
part flag 'g#p1' legacy-boot off
sound g changes

# ---- an MBR, with logical partitions ----
for sector in 512 4096; do
    rm -f m
    truncate -s 200M m
    part init m mbr
    unit=$((sector / 512))
    part add m --size 20M > /dev/null
    part add m --size 100M --type extended > /dev/null
    if [ $sector = 512 ]; then
        for i in 3 4; do part add m --size 1M > /dev/null; done
        for i in 5 6 7; do is "$(part add m --size 10M)" p$i 'a logical one'; done
        expect 1 "$VDISK" part resize 'm#p2' 20M
        like_output 'logical partitions'
        part delete -y 'm#p6'
        is "$(table m | cut -d' ' -f1 | paste -sd,)" 1,2,3,4,5,6 'logical ones count on'
        part resize 'm#p5' 100%
        part resize 'm#p6' +5M
        part type 'm#p5' swap
        is "$(row m 5 | cut -d' ' -f4)" 82 'type of a logical one'
        sound m 'logical partitions'
    fi
    part flag 'm#p1' active
    is "$(row m 1 | awk '{ print $NF }')" '*' active
    expect 2 part flag 'm#p1' hidden
    part type 'm#p1' 8e
    is "$(row m 1 | cut -d' ' -f4)" 8e 'type of an MBR'
    is "$(row m 1 | cut -d' ' -f3)" $((40960 / unit)) "sectors of $sector"
    part uuid m 1234abcd
    is "$(part uuid m)" 1234abcd 'the id of an MBR'
    expect 1 part name 'm#p1' x
done
sector=512

# ---- dumps, both ways ----
for label in gpt dos; do
    truncate -s 0 s t u
    truncate -s 300M s t u
    { echo "label: $label"; echo 'size=20M, type=L'; echo 'size=30M, type=S'
      [ $label = gpt ] || printf 'size=100M, type=E\nsize=10M, type=L\nsize=12345, type=L\n'; } |
        sfdisk -q s
    part backup s > dump
    sfdisk -d s > theirs
    diff <(sed 's/^[^ ]*s\([0-9]\)/\1/;/^device/d' dump) <(sed 's/^[^ ]*s\([0-9]\)/\1/;/^device/d' theirs) ||
        fail "the dump of a $label"
    sfdisk -q t < dump
    part restore u dump
    cmp s t || fail 'sfdisk makes another table from our dump'
    cmp s u || fail 'the restored table differs'
    expect 1 "$VDISK" part restore u theirs
    part restore -y u < theirs
    cmp s u || fail "sfdisk's dump"
done
for bad in '' 'nonsense' 'label: sun' $'label: dos\n\nd1 : start= 2048, size= 99999999999, type=83'; do
    cp s u
    printf '%s' "$bad" > bad
    expect 1 "$VDISK" part restore -y u bad
    cmp s u || fail "a bad dump changed the disk: $bad"
done

# ---- MBR to GPT and back, in a qcow2 too ----
truncate -s 0 s
truncate -s 300M s
printf 'label: dos\nstart=2048, size=20M, type=83, bootable\nsize=30M, type=82\nsize=100M, type=5\nsize=10M, type=8e\nsize=20M, type=83\n' | sfdisk -q s
table s > before
qemu-img convert -f raw -O qcow2 s q
for d in s q; do
    part convert -y $d gpt
    [ $d = s ] || qemu-img convert -f qcow2 -O raw q s
    sound s 'MBR to GPT'
    is "$(table s | cut -d' ' -f1-3)" "$(awk '$4 != 5' before | cut -d' ' -f1-3)" 'the same places'
    is "$(row s 4 | cut -d' ' -f4)" e6d6d379-f507-44c2-a23c-238f2a3df928 'a type'
    part delete $d'#p2'
    part convert -y $d mbr
    [ $d = s ] || qemu-img convert -f qcow2 -O raw q s
    sound s 'GPT to MBR'
    is "$(table s | cut -d' ' -f2,3 | paste -sd,)" \
       "$(awk '$1 == 1 || $1 == 4 || $1 == 5' before | cut -d' ' -f2,3 | paste -sd,)" 'the same places again'
    [ "$(head -c 34K s | grep -c 'EFI PART')" = 0 ] || fail 'the GPT is still there'
done
# what would be lost is said, and asked for
truncate -s 0 s
truncate -s 64M s
printf 'label: gpt\nsize=8M, name=one\nsize=8M, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\nsize=8M, attrs=LegacyBIOSBootable\n' | sfdisk -q s
cp s keep
expect 1 "$VDISK" part convert s mbr
like_output "loses the partitions' UUIDs, their names, their attributes, the types of p2;"
cmp s keep || fail 'a conversion that nobody agreed to'
printf 'label: dos\nsize=8M\n' | sfdisk -q s
printf 'code' | dd of=s conv=notrunc status=none
expect 1 "$VDISK" part convert s gpt
like_output 'loses the partitions. ids .PARTUUID., the boot code;'
truncate -s 300M five
part init five gpt
for i in 1 2 3 4 5; do part add five --size 10M > /dev/null; done
cp five keep
expect 1 "$VDISK" part convert -y five mbr
like_output 'no free sector in front'
cmp five keep || fail 'a refused conversion wrote'
# more than four, with room for the boot records of logical ones: at the end, or where there is room
for shape in 'end 2048 10000 0 10000 0 10000 5 10000 4000 10000 1 9000' \
        'middle 40 5000 1 5000 1 5000 1 5000 0 5000 0 5000' \
        'all 34 2000 9 2000 9 2000 9 2000 9 2000 9 2000 9 2000 9 2000'; do
    # shellcheck disable=SC2086 # words
    set -- $shape
    shift
    rm -f many keep
    truncate -s 64M many
    { printf 'label: gpt\nfirst-lba: 34\n'; at=0; while [ $# -gt 0 ]; do
        echo "start=$((at + $1)), size=$2, type=$([ $# = 4 ] && echo S || echo L)"; at=$((at + $1 + $2)); shift 2
    done; } > script
    sfdisk -q many < script
    cp many keep
    part convert -y many mbr
    sfdisk -J keep > a.json
    sfdisk -J many > b.json
    sfdisk -V many > verify.out 2>&1 || { cat verify.out; fail "sfdisk -V of the MBR ($shape)"; }
    expect 0 "$VDISK" part verify many
    python3 - "$shape" <<'PYTHON'
import json, sys
a, b = ([(p['start'], p['size'], p['type']) for p in json.load(open(f))['partitiontable']['partitions']] for f in ('a.json', 'b.json'))
swap = [x[:2] for x in a if x[2].startswith('0657')], [x[:2] for x in b if x[2] == '82']
b = [x[:2] for x in b if x[2] not in ('5', 'f')]
if sorted(x[:2] for x in a) != sorted(b) or swap[0] != swap[1] or not swap[0]:
    sys.exit(f'{sys.argv[1]}: {a} became {b}')
PYTHON
    [ "$(head -c 34K many | grep -c 'EFI PART')" = 0 ] || fail 'the GPT is still there'
    part convert -y many gpt	# and back, each where it was
    [ "$(sfdisk -J many | grep -o '"start": [0-9]*, "size": [0-9]*' | sort)" = \
      "$(sfdisk -J keep | grep -o '"start": [0-9]*, "size": [0-9]*' | sort)" ] || fail "back to a GPT ($shape)"
done
# small disks can be resized, too
for size in 100K 1M 1300K 2M 3M 4095K; do
    for label in gpt dos; do
        rm -f small
        truncate -s $size small
        { echo "label: $label"
          [ $label = dos ] || echo 'first-lba: 34'
          printf 'start=40, size=20\nstart=64, size=40\n'; } | sfdisk -q small
        part resize 'small#p1' 100%
        part resize -y 'small#p2' -5K
        part resize 'small#p2' 100%
        expect 0 "$VDISK" part verify small
        sfdisk -V small > verify.out 2>&1 || { cat verify.out; fail "sfdisk -V, $size"; }
        python3 - $label $size <<'PYTHON'
import json, os, subprocess, sys
t = json.loads(subprocess.run(['sfdisk', '-J', 'small'], capture_output=True, text=True, check=True).stdout)['partitiontable']
p = [(x['start'], x['size']) for x in t['partitions']]
end = t['lastlba'] + 1 if sys.argv[1] == 'gpt' else os.path.getsize('small') // 512
if p[0] != (40, 24) or p[1][0] != 64 or not end - 2048 < p[1][0] + p[1][1] <= end:
    sys.exit(f'{sys.argv}: {p}, {end}')
PYTHON
        expect 1 "$VDISK" part resize 'small#p1' 13K
        like_output 'room for'
    done
    printf 'label: dos\nstart=1, size=190, type=f\nstart=20, size=20\nstart=80, size=40\n' | sfdisk -q small
    part resize 'small#p5' 100%
    part resize 'small#p6' 100%
    expect 0 "$VDISK" part verify small
    sfdisk -d small | grep -Eq 'start= *80, size= *111,' || fail "a logical one on $size: $(sfdisk -d small)"
done
truncate -s 0 s
truncate -s 100M s
printf 'label: dos\nstart=1, size=20M, type=83\n' | sfdisk -q s
cp s keep
expect 1 "$VDISK" part convert -y s gpt
cmp s keep || fail 'a refused conversion to GPT wrote'

# ---- verify and repair ----
for sector in 512 4096; do
    rm -f good
    truncate -s 64M good
    part init good gpt
    part add good --size 10M --name first > /dev/null
    part add good --size 20M --name second > /dev/null
    sound good 'a new table'
    # each field of either header, and entries, and the protective MBR
    python3 - $sector <<'PYTHON'
import sys, zlib
s = int(sys.argv[1])
b = open('good', 'rb').read()
last = len(b) // s - 1
fields = {'signature': (0, 8), 'revision': (8, 4), 'size': (12, 4), 'crc': (16, 4), 'lba': (24, 8),
          'alternate': (32, 8), 'first': (40, 8), 'last': (48, 8), 'guid': (56, 16),
          'entries': (72, 8), 'count': (80, 4), 'entry-size': (84, 4), 'entries-crc': (88, 4)}
names = []
def damage(name, at, n):
    c = bytearray(b)
    for i in range(at, at + n):
        c[i] ^= 0x5a
    open('bad-' + name, 'wb').write(c)
    names.append(name)
for copy, lba in (('primary', 1), ('backup', last)):
    for f, (at, n) in fields.items():
        damage(copy + '-' + f, lba * s + at, n)
# one that lies about where the other is, with a good checksum
for copy, lba in (('primary', 1), ('backup', last)):
    c = bytearray(b)
    h = lba * s
    c[h + 32] ^= 4
    c[h + 16:h + 20] = bytes(4)
    c[h + 16:h + 20] = zlib.crc32(bytes(c[h:h + 92])).to_bytes(4, 'little')
    open(f'bad-{copy}-liar', 'wb').write(c)
    names.append(copy + '-liar')
damage('primary-array', 2 * s + 40, 8)
damage('backup-array', (last - 16384 // s) * s + 40, 8)
damage('mbr', 446, 66)
open('names', 'w').write('\n'.join(names))
PYTHON
    for n in $(cat names); do
        expect 3 "$VDISK" part verify bad-$n
        like_output "${n%%-*}|MBR|another place|differ"
        expect 0 "$VDISK" part repair bad-$n
        like_output 'written|made the same'
        cmp bad-$n good || fail "$n: the repaired table is not the old one"
        rm bad-$n
    done
done
sector=512
# both copies gone: said, not guessed
cp good bad
dd if=/dev/zero of=bad bs=4096 seek=1 count=1 conv=notrunc status=none
dd if=/dev/zero of=bad bs=4096 seek=16383 count=1 conv=notrunc status=none
expect 1 "$VDISK" part repair bad
like_output 'no copy'
# the image grew: the backup moves, the room is usable; also if the primary is gone then
for damage in no yes; do
    rm -f good
    truncate -s 64M good
    part init good gpt
    part add good > /dev/null
    truncate -s 128M good
    [ $damage = no ] || dd if=/dev/urandom of=good bs=512 seek=1 count=1 conv=notrunc status=none
    expect 3 "$VDISK" part verify good
    expect 0 "$VDISK" part repair good
    like_output 'moved to the end'
    sound good grown
    part resize 'good#p1' 100%
    is "$(row good 1 | cut -d' ' -f3)" 258048 'all of the grown disk'
    sound good 'grown and resized'
done
# resizing does that itself, where it is needed, and says so
truncate -s 200M good
cp good keep
expect 0 "$VDISK" part resize -y 'good#p1' 50M
like_output 'moved to its end'
sound good 'grown by shrinking'
expect 0 "$VDISK" part resize 'good#p1' +100M
is "$output" '' 'nothing is moved twice'
truncate -s 220M good
expect 0 "$VDISK" part add good
like_output 'moved to its end'
is "$(row good 2 | cut -d' ' -f2,3)" '309248 139264' 'added where the disk was grown'
sound good 'grown by resize'
cp keep good
expect 0 "$VDISK" part resize -q 'good#p1' 100%
is "$output" '' 'quiet'
is "$(row good 1 | cut -d' ' -f3)" 405504 'all of the disk that grew'
sound good 'grown by resize, all'
truncate -s 128M good
part repair good > /dev/null 2>&1 || true
rm good
truncate -s 64M good
part init good gpt
part add good > /dev/null
# and shrunk: fits, or not
part resize -y 'good#p1' 20M
truncate -s 40M good
expect 3 "$VDISK" part verify good
expect 0 "$VDISK" part repair good
sound good shrunk
truncate -s 10M good
expect 1 "$VDISK" part repair good
like_output 'partition 1'
# a chain of logical partitions that comes back, or goes nowhere
truncate -s 0 s
truncate -s 100M s
printf 'label: dos\nsize=10M\nsize=80M, type=5\nsize=1M\nsize=1M\nsize=10M\nsize=10M\nsize=10M\n' | sfdisk -q s
python3 - <<'PYTHON'
import struct
b = open('s', 'rb').read()
ext = struct.unpack_from('<I', b, 446 + 16 + 8)[0]
ebr = ext
for _ in range(2):
    ebr = ext + struct.unpack_from('<I', b, ebr * 512 + 446 + 16 + 8)[0]
for name, link in (('loop', 0), ('away', 1 << 30), ('nothing', 100000)):
    c = bytearray(b)
    c[ebr * 512 + 446 + 16:ebr * 512 + 446 + 32] = struct.pack('<B3sB3sII', 0, b'', 5, b'', link, 2048)
    open(name, 'wb').write(c)
PYTHON
for n in loop away nothing; do
    expect 3 "$VDISK" part verify $n
    like_output 'comes back|leaves|no extended'
    expect 0 "$VDISK" part repair $n
    like_output 'cut'
    sound $n 'a cut chain'
    is "$(table $n | cut -d' ' -f1 | paste -sd,)" 1,2,3,4,5,6,7 "what is left after $n"
done
expect 1 "$VDISK" part repair bad-none
truncate -s 10M empty
expect 1 "$VDISK" part verify empty
expect 1 "$VDISK" part backup empty
expect 1 "$VDISK" part delete 'empty#p1'
expect 2 "$VDISK" part delete empty

# ---- resize --fs ----
[ -w /dev/fuse ] || { echo 'no FUSE: --fs was not tested'; exit 0; }
requires mke2fs e2fsck resize2fs dumpe2fs
"$VDISK" create -q -f qcow2 fs.qcow2 200M
part init fs.qcow2 gpt
part add fs.qcow2 --size 40M > /dev/null
"$VDISK" mkfs -t ext4 'fs.qcow2#p1'
"$VDISK" cp /bin/ls 'fs.qcow2#p1:/ls'
blocks() { "$VDISK" convert -y -q -O raw 'fs.qcow2#p1' p1; e2fsck -fn p1 > e.out 2>&1 || { cat e.out; fail e2fsck; }
           dumpe2fs -h p1 2>/dev/null | awk '/^Block count/ { b = $3 } /^Block size/ { print b * $3 }'; }
part resize --fs 'fs.qcow2#p1' 100%
is "$(blocks)" $((198 * 1048576)) grown
expect 1 "$VDISK" part resize 'fs.qcow2#p1' 50M
part resize --fs 'fs.qcow2#p1' 50M > resize.out 2>&1 || { cat resize.out; fail shrink; }
[ ! -s resize.out ] || fail "shrinking complains: $(cat resize.out)"
is "$(blocks)" $((50 * 1048576)) shrunk
is "$("$VDISK" parts --json fs.qcow2 | python3 -c 'import json,sys; print(json.load(sys.stdin)["partitions"][0]["size"])')" \
   $((50 * 1048576)) 'the partition shrunk'
part resize --fs 'fs.qcow2#p1' +8M > /dev/null 2>&1
is "$(blocks)" $((58 * 1048576)) 'grown by'
expect 1 "$VDISK" part resize --fs 'fs.qcow2#p1' 1M
like_output 'New size smaller than minimum'
"$VDISK" cat 'fs.qcow2#p1:/ls' | cmp - /bin/ls || fail 'a file after resizing'
qemu-img check -q fs.qcow2 || fail 'qemu-img check'

# ---- four primary partitions ----
truncate -s 0 four && truncate -s 200M four
part init four mbr
for i in 1 2 3 4; do part add four --size 20M > /dev/null; done
expect 1 part add four --size 20M
like_output 'four partitions'
