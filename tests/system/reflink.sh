#!/bin/bash
# On a file system that can share blocks (XFS), converting raw to raw copies nothing.
. "$(dirname "$0")/../functions.sh"
requires mkfs.xfs qemu-system-x86_64

if [ "${1-}" = inside ]; then
    cd "$2"
    truncate -s 400M fs.img
    mkfs.xfs -q -m reflink=1 fs.img
    mkdir mnt
    mount -o loop fs.img mnt
    cd mnt
    head -c 120M /dev/urandom > a.raw
    truncate -s 200M a.raw
    sync
    before=$(df --output=used -B1 . | tail -1)
    "$VDISK" convert -q -O raw a.raw b.raw
    sync
    after=$(df --output=used -B1 . | tail -1)
    cmp a.raw b.raw
    [ $((after - before)) -lt $((8 << 20)) ] || fail "the copy takes $((after - before)) bytes of its own"
    # blocks that are shared are still two files
    head -c 4096 /dev/zero | dd of=b.raw conv=notrunc status=none
    ! cmp -s a.raw b.raw || fail 'writing to the copy changed the original'
    cd ..
    umount mnt
    exit 0
fi
expect 0 in_machine --modules 'loop xfs' --mem 1536 --limit 110 -- bash "$(readlink -f "$0")" inside "$tmp"
