#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Debian's cloud and generic kernels, each with the initrd that Debian made for it, boot on
# real KVM from disks of several layouts, to a login and a command, reboot in place and
# power off; afterwards e2fsck finds nothing.  One guest in make check, all of them with LONG:
#
#	logical   MBR, /boot and root in logical partitions; GRUB
#	uki       GPT, a unified image on a FAT EFI partition; no GRUB
#
# each from raw (a block device of the machine) and from qcow2 with a backing file, with one,
# two and four processors.  BOOT_CASES='KERNEL LAYOUT FORMAT PROCESSORS LIVES,...' says which
# instead.  (A guest with its systemd: boot-debian.)
. "$(dirname "$0")/../functions.sh"
stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
requires qemu-system-x86_64 expect mmdebstrap bsdtar sfdisk objcopy e2fsck
[ -r $stub ] || skip 'no systemd-boot-efi'

# KERNEL LAYOUT FORMAT PROCESSORS LIVES
cases=('generic uki raw 4 1')
[ -z "${LONG:-}" ] || cases+=(
    'cloud logical qcow2 2 2' 'cloud logical raw 1 2' 'generic logical raw 4 2' 'generic logical qcow2 4 1'
    'generic uki qcow2 1 2' 'cloud uki raw 2 2' 'cloud uki qcow2 2 1')
if [ -n "${BOOT_CASES:-}" ]; then IFS=, read -r -a cases <<< "$BOOT_CASES"; fi

"$TOP/tests/demo" --guest-only > "$tmp/guest"
root_tar=$(find "$O/demo/cache" -name 'debian-root-*.tar')
uuid=0d0c5eba-71a2-4c5f-9a5d-6b1e3c2f4a10

# ---- the disks ----

# root_into DISK#PART: the demo's Debian, but for its /boot, with an init that is quick
root_into() {
    vdisk mkfs -q -t ext4 -L debian-root "$1"
    vdisk uuid "$1" $uuid > /dev/null
    bsdtar -cf - --exclude './boot/*' "@$root_tar" | vdisk untar -q "$1:/"
    vdisk stat "$1:/boot" > /dev/null 2>&1 || vdisk mkdir "$1:/boot"
    vdisk cp -q "$TOP/tests/system/plain-init" "$1:/sbin/plain-init"
    vdisk cp -q "$TOP/tests/system/plain-off" "$1:/usr/local/bin/off"
}

# the kernels, and what /boot has beside them
mkdir "$tmp/boot"
bsdtar -xf "$root_tar" -C "$tmp/boot" --strip-components 2 './boot/*'

logical() {
    local boot=$tmp/logical.raw#p5
    truncate -s 3G "$tmp/logical.raw"
    printf '%s\n' 'label: dos' 'size=8M, type=c' 'type=5' 'size=300M, type=83' 'type=83' |
        sfdisk -q "$tmp/logical.raw"
    root_into "$tmp/logical.raw#p6"
    vdisk mkfs -q -t ext4 "$boot"
    tar -C "$tmp/boot" --owner=0 --group=0 -cf - . | vdisk untar -q "$boot:/"
    # as grub-mkconfig writes it where /boot is a file system of its own
    boot_uuid=$(vdisk uuid "$boot")
    vdisk cat "$boot:/grub/grub.cfg" |
        sed -e "/search/s/$uuid/$boot_uuid/" -e 's, /boot/, /,' > "$tmp/grub.cfg"
    grep -q "root=UUID=$uuid" "$tmp/grub.cfg" || fail 'grub.cfg names no root'
    vdisk cp -q "$tmp/grub.cfg" "$boot:/grub/grub.cfg"
    printf '%s\n' 'LABEL=debian-root / ext4 errors=remount-ro 0 1' "UUID=$boot_uuid /boot ext4 defaults 0 2" \
        > "$tmp/fstab"
    vdisk cp -q "$tmp/fstab" "$tmp/logical.raw#p6:/etc/fstab"
}

# kernel_of KIND: its release
kernel_of() {
    find "$tmp/boot" -name 'vmlinuz-*' | sed 's,.*/vmlinuz-,,' |
        if [ "$1" = cloud ]; then grep cloud; else grep -v cloud; fi
}

# unified KIND: a unified image, as systemd's ukify makes them (Debian 12 has only the stub)
unified() {
    local release section at=$((0x30000000)) args=()
    release=$(kernel_of "$1")
    mkdir -p "$tmp/uki"
    cp "$tmp/boot/vmlinuz-$release" "$tmp/uki/linux"
    cp "$tmp/boot/initrd.img-$release" "$tmp/uki/initrd"
    bsdtar -xOf "$root_tar" ./usr/lib/os-release > "$tmp/uki/osrel"
    printf '%s' "root=UUID=$uuid ro" > "$tmp/uki/cmdline"
    printf '%s' "$release" > "$tmp/uki/uname"
    for section in osrel cmdline uname linux initrd; do
        args+=(--add-section ".$section=$tmp/uki/$section" --change-section-vma ".$section=$at")
        at=$((at + 0x8000000))
    done
    objcopy "${args[@]}" "$stub" "$tmp/uki.efi"
}

