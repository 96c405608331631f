# SPDX-License-Identifier: LGPL-2.1-or-later
"""scsi_cases.py: a list of SCSI commands, right ones and wrong ones, for the tests.

Each is (name, CDB, bytes that its answer has room for, data that go with it, initiator
"a" or "b", LUN).  They are meant for a thin LUN 0 of 64 MiB in blocks of 512 bytes that
was never written, and in this order.
"""
import struct

def pong(s, p):
    """Answer a ping."""
    assert p.op == 0x20, p.bhs.hex()
    s.send(0x00, 0x80, itt=0xffffffff, a=p.ttt, b=s.cmdsn, c=s.expstatsn, immediate=True, lunbytes=p.bhs[8:16])

def run(s, cdb, read, data, lun):
    """(what the command ended with, its data)"""
    itt = s.command(cdb, read or len(data), read=read > 0, write=bool(data), data=data, lun=lun)
    out = b''
    while True:
        p = s.recv()
        if p.op == 0x20:
            pong(s, p)
        elif p.op == 0x25:
            assert p.itt == itt and p.offset == len(out), p.bhs.hex()
            out += p.data
            if p.flags & 1:
                return ending(p.bhs[3], b''), out
        elif p.op == 0x31:
            s.data_out(itt, p.ttt, 0, p.offset, data[p.offset:p.offset + p.residual], lunbytes=p.bhs[8:16])
        else:
            assert p.op == 0x21 and p.itt == itt, p.bhs.hex()
            return ending(p.bhs[3], p.data), out

def ending(status, data):
    """'good', 'conflict', ..., or sense key, code and qualifier: '5/24/00'"""
    if status != 2:
        return {0: 'good', 8: 'busy', 0x18: 'conflict', 0x28: 'full'}.get(status, hex(status))
    sense = data[2:]
    key, asc, ascq = (sense[2], sense[12], sense[13]) if sense[0] & 0x7f == 0x70 else sense[1:4]
    return '%x/%02x/%02x' % (key & 0xf, asc, ascq)

cases = []

def case(name, cdb, read=0, data=b'', node='a', lun=0):
    """A command, in hex: its answer has room for @read bytes, or it comes with @data."""
    cases.append((name, bytes.fromhex(cdb) if isinstance(cdb, str) else cdb, read, data, node, lun))

def rw(op, lba, n, flags=0):
    if op < 0x20:
        return struct.pack('>BBHBB', op, lba >> 16, lba & 0xffff, n, 0)
    if op < 0x80:
        return struct.pack('>BBIBHB', op, flags, lba, 0, n, 0)
    if op >= 0xa0:
        return struct.pack('>BBIIBB', op, flags, lba, n, 0, 0)
    return struct.pack('>BBQIBB', op, flags, lba, n, 0, 0)

def pr_out(action, key, new=0, kind=5, flags=0, length=24):
    return dict(cdb=struct.pack('>BBBHIB', 0x5f, action, kind, 0, length, 0),
                data=struct.pack('>QQIBBH', key, new, 0, flags, 0, 0))

def pr_in(action, length=1024):
    return dict(cdb=struct.pack('>BBBIHB', 0x5e, action, 0, 0, length, 0), read=length)

def unmap(*ranges):
    d = b''.join(struct.pack('>QII', lba, n, 0) for lba, n in ranges)
    return struct.pack('>HHI', len(d) + 6, len(d), 0) + d

def both(name, cdb10, cdb16, **kw):
    case(name + ' (10)', cdb10, **kw)
    case(name + ' (16)', cdb16, **kw)

END = (64 << 20) // 512
BLOCK = bytes(range(256)) * 2
OTHER = bytes(512)

# ---- what the unit says of itself

case('INQUIRY', '12 00 00 00 ff 00', 255)
case('INQUIRY, 5 bytes', '12 00 00 00 05 00', 5)
case('INQUIRY, no room', '12 00 00 00 00 00')
case('INQUIRY, a page without EVPD', '12 00 83 00 ff 00', 255)
case('INQUIRY, CMDDT', '12 02 00 00 ff 00', 255)
for page in 0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2, 0xb3, 0x01, 0xc0:
    case('INQUIRY, page %02x' % page, bytes((0x12, 1, page, 2, 0, 0)), 512)
