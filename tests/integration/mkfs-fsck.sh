#!/bin/bash
# mkfs, fsck, label and uuid on volumes of disks in several formats.
. "$(dirname "$0")/../functions.sh"
requires mke2fs e2fsck debugfs qemu-img blkid dumpe2fs
[ -w /dev/fuse ] || skip "/dev/fuse cannot be used"

disk=$tmp/d.qcow2
raw=$tmp/fs.raw
uuid=01234567-89ab-4cde-8f01-23456789abcd
copy() { "$VDISK" convert -y -q -O raw "$disk#p2" "$raw"; }
clean() { copy; e2fsck -fn "$raw" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "e2fsck after: $*"; }; }

"$VDISK" create -q -f qcow2 "$disk" 200M
"$VDISK" part init "$disk" gpt
"$VDISK" part add "$disk" --size 20M --type swap >/dev/null
"$VDISK" part add "$disk" >/dev/null
"$VDISK" mkfs -t ext4 -L first -U $uuid -o block-size=1024,reserved=1,features=^resize_inode "$disk#p2"
clean mkfs
[ "$(blkid -p -o value -s UUID "$raw")" = $uuid ] || fail "UUID"
[ "$(blkid -p -o value -s LABEL "$raw")" = first ] || fail "label"
dumpe2fs -h "$raw" 2>/dev/null | grep -q 'Block size: *1024' || fail "block size"
expect 1 "$VDISK" mkfs "$disk#p2"
like_output 'terminal|ext4'
clean "a refused mkfs"
[ "$("$VDISK" label "$disk#p2")" = first ] || fail "mkfs without a yes"
expect 2 "$VDISK" mkfs -y -o nonsense=1 "$disk#p2"
expect 1 "$VDISK" mkfs -y -o features=nonsense "$disk#p2"

for type in ext2 ext3 ext4; do
    "$VDISK" mkfs -y -t $type -L l "$disk#p2"
    clean "mkfs -t $type"
    [ "$(blkid -p -o value -s TYPE "$raw")" = $type ] || fail "type $type"
    "$VDISK" cp /bin/ls "$disk#p2:/ls"
    for label in x a-16-byte-label_ ""; do
        "$VDISK" label "$disk#p2" "$label"
        clean "label '$label'"
        [ "$(blkid -p -o value -s LABEL "$raw")" = "$label" ] || fail "label '$label' on $type"
    done
    expect 1 "$VDISK" label "$disk#p2" 17-bytes-of-label
    "$VDISK" uuid "$disk#p2" $uuid
    clean "uuid on $type"
    [ "$(blkid -p -o value -s UUID "$raw")" = $uuid ] || fail "uuid on $type"
    "$VDISK" uuid "$disk#p2" random
    clean "random uuid on $type"
    [ "$("$VDISK" uuid "$disk#p2")" != $uuid ] || fail "a random uuid"
    expect 1 "$VDISK" uuid "$disk#p2" 1234
    "$VDISK" cat "$disk#p2:/ls" | cmp - /bin/ls || fail "contents after uuid on $type"
    # the copies of the superblock have both too
    copy
    for sb in $(dumpe2fs "$raw" 2>/dev/null | sed -n 's/.*Backup superblock at \([0-9]*\).*/\1/p'); do
        [ "$(dumpe2fs -o superblock="$sb" -o blocksize="$(dumpe2fs -h "$raw" 2>/dev/null |
            sed -n 's/^Block size: *//p')" -h "$raw" 2>/dev/null |
            sed -n 's/^Filesystem UUID: *//p')" = "$("$VDISK" uuid "$disk#p2")" ] ||
            fail "the superblock at $sb has another UUID"
    done
done

"$VDISK" mkfs -t swap -L swp -U $uuid "$disk#p1"
"$VDISK" convert -y -q -O raw "$disk#p1" "$tmp/swap"
[ "$(blkid -p -o value -s TYPE "$tmp/swap")$(blkid -p -o value -s LABEL "$tmp/swap")" = swapswp ] ||
    fail "swap"
[ "$(blkid -p -o value -s UUID "$tmp/swap")" = $uuid ] || fail "swap's UUID"
"$VDISK" label "$disk#p1" other
"$VDISK" uuid "$disk#p1" random
"$VDISK" convert -y -q -O raw "$disk#p1" "$tmp/swap"
[ "$(blkid -p -o value -s LABEL "$tmp/swap")" = other ] || fail "label of swap"
[ "$(blkid -p -o value -s UUID "$tmp/swap")" != $uuid ] || fail "UUID of swap"

# fsck: clean, damaged and only looked at, repaired; the status is e2fsck's
"$VDISK" fsck -p "$disk" >/dev/null || fail "fsck of a clean one"
expect 0 "$VDISK" fsck -n -F "$disk#p2"
like_output 'Pass 5'
copy
debugfs -w -R 'clri /ls' "$raw" >/dev/null 2>&1
for format in raw qcow2 vpc; do
    qemu-img convert -q -f raw -O $format "$raw" "$tmp/bad.img" 2>/dev/null || continue
    "$VDISK" info -f $format "$tmp/bad.img" >/dev/null 2>&1 || [ $format = raw ] || continue
    sum=$(sha256sum <"$tmp/bad.img")
    expect 4 "$VDISK" fsck -f $format -n -F "$tmp/bad.img"
    [ "$(sha256sum <"$tmp/bad.img")" = "$sum" ] || fail "fsck -n wrote into $format"
    like_output '^bad.img: '		# named as here, and not after a temporary place
    expect 1 "$VDISK" fsck -f $format -y -F "$tmp/bad.img"
    expect 0 "$VDISK" fsck -f $format -n -F "$tmp/bad.img"
done
qemu-img check -q "$disk" || fail "qemu-img check"
for view in "${TMPDIR:-/tmp}"/vdisk.??????/bad.img; do
    ! mountpoint -q "$view" || [ "$(stat -c %s "$view")" != "$(stat -c %s "$raw")" ] || fail "a view is left"
done

# the others, by their own tools, twice: what was there was given up with -y
"$VDISK" create -q -f qcow2 "$tmp/other.qcow2" 400M
for type in xfs vfat fat16 fat32 exfat btrfs ntfs; do	# (NTFS leaves a btrfs standing)
    command -v "mkfs.${type/fat[0-9]*/fat}" >/dev/null || fail "no mkfs.$type"
    kind=${type/fat[0-9]*/vfat}
    case $kind in
    xfs | btrfs) id=01234567-89ab-4cde-8f01-23456789abcd ;;
    vfat) id=ABCD-1234 ;;
    *) id= ;;
    esac
    for round in 1 2; do
        "$VDISK" mkfs -y -t $type -L LBL$round ${id:+-U $id} "$tmp/other.qcow2" >"$tmp/mkfs" 2>&1 ||
            { cat "$tmp/mkfs"; fail "mkfs -t $type, $round"; }
        "$VDISK" convert -y -q -O raw "$tmp/other.qcow2" "$tmp/other.raw"
        [ ! -s "$tmp/mkfs" ] || { cat "$tmp/mkfs"; fail "mkfs -t $type is not quiet"; }
        got=$(blkid -p -o value -s TYPE "$tmp/other.raw") && [ "$got" = $kind ] || fail "$type: $got"
        got=$(blkid -p -o value -s LABEL "$tmp/other.raw") && [ "$got" = LBL$round ] || fail "$type: $got"
        [ -z "$id" ] || [ "$(blkid -p -o value -s UUID "$tmp/other.raw")" = $id ] || fail "$type: UUID"
    done
done
expect 2 "$VDISK" mkfs -y -t ntfs -U $uuid "$tmp/other.qcow2"
expect 2 "$VDISK" mkfs -y -t nosuchfs "$tmp/other.qcow2"
like_output 'no type of file system'

# ext with what is not written in process has its label and UUID all the same; but for the UUID
# of one with multiple mount protection, which tune2fs would leave damaged
for feature in quota casefold verity encrypt mmp; do
    rm -f "$raw"
    truncate -s 60M "$raw"
    mke2fs -q -t ext4 -O $feature "$raw"
    "$VDISK" label "$raw" there || fail "label with $feature"
    [ "$("$VDISK" label "$raw")" = there ] || fail "label with $feature"
    if [ $feature = mmp ]; then
        expect 1 "$VDISK" uuid "$raw" random
    else
        "$VDISK" uuid "$raw" $uuid
        [ "$(blkid -p -o value -s UUID "$raw")" = $uuid ] || fail "UUID with $feature"
    fi
    expect 1 "$VDISK" mkdir "$raw:/no"
    like_output "the feature \"$feature\""
    e2fsck -fn "$raw" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "e2fsck with $feature"; }
done
