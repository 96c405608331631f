#!/bin/bash
# What an image may refer to: --refs none, dir, any, and the default between them.
. "$(dirname "$0")/../functions.sh"
requires qemu-img
mkdir -p "$tmp/in/sub" "$tmp/out"
cd "$tmp/in"
for f in sub/base.raw ../out/base.raw; do head -c 1M /dev/urandom > "$f"; done

# over NAME: an overlay on NAME, without opening it
over() { rm -f over.qcow2; qemu-img create -q -u -f qcow2 -b "$1" -F raw over.qcow2 1M; }
opens() { expect 0 "$VDISK" convert -y "$@" over.qcow2 "$tmp/x.raw"; }
refused() { expect 1 "$VDISK" convert -y "$@" over.qcow2 "$tmp/x.raw"; }

over sub/base.raw
opens; opens --refs dir; opens --refs any; refused --refs none
like_output 'sub/base.raw'
over "$tmp/out/base.raw"
opens; opens --refs any; refused --refs dir; refused --refs none
over ../out/base.raw
refused; opens --refs any; refused --refs dir; refused --refs none
ln -s ../out link
over link/base.raw
refused --refs dir
over sub/../sub/base.raw
refused --refs none

# neither devices nor pipes nor protocols by default; and never a protocol
mkfifo pipe
over "$tmp/in/pipe"
refused; refused --refs any
over /dev/zero
refused
for name in 'json:{"driver":"null-co"}' nbd://127.0.0.1:1/x nbd:127.0.0.1:1 http://127.0.0.1/x \
    ssh://x/y fat:/etc; do
    over "$name"
    for refs in none dir any; do refused --refs $refs; done
    refused
done

# a name with a colon that is only a name
cp sub/base.raw 'a:b.raw'
over ./a:b.raw
opens

# cycles and long chains end
qemu-img create -q -u -f qcow2 -b none.raw -F raw over.qcow2 1M
qemu-img rebase -u -b over.qcow2 -F qcow2 over.qcow2
refused
qemu-img create -q -f qcow2 c0.qcow2 1M
for i in $(seq 1 70); do qemu-img create -q -u -f qcow2 -b "c$((i - 1)).qcow2" -F qcow2 "c$i.qcow2" 1M; done
expect 1 "$VDISK" convert -y c70.qcow2 "$tmp/x.raw"
expect 0 "$VDISK" convert -y c20.qcow2 "$tmp/x.raw"

# the format is what the image states, never what the file looks like
qemu-img create -q -f qcow2 inner.qcow2 1M
cp inner.qcow2 evil.raw		# a guest wrote a qcow2 header into its raw disk
over evil.raw
opens
cmp -n "$(stat -c %s evil.raw)" "$tmp/x.raw" evil.raw || fail "a raw backing file was read as qcow2"

# data files are refs too
qemu-img create -q -f qcow2 -o data_file="$tmp/out/data.bin" ext.qcow2 1M
expect 0 "$VDISK" convert -y ext.qcow2 "$tmp/x.raw"
expect 1 "$VDISK" convert -y --refs dir ext.qcow2 "$tmp/x.raw"
expect 1 "$VDISK" convert -y --refs none ext.qcow2 "$tmp/x.raw"
# info shows what it refers to without opening it
over nbd://127.0.0.1:1/x
expect 0 "$VDISK" info --refs none over.qcow2
like_output 'nbd://'
