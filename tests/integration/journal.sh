#!/bin/bash
# File systems whose journal needs replay: never read stale, never written stale, and
# replayed to what e2fsck makes of them.
. "$(dirname "$0")/../functions.sh"
requires mke2fs e2fsck debugfs

img=$tmp/img
# fill TEXT: a block full of it
fill() { python3 -c 'import sys; sys.stdout.write(((sys.argv[1] + "\n") * 4096)[:4096])' "$1"; }
# debugfs COMMAND...: each in one session
dbg() { printf '%s\n' "$@" | debugfs -w -f /dev/stdin "$img" >"$tmp/dbg" 2>&1; }
block() { dd if="$img" bs=4096 skip="$1" count=1 status=none; }
# an image with files a, b, c of one block each, at $a, $b, $c, and a free block $free
fresh() {
    rm -f "$img"
    mke2fs -q -F -t ext4 -b 4096 -J size=4 "$@" "$img" 40M >/dev/null 2>&1
    for f in a b c; do
        fill "old $f" >"$tmp/$f"
        dbg "write $tmp/$f $f"
    done
    a=$(debugfs -R 'bmap /a 0' "$img" 2>/dev/null)
    b=$(debugfs -R 'bmap /b 0' "$img" 2>/dev/null)
    c=$(debugfs -R 'bmap /c 0' "$img" 2>/dev/null)
    free=9000
}
for f in a b c; do fill "new $f" >"$tmp/new-$f"; done
fill "newer a" >"$tmp/newer-a"
# a block that looks like one of the journal's own
{ printf '\xc0\x3b\x39\x98\0\0\0\1'; head -c 4088 /dev/urandom; } >"$tmp/escape"
cat "$tmp/new-a" "$tmp/new-b" >"$tmp/new-ab"
reads() { "$VDISK" cat "$img:/$1" | cmp -s - "$2"; }
# after all: what we make of the image is what e2fsck makes of it
as_e2fsck() {
    cp "$img" "$tmp/ref"
    e2fsck -fy "$tmp/ref" >/dev/null 2>&1 || [ $? = 1 ] || fail "e2fsck on the reference"
    "$VDISK" mkdir "$img:/we-were-here" || fail "$1: writing"
    e2fsck -fn "$img" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "$1: e2fsck after our replay"; }
    ! grep -i 'count wrong' "$tmp/fsck" || fail "$1: free counts after our replay"
    for f in a b c; do
        cmp <(debugfs -R "cat /$f" "$tmp/ref" 2>/dev/null) <(debugfs -R "cat /$f" "$img" 2>/dev/null) ||
            fail "$1: /$f is not what e2fsck makes of it"
    done
    for f in "$free" $((free + 1)); do
        cmp <(dd if="$tmp/ref" bs=4096 skip="$f" count=1 status=none) <(block "$f") ||
            fail "$1: block $f is not what e2fsck makes of it"
    done
    debugfs -R 'show_super_stats -h' "$img" 2>/dev/null | grep -q needs_recovery &&
        fail "$1: still marked for recovery"
    return 0
}

# without checksums, with those of version 1, 2 and 3, of 32 and of 64 bits
for kind in "-O ^metadata_csum,^64bit|jo" "-O ^metadata_csum,^64bit|jo -c" \
    "-O 64bit,metadata_csum|jo -c -v 3" "-O 64bit,metadata_csum|jo -c -v 2" \
    "-O ^64bit,metadata_csum|jo -c -v 2" "-O ^64bit,metadata_csum|jo -c -v 3"; do
    open=${kind#*|}
    kind=${kind%|*}
    name="$kind, $open"
    # shellcheck disable=SC2086 # words
    fresh $kind
    # two transactions, the second over the first; an escaped block; one that is revoked
    # after it was logged; and one that was never committed
    # (debugfs counts revoke blocks into checksums of version 1, the kernel does not)
    revoke="jw -r $((free + 1))"
    case $name in *^metadata_csum*-c*) revoke= ;; esac
    dbg "$open" "jw -b $a,$b $tmp/new-ab" "jw -b $a $tmp/newer-a" "jw -b $free $tmp/escape" \
        "jw -b $((free + 1)) $tmp/new-c" "$revoke" "jw -c -b $c $tmp/new-c" jc
    grep -qiE 'error|invalid|unsupported|bad' "$tmp/dbg" && { echo "debugfs: no $name"; continue; }
    debugfs -R 'show_super_stats -h' "$img" 2>/dev/null | grep -q needs_recovery ||
        fail "$name: the test made no dirty journal"
    sum=$(sha256sum <"$img")
    reads a "$tmp/newer-a" || fail "$name: /a was read stale"
    reads b "$tmp/new-b" || fail "$name: /b was read stale"
    reads c "$tmp/c" || fail "$name: an uncommitted transaction was replayed"
    [ "$(sha256sum <"$img")" = "$sum" ] || fail "$name: reading wrote into the image"
    as_e2fsck "$name"
    reads a "$tmp/newer-a" || fail "$name: /a after the replay"
    block "$free" | cmp -s - "$tmp/escape" || fail "$name: the escaped block"
    [ -z "$revoke" ] || ! block $((free + 1)) | cmp -s - "$tmp/new-c" || fail "$name: a revoked block was replayed"
    echo "$name: ok"
