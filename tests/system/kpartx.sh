#!/bin/bash
# vdisk kpartx beside kpartx: lists, maps, tables, UUIDs and exit statuses, on files and
# devices; busy maps; images; attach and detach, with logical volumes.
. "$(dirname "$0")/../functions.sh"

if [ "${1:-}" != inside ]; then
    requires linux.uml kpartx dmsetup sfdisk lvm mkfs.ext4 e2fsck busybox
    in_machine --engine uml --mem 768 --limit 800 \
        --modules 'loop dm-mod dm-snapshot dm-mirror ext4 fuse' -- bash "$(readlink -f "$0")" inside
    exit
fi

export DM_DISABLE_UDEV=1
mount -t tmpfs tmpfs /mnt
cd /mnt
ours() { "$VDISK" kpartx "$@"; }

# what ACTION prints (on stdout), its status, and what device-mapper has then
seen() {	# PROGRAM ACTION DISK
    local status=0
    $1 $2 "$3" 2>err || status=$?
    echo "status $status"
    case $2 in *-l*) ;; *) dmsetup table && dmsetup info -c -o name,uuid,readonly ;; esac
}
everything_gone() {
    dmsetup remove_all
    losetup -D
}
back() {
    case "$1 $2" in
    -l*) ;;
    *-p\ *\ /dev/*) kpartx -d -p "${1##*-p }" "$2" ;;
    *\ /dev/*) kpartx -d "$2" ;;
    *) everything_gone ;;
    esac
}
same() {	# ACTION DISK: both, from the same state, and back to it
    seen kpartx "$1" "$2" >theirs
    back "$1" "$2"
    seen ours "$1" "$2" >ours
    back "$1" "$2"
    diff theirs ours || fail "$1 $2 is different ($layout)"
    cases=$((cases + 1))
}
cases=0
# "mkpart" gives what sfdisk reads; several of each kind, on a file and on a device
layouts=(
    'label: dos\nsize=8M\nsize=4M, type=82\nsize=30M, type=5\nsize=5M\nsize=6M\nsize=7M\n'
    'label: dos\nstart=63, size=10000\nstart=20000, size=44000, type=f\n5: start=20063, size=1000\n6: start=30000, size=7001\n'
    'label: gpt\n3: size=3M\n7: size=1M\n1: size=4M\n'
    'label: gpt\nfirst-lba: 34\nstart=40, size=77\nstart=200, size=1\nstart=1000, size=333\n'
)
for layout in "${layouts[@]}"; do
    rm -f d
    truncate -s 64M d
    # shellcheck disable=SC2059 # the layout is a format
    printf "$layout" | sfdisk -q d
    for action in -l '-a -v -r'; do same "$action" d; done
    l=$(losetup -f --show d)
    for action in -l '-uv -n' '-a -v -s -p _'; do same "$action" "$l"; done
    losetup -d "$l"
done
for layout in 'label: gpt\nsize=8M\nsize=16M\n' \
    'label: dos\nsize=4M\nsize=4M\nsize=30M, type=5\nsize=4M\nsize=5M\nsize=6M\n'; do
    rm -f d
    truncate -s 64M d
    l=$(losetup -b 4096 -f --show d)
    # shellcheck disable=SC2059
    printf "$layout" | sfdisk -q --no-reread --no-tell-kernel "$l"
    for action in -l -av; do same "$action" "$l"; done
    losetup -d "$l"
done
# a file system and nothing at all, a GPT whose first copy is damaged, a device-mapper device
layout='no table'
rm -f d
truncate -s 64M d
same -l d
mkfs.ext4 -q d
same -av d
layout='damaged GPT'
printf 'label: gpt\nsize=8M\nsize=16M\n' | sfdisk -q d
dd if=/dev/zero of=d bs=512 seek=1 count=1 conv=notrunc status=none
same -av d
layout='GPT without a protective MBR'
printf 'label: gpt\nsize=8M\nsize=16M\n' | sfdisk -q d
dd if=/dev/zero of=d bs=512 count=1 conv=notrunc status=none
for action in -l '-l -g'; do same "$action" d; done
layout='GPT behind an MBR of its own'
printf 'label: gpt\nsize=8M\nsize=16M\n' | sfdisk -q d
dd if=d of=gpt bs=512 skip=1 count=33 status=none
printf 'label: dos\nsize=9M\n' | sfdisk -q -w never -W never d
dd if=gpt of=d bs=512 seek=1 conv=notrunc status=none
for action in -l '-l -g' '-av -g'; do same "$action" d; done
layout='on device-mapper'
rm -f d
truncate -s 64M d
printf 'label: gpt\nsize=8M\nsize=16M\n' | sfdisk -q d
l=$(losetup -f --show d)
echo "0 131072 linear $l 0" | dmsetup create -u LVM-something vg-guest1
for action in -l -av; do same "$action" /dev/mapper/vg-guest1; done
# stale maps: the table changed
kpartx -a /dev/mapper/vg-guest1
printf 'label: gpt\nsize=4M\n' | sfdisk -q --no-reread --no-tell-kernel "$l"
dmsetup table >before
seen kpartx -uv /dev/mapper/vg-guest1 >theirs
printf 'label: gpt\nsize=8M\nsize=16M\n' | sfdisk -q --no-reread --no-tell-kernel "$l"
ours -u /dev/mapper/vg-guest1
diff before <(dmsetup table) || fail "-u did not restore"
printf 'label: gpt\nsize=4M\n' | sfdisk -q --no-reread --no-tell-kernel "$l"
seen ours -uv /dev/mapper/vg-guest1 >ours
diff theirs ours || fail "-u is different"
everything_gone
for bad in '' '-l' '-x d' '-l nothing' '-l .'; do
    # shellcheck disable=SC2086
    { kpartx $bad >/dev/null 2>&1; a=$?; } || true
    # shellcheck disable=SC2086
    { ours $bad >/dev/null 2>&1; b=$?; } || true
    [ "$a" = "$b" ] || fail "kpartx $bad: $b, and not $a"
done
echo "$cases times the same"

# ---- what is busy says by whom, and stays; what is on a file is found again ----
rm -f d
truncate -s 64M d
printf 'label: dos\nsize=8M\nsize=16M\n' | sfdisk -q d
expect 0 ours -av d
expect 0 ours -av d
[ "$(losetup -a | wc -l)" = 1 ] || fail "a second loop device"
mkfs.ext4 -q /dev/mapper/loop0p1
mkdir -p m
mount /dev/mapper/loop0p1 m
expect 1 ours -d d
like_output 'loop0p1: is in use: mounted at /mnt/m'
expect 1 "$VDISK" mkfs -y 'd#p2'
like_output 'd: in use by this host: attached to /dev/loop0, which is held by device-mapper loop0p1, mounted at /mnt/m'
expect 1 "$VDISK" mkfs -y /dev/loop0
like_output 'held by device-mapper loop0p1, mounted at /mnt/m'
expect 1 "$VDISK" mkfs -y /dev/mapper/loop0p1
like_output 'mounted at /mnt/m'
umount m
expect 0 ours -dv d
like_output 'loop deleted : /dev/loop0'
[ -z "$(losetup -a)" ] || fail "a loop device is left"

# ---- in use, of every kind, and from the other side ----
l=$(losetup -f --show d)
expect 1 "$VDISK" mkfs -y d
like_output "attached to $l"
losetup -d "$l"
mkswap -q d 2>/dev/null || mkswap d >/dev/null
l=$(losetup -f --show d)
swapon "$l"
expect 1 "$VDISK" mkfs -y "$l"
like_output 'swap space'
expect 1 "$VDISK" mkfs -y d
like_output "attached to $l, which is swap space"
swapoff "$l"
# shellcheck disable=SC2217 # it only keeps it open
sleep 60 <"$l" &
holder=$!
exec 8<>"$l"
# an opener alone keeps nobody off; an exclusive one does, and is named
python3 -c "import os, time; os.open('$l', os.O_RDWR | os.O_EXCL); print('ready', flush=True); time.sleep(60)" >ready &
exclusive=$!
wait_for 20 grep -q ready ready
exec 8<&-
kill "$holder"
wait "$holder" 2>/dev/null || true
expect 1 "$VDISK" mkfs -y "$l"
like_output "python3 -c .*pid $exclusive"
kill "$exclusive"
wait "$exclusive" 2>/dev/null || true
losetup -d "$l"

# ---- attach: partitions and logical volumes of an image; the host's LVM sees nothing of them ----
rm -f d
truncate -s 96M d
printf 'label: gpt\nsize=16M\nsize=60M, type=lvm\n' | sfdisk -q d
mkdir -p /run/lvm /run/lock/lvm
config='activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
    devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
    scan_lvs=0 filter=["a|^/dev/loop|","r|.*|"] }
    global { event_activation=0 use_lvmpolld=0 } backup { backup=0 archive=0 }'
l() { lvm "$@" --config "$config" >lvm.log 2>&1 || { cat lvm.log; fail "lvm $*"; }; }
loop=$(losetup -f --show -o 17M --sizelimit 60M d)
l pvcreate -q "$loop"
l vgcreate -q -s 1M vg0 "$loop"
l lvcreate -q -Wn -y -n root -L 20M vg0
l lvcreate -q -Wn -y -n other -L 8M vg0
l lvextend -q -L 24M vg0/root
mkfs.ext4 -q -L lvroot /dev/vg0/root
l vgchange -q -an vg0
losetup -d "$loop"
"$VDISK" convert -q -O qcow2 d q
for disk in d q; do
    expect 0 "$VDISK" attach $disk
    [ "$output" = '/dev/loop0
/dev/mapper/loop0p1  p1
/dev/mapper/loop0p2  p2
/dev/mapper/loop0-vg0-other  vg0/other
/dev/mapper/loop0-vg0-root  vg0/root' ] || [ "$(sort <<<"$output" | tail -n 2 | wc -l)" = 2 ] ||
        fail "attach: $output"
    [ "$(dmsetup table loop0-vg0-root | wc -l)" = 2 ] || fail "two segments: $(dmsetup table)"
    mount /dev/mapper/loop0-vg0-root m
    echo "through $disk" >m/file
    # the other side: another program of ours, and QEMU's, are refused by name
    expect 1 "$VDISK" mkfs -y "$disk#p1"
    like_output 'attached to /dev/loop0|vdisk attach'
    if command -v qemu-img >/dev/null; then
        expect 1 qemu-img resize -f "$([ $disk = q ] && echo qcow2 || echo raw)" $disk +1M
        like_output 'lock'
    fi
    expect 0 "$VDISK" attached
    like_output "^/mnt/$disk"
    like_output 'loop0-vg0-root'
    expect 1 "$VDISK" detach $disk
    like_output 'mounted at /mnt/m'
    umount m
    expect 0 "$VDISK" detach /dev/mapper/loop0-vg0-root
    [ -z "$(losetup -a)$(ls /run/vdisk)" ] || fail "left: $(losetup -a; ls /run/vdisk)"
    [ "$("$VDISK" cat "$disk#vg0/root:/file")" = "through $disk" ] || fail "$disk: not saved"
done
for disk in d q; do
    expect 0 "$VDISK" attach -r $disk
    expect 1 mkfs.ext4 -q /dev/mapper/loop0p1
    expect 1 "$VDISK" attach $disk			# one that can be written is asked for
    like_output "$disk: is attached read-only already, as /dev/loop0: detach it first"
    expect 0 "$VDISK" attach -r $disk
    expect 0 "$VDISK" detach $disk
    expect 0 "$VDISK" attach $disk
    for how in -r --snapshot; do
        expect 1 "$VDISK" attach $how $disk
        like_output "$disk: is attached for writing already, as /dev/loop0: detach it first"
    done
    expect 0 "$VDISK" detach $disk
done
l=$(losetup -f --show d)
expect 0 "$VDISK" attach "$l"
expect 1 "$VDISK" attach -r "$l"
like_output "is attached for writing already, as /dev/mapper/${l#/dev/}p1"
expect 0 "$VDISK" detach "$l"
losetup -d "$l"
expect 1 "$VDISK" detach q
like_output 'not attached'

# ---- a throw-away snapshot: written, and the disk as before ----
for disk in d q; do
    sum=$(sha256sum <$disk)
    expect 0 "$VDISK" attach --snapshot $disk
    grep -q '^/dev/mapper/loop0-snapshot-vg0-root  vg0/root' <<<"$output" || fail "$output"
    dmsetup table loop0-snapshot | grep -q '^0 196608 snapshot 7:0 7:1 N 8' || fail "$(dmsetup table)"
    mkfs.ext4 -q /dev/mapper/loop0-snapshot1
    mount /dev/mapper/loop0-snapshot-vg0-root m
    echo changed >m/file
    rm -f m/new
    expect 0 "$VDISK" attached
    like_output loop0-snapshot1
    expect 1 "$VDISK" detach $disk
    like_output 'loop0-snapshot-vg0-root: is in use: mounted at /mnt/m'
    umount m
    expect 0 "$VDISK" detach $disk
    [ "$(sha256sum <$disk)" = "$sum" ] || fail "$disk: a snapshot was written through"
    [ -z "$(losetup -a)$(ls /run/vdisk)$(dmsetup ls | grep -v 'No dev')" ] || fail "left: $(losetup -a; ls /run/vdisk; dmsetup ls)"
done

# ---- a view whose process was killed: the next command clears maps and devices ----
expect 0 "$VDISK" attach q
kill -9 "$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' /run/vdisk/view-*.json)"
sleep 1
expect 1 "$VDISK" detach q
like_output 'was killed; its remains are cleared'
wait_for 20 test -z "$(losetup -a)"
[ -z "$(ls /run/vdisk)$(dmsetup ls | grep -v 'No dev')" ] || fail "left: $(ls /run/vdisk; dmsetup ls)"

# ---- without device-mapper: partitions by the kernel, a volume by a loop device, or why not ----
echo /bin/false >/proc/sys/kernel/modprobe	# it would come back by itself
for i in 1 2 3 4 5 6 7 8 9; do rmmod dm_snapshot dm_mirror dm_region_hash dm_log dm_bufio dm_mod 2>/dev/null || true; done
[ ! -e /sys/module/dm_mod ] || fail 'device-mapper cannot be taken away'
for disk in d q; do
    expect 0 "$VDISK" attach $disk
    [ "$(grep -v vdisk: <<<"$output" | sort)" = '/dev/loop0
/dev/loop0p1  p1
/dev/loop0p2  p2
/dev/loop1  vg0/other' ] || fail "attach without device-mapper: $output"
    like_output 'vg0/root: no device is made: it is in 2 pieces, which takes device-mapper, and there is none'
    mkfs.ext4 -q -L plain /dev/loop1
    mount /dev/loop1 m
    expect 1 "$VDISK" detach $disk
    like_output '/dev/loop1: is in use: mounted at /mnt/m'
    umount m
    expect 0 "$VDISK" attached
    like_output '/dev/loop1'
    expect 0 "$VDISK" detach $disk
    [ "$("$VDISK" label "$disk#vg0/other")" = plain ] || fail "$disk: not saved"
    [ -z "$(losetup -a)$(ls /run/vdisk)" ] || fail "left: $(losetup -a; ls /run/vdisk)"
done
