#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest without an operating system, natively on whatever KVM there is, also
# one that cannot run kernels: writes and compares a raw and a qcow2 disk.
. "$(dirname "$0")/../functions.sh"
requires gcc ld objcopy python3 qemu-img qemu-io
type -P expect > /dev/null || skip "expect is not installed" # the name is also a function

"$O/vmm-lite" --check --force > /dev/null 2>&1 || skip 'no usable /dev/kvm'
"$TOP/tests/tools/ring3/build" main.c "$tmp/guest"
mv "$tmp/guest.bz" "$tmp/kernel"

vmm() { expect "$1" timeout 60 "$O/vmm-lite" --force -m 128 --kernel "$tmp/kernel" --reboot exit "${@:2}" < /dev/null; }

truncate -s 8M "$tmp/a.raw"
vmm 0 --disk "$tmp/a.raw" --format raw --serial first
like_output 'sectors 16384'
like_output 'compared [0-9]+'
like_output 'id first'

# the same through a format: the images hold the same, and the checker is content
qemu-img create -q -f qcow2 "$tmp/b.qcow2" 8M
vmm 0 --disk "$tmp/b.qcow2"
qemu-img check -q "$tmp/b.qcow2"
qemu-img compare -q "$tmp/a.raw" "$tmp/b.qcow2"

# thrown away; past the page cache; by threads
truncate -s 1M "$tmp/c.raw"
vmm 0 --disk "$tmp/c.raw" --format raw --snapshot
cmp "$tmp/c.raw" <(head -c 1048576 /dev/zero)
VDISK_QUEUE=threads vmm 0 --disk "$tmp/c.raw" --format raw
cmp "$tmp/c.raw" <(head -c 1048576 "$tmp/a.raw")

# every form of kernel: ELF with a PVH entry, without one, compressed, too short
elf() { expect "$1" timeout 60 "$O/vmm-lite" --force -m 128 --kernel "$2" --disk "$tmp/c.raw" --format raw < /dev/null; }
elf 0 "$tmp/guest"
like_output 'compared [0-9]+'
objcopy --remove-section .note "$tmp/guest" "$tmp/no-note"
elf 0 "$tmp/no-note"
like_output 'compared [0-9]+'
for c in gzip xz 'lz4 -l' zstd; do
    command -v "${c%% *}" > /dev/null || continue
    $c -c "$tmp/guest" > "$tmp/packed"
    elf 0 "$tmp/packed"
    like_output 'compared [0-9]+'
done
head -c 3000 "$tmp/packed" > "$tmp/cut"
elf 1 "$tmp/cut"
like_output 'kernel: cannot decompress'

# many processors; memory on both sides of the gap below 4 GiB, or up to it
vmm 0 -c 64 --disk "$tmp/c.raw" --format raw
for memory in 3072 3073 5G; do
    vmm 0 -m $memory --disk "$tmp/c.raw" --format raw
done
vmm 2 -c 65
vmm 2 -m 16
like_output 'memory is 32 MiB'

# what happens then is the person's choice
vmm 7 --append triple --on-crash exit:7
vmm 3 --disk "$tmp/c.raw" --format raw --on-shutdown exit:3
vmm 9 --disk "$tmp/c.raw" --format raw --read-only --on-reset exit:9
expect 19 "$O/vmm-lite" --force -m 32 --kernel "$tmp/kernel" --append triple --on-crash reset --time-limit 2
[ "$(grep -c 'ring 3' <<< "$output")" -gt 1 ] || fail "no second start: $output"
vmm 2 --on-crash sometimes

# a disk that refuses to be written: the guest sees the error, and resets
vmm 16 --disk "$tmp/c.raw" --format raw --read-only
like_output 'FAILED: status at sector 0'

# while it runs it has the disk to itself, and no privileges; then it is stopped
start "$O/vmm-lite" --force -m 128 -c 2 --kernel "$tmp/kernel" --append spin \
    --disk "$tmp/b.qcow2" < /dev/null > "$tmp/spin.out"
wait_for 10 grep -q 'ring 3' "$tmp/spin.out"
expect 1 qemu-io -c quit "$tmp/b.qcow2"
expect 1 "$VDISK" resize "$tmp/b.qcow2" +1M
guest=$(cat "/proc/$started/task/$started/children")
[ -n "$guest" ] || fail 'the process that was started has no child'
for s in "/proc/$started/task/"*/status "/proc/${guest% }/task/"*/status; do
    for line in 'NoNewPrivs:.*1' 'Seccomp:.*2' 'CapEff:.*0000000000000000'; do
        grep -q "$line" "$s" || fail "not $line: $(grep -E 'Name|Seccomp|Cap' "$s")"
    done
done
kill "$started"
rc=0
wait "$started" || rc=$?
[ $rc = 20 ] || fail "stopped with status $rc"
vmm 19 --append spin --time-limit 1
vmm 18 --append triple
expect 0 qemu-io -c quit "$tmp/b.qcow2"

# on a terminal: raw while it runs, Ctrl-] is ours, and all is as before at the end
cat > "$tmp/session" <<END
stty -a > $tmp/before
$O/vmm-lite --force -m 128 --kernel $tmp/kernel --append spin
echo "ended with \$?"
stty -a > $tmp/after
END
cat > "$tmp/typist" <<'END'
set timeout 20
proc want {text} { expect -ex $text {} timeout { exit 1 } eof { exit 1 } }
spawn -noecho bash [lindex $argv 0]
want "ring 3"
exec stty -a < $spawn_out(slave,name) > [lindex $argv 1]
send "\003plain keys\035?"
want "Ctrl-\] q"
send "\035q"
want "ended with 20"
expect eof
END
command expect "$tmp/typist" "$tmp/session" "$tmp/during" || fail 'the session on a terminal'
grep -q -- '-icanon' "$tmp/during" || fail 'the terminal was not raw'
cmp "$tmp/before" "$tmp/after"

# what is wrong before the guest starts
vmm 1 --disk "$tmp/missing.raw"
like_output 'missing.raw'
vmm 2 --disk "$tmp/c.raw" --cache maybe
expect 1 "$O/vmm-lite" --force --kernel "$tmp/a.raw"
like_output 'neither a Linux bzImage nor an ELF'
expect 2 "$O/vmm-lite"
