#!/bin/bash
# The commands about files on file systems that only the kernel reads: the same words, on raw
# and qcow2; nothing is left behind, even when they are killed; a dirty journal is not read stale.
. "$(dirname "$0")/../functions.sh"

if [ "${1:-}" != inside ]; then
    requires linux.uml mkfs.xfs mkntfs ntfs-3g mke2fs mkfs.btrfs btrfs lvm xfs_repair busybox setfattr getfattr setpriv
    expect 0 in_machine --engine uml --mem 1280 --limit 800 \
        --modules 'loop dm-mod xfs btrfs ext4 f2fs fuse' -- bash "$(readlink -f "$0")" inside
    echo "$output"
    exit 0
fi

mount -t tmpfs tmpfs /mnt
cd /mnt
mkdir -p m tree/etc tree/dir/sub out
head -c 1500000 /dev/urandom >tree/data
truncate -s 10M tree/sparse
printf x | dd of=tree/sparse bs=1 seek=5000000 conv=notrunc status=none
echo 'NAME=other' >tree/etc/os-release
echo host >tree/etc/hostname
ln tree/data tree/dir/hard
ln -s ../data tree/dir/link
ln -s /mnt/out tree/dir/away
mkfifo tree/fifo
mknod tree/null c 1 3
chown 1000:100 tree/data
chmod 4755 tree/dir/sub
touch -d '2031-02-03 04:05:06.123456' tree/data
nothing_left() {
    [ -z "$(losetup -a)$(ls /run/vdisk 2>/dev/null)$(grep /mnt/ /proc/mounts)$(pgrep -x vdisk)" ] ||
        fail "left: $(losetup -a; ls /run/vdisk; cat /proc/mounts; pgrep -x vdisk)"
}

# an ext4 as the measure, in words and contents
for fs in ext xfs; do
    truncate -s 340M $fs
    printf 'label: gpt\nstart=1MiB, size=330M\n' | sfdisk -q $fs
    l=$(losetup -f --show -o 1M --sizelimit 330M $fs)
    if [ $fs = ext ]; then mke2fs -q -t ext4 "$l"; else mkfs.xfs -q "$l"; fi
    losetup -d "$l"
done
list() { "$VDISK" ls -lR "$1:/" | sed "s/$(date +%Y)-..-.. ..:..//" | awk '/^d/ { $5 = ""; $2 = "" } { print }' | grep -v 'lost+found\|^$' | sort; }
"$VDISK" convert -q -O qcow2 ext ext.qcow2
for kind in raw qcow2; do
    for fs in ext xfs; do
        [ $fs$kind != extqcow2 ] || continue
        d=$fs.$kind
        "$VDISK" convert -q -O $kind $fs $d
        expect 0 "$VDISK" cp -a tree/. "$d#p1:/"
        nothing_left
        expect 0 "$VDISK" mkdir -p "$d:/new/deep"		# the root is found, too
        expect 0 "$VDISK" mv "$d:/dir/sub" "$d:/new/moved"
        expect 0 "$VDISK" ln -s target "$d:/new/sym"
        expect 0 "$VDISK" ln "$d:/data" "$d:/new/third"
        expect 0 "$VDISK" chmod 600 "$d:/etc/hostname"
        expect 0 "$VDISK" chown 5:6 "$d:/etc/hostname"
        expect 0 env EDITOR='sed -i s/host/edited/' "$VDISK" edit "$d:/etc/hostname"
        expect 0 "$VDISK" rm -r "$d:/dir/away"
        expect 1 "$VDISK" rm "$d:/new"
        expect 1 "$VDISK" cat "$d:/nothing"
        like_output '/nothing: no such file'
        [ "$("$VDISK" cat "$d:/etc/hostname")" = edited ] || fail "$d: edit"
        [ "$("$VDISK" stat --json "$d:/etc/hostname" | grep -c '"mode": "0600"\|"uid": 5')" = 2 ] || fail "$d: attributes are not kept"
        rm -rf back
        mkdir back
        expect 0 "$VDISK" cp -a "$d:/." back
        cmp tree/data back/data || fail "$d: data"
        [ "$(stat -c '%h %u %g %y' back/data)" = "3 1000 100 2031-02-03 04:05:06.123456000 +0000" ] || fail "$d: $(stat back/data)"
        [ "$(stat -c %b back/sparse)" -lt 200 ] || fail "$d: sparse"
        [ "$(stat -c %A back/null back/fifo back/new/moved | tr '\n' ' ')" = 'crw-r--r-- prw-r--r-- drwsr-xr-x ' ] || fail "$d: $(ls -l back)"
        "$VDISK" tar "$d:/" >t.tar
        expect 0 "$VDISK" mkdir "$d:/unpacked"
        expect 0 sh -c "'$VDISK' untar '$d:/unpacked' <t.tar"
        [ "$("$VDISK" cat "$d:/unpacked/new/third" | sha256sum)" = "$(sha256sum <tree/data)" ] || fail "$d: untar"
        expect 0 "$VDISK" rm -r "$d:/unpacked"
        nothing_left
        list "$d#p1" >$fs.list
    done
    # of a hard link, which name was made first does not show; sizes of links may
    diff ext.list xfs.list || fail "$kind: not the same words"
