#!/bin/bash
# A disk as a file of this host.
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io mke2fs e2fsck fusermount3
[ -w /dev/fuse ] || skip "/dev/fuse cannot be used"

disk=$tmp/d.qcow2
view=$tmp/view
"$VDISK" create -q -f qcow2 "$disk" 64M
serve() {
    start "$VDISK" export --fuse "$view" "$@"
    wait_for 20 mountpoint -q "$view"
}
serve "$disk"
[ "$(stat -c %s "$view")" = $((64 << 20)) ] || fail "size"
# another writer is kept off
expect 1 "$VDISK" mkfs -y "$disk"
head -c 3000000 /dev/urandom >"$tmp/data"
dd if="$tmp/data" of="$view" bs=64k seek=10 conv=notrunc,fsync status=none
cmp -n 3000000 -i 655360:0 "$view" "$tmp/data" || fail "reads"
[ "$(qemu-io -r -f raw -c 'read -P 0 0 640k' "$view" | grep -c 'Pattern verification failed')" = 0 ] ||
    fail "zeroes"
# holes: known, and made again
python3 - "$view" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
assert os.lseek(fd, 0, os.SEEK_DATA) == 10 * 65536, os.lseek(fd, 0, os.SEEK_DATA)
hole = os.lseek(fd, 10 * 65536, os.SEEK_HOLE)
assert 10 * 65536 + 3000000 <= hole <= 10 * 65536 + 3000000 + 65536, hole
try:
    os.lseek(fd, hole, os.SEEK_DATA)
    raise SystemExit('data after the end of data')
except OSError:
    pass
for change in (lambda: os.ftruncate(fd, 1 << 20), lambda: os.pwrite(fd, b'x', 64 << 20)):
    try:
        change()
        raise SystemExit('the size was changed')
    except OSError:
        pass
PY
fallocate -p -o 655360 -l 655360 "$view" || fail "punching a hole"
cmp -n 655360 -i 655360:0 "$view" /dev/zero || fail "a hole is not zero"
kill "$started"
wait "$started" || fail "export ended with $?"
[ ! -e "$view" ] || fail "the file stayed"
"$VDISK" check -q "$disk" >/dev/null || fail check
qemu-img check -q "$disk" || fail "qemu-img check"
"$VDISK" convert -q -O raw "$disk" "$tmp/raw"
cmp -n $((3000000 - 655360)) -i $((2 * 655360)):655360 "$tmp/raw" "$tmp/data" || fail "what is in the image"

# read-only, and ended by unmounting
: >"$view"
serve -r "$disk"
expect 1 dd if=/dev/zero of="$view" bs=4k count=1 conv=notrunc
fusermount3 -u "$view"
wait "$started" || fail "export -r ended with $?"
[ -f "$view" ] || fail "a file that was there before is gone"
expect 1 "$VDISK" export --fuse "$tmp/data" "$disk"
expect 2 "$VDISK" export --fuse "$view" "$disk" "$disk"
