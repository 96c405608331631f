#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vmm-lite boots a stock kernel with a busybox initrd on real KVM, on one and
# two processors: reads and writes a qcow2 disk, powers off, resets, panics, on a
# serial and a virtio console.
# (The other ways to end are in integration/ring3-guest.)  And with a process for
# each disk: the kernel comes out of a LUN of our own target, which is killed and
# comes back while the guest writes and compares, as are the disks' processes.
. "$(dirname "$0")/../functions.sh"
. "$(dirname "$0")/../small-guest.sh"
requires qemu-system-x86_64 qemu-img script

cloud_kernel

# ---- the guest: it does what do= on its command line says ----

root=$tmp/root
small_root "$root" virtio_pci virtio_blk virtio_rng virtio_console pvpanic_mmio
cat > "$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for f in /m/*; do insmod $f || echo "GUEST insmod $f failed"; done
grep -q console=hvc0 /proc/cmdline && exec < /dev/hvc0 > /dev/hvc0 2>&1
echo "GUEST cpus=$(nproc)"
for word in $(cat /proc/cmdline); do
    case $word in do=*) job=${word#do=} ;; esac
done
case $job in
disk)
    echo "GUEST size=$(cat /sys/block/vda/size) ro=$(cat /sys/block/vdb/ro)"
    echo "GUEST serial=$(cat /sys/block/vda/serial) queues=$(ls /sys/block/vda/mq | wc -l)"
    echo "GUEST read=$(md5sum < /dev/vda | cut -c1-32)"
    # over half of it, in large and in small pieces, then back from the disk
    head -c 6291456 /dev/urandom > /data
    dd if=/data of=/dev/vda bs=1M seek=2 conv=fsync 2> /dev/null
    dd if=/data of=/dev/vda bs=512 count=64 seek=20001 conv=fsync 2> /dev/null
    echo 3 > /proc/sys/vm/drop_caches
    [ "$(dd if=/dev/vda bs=1M skip=2 count=6 2> /dev/null | md5sum)" = "$(md5sum < /data)" ] &&
        echo GUEST reread
    dd if=/data of=/dev/vdb bs=4096 count=1 conv=fsync 2> /dev/null || echo GUEST refused
    echo "GUEST written=$(md5sum < /dev/vda | cut -c1-32)"
    head -c 16 /dev/hwrng | wc -c | sed 's/^/GUEST random=/'
    poweroff -f ;;
twice) # reset the first time, and find on the disk that there was one
    [ "$(head -c 5 /dev/vda)" != again ] || poweroff -f
    echo again | dd of=/dev/vda conv=fsync 2> /dev/null
    reboot -f ;;
panic) # on a terminal, with somebody who types, does not read for a while, and resizes it
    for i in $(seq 30); do	# its driver learns of the size a moment after the start
        [ "$(stty size 2> /dev/null)" != '33 77' ] || break
        sleep 1
    done
    echo "GUEST size=$(stty size)"
    yes 'much to say' | head -c 30000
    read -r line
    echo "GUEST typed=$line"
    for i in $(seq 90); do
        [ "$(stty size)" != '44 88' ] || break
        sleep 1
    done
    echo "GUEST resized=$(stty size)"
    echo c > /proc/sysrq-trigger ;;
load) # write, flush, read back past the cache; the LUN is read, too
    echo GUEST loading
    sum=$(head -c 4194304 /dev/vda | md5sum)
    n=0
    while [ $n -lt 16 ]; do
        head -c 262144 /dev/urandom > /data
        dd if=/data of=/dev/vdb bs=64k seek=$((n % 16 * 4)) conv=fsync 2> /dev/null || echo GUEST DAMAGED
        echo 1 > /proc/sys/vm/drop_caches
        dd if=/dev/vdb bs=64k skip=$((n % 16 * 4)) count=4 2> /dev/null | cmp - /data || echo GUEST DAMAGED
        [ $((n % 6)) != 0 ] || [ "$(head -c 4194304 /dev/vda | md5sum)" = "$sum" ] || echo GUEST DAMAGED
        n=$((n + 1))
        [ $n != 3 ] || echo GUEST under load
    done
    dmesg | grep -i 'i/o error' && echo GUEST DAMAGED
    grep -q 'PCI MMCONFIG' /proc/iomem || echo GUEST DAMAGED: no configuration space in memory
    echo "GUEST compared=$n"
    poweroff -f ;;
