#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Many sessions, many logins, many LUNs: memory and descriptors stay bounded.
. "$(dirname "$0")/../functions.sh"
requires python3 timeout iscsi-ls
load=$O/tests/tools/iscsi-load
[ -x "$load" ] || fail "$load is not built"

SESSIONS=${SESSIONS:-500}
CYCLES=${CYCLES:-$([ -n "${LONG:-}" ] && echo 10000 || echo 2000)}
LUNS=${LUNS:-256}
cd "$tmp"
iqn=iqn.2026-11.test:many
disks=()
for ((i = 0; i < LUNS; i++)); do
    disks+=("disk$i.img")
    truncate -s $((1 + i % 3))M "disk$i.img"
done
port=$(free_port)
portal=127.0.0.1:$port
"$O/vdiskd" export -q -t 3 -p "$portal" -n "$iqn" "${disks[@]}" 2> errors &
server=$!
pids+=("$server")
wait_for 60 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"

rss() { awk '/^VmRSS/ { print $2 }' "/proc/$server/status"; }
files() { find "/proc/$server/fd" -mindepth 1 | wc -l; }
cpu() { awk '{ print $14 + $15 }' "/proc/$server/stat"; }
# a connection that is over takes a moment to go
few_files() { [ "$(files)" -le "$1" ]; }

# ---- LUNs
expect 0 timeout 120 iscsi-ls -s "iscsi://$portal/"
[ "$(grep -c '^Lun:' <<< "$output")" = "$LUNS" ] || fail "not $LUNS LUNs: $output"
last=$((LUNS - 1))
timeout 30 "$load" -t 1 -q 4 -l $last "$portal" "$iqn" > out || fail "LUN $last: $(cat out errors)"
start_files=$(files) start_rss=$(rss)
[ "$start_files" -lt $((LUNS + 40)) ] || fail "$start_files descriptors for $LUNS disks"
echo "$LUNS LUNs: $start_files descriptors, $start_rss KiB resident"

# ---- sessions at once; idle, they cost nothing
mkfifo hold
timeout 200 "$load" --sessions="$SESSIONS" "$portal" "$iqn" > held 2>&1 < hold &
holder=$!
pids+=("$holder")
exec 5> hold
wait_for 100 grep -q sessions held
now_files=$(files) now_rss=$(rss) before=$(cpu)
sleep 1
[ "$now_files" -le $((start_files + SESSIONS)) ] || fail "$now_files descriptors for $SESSIONS sessions"
per_session=$(((now_rss - start_rss) / SESSIONS))
[ "$per_session" -le 32 ] || fail "$per_session KiB a session"
echo "$SESSIONS sessions: $now_files descriptors, $now_rss KiB resident, $per_session KiB each," \
    "$(($(cpu) - before)) ticks of CPU time in a second"
# another one gets through all the same
timeout 30 "$load" -t 1 "$portal" "$iqn" > out || fail "beside $SESSIONS sessions: $(cat out errors)"
exec 5>&-
wait "$holder" || fail "$(cat held errors)"
wait_for 30 few_files "$start_files"

# ---- login and logout
timeout 300 "$load" --cycles=$((CYCLES / 10)) "$portal" "$iqn" > out || fail "$(cat out errors)"
wait_for 30 few_files "$start_files"
before=$(rss)
timeout 300 "$load" --cycles="$CYCLES" "$portal" "$iqn" > out || fail "$(cat out errors)"
wait_for 30 few_files "$start_files"
grown=$(($(rss) - before))
[ "$grown" -le 1024 ] || fail "$grown KiB more after $CYCLES logins"
echo "$(cat out), $grown KiB more resident, $(files) descriptors"

kill -INT "$server"
wait "$server" || fail "vdiskd ended badly: $(cat errors)"
