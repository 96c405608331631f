#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""iscsi-compare.py OURS TARGET THEIRS TARGET: two targets' answers to the same commands.

Each is given as ADDRESS:PORT and name, with a thin LUN 0 of 64 MiB in blocks of 512 bytes,
never written.  Both get the same commands in the same order, through two sessions each.
Status, sense, length and every byte of the answers are compared.  The reference is the
kernel's target (LIO of Linux 6.1); where the answers differ, the table below says what each
of them is to say and why.  A difference that it does not have is a failure, and so is one
that it has and that is not there.
"""
import os, select, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../lib'))
import iscsi
from scsi_cases import cases, pong, run

# all that is negotiated, so that the reference has nothing to propose
KEYS = dict(HeaderDigest='None', DataDigest='None', MaxConnections=1, InitialR2T='No', ImmediateData='Yes',
            MaxBurstLength=262144, FirstBurstLength=65536, DefaultTime2Wait=2, DefaultTime2Retain=0,
            MaxOutstandingR2T=1, DataPDUInOrder='Yes', DataSequenceInOrder='Yes', ErrorRecoveryLevel=0,
            OFMarker='No', IFMarker='No')

class Side:
    """One of the targets, with two initiators, A and B."""

    def __init__(self, where, target):
        self.node = {n: iscsi.Session(name='iqn.2026-11.test:' + n, where=where, to=target,
                                      isid=b'\x80\0\0\0\0' + n.encode(), **KEYS) for n in 'ab'}
        for s in self.node.values():
            while s.clear().bhs[3]:
                pass

    def answer_pings(self):
        for s in self.node.values():
            while select.select([s.s], [], [], 0)[0]:
                pong(s, s.recv())

# ---- what differs, and why
#
# of a command: (first byte, byte after the last, why), or with a word in front:
# ('ends', ours, theirs, why), ('length', ours, theirs, why)

LACKS = 'the reference does not have the command'
RESERVED = 'bits that are reserved, and features that are not there, are refused (SPC-4, 4.3.3)'
ALONE = 'as SPC-4, table 65, has it; the reference is not as strict, or stricter'
WHO = [(3, 4, 'HISUP: LUNs have the form of SAM-4'), (5, 6, 'SCCS: neither has storage arrays'), (8, 36, 'who made it')]
BLOCKS = 'the number of blocks; the reference has the last address there'
DRA = 'DRA: the reference does not read ahead'
STATES = [(5, 6, 'T_SUP, O_SUP: no transitions that take time, never offline'),
          (7, 8, 'our portal group is 1; the reference has a group 0 for what was not told otherwise')]
NO_LUN = 'a LUN that is not there answers these (SPC-4, 6.6, 6.33, 6.39): qualifier 011b, the list, sense as data'
COMPARES = 'the reference accepts BYTCHK and compares nothing'

def mode(at, *pages, control=0):
    """Page 01, 08, 0a, 1c, each (name, its offset); the block descriptor at @at, or None."""
    out = [(at + 1, at + 4, BLOCKS)] if at is not None else []
    for page, o in pages:
        out += {
            (0x01, 0): [(o + 2, o + 3, 'AWRE, ARRE: what is below reassigns by itself')],
            (0x01, 1): [(o + 3, o + 4, 'LBPERE: thresholds can be switched on')],
            (0x08, 0): [(o + 12, o + 13, DRA)],
            (0x08, 1): [(o + 2, o + 3, 'WCE can be changed')],
            (0x0a, 0): [(o + 2, o + 3, 'GLTSD: the reference has no log parameters to save'),
                        (o + 5, o + 6, 'TAS: we tell of aborts by a unit attention'),
                        (o + 11, o + 12, 'the reference says that a self-test takes 30 s')],
            (0x0a, 1): [(o + 2, o + 3, 'D_SENSE can be changed'), (o + 4, o + 5, 'SWP can be changed')],
            (0x1c, 0): [(o + 2, o + 3, 'DEXCPT: there are no exceptions')],
            (0x1c, 1): [],
        }[page, control]
    return out

EXPLAINED = {
    'INQUIRY': WHO,
    'INQUIRY, 5 bytes': WHO[:1],
    'INQUIRY, CMDDT': [('ends', '5/24/00', 'good', RESERVED)],
    'INQUIRY, page 00': [('length', 13, 12, 'which pages there are'), (3, 4, 'so many'),
                         (8, 12, 'we have 87, the reference has B3')],
    'INQUIRY, page 80': [('length', 20, 14, 'the serial number'), (3, 14, 'the serial number')],
    'INQUIRY, page 83': [('length', 172, 141, 'names'), (3, 141, 'names')],
    'INQUIRY, page 86': [(13, 14, 'how long sense data can be: the reference does not say')],
    'INQUIRY, page b0': [(4, 5, 'WSNZ: WRITE SAME of 0 blocks means up to the end'),
                         (5, 6, 'COMPARE AND WRITE of up to 255 blocks'), (7, 8, 'granularity: 4 KiB'),
                         (8, 12, 'transfers of up to 1 GiB'), (12, 16, 'best: 512 KiB'),
                         (20, 24, 'UNMAP of any number of blocks,'), (24, 28, 'in 256 ranges,'),
                         (28, 32, 'in pieces of 4 KiB'), (32, 33, 'the first of them at 0: UGAVALID'),
                         (36, 44, 'WRITE SAME of up to 4 Mi blocks'), (44, 48, 'WRITE ATOMIC')],
    'INQUIRY, page b1': [(4, 6, 'it does not rotate'), (7, 8, 'WABEREQ: what was never written reads as zeroes')],
    'INQUIRY, page b2': [(4, 5, 'there are thresholds'), (5, 6, 'LBPRZ: what is unmapped reads as zeroes'),
                         (6, 7, 'it is thin')],
    'INQUIRY, page b3': [('ends', '5/24/00', 'good', 'no referrals: every port leads to every block')],
    'TEST UNIT READY, a reserved bit': [('ends', '5/24/00', 'good', RESERVED)],
    'TEST UNIT READY, NACA': [('ends', '5/24/00', 'good', RESERVED)],
    'REQUEST SENSE': [('length', 18, 255, 'the reference sends zeroes behind the sense')],
    'REQUEST SENSE, descriptors': [('ends', 'good', '5/24/00', 'the reference has no descriptors here')],
    'REPORT LUNS, 1': [('length', 8, 16, 'well-known LUNs: there are none'), (3, 4, 'so many')],
    'REPORT LUNS, 3': [('ends', '5/24/00', 'good', RESERVED)],
    'REPORT LUNS, 4 bytes': [('ends', '5/24/00', 'good', 'less than 16 bytes are an error (SPC-4, 6.33)')],
    'READ CAPACITY (16)': [(13, 14, 'physical blocks of 4 KiB'), (14, 15, 'LBPRZ')],
    'REPORT TARGET PORT GROUPS': STATES,
    'REPORT TARGET PORT GROUPS, extended': [('length', 20, 16, 'the reference sends the short form'), (3, 4, 'so long'),
                                            (4, 16, 'the header, and then the group')],
    'SET TARGET PORT GROUPS, no list': [('ends', 'good', '5/26/00', 'no list is no error (SPC-4, 6.45)')],
    'REPORT SUPPORTED OPERATION CODES, one': [('ends', 'good', '5/20/00', LACKS)],
    'REPORT SUPPORTED TMFS': [('ends', 'good', '5/20/00', LACKS)],
    'LOG SENSE, pages': [('ends', 'good', '5/20/00', LACKS)],
    'INQUIRY, no such LUN': [('ends', 'good', '5/25/00', NO_LUN)],
    'REPORT LUNS, no such LUN': [('ends', 'good', '5/25/00', NO_LUN)],
    'REQUEST SENSE, no such LUN': [('ends', 'good', '5/25/00', NO_LUN)],
    'MODE SENSE (6), page 05, control 3': [('ends', '5/39/00', '5/24/00', 'nothing is saved, whatever the page')],
    'MODE SENSE (10), all': mode(8, (0x01, 16), (0x08, 28), (0x0a, 48), (0x1c, 60)),
    'MODE SENSE (10), no block descriptor': mode(None, (0x01, 8), (0x08, 20), (0x0a, 40), (0x1c, 52)),
    'MODE SENSE (10), long LBA': [('length', 44, 36, 'LLBAA: the reference sends the short descriptor'),
                                  (1, 36, 'of 16 bytes, and what is behind it')],
    'MODE SENSE (10), all subpages': mode(8, (0x01, 16), (0x08, 28), (0x0a, 48), (0x1c, 60)) + [
        ('length', 104, 72, 'page 1C/02, the thresholds: the reference has none'), (1, 2, 'so long')],
    'MODE SELECT (6), what is there': [('ends', 'good', '5/26/00', 'to the reference, ' + DRA)],
    'TEST UNIT READY, B is told of it': [('ends', '6/2a/01', 'good', 'for us it was a change')],
    'MODE SELECT (6), a page that is not there': [
        ('ends', '5/26/00', '5/24/00', 'what is wrong is in the list, not in the CDB (SPC-4, 6.11)')],
    'READ (10), a reserved bit': [('ends', '5/24/00', 'good', RESERVED)],
    'VERIFY, not equal (10)': [('ends', 'e/1d/00', 'good', COMPARES)],
    'VERIFY, not equal (16)': [('ends', 'e/1d/00', 'good', COMPARES)],
    'PRE-FETCH (10)': [('ends', 'good', '5/20/00', LACKS)],
    'PRE-FETCH (16)': [('ends', 'good', '5/20/00', LACKS)],
    'WRITE SAME (16), NDOB': [('ends', 'good', '5/24/00', 'the reference does not know NDOB')],
    'WRITE SAME (10), to the end': [('ends', 'good', '5/24/00', 'WSNZ is 0 here, and 1 there')],
    'UNMAP, 33 descriptors': [('ends', 'good', '5/26/00', 'limits are those of page B0: 256 and 1')],
    'COMPARE AND WRITE, two blocks': [('ends', 'good', '5/24/00', 'limits are those of page B0: 255 and 1')],
    'GET LBA STATUS': [('ends', 'good', '5/24/00', LACKS)],
    'ORWRITE': [('ends', 'good', '5/20/00', LACKS)],
    'READ DEFECT DATA (10)': [('ends', 'good', '5/20/00', LACKS)],
    'START STOP UNIT, start': [('ends', 'good', '5/24/00', 'only a removable medium can be started there')],
    'RECEIVE COPY RESULTS, parameters': [
        ('length', 46, 256, 'the reference sends zeroes behind the parameters'), (4, 5, 'SNLID: lists have identifiers'),
        (8, 20, '16 targets and segments at once, and 2 and 1'), (35, 37, 'copies at once'),
        (38, 40, 'granularities of inline and held data, of which we have none')],
    'PR IN, capabilities': [(2, 3, 'CRH: no reservations by RELEASE of a registrant'),
                            (3, 4, 'ALLOW COMMANDS: not told')],
    'PR IN, 4 bytes': [('ends', 'good', '5/24/00', 'a short answer is no error (SPC-4, 4.3.5.6)')],
    'PR OUT, RESERVE of a stranger': [
        ('ends', 'conflict', '2/08/00', 'a stranger is a conflict (SPC-4, 5.13.10)')],
    'PR OUT, RESERVE, scope 1': [('ends', '5/24/00', '5/26/00', 'the scope is in the CDB')],
    'PR OUT, RELEASE, another type': [
        ('ends', '5/26/04', 'conflict', 'INVALID RELEASE OF PERSISTENT RESERVATION (SPC-4, 5.13.11.2.2)')],
    'exclusive: INQUIRY of B': WHO,
    'exclusive: MODE SENSE (6) of B': [('ends', 'conflict', 'good', ALONE)],
    'exclusive: READ CAPACITY (10) of B': [('ends', 'good', 'conflict', 'as SBC-3, table 13, has it')],
    'exclusive: REPORT TARGET PORT GROUPS of B': STATES,
    'exclusive: START STOP UNIT of B': [('ends', 'good', 'conflict', ALONE)],
}
for control in 0, 1, 2:
    c = control % 2
    for page in 0x01, 0x08, 0x0a, 0x1c:
        EXPLAINED['MODE SENSE (6), page %02x, control %d' % (page, control)] = mode(4, (page, 12), control=c)
    EXPLAINED['MODE SENSE (6), page 3f, control %d' % control] = \
        mode(4, (0x01, 12), (0x08, 24), (0x0a, 44), (0x1c, 56), control=c)
for page in 0x01, 0x08, 0x0a, 0x1c, 0x3f:
    EXPLAINED['MODE SENSE (6), page %02x, control 3' % page] = [
        ('ends', '5/39/00', 'good', 'nothing is saved; the reference does not look at PC')]

# ---- running them

def ranges(offsets):
    out = []
    for o in offsets:
        if out and out[-1][1] == o:
            out[-1][1] = o + 1
        else:
            out.append([o, o + 1])
    return out

def judge(ours, theirs, explained):
    """What is wrong: a difference without explanation, an explanation without difference."""
    (our_end, our_data), (their_end, their_data) = ours, theirs
    word = {e[0]: e[1:3] for e in explained if isinstance(e[0], str)}
    at = [e for e in explained if not isinstance(e[0], str)]
    if (our_end, their_end) != word.get('ends', (our_end, our_end)):
        yield 'ends with %s, the reference with %s' % (our_end, their_end)
    if our_end != their_end:
        return
    if (len(our_data), len(their_data)) != word.get('length', (len(our_data), len(our_data))):
        yield '%d bytes, the reference %d' % (len(our_data), len(their_data))
    offsets = [i for i, (a, b) in enumerate(zip(our_data, their_data)) if a != b]
    for first, last, _ in at:
        if not any(first <= o < last for o in offsets):
            yield 'bytes %d to %d are the same, although the table says not' % (first, last - 1)
    for first, last in ranges(o for o in offsets if not any(a <= o < b for a, b, _ in at)):
        yield 'bytes %d to %d: %s, the reference %s' % (first, last - 1, our_data[first:last].hex(),
                                                        their_data[first:last].hex())

names = [c[0] for c in cases]
assert len(names) == len(set(names)) and set(EXPLAINED) <= set(names), set(EXPLAINED) - set(names)
ours, theirs = Side(*sys.argv[1:3]), Side(*sys.argv[3:5])
wrong = 0
for name, cdb, read, data, node, lun in cases:
    for side in ours, theirs:
        side.answer_pings()
    results = [run(side.node[node], cdb, read, data, lun) for side in (ours, theirs)]
    for what in judge(*results, EXPLAINED.get(name, ())):
        print('%s: %s' % (name, what))
        wrong += 1
print('%d commands compared, %d differ as explained, %d otherwise' % (len(cases), len(EXPLAINED), wrong))
sys.exit(wrong > 0)
