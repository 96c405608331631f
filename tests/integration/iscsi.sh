#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Export disks over iSCSI, and use them through libiscsi's tools and QEMU's driver.
. "$(dirname "$0")/../functions.sh"
requires iscsi-ls iscsi-inq iscsi-readcapacity16 iscsi-perf qemu-img qemu-io python3 timeout

cd "$tmp"

# serve ARGUMENTS...: start an export; $portal, $iqn, $server
serve() {
    rm -f served	# the one before must not be taken for this one's
    "$VDISK" export --iscsi 127.0.0.1:0 "$@" > served 2> served.err &
    server=$!
    pids+=("$server")
    wait_for 20 grep -q 'Interrupt to end' served
    portal=$(sed -n 's/^on portal \(.*\):$/\1/p' served)
    iqn=$(sed -n 's/.*node -T \([^ ]*\) .*/\1/p' served)
}

# stop_serving: as a person would; it must end well
stop_serving() {
    local got=0
    kill -INT "$server"
    wait "$server" || got=$?
    [ "$got" = 0 ] || fail "vdiskd ended with $got: $(cat served.err)"
}

t() { timeout -k 5 60 "$@"; }

truncate -s 64M raw.img
"$VDISK" create -f qcow2 disk.qcow2 128M
qemu-img create -q -f qcow2 -o cluster_size=4k other.qcow2 40M

# ---- several disks, one target: what everyone sees first
serve raw.img disk.qcow2
[ "$iqn" = iqn.2026-11.org.vdisk:raw.img ] || fail "name: $iqn"
url=iscsi://$portal/$iqn
expect 0 t iscsi-ls -s "iscsi://$portal/"
like_output "^Target:$iqn Portal:$portal,1"
like_output '^Lun:0 .*DIRECT_ACCESS'
like_output '^Lun:1 .*DIRECT_ACCESS'
expect 0 t iscsi-inq "$url/0"
like_output 'Vendor:VDISK'
for page in 0x00 0x80 0x83 0xb0 0xb1 0xb2; do
    expect 0 t iscsi-inq -e 1 -c $((page)) "$url/1"
done
expect 0 t iscsi-readcapacity16 "$url/1"
like_output 'Total size:134217728'
like_output 'LBPME:1 LBPRZ:1'
# a target that does not exist is not there
expect 10 t iscsi-inq "iscsi://$portal/iqn.2026-11.org.vdisk:nothing/0"
# no unit 7
! t iscsi-readcapacity16 "$url/7" > out 2>&1 || fail "LUN 7 answers"

# what the sandbox keeps (not in a sanitizer build)
if ! nm "$O/vdiskd" 2> nm.err | grep -q __asan_init; then
    status=$(cat /proc/"$server"/status)
    grep -q 'NoNewPrivs:.*1' <<< "$status" || fail "no_new_privs is not set"
    grep -q 'Seccomp:.*2' <<< "$status" || fail "no system call filter"
    ! grep -qE '^Uid:.*\b0\b' <<< "$status" || fail "still root"
fi

# ---- data, through QEMU's driver, to qcow2 and back
head -c 30M /dev/urandom > data
truncate -s 128M data
t qemu-img convert -n -f raw -O raw data "$url/1"
t qemu-img compare -f raw -F raw data "$url/1"
t qemu-io -f raw -c 'write -P 0x5a 3M 1M' -c 'write -z -u 40M 4M' -c 'discard 8M 64k' -c 'write -f -P 1 100M 512' \
    -c flush -c 'read -P 0x5a 3M 1M' -c 'read -P 0 8M 64k' -c 'read -P 1 100M 512' "$url/1" > qemu-io.out
! grep -q 'failed' qemu-io.out || fail "$(cat qemu-io.out)"
t qemu-io -f raw -c 'write -P 7 63M 1M' -c 'write -P 8 64M 1k' "$url/0" > qemu-io.out 2>&1 || true
[ "$(grep -c '^wrote' qemu-io.out)" = 1 ] || fail "a write past the end was taken"

# ---- several sessions at once, and one that is interrupted
for i in 1 2 3 4; do
    t iscsi-perf -i "iqn.2026-11.test:perf$i" -t 1 -m 16 -b $((8 * i * i)) "$url/$((i % 2))" \
        > "perf$i" 2>&1 < /dev/null &
    perf[i]=$!
done
for i in 1 2 3 4; do wait "${perf[i]}" || fail "iscsi-perf $i: $(cat "perf$i")"; done
for i in 1 2 3 4; do grep -q 'iops average [1-9]' "perf$i" || fail "iscsi-perf $i: $(cat "perf$i")"; done
# (it goes on after SIGTERM, and a function in the background would be a shell around it)
timeout -k 1 60 iscsi-perf -t 5 -m 32 "$url/1" > perf5 2>&1 < /dev/null &
perf5=$!
sleep 0.5
stop_serving		# while that one runs: everything stops cleanly
kill "$perf5" 2>/dev/null || true
wait "$perf5" || true
expect 0 qemu-img check -q disk.qcow2
expect 0 "$VDISK" check disk.qcow2
qemu-img convert -f qcow2 -O raw disk.qcow2 back
cmp -n 3M back data

