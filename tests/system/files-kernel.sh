#!/bin/bash
# Files that we wrote, read by the kernel's ext4, and the reverse; journals that the
# kernel left dirty.
. "$(dirname "$0")/../functions.sh"

if [ "${1:-}" != inside ]; then
    requires mke2fs e2fsck setfattr getfattr qemu-system-x86_64
    expect 0 in_machine --modules 'loop ext4' --mem 1536 --limit 300 -- \
        bash "$(readlink -f "$0")" inside
    exit 0
fi

list() {
    (cd "$1" && find . -mindepth 1 ! -name lost+found -print0 | sort -z |
        xargs -0 stat -c '%n %f %u %g %s %y %h %t %T' | awk '$2 ~ /^4/ { $5 = "" } { print }'
        find . -type f -print0 | sort -z | xargs -0 sha256sum
        find . -type l -print0 | sort -z | xargs -0 -n1 readlink
        getfattr -R -h -d -m- . 2>/dev/null | sort)
}
clean() { e2fsck -fn "$1" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "e2fsck: $2"; }; }

# a tree with something of everything
make_tree() {
    mkdir -p "$1/dir/sub" "$1/many"
    head -c 1000000 /dev/urandom >"$1/big"
    truncate -s 20M "$1/sparse"
    printf data | dd of="$1/sparse" bs=1 seek=10000000 conv=notrunc status=none
    for i in $(seq 120); do echo "$i" >"$1/many/a-name-of-some-length-$i"; done
    ln "$1/big" "$1/dir/hard"
    ln -s ../big "$1/dir/sym"
    ln -s "$(printf 'long/%.0s' {1..40})" "$1/dir/slow"
    mkfifo "$1/fifo"
    mknod "$1/null" c 1 3
    mknod "$1/big-minor" b 259 70000
    chown 100000:65534 "$1/big"
    chmod 6751 "$1/dir/sub"
    setfattr -n user.small -v x "$1/big"
    setfattr -n user.large -v "$(head -c 500 /dev/zero | tr '\0' y)" "$1/dir"
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 "$1/many/a-name-of-some-length-1"
    touch -h -d '2040-02-03 04:05:06.123456789' "$1/big" "$1/dir/sub" "$1/fifo"
}

# a place with extended attributes, which tmpfs has not
mount -t tmpfs tmpfs /mnt
truncate -s 600M /mnt/work
mke2fs -q -F -t ext4 /mnt/work
mount -o loop /mnt/work /mnt
rmdir /mnt/lost+found
mkdir /mnt/tree /mnt/back /mnt/m
make_tree /mnt/tree
img=/mnt/fs
for kind in "-t ext4" "-t ext2 -b 1024"; do
    # shellcheck disable=SC2086 # words
    mke2fs -q -F $kind $img 80M
    # ours, read by the kernel
    "$VDISK" cp -a /mnt/tree/. "$img:/" || fail "cp -a into $kind"
    "$VDISK" mv "$img:/many/a-name-of-some-length-7" "$img:/dir/moved"
    "$VDISK" mkdir "$img:/ours"
    clean $img "$kind: ours"
    mount -o loop $img /mnt/m || fail "mount $kind"
    mv /mnt/m/dir/moved /mnt/m/many/a-name-of-some-length-7
    rmdir /mnt/m/ours
    touch -d '2001-01-01' /mnt/tree /mnt/m /mnt/tree/dir /mnt/m/dir /mnt/tree/many /mnt/m/many
    diff <(list /mnt/tree) <(list /mnt/m) || fail "$kind: the kernel reads something else"
    # the kernel's, read by us
    rm -r /mnt/m/*
    cp -a /mnt/tree/. /mnt/m
    umount /mnt/m
    clean $img "$kind: the kernel's"
    rm -rf /mnt/back
    mkdir /mnt/back
    "$VDISK" cp -a "$img:/." /mnt/back || fail "cp -a out of $kind"
    diff <(list /mnt/tree) <(list /mnt/back) || fail "$kind: we read something else"
    echo "$kind: ok"
done

# a machine that was switched off: the journal holds what the disk does not
mke2fs -q -F -t ext4 $img 80M
mount -o loop,commit=600 $img /mnt/m
for i in 1 2 3; do
    echo "before $i" >/mnt/m/file$i
    mkdir /mnt/m/d$i
    sync -f /mnt/m
done
exec 9<>/mnt/m/open
rm /mnt/m/open /mnt/m/file2
sync -f /mnt/m
cp $img /mnt/dead
exec 9>&-
umount /mnt/m
dumpe2fs -h /mnt/dead 2>/dev/null | grep -q needs_recovery || fail "no dirty journal was made"
sum=$(sha256sum </mnt/dead)
[ "$("$VDISK" cat /mnt/dead:/file3)" = "before 3" ] || fail "what was in the journal is not read"
expect 1 "$VDISK" cat /mnt/dead:/file2
[ "$(sha256sum </mnt/dead)" = "$sum" ] || fail "reading wrote"
"$VDISK" mkdir /mnt/dead:/ours || fail "write after replay"
clean /mnt/dead "after our replay"
mount -o loop /mnt/dead /mnt/m || fail "mount after our replay"
[ "$(cat /mnt/m/file1)" = "before 1" ] && [ -d /mnt/m/ours ] || fail "files after our replay"
umount /mnt/m
