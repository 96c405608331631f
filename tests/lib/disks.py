# SPDX-License-Identifier: LGPL-2.1-or-later
"""disks.py - what the tests that make whole disks share"""
import os, shutil, subprocess, sys

vdisk = os.environ['VDISK']
M = 1 << 20

def run(*argv, **kw):
    """The output of a command that must succeed."""
    r = subprocess.run(argv, capture_output=True, text=True, **kw)
    if r.returncode:
        sys.exit(f'{argv}: {r.stdout}{r.stderr}')
    return r.stdout

def have(*names):
    return all(shutil.which(n) for n in names)

def empty(path, size):
    """A new file of holes."""
    if os.path.exists(path):
        os.unlink(path)
    with open(path, 'wb') as f:
        f.truncate(size)

def put(image, path, at):
    """The data of an image, without its holes, into a disk that has holes there."""
    with open(image, 'rb') as src, open(path, 'r+b') as dst:
        size, end = os.fstat(src.fileno()).st_size, 0
        while end < size:
            try:
                start = os.lseek(src.fileno(), end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(src.fileno(), start, os.SEEK_HOLE)
            src.seek(start)
            for pos in range(start, end, M):
                dst.seek(at + pos)
                dst.write(src.read(min(M, end - pos)))