# ---- read-only, header digest, other image made by QEMU
serve -r --iqn iqn.2026-11.test:ro other.qcow2
expect 0 t iscsi-ls -s "iscsi://$portal/"
like_output "Target:iqn.2026-11.test:ro"
! t qemu-io -f raw -c 'write 0 4k' "iscsi://$portal/$iqn/0" > out 2>&1 || fail "written to although -r"
expect 0 t iscsi-inq "iscsi://$portal/$iqn/0?header_digest=crc32c"
expect 0 t qemu-io -r -c 'read -P 0 0 1M' "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"iscsi\",
    \"transport\": \"tcp\", \"portal\": \"$portal\", \"target\": \"$iqn\", \"lun\": 0, \"header-digest\": \"crc32c\"}}"
stop_serving

# ---- IPv6, where the host has it
if python3 -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))' 2> v6.err; then
    serve --iscsi '[::1]:0' raw.img
    address=$(grep '^on portal \[' served)
    address=${address#on portal }
    expect 0 t iscsi-ls "iscsi://${address%:}/"
    like_output "Portal:\[::1\]:"
    stop_serving
fi

# ---- our own initiator: what the tools cannot send; vdiskd is nobody by then, and
# learns what the page cache has of files that it may write to only
chmod 666 raw.img
serve raw.img
expect 0 t python3 "$TOP/tests/integration/iscsi-pdus.py" "$portal" "$iqn"
echo "$output"
stop_serving
# the same with several threads, without io_uring, in memory
port=$(free_port)
shm=$(mktemp -p /dev/shm vdisk-test.XXXXXX)
cleanup_fn rm -f "$shm"
truncate -s 64M "$shm"
VDISK_QUEUE=threads "$O/vdiskd" export -q -t 3 --busy-poll=20 -p "127.0.0.1:$port" -n "$iqn" "$shm" 2> served.err &
server=$!
pids+=("$server")
wait_for 20 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
[ "$(find "/proc/$server/task" -mindepth 1 -maxdepth 1 | wc -l)" -ge 3 ] || fail "not three threads"
expect 0 t python3 "$TOP/tests/integration/iscsi-pdus.py" "127.0.0.1:$port" "$iqn"
t "$O/tests/tools/iscsi-load" -t 1 -c 6 -w "127.0.0.1:$port" "$iqn" > load.out || fail "$(cat load.out served.err)"
stop_serving

# ---- who may use it, and what else the configuration file has
printf 'the secret of alice\n' > alice
chmod 640 alice
serve --chap alice:alice --chap-digests md5,sha256 --initiator '*sahlberg*,iqn.2026-11.test:*' --network '127.0.0.0/8' \
    --serial SER-1 --threshold 20 --alias people --threads 2 raw.img
expect 10 t iscsi-inq "iscsi://$portal/$iqn/0"
expect 0 t iscsi-inq -e 1 -c $((0x80)) "iscsi://alice%the secret of alice@$portal/$iqn/0"
like_output 'SER-1'
expect 10 t iscsi-inq "iscsi://alice%the secret of alicE@$portal/$iqn/0"
expect 10 t iscsi-inq -i iqn.2026-11.other:x "iscsi://alice%the secret of alice@$portal/$iqn/0"
stop_serving
serve --network '!127.0.0.1' raw.img
expect 10 t iscsi-inq "iscsi://$portal/$iqn/0"
stop_serving
chmod 644 alice
expect 1 "$VDISK" export --iscsi 127.0.0.1:0 --chap alice:alice raw.img
like_output 'its mode is 0644'
expect 2 "$VDISK" export --iscsi 127.0.0.1:0 --chap alice:nowhere raw.img
like_output 'No such file'
expect 1 "$VDISK" export --iscsi 127.0.0.1:0 --network 127.0.0.1/40 raw.img
like_output 'is not a network'
expect 2 "$VDISK" export --iscsi 127.0.0.1:0 --serial one-for-two raw.img disk.qcow2
expect 2 "$VDISK" export --iscsi 127.0.0.1:0 --threshold 100 raw.img

# ---- wrong usage is said, not tried
expect 2 "$VDISK" export raw.img
expect 2 "$O/vdiskd" export -t 65 raw.img
expect 2 "$O/vdiskd" export --busy-poll=x raw.img
expect 1 "$VDISK" export --iscsi 127.0.0.1:0 --iqn not-a-name raw.img
like_output 'not an iSCSI name'
expect 1 "$VDISK" export --iscsi 127.0.0.1:0 missing.img
like_output 'missing.img'
