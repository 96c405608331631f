#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fio in a guest on real KVM, on a disk of each cache mode (writeback, writethrough, none,
# unsafe): verified writes of mixed sizes with discards, on the bare device and on ext4.  The
# images shrink when the guest trims, grow when they are resized, and the guest gets no
# more than its limits, by its own counters.  (In simulated time: unit/limiter.)
. "$(dirname "$0")/../functions.sh"
. "$(dirname "$0")/../small-guest.sh"
requires qemu-system-x86_64 qemu-img fio mke2fs fstrim

cloud_kernel
size=${GUEST_IO_SIZE:-1m}	# written and verified on each

# ---- the guest: a small initrd, and the tools on a disk ----

root=$tmp/root
small_root "$root" virtio_pci virtio_blk ext4
mkdir -p "$root"/{tmp,mnt} "$tmp/tools"
"$TOP/tests/tools/small-fio" "$tmp/tools"
for f in mke2fs fstrim; do
    f=$(command -v $f)
    cp "$f" "$tmp/tools/bin/"
    ldd "$f" | grep -o '/[^ ]*'
done | sort -u | while read -r f; do
    mkdir -p "$tmp/tools/$(dirname "$f")" && cp -L "$f" "$tmp/tools/$f"
done
mke2fs -q -F -t ext2 -d "$tmp/tools" "$tmp/tools.img" 24M > /dev/null
cat > "$root/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
size=$size
END
cat >> "$root/init" <<'END'
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir /dev/shm
mount -t tmpfs tmp /tmp
for f in /m/*; do insmod $f; done
mkdir /tools
mount -t ext2 -o ro /dev/vde /tools
for dir in lib lib64 usr; do ln -s /tools/$dir /$dir; done
for d in a b c d; do
    echo "GUEST vd$d $(cat /sys/block/vd$d/queue/write_cache)"
done

failed() { echo "GUEST FAILED $*"; dmesg | tail -20; poweroff -f; }
# job NAME FILE: mixed sizes, some of it discarded, read back and compared
verify="--direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bssplit=512/10:4k/40:12k/20:64k/30
    --verify=crc32c --verify_fatal=1 --verify_backlog=32 --thread --group_reporting --size=$size --randseed=7"
fio=/tools/bin/fio

stage() { echo "GUEST $1 after $(cut -d ' ' -f 1 /proc/uptime) s"; }
stage begin
# the bare devices, all at once: verified writes at the beginning; behind them 2 MiB are discarded
# meanwhile, which are not zero before and are afterwards
discard="--direct=1 --ioengine=libaio --iodepth=4 --rw=randtrim --bssplit=64k/100 --offset=8m --size=2m --verify=0"
jobs=
for d in a b c d; do
    dd if=/dev/vde of=/dev/vd$d bs=1M skip=1 seek=8 count=2 conv=fsync 2> /dev/null
    jobs="$jobs --name=$d --filename=/dev/vd$d"
done
trims=
for d in a b c d; do trims="$trims --name=t$d --filename=/dev/vd$d $discard"; done
$fio --eta=never --output=/tmp/out $verify $jobs $trims || { cat /tmp/out; failed bare; }
echo 3 > /proc/sys/vm/drop_caches
for d in a b c d; do
    [ $(dd if=/dev/vd$d bs=1M skip=8 count=2 2> /dev/null | tr -d '\0' | wc -c) = 0 ] || failed "vd$d: discarded, not zero"
    echo "GUEST vd$d discarded $(awk '{ print $12 }' /sys/block/vd$d/stat)"
done
stage bare
echo GUEST bare verified

# ext4 on each
jobs=
for d in a b c d; do
    mkdir -p /mnt/$d
    /tools/bin/mke2fs -q -t ext4 -E nodiscard /dev/vd$d && mount -t ext4 /dev/vd$d /mnt/$d || failed mke2fs
    jobs="$jobs --name=$d --directory=/mnt/$d --fsync=64"
done
$fio --eta=never --output=/tmp/out $verify --bssplit=4k/50:12k/20:64k/30 $jobs || { cat /tmp/out; failed ext4; }
sync
stage ext4
echo GUEST ext4 verified

# each step waits until the host has seen the last one, and made disk a a MiB longer
seen=0
next() { # TEXT
    seen=$((seen + 1))
    echo "GUEST step $seen $1"
    until [ $(cat /sys/block/vda/size) = $((65536 + seen * 2048)) ]; do usleep 50000; done
}
next full
# (what was deleted is free when the journal says so; an image's clusters some flushes later)
rm /mnt/*/*.0
sync
for d in a b c d; do /tools/bin/fstrim /mnt/$d || failed fstrim; done
for n in 1 2 3 4; do
    for d in a b c d; do echo $n > /mnt/$d/n; done
    sync
done
next trimmed
for d in a b c d; do umount /mnt/$d; done

# as fast as it goes, but for the limits; what the guest's own kernel counts in three seconds
$fio --eta=never --output=/tmp/out --direct=1 --ioengine=libaio --iodepth=4 --rw=randread --bs=16k --thread \
    --name=r --filename=/dev/vdb --size=$size --time_based --runtime=1000 &
window() { # NAME
    next $1
    for i in 1 2; do
        usleep 1000000
        before="$(awk '{ print $1, $3 }' /sys/block/vdb/stat) $(cut -d ' ' -f 1 /proc/uptime)"
        usleep 3000000
        echo "GUEST window $1 $before $(awk '{ print $1, $3 }' /sys/block/vdb/stat) $(cut -d ' ' -f 1 /proc/uptime)"
    done
}
until [ $(awk '{ print $9 }' /sys/block/vdb/stat) -gt 0 ]; do usleep 100000; done
window bytes
window ops
killall fio
wait
next off
dmesg | grep -iE 'error|fail' | grep -v 'ACPI\|PCI' | sed 's/^/GUEST DMESG /'
poweroff -f
END
chmod 755 "$root/init"
pack_root "$root" "$tmp/initrd"

