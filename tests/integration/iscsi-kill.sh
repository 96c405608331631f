#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdiskd is killed in the middle of writes, again and again: what it acknowledged
# as durable is there - with FUA, with the write cache off, and after SYNCHRONIZE
# CACHE - and the image is sound.
. "$(dirname "$0")/../functions.sh"
requires python3 timeout
load=$O/tests/tools/iscsi-load
[ -x "$load" ] || fail "$load is not built"

ROUNDS=${ROUNDS:-$([ -n "${LONG:-}" ] && echo 50 || echo 9)}
SLOTS=2000
cd "$tmp"
iqn=iqn.2026-11.test:kill

# serve IMAGE: $server, $portal
serve() {
    local port
    port=$(free_port)
    portal=127.0.0.1:$port
    "$O/vdiskd" export -q -p "$portal" -n "$iqn" "$1" 2>> errors &
    server=$!
    pids+=("$server")
    wait_for 30 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
}

# the write cache is off, or FUA is set: each write is a synchronous one in the kernel's eyes too
durable_calls() {
    VDISK_QUEUE=threads strace -f -qq -e trace=pwritev2,fdatasync -o trace "$O/vdiskd" \
        export -q -p "$1" -n "$iqn" raw.img 2>> errors &
    tracer=$!
    pids+=("$tracer")
    wait_for 30 python3 -c "import socket; socket.create_connection(('127.0.0.1', ${1##*:}))"
    timeout 60 "$load" --log=trace.log --slots=$SLOTS --durable="$2" -q 4 -t 1 "$1" "$iqn" > traced ||
        fail "$(cat traced errors)"
    # shellcheck disable=SC2046 # a list of numbers
    kill -INT $(cat "/proc/$tracer/task/$tracer/children")
    wait "$tracer" || fail "vdiskd under strace: $(cat errors)"
    acknowledged=$(awk '{ print $1 }' traced)
    calls=$(grep -cE 'RWF_DSYNC|fdatasync' trace)
    [ "$calls" -ge "$acknowledged" ] || fail "$2: $acknowledged writes, but $calls synchronous calls"
    rm -f trace.log
}

# fresh FORMAT: a new image, and nothing written
fresh() {
    rm -f "$1.img" "$1.log"
    if [ "$1" = raw ]; then
        "$VDISK" create -f raw raw.img 64M
    else
        "$VDISK" create -f qcow2 -o cluster_size=4k qcow2.img 64M	# each slot a cluster
    fi
}

for ((round = 0; round < ROUNDS; round++)); do
    modes=(fua wce sync) formats=(qcow2 qcow2 raw)
    durable=${modes[round % 3]} format=${formats[round / 3 % 3]}
    [ $((round % 3)) != 0 ] || fresh $format
    serve $format.img
    timeout 60 "$load" --log="$format.log" --slots=$SLOTS --durable="$durable" -c 2 -q 16 -t 0 "$portal" "$iqn" > wrote 2>&1 &
    writer=$!
    pids+=("$writer")
    sleep "0.$((RANDOM % 5 + 2))"
    kill -KILL "$server"
    { wait "$server" || true; } 2> /dev/null
    wait "$writer" || fail "round $round, $format, $durable: $(cat wrote errors)"
    grep -q '^[1-9][0-9]* writes' wrote || fail "round $round: nothing was written: $(cat wrote)"
    if [ $format = qcow2 ]; then		# leaked clusters are all that may be wrong
        status=0
        "$VDISK" check $format.img > checked 2>&1 || status=$?
        [ "$status" = 0 ] || [ "$status" = 3 ] || fail "round $round: $(cat checked)"
    fi
    serve $format.img
    timeout 60 "$load" --check="$format.log" --slots=$SLOTS "$portal" "$iqn" > found 2>&1 ||
        fail "round $round, $format, $durable: $(cat wrote found)"
    grep -q '^[1-9]' found || [ "$durable" = sync ] || fail "round $round: $(cat wrote found)"
    echo "$format $durable: $(cat wrote); $(cat found)"
    kill -INT "$server"
    wait "$server" || fail "round $round: vdiskd ended badly: $(cat errors)"
done
if command -v strace > /dev/null && strace -qq true 2> /dev/null; then
    fresh raw
    durable_calls "127.0.0.1:$(free_port)" fua
    durable_calls "127.0.0.1:$(free_port)" wce
else
    echo "no strace: not looked at how writes are made durable"
fi
