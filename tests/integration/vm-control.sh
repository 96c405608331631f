#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Running guests: named, listed, shown, given disks, resized, reset, killed; a
# dead one is shown as dead.  The guest has no operating system and spins.
. "$(dirname "$0")/../functions.sh"
requires gcc ld objcopy python3 qemu-img qemu-io
"$O/vmm-lite" --check --force > /dev/null 2>&1 || skip 'no usable /dev/kvm'

"$TOP/tests/tools/ring3/build" main.c "$tmp/guest"
export VDISK_RUNTIME_DIR=$tmp/run
vm() { "$VDISK" vm "$@"; }
field() { python3 -c 'import json, sys; print(eval(sys.argv[1], {"j": json.load(sys.stdin)}))' "$1"; }

truncate -s 4M "$tmp/web.raw" "$tmp/base.raw"
qemu-img create -q -f qcow2 -b base.raw -F raw "$tmp/more.qcow2"
boot() { # boot LOG OPTION...
    start "$VDISK" boot --format raw --force -m 64 --kernel "$tmp/guest" --append spin "${@:2}" \
        "$tmp/web.raw" < /dev/null > "$1" 2>&1
}

# nobody else may put another directory in place of that of the sockets
mkdir "$tmp/open"
chmod 777 "$tmp/open"
VDISK_RUNTIME_DIR=$tmp/open expect 1 timeout 60 "$VDISK" vm show web
like_output 'only you can write to'
expect 0 vm list
[ -z "$output" ] || fail "guests before there are any: $output"
boot "$tmp/log"
boot_pid=$started
wait_for 20 vm show web
[ "$(stat -c '%a %a' "$tmp/run/vm" "$tmp/run/vm/web.sock" | tr '\n' ' ')" = '700 700 600 600 ' ] ||
    fail 'others may reach the socket'
vm list | grep -qE '^web +running +[0-9]+ +64M +1 .*/web.raw$' || fail "list: $(vm list)"
[ "$(vm list --json | field 'j["guests"][0]["disks"][0]["bytes"]')" = 4194304 ]
vmm=$(vm show --json web | field 'j["pid"]')
grep -q vmm-lite "/proc/$vmm/cmdline"

# at most 6 MiB beyond the guest's own memory
if [ -r "/proc/$vmm/smaps" ]; then
    kib=$(awk '/^Size:/ { size = $2 } /^Rss:/ && size != 64 * 1024 { n += $2 } END { print n }' \
        "/proc/$vmm/smaps")
    echo "$kib KiB beyond the guest's memory"
    [ "$kib" -le 6144 ] || fail "the monitor takes $kib KiB"
fi

# it is the first process of a namespace of its own, and can see no other; the process
# before it waits for it, with no descriptor but the terminal's, and can do nothing else
keeper=$(awk '/^PPid:/ { print $2 }' "/proc/$vmm/status")
[ "$(vm show --json web | field 'j["sandbox"]["pid"]')" = True ] || fail 'no process-id namespace'
grep -qE '^NSpid:[[:space:]]+[0-9]+[[:space:]]+1$' "/proc/$vmm/status" || fail "not the first process"
[ "$(readlink "/proc/$vmm/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] || fail 'our namespace'
[ "$(readlink "/proc/$keeper/ns/pid")" = "$(readlink /proc/self/ns/pid)" ] || fail 'a keeper in there'
[ "$(ls "/proc/$keeper/fd" | tr '\n' ' ')" = '0 1 2 ' ] || fail "the keeper has $(ls -l "/proc/$keeper/fd")"
for p in "$vmm" "$keeper"; do
    grep -qE '^Seccomp:[[:space:]]+2$' "/proc/$p/status" || fail "process $p is not filtered"
done

# without root, where /dev/kvm is accessible
as_nobody() { setpriv --reuid 65534 --regid 65534 --groups "$(stat -c %g /dev/kvm)" "$@"; }
if [ "$(id -u)" = 0 ] && as_nobody test -x "$O/vmm-lite" -a -w /dev/kvm; then
    mkdir "$tmp/nobody"
    cp "$tmp/guest" "$tmp/base.raw" "$tmp/nobody"
    chown -R 65534:65534 "$tmp/nobody"
    chmod 711 "$tmp"
    expect 19 as_nobody env "VDISK_RUNTIME_DIR=$tmp/nobody/run" "$VDISK" boot --format raw --force -m 64 \
        --kernel "$tmp/nobody/guest" --append spin --time-limit 2 "$tmp/nobody/base.raw"
fi

# a guest that is stopped does not answer, and that does not stop us
kill -STOP "$vmm"
expect 0 timeout 60 "$VDISK" vm list
like_output '^web +silent'
expect 1 timeout 60 "$VDISK" vm show web
like_output "'web' does not answer"
kill -CONT "$vmm"
wait_for 20 vm show web