# ---- inside the machine with KVM: the images are on a disk, as tmpfs has no O_DIRECT ----

truncate -s 600M "$tmp/scratch"
mke2fs -q -F -t ext4 "$tmp/scratch"
cat > "$tmp/job" <<END
set -eu
export VDISK_RUNTIME_DIR=/tmp/run PATH=$O:\$PATH
log=/tmp/log
fail() { echo "FAILED: \$*"; exit 1; }
trap '[ \$? = 0 ] || tail -n 60 \$log' EXIT
mkdir /tmp/d
mount -t ext4 -o discard /dev/vda /tmp/d
cd /tmp/d
truncate -s 32M base.raw b.raw d.raw
qemu-img create -q -f qcow2 -b base.raw -F raw a.qcow2
qemu-img create -q -f qcow2 c.qcow2 32M
cat > guest.vm <<'VM'
memory 192
kernel $kernel
initrd $tmp/initrd
append console=ttyS0 quiet
disk a.qcow2 format=qcow2 cache=writeback
disk b.raw format=raw cache=writethrough
disk c.qcow2 format=qcow2 cache=none
disk d.raw format=raw cache=unsafe
disk $tmp/tools.img format=raw read-only
VM
until_log() { # PATTERN
    for ((i = 0; i < 4000; i++)); do
        ! grep -q -- "\$1" \$log || return 0
        kill -0 \$pid || break
        sleep 0.1
    done
    fail "no '\$1'"
}
allocated() { # NAME: in files, and in clusters of the qcow2 ones
    sync
    for f in a.qcow2 b.raw c.qcow2 d.raw; do echo "ALLOCATED \$1 \$f \$(du -B1 \$f | cut -f1)"; done
}
step() { # N COMMAND...: what the guest waits for
    until_log "GUEST step \$1"
    "\${@:2}"
    vdisk vm resize-disk g disk0 \$((32 + \$1))M
}
vdisk boot -q --fast-kernel --stats --name g -f guest.vm > \$log 2>&1 < /dev/null &
pid=\$!
step 1 allocated full
step 2 allocated trimmed
step 3 vdisk vm limit g disk1 bytes=512K,burst=50
step 4 vdisk vm limit g disk1 ops=40,burst=50
step 5 vdisk vm limit g disk1 none
rc=0
wait \$pid || rc=\$?
grep -a 'GUEST\\|vmm-lite' \$log | tr -d '\\r'
[ \$rc = 0 ] || fail "it ended with \$rc"
qemu-img check -q a.qcow2
qemu-img check -q c.qcow2
for f in a.qcow2 b.raw c.qcow2 d.raw; do vdisk fsck -n -F \$f; echo "CLEAN \$f"; done
[ "\$(stat -c %s base.raw)/\$(du -B1 base.raw | cut -f1)" = 33554432/0 ] || fail 'the backing file was written'
END
rc=0
in_machine --modules 'kvm-amd virtio_blk' --mem 1024 --limit 800 \
    --machine "-drive file=$tmp/scratch,format=raw,if=virtio,cache=unsafe,discard=unmap" -- bash "$tmp/job" \
    > "$tmp/out" 2>&1 || rc=$?
awk '/^rig: started again/ { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }' \
    "$tmp/out" > "$tmp/last" && mv "$tmp/last" "$tmp/out"
cat "$tmp/out"
[ $rc = 0 ] || fail "the machine ended with $rc"

has() { grep -qxE -- "$1" "$tmp/out" || fail "no '$1'"; }
for line in 'vda write back' 'vdb write through' 'vdc write back' 'vdd write back' 'bare verified' 'ext4 verified'; do
    has "GUEST $line"
done
for d in vda vdb vdc vdd; do has "GUEST $d discarded [1-9][0-9]*"; done
! grep -q 'GUEST DMESG' "$tmp/out" || fail 'the guest saw errors'

python3 - "$tmp/out" "${size%m}" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
size = int(sys.argv[2]) << 20

# nearly all of each file's space came back
at = {}
for step, name, n in re.findall(r'^ALLOCATED (\w+) (\S+) (\d+)$', text, re.M):
    at[step, name] = int(n)
for name in 'a.qcow2', 'b.raw', 'c.qcow2', 'd.raw':
    full, trimmed = at['full', name], at['trimmed', name]
    print(f'{name}: {full} bytes allocated, {trimmed} after fstrim')
    assert full - trimmed >= 0.8 * size, f'{name} has not shrunk'

# never more than the limit allows in the window, its burst and what was in flight; how much
# less is a matter of the machine, where it has nothing else to do less than 5 %
best = {}
for w in re.findall(r'^GUEST window (\w+) (.*)$', text, re.M):
    r0, s0, t0, r1, s1, t1 = map(float, w[1].split())
    done, limit, slack = (s1 - s0, (512 << 10) / 512, 4 * 32) if w[0] == 'bytes' else (r1 - r0, 40, 4)
    ratio = done / ((t1 - t0) * limit)
    print(f'{w[0]}: {ratio:.3f} of the limit')
    assert done <= (t1 - t0 + 0.05) * limit * 1.01 + slack, 'more than the limit'
    best[w[0]] = max(best.get(w[0], 0), ratio)
assert set(best) == {'bytes', 'ops'} and min(best.values()) > 0.5, best
PY
