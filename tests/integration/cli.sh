#!/bin/bash
# Every command answers --help, refuses nonsense with status 2, and is in the man page.
. "$(dirname "$0")/../functions.sh"

commands=$("$VDISK" --help | sed -n 's/^  \([a-z][a-z0-9-]*\) .*/\1/p')
[ "$(wc -w <<< "$commands")" -ge 13 ] || fail "the table of commands is short: $commands"

for c in $commands; do
    expect 0 "$VDISK" "$c" --help
    like_output "^Usage: vdisk $c"
    expect 0 "$VDISK" "$c" -h
    # (kpartx ends as its namesake does)
    expect "$([ "$c" = kpartx ] && echo 1 || echo 2)" "$VDISK" "$c" --no-such-option
    like_output "$c"
    # an option or subcommand that is documented is one line of "what it does" in --help
    grep -qE "^\.It (Cm|Xo Cm|Ic) $c( |\$)" "$TOP/docs/vdisk.1" ||
        fail "docs/vdisk.1 says nothing of '$c'"
    grep -qw "$c" "$TOP/docs/vdisk.bash" || fail "docs/vdisk.bash does not know '$c'"
done

expect 0 "$VDISK" --version
like_output '^vdisk [0-9]+\.[0-9]+'
expect 2 "$VDISK"
expect 2 "$VDISK" frobnicate
like_output "no command 'frobnicate'"

# Data goes to stdout and messages to stderr; a full disk is noticed.
"$VDISK" create "$tmp/a.raw" 1M
[ -z "$("$VDISK" info "$tmp/none" 2> /dev/null)" ] || fail "a message on stdout"
expect 1 bash -c "'$VDISK' info '$tmp/a.raw' > /dev/full"
expect 2 "$VDISK" create "$tmp/b.raw" 12X
like_output 'not a size'
[ ! -e "$tmp/b.raw" ] || fail "wrong usage made a file"

# What destroys data asks, and without a terminal does not happen.
echo data > "$tmp/keep.raw"
expect 1 "$VDISK" create "$tmp/keep.raw" 1M
like_output 'without -y'
[ "$(cat "$tmp/keep.raw")" = data ] || fail "create overwrote a file without asking"
expect 0 "$VDISK" create -y "$tmp/keep.raw" 1M
expect 1 "$VDISK" resize "$tmp/keep.raw" 512K
expect 0 "$VDISK" resize -y "$tmp/keep.raw" -512K
[ "$(stat -c %s "$tmp/keep.raw")" = 524288 ] || fail "resize -512K"
expect 0 "$VDISK" resize "$tmp/keep.raw" +1M
[ "$(stat -c %s "$tmp/keep.raw")" = 1572864 ] || fail "resize +1M"

# On a terminal it asks.
if command -v script > /dev/null; then
    echo data > "$tmp/keep.raw"
    echo n | script -qec "'$VDISK' create '$tmp/keep.raw' 1M" /dev/null > "$tmp/out" && fail "no is yes"
    grep -q 'go on?' "$tmp/out" || fail "it did not ask: $(cat "$tmp/out")"
    [ "$(cat "$tmp/keep.raw")" = data ] || fail "no was taken as yes"
    echo y | script -qec "'$VDISK' create '$tmp/keep.raw' 1M" /dev/null > "$tmp/out" || fail "yes is no"
    [ "$(stat -c %s "$tmp/keep.raw")" = 1048576 ] || fail "yes was taken as no"
fi

# what cannot be made is not made as something else
expect 2 "$VDISK" create "$tmp/name.vhdx" 1M
like_output 'not made by vdisk'
[ ! -e "$tmp/name.vhdx" ] || fail 'a raw disk called vhdx'
"$VDISK" create -q -f raw "$tmp/name.vhdx" 8M
"$VDISK" mkfs "$tmp/name.vhdx" > /dev/null 2>&1
expect 1 "$VDISK" cp /etc/passwd "$tmp/name.vhdx:/missing/"
like_output 'not a directory'
expect 1 "$VDISK" stat "$tmp/name.vhdx:/missing"
