#!/bin/bash
# rebase, commit, amend, resize: what a disk reads, before and after, by qemu-img's word.
. "$(dirname "$0")/../functions.sh"
requires qemu-img qemu-io python3
qio() { qemu-io "$@" > /dev/null; }
cd "$tmp"

same() { qemu-img compare -q "$@" || fail "differ: $*"; }
same_size() {
    same "$@"
    expect 0 "$VDISK" compare -s "$@"
}
backing() { qemu-img info --output=json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin).get("backing-filename"))'; }

# the image itself holds nothing
empty() {
    qemu-img map --output=json "$1" | python3 -c '
import json, sys
assert all(e["depth"] for e in json.load(sys.stdin) if e.get("present", True))' || fail "$1 is not empty"
    qemu-img check -q "$1" || fail "$1: damaged"
}

setup() {
    rm -f ./*.raw ./*.qcow2
    qemu-img create -q -f raw a.raw 20M
    qio -f raw -c 'write -P 1 0 8M' -c 'write -P 2 15M 1M' a.raw
    qemu-img create -q -f qcow2 b.qcow2 12M
    qio -c 'write -P 1 0 4M' -c 'write -P 6 4M 4M' -c 'write -P 7 10M 1M' b.qcow2
    qemu-img create -q -f qcow2 -b a.raw -F raw mid.qcow2 22M
    qio -c 'write -P 3 5M 1M' -c 'write -z 15M 64k' mid.qcow2
    qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
    qio -c 'write -P 5 20M 1M' -c 'write -P 8 1M 4k' top.qcow2
    qemu-img convert -O raw top.qcow2 want.raw
}

setup
"$VDISK" rebase -b a.raw -F raw top.qcow2	# skip a layer
[ "$(backing top.qcow2)" = a.raw ] || fail "the backing is $(backing top.qcow2)"
same want.raw top.qcow2
qemu-img check -q top.qcow2
# what mid shares with a was not copied (mid's megabyte and a few clusters were)
[ "$(stat -c %b top.qcow2)" -lt 8000 ] || fail "rebase copied too much: $(stat -c %b top.qcow2)"

setup
"$VDISK" rebase -q -b b.qcow2 top.qcow2		# something quite different, and shorter
same want.raw top.qcow2
qemu-img check -q top.qcow2

setup
"$VDISK" rebase -b '' top.qcow2			# nothing
[ "$(backing top.qcow2)" = None ] || fail "there is still a backing file"
rm mid.qcow2
same want.raw top.qcow2

setup
mv mid.qcow2 moved.qcow2			# unsafe: only the name
expect 1 "$VDISK" info --chain top.qcow2
"$VDISK" rebase -u -b moved.qcow2 -F qcow2 top.qcow2
same want.raw top.qcow2
expect 1 "$VDISK" rebase -b none.qcow2 -F qcow2 top.qcow2
same want.raw top.qcow2
expect 2 "$VDISK" rebase top.qcow2

# a longer backing than before must not shine through past the old one's end
setup
qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 long.qcow2 20M
qemu-img convert -O raw long.qcow2 want.raw
"$VDISK" rebase -b a.raw -F raw long.qcow2
same want.raw long.qcow2

# commit into qcow2 and raw; a smaller base grows
setup
"$VDISK" commit top.qcow2
same want.raw mid.qcow2
same want.raw top.qcow2
empty top.qcow2
cp mid.qcow2 before.qcow2
"$VDISK" commit -d mid.qcow2
cmp before.qcow2 mid.qcow2 || fail "commit -d changed the image"
same want.raw a.raw
same want.raw mid.qcow2
"$VDISK" commit mid.qcow2
empty mid.qcow2
same want.raw a.raw
same want.raw mid.qcow2
# with snapshots, compressed and shared clusters in it
setup
qemu-img snapshot -c s mid.qcow2
qemu-img convert -O raw mid.qcow2 snap.raw
qemu-io -f qcow2 -c 'write -c 2M 64k' -c 'write -P 9 3M 100k' -c 'write -z 4M 1M' mid.qcow2 >/dev/null
qemu-img convert -O raw mid.qcow2 want.raw
"$VDISK" commit mid.qcow2
empty mid.qcow2
same want.raw a.raw
same want.raw mid.qcow2
qemu-img convert -l snapshot.name=s -O raw mid.qcow2 got.raw
# (what the snapshot has itself; its holes show the backing file as it is now)
cmp -n 1048576 -i 5242880 snap.raw got.raw || fail "commit: the snapshot changed"
setup
"$VDISK" commit top.qcow2
"$VDISK" commit mid.qcow2
expect 1 "$VDISK" commit a.raw
expect 1 "$VDISK" commit b.qcow2

# info --chain
setup
"$VDISK" info --chain --json top.qcow2 | python3 -c '
import json, sys
c = json.load(sys.stdin)
assert [i["format"] for i in c] == ["qcow2", "qcow2", "raw"], c
assert c[0]["backing-filename"] == "mid.qcow2" and "backing-filename" not in c[2], c'

# resize both ways
"$VDISK" resize top.qcow2 +10M
qemu-img resize -q want.raw -f raw +10M
same want.raw top.qcow2
"$VDISK" resize -y top.qcow2 6M
qemu-img resize -q --shrink -f raw want.raw 6M
same_size want.raw top.qcow2
qemu-img check -q top.qcow2
"$VDISK" resize top.qcow2 8M			# what was cut off does not come back
qemu-img resize -q -f raw want.raw 8M
same_size want.raw top.qcow2
qemu-img check -q top.qcow2

# amend
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 8M
qio -c 'write -P 1 1M 1M' old.qcow2
qemu-img convert -O raw old.qcow2 want.raw
"$VDISK" amend -o compat=1.1 old.qcow2
"$VDISK" amend -o lazy_refcounts=on old.qcow2
qemu-img info old.qcow2 | grep -q 'lazy refcounts: true' || fail "amend"
qemu-img check -q old.qcow2
same want.raw old.qcow2
expect 2 "$VDISK" amend old.qcow2
expect 2 "$VDISK" amend -o nonsense=1 old.qcow2
