#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks with a process of their own, natively with a guest that has no operating
# system: killed while the guest writes and compares, which it must not notice;
# a LUN of an iSCSI target that is killed too; what is refused.
. "$(dirname "$0")/../functions.sh"
requires gcc ld objcopy python3 timeout

"$O/vmm-lite" --check --force > /dev/null 2>&1 || skip 'no usable /dev/kvm'
"$TOP/tests/tools/ring3/build" main.c "$tmp/guest"
mv "$tmp/guest.bz" "$tmp/kernel"
cd "$tmp"
kills=4
[ -z "${LONG:-}" ] || kills=40
# vmm STATUS OPTION...: the guest writes the whole disk, and compares
run() { timeout "${LIMIT:-120}" "$O/vmm-lite" --force -m 128 --kernel kernel --reboot exit "$@" < /dev/null; }
vmm() { expect "$1" run "${@:2}"; }
# processes with such a command line; not those of another test, as far as can be seen
ours() {
    local p
    for p in $(pgrep -f -- "$1"); do
        [ "$(readlink "/proc/$p/cwd" || echo "$tmp")" != "$tmp" ] || echo "$p"
    done
}
# the process that serves FILE
server_of() { ours "vdisk-vhost .*-- .*$1"; }
no_server_of() { [ -z "$(server_of "$1")" ]; }

truncate -s 8M a.raw
vmm 0 --isolate-disks --disk a.raw --format raw --serial first
like_output 'sectors 16384'
like_output 'compared [0-9]+'
like_output 'id first'
cp a.raw other.raw
vmm 0 --disk other.raw --format raw
cmp a.raw other.raw || fail "the guest wrote something else"
no_server_of a.raw || fail "a disk's process outlived its guest"

# ---- what must fail: no such disk; another has it; read-only is read-only
vmm 1 --isolate-disks --disk none.raw
like_output 'none.raw'
vmm 16 --isolate-disks --disk a.raw --format raw --read-only
like_output 'FAILED: status at sector 0'
"$VDISK" create -q -f qcow2 held.qcow2 8M
start "$O/vmm-lite" --force -m 128 --kernel kernel --append spin --isolate-disks --disk held.qcow2 \
    < /dev/null > spin.out
wait_for 20 grep -q 'ring 3' spin.out
vmm 1 --isolate-disks --disk held.qcow2
like_output 'held.qcow2'
# the VMM is killed: so are its helpers, and the disk is free
kill -KILL "$started"
{ wait "$started" || true; } 2> /dev/null
wait_for 20 "$VDISK" resize -q held.qcow2 +1M
wait_for 10 no_server_of held.qcow2

# ---- thrown away
truncate -s 1M thrown.raw
vmm 0 --isolate-disks --disk thrown.raw --format raw --snapshot
cmp thrown.raw <(head -c 1048576 /dev/zero) || fail "a throw-away disk was written to"

# ---- killed while the guest writes
# kill_it FILE: until the guest has ended, at most $kills times
kill_it() {
    local n=0 pid
    while kill -0 "$started" 2> /dev/null && [ $n -lt $kills ]; do
        sleep 0.1
        pid=$(server_of "$1")
        [ -n "$pid" ] || continue
        # the guest is done: what is killed while it writes out is lost, and said to be
        ! grep -q 'compared' out || break
        # shellcheck disable=SC2086 # one, or two while one takes over
        kill -KILL $pid 2> /dev/null && n=$((n + 1))
    done
    echo "$1: killed $n times"
    [ $n -gt 0 ] || fail "$1: never killed"
}
for format in raw qcow2; do
    size=48M
    [ $format != raw ] || size=192M
    "$VDISK" create -q -f $format killed.$format $size
    start run -c 2 --isolate-disks --disk killed.$format > out 2>&1
    kill_it killed.$format
    status=0
    wait "$started" || status=$?
    [ $status = 0 ] || fail "$format: the guest noticed ($status): $(cat out)"
    grep -q 'compared' out || fail "$(cat out)"
    grep -q 'started again' out || fail "nobody was told: $(cat out)"
done
expect 0 "$VDISK" create -q -f qcow2 none.qcow2 1M
status=0
"$VDISK" check -q killed.qcow2 > checked || status=$?
[ $status = 0 ] || [ $status = 3 ] || fail "$(cat checked)"

# ---- a LUN, whose target is killed; its process too
port=$(free_port)
"$VDISK" create -q -f raw lun.raw 64M
serve() {
    "$O/vdiskd" export -q -p "127.0.0.1:$port" -n iqn.2026-11.test:lun lun.raw 2>> vdiskd.log &
    target=$!
    pids+=("$target")
    wait_for 30 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
}
serve
lun=iscsi://127.0.0.1:$port/iqn.2026-11.test:lun/0
start run --disk "$lun" --format raw > out 2>&1
has_server() { ! no_server_of test:lun/0; }
wait_for 30 has_server
wait_for 30 grep -q 'ring 3' out
kill -KILL "$target"
{ wait "$target" || true; } 2> /dev/null
kills=1 kill_it test:lun/0
serve
status=0
wait "$started" || status=$?
[ $status = 0 ] || fail "the guest on a LUN noticed ($status): $(cat out vdiskd.log)"
grep -q 'compared' out || fail "$(cat out)"
vmm 1 --disk "iscsi://127.0.0.1:$port/iqn.2026-11.test:lun/4"
like_output 'no LUN 4'

