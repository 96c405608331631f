#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk try on real KVM, with a stock kernel and a small BusyBox system on ext4: a
# command's output and status come back, what it writes goes away or is kept.  (Debian
# with its systemd: try-debian-long.  Everything without a VM: integration/try.)
. "$(dirname "$0")/../functions.sh"
. "$(dirname "$0")/../small-guest.sh"
requires qemu-system-x86_64 qemu-img mke2fs

cloud_kernel

# ---- an initrd that mounts the disk and goes on with init= ----

ird=$tmp/initrd.d
small_root "$ird" virtio_pci virtio_blk virtio_console ext4
mkdir -p "$ird/new" "$tmp"/root/{bin,sbin,boot,dev,proc,sys,etc,root,tmp}
cat > "$ird/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for f in /m/*; do insmod $f; done 2>/dev/null
for word in $(cat /proc/cmdline); do
    case $word in init=*) init=${word#init=} ;; esac
done
mount -t ext4 -o ro /dev/vda /new && exec switch_root /new "$init"
echo GUEST no root
poweroff -f
END
chmod 755 "$ird/init"
pack_root "$ird" "$tmp/root/boot/initrd.img-$release"

# ---- its disk ----

cp "$kernel" "$tmp/root/boot/"
cp "$(command -v busybox)" "$tmp/root/bin/"
for applet in sh echo cat mount sync mv poweroff sleep id uname dd md5sum; do
    ln -s busybox "$tmp/root/bin/$applet"
done
echo '/dev/sda / ext4 defaults 0 1' > "$tmp/root/etc/fstab"
truncate -s 64M "$tmp/disk.raw"
mke2fs -q -t ext4 -d "$tmp/root" "$tmp/disk.raw"
qemu-img convert -O qcow2 "$tmp/disk.raw" "$tmp/disk.qcow2"
sum=$(sha256sum < "$tmp/disk.qcow2")

# ---- inside the machine with KVM ----

cat > "$tmp/job" <<'END'
set -eu
disk=$1
export TMPDIR=/tmp/scratch
mkdir "$TMPDIR"
cp "$disk" /tmp/disk.qcow2
rc=0
vdisk try -m 192 --append 'quiet panic=1' --time-limit 300 /tmp/disk.qcow2 -- sh -c \
    'echo "on $(uname -s) as $(id -u)"; sleep 3; echo kept >/root/kept; echo oops >&2; exit 6' \
    >out 2>err &
until grep -q Linux out; do sleep 0.1; done
kill -0 $! && echo RESULT live
wait $! || rc=$?
cat out err
echo "RESULT status=$rc out=$(cat out) err=$(head -n 1 err)"
cmp "$disk" /tmp/disk.qcow2 && echo RESULT unchanged
rc=0
vdisk try -m 192 --append 'quiet panic=1' --keep tried /tmp/disk.qcow2 -- sh -c \
    'echo kept >/root/kept; dd if=/dev/zero of=/root/big bs=1M count=5 2>/dev/null' || rc=$?
echo "RESULT keep=$rc $(vdisk cat /tmp/disk.qcow2@tried:/root/kept)"
vdisk cat /tmp/disk.qcow2:/root/kept 2>/dev/null || echo RESULT not on the disk
vdisk check /tmp/disk.qcow2
vdisk snapshot apply /tmp/disk.qcow2 tried
vdisk fsck -n /tmp/disk.qcow2 && echo RESULT clean
rc=0
vdisk try -m 192 --append 'quiet panic=1' --time-limit 300 /tmp/disk.qcow2 -- poweroff -f >out 2>err || rc=$?
echo "RESULT early=$rc $(grep -c 'before the command' err)"
[ -z "$(ls -A "$TMPDIR")" ] && echo RESULT nothing left
END
cd "$tmp"
rc=0
in_machine --modules kvm-amd --mem 768 --limit 800 -- sh -c "cd /tmp && sh $tmp/job $tmp/disk.qcow2" \
    > "$tmp/out" 2>&1 || rc=$?
tr -d '\r' < "$tmp/out" | tail -40
for line in live 'status=6 out=on Linux as 0 err=oops' unchanged 'keep=0 kept' 'not on the disk' clean \
    'early=125 1' 'nothing left'
do
    grep -qx "RESULT $line" "$tmp/out" || fail "no '$line' (status $rc)"
done
[ "$(sha256sum < "$tmp/disk.qcow2")" = "$sum" ] || fail 'the disk has changed'
