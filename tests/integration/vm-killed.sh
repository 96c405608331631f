#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vmm-lite is killed (-9) while its guest writes, flushes and says what is safe:
# all of that is in the image afterwards, and the image is sound.  6 rounds, 50
# with LONG, of raw, qcow2 with a backing file, and qcow2 past the page cache.
. "$(dirname "$0")/../functions.sh"
requires gcc ld objcopy python3 qemu-img
"$O/vmm-lite" --check --force > /dev/null 2>&1 || skip 'no usable /dev/kvm'

"$TOP/tests/tools/ring3/build" main.c "$tmp/guest"
rounds=6
[ -z "${LONG:-}" ] || rounds=50
cd "$tmp"
head -c 16M /dev/urandom > base.raw
truncate -s 128M base.raw disk.raw
qemu-img create -q -f qcow2 -b base.raw -F raw disk.qcow2
qemu-img create -q -f qcow2 -o cluster_size=4k direct.qcow2 128M
before=$(md5sum < base.raw)

declare -A safe
for ((r = 0; r < rounds; r++)); do
    case $((r % 3)) in
    0) disk=disk.raw format=raw cache=writeback ;;
    1) disk=disk.qcow2 format=qcow2 cache=writeback ;;
    2) disk=direct.qcow2 format=qcow2 cache=none ;;
    esac
    from=${safe[$disk]:-0}
    : > out	# before it starts, or what the last one said is taken for this one's
    "$O/vmm-lite" --force -m 128 --kernel guest --append "kill$from" --disk "$disk" \
        --format "$format" --cache "$cache" < /dev/null > out 2>&1 &
    pid=$!
    pids+=("$pid")
    goes_on() { [ "$(grep -acE '^flushed [0-9]+$' out)" -ge 3 ]; }
    wait_for 60 goes_on
    sleep "0.$((RANDOM % 10))"
    # the process that was started waits for the guest's, and ends as that does
    guest=$(cat "/proc/$pid/task/$pid/children")
    kill -9 "${guest% }"
    wait "$pid" 2> /dev/null || true
    ! grep -q FAILED out || fail "$disk: $(grep FAILED out)"
    safe[$disk]=$(grep -aE '^flushed [0-9]+$' out | tail -n 1 | tr -cd 0-9) || true
    # the last line may be cut: the one before is whole
    [ -n "${safe[$disk]}" ] || fail "$disk: nothing was flushed"
    if [ $format = qcow2 ]; then
        rc=0
        qemu-img check "$disk" > check.out 2>&1 || rc=$?
        [ $rc = 0 ] || [ $rc = 3 ] || fail "$disk: $(cat check.out)" # 3: leaked clusters only
        expect 0 "$VDISK" compare "$disk" "$disk"
        qemu-img convert -O raw "$disk" now.raw
    else
        cp --sparse=always "$disk" now.raw
    fi
    python3 - now.raw "${safe[$disk]}" <<'PY' || fail "$disk, round $r"
import struct, sys
blocks = (128 << 20) // 4096
with open(sys.argv[1], 'rb') as f:
    for n in range(int(sys.argv[2])):
        at = n * 7919 % blocks
        f.seek(at * 4096)
        got = f.read(4096)
        want = struct.pack('<512Q', *(((at * 8 * 64 + i) * 0x9e3779b97f4a7c15) & (1 << 64) - 1
                                      for i in range(512)))
        if got != want:
            sys.exit(f'block {n} of {sys.argv[2]}, at {at * 4096}, was flushed and is not there')
PY
done
[ "$before" = "$(md5sum < base.raw)" ] || fail 'the backing file was written'
echo "flushed before the last kill: ${safe[*]} blocks"
