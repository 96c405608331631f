#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""iscsi-logins.py PORTAL PORTAL2: logins that the usual tools do not do, good and bad.

CHAP with all digests and both ways, and how it may be attacked; what discovery tells;
limits; pings.  tests/integration/iscsi-logins.sh starts the vdiskd that this expects.
"""
import base64, hashlib, os, socket, struct, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../lib'))
import iscsi
from iscsi import Closed

first, second = sys.argv[1:3]
iscsi.use(first, 'iqn.2026-11.test:open')

ALICE, SERVER = b'the secret of alice', b'what the server knows'
DIGESTS = {b'5': 'md5', b'6': 'sha1', b'7': 'sha256', b'8': 'sha3_256'}

def keys(p):
    return dict(kv.split(b'=', 1) for kv in p.data.split(b'\0') if kv)

def status(p):
    return p.bhs[36:38].hex()

def unhex(text):
    assert text.startswith(b'0x')
    return bytes.fromhex(text[2:].decode())

def response(algorithm, ident, secret, challenge):
    return hashlib.new(DIGESTS[algorithm], bytes([int(ident)]) + secret + challenge).digest()

class Login(iscsi.Session):
    """A login that is not over."""

    def __init__(self, target='closed', portal=None, isid=None, name='iqn.2026-11.test:i', discovery=False):
        super().__init__(login=False, isid=isid, name=name, where=portal)
        self.to = b'InitiatorName=%s\0' % name.encode() + (
            b'SessionType=Discovery\0' if discovery else
            b'TargetName=iqn.2026-11.test:%s\0' % target.encode())

    def challenge(self, algorithms=b'5'):
        p = self.login_pdu(self.to + b'AuthMethod=CHAP,None\0', 0, 1)
        assert status(p) == '0000' and p.flags == 0 and keys(p)[b'AuthMethod'] == b'CHAP', p.bhs.hex()
        p = self.login_pdu(b'CHAP_A=%s\0' % algorithms, 0)
        if status(p) == '0000':
            k = keys(p)
            self.a, self.i, self.c = k[b'CHAP_A'], k[b'CHAP_I'], unhex(k[b'CHAP_C'])
        return p

    def answer(self, secret=ALICE, user=b'alice', more=b'', r=None, csg=0, nsg=1):
        r = r or b'0x' + response(self.a, self.i, secret, self.c).hex().encode()
        return self.login_pdu(b'CHAP_N=%s\0CHAP_R=%s\0' % (user, r) + more, csg, nsg)

    def full(self, stage=1):
        p = self.login_pdu(b'', stage, 3)
        assert status(p) == '0000' and p.flags == stage << 2 | 0x83, p.bhs.hex()
        return self

    def refused(self, p, want):
        assert status(p) == want, (status(p), want)
        assert not p.data, p.data
        self.must_close()

def chap_all():
    for a, name in DIGESTS.items():
        s = Login()
        s.challenge(a)
        assert s.a == a and len(s.c) == 32
        ours = os.urandom(16 + 8 * int(a))
        p = s.answer(more=b'CHAP_I=77\0CHAP_C=0x%s\0' % ours.hex().encode())
        assert status(p) == '0000' and p.flags == 0x81
        k = keys(p)
        assert k[b'CHAP_N'] == b'server'
        assert unhex(k[b'CHAP_R']) == response(a, 77, SERVER, ours)
        s.full()
        s.clear()
        assert len(s.read(0, 1)) == 512
        s.logout()
    s = Login()                             # Base64, one-way, and straight to the full feature phase
    s.challenge(b'8,7,6,5')
    assert s.a == b'8'
    p = s.answer(r=b'0b' + base64.b64encode(response(s.a, s.i, ALICE, s.c)), nsg=3)
    assert status(p) == '0000' and p.flags == 0x83
    s.alive()
    s.logout()

def chap_attacks():
    seen = set()
    for _ in range(60):                     # challenges: never the same, and not of a simple kind
        s = Login()
        s.challenge(b'7')
        seen.add(s.c)
        s.s.close()
    assert len(seen) == 60 and len({c[:8] for c in seen}) == 60
    ones = sum(bin(int.from_bytes(c, 'big')).count('1') for c in seen)
    assert abs(ones - 60 * 128) < 600, ones
    s = Login()
    s.challenge()
    s.refused(s.answer(secret=b'the secret of alicE'), '0201')
    for user in (b'', b'root', b'server', b'0x616c696365', b'alice%n%n%n%s', b'x' * 255):
        s = Login()
        s.challenge()
        s.refused(s.answer(user=user), '0201' if user else '0200')
    # sizes: nothing of them may be written past the end of anything
    for r in (b'0x', b'0b', b'0x0', b'0x' + b'0' * 2048, b'0x' + b'a' * 2049, b'0b' + b'A' * 1364,
              b'0b' + b'A' * 1368, b'0b' + b'A' * 2046, b'0b' + b'=' * 8, b'0bAAA', b'12', b'xyz', b'0xzz'):
        s = Login()
        s.challenge()
        p = s.answer(r=r)
        assert status(p) in ('0200', '0201'), (r, status(p))
        s.must_close()
    for more in (b'CHAP_I=1\0', b'CHAP_C=0x00\0', b'CHAP_I=256\0CHAP_C=0x00\0', b'CHAP_A=5\0',
                 b'CHAP_I=1\0CHAP_C=0x' + b'0' * 2050 + b'\0', b'CHAP_N=alice\0'):
        s = Login()
        s.challenge()
        s.refused(s.answer(more=more), '0200')
    # reflection: our challenge comes back, on this connection or from another one
    s, other = Login(), Login()
    other.challenge()
    s.challenge()
    s.refused(s.answer(more=b'CHAP_I=1\0CHAP_C=0x%s\0' % other.c.hex().encode()), '0201')
    s = Login()
    s.challenge()
    s.refused(s.answer(more=b'CHAP_I=1\0CHAP_C=0x%s\0' % s.c.hex().encode()), '0201')
    # a good response to an old challenge
    old = response(other.a, other.i, ALICE, other.c)
    s = Login()
    s.challenge()
    s.refused(s.answer(r=b'0x' + old.hex().encode()), '0201')
    assert status(other.answer()) == '0000'
    # ways round it
    for text, csg, nsg in ((b'', 1, 3), (b'', 0, 1), (b'', 0, 3), (b'AuthMethod=None\0', 0, 3),
                           (b'AuthMethod=None\0', 0, None)):
        s = Login()
        p = s.login_pdu(s.to + text, csg, nsg)
        if nsg is None or status(p) != '0000':
            assert status(p) == '0201', (text, csg, nsg, status(p))
            s.must_close()
        else:
            raise AssertionError('let in: %r %r %r' % (text, csg, nsg))
    s = Login()                             # no stage forward without an answer
    s.challenge()
    p = s.login_pdu(b'', 1, 3)
    assert status(p) == '020b'
    s = Login()
    p = s.login_pdu(s.to + b'AuthMethod=CHAP\0AuthMethod=None\0', 0, 1)
    assert status(p) == '0200'
    s = Login()
    s.challenge()
    p = s.login_pdu(b'AuthMethod=None\0', 0, 1)
    assert status(p) == '0200'
    # of the digests that a target takes, only those
    s = Login('sha')
    s.refused(s.challenge(b'5,6'), '0201')
    s = Login('sha')
    s.challenge(b'5,7')
    assert s.a == b'7'
    s = Login('sha')                        # it has no secret of its own
    s.challenge(b'7')
    s.refused(s.answer(more=b'CHAP_I=1\0CHAP_C=0x0011223344\0'), '0201')

def reinstatement_by_strangers():
    """Who cannot prove who they are ends nobody's session."""
    isid = b'\x80\x66\x66\x66\x66\x66'
    s = Login(isid=isid)
    s.challenge()
    s.answer()
    s.full()
    thief = Login(isid=isid)
    thief.challenge()
    thief.refused(thief.answer(secret=b'guess guess guess'), '0201')
    s.alive()
    again = Login(isid=isid)                # while the owner may
    again.challenge()
    again.answer()
    again.full()
    s.must_close()
    again.alive()
    again.logout()

