#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vdisk parts against the kernel's view: lsblk on the disks of layouts.py, mdadm's arrays and LVM2's groups.

usage: layouts-inside.py DIRECTORY   as root, in the throw-away machine
"""
import json, os, subprocess, sys
from disks import empty, put, run, vdisk, M

def parts(path):
    return json.loads(run(vdisk, 'parts', '--json', path))

def attach(*paths, options=()):
    return [run('losetup', '-f', '--show', *options, p).strip() for p in paths]

def detach(*loops):
    for loop in loops:
        run('losetup', '-d', loop)

def lsblk(*loops):
    """What it says of disks: name -> it"""
    run('udevadm', 'settle')
    out = run('lsblk', '-J', '-b', '-o', 'NAME,SIZE,START,PTTYPE,FSTYPE,LABEL,UUID,PARTTYPE,PARTUUID,PARTLABEL', *loops)
    return {d['name']: d for d in json.loads(out)['blockdevices']}

def content(c):
    return tuple(c[k] or None for k in ('type', 'label', 'uuid')) if c else (None, None, None)

def compare(title, ours, disk):
    def same(what, a, b):
        if a != b:
            sys.exit(f'{title}: {what}: lsblk says {a}, we {b}')
    def number(t):
        return None if t is None else int(t, 16) if t.startswith('0x') else t.lower()
    same('size', int(disk['size']), ours['size'])
    theirs = {int(c['name'].removeprefix(disk['name'] + 'p')): c for c in disk.get('children', [])}
    if not ours['table']:
        same('content', (disk['fstype'], disk['label'], disk['uuid']), content(ours['content']))
    same('numbers', sorted(theirs), sorted(p['number'] for p in ours['partitions']))
    for p in ours['partitions']:
        d = theirs[p['number']]
        a = [int(d['start']) * 512, number(d['parttype']), d['partuuid'] or '', d['partlabel'] or '']
        b = [p['start'], number(p['type']), p['uuid'], p['name'] or '']
        if not p['extended']:	# (the kernel gives these a size of its own)
            a += [int(d['size']), d['fstype'], d['label'], d['uuid']]
            b += [p['size'], *content(p['content'])]
        if not p['content']:	# (in a file system's boot sector it sees a table)
            a += [d['pttype']]
            b += [ours['table']['scheme']]
        same(f'p{p["number"]}', a, b)

# ---- the disks of layouts.py ----

os.chdir(sys.argv[1])
kept = json.load(open('kept.json'))
for i in range(0, len(kept), 24):
    some = kept[i:i + 24]
    loops = attach(*(k['path'] for k in some), options=['-r', '-P'])
    said = lsblk(*loops)
    for k, loop in zip(some, loops):
        compare(k['title'], k['ours'], said[loop.removeprefix('/dev/')])
    run('losetup', '-D')
print(f'{len(kept)} layouts against lsblk')
if len(kept) < 40:
    sys.exit('fewer layouts than there should be')

# ---- members of arrays, with each kind of superblock, on whole disks and in partitions: named, and
# no file system is taken for one although it lies where it would ----

os.chdir('/mnt')

def raid(metadata, level, n):
    """Members of an array in images r0, r1, ...; what mdadm and lsblk say of the first."""
    paths = [f'r{i}' for i in range(n)]
    for p in paths:
        empty(p, 16 * M)
    loops = attach(*paths)
    run('mdadm', '--create', '/dev/md9', '--run', '--assume-clean', f'--metadata={metadata}', f'--level={level}',
        f'--raid-devices={n}', *(['--name=arr'] if metadata.startswith('1') else []), '--homehost=box', *loops)
    run('mke2fs', '-q', '-t', 'ext2', '-L', 'on array', '/dev/md9')
    r = subprocess.run([vdisk, 'mkfs', '-y', 'r0'], capture_output=True, text=True)
    if r.returncode != 1 or f'attached to {loops[0]}, which is held by md9' not in r.stderr:
        sys.exit(f'in use by md: {r}')
    run('mdadm', '--stop', '/dev/md9')
    said = dict(l.split('=', 1) for l in run('mdadm', '--examine', '--export', loops[0]).split())
    run('udevadm', 'trigger', '--settle', loops[0])
    seen = lsblk(loops[0]).popitem()[1]
    detach(*loops)
    return paths, said, seen

for metadata, level in ('0.90', '1'), ('1.0', '0'), ('1.0', '1'), ('1.1', '0'), ('1.2', '1'):
    title = f'RAID {level}, superblock {metadata}'
    paths, said, seen = raid(metadata, level, 2)
    for p in paths:
        c = parts(p)['content']
        if c['type'] != 'linux_raid_member' or c['usage'] != 'raid':
            sys.exit(f'{title}: {c}')
        if c['uuid'].replace('-', '') != said['MD_UUID'].replace(':', ''):
            sys.exit(f'{title}: {c}, mdadm: {said}')
    compare(title, parts('r0'), seen)
    empty('disk', 32 * M)
    run('sfdisk', '-q', 'disk', input='label: gpt\nsize=16M, type=raid\n')
    put('r1', 'disk', M)
    ours = parts('disk')
    loop, = attach('disk', options=['-P'])
    compare(title + ', in a partition', ours, lsblk(loop).popitem()[1])
    detach(loop)
    # one side of a mirror whose contents begin at its start can be read; nothing else, and never written
    mirror = level == '1' and metadata in ('0.90', '1.0')
    for command, status in ('ls', 0 if mirror else 1), ('rm -r', 1):
        r = subprocess.run([vdisk, *command.split(), 'disk#p1:/lost+found'], capture_output=True, text=True)
        if r.returncode != status or (status and 'linux_raid_member' not in r.stderr):
            sys.exit(f'{title}: {r}')

# ---- LVM: what pvs, vgs and lvs say of a group in two partitions ----

config = """devices { obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
    scan=["/dev"] filter=["a|^/dev/loop|","r|.*|"] } activation { udev_sync=0 udev_rules=0
    monitoring=0 } global { event_activation=0 } backup { backup=0 archive=0 }"""

def lvm(*argv):
    return run('lvm', *argv, '--config', config)

def report(what, fields):
    out = lvm(f'{what}s', '--reportformat', 'json', '--units', 'b', '--nosuffix', '-o', fields)
    return json.loads(out)['report'][0][what]

empty('disk', 64 * M)
run('sfdisk', '-q', 'disk', input='label: gpt\nsize=24M, type=lvm\nsize=24M, type=lvm\n')
loop, = attach('disk', options=['-P'])
run('udevadm', 'settle')
lvm('vgcreate', '-q', '-s', '1M', 'vg0', f'{loop}p1', f'{loop}p2')
lvm('lvcreate', '-q', '-an', '-Zn', '-Wn', '-n', 'root', '-L', '8M', 'vg0')
lvm('lvcreate', '-q', '-an', '-Zn', '-Wn', '-n', 'two', '-i2', '-L', '6M', 'vg0')
lvs = report('lv', 'lv_name,lv_uuid,lv_size,segtype')
pvs = report('pv', 'pv_uuid,vg_name')
vg, = report('vg', 'vg_uuid,vg_size,vg_free,vg_seqno')
ours = parts('disk')
run('udevadm', 'trigger', '--settle', f'{loop}p1', f'{loop}p2')
compare('LVM', ours, lsblk(loop).popitem()[1])
detach(loop)
ovg, = ours['volume-groups']
theirs = (sorted((v['lv_name'], v['lv_uuid'], int(v['lv_size']), v['segtype']) for v in lvs),
          sorted(p['pv_uuid'] for p in pvs), vg['vg_uuid'], int(vg['vg_size']), int(vg['vg_free']), int(vg['vg_seqno']))
we = (sorted((v['name'], v['uuid'], v['size'], v['type']) for v in ovg['volumes']),
      sorted(p['uuid'] for p in ours['physical-volumes']), ovg['uuid'], ovg['size'], ovg['free'], ovg['seqno'])
if theirs != we:
    sys.exit(f'LVM: lvs, pvs and vgs say {theirs}, we {we}')
