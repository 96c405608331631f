#!/bin/bash
# Two writers never: against real QEMU programs, in both directions.
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io qemu-storage-daemon qemu-system-x86_64
cd "$tmp"

refused() { # refused COMMAND...: by us, because of a lock
    expect 1 "$@"
    like_output 'another program|lock'
}
refused_by_qemu() {
    expect 1 "$@"
    like_output 'lock'
}

# Not by trying: a trial that comes first would refuse the program waited for.
holds_locks() { grep -qs '^lock:' /proc/"$1"/fdinfo/*; }

for f in raw qcow2; do qemu-img create -q -f $f d.$f 8M; done

# hold FORMAT OPTIONS COMMAND...: run it with the disk open in qemu-io
qemu_io_holds() { # qemu_io_holds FILE FLAGS; ended by release
    mkfifo ctl
    qemu-io $2 -f "${1##*.}" "$1" < ctl > io.out 2>&1 &
    holder=$!
    pids+=("$holder")
    exec 7> ctl
    echo 'read 0 512' >&7
    wait_for 30 grep -q 'ops' io.out
}
release() {
    exec 7>&-
    wait "$holder" || true
    rm -f ctl
}

for f in raw qcow2; do
    # a writer in qemu-io: we neither write nor read, unless told to read anyway
    before=$(stat -c '%s %Y' d.$f)
    qemu_io_holds d.$f ''
    refused "$VDISK" resize -f $f d.$f +1M
    refused "$VDISK" convert -f $f d.$f out.raw
    expect 0 "$VDISK" info -f $f --json d.$f
    like_output '"in-use": true'
    expect 0 "$VDISK" convert -U -y -f $f d.$f out.raw
    expect 2 "$VDISK" resize -U -f $f d.$f +1M
    expect 1 "$VDISK" create -y -f $f d.$f 1M
    refused "$VDISK" convert -y -f raw out.raw d.$f
    [ "$(stat -c '%s %Y' d.$f)" = "$before" ] || fail "the file was touched"
    release
    expect 0 "$VDISK" resize -f $f d.$f +1M

    # a reader in qemu-io: we read, but do not write (QEMU itself lets others write
    # to a raw image that it only reads)
    qemu_io_holds d.$f -r
    expect 0 "$VDISK" convert -y -f $f d.$f out.raw
    [ $f = raw ] || refused "$VDISK" resize -f $f d.$f +1M
    release
done

# our writer: QEMU's programs refuse (bench keeps the disk open)
for f in raw qcow2; do
    "$VDISK" bench -y -q --rw write --time 60 -f $f d.$f > /dev/null &
    ours=$!
    pids+=("$ours")
    wait_for 30 holds_locks "$ours"
    refused_by_qemu qemu-io -f $f -c 'read 0 512' d.$f
    [ $f = raw ] || refused_by_qemu qemu-io -r -f $f -c "read 0 512" d.$f
    refused_by_qemu qemu-img resize -f $f d.$f +1M
    refused_by_qemu qemu-storage-daemon --blockdev "driver=file,filename=d.$f,node-name=a" \
        --blockdev driver=$f,file=a,node-name=b --nbd-server addr.type=unix,addr.path=sock \
        --export type=nbd,id=x,node-name=b,writable=on
    refused "$VDISK" resize -f $f d.$f +1M
    refused "$VDISK" convert -y -f $f d.$f out.raw
    kill "$ours"
    wait "$ours" 2> /dev/null || true
    expect 0 qemu-io -f $f -c 'read 0 512' d.$f

done

# our reader: QEMU reads too, and does not write
"$VDISK" bench -q --rw read --time 60 d.qcow2 > /dev/null &
ours=$!
pids+=("$ours")
wait_for 30 holds_locks "$ours"
refused_by_qemu qemu-io -f qcow2 -c 'write 0 512' d.qcow2
expect 0 qemu-io -r -f qcow2 -c 'read 0 512' d.qcow2
kill "$ours"
wait "$ours" 2> /dev/null || true

# qemu-storage-daemon and a running guest
rm -f sock
qemu-storage-daemon --blockdev driver=file,filename=d.qcow2,node-name=a \
    --blockdev driver=qcow2,file=a,node-name=b --nbd-server addr.type=unix,addr.path=sock \
    --export type=nbd,id=x,node-name=b,writable=on &
holder=$!
pids+=("$holder")
wait_for 30 test -S sock
wait_for 30 holds_locks "$holder"
refused "$VDISK" resize d.qcow2 +1M
refused "$VDISK" snapshot create d.qcow2 x
kill "$holder"
wait "$holder" 2> /dev/null || true

qemu-system-x86_64 -display none -nodefaults -S -accel tcg -m 16 -monitor unix:mon,server=on,wait=off \
    -drive file=d.qcow2,format=qcow2,if=virtio &
holder=$!
pids+=("$holder")
wait_for 30 test -S mon
wait_for 30 holds_locks "$holder"
refused "$VDISK" resize d.qcow2 +1M
like_output "${holder}|qemu"			# who it is
refused "$VDISK" convert -y d.qcow2 out.raw
expect 0 "$VDISK" info d.qcow2
kill "$holder"
wait "$holder" 2> /dev/null || true
expect 0 "$VDISK" resize d.qcow2 +1M

# a backing file may be read by many, and not be written while one does
qemu-img create -q -f qcow2 -b d.qcow2 -F qcow2 top.qcow2
qemu_io_holds top.qcow2 ''
expect 0 "$VDISK" convert -y d.qcow2 out.raw
refused "$VDISK" resize d.qcow2 +1M
release

# ---- held by each of our own: named with command and pid, by us and by QEMU; and the other way round ----
export VDISK_RUNTIME_DIR=$tmp/run
rm -f d.qcow2
"$VDISK" create -q -f qcow2 d.qcow2 32M
port=$(free_port)
mkdir -m 700 run
mkdir m
touch view
printf 'portal 127.0.0.1:%s\ntarget iqn.2026-11.test:d {\nlun 0 %s\n}\n' "$port" "$tmp/d.qcow2" >conf
chmod 644 conf
kinds=('export --vhost-user sock' "export --iscsi 127.0.0.1:$port" vdiskd)
if [ -w /dev/fuse ] && command -v fusermount3 mke2fs >/dev/null; then
    "$VDISK" mkfs -t ext4 d.qcow2
    kinds+=('export --fuse view' 'mount --fuse')
fi
if "$O/vmm-lite" --check --force >/dev/null 2>&1; then
    "$TOP/tests/tools/ring3/build" main.c guest
    kinds+=('boot --force -m 64 --kernel guest --append spin')
fi
! command -v linux.uml >/dev/null || kinds+=('boot --engine uml --append root=/dev/none')

run_kind() {	# KIND: in its own foreground
    case $1 in
    vdiskd) exec vdiskd -c conf ;;
    mount*) exec "$VDISK" $1 -F d.qcow2 m ;;
    *) exec "$VDISK" $1 d.qcow2 ;;
    esac
}
# (looked at without a lock of our own, which could be in the way)
open_for_writing() { grep -q ":$(stat -c %i d.qcow2) " /proc/locks; }
for kind in "${kinds[@]}"; do
    rm -f sock
    # somebody else has it: each refuses, and says who
    qemu_io_holds d.qcow2 ''
    got=0
    output=$(run_kind "$kind" 2>&1 </dev/null) || got=$?
    [ $got != 0 ] || fail "$kind: takes a disk that qemu-io has"
    # (vdiskd has no privileges any more that would let it see who)
    [ "$kind" = vdiskd ] || like_output "another program .*qemu-io.*pid $holder"
    like_output 'another program'
    release
    # it has it
    run_kind "$kind" >kind.out 2>&1 </dev/null &
    holder=$!
    pids+=("$holder")
    wait_for 60 open_for_writing
    expect 1 "$VDISK" resize d.qcow2 +1M
    like_output "(in use by|open for writing in) another program \(.*(vdisk|vmm-lite|linux.uml).*, pid [0-9]+\)"
    pid=$(sed -n 's/.*, pid \([0-9]*\)).*/\1/p' <<<"$output")
    # (the process itself, or one that it started)
    parent=$pid
    while [ "$parent" -gt 1 ] && [ "$parent" != "$holder" ]; do parent=$(awk '/^PPid:/ { print $2 }' "/proc/$parent/status"); done
    [ "$parent" = "$holder" ] || fail "$kind: pid $pid is named, which is not of $holder"
    refused_by_qemu qemu-io -f qcow2 -c 'write 0 512' d.qcow2
    case $kind in mount*) fusermount3 -u m ;; *) kill "$holder" ;; esac
    wait "$holder" 2>/dev/null || true
    wait_for 30 "$VDISK" resize -q d.qcow2 +0
    echo "ok $kind"
done
