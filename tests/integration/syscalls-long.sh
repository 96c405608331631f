#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What each filter of system calls lets through is made by some test, or has its reason in
# tests/tools/unreached: other tests under strace, each thread by the kind that it is.
. "$(dirname "$0")/../functions.sh"
requires strace python3
"$O/vmm-lite" --check --force > /dev/null 2>&1 || skip 'no usable /dev/kvm'
# (the unit test's threads are named as those of vmm-lite)
make -C "$TOP" -s O="$O" "$O/tests/unit/sandbox" > "$tmp/make" 2>&1 || { cat "$tmp/make"; fail 'unit/sandbox'; }

traced() { # NAME COMMAND...
    mkdir "$tmp/$1"
    strace -ff -ttt --pidns-translation -qq -s 40 -o "$tmp/$1/t" "${@:2}" > "$tmp/$1.log" 2>&1 ||
        { cat "$tmp/$1.log"; fail "$1, traced, failed"; }
}

traced sandbox "$O/tests/unit/sandbox"
dirs=("$tmp/sandbox")
for t in ring3-guest vm-control isolated-disks vm-killed boot inspect iscsi-source; do
    traced $t bash "$TOP/tests/integration/$t.sh"
    dirs+=("$tmp/$t")
done
"$O/tests/tools/filters" > "$tmp/filters"
"$TOP/tests/tools/reached" -x "$TOP/tests/tools/unreached" "$tmp/filters" "${dirs[@]}" ||
    fail 'a filter lets more through than is made'
