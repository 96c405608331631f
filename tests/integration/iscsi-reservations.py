#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""iscsi-reservations.py ADDRESS:PORT TARGET MODEL PID ROUND: reserve, and kill the server.

MODEL is a file that says what reservations there may be from the rounds before.
"""
import json, os, random, signal, struct, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../lib'))
import iscsi
from iscsi import Closed, Session

model_path, pid, round_no = sys.argv[3:6]
iscsi.use(*sys.argv[1:3])
rng = random.Random(int(round_no))

def connect(n):
    s = Session(name=f'iqn.2026-11.test:node{n}', isid=b'\x80\0\0\0\0' + bytes([n]))
    while s.clear().bhs[3]:
        pass
    return s

def status(s, cdb, data=b''):
    s.command(cdb, len(data), write=bool(data), data=data)
    while True:
        p = s.recv()
        if p.op == 0x21:
            return p.bhs[3]

def pr_out(s, action, kind, key, new):
    return status(s, struct.pack('>BBBHIB', 0x5f, action, kind, 0, 24, 0),
                  struct.pack('>QQIBBH', key, new, 0, 1, 0, 0))

def pr_in(s):
    """(registered keys, type, holder's key)"""
    out = []
    for action in 0, 1:
        s.command(struct.pack('>BBBIHB', 0x5e, action, 0, 0, 4096, 0), 4096, read=True)
        p = s.recv()
        assert p.op == 0x25, p.bhs.hex()
        out.append(p.data)
    keys = [struct.unpack_from('>Q', out[0], 8 + 8 * i)[0] for i in range((len(out[0]) - 8) // 8)]
    if len(out[1]) < 24:
        return [sorted(keys), 0, 0]
    return [sorted(keys), out[1][21], struct.unpack_from('>Q', out[1], 8)[0]]

def after(state, n, action, kind, new):
    """What a command of node @n, registered as it is in @state, makes of it."""
    keys, held, holder = dict(state['keys']), state['type'], state['holder']
    me = str(n)
    if action == 6:
        keys.pop(me, None)
        if new:
            keys[me] = new
        if holder == n and (not new):
            held, holder = 0, -1
    elif action == 1 and held == 0:
        held, holder = kind, n
    elif action == 2 and holder == n and kind == held:
        held, holder = 0, -1
    elif action == 3:
        keys, held, holder = {}, 0, -1
    return {'keys': keys, 'type': held, 'holder': holder}

def seen(state):
    return [sorted(state['keys'].values()), state['type'],
            state['keys'][str(state['holder'])] if state['type'] else 0]

states = [{'keys': {}, 'type': 0, 'holder': -1}]
if os.path.exists(model_path):
    states = json.load(open(model_path))

nodes = [connect(n) for n in range(3)]
found = pr_in(nodes[0])
states = [s for s in states if seen(s) == found]
assert states, f'not one of the states that there may be: {found}'
state = states[0]
# who holds it writes; who is not registered does not
if state['type']:
    block = bytes(512)
    write = struct.pack('>BBIBHB', 0x2a, 0, 0, 0, 1, 0)
    assert status(nodes[state['holder']], write, block) == 0
    for n in range(3):
        if str(n) not in state['keys']:
            assert status(nodes[n], write, block) == 0x18

def kill():
    time.sleep(rng.random() * 0.3)
    os.kill(int(pid), signal.SIGKILL)

threading.Thread(target=kill).start()
answered = 0
pending = [state]
try:
    while True:
        n = rng.randrange(3)
        action = rng.choice([6, 6, 6, 1, 1, 2, 3] if rng.random() < 0.3 else [6, 6, 1, 2])
        key = state['keys'].get(str(n), 0)
        if action != 6 and not key:
            continue
        kind = rng.choice([1, 3, 5, 6]) if action == 1 else state['type'] or 1
        if action == 1 and state['type']:
            continue
        new = rng.choice([0, rng.randrange(1, 1 << 32), rng.randrange(1, 1 << 32)]) if action == 6 else 0
        then = after(state, n, action, kind, new)
        pending = [state, then]
        while nodes[n].clear().bhs[3]:
            pass
        got = pr_out(nodes[n], action, kind, key, new)
        assert got == 0, f'{action} of {n}: status {got}'
        state = then
        pending = [state]
        answered += 1
except (Closed, OSError):
    pass
json.dump(pending, open(model_path, 'w'))
print('answered', answered)