done
l=$(losetup -f --show -o 1M --sizelimit 330M xfs.raw)
xfs_repair -n "$l" >repair.log 2>&1 || { cat repair.log; fail "xfs_repair"; }
mount -o ro "$l" m
[ "$(cat m/etc/hostname)" = edited ] || fail "the kernel sees something else"
umount m
losetup -d "$l"
"$VDISK" check -q xfs.qcow2 || fail "check"

# two file systems at a time; one image, of which one would be written
expect 0 "$VDISK" cp 'xfs.qcow2#p1:/data' 'ext.qcow2#p1:/from-xfs'
expect 0 "$VDISK" cp 'ext.qcow2#p1:/from-xfs' 'xfs.raw#p1:/back'
[ "$("$VDISK" cat xfs.raw:/back | sha256sum)" = "$(sha256sum <tree/data)" ] || fail "across"
expect 0 "$VDISK" cp 'xfs.qcow2#p1:/data' 'xfs.raw#p1:/data' 'xfs.qcow2#p1:/new'
nothing_left

# what the machine had not written back when it stopped is in the journal
for kind in raw qcow2; do
    l=$(losetup -f --show -o 1M --sizelimit 330M xfs.raw)
    mount "$l" m
    echo journalled >m/journalled
    sync -f m
    rm m/journalled
    echo later >m/later
    "$(command -v xfs_io)" -x -c 'shutdown -f' m
    umount m
    losetup -d "$l"
    d=dirty.$kind
    "$VDISK" convert -q -y -O $kind xfs.raw $d
    sum=$(sha256sum <$d)
    [ "$("$VDISK" cat $d:/later 2>&1)" = "$("$VDISK" cat $d:/later 2>&1)" ] || fail "not the same twice"
    expect 0 "$VDISK" ls $d:/
    like_output '^later'
    ! grep -q journalled <<<"$output" || fail "$kind: read stale"
    [ "$(sha256sum <$d)" = "$sum" ] || fail "$kind: reading wrote"
done
nothing_left

# killed: the command, or the process that serves it
for round in 1 2 3 4; do
    "$VDISK" cp -a tree/. 'xfs.qcow2#p1:/killed' & pid=$!
    sleep 0.$((RANDOM % 3 + round))
    case $round in
    1|2) kill -9 $pid 2>/dev/null || true ;;
    *) pkill -9 -P $pid 2>/dev/null || true ;;
    esac
    wait $pid 2>/dev/null || true
    wait_for 30 sh -c '[ -z "$(pgrep -x vdisk)$(losetup -a)" ]'
    "$VDISK" check -q xfs.qcow2 >/dev/null || "$VDISK" check -q --repair=leaks xfs.qcow2 >/dev/null || fail "the image"
    expect 0 "$VDISK" ls 'xfs.qcow2#p1:/etc'
    like_output os-release
