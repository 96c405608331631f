#!/bin/bash
# vdisk boot --engine uml: a guest from its own disk without KVM, how it ends, and
# what is left of it on the disk and on the host.
. "$(dirname "$0")/../functions.sh"
requires linux.uml busybox sfdisk mke2fs e2fsck lvm

guest_root "$tmp/root"
echo '/dev/vda1 / ext4 defaults 0 1' > "$root/etc/fstab"
cat > "$root/sbin/init" <<'EOF'
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -o remount,rw / || echo 'stays read-only'
echo "device $($bb awk '$2 == "/" { print $1 }' /proc/mounts | $bb tail -n 1)"
echo "words $*."
echo "disks $($bb ls /sys/block | $bb grep -c ^vd)"
[ ! -e /sys/block/dm-0 ] || echo "uuid $($bb cat /sys/block/dm-0/dm/uuid)"
echo "written by $(. /etc/os-release; echo $ID)" > /root/file
$bb sync
case $($bb cat /proc/cmdline) in
*do=reboot*) $bb reboot -f ;;
*do=header*)
    printf 'QFI\373\0\0\0\003' | $bb dd of=/dev/vdb bs=512 conv=sync,fsync && echo header written ;;
*do=panic*) echo c > /proc/sysrq-trigger ;;
*do=hang*)
    # (forked, no program of its own, and reads for ever, by a number that is a socket outside)
    $bb mkfifo /root/fifo
    (exec 5<> /root/fifo; while :; do read -r x <&5; done) &
    $bb sleep 1000 ;;
esac
$bb poweroff -f
EOF
chmod +x "$root/sbin/init"
truncate -s 64M "$tmp/disk.raw"
printf 'label: gpt\nsize=8M\nsize=40M\n' | sfdisk -q "$tmp/disk.raw"
truncate -s 40M "$tmp/part"
mke2fs -q -t ext4 -L guest-root -d "$root" "$tmp/part"
dd if="$tmp/part" of="$tmp/disk.raw" bs=1M seek=9 conv=notrunc status=none
expect 0 "$VDISK" create "$tmp/more.qcow2" 16M
export TMPDIR=$tmp/t
mkdir "$TMPDIR"

boot() {
    local want=$1
    shift
    timeout -k 5 60 "$VDISK" boot "$@" > "$tmp/out" 2>&1 < /dev/null && got=0 || got=$?
    output=$(< "$tmp/out")
    [ "$got" = "$want" ] || fail "vdisk boot $* ended with $got, not $want: $output"
}

boot 0 --engine uml --snapshot "$tmp/disk.raw"
like_output '^device /dev/vda2'
expect 1 "$VDISK" cat "$tmp/disk.raw#p2:/root/file"	# it was thrown away

boot 0 --engine uml --disk "$tmp/more.qcow2" "$tmp/disk.raw"
like_output '^disks 2'
expect 0 "$VDISK" cat "$tmp/disk.raw#p2:/root/file"
[ "$output" = 'written by test' ] || fail "in the guest's file: $output"
dd if="$tmp/disk.raw" of="$tmp/part" bs=1M skip=9 count=40 status=none
expect 0 e2fsck -fn "$tmp/part"

# from qcow2, by label, read-only
expect 0 "$VDISK" convert -O qcow2 "$tmp/disk.raw" "$tmp/disk.qcow2"
boot 0 --engine uml --read-only --append root=LABEL=guest-root "$tmp/disk.qcow2"
like_output 'root file system: /dev/vda2'
like_output 'stays read-only'
expect 0 "$VDISK" compare "$tmp/disk.raw" "$tmp/disk.qcow2"

# the root is a logical volume, in two pieces, between others; LVM2 makes it
cat > "$tmp/lvm.sh" <<'EOF'
set -e
mkdir -p /run/lvm /run/lock/lvm
export DM_DISABLE_UDEV=1
l() {
    lvm "$@" --config 'activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
        devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
        scan_lvs=0 filter=["a|^/dev/ubd|","r|.*|"] }
        global { event_activation=0 use_lvmpolld=0 } backup { backup=0 archive=0 }' > /tmp/lvm.log 2>&1 ||
        { cat /tmp/lvm.log; exit 1; }
}
l pvcreate -q /dev/ubdb2
l vgcreate -q -s 1M the-guest /dev/ubdb2
l lvcreate -q -Wn -y -n root -L 16M the-guest
l lvcreate -q -Wn -y -n var -L 8M the-guest
l lvextend -q -L 32M the-guest/root
mke2fs -q -t ext4 -d "$1" /dev/the-guest/root
l vgchange -q -an the-guest
EOF
truncate -s 64M "$tmp/lvm.raw"
printf 'label: gpt\nsize=8M\nsize=50M, type=lvm\n' | sfdisk -q "$tmp/lvm.raw"
expect 0 in_machine --engine uml --modules dm-mod --machine "ubd1=$tmp/lvm.raw" -- bash "$tmp/lvm.sh" "$root"
boot 0 --engine uml "$tmp/lvm.raw"
like_output 'root file system: /dev/mapper/the--guest-root'
like_output '^uuid LVM-[A-Za-z0-9]{64}.?$'
expect 0 "$VDISK" cat "$tmp/lvm.raw#the-guest/root:/root/file"
[ "$output" = 'written by test' ] || fail "in the file on the logical volume: $output"
expect 0 "$VDISK" fsck -n -F "$tmp/lvm.raw#the-guest/root"
boot 0 --engine uml --snapshot --append root=/dev/mapper/the--guest-root "$tmp/lvm.raw"