# the same name again, and bad ones
expect 1 "$VDISK" boot --format raw --force --kernel "$tmp/guest" --name web "$tmp/base.raw"
like_output "'web' is running already"
expect 2 "$VDISK" boot --format raw --force --kernel "$tmp/guest" --name a.b "$tmp/base.raw"
like_output 'no dots'
expect 1 vm show nobody
like_output "no guest 'nobody'"

expect 1 "$O/vmm-lite" --force --kernel "$tmp/guest" --disk "$tmp/base.raw" --format raw --backing "$tmp/d3"
like_output 'raw images are on top of nothing'

# one that takes no connections holds nobody up
start python3 -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(0)
c = [socket.socket(socket.AF_UNIX) for _ in range(3)]
for k in c: k.setblocking(False); k.connect_ex(sys.argv[1])
open(sys.argv[2], "w"); time.sleep(100)' "$tmp/run/vm/full.sock" "$tmp/is-full"
wait_for 20 test -e "$tmp/is-full"
expect 1 timeout 20 "$VDISK" boot --format raw --force --kernel "$tmp/guest" --name full "$tmp/base.raw"
like_output "'full' is running already"
expect 1 timeout 20 "$VDISK" vm show full
like_output "does not answer"
vm list | grep -qE '^full +silent' || fail "$(vm list)"
kill "$started"
rm "$tmp/run/vm/full.sock"

# its console, from the beginning, in two places
wait_for 10 grep -q 'ring 3' "$tmp/log"
timeout 1 "$VDISK" vm console web < /dev/null > "$tmp/console" || true
grep -q 'ring 3' "$tmp/console" || fail 'the console has forgotten'

# one more disk: a chain of files that the guest's process does not open
expect 0 vm attach-disk web "$tmp/more.qcow2" --serial more
[ "$output" = disk1 ]
expect 1 qemu-io -c quit "$tmp/more.qcow2" # it is in use
expect 1 vm attach-disk web "$tmp/more.qcow2"
[ "$(vm show --json web | field '[d["format"] for d in j["disks"]]')" = "['raw', 'qcow2']" ]
expect 1 vm attach-disk web "$tmp/missing"
expect 2 vm attach-disk web "$tmp/base.raw" --serial 'much-too-long-for-a-serial-number'
expect 0 vm attach-disk -r -f raw web "$tmp/base.raw"
for ((i = 3; i < 27; i++)); do # every slot
    truncate -s 1M "$tmp/d$i"
    vm attach-disk -f raw web "$tmp/d$i" > "$tmp/ids" 2>&1 || break
done
[ "$i" -gt 20 ] && [ "$i" -lt 27 ] || fail "$i disks fit"
grep -q 'has 24 disks already' "$tmp/ids" || fail "$(cat "$tmp/ids")"

# this guest does not give it back
expect 1 vm detach-disk --wait 1 web more
like_output 'has not given more back'
expect 1 vm detach-disk web nothing

# resized, but not cut off by mistake
expect 0 vm resize-disk web disk0 +2M
expect 1 vm resize-disk web none +2M
like_output "no disk 'none'"
expect 1 vm resize-disk web disk0 7000000
like_output 'multiple of 512'
[ "$(stat -c %s "$tmp/web.raw")" = 6291456 ]
expect 0 vm resize-disk web more 8M
expect 1 vm resize-disk web disk0 4M
expect 0 vm resize-disk --shrink web disk0 4M
[ "$(vm show --json web | field '[d["bytes"] for d in j["disks"]][:2]')" = '[4194304, 8388608]' ]
truncate -s 3M "$tmp/d5" # by somebody else
grown() { [ "$(vm show --json web | field '[d["bytes"] for d in j["disks"] if d["id"] == "disk5"]')" = '[3145728]' ]; }
wait_for 20 grown
vm stats web | grep -q '"exits"'
expect 0 vm limit web disk0 bytes=1M,ops=50
expect 2 vm limit web disk0 sometimes

# a reset in the launcher's hands starts it again, the socket stays; so do the disks
# (but for the one that was to leave), with what was changed about them
expect 0 vm limit web disk2 ops=50,burst=250
expect 0 vm show web
like_output 'disk2 .*\(limits ops=50,burst=250\)'
vm detach-disk --wait 0 web disk4
disks() { vm show --json web | field '[d for d in j["disks"] if not d["leaving"]]'; }
before=$(disks)
grep -q "'ops=50,burst=250'" <<< "$before" || fail "no limits: $before"
expect 0 vm reset web
again() { [ "$(grep -c 'ring 3' "$tmp/log")" = 2 ]; }
wait_for 20 again
wait_for 20 vm show web
[ "$(disks)" = "$before" ] || fail "disks before the reset: $before, and after: $(disks)"
expect 1 qemu-io -f raw -c 'write 0 512' "$tmp/d5" # still in use
expect 0 vm attach-disk -f raw web "$tmp/d4" # this one is free
vm detach-disk --wait 0 web disk0
expect 0 vm reset web
thrice() { [ "$(grep -c 'ring 3' "$tmp/log")" = 3 ]; }
wait_for 20 thrice
wait_for 20 vm show web
[ "$(vm show --json web | field '(len(j["disks"]), j["disks"][-1]["locator"])')" = \
    "(22, '$tmp/d4')" ] || fail "after two resets: $(vm show web)"

