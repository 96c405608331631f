#!/bin/bash
# Labels and UUIDs by the real tools, fsck's choice of checker, edit, trim, and uuid --clone.
. "$(dirname "$0")/../functions.sh"
requires mke2fs e2fsck sfdisk blkid qemu-img python3 mkfs.fat
[ -w /dev/fuse ] || skip "/dev/fuse cannot be used"
cd "$tmp"

tag() { blkid -p -o value -s "$2" "$1" || true; }
is() { [ "$1" = "$2" ] || fail "'$1' is not '$2' ($3)"; }
uuid=01234567-89ab-4cde-8f01-23456789abcd

# ---- kinds that have their own programs: in the partition of a qcow2 ----
disk=d.qcow2
one() { "$VDISK" convert -y -q -O raw "$disk#p1" one; }
kind() {	# TYPE MKFS... : make one in p1
    local type=$1
    shift
    rm -f fs $disk
    truncate -s 320M fs
    "$@" fs > mkfs.log 2>&1 || { cat mkfs.log; fail "$*"; }
    rm -f whole
    truncate -s 330M whole
    "$VDISK" part init whole gpt
    "$VDISK" part add whole --size 320M > /dev/null
    dd if=fs of=whole bs=1M seek=1 conv=notrunc,sparse status=none
    "$VDISK" convert -y -q -O qcow2 whole $disk
    is "$("$VDISK" parts --json $disk | python3 -c 'import json,sys; print(json.load(sys.stdin)["partitions"][0]["content"]["type"])')" "$type" 'the type'
}
fsck_clean() {	# by our command: clean, and nothing is written by -n
    local before after
    before=$(sha256sum < $disk)
    "$VDISK" fsck -n $disk > fsck.log 2>&1 || { cat fsck.log; fail "fsck -n of $1"; }
    after=$(sha256sum < $disk)
    is "$before" "$after" "fsck -n of $1 wrote"
}
if command -v mkfs.xfs xfs_admin xfs_repair > /dev/null; then
    kind xfs mkfs.xfs -q -f -L first
    fsck_clean xfs
    is "$("$VDISK" label "$disk#p1")" first 'the label of XFS'
    "$VDISK" label "$disk#p1" other
    "$VDISK" uuid "$disk#p1" $uuid
    one
    is "$(tag one LABEL) $(tag one UUID)" "other $uuid" XFS
    "$VDISK" label "$disk#p1" ''
    "$VDISK" uuid "$disk#p1" random
    one
    is "$(tag one LABEL)" '' 'no label'
    [ "$(tag one UUID)" != $uuid ] || fail 'a random UUID of XFS'
    fsck_clean xfs
    expect 1 "$VDISK" label "$disk#p1" 'more than twelve'
    "$VDISK" fsck -y $disk > fsck.log 2>&1 || { cat fsck.log; fail 'xfs_repair'; }
fi
if command -v mkfs.btrfs btrfstune > /dev/null; then
    kind btrfs mkfs.btrfs -q -L first
    "$VDISK" label "$disk#p1" 'another label'
    "$VDISK" uuid "$disk#p1" $uuid
    one
    is "$(tag one LABEL) $(tag one UUID)" "another label $uuid" btrfs
    fsck_clean btrfs
fi
if command -v mkfs.exfat exfatlabel > /dev/null; then
    kind exfat mkfs.exfat -n first
    "$VDISK" label "$disk#p1" Other
    "$VDISK" uuid "$disk#p1" 12AB-34CD
    one
    is "$(tag one LABEL) $(tag one UUID)" "Other 12AB-34CD" exFAT
    fsck_clean exfat
    "$VDISK" uuid "$disk#p1" random
    expect 1 "$VDISK" uuid "$disk#p1" $uuid
fi
if command -v mkntfs ntfslabel > /dev/null; then
    kind ntfs mkntfs -F -Q -L first
    "$VDISK" label "$disk#p1" Other
    "$VDISK" uuid "$disk#p1" 0123456789ABCDEF
    one
    is "$(tag one LABEL) $(tag one UUID)" "Other 0123456789ABCDEF" NTFS
    fsck_clean ntfs
