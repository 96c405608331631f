#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest on User-Mode Linux that runs: shown, given disks and relieved of them, resized,
# limited, reset, stopped, killed; its console in two places; its network card.
. "$(dirname "$0")/../functions.sh"
requires linux.uml busybox mke2fs qemu-img qemu-io python3 passt ip unshare

# in a network of its own, whose one route leads nowhere: what the guest reaches is this host
if [ -z "${VDISK_TEST_NET-}" ]; then
    unshare -rn true 2> /dev/null || skip 'no namespaces for us here'
    VDISK_TEST_NET=1 exec unshare -rn "$0"
fi
ip link set lo up
ip link add wire type veth peer end 2> /dev/null || ip tuntap add wire mode tap || skip 'no interface can be made'
ip address add 10.9.8.2/24 dev wire
ip link set wire up
ip link set end up 2> /dev/null || true
ip route add default via 10.9.8.1

guest_root "$tmp/root"
ln -s busybox "$root/bin/poweroff"
# says each time what disks there are, obeys its console, and powers off when it is told to
cat > "$root/sbin/init" <<'END'
#!/bin/busybox sh
bb=/bin/busybox
trap '$bb echo going down; $bb sync; $bb poweroff -f' USR2
$bb mount -o remount,rw /
$bb ifconfig lo up
$bb mount -t hostfs none /root -o / && echo "hostfs: $($bb ls /root)"
[ ! -d /sys/class/net/eth0 ] || {
    $bb ifconfig eth0 10.9.8.2 netmask 255.255.255.0 up
    $bb route add default gw 10.9.8.1
    echo "card $($bb cat /sys/class/net/eth0/address)"
}
echo "life"
(
    while read -r command; do
        case $command in
        fetch*) $bb wget -q -O - "${command#fetch }" ;;
        write*) $bb dd if=/dev/zero of="/dev/${command#write }" bs=64k count=4 conv=fsync 2>/dev/null && echo wrote ;;
        panic) echo c > /proc/sysrq-trigger ;;
        esac
    done
) < /dev/tty0 &
old=
while :; do
    now=
    for d in /sys/block/vd*; do
        now="$now ${d##*/}=$($bb cat "$d/size"):$($bb cat "$d/serial"):$($bb cat "$d/ro"):$($bb cat "$d/queue/logical_block_size")"
    done
    [ "$now" = "$old" ] || echo "disks$now."
    old=$now
    $bb sleep 0.1
done
END
chmod +x "$root/sbin/init"
truncate -s 32M "$tmp/web.raw"
mke2fs -q -t ext4 -d "$root" "$tmp/web.raw"
truncate -s 8M "$tmp/base.raw" "$tmp/plain"
qemu-img create -q -f qcow2 -b base.raw -F raw "$tmp/more.qcow2"
mkdir "$tmp/t" "$tmp/page"
export TMPDIR=$tmp/t VDISK_RUNTIME_DIR=$tmp/run
vm() { "$VDISK" vm "$@"; }
field() { python3 -c 'import json, sys; print(eval(sys.argv[1], {"j": json.load(sys.stdin)}))' "$1"; }
says() { grep -qE -- "$1" "$tmp/log"; }
left() { find "$tmp/run/vm" "$tmp/t" -mindepth 1; }
has_said() { wait_for 60 says "$1"; }

mkfifo "$tmp/keys"
exec 7<> "$tmp/keys"
"$VDISK" boot --engine uml -m 96 --net user,mac=52:54:00:00:08:01 "$tmp/web.raw,format=raw,serial=the-root" \
    < "$tmp/keys" > "$tmp/log" 2>&1 &
boot_pid=$!
pids+=("$boot_pid")
has_said '^disks vda=65536:the-root:0:512\.'
has_said '^card 52:54:00:00:08:01'
! says '^hostfs:' || fail "the guest sees files of this host: $(cat "$tmp/log")"
vm list | grep -qE '^web +running +[0-9]+ +96M +1 .*/web.raw$' || fail "list: $(vm list)"
[ "$(vm show --json web | field '(j["engine"], j["agent"], j["disks"][0]["format"])')" = "('uml', True, 'raw')" ] ||
    fail "show: $(vm show --json web)"
grep -aq linux.uml "/proc/$(vm show --json web | field 'j["pid"]')/cmdline" || fail 'not the kernel'