case('TEST UNIT READY', '00 00 00 00 00 00')
case('TEST UNIT READY, a reserved bit', '00 00 00 00 01 00')
case('TEST UNIT READY, NACA', '00 00 00 00 00 04')
case('REQUEST SENSE', '03 00 00 00 ff 00', 255)
case('REQUEST SENSE, descriptors', '03 01 00 00 ff 00', 255)
for select in 0, 1, 2, 3:
    case('REPORT LUNS, %d' % select, bytes((0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0)), 256)
case('REPORT LUNS, 4 bytes', 'a0 00 00 00 00 00 00 00 00 04 00 00', 4)
case('REPORT LUNS, 16 bytes', 'a0 00 00 00 00 00 00 00 00 10 00 00', 16)
case('READ CAPACITY (10)', '25 00 00 00 00 00 00 00 00 00', 8)
case('READ CAPACITY (10), an address', '25 00 00 00 00 09 00 00 00 00', 8)
case('READ CAPACITY (16)', '9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00', 32)
case('READ CAPACITY (16), 12 bytes', '9e 10 00 00 00 00 00 00 00 00 00 00 00 0c 00 00', 12)
case('SERVICE ACTION IN (16), unknown', '9e 1f 00 00 00 00 00 00 00 00 00 00 00 20 00 00', 32)
case('REPORT TARGET PORT GROUPS', 'a3 0a 00 00 00 00 00 00 01 00 00 00', 256)
case('REPORT TARGET PORT GROUPS, extended', 'a3 2a 00 00 00 00 00 00 01 00 00 00', 256)
case('SET TARGET PORT GROUPS, no list', 'a4 0a 00 00 00 00 00 00 00 00 00 00')
case('SET TARGET PORT GROUPS, no such group', 'a4 0a 00 00 00 00 00 00 00 08 00 00',
     data=bytes.fromhex('00000000 00007fff'))
case('REPORT SUPPORTED OPERATION CODES, one', 'a3 0c 01 28 00 00 00 00 01 00 00 00', 256)
case('REPORT SUPPORTED TMFS', 'a3 0d 00 00 00 00 00 00 00 10 00 00', 16)
case('LOG SENSE, pages', '4d 00 40 00 00 00 00 00 ff 00', 255)
case('an opcode that nobody has', 'ff 00 00 00 00 00')
case('FORMAT UNIT', '04 00 00 00 00 00')
case('READ BUFFER', '3c 02 00 00 00 00 00 00 04 00', 4)

# ---- a LUN that is not there

case('INQUIRY, no such LUN', '12 00 00 00 24 00', 36, lun=9)
case('TEST UNIT READY, no such LUN', '00 00 00 00 00 00', lun=9)
case('READ (10), no such LUN', rw(0x28, 0, 1), 512, lun=9)
case('REPORT LUNS, no such LUN', 'a0 00 00 00 00 00 00 00 01 00 00 00', 256, lun=9)
case('REQUEST SENSE, no such LUN', '03 00 00 00 ff 00', 255, lun=9)

# ---- mode pages

for page in 0x01, 0x08, 0x0a, 0x1c, 0x3f, 0x05:
    for control in 0, 1, 2, 3:
        case('MODE SENSE (6), page %02x, control %d' % (page, control),
             bytes((0x1a, 0, control << 6 | page, 0, 255, 0)), 255)
case('MODE SENSE (10), all', '5a 00 3f 00 00 00 00 01 00 00', 256)
case('MODE SENSE (10), no block descriptor', '5a 08 3f 00 00 00 00 01 00 00', 256)
case('MODE SENSE (10), long LBA', '5a 10 08 00 00 00 00 01 00 00', 256)
case('MODE SENSE (10), all subpages', '5a 00 3f ff 00 00 00 01 00 00', 256)
case('MODE SENSE (10), a subpage', '5a 00 0a 01 00 00 00 01 00 00', 256)
case('MODE SENSE (6), 4 bytes', '1a 00 3f 00 04 00', 4)
case('MODE SELECT (6), no list', '15 10 00 00 00 00')
case('MODE SELECT (6), what is there', '15 10 00 00 18 00',
     data=bytes.fromhex('00000000 0812') + b'\x04' + bytes(17))
