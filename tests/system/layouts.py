#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vdisk parts against sfdisk -J and blkid on layouts that the real tools made, in an empty directory;
they are kept, with what we say of them in kept.json, for layouts-inside.py."""
import json, os, subprocess, sys
from disks import empty, have, put, run, vdisk, M

# file systems: name -> (size in MiB, command)
kinds = {
    'ext2': (8, ['mke2fs', '-q', '-t', 'ext2', '-L', 'two']),
    'ext3': (16, ['mke2fs', '-q', '-t', 'ext3', '-L', 'three words here']),
    'ext4': (16, ['mke2fs', '-q', '-t', 'ext4', '-L', 'a b_c-d.e']),
    'ext4-64bit-4k': (32, ['mke2fs', '-q', '-t', 'ext4', '-b', '4096', '-O', '64bit,metadata_csum']),
    'fat12': (4, ['mkfs.fat', '-F', '12', '-n', 'TWELVE']),
    'fat16': (16, ['mkfs.fat', '-F', '16', '-n', 'SIXTEEN']),
    'fat32': (40, ['mkfs.fat', '-F', '32', '-s', '1', '-n', 'THIRTYTWO']),
    'fat16-4k': (64, ['mkfs.fat', '-F', '16', '-S', '4096']),
    'swap': (2, ['mkswap', '-L', 'swapped']),
}
if have('mkfs.xfs'):
    kinds['xfs'] = (320, ['mkfs.xfs', '-q', '-f', '-L', 'xfslabel'])
if have('mkfs.btrfs'):
    kinds['btrfs'] = (128, ['mkfs.btrfs', '-q', '-L', 'b tree'])
if have('mkntfs'):
    kinds['ntfs'] = (16, ['mkntfs', '-F', '-Q', '-q', '-L', 'Windows'])
if have('mkfs.exfat'):
    kinds['exfat'] = (16, ['mkfs.exfat', '-n', 'Exfat'])
if have('cryptsetup'):
    open('key', 'w').write('secret')
    kinds['luks1'] = (8, ['cryptsetup', '-q', 'luksFormat', '--type', 'luks1', '--pbkdf-force-iterations', '1000', '-d', 'key'])
    kinds['luks2'] = (24, ['cryptsetup', '-q', 'luksFormat', '--type', 'luks2', '--pbkdf', 'pbkdf2',
                           '--pbkdf-force-iterations', '1000', '-d', 'key'])
images = {}
for name, (size, command) in kinds.items():
    images[name] = f'fs-{name}'
    empty(images[name], size * M)
    run(*command, images[name])

def blkid(path, offset=None, size=None):
    where = ['-O', str(offset), '-S', str(size)] if offset is not None else []
    r = subprocess.run(['blkid', '-p', '-o', 'export', '-u', 'filesystem,raid,crypto,other', *where, path],
                       capture_output=True, text=True)
    out = {}
    for line in r.stdout.splitlines():
        k, _, v = line.partition('=')
        out[k] = v.replace('\\', '')
    return out.get('TYPE'), out.get('LABEL'), out.get('UUID')

def content(c):
    return (c['type'], c['label'], c['uuid']) if c else (None, None, None)

def check(title, path):
    ours = json.loads(run(vdisk, 'parts', '--json', path))
    r = subprocess.run(['sfdisk', '-J', path], capture_output=True, text=True)
    theirs = json.loads(r.stdout)['partitiontable']
    def same(what, a, b):
        if a != b:
            sys.exit(f'{title}: {what}: we say {a!r}, they {b!r}')
    same('scheme', ours['table']['scheme'], theirs['label'])
    same('id', ours['table']['id'], theirs['id'].lower().removeprefix('0x'))
    if theirs['label'] == 'gpt':
        same('first', ours['table']['first-usable'], theirs['firstlba'] * 512)
        same('last', ours['table']['last-usable'], (theirs['lastlba'] + 1) * 512)
    a, b = {}, {}
    for p in theirs.get('partitions', []):
        n = int(p['node'].removeprefix(theirs['device']).lstrip('p'))
        ext = theirs['label'] == 'dos' and p['type'] in ('5', 'f', '85')
        start, size = p['start'] * 512, p['size'] * 512
        a[n] = (start, size, p['type'].lower().rjust(2, '0'), (p.get('uuid') or '').lower(), p.get('name') or '',
                bool(p.get('bootable')), (None,) * 3 if ext else blkid(path, start, size))
    for p in ours['partitions']:
        gpt = theirs['label'] == 'gpt'
        b[p['number']] = (p['start'], p['size'], p['type'].removeprefix('0x'), p['uuid'] if gpt else '',
                          p['name'] or '', p['active'], content(p['content']))
    same('numbers', sorted(b), sorted(a))
    for n in a:
        same(f'p{n}', b[n], a[n])
    same('problems', ours['table']['problems'], [])
    # free places and partitions cover the disk without overlapping, extended ones aside
    runs = sorted((x['start'], x['start'] + x['size'])
                  for x in ours['free'] + [p for p in ours['partitions'] if not p['extended']])
    for (_, end), (start, _) in zip(runs, runs[1:]):
        if start < end:
            sys.exit(f'{title}: {runs} overlap')

def check_locators(title, path):
    """What parts shows can be named by the other commands."""
    ours = json.loads(run(vdisk, 'parts', '--json', path))
    shown = [(f'p{p["number"]}', p) for p in ours['partitions'] if not p['extended']]
    for name, p in shown[:4]:	# (of a hundred, the same again)
        c = p['content']
        names = [name]
        if p['uuid'] and sum(q['uuid'] == p['uuid'] for _, q in shown) == 1:
            names.append(f'uuid={p["uuid"]}')
        if p['name'] and sum(q['name'] == p['name'] for _, q in shown) == 1:
            names.append(f'label={p["name"]}')
        for key in 'label', 'uuid':
            others = [q for _, q in shown if q['content'] and q['content'][key] == (c or {}).get(key)]
            if c and c[key] and len(others) == 1 and not any(q['name'] == c[key] or q['uuid'] == c[key] for _, q in shown):
                names.append(f'{key}={c[key]}')
        for n in names[1:]:
            run(vdisk, 'compare', '-q', f'{path}#{n}', f'{path}#{name}')
        if not c:
            continue
        for key in 'label', 'uuid':
            said = run(vdisk, key, f'{path}#{names[-1]}').rstrip('\n')
            if said != (c[key] or ''):
                sys.exit(f'{title}: vdisk {key} {path}#{names[-1]}: {said!r}, parts: {c[key]!r}')
        if c['type'] in ('ext2', 'ext3', 'ext4', 'vfat'):
            run(vdisk, 'ls', f'{path}#{names[-1]}:/')
            run(vdisk, 'df', f'{path}#{names[-1]}')
        if c['usage'] == 'filesystem' and c['type'] in ('xfs', 'btrfs') and (not c['size'] or c['free'] is None):
            sys.exit(f'{title}: no size or use of {c}')

kept = []
def keep(title, path):
    """For the machine: the disk, and what we say of it."""
    to = f'disk{len(kept)}'
    os.rename(path, to)
    kept.append({'title': title, 'path': to, 'ours': json.loads(run(vdisk, 'parts', '--json', to))})

def layout(title, size, script, fill=()):
    """A disk of `size` MiB by sfdisk, then file systems into its partitions."""
    path = 'disk'
    empty(path, size * M)
    run('sfdisk', '-q', path, input=script)
    table = json.loads(run('sfdisk', '-J', path))['partitiontable']
    starts = {int(p['node'].removeprefix(table['device']).lstrip('p')): p['start'] * 512
              for p in table.get('partitions', [])}
    for number, kind in fill:
        if kind in images:
            put(images[kind], path, starts[number])
    check(title, path)
    check_locators(title, path)
    keep(title, path)

# each kind in each table
for label in 'gpt', 'dos':
    for name, (size, _) in kinds.items():
        layout(f'{name} in {label}', size + 8, f'label: {label}\nsize={size}M\n', [(1, name)])
# shapes of tables
layout('an empty GPT', 8, 'label: gpt\n')
layout('an empty MBR', 8, 'label: dos\n')
layout('numbers with holes', 64, 'label: gpt\n\n7 : size=8M, name="sieben"\n3 : size=8M, name="drei"\n')
layout('out of order', 64, 'label: dos\n\n1 : start=60000, size=8M\n2 : start=2048, size=8M, bootable\n')
layout('not aligned', 64, 'label: dos\n\nstart=63, size=20001\nstart=20065, size=30001, type=7\n')
layout('to the last sector', 16, 'label: dos\n\nstart=1, size=32767\n')
layout('many', 512, 'label: gpt\n' + ''.join(f'size=1M, name="part {i}"\n' for i in range(100)))
layout('a table of 200 entries', 64, 'label: gpt\ntable-length: 200\nsize=8M\n')
layout('a first usable sector far off', 64, 'label: gpt\nfirst-lba: 10000\nsize=8M\n')
layout('attributes', 64, 'label: gpt\nsize=8M, attrs="RequiredPartition,LegacyBIOSBootable,GUID:60,63"\n')
for ext in '5', 'f', '85':
    layout(f'logical ones in {ext}', 200, f'label: dos\nsize=8M\nsize=150M, type={ext}\nsize=8M\nsize=8M\n'
           + 'size=18M\nsize=24M\nsize=4M, type=82\nsize=9M, type=8e\n', [(1, 'ext2'), (5, 'ext3'), (6, 'ext4'), (7, 'swap')])
layout('an extended one with nothing in it', 64, 'label: dos\nsize=8M\nsize=40M, type=5\n')
layout('fifty logical ones', 400, 'label: dos\nsize=8M\nsize=380M, type=f\nsize=1M\nsize=1M\n' + 'size=2M\n' * 50)
layout('a typical PC', 600, 'label: gpt\nsize=48M, type=uefi\nsize=16M, name="Microsoft reserved partition", type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n'
       + 'size=32M, type=L\nsize=8M, type=S\n', [(1, 'fat32'), (2, 'nothing'), (3, 'ext4-64bit-4k'), (4, 'swap')])
# a hybrid, by sgdisk
empty('disk', 64 * M)
run('sgdisk', '-n', '1:2048:+8M', '-n', '2:0:+8M', '-h', '1', 'disk')
t = json.loads(run(vdisk, 'parts', '--json', 'disk'))
assert t['table']['hybrid'] and t['table']['scheme'] == 'gpt' and len(t['partitions']) == 2, t
keep('a hybrid', 'disk')
# no table at all: what lies straight on the disk is not one
for name, path in images.items():
    ours = json.loads(run(vdisk, 'parts', '--json', path))
    if ours['table'] is not None or ours['partitions'] or content(ours['content']) != blkid(path):
        sys.exit(f'{name} straight on a disk: {ours}, blkid: {blkid(path)}')
    if name not in ('swap', 'luks1', 'luks2') and not ours['content']['size']:
        sys.exit(f'{name}: its size is not known')
    os.link(path, 'disk')
    keep(f'{name} straight on a disk', 'disk')
# two file systems with the same UUID: told apart by their places, never guessed
run('cp', 'fs-ext2', 'twin')
uuid = blkid('twin')[2]
layout('twins', 40, 'label: gpt\nsize=8M\nsize=8M\n', [(1, 'ext2'), (2, 'ext2')])
r = subprocess.run([vdisk, 'ls', f'{kept[-1]["path"]}#uuid={uuid}:/'], capture_output=True, text=True)
if r.returncode != 1 or 'p1 and p2 both' not in r.stderr:
    sys.exit(f'twins: {r}')
print(f'{len(kept)} layouts against sfdisk and blkid')
with open('kept.json', 'w') as f:
    json.dump(kept, f)
