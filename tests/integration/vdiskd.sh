#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdiskd with a configuration file: access lists, CHAP, portals, reload, notification.
. "$(dirname "$0")/../functions.sh"
requires iscsi-ls iscsi-inq qemu-img qemu-io python3 timeout

cd "$tmp"
chmod 755 .
t() { timeout 60 "$@"; }
port=$(free_port)
portal=127.0.0.1:$port

for f in open closed hidden late; do truncate -s 32M $f.img; done
chmod 666 ./*.img
printf 'the secret of alice\n' > alice
printf 'what the server knows\n' > server
chmod 640 alice server
[ "$(id -u)" != 0 ] || chown 0:65534 alice server	# nobody's group, for the reload

# configuration LINE...: conf, with these lines in the middle
configuration() {
    {
        echo "portal $portal"
        printf 'chap-user %s {\nsecret-file %s\n}\n' alice "$tmp/alice" server "$tmp/server"
        printf '%s\n' "$@"
        echo 'threads 2'
    } > conf
    chmod 644 conf
}
target_open="target iqn.2026-11.test:open {
    lun 0 $tmp/open.img
}"

# ---- what --check says
configuration "$target_open"
expect 0 vdiskd --check -c conf
like_output '1 portals, 1 targets, 1 LUNs: all right'
configuration "$target_open" 'target bad {' 'lun 0 /dev/null' '}'
expect 1 vdiskd --check -c conf
like_output '^vdiskd: conf:11: .bad. is not an iSCSI name'
expect 1 vdiskd -c conf
like_output 'conf:11:'
configuration 'target iqn.2026-11.test:x {' "lun 0 $tmp/none.img" "lun 1 $tmp/nor-this.img" '}'
expect 1 vdiskd --check -c conf
like_output "conf:9: .*none.img"
like_output "conf:10: .*nor-this.img"
expect 1 vdiskd --check -c missing
like_output 'missing'
chmod 646 conf
expect 1 vdiskd --check -c conf
like_output 'may write it'
chmod 644 alice
configuration "$target_open"
expect 1 vdiskd --check -c conf
like_output "conf:3: $tmp/alice: its mode is 0644"
chmod 640 alice
expect 2 vdiskd -c conf more
expect 0 vdiskd --help
like_output 'SIGHUP'

# ---- serving: access lists and CHAP
configuration "$target_open" \
    "target iqn.2026-11.test:closed {
        chap alice
        chap-mutual server
        lun 0 $tmp/closed.img
     }
     target iqn.2026-11.test:hidden {
        initiator iqn.2026-11.test:friend
        initiator iqn.2026-11.test:reader {
            read-only
        }
        lun 0 $tmp/hidden.img
        lun 1 $tmp/late.img {
            read-only
        }
        initiator iqn.2026-11.test:half {
            luns 1
        }
     }
     target iqn.2026-11.test:elsewhere {
        network 10.99.0.0/16
        redirect 10.99.0.1
     }
     target iqn.2026-11.test:moved {
        redirect $portal
     }"
# the service manager's socket
cat > manager.py <<'PY'
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('notify')
print('listening', flush=True)
while True:
    print(s.recv(1000).decode().replace('\n', ' '), flush=True)
PY
start python3 manager.py > notified
wait_for 20 grep -q listening notified
chmod 777 notify
NOTIFY_SOCKET=$tmp/notify start vdiskd -v -c conf 2> log
server=$started
wait_for 20 grep -q '^READY=1' notified

discover() { t iscsi-ls "iscsi://$portal/" -i "$1" 2>&1 | sort; }
[ "$(discover iqn.2026-11.test:any | grep -c Target:)" = 3 ] || fail "$(discover iqn.2026-11.test:any)"
[ "$(discover iqn.2026-11.test:friend | grep -c 'Target:.*:hidden')" = 1 ] || fail "friends see no hidden target"
! discover iqn.2026-11.test:any | grep -qE 'hidden|elsewhere' || fail "strangers see it"
url=iscsi://$portal/iqn.2026-11.test
expect 0 t iscsi-inq "$url:open/0"
expect 10 t iscsi-inq "$url:hidden/0"
like_output 'Status: Target not found'
expect 10 t iscsi-inq "$url:elsewhere/0"
like_output 'Status: Target not found'
expect 10 t iscsi-inq "$url:closed/0"
like_output 'Authentication failure'
expect 0 t iscsi-inq "iscsi://alice%the secret of alice@$portal/iqn.2026-11.test:closed/0"
expect 10 t iscsi-inq "iscsi://alice%the secret of alicE@$portal/iqn.2026-11.test:closed/0"
expect 10 t iscsi-inq "iscsi://bob%the secret of alice@$portal/iqn.2026-11.test:closed/0"
! grep -q 'secret of' log || fail 'a secret in the log'
grep -q 'CHAP of user "bob" failed' log || fail 'a failed login is not in the log'
# both ways: libiscsi checks what we answer
both() { LIBISCSI_CHAP_TARGET_USERNAME=server LIBISCSI_CHAP_TARGET_PASSWORD=$1 \
    t iscsi-inq "iscsi://alice%the secret of alice@$portal/iqn.2026-11.test:closed/0"; }
expect 0 both 'what the server knows'
expect 10 both 'what it does not know'

# LUNs and write protection by the initiator's name
as() { echo "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"iscsi\", \"transport\": \"tcp\", \"portal\": \"$portal\",
    \"target\": \"iqn.2026-11.test:hidden\", \"lun\": $2, \"initiator-name\": \"iqn.2026-11.test:$1\"}}"; }
t qemu-io -c 'write -P 7 0 64k' "$(as friend 0)" > out 2>&1 || fail "$(cat out)"
! t qemu-io -c 'write -P 8 0 64k' "$(as reader 0)" > out 2>&1 || fail "a reader may write"
t qemu-io -r -c 'read -P 7 0 64k' "$(as reader 0)" > out 2>&1 || fail "$(cat out)"
! t qemu-io -r -c 'read 0 64k' "$(as half 0)" > out 2>&1 || fail "LUN 0 is not for everyone"
t qemu-io -r -c 'read 0 64k' "$(as half 1)" > out 2>&1 || fail "$(cat out)"

# ---- nothing of the process can be read, and it is nobody
if ! grep -qE "__[at]san_init" <(nm "$(command -v vdiskd)" 2> nm.err); then
    status=$(cat /proc/"$server"/status)
    grep -q 'NoNewPrivs:.*1' <<< "$status" || fail "no_new_privs is not set"
    grep -q 'Seccomp:.*2' <<< "$status" || fail "no system call filter"
    ! grep -qE '^Uid:.*\b0\b' <<< "$status" || fail "still root"
    [ "$(id -u)" = 0 ] || ! cat /proc/"$server"/environ > out 2>&1 || fail "its memory is readable"
    grep -q 'Max core file size *0' /proc/"$server"/limits || fail "core dumps are possible"
fi

# ---- reload: a session that need not go stays
PYTHONPATH=$TOP/tests/lib python3 - "$portal" > session 2>&1 <<'PY' &
import iscsi, sys
iscsi.use(sys.argv[1], 'iqn.2026-11.test:open')
stay = iscsi.Session()
goes = iscsi.Session(name='iqn.2026-11.test:friend', to='iqn.2026-11.test:hidden')
print('logged in', flush=True)
goes.s.settimeout(60)
p = goes.recv()
assert p.op == 0x32 and p.bhs[36] == 1, p.bhs.hex()     # asked to log out
print('asked to go', flush=True)
goes.logout()
stay.alive()
stay.clear()
assert stay.read(0, 8) == bytes(4096)
print('still here', flush=True)
PY
session=$!
pids+=("$session")
wait_for 20 grep -q 'logged in' session
configuration "target iqn.2026-11.test:open {
        lun 0 $tmp/open.img
        lun 7 $tmp/late.img
     }"
kill -HUP "$server"
wait "$session" || fail "$(cat session log)"
grep -q 'still here' session || fail "$(cat session)"
reload_told() { sed '1,/^RELOADING=1 MONOTONIC_USEC=/d' notified | grep -q '^READY=1 STATUS=Serving$'; }
wait_for 20 reload_told
expect 0 t iscsi-ls -s "iscsi://$portal/"
like_output 'Lun:7'
expect 10 t iscsi-inq "$url:hidden/0"
[ "$(discover iqn.2026-11.test:friend | grep -c Target:)" = 1 ] || fail "what is gone is still told"

# a configuration that is wrong changes nothing
configuration "$target_open" 'nonsense'
kill -HUP "$server"
wait_for 20 grep -q 'not reloaded: conf:11: .nonsense' log
wait_for 20 grep -q 'STATUS=The last reload failed' notified
configuration "$target_open" 'target iqn.2026-11.test:more {' "lun 0 $tmp/none.img" '}'
kill -HUP "$server"
wait_for 20 grep -q 'not reloaded: conf:12: .*none.img' log
expect 0 t iscsi-ls -s "iscsi://$portal/"
like_output 'Lun:7'

# another way to serve the same disk, a LUN that goes, another portal
second=$(free_port)
configuration "portal 127.0.0.1:$second {
        group 2
    }
    target iqn.2026-11.test:open {
        group 2
        lun 0 $tmp/open.img {
            read-only
        }
    }"
kill -HUP "$server"
wait_for 20 t iscsi-inq "iscsi://127.0.0.1:$second/iqn.2026-11.test:open/0"
expect 10 t iscsi-inq "$url:open/0"
! t qemu-io -f raw -c 'write 0 4k' "iscsi://127.0.0.1:$second/iqn.2026-11.test:open/0" > out 2>&1 ||
    fail "written to although read-only"
expect 10 t iscsi-readcapacity16 "iscsi://127.0.0.1:$second/iqn.2026-11.test:open/7"
like_output LOGICAL_UNIT_NOT_SUPPORTED

# ---- a LUN says who it is, keeps reservations, and grows while it is used
grows() {
    configuration "state-directory $tmp/state
    target iqn.2026-11.test:open {
        lun 0 $tmp/open.img {
            serial DISK-7
            removable
            $1
        }
    }"
    kill -HUP "$server"
}
mkdir -m 777 state
grows ''
removable() { t iscsi-inq "$url:open/0" | grep -q 'Removable:1'; }
wait_for 20 removable
expect 0 t iscsi-inq -e 1 -c $((0x80)) "$url:open/0"
like_output 'DISK-7'
[ -e 'state/iqn.2026-11.test:open,0.pr' ] || fail "no file for reservations: $(ls state)"
PYTHONPATH=$TOP/tests/lib python3 - "$portal" > grows 2>&1 <<'PY' &
import iscsi, os, struct, sys, time
iscsi.use(sys.argv[1], 'iqn.2026-11.test:open')
s = iscsi.Session()
s.clear()
def blocks():
    s.command(bytes([0x25]).ljust(10, b'\0'), 8, read=True)
    return struct.unpack('>I', s.recv().data[:4])[0] + 1
print('blocks', blocks(), flush=True)
while not os.path.exists('grown'):
    time.sleep(0.05)
    s.alive()
sense = s.clear().data[2:]
assert sense[2] == 6 and sense[12:14] == b'\x2a\x09', sense.hex()     # capacity changed
print('blocks', blocks(), flush=True)
assert s.read(98303, 1) == bytes(512)
PY
grower=$!
pids+=("$grower")
wait_for 20 grep -q 'blocks 65536' grows
grows 'size 48M'
is_larger() { [ "$(stat -c %s open.img)" = $((48 << 20)) ] && ! grep -q RELOADING <(tail -1 notified); }
wait_for 20 is_larger
touch grown
wait "$grower" || fail "$(cat grows log)"
grep -q 'blocks 98304' grows || fail "$(cat grows)"
grows 'size 1M'
wait_for 20 grep -q 'more than .size. says' log
wait_for 20 grep -q 'in force, but not all of its LUNs' log
expect 0 t iscsi-inq "$url:open/0"

grows ''
wait_for 20 t iscsi-inq "$url:open/0"

# ---- grown from outside; a threshold; a way that is worse than another; a LUN that goes
PYTHONPATH=$TOP/tests/lib python3 - "$portal" "$server" > told 2>&1 <<'PY' || fail "$(cat told log)"
import iscsi, os, signal, struct, sys, time
iscsi.use(sys.argv[1], 'iqn.2026-11.test:open')
a, b = iscsi.Session(name='iqn.2026-11.test:a'), iscsi.Session(name='iqn.2026-11.test:b')
for s in a, b:
    while s.clear().bhs[3]:
        pass

def reload(old, new):
    text = open('conf').read()
    assert old in text, old
    open('conf', 'w').write(text.replace(old, new))
    os.kill(int(sys.argv[2]), signal.SIGHUP)

def told(s):
    """The next unit attention"""
    for _ in range(400):
        p = s.clear()
        if p.bhs[3]:
            assert p.data[4] == 6, p.data.hex()
            return p.data[14:16].hex()
        time.sleep(0.05)

def ask(s, cdb, n):
    s.command(cdb, n, read=True)
    p = s.recv()
    assert p.op == 0x25, p.data.hex()
    if not p.flags & 1:
        assert s.recv().bhs[3] == 0
    return p.data

def blocks(s):
    return struct.unpack('>I', ask(s, bytes([0x25]).ljust(10, b'\0'), 8)[:4])[0] + 1

# who asks for the capacity sees it; the other one is told
assert blocks(a) == 98304
os.truncate('open.img', 64 << 20)
assert blocks(a) == 131072
assert told(b) == '2a09' and blocks(b) == 131072
assert a.clear().bhs[3] == 0 and a.read(131071, 1) == bytes(512)
# at a reload, too; that one also sets the threshold
os.truncate('open.img', 80 << 20)
reload('removable', 'removable\nthreshold 50')
assert told(b) == '2a09' and told(a) == '2a09'
page = ask(a, bytes([0x1a, 8, 0x1c, 2, 255, 0]), 255)[4:]
assert page[16] == 0x80 and struct.unpack('>I', page[20:24])[0] == 40, page.hex()
# written to the half, it is reached: each is told once
for i in range(44):
    a.command(iscsi.write_cdb(i * 2048, 2048), 1 << 20, write=True)
    p = a.recv()
    while p.op == 0x31:
        a.data_out(p.itt, p.ttt, 0, p.offset, b'x' * p.residual)
        p = a.recv()
    assert p.bhs[3] == 0 or p.data[14:16] == b'\x38\x07', p.data.hex()
    if p.bhs[3]:
        break
else:
    assert told(a) == '3807'
assert told(b) == '3807'
assert a.clear().bhs[3] == 0 and b.clear().bhs[3] == 0
# implicit ALUA
reload('lun 0', 'access 1 standby\nlun 0')
assert told(a) == '2a06' and told(b) == '2a06'
groups = ask(a, bytes([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), 256)
assert groups[4] & 15 == 2 and groups[9] == 2, groups.hex()
a.command(struct.pack('>BBIBHB', 0x28, 0, 0, 0, 1, 0), 512, read=True)
assert a.recv().data[14:16] == b'\x04\x0b'
# an explicit state stays where the configuration says nothing new
a.command(bytes([0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]), 8, write=True, data=bytes([0, 0, 0, 0, 1, 0, 0, 1]))
assert a.recv().bhs[3] == 0
assert told(b) == '2a06'
reload('threshold 50', 'threshold 40')
for _ in range(400):
    page = ask(a, bytes([0x1a, 8, 0x1c, 2, 255, 0]), 255)[4:]
    if page[23] == 32:
        break
    time.sleep(0.05)
assert ask(a, bytes([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), 256)[4] & 15 == 1
reload('access 1 standby\n', '')
assert told(a) == '2a06' and told(b) == '2a06'
assert ask(a, bytes([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), 256)[4] & 15 == 0
# the LUN goes, and with it the file of its reservations
reload('lun 0', 'lun 9')
print('all told')
PY
forgotten() { [ ! -e 'state/iqn.2026-11.test:open,0.pr' ] && [ -e 'state/iqn.2026-11.test:open,9.pr' ]; }
wait_for 20 forgotten

# ---- limits
configuration "$target_open" 'limits {' 'failed-logins-per-minute 3' 'login-timeout 1' '}'
kill -HUP "$server"
wait_for 20 t iscsi-inq "$url:open/0"
python3 - "$portal" <<'PY'
import socket, sys
host, port = sys.argv[1].split(':')
s = socket.create_connection((host, int(port)), timeout=30)
assert s.recv(1) == b'', 'a login that does not come is not ended'
PY
for _ in 1 2 3; do expect 10 t iscsi-inq "$url:nothing/0"; done
expect 10 t iscsi-inq "$url:open/0"
grep -q 'connection refused: it tries or fails to log in too often' log || fail "no limit: $(cat log)"

# ---- the end
kill -TERM "$server"
got=0
wait "$server" || got=$?
[ "$got" = 0 ] || fail "vdiskd ended with $got: $(cat log)"
wait_for 20 grep -q '^STOPPING=1' notified

# ---- the unit file
if command -v systemd-analyze > /dev/null; then
    sed "s,@SBINDIR@,$O," "$TOP/packaging/vdiskd.service" > vdiskd.service
    expect 0 systemd-analyze verify --man=no ./vdiskd.service
    ! grep -q vdiskd.service <<< "$output" || fail "$output"
fi
