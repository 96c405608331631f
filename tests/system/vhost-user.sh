#!/bin/bash
# The vhost-user server with QEMU's front end: two queues, verified writes while
# the server is killed again and again (nobody in the guest sees an error), resize
# and limits while it runs.
. "$(dirname "$0")/../functions.sh"
requires qemu-system-x86_64 fio python3

rounds=5
[ "${LONG-}" != 1 ] || rounds=50

sock=$tmp/sock control=$tmp/control
control() {
    python3 - "$control" "$*" <<'EOF'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b'\n')
print(s.makefile().readline().strip())
EOF
}
server() {
    rm -f "$control"
    "$VDISK" export -q --vhost-user "$sock" --control "$control" --queues 2 "$@" 2>> "$tmp/server.log" &
    server_pid=$!
    pids+=("$server_pid")
}
device="-chardev socket,id=disk,path=$sock,reconnect=1
        -device vhost-user-blk-pci,chardev=disk,num-queues=2"

# ---- killed under load ----

expect 0 "$VDISK" create "$tmp/a.qcow2" 64M
server "$tmp/a.qcow2"
wait_for 10 test -S "$sock"
mkfifo "$tmp/out"
# the guest says when it writes, and writes until it is told to stop by a file on the disk's host
cat > "$tmp/load.sh" <<'EOF'
set -e
[ "$(ls /sys/block/vda/mq | wc -l)" = 2 ]
cat /sys/block/vda/queue/write_cache
echo ready
fio --eta=never --name=a --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bsrange=4k-32k \
    --blockalign=4k --size=31m --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_backlog=64 \
    --time_based --runtime=$1 --randseed=1 --output="$2" \
    --name=b --filename=/dev/vda --offset=32m --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \
    --bs=4k --size=32m --verify=crc32c --verify_fatal=1 --verify_backlog=256 --time_based --runtime=$1 ||
    { cat "$2"; dmesg | tail; exit 1; }
! dmesg | grep -iE 'i/o error|blk_update_request'
echo verified
EOF
in_machine --cpus 2 --limit $((120 + 5 * rounds)) --modules virtio_blk --machine "$device" -- \
    bash "$tmp/load.sh" $((3 + 2 * rounds)) /dev/shm/fio > "$tmp/out" &
machine=$!
pids+=("$machine")
exec 8< "$tmp/out"
said=
while read -r -u 8 line; do
    said+=$line$'\n'
    if [ "$line" = ready ]; then
        sleep 2
        for ((i = 0; i < rounds; i++)); do
            kill -KILL "$server_pid"
            wait "$server_pid" 2>/dev/null || :
            server "$tmp/a.qcow2"
            sleep 1.5
        done
    fi
done
wait "$machine" || fail "the guest: $said $(cat "$tmp/server.log")"
grep -q '^write back$' <<< "$said" || fail "no write cache: $said"
grep -q '^verified$' <<< "$said" || fail "not verified: $said"
kill "$server_pid"
wait "$server_pid" || fail "the server: $(cat "$tmp/server.log")"
[ ! -e "$sock" ] || fail 'the socket is left behind'
# a killed server may leave space that nobody uses, and nothing else that is wrong
expect 0 "$VDISK" check --repair=leaks "$tmp/a.qcow2"
expect 0 "$VDISK" check "$tmp/a.qcow2"

# ---- resize, limits, discard, write-through, while it runs ----

expect 0 "$VDISK" create "$tmp/b.raw" 32M
dd if=/dev/urandom of="$tmp/b.raw" bs=1M count=32 conv=notrunc status=none
server --serial a-number --cache writethrough --limit bytes=8M,burst=50 "$tmp/b.raw"
wait_for 10 test -S "$sock"
cat > "$tmp/live.sh" <<'EOF'
set -e
cat /sys/block/vda/queue/write_cache /sys/block/vda/serial
echo
size() { cat /sys/block/vda/size; }
rate() {        # bytes a second of reading for three of them
    fio --name=r --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=4 --rw=randread --bs=32k \
        --time_based --runtime=3 --ramp_time=1 --output-format=json --output=/dev/shm/r --size=32m > /dev/null
    python3 -c 'import json; print(int(json.load(open("/dev/shm/r"))["jobs"][0]["read"]["bw_bytes"]))'
}
echo rate $(rate)
echo limit
until [ $(size) = 131072 ]; do sleep 0.1; done
echo rate $(rate)
blkdiscard -o 1M -l 8M /dev/vda
cmp -n 8M -i 1M:0 /dev/vda /dev/zero
echo done
EOF
in_machine --limit 120 --modules virtio_blk --machine "$device" -- bash "$tmp/live.sh" > "$tmp/out" &
machine=$!
pids+=("$machine")
exec 8< "$tmp/out"
said=
while read -r -u 8 line; do
    said+=$line$'\n'
    [ "$line" != limit ] || control limit bytes=2M,burst=50
    [ "$line" != limit ] || control resize 64M
done
wait "$machine" || fail "the guest: $said $(cat "$tmp/server.log")"
grep -q '^write through$' <<< "$said" || fail "write cache: $said"
grep -q '^a-number$' <<< "$said" || fail "serial: $said"
mapfile -t rates < <(sed -n 's/^rate //p' <<< "$said")
python3 - "${rates[@]}" <<'EOF' || fail "rates are not within 5 % of the limits: ${rates[*]}"
import sys
a, b = map(int, sys.argv[1:])
sys.exit(not (a < 8 * 2**20 * 1.05 and b < 2 * 2**20 * 1.05 and b > 2 * 2**20 * 0.5))
EOF
[ "$(stat -c %s "$tmp/b.raw")" = $((64 << 20)) ] || fail 'the image has not grown'
[ "$(du -B1 "$tmp/b.raw" | cut -f1)" -le $((25 << 20)) ] || fail 'discard did not reach the image'
control stats | grep -q '^ok .*discards=[1-9]' || fail "stats: $(control stats)"
control limit none | grep -qx ok || fail 'limit none'
control rubbish | grep -q '^error' || fail 'rubbish was taken'
control limit bytes=x | grep -q '^error' || fail 'a wrong limit was taken'

# what the second server may not do
expect 1 "$VDISK" export --vhost-user "$sock" "$tmp/a.qcow2"
like_output 'another server'
expect 1 "$VDISK" export --vhost-user "$tmp/b.raw" "$tmp/a.qcow2"
like_output 'something else'
expect 2 "$VDISK" export --vhost-user "$sock" --limit nonsense "$tmp/a.qcow2"
