#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A secret in a locator is on no command line but the one that was typed, and there only
# until the program runs: every program that we start is looked at as it starts and as
# it runs; nor is it in the names of mounts, in listings or in what a guest's socket says.
. "$(dirname "$0")/../functions.sh"
requires python3 timeout strace

cd "$tmp"
chmod 755 .
export VDISK_ISCSI_INITIATOR=iqn.2026-11.test:me VDISK_RUNTIME_DIR=$tmp/run
unset VDISK_ISCSI_USER VDISK_ISCSI_SECRET VDISK_ISCSI_SECRET_FILE
secret=open-sesame-1001
port=$(free_port)
"$VDISK" create -q -f raw lun.img 8M
"$VDISK" mkfs -q -y lun.img > mkfs.out 2>&1 || fail "$(cat mkfs.out)"
"$VDISK" create -q -f raw own.img 1M
chmod 666 lun.img
echo "$secret" > alice
chmod 600 alice
[ "$(id -u)" != 0 ] || { chown 0:65534 alice; chmod 640 alice; }
cat > conf <<END
portal 127.0.0.1:$port
chap-user alice {
secret-file $tmp/alice
}
target iqn.2026-11.test:closed {
    chap alice
    lun 0 $tmp/lun.img
}
END
start "$O/vdiskd" -c conf 2> vdiskd.log
wait_for 30 python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
lun=iscsi://alice%$secret@127.0.0.1:$port/iqn.2026-11.test:closed/0

# ---- what the programs are: each line of strace is a start; the first is what was typed
traced() { strace -f -q -o trace -e trace=execve -s 4096 "$@"; }
no_secret_started() {
    grep -q execve trace || fail "nothing was traced"
    ! tail -n +2 trace | grep -q "$secret" || fail "$1: $(tail -n +2 trace | grep "$secret")"
}
# all that run now; the one who typed it, its shell and strace are no programs of ours
no_secret_runs() {
    python3 - "$secret" <<'END' || fail "$1: the secret is on a command line"
import glob, os, sys
bad = 0
for name in glob.glob('/proc/[0-9]*/cmdline'):
    try:
        line, program = open(name, 'rb').read(), os.readlink(os.path.dirname(name) + '/exe')
    except OSError:
        continue
    if sys.argv[1].encode() in line and os.path.basename(program) in (
            'vdisk', 'vdiskd', 'vdisk-vhost', 'vmm-lite', 'vmm-uml'):
        print(program, line)
        bad = 1
sys.exit(bad)
END
}
up() { wait_for 30 "$@"; }

# stop PATTERN: the program whose command line that is; strace ends with it
stop() {
    pkill -TERM -f "^vdisk.*$1" || fail "no $1 runs"
    { wait "$started" || true; } 2> /dev/null
}

start traced "$VDISK" export -q --vhost-user "$tmp/vhost.sock" "$lun"
up test -S vhost.sock
no_secret_runs 'export --vhost-user'
stop "$tmp/vhost.sock"
no_secret_started 'export --vhost-user'
grep -q 'vdisk-vhost.*iscsi://alice@' trace || fail "no disk's process: $(cat trace)"

again=$(free_port)
start traced "$VDISK" export -q --iscsi "127.0.0.1:$again" --iqn iqn.2026-11.test:again "$lun"
up python3 -c "import socket; socket.create_connection(('127.0.0.1', $again))"
no_secret_runs 'export --iscsi'
stop "export.*:$again"
no_secret_started 'export --iscsi'

if [ -e /dev/fuse ]; then
    mkdir mnt
    if "$VDISK" mount -q "$lun" mnt 2> mount.err; then
        grep "$secret" /proc/mounts > shown || true
        no_secret_runs mount
        expect 0 "$VDISK" umount mnt
        [ ! -s shown ] || fail "$(cat shown)"
    else
        grep -q 'fuse' mount.err || fail "$(cat mount.err)"
    fi
fi

# ---- guests: disks at the start and later, on KVM and on User-Mode Linux
if "$O/vmm-lite" --check --force > /dev/null 2>&1; then
    "$TOP/tests/tools/ring3/build" main.c "$tmp/guest"
    start traced "$VDISK" boot --force --name one --format raw -m 64 --kernel guest.bz \
        --append spin "$lun" < /dev/null > one.out 2>&1
    up "$VDISK" vm show one
    no_secret_runs boot
    expect 0 "$VDISK" vm show --json one
    ! grep -q "$secret" <<< "$output" || fail "$output"
    ! grep -rq "$secret" run || fail "in the runtime directory: $(grep -r "$secret" run)"
    expect 0 "$VDISK" vm kill one
    { wait "$started" || true; } 2> /dev/null
    no_secret_started boot
    grep -q 'vmm-lite' trace && grep -q 'vdisk-vhost' trace || fail "$(cat trace)"

    start "$VDISK" boot --force --name two --format raw -m 64 --kernel guest.bz \
        --append spin own.img < /dev/null > two.out 2>&1
    up "$VDISK" vm show two
    # it ends when the guest does, as what it starts does
    start traced "$VDISK" vm attach-disk two "$lun"
    attached() { "$VDISK" vm show two | grep -q closed; }
    up attached
    no_secret_runs attach-disk
    expect 0 "$VDISK" vm show --json two
    ! grep -q "$secret" <<< "$output" || fail "$output"
    expect 0 "$VDISK" vm kill two
    wait "$started" || fail "attach-disk"
    no_secret_started attach-disk
    grep -q 'vdisk-vhost' trace || fail "$(cat trace)"
fi
if command -v linux.uml > /dev/null; then
    traced "$O/vmm-uml" --kernel "$(command -v linux.uml)" --initrd fd:8 --disk "$lun" --time-limit 2 \
        8< /dev/null < /dev/null > uml.out 2>&1 || true
    no_secret_started vmm-uml
    grep -q 'vdisk-vhost' trace || fail "$(cat trace)"
fi

# ---- what is handed over is the command line's own, or nothing
exec 9< <(printf 'vdisk\0info\0other.img\0')
VDISK_ARGUMENTS=9 expect 1 "$VDISK" info own.img
like_output 'the command line: Invalid argument'
printf 'vdisk\0info\0other.img\0' > args
exec 9< args
VDISK_ARGUMENTS=9 expect 1 "$VDISK" info own.img
like_output 'the command line: Invalid argument'
