#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk boot but for the virtual machine: what is handed to it, from options, from files
# that describe guests, from disks of several kinds; how endings become exit statuses.
#
# A script stands in for vmm-lite and keeps its arguments, the kernel and the initrd.
. "$(dirname "$0")/../functions.sh"
export VDISK_RUNTIME_DIR=$tmp/run
requires qemu-img mke2fs sfdisk mkfs.vfat mcopy python3

mkdir "$tmp/bin" "$tmp/got"
cp "$VDISK" "$tmp/bin/vdisk"
export GOT=$tmp/got
boot=("$tmp/bin/vdisk" boot)
cat > "$tmp/bin/vmm-lite" <<'END'
#!/bin/bash
[ "$1" != --check ] || exit 0
printf '%s\n' "$@" > "$GOT/args"
rm -f "$GOT/kernel" "$GOT/initrd"
while [ $# -gt 0 ]; do
    case $1 in
    --append) printf '%s' "$2" > "$GOT/append" ;;
    --kernel | --initrd) case $2 in fd:*) cat "/proc/self/fd/${2#fd:}" > "$GOT/${1#--}" ;; esac ;;
    esac
    shift
done
[ ! -s "$GOT/statuses" ] || { s=$(head -1 "$GOT/statuses"); sed -i 1d "$GOT/statuses"; exit "$s"; }
END
chmod +x "$tmp/bin/vmm-lite"
append_is() { [ "$(cat "$tmp/got/append")" = "$1" ] || fail "append: $(cat "$tmp/got/append")"; }
got() { grep -qx -- "$1" "$tmp/got/args" || fail "no '$1' in: $(tr '\n' ' ' < "$tmp/got/args")"; }

# ---- logical partitions: the root on sda5, /boot on sda1, GRUB legacy, an old root= ----

cd "$tmp"
mkdir -p b/grub r/etc
echo old-kernel > b/vmlinuz-2.6; echo old-initrd > b/initrd-2.6
cat > b/grub/menu.lst <<'END'
default 0
title One
root (hd0,0)
kernel /vmlinuz-2.6 root=/dev/sda5 ro quiet
initrd /initrd-2.6
title Repair
root (hd0,0)
kernel /vmlinuz-2.6 root=/dev/sda5 ro single
END
echo '/dev/sda5 / ext3 defaults 0 1' > r/etc/fstab
truncate -s 64M disk.raw
printf '%s\n' 'start=2048,size=20480,type=83' 'start=22528,type=5' 'start=24576,size=40960,type=83' |
    sfdisk -q disk.raw
mke2fs -q -t ext3 -d b -E offset=$((2048 * 512)) disk.raw 10M
mke2fs -q -t ext3 -d r -E offset=$((24576 * 512)) disk.raw 20M

expect 0 "${boot[@]}" --list disk.raw
like_output '^\* 0 +One$'
like_output '^  1 +Repair$'
expect 0 "${boot[@]}" disk.raw
like_output "booting 'One': /vmlinuz-2.6, found in disk.raw#p1:/grub/menu.lst"
like_output 'root=/dev/sda5 is /dev/vda5 here'
append_is 'root=/dev/vda5 ro quiet console=ttyS0'
cmp got/kernel b/vmlinuz-2.6 || fail kernel
cmp got/initrd b/initrd-2.6 || fail initrd
expect 0 "${boot[@]}" --entry Repair --console keep --append 'a b' disk.raw
append_is 'root=/dev/vda5 ro single a b'
[ ! -e got/initrd ] || fail 'an initrd from elsewhere'
expect 0 "${boot[@]}" --recovery disk.raw
append_is 'root=/dev/vda5 ro single console=ttyS0'
expect 1 "${boot[@]}" --entry 2 disk.raw
like_output "no entry '2' in the boot menu \(--list shows it\)"
expect 0 "${boot[@]}" --initrd b/initrd-2.6 disk.raw
cmp got/initrd b/initrd-2.6 || fail 'the initrd that was asked for'
expect 1 "${boot[@]}" --initrd none disk.raw
like_output 'initrd: none: No such file'
expect 2 "${boot[@]}" --kernel b/vmlinuz-2.6 --entry 0 disk.raw

# ---- what cannot be is refused before anything is opened ----

for bad in '--name a.b' '-m 0' '-m 12x' '-c 100' '-c 0' '--cache=foo' '--time-limit 0' '--net user,mac=1' '--net tap:' \
    '--on-crash exit:256' '--disk uki.raw,cache=foo' '--disk x,serial=,ro' '--disk x,block-size=1024'; do
    # shellcheck disable=SC2086 # words
    expect 2 "${boot[@]}" $bad no-such-disk
done
expect 2 "${boot[@]}" no-such-disk,limit=much
expect 1 "${boot[@]}" no-such-disk
expect 2 "${boot[@]}" --name www.example.org disk.raw
like_output "no dots.*'www-example-org' would do"
expect 2 "${boot[@]}" --disk disk.raw disk.raw
like_output 'disk.raw is there twice'
expect 2 "${boot[@]}" --disk b/vmlinuz-2.6,serial=vdisk0 disk.raw
like_output "two disks have the serial number 'vdisk0'"

