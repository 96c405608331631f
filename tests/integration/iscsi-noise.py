#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""iscsi-noise.py ADDRESS:PORT TARGET COUNT [SEED]: COUNT random PDUs for an iSCSI target.

Connections that send noise of several kinds: bytes that are no PDUs, logins that
are not quite right, and sessions whose PDUs are mostly well-formed (numbers,
lengths, tags of commands under way), so that they get far, with any field
changed now and then.  They read the answers, or do not, and end at any place.

Meanwhile a bystander writes and reads LUN 1 through a session of its own, which
the noise leaves alone, and demands right answers to all of it; that no reset of
the whole target is sent is the only mercy.  The target needs a LUN 0 for the
noise and a LUN 1, of 1 MiB at least, in blocks of 512 bytes.
"""
import os, random, select, socket, struct, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../lib'))
import iscsi
from iscsi import crc32c

iscsi.use(*sys.argv[1:3])
target = sys.argv[2].encode()
count = int(sys.argv[3])
seed = int(sys.argv[4]) if len(sys.argv) > 4 else int.from_bytes(os.urandom(4), 'big')
rng = random.Random(seed)
print('seed', seed, flush=True)

def pad(data):
    return data + bytes(-len(data) % 4)

def log_in(name, isid, text=b'', cmdsn=1):
    """A session, in one login PDU"""
    s = iscsi.Session(login=False, name='iqn.2026-11.test:' + name, isid=isid)
    s.s.settimeout(60)
    s.cmdsn = cmdsn
    p = s.login_pdu(s.names() + text, 1, 3)
    if p.op != 0x23 or p.bhs[36:38] != b'\0\0':
        raise ConnectionError('login refused: ' + p.bhs[36:38].hex())
    return s

# ---- the bystander ----

class Bystander(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.stop, self.error, self.rounds, self.slowest = False, None, 0, 0.0
        self.s = log_in('bystander', b'\x80\x01\x02\x03\x04\x05')

    def command(self, cdb, edtl=0, data=b''):
        itt = self.s.command(cdb, edtl or len(data), read=edtl > 0, write=bool(data), data=data, lun=1)
        out = b''
        while True:
            p = self.s.recv()
            if p.op == 0x20:            # a ping
                self.s.send(0x00, 0x80, itt=0xffffffff, a=p.ttt, b=self.s.cmdsn, c=self.s.expstatsn, immediate=True)
                continue
            assert p.itt == itt, 'another command was answered'
            out += p.data
            if p.op == 0x21 or p.op == 0x25 and p.flags & 1:
                return p.bhs[3], out
            assert p.op == 0x25, p.bhs.hex()

    def run(self):
        r = random.Random(seed + 1)
        try:
            while self.command(bytes(6))[0]:
                pass
            while not self.stop:
                start = time.monotonic()
                n, lba, data = r.randrange(1, 17), r.randrange(2000), r.randbytes(512)
                status, _ = self.command(struct.pack('>BBIBHB', 0x2a, 0, lba, 0, n, 0), data=data * n)
                assert status == 0, 'write: status %d' % status
                status, got = self.command(struct.pack('>BBIBHB', 0x28, 0, lba, 0, n, 0), n * 512)
                assert status == 0 and got == data * n, 'read: status %d' % status
                self.rounds += 1
                self.slowest = max(self.slowest, time.monotonic() - start)
                time.sleep(0.002)
        except Exception as e:
            self.error = '%s: %s' % (type(e).__name__, e)

# ---- noise ----

def number():
    return rng.choice((0, 1, 2, 7, 8, 0xff, 0x1000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
                       rng.getrandbits(32), rng.getrandbits(8)))

def lun():
    r = rng.random()
    if r < 0.8:
        return bytes(8)
    if r < 0.9:
        return bytes((0, rng.randrange(2, 256), 0, 0, 0, 0, 0, 0))
    b = rng.randbytes(8)
    # LUN 1 in any of its forms is the bystander's
    return bytes(8) if b[1] == 1 else b

OPCODES = (0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x28, 0x2a,
           0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x37, 0x3b, 0x3c, 0x41, 0x42, 0x48, 0x4d, 0x55, 0x56, 0x57, 0x5a,
           0x5e, 0x5f, 0x83, 0x84, 0x88, 0x8a, 0x8b, 0x8e, 0x8f, 0x89, 0x90, 0x91, 0x93, 0x9c, 0x9e, 0x9f,
           0xa0, 0xa3, 0xa4, 0xa8, 0xaa, 0xae, 0xaf, 0xb7)

def cdb():
    r = rng.random()
    if r < 0.1:
        return rng.randbytes(16)
    b = bytearray(16)
    b[0] = rng.choice(OPCODES)
    if r < 0.5:         # a transfer that could be right
        b[0] = rng.choice((0x28, 0x2a, 0x2a, 0x88, 0x8a, 0x2f, 0x2e, 0x8f, 0x89))
        small, n = rng.randrange(4096), rng.choice((0, 1, 2, 8, 9, 64, 128, 600))
        if b[0] >= 0x80:
            b[2:10], b[10:14] = small.to_bytes(8, 'big'), n.to_bytes(4, 'big')
            if b[0] == 0x89:
                b[10:14] = bytes(3) + bytes((n & 3,))
        else:
            b[2:6], b[7:9] = small.to_bytes(4, 'big'), n.to_bytes(2, 'big')
        return bytes(b)
    for _ in range(rng.randrange(12)):
        b[rng.randrange(1, 16)] = rng.choice((0, 1, 4, 8, 0x10, 0x40, 0x80, 0xff, rng.getrandbits(8)))
    return bytes(b)

class Noise:
    """A session that sends what it likes; frames hold together unless it means them not to."""
    sent = 0

    def __init__(self):
        self.hd = rng.random() < 0.1
        text = b'MaxRecvDataSegmentLength=%d\0' % \
            rng.choice((512, 4096, 65536, 262144))
        for key, values in ((b'InitialR2T', (b'Yes', b'No')), (b'ImmediateData', (b'Yes', b'No')),
                            (b'FirstBurstLength', (b'512', b'65536')), (b'MaxBurstLength', (b'512', b'262144')),
                            (b'MaxOutstandingR2T', (b'1', b'8'))):
            if rng.random() < 0.7:
                text += key + b'=' + rng.choice(values) + b'\0'
        if self.hd:
            text += b'HeaderDigest=CRC32C\0'
        isid = b'\x80\0\0\0\0' + bytes((rng.randrange(16),))    # few: they reinstate each other
        self.cmdsn = rng.choice((1, 0xfffffff0, rng.getrandbits(32)))
        session = log_in('noise%d' % rng.randrange(4), isid, text, self.cmdsn)
        self.s, self.expstatsn = session.s, session.expstatsn
        self.tags, self.ttts, self.got = [], [], b''
        self.reads = rng.random() < 0.9

    def pdu(self):
        op = rng.choice((0x00, 0x01, 0x01, 0x01, 0x01, 0x01, 0x02, 0x04, 0x05, 0x05, 0x05, 0x10, 0x06, 0x03))
        if op in (0x06, 0x03, 0x10) and rng.random() < 0.8:
            op = 0x01
        b = bytearray(48)
        immediate = rng.random() < 0.1 and op != 0x05
        b[0] = op | (0x40 if immediate else 0)
        b[1] = rng.choice((0x80, 0x81, 0xc1, 0xa1, 0xe1, 0x21, 0xa1, 0xc1, 0x00, rng.getrandbits(8)))
        b[8:16] = lun()
        tag = rng.choice(self.tags) if self.tags and rng.random() < (0.8 if op == 5 else 0.1) else rng.getrandbits(16)
        b[16:20] = tag.to_bytes(4, 'big')
        data = rng.randbytes(rng.choice((0, 0, 0, 1, 24, 48, 512, 512, 4096, 8192)))
        if op == 0x01:
            self.tags = self.tags[-20:] + [tag]
            b[20:24] = rng.choice((len(data), 512, 4096, 65536, number())).to_bytes(4, 'big')
            b[32:48] = cdb()
            if not b[1] & 0x20 and rng.random() < 0.95:
                data = b''
        elif op == 0x02:
            b[1] = 0x80 | rng.choice((1, 2, 3, 4, 5, 8, rng.getrandbits(7)))
            if b[1] & 0x7f in (6, 7):
                b[1] = 0x81
            b[20:24] = (rng.choice(self.tags) if self.tags else 9).to_bytes(4, 'big')
            b[32:36] = number().to_bytes(4, 'big')
            data = b''
        elif op == 0x05:
            ttt, offset = rng.choice(self.ttts) if self.ttts and rng.random() < 0.7 else (0xffffffff, 0)
            b[20:24] = ttt.to_bytes(4, 'big')
            b[36:40] = rng.choice((0, 0, 0, 1, number())).to_bytes(4, 'big')
            b[40:44] = (offset if rng.random() < 0.8 else number()).to_bytes(4, 'big')
        elif op in (0x00, 0x04):
            b[20:24] = b'\xff' * 4
            if op == 0x04:
                data = rng.choice((b'SendTargets=\0', b'SendTargets=All\0', b'MaxRecvDataSegmentLength=512\0',
                                   b'X=1\0', b'=\0', b'A', bytes(7), rng.randbytes(40), b'HeaderDigest=None\0'))
        if op != 0x05:
            b[24:28] = self.cmdsn.to_bytes(4, 'big')
            if not immediate and op != 0x10:
                self.cmdsn = self.cmdsn + 1 & 0xffffffff
        b[28:32] = self.expstatsn.to_bytes(4, 'big')
        ahs = rng.randbytes(4 * rng.choice((1, 2, 7, 255))) if rng.random() < 0.02 else b''
        b[4], b[5:8] = len(ahs) // 4, len(data).to_bytes(3, 'big')
        if rng.random() < 0.03:         # any byte; the length seldom, it ends most connections
            b[rng.choice((1, 2, 3, *range(8, 48), 4, 5, 6, 7))] = rng.getrandbits(8)
            if b[0] & 0x3f == 2 and b[1] & 0x7f in (6, 7) or b[9] == 1:
                b[1], b[8:16] = 0x81, bytes(8)
        head = bytes(b) + ahs
        if self.hd:
            head += crc32c(head) if rng.random() < 0.99 else bytes(4)
        Noise.sent += 1
        return head + pad(data)

    def drain(self, wait=0.0):
        """Take answers, and the tags of R2Ts out of them."""
        while self.reads and select.select([self.s], [], [], wait)[0]:
            got = self.s.recv(1 << 20)
            if not got:
                raise ConnectionError('closed')
            self.got += got
            extra = 4 if self.hd else 0
            while len(self.got) >= 48:
                n = int.from_bytes(self.got[5:8], 'big')
                whole = 48 + extra + n + -n % 4
                if len(self.got) < whole:
                    break
                if self.got[0] == 0x31:
                    self.ttts = self.ttts[-8:] + [(int.from_bytes(self.got[20:24], 'big'),
                                                   int.from_bytes(self.got[40:44], 'big'))]
                self.got = self.got[whole:]

    def run(self):
        self.s.settimeout(20 if self.reads else 0.05)
        try:
            for _ in range(rng.choice((1, 5, 50, 200))):
                self.s.sendall(b''.join(self.pdu() for _ in range(rng.randrange(1, 20))))
                self.drain(rng.choice((0, 0, 0.001)))
            if rng.random() < 0.5:
                self.drain(0.01)
        except (OSError, ConnectionError):
            pass
        if rng.random() < 0.3:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.s.close()

def bad_login():
    with iscsi.connect() as s:
        s.settimeout(0.2)
        b = bytearray(struct.pack('>BBHI', 0x43, rng.choice((0x87, 0x81, 0x04, 0x00, 0x83)), 0, 0) + bytes(40))
        keys = (b'InitiatorName=iqn.2026-11.test:x\0', b'TargetName=' + target + b'\0', b'AuthMethod=CHAP,None\0',
                b'SessionType=Discovery\0', b'MaxBurstLength=0\0', b'DataDigest=Bogus\0', b'CHAP_A=5\0',
                b'CHAP_N=x\0', b'CHAP_R=0x00\0', b'CHAP_C=0bAAAA\0', b'=\0', b'\0\0', b'A' * 300 + b'=b\0', b'k=' + b'v' * 300)
        text = b''.join(rng.choice(keys) for _ in range(rng.randrange(6)))
        b[5:8] = len(text).to_bytes(3, 'big')
        for _ in range(rng.randrange(3)):
            b[rng.randrange(48)] = rng.getrandbits(8)
        Noise.sent += 1
        try:
            s.sendall(bytes(b) + pad(text))
            if rng.random() < 0.5:
                s.recv(4096)
        except OSError:
            pass

def garbage():
    with iscsi.connect() as s:
        Noise.sent += 1
        try:
            s.sendall(rng.randbytes(rng.choice((1, 47, 48, 49, 500))))
        except OSError:
            pass

bystander = Bystander()
bystander.start()
while Noise.sent < count and not bystander.error:
    r = rng.random()
    try:
        if r < 0.1:
            garbage()
        elif r < 0.3:
            bad_login()
        else:
            Noise().run()
    except ConnectionError as e:
        if 'refused' not in str(e) and 'closed' not in str(e) and 'reset' not in str(e):
            raise
bystander.stop = True
bystander.join(120)
if bystander.error or bystander.is_alive():
    sys.exit('the bystander: %s' % (bystander.error or 'waits for an answer'))
if not bystander.rounds:
    sys.exit('the bystander never got through')
print('%d PDUs sent; the bystander wrote and read %d times, the slowest in %.2f s' % (
    Noise.sent, bystander.rounds, bystander.slowest))
