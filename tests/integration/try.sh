#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk try but for the virtual machine: the overlay, the command that is put into it, what
# comes back, --keep and --commit, many at once, and what is left after a kill.
#
# A script stands in for vmm-lite.  It finds in the overlay what a guest would find, runs
# the command line of our script, and puts the results back as a guest would.
. "$(dirname "$0")/../functions.sh"
requires mke2fs sfdisk qemu-img

mkdir "$tmp/bin" "$tmp/scratch"
cp "$VDISK" "$tmp/bin/vdisk"
export TMPDIR=$tmp/scratch FAKE=$tmp/fake REAL=$VDISK
mkdir "$FAKE"
try=$tmp/bin/vdisk

cat > "$tmp/bin/vmm-lite" <<'END'
#!/bin/bash
# the guest that is not one
set -eu
[ "$1" != --check ] || exit 0
printf '%s\n' "$@" > "$FAKE/args.$PPID"
while [ $# -gt 0 ]; do
    case $1 in
    --disk) [ -n "${disk-}" ] || disk=$2; shift ;;
    --append) append=$2; shift ;;
    --file) fd=${2%%=*}; exec {fd}>&-; shift ;;	# with its lock
    --port) case $2 in vdisk.out=fd:*) out=/dev/fd/${2##*:} ;; vdisk.err=fd:*) err=/dev/fd/${2##*:} ;; esac; shift ;;
    esac
    shift
done
echo "console says hello"
printf '\033[2Jevil\n'
case $(cat "$FAKE/mode" 2>/dev/null || true) in
panic) exit 17 ;;
idle) exit 0 ;;
hang) echo $$ > "$FAKE/hangs.$PPID"; exec sleep 100 ;;
files) out= ;;	# a guest without the driver
reboot) [ -e "$FAKE/once" ] || { touch "$FAKE/once"; exit 16; } ;;
esac
dir=$FAKE/guest.$PPID
mkdir -p "$dir"
"$REAL" cat "$disk:/etc/vdisk-try/run" > "$dir/run"
# who would start it?
case $append in
*init=/etc/vdisk-try/run*) echo init > "$FAKE/by" ;;
*) for f in /etc/systemd/system/multi-user.target.wants/vdisk-try.service \
        /etc/runlevels/default/vdisk-try /etc/rc3.d/S99vdisk-try /etc/init.d/S99vdisk-try; do
        if "$REAL" cat "$disk:$f" >/dev/null 2>&1; then echo "$f" > "$FAKE/by"; fi
    done ;;
esac
[ -n "${out-}" ] || { out=$dir/out; err=$dir/err; }
sed -n '/^(exec/p; /^s=/p; /^echo \$s/p' "$dir/run" | sed "s,/etc/vdisk-try,$dir,g; s,status.new,status," > "$dir/line"
(cd "$dir" && export out err && sh line)
echo changed > "$dir/changed"
for f in out err status; do
    [ ! -e "$dir/$f" ] || "$REAL" cp "$dir/$f" "$disk:/etc/vdisk-try/"
done
"$REAL" cp "$dir/changed" "$disk:/changed"
END
chmod +x "$tmp/bin/vmm-lite"

# guest DIR...: a guest of these directories, and the files by which it is known
guest() {
    rm -rf "$tmp/root"
    mkdir -p "$tmp/root"/{etc,boot,bin,root}
    touch "$tmp/root/boot/vmlinuz-6.1" "$tmp/root/bin/sh"
    echo 'LABEL=root / ext4 defaults 0 1' > "$tmp/root/etc/fstab"
    head -c 10000 /dev/urandom > "$tmp/root/boot/vmlinuz-6.1"
    for d; do
        mkdir -p "$tmp/root/$(dirname "$d")"
        case $d in */) mkdir -p "$tmp/root/$d" ;; *) touch "$tmp/root/$d" ;; esac
    done
    rm -f "$tmp/disk.raw" "$tmp/disk.qcow2"
    truncate -s 40M "$tmp/disk.raw"
    echo 'start=2048' | sfdisk -q "$tmp/disk.raw"
    mke2fs -q -t ext4 -L root -d "$tmp/root" -E offset=1048576 "$tmp/disk.raw" 39M
    qemu-img convert -O qcow2 "$tmp/disk.raw" "$tmp/disk.qcow2"
    sum=$(sha256sum < "$tmp/disk.qcow2")
}
unchanged() { [ "$(sha256sum < "$tmp/disk.qcow2")" = "$sum" ] || fail 'the disk has changed'; }
nothing_left() { [ -z "$(ls -A "$TMPDIR")" ] || fail "left: $(ls -A "$TMPDIR")"; }

