# SPDX-License-Identifier: LGPL-2.1-or-later
"""A target that believes everything and proves nothing: PORT HOW.

HOW: "silent" asks for CHAP and leaves its own answer out; "skip" leaves the security
stage at once; "zeros" ends it at once, with an answer to a challenge that it has not
waited for.  Prints "logged in" if the initiator goes on after that."""
import socket
import struct
import sys


def receive(c, n):
    data = b""
    while len(data) < n:
        part = c.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def pdu(c):
    head = receive(c, 48)
    length = int.from_bytes(head[5:8], "big")
    return head, receive(c, (length + 3) & ~3)[:length]


def answer(c, head, flags, text, turn):
    data = b"".join(t.encode() + b"\0" for t in text)
    out = bytearray(48)
    out[0], out[1] = 0x23, flags
    out[5:8] = len(data).to_bytes(3, "big")
    out[8:16] = head[8:14] + b"\0\1"
    out[16:20] = head[16:20]
    cmd = struct.unpack(">I", head[24:28])[0]
    struct.pack_into(">III", out, 24, 1 + turn, cmd, cmd + 32)
    c.sendall(bytes(out) + data + bytes(-len(data) % 4))


def serve(c):
    challenge = "CHAP_C=0x" + "5a" * 16
    steps = [(0x00, ["TargetPortalGroupTag=1", "AuthMethod=CHAP"]),
             (0x00, ["CHAP_A=5", "CHAP_I=7", challenge])]
    at_once = {"skip": (0x87, ["TargetPortalGroupTag=1"]),
               "zeros": (0x83, ["TargetPortalGroupTag=1", "CHAP_N=the-target",
                                "CHAP_R=0x" + "00" * 16])}
    turn = 0
    while True:
        head, data = pdu(c)
        if turn == 0 and sys.argv[2] in at_once:
            answer(c, head, *at_once[sys.argv[2]], turn)
            turn = 1
            continue
        if head[0] & 0x3f != 0x03:
            print("logged in", flush=True)
            return
        if head[1] >> 2 & 3 == 1:  # operational: whatever it wants
            answer(c, head, 0x87, [], turn)
        elif turn < len(steps):
            answer(c, head, *steps[turn], turn)
        else:  # what should have been its proof
            answer(c, head, 0x81, [], turn)
        turn += 1


s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen(8)
while True:
    connection, _ = s.accept()
    try:
        serve(connection)
    except (EOFError, ConnectionError):
        pass
    connection.close()