case('TEST UNIT READY, B is told of it', '00 00 00 00 00 00', node='b')
case('MODE SELECT (6), cut short', '15 10 00 00 08 00', data=bytes.fromhex('00000000 08120400'))
case('MODE SELECT (6), a page that is not there', '15 10 00 00 08 00', data=bytes.fromhex('00000000 05020000'))
case('MODE SELECT (6), what cannot be changed', '15 10 00 00 18 00',
     data=bytes.fromhex('00000000 0812') + b'\x05' + bytes(17))

# ---- reading and writing

for op in 0x08, 0x28, 0xa8, 0x88:
    n = '(%d)' % {0x08: 6, 0x28: 10, 0xa8: 12, 0x88: 16}[op]
    case('READ %s' % n, rw(op, 0, 2), 1024)
    if op != 0x08:
        case('READ %s, nothing' % n, rw(op, 5, 0))
        case('READ %s, DPO and FUA' % n, rw(op, 0, 1, 0x18), 512)
        case('READ %s, protection' % n, rw(op, 0, 1, 0x20), 512)
        case('READ %s, nothing at the end' % n, rw(op, END, 0))
        case('READ %s, nothing past the end' % n, rw(op, END + 1, 0))
    case('READ %s, at the end' % n, rw(op, END - 1, 1), 512)
    case('READ %s, one too far' % n, rw(op, END - 1, 2), 1024)
    case('READ %s, past the end' % n, rw(op, END, 1), 512)
case('READ (16), the last address there is', rw(0x88, (1 << 64) - 1, 2), 1024)
case('READ (10), a reserved bit', '28 04 00 00 00 00 00 00 01 00', 512)
for op in 0x0a, 0x2a, 0xaa, 0x8a:
    n = '(%d)' % {0x0a: 6, 0x2a: 10, 0xaa: 12, 0x8a: 16}[op]
    case('WRITE %s' % n, rw(op, op, 1), data=BLOCK)
    case('READ back, WRITE %s' % n, rw(0x28, op, 1), 512)
    case('WRITE %s, past the end' % n, rw(op, END, 1), data=BLOCK)
    if op != 0x0a:
        case('WRITE %s, FUA' % n, rw(op, op, 1, 0x08), data=BLOCK)
        case('WRITE %s, nothing' % n, rw(op, 5, 0))
        case('WRITE %s, protection' % n, rw(op, 0, 1, 0x20), data=BLOCK)
both('SYNCHRONIZE CACHE', rw(0x35, 0, 0), rw(0x91, 0, 0))
both('SYNCHRONIZE CACHE, a range', rw(0x35, 1, 2), rw(0x91, 1, 2))
both('SYNCHRONIZE CACHE, past the end', rw(0x35, END, 1), rw(0x91, END, 1))
both('SYNCHRONIZE CACHE, IMMED', rw(0x35, 0, 0, 2), rw(0x91, 0, 0, 2))
both('VERIFY', rw(0x2f, 0, 8), rw(0x8f, 0, 8))
both('VERIFY, past the end', rw(0x2f, END, 1), rw(0x8f, END, 1))
both('VERIFY, equal', rw(0x2f, 0x2a, 1, 2), rw(0x8f, 0x2a, 1, 2), data=BLOCK)
both('VERIFY, not equal', rw(0x2f, 0x2a, 1, 2), rw(0x8f, 0x2a, 1, 2), data=OTHER)
both('WRITE AND VERIFY', rw(0x2e, 1, 1), rw(0x8e, 1, 1), data=BLOCK)
both('PRE-FETCH', rw(0x34, 0, 8), rw(0x90, 0, 8))
both('WRITE SAME', rw(0x41, 100, 4), rw(0x93, 100, 4), data=BLOCK)
case('READ back, WRITE SAME', rw(0x28, 99, 6), 6 * 512)
both('WRITE SAME, UNMAP', rw(0x41, 101, 2, 8), rw(0x93, 101, 2, 8), data=OTHER)
case('READ back, WRITE SAME with UNMAP', rw(0x28, 99, 6), 6 * 512)
both('WRITE SAME, past the end', rw(0x41, END - 1, 2), rw(0x93, END - 1, 2), data=BLOCK)
both('WRITE SAME, ANCHOR', rw(0x41, 101, 2, 0x18), rw(0x93, 101, 2, 0x18), data=OTHER)
both('WRITE SAME, protection', rw(0x41, 101, 2, 0x20), rw(0x93, 101, 2, 0x20), data=OTHER)
case('WRITE SAME (16), NDOB', rw(0x93, 100, 1, 1))
case('WRITE SAME (10), to the end', rw(0x41, END - 1, 0), data=OTHER)
case('UNMAP', '42 00 00 00 00 00 00 00 18 00', data=unmap((100, 1)))
case('READ back, UNMAP', rw(0x28, 99, 6), 6 * 512)
case('UNMAP, no list', '42 00 00 00 00 00 00 00 00 00')
case('UNMAP, no descriptor', '42 00 00 00 00 00 00 00 08 00', data=unmap())
case('UNMAP, no blocks', '42 00 00 00 00 00 00 00 18 00', data=unmap((100, 0)))
case('UNMAP, 7 bytes', '42 00 00 00 00 00 00 00 07 00', data=unmap()[:7])
case('UNMAP, past the end', '42 00 00 00 00 00 00 00 18 00', data=unmap((END, 1)))
case('UNMAP, ANCHOR', '42 01 00 00 00 00 00 00 18 00', data=unmap((100, 1)))
case('UNMAP, 33 descriptors', '42 00 00 00 00 00 00 02 18 00', data=unmap(*[(i, 1) for i in range(200, 233)]))
def caw(lba, n, flags=0):
    return struct.pack('>BBQIBB', 0x89, flags, lba, n, 0, 0)
