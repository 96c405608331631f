#!/bin/bash
# vdisk mount and umount by FUSE, as an ordinary user where there is one to be.
. "$(dirname "$0")/../functions.sh"
python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3)
requires mke2fs e2fsck debugfs fusermount3 mkfs.vfat setfattr getfattr
[ -w /dev/fuse ] || skip "/dev/fuse cannot be used"
STEPS=1500
[ "${LONG:-}" != 1 ] || STEPS=50000

export VDISK_RUNTIME_DIR=$tmp/run
as=()
if [ "$(id -u)" = 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups "$VDISK" --version >/dev/null 2>&1; then
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    chmod 755 "$tmp"
fi
user() { "${as[@]}" "$@"; }
mkdir "$tmp/u" "$tmp/run"
[ ${#as[@]} = 0 ] || chown 65534:65534 "$tmp/u" "$tmp/run"
chmod 700 "$tmp/run"
cd "$tmp/u"
m=$tmp/u/m
user mkdir "$m" model
cleanup_fn user fusermount3 -uzq "$m"
mounted() { mountpoint -q "$m" 2>/dev/null || user mountpoint -q "$m"; }
clean() { e2fsck -fn "$1" >fsck.log 2>&1 || { cat fsck.log; fail "e2fsck: $2"; }; }

# ---- what is there is shown as it is ----
mkdir -p tree/dir
head -c 3000000 /dev/urandom >tree/big
head -c 300000 /dev/urandom >tree/dir/file
truncate -s 20M tree/sparse
printf data | dd of=tree/sparse bs=1 seek=10000000 conv=notrunc status=none
ln tree/big tree/dir/hard
ln -s ../big tree/dir/link
mkfifo tree/fifo
[ ${#as[@]} = 0 ] || chown -hR 65534:65534 tree
chmod 6751 tree/dir
chmod 640 tree/big
touch -h -d '2030-02-03 04:05:06.000000000' tree/big tree/dir/link
truncate -s 100M d.raw
mke2fs -q -F -t ext4 -d tree d.raw
debugfs -w -R "ea_set /big user.name value" d.raw 2>/dev/null
debugfs -w -R "set_inode_field /big uid 4711" d.raw 2>/dev/null
"$VDISK" convert -q -O qcow2 d.raw d.qcow2
chmod 666 d.*
for d in d.raw d.qcow2; do
    expect 0 user "$VDISK" mount --fuse -r $d m
    user diff -r --no-dereference tree m >diff.log || grep -v 'lost+found\|is a fifo' diff.log && fail "$d: $(cat diff.log)"
    [ "$(user stat -c '%a %u %s %h %y' m/big)" = "640 4711 3000000 2 2030-02-03 04:05:06.000000000 +0000" ] ||
        fail "$(TZ=UTC user stat m/big)"
    [ "$(user stat -c '%A' m/dir m/fifo | tr '\n' ' ')" = 'drwsr-s--x prw-r--r-- ' ] || fail "modes"
    [ "$(user readlink m/dir/link)" = ../big ] || fail "a link"
    [ "$(user getfattr --only-values -n user.name m/big)" = value ] || fail "an attribute"
    [ "$(user stat -c %b m/sparse)" -lt 100 ] || fail "a sparse file takes space"
    user "$python" - m/sparse <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
assert os.lseek(fd, 0, os.SEEK_DATA) == 9999360 // 4096 * 4096 or os.lseek(fd, 0, os.SEEK_DATA) <= 10000000
assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
PY
    expect 1 user touch m/x
    like_output 'Read-only'
    expect 1 user "$VDISK" mkdir "$d:/x"	# a reader keeps writers off
    like_output "vdisk"
    expect 0 user "$VDISK" umount m
    ! mounted || fail "still mounted"
done
expect 1 user "$VDISK" umount m
like_output 'nothing is mounted'
expect 1 user "$VDISK" mount --fuse d.raw nowhere
expect 1 user "$VDISK" mount --fuse nothing.raw m
like_output 'nothing.raw'
head -c 1M /dev/urandom >noise
expect 1 user "$VDISK" mount --fuse noise m
expect 2 user "$VDISK" mount --fuse d.raw

# ---- written, and durable when umount returns ----
expect 0 user "$VDISK" mount --fuse d.qcow2 m
user cp -a tree/dir m/copy
user sh -c 'echo one > m/one; ln m/one m/two; mv m/two m/three; mkdir m/new; rmdir m/new; rm m/fifo
    truncate -s 1000 m/big; setfattr -n user.a -v b m/one; chmod 4755 m/one
    exec 5<>m/gone; rm m/gone; echo still >&5; cat /proc/self/fd/5 >out'
[ "$(cat out)" = still ] || fail "a file without a name"
expect 1 user "$VDISK" cat d.qcow2:/one	# a writer keeps readers off
like_output 'vdisk'
expect 0 user "$VDISK" umount m
[ -z "$(ls "$tmp/run")" ] || fail "left behind: $(ls "$tmp/run")"
"$VDISK" convert -q -y -O raw d.qcow2 after.raw
clean after.raw "after umount"
[ "$("$VDISK" cat after.raw:/three)" = one ] || fail "not saved"
[ "$("$VDISK" cat after.raw:/copy/file | sha256sum)" = "$(sha256sum <tree/dir/file)" ] || fail "a copy differs"
[ "$("$VDISK" stat --json after.raw:/three | grep -c '"links": 2\|"mode": "4755"')" = 2 ] || fail "links, mode"
expect 1 "$VDISK" stat after.raw:/gone

# a mount that is busy says so, and goes on
expect 0 user "$VDISK" mount --fuse d.qcow2 m
"${as[@]}" sh -c 'exec sleep 60 <m/one' &
holder=$!
pids+=("$holder")
wait_for 10 grep -q sleep "/proc/$holder/cmdline"
expect 1 user "$VDISK" umount m
like_output "busy.*sleep 60.*pid"
[ "$(user cat m/one)" = one ] || fail "no longer there"
kill "$holder"
wait "$holder" 2>/dev/null || true
expect 0 user "$VDISK" umount m
# ended by a signal: saved as well
expect 0 user "$VDISK" mount --fuse d.qcow2 m
user sh -c 'echo signal > m/signal'
pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$tmp"/run/mount-*.json)
kill "$pid"
nothing_left() { [ -z "$(ls "$tmp/run")" ]; }
wait_for 20 nothing_left
[ "$("$VDISK" cat d.qcow2:/signal)" = signal ] || fail "lost at a signal"

# who waits for the end finds the disk free: the record of the mount goes last (a traced
# program gets no rights from fusermount3)
if [ "$(id -u)" = 0 ] && command -v strace >/dev/null && strace -qq true 2>/dev/null; then
    mkdir -m 700 "$tmp/root"
    VDISK_RUNTIME_DIR=$tmp/root strace -f -qq -y -e trace=close,unlink -o "$tmp/trace" \
        "$VDISK" mount --fuse -F d.raw m &
    tracer=$!
    pids+=("$tracer")
    wait_for 20 mounted
    expect 0 env VDISK_RUNTIME_DIR="$tmp/root" "$VDISK" umount m
    wait "$tracer" || fail "mount under strace: $(cat "$tmp/trace")"
    [ "$(grep -o '/d\.raw>\|unlink(".*/mount-[0-9]*\.json")' "$tmp/trace" | tail -1 | cut -c1-6)" = unlink ] ||
        fail "the disk is closed too late: $(tail -20 "$tmp/trace")"
else
    echo 'not root, or no strace: not looked at when the disk is closed'
fi

# ---- random operations against a model ----
for kind in '-t ext4' '-t ext4 -O inline_data' '-t ext2 -b 1024'; do
    rm -rf model fs
    user mkdir model
    truncate -s 300M fs
    # shellcheck disable=SC2086 # words
    mke2fs -q -F $kind fs
    chmod 666 fs
    expect 0 user "$VDISK" mount --fuse fs m
    user "$python" "$TOP/tests/tools/fsx.py" m model $STEPS "${SEED:-$RANDOM}" \
        "$(case $kind in *ext2*) echo nopunch ;; esac)" || fail "$kind"
    expect 0 user "$VDISK" umount m
    clean fs "$kind, random operations"
done

# several at a time
expect 0 user "$VDISK" mount --fuse fs m
writer() { for i in 1 2 3; do head -c 2000000 /dev/urandom >"m/w$1-$i"; sha256sum "m/w$1-$i"; done; }
export -f writer
for i in 1 2 3 4; do user bash -c "writer $i" >"sums$i" & pids+=("$!"); done
for i in 1 2 3; do user bash -c 'for i in 1 2 3 4 5; do find m -type f -exec cat {} + >/dev/null; done' & pids+=("$!"); done
wait
cat sums? | user sha256sum -c --quiet || fail "several writers"
expect 0 user "$VDISK" umount m
expect 0 user "$VDISK" mount --fuse -r fs m
cat sums? | user sha256sum -c --quiet || fail "several writers, mounted again"
expect 0 user "$VDISK" umount m
clean fs "several writers"

# ---- FAT ----
truncate -s 300M fat
mkfs.vfat -n LABEL fat >/dev/null
chmod 666 fat
rm -rf model
user mkdir model
expect 0 user "$VDISK" mount --fuse fat m
user "$python" "$TOP/tests/tools/fsx.py" m model $STEPS "${SEED:-$RANDOM}" fat || fail "FAT"
user touch m/plain
expect 1 user getfattr -n user.a m/plain
like_output 'not supported'
expect 0 user "$VDISK" umount m
fsck.vfat -n fat >fsck.log || { cat fsck.log; fail "FAT, random operations"; }

# ---- a process that was killed: the next command says so, and clears up ----
expect 0 user "$VDISK" mount --fuse d.qcow2 m
user sh -c 'echo killed > m/killed'
pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$tmp"/run/mount-*.json)
kill -9 "$pid"
wait_for 20 test ! -d "/proc/$pid"
expect 1 user "$VDISK" umount m
like_output 'killed'
like_output "d.qcow2"
! mounted || fail "still mounted"
[ -z "$(ls "$tmp/run")" ] || fail "left behind: $(ls "$tmp/run")"

# ---- killed at random moments: what the journal has committed is whole ----
ROUNDS=4
[ "${LONG:-}" != 1 ] || ROUNDS=50
for ((i = 0; i < ROUNDS; i++)); do
    rm -rf model fs
    user mkdir model
    truncate -s 200M fs
    mke2fs -q -F -t ext$((3 + i % 2)) fs
    chmod 666 fs
    expect 0 user "$VDISK" mount --fuse fs m
    pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$tmp"/run/mount-*.json)
    "${as[@]}" "$python" "$TOP/tests/tools/fsx.py" m model 1000000 $((RANDOM)) nopunch >/dev/null 2>&1 &
    worker=$!
    pids+=("$worker")
    sleep "$((RANDOM % 5)).$((RANDOM % 10))"
    kill -9 "$pid"
    wait "$worker" 2>/dev/null || true
    user "$VDISK" umount m 2>/dev/null || true	# which clears up
    cp fs dead
    e2fsck -fy dead >fsck.log 2>&1 || { cat fsck.log; fail "round $i: damaged by kill -9"; }
    # our replay, and what a crash left, as well
    expect 0 user "$VDISK" mkdir fs:/after
    clean fs "round $i: after our replay"
done
