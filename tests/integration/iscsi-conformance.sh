#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# libiscsi's conformance tests, all 51 families: a process and a fresh disk for each,
# since one family spoils the next in the tool.  No test may fail, and what is skipped
# is listed here with its reason.  All families run on qcow2 with blocks of 512 bytes
# and a spread of them on the other combinations; with LONG=1 all of them on all.
. "$(dirname "$0")/../functions.sh"
requires iscsi-test-cu qemu-img timeout cc
cd "$tmp"

# SANITIZE's test of resets sleeps for a minute to poll: a second is a twentieth here
cat > hurry.c <<'C'
#include <time.h>
unsigned sleep(unsigned n);
unsigned sleep(unsigned n)
{
	struct timespec t = { n / 20, (long)(n % 20) * 50000000L };
	nanosleep(&t, 0);
	return 0;
}
C
cc -shared -fPIC -o hurry.so hurry.c
vdiskd=$O/vdiskd
mkdir state && chmod 777 state

# skips FAMILY BLOCK: what its tests may skip, as a pattern, with the reason
skips() {
    case $1 in
        # there is no key that could be thrown away: CRYPTO ERASE is refused
        Sanitize*) echo 'CRYPTO_ERASE is not implemented' ;;
        # the tool's list of target descriptors' NUL bit ends with SPC-3
        ExtendedCopy) echo 'Target is SPC-4' ;;
        # a logical block of 4096 bytes is a whole physical one: there is no part of one to unmap
        *) [ "$2" = 4096 ] && echo 'LBPPB < 2' || echo '^$' ;;
    esac
}

# family NAME FORMAT BLOCK: run one; no test of it may fail, and the target must end well
family() {
    local name=$1 format=$2 block=$3 url got=0 options=() arguments=() preload=
    rm -f disk served
    qemu-img create -q -f "$format" disk 100M
    case $name in
        PreventAllow | StartStopUnit | NoMedia) options=(--removable) ;;
        ReadOnly) options=(-r) ;;
        # with 512-byte blocks in 4096-byte ones the tool looks for a wrong address
        GetLBAStatus) options=(--physical-block-size=512) ;;
        # the operation has to outlive the resets: a second and a half
        Sanitize.Reset) options=(--sanitize-rate=60M) preload=$PWD/hurry.so ;;
    esac
    [ "$block" = 512 ] || [ "$name" != GetLBAStatus ] || options=()
    "$vdiskd" export -p 127.0.0.1:0 -n iqn.2026-11.test:c -f "$format" -b "$block" --state-dir state \
        "${options[@]}" disk > served 2> served.err &
    server=$!
    pids+=("$server")
    wait_for 20 grep -q 'Interrupt to end' served
    url=$(sed -n 's/.*info \(iscsi:.*\)$/\1/p' served)
    arguments=("$url")
    [ "$name" != MultipathIO ] || arguments+=("$url")
    LD_PRELOAD=$preload timeout 120 iscsi-test-cu --dataloss --allow-sanitize -n -t "ALL.$name" \
        "${arguments[@]}" > log 2>&1 < /dev/null || got=$?
    [ "$got" = 0 ] || fail "$name on $format, $block: status $got: $(grep -A30 -E 'failures|FAILED|ailed' log | head -30) $(cat served.err)"
    grep -qE '^ *tests +[1-9][0-9]* +[1-9][0-9]* +[1-9][0-9]* +0 ' log || fail "$name: $(tail -20 log)"
    ! grep 'SKIPPED' log | grep -vE "$(skips "$name" "$block")" > skipped ||
        fail "$name on $format, $block skips: $(cat skipped)"
    tests=$((tests + $(sed -nE 's/^ *tests +([0-9]+) .*/\1/p' log)))
    kill -TERM "$server"
    got=0
    wait "$server" || got=$?
    [ "$got" = 0 ] || fail "$name: vdiskd ended with $got: $(cat served.err)"
}

names=$(iscsi-test-cu --list 2> /dev/null | sed -n 's/^ALL\.\([A-Za-z0-9]*\)\..*/\1/p' | sort -u)
[ "$(wc -w <<< "$names")" -ge 51 ] || fail "the tool has only these families: $names"
# one of Sanitize's needs a disk of its own kind; the others go one by one, each after the other
sanitize=$(iscsi-test-cu --list 2> /dev/null | sed -n 's/^ALL\.\(Sanitize\.[A-Za-z0-9]*\)$/\1/p')
names=${names/Sanitize/$sanitize}

tests=0
for f in $names; do family "$f" qcow2 512; done
echo "qcow2, 512: $tests tests passed"
[ "$tests" -ge 230 ] || fail "only $tests of 230 tests ran"
if [ "${LONG:-}" = 1 ]; then
    spread=$names some=$names
else
    spread='Read10 WriteSame16 Unmap CompareAndWrite GetLBAStatus ExtendedCopy Sanitize.BlockErase'
    some='GetLBAStatus Read16 Write10 OrWrite WriteSame10 Verify10 WriteAtomic16'
fi
tests=0
for f in $spread; do family "$f" raw 512; done
for f in $some; do family "$f" raw 4096; done
for f in $spread; do family "$f" qcow2 4096; done
echo "raw and 4096: $tests tests passed"