# ---- output, status, who starts it ----

guest usr/lib/systemd/systemd
"$try" try "$tmp/disk.qcow2" -- sh -c 'echo "it'\''s $0 $1"; echo wrong >&2; exit 7' 'a  b' '$c;' \
    > "$tmp/out" 2> "$tmp/err" && fail 'status 0' || rc=$?
[ "$rc" = 7 ] || fail "status $rc: $(cat "$tmp/err")"
[ "$(cat "$tmp/out")" = "it's a  b \$c;" ] || fail "output: $(cat "$tmp/out")"
[ "$(cat "$tmp/err")" = wrong ] || fail "errors: $(cat "$tmp/err")"
[ "$(cat "$FAKE/by")" = /etc/systemd/system/multi-user.target.wants/vdisk-try.service ] || fail "by $(cat "$FAKE/by")"
! compgen -G "$FAKE/guest.*/out" > /dev/null || fail 'the output was put into a file'
grep -qx -- unsafe "$FAKE"/args.* || fail 'a throw-away disk is flushed'
unchanged; nothing_left

# as it is printed
mkfifo "$tmp/go" "$tmp/said"
"$try" try "$tmp/disk.qcow2" -- sh -c "echo first; read x < $tmp/go; echo second" > "$tmp/said" &
exec 8< "$tmp/said"
read -r -t 60 -u 8 line
[ "$line" = first ] || fail "not live: $line"
echo > "$tmp/go"
read -r -t 60 -u 8 line
[ "$line" = second ] || fail "not live: $line"
wait $!
# nobody reads: that does not stop the command
expect 3 sh -c "'$try' try '$tmp/disk.qcow2' -- sh -c 'head -c 300000 /dev/zero; exit 3' >&-"
# a guest without a driver for that
echo files > "$FAKE/mode"
"$try" try "$tmp/disk.qcow2" -- sh -c 'echo on a file; echo wrong >&2; exit 7' > "$tmp/out" 2> "$tmp/err" || rc=$?
[ "$rc $(cat "$tmp/out") $(cat "$tmp/err")" = '7 on a file wrong' ] || fail "files: $rc $(cat "$tmp/out" "$tmp/err")"
rm "$FAKE/mode"

