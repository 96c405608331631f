#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What goes over the wire, in a stranger's eyes: sessions with all kinds of PDUs and all
# SCSI commands, captured in a network namespace, decode in tshark without a warning.
. "$(dirname "$0")/../functions.sh"
requires python3 tshark dumpcap unshare ip timeout
namespace=(unshare -n)
[ "$(id -u)" = 0 ] || namespace=(unshare -r -n)
"${namespace[@]}" true 2> "$tmp/err" || skip "no network namespace: $(cat "$tmp/err")"

cd "$tmp"
chmod 755 .
mkdir -m 777 state
truncate -s 64M disk.img
truncate -s 8M other.img
chmod 666 ./*.img
printf 'the secret of alice\n' > alice
printf 'what the server knows\n' > server
chmod 640 alice server
cat > conf <<END
portal 127.0.0.1
state-directory $tmp/state
chap-user alice {
    secret-file $tmp/alice
}
chap-user server {
    secret-file $tmp/server
}
limits {
    nop-interval 1
    nop-timeout 60
}
target iqn.2026-11.test:open {
    alias "a disk for all"
    lun 0 $tmp/disk.img
}
target iqn.2026-11.test:chap {
    chap alice
    chap-mutual server
    lun 0 $tmp/other.img
}
END

cat > talk.py <<'PY'
import hashlib, iscsi, os, signal, struct, sys
from scsi_cases import cases, pong, run
pid = int(sys.argv[1])
iscsi.use('127.0.0.1:3260', 'iqn.2026-11.test:open')

def response(ident, secret, challenge):
    return hashlib.sha256(bytes([ident]) + secret + challenge).digest()

# discovery
s = iscsi.Session(login=False)
s.login_pdu(b'InitiatorName=iqn.2026-11.test:a\0SessionType=Discovery\0', 1, 3)
assert s.request(0x04, data=b'SendTargets=All\0').data.count(b'TargetName') == 2
s.logout()

# CHAP, both ways
s = iscsi.Session(login=False, to='iqn.2026-11.test:chap')
s.login_pdu(s.names() + b'AuthMethod=CHAP,None\0', 0, 1)
k = dict(kv.split(b'=', 1) for kv in s.login_pdu(b'CHAP_A=7\0', 0).data.split(b'\0') if kv)
ours = os.urandom(32)
p = s.login_pdu(b'CHAP_N=alice\0CHAP_R=0x%s\0CHAP_I=9\0CHAP_C=0x%s\0' % (
    response(int(k[b'CHAP_I']), b'the secret of alice', bytes.fromhex(k[b'CHAP_C'][2:].decode())).hex().encode(),
    ours.hex().encode()), 0, 1)
assert response(9, b'what the server knows', ours).hex().encode() in p.data
assert s.login_pdu(b'MaxBurstLength=65536\0', 1, 3).flags == 0x87
s.alive()
s.logout()
# refused
s = iscsi.Session(login=False, to='iqn.2026-11.test:chap')
s.login_pdu(s.names() + b'AuthMethod=None\0', 0, 1)

# every command there is, good and bad, one initiator with digests and one without
a = iscsi.Session(name='iqn.2026-11.test:a', HeaderDigest='CRC32C', DataDigest='CRC32C')
b = iscsi.Session(name='iqn.2026-11.test:b')
for s in a, b:
    while s.clear().bhs[3]:
        pass
for name, cdb, read, data, node, lun in cases:
    # what is cut off, by its length or ours, cannot be decoded
    if any(word in name for word in (' bytes', 'short')):
        continue
    run(a if node == 'a' else b, cdb, read, data, lun)
a.logout()
b.logout()

# long transfers: several PDUs, several R2Ts, unsolicited data
s = iscsi.Session(MaxRecvDataSegmentLength=8192, InitialR2T='No', ImmediateData='Yes', FirstBurstLength=16384,
                  MaxBurstLength=65536)
s.clear()
data = os.urandom(256 * 512)
itt = s.command(iscsi.write_cdb(64, 256), len(data), write=True, data=data[:8192], final=False)
s.data_out(itt, 0xffffffff, 0, 8192, data[8192:16384])
while True:
    p = s.recv()
    if p.op != 0x31:
        break
    s.data_out(itt, p.ttt, 0, p.offset, data[p.offset:p.offset + p.residual], lunbytes=p.bhs[8:16])
assert p.bhs[3] == 0 and s.read(64, 256) == data
# text and pings in both directions
assert s.request(0x04, data=b'MaxRecvDataSegmentLength=65536\0').op == 0x24
assert s.request(0x04, data=b'SendTargets=\0').op == 0x24
s.alive()
p = s.recv()            # after a second of silence
pong(s, p)
# task management: abort task, abort task set, clear task set, LUN reset, target warm reset
for function, tag in (1, 12345), (2, 0xffffffff), (4, 0xffffffff), (5, 0xffffffff), (6, 0xffffffff):
    s.itt += 1
    s.send(0x02, 0x80 | function, itt=s.itt, a=tag, b=s.cmdsn, c=s.expstatsn,
           rest=struct.pack('>I', s.cmdsn) + bytes(12), immediate=True)
    assert s.recv().op == 0x22
# the server ends: it asks to log out
os.kill(pid, signal.SIGTERM)
p = s.recv()
assert p.op == 0x32 and p.bhs[36] == 1, p.bhs.hex()
s.logout()
PY

cat > inside <<'INSIDE'
set -eu
ip link set lo up
dumpcap -q -i lo -w capture.pcapng > dumpcap.log 2>&1 &
dumpcap=$!
for _ in $(seq 200); do [ -s capture.pcapng ] && grep -q 'File:' dumpcap.log && break; sleep 0.05; done
"$O/vdiskd" -v -c conf 2> log &
server=$!
for _ in $(seq 400); do grep -q 'listening' log && break; sleep 0.05; done
PYTHONPATH=$TOP/tests/lib timeout 200 python3 talk.py $server || { tail -n 20 log; kill $dumpcap $server; exit 1; }
wait $server
# all of it is in the file when what was sent last is
for _ in $(seq 400); do
    echo 'the capture ends here' > /dev/udp/127.0.0.1/9
    ! grep -aq 'capture ends here' capture.pcapng || break
    sleep 0.05
done
kill -INT $dumpcap
wait $dumpcap
INSIDE
expect 0 timeout 300 "${namespace[@]}" bash inside

# fields FILTER FIELD...: of the packets that the filter lets through
fields() {
    local filter=$1 f arguments=()
    shift
    for f in "$@"; do arguments+=(-e "$f"); done
    timeout 200 tshark -r capture.pcapng -Y "$filter" -T fields "${arguments[@]}" 2> tshark.log || fail "$(cat tshark.log)"
}
# all kinds of PDUs are in it, and tshark knew them
fields iscsi iscsi.opcode | tr ',' '\n' | sort -u > opcodes
for o in 0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x20 0x21 0x22 0x23 0x24 0x25 0x26 0x31 0x32; do
    grep -qx $o opcodes || fail "no PDU with opcode $o among $(tr '\n' ' ' < opcodes)"
done
commands=$(fields 'iscsi.opcode == 1' iscsi.opcode | tr ',' '\n' | grep -cx 0x01)
[ "$commands" -gt 250 ] || fail "only $commands commands"
# what TCP has to say about a full window on a busy machine is no matter of the protocol
fields '(_ws.expert.severity >= 0x600000 || _ws.malformed) && iscsi && !(tcp.analysis.flags && !_ws.malformed)' \
    scsi_sbc.opcode _ws.expert.message > warnings
# what this tshark does not know: service actions of A3; the list of log pages (it takes
# them for parameters); mode pages with subpages; lists of MODE SELECT (it reads on behind)
grep -vE '^0xa3\sNo dissection for this service action yet$|^0x4d\sMalformed Packet|^0x5a(,0x5a)*\sUnknown Page$' warnings |
    grep -vE '^0x15(,0x15)*\s(Unknown Page,)?Malformed Packet' > left || true
[ ! -s left ] || fail "tshark is not content: $(head -30 left)"
fields iscsi frame.number > frames
echo "$(wc -l < frames) packets, $commands commands, no warning that is not explained"
