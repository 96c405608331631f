#!/bin/bash
# disk-counts.sh: what a disk's queue counts is what happens: io_uring_enter calls as strace sees them
. "$(dirname "$0")/../functions.sh"
requires strace

truncate -s 16M "$tmp/disk"
for how in '-d -q 1' '-d -q 8 -w' '-q 32' '-q 4 -b 1048576'; do
    # shellcheck disable=SC2086 # options
    timeout 100 strace -qq -f -c -U name,calls -e trace=io_uring_enter -o "$tmp/calls" \
        "$O/tests/tools/blk-load" -v -n 300 $how "$tmp/disk" > "$tmp/out" || fail "blk-load $how: $(cat "$tmp/out")"
    calls=$(awk '$1 == "io_uring_enter" { n = $2 } END { print n + 0 }' "$tmp/calls")
    read -r requests batches interrupts sleeps enters <<< "$(awk '/^requests/ { print $2, $4, $6, $8, $10 }' "$tmp/out")"
    echo "$how: $requests requests, $batches batches, $interrupts interrupts, $sleeps sleeps, $enters enters; strace: $calls"
    # those after the last request is answered are never told of
    ((enters <= calls && calls <= enters + 8)) || fail "$how: $enters counted, $calls made"
    ((requests == 300)) || fail "$how: $requests requests counted"
    ((batches <= requests && interrupts <= batches)) || fail "$how: more batches than requests"
done