# ---- a disk whose target is away does not keep another's process from being started again
"$VDISK" create -q -f raw beside.raw 192M
start run -c 2 --isolate-disks --disk beside.raw --format raw --disk "$lun" --format raw > out 2>&1
wait_for 30 grep -q 'ring 3' out
kill -KILL "$target"
{ wait "$target" || true; } 2> /dev/null
# shellcheck disable=SC2046 # one
kill -KILL $(server_of "$lun")
kill_it beside.raw
status=0
wait "$started" || status=$?
grep -q 'compared' out || fail "the guest waited for another disk's target ($status): $(cat out)"
serve

# ---- given to a guest that runs: isolated like the others; files, and the LUN
export VDISK_RUNTIME_DIR=$tmp/run
field() { python3 -c 'import json, sys; print(eval(sys.argv[1], {"j": json.load(sys.stdin)}))' "$1"; }
web() { "$VDISK" vm show --json web | field "$1"; }
"$VDISK" create -q -f raw web.raw 4M
"$VDISK" create -q -f qcow2 late.qcow2 8M
start "$VDISK" boot --format raw --force -m 64 --isolate-disks --kernel kernel --append spin web.raw < /dev/null > web.out 2>&1
wait_for 20 "$VDISK" vm show web
expect 0 "$VDISK" vm attach-disk web late.qcow2,serial=late,ops=50
[ "$output" = disk1 ] || fail "id: $output"
expect 1 "$VDISK" vm attach-disk web late.qcow2
like_output 'late.qcow2'
expect 1 "$VDISK" vm attach-disk web none.raw
expect 0 "$VDISK" vm attach-disk web "$lun"
[ "$(web '[(d["serial"], d["isolated"], d["bytes"] >> 20, d["limits"]) for d in j["disks"]]')" = \
    "[('vdisk0', True, 4, 'none'), ('late', True, 8, 'ops=50,burst=100'), ('vdisk2', True, 64, 'none')]" ] ||
    fail "$("$VDISK" vm show --json web)"
expect 1 "$VDISK" resize late.qcow2 +1M
expect 0 "$VDISK" vm resize-disk web late 9M
old=$(web 'j["disks"][1]["process"]')
kill -KILL "$old"
new_process() { now=$(web 'j["disks"][1]["process"]') && [ "$now" != "$old" ] && kill -0 "$now"; }
wait_for 30 new_process
wait_for 10 "$VDISK" vm limit web late none
# a reset is the end of this guest's process, and its disks go on to the next
old=$(web 'j["disks"][1]["process"]')
expect 0 "$VDISK" vm reset web
twice() { [ "$(grep -c 'ring 3' web.out)" = 2 ]; }
wait_for 30 twice
wait_for 30 new_process
[ "$(web '[(d["id"], d["serial"], d["bytes"] >> 20) for d in j["disks"]]')" = \
    "[('disk0', 'vdisk0', 4), ('disk1', 'late', 9), ('disk2', 'vdisk2', 64)]" ] || fail "$("$VDISK" vm show --json web)"
expect 0 "$VDISK" vm kill web
none_left() { no_server_of late.qcow2 && no_server_of web.raw && no_server_of test:lun/0 && [ -z "$(ours "--keep [0-9]")" ]; }
wait_for 20 none_left
wait_for 10 "$VDISK" resize -q late.qcow2 +1M

# one whose memory is its own: the disk's process has other memory, and what is between
# is copied; the guest writes and compares all of it, and its process is killed meanwhile
start "$VDISK" boot --format raw --force -m 128 --kernel kernel --append late web.raw < /dev/null > web.out 2>&1
wait_for 20 "$VDISK" vm show web
[ "$(web 'j["shared-memory"]')" = False ] || fail "its memory is shared"
expect 0 "$VDISK" vm attach-disk web "$lun,serial=lun"
[ "$(web 'j["disks"][1]["isolated"]')" = True ] || fail "$("$VDISK" vm show --json web)"
# shellcheck disable=SC2046 # one, or none any more
kill -KILL $(server_of "$lun") 2> /dev/null || true
status=0
wait "$started" || status=$?
[ $status = 0 ] || fail "the guest noticed ($status): $(cat web.out)"
grep -q 'compared' web.out && grep -q 'id lun' web.out || fail "$(cat web.out)"

# one of files is none; the LUN goes on to the guest's next life
start "$VDISK" boot --format raw --force -m 64 --kernel kernel --append spin web.raw < /dev/null > web.out 2>&1
wait_for 20 "$VDISK" vm show web
expect 0 "$VDISK" vm attach-disk web "$lun"
expect 0 "$VDISK" vm attach-disk web late.qcow2
expect 0 "$VDISK" vm reset web
wait_for 30 twice
[ "$(web '[(d["id"], d["isolated"], d["bytes"] >> 20) for d in j["disks"]]')" = \
    "[('disk0', False, 4), ('disk1', True, 64), ('disk2', False, 10)]" ] || fail "$("$VDISK" vm show --json web)"
expect 0 "$VDISK" vm kill web
wait_for 20 none_left