case('COMPARE AND WRITE', caw(0x2a, 1), data=BLOCK + OTHER)
case('READ back, COMPARE AND WRITE', rw(0x28, 0x2a, 1), 512)
case('COMPARE AND WRITE, miscompare', caw(0x2a, 1), data=BLOCK + OTHER)
case('COMPARE AND WRITE, nothing', caw(0x2a, 0))
case('COMPARE AND WRITE, two blocks', caw(0x2a, 2), data=bytes(2048))
case('COMPARE AND WRITE, past the end', caw(END, 1), data=bytes(1024))
case('GET LBA STATUS', '9e 12 00 00 00 00 00 00 00 00 00 00 00 18 00 00', 24)
case('ORWRITE', rw(0x8b, 3, 1), data=BLOCK)
case('READ DEFECT DATA (10)', '37 00 0d 00 00 00 00 00 08 00', 8)
case('START STOP UNIT, start', '1b 00 00 00 01 00')
case('PREVENT ALLOW MEDIUM REMOVAL', '1e 00 00 00 00 00')
case('RECEIVE COPY RESULTS, parameters', '84 03 00 00 00 00 00 00 00 00 00 00 01 00 00 00', 256)
case('EXTENDED COPY, no list', '83 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00')
case('EXTENDED COPY, too short', '83 00 00 00 00 00 00 00 00 00 00 00 00 08 00 00', data=bytes(8))

# ---- reservations: A and B