# which other files an image may name
truncate -s 1M "$tmp/below.raw"
mkdir refs
qemu-img create -q -f qcow2 -b ../below.raw -F raw refs/top.qcow2
expect 1 "${boot[@]}" --kernel b/vmlinuz-2.6 refs/top.qcow2
expect 0 "${boot[@]}" --kernel b/vmlinuz-2.6 --refs any refs/top.qcow2
qemu-img rebase -u -b "$tmp/below.raw" -F raw refs/top.qcow2
expect 0 "${boot[@]}" --kernel b/vmlinuz-2.6 refs/top.qcow2
expect 1 "${boot[@]}" --kernel b/vmlinuz-2.6 --refs none refs/top.qcow2
expect 0 "${boot[@]}" --kernel b/vmlinuz-2.6 --refs none --isolate-disks refs/top.qcow2
got --refs; got none
# the sectors that the guest sees are those of its partition table
expect 0 "${boot[@]}" --kernel b/vmlinuz-2.6 --sector-size 4096 disk.raw
got --block-size; got 4096

# a disk that was found to be raw stays raw
expect 0 "${boot[@]}" --kernel b/vmlinuz-2.6 disk.raw
got --keep-raw
for more in disk.raw,format=raw disk.raw,read-only disk.raw,snapshot; do
    expect 0 "${boot[@]}" --kernel b/vmlinuz-2.6 $more
    ! grep -qx -- --keep-raw got/args || fail "$more: $(cat got/args)"
done

# what is said of one disk, beside what is said of all; a name with commas
truncate -s 1M 'a,b' 'a,serial=b'
expect 0 "${boot[@]}" --cache none --disk 'a,b,read-only,cache=unsafe,bytes=1M,ops=9' \
    --disk 'a,serial=b,' 'disk.raw,serial=first,block-size=512,format=raw'
[[ $(sed '/^--file/,+1d' got/args | tr '\n' ' ') == *" --disk disk.raw --format raw --cache none --serial first \
--block-size 512 --disk a,b --format raw --cache unsafe --limit bytes=1M,ops=9 --read-only --disk a,serial=b --format raw --cache none "* ]] ||
    fail "disks: $(cat got/args)"

# ---- an EFI partition with a unified image and no other menu ----

mkdir -p e/EFI/Linux
python3 - e/EFI/Linux/debian-6.1.efi <<'END'
import struct, sys
parts = [(b'.osrel', b'PRETTY_NAME="Debian 12"\n'), (b'.cmdline', b'root=UUID=1234 quiet rhgb\n'),
         (b'.uname', b'6.1'), (b'.initrd', b'uki-initrd'), (b'.linux', b'uki-kernel')]
head = bytearray(2048)
head[:2] = b'MZ'
struct.pack_into('<I', head, 0x3c, 0x80)
struct.pack_into('<4sHH12xH', head, 0x80, b'PE', 0x8664, len(parts), 240)
body = b''
for i, (name, data) in enumerate(parts):
    struct.pack_into('<8sIIII', head, 0x98 + 240 + 40 * i, name, len(data), 4096 * i, 512, 2048 + len(body))
    body += data.ljust(512, b'\0')
open(sys.argv[1], 'wb').write(bytes(head) + body)
END
truncate -s 64M uki.raw
printf '%s\n' 'label: gpt' 'size=20M,type=U' 'type=L' | sfdisk -q uki.raw
truncate -s 20M esp; mkfs.vfat -F 16 esp > /dev/null; mcopy -s -i esp e/EFI ::
dd if=esp of=uki.raw bs=1M seek=1 conv=notrunc status=none
mke2fs -q -t ext4 -d r -E offset=$((21 << 20)) uki.raw 40M
expect 0 "${boot[@]}" uki.raw
like_output "booting 'Debian 12': /EFI/Linux/debian-6.1.efi, found in uki.raw#p1:/EFI/Linux"
append_is 'root=UUID=1234 quiet rhgb console=ttyS0'
[ "$(cat got/kernel got/initrd)" = uki-kerneluki-initrd ] || fail 'sections'
# no entry for repairs: one is made
expect 0 "${boot[@]}" --recovery uki.raw
append_is 'root=UUID=1234 single console=ttyS0'

# ---- GRUB 2: what --list shows is what --entry takes ----

mkdir -p g/boot/grub
echo k1 > g/boot/k1; echo k2 > g/boot/k2
cat > g/boot/grub/grub.cfg <<'END'
default="more>two"
menuentry One { linux /boot/k1 root=LABEL=x }
submenu More --id more {
menuentry Two --id two { linux /boot/k2 root=LABEL=x quiet }
}
END
truncate -s 20M grub.raw
mke2fs -q -t ext4 -d g grub.raw
expect 0 "${boot[@]}" --list grub.raw
like_output '^  0 +One$'
like_output '^\* 1>0 +More>Two$'
for entry in '1>0' 'more>two' 'More>Two'; do
    expect 0 "${boot[@]}" --entry "$entry" grub.raw
    [ "$(cat got/kernel)" = k2 ] || fail "--entry $entry: $(cat got/kernel)"
