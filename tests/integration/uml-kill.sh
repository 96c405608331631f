#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The disks' processes of a guest on User-Mode Linux are killed, under a load that verifies
# what it wrote: the guest sees no error, and what the images hold is what it wrote.  And
# what happens where a disk cannot be had again.
. "$(dirname "$0")/../functions.sh"
requires linux.uml busybox fio mke2fs e2fsck qemu-img python3

kills=8
[ -z "${LONG:-}" ] || kills=50

guest_root "$tmp/root"
"$TOP/tests/tools/small-fio" "$root"
cat > "$root/sbin/init" <<'END2'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -o remount,rw /
mount -t tmpfs tmp /tmp
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
trap 'echo going down; sync; poweroff -f' USR2
echo "life $(cat /sys/block/vdb/queue/write_cache)"
# each round: files on the root, random blocks of all sizes on the other disk, and what was
# written is read back past the caches
load() {
    n=0
    while [ ! -e /tmp/stop ]; do
        n=$((n + 1))
        dd if=/dev/urandom of=/root/f$((n % 4)) bs=64k count=12 conv=fsync 2> /dev/null || echo "FAILED write"
        md5sum /root/f$((n % 4)) > /tmp/sum
        echo 3 > /proc/sys/vm/drop_caches
        md5sum -c -s /tmp/sum || echo "FAILED what was written is not what is read"
        fio --name=load --filename=/dev/vdb --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \
            --bssplit=512/10:4k/40:12k/20:64k/30 --verify=crc32c --verify_fatal=1 --verify_backlog=32 --thread \
            --size=2m --offset=$((n % 8 * 2))m --randseed=$n --eta=never --output=/tmp/out || {
            echo "FAILED fio"
            cat /tmp/out; dmesg | tail -n 20
        }
        echo "round $n."
    done
    echo "rounds $n errors $(dmesg | grep -ci 'i/o error')."
    echo "digest $(md5sum /dev/vdb)"
    cp /tmp/sum /root/sum
    sync
    echo "saved"
}
while read -r command; do
    case $command in
    load) rm -f /tmp/stop; load & ;;
    stop) touch /tmp/stop ;;
    size) echo "size $(cat /sys/block/vdb/size)" ;;
    # a header that makes another image of a disk that is looked at again
    header) printf 'QFI\373\0\0\0\3' | dd of=/dev/vdb bs=512 conv=notrunc,fsync,sync 2> /dev/null && echo "header" ;;
    look) dd if=/dev/vdb bs=512 count=1 iflag=direct 2> /dev/null | grep -q QFI && echo "still there" || echo "not there" ;;
    read*) set -- $command; dd if=/dev/$2 of=/dev/null bs=4k count=1 iflag=direct 2> /dev/null && echo "can read" || echo "cannot read" ;;
    esac
done < /dev/tty0
END2
chmod +x "$root/sbin/init"
truncate -s 96M "$tmp/root.raw"
mke2fs -q -t ext4 -d "$root" "$tmp/root.raw"
qemu-img create -q -f qcow2 "$tmp/data.qcow2" 16M
mkdir "$tmp/t"
export TMPDIR=$tmp/t VDISK_RUNTIME_DIR=$tmp/run
vm() { "$VDISK" vm "$@"; }
show() { vm show --json killed | python3 -c 'import json, sys; print(eval(sys.argv[1], {"d": json.load(sys.stdin)["disks"]}))' "$1"; }
says() { grep -qE -- "$1" "$tmp/log"; }
has_said() { wait_for "${2:-60}" says "$1"; }
says_times() { [ "$(grep -c -- "$1" "$tmp/log")" -ge "$2" ]; }
left() { find "$tmp/run/vm" "$tmp/t" -mindepth 1; }
# stopped STATUS: the guest, asked to power off, ends so, and leaves a file system that is whole
stopped() {
    local rc=0
    expect 0 vm stop killed
    wait "$boot_pid" || rc=$?
    [ $rc = "$1" ] || fail "stopped, it ended with $rc: $(cat "$tmp/log")"
    [ -z "$(left)" ] || fail "left: $(left)"
    expect 0 e2fsck -fn "$tmp/root.raw"
}

# kill DISK: its process, once there is one
process_of() { show "d[$1][\"process\"]"; }
another_than() { local p; p=$(process_of "$1") && [ "$p" != "$2" ] && [ "$p" != 0 ]; }
kill_disk() {
    another_than "$1" 0 || wait_for 60 another_than "$1" 0
    pid=$(process_of "$1")
    kill -9 "$pid"
    wait_for 60 another_than "$1" "$pid"
}