done
# what is left of a server that was killed goes, but not what one is about to use
touch /run/vdisk/fs-now
touch -d '2 minutes ago' /run/vdisk/fs-old /run/vdisk/fs-*
touch /run/vdisk/fs-now
"$VDISK" attached
[ "$(ls /run/vdisk)" = fs-now ] || fail "swept: $(ls /run/vdisk)"
rm /run/vdisk/fs-now
nothing_left

# ---- which system is on it: the root in a subvolume of btrfs, and on XFS on LVM ----
rm -rf tree back ./*.tar ./*.qcow2 dirty.* ext xfs ext.raw
mkdir -p root/etc root/bin root/boot/grub root/home
cp /bin/true root/bin/sh

printf 'kernel' >root/boot/vmlinuz-6.5.1
printf 'initrd' >root/boot/initrd.img-6.5.1
printf 'Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2\n\n' >dpkg
mkdir -p root/var/lib/dpkg
cp dpkg root/var/lib/dpkg/status
system() {	# NAME ID BOOT-PATH UUID: the files of a system into ./root
    printf 'PRETTY_NAME="%s"\nID=%s\nVERSION_ID="1"\n' "$1" "$2" >root/etc/os-release
    echo "$2-box" >root/etc/hostname
    printf 'search --fs-uuid --set=root %s\nmenuentry "it" {\n linux %s/vmlinuz-6.5.1 root=UUID=%s ro\n initrd %s/initrd.img-6.5.1\n}\n' \
        "$4" "$3" "$4" "$3" >root/boot/grub/grub.cfg
}
inspects() {	# DISK NAME ROOT TYPE KERNEL MOUNT-POINTS
    "$VDISK" inspect --packages --json "$1" >in.json || fail "inspect $1"
    python3 - "$@" <<'PYTHON' || { cat in.json; fail "inspect $1"; }
import json, sys
j = json.load(open('in.json'))
said = [j['system']['name'], j['root']['partition'], j['root']['type'], j['boot']['entries'][0]['kernel'],
        ' '.join(f'{f["mount-point"]}={f["volume"]}' for f in j['fstab'])]
if said != sys.argv[2:] or [p['name'] for p in j['packages']] != ['bash'] or j['package-count'] != 1 or \
        not j['system']['arch'] or j['kernels'][0]['version'] != '6.5.1':
    sys.exit(f'{said}, not {sys.argv[2:]}')
PYTHON
    nothing_left
}
mounts() {	# DISK NAME: as a whole, by the guest's fstab; and its root
    expect 0 "$VDISK" mount --all -r "$1" m
    grep -q "$2" m/etc/os-release && [ -e m/home/user ] && [ -e m/boot/only ] || fail "$1: $(ls m m/home m/boot)"
    expect 0 "$VDISK" umount m
    expect 0 "$VDISK" mount "$1" m
    grep -q "$2" m/etc/os-release && [ ! -e m/home/user ] || fail "$1: another root: $(ls m)"
    expect 0 "$VDISK" umount m
    nothing_left
}
for label in root @; do
    truncate -s 0 d.raw
    truncate -s 200M d.raw
    printf 'label: gpt\nsize=16M\nsize=160M\n' | sfdisk -q d.raw
    b=$(losetup -f --show -o 1M --sizelimit 16M d.raw)
    mke2fs -q -L boot "$b"
    mount "$b" m
    touch m/only
    umount m
    losetup -d "$b"
    l=$(losetup -f --show -o 17M --sizelimit 160M d.raw)
    mkfs.btrfs -q -U 01234567-89ab-4cde-8f01-23456789abcd "$l" >/dev/null
    mount -t btrfs "$l" m
    btrfs subvolume create m/$label >/dev/null
    btrfs subvolume create m/home >/dev/null
    touch m/home/user
    system "Linux of $label" fedora "/$label/boot" 01234567-89ab-4cde-8f01-23456789abcd
    printf '%s\n' "UUID=01234567-89ab-4cde-8f01-23456789abcd / btrfs subvol=$label 0 0" \
        'UUID=01234567-89ab-4cde-8f01-23456789abcd /home btrfs subvol=home 0 0' 'LABEL=boot /boot ext2 ro 0 2' >root/etc/fstab
    cp -a root/. m/$label/
    umount m
    losetup -d "$l"
    d=d.raw
    if [ $label = @ ]; then
        d=d.qcow2
        "$VDISK" convert -q -y -O qcow2 d.raw $d
    fi
    inspects $d "Linux of $label" p2 btrfs "/$label/boot/vmlinuz-6.5.1" '/=p2 /home=p2 /boot=p1'
    mounts $d "Linux of $label"
    expect 0 "$VDISK" cp root/boot/vmlinuz-6.5.1 "$d:/etc/copied"
    [ "$("$VDISK" cat "$d:/etc/copied")" = kernel ] || fail "$d: cp"
done
config='activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
    devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
    scan_lvs=0 filter=["a|^/dev/loop|","r|.*|"] }
    global { event_activation=0 use_lvmpolld=0 } backup { backup=0 archive=0 }'
lvm() { command lvm "$@" --config "$config" >lvm.log 2>&1 || { cat lvm.log; fail "lvm $*"; }; }
mkdir -p /run/lvm /run/lock/lvm
export DM_DISABLE_UDEV=1
truncate -s 0 d.raw
truncate -s 400M d.raw
printf 'label: dos\nsize=16M\nsize=370M, type=8e\n' | sfdisk -q d.raw
b=$(losetup -f --show -o 1M --sizelimit 16M d.raw)
mke2fs -q -L boot "$b"
mount "$b" m
touch m/only
umount m
losetup -d "$b"
l=$(losetup -f --show -o 17M --sizelimit 370M d.raw)
lvm vgcreate -q -s 1M cl "$l"
lvm lvcreate -q -Wn -y -n root -L 310M cl
lvm lvcreate -q -Wn -y -n home -L 16M cl
mkfs.xfs -q -m uuid=01234567-89ab-4cde-8f01-23456789abcd /dev/cl/root
mke2fs -q -L home /dev/cl/home
mount /dev/cl/home m
touch m/user
umount m
system 'CentOS Linux 7' centos /boot 01234567-89ab-4cde-8f01-23456789abcd
printf '%s\n' '/dev/mapper/cl-root / xfs defaults 0 0' '/dev/mapper/cl-home /home ext2 defaults 1 2' 'LABEL=boot /boot ext2 ro 1 2' >root/etc/fstab
mount /dev/cl/root m
cp -a root/. m/
umount m
lvm vgchange -q -an cl
losetup -d "$l"
"$VDISK" convert -q -y -O qcow2 d.raw d.qcow2
for d in d.raw d.qcow2; do
    inspects $d 'CentOS Linux 7' cl/root xfs /boot/vmlinuz-6.5.1 '/=cl/root /home=cl/home /boot=p1'
    mounts $d 'CentOS Linux 7'
done
# ---- NTFS: a program, where the kernel has no driver ----
rm -f d.*
truncate -s 32M d.raw
mkntfs -F -Q -q d.raw >/dev/null 2>&1
"$VDISK" convert -q -O qcow2 d.raw d.qcow2
for d in d.raw d.qcow2; do
    expect 0 "$VDISK" mkdir "$d:/dir"
    expect 0 "$VDISK" cp dpkg "$d:/dir/file"
    expect 0 "$VDISK" mv "$d:/dir/file" "$d:/moved"
    "$VDISK" cat "$d:/moved" | cmp - dpkg || fail "$d: cat"
    expect 0 "$VDISK" ls "$d:/"
    like_output '^moved$'
    nothing_left
    expect 0 "$VDISK" fsck -n $d
done
# a damaged one: what the program says of it (records 4 to 6 of its table of files)
dd if=/dev/zero of=d.raw bs=1024 seek=20 count=3 conv=notrunc status=none
expect 1 "$VDISK" ls d.raw:/
like_output 'ntfs-3g: .*(orrupt|nvalid|ailed)'
nothing_left

# an ordinary user is told what would work
chmod 666 xfs.raw
expect 1 setpriv --reuid=65534 --regid=65534 --clear-groups "$VDISK" ls 'xfs.raw#p1:/'
like_output 'xfs, which is not read in process: as root'
