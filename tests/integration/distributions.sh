#!/bin/bash
# vdisk inspect on the disk layouts of a dozen distributions, made by script.
. "$(dirname "$0")/../functions.sh"
requires sfdisk mke2fs debugfs mkfs.fat python3
cd "$tmp"
export VDISK PYTHONPATH=$TOP/tests/lib
python3 - <<'PYTHON'
import json, os, shutil, struct, subprocess, sys, zlib
from disks import empty, put, run, vdisk, M

def tree(name, files):
    shutil.rmtree(name, ignore_errors=True)
    os.makedirs(name)
    for path, text in files.items():
        os.makedirs(os.path.dirname(f'{name}/{path}'), exist_ok=True)
        if path.endswith('/'):
            continue
        with open(f'{name}/{path}', 'wb') as f:
            f.write(open('/bin/true', 'rb').read() if text is None else text.encode())
    return name

def uuid(n):
    return f'{n:08x}-1111-4222-8333-444455556666'

def ext(files, n, size, label=None, kind='ext4'):
    empty(f'fs{n}', size * M)
    run('mke2fs', '-q', '-t', kind, '-U', uuid(n), *(['-L', label] if label else []), '-d', tree('t', files), f'fs{n}')
    return f'fs{n}'

def fat(files, n, label='EFI'):
    empty(f'fs{n}', 40 * M)
    run('mkfs.fat', '-F', '32', '-s', '1', '-n', label, '-i', f'{n:08x}', f'fs{n}')
    run(vdisk, 'cp', '-r', *[f'{tree("t", files)}/{x}' for x in sorted({p.split("/")[0] for p in files})], f'fs{n}:/')
    return f'fs{n}'

def swap(n, label=None):
    empty(f'fs{n}', 4 * M)
    run('mkswap', '-U', uuid(n), *(['-L', label] if label else []), f'fs{n}')
    return f'fs{n}'

def other(n, *command, size=320):
    empty(f'fs{n}', size * M)
    run(*command, f'fs{n}')
    return f'fs{n}'

