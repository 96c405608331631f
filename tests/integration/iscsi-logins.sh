#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Logins of every kind, and what hostile initiators try, with our own initiator;
# then memory and descriptors are what they were.
. "$(dirname "$0")/../functions.sh"
requires python3 timeout

cd "$tmp"
chmod 755 .
port=$(free_port)
second=$(free_port)
truncate -s 32M disk.img
truncate -s 4M small.img
chmod 666 disk.img small.img
secret() { printf '%s\n' "$2" > "$1"; chmod 640 "$1"; }
secret alice 'the secret of alice'
secret server 'what the server knows'
secret finder 'finds what is there'
{
    echo 'threads 2'
    echo "portal 127.0.0.1:$port"
    printf 'portal 127.0.0.1:%s {\ngroup 2\n}\n' "$second"
    for u in alice server finder; do printf 'chap-user %s {\nsecret-file %s\n}\n' $u "$tmp/$u"; done
    cat <<END
limits {
    sessions 12
    sessions-per-initiator 5
    pending-logins 20
    logins-per-second 0
    failed-logins-per-minute 0
    nop-interval 1
    nop-timeout 1
}
discovery {
    chap finder
}
target iqn.2026-11.test:closed {
    chap alice
    chap-mutual server
    lun 0 $tmp/disk.img
}
target iqn.2026-11.test:sha {
    chap alice
    chap-digests sha256 sha3-256
    lun 0 $tmp/small.img {
        read-only
        force-share
    }
}
END
    for t in $(seq 300) open two hidden; do
        echo "target iqn.2026-11.test:$t {"
        [ "$t" != two ] || echo 'group 2'
        [ "$t" != hidden ] || echo 'initiator iqn.2026-11.test:friend'
        printf 'lun 0 %s {\nread-only\nforce-share\n}\n}\n' "$tmp/small.img"
    done
    printf 'target iqn.2026-11.test:moved {\ngroup 1\nnetwork 127.0.0.0/8\nredirect 192.0.2.9:3261 permanent\n}\n'
} > conf
vdiskd -v -c conf 2> log &
server=$!
pids+=("$server")
connects() { python3 -c "import socket; socket.create_connection(('127.0.0.1', $second))"; }
wait_for 30 connects

figures() { find /proc/"$server"/fd -mindepth 1 | wc -l; }
before=$(figures)
expect 0 timeout 300 python3 "$TOP/tests/integration/iscsi-logins.py" "127.0.0.1:$port" "127.0.0.1:$second"
echo "$output"
same() { [ "$(figures)" = "$before" ]; }
wait_for 20 same

# names that come from outside are in the log without their control characters and as text
grep -q 'CHAP of user "alice%n%n%n%s" failed' log || fail "$(cat log)"
! grep -qE 'secret of|server knows|finds what' log || fail 'a secret in the log'
kill -TERM "$server"
got=0
wait "$server" || got=$?
[ "$got" = 0 ] || fail "vdiskd ended with $got: $(tail -40 log)"