def text_limits():
    """Unknown keys come back, but never longer than they may be (CVE-2013-2850)."""
    s = Login('open')
    key = b'X-' + b'k' * 61
    p = s.login_pdu(s.to + key + b'=' + b'v' * 255 + b'\0', 0, 1)
    assert key + b'=NotUnderstood' in p.data
    for text in (b'X-' + b'k' * 62 + b'=1\0', b'X-a=' + b'v' * 256 + b'\0', b'A' * 4000 + b'=1\0',
                 b'CHAP_N=' + b'n' * 256 + b'\0', b'CHAP_A=' + b'5,' * 300 + b'\0'):
        s = Login('open')
        p = s.login_pdu(s.to + text, 0, 1)
        assert status(p) == '0200', (text[:20], status(p))
        s.must_close()
    # what is reserved in an answer is zero (CVE-2014-4027 was of this kind)
    s = Login('open')
    p = s.login_pdu(s.to, 0, 1)
    assert p.bhs[2:5] == bytes(3) and p.bhs[20:24] == bytes(4) and p.bhs[38:] == bytes(10), p.bhs.hex()
    assert p.data.rstrip(b'\0').split(b'\0')[-1].count(b'=') == 1
    s.login_pdu(b'', 1, 3)
    p = s.request(0x00, data=b'ping')
    assert p.bhs[2:5] == bytes(3) and p.bhs[36:] == bytes(12), p.bhs.hex()
    # a C bit and nothing behind it, over and over; additional headers where there are none
    p = s.request(0x04, 0x40)
    for _ in range(50):
        p = s.request(0x04, 0x40, a=p.ttt)
        assert p.op == 0x24 and not p.data
    s.send(0x04, 0x80, itt=9, a=0xffffffff, b=s.cmdsn, ahs=bytes(1020))
    s.cmdsn += 1
    assert s.recv().op == 0x3f
    s.alive()
    s.logout()
    # a login made of nothing but empty pieces ends at some point
    s = Login('open')
    try:
        for _ in range(1000):
            s.login_pdu(b'', 0, more=True)
        raise AssertionError('an endless login')
    except (Closed, ConnectionError):
        pass

