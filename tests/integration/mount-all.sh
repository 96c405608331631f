#!/bin/bash
# vdisk mount --all by FUSE: the guest's tree, as its fstab has it, in one mount.
. "$(dirname "$0")/../functions.sh"
requires mke2fs e2fsck mkfs.vfat fsck.vfat sfdisk fusermount3 setfattr getfattr
[ -w /dev/fuse ] || skip "/dev/fuse cannot be used"

export VDISK_RUNTIME_DIR=$tmp/run
as=()
if [ "$(id -u)" = 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups "$VDISK" --version >/dev/null 2>&1; then
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    chmod 755 "$tmp"
fi
user() { "${as[@]}" "$@"; }
mkdir "$tmp/u" "$tmp/run"
[ ${#as[@]} = 0 ] || chown 65534:65534 "$tmp/u" "$tmp/run"
chmod 700 "$tmp/run"
cd "$tmp/u"
m=$tmp/u/m
user mkdir "$m"
cleanup_fn user fusermount3 -uzq "$m"

# ---- a guest with a disk of several volumes ----
mkdir -p root/etc root/boot root/home root/srv/data root/usr boot efi/EFI home/user root/mnt
cat >root/etc/fstab <<'FSTAB'
# the order is not that of the paths
LABEL=ESP		/boot/efi/	vfat	umask=0077	0 1
UUID=11111111-2222-3333-4444-555555555555 / ext4 errors=remount-ro 0 1
LABEL=boot		/boot		ext4	defaults	0 2
LABEL=home		/home		ext4	ro,nofail	0 2
PARTLABEL=data		/srv//data	ext4	defaults	0 2
LABEL=elsewhere		/mnt		ext4	defaults	0 2
LABEL=usb		/media		ext4	nofail	0 2
LABEL=later		/later		ext4	noauto	0 2
LABEL=data		/../etc		ext4	defaults	0 2
LABEL=data		/missing	ext4	defaults	0 2
/srv/data		/opt		none	bind	0 0
server:/export		/net		nfs	defaults	0 0
LABEL=swap		none		swap	sw	0 0
tmpfs			/tmp		tmpfs	defaults	0 0
FSTAB
echo root >root/file
mkdir boot/efi
echo boot >boot/file
echo home >home/user/file
echo hidden >root/home/hidden
truncate -s 120M p1 p2 p3 p4 p5
mkfs.vfat -n ESP p1 >/dev/null
mke2fs -q -F -t ext4 -U 11111111-2222-3333-4444-555555555555 -d root p2
mke2fs -q -F -t ext4 -L boot -d boot p3
mke2fs -q -F -t ext4 -L home -d home p4
mke2fs -q -F -t ext2 -L data p5
truncate -s 602M d.raw
printf '%s\n' 'label: gpt' 'size=120M, type=uefi' size=120M size=120M size=120M 'size=120M, name=data' | sfdisk -q d.raw
for i in 1 2 3 4 5; do dd if=p$i of=d.raw bs=1M seek=$((1 + (i - 1) * 120)) conv=notrunc,sparse status=none; done
"$VDISK" convert -q -O qcow2 d.raw d.qcow2
chmod 666 d.*

for d in d.raw d.qcow2; do
    expect 0 user "$VDISK" mount --fuse --all $d m
    for why in '/mnt: left out: its device is not on this disk$' '/media: .*not on this disk .nofail' \
            '/later: left out: noauto' '/opt: left out: a bind mount' '/net: left out: a network' \
            'none: left out: swap' '/tmp: left out: not on a disk' '/\.\./etc: left out: no path' \
            '/missing: left out: .*'; do
        like_output "$why"
    done
    [ "$(user cat m/file m/boot/file m/home/user/file | tr '\n' ' ')" = 'root boot home ' ] || fail "contents"
    [ -z "$(user ls m/home/hidden 2>/dev/null)" ] || fail "what is covered is seen"
    [ "$(user sh -c 'ls m m/boot m/srv | tr "\n" " "')" = \
        'm: boot etc file home lost+found mnt srv usr  m/boot: efi file lost+found  m/srv: data ' ] || fail "$(user ls m m/boot m/srv)"
    # that FAT has no attributes says nothing about the others
    expect 1 user getfattr -n user.a m/boot/efi
    like_output 'not supported'
    user setfattr -n user.a -v value m/file
    [ "$(user getfattr --only-values -n user.a m/file)" = value ] || fail "an attribute beside FAT"
    # four file systems whose numbers of nodes are the same: none is mistaken for another
    [ "$(user stat -c %i m m/boot m/home m/srv/data m/boot/efi | sort -u | wc -l)" = 5 ] || fail "numbers"
    [ "$(user find m -type f | wc -l)" = 4 ] || fail "find: $(user find m -type f)"
    user sh -c 'cp m/file m/boot/efi/EFI.TXT; mkdir m/srv/data/new; echo x >m/srv/data/new/x; echo y >m/boot/y; echo z >m/usr/z'
    expect 1 user touch m/home/x			# ro
    expect 2 user sh -c 'echo >>m/home/user/file'
    expect 1 user rmdir m/srv/data
    like_output 'busy|not empty'
    expect 1 user mv m/boot m/else
    like_output 'busy'
    expect 1 user ln m/file m/boot/link
    user cp m/file m/boot/moved
    user rm m/file
    [ "$(user cat m/boot/moved)" = root ] || fail "moved"
    # the space is that of each
    [ "$(user stat -f -c %s m/boot/efi)" != "$(user stat -f -c %s m/boot)" ] || [ "$(user stat -f -c %b m/boot/efi)" != "$(user stat -f -c %b m)" ] || fail "df"
    [ "$(user sh -c 'cd m/boot/efi && cd ../.. && ls boot/y')" = boot/y ] || fail ".."
    expect 0 user "$VDISK" umount m
    [ -z "$(ls "$tmp/run")" ] || fail "left behind: $(ls "$tmp/run")"
    [ "$("$VDISK" cat "$d#p3:/moved")$("$VDISK" cat "$d#p1:/EFI.TXT")$("$VDISK" cat "$d#p5:/new/x")$("$VDISK" cat "$d#p2:/usr/z")" = rootrootxz ] || fail "$d: not saved"
    expect 1 "$VDISK" stat "$d#p2:/file"
done
for i in 2 3 4 5; do
    dd if=d.raw of=p bs=1M skip=$((1 + (i - 1) * 120)) count=120 status=none
    e2fsck -fn p >fsck.log 2>&1 || { cat fsck.log; fail "p$i"; }
done
dd if=d.raw of=p bs=1M skip=1 count=120 status=none
fsck.vfat -n p >fsck.log || { cat fsck.log; fail FAT; }

# read-only, all of it; refused: a partition, a disk without a system
expect 0 user "$VDISK" mount --fuse --all -r d.qcow2 m
expect 1 user touch m/boot/x
[ "$(user cat m/boot/y)" = y ] || fail "read-only"
expect 0 user "$VDISK" umount m
expect 1 user "$VDISK" mount --all 'd.raw#p2' m
like_output 'whole disk'
truncate -s 10M empty
chmod 666 empty
expect 1 user "$VDISK" mount --all empty m
expect 0 user "$VDISK" mount --fuse --all d.qcow2 m
pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$tmp"/run/mount-*.json)
kill -9 "$pid"
wait_for 20 test ! -d "/proc/$pid"
expect 1 user "$VDISK" umount m
like_output 'killed'
! user mountpoint -q m || fail "still mounted"