fi
if command -v cryptsetup > /dev/null; then
    printf secret > key
    luks() { cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$1" key; }
    kind crypto_LUKS luks
    "$VDISK" label "$disk#p1" vault
    "$VDISK" uuid "$disk#p1" $uuid
    one
    is "$(tag one LABEL) $(tag one UUID)" "vault $uuid" LUKS
    cryptsetup open --test-passphrase --key-file key one || fail 'the key after a new UUID'
fi
# FAT: found damaged, repaired, by the same command
kind vfat mkfs.fat -F 32
fsck_clean vfat
"$VDISK" cp /bin/ls "$disk#p1:/ls"
"$VDISK" convert -y -q -O raw "$disk" bad.raw
printf '\1' | dd of=bad.raw bs=1 seek=$((1048576 + 65)) conv=notrunc status=none
expect 1 "$VDISK" fsck -n bad.raw
expect 1 "$VDISK" fsck -p bad.raw
expect 0 "$VDISK" fsck -n bad.raw
# what nothing can be done for is said
truncate -s 8M none
expect 1 "$VDISK" label none x
like_output 'nothing that is known'
expect 1 "$VDISK" label "$disk" x
like_output 'name one of them'

# the table's id
"$VDISK" uuid "$disk" $uuid
is "$("$VDISK" uuid "$disk")" $uuid 'the GUID of a disk'

# ---- edit ----
truncate -s 64M e.raw
mke2fs -q -t ext4 e.raw
printf 'first\n' > file
"$VDISK" mkdir e.raw:/etc
"$VDISK" cp file e.raw:/etc/target
"$VDISK" ln -s target e.raw:/etc/link
"$VDISK" chown 12:34 e.raw:/etc/target
"$VDISK" chmod 4751 e.raw:/etc/target
debugfs -w -R 'ea_set /etc/target user.note hello' e.raw 2>/dev/null
# shellcheck disable=SC2238 # "ed" is a file here
printf '#!/bin/sh\necho second >> "$1"\n' > ed
printf '#!/bin/sh\nexit 3\n' > ed-fails
chmod +x ed ed-fails
EDITOR=./ed VISUAL='' "$VDISK" edit e.raw:/etc/link
is "$("$VDISK" cat e.raw:/etc/target | paste -sd,)" first,second 'the edited file'
is "$("$VDISK" stat --json e.raw:/etc/target | python3 -c 'import json,sys; s=json.load(sys.stdin); print(s["mode"], s["uid"], s["gid"])')" '4751 12 34' 'owner and mode'
debugfs -R 'ea_get /etc/target user.note' e.raw 2>/dev/null | grep -q hello || fail 'its attribute is lost'
is "$("$VDISK" ls -l e.raw:/etc | grep -c -- '-> target')" 1 'the link'
cp e.raw keep
VISUAL=./ed-fails expect 1 "$VDISK" edit e.raw:/etc/target
VISUAL=true "$VDISK" edit -q e.raw:/etc/target
is "$("$VDISK" cat e.raw:/etc/target | paste -sd,)" first,second 'after an editor that failed'
VISUAL=./ed "$VDISK" edit e.raw:/etc/new
is "$("$VDISK" cat e.raw:/etc/new)" second 'a new file'
is "$("$VDISK" ls e.raw:/etc | paste -sd,)" link,new,target 'nothing else is left'
e2fsck -fn e.raw > fsck.log 2>&1 || { cat fsck.log; fail 'e2fsck after edit'; }

# ---- trim ----
for fs in ext4 vfat; do
    "$VDISK" create -q -f qcow2 t.qcow2 100M
    "$VDISK" part init -y t.qcow2 gpt
    "$VDISK" part add t.qcow2 > /dev/null
    "$VDISK" mkfs -y -t $fs t.qcow2#p1 > /dev/null 2>&1
    head -c 40M /dev/urandom > big
    "$VDISK" cp big t.qcow2#p1:/big
    "$VDISK" cp file t.qcow2#p1:/small
    "$VDISK" rm t.qcow2#p1:/big
    used() { qemu-img map --output=json t.qcow2 | python3 -c 'import json,sys; print(sum(e["length"] for e in json.load(sys.stdin) if e["data"]) >> 20)'; }
    [ "$(used)" -ge 40 ] || fail "what was removed is there before trim ($(used) MiB)"
    "$VDISK" trim --json t.qcow2 > trim.json
    python3 - <<'PYTHON'
import json
t = json.load(open('trim.json'))['trimmed']
assert len(t) == 1 and t[0]['volume'] == 'p1' and t[0]['bytes'] > 60 << 20, t
PYTHON
    [ "$(used)" -lt 10 ] || fail "$(used) MiB are used after trim"
    is "$("$VDISK" cat t.qcow2#p1:/small)" first 'a file after trim'
    expect 0 "$VDISK" fsck -n t.qcow2
    qemu-img check -q t.qcow2 || fail 'qemu-img check after trim'
    rm t.qcow2
done
expect 1 "$VDISK" trim none

# ---- a clone of a guest ----
for label in gpt dos; do
    truncate -s 0 guest
    truncate -s 200M guest
    sfdisk -q guest <<SFDISK
label: $label
size=40M, type=$([ $label = gpt ] && echo uefi || echo ef)
size=20M, type=S
size=100M, type=L
SFDISK
    # (a serial number without letters, which has a case all the same)
    "$VDISK" mkfs -t vfat -U 1234-5678 'guest#p1' > /dev/null
    "$VDISK" mkfs -t swap 'guest#p2'
    "$VDISK" mkfs -t ext4 -L root 'guest#p3'
    root=$("$VDISK" uuid 'guest#p3') swap=$("$VDISK" uuid 'guest#p2') esp=$("$VDISK" uuid 'guest#p1')
    partuuid=$("$VDISK" parts --json guest | python3 -c 'import json,sys; print(json.load(sys.stdin)["partitions"][2]["uuid"])')
    "$VDISK" mkdir -p guest#p3:/etc guest#p3:/boot/grub guest#p1:/loader/entries
    cat > fstab <<FSTAB
# root was $root during installation
UUID=$root / ext4 defaults 0 1
UUID=$swap none swap sw 0 0
UUID=$esp /boot/efi vfat umask=0077 0 1
PARTUUID=$partuuid /again ext4 noauto 0 0
/dev/disk/by-uuid/$root /more ext4 noauto 0 0
UUID=${root}0 /none ext4 noauto 0 0
FSTAB
    echo "linux /vmlinuz root=UUID=$root resume=UUID=$swap ro" > grub.cfg
    echo "options root=PARTUUID=${partuuid^^}" > entry.conf
    "$VDISK" cp fstab guest#p3:/etc/fstab
    "$VDISK" cp grub.cfg guest#p3:/boot/grub/grub.cfg
    "$VDISK" cp entry.conf guest#p1:/loader/entries/a.conf
    "$VDISK" convert -y -q -O qcow2 guest clone.qcow2
    before=$(sha256sum < clone.qcow2)
    "$VDISK" uuid --clone -n clone.qcow2 > plan
    grep -q "$root -> " plan && grep -q 'p3:/etc/fstab: 6 places' plan || { cat plan; fail 'the plan'; }
    expect 1 "$VDISK" uuid --clone clone.qcow2
    like_output 'terminal'
    is "$before" "$(sha256sum < clone.qcow2)" 'a plan wrote'
    "$VDISK" uuid --clone -y clone.qcow2 > did 2>&1 || { cat did; fail clone; }
    new() { sed -n "s/.*$1 -> //p" did | head -1; }
    for id in $root $swap $esp $partuuid; do
        [ -n "$(new "$id")" ] && [ "$(new "$id")" != "$id" ] || fail "$id has no new one"
    done
    is "$("$VDISK" uuid clone.qcow2#p3) $("$VDISK" uuid clone.qcow2#p2) $("$VDISK" uuid clone.qcow2#p1)" \
       "$(new "$root") $(new "$swap") $(new "$esp")" 'the new UUIDs'
    "$VDISK" cat clone.qcow2#p3:/etc/fstab > now
    sed "s/$root\\b/$(new "$root")/g;s/$swap/$(new "$swap")/;s/$esp/$(new "$esp")/;s/$partuuid/$(new "$partuuid")/" fstab > want
    diff want now || fail fstab
    is "$("$VDISK" cat clone.qcow2#p3:/boot/grub/grub.cfg)" "$(sed "s/$root/$(new "$root")/;s/$swap/$(new "$swap")/" grub.cfg)" grub.cfg
    is "$("$VDISK" cat clone.qcow2#p1:/loader/entries/a.conf)" "options root=PARTUUID=$(new "$partuuid" | tr a-f A-F)" 'a boot entry'
    is "$("$VDISK" parts --json clone.qcow2 | python3 -c 'import json,sys; print(json.load(sys.stdin)["partitions"][2]["uuid"])')" "$(new "$partuuid")" PARTUUID
    [ "$("$VDISK" uuid clone.qcow2)" != "$("$VDISK" uuid guest)" ] || fail "the table's id"
    "$VDISK" part verify clone.qcow2 > /dev/null || fail 'the table of the clone'
    expect 0 "$VDISK" fsck -n -F clone.qcow2#p3
    expect 0 "$VDISK" fsck -n clone.qcow2#p1
done
