#!/bin/bash
# The commands about files in disks; e2fsck and debugfs are the judges after every change.
. "$(dirname "$0")/../functions.sh"
requires mke2fs e2fsck debugfs qemu-img setfattr getfattr

disk=$tmp/guest.qcow2
raw=$tmp/fs.raw

# the file system at its offset, as e2fsck sees it in a raw copy
clean() {
    "$VDISK" convert -y -q -O raw "$disk#p2" "$raw"
    e2fsck -fn "$raw" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "e2fsck after: $*"; }
}
# vd COMMAND...: must succeed and leave the file system clean
vd() { "$VDISK" "$@" || fail "vdisk $*"; clean "vdisk $*"; }
# what debugfs, not we, says of the last raw copy
dbg() { debugfs -R "$1" "$raw" 2>/dev/null; }

"$VDISK" create -q -f qcow2 "$disk" 300M
"$VDISK" part init "$disk" gpt
"$VDISK" part add "$disk" --size 10M --type swap >/dev/null
"$VDISK" part add "$disk" >/dev/null
"$VDISK" mkfs -t swap -L swap0 "$disk#p1"
"$VDISK" mkfs -L root "$disk#p2"
clean mkfs
[ "$("$VDISK" label "$disk#p2")" = root ] || fail "label of a new file system"

# without a partition named, the only file system is meant
vd mkdir -p "$disk:/etc/deep/er" "$disk:/home"
echo hello >"$tmp/hello"
vd cp "$tmp/hello" "$disk:/etc/fstab"
[ "$("$VDISK" cat "$disk:/etc/fstab")" = hello ] || fail cat
[ "$(dbg 'cat /etc/fstab')" = hello ] || fail "debugfs reads something else"
[ "$("$VDISK" ls "$disk:/etc" | tr '\n' ' ')" = "deep fstab " ] || fail ls

expect 1 "$VDISK" ls "$disk:"
like_output "'.*guest.qcow2:': a path in a disk begins with '/': '.*guest.qcow2:/'"
expect 1 "$VDISK" cat "$disk:etc/fstab"
like_output "guest.qcow2:/etc/fstab'"
vd chmod 4751 "$disk:/etc/fstab"
vd chmod g+w,o-x "$disk:/etc/fstab"
vd chown 100000:65534 "$disk:/etc/fstab"
dbg 'stat /etc/fstab' | grep -qE 'Mode: *04770' || fail "chmod"
dbg 'stat /etc/fstab' | grep -qE 'User: *100000 .*Group: *65534' || fail "chown"
printf 'root:x:0:0::/:\nalice:x:1234:1234::/home:\n' >"$tmp/passwd"
printf 'staff:x:50:\n' >"$tmp/group"
vd cp "$tmp/passwd" "$tmp/group" "$disk:/etc"
vd chown -R alice:staff "$disk:/etc/deep"
dbg 'stat /etc/deep/er' | grep -qE 'User: *1234 .*Group: *50' || fail "chown by names of the guest"
expect 1 "$VDISK" chown nobody-here "$disk:/etc"

vd ln "$disk:/etc/fstab" "$disk:/etc/second"
dbg 'stat /etc/second' | grep -q 'Links: 2' || fail "ln"
vd ln -s /etc/fstab "$disk:/home/link"
[ "$("$VDISK" cat "$disk:/home/link")" = hello ] || fail "through a symbolic link"
vd ln -s ../../../../../../etc/passwd "$disk:/home/out"
"$VDISK" cat "$disk:/home/out" | grep -q alice || fail "a link led out of the disk"
vd mv "$disk:/etc/second" "$disk:/home"
vd mv "$disk:/home/second" "$disk:/home/third"
expect 1 "$VDISK" mv "$disk:/home" "$disk:/home/below"
like_output 'below itself'
vd rm "$disk:/home/third"
expect 1 "$VDISK" rm "$disk:/home"
expect 1 "$VDISK" rm "$disk:/none"
vd rm -f "$disk:/none"
vd rm -r "$disk:/etc/deep"
expect 1 "$VDISK" cat "$disk:/etc/none"
like_output '/etc/none: no such file'
expect 1 "$VDISK" cat "$disk#p1:/x"
"$VDISK" ls -lR "$disk:/" | grep -q -- '^lrwxrwxrwx .* link -> /etc/fstab$' || fail "ls -lR"
"$VDISK" ls --json "$disk:/etc" | python3 -c '
import json, sys
entries = {e["name"]: e for e in json.load(sys.stdin)}
assert entries["fstab"]["size"] == 6 and entries["fstab"]["mode"] == "4770", entries'
"$VDISK" stat --json "$disk:/etc/fstab" | python3 -c '
import json, sys
assert json.load(sys.stdin)["uid"] == 100000'
"$VDISK" df --json "$disk" | python3 -c '
import json, sys
rows = json.load(sys.stdin)["filesystems"]
assert len(rows) == 1 and rows[0]["type"] == "ext4" and rows[0]["label"] == "root", rows'

# trees: in with everything, and out again
tree=$tmp/tree
mkdir -p "$tree/dir/empty" "$tree/many"
head -c 3000000 /dev/urandom >"$tree/random"
ln "$tree/random" "$tree/dir/hard"
ln -s ../random "$tree/dir/sym"
mkfifo "$tree/fifo"
echo 'naïve' >"$tree/dir/naïve name"
truncate -s 40M "$tree/sparse"
printf data | dd of="$tree/sparse" bs=1 seek=20000000 conv=notrunc status=none
for i in $(seq 300); do echo "$i" >"$tree/many/file$i"; done
setfattr -n user.test -v value "$tree/random" 2>/dev/null || true
chmod 2755 "$tree/dir"
[ "$(id -u)" = 0 ] && mknod "$tree/null" c 1 3 && chown 12345:54321 "$tree/random"
touch -d '2001-02-03 04:05:06.123456789' "$tree/random" "$tree/dir"
list() {
    (cd "$1" && find . -print0 | sort -z | xargs -0 stat -c '%n %f %u %g %s %y %h %t %T' |
        awk '$2 ~ /^4/ { $5 = "" } { print }'
        find . -type f -print0 | sort -z | xargs -0 sha256sum
        getfattr -R -h -d -m- . 2>/dev/null | sort)
}
vd cp -a "$tree" "$disk:/copy"
mkdir "$tmp/back"
"$VDISK" cp -a "$disk:/copy" "$tmp/back"
diff <(list "$tree") <(list "$tmp/back/copy") || fail "cp -a there and back"
[ "$(stat -c %b "$tmp/back/copy/sparse")" -lt 1000 ] || fail "holes were filled"
dbg 'stat /copy/sparse' | grep -q 'Size: 41943040' || fail "the sparse file"
dbg 'stat /copy/random' | grep -qi 'mtime: .*Feb *3 04:05:06 2001' || fail "times"
vd cp -a "$disk:/copy" "$disk:/copy2"
"$VDISK" cp -a "$disk:/copy2" "$tmp/back"
diff <(list "$tree") <(list "$tmp/back/copy2") || fail "a copy inside the disk"
# again, over what is there
vd cp -a "$tree/." "$disk:/copy2"

vd mkdir "$disk:/tar"
tar -C "$tree" --xattrs --xattrs-include='*' -S -cf - . | "$VDISK" untar "$disk:/tar" || fail untar
clean untar
"$VDISK" tar "$disk:/tar" >"$tmp/out.tar"
mkdir "$tmp/untarred"
tar -C "$tmp/untarred" --xattrs --xattrs-include='*' -xpf "$tmp/out.tar" 2>"$tmp/tar.err"
[ "$(id -u)" != 0 ] || diff <(list "$tree") <(list "$tmp/untarred") || fail "tar there and back"
[ "$(stat -c %b "$tmp/untarred/sparse")" -lt 1000 ] || fail "tar filled holes"
gzip -c "$tmp/out.tar" | vd untar "$disk:/tar"
expect 1 "$VDISK" untar "$disk:/tar" <"$tmp/passwd"
like_output 'archive'
clean "a bad archive"

# an archive that wants out
python3 - "$tmp/evil.tar" <<'PY'
import io, sys, tarfile
t = tarfile.open(sys.argv[1], 'w')
def add(name, kind=tarfile.REGTYPE, link='', data=b''):
    i = tarfile.TarInfo(name); i.type = kind; i.linkname = link; i.size = len(data)
    t.addfile(i, io.BytesIO(data))
add('/absolute', data=b'in the directory')
add('abs', tarfile.SYMTYPE, '/etc')
add('abs/passwd2', data=b'evil')
add('up', tarfile.SYMTYPE, '../../..')
add('up/escaped', data=b'evil')
t.close()
t = tarfile.open(sys.argv[1] + '2', 'w')
add('../escaped2', data=b'evil')
t.close()
PY
vd mkdir "$disk:/jail"
"$VDISK" mkdir "$disk:/jail/etc"
"$VDISK" untar "$disk:/jail" <"$tmp/evil.tar" || fail "absolute names"
clean "untar evil"
[ "$("$VDISK" cat "$disk:/jail/absolute")" = "in the directory" ] || fail "an absolute name"
"$VDISK" ls "$disk:/etc" | grep -q passwd2 && fail "a member escaped through a link"
"$VDISK" cat "$disk:/jail/etc/passwd2" >/dev/null || fail "the link was not confined"
"$VDISK" ls "$disk:/" | grep -q escaped && fail "a member escaped through .."
expect 1 "$VDISK" untar "$disk:/jail" <"$tmp/evil.tar2"
like_output 'refused'

# a disk that wants out: the same name twice, first a link to the host, then a directory
"$VDISK" convert -y -q -O raw "$disk#p2" "$raw"
debugfs -w -f /dev/stdin "$raw" >/dev/null 2>&1 <<DBG
mkdir /h
mkdir /h/d1
symlink /h/d2 $tmp/outside
write $tmp/hello /h/d1/f
DBG
python3 - "$raw" <<'PY'
import sys
b = bytearray(open(sys.argv[1], 'rb').read())
n = b.count(b'\x02\x02d1') + b.count(b'\x02\x07d2')
b = b.replace(b'\x02\x02d1', b'\x02\x02dx').replace(b'\x02\x07d2', b'\x02\x07dx')
assert n >= 2, n
open(sys.argv[1], 'wb').write(b)
PY
mkdir "$tmp/outside" "$tmp/inside"
tune2fs -O ^metadata_csum "$raw" >/dev/null 2>&1 || true
"$VDISK" cp -r "$raw:/h" "$tmp/inside" >/dev/null 2>&1 || true
[ -z "$(ls -A "$tmp/outside")" ] || fail "a disk wrote outside of where it was copied to"

# read-only stays read-only
cp "$disk" "$tmp/ro.qcow2"
sum=$(sha256sum <"$tmp/ro.qcow2")
"$VDISK" ls -lR "$tmp/ro.qcow2:/" >/dev/null
"$VDISK" tar "$tmp/ro.qcow2:/" >/dev/null
"$VDISK" df "$tmp/ro.qcow2" >/dev/null
[ "$(sha256sum <"$tmp/ro.qcow2")" = "$sum" ] || fail "reading changed the image"
expect 2 "$VDISK" ls
expect 2 "$VDISK" chmod u+q "$disk:/etc"
qemu-img check -q "$disk" || fail "qemu-img check"
