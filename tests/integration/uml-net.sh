#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Network cards of a guest on User-Mode Linux: two tap devices and a bridge, in a network
# of their own.  Their addresses, and bytes both ways, also after a reset; what is refused.
. "$(dirname "$0")/../functions.sh"
requires linux.uml busybox mke2fs python3 ip unshare

if [ -z "${VDISK_TEST_NET-}" ]; then
    unshare -rn true 2> /dev/null || skip 'no namespaces for us here'
    VDISK_TEST_NET=1 exec unshare -rn "$0"
fi
ip link set lo up
for t in first second; do
    ip tuntap add dev "$t" mode tap 2> /dev/null || skip 'no tap device can be made'
    ip link set "$t" up
done
ip address add 10.9.1.1/24 dev first
ip address add 10.9.2.1/24 dev second
ip link add wire type bridge 2> /dev/null || skip 'no bridge can be made'
ip address add 10.9.3.1/24 dev wire
ip link set wire up

guest_root "$tmp/root"
cat > "$root/sbin/init" <<'END2'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -o remount,rw /
mount -t tmpfs tmp /tmp
ifconfig lo up
for n in 0 1 2; do
    ifconfig eth$n 10.9.$((n + 1)).2 netmask 255.255.255.0 up
    echo "card $n $(cat /sys/class/net/eth$n/address)."
done
echo "cards $(ls /sys/class/net | grep -c eth)."
dd if=/dev/urandom of=/tmp/big bs=64k count=64 2> /dev/null
httpd -h /tmp
echo "life $(md5sum < /tmp/big)"
while read -r command; do
    set -- $command
    case $1 in
    ping) ping -c 1 -w 20 "$2" > /tmp/ping && echo "pinged $2." || cat /tmp/ping ;;
    fetch) echo "fetched $2 $(wget -q -O - "$2" | md5sum)" ;;
    esac
done < /dev/tty0
END2
chmod +x "$root/sbin/init"
truncate -s 32M "$tmp/root.raw"
mke2fs -q -t ext4 -d "$root" "$tmp/root.raw"
mkdir "$tmp/t" "$tmp/page"
export TMPDIR=$tmp/t VDISK_RUNTIME_DIR=$tmp/run
vm() { "$VDISK" vm "$@"; }
says() { grep -qE -- "$1" "$tmp/log"; }
has_said() { wait_for 60 says "$1"; }
mkfifo "$tmp/keys"
exec 7<> "$tmp/keys"
: > "$tmp/log"

# ---- what is refused ----
expect 1 "$VDISK" boot --engine uml --net tap:nothing "$tmp/root.raw,format=raw"
like_output 'nothing: No such device'
like_output 'ip tuntap add dev nothing mode tap vnet_hdr'
expect 1 "$VDISK" boot --engine uml --net bridge:first "$tmp/root.raw,format=raw"
like_output 'first: '
expect 2 "$VDISK" boot --engine uml --net tap:first,mac=zz "$tmp/root.raw,format=raw"

# ---- three cards (of which each tap has 17 MiB of buffers in the guest) ----
"$VDISK" boot --engine uml -m 192 --name net --net tap:first,mac=52:54:00:00:01:01 --net bridge:wire \
    --net tap:second,mac=52:54:00:00:01:03 "$tmp/root.raw,format=raw,snapshot" < "$tmp/keys" > "$tmp/log" 2>&1 &
boot_pid=$!
pids+=("$boot_pid")
has_said '^life'
says '^cards 3\.' || fail "$(cat "$tmp/log")"
says '^card 0 52:54:00:00:01:01\.' && says '^card 1 52:54:00:[0-9a-f:]*\.' && says '^card 2 52:54:00:00:01:03\.' ||
    fail "$(cat "$tmp/log")"

ports() { ip -o link show master wire; }
[ "$(ports | grep -c ': vdisk[0-9]*:')" = 1 ] || fail "in the bridge: $(ports)"

# ---- both ways, by each: small packets; segments that are put together and taken apart ----
head -c 4M /dev/urandom > "$tmp/page/big"
sum=$(md5sum < "$tmp/page/big")
port=$(free_port)
start python3 -m http.server -d "$tmp/page" "$port" > "$tmp/http.log" 2>&1
wait_for 20 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
life() { sed -n 's/^life \([0-9a-f]*\).*/\1/p' "$tmp/log" | tail -n 1; }
both_ways() {
    local n
    for n in 1 2 3; do
        echo "ping 10.9.$n.1" >&7
        has_said "^pinged 10.9.$n.1\\."
        echo "fetch http://10.9.$n.1:$port/big" >&7
        has_said "^fetched http://10.9.$n.1:$port/big ${sum%% *}"
        [ "$(python3 -c "import urllib.request as r; import sys; sys.stdout.buffer.write(r.urlopen('http://10.9.$n.2/big').read())" |
            md5sum | cut -d ' ' -f 1)" = "$(life)" ] || fail "by card $n another file arrived"
    done
}
both_ways

# ---- the next life has the same ----
expect 0 vm reset net
cp "$tmp/log" "$tmp/first"
: > "$tmp/log"
has_said '^life'
cards() { sed -n 's/^card \([0-9a-f: ]*\)\..*/\1/p' "$1"; }
[ "$(cards "$tmp/log")" = "$(cards "$tmp/first")" ] || fail "other cards: $(cat "$tmp/first" "$tmp/log")"
both_ways

# ---- another guest's card has an address of its own; the tap devices are in use ----
expect 1 "$VDISK" boot --engine uml --name other --net tap:first "$tmp/root.raw,format=raw,snapshot"
like_output 'first: Device or resource busy'
expect 0 vm kill net
rc=0
wait "$boot_pid" || rc=$?
[ $rc = 20 ] || fail "killed, it ended with $rc"
[ -z "$(ports)" ] || fail "left in the bridge: $(ports)"
"$VDISK" boot --engine uml -m 192 --name other --net tap:first --net bridge:wire --net tap:second "$tmp/root.raw,format=raw,snapshot" \
    < "$tmp/keys" > "$tmp/log" 2>&1 &
boot_pid=$!
pids+=("$boot_pid")
has_said '^life'
[ "$(cards "$tmp/first" | sed -n 2p)" != "$(cards "$tmp/log" | sed -n 2p)" ] || fail "two guests, one address: $(cat "$tmp/log")"
[ "$(cards "$tmp/log" | cut -d ' ' -f 2 | sort -u | wc -l)" = 3 ] || fail "two cards, one address: $(cat "$tmp/log")"
expect 0 vm kill other
rc=0
wait "$boot_pid" || rc=$?
[ -z "$(find "$tmp/run/vm" "$tmp/t" -mindepth 1)" ] || fail "left: $(find "$tmp/run/vm" "$tmp/t" -mindepth 1)"