case('PR IN, no keys', **pr_in(0))
case('PR IN, no reservation', **pr_in(1))
case('PR IN, capabilities', **pr_in(2))
case('PR IN, full status of nobody', **pr_in(3))
case('PR IN, unknown action', **pr_in(4))
case('PR IN, 4 bytes', **pr_in(0, 4))
case('PR OUT, RESERVE of a stranger', **pr_out(1, 0x1a))
case('PR OUT, REGISTER with a key that is none', **pr_out(0, 0x99, 0x1a))
case('PR OUT, REGISTER A', **pr_out(0, 0, 0x1a))
case('PR OUT, REGISTER B', node='b', **pr_out(0, 0, 0x1b))
case('PR IN, two keys', **pr_in(0))
case('PR OUT, REGISTER, old key wrong', **pr_out(0, 0x77, 0x1c))
case('PR OUT, RESERVE, type 0', **pr_out(1, 0x1a, kind=0))
case('PR OUT, RESERVE, type 9', **pr_out(1, 0x1a, kind=9))
case('PR OUT, RESERVE, scope 1', **pr_out(1, 0x1a, kind=0x15))
case('PR OUT, unknown action', **pr_out(9, 0x1a))
case('PR OUT, a list of 23 bytes', **dict(pr_out(0, 0, 0x1a, length=23), data=bytes(23)))
case('PR OUT, RESERVE by A', **pr_out(1, 0x1a))
case('PR OUT, RESERVE by A again', **pr_out(1, 0x1a))
case('PR OUT, RESERVE by A, another type', **pr_out(1, 0x1a, kind=3))
case('PR OUT, RESERVE by B', node='b', **pr_out(1, 0x1b))
case('PR IN, the reservation', **pr_in(1))
case('PR IN, full status', **pr_in(3))
case('WRITE (10), B is registered', rw(0x2a, 7, 1), data=BLOCK, node='b')
case('PR OUT, RELEASE by B', node='b', **pr_out(2, 0x1b))
case('PR OUT, RELEASE, another type', **pr_out(2, 0x1a, kind=3))
case('PR OUT, RELEASE by A', **pr_out(2, 0x1a))
case('TEST UNIT READY, after the release', '00 00 00 00 00 00', node='b')
case('PR OUT, exclusive access by A', **pr_out(1, 0x1a, kind=3))
for name, cdb, kw in (('READ (10)', rw(0x28, 0, 1), dict(read=512)), ('WRITE (10)', rw(0x2a, 0, 1), dict(data=BLOCK)),
                      ('INQUIRY', '12 00 00 00 24 00', dict(read=36)), ('TEST UNIT READY', '00 00 00 00 00 00', {}),
                      ('MODE SENSE (6)', '1a 00 08 00 ff 00', dict(read=255)),
                      ('READ CAPACITY (10)', '25 00 00 00 00 00 00 00 00 00', dict(read=8)),
                      ('REPORT LUNS', 'a0 00 00 00 00 00 00 00 01 00 00 00', dict(read=256)),
                      ('SYNCHRONIZE CACHE (10)', rw(0x35, 0, 0), {}),
                      ('UNMAP', '42 00 00 00 00 00 00 00 18 00', dict(data=unmap((300, 1)))),
                      ('COMPARE AND WRITE', caw(300, 1), dict(data=bytes(1024))),
                      ('RESERVE (6)', '16 00 00 00 00 00', {}),
                      ('START STOP UNIT', '1b 00 00 00 01 00', {}),
                      ('REPORT TARGET PORT GROUPS', 'a3 0a 00 00 00 00 00 00 01 00 00 00', dict(read=256))):
    case('exclusive: %s of B' % name, cdb, node='b', **kw)
case('PR OUT, PREEMPT by B', node='b', **pr_out(4, 0x1b, 0x1a, kind=1))
case('TEST UNIT READY, A was preempted', '00 00 00 00 00 00')
case('TEST UNIT READY, A, once only', '00 00 00 00 00 00')
case('WRITE (10) of A', rw(0x2a, 7, 1), data=BLOCK)
case('READ (10) of A', rw(0x28, 7, 1), 512)
case('PR OUT, RELEASE of A, not registered', **pr_out(2, 0x1a, kind=1))
case('PR OUT, REGISTER AND IGNORE of A', **pr_out(6, 0x55, 0x2a))
case('PR IN, full status at last', **pr_in(3))
case('PR OUT, PREEMPT of a key that is none', node='b', **pr_out(4, 0x1b, 0x99, kind=1))
case('PR OUT, CLEAR by A', **pr_out(3, 0x2a))
case('TEST UNIT READY, B was cleared', '00 00 00 00 00 00', node='b')
case('TEST UNIT READY, B, once only', '00 00 00 00 00 00', node='b')
case('PR IN, generation', **pr_in(0))
case('RESERVE (6) by A', '16 00 00 00 00 00')
case('RESERVE (6) by B', '16 00 00 00 00 00', node='b')
case('READ (10) of B', rw(0x28, 0, 1), 512, node='b')
case('PR OUT, REGISTER under a RESERVE', **pr_out(0, 0, 0x1a))
case('RELEASE (6) by B', '17 00 00 00 00 00', node='b')
case('READ (10) of B, still', rw(0x28, 0, 1), 512, node='b')
case('RELEASE (6) by A', '17 00 00 00 00 00')
case('READ (10) of B, then', rw(0x28, 0, 1), 512, node='b')