# words that are no requests
python3 - "$tmp/run/vm/web.sock" <<'PY'
import json, socket, sys, os
def ask(data, fds=()):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10)
    if fds: socket.send_fds(s, [data], fds)
    elif data: s.sendall(data)
    return s
def answer(s):
    got = b''
    while not got.endswith(b'\n'):
        part = s.recv(4096)
        if not part: return None
        got += part
    return json.loads(got.splitlines()[0])
for bad in b'\n', b'[]\n', b'{"do":"show"}\n', b'{"vdisk-vm":2,"do":"show"}\n', b'{"vdisk-vm":1}\n', \
        b'{"vdisk-vm":1,"do":"dance"}\n', b'{"vdisk-vm":1,"do":"show","do":"kill"}\n', b'\xff\xfe\n', \
        b'{"vdisk-vm":1,"do":"attach-disk","locator":"x","files":["x"]}\n', \
        b'{"vdisk-vm":1,"do":"attach-disk","locator":"x","files":[1]}\n', b'[' * 5000 + b'\n':
    a = answer(ask(bad))
    assert a and a['ok'] is False and a['error'], (bad, a)
# a file that was not passed is not opened, one that was passed is not left open
r = open(os.devnull)
null = open('/etc/passwd')
a = answer(ask(b'{"vdisk-vm":1,"do":"attach-disk","locator":"/etc/shadow","format":"raw","files":["x"]}\n', [null.fileno()]))
assert a['ok'] is False and 'not among' in a['error'], a
# in pieces; two at once; too long; too many clients
s = ask(b'{"vdisk-vm":1,'); s.sendall(b'"do":"show"}\n{"vdisk-vm":1,"do":"show"}\n'); assert answer(s)['ok']
s = ask(b'x' * 65536); assert answer(s) is None
many = [ask(b'') for _ in range(20)]
for s in many: s.close()
assert answer(ask(b'{"vdisk-vm":1,"do":"show"}\n'))['ok']
PY

# unplugged, from here; its process killed, from elsewhere
expect 0 vm kill web
rc=0
wait "$boot_pid" || rc=$?
[ $rc = 20 ] || fail "killed, it ended with $rc"
expect 1 vm show web
[ -z "$(ls "$tmp/run/vm")" ] || fail "left: $(ls "$tmp/run/vm")"
boot "$tmp/log2" --name second
wait_for 20 vm show second
kill -9 "$started" # the launcher: its guest goes too, and its files stay
gone() { ! output=$(vm show second 2>&1) && grep -q 'dead' <<< "$output"; }
wait_for 20 gone
vm list | grep -qE '^second +dead' || fail "$(vm list)"
expect 0 vm kill second
[ -z "$(vm list)" ] || fail "forgotten, but there: $(vm list)"

# what runs the guest opens no path: disks, KVM, kernel and the layer for what is
# thrown away were open when it began
if command -v strace > /dev/null && strace -qq true 2> /dev/null; then
    expect 19 strace -f -qq -e trace=execve,open,openat -o "$tmp/trace" "$VDISK" boot --force -m 64 \
        --kernel "$tmp/guest" --append spin --time-limit 2 --snapshot --disk "$tmp/base.raw" "$tmp/more.qcow2"
    sed -n '\|execve("[^"]*/vmm-lite", \["[^"]*", "--memory"|,$p' "$tmp/trace" > "$tmp/opens"
    [ -s "$tmp/opens" ] || fail "vmm-lite was not started: $(cat "$tmp/trace")"
    if grep -E 'open(at)?\(' "$tmp/opens" | grep -v ' = -1 ' |
        grep -vE '"(/usr)?/lib|"/etc/ld\.so|"[^"]*/libvdisk\.so|"/proc/self/(setgroups|uid_map|gid_map)"' \
            > "$tmp/paths"; then
        fail "it opened: $(cat "$tmp/paths")"
    fi
    [ "$(grep -c 'open(at)\?(\|openat(' "$tmp/opens")" -gt 3 ] || fail 'nothing was seen'
else
    echo 'no strace: not looked at what is opened'
fi