expect 127 "$try" try "$tmp/disk.qcow2" -- /no/such/program
# its name is the one that was given
truncate -s 1M "$tmp/nothing.raw"
expect 125 "$try" try "$tmp/nothing.raw" -- true
like_output "vdisk: $tmp/nothing.raw: no file system"
expect 1 "$try" try "$tmp/nothing.raw"
like_output "boot: $tmp/nothing.raw: no file system"
expect 0 "$try" try "$tmp/disk.qcow2" -- head -c 3000000 /dev/zero
[ ${#output} = 0 ] || fail 'zeroes became something'
expect 0 "$try" try -v "$tmp/disk.qcow2" -- true
like_output 'console says hello'

guest sbin/openrc-run etc/init.d/ etc/runlevels/default/
expect 3 "$try" try "$tmp/disk.qcow2" -- sh -c 'exit 3'
[ "$(cat "$FAKE/by")" = /etc/runlevels/default/vdisk-try ] || fail "by $(cat "$FAKE/by")"
guest etc/init.d/ etc/rc2.d/ etc/rc3.d/
expect 3 "$try" try "$tmp/disk.qcow2" -- sh -c 'exit 3'
[ "$(cat "$FAKE/by")" = /etc/rc3.d/S99vdisk-try ] || fail "by $(cat "$FAKE/by")"
guest etc/init.d/rcS
expect 3 "$try" try "$tmp/disk.qcow2" -- sh -c 'exit 3'
[ "$(cat "$FAKE/by")" = /etc/init.d/S99vdisk-try ] || fail "by $(cat "$FAKE/by")"
guest
expect 3 "$try" try "$tmp/disk.qcow2" -- sh -c 'exit 3'
[ "$(cat "$FAKE/by")" = init ] || fail "by $(cat "$FAKE/by")"

# ---- guests that do not get there ----

guest usr/lib/systemd/systemd
echo panic > "$FAKE/mode"
expect 125 "$try" try "$tmp/disk.qcow2" -- true
like_output 'status 17.*before the command'
like_output 'console says hello'
[[ $output != *$'\033'* ]] || fail 'the guest reached the terminal'
expect 17 "$try" try "$tmp/disk.qcow2"
expect 125 "$try" try --commit "$tmp/disk.qcow2" -- true
like_output 'nothing was committed'
echo idle > "$FAKE/mode"
expect 125 "$try" try "$tmp/disk.qcow2" -- true
like_output 'powered off before'
echo reboot > "$FAKE/mode"
expect 4 "$try" try "$tmp/disk.qcow2" -- sh -c 'exit 4'
rm "$FAKE/mode"
unchanged; nothing_left

# ---- keep ----

expect 0 "$try" try --keep tested "$tmp/disk.qcow2" -- true
[ "$(vdisk cat "$tmp/disk.qcow2@tested:/changed")" = changed ] || fail 'not in the snapshot'
expect 1 vdisk cat "$tmp/disk.qcow2:/changed"
expect 1 vdisk ls "$tmp/disk.qcow2@tested:/etc/vdisk-try"
expect 1 vdisk stat "$tmp/disk.qcow2@tested:/etc/systemd/system/vdisk-try.service"
[ "$(vdisk snapshot list "$tmp/disk.qcow2" --json | grep -c '"name"')" = 1 ] || fail 'more than one snapshot'
vdisk check "$tmp/disk.qcow2" > /dev/null || fail 'check'
qemu-img convert -O raw "$tmp/disk.qcow2" "$tmp/now.raw"
cmp "$tmp/now.raw" "$tmp/disk.raw" || fail 'the disk has changed'
expect 125 "$try" try --keep tested "$tmp/disk.qcow2" -- true
like_output "has a snapshot 'tested' already"
sum=$(sha256sum < "$tmp/disk.qcow2")

# a command that failed is worth looking at, too
expect 5 "$try" try --keep "$tmp/kept.qcow2" "$tmp/disk.qcow2" -- sh -c 'exit 5'
[ "$(vdisk cat "$tmp/kept.qcow2:/changed")" = changed ] || fail 'not in the new image'
qemu-img info "$tmp/kept.qcow2" | grep -q "backing file: $tmp/disk.qcow2" || fail 'no backing file'
unchanged
expect 125 "$try" try --keep "$tmp/kept.qcow2" "$tmp/disk.qcow2" -- true
like_output exists
expect 1 "$try" try --keep x "$tmp/disk.raw"
like_output 'raw images have no snapshots'

# ---- commit ----

expect 5 "$try" try --commit "$tmp/disk.qcow2" -- sh -c 'exit 5'
unchanged
expect 0 "$try" try --commit "$tmp/disk.raw" -- true
[ "$(vdisk cat "$tmp/disk.raw:/changed")" = changed ] || fail 'not committed'
vdisk fsck -n "$tmp/disk.raw#p1" > /dev/null || fail 'fsck'
expect 2 "$try" try --commit --keep x "$tmp/disk.qcow2"

# ---- ten at once; nobody else writes meanwhile ----

echo hang > "$FAKE/mode"
for i in 1 2 3 4 5 6 7 8 9; do start "$try" try "$tmp/disk.qcow2"; done
hanging() { [ "$(find "$FAKE" -name 'hangs.*' | wc -l)" = "$1" ]; }
wait_for 60 hanging 9
expect 1 vdisk resize "$tmp/disk.qcow2" 50M
rm "$FAKE/mode"
expect 0 "$try" try "$tmp/disk.qcow2" -- echo tenth
[ "$output" = tenth ] || fail "$output"
# in use by others: it can be tried, but not changed
expect 125 "$try" try --commit "$tmp/disk.qcow2" -- true
unchanged

# ---- killed: no file, no guest, no lock ----

for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
wait 2>/dev/null || true
no_guests() {
    local f
    for f in "$FAKE"/hangs.*; do ! kill -0 "$(cat "$f")" 2>/dev/null || return 1; done
}
wait_for 60 no_guests
expect 0 "$VDISK" resize -q "$tmp/disk.qcow2" 48M
pids=()
nothing_left

# what no image could name (it is tried for real in try-uml)
guest
expect 0 vdisk snapshot create "$tmp/disk.qcow2" clean
sum=$(sha256sum < "$tmp/disk.qcow2")
rm -f "$FAKE"/args.*
expect 125 "$try" try --commit "$tmp/disk.qcow2@clean" -- true
like_output 'written into a snapshot'
expect 125 "$try" try --keep "$tmp/kept2.qcow2" "$tmp/disk.qcow2@clean" -- true
like_output 'cannot be kept'
expect 125 "$try" try --keep kept "$tmp/disk.raw#p1" -- true
like_output 'cannot be kept'
[ -z "$(find "$FAKE" -name "args.*")" ] || fail 'it was booted first'
unchanged; nothing_left
expect 1 "$try" try "$tmp/none.qcow2"