sleep) sleep 1000 ;;
esac
sleep 100
END
chmod 755 "$root/init"
pack_root "$root" "$tmp/initrd"

# ---- its disks, the first one on top of another ----

head -c 16777216 /dev/urandom > "$tmp/base.raw"
qemu-img create -q -f qcow2 -b base.raw -F raw "$tmp/disk.qcow2"
truncate -s 8M "$tmp/ro.raw"
before=$(md5sum < "$tmp/base.raw" | cut -c1-32)

# ---- the LUN, with the kernel in it ----

"$VDISK" create -q -f raw "$tmp/lun.raw" 64M
"$VDISK" mkfs -q -y -t ext4 -L lun "$tmp/lun.raw" > /dev/null
printf 'DEFAULT a\nLABEL a\nLINUX /vmlinuz\nINITRD /initrd\nAPPEND console=ttyS0 quiet do=load\n' > "$tmp/extlinux.conf"
cp "$kernel" "$tmp/vmlinuz"
"$VDISK" mkdir -p "$tmp/lun.raw:/boot/extlinux"
"$VDISK" cp "$tmp/vmlinuz" "$tmp/initrd" "$tmp/lun.raw:/"
"$VDISK" cp "$tmp/extlinux.conf" "$tmp/lun.raw:/boot/extlinux/extlinux.conf"

# ---- inside the machine with KVM ----

cat > "$tmp/job" <<END
set -u
status=0
vmm() { # NAME STATUS ARGUMENT...
    local name=\$1 want=\$2 got=0
    shift 2
    $O/vmm-lite -m 192 --kernel $kernel --initrd $tmp/initrd --time-limit 120 "\$@" \
        > /tmp/\$name.out 2>&1 < /dev/null || got=\$?
    grep -a 'GUEST\|vmm-lite' /tmp/\$name.out | tr -d '\r' | sed "s/^/\$name /"
    echo "\$name status=\$got"
    [ \$got = \$want ] || { status=1; tail -20 /tmp/\$name.out; }
}
cp $tmp/disk.qcow2 $tmp/base.raw $tmp/ro.raw /tmp/
$O/vmm-lite --check || exit 1
vmm disk 0 -c 2 --append 'console=ttyS0 quiet do=disk' --stats \
    --disk /tmp/disk.qcow2 --serial the-serial --disk /tmp/ro.raw --read-only
vmm snapshot 0 --append 'console=ttyS0 quiet do=disk' \
    --disk /tmp/disk.qcow2 --snapshot --disk /tmp/ro.raw --read-only
qemu-img convert -O raw /tmp/disk.qcow2 /tmp/after.raw
echo "after \$(md5sum < /tmp/after.raw | cut -c1-32)"
qemu-img check -q /tmp/disk.qcow2 && echo checked
cmp -s /tmp/base.raw $tmp/base.raw && echo base-untouched
cat > /tmp/typist <<'TYPIST'
stty rows 33 cols 77
# grep -a: the guest's kernel may say anything
(while ! grep -aq 'GUEST typed' /tmp/panic.out; do sleep 1; done; stty -F /dev/tty rows 44 cols 88) &
exec $O/vmm-lite -m 192 --kernel $kernel --initrd $tmp/initrd --time-limit 120 \\
    --console virtio --append 'console=hvc0 quiet do=panic'
TYPIST
got=0
(while ! grep -aq 'GUEST size' /tmp/panic.out; do sleep 1; done; echo hello) | script -qfec 'sh /tmp/typist' /tmp/panic.out > /dev/null 2>&1 || got=\$?
grep -a 'GUEST\|vmm-lite\|Kernel panic' /tmp/panic.out | tr -d '\r' | sed 's/^/panic /'
echo "panic status=\$got"
[ \$got = 17 ] || { status=1; tail -20 /tmp/panic.out; }
vmm twice 0 --append 'console=ttyS0 quiet do=twice' --disk /tmp/disk.qcow2
vmm limit 19 --append 'console=ttyS0 quiet do=sleep' --time-limit 3