def discovery():
    def send_targets(s, what=b'All'):
        p = s.request(0x04, data=b'SendTargets=%s\0' % what)
        out = p.data
        while p.flags & 0x40:
            p = s.request(0x04, a=p.ttt)
            out += p.data
        return out
    # discovery has its own user here
    s = Login(discovery=True)
    s.refused(s.login_pdu(s.to + b'AuthMethod=None\0', 0, 1), '0201')
    s = Login(discovery=True)
    s.challenge()
    s.refused(s.answer(), '0201')
    s = Login(discovery=True)
    s.challenge(b'7')
    s.answer(user=b'finder', secret=b'finds what is there')
    p = s.login_pdu(b'MaxRecvDataSegmentLength=512\0', 1, 3)
    assert p.flags == 0x87
    out = send_targets(s)
    names = [kv.split(b'=', 1)[1] for kv in out.split(b'\0') if kv.startswith(b'TargetName')]
    assert len(names) == len(set(names)) == 305, len(names)     # all but the hidden one
    assert not any(b'hidden' in n for n in names)
    # the address that we used comes first
    both = b'\0TargetAddress=%s,1\0TargetAddress=%s,2\0' % (first.encode(), second.encode())
    assert b'TargetName=iqn.2026-11.test:open' + both in out
    assert b'TargetName=iqn.2026-11.test:two\0TargetAddress=%s,2\0TargetName' % second.encode() in out
    assert send_targets(s, b'iqn.2026-11.test:open').count(b'TargetAddress') == 2
    assert send_targets(s, b'iqn.2026-11.test:hidden') == b''
    assert send_targets(s, b'iqn.2026-11.test:none') == b''
    p = s.request(0x01, data=b'')           # no commands here
    assert p.op == 0x3f
    s.alive()
    s.logout()
    friend = Login(discovery=True, name='iqn.2026-11.test:friend')
    friend.challenge(b'7')
    friend.answer(user=b'finder', secret=b'finds what is there')
    friend.full()
    assert b'hidden' in send_targets(friend)
    friend.logout()
    # in a normal session: of that one target
    s = Login('open')
    s.login_pdu(s.to, 1, 3)
    assert send_targets(s, b'').startswith(b'TargetName=iqn.2026-11.test:open\0TargetAddress=')
    assert send_targets(s, b'') == send_targets(s, b'iqn.2026-11.test:open')
    assert send_targets(s, b'All') == b'SendTargets=Reject\0'
    assert send_targets(s, b'iqn.2026-11.test:hidden') == b''
    s.logout()