# from a LUN of our own target: its disk's process reaches it
port=$(free_port)
"$O/vdiskd" export -q -p "127.0.0.1:$port" -n iqn.2026-11.test:uml "$tmp/disk.raw" 2> "$tmp/vdiskd.err" &
target=$!
pids+=("$target")
wait_for 30 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
boot 0 --engine uml "iscsi://127.0.0.1:$port/iqn.2026-11.test:uml/0"
like_output '^device /dev/vda2'
# ... and given to one that runs, which has it if it can give it back
export VDISK_RUNTIME_DIR=$tmp/run
start "$VDISK" boot --engine uml --name late --time-limit 100 --append do=hang "$tmp/disk.qcow2,snapshot" > "$tmp/late" 2>&1
up() { "$VDISK" vm show --json late | grep -q '"agent": true'; }
wait_for 60 up
# what it is left with, and that it is that
shown=$("$VDISK" vm show --json late)
for what in filter mount pid net ipc; do
    grep -q "\"$what\": true" <<< "$shown" || fail "the sandbox: $shown"
done
kernel=$(sed -n 's/.*"pid": \([0-9]\{1,\}\).*/\1/p' <<< "$shown" | head -n 1)
[ ! -e "/proc/$kernel/root/etc/passwd" ] && [ -e "/proc/$kernel/root/initrd" ] || fail 'files of the host'
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$kernel/status" && grep -q '^Seccomp:[[:space:]]*2' "/proc/$kernel/status" ||
    fail "rights of the guest's kernel: $(cat "/proc/$kernel/status")"
[ "$(readlink "/proc/$kernel/ns/net")" != "$(readlink /proc/self/ns/net)" ] || fail 'its network'
expect 0 "$VDISK" vm attach-disk late "iscsi://127.0.0.1:$port/iqn.2026-11.test:uml/0,serial=lun"
sized() { "$VDISK" vm show late | grep ' 67108864 bytes  iscsi://'; }
wait_for 60 sized
expect 0 "$VDISK" vm detach-disk late lun
expect 0 "$VDISK" vm kill late
kill -INT "$target"
wait "$target" || fail "vdiskd: $(cat "$tmp/vdiskd.err")"

# a shell for one user is asked for by a word for the guest's init; what a command line wants of
# the root counts; nothing but what the guest says is in the way
boot 0 --engine uml --snapshot --recovery --append rw "$tmp/disk.raw"
like_output '^words .*single'
[ -z "$(grep -E 'SELinux|mmapper|ubd|feature incompat' <<< "$output")" ] || fail "$output"
boot 1 --engine uml --entry 1 "$tmp/disk.raw"
like_output 'entry is for kvm'

# a killed one leaves nothing
start "$VDISK" boot --engine uml --snapshot --append do=hang "$tmp/disk.raw" < /dev/null > "$tmp/killed" 2>&1
meets() { [ -S "$(find "$TMPDIR" -name s0)" ]; }
wait_for 60 meets
kill -9 "$(pgrep -P "$started" vmm-uml)"
rc=0
wait "$started" || rc=$?
[ $rc = 1 ] || fail "its monitor was killed, and it ended with $rc: $(cat "$tmp/killed")"
cleared() { [ -z "$(ls "$TMPDIR")" ]; }
wait_for 60 cleared

# what a guest writes does not make its raw disk an image of another format, unless
# somebody has said that it is raw
truncate -s 1M "$tmp/plain.raw"
boot 0 --engine uml --append do=header --disk "$tmp/plain.raw" "$tmp/disk.raw,snapshot"
like_output 'vdisk1: the guest may not write the beginning of a qcow2 image'
! grep -q 'header written' <<< "$output" || fail "$output"
cmp -n 512 "$tmp/plain.raw" /dev/zero || fail 'it was written'
boot 0 --engine uml --append do=header --disk "$tmp/plain.raw,format=raw" "$tmp/disk.raw,snapshot"
like_output 'header written'
[ "$(head -c 3 "$tmp/plain.raw")" = QFI ] || fail 'it was not written'

# how it ends
boot 16 --engine uml --on-reset exit --append do=reboot "$tmp/disk.raw"
boot 17 --engine uml --append do=panic "$tmp/disk.raw"
boot 19 --engine uml --time-limit 5 --append do=hang "$tmp/disk.raw"
boot 1 --engine uml "$tmp/no-such-disk"
boot 1 --engine uml --kernel /etc/passwd "$tmp/disk.raw"
like_output 'brings its own kernel'
boot 2 --engine nonsense "$tmp/disk.raw"

# the choice is told
if ! "$O/vmm-lite" --check 2> /dev/null; then
    boot 0 "$tmp/disk.raw"
    like_output 'runs on User-Mode Linux'
fi
empty() { [ -z "$(ls "$TMPDIR")" ]; }
wait_for 10 empty

# a panic ends nobody else of its process group; a root that is none is no power-off
setsid sh -c '"$0" boot --engine uml --append do=panic "$1" > /dev/null 2>&1 < /dev/null; echo "$?" > "$2"' \
    "$VDISK" "$tmp/disk.raw" "$tmp/status" || fail 'the caller was ended with its guest'
[ "$(cat "$tmp/status")" = 17 ] || fail "a panic in a script: $(cat "$tmp/status")"
boot 17 --engine uml --snapshot --append root=/dev/vda1 "$tmp/disk.raw"
like_output 'cannot mount the root /dev/vda1'

# and none of all these left a process
for p in /proc/[0-9]*; do
    ! tr '\0' ' ' < "$p/cmdline" 2>/dev/null | grep -q "uml_dir=$TMPDIR" || fail "left: $p $(tr '\0' ' ' < "$p/cmdline")"
done