done
expect 0 "${boot[@]}" --list --json grub.raw
like_output '"number": "1>0"'

# ---- from files ----

mkdir vm
ln disk.raw vm/a.raw
printf 'name db-1\nmemory 1G\ncpus 2\ndisk a.raw format=raw cache=unsafe\ndisk ../uki.raw read-only\n%s\n' \
    'append from-file' > vm/db.vm
expect 0 "${boot[@]}" -f vm/db.vm --disk esp -m 64
append_is 'root=/dev/vda5 ro quiet from-file console=ttyS0'
grep -q '^--file' got/args || fail 'the disks were not passed open'
[[ $(sed '/^--file/,+1d' got/args | tr '\n' ' ') == *" --disk vm/a.raw --format raw --cache unsafe --disk vm/../uki.raw \
--format raw --read-only --disk esp --format raw "* ]] || fail "disks: $(cat got/args)"
got 64
grep -qx 1G got/args && fail 'an option lost against the file'
expect 0 "${boot[@]}" -f vm/db.vm --append mine
append_is 'root=/dev/vda5 ro quiet mine console=ttyS0'
# (also where what they say is the default)
echo 'on-reset exit' >> vm/db.vm
printf '16\n0\n' > got/statuses
expect 0 "${boot[@]}" -f vm/db.vm --on-reset=reset
printf '16\n' > got/statuses
expect 16 "${boot[@]}" -f vm/db.vm
sed -i 's/db-1/db.example.org/' vm/db.vm
expect 1 "${boot[@]}" -f vm/db.vm
like_output "vm/db.vm:.*no dots.*'db-example-org' would do"
expect 2 "${boot[@]}" -f vm/db.vm disk.raw
expect 1 "${boot[@]}" -f vm/none

# Xen: a kernel of dom0 and a disk that the guest knew as a partition
cat > xen.cfg <<END
kernel = '$tmp/b/vmlinuz-2.6'
ramdisk = '$tmp/b/initrd-2.6'
memory = 128
name = 'web'
root = '/dev/xvda2 ro'
disk = [ 'phy:$tmp/esp,xvda1,w', 'file:$tmp/uki.raw,xvda2,r', 'tap:aio:$tmp/disk.raw,sda,w' ]
vif = [ '' ]
on_reboot = 'destroy'
END
# its network card wants Xen's bridge; the command line has the last word
expect 1 "${boot[@]}" -f xen.cfg
like_output 'network: xenbr0: No such device'
like_output 'ip link add name xenbr0 type bridge'
expect 0 "${boot[@]}" --net none -f xen.cfg
sed -i /^vif/d xen.cfg
expect 0 "${boot[@]}" -f xen.cfg
like_output 'root=/dev/xvda2 is /dev/vdb here'
append_is 'root=/dev/vdb ro console=ttyS0'
cmp got/kernel b/vmlinuz-2.6 || fail 'the kernel of the file'
sed -i 's,/dev/xvda2,/dev/sda5,' xen.cfg
expect 0 "${boot[@]}" -f xen.cfg
append_is 'root=/dev/vdc5 ro console=ttyS0'
# pygrub: the disk's own
printf '%s\n' 'bootloader="pygrub"' "disk=['tap:aio:$tmp/disk.raw,xvda,w']" 'extra="more"' > py.cfg
expect 0 "${boot[@]}" -f py.cfg
like_output "booting 'One'"
append_is 'root=/dev/sda5 ro quiet more console=ttyS0'

# ---- endings ----

ends() { # STATUSES WANT [OPTION]...
    # shellcheck disable=SC2086 # words
    printf '%s\n' $1 > got/statuses
    expect "$2" "${boot[@]}" "${@:3}" disk.raw
    [ ! -s got/statuses ] || fail "not booted again: left $(cat got/statuses)"
}
ends '0' 0
ends '16 16 0' 0
ends '16' 16 --on-reset=exit
ends '16' 16 --reboot=exit
ends '17' 17
ends '18' 18
# the time limit is that of all its lives
cp bin/vmm-lite bin/vmm-lite.was
sed -i '2i [ "$1" = --check ] || sleep 1' bin/vmm-lite
printf '%s\n' 16 16 16 16 16 16 16 16 16 16 16 16 > got/statuses
expect 19 "${boot[@]}" --time-limit 2 disk.raw
mv bin/vmm-lite.was bin/vmm-lite
ends '17 18 16 0 19' 19 --on-crash=reset --on-shutdown=reset
ends '0' 5 --on-shutdown=exit:5
ends '18' 0 --on-crash=exit:0
printf '16\n' > got/statuses
expect 16 "${boot[@]}" -f xen.cfg
