#!/bin/bash
# vdisk inspect --packages on rpm's databases: SQLite and its log, Berkeley DB, ndb; and damaged ones.
. "$(dirname "$0")/../functions.sh"
requires rpm rpmbuild db5.3_load mke2fs python3
cd "$tmp"
export VDISK HOME=$tmp

cat > p.spec <<'SPEC'
Name: %{n}
Version: 1.%{v}
Release: %{v}%{?dist}.a
%{?e:Epoch: %{e}}
Summary: a package
License: none
BuildArch: noarch
%description
%{lua: for i = 1, tonumber(rpm.expand("%l")) do print("line number " .. i .. "\n") end}
%files
SPEC
# headers from some hundred bytes to hundreds of KiB: on one page, on many
i=0
for lines in 1 40 150 400 2500 10000; do
    i=$((i + 1))
    rpmbuild -bb --quiet --define "_topdir $tmp/top" --define "n the-package$i" --define "v $i" \
        --define "l $lines" ${epoch:+--define "e $epoch"} p.spec > build.log 2>&1 || { cat build.log; fail rpmbuild; }
    epoch=$([ $i = 2 ] && echo 7 || true)
done
mkdir root db
q() { rpm --root "$tmp/root" --dbpath /db "$@"; }
q --initdb 2> /dev/null
q -i --nodeps top/RPMS/noarch/*.rpm 2> /dev/null
q -e --nodeps the-package4 2> /dev/null		# whose pages become free ones
q -i --nodeps top/RPMS/noarch/the-package4-*.rpm 2> /dev/null
q -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH}\n' | sort > want
[ "$(wc -l < want)" = 6 ] && grep -q ' 7:1.3-' want || fail "rpm: $(cat want)"
cp root/db/rpmdb.sqlite plain.sqlite

python3 - <<'PYTHON'
import json, os, random, shutil, sqlite3, struct, subprocess, sys, zlib

vdisk = os.environ['VDISK']

def guest(files):
    shutil.rmtree('tree', ignore_errors=True)
    for path, data in {'etc/os-release': b'ID=fedora\n', 'etc/fstab': b'', **files}.items():
        os.makedirs(os.path.dirname(f'tree/{path}'), exist_ok=True)
        open(f'tree/{path}', 'wb').write(data)
    if os.path.exists('disk'):
        os.unlink('disk')
    subprocess.run(['truncate', '-s', '32M', 'disk'], check=True)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-d', 'tree', 'disk'], check=True)

def inspect():
    r = subprocess.run([vdisk, 'inspect', '--json', '--packages', 'disk'], capture_output=True, text=True)
    if r.returncode:
        sys.exit(f'inspect: {r.stderr}')
    return json.loads(r.stdout)

def expect(title, want):
    j = inspect()
    got = sorted(f"{p['name']} {p['version']} {p['arch']}" for p in j['packages'])
    if j['packaging'] != 'rpm' or j['package-count'] != len(want) or j['package-problem'] or got != want:
        sys.exit(f'{title}: {got}\n{want}\n{j["package-problem"]}')

want = sorted(open('want').read().splitlines())
sqlite = open('plain.sqlite', 'rb').read()
guest({'usr/lib/sysimage/rpm/rpmdb.sqlite': sqlite, 'usr/lib/sysimage/rpm/rpmdb.sqlite-wal': b''})
expect('SQLite', want)
blobs = [(n, b) for n, b in sqlite3.connect('plain.sqlite').execute('select hnum, blob from Packages')]
name = {}
for n, b in blobs:
    name[n] = next(w for w in want if w.split()[0].encode() + b'\0' in b)

# the log: a package removed and one changed since, not yet in the database; a transaction not ended
db = sqlite3.connect('plain.sqlite', isolation_level=None)
db.execute('pragma journal_mode=wal')
db.execute('pragma wal_autocheckpoint=0')
db.execute('delete from Packages where hnum=?', (blobs[0][0],))
db.execute('insert into Packages values (1000, ?)', (blobs[1][1].replace(b'the-package', b'new-package'),))
log = lambda: (open('plain.sqlite', 'rb').read(), open('plain.sqlite-wal', 'rb').read())
main, wal = log()
after = sorted([w for w in want if w != name[blobs[0][0]]] + [name[blobs[1][0]].replace('the-p', 'new-p')])
guest({'var/lib/rpm/rpmdb.sqlite': main, 'var/lib/rpm/rpmdb.sqlite-wal': wal})
expect('a log', after)
db.execute('pragma cache_size=2')
db.execute('begin')
for i in range(60):
    db.execute('insert into Packages values (?, ?)', (2000 + i, blobs[4][1]))
main, open_wal = log()
assert len(open_wal) > len(wal)
guest({'var/lib/rpm/rpmdb.sqlite': main, 'var/lib/rpm/rpmdb.sqlite-wal': open_wal})
expect('a transaction that has not ended', after)
# of what is cut off or damaged at its end, what was committed before counts
guest({'var/lib/rpm/rpmdb.sqlite': main, 'var/lib/rpm/rpmdb.sqlite-wal': wal + bytes(50000)})
expect('a log with zeroes behind', after)
torn = bytearray(wal)
torn[-100] ^= 1
guest({'var/lib/rpm/rpmdb.sqlite': main, 'var/lib/rpm/rpmdb.sqlite-wal': bytes(torn)})
expect('the last commit is torn', sorted(w for w in want if w != name[blobs[0][0]]))
guest({'var/lib/rpm/rpmdb.sqlite': main, 'var/lib/rpm/rpmdb.sqlite-wal': b'\0' * 100})
expect('no log', want)
db.close()

# Berkeley DB, of both byte orders; rpm itself reads the first as we do
for order, pack in ('1234', '<I'), ('4321', '>I'):
    dump = f'VERSION=3\nformat=bytevalue\ntype=hash\ndb_lorder={order}\nHEADER=END\n' + \
        f' {struct.pack(pack, 0).hex()}\n {struct.pack(pack, 77).hex()}\n' + \
        ''.join(f' {struct.pack(pack, n).hex()}\n {b.hex()}\n' for n, b in blobs) + 'DATA=END\n'
    os.makedirs('bdb', exist_ok=True)
    if os.path.exists('bdb/Packages'):
        os.unlink('bdb/Packages')
    subprocess.run(['db5.3_load', 'bdb/Packages'], input=dump, text=True, check=True)
    bdb = open('bdb/Packages', 'rb').read()
    if order == '1234':
        r = subprocess.run(['rpm', '--define', '_db_backend bdb_ro', '--dbpath', os.path.abspath('bdb'), '-qa'],
                           capture_output=True, text=True)
        if len(r.stdout.splitlines()) != len(want):
            sys.exit(f'rpm does not read it: {r}')
    guest({'var/lib/rpm/Packages': bdb})
    expect(f'Berkeley DB {order}', want)

# ndb: slots, then blobs, out of order and with a hole between
def ndb(blobs):
    slots, data, at = b'', b'', 4096
    for n, b in reversed(blobs):
        room = (16 + len(b) + 12 + 15) // 16
        head = struct.pack('<4sIII', b'BlbS', n, 1, len(b))
        tail = struct.pack('<II4s', zlib.adler32(head + b), len(b), b'BlbE')
        data += (head + b).ljust(room * 16 - 12, b'\0') + tail + b'\0' * 16
        slots += struct.pack('<4sIII', b'Slot', n, at // 16, room) + struct.pack('<4sIII', b'Slot', 0, 0, 0)
        at += room * 16 + 16
    page = struct.pack('<4sIIII', b'RpmP', 0, 5, 1, 100).ljust(32, b'\0') + slots
    return page + struct.pack('<4sIII', b'Slot', 0, 0, 0) * ((4096 - len(page)) // 16) + data
guest({'usr/lib/sysimage/rpm/Packages.db': ndb(blobs)})
expect('ndb', want)

# damaged ones: never a crash, never a list that is not said to be partial
rng = random.Random(5)
silent = named = 0
for title, path, good in ('SQLite', 'var/lib/rpm/rpmdb.sqlite', sqlite), ('Berkeley DB', 'var/lib/rpm/Packages', bdb), \
        ('ndb', 'var/lib/rpm/Packages.db', ndb(blobs)):
    for n in range(5):
        bad = bytearray(good)
        if n == 0:
            del bad[len(bad) // 2:]
        elif n == 1:
            bad[32:4096] = bytes(rng.randrange(256) for _ in range(4064))
        else:
            for _ in range(2000):
                bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        guest({path: bytes(bad)})
        j = inspect()
        if j['package-count'] is None:
            named += 1
            if path not in j['package-problem']:
                sys.exit(f'{title}: {j["package-problem"]}')
        else:
            silent += 1
if named < 9:
    sys.exit(f'{named} of {named + silent} damaged databases were named')
guest({'var/lib/rpm/Packages': b'\0' * 1000})
r = subprocess.run([vdisk, 'inspect', 'disk'], capture_output=True, text=True)
if 'rpm, which cannot be read: /var/lib/rpm/Packages: it is of an unknown kind' not in r.stdout:
    sys.exit(r.stdout)
print(f'{named} named, {silent} read all the same')
PYTHON
