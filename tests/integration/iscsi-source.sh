#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A LUN as a disk of ours: from vdiskd and from tgt, verified, with the target
# killed under load; what it may not do, and what is said then.
. "$(dirname "$0")/../functions.sh"
requires python3 timeout

cd "$tmp"
chmod 755 .
t() { timeout 60 "$@"; }
load=$O/tests/tools/disk-load
[ -x "$load" ] || fail "$load is not built"
export VDISK_ISCSI_INITIATOR=iqn.2026-11.test:me
unset VDISK_ISCSI_USER VDISK_ISCSI_SECRET VDISK_ISCSI_SECRET_FILE
answers() { python3 -c "import socket; socket.create_connection(('127.0.0.1', $1))"; }
port=$(free_port)
iqn=iqn.2026-11.test

# ---- vdiskd
for f in raw small closed readonly hidden proves; do truncate -s 48M $f.img; done
truncate -s 32M grow.img
"$VDISK" create -q -f qcow2 disk.qcow2 64M
chmod 666 ./*.img disk.qcow2
printf 'the secret of alice\n' > alice
chmod 600 alice
printf 'the proof of the target\n' > target
chmod 600 target
[ "$(id -u)" != 0 ] || { chown 0:65534 alice target; chmod 640 alice target; }
# configuration SIZE: of LUN 3
configuration() {
    cat > conf <<END
portal 127.0.0.1:$port
chap-user alice {
secret-file $tmp/alice
}
chap-user the-target {
secret-file $tmp/target
}
target $iqn:open {
    lun 0 $tmp/raw.img
    lun 1 $tmp/disk.qcow2
    lun 2 $tmp/small.img {
        block-size 4096
    }
    lun 3 $tmp/grow.img {
        size $1
    }
    lun 4 $tmp/readonly.img {
        read-only
    }
}
target $iqn:closed {
    chap alice
    lun 0 $tmp/closed.img
}
target $iqn:proves {
    chap alice
    chap-mutual the-target
    lun 0 $tmp/proves.img
}
target $iqn:hidden {
    initiator $iqn:somebody-else
    lun 0 $tmp/hidden.img
}
END
    chmod 644 conf
}
configuration 32M
serve() {
    "$O/vdiskd" -c conf 2>> vdiskd.log &
    server=$!
    pids+=("$server")
    wait_for 30 answers "$port"
}
serve
url=iscsi://127.0.0.1:$port/$iqn

# what it is
expect 0 t "$VDISK" info "$url:open/0"
like_output '^virtual-size .*\(50331648 bytes\)'
like_output '^product .*VDISK'
expect 0 t "$VDISK" info --json "$url:open/2"
like_output '"target": *"iqn.2026-11.test:open"'
# a disk like any other: a table, a file system, files, from one end to the other
t "$VDISK" part init -q -y "$url:open/1" gpt
t "$VDISK" part add "$url:open/1" --size 100% --type linux > /dev/null
t "$VDISK" mkfs -q -y -L remote "$url:open/1#p1" > mkfs.out 2>&1 || fail "$(cat mkfs.out)"
head -c 3000000 /dev/urandom > data
t "$VDISK" cp data "$url:open/1#p1:/data"
t "$VDISK" cat "$url:open/1#label=remote:/data" | cmp - data || fail "the file is another one"
expect 0 t "$VDISK" ls "$url:open/1#p1:/"
like_output '^data$'
expect 0 t "$VDISK" parts "$url:open/1"
like_output 'ext4.*remote|remote.*ext4'
# copied there and back; holes stay holes
head -c 10M /dev/urandom > image
truncate -s 48M image
t "$VDISK" convert -q -y -n image "$url:open/0"
t "$VDISK" compare -q image "$url:open/0" || fail "what was copied there differs"
t "$VDISK" convert -q -O qcow2 "$url:open/0" back.qcow2
t "$VDISK" compare -q image back.qcow2 || fail "what was copied back differs"
[ "$(stat -c %b raw.img)" -lt $((30 << 11)) ] || fail "zeroes take space: $(stat -c %b raw.img)"
expect 0 t "$VDISK" map --json "$url:open/0"
like_output 'hole'
expect 0 t "$VDISK" bench -y --time 0.3 --rw randwrite --size 8M "$url:open/0?header-digest=crc32c"

# every kind of request, checked; blocks of 4096 bytes, and requests for less
t "$load" -t 1 -b 1 "$url:open/0" > out 2>&1 || fail "$(cat out)"
t "$load" -t 1 "$url:open/2?header-digest=crc32c" > out 2>&1 || fail "4096-byte blocks: $(cat out)"
VDISK_QUEUE=threads t "$load" -t 0.5 -b 1 "$url:open/2" > out 2>&1 || fail "threads: $(cat out)"

# what is discarded is given back
t "$VDISK" convert -q -y -n -S 0 image "$url:open/0"
before=$(stat -c %b raw.img)
t "$VDISK" mkfs -q -y -t ext4 "$url:open/0" > mkfs.out 2>&1 || fail "$(cat mkfs.out)"
t "$VDISK" trim "$url:open/0" > trim.out 2>&1 || fail "$(cat trim.out)"
[ "$(stat -c %b raw.img)" -lt $((before / 2)) ] || fail "trim gave nothing back: $before, $(stat -c %b raw.img)"

# ---- what may not be
expect 1 t "$VDISK" info "$url:open/9"
like_output 'the target has no LUN 9'
expect 1 t "$VDISK" info "$url:nothing/0"
like_output 'Target not found'
expect 1 t "$VDISK" info "$url:hidden/0"
expect 1 t "$VDISK" info "iscsi://127.0.0.1:$(free_port)/$iqn:open/0"
like_output 'refused'
expect 1 t "$VDISK" part init -y "$url:open/4" gpt
like_output 'write-protected at the target'
t "$load" -r "$url:open/4" > out 2>&1 || fail "$(cat out)"
# CHAP: the secret from a file, the environment, the locator; never in a message
expect 1 t "$VDISK" info "$url:closed/0"
like_output 'uthentication'
secure=iscsi://alice@127.0.0.1:$port/$iqn:closed/0
expect 1 t "$VDISK" info "$secure"
like_output 'VDISK_ISCSI_SECRET_FILE'
VDISK_ISCSI_SECRET_FILE=$tmp/alice expect 0 t "$VDISK" info "$secure"
VDISK_ISCSI_SECRET='the secret of alice' expect 0 t "$VDISK" info "$secure"
expect 0 t "$VDISK" info "iscsi://alice%the secret of alice@127.0.0.1:$port/$iqn:closed/0"
! grep -q 'secret of' <<< "$output" || fail "the secret is in: $output"
for what in "info" "cat" "ls"; do
    expect 1 t "$VDISK" $what "iscsi://alice%the secret of bob@127.0.0.1:$port/$iqn:closed/0"
    ! grep -q 'secret of' <<< "$output" || fail "the secret is in: $output"
done
VDISK_ISCSI_SECRET=wrong-but-long expect 1 t "$VDISK" info "$secure"
like_output 'uthentication'

# mutual CHAP: the target proves itself, with another secret; one that does not, or does it
# wrongly, is not logged in to, and no secret is shown
export VDISK_ISCSI_SECRET_FILE=$tmp/alice
proves="iscsi://alice@127.0.0.1:$port/$iqn:proves/0?target-user=the-target"
expect 1 t "$VDISK" info "$proves"
like_output 'VDISK_ISCSI_TARGET_SECRET_FILE'
VDISK_ISCSI_TARGET_SECRET_FILE=$tmp/target expect 0 t "$VDISK" info "$proves"
VDISK_ISCSI_TARGET_SECRET_FILE=$tmp/target VDISK_ISCSI_TARGET_USER=the-target \
    expect 0 t "$VDISK" info "${proves%\?*}"
VDISK_ISCSI_TARGET_SECRET='the proof of the target' expect 0 t "$VDISK" info "$proves"
! grep -q 'proof of' <<< "$output" || fail "the secret is in: $output"
VDISK_ISCSI_TARGET_SECRET='the proof of another' expect 1 t "$VDISK" info "$proves"
! grep -q 'proof of' <<< "$output" || fail "the secret is in: $output"
like_output 'Invalid CHAP_R response from the target'
export VDISK_ISCSI_TARGET_SECRET='the proof of the target'
expect 1 t "$VDISK" info "${proves%the-target}somebody"
like_output 'Wrong CHAP targetname'
expect 1 t "$VDISK" info "$secure?target-user=the-target"
like_output 'uthentication failure'
expect 1 t "$VDISK" info "iscsi://127.0.0.1:$port/$iqn:open/0?target-user=the-target"
like_output 'to a user only'
VDISK_ISCSI_TARGET_SECRET='the secret of alice' expect 1 t "$VDISK" info "$proves"
like_output 'must be another one'
cp target leaky
chmod 644 leaky
VDISK_ISCSI_TARGET_SECRET_FILE=$tmp/leaky expect 1 t "$VDISK" info "$proves"
like_output 'accessible by others'
for how in zeros skip silent; do	# (the last one is asked more)
    false_port=$(free_port)
    start python3 "$TOP/tests/integration/iscsi-no-proof.py" "$false_port" $how > no-proof.log 2>&1
    wait_for 30 answers "$false_port"
    impostor="iscsi://alice@127.0.0.1:$false_port/$iqn:x/0?timeout=1"
    expect 1 t "$VDISK" info "$impostor&target-user=the-target"
    like_output 'did not return CHAP_N|does not prove itself'
    [ ! -s no-proof.log ] || fail "$how: logged in to: $(head -3 no-proof.log)"
done
expect 1 t "$VDISK" info "$impostor"
grep -q 'logged in' no-proof.log || fail 'the impostor is not even believed by those who ask for nothing'
[ "$(grep -c 'logged in' no-proof.log)" -lt 50 ] || fail 'a target that lets us in and hangs up is asked without end'
unset VDISK_ISCSI_TARGET_SECRET
unset VDISK_ISCSI_SECRET_FILE

# ---- a target that goes and comes back, while we write
start "$load" -t 4 -q 32 "$url:open/0" > load.out 2>&1
loader=$started
for i in 1 2; do
    sleep 0.8
    kill -KILL "$server"
    { wait "$server" || true; } 2> /dev/null
    sleep "0.$((i * 4))"
    serve
done
wait "$loader" || fail "a killed target was noticed: $(cat load.out)"

# ---- a LUN that grows is as large as it says, without being opened again
configuration 40M
start t "$VDISK" bench --time 2 --qd 2 "$url:open/3"
sleep 0.3
kill -HUP "$server"
wait "$started" || fail "a reader of a growing LUN failed"
expect 0 t "$VDISK" info "$url:open/3"
like_output '41943040 bytes'

# ---- one that stays away is given up after the time that was asked for
start "$load" -t 20 -q 4 "$url:open/0?timeout=2" > away.out 2>&1
loader=$started
sleep 0.5
kill -KILL "$server"
{ wait "$server" || true; } 2> /dev/null
wait "$loader" && fail "no error from a target that is gone"
grep -q 'timed out' away.out || fail "$(cat away.out)"
! grep -q 'wrong bytes' away.out || fail "$(cat away.out)"

# ---- tgt, which is another's
if ! command -v tgtd tgtadm > /dev/null || ! { [ -w /var/run ] && mkdir -p /var/run/tgtd; }; then
    echo "no tgt here: only our own target was looked at"
    exit 0
fi
tport=$(free_port)
control=$((RANDOM % 20000 + 1000))
adm() { tgtadm -C $control --lld iscsi "$@"; }
truncate -s 48M tgt.img tgt4k.img
tgt() {
    tgtd -f -C $control --iscsi "portal=127.0.0.1:$tport" > tgt.log 2>&1 &
    server=$!
    pids+=("$server")
    cleanup_fn kill -KILL "$server"
    wait_for 20 adm --op show --mode target
    adm --op new --mode target --tid 1 -T "$iqn:tgt"
    adm --op new --mode logicalunit --tid 1 --lun 1 -b "$tmp/tgt.img"
    adm --op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1
    adm --op new --mode logicalunit --tid 1 --lun 2 -b "$tmp/tgt4k.img" --blocksize=4096
    adm --op update --mode logicalunit --tid 1 --lun 2 --params readonly=0
    adm --op new --mode logicalunit --tid 1 --lun 3 -b "$tmp/readonly.img"
    adm --op update --mode logicalunit --tid 1 --lun 3 --params readonly=1
    adm --op bind --mode target --tid 1 -I ALL
}
tgt
url=iscsi://127.0.0.1:$tport/$iqn:tgt
t "$VDISK" convert -q -y -n image "$url/1"
t "$VDISK" compare -q image "$url/1" || fail "tgt: what was copied there differs"
t "$load" -t 1 "$url/1" > out 2>&1 || fail "tgt: $(cat out)"
t "$load" -t 1 "$url/2" > out 2>&1 || fail "tgt, 4096-byte blocks: $(cat out)"
expect 1 t "$VDISK" info "$url/7"
like_output 'no LUN 7'
expect 1 t "$VDISK" part init -y "$url/3" gpt
like_output 'write-protected at the target'
start "$load" -t 3 -q 32 "$url/1" > load.out 2>&1
loader=$started
sleep 0.7
kill -KILL "$server"
{ wait "$server" || true; } 2> /dev/null
sleep 0.3
tgt
wait "$loader" || fail "tgt, killed: $(cat load.out)"
