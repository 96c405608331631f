# SPDX-License-Identifier: LGPL-2.1-or-later
"""iscsi.py: PDUs (RFC 7143, 11) and an initiator that sends what it likes, for the tests.

use(PORTAL, TARGET) says where sessions go that are not told otherwise.
"""
import socket, struct

portal = target = None

def use(where, name):
    """Sessions go to this ADDRESS:PORT and target name."""
    global portal, target
    portal, target = where, name

def connect(where=None, timeout=20):
    host, port = (where or portal).rsplit(':', 1)
    return socket.create_connection((host.strip('[]'), int(port)), timeout=timeout)

TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)

def crc32c(data):
    c = 0xffffffff
    for b in data:
        c = TABLE[(c ^ b) & 255] ^ c >> 8
    return struct.pack('<I', c ^ 0xffffffff)

assert crc32c(bytes(32)) == bytes.fromhex('aa36918a')      # RFC 7143, A.4

class Closed(ConnectionError):
    """The target ended the connection."""

class Pdu:
    def __init__(self, bhs, data):
        self.bhs, self.data = bhs, data
        self.op, self.flags = bhs[0] & 0x3f, bhs[1]
        self.itt, = struct.unpack('>I', bhs[16:20])
        self.ttt, self.statsn, self.expcmdsn, self.maxcmdsn, self.sn, self.offset, self.residual = \
            struct.unpack('>7I', bhs[20:48])