# ---- a process for each disk
ip link set dev lo up
cp $tmp/lun.raw /tmp/
qemu-img create -q -f qcow2 /tmp/load.qcow2 16M
target() {
    $O/vdiskd export -q -p 127.0.0.1:3260 -n iqn.2026-11.test:lun /tmp/lun.raw &
    target=\$!
    for ((i = 0; i < 100; i++)); do
        (: < /dev/tcp/127.0.0.1/3260) 2> /dev/null && return
        sleep 0.1
    done
}
# said PATTERN: wait until the guest has, or is over
said() {
    for ((i = 0; i < 1800; i++)); do
        grep -aq "\$1" /tmp/load.out && return
        kill -0 \$pid 2> /dev/null || return
        sleep 0.1
    done
}
export VDISK_RUNTIME_DIR=/tmp/run
target
$O/vdisk boot -m 192 --isolate-disks --time-limit 300 --disk /tmp/load.qcow2 \\
    iscsi://127.0.0.1/iqn.2026-11.test:lun/0 > /tmp/load.out 2>&1 < /dev/null &
pid=\$!
said 'GUEST under load'
kills=0
for what in load.qcow2 test:lun/0 load.qcow2; do
    victim=\$(pgrep -f "vdisk-vhost.*-- .*\$what") || continue
    [ \$what != test:lun/0 ] || kill -KILL \$target
    kill -KILL \$victim && kills=\$((kills + 1))
    sleep 1
    [ \$what != test:lun/0 ] || target
done
got=0
wait \$pid || got=\$?
kill \$target
grep -a 'GUEST\|vmm-lite\|vdisk: booting' /tmp/load.out | tr -d '\r' | sed 's/^/isolated /'
echo "isolated status=\$got kills=\$kills"
[ \$got = 0 ] || { status=1; tail -20 /tmp/load.out; }
got=0
qemu-img check -q /tmp/load.qcow2 || got=\$?
[ \$got = 0 ] || [ \$got = 3 ] || status=1
exit \$status
END
rc=0
in_machine --modules kvm-amd --mem 1024 --limit 800 -- bash "$tmp/job" \
    > "$tmp/out" 2>&1 || rc=$?
# only the last start of the machine counts
awk '/^rig: started again/ { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }' \
    "$tmp/out" > "$tmp/last" && mv "$tmp/last" "$tmp/out"
cat "$tmp/out"
[ $rc = 0 ] || fail "the machine ended with $rc"

has() { grep -qx -- "$1" "$tmp/out" || fail "no '$1'"; }
has 'disk GUEST cpus=2'
has 'disk GUEST size=32768 ro=1'
has 'disk GUEST serial=the-serial queues=1'
has "disk GUEST read=$before"
has 'disk GUEST reread'
has 'disk GUEST refused'
has 'disk GUEST random=16'
# what the guest saw last is what is in the image, also after the throw-away run
written=$(sed -n 's/^disk GUEST written=//p' "$tmp/out")
[ "$written" != "$before" ] || fail 'the guest wrote nothing'
has "snapshot GUEST read=$written"
has "after $written"
has 'panic GUEST size=33 77'
has 'panic GUEST typed=hello'
has 'panic GUEST resized=44 88'
grep -q '^panic .*Kernel panic' "$tmp/out" || fail 'the last words did not come out'
[ "$(grep -c '^twice GUEST cpus=1' "$tmp/out")" = 2 ] || fail 'it did not start again in place'
has checked
has base-untouched
has 'isolated GUEST compared=16'
grep -q '^isolated status=0 kills=[1-3]$' "$tmp/out" || fail 'no process of a disk was killed'
! grep -q DAMAGED "$tmp/out" || fail 'what was read back is not what was written'