done

# the superblock's free counts, which a kernel writes only at unmount, are not believed
fresh
want=$("$VDISK" df --json "$img")
for n in 0 1 4294967295; do
    dbg "jo" "jw -b $a $tmp/new-a" jc
    dbg "set_super_value free_blocks_count $n" "set_super_value free_inodes_count $n"
    [ "$("$VDISK" df --json "$img")" = "$want" ] || fail "df believes in $n free blocks"
    as_e2fsck "free count of $n"
    "$VDISK" rm -r "$img:/we-were-here"
done

# many transactions, until the log has run around its end
fresh
for i in 1 2 3 4; do
    head -c $((200 * 4096)) /dev/urandom >"$tmp/many"
    blocks=$(seq -s, "$free" $((free + 199)))
    dbg jo "jw -b $blocks $tmp/many" "jw -b $a $tmp/new-a" jc
    "$VDISK" cat "$img:/a" >/dev/null || fail "round $i"
    as_e2fsck "round $i"
    block $((free + 100)) | cmp -s - <(dd if="$tmp/many" bs=4096 skip=100 count=1 status=none) ||
        fail "round $i: a block"
    "$VDISK" rm -r "$img:/we-were-here"
done

# damage: every byte of what was logged may be wrong; then nothing is read and nothing written
fresh -O metadata_csum
dbg "jo -c -v 3" "jw -b $a,$b $tmp/new-ab" "jw -b $c $tmp/new-c" jc
start=$(debugfs -R 'bmap <8> 1' "$img" 2>/dev/null)
cp "$img" "$tmp/whole"
refused=0
for n in 0 1 2 3 4 5 6; do
    for at in 8 20 500; do
        cp "$tmp/whole" "$img"
        printf '\xa5' | dd of="$img" bs=1 seek=$((((start + n) * 4096) + at)) conv=notrunc status=none
        sum=$(sha256sum <"$img")
        if "$VDISK" cat "$img:/a" >"$tmp/got" 2>"$tmp/err"; then
            # where a block is not recognised any more the log is just shorter
            cmp -s "$tmp/got" "$tmp/a" || cmp -s "$tmp/got" "$tmp/new-a" || fail "garbage was read"
        else
            refused=$((refused + 1))
            expect 1 "$VDISK" mkdir "$img:/no"
            [ "$(sha256sum <"$img")" = "$sum" ] || fail "a damaged journal was written to"
        fi
    done
done
[ $refused -ge 6 ] || fail "only $refused of the damaged journals were refused"

# the superblock of the journal
for at in 12 16 20 28 40 252; do
    cp "$tmp/whole" "$img"
    sb=$(debugfs -R 'bmap <8> 0' "$img" 2>/dev/null)
    printf '\xff' | dd of="$img" bs=1 seek=$((sb * 4096 + at)) conv=notrunc status=none
    expect 1 "$VDISK" cat "$img:/a"
    like_output 'journal'
done

# an external journal is refused by name
rm -f "$img" "$tmp/jdev"
mke2fs -q -F -O journal_dev -b 4096 "$tmp/jdev" 8M >/dev/null 2>&1
fresh
dbg 'feature needs_recovery' 'ssv journal_inum 0' 'ssv journal_dev 0x801'
expect 1 "$VDISK" ls "$img:/"
like_output 'another device'

# deleted files that were open when the machine stopped
fresh
debugfs -w -R 'sif /a links_count 0' "$img" >/dev/null 2>&1
ino=$(debugfs -R 'stat /a' "$img" 2>/dev/null | sed -n 's/^Inode: \([0-9]*\).*/\1/p')
dbg "unlink /a" "ssv last_orphan $ino"
"$VDISK" ls "$img:/" >/dev/null || fail "reading with orphans"
"$VDISK" mkdir "$img:/d" || fail "writing with orphans"
e2fsck -fn "$img" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "orphans"; }