mkfifo "$tmp/keys"
exec 7<> "$tmp/keys"
# run OPTION...: a guest, in the background
run() {
    : > "$tmp/log"
    "$VDISK" boot --engine uml -m 128 --name killed "$@" < "$tmp/keys" > "$tmp/log" 2>&1 &
    boot_pid=$!
    pids+=("$boot_pid")
    has_said '^life'
}

run "$tmp/root.raw,format=raw" --disk "$tmp/data.qcow2,ops=100000"
expect 0 vm limit killed disk1 ops=50000
echo load >&7
has_said '^round 1\.' 120
for ((i = 0; i < kills; i++)); do
    sleep 0.$((RANDOM % 5))
    kill_disk $((i % 2))
    # more than some in a row would be a crash loop
    [ $((i % 30)) != 29 ] || sleep 6
done
echo stop >&7
has_said '^saved' 120
sed -n '/^FAILED/,$p' "$tmp/log" | grep . && fail 'the guest has seen an error'
says '^rounds .* errors 0\.' || fail "$(cat "$tmp/log")"
[ "$(grep -c 'ended by signal 9, and is started again' "$tmp/log")" = "$kills" ] || fail "$(cat "$tmp/log")"
[ "$(show '(d[0]["restarts"], d[1]["restarts"], d[1]["limits"])')" = "($((kills / 2)), $((kills / 2)), 'ops=50000,burst=100')" ] ||
    fail "$(vm show --json killed)"
vm list | grep -qE '^killed +running ' || fail "$(vm list)"
[ "$(vm stats killed | python3 -c 'import json, sys; print([s["errors"] for s in json.load(sys.stdin)["disks"]])')" = '[0, 0]' ] ||
    fail "$(vm stats killed)"

# what asks its process has the new one: a size, which the guest sees; and it is written out
expect 0 vm resize-disk killed disk1 20M
echo size >&7
has_said '^size 40960'
stopped 0
expect 0 "$VDISK" cat "$tmp/root.raw:/root/sum"
sum=$output
[ "${sum%% *}" = "$("$VDISK" cat "$tmp/root.raw:${sum##* }" | md5sum | cut -d ' ' -f 1)" ] || fail "not what was written: $sum"
expect 0 qemu-img check -r leaks "$tmp/data.qcow2" # what was allocated may have been lost
expect 0 qemu-img check "$tmp/data.qcow2"
qemu-img convert -O raw "$tmp/data.qcow2" "$tmp/data.raw"
grep -q "^digest $(head -c 16M "$tmp/data.raw" | md5sum | cut -d ' ' -f 1) " "$tmp/log" || fail 'the image is not what the guest has seen'

# ---- one that cannot be had again fails, and that is told; the guest goes on ----
run "$tmp/root.raw,format=raw" --disk "$tmp/data.qcow2" --disk "$tmp/data.raw,format=raw,snapshot"
echo load >&7
has_said '^round 1\.' 120
# one that dies again and again
for ((i = 0; i < 40; i++)); do
    ! says 'data.qcow2: the guest has lost this disk' || break
    pid=$(process_of 1)
    [ "$pid" = 0 ] || kill -9 "$pid" 2> /dev/null || true
    sleep 0.05
done
has_said 'data.qcow2: the guest has lost this disk'
has_said '^FAILED fio'
# a throw-away layer died with its process
kill -9 "$(process_of 2)"
has_said 'data.raw: the guest has lost this disk'
echo stop >&7
has_said '^saved' 120
echo read vdc >&7
has_said '^cannot read'
[ "$(show '[(x["lost"], x["process"]) for x in d[1:]]')" = '[(True, 0), (True, 0)]' ] || fail "$(vm show --json killed)"
vm show killed | grep -q 'data.raw .*(lost' || fail "$(vm show killed)"
[ "$(show 'd[0]["lost"]')" = False ] || fail "$(vm show --json killed)"
expect 0 vm detach-disk killed disk2
gone() { [ "$(show 'len(d)')" = 2 ]; }
wait_for 30 gone
# what was written could not all be kept: that is no success
stopped 1

# ---- what is raw stays raw, whatever the guest has written into it: when its process dies, and
# ---- in the guest's next life (into one that was only found raw it may not write that)
truncate -s 1M "$tmp/plain"
run "$tmp/root.raw,format=raw" --disk "$tmp/plain,format=raw"
echo header >&7
has_said '^header'
kill_disk 1
echo look >&7
has_said '^still there'
expect 0 vm reset killed
twice() { says_times '^life' 2; }
wait_for 60 twice
echo look >&7
still() { says_times '^still there' 2; }
wait_for 30 still
expect 0 vm kill killed
rc=0
wait "$boot_pid" || rc=$?
[ $rc = 20 ] || fail "killed, it ended with $rc"
