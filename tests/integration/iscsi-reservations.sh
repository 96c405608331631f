#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Persistent reservations with APTPL through kill -9: after each of 8 ends (50 with LONG=1)
# of the server, in the middle of commands of an initiator that changes them all the
# time, they are what was answered last, or what was just being asked for.
. "$(dirname "$0")/../functions.sh"
requires python3 timeout
cd "$tmp"

rounds=8
[ "${LONG:-}" != 1 ] || rounds=50
iqn=iqn.2026-11.test:reserved
truncate -s 64M disk.img
mkdir state && chmod 777 state

serve() {
    rm -f served
    "$O/vdiskd" export -p 127.0.0.1:0 -n "$iqn" --state-dir state disk.img > served 2> served.err &
    server=$!
    pids+=("$server")
    wait_for 20 grep -q 'Interrupt to end' served
    portal=$(sed -n 's/^on portal \(.*\):$/\1/p' served)
}

for ((i = 0; i < rounds; i++)); do
    serve
    timeout 60 python3 "$TOP/tests/integration/iscsi-reservations.py" "$portal" "$iqn" model "$server" "$i" > out 2>&1 ||
        fail "round $i: $(cat out served.err)"
    { wait "$server"; } 2> wait.err || true
done
cat out

# two servers do not share the files
serve
expect 1 "$O/vdiskd" export -p 127.0.0.1:0 -n "$iqn" -r -U --state-dir state disk.img
like_output 'another server uses it'
kill -TERM "$server"
wait "$server" || fail "vdiskd ended with $?: $(cat served.err)"
# a damaged file is not taken for "nobody holds it"
for f in state/*.pr; do printf 'x%.0s' {1..100} > damage; dd if=damage of="$f" conv=notrunc bs=100 seek=0 2> dd.err;
    dd if=damage of="$f" conv=notrunc oflag=seek_bytes seek=65536 2> dd.err; done
expect 1 "$O/vdiskd" export -p 127.0.0.1:0 -n "$iqn" --state-dir state disk.img
like_output 'does not hold reservations, or they are damaged'