def groups():
    s = Login('open')
    assert keys(s.login_pdu(s.to, 0, 1))[b'TargetPortalGroupTag'] == b'1'
    s = Login('open', portal=second)
    assert keys(s.login_pdu(s.to, 0, 1))[b'TargetPortalGroupTag'] == b'2'
    s = Login('two')
    s.refused(s.login_pdu(s.to, 0, 1), '0203')
    s = Login('two', portal=second)
    assert status(s.login_pdu(s.to, 0, 1)) == '0000'
    # two ports of a target: the same initiator port makes a session with each
    isid = b'\x80\x77\x77\x77\x77\x77'
    a = Login('open', isid=isid)
    a.login_pdu(a.to, 1, 3)
    b = Login('open', isid=isid, portal=second)
    b.login_pdu(b.to, 1, 3)
    a.alive()
    b.alive()
    a.logout()
    b.logout()
    s = Login('moved')
    p = s.login_pdu(s.to, 0, 1)
    assert status(p) == '0102' and p.data == b'TargetAddress=192.0.2.9:3261\0', p.data
    s.must_close()

def connections():
    s = Login('open')
    p = s.login_pdu(s.to, 1, 3)
    tsih = struct.unpack('>H', p.bhs[14:16])[0]
    assert tsih
    more = Login('open', isid=s.isid)
    p = more.login_pdu(more.to, 1, 3, tsih=tsih, cid=2)
    more.refused(p, '0206')
    other = Login('open')
    p = other.login_pdu(other.to, 1, 3, tsih=tsih ^ 0x5555)
    other.refused(p, '020a')
    s.alive()
    s.logout()

def pings():
    """nop-interval and nop-timeout are 1 second here."""
    s, silent = Login('open'), Login('open')
    s.login_pdu(s.to, 1, 3)
    silent.login_pdu(silent.to, 1, 3)
    for i in range(2):
        p = s.recv()
        assert p.op == 0x20 and p.itt == 0xffffffff and p.ttt != 0xffffffff, p.bhs.hex()
        if i == 1:          # an answer to nothing that was asked
            s.send(0x00, 0x80, itt=0xffffffff, a=p.ttt ^ 1, b=s.cmdsn, c=s.expstatsn, immediate=True)
            wrong = s.recv()
            assert wrong.op == 0x3f and wrong.bhs[2] == 9, wrong.bhs.hex()
        s.send(0x00, 0x80, itt=0xffffffff, a=p.ttt, b=s.cmdsn, c=s.expstatsn, immediate=True)
    assert silent.recv().op == 0x20
    silent.must_close()
    s.alive()
    s.logout()

def limits():
    """sessions 12, sessions-per-initiator 5, pending-logins 20."""
    def login(name):
        s = Login('open', name=name)
        return s, status(s.login_pdu(s.to, 1, 3))
    mine = [login('iqn.2026-11.test:greedy') for _ in range(6)]
    assert [r for _, r in mine] == ['0000'] * 5 + ['0302'], [r for _, r in mine]
    others = [login('iqn.2026-11.test:n%d' % i) for i in range(8)]
    assert [r for _, r in others] == ['0000'] * 7 + ['0302'], [r for _, r in others]
    mine[0][0].logout()
    s, r = login('iqn.2026-11.test:late')
    assert r == '0000'
    for s, r in mine[1:5] + others[:7] + [(s, r)]:
        s.s.close()
    # connections that say nothing
    idle = []
    for _ in range(20):
        idle.append(iscsi.connect())
    late = iscsi.connect()
    try:
        assert late.recv(1) == b''
    except ConnectionError:
        pass
    for c in idle:
        c.close()
    for _ in range(200):
        try:
            s = Login('open')
            s.login_pdu(s.to, 1, 3)
            break
        except (Closed, ConnectionError):
            time.sleep(0.05)
    s.alive()
    s.logout()

def cycles(n):
    for _ in range(n):
        s = Login('open')
        assert status(s.login_pdu(s.to, 1, 3)) == '0000'
        s.logout()

tests = [chap_all, chap_attacks, reinstatement_by_strangers, text_limits, discovery, groups, connections,
         pings, limits, lambda: cycles(10000 if os.environ.get('LONG') else 300)]
for test in tests:
    try:
        test()
    except Exception as e:
        print(f'{test.__name__}: {type(e).__name__}: {e}')
        raise
print(len(tests), 'groups passed')