# its console, from the beginning; keys from there too
timeout 1 "$VDISK" vm console web < /dev/null > "$tmp/console" || true
grep -q '^life' "$tmp/console" || fail "the console has forgotten: $(cat "$tmp/console")"

# the network: through passt, as this host's user
echo 'hello from the host' > "$tmp/page/hello"
port=$(free_port)
start python3 -m http.server -d "$tmp/page" "$port" > "$tmp/http.log" 2>&1
wait_for 20 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
echo "fetch http://10.9.8.1:$port/hello" >&7
has_said '^hello from the host'

# one more disk, which the guest finds by itself; another size; limits; counters
expect 0 vm attach-disk web "$tmp/more.qcow2,serial=more,ops=1000"
[ "$output" = disk1 ] || fail "its id: $output"
has_said '^disks.* vdb=16384:more:0:512'
expect 1 qemu-io -c quit "$tmp/more.qcow2" # it is in use
expect 1 vm attach-disk web "$tmp/more.qcow2"
expect 2 vm attach-disk web "$tmp/plain,cache=foo"
expect 1 vm attach-disk web "$tmp/missing"
expect 0 vm attach-disk web "$tmp/plain,format=raw,block-size=4096,read-only"
has_said '^disks.* vdc=16384:vdisk2:1:4096'
expect 0 vm resize-disk web more 12M
has_said '^disks.* vdb=24576:more'
expect 1 vm resize-disk web more 4M
like_output "cut off"
truncate -s 16M "$tmp/plain" # by somebody else: it is seen, too
has_said '^disks.* vdc=32768:vdisk2'
echo 'write vdb' >&7
has_said '^wrote'
expect 0 vm limit web more bytes=4M
expect 2 vm limit web more sometimes
[ "$(vm show --json web | field '[d["limits"] for d in j["disks"]]')" = "['none', 'bytes=4194304,burst=100', 'none']" ] ||
    fail "limits: $(vm show --json web)"
[ "$(vm stats web | field '[d["written-bytes"] for d in j["disks"] if d["id"] == "disk1"][0]')" = 262144 ] ||
    fail "stats: $(vm stats web)"
expect 1 vm memory web 64M
like_output 'no balloon'

# a reset is a new life, with the same disks; then one is given back
expect 0 vm reset web
twice() { [ "$(grep -c '^life' "$tmp/log")" = 2 ]; }
wait_for 60 twice
wait_for 60 vm show web
[ "$(vm show --json web | field '[(d["id"], d["limits"]) for d in j["disks"]]')" = \
    "[('disk0', 'none'), ('disk1', 'bytes=4194304,burst=100'), ('disk2', 'none')]" ] || fail "$(vm show web)"
agent() { [ "$(vm show --json web | field 'j["agent"]')" = True ]; }
wait_for 60 agent
expect 0 vm detach-disk web more
expect 0 qemu-io -c 'read -P 0 0 256k' "$tmp/more.qcow2" # free, and as it was written
expect 1 vm detach-disk web more
# its place is another's
expect 0 vm attach-disk web "$tmp/more.qcow2,serial=again"
has_said '^disks.* vd.=24576:again'

# stopped, it goes down by itself
expect 0 vm stop web
rc=0
wait "$boot_pid" || rc=$?
[ $rc = 0 ] || fail "stopped, it ended with $rc: $(cat "$tmp/log")"
has_said 'going down'
expect 1 vm show web
expect 0 qemu-img check "$tmp/more.qcow2"
[ -z "$(left)" ] || fail "left: $(left)"

# killed, it does not; what User-Mode Linux has no use for is said
: > "$tmp/log"
start "$VDISK" boot --engine uml -m 96 -c 4 --name second --stats "$tmp/web.raw,format=raw" \
    --disk "$tmp/plain,format=raw,snapshot" < "$tmp/keys" > "$tmp/log" 2>&1
has_said '^life'
says 'has one processor, not 4' || fail "$(cat "$tmp/log")"
wait_for 60 vm show second
expect 0 vm kill second
rc=0
wait "$started" || rc=$?
[ $rc = 20 ] || fail "killed, it ended with $rc"
says 'disk0: reads [1-9]' || fail "no counters: $(cat "$tmp/log")"
expect 1 "$VDISK" boot --engine uml --huge-pages "$tmp/web.raw,format=raw"
like_output 'huge pages'
[ -z "$(left)" ] || fail "left: $(left)"