class Session:
    count = 0

    def __init__(self, login=True, isid=None, name='iqn.2026-11.test:pdus', where=None, to=None, **keys):
        Session.count += 1
        self.s, self.target = connect(where), to or target
        self.out = self.s.sendall
        self.hd = self.dd = False
        self.isid = isid or struct.pack('>HI', 0x8000, Session.count)
        self.cmdsn, self.itt, self.expstatsn = 5, 100, 0
        self.name, self.keys = name, dict(dict(MaxRecvDataSegmentLength=262144), **keys)
        if login:
            self.login()

    def send(self, op, flags=0x80, lun=0, itt=None, a=0, b=0, c=0, rest=bytes(16), data=b'',
             immediate=False, ahs=b'', corrupt=None, length=None, lunbytes=None):
        bhs = struct.pack('>BBHI', op | (0x40 if immediate else 0), flags, 0,
                          len(ahs) // 4 << 24 | (len(data) if length is None else length))
        bhs += lunbytes or struct.pack('>HHI', lun, 0, 0)
        bhs += struct.pack('>IIII', itt, a, b, c) + rest
        out = bhs + ahs
        if self.hd:
            out += crc32c(out) if corrupt != 'header' else b'\0\0\0\0'
        if data:
            padded = data + bytes(-len(data) % 4)
            out += padded
            if self.dd:
                out += crc32c(padded) if corrupt != 'data' else b'\0\0\0\0'
        self.out(out)

    def get(self, n):
        out = b''
        while len(out) < n:
            try:
                piece = self.s.recv(n - len(out))
            except ConnectionError:
                piece = b''
            if not piece:
                raise Closed('closed')
            out += piece
        return out

    def recv(self):
        bhs = self.get(48)
        if self.hd:
            assert self.get(4) == crc32c(bhs), 'header digest'
        n = int.from_bytes(bhs[5:8], 'big')
        data = self.get(n + -n % 4)
        if self.dd and n:
            assert self.get(4) == crc32c(data), 'data digest'
        p = Pdu(bhs, data[:n])
        if p.op not in (0x25, 0x31) or p.op == 0x25 and p.flags & 1:
            self.expstatsn = p.statsn + 1 & 0xffffffff
        return p

    def login_pdu(self, text, csg, nsg=None, more=False, tsih=0, cid=1, version=0):
        flags = csg << 2 | (0x80 | nsg if nsg is not None else 0) | (0x40 if more else 0)
        self.send(0x43 & 0x3f, flags, itt=77, a=cid << 16, b=self.cmdsn, c=self.expstatsn,
                  data=text, immediate=True, lunbytes=self.isid + struct.pack('>H', tsih))
        return self.recv()

    def names(self):
        return b'InitiatorName=%s\0TargetName=%s\0SessionType=Normal\0' % (
            self.name.encode(), self.target.encode())

    def login(self):
        p = self.login_pdu(self.names() + b'AuthMethod=CHAP,None\0', 0, 1)
        assert p.op == 0x23 and p.bhs[36:38] == b'\0\0' and p.flags == 0x81, p.bhs.hex()
        self.first_answer = p.data
        text = b''.join(b'%s=%s\0' % (k.encode(), str(v).encode()) for k, v in self.keys.items())
        p = self.login_pdu(text, 1, 3)
        answer, self.steps = p.data, 2
        while p.flags == 0x04 and p.bhs[36:38] == b'\0\0' and self.steps < 9:
            p = self.login_pdu(b'', 1, 3)                       # it has more to say first
            answer, self.steps = answer + p.data, self.steps + 1
        assert p.bhs[36:38] == b'\0\0' and p.flags == 0x87, p.bhs.hex()
        assert p.bhs[14:16] != b'\0\0', 'TSIH'
        self.answer = dict(kv.split(b'=', 1) for kv in answer.split(b'\0') if kv)
        self.hd = self.answer.get(b'HeaderDigest') == b'CRC32C'
        self.dd = self.answer.get(b'DataDigest') == b'CRC32C'

    def command(self, cdb, edtl=0, read=False, write=False, data=b'', final=True, cmdsn=None, lun=0,
                **kw):
        self.itt += 1
        flags = (0x80 if final else 0) | (0x40 if read else 0) | (0x20 if write else 0) | 1
        self.send(0x01, flags, lun=lun << 0, itt=self.itt, a=edtl,
                  b=self.cmdsn if cmdsn is None else cmdsn, c=self.expstatsn,
                  rest=cdb.ljust(16, b'\0'), data=data, **kw)
        if cmdsn is None:
            self.cmdsn += 1
        return self.itt

    def data_out(self, itt, ttt, sn, offset, data, final=True, **kw):
        self.send(0x05, 0x80 if final else 0, itt=itt, a=ttt, c=self.expstatsn,
                  rest=struct.pack('>IIII', 0, sn, offset, 0), data=data, **kw)

    def request(self, op, flags=0x80, a=0xffffffff, data=b'', **kw):
        self.itt += 1
        self.send(op, flags, itt=self.itt, a=a, b=self.cmdsn, c=self.expstatsn, data=data, **kw)
        if not kw.get('immediate'):
            self.cmdsn += 1
        return self.recv()

    def clear(self):
        """Take the unit attention off."""
        self.command(bytes(6))
        return self.recv()

    def read(self, lba, blocks):
        self.command(struct.pack('>BBIBHB', 0x28, 0, lba, 0, blocks, 0), blocks * 512, read=True)
        out, sn = b'', 0
        while True:
            p = self.recv()
            if p.op == 0x21:
                assert p.bhs[3] == 0, (p.bhs[3], p.data)
                return out
            assert p.op == 0x25 and p.offset == len(out) and p.sn == sn, p.bhs.hex()
            out += p.data
            sn += 1
            if p.flags & 1:
                assert p.bhs[3] == 0
                return out

    def alive(self):
        p = self.request(0x00, data=b'there?')
        assert p.op == 0x20 and p.data == b'there?', p.bhs.hex()

    def must_close(self):
        try:
            while True:
                self.recv()
        except Closed:
            pass

    def logout(self):
        p = self.request(0x06, 0x80, a=0)
        assert p.op == 0x26 and p.bhs[2] == 0
        self.must_close()

def write_cdb(lba, blocks):
    return struct.pack('>BBIBHB', 0x2a, 0, lba, 0, blocks, 0)

