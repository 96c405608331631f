#!/bin/bash
# vdisk inspect: a guest made by sfdisk and mke2fs, as raw and as qcow2 by qemu-img
. "$(dirname "$0")/../functions.sh"
requires sfdisk mke2fs qemu-img python3

uuid=4f3c1e0a-0d25-4a86-9b1f-64b7b4d5a001
mkdir -p "$tmp/root/"{boot/loader/entries,boot/grub2,etc,var/lib/dpkg,bin}
cd "$tmp/root"
cat > boot/grub2/grub.cfg <<END
load_env
search --no-floppy --fs-uuid --set=boot $uuid
set default="\${saved_entry}"
blscfg
END
printf '# GRUB Environment Block\nsaved_entry=id-6.1-1\nkernelopts=root=UUID=%s ro\n###' $uuid > boot/grub2/grubenv
for v in 6.1-1 6.10-1; do
    printf 'title Linux %s\nlinux /boot/vmlinuz-%s\ninitrd /boot/initramfs-%s.img\noptions $kernelopts\n' \
        $v $v $v > boot/loader/entries/id-$v.conf
    echo kernel > boot/vmlinuz-$v
    echo initrd > boot/initramfs-$v.img
done
echo 'PRETTY_NAME="A Guest 7"' > etc/os-release
echo LABEL=top / ext4 defaults 0 1 > etc/fstab
echo box > etc/hostname
cp /bin/true bin/sh
printf 'Package: %s\nStatus: install ok installed\nVersion: 1\n\n' one two three > var/lib/dpkg/status
cd "$tmp"
truncate -s 48M g.raw
printf 'label: dos\nsize=8M\nsize=32M,type=83\n' | sfdisk -q g.raw
mke2fs -q -F -t ext4 -U $uuid -L top -d root -E offset=$((9 << 20)) g.raw 32M
qemu-img convert -O qcow2 g.raw g.qcow2

for disk in g.raw g.qcow2; do
    expect 0 vdisk inspect --json --packages $disk
    python3 - "$output" <<'END' || fail "$output"
import json, sys
j = json.loads(sys.argv[1])
assert j["system"]["name"] == "A Guest 7" and j["system"]["hostname"] == "box", j["system"]
assert j["system"]["arch"] and j["system"]["codename"] is None
assert j["root"]["partition"] == "p2" and j["root"]["label"] == "top", j["root"]
assert len(j["partitions"]) == 2 and j["partitions"][1]["start"] == 9 << 20
assert j["fstab"] == [{"line": 1, "device": "LABEL=top", "mount-point": "/", "type": "ext4",
                       "options": "defaults", "volume": "p2", "missing": False}], j["fstab"]
assert j["clean"] is True
assert [k["version"] for k in j["kernels"]] == ["6.10-1", "6.1-1"], j["kernels"]
boot = j["boot"]
assert boot["source"] == "#p2:/boot/grub2/grub.cfg" and boot["default"] == "1", boot
assert [e["id"] for e in boot["entries"]] == ["id-6.10-1", "id-6.1-1"], boot
assert boot["entries"][1]["cmdline"] == "root=UUID=4f3c1e0a-0d25-4a86-9b1f-64b7b4d5a001 ro", boot
assert j["packaging"] == "dpkg" and j["package-count"] == 3
assert [p["name"] for p in j["packages"]] == ["one", "two", "three"]
END
    expect 0 vdisk inspect $disk
    like_output '^A Guest 7, .*host name box$'
    like_output '^\* +1 +Linux 6.1-1 +/boot/vmlinuz-6.1-1'
done

# no system, no disk
truncate -s 4M empty.raw
expect 1 vdisk inspect empty.raw
like_output 'no root file system found'
expect 1 vdisk inspect missing.raw
expect 2 vdisk inspect

# a damaged file system is an error, not a crash
for offset in 1024 1080 1300 5000 20000; do
    cp g.raw bad.raw
    head -c 4096 /dev/urandom | dd of=bad.raw bs=1 seek=$(((9 << 20) + offset)) conv=notrunc status=none
    status=0
    vdisk inspect bad.raw > out 2>&1 || status=$?
    [ $status -le 1 ] || fail "inspect of a damaged disk ended with $status: $(cat out)"
done
