#!/bin/bash
# vdisk parts against sfdisk -J and blkid on some sixty layouts that the real tools made, and against
# lsblk, mdadm, pvs and lvs in the machine: the kernel's view of the same; what it shows is a
# locator for the other commands.
. "$(dirname "$0")/../functions.sh"

export PYTHONPATH=$TOP/tests/lib
udevd=/lib/systemd/systemd-udevd
if [ "${1:-}" != inside ]; then
    requires sfdisk sgdisk blkid python3 mke2fs mkfs.fat mkswap
    (cd "$tmp" && python3 "$TOP/tests/system/layouts.py")
    requires linux.uml busybox lsblk losetup udevadm mdadm lvm
    [ -x $udevd ] || skip "$udevd is not there"
    in_machine --engine uml --mem 256 --limit 280 --modules 'loop dm-mod raid0 raid1' -- \
        bash "$(readlink -f "$0")" inside "$tmp"
    exit
fi

# lsblk has from udev what it says of contents; arrays and groups stay as they are
mv /usr/lib/udev/rules.d /run/rules
mkdir -p /usr/lib/udev/rules.d /run/lvm /run/lock/lvm /run/mdadm
cp /run/rules/60-persistent-storage.rules /usr/lib/udev/rules.d/
$udevd --daemon --resolve-names=never
mount -t tmpfs tmpfs /mnt
DM_DISABLE_UDEV=1 python3 "$TOP/tests/system/layouts-inside.py" "$2"
