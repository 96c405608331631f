#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A stock kernel on real KVM, and what comes and goes while it runs: disks
# attached and detached under a verified load (3 times; 50 with LONG), a LUN, too, a disk
# resized, limits, network cards behind this host's address and in a bridge, as vdisk vm net
# prepares them, the power button; a compressed kernel started the fast way.
. "$(dirname "$0")/../functions.sh"
. "$(dirname "$0")/../small-guest.sh"
requires qemu-system-x86_64 qemu-img ip nft

cloud_kernel
rounds=3
[ -z "${LONG:-}" ] || rounds=50

# ---- the guest ----

root=$tmp/root
small_root "$root" virtio_pci virtio_blk virtio_net virtio_balloon button evdev
cat > "$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir /tmp
mount -t tmpfs tmp /tmp
for f in /m/*; do insmod $f || echo "GUEST insmod $f failed"; done

load() { # write, flush, read back past the cache, compare, for ever
    n=0
    while :; do
        head -c 262144 /dev/urandom > /tmp/block
        dd if=/tmp/block of=/dev/vda bs=64k seek=$((n % 16 * 4)) conv=fsync 2> /dev/null
        echo 1 > /proc/sys/vm/drop_caches
        dd if=/dev/vda bs=64k skip=$((n % 16 * 4)) count=4 2> /dev/null | cmp - /tmp/block ||
            echo GUEST DAMAGED
        n=$((n + 1))
        echo $n > /tmp/n
    done
}
button() {
    dd if=/dev/input/event0 of=/tmp/key bs=24 count=1 2> /dev/null
    echo "GUEST power button, $(cat /tmp/n) blocks compared"
    poweroff -f
}
ifconfig eth0 192.168.87.2 netmask 255.255.255.0 up
route add default gw 192.168.87.1
ifconfig eth1 10.88.0.2 netmask 255.255.255.0 up
for size in 56 1400 9000; do
    ping -c 2 -W 5 -s $size 192.168.87.1 > /tmp/ping && echo "GUEST ping $size"
done
ping -c 1 -W 5 10.77.0.2 > /tmp/ping && echo "GUEST ping behind the host"
ping -c 1 -W 5 10.88.0.1 > /tmp/ping && echo "GUEST ping in the bridge"
echo "GUEST mac $(cat /sys/class/net/eth0/address)"
load &
button &
size=$(cat /sys/block/vda/size)
known=
echo "GUEST ready size=$size"
while :; do
    for d in /dev/vd[b-z]; do
        case " $known " in *" $d "*) continue ;; esac
        [ -b $d ] || continue
        echo "from the guest" | dd of=$d conv=fsync,notrunc 2> /dev/null &&
            echo "GUEST new $d $(cat /sys/block/${d#/dev/}/serial)" && known="$known $d"
    done
    left=
    for d in $known; do
        if [ -b $d ]; then left="$left $d"; else echo "GUEST gone $d"; fi
    done
    known=$left
    now=$(cat /sys/block/vda/size)
    [ $now = $size ] || echo "GUEST size=$now"
    size=$now
    usleep 200000
done
END
chmod 755 "$root/init"
pack_root "$root" "$tmp/initrd"
truncate -s 16M "$tmp/disk.raw"

# ---- inside the machine with KVM ----

cat > "$tmp/job" <<END
set -eu
export VDISK_RUNTIME_DIR=/tmp/run PATH=$O:\$PATH
log=/tmp/log
fail() { echo "FAILED: \$*"; exit 1; }
trap '[ \$? = 0 ] || tail -n 40 \$log' EXIT
until_log() { # PATTERN [COUNT]
    for ((i = 0; i < 1200; i++)); do
        [ "\$(grep -c -- "\$1" \$log)" -ge "\${2:-1}" ] && return
        sleep 0.1
    done
    fail "no '\$1'"
}
cd /tmp
qemu-img create -q -f qcow2 disk.qcow2 16M
truncate -s 4M one.raw
qemu-img create -q -f qcow2 -b one.raw -F raw one.qcow2
# somebody who knows no way back to the guest's network
ip netns add far
ip link add name near type veth peer name far netns far
ip address add 10.77.0.1/24 dev near
ip link set dev near up
ip -n far address add 10.77.0.2/24 dev far
ip -n far link set dev far up
vdisk vm net nat vm0 | sh -e
vdisk vm net nat vm0 | sed '1,/^sysctl/d' | sh -e # a second time adds nothing
[ "\$(nft list ruleset | grep -c masquerade)" = 1 ] || fail "\$(nft list ruleset)"
vdisk vm net bridge br7 vm1 | sh -e
ip address add 10.88.0.1/24 dev br7
vdisk boot -q -m 192 --net tap:vm0,mac=52:54:00:12:34:56 --net bridge:br7 --kernel $kernel --initrd $tmp/initrd --append 'console=ttyS0 quiet' \\
    --fast-kernel --stats --name g disk.qcow2 > \$log 2>&1 < /dev/null &
pid=\$!
until_log 'GUEST ready size=32768'
for ((r = 1; r <= $rounds; r++)); do
    vdisk vm attach-disk --serial serial\$r g one.qcow2 > id
    until_log "GUEST new /dev/vdb serial\$r"
    vdisk vm detach-disk --wait 60 g serial\$r
    until_log 'GUEST gone /dev/vdb' \$r
done
qemu-img convert -O raw one.qcow2 out.raw
grep -aq '^from the guest' out.raw || fail 'the disk holds nothing'
qemu-img check -q one.qcow2
# a LUN, whose process cannot have the memory of a guest that was started without one
ip link set lo up
truncate -s 4M lun.raw
vdiskd export -q -p 127.0.0.1:3260 -n iqn.2026-11.test:lun lun.raw > target 2>&1 &
target=\$!
for ((i = 0; i < 600; i++)); do
    ! (: < /dev/tcp/127.0.0.1/3260) 2> /dev/null || break
    sleep 0.1
done
vdisk vm attach-disk --serial lun g iscsi://127.0.0.1/iqn.2026-11.test:lun/0 > id
until_log 'GUEST new /dev/vdb lun'
vdisk vm detach-disk --wait 60 g lun
until_log 'GUEST gone /dev/vdb' $((rounds + 1))
kill \$target
grep -aq '^from the guest' lun.raw || fail 'the LUN holds nothing'
vdisk vm resize-disk g disk0 24M
until_log 'GUEST size=49152'
vdisk vm limit g disk0 ops=1000
vdisk vm memory g 150M
for ((i = 0; i < 600; i++)); do
    [ "\$(vdisk vm show --json g | grep -o '"balloon": [0-9]*')" != '"balloon": 44040192' ] || break
    sleep 0.1
done
[ \$i -lt 600 ] || fail 'the balloon is not blown up'
vdisk vm memory g 192M
vdisk vm stats g > stats
vdisk vm list
vdisk vm stop --wait 60 g
rc=0
wait \$pid || rc=\$?
[ \$rc = 0 ] || fail "it ended with \$rc"
qemu-img check -q disk.qcow2
grep 'GUEST\\|vmm-lite' \$log | tr -d '\\r'
cat stats
END
rc=0
in_machine --modules 'kvm-amd tun veth bridge nft_chain_nat nft_masq' --mem 1024 --limit $((400 + rounds * 20)) -- bash "$tmp/job" \
    > "$tmp/out" 2>&1 || rc=$?
awk '/^rig: started again/ { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }' \
    "$tmp/out" > "$tmp/last" && mv "$tmp/last" "$tmp/out"
cat "$tmp/out"
[ $rc = 0 ] || fail "the machine ended with $rc"
! grep -q DAMAGED "$tmp/out" || fail 'what was read back is not what was written'
for word in 'ping 56' 'ping 1400' 'ping 9000' 'ping behind the host' 'ping in the bridge' 'mac 52:54:00:12:34:56'; do
    grep -qx "GUEST $word" "$tmp/out" || fail "no '$word'"
done
grep -qE 'GUEST power button, [1-9][0-9]* blocks compared' "$tmp/out" || fail 'no power button'
[ "$(grep -c 'GUEST gone' "$tmp/out")" = $((rounds + 1)) ] || fail 'rounds are missing'
