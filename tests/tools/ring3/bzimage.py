#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bzimage.py CODE OUT: put the least of a Linux set-up header before a flat binary at 1 MiB."""
import struct, sys

code = open(sys.argv[1], 'rb').read()
head = bytearray(5 * 512)
for off, fmt, value in ((0x1f1, 'B', 4), (0x1fe, 'H', 0xaa55), (0x200, 'H', 0x66eb),
                        (0x202, '4s', b'HdrS'), (0x206, 'H', 0x20f), (0x211, 'B', 1),
                        (0x22c, 'I', 0x37ffffff), (0x230, 'I', 0x1000), (0x236, 'H', 1),
                        (0x238, 'I', 2047), (0x258, 'Q', 0x100000),
                        (0x260, 'I', len(code) + 0x100000)):
    struct.pack_into('<' + fmt, head, off, value)
open(sys.argv[2], 'wb').write(head + code)
