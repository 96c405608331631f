#!/bin/bash
# FAT12, 16 and 32 made by mkfs.fat and mtools: what is in them, we read alike.
. "$(dirname "$0")/../functions.sh"
requires mkfs.fat mcopy mdel mmd fsck.fat sfdisk python3
cd "$tmp"
export MTOOLS_SKIP_CHECK=1 LC_ALL=C.UTF-8

mkdir -p tree/EFI/BOOT 'tree/A directory with a long name/sub'
echo hello > tree/EFI/BOOT/grub.cfg
echo 'upper' > tree/README.TXT
echo 'lower' > tree/lower.txt
printf 'x' > 'tree/A directory with a long name/sub/Grüße - 日本語.text'
: > tree/empty
head -c 300000 /dev/urandom > tree/big.bin
for i in $(seq 40); do echo "$i" > "tree/EFI/file number $i of many"; done
touch -d '2001-02-03 04:05:06Z' tree/README.TXT

# fill SIZE OPTION...: a file system with the tree in it, the big file in pieces
fill() {
    local i
    rm -f fs
    truncate -s "$1" fs
    shift
    mkfs.fat -n VOLUME -i 1234abcd "$@" fs > /dev/null
    for i in 1 2 3 4 5 6 7 8; do head -c 20000 /dev/zero > "pad$i"; mcopy -i fs "pad$i" ::; done
    for i in 1 3 5 7; do mdel -i fs "::pad$i"; done
    TZ=UTC mcopy -i fs -m -s tree/* ::
    for i in 2 4 6 8; do mdel -i fs "::pad$i"; done
    fsck.fat -n fs > fsck.log || { cat fsck.log; fail 'fsck.fat'; }
}

check() {	# DISK: what it holds is the tree
    rm -rf out
    mkdir out
    "$VDISK" cp -r "$1:/" out/
    diff -r tree out || fail "$1: the trees differ"
    [ "$("$VDISK" cat "$1:/efi/boot/GRUB.CFG")" = hello ] || fail 'names have no case'
    [ "$("$VDISK" cat "$1:/ADIREC~1/SUB/Grüße - 日本語.text")" = x ] || fail 'the odd name'
    "$VDISK" ls "$1:/EFI" | sort > ours
    ls tree/EFI | sort > theirs
    cmp ours theirs || fail 'ls'
    [ "$("$VDISK" stat --json "$1:/README.TXT" | python3 -c '
import json, sys
print(json.load(sys.stdin)["size"])')" = 6 ] || fail 'stat'
}

for options in '-F 12 -s 2' '-F 16' '-F 32 -s 1' '-F 16 -s 16 -f 1' '-F 12 -a'; do
    size=40M
    case $options in *12*) size=4M ;; esac
    # shellcheck disable=SC2086 # words
    fill $size $options
    check fs
    "$VDISK" df fs > df.out
    grep -q vfat df.out || fail "df of $options: $(cat df.out)"
done

# in a partition of a qcow2
fill 40M -F 32 -s 1
truncate -s 48M disk
printf 'label: gpt\nstart=2048, size=40M, type=uefi\n' | sfdisk -q disk
dd if=fs of=disk bs=1M seek=1 conv=notrunc status=none
"$VDISK" convert -O qcow2 disk disk.qcow2
check 'disk.qcow2#p1'
check 'disk.qcow2#label=VOLUME'

# and what we write, mtools and fsck.fat read
for options in '-F 12 -s 2' '-F 16' '-F 32 -s 1' '-F 16 -f 1'; do
    size=40M
    case $options in *12*) size=4M ;; esac
    rm -f fs
    truncate -s $size fs
    # shellcheck disable=SC2086 # words
    mkfs.fat -n VOLUME $options fs > /dev/null
    "$VDISK" cp -r tree/* fs:/
    "$VDISK" mkdir -p fs:/deep/er/still
    "$VDISK" mv fs:/README.TXT 'fs:/deep/er/Read me, please.txt'
    "$VDISK" mv fs:/deep/er fs:/EFI/er
    "$VDISK" mv fs:/empty fs:/EMPTY
    tar -C tree -cf - . | "$VDISK" untar fs:/deep
    "$VDISK" rm fs:/lower.txt
    fsck.fat -nv fs > fsck.log || { cat fsck.log; fail "fsck.fat after writing, $options"; }
    rm -rf out
    mkdir out
    mcopy -i fs -s -m -p '::*' out/
    for f in 'A directory with a long name/sub/Grüße - 日本語.text' big.bin EFI/BOOT/grub.cfg; do
        cmp "tree/$f" "out/$f" || fail "mtools reads $f otherwise"
        cmp "tree/$f" "out/deep/$f" || fail "mtools reads the unpacked $f otherwise"
    done
    cmp tree/README.TXT 'out/EFI/er/Read me, please.txt' || fail 'the moved file'
    [ -d out/EFI/er/still ] || fail 'the moved directory'
    [ "$(ls out/EFI | wc -l)" = 42 ] || fail 'a directory of many'
    [ -e out/EMPTY ] && [ ! -e out/lower.txt ] || fail 'rm and mv'
    "$VDISK" tar fs:/deep > t.tar
    tar -tf t.tar > t.list
    grep -q 'BOOT/grub.cfg' t.list || fail tar
    [ "$(TZ=UTC stat -c %Y out/EFI/BOOT/grub.cfg)" -gt 0 ] || fail 'a time'
    "$VDISK" label fs 'New Label'
    [ "$(blkid -p -o value -s LABEL fs)" = 'NEW LABEL' ] || fail label
    [ "$(mlabel -i fs -s :: )" = ' Volume label is NEW LABEL  ' ] || mlabel -i fs -s :: | grep -q 'NEW LABEL' || fail mlabel
    "$VDISK" uuid fs 12ab-34CD
    [ "$(blkid -p -o value -s UUID fs)" = 12AB-34CD ] || fail serial
    "$VDISK" uuid fs random
    [ "$(blkid -p -o value -s UUID fs)" != 12AB-34CD ] || fail 'a random serial'
    "$VDISK" label fs ''
    [ -z "$(blkid -p -o value -s LABEL fs)" ] || fail 'no label'
    expect 1 "$VDISK" label fs 'more than eleven'
    expect 1 "$VDISK" uuid fs 123456
    expect 1 "$VDISK" ln -s x fs:/link
    like_output 'no symbolic links'
    expect 1 "$VDISK" ln fs:/big.bin fs:/link
    like_output 'one name'
    expect 1 "$VDISK" cp tree/empty 'fs:/what?'
    like_output 'has no control characters'
    "$VDISK" rm -r fs:/deep fs:/EFI
    fsck.fat -nv fs > fsck.log || { cat fsck.log; fail "fsck.fat after all, $options"; }
done
# into the partition of the qcow2; a volume that was not unmounted is not written to
"$VDISK" cp tree/lower.txt 'disk.qcow2#p1:/new'
[ "$("$VDISK" cat 'disk.qcow2#p1:/new')" = lower ] || fail 'in a qcow2'
cp fs dirty
printf '\1' | dd of=dirty bs=1 seek=37 conv=notrunc status=none
expect 1 "$VDISK" cp tree/empty dirty:/x
like_output 'must be checked'
[ "$("$VDISK" cat dirty:/big.bin | sha256sum)" = "$(sha256sum < tree/big.bin)" ] || fail 'reading a dirty one'
fill 40M -F 32 -s 1

# damage: named, never a hang or a crash
python3 - fs <<'PYTHON'
import struct, sys
b = bytearray(open(sys.argv[1], 'rb').read())
reserved, fats, table = struct.unpack_from('<H', b, 14)[0], b[16], struct.unpack_from('<I', b, 36)[0]
fat, root = reserved * 512, struct.unpack_from('<I', b, 44)[0]
def write(name, *changes):
    c = bytearray(b)
    for at, fmt, v in changes:
        struct.pack_into(fmt, c, at, v)
    open(name, 'wb').write(c)
data = (reserved + fats * table) * 512
i = b.find(b'BIG     BIN', data)
first = struct.unpack_from('<H', b, i + 26)[0]
efi = struct.unpack_from('<H', b, b.find(b'EFI        \x10', data) + 26)[0]
write('loop', (fat + 4 * efi, '<I', efi))
write('outside', (fat + 4 * first, '<I', 0x0ffffff0))
write('free', (fat + 4 * first, '<I', 0))
write('short', (fat + 4 * first, '<I', 0x0fffffff))
write('cycle', (fat + 4 * first, '<I', first), (i + 28, '<I', 0xffffffff))
write('nowhere', (i + 26, '<H', 0xffff), (i + 20, '<H', 0x0fff))
write('noroot', (44, '<I', 0))
PYTHON
expect 1 timeout 10 "$VDISK" ls loop:/EFI
like_output 'too long'
for name in outside free short cycle nowhere; do
    ! timeout 10 "$VDISK" cat "$name:/big.bin" > /dev/null 2> why || fail "$name was not noticed"
    grep -qE 'which is none|ends before|longer than' why || fail "$name: $(cat why)"
    [ "$("$VDISK" cat "$name:/lower.txt")" = lower ] || fail "$name: the rest is gone too"
done
expect 1 "$VDISK" ls noroot:/
like_output 'which is none'
truncate -s 1M fs
expect 1 "$VDISK" cat fs:/big.bin
like_output 'past the end'
