#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Random PDUs against the sanitizer build: no crash, no leak, and others undisturbed.
. "$(dirname "$0")/../functions.sh"
requires python3 timeout

PDUS=${PDUS:-$([ -n "${LONG:-}" ] && echo 1000000 || echo 50000)}
vdiskd=${SAN_O:-$O}/vdiskd
case $vdiskd in /*) ;; *) vdiskd=$TOP/$vdiskd ;; esac
[ -x "$vdiskd" ] || fail "$vdiskd is not built"

cd "$tmp"
truncate -s 64M noise.img
"$VDISK" create -f qcow2 bystander.qcow2 8M
iqn=iqn.2026-11.test:noise

# noise BACKEND COUNT OPTION...: options of vdiskd
noise() {
    local backend=$1 count=$2 port status=0
    shift 2
    port=$(free_port)
    # to a file: it says what it closes, and a million lines are too many
    VDISK_QUEUE=$backend "$vdiskd" export -q "$@" -p "127.0.0.1:$port" -n "$iqn" noise.img bystander.qcow2 2> errors &
    server=$!
    pids+=("$server")
    wait_for 30 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
    timeout $((120 + count / 500)) python3 "$TOP/tests/integration/iscsi-noise.py" "127.0.0.1:$port" "$iqn" "$count" \
        ${SEED:+"$SEED"} || fail "$(tail -50 errors)"
    grep VmHWM "/proc/$server/status"
    kill -INT "$server"
    wait "$server" || status=$?
    [ "$status" = 0 ] || fail "vdiskd ended with $status: $(tail -50 errors)"
    ! grep -q 'Sanitizer\|runtime error' errors || fail "$(cat errors)"
    expect 0 "$VDISK" check bystander.qcow2
}

noise auto $((PDUS / 2))
noise auto $((PDUS / 4)) -t 3
noise threads $((PDUS / 4)) -t 2
