#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# libiscsi's conformance tests, for the commands that the target has: a process
# and a fresh disk for each family, since one family spoils the next in the tool.
. "$(dirname "$0")/../functions.sh"
requires iscsi-test-cu qemu-img timeout
cd "$tmp"

families='Inquiry Mandatory ModeSense6 Prefetch10 Prefetch16 Read6 Read10 Read12 Read16
 ReadCapacity10 ReadCapacity16 ReportSupportedOpcodes TestUnitReady Unmap Verify10 Verify12
 Verify16 Write10 Write12 Write16 WriteSame10 WriteSame16 WriteVerify10 WriteVerify12
 WriteVerify16 iSCSIResiduals iSCSITMF iSCSIcmdsn iSCSIdatasn StartStopUnit NoMedia'

# family NAME FORMAT BLOCK: run one; no test of it may fail, and the target must end well
family() {
    local name=$1 format=$2 block=$3 url got=0
    rm -f disk served
    qemu-img create -q -f "$format" disk 100M
    "$VDISK" export --iscsi 127.0.0.1:0 --iqn iqn.2026-11.test:c -f "$format" --block-size "$block" \
        disk > served 2> served.err &
    server=$!
    pids+=("$server")
    wait_for 20 grep -q 'Interrupt to end' served
    url=$(sed -n 's/.*info \(iscsi:.*\)$/\1/p' served)
    timeout 90 iscsi-test-cu --dataloss -n -t "ALL.$name" "$url" > log 2>&1 < /dev/null || got=$?
    [ "$got" = 0 ] || fail "$name on $format, $block: status $got: $(grep -A30 -E 'failures|FAILED|ailed' log | head -30) $(cat served.err)"
    grep -qE '^ *tests +[1-9][0-9]* +[1-9][0-9]* +[1-9][0-9]* +0 ' log || fail "$name: $(tail -20 log)"
    # a command that is not there would pass as skipped
    ! grep 'SKIPPED' log | grep -vE 'PERSISTENT RESERVE|REMOVABLE|removable|not implemented in this unit|Protection' \
        | grep -E 'is not implemented|not available' > skipped || fail "$name skips: $(cat skipped)"
    kill -TERM "$server"
    got=0
    wait "$server" || got=$?
    [ "$got" = 0 ] || fail "$name: vdiskd ended with $got: $(cat served.err)"
}

for f in $families; do family "$f" raw 512; done
for f in Read10 Write16 WriteSame16 Unmap Verify16 WriteVerify16 iSCSIResiduals; do family "$f" qcow2 512; done
# (with 512-byte blocks in 4096-byte ones the tool compares GET LBA STATUS with a wrong address)
for f in GetLBAStatus Read16 Write10 Unmap WriteSame10 Verify10; do family "$f" raw 4096; done