def disk(label, *parts):
    """parts: (type, image)"""
    size = sum(os.path.getsize(p[1]) // M for p in parts) + 4
    empty('disk', size * M)
    run('sfdisk', '-q', 'disk', input=f'label: {label}\n' + ''.join(
        f'size={os.path.getsize(i) // M}M, type={t}\n' for t, i in parts))
    for p, (_, image) in zip(json.loads(run('sfdisk', '-J', 'disk'))['partitiontable']['partitions'], parts):
        put(image, 'disk', p['start'] * 512)

def lvm(n, vg, volumes):
    """A physical volume with linear volumes, as LVM2 writes it (extents of 1 MiB)."""
    def crc(b):
        return zlib.crc32(b, 0xf597a6cf ^ 0xffffffff) ^ 0xffffffff
    def lvid(k):
        s = f'{vg}{k}'.encode().hex().ljust(32, 'x')[:32]
        return '-'.join((s[:6], s[6:10], s[10:14], s[14:18], s[18:22], s[22:26], s[26:32]))
    total = sum(os.path.getsize(i) // M for _, i in volumes)
    size = (total + 2) * M
    lvs, at = '', 0
    for k, (name, image) in enumerate(volumes):
        c = os.path.getsize(image) // M
        lvs += f'''{name} {{ id = "{lvid(k + 1)}" status = ["READ", "WRITE", "VISIBLE"] flags = [] segment_count = 1
segment1 {{ start_extent = 0 extent_count = {c} type = "striped" stripe_count = 1 stripes = ["pv0", {at}] }} }}\n'''
        at += c
    text = f'''{vg} {{ id = "{lvid(0)}" seqno = 3 format = "lvm2" status = ["RESIZEABLE", "READ", "WRITE"] flags = []
extent_size = 2048 max_lv = 0 max_pv = 0 metadata_copies = 0
physical_volumes {{ pv0 {{ id = "{lvid(99)}" device = "/dev/sda2" status = ["ALLOCATABLE"] flags = []
dev_size = {size // 512} pe_start = 2048 pe_count = {total} }} }}
logical_volumes {{ {lvs} }} }}
contents = "Text Format Volume Group" version = 1 description = "" creation_host = "box" creation_time = 1700000000
'''.encode() + b'\0'
    b = bytearray(size)
    pvid = lvid(99).replace('-', '').encode()
    header = pvid + struct.pack('<Q', size) + struct.pack('<QQ', M, 0) + struct.pack('<QQ', 0, 0) \
        + struct.pack('<QQ', 4096, M - 4096) + struct.pack('<QQ', 0, 0) + struct.pack('<II', 0, 0)
    label = bytearray(512)
    label[:8] = b'LABELONE'
    struct.pack_into('<Q', label, 8, 1)
    struct.pack_into('<I', label, 20, 32)
    label[24:32] = b'LVM2 001'
    label[32:32 + len(header)] = header
    struct.pack_into('<I', label, 16, crc(bytes(label[20:])))
    b[512:1024] = label
    mda = bytearray(512)
    mda[4:20] = b'\x20\x4c\x56\x4d\x32\x20\x78\x5b\x35\x41\x25\x72\x30\x4e\x2a\x3e'
    struct.pack_into('<IQQ', mda, 20, 1, 4096, M - 4096)
    struct.pack_into('<QQII', mda, 40, 512, len(text), crc(text), 0)
    struct.pack_into('<I', mda, 0, crc(bytes(mda[4:])))
    b[4096:4608] = mda
    b[4608:4608 + len(text)] = text
    at = M
    for _, image in volumes:
        d = open(image, 'rb').read()
        b[at:at + len(d)] = d
        at += len(d)
    open(f'fs{n}', 'wb').write(b)
    return f'fs{n}'

def system(name, ident, fstab, extra=None):
    return {'etc/os-release': f'PRETTY_NAME="{name}"\nID={ident}\nVERSION_ID="1"\n', 'etc/fstab': fstab,
            'etc/hostname': f'{ident}-box\n', 'bin/sh': None, **(extra or {})}

def dpkg(*names):
    return {'var/lib/dpkg/status': ''.join(f'Package: {n}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n\n' for n in names)}

def kernel(version, where='boot'):
    return {f'{where}/vmlinuz-{version}'.lstrip('/'): 'kernel', f'{where}/initrd.img-{version}'.lstrip('/'): 'initrd'}

def inspect(title, want_name, root, fstab, packaging=None, packages=None, kernels=None, clean=True):
    r = subprocess.run([vdisk, 'inspect', '--json', 'disk'], capture_output=True, text=True)
    if r.returncode:
        sys.exit(f'{title}: {r.stderr}')
    j = json.loads(r.stdout)
    def same(what, a, b):
        if a != b:
            sys.exit(f'{title}: {what}: {a!r}, not {b!r}\n{r.stdout}')
    same('name', j['system']['name'], want_name)
    same('arch', bool(j['system']['arch']), True)
    same('root', j['root']['partition'], root)
    same('fstab', [(f['mount-point'], f['volume'], f['missing']) for f in j['fstab']], fstab)
    same('packaging', j['packaging'], packaging)
    if packages is not None:
        same('packages', j['package-count'], packages)
    if kernels is not None:
        same('kernels', [k['version'] for k in j['kernels']], kernels)
    same('clean', j['clean'], clean)
    print('ok', title)

# an ordinary user has no kernel to help; whom root is, tests/system/files-other.sh sees
nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] if os.getuid() == 0 else []

def refused(title, *words):
    os.chmod('.', 0o755)
    os.chmod('disk', 0o644)
    r = subprocess.run([*nobody, vdisk, 'inspect', 'disk'], capture_output=True, text=True)
    if r.returncode != 1 or not all(w in r.stderr for w in words):
        sys.exit(f'{title}: {r.returncode} {r.stderr}')
    print('ok', title)

# 1. Debian: MBR, plain, swap in a logical partition's stead by UUID
disk('dos', ('83', ext(system('Debian 12', 'debian', f'UUID={uuid(1)} / ext4 defaults 0 1\nUUID={uuid(2)} none swap sw 0 0\n/dev/sr0 /media/cdrom0 udf noauto 0 0\n',
     {**dpkg('bash', 'dpkg'), **kernel('6.1.0-1-amd64')}), 1, 40)), ('82', swap(2)))
inspect('Debian', 'Debian 12', 'p1', [('/', 'p1', False), ('none', 'p2', False), ('/media/cdrom0', None, True)], 'dpkg', 2, ['6.1.0-1-amd64'])
# 2. Debian with LVM: names of device-mapper
disk('dos', ('83', ext({**kernel('6.1.0-2-amd64', '')}, 3, 16)), ('8e', lvm(4, 'box-vg', [
    ('root', ext(system('Debian on LVM', 'debian', '/dev/mapper/box--vg-root / ext4 errors=remount-ro 0 1\n'
     f'UUID={uuid(3)} /boot ext2 defaults 0 2\n/dev/mapper/box--vg-swap_1 none swap sw 0 0\n', dpkg('a', 'b', 'c')), 5, 24)), ('swap_1', swap(6))])))
inspect('Debian, LVM', 'Debian on LVM', 'box-vg/root', [('/', 'box-vg/root', False), ('/boot', 'p1', False), ('none', 'box-vg/swap_1', False)], 'dpkg', 3)
# 3. Ubuntu: GPT, BIOS boot partition, EFI, labels
disk('gpt', ('21686148-6449-6E6F-744E-656564454649', other(7, 'true', size=1)), ('uefi', fat({'EFI/ubuntu/grub.cfg': 'x'}, 8, 'UEFI')),
     ('L', ext(system('Ubuntu 22.04', 'ubuntu', 'LABEL=cloudimg-rootfs / ext4 discard 0 1\nLABEL=UEFI /boot/efi vfat umask=0077 0 1\n', dpkg('x')), 9, 40, 'cloudimg-rootfs')))
inspect('Ubuntu cloud', 'Ubuntu 22.04', 'p3', [('/', 'p3', False), ('/boot/efi', 'p2', False)], 'dpkg', 1)
# 4. Fedora: separate /boot with BLS, ext4 root, rpm
disk('gpt', ('uefi', fat({'EFI/fedora/grub.cfg': 'x'}, 10)), ('L', ext({'loader/entries/a.conf': 'title Fedora\nlinux /vmlinuz-6.5.6-300.fc39.x86_64\ninitrd /initramfs-6.5.6-300.fc39.x86_64.img\noptions root=UUID=x\n',
     'vmlinuz-6.5.6-300.fc39.x86_64': 'k', 'initramfs-6.5.6-300.fc39.x86_64.img': 'i', 'grub2/grub.cfg': 'blscfg\n'}, 11, 32)),
     ('L', ext(system('Fedora 39', 'fedora', f'UUID={uuid(12)} / ext4 defaults 1 1\nUUID={uuid(11)} /boot ext4 defaults 1 2\nUUID=0000-000A /boot/efi vfat umask=0077 0 2\ntmpfs /tmp tmpfs x 0 0\n',
         {'usr/lib/sysimage/rpm/rpmdb.sqlite': 'no database'}), 12, 40)))
inspect('Fedora', 'Fedora 39', 'p3', [('/', 'p3', False), ('/boot', 'p2', False), ('/boot/efi', 'p1', False), ('/tmp', None, False)], 'rpm')
# 5. CentOS: ext4 on LVM, the default of old
disk('dos', ('83', ext(kernel('3.10.0-1160.el7.x86_64', ''), 13, 16)), ('8e', lvm(14, 'centos', [
    ('root', ext(system('CentOS 7', 'centos', '/dev/mapper/centos-root / ext4 defaults 0 0\n/dev/centos/swap swap swap defaults 0 0\n', {'var/lib/rpm/Packages': 'x'}), 15, 24)), ('swap', swap(16))])))
inspect('CentOS', 'CentOS 7', 'centos/root', [('/', 'centos/root', False), ('swap', 'centos/swap', False)], 'rpm')
# 6. Alpine: one partition, apk, swap by label
disk('dos', ('83', ext(system('Alpine 3.19', 'alpine', f'UUID={uuid(17)} / ext4 rw 0 1\nLABEL=swp swap swap defaults 0 0\n',
     {'lib/apk/db/installed': 'P:musl\nV:1.2\nA:x86_64\n\nP:busybox\nV:1.36\nA:x86_64\n\n'}), 17, 24)), ('82', swap(18, 'swp')))
inspect('Alpine', 'Alpine 3.19', 'p1', [('/', 'p1', False), ('swap', 'p2', False)], 'apk', 2)
# 7. Arch: EFI system partition as /boot, PARTUUID and PARTLABEL, pacman
esp = fat({'loader/entries/arch.conf': 'title Arch\nlinux /vmlinuz-linux\noptions root=PARTLABEL=top\n', 'vmlinuz-linux': 'k'}, 19)
root = ext(system('Arch Linux', 'arch', 'PARTLABEL=top / ext4 rw 0 1\nPARTUUID=@ESP@ /boot vfat rw 0 2\n',
     {'var/lib/pacman/local/linux-6.6-1/desc': 'x', 'var/lib/pacman/local/bash-5.2-1/desc': 'x'}), 20, 40)
disk('gpt', ('uefi', esp), ('L', root))
run(vdisk, 'part', 'name', 'disk#p2', 'top')
esp_id = run(vdisk, 'part', 'uuid', 'disk#p1').strip()
run('sh', '-c', f'{vdisk} cat disk#p2:/etc/fstab | sed s/@ESP@/{esp_id}/ > fstab && {vdisk} cp fstab disk#p2:/etc/fstab')
inspect('Arch', 'Arch Linux', 'p2', [('/', 'p2', False), ('/boot', 'p1', False)], 'pacman', 2)
# 8. an appliance: ext4 straight on the disk
shutil.copy(ext(system('Appliance', 'appliance', '/dev/sda / ext3 defaults 1 1\n/dev/sdb1 /data ext3 defaults 1 2\n'), 21, 24, kind='ext3'), 'disk')
inspect('a whole disk', 'Appliance', None, [('/', None, True), ('/data', None, True)])
# 9. device names, as the Openfiler appliance has them; ext3 and an extended partition
disk('dos', ('82', swap(22)), ('83', ext(system('Openfiler NSA 2.99', 'openfiler', '/dev/sda2 / ext3 defaults 1 1\n/dev/sda1 swap swap defaults 0 0\nnone /proc proc defaults 0 0\nserver:/export /mnt nfs ro 0 0\n', dpkg()), 23, 24, kind='ext3')))
inspect('device names', 'Openfiler NSA 2.99', 'p2', [('/', 'p2', False), ('swap', 'p1', False), ('/proc', None, False), ('/mnt', None, False)], 'dpkg', 0)
# 10. a system that crashed: its journal is replayed in a layer above, and that is told
crashed = ext(system('Crashed', 'debian', f'UUID={uuid(24)} / ext4 defaults 0 1\n'), 24, 24)
run('debugfs', '-w', '-R', 'set_super_value state 0', crashed)
disk('dos', ('83', crashed))
inspect('not cleanly shut down', 'Crashed', 'p1', [('/', 'p1', False)], clean=False)
# 11, 12. what we cannot read says what it is, and what would work
if shutil.which('mkfs.btrfs'):
    disk('gpt', ('uefi', fat({'EFI/BOOT/x': 'x'}, 25)), ('L', other(26, 'mkfs.btrfs', '-q', size=128)))
    refused('btrfs', 'btrfs', 'vdisk mount')
if shutil.which('mkfs.xfs'):
    disk('dos', ('83', other(27, 'mkfs.xfs', '-q', '-f', size=320)), ('8e', lvm(28, 'rhel', [('root', other(29, 'mkfs.xfs', '-q', '-f', size=320))])))
    refused('XFS on LVM', 'xfs', 'vdisk mount')
PYTHON
