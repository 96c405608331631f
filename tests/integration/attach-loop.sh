#!/bin/bash
# vdisk attach where there are loop devices but no device-mapper: the partitions are the
# kernel's own, also those of a table that this kernel does not know.
. "$(dirname "$0")/../functions.sh"
requires sfdisk losetup
[ "$(id -u)" = 0 ] || skip "needs root"
{ [ -w /dev/loop-control ] && losetup -f >/dev/null 2>&1; } || skip "no loop devices here"
! grep -q device-mapper /proc/misc || skip "there is a device-mapper here"

export VDISK_RUNTIME_DIR=$tmp/run
mkdir -m 700 "$tmp/run"
cd "$tmp"
let_go() { "$VDISK" detach "$1" 2>/dev/null || true; }
cleanup_fn let_go "$tmp/gpt.raw"
cleanup_fn let_go "$tmp/dos.raw"
truncate -s 100M gpt.raw
truncate -s 100M dos.raw
{ echo label: gpt; for i in 1 2 3 4 5 6 7 8 9 10; do echo size=4M; done; } | sfdisk -q gpt.raw
printf 'label: dos\n1: size=8M\n2: size=50M,type=5\n5: size=8M\n6: size=6M\n3: size=7M\n' | sfdisk -q dos.raw
head -c 1M /dev/urandom >content

attach_and_write() {	# DISK VOLUME...: there is a device of each, with the volume's bytes
    local disk=$1 loop volume
    shift
    expect 0 "$VDISK" attach "$disk"
    loop=$(head -1 <<< "$output")
    [[ $loop = /dev/loop* ]] || fail "$output"
    for volume; do
        grep -qx "${loop}$volume  $volume" <<< "$output" || fail "$disk: no $volume: $output"
        dd if=content of="${loop}$volume" bs=1M conv=notrunc,fsync status=none
    done
    expect 0 "$VDISK" detach "$disk"
    for volume; do
        [ ! -e "${loop}$volume" ] && [ ! -e "/sys/class/block/${loop#/dev/}$volume" ] ||
            fail "${loop}$volume is still there"
        "$VDISK" convert -q -y -O raw "$disk#$volume" part.raw
        cmp -n 1048576 content part.raw || fail "$disk#$volume: other bytes"
    done
}
attach_and_write gpt.raw p1 p2 p3 p4 p5 p6 p7 p8 p9 p10
attach_and_write dos.raw p1 p3 p5 p6
[ -z "$(ls "$tmp/run")" ] || fail "left behind: $(ls "$tmp/run")"