uki() {
    truncate -s 3G "$tmp/uki.raw"
    printf '%s\n' 'label: gpt' 'size=256M, type=U' 'type=L' | sfdisk -q "$tmp/uki.raw"
    root_into "$tmp/uki.raw#p2"
    vdisk mkfs -q -t vfat "$tmp/uki.raw#p1"
    for dir in /EFI /EFI/Linux; do vdisk mkdir "$tmp/uki.raw#p1:$dir"; done
    echo 'LABEL=debian-root / ext4 errors=remount-ro 0 1' > "$tmp/fstab"
    vdisk cp -q "$tmp/fstab" "$tmp/uki.raw#p2:/etc/fstab"
}

uses() { [[ " ${cases[*]} " = *"$*"* ]]; }
! uses logical || logical
! uses uki || uki
for kind in generic cloud; do
    if uses "$kind" uki; then
        unified $kind
        cp --sparse=always "$tmp/uki.raw" "$tmp/uki-$kind.raw"
        vdisk cp -q "$tmp/uki.efi" "$tmp/uki-$kind.raw#p1:/EFI/Linux/debian.efi"
    fi
    ! uses "$kind" logical || ln "$tmp/logical.raw" "$tmp/logical-$kind.raw"
done

# ---- the machine: raw disks are its block devices, qcow2 is on top of a file of the host's ----

device=vda drives='' letter=({a..z}) n=0 n_lives=0
cat > "$tmp/job" <<'END'
set -eu
mkdir -p /tmp/b
cd /tmp/b
END
for c in "${cases[@]}"; do
    read -r kind layout format cpus lives <<< "$c"
    n_lives=$((n_lives + lives))
    part=p6
    [ "$layout" = logical ] || part=p2
    if [ "$format" = raw ]; then
        cp --sparse=always "$tmp/$layout-$kind.raw" "$tmp/disk$n"
        drives+=" -drive file=$tmp/disk$n,format=raw,if=virtio,cache=unsafe,discard=unmap"
        device=/dev/vd${letter[n]} disk=$device
        n=$((n + 1))
    else
        disk=/tmp/b/$layout-$kind.qcow2
        echo "vdisk create -q -f qcow2 -b $tmp/$layout-$kind.raw -F raw $disk" >> "$tmp/job"
    fi
    append='init=/sbin/plain-init quiet'
    entry=''
    [ "$layout" = uki ] ||
        entry="--entry 'gnulinux-advanced-$uuid>gnulinux-$(kernel_of "$kind")-advanced-$uuid'"
    cat >> "$tmp/job" <<END
echo "CASE $c"
$TOP/tests/system/session $lives -q --name case -m 256M -c $cpus --append '$append' $entry $disk
vdisk fsck -n -F '$disk#$part'
[ $layout != logical ] || vdisk fsck -n -F '$disk#p5'
[ $format != qcow2 ] || qemu-img check -q $disk
rm -f /tmp/b/*.qcow2
echo "CLEAN $c"
END
done
rc=0
in_machine --modules 'kvm-amd virtio_blk' --mem 1024 --limit $((n_lives * 600 + 300)) --machine "$drives" -- \
    bash "$tmp/job" > "$tmp/out" 2>&1 || rc=$?
awk '/^rig: started again/ { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }' \
    "$tmp/out" | tr -d '\r' > "$tmp/last"
grep -aE '^(CASE|LIFE|CLEAN|session)' "$tmp/last" || true
[ $rc = 0 ] || { tail -60 "$tmp/last"; fail "the machine ended with $rc"; }

for c in "${cases[@]}"; do
    read -r kind layout format cpus lives <<< "$c"
    part=6
    [ "$layout" = logical ] || part=2
    sed -n "/^CASE $c\$/,/^CLEAN $c\$/p" "$tmp/last" > "$tmp/case"
    for ((life = 1; life <= lives; life++)); do
        before=$((life - 1))
        grep -qxE "LIFE $life $(kernel_of "$kind") $cpus /dev/vda$part ?${before#0}" "$tmp/case" ||
            fail "$c: life $life: $(cat "$tmp/case")"
    done
    grep -qx "CLEAN $c" "$tmp/case" || fail "$c: not clean"
done
# what the raw ones are on this host now
for ((i = 0; i < n; i++)); do
    start=$(sfdisk -d "$tmp/disk$i" | awk '/start=/ { for (k = 1; k <= NF; k++) if ($k == "start=") s = $(k + 1) } END { print s + 0 }')
    expect 0 e2fsck -fn "$tmp/disk$i?offset=$((start * 512))"
done
