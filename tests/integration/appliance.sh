#!/bin/bash
# The steps by which the Openfiler appliance is put onto a disk by hand, all of them by
# vdisk: a disk of 3 GB, partitions for root and swap, mke2fs -j, a tarball
# unpacked, the label that its fstab expects, and then it boots.
. "$(dirname "$0")/../functions.sh"
requires linux.uml busybox tar gzip sfdisk e2fsck dumpe2fs swaplabel
cd "$tmp"

# the tarball: a system of our own that says what it sees of its disk
mkdir -p root/{bin,sbin,etc,dev,proc,sys,root,tmp,var}
cp "$(type -P busybox)" root/bin/
ln -s busybox root/bin/sh
printf '%s\n' 'LABEL=/ / ext3 defaults 1 1' 'LABEL=SWAP-sda1 swap swap defaults 0 0' \
    'proc /proc proc defaults 0 0' > root/etc/fstab
printf '%s\n' 'NAME="Openfiler ESA"' 'ID=openfiler' 'VERSION_ID=2.99' 'PRETTY_NAME="Openfiler ESA 2.99"' \
    > root/etc/os-release
echo 'filer' > root/etc/hostname
mkdir root/var/spool
chmod 1777 root/tmp
chmod 2750 root/var/spool
cat > root/sbin/init <<'INIT'
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -o remount,rw /
echo "root $($bb awk '$2 == "/" && $1 != "rootfs" { print $1, $3, substr($4, 1, 2) }' /proc/mounts | $bb tail -n 1)"
at() { $bb dd if=$1 bs=1 skip=$2 count=16 2> /dev/null | $bb tr -d '\0'; }
echo "label /dev/vda1 $(at /dev/vda1 1052)"
echo "label /dev/vda2 $(at /dev/vda2 1144)"
$bb swapon /dev/vda1 && echo "swap $($bb awk '$1 == "SwapTotal:" { print ($2 > 400000) }' /proc/meminfo)"
$bb swapoff -a
echo "booted" > /root/booted
$bb sync
$bb poweroff -f
INIT
chmod +x root/sbin/init
tar --owner=0 --group=0 -C root -czf appliance.tar.gz .

# the administrator's steps, on an image of each kind
for format in raw qcow2; do
    disk=filer.$format
    expect 0 "$VDISK" create -f $format $disk 3G
    expect 0 "$VDISK" part init $disk mbr
    expect 0 "$VDISK" part add --size 512M --type swap $disk
    expect 0 "$VDISK" part add --size 100% --type 83 $disk
    expect 0 "$VDISK" part flag $disk#p2 active
    expect 0 "$VDISK" mkfs -t swap -L SWAP-sda1 $disk#p1
    expect 0 "$VDISK" mkfs -t ext3 $disk#p2
    gzip -dc appliance.tar.gz | "$VDISK" untar $disk#p2:/ || fail untar
    expect 0 "$VDISK" label $disk#p2 /
    expect 0 "$VDISK" inspect $disk
    like_output 'Openfiler ESA 2.99'
    like_output 'LABEL=/ .*p2'
    like_output 'LABEL=SWAP-sda1 .*p1'
    # the real tools find it right
    "$VDISK" convert -q -O raw $disk check.raw
    sfdisk -V check.raw > sfdisk.out 2>&1 || { cat sfdisk.out; fail 'sfdisk -V'; }
    [ "$(sfdisk -d check.raw | grep -c 'type=83, bootable')" = 1 ] || fail "the table: $(sfdisk -d check.raw)"
    start=$(sfdisk -J check.raw | python3 -c 'import json, sys; print(json.load(sys.stdin)["partitiontable"]["partitions"][1]["start"])')
    dumpe2fs -h "check.raw?offset=$((start * 512))" > dumpe2fs.out 2>&1
    grep -q has_journal dumpe2fs.out || fail 'it has no journal'
    grep -Eq 'volume name: +/$' dumpe2fs.out || fail 'the label'
    rm check.raw
    expect 0 "$VDISK" fsck -n -F $disk#p2
    for word in 1777:/tmp 2750:/var/spool 755:/sbin/init; do
        expect 0 "$VDISK" stat --json "$disk#p2:${word#*:}"
        like_output "\"mode\": \"0*${word%%:*}\""
    done

    # and it boots
    timeout -k 5 120 "$VDISK" boot --engine uml $disk > boot.out 2>&1 < /dev/null || { cat boot.out; fail "booting $disk"; }
    output=$(tr -d '\r' < boot.out)
    like_output '^root /dev/vda2 ext[34] rw'
    like_output '^label /dev/vda1 SWAP-sda1$'
    like_output '^label /dev/vda2 /$'
    like_output '^swap 1$'
    expect 0 "$VDISK" cat $disk#p2:/root/booted
    [ "$output" = booted ] || fail "what the appliance wrote: $output"
    expect 0 "$VDISK" fsck -n -F $disk#p2
done
