#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""fsx.py DIR MODEL STEPS SEED [fat] [nopunch]: the same random operations in two directories.

DIR is on the file system under test, MODEL on one that is trusted.  Every
operation must end alike in both (result or errno), what is read must be equal,
and so must the trees at the end: types, contents, sizes, modes, links, targets,
times that were set.  Prints what differs and exits 1.
"""
import errno, mmap, os, random, stat, sys

test, model, steps, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
fat = 'fat' in sys.argv[5:]		# no links, modes, special files, xattrs
rng = random.Random(seed)
FILES = [f'f{i}' for i in range(12)]
DIRS = ['', 'd0', 'd1', 'd1/e', 'a-directory-with-a-longer-name']
SIZE = 3 << 20
held = {}				# path -> two open descriptors

def fail(step, what):
    print(f'fsx: seed {seed}, step {step}: {what}')
    sys.exit(1)

def some_path():
    d, f = rng.choice(DIRS), rng.choice(FILES)
    return f'{d}/{f}' if d else f

def some_range():
    kind = rng.random()
    if kind < 0.4:
        off, n = rng.randrange(SIZE), rng.randrange(1, 5000)
    elif kind < 0.7:
        off, n = rng.randrange(SIZE >> 12) << 12, rng.choice([4096, 8192, 65536, 131072, 262144])
    elif kind < 0.85:
        off, n = rng.randrange(SIZE), rng.randrange(1, 400000)
    else:
        off, n = rng.randrange(20000), rng.randrange(1, 20000)
    return off, n

def data(n):
    return rng.randbytes(n) if n < 4096 else rng.randbytes(1000) * (n // 1000) + rng.randbytes(n % 1000)

def opened(p, flags, fn):
    fd = os.open(p, flags, 0o644)
    try:
        return fn(fd)
    finally:
        os.close(fd)

# each returns a function of a root; what it returns is compared
def op_write():
    p, (off, n) = some_path(), some_range()
    d = data(n)
    flags = os.O_WRONLY | os.O_CREAT | rng.choice([0, 0, 0, os.O_APPEND, os.O_TRUNC])
    if flags & os.O_APPEND and rng.random() < 0.9:
        flags &= ~os.O_APPEND
    return lambda r: opened(f'{r}/{p}', flags, lambda fd: os.pwrite(fd, d, off))

def op_read():
    p, (off, n) = some_path(), some_range()
    return lambda r: opened(f'{r}/{p}', os.O_RDONLY, lambda fd: os.pread(fd, n, off))

def op_truncate():
    p, (off, _) = some_path(), some_range()
    return lambda r: os.truncate(f'{r}/{p}', off)

def op_mmap():
    p, (off, n) = some_path(), some_range()
    d = data(n)
    def fn(fd):
        size = os.fstat(fd).st_size
        if size < 2:
            return None
        with mmap.mmap(fd, size) as m:
            o = off % size
            m[o:o + min(n, size - o)] = d[:min(n, size - o)]
            return m[max(0, o - 10):o + 100]
    return lambda r: opened(f'{r}/{p}', os.O_RDWR, fn)

def op_fsync():
    p = some_path()
    return lambda r: opened(f'{r}/{p}', os.O_RDONLY, os.fsync)

libc = None
def op_punch():
    import ctypes
    global libc
    libc = libc or ctypes.CDLL(None, use_errno=True)
    p, (off, n) = some_path(), some_range()
    # PUNCH_HOLE|KEEP_SIZE
    def fn(fd):
        if libc.fallocate(fd, 3, ctypes.c_long(off), ctypes.c_long(n)) < 0:
            raise OSError(ctypes.get_errno(), 'fallocate')
    return lambda r: opened(f'{r}/{p}', os.O_RDWR, fn)

def op_rename():
    a, b = some_path(), some_path()
    return lambda r: os.rename(f'{r}/{a}', f'{r}/{b}')

def op_unlink():
    p = some_path()
    return lambda r: os.unlink(f'{r}/{p}')

def op_link():
    a, b = some_path(), some_path()
    return lambda r: os.link(f'{r}/{a}', f'{r}/{b}')

def op_symlink():
    t, p = rng.choice(['f1', '../f2', 'x' * rng.randrange(1, 200)]), some_path() + '-link'
    return lambda r: os.symlink(t, f'{r}/{p}')

def op_unlink_symlink():
    p = some_path() + '-link'
    return lambda r: os.unlink(f'{r}/{p}')

def op_mkdir():
    p = rng.choice(DIRS[1:])
    return lambda r: os.mkdir(f'{r}/{p}')

def op_rmdir():
    p = rng.choice(DIRS[1:])
    return lambda r: os.rmdir(f'{r}/{p}')

def op_rename_dir():
    a, b = rng.choice(DIRS[1:]), rng.choice(DIRS[1:])
    return lambda r: os.rename(f'{r}/{a}', f'{r}/{b}')

def op_chmod():
    p, m = some_path(), rng.randrange(0o1000) | 0o600
    return lambda r: os.chmod(f'{r}/{p}', m)

def op_utime():
    p, t = some_path(), rng.randrange(1 << 31) // 2 * 2
    return lambda r: os.utime(f'{r}/{p}', (t, t))

def op_list():
    p = rng.choice(DIRS)
    return lambda r: sorted(set(os.listdir(f'{r}/{p}')) - {'lost+found'})

def op_stat():
    p = some_path()
    def fn(r):
        st = os.lstat(f'{r}/{p}')
        return (stat.S_IFMT(st.st_mode), st.st_size) if fat else (st.st_mode, st.st_size, st.st_nlink)
    return fn

def op_fifo():
    p = some_path() + '-fifo'
    return lambda r: os.mkfifo(f'{r}/{p}')

def op_many():
    d, n = rng.choice(DIRS), rng.randrange(1, 60)
    def fn(r):
        for i in range(n):
            opened(f'{r}/{d}/many-{i}-with-a-name', os.O_WRONLY | os.O_CREAT, lambda fd: os.write(fd, b'x' * i))
    return fn

def op_few():
    d = rng.choice(DIRS)
    def fn(r):
        for n in sorted(os.listdir(f'{r}/{d}')):
            if n.startswith('many-'):
                os.unlink(f'{r}/{d}/{n}')
    return fn

ops = [(op_write, 30), (op_read, 20), (op_truncate, 8), (op_mmap, 6), (op_fsync, 2), (op_rename, 8),
       (op_unlink, 6), (op_mkdir, 3), (op_rmdir, 2), (op_rename_dir, 1), (op_list, 3), (op_stat, 8),
       (op_utime, 2), (op_many, 1), (op_few, 1)]
if not fat:
    ops += [(op_punch, 0 if 'nopunch' in sys.argv[5:] else 6), (op_link, 5), (op_symlink, 3), (op_unlink_symlink, 2), (op_chmod, 3), (op_fifo, 1)]
choices, weights = zip(*ops)

def attempt(fn, root):
    try:
        return ('ok', fn(root))
    except OSError as e:
        return ('error', errno.errorcode.get(e.errno, e.errno))
    except ValueError as e:		# mmap of an empty file
        return ('error', str(e))

def hold(step):
    """Files that are open stay whole when their names go."""
    if fat or rng.random() > 0.02:
        return
    if len(held) > 5:
        p = next(iter(held))
        a, b = held.pop(p)
        if os.pread(a, SIZE, 0) != os.pread(b, SIZE, 0):
            fail(step, f'an open file ({p}) differs')
        if os.fstat(a).st_nlink != os.fstat(b).st_nlink:
            fail(step, f'links of an open file ({p}) differ')
        os.close(a)
        os.close(b)
        return
    p = some_path()
    try:
        fds = os.open(f'{test}/{p}', os.O_RDWR), os.open(f'{model}/{p}', os.O_RDWR)
    except OSError:
        return
    held[f'{p} {step}'] = fds

def describe(path):
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    out = [kind]
    if not fat:
        out += [st.st_mode]
        if kind != stat.S_IFDIR:
            out += [st.st_nlink]
    if kind == stat.S_IFREG:
        out += [st.st_size, open(path, 'rb').read()]
    elif kind == stat.S_IFLNK:
        out += [os.readlink(path)]
    return out

def tree(root):
    out = {}
    for d, dirs, files in os.walk(root):
        for n in dirs + files:
            p = os.path.join(d, n)
            if os.path.relpath(p, root) != 'lost+found':
                out[os.path.relpath(p, root)] = describe(p)
    return out

for step in range(steps):
    op = rng.choices(choices, weights)[0]
    fn = op()
    a, b = attempt(fn, test), attempt(fn, model)
    if a != b:
        fail(step, f'{op.__name__}: {str(a)[:200]}, and in the model {str(b)[:200]}')
    hold(step)
for a, b in held.values():
    os.close(a)
    os.close(b)
a, b = tree(test), tree(model)
for p in sorted(set(a) | set(b)):
    if a.get(p) != b.get(p):
        fail('end', f'{p}: {str(a.get(p))[:200]}, and in the model {str(b.get(p))[:200]}')
print(f'fsx: seed {seed}: {steps} steps, {len(b)} files alike')
