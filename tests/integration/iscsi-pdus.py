#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""iscsi-pdus.py ADDRESS:PORT TARGET: an initiator that sends what it likes.

What the usual tools cannot send or see: digests in both directions, text in the
full feature phase, pings, R2T and unsolicited data in detail, reinstatement,
task management, and breaches of the protocol of many kinds.  LUN 0 must be
writable and have at least 32 MiB in blocks of 512 bytes.
"""
import os, socket, struct, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../lib'))
import iscsi
from iscsi import Closed, Session, write_cdb

portal, target = sys.argv[1:3]
iscsi.use(portal, target)

def digests():
    s = Session(HeaderDigest='CRC32C,None', DataDigest='None,CRC32C')
    assert b'AuthMethod=None\0' in s.first_answer and b'TargetPortalGroupTag=1\0' in s.first_answer
    assert s.steps == 2
    assert s.hd and not s.dd
    s.logout()
    s = Session(HeaderDigest='CRC32C', DataDigest='CRC32C', MaxRecvDataSegmentLength=1000)
    assert s.hd and s.dd
    s.clear()
    block = os.urandom(512 * 5)
    s.command(write_cdb(7, 5), len(block), write=True, data=block)
    assert s.recv().bhs[3] == 0
    assert s.read(7, 5) == block
    p = s.request(0x00, data=b'odd')        # padding is under the digest too
    assert p.data == b'odd'
    s.command(write_cdb(7, 1), 512, write=True, data=bytes(512), corrupt='data')
    p = s.recv()
    assert p.op == 0x3f and p.bhs[2] == 2, p.bhs.hex()
    s.must_close()
    s = Session(HeaderDigest='CRC32C', DataDigest='CRC32C')
    s.clear()
    assert s.read(7, 1) == block[:512], 'data with a bad digest reached the disk'
    s.command(bytes(6), corrupt='header')
    s.must_close()

def text_in_full_phase():
    s = Session()
    p = s.request(0x04, data=b'SendTargets=\0')
    assert p.op == 0x24 and p.flags == 0x80, p.bhs.hex()
    assert p.data.startswith(b'TargetName=%s\0TargetAddress=%s,1\0' %
                             (target.encode(), portal.encode())), p.data
    p = s.request(0x04, data=b'SendTargets=%s\0' % target.encode())
    assert b'TargetAddress' in p.data
    p = s.request(0x04, data=b'SendTargets=All\0')
    assert p.data == b'SendTargets=Reject\0', p.data
    p = s.request(0x04, data=b'SendTargets=iqn.2026-11.test:other\0')
    assert p.data == b''
    p = s.request(0x04, data=b'X-org.example.what=1\0')
    assert p.data == b'X-org.example.what=NotUnderstood\0'
    # in pieces: C bit, empty answers with a tag, then all of it
    p = s.request(0x04, 0x40, data=b'SendTar')
    assert p.op == 0x24 and p.flags == 0 and p.ttt != 0xffffffff and not p.data
    p = s.request(0x04, 0x80, a=p.ttt, data=b'gets=\0')
    assert p.data.startswith(b'TargetName')
    # an answer larger than what we take comes in pieces
    s2 = Session(MaxRecvDataSegmentLength=512)
    p = s2.request(0x04, data=b'X-%s=1\0' % (b'k' * 60) * 12)
    out = p.data
    while p.flags & 0x40:
        assert p.ttt != 0xffffffff and len(p.data) == 512
        p = s2.request(0x04, a=p.ttt)
        out += p.data
    assert out == b'X-%s=NotUnderstood\0' % (b'k' * 60) * 12 and p.flags == 0x80
    # not text, too much text, F with C, a C bit with nothing
    assert s.request(0x04, data=b'nonsense').op == 0x3f
    assert s.request(0x04, 0xc0, data=b'a').op == 0x3f
    p = s.request(0x04, 0x40)
    assert p.op == 0x24
    s.request(0x04, a=0xffffffff)
    s.alive()
    s.logout()

def solicited():
    s = Session(InitialR2T='Yes', ImmediateData='No', MaxBurstLength=8192, MaxOutstandingR2T=3)
    assert s.answer[b'MaxOutstandingR2T'] == b'3' and s.answer[b'InitialR2T'] == b'Yes'
    s.clear()
    data = os.urandom(100 * 512)
    itt = s.command(write_cdb(100, 100), len(data), write=True)
    asked, sn = [], 0
    done = 0
    while done < len(data):
        while len(asked) < 3 and sum(n for _, _, n in asked) + done < len(data):
            p = s.recv()
            assert p.op == 0x31 and p.itt == itt and p.sn == sn and p.residual <= 8192
            asked.append((p.ttt, p.offset, p.residual))
            sn += 1
        ttt, off, n = asked.pop(0)
        assert off == done
        half = n // 2
        s.data_out(itt, ttt, 0, off, data[off:off + half], final=False)
        s.data_out(itt, ttt, 1, off + half, data[off + half:off + n])
        done += n
    p = s.recv()
    assert p.op == 0x21 and p.bhs[3] == 0
    assert s.read(100, 100) == data
    # immediate data although the answer was No
    s.command(write_cdb(0, 1), 512, write=True, data=bytes(512))
    assert s.recv().op == 0x3f
    s.alive()
    s.logout()

def unsolicited():
    s = Session(InitialR2T='No', ImmediateData='Yes', FirstBurstLength=16384, MaxBurstLength=65536)
    s.clear()
    data = os.urandom(128 * 512)
    itt = s.command(write_cdb(300, 128), len(data), write=True, data=data[:512], final=False)
    s.data_out(itt, 0xffffffff, 0, 512, data[512:8192], final=False)
    s.data_out(itt, 0xffffffff, 1, 8192, data[8192:16384])
    p = s.recv()
    assert p.op == 0x31 and p.offset == 16384 and p.residual == len(data) - 16384
    s.data_out(itt, p.ttt, 0, 16384, data[16384:])
    assert s.recv().bhs[3] == 0
    assert s.read(300, 128) == data
    # an answer waits for the last unsolicited PDU, also when the command fails
    itt = s.command(bytes([0xff]), 1024, write=True, data=bytes(512), final=False)
    s.s.settimeout(0.3)
    try:
        s.recv()
        raise AssertionError('answered too early')
    except socket.timeout:
        s.s.settimeout(20)
    s.data_out(itt, 0xffffffff, 0, 512, bytes(512))
    p = s.recv()
    assert p.op == 0x21 and p.bhs[3] == 2
    # wrong DataSN, wrong offset, over the first burst: the command fails, the session lives
    for sn, off, n in ((3, 512, 512), (0, 1024, 512), (0, 512, 16384)):
        itt = s.command(write_cdb(300, 128), len(data), write=True, data=bytes(512), final=False)
        s.data_out(itt, 0xffffffff, sn, off, bytes(n))
        p = s.recv()
        assert p.op == 0x21 and p.bhs[3] == 2 and p.data[2 + 2] == 0x0b, p.data
    assert s.read(300, 128) == data
    # the same of solicited data; and data for nothing at all, which is ignored
    for sn, delta, n in ((1, 0, 1024), (0, 512, 1024), (0, 0, 4096)):
        itt = s.command(write_cdb(300, 3), 1536, write=True, data=bytes(512))
        p = s.recv()
        assert p.op == 0x31 and p.offset == 512
        s.data_out(itt, p.ttt, sn, p.offset + delta, bytes(n))
        p = s.recv()
        assert p.op == 0x21 and p.bhs[3] == 2, p.bhs.hex()
    s.data_out(0x4711, 0x1234, 0, 0, bytes(512))
    assert s.read(300, 128) == data
    s.alive()
    s.logout()

def bursts():
    """Data-In in sequences of MaxBurstLength, each ended by F; R2Ts answered with too little."""
    s = Session(MaxRecvDataSegmentLength=3072, MaxBurstLength=8192)
    s.clear()
    s.command(struct.pack('>BBIBHB', 0x28, 0, 0, 0, 100, 0), 51200, read=True)
    offset = sn = 0
    while True:
        p = s.recv()
        end = offset + len(p.data)
        assert p.op == 0x25 and p.sn == sn and p.offset == offset and 0 < len(p.data) <= 3072
        assert offset // 8192 == (end - 1) // 8192, 'a PDU is in two sequences'
        assert bool(p.flags & 0x80) == (end % 8192 == 0 or end == 51200), 'F ends a sequence, and only that'
        assert bool(p.flags & 1) == (end == 51200), 'the status is with the last one'
        offset, sn = end, sn + 1
        if p.flags & 1:
            break
    s.logout()
    s = Session(InitialR2T='Yes', ImmediateData='No', MaxBurstLength=4096, MaxOutstandingR2T=1)
    s.clear()
    before = s.read(900, 24)
    # F before all of it is there; the data of an R2T that is not out yet; a tag that was answered
    itt = s.command(write_cdb(900, 24), 24 * 512, write=True)
    p = s.recv()
    assert p.op == 0x31 and p.residual == 4096
    s.data_out(itt, p.ttt, 0, p.offset, bytes(1024))
    assert s.recv().bhs[3] == 2
    assert s.read(900, 24)[4096:] == before[4096:]
    data = os.urandom(24 * 512)
    itt = s.command(write_cdb(900, 24), 24 * 512, write=True)
    answered = []
    for n in range(3):
        p = s.recv()
        assert p.op == 0x31 and p.sn == n and p.offset == 4096 * n and p.residual == 4096
        for old in answered:        # again, although it was taken: ignored
            s.data_out(itt, old, 0, 0, bytes(4096))
        s.data_out(itt, p.ttt + 77 & 0xffffffff, 0, p.offset, bytes(4096))
        s.data_out(itt, p.ttt, 0, p.offset, data[p.offset:p.offset + 2048], final=False)
        s.data_out(itt, p.ttt, 1, p.offset + 2048, data[p.offset + 2048:p.offset + 4096])
        answered.append(p.ttt)
    p = s.recv()
    assert p.op == 0x21 and p.bhs[3] == 0, p.bhs.hex()
    assert s.read(900, 24) == data
    s.alive()
    s.logout()

def numbering():
    s = Session()
    s.clear()
    s.command(bytes(6), cmdsn=s.cmdsn + 5000)          # outside the window: silence
    s.command(bytes(6), cmdsn=s.cmdsn - 1)
    s.alive()
    s.command(bytes(6), immediate=True, cmdsn=s.cmdsn)  # immediate ones do not count
    assert s.recv().op == 0x21
    s.alive()
    s.command(bytes(6), cmdsn=s.cmdsn + 1)             # a gap
    s.must_close()

def negotiation():
    s = Session(MaxConnections=8, ErrorRecoveryLevel=2, DefaultTime2Wait=7, DefaultTime2Retain=30,
                DataPDUInOrder='No', DataSequenceInOrder='No', FirstBurstLength='0x1000',
                MaxBurstLength=16777216, IFMarker='Yes', TaskReporting='FastAbort,RFC3720',
                iSCSIProtocolLevel=2, **{'X-what.ever': 'x'})
    a = s.answer
    want = dict(MaxConnections=b'1', ErrorRecoveryLevel=b'0', DefaultTime2Wait=b'7',
                DefaultTime2Retain=b'0', DataPDUInOrder=b'Yes', DataSequenceInOrder=b'Yes',
                FirstBurstLength=b'4096', MaxBurstLength=b'Reject', IFMarker=b'Reject',
                TaskReporting=b'RFC3720', iSCSIProtocolLevel=b'1')
    want['X-what.ever'] = b'NotUnderstood'
    for k, v in want.items():
        assert a[k.encode()] == v, (k, a[k.encode()])
    s.logout()
    # text in several PDUs
    s = Session(login=False)
    text = s.names() + b'AuthMethod=None\0'
    for cut in (10, 30):
        p = s.login_pdu(text[:cut], 0, more=True)
        assert p.op == 0x23 and not p.data and not p.flags & 0x80
        text = text[cut:]
    p = s.login_pdu(text, 0, 1)
    assert p.flags == 0x81 and b'AuthMethod=None' in p.data
    p = s.login_pdu(b'', 1, 3)
    assert p.flags == 0x87
    s.alive()
    # straight into the operational stage
    s = Session(login=False)
    p = s.login_pdu(s.names(), 1, 3)
    assert p.flags == 0x87 and p.bhs[36:38] == b'\0\0'
    s.alive()
    s.logout()

def refusals():
    def status(text, csg=0, nsg=1, **kw):
        s = Session(login=False)
        p = s.login_pdu(text, csg, nsg, **kw)
        assert p.op == 0x23
        if p.bhs[36] == 2:
            s.must_close()
        return p.bhs[36:38].hex()
    me = b'InitiatorName=iqn.2026-11.test:x\0'
    to = b'TargetName=' + target.encode() + b'\0'
    assert status(me + to) == '0000'
    assert status(to) == '0207'
    assert status(me) == '0207'
    assert status(me + b'TargetName=iqn.2026-11.test:none\0') == '0203'
    assert status(me + to + b'SessionType=Odd\0') == '0209'
    assert status(me + to + b'AuthMethod=CHAP\0') == '0201'
    assert status(me + to, version=0) == '0000'
    assert status(me + to, tsih=0x7777) == '020a'
    assert status(me + me + to) == '0200'               # a key twice
    assert status(me + to + b'HeaderDigest=None\0') == '0200'  # not in this stage
    assert status(me + to + b'novalue\0') == '0200'
    assert status(me + to + b'Unended=1') == '0200'
    assert status(me + to, csg=2, nsg=3) == '020b'
    assert status(me + to, csg=1, nsg=0) == '020b'
    assert status(b'InitiatorName=' + b'i' * 300 + b'\0' + to) == '0200'
    assert status(b'K' * 200 + b'=1\0') == '0200'
    # what is not a login at all
    for junk in (os.urandom(48 * 4), b'GET / HTTP/1.0\r\n\r\n' * 5, bytes(48),
                 b'\x43\x81\0\0\0\xff\xff\xff' + bytes(40), b'\x01' + bytes(47)):
        s = Session(login=False)
        s.s.sendall(junk)
        s.must_close()
    # endless text
    s = Session(login=False)
    try:
        for _ in range(100):
            p = s.login_pdu(b'X-a=' + b'v' * 4000, 0, more=True)
            if p.bhs[36]:
                assert p.bhs[36] == 3
                break
        else:
            raise AssertionError('any amount of text is taken')
        s.must_close()
    except Closed:
        pass

def rejects():
    s = Session()
    s.clear()
    for op in (0x07, 0x10, 0x1f, 0x20, 0x3f):
        p = s.request(op, immediate=True)
        assert p.op == 0x3f and p.bhs[2] in (4, 5) and len(p.data) == 48, p.bhs.hex()
    p = s.request(0x03, immediate=True)
    assert p.op == 0x3f
    p = s.request(0x06, 0x82)                   # logout for recovery
    assert p.op == 0x26 and p.bhs[2] == 2
    p = s.request(0x06, 0x81, a=0x00090000)     # of another connection
    assert p.op == 0x26 and p.bhs[2] == 1
    itt = s.command(write_cdb(0, 8), 4096, write=True)
    assert s.recv().op == 0x31
    s.itt -= 1
    s.command(bytes(6))                         # the same tag again
    p = s.recv()
    assert p.op == 0x3f and p.bhs[2] == 7
    s.alive()
    s.send(0x00, itt=9, a=0xffffffff, b=s.cmdsn, length=0xffffff)  # too large a segment
    s.must_close()

def tmf(s, function, lun=0, ref=0xffffffff, refsn=0):
    s.itt += 1
    s.send(0x02, 0x80 | function, lun=lun, itt=s.itt, a=ref, b=s.cmdsn, c=s.expstatsn,
           rest=struct.pack('>IIII', refsn, 0, 0, 0), immediate=True)
    while True:
        p = s.recv()
        if p.op == 0x22:
            return p.bhs[2]

def task_management():
    s, other = Session(), Session(name='iqn.2026-11.test:other')
    assert s.clear().data[4] == 6 and s.clear().bhs[3] == 0    # power on, once
    other.clear()
    assert tmf(s, 1, ref=0x999, refsn=s.cmdsn - 1) == 1        # no such task
    itt = s.command(write_cdb(0, 8), 4096, write=True)         # waits for data
    assert s.recv().op == 0x31
    assert tmf(s, 1, ref=itt, refsn=s.cmdsn - 1) == 0
    itt = s.command(write_cdb(0, 8), 4096, write=True)
    p = s.recv()
    assert tmf(other, 5) == 0                                  # their reset takes ours along
    s.data_out(itt, p.ttt, 0, 0, bytes(4096))                  # for nobody: ignored
    p = s.clear()
    assert p.bhs[3] == 2 and p.data[2 + 2] == 6 and p.data[2 + 12] == 0x29, p.data.hex()
    assert other.clear().bhs[3] == 2 and other.clear().bhs[3] == 0    # who asked is told, too
    assert tmf(s, 5, lun=9) == 2
    assert tmf(s, 2) == 0 and tmf(s, 4) == 0 and tmf(s, 6) == 0
    assert tmf(s, 7) == 0
    assert s.clear().bhs[3] == 2
    assert tmf(s, 3) == 5 and tmf(s, 8) == 4 and tmf(s, 0x55) == 5
    s.alive()
    s.logout()
    other.clear()
    other.logout()

def reinstatement():
    isid = b'\x80\x12\x34\x56\x78\x9a'
    old = Session(isid=isid)
    old.clear()
    old.command(write_cdb(0, 8), 4096, write=True)
    assert old.recv().op == 0x31
    new = Session(isid=isid)
    old.must_close()
    new.clear()
    assert len(new.read(0, 4)) == 2048
    apart = Session(isid=isid, name='iqn.2026-11.test:someone-else')
    new.alive()
    apart.logout()
    new.logout()

def slow_reader():
    slow, other = Session(), Session(name='iqn.2026-11.test:other')
    slow.clear()
    other.clear()
    for _ in range(60):         # 15 MiB that nobody fetches
        slow.command(struct.pack('>BBIBHB', 0x28, 0, 0, 0, 512, 0), 512 * 512, read=True)
    start = time.monotonic()
    for i in range(20):
        assert len(other.read(i * 64, 64)) == 64 * 512
    took = time.monotonic() - start
    assert took < 5, 'held up for %.1f s' % took
    got = 0
    while got < 60:             # and it gets all of it in the end
        p = slow.recv()
        got += p.op == 0x25 and p.flags & 1
    slow.alive()
    slow.logout()
    other.logout()

def write_large(s, lba, data, piece, **kw):
    """Half of it immediate, the rest as it is asked for, in PDUs of @piece bytes."""
    first = min(len(data) // 2, 65536)
    itt = s.command(write_cdb(lba, len(data) // 512), len(data), write=True, data=data[:first])
    while True:
        p = s.recv()
        if p.op == 0x21:
            return p.bhs[3]
        assert p.op == 0x31 and p.itt == itt, p.bhs.hex()
        end, at, sn = p.offset + p.residual, p.offset, 0
        while at < end:
            n = min(piece, end - at)
            s.data_out(itt, p.ttt, sn, at, data[at:at + n], final=at + n == end, **kw)
            at, sn = at + n, sn + 1

def large():
    """Transfers that are sent from the file, and written as they come."""
    keys = dict(FirstBurstLength=65536, MaxBurstLength=1 << 20, MaxRecvDataSegmentLength=200000)
    s = Session(**keys)
    s.clear()
    data = bytearray(os.urandom(3 << 20))
    for lba, blocks, piece in (0, 2048, 262144), (2048, 1000, 70000), (3049, 2999, 512 * 131), \
            (6048, 96, 65536):
        at = lba * 512
        assert write_large(s, lba, bytes(data[at:at + blocks * 512]), piece) == 0
    data[3048 * 512:3049 * 512] = s.read(3048, 1)
    for lba, blocks in (0, 6144), (1, 500), (3000, 1024), (5, 129):
        assert s.read(lba, blocks) == data[lba * 512:(lba + blocks) * 512], (lba, blocks)
    # an initiator that wants less than the command says, and not whole words of it
    s.command(struct.pack('>BBIBHB', 0x28, 0, 7, 0, 512, 0), 100001, read=True)
    p = s.recv()
    assert p.op == 0x25 and p.flags == 0x85 and p.residual == 512 * 512 - 100001, p.bhs.hex()
    assert p.data == data[7 * 512:7 * 512 + 100001]
    # nobody fetches them for a while, and meanwhile others write elsewhere
    for i in range(48):
        s.command(struct.pack('>BBIBHB', 0x28, 0, i * 100, 0, 512, 0), 512 * 512, read=True)
    other = Session(name='iqn.2026-11.test:other', **keys)
    other.clear()
    assert write_large(other, 40000, bytes(1 << 20), 262144) == 0
    time.sleep(0.2)
    for i in range(48):
        got = b''
        while len(got) < 512 * 512:
            p = s.recv()
            assert p.op == 0x25 and p.offset == len(got), p.bhs.hex()
            got += p.data
        assert p.flags & 1 and p.bhs[3] == 0 and got == data[i * 51200:i * 51200 + 512 * 512], i
    # aborted half way, and by somebody else: the blocks have the old or the new
    new = os.urandom(512 * 1024)
    itt = s.command(write_cdb(0, 1024), len(new), write=True)
    p = s.recv()
    s.data_out(itt, p.ttt, 0, 0, new[:262144], final=False)
    assert tmf(s, 1, ref=itt, refsn=s.cmdsn - 1) == 0
    itt = s.command(write_cdb(0, 1024), len(new), write=True)
    p = s.recv()
    s.data_out(itt, p.ttt, 0, 0, new[:262144], final=False)
    assert tmf(other, 5) == 0
    assert s.clear().bhs[3] == 2
    got = s.read(0, 1024)
    for i in range(0, len(new), 512):
        assert got[i:i + 512] in (data[i:i + 512], new[i:i + 512]), i
    s.alive()
    s.logout()
    # nothing of data whose digest is wrong
    s = Session(DataDigest='CRC32C', **keys)
    s.clear()
    before = s.read(0, 1024)
    itt = s.command(write_cdb(0, 1024), len(new), write=True)
    p = s.recv()
    s.data_out(itt, p.ttt, 0, 0, bytes(262144), final=False, corrupt='data')
    s.must_close()
    s = Session(DataDigest='CRC32C', **keys)
    s.clear()
    assert s.read(0, 1024) == before, 'data with a bad digest reached the disk'
    s.logout()

def abrupt():
    """Connections that end at any byte; the target must stay as it was."""
    whole = Session(login=False)
    sent = []
    whole.out, whole.recv = sent.append, lambda: None
    whole.login_pdu(whole.names(), 0, 1)
    whole.s.close()
    pdu = sent[0]
    for cut in range(0, len(pdu), 13):
        with iscsi.connect() as c:
            c.sendall(pdu[:cut])
    for i in range(20):
        s = Session()
        s.clear()
        s.command(write_cdb(0, 128), 65536, write=True, data=os.urandom(512 * (i % 9 + 1)), length=None)
        if i % 2:
            s.recv()
        s.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        s.s.close()
    Session().alive()

tests = [digests, text_in_full_phase, solicited, unsolicited, bursts, numbering, negotiation, refusals,
         rejects, task_management, reinstatement, slow_reader, large, abrupt]
for test in tests:
    try:
        test()
    except Exception as e:
        print(f'{test.__name__}: {type(e).__name__}: {e}')
        raise
print(len(tests), 'groups passed')
